"""Exports task checkpoints over one BERT as a SavedModel.

    python -m adapter_bert.serving.export \\
      --task_checkpoints=/tmp/mrpc/task,/tmp/sst/task \\
      --model_dir=$BERT_BASE_DIR --output_dir=/tmp/served/glue

The layout is TensorFlow Serving's: output_dir/<version>/saved_model.pb. What is
frozen is in it once, each task adds what it trained, and whoever loads it needs
TensorFlow and nothing of ours. serving/signatures.py says what it can be asked.
In assets/ are vocab.txt and tasks.json: each task's labels, and how its texts
are tokenized.

With --merge=0.5,0.5 it writes another thing to output_dir: the weighted mean of
the task checkpoints as a new one, see serving/merging.py.
"""

import json
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert import settings
from adapter_bert.base import errors
from adapter_bert.base import flags as flags_lib
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import record as run_record
from adapter_bert.serving import merging
from adapter_bert.serving import saved_model
from adapter_bert.serving import shared_model
from adapter_bert.serving import signatures
from adapter_bert.serving import task_checkpoints
from adapter_bert.training import graphs

FLAGS = flags.FLAGS

# Everything that the program is told; one field for each flag.
Options = settings.options_class("export")


def define_flags():
  """A flag for each field of Options."""
  _, required = settings.PROGRAMS["export"]
  flags_lib.define(settings.of_program("export"), required)


def run_merge(options):
  """Writes the merged task checkpoint that --merge asks for; see `run`."""
  if options.drop_adapters or options.model_version:
    raise errors.InputError("merge writes a task checkpoint, which has neither "
                            "drop_adapters nor model_version")
  tasks = task_checkpoints.read_checkpoints(
      options.task_checkpoints, options.precision, (), options.adapter_fn)
  base = task_checkpoints.open_base(
      tasks, options.init_checkpoint or options.model_dir, options.force_base)
  size = merging.merge(options.output_dir, tasks,
                       settings.numbers_of(options.merge), base)
  logging.info("%s: the task checkpoint of %s with the weights %s, %.2f MB",
               options.output_dir, ", ".join(task.name for task in tasks),
               ", ".join(options.merge), size / 1e6)
  return options.output_dir


def run(options):
  """Writes the SavedModel, or with --merge the task checkpoint.

  Args:
    options: Options.

  Returns: str, its directory.

  Raises: InputError.
  """
  if options.merge:
    return run_merge(options)
  _, vocab_file, init_checkpoint = model_dir.files_of(
      options.model_dir, None, options.vocab_file, options.init_checkpoint,
      needs_config=False)
  dropped = options.drop_adapters and settings.layers_of(options.drop_adapters)
  tasks = task_checkpoints.read_checkpoints(
      options.task_checkpoints, options.precision, dropped or (),
      options.adapter_fn)
  _check_names(tasks)
  first = tasks[0]
  tokenizer = model_dir.load_tokenizer(
      vocab_file, first.record["do_lower_case"], init_checkpoint,
      first.model.bert_config,
      os.path.join(os.path.dirname(first.prefix), run_record.FILE))
  for task in tasks:
    model_dir.check_tokenizer(task.record.get("tokenizer"), tokenizer,
                              vocab_file, task.prefix)
  directory = saved_model.version_directory(options.output_dir,
                                            options.model_version)
  base = task_checkpoints.open_base(tasks, init_checkpoint, options.force_base)
  model = shared_model.SharedModel(tasks, base)
  found, members = signatures.build(model, tokenizer.vocab["[SEP]"])
  size = saved_model.write(directory, model.graph, model.session, found, {
      "vocab.txt": _vocabulary(tokenizer),
      "tasks.json": json.dumps({
          "tokenizer": tokenizer.describe(),
          "max_length": min(task.model.max_length for task in tasks),
          "tasks": [_described(task, members.index(place) if place in members
                               else None) for place, task in enumerate(tasks)],
      }, indent=1, ensure_ascii=False) + "\n"})
  logging.info("%s: %d tasks, %.2f MB (%.2f MB shared, %.2f MB of the tasks' "
               "own, %.2f MB to pad those to one size)", directory, len(tasks),
               size / 1e6, model.shared_bytes / 1e6,
               sum(model.own_bytes) / 1e6, model.padding_bytes / 1e6)
  return directory


def _check_names(tasks):
  """Raises InputError if two signatures had one name."""
  taken = {signatures.MIXED: None, signatures.DEFAULT: None}
  for task in tasks:
    for name in (task.name.lower(), task.name.lower() + "_ids"):
      if name in taken:
        other = taken[name]
        raise errors.InputError(
            "%s: its signature would be %s, which is %s; give the task another "
            "name in its run.json" % (
                task.prefix, name, "that of %s" % other.prefix if other else
                "the model's own"))
      taken[name] = task


def _vocabulary(tokenizer):
  """The text of a vocab.txt; the tokenizer's own file need not be one."""
  words = tokenizer.inv_vocab
  return "".join("%s\n" % words.get(i, "[no token %d]" % i)
                 for i in range(max(words) + 1))


def _described(task, number):
  """What tasks.json says of a TaskCheckpoint."""
  is_score = task.task.is_regression
  return {"name": task.name, "signature": task.name.lower(),
          "task_id": number, "is_pair": task.task.is_pair,
          "labels": None if is_score else list(task.task.labels),
          "max_seq_length": task.record.get("schedule", {}).get(
              "max_seq_length")}


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  try:
    run(Options(**flags_lib.values(settings.of_program("export"))))
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


def entry_point():
  """The console command `adapter-bert-export`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
