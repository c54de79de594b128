"""What is read at once, and what is refused."""

import io
import os

import pytest

from adapter_bert.base import errors
from adapter_bert.data import lines


class Slow(io.BytesIO):
  """Gives what one write wrote at a time, as a pipe does."""

  def __init__(self, *writes):
    super().__init__()
    self._writes = list(writes)

  def read1(self, size=-1):
    return self._writes.pop(0) if self._writes else b""


def test_chunks_are_what_is_there():
  chunks = list(lines.chunks_of(
      Slow(b"a\nb\nc", b"c\n", b"d", b"e"), "x"))
  assert chunks == [[(1, b"a"), (2, b"b")], [(3, b"cc")], [(4, b"de")]]
  many = b"".join(b"%d\n" % i for i in range(2500))
  chunks = list(lines.chunks_of(io.BufferedReader(io.BytesIO(many)),
                                        "x"))
  assert [len(chunk) for chunk in chunks] == [1024, 1024, 452]
  assert [line for chunk in chunks for line in chunk] == [
      (i + 1, b"%d" % i) for i in range(2500)]


def test_a_line_without_an_end_is_refused():
  chunks = lines.chunks_of(Slow(b"a\n", *[b"x" * 10**6] * 9), "file")
  assert next(chunks) == [(1, b"a")]
  with pytest.raises(errors.InputError, match="file:2: has no end"):
    next(chunks)


def test_output_is_not_the_input(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"kept")
  with pytest.raises(errors.InputError, match="is the input; give another"):
    with lines.output_file(str(path), str(path)):
      pass
  assert path.read_bytes() == b"kept"
  with lines.output_file(str(tmp_path / "other"), str(path)) as output:
    output.write(b"new")
  assert (tmp_path / "other").read_bytes() == b"new"
  with pytest.raises(errors.InputError, match="No such file"):
    with lines.output_file(str(tmp_path / "no" / "file"), None):
      pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_output_is_one_line():
  with pytest.raises(errors.InputError,
                     match="answers to /dev/full: No space left"):
    with lines.output_file("/dev/full", None) as output:
      lines.write(output, b"answer\n", "/dev/full")


def test_files_with_a_scheme(tmp_path):
  path = "ram://lines_test/input"
  with lines.output_file(path, None) as output:
    lines.write(output, "é\n".encode("utf-8") * 2, path)
  with lines.input_file(path) as (source, where):
    assert where == path
    assert list(lines.chunks_of(source, where)) == [
        [(1, "é".encode("utf-8")), (2, "é".encode("utf-8"))]]
  with pytest.raises(errors.InputError, match="is the input"):
    with lines.output_file(path, path):
      pass
  with pytest.raises(errors.InputError, match="nowhere: cannot be read"):
    with lines.input_file("ram://lines_test/nowhere"):
      pass
