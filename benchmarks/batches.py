"""Batches of random tokens whose lengths are those of real data.

A batch depends on its arguments and its number alone: every process that is
measured makes the same ones. No TensorFlow here, so that a process that
measures something else does not carry it.
"""

import json
import os
import re

import numpy as np

LENGTHS_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                            "lengths.json")


class Lengths(object):
  """How long examples are.

  Args:
    data: str, a task in lengths.json, or a number: all are so long.

  Raises: ValueError for another name.
  """

  def __init__(self, data):
    if data.isdigit() and int(data):
      self.values, self.weights = np.array([int(data)]), np.array([1.0])
      return
    with open(LENGTHS_FILE, encoding="utf-8") as source:
      tasks = json.load(source)
    if data not in tasks:
      raise ValueError("unknown data %r; known are %s, and any length, as in "
                       "128" % (data, ", ".join(tasks)))
    counts = {int(length): count for length, count in tasks[data].items()}
    self.values = np.array(list(counts))
    self.weights = np.array(list(counts.values()), float)
    self.weights /= self.weights.sum()

  @property
  def mean(self):
    return float(np.dot(self.values, self.weights))

  @property
  def longest(self):
    return int(self.values.max())

  def draw(self, size, number):
    """int [size]: the lengths of examples, other ones for each number."""
    return np.random.RandomState(number).choice(
        self.values, size, p=self.weights)

  def batches(self, batch_size, count, bucket_window=0):
    """A list of int [batch_size], the lengths in each of `count` batches.

    Args:
      batch_size, count: ints.
      bucket_window: int, as run_classifier.py's flag; the batches are then
        evenly spaced ones of a sorted window.
    """
    if not bucket_window:
      return [self.draw(batch_size, number) for number in range(count)]
    window = np.sort(self.draw(bucket_window * batch_size, 0)).reshape(
        [bucket_window, batch_size])
    chosen = (np.arange(count) + 0.5) * bucket_window / count
    return list(window[chosen.astype(int)])


def make(lengths, number, padded_length, vocab_size, num_labels=2):
  """A batch of random tokens.

  Args:
    lengths: int [b].
    number: int, of the batch.
    padded_length: int, at least the largest of them.
    vocab_size: int.
    num_labels: int.

  Returns: dict with the keys of datasets.py's batches: input_ids,
    input_mask, segment_ids int32 [b, padded_length]; label_ids int32 [b];
    example_weights float32 [b]; example_index int64 [b].
  """
  rng = np.random.RandomState(number)
  shape = [len(lengths), padded_length]
  mask = np.arange(padded_length) < lengths[:, np.newaxis]
  return {
      "input_ids": (rng.randint(1, vocab_size, shape) * mask).astype(np.int32),
      "input_mask": mask.astype(np.int32),
      "segment_ids": np.zeros(shape, np.int32),
      "label_ids": rng.randint(0, num_labels, len(lengths)).astype(np.int32),
      "example_weights": np.ones(len(lengths), np.float32),
      "example_index": np.arange(len(lengths)),
  }


class PairLengths(object):
  """How long sources and targets are.

  Args:
    data: str, "512/64", or with ranges, "256-512/16-64": all lengths in one are
      as likely. A source of 0 tokens is none: plain text.

  Raises: ValueError for what is not so written.
  """

  def __init__(self, data):
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)/(?:(\d+)-)?(\d+)", data)
    if not match:
      raise ValueError("unknown lengths %r; give a source's and a target's, as "
                       "in 512/64 or 256-512/16-64" % data)
    low, high, *target = [part and int(part) for part in match.groups()]
    self.source = (high if low is None else low, high)
    self.target = (target[1] if target[0] is None else target[0], target[1])
    if self.target[0] < 1 or any(low > high
                                 for low, high in (self.source, self.target)):
      raise ValueError("unknown lengths %r; a range goes up, and a target has a "
                       "token" % data)

  def draw(self, size, number):
    """(int [size], int [size]): other ones for each number."""
    rng = np.random.RandomState(number)
    return tuple(rng.randint(low, high + 1, size)
                 for low, high in (self.source, self.target))


def make_pairs(lengths, number, padded_length, vocab_size):
  """A batch of sources and targets of random tokens, padded on the right.

  Args:
    lengths: (int [b], int [b]).
    number: int, of the batch.
    padded_length: function of the longest of a side.
    vocab_size: int.

  Returns: dict with the keys of datasets.py's sequence batches.
  """
  rng = np.random.RandomState(number)
  batch = {"example_weights": np.ones(len(lengths[0]), np.float32),
           "example_index": np.arange(len(lengths[0]))}
  for side, of_side in zip(("source", "target"), lengths):
    longest = int(of_side.max())
    shape = [len(of_side), padded_length(longest) if longest else 0]
    mask = np.arange(shape[1]) < of_side[:, np.newaxis]
    batch[side + "_ids"] = (rng.randint(1, vocab_size, shape) *
                            mask).astype(np.int32)
    batch[side + "_mask"] = mask.astype(np.int32)
  return batch
