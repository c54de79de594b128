"""How a run ends when the user gave it something it cannot use.

Everything a user can get wrong (a file, a flag, an output directory) is
raised as `InputError` with a message of one line. The executables run through
`run`, which prints that line instead of a traceback and exits with status 1.
Errors of any other type are bugs and keep their traceback.
"""

import contextlib
import copy
import json
import os
import signal
import sys

from absl import app
from absl import flags
from absl import logging


class InputError(ValueError):
  """Something the user gave is wrong.

  The message is one line: what was found, where, what is allowed, what to do.
  """


class Interrupted(SystemExit):
  """A signal stopped the work, in order.

  Args:
    message: str, one line: how far it came, and how it goes on.
    status: int, the exit status; 128 and the signal's number, as a shell's.
  """

  def __init__(self, message, status):
    super().__init__(status)
    self.message = message

  def __str__(self):
    return self.message


@contextlib.contextmanager
def reported():
  """Inside, a ValueError or OSError becomes an InputError.

  For calls that read what the user named: modules that know nothing of users
  raise these two.
  """
  try:
    yield
  except InputError:
    raise
  except OSError as error:
    where = "%s: " % error.filename if error.filename else ""
    raise InputError(where + (error.strerror or str(error))) from error
  except ValueError as error:
    raise InputError(str(error)) from error


def escaped(text):
  """A text as a terminal may be given it, whoever wrote it.

  What a terminal acts on or does not show (control characters, marks that turn
  the direction of writing, halves of characters) is shown as in "\\x1b".
  """
  return "".join(char if char.isprintable() else
                 char.encode("unicode_escape").decode("ascii")
                 for char in text)


def one_line(error):
  """The message of an error in one line, escaped."""
  return escaped(" ".join(line.strip() for line in str(error).split("\n")))


class _EscapedFormatter(logging.PythonFormatter):
  """absl's, with messages escaped: they name what others have written."""

  def format(self, record):
    record = copy.copy(record)
    record.msg = "\n".join(map(escaped, record.getMessage().split("\n")))
    record.args = None
    return super().format(record)


def say(text):
  """Writes a result to stdout, at once.

  Raises: InputError if it cannot be written, as on a full disk.
  """
  try:
    sys.stdout.write(text)
    sys.stdout.flush()
  except OSError as error:
    discard_stdout()
    raise InputError("cannot write to stdout: %s" %
                     (error.strerror or error)) from error


def discard_stdout():
  """What is left in stdout's buffer goes nowhere, so that Python, which writes
  it at its end, does not complain of a full disk once more."""
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
    return
  with contextlib.suppress(OSError, ValueError):
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def shown(value):
  """A value as a message shows it: one line of bounded length, escaped."""
  text = repr(value) if isinstance(value, str) else json.dumps(value)
  return text if len(text) <= 80 else text[:77] + "..."


def op_reason(error):
  """The line of a tf.errors.OpError that says what is wrong.

  TensorFlow writes before it where in the graph that was, and behind it too.
  """
  return error.message.split("\n\t [[")[0].strip().split("\n")[-1]


def refuse_arguments(argv):
  """Raises InputError if the command line has more than flags."""
  if len(argv) > 1:
    raise InputError("unexpected argument %s; every setting is a flag, "
                     "--name=value; see --help" % argv[1])


def run(main):
  """Runs `main(argv)` under absl; an InputError becomes one line and status 1,
  Ctrl-C one line and status 130.

  The traceback is still there for whoever wants it, with `--verbosity=1`.
  """

  def guarded(argv):
    try:
      return main(argv)
    except InputError as error:
      logging.debug("where it was raised:", exc_info=True)
      logging.flush()
      print("error: %s" % one_line(error), file=sys.stderr)
      return 1
    except (Interrupted, KeyboardInterrupt) as error:
      logging.flush()
      print(escaped(str(error)) or "stopped by SIGINT", file=sys.stderr)
      return getattr(error, "code", 128 + signal.SIGINT)

  logging.get_absl_handler().setFormatter(_EscapedFormatter())
  # What a locale without UTF-8 cannot show is escaped, as on stderr.
  sys.stdout.reconfigure(errors="backslashreplace")
  # --help shows the flags of the file that was started. That of an installed
  # command is not the program's own.
  for flag in flags.FLAGS.get_key_flags_for_module(main.__module__):
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  app.run(guarded)
