"""Processes on this machine that are one run: started, watched, ended."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import logging

from adapter_bert.distributed import cores
from adapter_bert.distributed import heartbeats

# What a process that was told to end may take for it.
_SECONDS_TO_END = 10


def free_ports(count):
  """A list of `count` ports that nothing on this machine listens to."""
  sockets = [socket.socket() for _ in range(count)]
  try:
    for each in sockets:
      each.bind(("", 0))
    return [each.getsockname()[1] for each in sockets]
  finally:
    for each in sockets:
      each.close()


class Launcher(object):
  """The processes, from their start to the last one's end.

  Args:
    command: list of str; each process runs it.
    workers: int.
    split_cores: bool.
    grace: seconds from the first failure to the end of the others.
  """

  def __init__(self, command, workers, split_cores=True, grace=60):
    self._command = command
    self._workers = workers
    self._shares = (cores.shares(workers) if split_cores else
                    [None] * workers)
    self._grace = grace
    self._status = 0  # of the first to fail
    self._deadline = None  # when the others are ended
    self._running = {}
    self._threads = []

  def start(self):
    addresses = ["localhost:%d" % port for port in free_ports(self._workers)]
    for index in range(self._workers):
      if self._status:
        return  # A signal came.
      config = {"cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index}}
      # A session of its own: Ctrl-C in the terminal reaches it through us, and
      # once.
      process = subprocess.Popen(
          self._command, env=dict(os.environ, TF_CONFIG=json.dumps(config),
                                  **{heartbeats.LIFELINE: "1"}),
          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
          stderr=subprocess.PIPE, start_new_session=True)
      cores.restrict(self._shares[index], process.pid)
      self._running["worker %d" % index] = process
      for source, target in ((process.stdout, sys.stdout),
                             (process.stderr, sys.stderr)):
        thread = threading.Thread(
            target=_copy, args=("[worker %d] " % index, source, target))
        thread.start()
        self._threads.append(thread)

  def pass_on(self, number):
    """Sends a signal to all; those that do not end by it are killed.

    They have the grace for a last checkpoint; after a second signal, less.
    """
    for process in self._running.values():
      process.send_signal(number)
    self._deadline = time.monotonic() + (
        _SECONDS_TO_END if self._status else self._grace)
    self._status = self._status or 128 + number

  def wait(self):
    """Returns the exit status: 0 if all have ended with it."""
    while self._running:
      for name, process in list(self._running.items()):
        if process.poll() is not None:
          del self._running[name]
          self._note(name, process.returncode)
      if self._deadline and time.monotonic() > self._deadline:
        self._end_the_rest()
      time.sleep(0.05)
    for thread in self._threads:
      thread.join()
    return self._status

  def _note(self, name, returncode):
    if returncode and not self._status:
      # A shell's number for a process that a signal ended.
      self._status = returncode if returncode > 0 else 128 - returncode
      self._deadline = time.monotonic() + self._grace
      logging.error(
          "%s ended with %s; the others stop within %g s", name,
          "status %d" % returncode if returncode > 0 else
          signal.Signals(-returncode).name, self._grace)

  def _end_the_rest(self):
    for number in (signal.SIGTERM, signal.SIGKILL):
      for name, process in self._running.items():
        logging.error("%s still runs: %s", name, number.name)
        process.send_signal(number)
      until = time.monotonic() + _SECONDS_TO_END
      while time.monotonic() < until and any(
          process.poll() is None for process in self._running.values()):
        time.sleep(0.05)
      if all(p.poll() is not None for p in self._running.values()):
        break
    self._running.clear()


def _copy(prefix, source, target):
  """Copies lines, each in one piece, with a prefix."""
  for line in source:
    # Read on when nobody listens: the process must not block on its output.
    with contextlib.suppress(BrokenPipeError):
      target.write(prefix + line.decode("utf-8", "replace").rstrip("\n") + "\n")
      target.flush()
