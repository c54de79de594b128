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
from adapter_bert.base import flags as flags_lib
from adapter_bert.base.flags import Setting
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


SETTINGS = [
    Setting("preset", str, None, "One of the paper's sweeps.",
            allowed=tuple(grid.PRESETS)),
    Setting("sweep_file", str, None,
            "A JSON file of grids; see the top of sweep.py.", is_path=True),
    Setting("glue_dir", str, None,
            "The directory with a directory of .tsv files for each GLUE task, "
            "as glue_dir/MRPC.", is_path=True),
    Setting("output_dir", str, "sweep", "Where runs and results are written.",
            is_path=True, local="runs and this program share files there"),
    Setting("jobs", int, 1,
            "How many runs at a time. On Linux each gets its share of the "
            "cores.", least=1),
    Setting("keep_checkpoints", bool, False,
            "Keep the training checkpoints and the tokenized data of finished "
            "runs."),
    Setting("report_only", bool, False,
            "Run nothing; write results.csv and table.md from what is there."),
] + settings_lib.of_program("sweep") + [
    Setting(flag, str, None, "Comma-separated values of %s." % name)
    for flag, name in GRID_FLAGS.items()]
Options = flags_lib.config_class("Options", SETTINGS)


def define_flags(flag_values=FLAGS):
  """Flags of this program, defined only where it is one."""
  flags_lib.define(SETTINGS, flag_values=flag_values)
  flags.DEFINE_multi_string("set", [], "NAME=VALUE for any further setting of "
                            "run_classifier.py, in every run.",
                            flag_values=flag_values)


def grid_of(options, assignments):
  """The settings that the grid's flags and --set give, as one grid."""
  settings = {}
  for flag, name in GRID_FLAGS.items():
    text = getattr(options, flag)
    if text is not None:
      settings[name] = [_parsed(name, item.strip(), "--%s" % flag)
                    for item in text.split(",")]
  for text in assignments:
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


def runs_of(options, assignments=()):
  """The runs that the command line asks for.

  Args:
    options: Options.
    assignments: list of str, NAME=VALUE each.

  Raises: errors.InputError.
  """
  settings = grid_of(options, assignments)
  if options.preset and options.sweep_file:
    raise errors.InputError("preset and sweep_file are both given; give one")
  if options.preset:
    return grid.runs_of(grid.PRESETS[options.preset],
                        "preset %s" % options.preset, settings)
  if options.sweep_file:
    return grid.runs_of(files.read_json(options.sweep_file),
                        "sweep_file %s" % options.sweep_file, settings)
  if not settings:
    raise errors.InputError("nothing to sweep over: give preset, sweep_file or "
                            "a grid's flags, as --tasks and --learning_rates")
  return grid.runs_of([settings], "the flags")


def common_to_all(options):
  """jobs.Options, with the model's files.

  Raises: errors.InputError for a flag that is missing.
  """
  common = jobs.Options(**{field.name: getattr(options, field.name)
                           for field in dataclasses.fields(jobs.Options)})
  files_of_model = model_dir.files_of(
      common.model_dir, common.bert_config_file, common.vocab_file,
      common.init_checkpoint)
  return dataclasses.replace(common, **dict(zip(
      ("bert_config_file", "vocab_file", "init_checkpoint"), files_of_model)))


def main(argv, flag_values=FLAGS):
  errors.refuse_arguments(argv)
  options = Options(**flags_lib.values(SETTINGS, flag_values))
  output_dir = options.output_dir
  if options.report_only:
    if not os.path.isdir(os.path.join(output_dir, report.RUNS)):
      raise errors.InputError("output_dir %s is not a sweep's: there is no %s/ "
                              "in it" % (output_dir, report.RUNS))
    report.write_report(output_dir, report.finished_results(output_dir))
    return 0
  try:
    runs = runs_of(options, flag_values["set"].value)
    common = common_to_all(options)
    jobs.check_runs(runs, common)
    with files.locked(output_dir), jobs.stopped_by_signals():
      failed = jobs.Sweep(runs, common).work()
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
