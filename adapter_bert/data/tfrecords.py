"""Features kept as TFRecords: made once, found again by what shaped them.

`prepare` tokenizes a split once and keeps the token ids, unpadded, as sharded
TFRecords in the output directory.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import struct
import sys
import time
from typing import Tuple
import unicodedata

from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import features
from adapter_bert.data import reading
from adapter_bert.data import task_specs
from adapter_bert.data import workers as processes

# Part of every digest: raise it whenever the same inputs give other records.
_RECORD_VERSION = 2

# TFRecord framing around a record: length and its checksum, then the record's
# checksum.
_FRAME_HEAD_BYTES = 12
_FRAME_TAIL_BYTES = 4

# Examples that travel to a tokenizing process and back at a time.
_CHUNK_EXAMPLES = 512

# What says that a directory of records is complete.
INDEX = "index.json"
_INDEX_SHAPE = {
    "made_from": {"examples_per_shard": int}, "is_regression": bool,
    "shards": [{"file": str, "examples": int, "bytes": int,
                "lengths": [(int, int)]}]}


@dataclasses.dataclass(frozen=True)
class RecordSet:
  """The TFRecords of one split, as prepare() found or made them."""
  paths: Tuple[str, ...]  # shards, in the order of the input file
  shard_examples: Tuple[int, ...]  # how many examples each shard holds
  length_counts: Tuple[Tuple[int, int], ...]  # (tokens, examples), ascending
  is_regression: bool

  @property
  def num_examples(self):
    return sum(self.shard_examples)

  @property
  def max_length(self):
    """Tokens of the longest example, [CLS] and [SEP] counted."""
    return self.length_counts[-1][0]

  @property
  def mean_length(self):
    """Tokens of the average example, [CLS] and [SEP] counted."""
    return (sum(length * count for length, count in self.length_counts)
            / self.num_examples)


def prepare(task, split, data_dir, tokenizer, max_seq_length, output_dir,
            workers=1, examples_per_shard=16384):
  """Tokenizes one split into TFRecords, unless that has been done.

  The records live in a directory of their own, output_dir/records/
  <task>-<split>-<digest>, where the digest is of everything that shaped them;
  records of other inputs are left alone. A shard appears under its name when
  it is complete, and index.json when all of them are, so nothing half-written
  is ever read; a preparation that was killed goes on behind the last complete
  shard. Any number of processes may prepare the same records at a time.

  Memory does not grow with the number of examples.

  Args:
    task: tasks.Task.
    split: tasks.Split, one of the task's.
    data_dir: directory of the task's files.
    tokenizer: tokenization.FullTokenizer.
    max_seq_length: int, longer examples are truncated to it.
    output_dir: directory, made if need be.
    workers: int, how many processes tokenize; 1 means this one. The records
      do not depend on it.
    examples_per_shard: int, the size of a shard: what a killed preparation
      can lose, and the least that is shuffled at a time in a large set.

  Returns:
    RecordSet.

  Raises:
    InputError: something is wrong with the split's file (or it is empty) or
      with max_seq_length, or output_dir cannot be written.
  """
  examples = reading.read_examples(task, split, data_dir)
  inputs, num_lines = _shaping_inputs(task, split, data_dir, tokenizer,
                                      max_seq_length, examples_per_shard)
  directory = _records_dir(task, split, inputs, output_dir)
  name = "%s %s" % (task.display_name, split.name)
  try:
    os.makedirs(directory, exist_ok=True)
    records = _load(directory)
    if records:
      logging.info("%s: %d examples were tokenized before, using %s", name,
                   records.num_examples, directory)
      return records
    files.remove_litter(directory)
    with _Progress(name, num_lines) as progress:
      shards = _missing_shards(examples, directory, examples_per_shard,
                               progress)
      _write_shards(shards, directory, progress,
                    (task, max_seq_length, tokenizer), workers)
    _write_index(directory, task, inputs)
    return _load(directory)
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, "strerror", None) or error
    raise errors.InputError(
        "cannot write the tokenized examples to %s: %s; output_dir must be "
        "writable and have room" % (directory, reason)) from error


def prepared_elsewhere(task, split, data_dir, tokenizer, max_seq_length,
                       directory):
  """The records that another process has prepared of the same inputs.

  Args:
    task, split, data_dir, tokenizer, max_seq_length: as for prepare. The
      split's file need not be here; if it is, it must be the same.
    directory: where they are; in a directory that the processes share.

  Returns:
    RecordSet.

  Raises:
    InputError: they are not here, or were made from something else.
  """
  records = _load(directory)
  if records is None:
    raise errors.InputError(
        "%s, where another process has tokenized the %s examples, is not "
        "complete here; output_dir must be one directory that all processes "
        "share" % (directory, split.name))
  path = reading.data_path(task, split, data_dir)
  if not os.path.exists(path):
    logging.info("%s is not here; taking the records in %s", path, directory)
    return records
  made_from = files.read_json(os.path.join(directory, INDEX),
                              _INDEX_SHAPE)["made_from"]
  inputs, _ = _shaping_inputs(task, split, data_dir, tokenizer, max_seq_length,
                              made_from["examples_per_shard"])
  inputs = json.loads(json.dumps(inputs))
  for key, value in sorted(inputs.items()):
    if made_from.get(key) != value:
      raise errors.InputError(
          "%s is not what the other processes have: its %s is %s here and %s "
          "in %s; give all of them the same data" % (
              path, key, value, made_from.get(key), directory))
  return records


def _shaping_inputs(task, split, data_dir, tokenizer, max_seq_length,
                    examples_per_shard):
  """Everything that shapes the records, as a JSON dict, and the file's lines.

  Returns:
    (inputs, num_lines): the dict; int, the number of lines in the split's
    file, header included.
  """
  path = reading.data_path(task, split, data_dir)
  digest = hashlib.sha256()
  num_lines = 0
  try:
    with open(path, "rb") as data:
      for block in iter(lambda: data.read(1 << 20), b""):
        digest.update(block)
        num_lines += block.count(b"\n")
  except OSError as error:
    raise errors.InputError("cannot read %s: %s"
                            % (path, error.strerror)) from error
  inputs = {
      "record_version": _RECORD_VERSION,
      "task": task_specs.task_to_dict(task),
      "split": split.name,
      "data_sha256": digest.hexdigest(),
      "vocab_sha256": _json_digest(tokenizer.vocab),
      "do_lower_case": bool(tokenizer.do_lower_case),
      # Python's tables decide what is a space, a letter or punctuation.
      "unicode": unicodedata.unidata_version,
      "max_seq_length": max_seq_length,
      "examples_per_shard": examples_per_shard,
  }
  return inputs, num_lines


def _json_digest(value):
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _records_dir(task, split, inputs, output_dir):
  return os.path.join(output_dir, "records", "%s-%s-%s" % (
      task.name, split.name, _json_digest(inputs)[:16]))


def _shard_path(directory, shard):
  return os.path.join(directory, "shard-%05d.tfrecord" % shard)


def _missing_shards(examples, directory, examples_per_shard, progress):
  """Yields (number, first example's index, examples) of shards not there."""
  for shard in itertools.count():
    rows = list(itertools.islice(examples, examples_per_shard))
    if not rows:
      return
    if len(_shard_lengths(_shard_path(directory, shard))) == len(rows):
      progress.advance(len(rows), kept=True)
    else:
      yield shard, shard * examples_per_shard, rows


def _write_shards(shards, directory, progress, setup, workers):
  """Converts and writes shards; setup: (task, max_seq_length, tokenizer)."""
  task, max_seq_length, tokenizer = setup
  convert = functools.partial(
      features.serialized, task=task, max_seq_length=max_seq_length,
      tokenizer=tokenizer)

  def chunks():
    for shard, first, rows in shards:
      if first == 0:
        ids, _, label = features.encode_example(rows[0], task, max_seq_length,
                                                tokenizer)
        features.log_example(rows[0], ids, label, tokenizer)
      starts = range(0, len(rows), _CHUNK_EXAMPLES)
      for start in starts:
        yield ((shard, len(starts)), first + start,
               rows[start:start + _CHUNK_EXAMPLES])

  with contextlib.closing(
      processes.converted(chunks(), convert, workers)) as converted:
    for (shard, num_chunks), records in converted:
      # Exactly the shard's chunks are taken: one more would hold the complete
      # shard back until the next one's first chunk is there.
      others = itertools.islice(converted, num_chunks - 1)
      with files.written_whole(_shard_path(directory, shard)) as temporary:
        with tf.io.TFRecordWriter(temporary) as writer:
          for chunk in itertools.chain([records], (part for _, part in others)):
            for record in chunk:
              writer.write(record)
            progress.advance(len(chunk))


def _shard_lengths(path):
  """Tokens of each record in a shard, from the framing alone.

  Returns:
    list of int; empty if there is no such file or it does not end where a
    record ends.
  """
  try:
    with open(path, "rb") as shard:
      content = shard.read()
  except FileNotFoundError:
    return []
  lengths = []
  position = 0
  while position + _FRAME_HEAD_BYTES <= len(content):
    size, = struct.unpack_from("<Q", content, position)
    lengths.append(size // features.WORD_BYTES - features.HEADER_WORDS)
    position += _FRAME_HEAD_BYTES + size + _FRAME_TAIL_BYTES
  return lengths if position == len(content) else []


def _write_index(directory, task, inputs):
  """Writes index.json, which says that all shards before it are complete."""
  shards = []
  for shard in itertools.count():
    path = _shard_path(directory, shard)
    lengths = _shard_lengths(path)
    if not lengths:
      break
    shards.append({"file": os.path.basename(path), "examples": len(lengths),
                   "bytes": os.path.getsize(path),
                   "longest": max(lengths),
                   "lengths": sorted(collections.Counter(lengths).items())})
  index = {"made_from": inputs, "is_regression": task.is_regression,
           "examples": sum(shard["examples"] for shard in shards),
           "longest": max(shard["longest"] for shard in shards),
           "shards": shards}
  with files.written_whole(os.path.join(directory, INDEX)) as temporary:
    with open(temporary, "w", encoding="utf-8") as output:
      json.dump(index, output, sort_keys=True)


def _load(directory):
  """Returns the RecordSet in `directory`, or None if it is not complete."""
  path = os.path.join(directory, INDEX)
  try:
    index = files.read_json(path, _INDEX_SHAPE, missing_ok=True)
  except errors.InputError as error:  # The machine went down, say.
    logging.warning("%s; tokenizing again", error)
    return None
  if index is None:
    return None
  paths = tuple(os.path.join(directory, shard["file"])
                for shard in index["shards"])
  for path, shard in zip(paths, index["shards"]):
    if not os.path.exists(path) or os.path.getsize(path) != shard["bytes"]:
      logging.warning("%s is missing or damaged; tokenizing again", path)
      return None
  counts = collections.Counter()
  for shard in index["shards"]:
    counts.update(dict(shard["lengths"]))
  return RecordSet(
      paths=paths,
      shard_examples=tuple(shard["examples"] for shard in index["shards"]),
      length_counts=tuple(sorted(counts.items())),
      is_regression=index["is_regression"])


class _Progress:
  """Tells how far tokenizing is: on a terminal in place, else every 10 s."""

  def __init__(self, name, num_lines):
    self._name = name
    self._num_lines = max(num_lines, 1)
    self._tty = sys.stderr.isatty()
    self._interval = 0.5 if self._tty else 10.0
    self._start = self._last = time.monotonic()
    self._kept = 0
    self.done = 0

  def __enter__(self):
    return self

  def __exit__(self, error_type, *unused):
    if error_type is None and self.done:
      self._show("\n", " in %.1f s" % (time.monotonic() - self._start))

  def advance(self, examples, kept=False):
    """Counts `examples` more; `kept`: an earlier run had tokenized them."""
    self.done += examples
    self._kept += examples if kept else 0
    if time.monotonic() - self._last >= self._interval:
      self._last = time.monotonic()
      # A header or skipped rows make the share a line or so too small.
      self._show("", ", %d%% of the file"
                 % min(100, 100 * self.done // self._num_lines))

  def _show(self, end, rest):
    seconds = max(time.monotonic() - self._start, 1e-6)
    text = "%s: %d examples tokenized%s, %.0f/s%s" % (
        self._name, self.done,
        " (%d by an earlier run)" % self._kept if self._kept else "",
        (self.done - self._kept) / seconds, rest)
    if self._tty:
      print("\r%s " % text, end=end, file=sys.stderr, flush=True)
    else:
      logging.info("%s", text)
