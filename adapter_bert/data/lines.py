"""Lines that a program answers: read as they come, written to a file or stdout.
"""

import contextlib
import sys

from adapter_bert.base import errors
from adapter_bert.base import files

# The most lines that are answered at a time.
CHUNK_LINES = 1024
_READ_BYTES = 1 << 18
# So that input without line ends does not fill the memory.
_MAX_LINE_BYTES = 1 << 20


def chunks_of(source, where, what="text, a sentence or two on a line"):
  """Yields what can be read at once: lists of (line number from 1, bytes).

  A slow writer's lines come one by one, a file's CHUNK_LINES at a time. Memory
  does not grow with the input.

  Args:
    source: from `input_file`, or a binary file with `read1`.
    where: str, its name.
    what: str, what the input is, for the message.

  Raises: InputError for a line that does not end.
  """
  number, rest = 0, b""
  while True:
    try:
      data = source.read1(_READ_BYTES)
    except files.failures() as error:
      raise _unreadable(where, error) from error
    *lines, rest = (rest + data).split(b"\n")
    if not data and rest:
      lines = [rest]
    numbered = list(enumerate(lines, number + 1))
    number += len(lines)
    for start in range(0, len(numbered), CHUNK_LINES):
      yield numbered[start:start + CHUNK_LINES]
    if not data:
      return
    if len(rest) > _MAX_LINE_BYTES:
      raise errors.InputError(
          "%s:%d: has no end after %d bytes; the input is %s" %
          (where, number + 1, len(rest), what))


class _Remote(object):
  """A file under a scheme, with the `read1` that it lacks."""

  def __init__(self, source):
    self.read1 = source.read


@contextlib.contextmanager
def input_file(path):
  """The file that lines come from, and its name for messages.

  Args:
    path: str, also a pipe's; None: stdin.

  Raises: InputError if it cannot be read.
  """
  if path is None:
    yield sys.stdin.buffer, "stdin"
    return
  try:
    is_remote = files.has_scheme(path)
    source = files.open_binary(path) if is_remote else open(path, "rb")
    if is_remote:
      files.size_of(path)  # TensorFlow opens it at the first read.
  except files.failures() as error:
    raise _unreadable(path, error) from error
  with source:
    yield _Remote(source) if is_remote else source, path


@contextlib.contextmanager
def output_file(path, input_path):
  """The binary file that answers go to.

  Args:
    path: str; None: stdout.
    input_path: str, which it must not be; None: stdin.

  Raises: InputError if it is, or cannot be written.
  """
  if path is None:
    try:
      yield sys.stdout.buffer
    except errors.InputError:
      errors.discard_stdout()
      raise
    return
  if input_path is not None and files.is_same(input_path, path):
    raise errors.InputError("output %s is the input; give another file" % path)
  try:
    output = files.open_binary(path, "wb")
    output.flush()  # TensorFlow opens it at the first write.
  except files.failures() as error:
    raise _unwritable(path, error) from error
  try:
    yield output
  except BaseException:
    # What could not be written is still in the buffer, and would fail again.
    with contextlib.suppress(*files.failures()):
      output.close()
    raise
  try:
    output.close()
  except files.failures() as error:
    raise _unwritable(path, error) from error


def _unreadable(where, error):
  return errors.InputError("%s: cannot be read: %s" % (
      where, files.reason_of(error)))


def _unwritable(path, error):
  return errors.InputError("cannot write the answers to %s: %s" % (
      path or "stdout", files.reason_of(error)))


def write(output, answers, path):
  """Writes bytes to what `output_file` gave for `path`, at once.

  Raises: InputError if it cannot be written, as on a full disk.
  """
  try:
    output.write(answers)
    output.flush()
  except files.failures() as error:
    raise _unwritable(path, error) from error
