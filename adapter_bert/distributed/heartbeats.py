"""The processes that train together: who they are, that all are there, and
that none is lost.

TF_CONFIG says who they are, exactly as TensorFlow documents it:

    TF_CONFIG='{"cluster": {"worker": ["host1:12345", "host2:12345"]},
                "task": {"type": "worker", "index": 0}}'

The first of them, `chief` or else worker 0, writes checkpoints and results.

All else goes through small files in a directory that all of them share
(output_dir/cluster, one file for each process), so that no further port is
needed. Each process rewrites its own file every few seconds, with a number that
grows; one whose file stays as it is for `lost_after` seconds is lost. Only the
content counts, and only this machine's own clock, because other machines'
clocks may differ. Workers watch the chief and the chief watches all workers:
it is the chief's file that tells a worker that another one is gone.

A watcher is needed because a process whose peer was killed hangs in the
all-reduce of TensorFlow, in C++, where no exception reaches it. So it ends the
process.

No TensorFlow in here.
"""

import contextlib
import dataclasses
import json
import os
import re
import secrets
import select
import socket
import sys
import threading
import time
from typing import Dict, Tuple

from absl import logging
import numpy as np

from adapter_bert.base import errors

# Under output_dir.
DIRECTORY = "cluster"

# Set by a launcher that holds the standard input of its processes: when that
# ends, the launcher has, and they must too.
LIFELINE = "ADAPTER_BERT_ENDS_WITH_STDIN"

# How often a process gives a sign, as a share of `lost_after`.
_SIGNS_UNTIL_LOST = 15

_RUNNING, _FAILED, _DONE = "running", "failed", "done"


# ----------------------------------------------------------------- TF_CONFIG


@dataclasses.dataclass(frozen=True)
class Place(object):
  """Which process of a cluster this one is.

  addresses: "chief" and "worker" -> host:port of each.
  kind, index: this process's; "chief" or "worker", and int.
  """
  addresses: Dict[str, Tuple[str, ...]]
  kind: str
  index: int

  @property
  def names(self):
    """All processes, the first one in charge: "chief", "worker 0", ..."""
    return tuple(_name(kind, index) for kind in ("chief", "worker")
                 for index in range(len(self.addresses.get(kind, ()))))

  @property
  def name(self):
    return _name(self.kind, self.index)

  @property
  def rank(self):
    return self.names.index(self.name)

  @property
  def is_chief(self):
    return self.rank == 0

  @property
  def address(self):
    return self.address_of(self.name)

  def address_of(self, name):
    """host:port of one of `names`."""
    every = self.addresses.get("chief", ()) + self.addresses.get("worker", ())
    return every[self.names.index(name)]


def _name(kind, index):
  return kind if kind == "chief" else "%s %d" % (kind, index)


def place_from_tf_config(text):
  """Place from the text of TF_CONFIG (None if the variable is not set).

  Raises: InputError that says what is wrong in it.
  """
  if not text or not text.strip():
    raise errors.InputError(
        "TF_CONFIG is not set; distribution=multi_worker needs it in every "
        'process, as in TF_CONFIG={"cluster": {"worker": ["host1:12345", '
        '"host2:12345"]}, "task": {"type": "worker", "index": 0}}; '
        "launch_local.py sets it on one machine")
  try:
    value = json.loads(text)
  except ValueError as error:
    raise errors.InputError("TF_CONFIG is not JSON (%s): %s" %
                            (error, _short(text)))
  _check_config(isinstance(value, dict), "must be an object", value)
  addresses = _addresses(value)
  task = value.get("task")
  _check_config(isinstance(task, dict),
                'needs "task": {"type": "worker", "index": 0}', task)
  kind, index = task.get("type"), task.get("index")
  _check_config(isinstance(kind, str) and kind in addresses,
                "task.type must be one of its cluster (%s)" %
                " or ".join(addresses), kind)
  if isinstance(index, str) and index.isdecimal():
    index = int(index)  # TensorFlow takes it, and job templates write it.
  _check_config(isinstance(index, int) and not isinstance(index, bool) and
                0 <= index < len(addresses[kind]),
                "task.index must be from 0 to %d, since the cluster has %d "
                "%s process(es)" % (len(addresses[kind]) - 1,
                                    len(addresses[kind]), kind), index)
  return Place(addresses, kind, index)


def _addresses(value):
  """The checked `cluster` of a TF_CONFIG."""
  cluster = value.get("cluster")
  _check_config(isinstance(cluster, dict) and bool(cluster),
                'needs "cluster": {"worker": ["host1:12345", ...]}', cluster)
  addresses = {}
  for kind, listed in cluster.items():
    _check_config(kind in ("chief", "worker"),
                  "cluster has a type that is not supported; there is chief "
                  "(at most one) and worker", kind)
    _check_config(isinstance(listed, list) and bool(listed),
                  "cluster.%s must be a list of host:port" % kind, listed)
    for address in listed:
      found = isinstance(address, str) and re.fullmatch(
          r"[^\s/:]+:(\d{1,5})|\[[0-9a-fA-F:]+\]:(\d{1,5})", address)
      _check_config(found and 0 < int(found.group(1) or found.group(2)) < 65536,
                    "cluster.%s must hold host:port, with a port from 1 to "
                    "65535" % kind, address)
    addresses[kind] = tuple(listed)
  _check_config(len(addresses.get("chief", ())) <= 1,
                "cluster.chief must have one process", addresses.get("chief"))
  every = [a for listed in addresses.values() for a in listed]
  twice = sorted(set(a for a in every if every.count(a) > 1))
  _check_config(not twice, "cluster has an address twice", ", ".join(twice))
  return addresses


def _check_config(is_good, what, found):
  if not is_good:
    raise errors.InputError("TF_CONFIG: %s; found %s" %
                            (what, _short(json.dumps(found))))


def _short(text):
  return text if len(text) <= 100 else text[:100] + "..."


# ------------------------------------------------------- watching each other


class _Peer(object):
  """What this process knows of another one's file."""

  def __init__(self, name, path):
    self.name = name
    self.path = path
    self.text = None  # its content when it was last read
    self.fields = {}
    self.changed = None  # when its content last changed, by our clock
    self.token = None  # of the incarnation that we met

  def look(self, first=False):
    """Reads the file. What is there at the `first` look may be a dead one's."""
    text = _read(self.path)
    if text is None or text == self.text:
      return
    with contextlib.suppress(ValueError):
      self.fields = json.loads(text)
      self.text = text
      if not first:
        self.changed = time.monotonic()

  def where(self):
    return "%s (process %s on %s)" % (self.name, self.fields.get("pid", "?"),
                                      self.fields.get("host", "?"))


def _read(path):
  """A file's text; None if there is none. Opened anew each time: that is when
  a network file system looks for what others have written."""
  try:
    with open(path, encoding="utf-8") as source:
      return source.read()
  except (OSError, UnicodeDecodeError):
    return None


class Cluster(object):
  """The processes of one run, seen from one of them.

  Used as a context: it gives signs from `__enter__` on, and an error that
  leaves the block is left for the others to read. All processes must make the
  same calls of `decide`, `barrier`, `same` and `gather`, in the same order.

  Args:
    place: Place.
    output_dir: str, a directory that all processes share.
    start_timeout: seconds to wait for the others to start.
    lost_after: seconds without a sign after which a process is lost.
  """

  def __init__(self, place, output_dir, start_timeout=600, lost_after=30):
    self.place = place
    self._directory = os.path.join(output_dir, DIRECTORY)
    self._start_timeout = start_timeout
    self._lost_after = lost_after
    self._interval = lost_after / _SIGNS_UNTIL_LOST
    self._token = secrets.token_hex(8)
    self._path = self._path_of(place.name)
    self._peers = {
        name: _Peer(name, self._path_of(name)) for name in place.names
        if name != place.name and (place.is_chief or name == place.names[0])}
    self._lock = threading.Lock()
    self._wake = threading.Event()
    self._waiting = False
    self._calls = 0  # of decide and the like, so far
    self._fields = {"token": self._token, "host": socket.gethostname(),
                    "pid": os.getpid(), "state": _RUNNING, "signs": 0,
                    "sees": None, "met": None, "said": {}}
    self._written = None  # when
    self._met = False
    self._closing = False
    self._is_replaced = False  # by another process, that the others have met
    self._has_lifeline = bool(os.environ.get(LIFELINE))

  def _path_of(self, name):
    return os.path.join(self._directory, name.replace(" ", "-") + ".json")

  @property
  def size(self):
    return len(self.place.names)

  # ---------------------------------------------------- starting and ending

  def __enter__(self):
    try:
      os.makedirs(self._directory, exist_ok=True)
      self._refuse_a_second_one()
      # Before this one's sign: whoever sees it may answer, or fail, at once.
      for peer in self._peers.values():
        peer.look(first=True)
      self._write()
    except OSError as error:
      raise errors.InputError("output_dir: %s cannot be written: %s" %
                              (self._directory, error.strerror)) from error
    threading.Thread(target=self._watch, daemon=True).start()
    return self

  def __exit__(self, error_type, error, traceback):
    if error is None:
      self._finish()
      return
    line = " ".join(str(error).split()) or error_type.__name__
    if not isinstance(error, errors.InputError):
      line = "%s: %s" % (error_type.__name__, line)
    with self._lock, contextlib.suppress(OSError):
      self._closing = True
      self._fields.update(state=_FAILED, message=_short_line(line))
      self._write()

  def _refuse_a_second_one(self):
    """Raises InputError if a living process has this one's place."""
    before = _read(self._path)
    if before is None:
      return
    mine = _Peer(self.place.name, self._path)
    mine.look(first=True)
    if mine.fields.get("state") != _RUNNING or _is_gone(mine.fields):
      return
    until = time.monotonic() + 3 * self._interval
    while time.monotonic() < until:
      time.sleep(self._interval / 4)
      mine.look()
      if mine.changed:
        line = ("two processes run as %s, and process %s on %s is another one; "
                "give each an index of its own in TF_CONFIG, and each run an "
                "output_dir of its own" %
                (mine.where(), os.getpid(), self._fields["host"]))
        if not mine.fields.get("met"):
          # Nobody could start like this, so all are told. A run that is under
          # way goes on undisturbed.
          self._fields.update(state=_FAILED, message=line)
          self._write()
        raise errors.InputError(line)

  def meet(self):
    """Waits until all processes are there; before it nothing is agreed.

    Raises: InputError if one does not come within start_timeout.
    """
    with self._asking():
      logging.info("%s of %d processes; waiting for %s", self.place.name,
                   self.size, "the others" if self.place.is_chief else
                   self.place.names[0])
      until = time.monotonic() + self._start_timeout
      while not self._try_to_meet():
        if time.monotonic() > until:
          raise errors.InputError(self._missing())
        time.sleep(min(0.05, self._interval))
    logging.info("all %d processes are there", self.size)

  def _try_to_meet(self):
    """Whether all are there; the chief says so to all at once."""
    with self._lock, errors.reported():
      peers = list(self._peers.values())
      if not self.place.is_chief:
        if peers[0].changed is None:
          return False
        if self._fields["sees"] != peers[0].fields["token"]:
          self._fields["sees"] = peers[0].fields["token"]
          self._write()
        if (peers[0].fields["met"] or {}).get(self.place.name) != self._token:
          return False
      elif not all(self._is_here(peer) for peer in peers):
        return False
      else:
        for entry in os.scandir(self._directory):
          if entry.name.startswith("part-"):  # of a run that was killed
            os.remove(entry.path)
      for peer in peers:
        peer.token = peer.fields["token"]
      self._fields["met"] = {peer.name: peer.token for peer in peers}
      self._write()
      self._met = True
      return True

  def _is_here(self, peer):
    """Whether a process gives signs and, at the chief, has seen this one: what
    is left of a run whose chief was killed must not count."""
    return (peer.changed is not None and
            peer.fields.get("state") == _RUNNING and
            time.monotonic() - peer.changed < self._lost_after and
            (not self.place.is_chief or
             peer.fields.get("sees") == self._token))

  def _missing(self):
    missing = [p for p in self._peers.values() if not self._is_here(p)]
    if not missing:  # A worker that the chief does not count.
      return ("%s waits for others, or for another %s than this process; "
              "waited %d s (start_timeout)" % (
                  self.place.names[0], self.place.name, self._start_timeout))
    last = missing[0].fields.get("message")
    return "%s did not start within %d s (start_timeout); looked for %s%s" % (
        ", ".join(p.name for p in missing), self._start_timeout,
        "their signs in %s, which all processes must share" % self._directory,
        "; its last message there: %s" % last if last else "")

  def _finish(self):
    """Ends together: the chief last, so that its errors reach everyone."""
    if self._met:
      self.barrier("the end")
    with self._lock, contextlib.suppress(OSError):
      self._closing = True
      self._fields["state"] = _DONE
      self._write()

  # --------------------------------------------------------------- the thread

  def _watch(self):
    while not self._closing:
      # Everyone's file at the chief, so less often the more there are.
      self._wake.wait(min(0.1 + 0.005 * self.size, self._interval)
                      if self._waiting else self._interval)
      self._wake.clear()
      with self._lock:
        if self._closing:
          return
        reason = self._look()
        if reason:
          self._stop(reason)

  def _look(self):
    """Gives a sign if it is time; returns why this process must stop, or None.
    """
    now = time.monotonic()
    mine = _read(self._path)
    with contextlib.suppress(ValueError, TypeError):
      other = json.loads(mine)
      if other["token"] != self._token:
        self._is_replaced = bool(other["met"])
        return ("two processes run as %s: process %s on %s, and process %s on "
                "%s; give each an index of its own in TF_CONFIG" % (
                    self.place.name, other["pid"], other["host"],
                    self._fields["pid"], self._fields["host"]))
    if self._has_lifeline and select.select([0], [], [], 0)[0]:
      return "what started it has ended"
    if now - self._written >= self._interval * 0.9:
      try:
        self._write()
      except OSError as error:
        if now - self._written > self._lost_after:
          return "%s cannot be written: %s" % (self._path, error.strerror)
    for peer in self._peers.values():
      peer.look()
      reason = self._reason_to_stop(peer)
      if reason:
        return reason
    return None

  def _reason_to_stop(self, peer):
    """Why a peer's file means that this process must stop, or None."""
    state = peer.fields.get("state")
    if peer.changed is None or state == _DONE:
      return None
    if not self._met:
      # The end of a life before ours is nothing to us.
      met = peer.fields.get("met")
      if state == _FAILED and (not met or met.get(self.place.name) ==
                               self._token):
        return "%s stopped: %s" % (peer.name, peer.fields.get("message"))
      return None
    if peer.fields.get("token") != peer.token:
      return ("two processes run as %s, or it was started again and the others "
              "were not: now it is process %s on %s; give each process an index "
              "of its own in TF_CONFIG, and start all of them together" % (
                  peer.name, peer.fields.get("pid"), peer.fields.get("host")))
    if state == _FAILED:
      return "%s stopped: %s" % (peer.name, peer.fields.get("message"))
    silent = time.monotonic() - peer.changed
    if silent > self._lost_after:
      return ("%s is lost: no sign of it for %d s; start all processes again, "
              "with the same commands, to go on from the last checkpoint" %
              (peer.where(), silent))
    return None

  def _write(self):
    """Rewrites this process's file; under the lock once the thread runs."""
    self._fields["signs"] += 1
    # The token, since process numbers repeat from machine to machine.
    temporary = "%s.tmp-%s" % (self._path, self._token)
    try:
      with open(temporary, "w", encoding="utf-8") as output:
        json.dump(self._fields, output)
      os.replace(temporary, self._path)
    finally:
      if os.path.exists(temporary):
        os.remove(temporary)
    self._written = time.monotonic()

  def _stop(self, reason):
    """Ends the process from the thread, wherever the main thread hangs."""
    self._closing = True
    try:
      # Over another process's file, too, if that has our place: both must end.
      # But one that comes back from a long sleep leaves the new run alone.
      if not self._is_replaced:
        self._fields.update(state=_FAILED, message=_short_line(reason))
        with contextlib.suppress(OSError):
          self._write()
      logging.flush()
      print("error: %s: %s" % (self.place.name, reason), file=sys.stderr,
            flush=True)
    finally:  # Even if there is no more stderr.
      os._exit(1)  # pylint: disable=protected-access

  def wait_to_be_stopped(self, error):
    """For an error that looks like another process's end: the watcher knows
    whose, in a moment, and ends this process with that.

    Raises: InputError with the error, if no process is lost.
    """
    with self._asking():
      time.sleep(self._lost_after + 5 * self._interval)
    logging.error("%s", error)
    raise errors.InputError(
        "the connection to another process broke, though all give signs: %s; "
        "the whole of it is above" % type(error).__name__) from error

  # -------------------------------------------------------- talking together

  @contextlib.contextmanager
  def _asking(self):
    """Inside, the watcher looks often."""
    self._waiting = True
    self._wake.set()
    try:
      yield
    finally:
      self._waiting = False

  def _say(self, key, value):
    with self._lock, errors.reported():
      self._fields["said"][key] = value
      self._write()

  def _heard(self, peer, key):
    """Waits until a peer says something under a key.

    Raises: InputError if it says something else in that place: what this one
      waits for would never come.
    """
    number = key.partition(" ")[0]
    while True:
      with self._lock:
        said = (peer.fields.get("said", {})
                if peer.token == peer.fields.get("token") else {})
      if key in said:
        return said[key]
      for other in said:
        if other.partition(" ")[0] == number:
          raise errors.InputError(
              "%s is at step %s (%s) and %s at %s; give all processes the same "
              "flags, code and data" % (
                  self.place.name, number, key[len(number) + 1:], peer.name,
                  other[len(number) + 1:]))
      time.sleep(min(0.02, self._interval))

  def _key(self, what):
    self._calls += 1
    return "%d %s" % (self._calls, what)

  def decide(self, what, value_fn):
    """What `value_fn()` gives in the chief, to all; a value for JSON."""
    key = self._key(what)
    if self.place.is_chief:
      value = value_fn()
      self._say(key, value)
      return value
    chief, = self._peers.values()
    with self._asking():
      return self._heard(chief, key)

  def barrier(self, what):
    """Returns when all processes have come to it."""
    key = self._key(what)
    with self._asking():
      if self.place.is_chief:
        for peer in self._peers.values():
          self._heard(peer, key)
        self._say(key, True)
      else:
        self._say(key, True)
        chief, = self._peers.values()
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
              name, _short(json.dumps(there)), self.place.names[0],
              _short(json.dumps(here)), self.place.name))
    self.barrier("the same in all")

  def gather(self, arrays):
    """Every process's dict of arrays, to the chief.

    Returns: a list of dicts of numpy arrays, by rank; None in a worker.
    """
    key = self._key("part")
    if not self.place.is_chief:
      name = "part-%s-%d.npz" % (self._token, self._calls)
      path = os.path.join(self._directory, name)
      with errors.reported():
        with open(path + ".tmp", "wb") as output:
          np.savez(output, **arrays)
          output.flush()
          os.fsync(output.fileno())
        os.replace(path + ".tmp", path)
      self._say(key, name)
      return None
    parts = [arrays]
    with self._asking():
      for peer in self._peers.values():
        path = os.path.join(self._directory, self._heard(peer, key))
        self.wait_for_file(path)
        with errors.reported(), np.load(path) as part:
          parts.append(dict(part))
        os.remove(path)
    return parts

  def reach_all(self):
    """Connects to the port of each other process; all must have opened theirs.

    TensorFlow, which would try for long, does not say whom it cannot reach.

    Raises: InputError if one cannot be reached.
    """
    until = time.monotonic() + 2 * self._lost_after
    for name in self.place.names:
      if name == self.place.name:
        continue
      address = self.place.address_of(name)
      host, _, port = address.rpartition(":")
      while True:
        try:
          socket.create_connection((host.strip("[]"), int(port)), 5).close()
          break
        except (OSError, UnicodeError) as error:
          # Names of machines that have just started may take a while.
          if time.monotonic() > until:
            raise errors.InputError(
                "%s cannot reach %s at %s (in TF_CONFIG): %s; give the address "
                "that its machine has for the others, and open the port" % (
                    self.place.name, name, address,
                    getattr(error, "strerror", None) or error)) from error
        time.sleep(0.5)

  def wait_for_file(self, path):
    """Returns when a file that another process has written is seen here.

    Raises: InputError if that does not happen: the directory is not shared.
    """
    until = time.monotonic() + 2 * self._lost_after
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


def _short_line(text):
  """One line of a length that fits into everyone's file."""
  return " ".join(text.split())[:2000]


def _is_gone(fields):
  """Whether the process that wrote a file has surely ended."""
  if fields.get("host") != socket.gethostname():
    return False
  try:
    os.kill(int(fields["pid"]), 0)
  except ProcessLookupError:
    return True
  except (KeyError, ValueError, TypeError, PermissionError):
    return False
  return False
