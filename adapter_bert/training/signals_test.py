"""Signals that are noted, and those that have their usual effect."""

import os
import signal
import threading

import pytest

from adapter_bert.training import signals


def send(number):
  os.kill(os.getpid(), number)


@pytest.fixture(name="terminated")
def fixture_terminated():
  """A list of the SIGTERMs that had their usual effect, which is to be put on
  that list here."""
  seen = []
  # What a shell in the background has ignored is not noted.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  before = signal.signal(signal.SIGTERM, lambda *unused: seen.append(1))
  yield seen
  signal.signal(signal.SIGTERM, before)


def test_one_that_is_taken_has_no_other_effect(terminated):
  with signals.Caught() as caught:
    assert caught.number is None
    send(signal.SIGTERM)
    assert caught.number == signal.SIGTERM
    caught.taken = True
  assert not terminated
  send(signal.SIGTERM)
  assert terminated


def test_one_that_comes_too_late_has_its_usual_effect(terminated):
  with signals.Caught():
    send(signal.SIGTERM)
    assert not terminated
  assert len(terminated) == 1


def test_the_second_one_ends_the_process(terminated):
  with signals.Caught() as caught:
    send(signal.SIGINT)
    assert caught.number == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
      send(signal.SIGINT)
    caught.taken = True
  assert not terminated


def test_another_error_is_not_hidden(terminated):
  with pytest.raises(ValueError):
    with signals.Caught():
      send(signal.SIGTERM)
      raise ValueError("of the step")
  assert not terminated


def test_what_nohup_ignores_is_ignored():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with signals.Caught() as caught:
      send(signal.SIGINT)
      assert caught.number is None
  finally:
    signal.signal(signal.SIGINT, before)


def test_another_thread_is_left_alone():
  def work():
    with signals.Caught():
      found.append(signal.getsignal(signal.SIGINT))
  found, before = [], signal.getsignal(signal.SIGINT)
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert found == [before]
