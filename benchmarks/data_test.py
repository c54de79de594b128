"""The measurements of the data's side run, and compare equal things."""

import os
import subprocess
import sys

import pytest

from benchmarks import data

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(data.__file__)))


def run(*flags):
  return subprocess.run([sys.executable, "-m", "benchmarks.data"] + list(flags),
                        cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(name="vocab_file")
def fixture_vocab_file(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat",
                             "sat", "##s", "."]), encoding="utf-8")
  return str(path)


def test_the_tokenizers_are_compared(vocab_file, monkeypatch):
  texts = ["The cats sat."] * 25 + ["dog", "the\tcat"]
  plain, fast, compared = data.compare_tokenizers(texts, vocab_file)
  assert plain > 0 and fast > 0 and compared == 3
  monkeypatch.setattr(data, "plain_tokens", lambda tokenizer, text: ["[UNK]"])
  with pytest.raises(ValueError, match="differ"):
    data.compare_tokenizers(texts, vocab_file)


def test_nothing_to_measure():
  result = run()
  assert result.returncode == 1 and "--examples" in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="Linux only")
def test_a_large_set():
  result = run("--examples=30000", "--steps=1")
  assert result.returncode == 0, result.stderr[-2000:]
  prepared, *steps = result.stdout.splitlines()
  assert prepared.startswith("30000 examples prepared")
  assert len(steps) == 2 and all(line.endswith(" MB") for line in steps)
