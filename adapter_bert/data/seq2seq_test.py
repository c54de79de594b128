"""What seq2seq promises: files of sources and targets, GLUE as text, batches."""

import json

from absl import logging
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.data import datasets
from adapter_bert.data import seq2seq
from adapter_bert.data import tasks

_SPEC = {"name": "Own", "metrics": ["exact_match"],
         "columns": {"source": "word", "target": "sound"},
         "train": "train.tsv", "dev": "dev.jsonl", "test": "test.source"}


class _Letters(object):
  """A tokenizer of letters: a is 3, b is 4, ...; 1 and 2 stand around them."""

  vocab_size = 40

  def encode(self, text):
    return [1] + [ord(char) - ord("a") + 3 for char in text] + [2]

  def describe(self):
    return {"letters": 1}


def _write(directory, name, *lines):
  path = directory / name
  path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8"))
  return str(path)


def _own(**changes):
  return seq2seq.task_from_dict(dict(_SPEC, **changes))


def _read(task, split, directory):
  return [(e.source, e.target)
          for e in seq2seq.read_examples(task, split, str(directory))]


def _error(task, split, directory):
  with pytest.raises(errors.InputError) as error:
    _read(task, split, directory)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_files(tmp_path):
  task = _own()
  _write(tmp_path, "train.tsv", "n\tsound\tword", '1\tAb"\tab', "2\tC\tc")
  _write(tmp_path, "dev.jsonl", '{"word": "ab", "sound": "A", "n": 1}',
         '{"word": "c", "sound": "C"}', '{"word": "ab", "sound": "B"}')
  _write(tmp_path, "test.source", "ab", "c")
  assert _read(task, task.train, tmp_path) == [("ab", 'Ab"'), ("c", "C")]
  dev = list(seq2seq.read_examples(task, task.dev[0], str(tmp_path)))
  assert seq2seq.grouped(dev) == {"ab": ["A", "B"], "c": ["C"]}
  assert _read(task, task.test[0], tmp_path) == [("ab", None), ("c", None)]
  _write(tmp_path, "test.target", "A", "C")
  assert _read(task, task.test[0], tmp_path) == [("ab", "A"), ("c", "C")]
  assert seq2seq.task_from_dict(seq2seq.task_to_dict(task)) == task


def test_e2e_and_plain_text(tmp_path):
  task = seq2seq.get_task("e2e")
  _write(tmp_path, "src1_train.txt", "name : X | food : Y||X has Y .")
  assert _read(task, task.train, tmp_path) == [
      ("name : X | food : Y", "X has Y .")]
  _write(tmp_path, "devset.tsv", "mr\tref", "name[X]\tX.")
  assert _read(task, task.dev[0], tmp_path) == [("name[X]", "X.")]
  plain = _own(columns={"target": "text"}, train="train.txt", dev=None,
               test=None)
  _write(tmp_path, "train.txt", "one", "", "two || three")
  assert _read(plain, plain.train, tmp_path) == [(None, "one"),
                                                 (None, "two || three")]


def test_summaries(tmp_path):
  task = seq2seq.get_task("XSum")
  _write(tmp_path, "val.source", "long")
  _write(tmp_path, "val.target", "short")
  assert _read(task, task.dev[0], tmp_path) == [("long", "short")]
  _write(tmp_path, "train.jsonl", '{"document": "long", "summary": "short"}')
  assert _read(task, task.train, tmp_path) == [("long", "short")]
  assert _error(task, task.test[0], tmp_path).startswith(
      "%s: no such file; XSum's test examples are read from test.tsv or "
      "test.jsonl or test.source or test.txt" % (tmp_path / "test.tsv"))
  _write(tmp_path, "dev.tsv", "x")
  assert "are all there" in _error(task, task.dev[0], tmp_path)


@pytest.mark.parametrize("files, problem", [
    ({"train.tsv": ["word", "a"]}, "train.tsv:1: no column is called sound, for "
     "the target; the columns are 'word'"),
    ({"train.tsv": ["word\tsound\tsound", "a\tb\tc"]},
     "more than one column is called sound"),
    ({"train.tsv": ["word\tsound", "a"]}, "train.tsv:2: found 1 tab-separated"),
    ({"train.tsv": ["word\tsound", "a\t "]}, "train.tsv:2: the target is empty"),
    ({"train.tsv": ["word\tsound", "\tA"]}, "train.tsv:2: the source is empty"),
    ({"train.tsv": ["word\tsound"]}, "train.tsv: has no examples"),
    ({"train.jsonl": ['{"word": "a", "sound": "b"}', '{"word": "a"}']},
     "train.jsonl:2: 'sound' is null; it must be a text"),
    ({"train.source": ["a", "b"], "train.target": ["A"]},
     "train.target ends behind line 1 and "),
    ({"train.source": ["a"], "train.target": ["A", "B"]},
     "train.source ends behind line 1 and "),
    ({"train.txt": ["a||A", "b"]}, 'train.txt:2: has no "||"'),
    ({"train.source": ["a"]}, "train.target: No such file"),
])
def test_bad_files(tmp_path, files, problem):
  for name, lines in files.items():
    _write(tmp_path, name, *lines)
  task = _own(train=sorted(files)[0])
  assert problem in _error(task, task.train, tmp_path)


@pytest.mark.parametrize("changes, problem", [
    ({"metrics": ["f1"]}, "it must be a list of some of exact_match"),
    ({"train": "train.csv"}, "a file name that ends in .tsv, .jsonl"),
    ({"columns": {"target": "a", "source": "a"}}, "name one column twice"),
    ({"columns": {"source": "a"}}, '"columns" has no "target"'),
    ({"tarin": "x.tsv"}, 'unknown key "tarin"'),
    ({"train": None, "dev": None, "test": None}, "has no file"),
])
def test_bad_specs(changes, problem):
  with pytest.raises(errors.InputError) as error:
    _own(**changes)
  assert problem in str(error.value)


def test_files_stay_under_data_dir(tmp_path):
  task = _own(train="../train.tsv")
  assert "is not under --data_dir" in _error(task, task.train, tmp_path)


# GLUE as text, as T5's paper writes it (appendix D).


@pytest.mark.parametrize("name, header, row, source, target", [
    ("cola", None, "x\t0\t\tShe goed.", "cola sentence: She goed.",
     "unacceptable"),
    ("sst-2", "sentence\tlabel", "fine\t1", "sst2 sentence: fine", "positive"),
    ("mrpc", "label\tsentence1\tsentence2", "1\tA\tB",
     "mrpc sentence1: A sentence2: B", "equivalent"),
    ("qqp", "question1\tquestion2\tlabel", "A\tB\t0",
     "qqp question1: A question2: B", "not_duplicate"),
    ("mnli", "premise\thypothesis\tlabel", "A\tB\t2",
     "mnli hypothesis: B premise: A", "contradiction"),
    ("qnli", "question\tsentence\tlabel", "A\tB\t1",
     "qnli question: A sentence: B", "not_entailment"),
    ("rte", "sentence1\tsentence2\tlabel", "A\tB\t0",
     "rte sentence1: A sentence2: B", "entailment"),
    ("sts-b", "sentence1\tsentence2\tscore", "A\tB\t3.25",
     "stsb sentence1: A sentence2: B", "3.2"),
])
def test_glue_as_text(tmp_path, name, header, row, source, target):
  task = seq2seq.get_task(name)
  _write(tmp_path, task.train.glue.filename, *([header] if header else []), row)
  assert _read(task, task.train, tmp_path) == [(source, target)]


def test_scores_are_rounded_to_fifths_and_words_are_read_back():
  stsb, mnli = tasks.get_task("sts-b"), tasks.get_task("mnli")
  assert [seq2seq.glue_target(stsb, score) for score in (
      "0", "5.000", "2.59", "2.29", "1.1", "0.3")] == [
          "0.0", "5.0", "2.6", "2.2", "1.2", "0.4"]
  assert seq2seq.glue_prediction(stsb, " 2.6") == 2.6
  assert seq2seq.glue_prediction(stsb, "entailment") is None
  for place, label in enumerate(mnli.labels):
    assert seq2seq.glue_prediction(mnli, label) == place
  assert seq2seq.glue_prediction(mnli, "hamburger") is None
  assert seq2seq.glue_prediction(tasks.get_task("mrpc"), "equivalent") == 1


def test_glue_metrics_of_texts(tmp_path, caplog):
  _write(tmp_path, "dev.tsv", "sentence1\tsentence2\tlabel", "A\tB\t1",
         "C\tD\t1", "E\tF\t0", "G\tH\t0")
  task = seq2seq.get_task("mrpc")
  found = seq2seq.glue_metrics(
      task, task.dev[0], str(tmp_path),
      ["equivalent", "hamburger", "not_equivalent", " equivalent"])
  # One true positive, one false one, one false negative.
  assert found == {"eval_accuracy": 0.5, "eval_f1": 0.5}
  assert "1 of 4 texts are not a label" in caplog.text
  stsb = seq2seq.get_task("stsb")
  scores = tmp_path / "sts"
  scores.mkdir()
  _write(scores, "dev.tsv", "sentence1\tsentence2\tlabel", "A\tB\t1.07",
         "C\tD\t2.5", "E\tF\t5.0")
  found = seq2seq.glue_metrics(stsb, stsb.dev[0], str(scores),
                               ["1.0", "nine", "3.8"])
  # The labels are those of the file, not rounded.
  labels, predictions = [1.07, 2.5, 5.0], [1.0, -1.0, 3.8]
  assert found["eval_pearson"] == pytest.approx(
      np.corrcoef(labels, predictions)[0, 1])
  assert found["eval_spearman"] == pytest.approx(0.5)



# Features and batches.


def test_features():
  encoder = seq2seq.Encoder(_Letters(), _Letters(), 5, 4, target_end=(9,))
  assert encoder.encode(seq2seq.TextExample("x", "abcd", "a")) == (
      [1, 3, 4, 5, 2], [1, 3, 2, 9], (True, False))
  assert encoder.encode(seq2seq.TextExample("x", "ab", "abc")) == (
      [1, 3, 4, 2], [1, 3, 2, 9], (False, True))
  assert encoder.encode(seq2seq.TextExample("x", None, None)) == (
      [], [], (False, False))
  with pytest.raises(errors.InputError, match="leaves no room"):
    seq2seq.Encoder(_Letters(), _Letters(), 1, 9).encode(
        seq2seq.TextExample("x", "a", "b"))


@pytest.fixture(name="records", scope="module")
def _records_fixture(tmp_path_factory):
  root = tmp_path_factory.mktemp("records")
  lines = ["%s\t%s" % ("a" * (i % 5 + 1), "b" * (3 * i % 7 + 1))
           for i in range(11)]
  _write(root, "train.tsv", "word\tsound", *lines)
  encoder = seq2seq.Encoder(_Letters(), _Letters(), 6, 32)
  task = _own()
  messages = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(logging, "info",
                  lambda text, *args: messages.append(text % args))
    for _ in range(2):
      records = seq2seq.prepare(task, task.train, str(root), encoder,
                                str(root / "out"), examples_per_shard=4)
  assert messages[-1] == (
      "Own train: 11 examples, the longest source 6 tokens (2 truncated to 6), "
      "the longest target 9 (0 truncated to 32)")
  assert "were tokenized before" in messages[-2]
  return records


def _batches(dataset_fn, count):
  with tf.Graph().as_default(), tf.Session() as session:
    batch = tf.data.make_one_shot_iterator(dataset_fn()).get_next()
    return [session.run(batch) for _ in range(count)]


def test_batches(records):
  """Each side is padded to its own longest; every token is where it was."""
  evaluated = _batches(lambda: datasets.eval_sequences(
      records, 4, 6, 32, source_pad=7, target_pad=8, sort_by_length=False), 3)
  trained = _batches(lambda: datasets.train_sequences(
      records, 4, 6, 32, seed=1, source_pad=7, target_pad=8, bucket_window=2,
      row_multiple=3), 11)
  assert [batch["example_index"].tolist() for batch in evaluated] == [
      [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
  seen = []
  for batch in evaluated + trained:
    longest = {"source": 0, "target": 0}
    for row, index in enumerate(batch["example_index"]):
      i = index if index >= 0 else batch["example_index"][0]
      for name, letter, count, pad in (("source", 3, min(i % 5 + 1, 4), 7),
                                       ("target", 4, 3 * i % 7 + 1, 8)):
        ids, mask = batch[name + "_ids"][row], batch[name + "_mask"][row]
        expected = [1] + [letter] * count + [2]
        assert ids.tolist() == expected + [pad] * (len(ids) - len(expected))
        assert mask.sum() == len(expected) and mask[0] == 1
        longest[name] = max(longest[name], len(expected))
    assert batch["source_ids"].shape[1] == min(-(-longest["source"] // 8) * 8, 6)
    assert batch["target_ids"].shape[1] == -(-longest["target"] // 8) * 8
    assert batch["source_ids"].dtype == np.int32
  for batch in trained:
    assert batch["example_weights"].tolist() == [1] * 4 + [0] * 2
    seen += batch["example_index"][:4].tolist()
  assert sorted(seen) == sorted(list(range(11)) * 4)


def test_resuming(records):
  make = lambda start: lambda: datasets.train_sequences(
      records, 4, 6, 32, seed=1, bucket_window=2, start_step=start)
  whole, rest = _batches(make(0), 7), _batches(make(3), 4)
  for batch, other in zip(whole[3:], rest):
    for name in batch:
      np.testing.assert_array_equal(batch[name], other[name])


def test_records_that_are_too_long(records):
  with pytest.raises(ValueError, match="a target of 9 tokens"):
    datasets.eval_sequences(records, 4, 6, 8)


def test_plain_text_records(tmp_path):
  task = _own(columns={"target": "text"}, train="train.txt", dev=None,
              test=None)
  _write(tmp_path, "train.txt", "ab", "c")
  records = seq2seq.prepare(
      task, task.train, str(tmp_path),
      seq2seq.Encoder(_Letters(), _Letters(), 8, 8), str(tmp_path / "out"))
  batch, = _batches(lambda: datasets.eval_sequences(
      records, 4, 8, 8, sort_by_length=False), 1)
  assert batch["source_ids"].shape == (2, 0)
  assert batch["target_ids"][:, :4].tolist() == [[1, 3, 4, 2], [1, 5, 2, 0]]


def test_an_end_that_the_tokenizer_lacks(tmp_path):
  """It is the model's, whose table can be larger than the tokenizer's."""
  task = _own()
  _write(tmp_path, "train.tsv", "word\tsound", "ab\tc")
  records = seq2seq.prepare(
      task, task.train, str(tmp_path),
      seq2seq.Encoder(_Letters(), _Letters(), 8, 8, (50,), (51,)),
      str(tmp_path / "out"))
  batch, = _batches(lambda: datasets.eval_sequences(records, 4, 8, 8), 1)
  assert batch["source_ids"][0, :5].tolist() == [1, 3, 4, 2, 50]
  assert batch["target_ids"][0, :4].tolist() == [1, 5, 2, 51]


def test_load_task_spec(tmp_path):
  path = tmp_path / "spec.json"
  path.write_text(json.dumps(_SPEC))
  assert seq2seq.load_task_spec(str(path)) == _own()
