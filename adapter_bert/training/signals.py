"""Ctrl-C and SIGTERM as wishes: the work ends in order, and nothing is lost."""

import os
import signal
import threading

from absl import logging

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Caught(object):
  """Inside, the first SIGINT or SIGTERM is noted, and does nothing else.

  The second one has its usual effect, and so has a noted one that is still not
  `taken` at the end: it came too late for what was done inside. A signal that
  is ignored, as nohup has it, stays so.

  number: one of NUMBERS, the signal that came; None: none has.
  taken: bool, set by whoever ends because of it.
  """

  def __init__(self):
    self.number = None
    self.taken = False
    self._before = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
          self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, error_type, error, traceback):
    self._put_back()
    if self.number and not self.taken and error is None:
      os.kill(os.getpid(), self.number)

  def _note(self, number, frame):
    del frame
    self.number = signal.Signals(number)
    self._put_back()
    logging.warning("%s: stopping after this step, with a checkpoint; once "
                    "more, and the process ends at once", self.number.name)

  def _put_back(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}
