"""What several processes pay for talking to each other at each step.

    python -m benchmarks.communication            # measured, and on paper
    python -m benchmarks.communication --model=bert-base --batch_size=8
    python -m benchmarks.communication --workers=              # on paper only

Measured: training steps of 1, 2 and 4 processes on this machine, which share
its cores and one global batch of random tokens, with adapters and with full
fine-tuning; and the bytes that each process puts into all-reduces at each step,
counted in the graph that runs.

On paper: a ring all-reduce of n bytes over k processes sends 2 (k - 1) / k n
bytes from each process, in 2 (k - 1) messages that wait for each other:

    seconds = 2 (k - 1) / k * 8 n / (bits per second) + 2 (k - 1) * latency
"""

import json
import os
import statistics
import sys
import tempfile
import time

from absl import flags
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.experiments import parameters
from adapter_bert.distributed import devices as distribution
from adapter_bert.base import errors
from adapter_bert.data import datasets
from adapter_bert.distributed import local_processes
from adapter_bert.tuning import Tuning
import modeling
from adapter_bert.training import graphs
from adapter_bert.training import loop as training
from adapter_bert.training import specs
from benchmarks import batches

FLAGS = flags.FLAGS

ADAPTER_SIZE = 64
METHODS = ("adapters", "full")

SMALL = dict(vocab_size=30522, hidden_size=384, num_hidden_layers=6,
             num_attention_heads=12, intermediate_size=1536, type_vocab_size=2)

# On paper.
PROCESSES = (8, 64, 512)
GIGABITS = (10, 100)
LATENCY = 20e-6  # seconds that a message takes besides its bytes


def trained_bytes(config, method):
  """The bytes of the gradients of what a method trains (4 each).

  Args:
    config: modeling.BertConfig.
    method: one of METHODS.
  """
  counts = parameters.count(config, [ADAPTER_SIZE])
  trained = counts.trained(Tuning(method), ADAPTER_SIZE if
                           Tuning(method).uses_adapters else None)
  return 4 * (trained.parameters + trained.head)


def all_reduced_bytes(graph):
  """The bytes that a process puts into the all-reduces of a training graph."""
  return sum(
      int(np.prod(op.inputs[0].shape.as_list())) * op.inputs[0].dtype.size
      for op in graph.get_operations()
      if op.type.startswith("CollectiveReduce"))


def ring_seconds(num_bytes, processes, bits_per_second, latency=LATENCY):
  """What a ring all-reduce takes; see the top."""
  messages = 2 * (processes - 1)
  return (messages / processes * 8 * num_bytes / bits_per_second +
          messages * latency)


# ------------------------------------------------------------------- measured


def measure(meeting, config, method, batch_size, length, steps):
  """In one of the processes: a dict of what `steps` training steps took."""
  group = distribution.group_of(distribution.MULTI_WORKER, meeting, "cpu:0")
  rows = batch_size // group.num_workers
  batch = batches.make(np.full([rows], length), group.rank,
                       datasets.padded_length(length, 512),
                       config.vocab_size)
  model = specs.ClassifierSpec(config, 2, adapter_size=ADAPTER_SIZE,
                               tune=method)
  spec = training.TrainSpec(num_train_steps=1000, num_warmup_steps=100,
                            batch_size=batch_size)
  with tf.Graph().as_default() as graph, group.strategy.scope():
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    step = training.train_graph(model, spec, dataset, group.strategy)
    with tf.Session(group.target, config=group.configured(
        graphs.session_config())) as session:
      session.run(tf.global_variables_initializer())
      session.run(step.start_data)
      seconds = []
      for _ in range(steps + 3):
        began = time.perf_counter()
        session.run(step.train_op)
        seconds.append(time.perf_counter() - began)
      group.barrier("measured")
    return {"seconds": statistics.median(seconds[3:]),  # the first compile
            "bytes": all_reduced_bytes(graph)}


def measured_in(workers, method):
  """Starts the processes; what `measure` gave in the first of them."""
  with tempfile.TemporaryDirectory() as directory:
    command = [sys.executable, "-m", "benchmarks.communication",
               "--directory=%s" % directory, "--method=%s" % method]
    for name in ("model", "batch_size", "length", "steps"):
      command.append("--%s=%s" % (name, FLAGS[name].value))
    launcher = local_processes.Launcher(command, workers)
    launcher.start()
    if launcher.wait():
      raise errors.InputError("%d processes could not be measured; their own "
                              "message is above" % workers)
    with open(os.path.join(directory, "result.json"),
              encoding="utf-8") as source:
      return json.load(source)


def measure_in_process():
  """What a process that `measured_in` starts does."""
  graphs.enable_graph_mode()
  with distribution.joined(distribution.MULTI_WORKER,
                           FLAGS.directory) as meeting:
    result = measure(meeting, _config(), FLAGS.method, FLAGS.batch_size,
                     FLAGS.length, FLAGS.steps)
    if meeting.place.is_chief:
      with open(os.path.join(FLAGS.directory, "result.json"), "w",
                encoding="utf-8") as output:
        json.dump(result, output)


def measured_table():
  """Yields the lines of a markdown table, as they are measured."""
  yield ("%s, batch %d of %d tokens, median of %d steps, %d cores for all "
         "processes:\n" % (FLAGS.model, FLAGS.batch_size, FLAGS.length,
                           FLAGS.steps, len(os.sched_getaffinity(0))))
  yield "| trained | processes | s/step | MB all-reduced per step |"
  yield "|---|--:|--:|--:|"
  for method in METHODS:
    for workers in map(int, FLAGS.workers):
      found = measured_in(workers, method)
      yield "| %s | %d | %.3f | %.2f |" % (
          method, workers, found["seconds"], found["bytes"] / 1e6)


# -------------------------------------------------------------------- on paper


def paper_table():
  """The lines of a markdown table, and one of its cells worked out."""
  links = [(k, g) for g in GIGABITS for k in PROCESSES]
  lines = ["| ms/step | MB | %s |" % " | ".join(
      "%d at %d Gbit/s" % link for link in links),
           "|---|--:|" + "--:|" * len(links)]
  for name in parameters.DEFAULT_CONFIGS:
    config = parameters.load_config(name)
    for method in METHODS:
      num_bytes = trained_bytes(config, method)
      lines.append("| %s, %s | %.1f | %s |" % (
          name, method, num_bytes / 1e6, " | ".join(
              "%.1f" % (1e3 * ring_seconds(num_bytes, k, g * 1e9))
              for k, g in links)))
  num_bytes = trained_bytes(parameters.load_config("bert-base"), "full")
  lines.append(
      "\nbert-base, full, 8 processes, 10 Gbit/s: %d bytes * 2 * 7 / 8 * 8 / "
      "1e10 + 2 * 7 * %.0e s = %.4f s" % (
          num_bytes, LATENCY, ring_seconds(num_bytes, 8, 1e10)))
  return lines


def _config():
  if FLAGS.model == "small":
    return modeling.BertConfig.from_dict(SMALL)
  return parameters.load_config(FLAGS.model)


def main(argv):
  errors.refuse_arguments(argv)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  tf.logging.set_verbosity(tf.logging.ERROR)
  if FLAGS.directory:
    measure_in_process()
    return
  for workers in FLAGS.workers:
    if not workers.isdecimal() or not int(workers) or (
        FLAGS.batch_size % int(workers)):
      raise errors.InputError(
          "workers has %r; it must be numbers that divide batch_size=%d" %
          (workers, FLAGS.batch_size))
  if FLAGS.workers:
    _config()  # Refused once, not in each process.
    for line in measured_table():
      print(line, flush=True)
    print()
  print("\n".join(paper_table()))


if __name__ == "__main__":
  flags.DEFINE_list("workers", ["1", "2", "4"], "How many processes.")
  flags.DEFINE_string("model", "small", "small (6 layers, hidden 384), or a "
                      "model that count_parameters.py knows.")
  flags.DEFINE_integer("batch_size", 32, "Examples in a batch, over all "
                       "processes.", lower_bound=1)
  flags.DEFINE_integer("length", 48, "Tokens in each example.", lower_bound=3,
                       upper_bound=512)
  flags.DEFINE_integer("steps", 20, "How many steps are timed.", lower_bound=1)
  # For the processes that it starts.
  flags.DEFINE_string("directory", None, "Internal.")
  flags.DEFINE_string("method", None, "Internal.")
  errors.run(main)
