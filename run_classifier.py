"""Adapter-tunes BERT on a GLUE task, evaluates it and predicts.

    python run_classifier.py --task_name=MRPC --do_train --do_eval \\
      --data_dir=$GLUE_DIR/MRPC \\
      --vocab_file=$BERT_BASE_DIR/vocab.txt \\
      --bert_config_file=$BERT_BASE_DIR/bert_config.json \\
      --init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt \\
      --learning_rate=3e-4 --num_train_epochs=5 --output_dir=/tmp/mrpc

Run again with the same output_dir, it goes on from the newest checkpoint.
Results are in output_dir: eval_results.txt, test_results.tsv, the GLUE
submission file, checkpoints and TensorBoard events. docs/outputs.md lists them.
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
from adapter_bert.training import evaluation as evaluation_lib
from adapter_bert.training import graphs
from adapter_bert.training import inputs as inputs_lib
from adapter_bert.training import plan as plan_lib
from adapter_bert.training import work as work_lib
from adapter_bert.training.specs import create_model  # pylint: disable=unused-import

FLAGS = flags.FLAGS


# --------------------------------------------------------------- the settings


def define_flags(flag_values=FLAGS):
  """A flag for each setting of a run, and the reference's TPU flags."""
  _, required = settings.PROGRAMS["run_classifier"]
  flags_lib.define(settings.of_program("run_classifier"), required, flag_values)


def config_from_flags(flag_values=FLAGS):
  """The RunConfig that the command line gives.

  Raises: InputError for a flag that cannot do what it says.
  """
  if flag_values.use_tpu:
    raise errors.InputError(
        "use_tpu=true, but TPUs are not supported: looked for %s and would not "
        "know how to use it; drop the flag to train on this machine" %
        ("tpu_name=%s" % flag_values.tpu_name if flag_values.tpu_name else
         "a TPU"))
  for setting in settings.TPU:
    if setting.name != "use_tpu" and flag_values[setting.name].present:
      logging.warning("--%s=%s has no effect: there is no TPU here, and steps "
                      "run one by one", setting.name,
                      flag_values[setting.name].value)
  return settings.RunConfig(**flags_lib.values(settings.RUN, flag_values))


def run(config):
  """Does what the settings say: reads them, makes a plan, works.

  Args:
    config: settings.RunConfig.

  Returns: dict, the evaluation's results by split name ("dev", "dev_mm"); empty
    in a process that is not the chief.

  Raises: InputError.
  """
  config = inputs_lib.with_files(config)
  with distribution.joined(
      config.distribution, config.output_dir, config.start_timeout,
      config.heartbeat_timeout) as meeting:
    inputs = inputs_lib.read(config)
    group = distribution.group_of(config.distribution, meeting, config.devices,
                                  inputs_lib.in_common(config, inputs))
    with plan_lib.alone(config, group):
      return work(plan_lib.make(config, inputs, group))


# ------------------------------------------------------------------- the work


def work(plan):
  """Trains, exports, evaluates and predicts; returns what `run` does."""
  evaluation = evaluation_lib.Evaluation(
      task=plan.task, model=plan.model, records=plan.records(),
      output_dir=plan.output_dir, group=plan.group,
      eval_batch_size=plan.eval_batch_size,
      predict_batch_size=plan.predict_batch_size, seed=plan.seed,
      init_shared_from=plan.init_shared_from)
  if plan.training:
    work_lib.train(plan, evaluation)
  results = {}
  if plan.needs_weights:
    weights = plan.weights or plan.find_weights()
    if plan.export_prefix and plan.group.is_chief:
      export(plan, weights)
    for split in plan.evaluated:
      results[split.name] = evaluation.evaluate(split, weights)
    for split in plan.predicted:
      evaluation.predict(split, weights)
  return results if plan.group.is_chief else {}


def export(plan, weights):
  """Writes the whole model as one checkpoint."""
  plan_lib.check_export(plan.export_prefix, weights)
  evaluation_lib.export(plan.model, weights, plan.export_prefix,
                        plan.init_shared_from)
  logging.info("the whole model: %s", plan.export_prefix)


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  # Deprecation notes about v1, which is what this is written in.
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  run(config_from_flags())


def entry_point():
  """The console command `adapter-bert`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
