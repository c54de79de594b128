"""One line and status 1 for the user's errors, a traceback for ours."""

import os
import logging
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors

PROGRAM = """
from adapter_bert.base import errors
def main(argv):
  raise %s
errors.run(main)
"""


def run(error):
  return subprocess.run([sys.executable, "-c", PROGRAM % error],
                        stderr=subprocess.PIPE, text=True, check=False)


def test_input_error_is_one_line():
  done = run("errors.InputError('a file\\nis missing')")
  assert done.returncode == 1
  assert done.stderr == "error: a file is missing\n"


@pytest.mark.parametrize("error,status,line", [
    ("KeyboardInterrupt", 130, "stopped by SIGINT"),
    ("errors.Interrupted('stopped after step 3', 143)", 143,
     "stopped after step 3")])
def test_a_signal_is_one_line_and_the_status_of_a_shell(error, status, line):
  done = run(error)
  assert done.returncode == status
  assert done.stderr == line + "\n"


def test_an_installed_command_shows_its_programs_flags(tmp_path):
  (tmp_path / "program.py").write_text("""
from absl import flags
from adapter_bert.base import errors
def entry_point():
  flags.DEFINE_string("colour", None, "A colour.")
  errors.run(main)
def main(argv):
  pass
""")
  (tmp_path / "command").write_text(
      "import program\nprogram.entry_point()\n")
  done = subprocess.run([sys.executable, str(tmp_path / "command"), "--help"],
                        env=dict(os.environ, PYTHONPATH=test_util.ROOT),
                        stdout=subprocess.PIPE, text=True, check=False)
  assert "--colour: A colour." in done.stdout


def test_the_reason_in_an_error_of_tensorflow():
  long = ("Graph execution error:\n\nDetected at node 'save/SaveV2' defined at "
          "(most recent call last):\n    File \"a.py\", line 7\nNode: 's'\n"
          "/out/model.ckpt-1; Is a directory\n\t [[{{node save/SaveV2}}]]\n"
          "Recent warning and error logs:\n  W0000 OP_REQUIRES failed\n")
  for text, line in ((long, "/out/model.ckpt-1; Is a directory"),
                     ("It is full\n\t [[node a]]", "It is full"),
                     ("No server", "No server")):
    assert errors.op_reason(tf.errors.OpError(None, None, text, 9)) == line


def test_any_other_error_keeps_its_traceback():
  done = run("ValueError('a bug')")
  assert done.returncode != 0
  assert "Traceback" in done.stderr and "a bug" in done.stderr


def test_reported_turns_two_types_into_input_errors():
  with pytest.raises(errors.InputError, match="^bad$"):
    with errors.reported():
      raise ValueError("bad")
  with pytest.raises(errors.InputError, match="^/nowhere: No such file"):
    with errors.reported():
      open("/nowhere", encoding="utf-8")  # pylint: disable=consider-using-with
  with pytest.raises(KeyError):
    with errors.reported():
      raise KeyError("a bug")


def test_what_a_terminal_acts_on_is_escaped():
  hostile = "a\x1b[2J\r\x07\u202eb\ud800 é\u4e2d"
  assert errors.escaped(hostile) == (
      "a\\x1b[2J\\r\\x07\\u202eb\\ud800 é\u4e2d")
  assert errors.one_line("x is\n  %s" % hostile) == (
      "x is " + errors.escaped(hostile))
  formatter = errors._EscapedFormatter()  # pylint: disable=protected-access
  record = logging.LogRecord("absl", logging.WARNING, "f.py", 1, "one\n%s",
                             (hostile,), None)
  assert formatter.format(record).endswith(
      "] one\n" + errors.escaped(hostile))
