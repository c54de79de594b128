"""Real processes that meet and ask each other."""

import os

import pytest

from adapter_bert.distributed import meeting
from adapter_bert.distributed import test_util
from adapter_bert.distributed.test_util import MARK, ended


@pytest.fixture(name="processes")
def fixture_processes(tmp_path):
  with test_util.processes_in(tmp_path) as processes:
    yield processes


def test_three_processes_meet_agree_and_gather(processes, tmp_path):
  code = """
c.meet()
rank = c.place.rank
assert c.decide("number", lambda: 7 + rank) == 7
c.barrier("one")
c.same({"flag": 1})
parts = c.gather({"x": np.full([rank + 1], rank)})
if rank:
  assert parts is None
else:
  assert [list(p["x"]) for p in parts] == [[0], [1, 1], [2, 2, 2]]
assert c.decide("again", lambda: [rank]) == [0]
"""
  for index in (2, 0, 1):
    processes.start(index, code, workers=3)
  for process in processes.started:
    ended(process, 0)
  assert sorted(os.listdir(str(tmp_path / "cluster"))) == [
      "worker-0.json", "worker-1.json", "worker-2.json"]


def test_a_barrier_waits_for_all(processes, tmp_path):
  first = processes.start(0, "c.meet(); c.barrier('b'); " + MARK % "through")
  second = processes.start(1, "c.meet(); time.sleep(1.5); assert not "
                           "os.path.exists(argv[1] + '/through'); "
                           "c.barrier('b')")
  ended(first, 0), ended(second, 0)
  assert (tmp_path / "through").exists()


def test_what_differs_is_named(processes):
  code = "c.meet(); c.same({'rate': %s, 'size': 3}); time.sleep(100)"
  chief = processes.start(0, code % 0.1)
  worker = processes.start(1, code % 0.2)
  for process in (worker, chief):
    line = ended(process)
    for word in ("rate is 0.1 on worker 0 and 0.2 on worker 1", "same flags"):
      assert word in line, line


def test_processes_that_go_different_ways_are_stopped(processes):
  both = [processes.start(index, "c.meet(); c.barrier('%s')" % what)
          for index, what in enumerate(("train", "evaluate"))]
  lines = [ended(process) for process in both]
  assert any("(%s)" % here in line and "at %s;" % there in line
             for line, here, there in zip(lines, ("train", "evaluate"),
                                          ("evaluate", "train"))), lines


def test_the_first_error_reaches_all(processes):
  chief = processes.start(0, "c.meet(); time.sleep(100)", workers=3)
  other = processes.start(1, "c.meet(); time.sleep(100)", workers=3)
  failing = processes.start(
      2, "c.meet(); raise errors.InputError('the disk is full')", workers=3)
  assert ended(failing) == "error: the disk is full"
  assert ended(chief) == (
      "error: worker 0: worker 2 stopped: the disk is full")
  assert ended(other) == ("error: worker 1: worker 0 stopped: worker 2 "
                          "stopped: the disk is full")


def test_a_signal_to_all_is_an_orderly_end(processes):
  both = [processes.start(
      index, "c.meet(); raise errors.Interrupted('after step 3', 143)")
          for index in (0, 1)]
  for process in both:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 143 and "error: " not in stderr, stderr
    assert stderr.splitlines()[-1] == "after step 3"


def test_an_error_before_the_meeting_reaches_all(processes):
  chief = processes.start(0, "c.meet()")
  processes.until("cluster/worker-0.json")
  failing = processes.start(
      1, "time.sleep(1); raise errors.InputError('no such file')")
  ended(failing)
  assert "worker 1 stopped: no such file" in ended(chief)


def test_first_difference():
  differ = meeting.first_difference
  assert differ({"a": 1, "b": {"c": [2]}}, {"b": {"c": [2]}, "a": 1}) is None
  assert differ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}) == (
      "b.c", 2, 3)
  assert differ({"a": 1}, {}) == ("a", 1, None)


def test_one_that_cannot_be_reached_is_named(processes):
  # Both have met, but nothing listens to the ports of their TF_CONFIG.
  both = [processes.start(index, "c.meet(); c.reach_all()")
          for index in (0, 1)]
  lines = [ended(process) for process in both]
  assert any("cannot reach worker %d at localhost:%d (in TF_CONFIG): "
             "Connection refused" % (i, processes.ports[i]) in lines[1 - i]
             for i in range(2)), lines


def test_those_that_can_be_reached_are(processes):
  code = """
import socket
with socket.create_server(("localhost", int(c.place.address.split(":")[1]))):
  c.meet()
  c.reach_all()
  c.barrier("reached")
"""
  for index in (0, 1):
    processes.start(index, code)
  for process in processes.started:
    ended(process, 0)
