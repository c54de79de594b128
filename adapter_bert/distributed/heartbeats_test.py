"""Real processes that die, or come twice, and are noticed."""

import os
import re
import signal
import socket
import time

import pytest

from adapter_bert.distributed import test_util
from adapter_bert.distributed.test_util import HANG, LOST_AFTER, MARK, ended


@pytest.fixture(name="processes")
def fixture_processes(tmp_path):
  with test_util.processes_in(tmp_path) as processes:
    yield processes


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


# As when TensorFlow reports a broken connection, once a test wants it.
BREAK = ("c.meet(); " + MARK % "met" + """
while not os.path.exists(os.path.join(argv[1], "go")):
  time.sleep(.05)
c.signs.stop_for(ValueError("of TensorFlow"))
""")


def go(processes):
  with open(os.path.join(processes.output_dir, "go"), "w", encoding="ascii"):
    pass


def test_the_broken_connection_of_a_killed_one(processes):
  both = [processes.start(index, code, lost_after=60)
          for index, code in enumerate((BREAK, HANG))]
  processes.until("met")
  both[1].kill()
  both[1].wait()
  go(processes)
  # Before lost_after, or the line would be another.
  assert ended(both[0]) == (
      "error: worker 0: worker 1 (process %d on %s) is lost: the connection to it "
      "broke, and at localhost:%d it cannot be reached (Connection refused); "
      "start all processes again, with the same commands, to go on from the last "
      "checkpoint" % (both[1].pid, socket.gethostname(), processes.ports[1]))


def test_a_broken_connection_though_all_ports_answer(processes):
  both = [processes.start(index, code, lost_after=60)
          for index, code in enumerate((BREAK, HANG))]
  processes.until("met")
  with socket.create_server(("localhost", processes.ports[1])):
    go(processes)
    line = ended(both[0])
  assert "one of the other processes is lost" in line
  assert "(ValueError; " in line and "the same commands" in line


def test_a_broken_connection_of_one_that_said_why(processes):
  both = [processes.start(index, code, lost_after=60) for index, code in
          enumerate((BREAK, "c.meet(); raise errors.InputError('it is full')"))]
  go(processes)
  assert ended(both[0]) == "error: worker 0: worker 1 stopped: it is full"
  assert ended(both[1]) == "error: it is full"


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


def test_a_directory_that_cannot_be_written(processes, tmp_path):
  (tmp_path / "cluster").write_text("")
  assert "cluster" in ended(processes.start(0, "c.meet()"))
