"""Signs of life: a process of a run notices that another one is lost.

Each process has a small file in a directory that all of them share
(output_dir/cluster), so that no further port is needed. It rewrites the file
every few seconds, with a number that grows; one whose file stays as it is for
`lost_after` seconds is lost. Only the content counts, and only this machine's
own clock, because other machines' clocks may differ. Workers watch the chief
and the chief watches all workers: it is the chief's file that tells a worker
that another one is gone.

What TensorFlow does by itself (2.21, gRPC on CPU, found by trying): when a
process that the others train with is killed, their all-reduce fails within
0.3 s, with an UnavailableError that does not say whose connection broke.
`stop_for` finds that out from the ports and ends this process at once. What it
does not do, and what the watching is for:

  - Before the first all-reduce of a run, the others hang in it for ever, in C++
    where no exception reaches them. So a thread watches, and ends the process.
  - A process that is stopped (SIGSTOP, a machine that swaps) or that nothing
    reaches any more (a cable, a firewall) hangs the others for ever.
  - A process that never starts, or starts anew alone, is waited for without an
    end or a word.
  - Its own health check (check_collective_ops_peer_health) works in eager mode
    only, and its coordination service cannot be had from a tf.distribute.Server
    of graph mode without private names. `operation_timeout_in_ms` would end a
    run that hangs, but says not of whom, and counts a long wait that is right,
    such as the chief's evaluation at a checkpoint, as a fault.

No TensorFlow in here.
"""

import contextlib
import json
import os
import secrets
import select
import socket
import sys
import threading
import time

from absl import logging

from adapter_bert.base import errors

# Set by a launcher that holds the standard input of its processes: when that
# ends, the launcher has, and they must too.
LIFELINE = "ADAPTER_BERT_ENDS_WITH_STDIN"

# How often a process gives a sign, as a share of `lost_after`.
_SIGNS_UNTIL_LOST = 15
# How long `stop_for` looks for the one whose connection broke, and waits for
# what that one may have to say.
_SECONDS_TO_FIND = 3.0
_SECONDS_TO_READ = 0.5

RUNNING, FAILED, DONE = "running", "failed", "done"

_START_AGAIN = ("start all processes again, with the same commands, to go on "
                "from the last checkpoint")


class Peer(object):
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

  @property
  def said(self):
    """dict: what the incarnation that we met has said."""
    if self.token != self.fields.get("token"):
      return {}
    return self.fields.get("said", {})

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


class Heartbeats(object):
  """This process's file, and the watch over the others'.

  Args:
    place: tf_config.Place.
    directory: str, where the files are.
    lost_after: seconds without a sign after which a process is lost.

  Attributes:
    peers: dict of name -> Peer, those that this process watches.
    lock: to be held by who reads or changes what the thread does, too.
    token: str, this incarnation.
    interval: seconds between two signs.
  """

  def __init__(self, place, directory, lost_after):
    self.lost_after = lost_after
    self.interval = lost_after / _SIGNS_UNTIL_LOST
    self.token = secrets.token_hex(8)
    self.lock = threading.Lock()
    self.peers = {
        name: Peer(name, _path_of(directory, name)) for name in place.names
        if name != place.name and (place.is_chief or name == place.names[0])}
    self._place = place
    self._directory = directory
    self._path = _path_of(directory, place.name)
    self._wake = threading.Event()
    self._asks = False
    self._fields = {"token": self.token, "host": socket.gethostname(),
                    "pid": os.getpid(), "state": RUNNING, "signs": 0,
                    "sees": None, "met": None, "said": {}}
    self._written = None  # when
    self._has_met = False
    self._closing = False
    self._is_replaced = False  # by another process, that the others have met
    self._has_lifeline = bool(os.environ.get(LIFELINE))

  # ---------------------------------------------------- starting and ending

  def start(self):
    """Gives the first sign, and watches from now on.

    Raises: InputError if a living process has this one's place, or the
      directory cannot be written.
    """
    try:
      os.makedirs(self._directory, exist_ok=True)
      self._refuse_a_second_one()
      # Before this one's sign: whoever sees it may answer, or fail, at once.
      for peer in self.peers.values():
        peer.look(first=True)
      self._write()
    except OSError as error:
      raise errors.InputError("output_dir: %s cannot be written: %s" %
                              (self._directory, error.strerror)) from error
    threading.Thread(target=self._watch, daemon=True).start()

  def end(self, state, message=None):
    """Gives the last sign.

    Args:
      state: FAILED or DONE.
      message: str, what the others are to be told.
    """
    with self.lock, contextlib.suppress(OSError):
      self._closing = True
      self._fields["state"] = state
      if message:
        self._fields["message"] = _short_line(message)
      self._write()

  def _refuse_a_second_one(self):
    """Raises InputError if a living process has this one's place."""
    mine = Peer(self._place.name, self._path)
    mine.look(first=True)
    if mine.fields.get("state") != RUNNING or _is_gone(mine.fields):
      return
    until = time.monotonic() + 3 * self.interval
    while time.monotonic() < until:
      time.sleep(self.interval / 4)
      mine.look()
      if mine.changed:
        line = ("two processes run as %s, and process %s on %s is another one; "
                "give each an index of its own in TF_CONFIG, and each run an "
                "output_dir of its own" %
                (mine.where(), os.getpid(), self._fields["host"]))
        if not mine.fields.get("met"):
          # Nobody could start like this, so all are told. A run that is under
          # way goes on undisturbed.
          self._fields.update(state=FAILED, message=line)
          self._write()
        raise errors.InputError(line)

  # ------------------------------------------------------------- the meeting

  def try_to_meet(self):
    """Whether all are there; the chief says so to all at once.

    From then on a peer that falls silent, or is another one, is a fault.
    """
    with self.lock, errors.reported():
      peers = list(self.peers.values())
      if not self._place.is_chief:
        chief, = peers
        if chief.changed is None:
          return False
        if self._fields["sees"] != chief.fields["token"]:
          self._fields["sees"] = chief.fields["token"]
          self._write()
        if (chief.fields["met"] or {}).get(self._place.name) != self.token:
          return False
      elif not all(self.is_here(peer) for peer in peers):
        return False
      for peer in peers:
        peer.token = peer.fields["token"]
      self._fields["met"] = {peer.name: peer.token for peer in peers}
      self._write()
      self._has_met = True
      return True

  @property
  def has_met(self):
    return self._has_met

  def is_here(self, peer):
    """Whether a process gives signs and, at the chief, has seen this one: what
    is left of a run whose chief was killed must not count."""
    return (peer.changed is not None and
            peer.fields.get("state") == RUNNING and
            time.monotonic() - peer.changed < self.lost_after and
            (not self._place.is_chief or
             peer.fields.get("sees") == self.token))

  # --------------------------------------------------------------- the signs

  @contextlib.contextmanager
  def asking(self):
    """Inside, the watcher looks often."""
    self._asks = True
    self._wake.set()
    try:
      yield
    finally:
      self._asks = False

  def say(self, key, value):
    """Adds to what the others find in this process's file under "said"."""
    with self.lock, errors.reported():
      self._fields["said"][key] = value
      self._write()

  def _watch(self):
    while not self._closing:
      # Everyone's file at the chief, so less often the more there are.
      self._wake.wait(
          min(0.1 + 0.005 * len(self._place.names), self.interval)
          if self._asks else self.interval)
      self._wake.clear()
      with self.lock:
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
      if other["token"] != self.token:
        self._is_replaced = bool(other["met"])
        return ("two processes run as %s: process %s on %s, and process %s on "
                "%s; give each an index of its own in TF_CONFIG" % (
                    self._place.name, other["pid"], other["host"],
                    self._fields["pid"], self._fields["host"]))
    if self._has_lifeline and select.select([0], [], [], 0)[0]:
      return "what started it has ended"
    if now - self._written >= self.interval * 0.9:
      try:
        self._write()
      except OSError as error:
        if now - self._written > self.lost_after:
          return "%s cannot be written: %s" % (self._path, error.strerror)
    for peer in self.peers.values():
      peer.look()
      reason = self._reason_to_stop(peer)
      if reason:
        return reason
    return None

  def _reason_to_stop(self, peer):
    """Why a peer's file means that this process must stop, or None."""
    state = peer.fields.get("state")
    if peer.changed is None or state == DONE:
      return None
    if not self._has_met:
      # The end of a life before ours is nothing to us.
      met = peer.fields.get("met")
      if state == FAILED and (not met or met.get(self._place.name) ==
                              self.token):
        return _stopped(peer)
      return None
    if peer.fields.get("token") != peer.token:
      return ("two processes run as %s, or it was started again and the others "
              "were not: now it is process %s on %s; give each process an index "
              "of its own in TF_CONFIG, and start all of them together" % (
                  peer.name, peer.fields.get("pid"), peer.fields.get("host")))
    if state == FAILED:
      return _stopped(peer)
    silent = time.monotonic() - peer.changed
    if silent > self.lost_after:
      return ("%s is lost: no sign of it for %d s; %s" %
              (peer.where(), silent, _START_AGAIN))
    return None

  def _write(self):
    """Rewrites this process's file; under the lock once the thread runs."""
    self._fields["signs"] += 1
    # The token, since process numbers repeat from machine to machine. Not
    # written through to the disk: this is for those who live now.
    temporary = "%s.tmp-%s" % (self._path, self.token)
    try:
      with open(temporary, "w", encoding="utf-8") as output:
        json.dump(self._fields, output)
      os.replace(temporary, self._path)
    finally:
      if os.path.exists(temporary):
        os.remove(temporary)
    self._written = time.monotonic()

  # ------------------------------------------------------------------ the end

  def stop_for(self, error):
    """Ends this process, for an error of TensorFlow that a broken connection
    causes. The line says whose it was."""
    with self.asking():  # The watcher ends it if someone says why it stopped.
      until = time.monotonic() + _SECONDS_TO_FIND
      broken = self._unreachable()
      while not broken and time.monotonic() < until:
        time.sleep(0.2)
        broken = self._unreachable()
      time.sleep(_SECONDS_TO_READ)
    reason = self._why_broken(broken)
    if not reason:
      logging.error("%s", error)
      reason = ("one of the other processes is lost: the connection to it broke "
                "(%s; the whole of it is above), though all of their ports "
                "answer; %s" % (type(error).__name__, _START_AGAIN))
    with self.lock:
      self._stop(reason)

  def _unreachable(self):
    """{name: why its port cannot be connected to} of the other processes."""
    found = {name: connection_error(self._place.address_of(name), 1)
             for name in self._place.names if name != self._place.name}
    return {name: error for name, error in found.items() if error}

  def _why_broken(self, broken):
    """The reason to stop for processes that cannot be connected to, or None."""
    others = []
    for name, error in broken.items():
      peer = Peer(name, _path_of(self._directory, name))
      peer.look(first=True)
      others.append((peer, error))
    # Those that ended for a reason of theirs may have ended for a lost one.
    for peer, error in others:
      if peer.fields.get("state") == RUNNING:
        return ("%s is lost: the connection to it broke, and at %s it cannot be "
                "reached (%s); %s" % (
                    peer.where(), self._place.address_of(peer.name), error,
                    _START_AGAIN))
    for peer, _ in others:
      if peer.fields.get("state") == FAILED:
        return _stopped(peer)
    return None

  def _stop(self, reason):
    """Ends the process, wherever its main thread hangs; under the lock."""
    self._closing = True
    try:
      # Over another process's file, too, if that has our place: both must end.
      # But one that comes back from a long sleep leaves the new run alone.
      if not self._is_replaced:
        self._fields.update(state=FAILED, message=_short_line(reason))
        with contextlib.suppress(OSError):
          self._write()
      logging.flush()
      print("error: %s: %s" % (self._place.name, errors.one_line(reason)),
            file=sys.stderr, flush=True)
    finally:  # Even if there is no more stderr.
      os._exit(1)  # pylint: disable=protected-access


def connection_error(address, timeout):
  """Why no connection can be made to host:port, str; None if one can."""
  host, _, port = address.rpartition(":")
  try:
    socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    return None
  except (OSError, UnicodeError) as error:
    return getattr(error, "strerror", None) or str(error)


def _path_of(directory, name):
  """The file of the process of that name."""
  return os.path.join(directory, name.replace(" ", "-") + ".json")


def _stopped(peer):
  return "%s stopped: %s" % (peer.name, peer.fields.get("message"))


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
