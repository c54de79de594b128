"""Real processes that meet, for the tests here."""

import contextlib
import json
import os
import subprocess
import sys
import time

from adapter_bert.distributed import local_processes
from adapter_bert.test_util import ROOT

# A process of a run; what it does once it is in it is its last argument.
PROCESS = """
import os, sys, time
sys.path.insert(0, %r)
import numpy as np
from adapter_bert.base import errors
from adapter_bert.distributed import meeting, tf_config
def main(argv):
  place = tf_config.parse(os.environ["TF_CONFIG"])
  with meeting.Meeting(place, argv[1], float(argv[2]), float(argv[3])) as c:
    exec(argv[4], dict(globals(), c=c, argv=argv))
errors.run(main)
""" % ROOT

# Long enough for a busy machine, short enough to wait for.
LOST_AFTER = 4


class Processes(object):
  """Processes of one run."""

  def __init__(self, output_dir):
    self.output_dir = str(output_dir)
    self.ports = local_processes.free_ports(3)
    self.started = []

  def start(self, index, code, start_timeout=60, workers=2,
            lost_after=LOST_AFTER):
    config = json.dumps({
        "cluster": {"worker": [
            "localhost:%d" % port for port in self.ports[:workers]]},
        "task": {"type": "worker", "index": index}})
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


@contextlib.contextmanager
def processes_in(output_dir):
  """Processes, none of which is left at the end."""
  processes = Processes(output_dir)
  try:
    yield processes
  finally:
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
