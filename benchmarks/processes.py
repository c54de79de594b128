"""The processes that are measured: they take turns.

Each holds one model and does what it is asked for (serve.py). Whatever else the
machine does then falls on all of them, and ratios are of the same round.
"""

import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from adapter_bert.base import errors

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Process(object):
  """A model in a process of its own.

  Args:
    name: str, of its row.
    setup: dict, the first request of serve.py.
    root: str, the checkout whose code it runs.
    python: str, the Python that runs it.
    cores: int, on so many cores, and with so many threads; None: all. Where
      others work too, one thread says most: those of a pool wait for each other
      by turning, which counts as processor time.

  Attributes:
    start_seconds, start_cpu_seconds: floats, from nothing to before the first
      step; the latter is the processor time of all threads, None if unknown.
    imported_bytes: int, its memory after the imports, before the model; or None.
    lacking: str or None, why it cannot be measured.
  """

  def __init__(self, name, setup, root=ROOT, python=sys.executable,
               cores=None):
    self.name = name
    self.lacking = self.start_cpu_seconds = self.imported_bytes = None
    began = time.monotonic()
    self._log = tempfile.TemporaryFile("w+")
    self._process = subprocess.Popen(
        [python, "-m", "benchmarks.serve"], cwd=root, text=True,
        preexec_fn=functools.partial(_keep_to, cores) if cores else None,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
    try:
      reply = self.ask(setup)
      self.start_cpu_seconds = reply.get("cpu_seconds")
      self.imported_bytes = reply.get("imported_bytes")
    except errors.InputError as error:
      # Ours must start; a peer is an extra.
      if setup["module"].startswith("ours"):
        raise
      self.lacking = str(error)
    self.start_seconds = time.monotonic() - began

  def ask(self, request):
    """Sends a request of serve.py and returns the reply.

    Raises: InputError if the process has died.
    """
    try:
      self._process.stdin.write(json.dumps(request) + "\n")
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ""
    if line:
      return json.loads(line)
    status = self._process.wait()
    self._log.seek(0)
    last = self._log.read().strip().rpartition("\n")[2]
    raise errors.InputError("it ended with status %s%s" % (
        status, ": " + last if last else "; did memory run out?"))

  def close(self):
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()


def _keep_to(cores):
  """Keeps this process, and the pools it makes, to so many cores."""
  mine = sorted(os.sched_getaffinity(0))
  first = os.getpid() % len(mine)
  os.sched_setaffinity(0, (mine[first:] + mine[:first])[:cores])


def take_turns(processes, requests, rounds):
  """Lets the processes take turns.

  Args:
    processes: list of Process.
    requests: dict of a process's name -> its request of serve.py.
    rounds: int.

  Returns: dict of the name -> one reply for each round; a further one, the
    first, is of the warming up.
  """
  replies = {process.name: [] for process in processes}
  for number in range(rounds + 1):
    for process in processes:
      replies[process.name].append(
          process.ask(dict(requests[process.name], warm=number == 0)))
  return replies


def ratio(ours, others):
  """The median over the rounds of how many times as much ours is."""
  return statistics.median(a / b for a, b in zip(ours, others))
