"""What features, tfrecords, workers and datasets promise, on countable sets."""

import collections
import contextlib
import dataclasses
import filecmp
import functools
import json
import os
import subprocess
import sys
import time

from absl import logging
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert import test_util
from adapter_bert.data import datasets
from adapter_bert.data import features
from adapter_bert.data import reading
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
from adapter_bert.data import workers
import tokenization

_VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat",
          "mat", "on", "."]
_IDS = {token: index for index, token in enumerate(_VOCAB)}

_ROW = {"name": "Toy", "labels": ["no", "yes"], "metrics": ["accuracy"],
        "columns": {"text_a": 0, "label": 1}, "header": False,
        "train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
_TASK = task_specs.task_from_dict(_ROW)
_PAIR_TASK = task_specs.task_from_dict(
    dict(_ROW, columns={"text_a": 0, "text_b": 2, "label": 1}))
_SCORE_ROW = {key: value for key, value in _ROW.items() if key != "labels"}
_SCORE_TASK = task_specs.task_from_dict(
    dict(_SCORE_ROW, metrics=["pearson"], score_range=[0, 5]))

_TRAIN = _TASK.train


def _tokenizer(directory, vocab=tuple(_VOCAB), do_lower_case=True):
  path = os.path.join(str(directory), "vocab.txt")
  with open(path, "w", encoding="utf-8") as vocab_file:
    vocab_file.write("".join(token + "\n" for token in vocab))
  return tokenization.FullTokenizer(path, do_lower_case)


def _write(path, lines):
  os.makedirs(os.path.dirname(str(path)), exist_ok=True)
  with open(str(path), "w", encoding="utf-8", newline="\n") as data:
    data.write("".join(line + "\n" for line in lines))


def _rows(lengths):
  """File lines whose examples have these lengths, [CLS] and [SEP] counted."""
  return ["%s\t%s" % (" ".join(["cat"] * (length - 2)), ("no", "yes")[i % 2])
          for i, length in enumerate(lengths)]


# 13 examples of different lengths between 3 and 28, not in order.
_LENGTHS = [(5 * i) % 27 + 3 for i in range(13)]


def _prepared(directory, lengths=tuple(_LENGTHS), examples_per_shard=16384,
              **kwargs):
  _write(directory / "data" / "train.tsv", _rows(lengths))
  return tfrecords.prepare(
      _TASK, _TRAIN, str(directory / "data"), _tokenizer(directory), 32,
      str(directory / "out"), examples_per_shard=examples_per_shard, **kwargs)


def _batches(dataset_fn, count=None):
  """The first `count` batches (all: None) of dataset_fn(), as numpy dicts."""
  batches = []
  with tf.Graph().as_default(), tf.Session() as session:
    iterator = tf.data.make_initializable_iterator(dataset_fn())
    batch = iterator.get_next()
    session.run(iterator.initializer)
    with contextlib.suppress(tf.errors.OutOfRangeError):
      while count is None or len(batches) < count:
        batches.append(session.run(batch))
  return batches


def _train(records, count, batch_size=4, seed=1, **kwargs):
  return _batches(lambda: datasets.train_dataset(
      records, batch_size, 32, seed, **kwargs), count)


def _eval(records, batch_size=4, **kwargs):
  return _batches(lambda: datasets.eval_dataset(
      records, batch_size, 32, **kwargs))


def _seen(batches):
  return [int(index) for batch in batches for index in batch["example_index"]]


def _lengths(batch):
  return batch["input_mask"].sum(axis=1)


def _assert_same(batches, others):
  assert len(batches) == len(others)
  for batch, other in zip(batches, others):
    assert batch.keys() == other.keys()
    for name in batch:
      np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def _files(directory):
  """{path under directory: content} of all files."""
  content = {}
  for folder, _, names in os.walk(str(directory)):
    for name in names:
      path = os.path.join(folder, name)
      with open(path, "rb") as data:
        content[os.path.relpath(path, str(directory))] = data.read()
  return content


# ---------------------------------------------------------------- features


@pytest.fixture(name="features_of")
def _features_of_fixture(tmp_path):
  """convert_single_example of a text (pair) with the vocabulary above."""

  def features_of(text_a, text_b, label, task, max_seq_length):
    example = reading.InputExample("train-0", text_a, text_b, label)
    return features.convert_single_example(
        0, example, task, max_seq_length, _tokenizer(tmp_path))

  return features_of


def test_single_text(features_of):
  features = features_of("The cats sat", None, "yes", _TASK, 8)
  # [CLS] the cat ##s sat [SEP]
  assert features.input_ids == [2, 4, 5, 6, 7, 3, 0, 0]
  assert features.input_mask == [1, 1, 1, 1, 1, 1, 0, 0]
  assert features.segment_ids == [0] * 8
  assert features.label_id == 1


def test_pair(features_of):
  features = features_of("cats", "the dog.", "no", _PAIR_TASK, 10)
  # [CLS] cat ##s [SEP] the [UNK] . [SEP]
  assert features.input_ids == [2, 5, 6, 3, 4, 1, 10, 3, 0, 0]
  assert features.input_mask == [1] * 8 + [0, 0]
  assert features.segment_ids == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
  assert features.label_id == 0


def test_truncation_keeps_the_beginnings(features_of):
  features = features_of("the cat sat on", None, "no", _TASK, 4)
  assert features.input_ids == [2, 4, 5, 3]
  features = features_of("the cat sat on", "mat . .", "no", _PAIR_TASK, 8)
  # Room for 5: 4 + 3 -> 3 + 3 (the longer) -> 3 + 2 (equal: the second).
  assert features.input_ids == [2, 4, 5, 7, 3, 8, 10, 3]
  assert features.segment_ids == [0] * 5 + [1] * 3


def test_labels(features_of):
  assert features_of("cat", None, "3.25", _SCORE_TASK, 8).label_id == 3.25
  assert features_of("cat", None, None, _TASK, 8).label_id == 0
  with pytest.raises(errors.InputError, match="maybe.*no, yes"):
    features_of("cat", None, "maybe", _TASK, 8)


def test_no_room(features_of):
  features_of("cat", None, "no", _TASK, 3)
  features_of("cat", "cat", "no", _PAIR_TASK, 5)
  with pytest.raises(errors.InputError, match="max_seq_length=2.*need 3"):
    features_of("cat", None, "no", _TASK, 2)
  with pytest.raises(errors.InputError, match="max_seq_length=4.*need 5"):
    features_of("cat", "cat", "no", _PAIR_TASK, 4)


@pytest.mark.parametrize("len_a, len_b, limit, expected", [
    (3, 4, 7, (3, 4)),  # Fits.
    (3, 5, 7, (3, 4)),  # From the longer one.
    (9, 2, 7, (5, 2)),
    (2, 9, 7, (2, 5)),
    (4, 4, 7, (4, 3)),  # Equal: from the second.
    (5, 5, 7, (4, 3)),
    (5, 5, 6, (3, 3)),
    (0, 9, 4, (0, 4)),
])
def test_truncated_lengths(len_a, len_b, limit, expected):
  assert features.truncated_lengths(len_a, len_b, limit) == expected


def test_truncated_lengths_is_one_token_at_a_time():
  for len_a in range(12):
    for len_b in range(12):
      for limit in range(2, 20):
        a, b = len_a, len_b
        while a + b > limit:
          if a > b:
            a -= 1
          else:
            b -= 1
        assert features.truncated_lengths(len_a, len_b, limit) == (a, b)


@pytest.mark.parametrize("name", ["mrpc_128", "mrpc_24", "cola_16"])
def test_features_of_the_reference(name):
  golden, bert = (os.environ.get(variable) for variable in (
      "ADAPTER_BERT_GOLDEN", "BERT_BASE_DIR"))
  if not golden or not bert:
    pytest.skip("needs ADAPTER_BERT_GOLDEN and BERT_BASE_DIR")
  tokenizer = tokenization.FullTokenizer(os.path.join(bert, "vocab.txt"))
  task_name, max_seq_length = name.split("_")
  with open(os.path.join(golden, "features_%s.json" % name),
            encoding="utf-8") as source:
    cases = json.load(source)
  assert cases
  for index, case in enumerate(cases):
    example = reading.InputExample(*(case[key] for key in (
        "guid", "text_a", "text_b", "label")))
    made = features.convert_single_example(
        index, example, tasks.get_task(task_name), int(max_seq_length),
        tokenizer)
    for key, value in dataclasses.asdict(made).items():
      assert value == case[key], (name, index, key)


# ----------------------------------------------------------------- records


class _Counting(tokenization.FullTokenizer):
  """Counts the texts; raises KeyboardInterrupt (a Ctrl-C) after `limit`."""

  def __init__(self, vocab_file, limit=None):
    super().__init__(vocab_file)
    self.count = 0
    self.limit = limit

  def encode(self, text):
    if self.count == self.limit:
      raise KeyboardInterrupt
    self.count += 1
    return super().encode(text)


def test_records_hold_the_features(tmp_path):
  _write(tmp_path / "train.tsv", ["cats sat\tyes\ton the mat",
                                  "cat\tno\tthe cat sat on the mat . ."])
  tokenizer = _tokenizer(tmp_path)
  records = tfrecords.prepare(_PAIR_TASK, _PAIR_TASK.train, str(tmp_path),
                                   tokenizer, 10, str(tmp_path / "out"))
  assert records.num_examples == 2
  assert records.max_length == 10
  assert records.mean_length == 9.5
  assert records.length_counts == ((9, 1), (10, 1))
  batch, = _batches(lambda: datasets.eval_dataset(
      records, 4, 10, sort_by_length=False, pad_to_max=True))
  examples = reading.read_examples(_PAIR_TASK, _PAIR_TASK.train, str(tmp_path))
  for row, example in enumerate(examples):
    made = features.convert_single_example(row, example, _PAIR_TASK, 10,
                                           tokenizer)
    for name in ("input_ids", "input_mask", "segment_ids"):
      assert batch[name][row].tolist() == getattr(made, name)
    assert batch["label_ids"][row] == made.label_id
  assert batch["label_ids"].dtype == np.int32
  assert batch["example_index"].tolist() == [0, 1]
  assert batch["example_index"].dtype == np.int64


def test_scores_and_missing_labels(tmp_path):
  _write(tmp_path / "train.tsv", ["cat\t3.25", "the cat\t0"])
  _write(tmp_path / "test.tsv", ["cat", "the cat"])
  for split, labels in ((_SCORE_TASK.train, [0.0, 3.25]),
                        (_SCORE_TASK.test[0], [0.0, 0.0])):
    records = tfrecords.prepare(
        _SCORE_TASK, split, str(tmp_path), _tokenizer(tmp_path), 32,
        str(tmp_path / "out"))
    batch, = _eval(records)
    assert batch["label_ids"].dtype == np.float32
    assert batch["label_ids"].tolist() == labels


def test_prepared_records_are_used_again(tmp_path):
  first = _prepared(tmp_path)
  tokenizer = _Counting(str(tmp_path / "vocab.txt"))
  again = tfrecords.prepare(_TASK, _TRAIN, str(tmp_path / "data"),
                                 tokenizer, 32, str(tmp_path / "out"))
  assert again == first
  assert tokenizer.count == 0


def test_digest_covers_everything_that_shapes_records(tmp_path, monkeypatch):
  data_dir, lines = str(tmp_path / "data"), _rows(_LENGTHS)
  for name in ("train.tsv", "dev.tsv"):
    _write(tmp_path / "data" / name, lines)

  def path(task=_TASK, split=_TRAIN, max_seq_length=32, **tokenizer):
    return tfrecords.prepare(
        task, split, data_dir, _tokenizer(tmp_path, **tokenizer),
        max_seq_length, str(tmp_path / "out")).paths[0]

  swapped = task_specs.task_from_dict(dict(_ROW, labels=["yes", "no"]))
  first = path()
  others = [path(task=swapped, split=swapped.train),
            path(split=_TASK.dev[0]),
            path(max_seq_length=31),
            path(vocab=_VOCAB[:-1] + ["!"]),
            path(do_lower_case=False)]
  monkeypatch.setattr(tfrecords, "_RECORD_VERSION", 999)
  others.append(path())
  monkeypatch.undo()
  _write(tmp_path / "data" / "train.tsv", lines[:-1] + ["the\tno"])
  others.append(path())
  assert len(set([first] + others)) == 8
  assert all(os.path.exists(other) for other in [first] + others)
  _write(tmp_path / "data" / "train.tsv", lines)
  assert path() == first


def test_damaged_records_are_made_again(tmp_path):
  expected = _files(_dir_of(_prepared(tmp_path, examples_per_shard=5)))
  assert len(expected) == 4  # Three shards and the index.

  def assert_mended():
    records = _prepared(tmp_path, examples_per_shard=5)
    assert _files(_dir_of(records)) == expected
    return records

  records = assert_mended()
  index = os.path.join(_dir_of(records), "index.json")
  os.remove(records.paths[1])
  assert_mended()
  os.truncate(records.paths[0], 100)
  assert_mended()
  os.truncate(index, 100)
  assert_mended()
  os.remove(index)
  os.truncate(records.paths[2], os.path.getsize(records.paths[2]) - 3)
  assert_mended()


def test_a_flipped_bit_is_tokenized_again(tmp_path, caplog):
  """Once, with a warning; the whole shards stay as they are."""
  records = _prepared(tmp_path, examples_per_shard=5)
  expected = _files(_dir_of(records))
  for place in (0, 20, -20):  # A length, a header, a token's id or so.
    content = bytearray(expected[os.path.basename(records.paths[1])])
    content[place] ^= 4
    with open(records.paths[1], "wb") as shard:
      shard.write(content)
    caplog.clear()
    assert _prepared(tmp_path, examples_per_shard=5) == records
    assert caplog.text.count("tokenizing again") == 1
    assert _files(_dir_of(records)) == expected
    caplog.clear()
    _prepared(tmp_path, examples_per_shard=5)
    assert "tokenizing again" not in caplog.text
  # Without the index, its own checksums find it.
  os.remove(os.path.join(_dir_of(records), "index.json"))
  content = bytearray(expected[os.path.basename(records.paths[1])])
  content[-20] ^= 4
  with open(records.paths[1], "wb") as shard:
    shard.write(content)
  _prepared(tmp_path, examples_per_shard=5)
  assert _files(_dir_of(records)) == expected


@pytest.mark.parametrize("record, problem", [
    ((0, 3, 2, 2, 5, 3), "a label cannot be"),
    ((0, 3, -1, 2, 5, 3), "a label cannot be"),
    ((0, 3, 0, 2, 11, 3), "a token's id is not below 11"),
    ((0, 3, 0, 2, -5, 3), "a token's id is not below 11"),
    ((0, 4, 0, 2, 5, 3), "a first part has more tokens"),
    ((1, 3, 0, 2, 5, 3), "are not numbered from 0 on"),
])
def test_what_cannot_be_is_found_when_a_shard_is_opened(tmp_path, record,
                                                        problem):
  """Though the index agrees: whoever wrote both was wrong."""
  _write(tmp_path / "train.tsv", ["cat\tno"])
  source = tfrecords.classification_source(
      _TASK, _TRAIN, str(tmp_path), _tokenizer(tmp_path), 32)
  path = str(tmp_path / "shard.tfrecord")
  with tf.io.TFRecordWriter(path) as writer:
    writer.write(np.array(record, "<i4").tobytes())
  described = json.loads(json.dumps(
      tfrecords._Shard(path).describe(path, source)))
  assert problem in tfrecords._shard_problem(path, described, 0, source)
  described["examples"] = 2
  assert "examples are not what index.json says" in tfrecords._shard_problem(
      path, described, 0, source)


def test_records_under_a_scheme(tmp_path):
  local = _prepared(tmp_path)
  root = "ram://records"
  tf.io.gfile.makedirs(root + "/data")
  tf.io.gfile.copy(str(tmp_path / "data" / "train.tsv"),
                   root + "/data/train.tsv")
  for _ in range(2):
    records = tfrecords.prepare(_TASK, _TRAIN, root + "/data",
                                _tokenizer(tmp_path), 32, root + "/out")
    assert records.paths[0].startswith(root)
    assert dataclasses.replace(records, paths=local.paths) == local
  _assert_same(_eval(records), _eval(local))


def _dir_of(records):
  return os.path.dirname(records.paths[0])


def test_killed_preparation_goes_on_behind_the_last_shard(tmp_path):
  expected = _files(_dir_of(_prepared(tmp_path / "whole",
                                      examples_per_shard=5)))
  _write(tmp_path / "data" / "train.tsv", _rows(_LENGTHS))
  _tokenizer(tmp_path)

  def prepare(limit=None):
    tokenizer = _Counting(str(tmp_path / "vocab.txt"), limit)
    records = tfrecords.prepare(
        _TASK, _TRAIN, str(tmp_path / "data"), tokenizer, 32,
        str(tmp_path / "out"), examples_per_shard=5)
    return records, tokenizer.count

  with pytest.raises(KeyboardInterrupt):
    prepare(limit=9)
  (unfinished, names), = [(folder, files) for folder, _, files in
                          os.walk(str(tmp_path / "out")) if files]
  assert names == ["shard-00000.tfrecord"]
  # What SIGKILL would leave: a dead process's file, and a live one's.
  dead, live = (os.path.join(unfinished, "shard-00001.tfrecord.tmp-" + name)
                for name in ("dead", "live"))
  for path in (dead, live):
    with open(path, "wb") as left:
      left.write(b"half a record")
  hours_ago = time.time() - 7200
  os.utime(dead, (hours_ago, hours_ago))

  records, count = prepare()
  assert count == 8  # The 13 less the first shard's 5.
  assert records.shard_examples == (5, 5, 3)
  assert not os.path.exists(dead)
  os.remove(live)
  assert _files(_dir_of(records)) == expected


def test_several_processes_make_the_same_files(tmp_path, monkeypatch):
  monkeypatch.setattr(tfrecords, "_CHUNK_EXAMPLES", 2)
  lengths = _LENGTHS * 5
  one = _prepared(tmp_path / "one", lengths, examples_per_shard=7)
  two = _prepared(tmp_path / "two", lengths, examples_per_shard=7, workers=2)
  assert len(one.paths) == 10
  match, mismatch, missing = filecmp.cmpfiles(
      _dir_of(one), _dir_of(two), os.listdir(_dir_of(one)), shallow=False)
  assert len(match) == 11 and not mismatch and not missing


def _converter(max_seq_length, directory):
  return functools.partial(features.serialized, task=_TASK,
                           max_seq_length=max_seq_length,
                           tokenizer=_tokenizer(directory))


def test_errors_of_a_process_arrive(tmp_path):
  rows = [reading.InputExample("train-%d" % i, "cat", None, "no")
          for i in range(2)]
  chunks = [(0, 0, rows), (0, 2, rows)]

  def convert(max_seq_length):
    convert = _converter(max_seq_length, tmp_path)
    return list(workers.converted(iter(chunks), convert, workers=2))

  assert [len(records) for _, records in convert(8)] == [2, 2]
  with pytest.raises(errors.InputError) as error:
    convert(2)
  with pytest.raises(errors.InputError) as here:
    features.serialized(0, rows, _TASK, 2, _tokenizer(tmp_path))
  assert str(error.value) == str(here.value)
  with pytest.raises(errors.InputError, match="at least 1"):
    list(workers.converted(iter(chunks), None, workers=0))


def test_dead_process_is_an_error(tmp_path):
  with workers.Worker(_converter(8, tmp_path)) as converter:
    converter._process.kill()
    with pytest.raises(errors.InputError, match="status -9"):
      converter.convert(0, [reading.InputExample("train-0", "cat", None, "no")])


def test_bad_input(tmp_path):

  def prepare(output_dir=str(tmp_path / "out"), **kwargs):
    return tfrecords.prepare(
        _TASK, _TRAIN, str(tmp_path / "data"), _tokenizer(tmp_path), 8,
        output_dir, examples_per_shard=2, **kwargs)

  with pytest.raises(errors.InputError, match="no such file"):
    prepare()
  _write(tmp_path / "data" / "train.tsv", [])
  with pytest.raises(errors.InputError, match="no examples"):
    prepare()
  _write(tmp_path / "data" / "train.tsv", ["cat\tno"] * 4 + ["cat\tmaybe"])
  for workers in (1, 2):
    with pytest.raises(errors.InputError, match=r"train\.tsv:5: .*maybe"):
      prepare(workers=workers)
  names = [os.path.basename(name) for name in _files(tmp_path / "out")]
  assert set(names) <= {"shard-00000.tfrecord", "shard-00001.tfrecord"}
  _write(tmp_path / "data" / "train.tsv", ["cat\tno"] * 4)
  assert prepare().num_examples == 4


def test_output_that_cannot_be_written(tmp_path, monkeypatch):
  (tmp_path / "out").write_text("a file, not a directory")
  with pytest.raises(errors.InputError,
                     match="cannot make the directory.*Not a directory"):
    _prepared(tmp_path)
  os.remove(str(tmp_path / "out"))
  monkeypatch.setattr(tfrecords, "_shard_path", lambda directory, shard:
                      os.path.join(directory, "missing", str(shard)))
  with pytest.raises(errors.InputError, match="cannot write"):
    _prepared(tmp_path)


def test_progress(monkeypatch, caplog, capsys):
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.INFO)
  monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
  with tfrecords._Progress("toy train", 200) as progress:
    progress._interval = 0
    progress.advance(20, kept=True)
    progress.advance(30)
  logging.set_verbosity(verbosity)
  text = caplog.text + capsys.readouterr().err
  assert "50 examples tokenized (20 by an earlier run)" in text
  assert "25% of the file" in text


def test_importing_does_not_import_tensorflow():
  subprocess.run(
      [sys.executable, "-c", "import sys; from adapter_bert.data import workers; "
       "sys.exit('tensorflow' in sys.modules)"], check=True,
      cwd=test_util.ROOT)


# ----------------------------------------------------------------- batches


@pytest.fixture(name="records", scope="module")
def _records_fixture(tmp_path_factory):
  """13 examples in one shard."""
  return _prepared(tmp_path_factory.mktemp("whole"))


@pytest.fixture(name="sharded", scope="module")
def _sharded_fixture(tmp_path_factory):
  """The same 13 examples in shards of 2."""
  return _prepared(tmp_path_factory.mktemp("sharded"), examples_per_shard=2)


@pytest.mark.parametrize("longest, limit, expected", [
    (1, 128, 8), (8, 128, 8), (9, 128, 16), (127, 128, 128), (128, 128, 128),
    (49, 50, 50), (5, 7, 7)])
def test_padded_length(longest, limit, expected):
  assert datasets.padded_length(longest, limit) == expected


def test_batches_are_padded_to_their_longest_example(records):
  batches = _train(records, 13) + _eval(records)
  for batch in batches:
    longest = max(_LENGTHS[index] for index in batch["example_index"])
    length = datasets.padded_length(longest, 32)
    for name in ("input_ids", "input_mask", "segment_ids"):
      assert batch[name].shape == (len(batch["label_ids"]), length)
      assert batch[name].dtype == np.int32
  assert len({batch["input_ids"].shape[1] for batch in batches}) > 1
  for batch in _train(records, 2, pad_to_max=True):
    assert batch["input_ids"].shape == (4, 32)


def test_static_shapes(records):
  with tf.Graph().as_default():
    dataset = datasets.train_dataset(records, 4, 32, 1, row_multiple=3,
                                           pad_to_max=True)
    shapes = tf.data.get_output_shapes(dataset)
    assert shapes["input_ids"].as_list() == [6, 32]
    assert shapes["example_weights"].as_list() == [6]


@pytest.mark.parametrize("which, shuffle_buffer",
                         [("records", 100), ("sharded", 100), ("sharded", 5)])
def test_epochs(which, shuffle_buffer, request):
  """Full batches; each epoch is every example once, in its own order."""
  records = request.getfixturevalue(which)
  batches = _train(records, 26, shuffle_buffer=shuffle_buffer)
  assert all(len(batch["label_ids"]) == 4 for batch in batches)
  assert all(batch["example_weights"].tolist() == [1] * 4 for batch in batches)
  seen = _seen(batches)
  epochs = [tuple(seen[13 * i:13 * (i + 1)]) for i in range(8)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(13))
  assert len(set(epochs)) == 8
  assert tuple(range(13)) not in epochs
  kwargs = {"shuffle_buffer": shuffle_buffer}
  _assert_same(_train(records, 26, **kwargs), batches)
  assert _seen(_train(records, 26, seed=2, **kwargs)) != seen


def test_examples_keep_their_labels_and_lengths(sharded):
  for batch in _train(sharded, 13, shuffle_buffer=5):
    for row, index in enumerate(batch["example_index"]):
      assert _lengths(batch)[row] == _LENGTHS[index]
      assert batch["label_ids"][row] == index % 2
      tokens = [_IDS["[CLS]"]] + [_IDS["cat"]] * (_LENGTHS[index] - 2)
      tokens += [_IDS["[SEP]"]]
      padding = [0] * (batch["input_ids"].shape[1] - len(tokens))
      assert batch["input_ids"][row].tolist() == tokens + padding


def test_whole_set_is_shuffled_evenly(records):
  """Over many epochs each example comes at each place about equally often."""
  epochs = 390
  seen = np.array(_seen(_train(records, epochs, batch_size=13)))
  counts = np.zeros([13, 13])
  np.add.at(counts, (np.tile(np.arange(13), epochs), seen), 1)
  # 30 expected; a deviation of 27 is more than 5 standard deviations.
  assert np.abs(counts - 30).max() < 27


def _are_whole_shards_of_2(indices):
  """Whether these are all examples of one or two of sharded's shards."""
  shards = {index // 2 for index in indices}
  whole = [index for index in range(13) if index // 2 in shards]
  return len(shards) <= 2 and sorted(indices) == whole


def test_large_set_shuffles_shards_and_within_a_few_of_them(sharded):
  """Shards of 2 (the last: 1), a buffer of 5: two shards at a time, whole."""
  seen = _seen(_train(sharded, 26, shuffle_buffer=5))
  first_blocks = set()
  mixed = 0
  for epoch in range(8):
    order = seen[13 * epoch:13 * (epoch + 1)]
    blocks = []
    while order:
      size = max((size for size in range(1, 5)
                  if _are_whole_shards_of_2(order[:size])), default=0)
      assert size, "not in blocks of two shards: %s" % seen
      blocks.append(order[:size])
      order = order[size:]
    first_blocks.add(tuple(sorted(blocks[0])))
    mixed += sum(block[0] // 2 != block[1] // 2 for block in blocks
                 if len(block) == 4)
  assert len(first_blocks) > 3
  assert mixed > 5


@pytest.mark.parametrize("which, kwargs", [
    ("records", {}),
    ("records", {"bucket_window": 3}),
    ("records", {"batch_size": 30, "bucket_window": 2}),  # Over two epochs.
    ("sharded", {"shuffle_buffer": 5}),
    ("sharded", {"shuffle_buffer": 5, "bucket_window": 2, "row_multiple": 3}),
])
def test_resuming_gives_the_same_batches(which, kwargs, request):
  records = request.getfixturevalue(which)
  batches = _train(records, 19, **kwargs)
  # In batches of 4 an epoch ends within batch 3, 6 and 9, and with batch 12.
  for step in (1, 4, 13):
    _assert_same(_train(records, 6, start_step=step, **kwargs),
                 batches[step:step + 6])


def test_resuming_late_reads_only_what_it_needs(sharded, tmp_path):
  """Neither earlier epochs nor the epoch's earlier shards are opened."""
  late = 13 * 10 ** 9  # 4e9 whole epochs before.
  assert sorted(_seen(_train(sharded, 13, start_step=late))) == sorted(
      list(range(13)) * 4)
  order = _seen(_train(sharded, 4, start_step=late, shuffle_buffer=1))[:13]
  # All but the epoch's last shard are gone.
  last = order[-1] // 2
  paths = tuple(path if shard == last else str(tmp_path / "gone")
                for shard, path in enumerate(sharded.paths))
  broken = dataclasses.replace(sharded, paths=paths)
  skip = 12 if last == 6 else 11
  one, = _train(broken, 1, batch_size=1, start_step=late * 4 + skip,
                shuffle_buffer=1)
  assert one["example_index"].tolist() == order[skip:skip + 1]


def test_buckets(records):
  """Like lengths together, and nothing else changes: 2 epochs and a batch."""
  plain = _train(records, 130, batch_size=2)
  bucketed = _train(records, 130, batch_size=2, bucket_window=4)
  assert sorted(_seen(bucketed)) == sorted(_seen(plain))

  # By the batch that ends or crosses epoch e, the same examples have come.
  for epoch in range(1, 20):
    steps = -(-13 * epoch // 2)
    assert sorted(_seen(bucketed[:steps])) == sorted(_seen(plain[:steps]))

  # The first epoch's batches are 0 .. 6, its windows 0 .. 3 and 4 .. 6.
  for start, end in ((0, 4), (4, 7)):
    lengths = sorted(_LENGTHS[index] for index in _seen(plain[start:end]))
    expected = [tuple(lengths[i:i + 2]) for i in range(0, len(lengths), 2)]
    batches = [tuple(_lengths(batch)) for batch in bucketed[start:end]]
    assert sorted(batches) == sorted(expected)

  # The batches of a window do not come sorted.
  longest = [int(_lengths(batch).max()) for batch in bucketed]
  in_order = sum(longest[i:i + 4] == sorted(longest[i:i + 4])
                 for i in range(0, 130, 13))
  assert in_order < 5


def test_rows_of_weight_0_fill_up(records):
  plain = _train(records, 13)
  filled = _train(records, 13, row_multiple=3)
  for batch, wider in zip(plain, filled):
    assert wider["example_weights"].tolist() == [1, 1, 1, 1, 0, 0]
    assert wider["example_index"].tolist()[4:] == [-1, -1]
    for name in batch:
      np.testing.assert_array_equal(wider[name][:4], batch[name])
    for name in ("input_ids", "input_mask", "segment_ids", "label_ids"):
      np.testing.assert_array_equal(wider[name][4:], batch[name][[0, 0]])


def test_eval_has_each_example_once(records, sharded):
  batches = _eval(records)
  assert [len(batch["label_ids"]) for batch in batches] == [4, 4, 4, 1]
  lengths = np.concatenate([_lengths(batch) for batch in batches])
  assert lengths.tolist() == sorted(_LENGTHS, reverse=True)
  assert [_LENGTHS[index] for index in _seen(batches)] == lengths.tolist()
  _assert_same(_eval(sharded), batches)
  assert _seen(_eval(records, sort_by_length=False)) == list(range(13))
  assert _seen(_eval(sharded, sort_by_length=False)) == list(range(13))
  # Sorted two shards (4 examples) at a time.
  lengths = [_LENGTHS[index] for index in _seen(_eval(sharded, sort_buffer=5))]
  for start in range(0, 13, 4):
    assert lengths[start:start + 4] == sorted(_LENGTHS[start:start + 4],
                                              reverse=True)


def test_eval_counts_each_example_once_on_any_number_of_replicas(records):
  for replicas in (2, 3, 5, 16):
    batches = _eval(records, batch_size=5, row_multiple=replicas)
    indices = collections.Counter(_seen(batches))
    padding = indices.pop(-1, 0)
    assert indices == collections.Counter(range(13))
    weights = np.concatenate([batch["example_weights"] for batch in batches])
    assert weights.sum() == 13
    assert (weights == 0).sum() == padding
    assert all(len(batch["label_ids"]) % replicas == 0 for batch in batches)


@pytest.mark.parametrize("make, kwargs", [
    (_eval, {}),
    (lambda *args, **kwargs: _train(args[0], 14, **kwargs),
     {"bucket_window": 2})])
def test_workers_share_a_batch(records, make, kwargs):
  """Their rows, in order of the workers, are the batch of one worker."""
  whole = make(records, row_multiple=6, **kwargs)
  parts = [make(records, row_multiple=6, worker_index=worker, num_workers=3,
                **kwargs) for worker in range(3)]
  joined = [{name: np.concatenate([part[name] for part in batch])
             for name in batch[0]} for batch in zip(*parts)]
  _assert_same(joined, whole)
  assert {len(part[0]["label_ids"]) for part in parts} == {2}


@pytest.mark.parametrize("kwargs, message", [
    ({"batch_size": 0}, "batch size of 0"),
    ({"bucket_window": -1}, "bucket window of -1"),
    ({"shuffle_buffer": 0}, "shuffle buffer of 0"),
    ({"row_multiple": 3, "num_workers": 2}, "row_multiple=3"),
    ({"num_workers": 1, "worker_index": 1}, "worker_index=1"),
])
def test_bad_arguments(records, kwargs, message):
  with pytest.raises(ValueError, match=message), tf.Graph().as_default():
    datasets.train_dataset(records, max_seq_length=32, seed=1,
                                 **dict({"batch_size": 4}, **kwargs))


def test_records_longer_than_max_seq_length(records):
  with pytest.raises(ValueError, match="28 tokens"), tf.Graph().as_default():
    datasets.eval_dataset(records, 4, 16)


if __name__ == "__main__":
  sys.exit(pytest.main([__file__] + sys.argv[1:]))
