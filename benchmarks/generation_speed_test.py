"""The benchmark of generation measures what it says; no time is asserted."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import generation_speed
from benchmarks import models
from benchmarks import ours_generation
from benchmarks import processes

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY = dict(models.G2P, vocab_size=31, d_model=16, encoder_ffn_dim=16,
            decoder_ffn_dim=16, encoder_attention_heads=2,
            decoder_attention_heads=2)


def test_ours_generates_as_many_tokens_as_it_is_asked_for():
  subject = ours_generation.Subject(TINY, "float32", {"max_new_tokens": 5,
                                                      "num_beams": 2})
  prompts = np.random.RandomState(0).randint(1, 31, [3, 4])
  # pylint: disable-next=protected-access
  found = subject._generator.run(0, prompts.tolist())
  assert [len(result.ids) for row in found for result in row] == [5] * 3
  subject.steps([prompts])
  ops = subject.profile(prompts)
  assert any("MatMul" in kind for kind in ops)


def test_rows_compare_with_the_first_in_each_round():
  class Named(object):
    def __init__(self, name, imported_bytes):
      self.name, self.imported_bytes = name, imported_bytes

  reply = lambda seconds, cpu, peak: {"seconds": seconds, "cpu_seconds": cpu,
                                      "peak_bytes": peak}
  replies = {"ours": [reply(9, 9, 90), reply(1, 2, 60), reply(2, 2, 50)],
             "peer": [reply(8, 8, 80), reply(3, 8, 70), reply(4, 4, 60)]}
  cell = generation_speed.rows([Named("ours", 20), Named("peer", 50)], replies,
                               tokens=12)
  ours, peer = cell
  assert ours["speed"] == [12, 6] and peer["speed"] == [4, 3]
  assert peer["ratio"] == 2.5 and peer["cpu_ratio"] == 3
  assert (ours["memory"], peer["memory"]) == (40, 20)
  assert peer["memory_ratio"] == 2 and ours["ratio"] == 1
  assert generation_speed.summary([cell, cell]) == [
      "ours over peer, 2 cells: speed 2.50x (least 2.50x), per processor second "
      "3.00x (least 3.00x), memory 2.00x (most 2.00x)"]


def test_a_process_that_dies_says_its_last_line():
  with pytest.raises(processes.errors.InputError, match="no_module_of_ours"):
    processes.Process("x", {"module": "ours_no_module_of_ours",
                            "arguments": []}, cores=1)


@pytest.mark.slow
def test_the_command_prints_a_table_and_a_summary():
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.generation_speed", "--model=g2p",
       "--lengths=4", "--batch_sizes=2", "--beams=1,2", "--precisions=fp32",
       "--rounds=1", "--new_tokens=3", "--subjects=ours,ours@before",
       "--before=" + ROOT], cwd=ROOT, capture_output=True, text=True, check=True)
  lines = done.stdout.strip().split("\n")
  assert "g2p, fp32, greedy, 4 tokens + 3, batch 2" in lines
  assert "g2p, fp32, 2 beams, 4 tokens + 3, batch 2" in lines
  assert any(re.match(r"ours +[\d.]+ \(", line) for line in lines)
  assert lines[-1].startswith("ours over ours@before, 2 cells: speed ")


def test_an_unknown_subject_is_refused_in_one_line():
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.generation_speed", "--subjects=theirs"],
      cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert done.stderr.startswith("error: unknown subject 'theirs'; known are")
