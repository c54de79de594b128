"""How fast lines of many tasks are answered, and in how much memory.

    python -m benchmarks.serving                       # BERT-BASE, some minutes
    python -m benchmarks.serving --pipe_lines=200000   # memory of a long stream
    python -m benchmarks.serving --layers=2 --hidden=64 --heads=2 --tasks=4 \\
      --words=100 --steps=2                            # does it run?

Tasks with adapters of 64, all numbers random. Each case is a number of tasks
and of lines for each: "mixed" asks all in one pass, "in turn" in a pass for
each task. "allowed" is what the measured products and the bytes of the tasks'
own weights allow: the time of a pass's matrix products alone (the frozen ones,
those of the attention and those with the tasks' adapters), and that of copying
the weights of the tasks that are asked once, as gathering them does.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.serving import passes
from adapter_bert.serving import shared_model
from adapter_bert.serving import task_checkpoints
from adapter_bert.serving import test_util
from adapter_bert.training import graphs
from adapter_bert.training import specs
import modeling

_MAX_LENGTH = 64
_ADAPTER_SIZE = specs.ClassifierSpec.adapter_size


def parse(argv):
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  for name, default in (("layers", 12), ("hidden", 768), ("heads", 12),
                        ("words", 30522), ("tasks", 64), ("steps", 10),
                        ("pipe_lines", 0)):
    parser.add_argument("--" + name, type=int, default=default)
  parser.add_argument("--lengths", default="8,32")
  parser.add_argument("--precisions", default=",".join(specs.PRECISIONS))
  return parser.parse_args(argv)


def config_of(arguments):
  return modeling.BertConfig.from_dict(dict(
      vocab_size=arguments.words, hidden_size=arguments.hidden,
      num_hidden_layers=arguments.layers, num_attention_heads=arguments.heads,
      intermediate_size=4 * arguments.hidden, type_vocab_size=2))


def write_files(root, arguments, count=None):
  """(The base's prefix, the directories of the task checkpoints)."""
  config = config_of(arguments)
  base = test_util.write_base(os.path.join(root, "bert"), config)
  return base, [
      test_util.write_task(os.path.join(root, "task_%d" % i), config, base,
                           "CoLA", i)
      for i in range(arguments.tasks if count is None else count)]


def records_of(count, length, words):
  """Serialized examples of random tokens, all of one length."""
  rng = np.random.RandomState(count)
  header = np.array([0, length, 0], "<i4")
  return [np.concatenate([header, rng.randint(4, words, [length])]).astype(
      "<i4").tobytes() for _ in range(count)]


def seconds_of(function, steps):
  """float: the median time of a call, after one that is not measured."""
  function()
  times = []
  for _ in range(steps):
    began = time.perf_counter()
    function()
    times.append(time.perf_counter() - began)
  return float(np.median(times))


def products_seconds(config, groups, texts, length, dtype, steps):
  """The time of a pass's matrix products alone.

  Each layer has its own kernels, which are read from memory as the model's are.

  Args:
    groups, texts, length: ints; tasks, the rows of each, and their tokens.
  """
  width, inner = config.hidden_size, config.intermediate_size
  heads = config.num_attention_heads
  variable = lambda *shape: tf.Variable(tf.fill(shape, tf.cast(0.01, dtype)))
  with tf.Graph().as_default(), tf.Session() as session:
    output = tf.convert_to_tensor(variable(groups * texts * length, width))

    def adapter(output):
      bottleneck = tf.matmul(tf.reshape(output, [groups, -1, width]),
                             variable(groups, width, _ADAPTER_SIZE))
      return tf.reshape(tf.matmul(bottleneck, variable(
          groups, _ADAPTER_SIZE, width)), [-1, width])

    for _ in range(config.num_hidden_layers):
      query, key, value = [
          tf.reshape(tf.matmul(output, variable(width, width)), [
              groups * texts, heads, length, width // heads])
          for _ in range(3)]
      heads_output = tf.matmul(tf.matmul(query, key, transpose_b=True), value)
      output = adapter(tf.matmul(tf.reshape(heads_output, [-1, width]),
                                 variable(width, width)))
      output = tf.matmul(output, variable(width, inner))
      output = adapter(tf.matmul(output, variable(inner, width)))
    session.run(tf.global_variables_initializer())
    return seconds_of(lambda: session.run(output.op), steps)


def copy_seconds(num_bytes):
  """The time of copying so many bytes."""
  source = np.ones([max(int(num_bytes) // 4, 1)], np.float32)
  target = np.empty_like(source)

  def copy():
    target[:] = source

  return seconds_of(copy, 3)


def memory_mb(process="self", key="VmRSS"):
  """The memory that a process has, or had at most (VmHWM), in MB."""
  with open("/proc/%s/status" % process, encoding="ascii") as status:
    for line in status:
      if line.startswith(key + ":"):
        return int(line.split()[1]) / 1e3
  raise ValueError("no %s in /proc/%s/status" % (key, process))


def measure(model, runner, config, tasks, lines, length, arguments, precision):
  """One row of the table, a dict."""
  asked = [task for task in range(tasks) for _ in range(lines)]
  records = records_of(len(asked), length, config.vocab_size)
  numbers, order = passes.arrange(asked, length)
  mixed = seconds_of(lambda: runner.run(0, [records[i] for i in order], numbers,
                                        range(len(order))), arguments.steps)

  def in_turn():
    for task in range(tasks):
      runner.run(0, records[task * lines:(task + 1) * lines], [task],
                 range(lines))

  turn = seconds_of(in_turn, max(arguments.steps // 3, 1))
  own = sum(model.own_bytes[:tasks])
  products = products_seconds(config, tasks, lines, length,
                              specs.PRECISIONS[precision], arguments.steps)
  copies = copy_seconds(own)
  return {"precision": precision, "tasks": tasks, "lines each": lines,
          "tokens": length, "mixed lines/s": len(asked) / mixed,
          "in turn lines/s": len(asked) / turn,
          "products s": products, "own weights s": copies,
          "of allowed": (products + copies) / mixed,
          "memory MB": memory_mb()}


def tables(root, arguments):
  """Prints a row of JSON for each case."""
  base, paths = write_files(root, arguments)
  for precision in arguments.precisions.split(","):
    tasks = task_checkpoints.read_checkpoints(paths, precision)
    model = shared_model.SharedModel(
        tasks, task_checkpoints.open_base(tasks, base, False))
    runner = shared_model.RecordModel(model, _MAX_LENGTH)
    for length in map(int, arguments.lengths.split(",")):
      for count, lines in ((arguments.tasks, 1), (arguments.tasks, 8),
                           (1, arguments.tasks)):
        row = measure(model, runner, tasks[0].model.bert_config, count, lines,
                      length, arguments, precision)
        print(json.dumps({key: float("%.4g" % value) if isinstance(
            value, float) else value for key, value in row.items()}),
              flush=True)
    model.session.close()


def dropped(root, arguments):
  """Prints what leaving out the lower adapters gains: a row of JSON for each.

  A text of 32 tokens is asked about all tasks, which have no LayerNorms of
  their own (adapters+head). "shared layers" are computed once for the text.
  """
  base, _ = write_files(root, arguments, count=0)
  config = config_of(arguments)
  paths = [test_util.write_task(os.path.join(root, "bare_%d" % i), config, base,
                                "CoLA", i, tune="adapters+head")
           for i in range(arguments.tasks)]
  record = records_of(1, 32, arguments.words)
  for drop in (0, arguments.layers // 3, 2 * arguments.layers // 3):
    tasks = task_checkpoints.read_checkpoints(paths, "float32", range(drop))
    model = shared_model.SharedModel(
        tasks, task_checkpoints.open_base(tasks, base, False))
    runner = shared_model.RecordModel(model, _MAX_LENGTH)
    ask = functools.partial(runner.run, 0, record, range(len(tasks)),
                            [0] * len(tasks))
    seconds = seconds_of(ask, arguments.steps)
    print(json.dumps({"adapters left out": drop,
                      "shared layers": model.groups[0].lower,
                      "tasks": len(tasks), "answers/s": float(
                          "%.4g" % (len(tasks) / seconds))}), flush=True)
    model.session.close()


def pipe(root, arguments):
  """Prints the program's memory while it answers a long stream."""
  base, paths = write_files(root, arguments)
  for name, pause in (("fast", 0.0), ("slow", 0.02)):
    process = subprocess.Popen(
        [sys.executable, "-m", "adapter_bert.serving.predict_tasks",
         "--task_checkpoints=" + ",".join(paths), "--init_checkpoint=" + base,
         "--vocab_file=" + os.path.join(root, "bert", "vocab.txt"),
         "--max_seq_length=16", "--batch_size=256"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    feeder = threading.Thread(
        target=feed, args=(process.stdin, arguments.pipe_lines))
    feeder.start()
    seen, every = [], max(arguments.pipe_lines // 10, 1)
    for number, _ in enumerate(process.stdout, 1):
      if number % every == 0:
        seen.append(round(memory_mb(process.pid)))
      if number % 1000 == 0:
        time.sleep(pause)
    feeder.join()
    if process.wait():
      raise errors.InputError("predict_tasks ended with %d" %
                              process.returncode)
    print(json.dumps({"pipe": name, "lines": number, "memory MB": seen}),
          flush=True)


def feed(stream, lines):
  """Writes so many lines, of words that differ, and closes the stream."""
  for i in range(lines):
    stream.write(b"the cat %d sat . a dog%d ran\n" % (i, i % 977))
  stream.close()


def main(argv=None):
  arguments = parse(argv)
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  with tempfile.TemporaryDirectory() as root:
    if arguments.pipe_lines:
      pipe(root, arguments)
    else:
      tables(root, arguments)
      dropped(root, arguments)


if __name__ == "__main__":
  main()
