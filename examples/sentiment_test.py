"""The sample task is a task of SST-2's format, and asks for more than words.

The words that carry the feeling of a dev sentence do not occur in train, so
that a dev score shows what BERT knew before it was tuned.
"""

import collections
import math
import os
import re

import pytest

from adapter_bert.data import reading
from adapter_bert.data import tasks

DATA_DIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sentiment")
SIZES = {"train": 480, "dev": 120, "test": 60}


def read(set_type):
  """[(sentence, label)] of one file, through the reader of the real task."""
  task = tasks.get_task("sst-2")
  split = {"train": task.train, "dev": task.dev[0], "test": task.test[0]}[
      set_type]
  return [(example.text_a, example.label)
          for example in reading.read_examples(task, split, DATA_DIR)]


def words_of(sentence):
  return set(re.findall("[a-z]+", sentence.lower()))


def sentiment_words():
  with open(os.path.join(DATA_DIR, "dev_sentiment_words.txt"),
            encoding="utf-8") as reader:
    return reader.read().split()


@pytest.mark.parametrize("set_type", sorted(SIZES))
def test_sizes_and_balance(set_type):
  rows = read(set_type)
  assert len(rows) == SIZES[set_type]
  if set_type != "test":
    half = SIZES[set_type] // 2
    assert collections.Counter(label for _, label in rows) == {"0": half,
                                                               "1": half}


def test_headers_and_the_test_file_s_index():
  for set_type in SIZES:
    with open(os.path.join(DATA_DIR, set_type + ".tsv"),
              encoding="utf-8") as reader:
      lines = reader.read().splitlines()
    if set_type == "test":
      assert lines[0] == "index\tsentence"
      assert [line.split("\t")[0] for line in lines[1:]] == [
          str(index) for index in range(SIZES["test"])]
    else:
      assert lines[0] == "sentence\tlabel"


def test_no_sentence_stands_twice():
  sentences = [sentence.lower() for set_type in SIZES
               for sentence, _ in read(set_type)]
  assert len(sentences) == len(set(sentences))
  assert all(sentence == sentence.strip() for sentence in sentences)


def test_the_sentiment_words_of_dev_do_not_occur_in_train():
  listed = sentiment_words()
  assert listed == sorted(set(listed))
  train = set().union(*(words_of(sentence) for sentence, _ in read("train")))
  assert not train & set(listed)
  dev = read("dev")
  for sentence, _ in dev:
    assert words_of(sentence) & set(listed), sentence
  assert set(listed) <= set().union(*(words_of(s) for s, _ in dev))


def test_counting_words_is_no_better_than_guessing():
  # Naive Bayes on the words of train, which it has learned well enough.
  train = read("train")
  counts = {label: collections.Counter(
      word for sentence, other in train if other == label
      for word in words_of(sentence)) for label in "01"}

  def predict(sentence):
    score = sum(math.log((counts["1"][word] + 1) / (counts["0"][word] + 1))
                for word in words_of(sentence))
    return "1" if score > 0 else "0"

  def accuracy(rows):
    return sum(predict(sentence) == label for sentence, label in rows) / len(
        rows)

  assert accuracy(train) > 0.9
  # 120 tosses of a coin stay within 0.5 +- 0.1 in 97 of 100 cases.
  assert 0.4 < accuracy(read("dev")) < 0.6
