"""TFRecords -> batches, each padded only to its longest example.

A batch is a dict (b: rows, s: tokens of the padded batch, see padded_length):

  input_ids, input_mask, segment_ids   int32 [b, s]
  label_ids         int32 [b]; float32 [b] for regression; 0 without labels
  example_weights   float32 [b]: 1, or 0 for a row that only fills up the batch
  example_index     int64 [b]: position in the input file, -1 for such a row

All order is computed from (seed, epoch), never from the state of a generator:
the batches from step k on are known without making the ones before.
"""

import numbers

from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.data import features

# What a stateless random number is for; keeps the streams of one seed apart.
_EPOCH_ORDER, _WINDOW_ORDER = range(2)


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
    max_seq_length: int, as it was given to tfrecords.prepare.
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
  batches = _train_batches(records, batch_size, seed, start_step, bucket_window,
                           shuffle_buffer)
  return _finished(batches, _SegmentLayout(records, max_seq_length, pad_to_max),
                   row_multiple, worker_index, num_workers,
                   full_batches_of=batch_size)


def _train_batches(records, batch_size, seed, start_step, bucket_window,
                   shuffle_buffer):
  """The endless batches of serialized examples of train_dataset."""
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
  return batches


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
  return _finished(
      _eval_batches(records, batch_size, sort_by_length, sort_buffer),
      _SegmentLayout(records, max_seq_length, pad_to_max), row_multiple,
      worker_index, num_workers)


def train_sequences(records, batch_size, max_source_length, max_target_length,
                    seed, source_pad=0, target_pad=0, start_step=0,
                    bucket_window=0, pad_to_max=False, shuffle_buffer=1000000,
                    row_multiple=1, worker_index=0, num_workers=1):
  """train_dataset for the records of seq2seq.prepare; sequence batches.

  A batch is a dict (b: rows; s, t: tokens of its longest source and target,
  each rounded up as padded_length does):

    source_ids, source_mask   int32 [b, s]; the mask is 1 for a token
    target_ids, target_mask   int32 [b, t]
    example_weights, example_index   as in the module's docstring

  Args:
    max_source_length, max_target_length: ints, as the Encoder's.
    source_pad, target_pad: ints, the ids behind a source and a target.
    The others: as for train_dataset; buckets are by both lengths together.
  """
  batches = _train_batches(records, batch_size, seed, start_step, bucket_window,
                           shuffle_buffer)
  layout = _SequenceLayout(records, (max_source_length, max_target_length),
                           (source_pad, target_pad), pad_to_max)
  return _finished(batches, layout, row_multiple, worker_index, num_workers,
                   full_batches_of=batch_size)


def eval_sequences(records, batch_size, max_source_length, max_target_length,
                   source_pad=0, target_pad=0, sort_by_length=True,
                   row_multiple=1, pad_to_max=False, worker_index=0,
                   num_workers=1, sort_buffer=1000000):
  """eval_dataset with the batches of train_sequences."""
  layout = _SequenceLayout(records, (max_source_length, max_target_length),
                           (source_pad, target_pad), pad_to_max)
  return _finished(
      _eval_batches(records, batch_size, sort_by_length, sort_buffer), layout,
      row_multiple, worker_index, num_workers)


def _eval_batches(records, batch_size, sort_by_length, sort_buffer):
  """The batches of serialized examples of eval_dataset."""
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
  return stream.batch(batch_size)


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


class _SegmentLayout(object):
  """Decodes batches of serialized examples for BERT: one text or a pair."""

  def __init__(self, records, max_seq_length, pad_to_max):
    if records.max_length > max_seq_length:
      raise ValueError(
          "the records have examples of %d tokens, more than max_seq_length=%d; "
          "prepare them with that length"
          % (records.max_length, max_seq_length))
    self._is_regression = records.is_regression
    self._max_seq_length = max_seq_length
    self._pad_to_max = pad_to_max

  def length(self, examples):
    """What the batch (string [b]) is padded to, of all its rows."""
    return (self._max_seq_length if self._pad_to_max else
            padded_length(tf.reduce_max(_tokens_of(examples)),
                          self._max_seq_length))

  def parse(self, examples, is_real, length):
    """The batch dict of some of its rows."""
    return _parsed(examples, is_real, length, self._is_regression)

  def width(self, name):
    """The static second dimension of a tensor, None if it varies."""
    del name
    return self._max_seq_length if self._pad_to_max else None


class _SequenceLayout(object):
  """Decodes batches of serialized examples: a source and a target."""

  def __init__(self, records, limits, pads, pad_to_max):
    for what, longest, limit in zip(("source", "target"),
                                    records.longest_parts, limits):
      if longest > limit:
        raise ValueError(
            "the records have a %s of %d tokens, more than max_%s_length=%d; "
            "prepare them with that length" % (what, longest, what, limit))
    self._limits = limits
    self._pads = pads
    self._pad_to_max = pad_to_max

  def length(self, examples):
    """(source length, target length) that the batch is padded to."""
    if self._pad_to_max:
      return self._limits
    return tuple(padded_length(tf.reduce_max(tokens), limit) for tokens, limit
                 in zip(self._parts(examples), self._limits))

  def _parts(self, examples):
    """(source tokens, target tokens) of each example, int32 [b] each."""
    source = tf.reshape(tf.io.decode_raw(
        tf.strings.substr(examples, features.WORD_BYTES, features.WORD_BYTES),
        tf.int32, little_endian=True), [-1])
    return source, _tokens_of(examples) - source

  def parse(self, examples, is_real, length):
    """The batch dict of some of its rows."""
    words = tf.raw_ops.DecodePaddedRaw(
        input_bytes=examples, out_type=tf.int32, little_endian=True,
        fixed_length=((length[0] + length[1] + features.HEADER_WORDS) *
                      features.WORD_BYTES))
    index = words[:, 0]
    batch = {
        "example_weights": tf.cast(is_real, tf.float32),
        "example_index": tf.where(is_real, tf.cast(index, tf.int64),
                                  -tf.ones_like(index, tf.int64)),
    }
    tokens = self._parts(examples)
    starts = (tf.zeros_like(tokens[0]), tokens[0])
    for i, name in enumerate(("source", "target")):
      position = tf.range(length[i])[tf.newaxis, :]
      mask = position < tokens[i][:, tf.newaxis]
      place = features.HEADER_WORDS + starts[i][:, tf.newaxis] + position
      ids = tf.gather(words, tf.where(mask, place, tf.zeros_like(place)),
                      batch_dims=1)
      batch[name + "_ids"] = tf.where(mask, ids,
                                      tf.fill(tf.shape(ids), self._pads[i]))
      batch[name + "_mask"] = tf.cast(mask, tf.int32)
    return batch

  def width(self, name):
    if not self._pad_to_max:
      return None
    return self._limits[name.startswith("target")]


def _finished(batches, layout, row_multiple, worker_index, num_workers,
              full_batches_of=None):
  """Turns batches of serialized examples (string [b]) into batch dicts.

  layout: _SegmentLayout or _SequenceLayout.
  full_batches_of: int, if all batches have that many examples: gives the
    result its static shape.
  """
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
    length = layout.length(examples)
    examples = tf.concat([examples, tf.repeat(examples[:1], filling)], axis=0)
    is_real = tf.range(real + filling) < real
    share = (real + filling) // num_workers
    mine = slice(worker_index * share, (worker_index + 1) * share)
    batch = layout.parse(examples[mine], is_real[mine], length)
    for name, tensor in batch.items():
      tensor.set_shape([rows] if tensor.shape.ndims == 1 else
                       [rows, layout.width(name)])
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
  words = tf.strings.length(examples) // features.WORD_BYTES
  return words - features.HEADER_WORDS


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
      input_bytes=examples,
      fixed_length=(length + features.HEADER_WORDS) * features.WORD_BYTES,
      out_type=tf.int32, little_endian=True)
  index, num_a, label = tf.unstack(
      words[:, :features.HEADER_WORDS], num=features.HEADER_WORDS, axis=1)
  tokens = _tokens_of(examples)
  position = tf.range(length)[tf.newaxis, :]
  mask = position < tokens[:, tf.newaxis]
  second = tf.logical_and(mask, position >= num_a[:, tf.newaxis])
  return {
      "input_ids": words[:, features.HEADER_WORDS:],
      "input_mask": tf.cast(mask, tf.int32),
      "segment_ids": tf.cast(second, tf.int32),
      "label_ids": tf.bitcast(label, tf.float32) if is_regression else label,
      "example_weights": tf.cast(is_real, tf.float32),
      "example_index": tf.where(is_real, tf.cast(index, tf.int64),
                                -tf.ones_like(index, tf.int64)),
  }
