"""Tunes GPT-2, BART or T5 on pairs of texts, evaluates it and generates.

    python -m adapter_bert.run_seq2seq --model_dir=/path/to/bart \\
      --task_name=XSum --data_dir=/path/to/xsum --do_train --do_eval \\
      --do_predict --tune=prefix --prefix_length=200 --prefix_hidden_size=800 \\
      --max_source_length=512 --max_target_length=64 --learning_rate=5e-5 \\
      --output_dir=/tmp/xsum

run_classifier's sister: what a flag means there it means here. The directory is
as Hugging Face saves it. Run again with the same output_dir, it goes on from the
newest checkpoint. docs/seq2seq.md says more.
"""

import os

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert import settings
from adapter_bert.base import errors
from adapter_bert.base import flags as flags_lib
from adapter_bert.distributed import devices as distribution
from adapter_bert.generation import defaults
from adapter_bert.generation import evaluation as evaluation_lib
from adapter_bert.training import graphs
from adapter_bert.training import plan as plan_lib
from adapter_bert.training import sequence_plan
from adapter_bert.training import work as work_lib

FLAGS = flags.FLAGS
_PROGRAM = "run_seq2seq"

Config = settings.sequence_config_class()


def define_flags(flag_values=FLAGS):
  """A flag for each setting."""
  _, required = settings.PROGRAMS[_PROGRAM]
  flags_lib.define(settings.of_program(_PROGRAM), required, flag_values)


def run(config):
  """Does what the settings say: reads them, makes a plan, works.

  Args:
    config: Config.

  Returns: dict, the evaluation's results by split name; empty in a process that
    is not the chief.

  Raises: InputError.
  """
  with distribution.joined(
      config.distribution, config.output_dir, config.start_timeout,
      config.heartbeat_timeout) as meeting:
    inputs = sequence_plan.read(config)
    how = defaults.from_settings(config, inputs.directory, inputs.model.config,
                                 num_return_sequences=1)
    sequence_plan.check_generation(config, inputs, how.max_new_tokens)
    group = distribution.group_of(config.distribution, meeting, config.devices,
                                  sequence_plan.in_common(config, inputs))
    with plan_lib.alone(config, group):
      return work(sequence_plan.make(config, inputs, group), inputs.base, how)


def work(plan, base, how):
  """Trains, evaluates and generates; returns what `run` does.

  Args:
    plan: plan.Plan.
    base: mapping of variable name -> array, the pre-trained weights.
    how: search.Options.
  """
  results = {}
  with evaluation_lib.Loaded(base, how) as loaded:
    evaluation = evaluation_lib.Evaluation(
        task=plan.task, model=plan.model, loaded=loaded, records=plan.records(),
        data=plan.data, output_dir=plan.output_dir, group=plan.group,
        eval_batch_size=plan.eval_batch_size,
        predict_batch_size=plan.predict_batch_size, seed=plan.seed)
    if plan.training:
      work_lib.train(plan, evaluation)
    if plan.needs_weights:
      weights = plan.weights or plan.find_weights()
      for split in plan.evaluated:
        results[split.name] = evaluation.evaluate(split, weights)
      for split in plan.predicted:
        evaluation.predict(split, weights)
  return results if plan.group.is_chief else {}


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  # Deprecation notes about v1, which is what this is written in.
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  run(Config(**flags_lib.values(settings.of_program(_PROGRAM))))


def entry_point():
  """The console command `adapter-bert-seq2seq`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
