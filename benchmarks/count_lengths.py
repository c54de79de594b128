"""Writes lengths.json: how long the examples of three GLUE tasks are.

    python -m benchmarks.count_lengths --data_dir=$GLUE_DIR \\
      --vocab_file=$BERT_BASE_DIR/vocab.txt

Counts tokens, [CLS] and [SEP] among them, of every training example truncated
to 128 tokens. The file holds a histogram for each task and no text.
"""

import collections
import json
import os

from absl import flags

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import features
from adapter_bert.data import reading
from adapter_bert.data import tasks
import tokenization
from benchmarks import batches

FLAGS = flags.FLAGS

LENGTHS_FILE = batches.LENGTHS_FILE
TASKS = ("cola", "sst-2", "mrpc")
MAX_SEQ_LENGTH = 128


def count_lengths(task, data_dir, tokenizer):
  """Counts the training examples of a task by their length.

  Args:
    task: tasks.Task.
    data_dir: str, the directory of its .tsv files.
    tokenizer: tokenization.FullTokenizer.

  Returns: dict of length in tokens -> number of examples, in rising order.
  """
  counts = collections.Counter(
      len(features.encode_example(example, task, MAX_SEQ_LENGTH,
                                        tokenizer)[0])
      for example in reading.read_examples(task, task.train, data_dir))
  return dict(sorted(counts.items()))


def main(argv):
  errors.refuse_arguments(argv)
  tokenizer = tokenization.FullTokenizer(FLAGS.vocab_file)
  lines = []
  for name in TASKS:
    task = tasks.get_task(name)
    counts = count_lengths(
        task, os.path.join(FLAGS.data_dir, task.display_name), tokenizer)
    lines.append("%s: %s" % (json.dumps(name), json.dumps(counts)))
  files.write_atomically(FLAGS.output, "{" + ",\n ".join(lines) + "}\n")


if __name__ == "__main__":
  flags.DEFINE_string("data_dir", None, "The directory with one for each task.")
  flags.DEFINE_string("vocab_file", None, "The vocabulary of an uncased BERT.")
  flags.DEFINE_string("output", LENGTHS_FILE, "The file to write.")
  flags.mark_flags_as_required(["data_dir", "vocab_file"])
  errors.run(main)
