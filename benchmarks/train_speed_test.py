"""The benchmark measures what it says; no time is asserted."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import batches
from benchmarks import count_lengths
from benchmarks import models
from benchmarks import ours
from benchmarks import processes
from benchmarks import train_speed
from adapter_bert.data import tasks
from adapter_bert import test_util
import tokenization

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def tiny():
  return test_util.tiny_config(num_hidden_layers=4, max_position_embeddings=40,
                               hidden_dropout_prob=0.1).to_dict()


def some_batches(subject, count):
  made = []
  for number in range(count):
    lengths = batches.Lengths("6").draw(5, number)
    made.append(batches.make(lengths, number,
                             subject.padded_length(int(lengths.max())), 31))
  return made


@pytest.mark.parametrize("task,examples,mean,longest", [
    ("cola", 8551, 11.5, 47), ("mrpc", 3668, 53, 103),
    ("sst-2", 67349, 13.3, 66)])
def test_lengths_are_those_of_the_training_sets(task, examples, mean, longest):
  lengths = batches.Lengths(task)
  with open(batches.LENGTHS_FILE, encoding="utf-8") as source:
    assert sum(json.load(source)[task].values()) == examples
  assert lengths.mean == pytest.approx(mean, abs=0.5)
  assert lengths.longest == longest


def test_the_lengths_file_is_what_count_lengths_counts():
  tokenizer = tokenization.FullTokenizer(
      test_util.external("BERT_BASE_DIR", "vocab.txt"))
  with open(batches.LENGTHS_FILE, encoding="utf-8") as source:
    shipped = json.load(source)["mrpc"]
  counted = count_lengths.count_lengths(
      tasks.get_task("mrpc"), test_util.external("GLUE_DIR", "MRPC"), tokenizer)
  assert {str(length): n for length, n in counted.items()} == shipped


def test_batches_have_the_lengths_of_the_data_and_are_the_same_each_time():
  lengths = batches.Lengths("cola")
  drawn = lengths.draw(20000, 3)
  assert np.mean(drawn) == pytest.approx(lengths.mean, abs=0.2)
  assert drawn.tolist() == lengths.draw(20000, 3).tolist()
  assert drawn.tolist() != lengths.draw(20000, 4).tolist()
  assert batches.Lengths("9").draw(3, 0).tolist() == [9, 9, 9]
  batch = batches.make(np.array([2, 4]), 0, 5, 31)
  assert batch["input_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
  assert (batch["input_ids"] > 0).tolist() == (
      batch["input_mask"] > 0).tolist()


def test_sorted_batches_are_of_like_lengths():
  lengths = batches.Lengths("cola")
  shuffled = np.stack(lengths.batches(32, 20))
  ordered = np.stack(lengths.batches(32, 20, bucket_window=20))
  assert shuffled.shape == ordered.shape == (20, 32)
  assert (np.diff(ordered.ravel()) >= 0).all()
  assert ordered.mean() == pytest.approx(shuffled.mean(), abs=0.7)
  assert ordered.max(axis=1).mean() < 0.6 * shuffled.max(axis=1).mean()
  few = np.stack(lengths.batches(32, 4, bucket_window=20))
  assert few.tolist() == ordered[[2, 7, 12, 17]].tolist()


def test_pairs_have_the_lengths_that_are_asked_for():
  lengths = batches.PairLengths("2-9/3")
  source, target = lengths.draw(500, 1)
  assert set(source) == set(range(2, 10)) and set(target) == {3}
  assert lengths.draw(500, 1)[0].tolist() == source.tolist()
  made = batches.make_pairs((np.array([2, 5]), np.array([3, 3])), 0,
                            lambda longest: longest + 1, 31)
  assert made["source_mask"].tolist() == [[1, 1, 0, 0, 0, 0],
                                          [1, 1, 1, 1, 1, 0]]
  assert ((made["source_ids"] > 0) == (made["source_mask"] > 0)).all()
  plain = batches.make_pairs((np.array([0]), np.array([3])), 0, lambda n: n, 31)
  assert plain["source_ids"].shape == (1, 0)
  for data in ("512", "9-2/3", "4/0", "a/b"):
    with pytest.raises(ValueError, match="unknown lengths"):
      batches.PairLengths(data)


def test_unknown_data_is_refused():
  for data in ("imdb", "0", "-3"):
    with pytest.raises(ValueError, match="unknown data"):
      batches.Lengths(data)


def test_each_has_about_so_many_tokens_in_a_turn():
  # pylint: disable=protected-access
  assert train_speed._steps("10", 4, 0, 0, 100) == 3
  assert train_speed._steps("10", 4, 0, 50, 100) == 1
  assert train_speed._steps("8/2", 4, 0, 0, 100) == 3


def test_ratios_are_of_the_same_round():
  assert processes.ratio([8.0, 2.0, 6.0], [4.0, 1.0, 1.0]) == 2.0


@pytest.mark.parametrize("adapters,trained", [
    ("all", r"adapters|LayerNorm|output_(weights|bias)$"),
    ("upper", r"layer_[23]/.*adapters|output_(weights|bias)$"),
    ("prefix-mlp", r"prefix/|output_(weights|bias)$"),
    pytest.param("none", "", marks=pytest.mark.slow)])
def test_a_step_trains_what_the_subject_says(adapters, trained):
  subject = ours.Subject(tiny(), adapters, "bfloat16", 5)
  # pylint: disable-next=protected-access
  graph, session = subject._graph, subject._session
  names = test_util.names(graph.trained)
  assert names and names == [n for n in test_util.names(graph.variables)
                             if re.search(trained, n)]
  # Two steps, because the learning rate of the first is 0.
  before = session.run(graph.variables)
  subject.steps(some_batches(subject, 2))
  changed = [v.op.name for v, a, b in zip(
      graph.variables, before, session.run(graph.variables))
             if not np.array_equal(a, b)]
  assert changed == names
  ops = subject.profile(some_batches(subject, 1)[0])
  assert any("MatMul" in kind for kind in ops)


def test_a_step_of_a_sequence_model_trains_what_the_subject_says():
  config = dict(models.GPT2_SMALL, vocab_size=31, n_embd=16, n_layer=1, n_head=2)
  subject = ours.Subject(config, "all", "float32", 3)
  # pylint: disable-next=protected-access
  graph, session = subject._graph, subject._session
  before = session.run(graph.variables)
  lengths = (np.array([0, 0, 0]), np.array([4, 5, 4]))
  subject.steps([batches.make_pairs(lengths, number, subject.padded_length, 31)
                 for number in range(2)])
  changed = [v.op.name for v, a, b in zip(
      graph.variables, before, session.run(graph.variables))
             if not np.array_equal(a, b)]
  assert changed == test_util.names(graph.trained)
  assert all(re.search("adapters|LayerNorm", name) for name in changed)


@pytest.mark.slow
def test_the_command_prints_a_table(tmp_path):
  config = tmp_path / "config.json"
  config.write_text(json.dumps(tiny()))
  # Without PyTorch here, the peer's row says so.
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.train_speed", "--data=6",
       "--batch_sizes=3", "--rounds=2", "--tokens=30",
       "--subjects=ours-bf16,peer-fp32", "--bert_config_file=%s" % config],
      cwd=ROOT, capture_output=True, text=True, check=True)
  title, _, first, second = done.stdout.strip().split("\n")[-4:]
  assert title == "6 (mean 6.0 tokens, longest 6), batch 3, 2 rounds"
  assert re.match(r"ours-bf16 +[\d.]+ \([\d.]+ to [\d.]+\) +1.00x ", first)
  assert re.match(r"peer-fp32 +(not measured: .*No module|[\d.]+ \()", second)


@pytest.mark.slow
def test_the_code_before_is_measured_beside_this_one(tmp_path):
  config = tmp_path / "config.json"
  config.write_text(json.dumps(tiny()))
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.train_speed", "--data=6", "--cores=1",
       "--batch_sizes=3", "--rounds=2", "--tokens=30", "--before=" + ROOT,
       "--subjects=ours-bf16,ours-bf16@before", "--bert_config_file=%s" % config],
      cwd=ROOT, capture_output=True, text=True, check=True)
  assert re.match(r"ours-bf16@before +[\d.]+ \(",
                  done.stdout.strip().split("\n")[-1])


def test_an_unknown_subject_is_refused_in_one_line():
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.train_speed", "--subjects=theirs"],
      cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert done.stderr.startswith("error: unknown subject 'theirs'; known are")


def test_the_code_before_needs_a_checkout():
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.train_speed",
       "--subjects=ours-bf16,ours-bf16@before"],
      cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert done.stderr.startswith("error: ours-bf16@before needs --before, another"
                                " checkout")
