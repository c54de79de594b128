"""Lines that a program answers: read as they come, written to a file or stdout.
"""

import contextlib
import os
import sys

from adapter_bert.base import errors

# Answered at a time, if so many lines are there.
CHUNK_LINES = 1024
_READ_BYTES = 1 << 18
# So that input without line ends does not fill the memory.
_MAX_LINE_BYTES = 1 << 20


def chunks_of(source, where, what="text, a sentence or two on a line"):
  """Yields what can be read at once: lists of (line number from 1, bytes).

  A slow writer's lines come one by one, a file's CHUNK_LINES at a time. Memory
  does not grow with the input.

  Args:
    source: binary file with `read1`.
    where: str, its name.
    what: str, what the input is, for the message.

  Raises: InputError for a line that does not end.
  """
  number, rest = 0, b""
  while True:
    with errors.reported():
      data = source.read1(_READ_BYTES)
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
      _discard_stdout()
      raise
    return
  with errors.reported():
    if (input_path is not None and os.path.exists(path) and
        os.path.samefile(input_path, path)):
      raise errors.InputError("output %s is the input; give another file" %
                              path)
    output = open(path, "wb")
  try:
    yield output
  except BaseException:
    # What could not be written is still in the buffer, and would fail again.
    with contextlib.suppress(OSError):
      output.close()
    raise
  with errors.reported():
    output.close()


def _discard_stdout():
  """What is left in stdout's buffer goes nowhere, so that Python, which writes
  it at its end, does not complain of a full disk once more."""
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
    return
  with contextlib.suppress(OSError, ValueError):
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def write(output, answers, path):
  """Writes bytes to what `output_file` gave for `path`, at once.

  Raises: InputError if it cannot be written, as on a full disk.
  """
  try:
    output.write(answers)
    output.flush()
  except OSError as error:
    raise errors.InputError("cannot write the answers to %s: %s" % (
        path or "stdout", error.strerror or error)) from error
