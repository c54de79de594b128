"""Takes adapters and prefixes from other libraries, and gives them to these.

From a directory that AdapterHub's library `adapters` or PEFT saved, to a task
checkpoint:

    python -m adapter_bert.serving.exchange --input_dir=hub_adapter \\
      --model_dir=bert-base-uncased --task_name=MRPC --output_dir=/tmp/mrpc/task

and from a task checkpoint to such a directory:

    python -m adapter_bert.serving.exchange --input_dir=/tmp/mrpc/task \\
      --to=adapterhub --output_dir=hub_adapter

Of AdapterHub: adapters in Houlsby's and in Pfeiffer's order, and prefixes; of
PEFT: prefixes. Both ways every tensor must have its place, and what cannot be
expressed on the other side is refused, by name. Pickles are never opened.
docs/exchange.md says more.
"""

import dataclasses
import os
import shutil

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert import settings
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.base import flags as flags_lib
from adapter_bert.checkpoints import bert_config as bert_config_lib
from adapter_bert.checkpoints import matching
from adapter_bert.checkpoints import prefixes
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import task as task_lib
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints.foreign import adapterhub
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import method as method_lib
from adapter_bert.checkpoints.foreign import peft
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.training import graphs
from adapter_bert.training import inputs as inputs_lib
from adapter_bert.training import specs
import modeling

FLAGS = flags.FLAGS

# Everything that the program is told; one field for each flag.
Options = settings.options_class("exchange")

LIBRARIES = {"adapterhub": adapterhub, "peft": peft}
# What run.json says of settings that an import does not have.
_SCHEDULE = ("precision", "max_seq_length")
_OUTPUT_FILES = (
    run_record.FILE, weights_lib.CHECKPOINT_NAME + ".index",
    weights_lib.CHECKPOINT_NAME + ".data-00000-of-00001", method_lib.CONFIG,
    adapterhub.WEIGHTS, adapterhub.HEAD_CONFIG, adapterhub.HEAD_WEIGHTS,
    peft.WEIGHTS)


def define_flags():
  """A flag for each field of Options."""
  _, required = settings.PROGRAMS["exchange"]
  flags_lib.define(settings.of_program("exchange"), required)


def run(options):
  """Reads input_dir and writes output_dir, which is whole or not there.

  Args:
    options: Options.

  Raises: InputError for what cannot be read, written or expressed.
  """
  directory = options.input_dir
  files.check_local(options.output_dir, "output_dir",
                    "what other libraries read is written there")
  _check_output_dir(options.output_dir, options.overwrite)
  if os.path.isfile(os.path.join(directory, method_lib.CONFIG)):
    if options.to not in (None, "task"):
      raise errors.InputError(
          "--input_dir=%s is another library's; it becomes a task checkpoint, "
          "and that can be given with --to=%s" % (directory, options.to))
    import_task(directory, options)
  else:
    if options.to not in LIBRARIES:
      raise errors.InputError(
          "--input_dir=%s has no %s; to write a task checkpoint for another "
          "library give --to=%s" % (directory, method_lib.CONFIG,
                                    " or --to=".join(LIBRARIES)))
    export_task(directory, options)


def _check_output_dir(output_dir, overwrite):
  """Raises InputError for one that holds what is not to be lost."""
  if not os.path.exists(output_dir):
    return
  if not os.path.isdir(output_dir):
    raise errors.InputError("--output_dir=%s is a file" % output_dir)
  there = os.listdir(output_dir)
  others = [name for name in there if name not in _OUTPUT_FILES]
  if others:
    raise errors.InputError(
        "--output_dir=%s already holds other files (%s); choose a new or empty "
        "directory" % (output_dir, tables.some(sorted(others))))
  if there and not overwrite:
    raise errors.InputError(
        "--output_dir=%s already holds an adapter; choose another directory, "
        "or replace it with --overwrite" % output_dir)


def trained_shapes(model, base=None):
  """{name: shape} of what a model trains.

  Args:
    model: specs.ClassifierSpec.
    base: weights_lib.Weights, which must have all the rest; None: is not asked.
  """
  with tf.Graph().as_default():
    model.build(False, model.empty_batch())
    if base is not None:
      matching.match(tf.trainable_variables(), base, model.config)
    return {variable.op.name: tuple(variable.shape.as_list())
            for variable in model.tuning.variables()}


# --------------------------------------------------------------------- import


def read_method(directory, config):
  """The method_lib.Method of whichever library wrote a directory.

  Raises: InputError.
  """
  values = method_lib.read_config(directory)
  for library in LIBRARIES.values():
    if library.is_dir(values):
      return library.read(directory, config)
  raise errors.InputError(
      "%s/%s: is neither AdapterHub's (it has no config) nor PEFT's (no "
      "peft_type)" % (directory, method_lib.CONFIG))


def import_task(directory, options):
  """Writes the task checkpoint of another library's directory."""
  config = _run_config(options)
  bert_config = bert_config_lib.read(config.bert_config_file,
                                     config.hidden_act)
  method = read_method(directory, bert_config)
  layers = method.settings.get("adapter_layers")
  config = dataclasses.replace(config, **dict(
      method.settings,
      adapter_layers=layers and ",".join(map(str, layers))))
  inputs = inputs_lib.describe(config)
  rows = head_rows(method, inputs.task, options.head_labels)
  base = weights_lib.Weights.open(config.init_checkpoint)
  arrays = method.arrays(rows, trained_shapes(inputs.model, base))
  arrays = {name: np.ascontiguousarray(array, np.float32)
            for name, array in arrays.items()}
  arrays[names.GLOBAL_STEP] = np.int64(0)
  record = dict(
      inputs.record,
      schedule={key: inputs.record["schedule"][key] for key in _SCHEDULE},
      base=run_record.describe_base(base, config.init_checkpoint),
      imported={"library": method.library, "model_name": method.model_name})
  size = task_lib.write_arrays(options.output_dir, arrays, record)
  logging.info("%s: %s's %s, trained on %s; its outputs are right over that "
               "model only, and here it is put over %s", directory,
               method.library, method.settings["tune"], method.model_name,
               config.init_checkpoint)
  for note in method.notes:
    logging.warning("%s", note)
  logging.info("task checkpoint: %s, %.1f MB", options.output_dir, size / 1e6)


def _run_config(options):
  """The settings.RunConfig of the model and the task that are named."""
  if not options.model_dir and not options.init_checkpoint:
    raise errors.InputError("give the model that it was trained on: "
                            "--model_dir, or --bert_config_file, --vocab_file "
                            "and --init_checkpoint")
  # The head is not the model's.
  known = {setting.name for setting in settings.RUN} - {"head_labels"}
  given = {name: value for name, value in dataclasses.asdict(options).items()
           if name in known}
  return inputs_lib.with_files(settings.RunConfig(data_dir="", **given))


def head_rows(method, task, head_labels):
  """Which row of the head is which label: a list of int.

  Raises: InputError if nothing says so, or the labels are others.
  """
  if method.num_labels != task.num_labels:
    raise errors.InputError(
        "%s: its head has %s rows, and the task %s has %d labels" %
        (method.path, method.num_labels, task.display_name, task.num_labels))
  if task.is_regression:
    return [0]
  row_names = head_labels or method.row_names
  labels = list(task.labels)
  if not row_names:
    raise errors.InputError(
        "%s: nothing in it says which row of its head is which label of %s; "
        "give them in the order of its rows, as in --head_labels=%s" %
        (method.path, task.display_name, ",".join(labels)))
  rows = hf_bert.row_order(row_names, labels)
  if rows is None:
    raise errors.InputError(
        "%s: the rows of its head are %s, and the labels of %s %s; if they "
        "mean the same, give --head_labels in the order of its rows" %
        (method.path, ", ".join(row_names), task.display_name,
         ", ".join(labels)))
  return rows


# --------------------------------------------------------------------- export


def export_task(path, options):
  """Writes a task checkpoint as another library's directory."""
  prefix = weights_lib.find(path)
  record = run_record.read(os.path.dirname(prefix))
  task, model = specs.model_from_record(record, prefix, "float32")
  if not run_record.base_of(record):
    raise errors.InputError(
        "%s: was trained without init_checkpoint, so there is no model that "
        "the other library could put it on" % prefix)
  weights = weights_lib.Weights([prefix])
  # A run's own checkpoint has the prefix's MLP; it is folded.
  model = dataclasses.replace(model, prefix_hidden_size=0)
  method = settings_of(model, prefix)
  arrays = trained_arrays(model, weights)
  library = LIBRARIES[options.to]
  output_dir = os.path.abspath(options.output_dir)
  model_name = options.model_name or os.path.basename(
      record["base"]["path"].rstrip("/"))
  temporary = files.temporary_name(output_dir)
  with errors.reported():
    files.make_directory(temporary)
    try:
      library.write(temporary, arrays, method, model.config,
                    None if task.is_regression else list(task.labels),
                    options.adapter_name or task.name, model_name)
      files.replace_directory(temporary, output_dir)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  logging.info("%s: %s as %s reads it; the model is %s", output_dir,
               method["tune"], library.NAME, record["base"]["path"])
  if options.to == "peft":
    logging.warning("%s", peft.NO_TYPES)
    logging.info("the rows of its classifier are %s",
                 ", ".join(task.labels or ["one score"]))


def settings_of(model, where):
  """The settings of a model that another library can express: a dict.

  Args:
    model: specs.ClassifierSpec.
    where: str, its checkpoint, for messages.

  Raises: InputError naming what no other library can.
  """
  config, trained = model.config, set(model.tuning.collections or ())
  if config.share_parameter_across_layers or config.embedding_size not in (
      None, config.hidden_size):
    raise errors.InputError(
        "%s: its layers share weights, or its embeddings are factorised; other "
        "libraries' BERT has neither" % where)
  if modeling.LAYER_NORM in trained:
    raise errors.InputError(
        "%s: it has LayerNorms of its own (tune=%s), for which there is no "
        "place in the other library's files; train with --tune=adapters+head "
        "or --tune=prefix" % (where, model.tune))
  if trained == {modeling.ADAPTERS, modeling.HEAD}:
    kept = ("adapter_size", "adapter_layers", "adapter_order", "adapter_act")
    tune = "adapters+head"
  elif trained == {modeling.PREFIXES, modeling.HEAD}:
    kept, tune = ("prefix_length", "prefix_positions"), "prefix"
  else:
    raise errors.InputError(
        "%s: its method is %s; only adapters+head and prefix can be written "
        "for another library" % (where, model.tune))
  return dict({key: getattr(model, key) for key in kept}, tune=tune,
              fresh_pooler=model.fresh_pooler)


def trained_arrays(model, weights):
  """{name: float32 array} of what a task trained, a prefix without its MLP.

  Raises: InputError if something lacks, or has another shape.
  """
  found = prefixes.folded({
      name: weights.value(name) for name in weights.shapes
      if not names.is_slot(name) and name != names.GLOBAL_STEP})
  arrays = {}
  for name, shape in trained_shapes(model).items():
    if name not in found or found[name].shape != shape:
      raise errors.InputError(
          "%s: its %s %s, and run.json's model needs %s" % (
              weights, name, "has shape %s" % list(found[name].shape)
              if name in found else "lacks", list(shape)))
    arrays[name] = np.ascontiguousarray(found[name], np.float32)
  extra = sorted(name for name in set(found) - set(arrays)
                 if not names.is_pretrained(name))
  if extra:
    raise errors.InputError("%s: holds %s, which run.json's model lacks" %
                            (weights, tables.some(extra)))
  return arrays


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  run(Options(**flags_lib.values(settings.of_program("exchange"))))


def entry_point():
  """The console command `adapter-bert-exchange`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
