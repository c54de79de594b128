"""Runs run_classifier.py over a grid of settings, and tabulates the scores.

    python -m adapter_bert.experiments.sweep --tasks=MRPC,RTE --tunes=adapters,full \\
      --adapter_sizes=8,64 --learning_rates=3e-4,1e-3 --seeds=0,1,2 \\
      --glue_dir=$GLUE_DIR --vocab_file=$BERT_BASE_DIR/vocab.txt \\
      --bert_config_file=$BERT_BASE_DIR/bert_config.json \\
      --init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt --output_dir=/tmp/sweep

Every combination is a run of its own in output_dir/runs/. Stopped and started
again, finished runs are not repeated and half-finished ones go on. After each
run output_dir/results.csv has a row for every finished run, and
output_dir/table.md the best settings by dev score.

Instead of the grid's flags: --preset=NAME for one of the paper's sweeps
(PRESETS in grid.py), or --sweep_file=FILE for a JSON list of grids, whose keys
are the settings of run_classifier.py and whose values are one value or a list:

    [{"task_name": ["MRPC", "RTE"], "adapter_size": [8, 64],
      "learning_rate": [3e-4, 1e-3], "num_train_epochs": 5,
      "seed": [0, 1, 2]},
     {"task_name": ["MRPC", "RTE"], "tune": "full", "learning_rate": 3e-5}]

A file may also be {"common": {...}, "grids": [...]}, the common settings being
those of every grid. A grid's flag given beside a preset or a file replaces
that setting in every grid, and --set=NAME=VALUE does so for any
setting: --preset=figure4 --tasks=CoLA --set=precision=bfloat16.
A task of your own is a "task_spec" (--task_specs); its files are looked for in
glue_dir/NAME, as every task's, unless "data_dir" says where they are.

The paper's protocol: the settings of a method are those with the best mean over
the seeds on dev, for each task.
"""

import dataclasses
import json
import os

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags

from adapter_bert import settings as settings_lib
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import model_dir
from adapter_bert.experiments import grid
from adapter_bert.experiments import jobs
from adapter_bert.experiments import report

FLAGS = flags.FLAGS

# Flag -> the setting it gives a list of values for.
GRID_FLAGS = {
    "tasks": "task_name", "task_specs": "task_spec", "tunes": "tune",
    "learning_rates": "learning_rate", "epochs": "num_train_epochs",
    "adapter_sizes": "adapter_size", "top_n_layers": "top_n_layers",
    "seeds": "seed", "init_scales": "adapter_init_scale",
}


def define_flags(flag_values=FLAGS):
  """Flags of this program, defined only where it is one."""
  for name, description in (
      ("preset", "One of the paper's sweeps: %s." % ", ".join(grid.PRESETS)),
      ("sweep_file", "A JSON file of grids; see the top of sweep.py."),
      ("glue_dir", "The directory with a directory of .tsv files for each GLUE "
       "task, as glue_dir/MRPC."),
      ("model_dir", settings_lib.named("model_dir").help),
      ("vocab_file", "The vocabulary that BERT was trained with."),
      ("bert_config_file", "The bert_config.json of the pre-trained BERT."),
      ("init_checkpoint", "The pre-trained BERT: a checkpoint's prefix or its "
       "directory.")):
    flags.DEFINE_string(name, None, description, flag_values=flag_values)
  flags.DEFINE_string("output_dir", "sweep", "Where runs and results are "
                      "written.", flag_values=flag_values)
  for flag, name in GRID_FLAGS.items():
    flags.DEFINE_string(flag, None, "Comma-separated values of %s." % name,
                        flag_values=flag_values)
  flags.DEFINE_multi_string("set", [], "NAME=VALUE for any further setting of "
                            "run_classifier.py, in every run.",
                            flag_values=flag_values)
  flags.DEFINE_integer("jobs", 1, "How many runs at a time. On Linux each gets "
                       "its share of the cores.", lower_bound=1,
                       flag_values=flag_values)
  flags.DEFINE_boolean("keep_checkpoints", False, "Keep the training "
                       "checkpoints and the tokenized data of finished runs.",
                       flag_values=flag_values)
  flags.DEFINE_boolean("report_only", False, "Run nothing; write results.csv "
                       "and table.md from what is there.",
                       flag_values=flag_values)


def grid_from_flags(flag_values):
  """The settings that the grid's flags and --set give, as one grid."""
  settings = {}
  for flag, name in GRID_FLAGS.items():
    text = flag_values[flag].value
    if text is not None:
      settings[name] = [_parsed(name, item.strip(), "--%s" % flag)
                    for item in text.split(",")]
  for text in flag_values["set"].value:
    name, equals, value = text.partition("=")
    if not equals:
      raise errors.InputError("--set=%s: give NAME=VALUE" % text)
    grid.check_key(name, "--set")
    settings[name] = _parsed(name, value, "--set")
  return settings


def _parsed(name, text, where):
  """A setting's value from the text of a flag."""
  kind = grid.SETTINGS[name].kind
  read = {bool: json.loads}.get(kind, kind)
  try:
    value = read(text)
  except ValueError:
    value = text  # the check says what it must be
  grid.check_value(name, value, where)
  return value


def runs_from_flags(flag_values):
  """The runs that the command line asks for.

  Raises: errors.InputError.
  """
  settings = grid_from_flags(flag_values)
  if flag_values.preset and flag_values.sweep_file:
    raise errors.InputError("preset and sweep_file are both given; give one")
  preset = flag_values.preset
  if preset:
    if preset not in grid.PRESETS:
      raise errors.InputError("preset %s is unknown; known are %s" %
                              (preset, ", ".join(grid.PRESETS)))
    return grid.runs_of(grid.PRESETS[preset], "preset %s" % preset, settings)
  if flag_values.sweep_file:
    return grid.runs_of(files.read_json(flag_values.sweep_file),
                   "sweep_file %s" % flag_values.sweep_file, settings)
  if not settings:
    raise errors.InputError("nothing to sweep over: give preset, sweep_file or "
                            "a grid's flags, as --tasks and --learning_rates")
  return grid.runs_of([settings], "the flags")


def options_from_flags(flag_values):
  """jobs.Options.

  Raises: errors.InputError for a flag that is missing.
  """
  options = jobs.Options(**{field.name: flag_values[field.name].value
                            for field in dataclasses.fields(jobs.Options)})
  files_of_model = model_dir.files_of(
      options.model_dir, options.bert_config_file, options.vocab_file,
      options.init_checkpoint)
  return dataclasses.replace(options, **dict(zip(
      ("bert_config_file", "vocab_file", "init_checkpoint"), files_of_model)))


def main(argv, flag_values=FLAGS):
  errors.refuse_arguments(argv)
  output_dir = flag_values.output_dir
  if flag_values.report_only:
    if not os.path.isdir(os.path.join(output_dir, report.RUNS)):
      raise errors.InputError("output_dir %s is no sweep's: there is no %s/ in "
                              "it" % (output_dir, report.RUNS))
    report.write_report(output_dir, report.finished_results(output_dir))
    return 0
  try:
    runs = runs_from_flags(flag_values)
    options = options_from_flags(flag_values)
    jobs.check_runs(runs, options)
    with files.locked(output_dir), jobs.stopped_by_signals():
      failed = jobs.Sweep(runs, options).work()
      report.write_report(output_dir, report.finished_results(output_dir))
  except KeyboardInterrupt:
    jobs.say("stopped; the same command goes on from here")
    return 130
  jobs.say("results: %s and %s" % tuple(
      os.path.join(output_dir, name)
      for name in (report.CSV_FILE, report.TABLE_FILE)))
  if failed:
    jobs.say("%d of %d runs failed:" % (len(failed), len(runs)))
    for run, reason, log in failed:
      jobs.say("  %s: %s (log: %s)" % (run.label, reason, log))
    return 1
  return 0


def entry_point():
  """The console command `adapter-bert-sweep`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
