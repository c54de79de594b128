"""What the processes of a run ask each other: whether all are there, what the
chief decides, whether all have the same, each one's share of a result.

It goes through the files of the signs of life (heartbeats.py), in which each
process also says things under numbered keys: slow, at one place of a run and
not at each step. All processes must make the same calls, in the same order.

No TensorFlow in here.
"""

import json
import os
import time

from absl import logging
import numpy as np

from adapter_bert.base import errors
from adapter_bert.distributed import heartbeats
from adapter_bert.distributed import tf_config

# Under output_dir.
DIRECTORY = "cluster"


class Meeting(object):
  """The processes of one run, seen from one of them.

  Used as a context: it gives signs from `__enter__` on, and an error that
  leaves the block is left for the others to read.

  Args:
    place: tf_config.Place.
    output_dir: str, a directory that all processes share.
    start_timeout: seconds to wait for the others to start.
    lost_after: seconds without a sign after which a process is lost.

  Attributes:
    place: tf_config.Place.
    signs: heartbeats.Heartbeats.
  """

  def __init__(self, place, output_dir, start_timeout=600, lost_after=30):
    self.place = place
    self._directory = os.path.join(output_dir, DIRECTORY)
    self.signs = heartbeats.Heartbeats(place, self._directory, lost_after)
    self._start_timeout = start_timeout
    self._calls = 0  # of decide and the like, so far

  @property
  def size(self):
    return len(self.place.names)

  def __enter__(self):
    self.signs.start()
    return self

  def __exit__(self, error_type, error, traceback):
    # All processes stop together for a signal: that is an orderly end.
    if error is None or isinstance(error, errors.Interrupted):
      if self.signs.has_met:
        # The chief last, so that its errors reach everyone.
        self.barrier("the end")
      self.signs.end(heartbeats.DONE)
      return
    line = str(error)
    if not isinstance(error, errors.InputError):
      line = error_type.__name__ + (": " + line if line else "")
    self.signs.end(heartbeats.FAILED, line)

  # -------------------------------------------------------------- all are there

  def meet(self):
    """Waits until all processes are there; before it nothing is agreed.

    Raises: InputError if one does not come within start_timeout.
    """
    with self.signs.asking():
      logging.info("%s of %d processes; waiting for %s", self.place.name,
                   self.size, "the others" if self.place.is_chief else
                   self.place.names[0])
      if self.place.is_chief:
        self._remove_old_parts()
      until = time.monotonic() + self._start_timeout
      while not self.signs.try_to_meet():
        if time.monotonic() > until:
          raise errors.InputError(self._missing())
        time.sleep(min(0.05, self.signs.interval))
    logging.info("all %d processes are there", self.size)

  def _remove_old_parts(self):
    """Of a run that was killed; before any process can make new ones."""
    with errors.reported():
      for entry in os.scandir(self._directory):
        if entry.name.startswith("part-"):
          os.remove(entry.path)

  def _missing(self):
    missing = [peer for peer in self.signs.peers.values()
               if not self.signs.is_here(peer)]
    if not missing:  # A worker that the chief does not count.
      return ("%s waits for others, or for another %s than this process; "
              "waited %d s (start_timeout)" % (
                  self.place.names[0], self.place.name, self._start_timeout))
    last = missing[0].fields.get("message")
    return "%s did not start within %d s (start_timeout); looked for %s%s" % (
        ", ".join(p.name for p in missing), self._start_timeout,
        "their signs in %s, which all processes must share" % self._directory,
        "; its last message there: %s" % last if last else "")

  def reach_all(self):
    """Connects to the port of each other process; all must have opened theirs.

    TensorFlow, which would try for long, does not say whom it cannot reach.

    Raises: InputError if one cannot be reached.
    """
    until = time.monotonic() + 2 * self.signs.lost_after
    for name in self.place.names:
      if name == self.place.name:
        continue
      address = self.place.address_of(name)
      error = heartbeats.connection_error(address, 5)
      while error:
        # Names of machines that have just started may take a while.
        if time.monotonic() > until:
          raise errors.InputError(
              "%s cannot reach %s at %s (in TF_CONFIG): %s; give the address "
              "that its machine has for the others, and open the port" %
              (self.place.name, name, address, error))
        time.sleep(0.5)
        error = heartbeats.connection_error(address, 5)

  # -------------------------------------------------------------- the questions

  def _key(self, what):
    self._calls += 1
    return "%d %s" % (self._calls, what)

  def _heard(self, peer, key):
    """Waits until a peer says something under a key.

    Raises: InputError if it says something else in that place: what this one
      waits for would never come.
    """
    number = key.partition(" ")[0]
    while True:
      with self.signs.lock:
        said = peer.said
      if key in said:
        return said[key]
      for other in said:
        if other.partition(" ")[0] == number:
          raise errors.InputError(
              "%s is at step %s (%s) and %s at %s; give all processes the same "
              "flags, code and data" % (
                  self.place.name, number, key[len(number) + 1:], peer.name,
                  other[len(number) + 1:]))
      time.sleep(min(0.02, self.signs.interval))

  def decide(self, what, value_fn):
    """What `value_fn()` gives in the chief, to all; a value for JSON."""
    key = self._key(what)
    if self.place.is_chief:
      value = value_fn()
      self.signs.say(key, value)
      return value
    chief, = self.signs.peers.values()
    with self.signs.asking():
      return self._heard(chief, key)

  def barrier(self, what):
    """Returns when all processes have come to it."""
    key = self._key(what)
    with self.signs.asking():
      if self.place.is_chief:
        for peer in self.signs.peers.values():
          self._heard(peer, key)
        self.signs.say(key, True)
      else:
        self.signs.say(key, True)
        chief, = self.signs.peers.values()
        self._heard(chief, key)

  def same(self, values):
    """Checks that all have the same; returns after everyone's check.

    Args:
      values: dict, for JSON.

    Raises: InputError, in a worker, that names what differs from the chief's.
    """
    values = json.loads(json.dumps(values))
    chiefs = self.decide("the same", lambda: values)
    found = first_difference(chiefs, values)
    if found:
      name, there, here = found
      raise errors.InputError(
          "%s is %s on %s and %s on %s; give all processes the same flags, "
          "code and data" % (
              name, tf_config.short(json.dumps(there)), self.place.names[0],
              tf_config.short(json.dumps(here)), self.place.name))
    self.barrier("the same in all")

  def gather(self, arrays):
    """Every process's dict of arrays, to the chief.

    Returns: a list of dicts of numpy arrays, by rank; None in a worker.
    """
    key = self._key("part")
    if not self.place.is_chief:
      name = "part-%s-%d.npz" % (self.signs.token, self._calls)
      path = os.path.join(self._directory, name)
      with errors.reported():
        with open(path + ".tmp", "wb") as output:
          np.savez(output, **arrays)
          output.flush()
          os.fsync(output.fileno())
        os.replace(path + ".tmp", path)
      self.signs.say(key, name)
      return None
    parts = [arrays]
    with self.signs.asking():
      for peer in self.signs.peers.values():
        path = os.path.join(self._directory, self._heard(peer, key))
        self.wait_for_file(path)
        with errors.reported(), np.load(path) as part:
          parts.append(dict(part))
        os.remove(path)
    return parts

  def wait_for_file(self, path):
    """Returns when a file that another process has written is seen here.

    Raises: InputError if that does not happen: the directory is not shared.
    """
    until = time.monotonic() + 2 * self.signs.lost_after
    while not os.path.exists(path):
      if time.monotonic() > until:
        raise errors.InputError(
            "%s, which another process wrote, is not here; output_dir must be "
            "one directory that all processes share" % path)
      time.sleep(0.1)


def first_difference(there, here, name=""):
  """(name, one value, the other) of the first that differs, or None.

  Names within a dict of a dict are joined with a dot.
  """
  if there == here:
    return None
  if isinstance(there, dict) and isinstance(here, dict):
    for key in sorted(set(there) | set(here)):
      found = first_difference(there.get(key), here.get(key),
                               "%s.%s" % (name, key) if name else key)
      if found:
        return found
  return name, there, here
