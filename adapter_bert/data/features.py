"""Examples -> what the model reads of them, and -> TFRecord bytes.

Imports no TensorFlow: the processes that tokenize import this, and TensorFlow
would cost each of them seconds and hundreds of megabytes.
"""

import array
import dataclasses
import struct
import sys
from typing import List, Union

from absl import logging

from adapter_bert.base import errors
from adapter_bert.data import tasks

# A record is little-endian int32 words: the example's position in the input
# file, the length of segment 0, the label (the bits of a float32 for
# regression), then the token ids. One op decodes and pads a whole batch of
# such strings, and a record's length tells how many tokens it holds, which is
# what sorting and padding need, without decoding anything.
WORD_BYTES = 4
HEADER_WORDS = 3


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
    example: reading.InputExample.
    task: tasks.Task, for the label.
    max_seq_length: int, the length of the feature lists.
    tokenizer: tokenization.FullTokenizer.

  Raises:
    InputError: max_seq_length leaves no room for text, or a label that the
      task does not know.
  """
  input_ids, num_a, label = encode_example(example, task, max_seq_length,
                                           tokenizer)
  if ex_index < 5:
    log_example(example, input_ids, label, tokenizer)
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
  label = tasks.label_id(task, example.label)
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


def log_example(example, input_ids, label, tokenizer):
  tokens = tokenizer.convert_ids_to_tokens(input_ids)
  logging.info("example %s: %s (%d tokens), label %s -> %s", example.guid,
               " ".join(tokens), len(tokens), example.label, label)


def serialized(first_index, examples, task, max_seq_length, tokenizer):
  """Returns the records (list of bytes) of consecutive examples.

  A longer record is that of an example with more tokens. `datasets.batch_of`
  reads them.

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
