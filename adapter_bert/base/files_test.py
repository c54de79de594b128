"""Files whole or not at all, JSON of every bad kind, locks, litter."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from adapter_bert.base import errors
from adapter_bert.base import files


def refused(function, *args, **kwargs):
  with pytest.raises(errors.InputError) as caught:
    function(*args, **kwargs)
  line = str(caught.value)
  assert "\n" not in line and len(line) < 300
  return line


# -------------------------------------------------------------------- writing


@pytest.mark.parametrize("content", ["é\nb\n", ["é\n", "b\n"]])
def test_writing_replaces(tmp_path, content):
  path = tmp_path / "a.txt"
  path.write_text("old")
  files.write_atomically(str(path), content)
  assert path.read_bytes() == "é\nb\n".encode("utf-8")
  assert os.listdir(str(tmp_path)) == ["a.txt"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
  path = tmp_path / "results.txt"
  path.write_text("old")

  def lines():
    yield "new\n" * 100000
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    files.write_atomically(str(path), lines())
  assert path.read_text() == "old"
  assert os.listdir(str(tmp_path)) == ["results.txt"]


def test_a_file_that_cannot_be_written(tmp_path):
  path = str(tmp_path / "missing" / "results.txt")
  assert "cannot write %s: No such file" % path in refused(
      files.write_atomically, path, ["x\n"])
  (tmp_path / "file").write_text("")
  assert "cannot write" in refused(
      files.write_atomically, str(tmp_path / "file" / "x"), "x")
  assert "cannot make the directory" in refused(
      files.make_directory, str(tmp_path / "file" / "x"))


def test_a_path_with_a_scheme():
  import tensorflow.compat.v1 as tf
  path = "ram://files_test/value.json"
  files.make_directory("ram://files_test")
  assert files.read_json(path, missing_ok=True) is None
  assert "cannot be read" in refused(files.read_json, path)
  for value in ([1], {"é": 2.5}):
    files.write_json(path, value)
    assert files.read_json(path) == value
  assert tf.io.gfile.listdir("ram://files_test") == ["value.json"]


def test_a_directory_is_replaced_and_put_back(tmp_path):
  new, path = tmp_path / "new", tmp_path / "task"
  for text in ("one", "two"):
    new.mkdir()
    (new / "x").write_text(text)
    files.replace_directory(str(new), str(path))
    assert (path / "x").read_text() == text
    assert os.listdir(str(tmp_path)) == ["task"]
  path.rename(tmp_path / "task.old")
  files.recover_directory(str(path))
  assert (path / "x").read_text() == "two"
  (tmp_path / "task.old").mkdir()
  files.recover_directory(str(path))
  assert os.listdir(str(tmp_path)) == ["task"]


def test_litter_of_killed_processes_goes(tmp_path):
  child = subprocess.Popen([sys.executable, "-c", ""])
  child.wait()
  host = socket.gethostname()
  names = {
      "a.json.tmp-%s-%d" % (host, child.pid): True,
      "a.json.tmp-%s-%d" % (host, os.getpid()): False,
      "a.json.tmp-elsewhere-%d" % child.pid: False,  # it may be alive there
      "old.tmp-elsewhere-7": True,
      "old.tmp-%d" % os.getpid(): True,
      "old.index.tempstate123": True,
      "model.ckpt-3.index.tempstate123": False,
      "model.ckpt-3.index": False,
      "old.txt": False,
  }
  for name in names:
    (tmp_path / name).write_text("x")
    if name.startswith("old"):
      os.utime(str(tmp_path / name), (time.time() - 7200,) * 2)
  directory = tmp_path / ("out.tmp-%s-%d" % (host, child.pid))
  directory.mkdir()
  (directory / "x").write_text("x")
  (tmp_path / "model.ckpt-9_temp").mkdir()
  files.remove_litter(str(tmp_path), only="out")
  assert not directory.exists() and len(os.listdir(str(tmp_path))) == 10
  files.remove_litter(str(tmp_path))
  left = set(name for name, goes in names.items() if not goes)
  assert set(os.listdir(str(tmp_path))) == left | {"model.ckpt-9_temp"}
  # Who has the lock knows that TensorFlow's belong to no one.
  files.remove_litter(str(tmp_path), alone=True)
  assert set(os.listdir(str(tmp_path))) == left - {
      "model.ckpt-3.index.tempstate123"}
  files.remove_litter(str(tmp_path / "nowhere"))


# -------------------------------------------------------------------- reading


@pytest.mark.parametrize("content, said", [
    (None, "cannot be read: No such file"),
    (b"", "is empty"),
    (b" \n", "is empty"),
    (b"\x80\x81", "is not text: byte 0x80 at 0 is not UTF-8"),
    (b"{\n 1}", "is not JSON: line 2, column 2: "),
    (b'{"a": 1, "a": 2}', 'the key "a" stands twice in one object'),
    (b"[" * 100000, "nested too deeply"),
    (b'{"a":' * 100000, "nested too deeply"),
    (b"[1" + b"0" * 399 + b"]", "the number 100000000000... has 400 digits"),
    (b"[1" + b"0" * 9999 + b"]", "has 10000 digits"),
    (b"[1e999]", "the number 1e999 is too large"),
])
def test_files_that_are_not_json(tmp_path, content, said):
  path = tmp_path / "value.json"
  if content is not None:
    path.write_bytes(content)
  line = refused(files.read_json, str(path))
  assert line.startswith("%s: " % path) and said in line


def test_what_is_no_ordinary_file(tmp_path):
  pipe = str(tmp_path / "pipe")
  os.mkfifo(pipe)
  for path in ("/dev/zero", pipe):
    assert "is a device or a pipe" in refused(files.read_json, path)
  line = refused(files.check_regular, str(tmp_path), "--vocab_file")
  assert line == "--vocab_file=%s is a directory; give a file" % tmp_path
  huge = tmp_path / "huge.json"
  with open(str(huge), "wb") as output:
    output.truncate(1 << 40)  # takes no room
  assert "has more than 64 MB" in refused(files.read_json, str(huge))


def test_json_is_read(tmp_path):
  path = tmp_path / "value.json"
  path.write_bytes(b'\xef\xbb\xbf{"a": [1, -2.5e3, null, true]}')
  assert files.read_json(str(path), {"a": list}) == {"a": [1, -2500, None, True]}
  assert files.read_json(str(tmp_path / "no"), missing_ok=True) is None
  for value in (2**64 - 1, -2**63, [[1]] * 99, "\x00"):
    assert files.parse_json(json.dumps(value), "here") == value


@pytest.mark.parametrize("value, shape, said", [
    ([], dict, "here: holds []; it must be an object"),
    ({}, {"a": int}, "here: has no 'a'"),
    ({"a": "1"}, {"a": int}, 'here: a is "1"; it must be a whole number'),
    ({"a": True}, {"a": int}, "here: a is true; it must be a whole number"),
    ({"a": 1}, {"a": bool}, "here: a is 1; it must be true or false"),
    ({"a": True}, {"a": float}, "here: a is true; it must be a number"),
    ({"a": None}, {"a": str}, "here: a is null; it must be a string"),
    ({"a": {"b": [1, "x"]}}, {"a": {"b": [int]}},
     'here: a.b[1] is "x"; it must be a whole number'),
    ({"a": {}}, {"a": {"b": int}}, "here: has no 'b' in a"),
    ([[1, 2.5], [1]], [(int, float)], "here: [1] must have 2 items, and has 1"),
    ([[1, 2.5], 3], [(int, float)], "here: [1] is 3; it must be a list"),
    ({"a": 1}, {"a": files.Optional(str)}, "here: a is 1; it must be a string"),
    ("x" * 99, int, 'here: holds "xxx'),
])
def test_another_shape_is_refused(value, shape, said):
  assert refused(files.check_shape, value, shape, "here").startswith(said)


def test_shapes_that_fit():
  files.check_shape(
      {"a": 1, "b": [[1, 2]], "c": None, "other": {}},
      {"a": float, "b": [(int, float)], "c": files.Optional(str),
       "d": files.Optional({"e": int})}, "here")


# ---------------------------------------------------------------------- locks

HOLD = """
import sys
from adapter_bert.base import files
with files.locked(sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""


def test_one_writer_at_a_time(tmp_path):
  directory = str(tmp_path / "out")
  with files.locked(directory):
    line = refused(files.locked(directory).__enter__)
    assert "in use by process %d on %s;" % (
        os.getpid(), socket.gethostname()) in line and directory in line
  with files.locked(directory):
    pass


def test_a_dead_process_is_no_obstacle(tmp_path):
  directory = str(tmp_path / "out")
  process = subprocess.Popen([sys.executable, "-c", HOLD, directory],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert process.stdout.readline() == b"held\n"
  assert "process %d on" % process.pid in refused(
      files.locked(directory).__enter__)
  process.send_signal(signal.SIGKILL)
  with files.locked(directory, wait=True):
    pass
  process.communicate()


def test_where_there_are_no_locks(tmp_path, caplog):
  with files.locked("ram://somewhere"), files.locked("ram://somewhere"):
    pass
  assert "ram://somewhere cannot be locked" in caplog.text
  (tmp_path / "file").write_text("")
  assert "cannot make the directory" in refused(
      files.locked(str(tmp_path / "file")).__enter__)
