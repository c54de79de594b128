"""Examples -> features -> TFRecords -> padded batches.

`prepare` tokenizes a split once and keeps the token ids, unpadded, as sharded
TFRecords in the output directory. `train_dataset` and `eval_dataset` make
batches of them, each padded only to its longest example.

A batch is a dict (b: rows, s: tokens of the padded batch, see padded_length):

  input_ids, input_mask, segment_ids   int32 [b, s]
  label_ids         int32 [b]; float32 [b] for regression; 0 without labels
  example_weights   float32 [b]: 1, or 0 for a row that only fills up the batch
  example_index     int64 [b]: position in the input file, -1 for such a row

All order is computed from (seed, epoch), never from the state of a generator:
the batches from step k on are known without making the ones before.
"""

import array
import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib
import itertools
import json
import numbers
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import time
from typing import List, Tuple, Union
import unicodedata

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import glue


class _TensorFlow:
  """tensorflow.compat.v1, imported when it is first used.

  The processes that tokenize import this module too, and importing TensorFlow
  costs each of them seconds and hundreds of megabytes.
  """

  def __getattr__(self, name):
    return getattr(importlib.import_module("tensorflow.compat.v1"), name)


tf = _TensorFlow()

# Part of every digest: raise it whenever the same inputs give other records.
_RECORD_VERSION = 1

# A record is little-endian int32 words: the example's position in the input
# file, the length of segment 0, the label (the bits of a float32 for
# regression), then the token ids. One op decodes and pads a whole batch of
# such strings, and a record's length tells how many tokens it holds, which is
# what sorting and padding need, without decoding anything.
_WORD_BYTES = 4
_HEADER_WORDS = 3

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

# What a stateless random number is for; keeps the streams of one seed apart.
_EPOCH_ORDER, _WINDOW_ORDER = range(2)


# ---------------------------------------------------------------- features


@dataclasses.dataclass
class InputFeatures:
  """One example as the model sees it, padded with zeros to max_seq_length."""
  input_ids: List[int]
  input_mask: List[int]  # 1 for a token, 0 for padding
  segment_ids: List[int]  # 1 for the second text and its [SEP], else 0
  label_id: Union[int, float]  # float for regression


def convert_single_example(ex_index, example, task, max_seq_length, tokenizer):
  """Returns the InputFeatures of one example.

  Args:
    ex_index: int, the example's position; the first five are logged, to show
      what the model gets.
    example: glue.InputExample.
    task: glue.Task, for the label.
    max_seq_length: int, the length of the feature lists.
    tokenizer: tokenization.FullTokenizer.

  Raises:
    InputError: max_seq_length leaves no room for text, or a label that the
      task does not know.
  """
  input_ids, num_a, label = encode_example(example, task, max_seq_length,
                                           tokenizer)
  if ex_index < 5:
    _log_example(example, input_ids, label, tokenizer)
  length = len(input_ids)
  padding = [0] * (max_seq_length - length)
  return InputFeatures(
      input_ids=input_ids + padding,
      input_mask=[1] * length + padding,
      segment_ids=[0] * num_a + [1] * (length - num_a) + padding,
      label_id=label)


def encode_example(example, task, max_seq_length, tokenizer):
  """Tokenizes one example: [CLS] a [SEP], or [CLS] a [SEP] b [SEP].

  Texts that are too long lose tokens at their ends; of a pair, as if one token
  at a time were taken from the longer text (the second where they are equal).

  Args:
    example, task, max_seq_length, tokenizer: as for convert_single_example.

  Returns:
    (input_ids, num_a, label): list of at most max_seq_length ints, not padded;
    how many of them are segment 0 (the rest is segment 1); int, or float for
    regression.

  Raises:
    InputError: as convert_single_example.
  """
  tokens_a = tokenizer.encode(example.text_a)
  cls_id, sep_id = tokenizer.vocab["[CLS]"], tokenizer.vocab["[SEP]"]
  label = glue.label_id(task, example.label)
  is_pair = example.text_b is not None
  check_room(max_seq_length, is_pair)
  if not is_pair:
    input_ids = [cls_id] + tokens_a[:max_seq_length - 2] + [sep_id]
    return input_ids, len(input_ids), label
  tokens_b = tokenizer.encode(example.text_b)
  len_a, len_b = truncated_lengths(len(tokens_a), len(tokens_b),
                                   max_seq_length - 3)
  input_ids = [cls_id] + tokens_a[:len_a] + [sep_id]
  return input_ids + tokens_b[:len_b] + [sep_id], len(input_ids), label


def truncated_lengths(len_a, len_b, limit):
  """Returns (kept of a, kept of b), at most `limit` together.

  The outcome of taking one token at a time from the longer text, from the
  second when both are equal: the shorter text stays whole if it fits in half
  of the room, otherwise both get half, the first the odd token.
  """
  if len_a + len_b <= limit:
    return len_a, len_b
  half_b = limit // 2
  half_a = limit - half_b
  return (min(len_a, max(half_a, limit - len_b)),
          min(len_b, max(half_b, limit - len_a)))


def check_room(max_seq_length, is_pair):
  """Raises InputError if not one token of each text has room."""
  needed = 5 if is_pair else 3
  if max_seq_length < needed:
    raise errors.InputError(
        "max_seq_length=%d leaves no room for text: [CLS] and [SEP] and one "
        "token of each text need %d" % (max_seq_length, needed))


def _log_example(example, input_ids, label, tokenizer):
  tokens = tokenizer.convert_ids_to_tokens(input_ids)
  logging.info("example %s: %s (%d tokens), label %s -> %s", example.guid,
               " ".join(tokens), len(tokens), example.label, label)


# ----------------------------------------------------- records, their files


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
    task: glue.Task.
    split: glue.Split, one of the task's.
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
  examples = glue.read_examples(task, split, data_dir)
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
  path = os.path.join(data_dir, split.filename)
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
  path = os.path.join(data_dir, split.filename)
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
      "task": glue.task_to_dict(task),
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
  """Converts and writes shards; `setup` as for _Converter."""

  def chunks():
    for shard, first, rows in shards:
      if first == 0:
        task, max_seq_length, tokenizer = setup
        ids, _, label = encode_example(rows[0], task, max_seq_length, tokenizer)
        _log_example(rows[0], ids, label, tokenizer)
      starts = range(0, len(rows), _CHUNK_EXAMPLES)
      for start in starts:
        yield ((shard, len(starts)), first + start,
               rows[start:start + _CHUNK_EXAMPLES])

  with contextlib.closing(_converted(chunks(), setup, workers)) as converted:
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
    lengths.append(size // _WORD_BYTES - _HEADER_WORDS)
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


# ---------------------------------------- converting, here or in processes


def serialized(first_index, examples, task, max_seq_length, tokenizer):
  """Returns the records (list of bytes) of consecutive examples.

  A longer record is that of an example with more tokens. `batch_of` reads
  them.

  Args:
    first_index: int, the first example's position in the input file.
    examples, task, max_seq_length, tokenizer: as for encode_example.
  """
  header = struct.Struct("<iif" if task.is_regression else "<iii")
  records = []
  for index, example in enumerate(examples, first_index):
    input_ids, num_a, label = encode_example(example, task, max_seq_length,
                                             tokenizer)
    words = array.array("i", input_ids)
    if sys.byteorder == "big":
      words.byteswap()
    records.append(header.pack(index, num_a, label) + words.tobytes())
  return records


def _converted(chunks, setup, workers):
  """Yields (name, records) for (name, first index, examples), in order.

  Args:
    chunks: iterator; at most some 2 * workers chunks are in memory at a time.
    setup: (task, max_seq_length, tokenizer).
    workers: number of processes; 1: this one does it.
  """
  if workers < 1:
    raise errors.InputError(
        "%d processes cannot tokenize; at least 1 is needed" % workers)
  if workers == 1:
    for name, first_index, examples in chunks:
      yield name, serialized(first_index, examples, *setup)
    return
  with contextlib.ExitStack() as stack:
    idle = queue.Queue()
    for _ in range(workers):
      idle.put(stack.enter_context(_Converter(setup)))

    def convert(first_index, examples):
      converter = idle.get()
      try:
        return converter.convert(first_index, examples)
      finally:
        idle.put(converter)

    # One thread per process: it does nothing but wait for the pipe.
    threads = stack.enter_context(
        concurrent.futures.ThreadPoolExecutor(workers))
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    pending = collections.deque()
    for name, first_index, examples in chunks:
      pending.append((name, threads.submit(convert, first_index, examples)))
      if len(pending) > 2 * workers:
        name, future = pending.popleft()
        yield name, future.result()
    for name, future in pending:
      yield name, future.result()


class _Converter:
  """A process that runs `serialized`.

  It is a fresh interpreter with pipes: a fork of a process in which TensorFlow
  has started threads can hang, and multiprocessing's spawn would import the
  main program, TensorFlow included, in every process.
  """

  def __init__(self, setup):
    self._process = subprocess.Popen(
        [sys.executable, "-c",
         "import sys; sys.path[:] = sys.argv[1:]; "
         "from adapter_bert.data import input_pipeline; "
         "input_pipeline.serve_conversions()"] + sys.path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    self._setup = setup

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()

  def convert(self, first_index, examples):
    """Returns what `serialized` does, or raises its error."""
    try:
      pipe = self._process.stdin
      if self._setup is not None:
        pickle.dump(self._setup, pipe)
        self._setup = None
      pickle.dump((first_index, examples), pipe)
      pipe.flush()
      records, error = pickle.load(self._process.stdout)
    except (EOFError, BrokenPipeError) as broken:
      status = self._process.wait()
      raise errors.InputError(
          "a tokenizing process ended with status %d; if memory ran out, use "
          "fewer of them, otherwise its own message is above"
          % status) from broken
    if error is not None:
      raise error
    return records


def serve_conversions():
  """What the process of a _Converter runs, until its input ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Ends quietly after it.
  source = sys.stdin.buffer
  # Whatever prints must not print into the replies.
  replies = os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)
  setup = None
  while True:
    try:
      setup = setup or pickle.load(source)
      first_index, examples = pickle.load(source)
    except EOFError:
      return
    try:
      reply = serialized(first_index, examples, *setup), None
    except ValueError as error:
      reply = None, error
    pickle.dump(reply, replies)
    replies.flush()


# ---------------------------------------------------------------- datasets


def padded_length(longest, max_seq_length):
  """The length that a batch is padded to: a multiple of 8, but never past
  max_seq_length.

  Args:
    longest: int or scalar int tensor, tokens of the longest example.
    max_seq_length: int.

  Returns:
    int or tensor, as `longest`.
  """
  rounded = -(-longest // 8) * 8
  if isinstance(rounded, numbers.Integral):
    return min(rounded, max_seq_length)
  return tf.minimum(rounded, max_seq_length)


def train_dataset(records, batch_size, max_seq_length, seed, start_step=0,
                  bucket_window=0, pad_to_max=False, shuffle_buffer=1000000,
                  row_multiple=1, worker_index=0, num_workers=1):
  """Returns the endless tf.data.Dataset of training batches.

  Every epoch is the whole set in an order of its own, computed from (seed,
  epoch). The epochs follow each other without a seam and the batches are cut
  from that stream: always full, over whole epochs each example equally often.

  A set of up to shuffle_buffer examples is shuffled as a whole. Of a larger
  one each epoch shuffles the order of the shards, reads as many at a time as
  fit in shuffle_buffer, and shuffles within them: memory holds at most
  shuffle_buffer serialized examples, whatever the size of the set.

  Args:
    records: RecordSet.
    batch_size: int, examples in a batch of all workers together.
    max_seq_length: int, as it was given to prepare.
    seed: int.
    start_step: int; the first batch is the one that start_step=0 gives after
      start_step others. Whole epochs and blocks of shards are not read again.
    bucket_window: int, 0 for off. Otherwise the stream of batches is taken so
      many at a time (fewer at an epoch's end: none reaches into the epoch
      after the next batch), their examples are sorted by length and cut into
      batches of like lengths, which come in an order shuffled from the seed.
    pad_to_max: pads all batches to max_seq_length, for fixed shapes.
    shuffle_buffer: int, see above.
    row_multiple: int, rows of weight 0 fill each batch up to a multiple of it
      (the number of replicas).
    worker_index, num_workers: ints; this worker's rows of each batch only, a
      num_workers-th of them. Padding is that of the whole batch, so the
      workers' rows together are the batch of one worker.

  Raises:
    InputError: batch_size, bucket_window or shuffle_buffer out of range.
    ValueError: the other arguments contradict each other.
  """
  for name, value, least in (("batch size", batch_size, 1),
                             ("bucket window", bucket_window, 0),
                             ("shuffle buffer", shuffle_buffer, 1)):
    if value < least:
      raise errors.InputError("a %s of %d cannot be; the least is %d"
                              % (name, value, least))
  if not bucket_window:
    stream = _shuffled(records, seed, start_step * batch_size, shuffle_buffer)
    batches = stream.batch(batch_size, drop_remainder=True)
  else:
    window_start, _ = _window(start_step, records.num_examples, batch_size,
                              bucket_window)
    stream = _shuffled(records, seed, window_start * batch_size,
                       shuffle_buffer)
    batches = _bucketed(stream.batch(batch_size, drop_remainder=True), records,
                        batch_size, seed, window_start, bucket_window)
    batches = batches.skip(start_step - window_start)
  return _finished(batches, records, max_seq_length, pad_to_max, row_multiple,
                   worker_index, num_workers, full_batches_of=batch_size)


def eval_dataset(records, batch_size, max_seq_length, sort_by_length=True,
                 row_multiple=1, pad_to_max=False, worker_index=0,
                 num_workers=1, sort_buffer=1000000):
  """Returns the tf.data.Dataset that has each example exactly once.

  The last batch may be smaller. example_index puts results back in order.

  Args:
    sort_by_length: the longest examples first, so that little is padding and
      a batch that does not fit in memory fails at once; False: as in the file.
    sort_buffer: int, how many examples to sort at a time.
    records, batch_size, max_seq_length, row_multiple, pad_to_max,
      worker_index, num_workers: as for train_dataset.

  Raises:
    InputError, ValueError: as train_dataset.
  """
  if batch_size < 1:
    raise errors.InputError("a batch size of %d cannot be; the least is 1"
                            % batch_size)

  def in_order(block):
    if not sort_by_length:
      return tf.data.Dataset.from_tensor_slices(block)
    return _gathered(block, tf.argsort(tf.strings.length(block), stable=True,
                                       direction="DESCENDING"))

  per_block = _shards_per_block(records, sort_buffer)
  blocks = tf.data.Dataset.from_tensor_slices(
      list(records.paths)).batch(per_block)
  stream = blocks.flat_map(
      lambda paths: _block(paths, records).flat_map(in_order))
  return _finished(stream.batch(batch_size), records, max_seq_length,
                   pad_to_max, row_multiple, worker_index, num_workers)


def _shards_per_block(records, buffer_examples):
  """How many shards fit in the buffer; at least one."""
  if records.num_examples <= buffer_examples:
    return len(records.paths)
  return max(1, buffer_examples // max(records.shard_examples))


def _block(paths, records):
  """Dataset of one element: all records in the files `paths`, string [m]."""
  return tf.data.TFRecordDataset(paths).batch(records.num_examples)


def _gathered(block, order):
  """Dataset of the scalar strings block[i] for i in order.

  block (string [m]) is gathered piece by piece, because all of it at once
  would be a second copy of a large set.
  """
  pieces = tf.data.Dataset.from_tensor_slices(order).batch(1024)
  return pieces.map(lambda piece: tf.gather(block, piece)).unbatch()


def _stream_key(seed, purpose):
  return tf.constant([seed, purpose], tf.int64)


def _permutation(size, key, *numbers):
  """A random order of range(size), int32 [size], from `key` and `numbers`.

  Sorted random keys rather than Dataset.shuffle: that depends on the graph's
  seed and on all that was drawn before.
  """
  for number in numbers:
    key = tf.random.experimental.stateless_fold_in(key, number)
  return tf.argsort(tf.random.stateless_uniform(
      [size], seed=key, minval=None, maxval=None, dtype=tf.int64))


def _shuffled(records, seed, first, shuffle_buffer):
  """The endless stream of serialized examples, from number `first` on."""
  first_epoch, first_in_epoch = divmod(first, records.num_examples)
  per_block = _shards_per_block(records, shuffle_buffer)
  if per_block < len(records.paths):
    logging.info(
        "%d examples are more than the shuffle buffer of %d: each epoch "
        "shuffles its %d shards and then within %d of them at a time",
        records.num_examples, shuffle_buffer, len(records.paths), per_block)

  def epoch_stream(epoch):
    key = _stream_key(seed, _EPOCH_ORDER)
    shards = _permutation(len(records.paths), key, epoch)
    # Where each full block ends, to leave out the ones that lie before.
    sizes = tf.constant(records.shard_examples, tf.int64)
    ends = tf.cumsum(tf.gather(sizes, shards))[per_block - 1::per_block]
    begin = tf.where(tf.equal(epoch, first_epoch),
                     tf.constant(first_in_epoch, tf.int64), 0)
    skipped_blocks = tf.reduce_sum(tf.cast(ends <= begin, tf.int64))
    begin -= tf.concat([[0], ends], axis=0)[skipped_blocks]
    paths = tf.gather(tf.constant(list(records.paths)), shards)

    def block_stream(number, block_paths):
      skip = tf.where(tf.equal(number, skipped_blocks), begin, 0)

      def in_random_order(block):
        order = _permutation(tf.size(block), key, epoch, number)
        return _gathered(block, order[skip:])

      return _block(block_paths, records).flat_map(in_random_order)

    blocks = tf.data.Dataset.from_tensor_slices(
        paths[skipped_blocks * per_block:]).batch(per_block)
    return blocks.enumerate(skipped_blocks).flat_map(block_stream)

  epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
  return epochs.flat_map(epoch_stream)


def _window(batch, num_examples, batch_size, bucket_window):
  """The window of batches to sort together that has number `batch` in it.

  The batches that end within an epoch, and the one that crosses into the next,
  are that epoch's, in windows of bucket_window; so sorting moves no example
  past an epoch's end by more than the batch that crosses it.

  Args:
    batch: int or scalar int64 tensor.
    num_examples, batch_size, bucket_window: ints.

  Returns:
    (start, end): batches start .. end - 1; of the type of `batch`.
  """
  epoch = batch * batch_size // num_examples
  epoch_start = -(-epoch * num_examples // batch_size)
  epoch_end = -(-(epoch + 1) * num_examples // batch_size)
  start = batch - (batch - epoch_start) % bucket_window
  end = start + bucket_window
  if isinstance(batch, numbers.Integral):
    return start, min(end, epoch_end)
  return start, tf.minimum(end, epoch_end)


def _bucketed(batches, records, batch_size, seed, first_batch, bucket_window):
  """Sorts the examples (string [batch_size]) of each window by length.

  Args:
    batches: dataset of string [batch_size], of which the first is number
      first_batch, where a window must start.
  """

  def window(batch):
    return _window(batch, records.num_examples, batch_size, bucket_window)

  def cut_by_length(start, group):

    def cut(numbers, examples):
      del numbers
      examples = tf.reshape(examples, [-1])
      examples = tf.gather(
          examples, tf.argsort(tf.strings.length(examples), stable=True))
      examples = tf.reshape(examples, [-1, batch_size])
      order = _permutation(tf.shape(examples)[0],
                           _stream_key(seed, _WINDOW_ORDER), start)
      return tf.data.Dataset.from_tensor_slices(tf.gather(examples, order))

    return group.batch(bucket_window).flat_map(cut)

  def size(start):
    return window(start)[1] - start

  return batches.enumerate(first_batch).group_by_window(
      key_func=lambda number, batch: window(number)[0],
      reduce_func=cut_by_length, window_size_func=size)


def _finished(batches, records, max_seq_length, pad_to_max, row_multiple,
              worker_index, num_workers, full_batches_of=None):
  """Turns batches of serialized examples (string [b]) into batch dicts.

  full_batches_of: int, if all batches have that many examples: gives the
    result its static shape.
  """
  if records.max_length > max_seq_length:
    raise ValueError(
        "the records have examples of %d tokens, more than max_seq_length=%d; "
        "prepare them with that length" % (records.max_length, max_seq_length))
  if row_multiple % num_workers or not 0 <= worker_index < num_workers:
    raise ValueError(
        "row_multiple=%d must be a multiple of num_workers=%d, and "
        "worker_index=%d below that"
        % (row_multiple, num_workers, worker_index))
  rows = None
  if full_batches_of:
    rows = -(-full_batches_of // row_multiple) * row_multiple // num_workers

  def to_batch(examples):
    real = tf.shape(examples)[0]
    filling = -real % row_multiple
    length = (max_seq_length if pad_to_max else
              padded_length(tf.reduce_max(_tokens_of(examples)),
                            max_seq_length))
    examples = tf.concat([examples, tf.repeat(examples[:1], filling)], axis=0)
    is_real = tf.range(real + filling) < real
    share = (real + filling) // num_workers
    mine = slice(worker_index * share, (worker_index + 1) * share)
    batch = _parsed(examples[mine], is_real[mine], length,
                    records.is_regression)
    for name, tensor in batch.items():
      tensor.set_shape([rows] if tensor.shape.ndims == 1 else
                       [rows, max_seq_length if pad_to_max else None])
    return batch

  # One thread: parsing a batch takes well under a millisecond, and the cores
  # are the training step's. The prefetching keeps it off the step's path.
  dataset = batches.map(to_batch).prefetch(2)
  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  options.threading.private_threadpool_size = 1
  # Workers are given their rows above; files are nobody's own.
  options.experimental_distribute.auto_shard_policy = (
      tf.data.experimental.AutoShardPolicy.OFF)
  return dataset.with_options(options)


def _tokens_of(examples):
  """int32 [b]: how many tokens each serialized example (string [b]) has."""
  return tf.strings.length(examples) // _WORD_BYTES - _HEADER_WORDS


def batch_of(examples, max_seq_length, is_regression=False):
  """The batch dict of what `serialized` made, as the datasets give it.

  Args:
    examples: string tensor [b].
    max_seq_length: int, as it was given to `serialized`.
    is_regression: bool, the type of the labels.
  """
  length = padded_length(tf.reduce_max(_tokens_of(examples)), max_seq_length)
  return _parsed(examples, tf.fill(tf.shape(examples), True), length,
                 is_regression)


def _parsed(examples, is_real, length, is_regression):
  """Decodes serialized examples (string [b]), padded to `length`."""
  words = tf.raw_ops.DecodePaddedRaw(
      input_bytes=examples, fixed_length=(length + _HEADER_WORDS) * _WORD_BYTES,
      out_type=tf.int32, little_endian=True)
  index, num_a, label = tf.unstack(
      words[:, :_HEADER_WORDS], num=_HEADER_WORDS, axis=1)
  tokens = _tokens_of(examples)
  position = tf.range(length)[tf.newaxis, :]
  mask = position < tokens[:, tf.newaxis]
  second = tf.logical_and(mask, position >= num_a[:, tf.newaxis])
  return {
      "input_ids": words[:, _HEADER_WORDS:],
      "input_mask": tf.cast(mask, tf.int32),
      "segment_ids": tf.cast(second, tf.int32),
      "label_ids": tf.bitcast(label, tf.float32) if is_regression else label,
      "example_weights": tf.cast(is_real, tf.float32),
      "example_index": tf.where(is_real, tf.cast(index, tf.int64),
                                -tf.ones_like(index, tf.int64)),
  }
