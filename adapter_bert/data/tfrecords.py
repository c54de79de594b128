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
from typing import Callable, Optional, Tuple
import unicodedata

from absl import logging
import numpy as np
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
    "shards": [{"file": str, "examples": int, "bytes": int, "sha256": str,
                "longest_parts": (int, int), "truncated": (int, int),
                "lengths": [(int, int)]}]}


@dataclasses.dataclass(frozen=True)
class RecordSet(object):
  """The TFRecords of one split, as prepare() found or made them."""
  paths: Tuple[str, ...]  # shards, in the order of the input file
  shard_examples: Tuple[int, ...]  # how many examples each shard holds
  length_counts: Tuple[Tuple[int, int], ...]  # (tokens, examples), ascending
  is_regression: bool
  # Most tokens of the first and of the second part (of a sequence-to-sequence
  # task: source and target), and how many of each were truncated (counted for
  # sequence-to-sequence tasks only).
  longest_parts: Tuple[int, int] = (0, 0)
  truncated: Tuple[int, int] = (0, 0)

  @property
  def num_examples(self):
    return sum(self.shard_examples)

  @property
  def max_length(self):
    """Tokens of the longest example, special ones counted."""
    return self.length_counts[-1][0]

  @property
  def mean_length(self):
    """Tokens of the average example, special ones counted."""
    return (sum(length * count for length, count in self.length_counts)
            / self.num_examples)


@dataclasses.dataclass(frozen=True)
class Source(object):
  """What the records of one split are made of, and how.

  name: str, for messages: "MRPC train".
  key: str, the beginning of the directory's name: "mrpc-train".
  paths: the data files.
  read: a function without arguments that gives an iterator of the examples.
  convert: a function of (first_index, examples) that gives their records, a
    list of bytes; it can be pickled.
  show: a function of the first example that logs what the model gets.
  shaped_by: a dict for JSON, all that shapes the records but the files' bytes.
  vocab_size: int, token ids are below it.
  num_labels: int, labels are below it; None for scores.
  truncation_flags: bool, the label's word says what was truncated instead: 1
    the first part, 2 the second.
  """
  name: str
  key: str
  paths: Tuple[str, ...]
  read: Callable
  convert: Callable
  show: Callable
  shaped_by: dict
  vocab_size: int
  num_labels: Optional[int]
  truncation_flags: bool = False


def classification_source(task, split, data_dir, tokenizer, max_seq_length):
  """The Source of a split of a classification or regression task."""

  def show(example):
    ids, _, label = features.encode_example(example, task, max_seq_length,
                                            tokenizer)
    features.log_example(example, ids, label, tokenizer)

  return Source(
      name="%s %s" % (task.display_name, split.name),
      key="%s-%s" % (task.name, split.name),
      paths=(reading.data_path(task, split, data_dir),),
      read=lambda: reading.read_examples(task, split, data_dir),
      convert=functools.partial(features.serialized, task=task,
                                max_seq_length=max_seq_length,
                                tokenizer=tokenizer),
      show=show,
      shaped_by={
          "record_version": _RECORD_VERSION,
          "task": task_specs.task_to_dict(task),
          "split": split.name,
          "tokenizer": tokenizer.describe(),
          # Python's tables decide what is a space, a letter or punctuation.
          "unicode": unicodedata.unidata_version,
          "max_seq_length": max_seq_length,
      },
      vocab_size=max(tokenizer.inv_vocab) + 1,
      num_labels=None if task.is_regression else task.num_labels)


def prepare(task, split, data_dir, tokenizer, max_seq_length, output_dir,
            workers=1, examples_per_shard=16384):
  """prepare_source for a split of a classification or regression task.

  Args:
    task: tasks.Task.
    split: tasks.Split, one of the task's.
    data_dir: directory of the task's files.
    tokenizer: tokenization.FullTokenizer.
    max_seq_length: int, longer examples are truncated to it.
    output_dir, workers, examples_per_shard: as for prepare_source.

  Returns, raises: as prepare_source; InputError for max_seq_length too.
  """
  return prepare_source(
      classification_source(task, split, data_dir, tokenizer, max_seq_length),
      output_dir, workers, examples_per_shard)


def prepare_source(source, output_dir, workers=1, examples_per_shard=16384):
  """Tokenizes one split into TFRecords, unless that has been done.

  The records live in a directory of their own, output_dir/records/
  <task>-<split>-<digest>, where the digest is of everything that shaped them;
  records of other inputs are left alone. A shard appears under its name when
  it is complete, and index.json when all of them are, so nothing half-written
  is ever read; a preparation that was killed goes on behind the last complete
  shard. Shards that are no longer what they were are made again. Any number of
  processes may prepare the same records at a time.

  Memory does not grow with the number of examples.

  Args:
    source: Source.
    output_dir: directory, made if need be.
    workers: int, how many processes tokenize; 1 means this one. The records
      do not depend on it.
    examples_per_shard: int, the size of a shard: what a killed preparation
      can lose, and the least that is shuffled at a time in a large set.

  Returns:
    RecordSet.

  Raises:
    InputError: something is wrong with the split's files (or they are empty),
      or output_dir cannot be written.
  """
  examples = source.read()
  inputs, num_lines = _shaping_inputs(source, examples_per_shard)
  directory = os.path.join(output_dir, "records", "%s-%s" % (
      source.key, _json_digest(inputs)[:16]))
  try:
    files.make_directory(directory)
    records = _load(directory, source, mend=True)
    if records:
      logging.info("%s: %d examples were tokenized before, using %s",
                   source.name, records.num_examples, directory)
      return records
    files.remove_litter(directory)
    with _Progress(source.name, num_lines) as progress:
      shards = _missing_shards(examples, directory, examples_per_shard,
                               progress)
      _write_shards(shards, directory, progress, source, workers)
    _write_index(directory, source, inputs)
    return _load(directory, source)
  except (OSError, tf.errors.OpError) as error:
    raise errors.InputError(
        "cannot write the tokenized examples to %s: %s; output_dir must be "
        "writable and have room" % (directory, files.reason_of(error))
    ) from error


def prepared_elsewhere(task, split, data_dir, tokenizer, max_seq_length,
                       directory):
  """source_prepared_elsewhere for a classification or regression task."""
  return source_prepared_elsewhere(
      classification_source(task, split, data_dir, tokenizer, max_seq_length),
      directory)


def source_prepared_elsewhere(source, directory):
  """The records that another process has prepared of the same inputs.

  Args:
    source: Source. Its files need not be here; if they are, they must be the
      same.
    directory: where they are; in a directory that the processes share.

  Returns:
    RecordSet.

  Raises:
    InputError: they are not here, are damaged, or were made from something
      else.
  """
  records = _load(directory, source)
  if records is None:
    raise errors.InputError(
        "%s, where another process has tokenized the %s examples, is not "
        "complete here; output_dir must be one directory that all processes "
        "share" % (directory, source.name))
  if not all(files.is_file(path) for path in source.paths):
    logging.info("%s is not here; taking the records in %s",
                 ", ".join(source.paths), directory)
    return records
  made_from = files.read_json(os.path.join(directory, INDEX),
                              _INDEX_SHAPE)["made_from"]
  inputs, _ = _shaping_inputs(source, made_from["examples_per_shard"])
  inputs = json.loads(json.dumps(inputs))
  for key, value in sorted(inputs.items()):
    if made_from.get(key) != value:
      raise errors.InputError(
          "%s is not what the other processes have: its %s is %s here and %s "
          "in %s; give all of them the same data" % (
              ", ".join(source.paths), key, value, made_from.get(key),
              directory))
  return records


def _shaping_inputs(source, examples_per_shard):
  """Everything that shapes the records, as a JSON dict, and the files' lines.

  Returns:
    (inputs, num_lines): the dict; int, the number of lines in the split's
    first file, header included.
  """
  digest = hashlib.sha256()
  num_lines = 0
  for path in source.paths:
    try:
      with files.open_binary(path) as data:
        for block in iter(lambda data=data: data.read(1 << 20), b""):
          digest.update(block)
          if path == source.paths[0]:
            num_lines += block.count(b"\n")
    except files.failures() as error:
      raise errors.InputError("cannot read %s: %s"
                              % (path, files.reason_of(error))) from error
  return dict(source.shaped_by, data_sha256=digest.hexdigest(),
              layout=[os.path.splitext(path)[1] for path in source.paths],
              examples_per_shard=examples_per_shard), num_lines


def _json_digest(value):
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode("utf-8")).hexdigest()


# --------------------------------------------------------------------- shards


def _shard_path(directory, shard):
  return os.path.join(directory, "shard-%05d.tfrecord" % shard)


def _missing_shards(examples, directory, examples_per_shard, progress):
  """Yields (number, first example's index, examples) of shards not there."""
  for shard in itertools.count():
    rows = list(itertools.islice(examples, examples_per_shard))
    if not rows:
      return
    if _whole_records(_shard_path(directory, shard)) == len(rows):
      progress.advance(len(rows), kept=True)
    else:
      yield shard, shard * examples_per_shard, rows


def _whole_records(path):
  """How many records a shard holds; None if it is missing or damaged."""
  if not files.is_file(path):
    return None
  try:
    # Compares the checksums of TFRecords too.
    return sum(1 for _ in tf.io.tf_record_iterator(path))
  except tf.errors.DataLossError:
    return None


def _write_shards(shards, directory, progress, source, workers):
  """Converts and writes shards."""

  def chunks():
    for shard, first, rows in shards:
      if first == 0:
        source.show(rows[0])
      starts = range(0, len(rows), _CHUNK_EXAMPLES)
      for start in starts:
        yield ((shard, len(starts)), first + start,
               rows[start:start + _CHUNK_EXAMPLES])

  with contextlib.closing(
      processes.converted(chunks(), source.convert, workers)) as converted:
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


class _Shard(object):
  """What is in one shard, without decoding its records one by one.

  content: bytes. headers: int32 [n, HEADER_WORDS]. tokens: int64 [n], how many
  token ids follow each header. largest_id, smallest_id: ints.
  """

  def __init__(self, path):
    """Reads a shard.

    Raises: ValueError if it does not end where a record ends.
    """
    with files.open_binary(path) as shard:
      self.content = shard.read()
    starts, sizes, position = [], [], 0
    while position + _FRAME_HEAD_BYTES <= len(self.content):
      size, = struct.unpack_from("<Q", self.content, position)
      if size % features.WORD_BYTES or (
          size // features.WORD_BYTES <= features.HEADER_WORDS):
        raise ValueError("has a record of %d bytes" % size)
      starts.append((position + _FRAME_HEAD_BYTES) // features.WORD_BYTES)
      sizes.append(size // features.WORD_BYTES)
      position += _FRAME_HEAD_BYTES + size + _FRAME_TAIL_BYTES
    if position != len(self.content) or not starts:
      raise ValueError("does not end where a record ends")
    words = np.frombuffer(self.content, "<i4").copy()
    starts = np.array(starts)
    self.headers = words[starts[:, None] + np.arange(features.HEADER_WORDS)]
    self.tokens = np.array(sizes) - features.HEADER_WORDS
    # What is not a token id goes: the frames and the headers.
    before = _FRAME_HEAD_BYTES // features.WORD_BYTES
    words[starts[:, None] + np.arange(-before, features.HEADER_WORDS)] = 0
    words[starts + np.array(sizes)] = 0
    self.largest_id, self.smallest_id = int(words.max()), int(words.min())

  def problem(self, first, source):
    """What in it cannot be, in words; None if nothing.

    Args:
      first: int, the index of its first example.
      source: Source, for what can be.
    """
    index, first_part, label = self.headers.T
    if not np.array_equal(index, first + np.arange(len(index))):
      return "its examples are not numbered from %d on" % first
    # Plain text has no source.
    least = 0 if source.truncation_flags else 1
    if np.any(first_part < least) or np.any(first_part > self.tokens):
      return "a first part has more tokens than its example, or none"
    if self.smallest_id < 0 or self.largest_id >= source.vocab_size:
      return "a token's id is not below %d" % source.vocab_size
    if source.truncation_flags:
      fits = (label >= 0) & (label < 4)
    elif source.num_labels is None:
      fits = np.isfinite(np.ascontiguousarray(label).view("<f4"))
    else:
      fits = (label >= 0) & (label < source.num_labels)
    return None if fits.all() else "a label cannot be"

  def describe(self, path, source):
    """The shard in the index, a dict for JSON."""
    first_part = self.headers[:, 1]
    flags = self.headers[:, 2] if source.truncation_flags else (
        np.zeros(len(first_part), np.int32))
    return {
        "file": os.path.basename(path), "examples": len(self.tokens),
        "bytes": len(self.content),
        "sha256": hashlib.sha256(self.content).hexdigest(),
        "longest_parts": [int(first_part.max()),
                          int((self.tokens - first_part).max())],
        "truncated": [int(np.sum(flags & 1)), int(np.sum(flags & 2)) // 2],
        "lengths": sorted(collections.Counter(self.tokens.tolist()).items())}


def _write_index(directory, source, inputs):
  """Writes index.json, which says that all shards before it are complete."""
  shards, first = [], 0
  for number in itertools.count():
    path = _shard_path(directory, number)
    if not files.is_file(path):
      break
    shard = _Shard(path)
    shards.append(shard.describe(path, source))
    first += len(shard.tokens)
  files.write_json(os.path.join(directory, INDEX), {
      "made_from": inputs,
      "is_regression": source.num_labels is None,
      "examples": first, "shards": shards})


def _load(directory, source, mend=False):
  """Returns the RecordSet in `directory`, or None if it is not complete.

  With `mend`, shards that are not what they were are removed, so that they are
  made again; otherwise they are an InputError.
  """
  index_path = os.path.join(directory, INDEX)
  try:
    index = files.read_json(index_path, _INDEX_SHAPE, missing_ok=True)
  except errors.InputError as error:  # The machine went down, say.
    logging.warning("%s; tokenizing again", error)
    return None
  if index is None:
    return None
  first, whole = 0, bool(index["shards"])
  paths = []
  for described in index["shards"]:
    # Only its last part: an index must not make this read elsewhere.
    paths.append(os.path.join(directory, os.path.basename(described["file"])))
    problem = _shard_problem(paths[-1], described, first, source)
    first += described["examples"]
    if problem and not mend:
      raise errors.InputError("%s: %s; remove it, and it is made again"
                              % (paths[-1], problem))
    if problem:
      logging.warning("%s: %s; tokenizing again", paths[-1], problem)
      whole = False
      if files.is_file(paths[-1]):
        tf.io.gfile.remove(paths[-1])
  if not whole:
    return None
  counts = collections.Counter()
  for shard in index["shards"]:
    counts.update(dict(shard["lengths"]))
  return RecordSet(
      paths=tuple(paths),
      shard_examples=tuple(shard["examples"] for shard in index["shards"]),
      length_counts=tuple(sorted(counts.items())),
      is_regression=index["is_regression"],
      longest_parts=tuple(np.max([
          shard["longest_parts"] for shard in index["shards"]],
                                 axis=0).tolist()),
      truncated=tuple(np.sum([shard["truncated"]
                              for shard in index["shards"]], axis=0).tolist()))


def _shard_problem(path, described, first, source):
  """How a shard is not what its index says, or cannot be; None if it is."""
  if not files.is_file(path):
    return "is missing"
  try:
    shard = _Shard(path)
  except ValueError as error:
    return "is damaged: it %s" % error
  if hashlib.sha256(shard.content).hexdigest() != described["sha256"]:
    return "is damaged: its content is not what was written"
  found = json.loads(json.dumps(shard.describe(path, source)))
  for key in ("examples", "bytes", "lengths", "longest_parts", "truncated"):
    if found[key] != described[key]:
      return "its %s are not what %s says" % (key, INDEX)
  return shard.problem(first, source)


class _Progress(object):
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
