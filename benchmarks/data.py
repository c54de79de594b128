"""Measures what comes before the model: tokenization, and a very large set.

    python -m benchmarks.data --data_dir=$GLUE_DIR/SST-2 \\
      --vocab_file=$BERT_BASE_DIR/vocab.txt        # sentences/s
    python -m benchmarks.data --examples=2000000   # synthetic ones, in /tmp

The first compares FullTokenizer with the two plain classes that define it, on
the training set of SST-2, and tfrecords.prepare with 1 and 2 processes.

The second writes a task of so many short sentences, prepares it, which is done
once, and starts run_classifier.py on the prepared records with a tiny BERT of
random weights: how long until the first step, and the resident memory then and
after --steps further ones. Linux only.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

from absl import flags

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import reading
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
import tokenization

FLAGS = flags.FLAGS

_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "run_classifier.py")
_WORDS = ("the a cat dog sat ran good bad fine poor is not very on mat . , and "
          "it was he she they we").split()
# The plain way takes its time, so it gets one of so many sentences.
_PLAIN_SHARE = 10
# It trains until it is killed: how many steps lie between two of its reports
# depends on the machine.
_EPOCHS = 1000
_CONFIG = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2,
           "num_attention_heads": 2, "intermediate_size": 32,
           "max_position_embeddings": 64}
_TASK = {"name": "Large", "labels": ["0", "1"], "metrics": ["accuracy"],
         "columns": {"text_a": 1, "label": 0}, "header": False,
         "train": "train.tsv", "dev": "train.tsv"}


def plain_tokens(tokenizer, text):
  """The tokens of a text by the classes that define them, nothing kept."""
  return [piece for word in tokenizer.basic_tokenizer.tokenize(text)
          for piece in tokenizer.wordpiece_tokenizer.tokenize(word)]


def compare_tokenizers(texts, vocab_file):
  """(sentences/s plain, sentences/s fast, how many were compared).

  The fast one starts knowing no word.

  Raises: ValueError if the two differ.
  """
  tokenizer = tokenization.FullTokenizer(vocab_file)
  some = texts[::_PLAIN_SHARE]
  began = time.perf_counter()
  expected = [plain_tokens(tokenizer, text) for text in some]
  plain = len(some) / (time.perf_counter() - began)
  began = time.perf_counter()
  found = [tokenizer.tokenize(text) for text in texts]
  fast = len(texts) / (time.perf_counter() - began)
  if found[::_PLAIN_SHARE] != expected:
    raise ValueError("the tokenizers differ")
  return plain, fast, len(some)


def measure_tokenization():
  task = tasks.get_task("sst-2")
  texts = [example.text_a for example in
           reading.read_examples(task, task.train, FLAGS.data_dir)]
  plain, fast, compared = compare_tokenizers(texts, FLAGS.vocab_file)
  print("%d sentences: plain %.0f/s, FullTokenizer %.0f/s, %.1f times; equal on "
        "%d" % (len(texts), plain, fast, fast / plain, compared))
  for workers in (1, 2):
    with tempfile.TemporaryDirectory() as directory:
      began = time.perf_counter()
      tfrecords.prepare(
          task, task.train, FLAGS.data_dir,
          tokenization.FullTokenizer(FLAGS.vocab_file), 128, directory, workers)
      print("read, tokenized and written as TFRecords by %d process%s: %.0f/s" %
            (workers, "es" * (workers > 1),
             len(texts) / (time.perf_counter() - began)))


def _write_large_set(directory, examples):
  write = lambda name, lines: files.write_atomically(
      os.path.join(directory, name), lines)
  rng = random.Random(1)
  write("train.tsv", ("%d\t%s\n" % (
      rng.random() < 0.5, " ".join(rng.choices(_WORDS, k=rng.randint(4, 12))))
                      for _ in range(examples)))
  write("vocab.txt", "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + _WORDS))
  write("bert_config.json", [json.dumps(_CONFIG)])
  write("task.json", [json.dumps(_TASK)])


def _resident_megabytes(pid):
  with open("/proc/%d/status" % pid, encoding="ascii") as status:
    return int(re.search(r"VmRSS:\s*(\d+)", status.read()).group(1)) / 1024


def _prepare_large_set(directory):
  began = time.perf_counter()
  task = task_specs.load_task_spec(os.path.join(directory, "task.json"))
  tfrecords.prepare(
      task, task.train, directory,
      tokenization.FullTokenizer(os.path.join(directory, "vocab.txt")), 32,
      os.path.join(directory, "out"), workers=2)
  print("%d examples prepared by 2 processes in %.0f s" %
        (FLAGS.examples, time.perf_counter() - began), flush=True)


def measure_large_set(directory):
  _write_large_set(directory, FLAGS.examples)
  _prepare_large_set(directory)
  place = lambda name: os.path.join(directory, name)
  began = time.perf_counter()
  process = subprocess.Popen(
      [sys.executable, _PROGRAM, "--do_train", "--max_seq_length=32",
       "--task_spec=" + place("task.json"), "--data_dir=" + directory,
       "--vocab_file=" + place("vocab.txt"), "--output_dir=" + place("out"),
       "--bert_config_file=" + place("bert_config.json"),
       "--num_train_epochs=%d" % _EPOCHS],
      stderr=subprocess.PIPE, text=True)
  first = last = 0
  line = ""
  for line in process.stderr:
    report = re.search(r"step (\d+)/", line)
    step = int(report.group(1)) if report else 0
    if step and not first:
      first = step
      print("step %d after %.0f s: %.0f MB" % (
          first, time.perf_counter() - began,
          _resident_megabytes(process.pid)), flush=True)
    elif not last and first and step >= first + FLAGS.steps:
      last = step
      print("step %d: %.0f MB" % (last, _resident_megabytes(process.pid)))
      process.kill()
  process.wait()
  if not last:
    raise errors.InputError("training ended before %d steps after step %d: %s" %
                            (FLAGS.steps, first, line.strip()))


def main(argv):
  errors.refuse_arguments(argv)
  if bool(FLAGS.data_dir) != bool(FLAGS.vocab_file) or not (
      FLAGS.data_dir or FLAGS.examples):
    raise errors.InputError("give --data_dir and --vocab_file, or --examples")
  if FLAGS.data_dir:
    with errors.reported():
      measure_tokenization()
  if FLAGS.examples:
    with tempfile.TemporaryDirectory() as directory:
      measure_large_set(directory)


if __name__ == "__main__":
  flags.DEFINE_string("data_dir", None, "The directory of SST-2.")
  flags.DEFINE_string("vocab_file", None, "The vocabulary of an uncased BERT.")
  flags.DEFINE_integer("examples", 0, "The size of the synthetic set.",
                       lower_bound=0)
  flags.DEFINE_integer("steps", 2000, "So many steps lie between the two looks "
                       "at the memory.", lower_bound=1)
  errors.run(main)
