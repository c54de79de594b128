"""Reads and writes files: whole or not at all, checked, one writer at a time.

A path may have a scheme, as gs://bucket/file: then TensorFlow's tf.io.gfile
opens it. Every other path is Python's own, and TensorFlow is not even imported.
"""

import contextlib
import fcntl
import fnmatch
import json
import os
import re
import shutil
import socket
import stat
import sys
import time

from absl import logging

from adapter_bert.base import errors

LOCK = "lock"

# Far above any state file, configuration or index; a file without end is not
# read into memory.
MOST_JSON_BYTES = 64 << 20
# The age in seconds from which an unchanged temporary file is litter.
_STALE_SECONDS = 3600
# What `temporary_name` adds to a name, and what TensorFlow's checkpoint writer
# leaves when it is killed.
_TEMPORARY = re.compile(r"\.tmp-(?:(.*)-)?(\d+|[^-]*)$")
_OF_TENSORFLOW = re.compile(r"\.tempstate\d+$|\.ckpt-\d+_temp$")


# --------------------------------------------------------- paths with a scheme


def has_scheme(path):
  """Whether a path is TensorFlow's to open, as gs://bucket/file is."""
  return "://" in path


def _gfile():
  import tensorflow.compat.v1 as tf  # seconds long, and for few paths
  return tf.io.gfile


def check_scheme(path, name):
  """Refuses a path whose scheme TensorFlow cannot open on this machine.

  Args:
    path: str.
    name: str, the flag that gave it, for the message.

  Raises: errors.InputError.
  """
  if not has_scheme(path):
    return
  gfile = _gfile()
  try:
    gfile.exists(path)
  except failures() as error:
    raise errors.InputError(
        "%s is %s, which TensorFlow cannot open here: %s; give a local path, or "
        "mount what is there" % (name, path, reason_of(error))) from error


_NO_UTF8 = ("this locale has no UTF-8 for it, or it is not UTF-8; set "
            "LC_ALL=C.UTF-8, or rename it")


def check_name(path, name):
  """Refuses a path that Python could open here, and TensorFlow could not.

  Where the locale or a name is not UTF-8, Python keeps its bytes as
  halves of characters.

  Args:
    path: str.
    name: str, the flag that gave it, for the message.

  Raises: errors.InputError.
  """
  try:
    absolute(path).encode("utf-8")
  except UnicodeEncodeError as error:
    raise errors.InputError("%s is %s: %s" %
                            (name, absolute(path), _NO_UTF8)) from error


def check_local(path, name, reason):
  """Refuses a path with a scheme where only this machine's files will do.

  Args:
    path: str or None.
    name: str, the flag that gave it, for the message.
    reason: str, what needs it: "a lock".

  Raises: errors.InputError.
  """
  if path and has_scheme(path):
    raise errors.InputError(
        "%s is %s, and here it must be a local path: %s; copy what is there, or "
        "mount it" % (name, path, reason))


def open_binary(path, mode="rb"):
  """Opens a file of bytes; see `failures` for what that can raise.

  Raises: errors.InputError too, for a device or a pipe to be read.
  """
  if mode == "rb":
    check_regular(path)
  if has_scheme(path):
    return _gfile().GFile(path, mode)
  return open(path, mode)  # pylint: disable=unspecified-encoding


def failures():
  """What opening, reading and writing a file can raise, for `except`."""
  tensorflow = sys.modules.get("tensorflow")
  always = (OSError, UnicodeEncodeError)
  return always + (tensorflow.errors.OpError,) if tensorflow else always


def reason_of(error):
  """What one of `failures` says went wrong."""
  if isinstance(error, UnicodeEncodeError):
    return _NO_UTF8
  if isinstance(error, OSError):
    return error.strerror or str(error)
  return errors.op_reason(error)


def is_file(path):
  """Whether there is a file of that name, and no directory.

  Raises: errors.InputError if TensorFlow does not know the path's scheme, or
    does not get there.
  """
  if not has_scheme(path):
    return os.path.isfile(path)
  gfile = _gfile()
  try:
    return gfile.exists(path) and not gfile.isdir(path)
  except failures() as error:
    raise errors.InputError("%s: cannot be opened: %s" %
                            (path, reason_of(error))) from error


def is_directory(path):
  """Whether there is a directory of that name; raises as `is_file`."""
  if not has_scheme(path):
    return os.path.isdir(path)
  gfile = _gfile()
  try:
    return gfile.isdir(path)
  except failures() as error:
    raise errors.InputError("%s: cannot be opened: %s" %
                            (path, reason_of(error))) from error


def names_in(path):
  """The sorted names of what is in a directory; see `failures`."""
  if not has_scheme(path):
    return sorted(os.listdir(path))
  return sorted(name.rstrip("/") for name in _gfile().listdir(path))


def matching(path, pattern):
  """The sorted paths in a directory whose names fit, as "*.index" does."""
  return [os.path.join(path, name) for name in names_in(path)
          if fnmatch.fnmatchcase(name, pattern)]


def absolute(path):
  """The path, good in every working directory; one with a scheme is so."""
  return path if has_scheme(path) else os.path.abspath(path)


def real(path):
  """The path without links; two that are equal are one file."""
  return path if has_scheme(path) else os.path.realpath(path)


def is_same(path, other):
  """Whether both are one file, which is there, maybe by different names."""
  if has_scheme(path) or has_scheme(other):
    return path == other
  return os.path.exists(path) and os.path.exists(other) and (
      os.path.samefile(path, other))


def size_of(path):
  """The number of bytes in a file; see `failures`."""
  return (_gfile().stat(path).length if has_scheme(path) else
          os.path.getsize(path))


# -------------------------------------------------------------------- writing


def temporary_name(path):
  """The name beside `path` to write under before it is renamed to `path`.

  Beside it, because only within a file system is a rename one step. The host is
  in the name because machines may share the directory.
  """
  return "%s.tmp-%s-%d" % (path, socket.gethostname(), os.getpid())


@contextlib.contextmanager
def written_whole(path):
  """Gives a temporary name; the file there becomes `path` at the end, at once.

  If anything fails, `path` is as it was and nothing is left beside it.
  """
  temporary = temporary_name(path)
  try:
    yield temporary
    if has_scheme(path):
      _gfile().rename(temporary, path, overwrite=True)
      return
    # The name must not reach the disk before the content does.
    with open(temporary, "rb+") as written:
      os.fsync(written.fileno())
    os.replace(temporary, path)
  finally:
    if has_scheme(path):
      if _gfile().exists(temporary):
        _gfile().remove(temporary)
    else:
      with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.remove(temporary)


def write_atomically(path, content):
  """Writes a text file that is there either as a whole or not at all.

  Args:
    path: str, the file to write, replaced if it exists.
    content: str, or an iterable of str, each with its line end. UTF-8.

  Raises: errors.InputError if the file cannot be written.
  """
  pieces = [content] if isinstance(content, str) else content
  try:
    with written_whole(path) as temporary, open_binary(temporary, "wb") as output:
      for piece in pieces:
        output.write(piece.encode("utf-8"))
      output.flush()
  except failures() as error:
    raise errors.InputError("cannot write %s: %s" %
                            (path, reason_of(error))) from error


def write_json(path, value):
  """`write_atomically` of a value that JSON can hold."""
  write_atomically(path, [json.dumps(value, indent=1, sort_keys=True), "\n"])


def make_directory(path):
  """Makes a directory, and those above it, unless it is there.

  Raises: errors.InputError if it cannot be made.
  """
  try:
    if has_scheme(path):
      _gfile().makedirs(path)
    else:
      os.makedirs(path, exist_ok=True)
  except failures() as error:
    raise errors.InputError("cannot make the directory %s: %s" %
                            (path, reason_of(error))) from error


def replace_directory(temporary, path):
  """Renames a finished directory to `path`, replacing what is there.

  A kill between the two renames leaves the old one as `path`.old, from which
  `recover_directory` puts it back. Under a scheme the files are renamed one by
  one, and a kill in between leaves a part of them.
  """
  if has_scheme(path):
    remove_directory(path)
    rename_directory(temporary, path)
    return
  old = path + ".old"
  if os.path.isdir(path):
    os.rename(path, old)
  os.rename(temporary, path)
  shutil.rmtree(old, ignore_errors=True)


def rename_directory(path, new):
  """Renames a directory to a name that is not there; see replace_directory."""
  if not has_scheme(path):
    os.rename(path, new)
    return
  make_directory(new)
  for name in names_in(path):
    old = os.path.join(path, name)
    move = rename_directory if is_directory(old) else _gfile().rename
    move(old, os.path.join(new, name))
  remove_directory(path)


def size_below(path):
  """The number of bytes in the files below a directory; see `failures`."""
  return sum(size_below(each) if is_directory(each) else size_of(each)
             for each in matching(path, "*"))


def remove_directory(path):
  """Removes a directory and what is in it, if it is there."""
  if not has_scheme(path):
    shutil.rmtree(path, ignore_errors=True)
  elif is_directory(path):
    # Under ram:// the beginning of any name is a directory, without contents.
    with contextlib.suppress(*failures()):
      _gfile().rmtree(path)


def remove_file(path):
  """Removes a file if it is there."""
  if not has_scheme(path):
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
  elif is_file(path):
    _gfile().remove(path)


def recover_directory(path):
  """Puts back a directory that was being replaced when a process was killed."""
  old = path + ".old"
  if has_scheme(path) or not os.path.isdir(old):
    return
  if os.path.isdir(path):
    shutil.rmtree(old)
  else:
    os.rename(old, path)


def remove_litter(directory, only=None, alone=False):
  """Removes temporary files and directories of processes that were killed.

  Args:
    directory: str; nothing happens if it is not there.
    only: str, the name of the one file or directory whose temporaries these
      are; None: all.
    alone: bool, nobody else writes there (its lock is held). Then TensorFlow's
      temporary files, which do not say whose they are, go whatever their age.
  """
  if has_scheme(directory) or not os.path.isdir(directory):
    return
  for entry in os.scandir(directory):
    if only is not None and not entry.name.startswith(only + ".tmp-"):
      continue
    with contextlib.suppress(FileNotFoundError):  # Another process did it.
      if _is_litter(entry, alone):
        logging.info("removing %s, which a killed process left", entry.path)
        if entry.is_dir(follow_symlinks=False):
          shutil.rmtree(entry.path, ignore_errors=True)
        else:
          os.remove(entry.path)


def _is_litter(entry, alone):
  """Whether an os.DirEntry is a temporary file that nobody writes any more."""
  is_old = (time.time() - entry.stat(follow_symlinks=False).st_mtime >
            _STALE_SECONDS)
  if _OF_TENSORFLOW.search(entry.name):
    return alone or is_old
  found = _TEMPORARY.search(entry.name)
  if not found:
    return False
  host, process = found.groups()
  if host == socket.gethostname() and process.isdecimal():
    return is_old or not _is_alive(int(process))
  return is_old


def _is_alive(process):
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except (PermissionError, OverflowError):
    pass
  return True


# -------------------------------------------------------------------- reading


def check_regular(path, flag=None):
  """Refuses all but ordinary files: a directory, a device, a pipe.

  Reading /dev/zero never ends, and a pipe can be read only once.

  Args:
    path: str. Nothing is said of a file that is not there.
    flag: str, the flag that gave it, for the message.

  Raises: errors.InputError.
  """
  if has_scheme(path):
    return
  where = "%s=%s" % (flag, path) if flag else path
  try:
    mode = os.stat(path).st_mode
  except failures():
    return
  if stat.S_ISDIR(mode):
    raise errors.InputError("%s is a directory; give a file" % where)
  if not stat.S_ISREG(mode):
    raise errors.InputError(
        "%s is a device or a pipe, which may have no end; give an ordinary "
        "file (copy what comes through it into one)" % where)


def read_json(path, shape=None, missing_ok=False, any_size=False):
  """The value in a JSON file.

  Args:
    path: str.
    shape: what the value must be, see `check_shape`.
    missing_ok: bool; a file that is not there is None.
    any_size: bool; whole numbers may have any size. Hugging Face writes 10^30
      for "no limit".

  Raises: errors.InputError, in one line, for a file that cannot be read, is not
    JSON, or has another shape.
  """
  try:
    with open_binary(path) as source:
      data = source.read(MOST_JSON_BYTES + 1)
  except failures() as error:
    reason = reason_of(error)
    is_missing = isinstance(error, (FileNotFoundError, NotADirectoryError)) or (
        has_scheme(path) and not _gfile().exists(path))
    if is_missing and missing_ok:
      return None
    raise errors.InputError("%s: cannot be read: %s" %
                            (path, reason)) from error
  if len(data) > MOST_JSON_BYTES:
    raise errors.InputError("%s: has more than %d MB; it cannot be the JSON "
                            "file that is wanted here" %
                            (path, MOST_JSON_BYTES >> 20))
  return parse_json(data, path, shape, any_size)


def parse_json(text, where, shape=None, any_size=False):
  """The value in a JSON text; see `read_json`.

  Args:
    text: bytes or str.
    where: str, whose it is, for messages.
    shape: see `check_shape`.
    any_size: see `read_json`.

  Raises: errors.InputError.
  """
  try:
    if isinstance(text, bytes):
      text = text.decode("utf-8-sig")
    if not text.strip():
      raise errors.InputError("%s: is empty; it must hold JSON" % where)
    value = json.loads(text, object_pairs_hook=_no_key_twice,
                       parse_int=int if any_size else _whole_number,
                       parse_float=_number)
  except errors.InputError:
    raise
  except UnicodeDecodeError as error:
    raise errors.InputError("%s: is not text: byte 0x%02x at %d is not UTF-8" % (
        where, error.object[error.start], error.start)) from error
  except json.JSONDecodeError as error:
    raise errors.InputError("%s: is not JSON: line %d, column %d: %s" % (
        where, error.lineno, error.colno, error.msg)) from error
  except RecursionError as error:
    raise errors.InputError("%s: its lists or objects are nested too deeply" %
                            where) from error
  except ValueError as error:
    raise errors.InputError("%s: %s" % (where, error)) from error
  check_shape(value, shape, where)
  return value


def _no_key_twice(pairs):
  """The dict of a JSON object; json itself keeps the last of equal keys."""
  value = dict(pairs)
  if len(value) < len(pairs):
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    raise ValueError('the key "%s" stands twice in one object; keep one' %
                     twice[:40])
  return value


def _whole_number(digits):
  if len(digits) > 20 or not -2**63 <= int(digits) < 2**64:
    raise ValueError("the number %s... has %d digits; at most 64 bits can be "
                     "used" % (digits[:12], len(digits.lstrip("-"))))
  return int(digits)


def _number(digits):
  value = float(digits)
  if value in (float("inf"), -float("inf")):
    raise ValueError("the number %s is too large" % _shortened(digits))
  return value


# ---------------------------------------------------------------------- shapes


class Optional(object):
  """In a shape: null, and in an object a key that may be missing."""

  def __init__(self, shape):
    self.shape = shape


_KINDS = {dict: "an object", list: "a list", str: "a string",
          int: "a whole number", float: "a number", bool: "true or false"}


def check_shape(value, shape, where):
  """Compares a JSON value with what it must be.

  Args:
    value: anything that JSON holds.
    shape: None for anything; a type in _KINDS (a whole number is a number too);
      {key: shape} for an object that has these keys, and maybe others; [shape]
      for a list of such; (shape, shape) for a list of exactly these; Optional.
    where: str, the file; the place in it is added.

  Raises: errors.InputError that names the place, what is there, what it must be.
  """
  _check_shape(value, shape, where, "")


def _check_shape(value, shape, where, place):
  if isinstance(shape, Optional):
    if value is None:
      return
    shape = shape.shape
  if shape is None:
    return
  kind = shape if isinstance(shape, type) else {
      dict: dict, list: list, tuple: list}[type(shape)]
  fits = isinstance(value, (int, float) if kind is float else kind)
  # To Python, true is a whole number as well.
  if not fits or isinstance(value, bool) and kind is not bool:
    raise errors.InputError("%s: %s %s; it must be %s" % (
        where, "%s is" % place if place else "holds",
        _shortened(json.dumps(value)), _KINDS[kind]))
  if isinstance(shape, dict):
    for key, inner in shape.items():
      if key in value:
        _check_shape(value[key], inner, where,
                     "%s.%s" % (place, key) if place else key)
      elif not isinstance(inner, Optional):
        raise errors.InputError("%s: has no '%s'%s" % (
            where, key, " in %s" % place if place else ""))
  elif isinstance(shape, (list, tuple)):
    inner = shape * len(value) if isinstance(shape, list) else shape
    if len(inner) != len(value):
      raise errors.InputError("%s: %s must have %d items, and has %d" % (
          where, place or "the list", len(inner), len(value)))
    for i, (item, item_shape) in enumerate(zip(value, inner)):
      _check_shape(item, item_shape, where, "%s[%d]" % (place, i))


def _shortened(text):
  return text if len(text) <= 40 else text[:37] + "..."


# --------------------------------------------------- one writer in a directory


@contextlib.contextmanager
def locked(directory, wait=False):
  """Inside, this process is the only one that writes in a directory.

  The lock is the system's, on the file `lock` in it: it ends with its process
  however that dies. The file says who holds it. There is none under a scheme,
  nor on disks that know no locks: a warning says so.

  Args:
    directory: str, made if it is not there.
    wait: bool; wait for another process to end, instead of refusing.

  Raises: errors.InputError, naming the other process, or if the directory
    cannot be written.
  """
  if has_scheme(directory):
    logging.warning("%s cannot be locked; see to it that one run at a time "
                    "writes there", directory)
    yield
    return
  make_directory(directory)
  path = os.path.join(directory, LOCK)
  try:
    lock = open(path, "a+", encoding="utf-8")
  except OSError as error:
    raise errors.InputError("cannot write %s: %s" %
                            (path, error.strerror)) from error
  with lock:
    _take(lock, directory, wait)
    yield


def _take(lock, directory, wait):
  """Locks an open file and writes its holder's name into it; see `locked`."""
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      lock.seek(0)
      holder = lock.read(200).strip() or "another process"
      if not wait:
        raise errors.InputError(
            "%s is in use by %s; wait for it, end it, or give another output_dir"
            % (directory, holder)) from None
      logging.info("%s is in use by %s; waiting for it", directory, holder)
      fcntl.flock(lock, fcntl.LOCK_EX)
  except OSError as error:
    logging.warning("%s cannot be locked (%s); see to it that one run at a time "
                    "writes there", directory, error.strerror)
    return
  lock.truncate(0)
  lock.write("process %d on %s\n" % (os.getpid(), socket.gethostname()))
  lock.flush()
