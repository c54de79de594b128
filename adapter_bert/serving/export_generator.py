"""Exports a GPT-2, BART or T5 that generates as a SavedModel.

    python -m adapter_bert.serving.export_generator --model_dir=/path/to/bart \\
      --task_checkpoints=/tmp/summaries/task --num_beams=4 --output_dir=/tmp/served/bart

The search is in the graph, with the options that it is exported with (those of
adapter_bert.generation.generate). For the layout see adapter_bert.serving.export.
There is a signature `generate` for the model, or the first task checkpoint, and
`generate_<name>` for each of several:

  input_ids, input_mask  int32 [B, S], of GPT-2 padded on the left, else on the
                         right
  seeds                  int32 [B, 2], with --do_sample: equal ones draw equally
  output_ids             int32 [B, n, T], without the prompt, n results, padded
  lengths, scores        int32 and float32 [B, n]
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
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.generation import defaults
from adapter_bert.generation import generator as generator_lib
from adapter_bert.models import families
from adapter_bert.serving import saved_model
from adapter_bert.training import graphs

FLAGS = flags.FLAGS

# Everything that the program is told; one field for each flag.
Options = settings.options_class("export_generator")


def define_flags():
  """A flag for each field of Options."""
  _, required = settings.PROGRAMS["export_generator"]
  flags_lib.define(settings.of_program("export_generator"), required)


def run(options):
  """Writes the SavedModel.

  Args:
    options: Options.

  Returns: str, its directory.

  Raises: InputError.
  """
  directory = model_dir.open_model_dir(options.model_dir)
  config = sequence_weights.read_config(directory)
  how = defaults.from_settings(options, directory, config)
  version = saved_model.version_directory(options.output_dir,
                                          options.model_version)
  weights = sequence_weights.open_weights(directory, config)
  tasks = generator_lib.read_tasks(options.task_checkpoints, config, weights,
                                   options.precision, options.force_base,
                                   options.adapter_fn)
  with generator_lib.Generator(tasks, weights, how) as generator:
    found = {}
    for place, name in enumerate(generator.names):
      signature = saved_model.signature(*generator.tensors(place))
      if len(generator.names) > 1:
        found["generate_" + name] = signature
      if not place:
        found["generate"] = found["serving_default"] = signature
    size = saved_model.write(version, generator.session.graph,
                             generator.session, found, {
                                 "generate.json": _described(how, config)})
  logging.info("%s: %.2f MB", version, size / 1e6)
  return version


def _described(how, config):
  """The text of generate.json: what a client has to know."""
  has_encoder = families.of_config(config).has_encoder
  return json.dumps({
      "pad_token_id": how.pad_token_id, "eos_token_ids": how.eos_token_ids,
      "padding": "right" if has_encoder else "left",
      "max_new_tokens": how.max_new_tokens}, indent=1) + "\n"


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  try:
    run(Options(**flags_lib.values(settings.of_program("export_generator"))))
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


def entry_point():
  """The console command `adapter-bert-export-generator`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
