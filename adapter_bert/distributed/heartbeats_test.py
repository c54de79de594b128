"""TF_CONFIG, and real processes that meet, talk, die and are missed."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from adapter_bert.distributed import cluster
from adapter_bert.base import errors
from adapter_bert.distributed import launch_local
from adapter_bert import test_util

ROOT = test_util.ROOT

# A process of a cluster; what it does once it is in it is its last argument.
PROCESS = """
import os, sys, time
sys.path.insert(0, %r)
import numpy as np
from adapter_bert.base import errors
from adapter_bert.distributed import cluster
def main(argv):
  place = cluster.place_from_tf_config(os.environ["TF_CONFIG"])
  with cluster.Cluster(place, argv[1], float(argv[2]), float(argv[3])) as c:
    exec(argv[4], dict(globals(), c=c, argv=argv))
errors.run(main)
""" % ROOT

# Long enough for a busy machine, short enough to wait for.
LOST_AFTER = 4


def tf_config(kind="worker", index=0, **cluster_of):
  return json.dumps({
      "cluster": cluster_of or {"worker": ["a:1", "b:2", "c:3"]},
      "task": {"type": kind, "index": index}})


class Processes(object):
  """Processes of one cluster; those that a test leaves are killed."""

  def __init__(self, output_dir):
    self.output_dir = str(output_dir)
    self.ports = launch_local.free_ports(3)
    self.started = []

  def start(self, index, code, start_timeout=60, workers=2,
            lost_after=LOST_AFTER):
    config = tf_config(index=index, worker=[
        "localhost:%d" % port for port in self.ports[:workers]])
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, self.output_dir, str(start_timeout),
         str(lost_after), code],
        env=dict(os.environ, TF_CONFIG=config), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    self.started.append(process)
    return process

  def until(self, name):
    """Waits for a file that a process makes."""
    path = os.path.join(self.output_dir, name)
    for _ in range(600):
      if os.path.exists(path):
        return
      time.sleep(0.05)
    raise AssertionError("%s did not come" % path)


@pytest.fixture(name="processes")
def fixture_processes(tmp_path):
  processes = Processes(tmp_path)
  yield processes
  for process in processes.started:
    process.kill()
    process.wait()


def ended(process, status=1):
  """The line that a process ended with."""
  _, stderr = process.communicate(timeout=120)
  lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
  assert process.returncode == status, stderr
  assert len(lines) == (1 if status else 0), stderr
  assert "Traceback" not in stderr, stderr
  return lines[0] if lines else ""


MARK = "open(os.path.join(argv[1], %r), 'w').close()"
HANG = "c.meet(); " + MARK % "met" + "; time.sleep(100)"


# ----------------------------------------------------------------- TF_CONFIG


def test_places():
  place = cluster.place_from_tf_config(tf_config(index=1))
  assert (place.name, place.rank, place.is_chief, place.address) == (
      "worker 1", 1, False, "b:2")
  assert cluster.place_from_tf_config(tf_config()).is_chief
  with_chief = dict(chief=["a:1"], worker=["b:2", "c:3"])
  place = cluster.place_from_tf_config(tf_config("worker", "0", **with_chief))
  assert (place.name, place.rank, place.is_chief) == ("worker 0", 1, False)
  assert place.names == ("chief", "worker 0", "worker 1")
  assert cluster.place_from_tf_config(
      tf_config("chief", 0, **with_chief)).is_chief
  assert cluster.place_from_tf_config(
      tf_config(worker=["[::1]:2222"])).address == "[::1]:2222"


@pytest.mark.parametrize("text,words", [
    (None, ["not set", '"cluster"']),
    ("{'cluster'", ["not JSON", "{'cluster'"]),
    ("[]", ["object", "[]"]),
    ('{"task": {"type": "worker", "index": 0}}', ['needs "cluster"', "null"]),
    ('{"cluster": {"worker": ["a:1"]}}', ['needs "task"']),
    (tf_config("evaluator"), ["task.type", "worker", "evaluator"]),
    (tf_config("chief"), ["task.type", "worker", "chief"]),
    (tf_config(index=3), ["task.index", "0 to 2", "3"]),
    (tf_config(index=-1), ["task.index", "-1"]),
    (tf_config(index="one"), ["task.index", "one"]),
    (tf_config(index=True), ["task.index", "true"]),
    (tf_config(worker=["a:1"], ps=["b:2"]), ["ps", "chief", "worker"]),
    (tf_config(worker="a:1"), ["cluster.worker", "list", "a:1"]),
    (tf_config(worker=[]), ["cluster.worker", "list"]),
    (tf_config(worker=["a"]), ["host:port", '"a"']),
    (tf_config(worker=["a:0"]), ["port", "a:0"]),
    (tf_config(worker=["a:70000"]), ["65535", "a:70000"]),
    (tf_config(worker=["http://a:1"]), ["host:port", "http"]),
    (tf_config(worker=["a:1", "b:2", "a:1"]), ["twice", "a:1"]),
    (tf_config(chief=["a:1", "b:2"], worker=["c:3"]), ["chief", "one"]),
])
def test_what_is_wrong_in_tf_config(text, words):
  with pytest.raises(errors.InputError) as caught:
    cluster.place_from_tf_config(text)
  line = str(caught.value)
  assert "TF_CONFIG" in line and "\n" not in line
  for word in words:
    assert word in line, line


def test_first_difference():
  differ = cluster.first_difference
  assert differ({"a": 1, "b": {"c": [2]}}, {"b": {"c": [2]}, "a": 1}) is None
  assert differ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}) == (
      "b.c", 2, 3)
  assert differ({"a": 1}, {}) == ("a", 1, None)


# ------------------------------------------------------- talking to each other


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


def test_an_error_before_the_meeting_reaches_all(processes):
  chief = processes.start(0, "c.meet()")
  processes.until("cluster/worker-0.json")
  failing = processes.start(
      1, "time.sleep(1); raise errors.InputError('no such file')")
  ended(failing)
  assert "worker 1 stopped: no such file" in ended(chief)


# ----------------------------------------------------------------- the faults


@pytest.mark.parametrize("victim", [
    1, pytest.param(0, marks=pytest.mark.slow)])
def test_one_that_is_killed_is_missed(processes, victim):
  both = [processes.start(index, HANG) for index in (0, 1)]
  processes.until("met")
  time.sleep(1)
  both[victim].send_signal(signal.SIGKILL)
  line = ended(both[1 - victim])
  for word in ("worker %d (process %d" % (victim, both[victim].pid), "is lost",
               "the same commands"):
    assert word in line, line
  silence = int(re.search(r"no sign of it for (\d+) s", line).group(1))
  assert LOST_AFTER <= silence < 60


@pytest.mark.slow
def test_a_third_one_learns_of_it_through_the_chief(processes):
  three = [processes.start(index, HANG, workers=3) for index in range(3)]
  processes.until("met")
  time.sleep(1)
  three[1].kill()
  assert "error: worker 0: worker 1 (process" in ended(three[0])
  line = ended(three[2])
  assert "worker 0 stopped: worker 1 (process" in line and "lost" in line


@pytest.mark.slow
def test_one_that_is_only_slow_is_not_missed(processes):
  code = "c.meet(); time.sleep(%g)" % (2 * LOST_AFTER)
  both = [processes.start(index, code) for index in (0, 1)]
  for process in both:
    ended(process, 0)


@pytest.mark.slow
def test_one_that_starts_late_is_waited_for(processes):
  chief = processes.start(0, "c.meet()")
  time.sleep(LOST_AFTER + 1)
  worker = processes.start(1, "c.meet()")
  ended(chief, 0), ended(worker, 0)


@pytest.mark.parametrize("there", [0, 1])
def test_one_that_never_starts(processes, there):
  process = processes.start(there, "c.meet()", start_timeout=2)
  line = ended(process)
  assert "worker %d did not start within 2 s (start_timeout)" % (1 - there) in (
      line)


@pytest.mark.slow
def test_what_the_dead_left_does_not_count(processes):
  both = [processes.start(index, HANG) for index in (0, 1)]
  processes.until("met")
  for process in both:
    process.kill()
    process.wait()
  # The files are still there, "running" as they were.
  chief = processes.start(0, "c.meet()", start_timeout=2)
  assert "worker 1 did not start" in ended(chief)
  again = [processes.start(index, "c.meet()") for index in (1, 0)]
  for process in again:
    ended(process, 0)


@pytest.mark.slow
def test_one_that_is_started_again_alone(processes):
  # The new one shows itself before the old one is missed.
  both = [processes.start(index, HANG, lost_after=15) for index in (0, 1)]
  processes.until("met")
  both[1].kill()
  both[1].wait()
  again = processes.start(1, "c.meet()", start_timeout=3, lost_after=15)
  line = ended(both[0])
  assert "worker 1, or it was started again" in line
  assert "start all of them" in line
  assert "worker 0 did not start" in ended(again)


@pytest.mark.slow
def test_survivors_of_an_earlier_life_do_not_count(processes):
  """A worker that still hangs in a run whose chief was killed and replaced."""
  both = [processes.start(index, HANG, lost_after=15) for index in (0, 1)]
  processes.until("met")
  both[0].kill()
  both[0].wait()
  chief = processes.start(0, "c.meet()", lost_after=15)
  assert "worker 0, or it was started again" in ended(both[1])
  worker = processes.start(1, "c.meet()", lost_after=15)
  ended(chief, 0), ended(worker, 0)


def test_two_with_the_same_index_before_the_meeting(processes):
  chief = processes.start(0, "c.meet()", workers=3)
  twins = [processes.start(1, "c.meet()", workers=3) for _ in range(2)]
  for twin in twins:
    line = ended(twin)
    assert "two processes run as worker 1" in line
    for pid in (process.pid for process in twins):
      assert "process %d on " % pid in line
  assert "two processes run as worker 1" in ended(chief)


@pytest.mark.slow
def test_a_second_one_does_not_disturb_a_run(processes):
  code = ("c.meet(); " + MARK % "met" + "\n"
          "while not os.path.exists(os.path.join(argv[1], 'end')):\n"
          "  time.sleep(.1)")
  both = [processes.start(index, code, lost_after=15) for index in (0, 1)]
  processes.until("met")
  line = ended(processes.start(1, "c.meet()", lost_after=15))
  assert "two processes run as worker 1" in line and str(both[1].pid) in line
  with open(os.path.join(processes.output_dir, "end"), "w", encoding="ascii"):
    pass
  for process in both:
    ended(process, 0)


@pytest.mark.slow
def test_one_that_comes_back_leaves_the_new_run_alone(processes):
  old = processes.start(1, HANG)
  chief = processes.start(0, HANG)
  processes.until("met")
  os.remove(os.path.join(processes.output_dir, "met"))
  old.send_signal(signal.SIGSTOP)
  chief.kill()
  chief.wait()
  # Until the new run has met and made its mark.
  code = ("c.meet(); c.barrier('met'); " + MARK % "met" +
          "; time.sleep(%d)" % (2 * LOST_AFTER))
  both = [processes.start(index, code) for index in (0, 1)]
  processes.until("met")
  old.send_signal(signal.SIGCONT)
  assert "process %d on" % both[1].pid in ended(old)
  for process in both:
    ended(process, 0)


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


def test_a_directory_that_cannot_be_written(processes, tmp_path):
  (tmp_path / "cluster").write_text("")
  assert "cluster" in ended(processes.start(0, "c.meet()"))
