"""Draws the paper's figures, from a sweep's results or a task checkpoint.

    python -m adapter_bert.experiments.figures --figure=parameters --results=sweep/results.csv \\
      --output=figure4.png
    python -m adapter_bert.experiments.figures --figure=percentiles --results=sweep/results.csv \\
      --output=figure3.png
    python -m adapter_bert.experiments.figures --figure=init_scale --results=sweep/results.csv \\
      --output=figure6_right.png
    python -m adapter_bert.experiments.figures --figure=ablation --task_checkpoint=/tmp/mrpc/task \\
      --data_dir=$GLUE_DIR/MRPC --vocab_file=$BERT_BASE_DIR/vocab.txt \\
      --output=figure6_left.png

The figures (Houlsby et al. 2019):

  parameters   Figure 4: score against trained parameters, for each task.
  percentiles  Figure 3: the 20th, 50th and 80th percentile over tasks of the
               score's difference to full fine-tuning.
  init_scale   Figure 6, right: score against the standard deviation of the
               adapters' initial weights.
  ablation     Figure 6, left: what it costs to take the adapters of
               neighbouring layers out of a trained model, without retraining.

The first three read the results.csv of sweep.py (presets figure3, figure4 and
figure6_right make what they need). Of each method the setting with the best
mean over the seeds is shown, on each task, with the standard error of that
mean. Beside the picture the numbers are written as .csv. The ending of --output
says the format: .png, .pdf, .svg.
"""

import collections
import os

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import settings as settings_lib
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.base import flags as flags_lib
from adapter_bert.base.flags import Setting
from adapter_bert.data import tasks
from adapter_bert.checkpoints import model_dir
from adapter_bert.experiments import ablation
from adapter_bert.experiments import grid
from adapter_bert.experiments import plots
from adapter_bert.experiments import report
from adapter_bert.experiments import tables
from adapter_bert.experiments.tables import CHANGE
from adapter_bert.experiments.tables import COUNT
from adapter_bert.experiments.tables import INT
from adapter_bert.experiments.tables import NUMBER
from adapter_bert.experiments.tables import SCORE
from adapter_bert.experiments.tables import TEXT
from adapter_bert.training import graphs

FLAGS = flags.FLAGS
PERCENTILES = (20, 50, 80)

# What a family of methods is called (series_of), and how it is drawn. Full
# fine-tuning is what these are compared with.
_SERIES = collections.OrderedDict([
    ("adapters", dict(label="adapters", color="C1", marker="o")),
    ("top_n", dict(label="top n layers", color="C0", marker="s")),
    ("layer_norm", dict(label="LayerNorm only", color="C2", marker="D")),
    ("prefix", dict(label="prefix", color="C3", marker="^")),
    ("prefix, MLP", dict(label="prefix with an MLP", color="C4", marker="v")),
])
_FULL = dict(label="full fine-tuning", color="0.35")


# ----------------------------------------------- numbers from a sweep's results


_OF_A_SETTING = [("score", SCORE), ("standard_error", SCORE), ("seeds", INT),
                 ("learning_rate", NUMBER), ("num_train_epochs", NUMBER)]


def _of_a_setting(found):
  return [found.mean, found.standard_error, len(found.scores)] + [
      grid.setting(found.settings, name)
      for name in ("learning_rate", "num_train_epochs")]


def series_of(method):
  """The series of a grid.Method: a key of _SERIES, "full", or another name."""
  return method.tune + method.of_family


def best_by_method(settings):
  """The best setting of every method, on every task.

  Args:
    settings: list of report.Candidate.

  Returns: {grid.Method: {task: report.Candidate}}, of full fine-tuning and the
    methods in _SERIES (the paper's adapters in all layers), sizes in order.
  """
  order = ["full"] + list(_SERIES)
  groups = {}
  for setting in settings:
    method = setting.method
    if series_of(method) in order and not method.adapter_layers:
      groups.setdefault(method, {}).setdefault(setting.task, []).append(setting)
  return {method: {task: report.choose(groups[method][task])
                   for task in sorted(groups[method])}
          for method in sorted(groups, key=lambda m: (order.index(series_of(m)),
                                                      m.choice or 0))}


def _require(found, where, what, preset):
  if not found:
    raise errors.InputError(
        "%s: has no finished run of %s, which this figure needs; "
        "sweep.py --preset=%s makes all it needs" % (where, what, preset))


_NEEDED = "adapters, top_n, layer_norm or prefix"


def _not_there(found):
  return ["not in the results: %s" % style["label"]
          for series, style in [("full", _FULL)] + list(_SERIES.items())
          if series not in found]


def parameter_numbers(settings, where):
  """Figure 4: score against trained parameters.

  Args:
    settings: list of report.Candidate.
    where: str, the file they come from, for messages.

  Returns: tables.Table; series is one of _SERIES or "full", choice the
    adapters' size, the number of layers or the prefix's length.

  Raises: errors.InputError if there is nothing to draw.
  """
  best = best_by_method(settings)
  _require([m for m in best if m.tune != "full"], where, _NEEDED, "figure4")
  columns = [("task", TEXT), ("metric", TEXT), ("series", TEXT),
             ("choice", INT), ("trained_parameters", COUNT),
             ("stored_parameters", COUNT)] + _OF_A_SETTING
  rows = []
  for task in sorted(set(task for found in best.values() for task in found)):
    for method, found in best.items():
      if task in found:
        setting = found[task]
        rows.append([task, setting.metric, series_of(method), method.choice,
                     setting.parameters, setting.stored] +
                    _of_a_setting(setting))
  return tables.Table("", columns, rows,
                      notes=_not_there([series_of(m) for m in best]))


def percentile_numbers(settings, where):
  """Figure 3: percentiles over tasks, relative to full fine-tuning.

  All points are over the same tasks, those that were tuned in full: a method
  without a result on one of them is left out, and a note says so. So is a task
  whose metric is an error, not in points.

  Args:
    settings, where: as for parameter_numbers.

  Returns: tables.Table; the percentiles are of the difference in points.

  Raises: errors.InputError if there is nothing to draw.
  """
  errors_of = sorted(set(s.task for s in settings
                         if tasks.points_of(s.metric) == 1))
  best = best_by_method([s for s in settings if s.task not in errors_of])
  full = [method for method in best if method.tune == "full"]
  _require(full, where, "full fine-tuning (tune full)", "figure3")
  reference = best.pop(full[0])
  _require(best, where, _NEEDED, "figure3")
  others = sorted(set(task for found in best.values() for task in found
                      if task not in reference))
  notes = _not_there(["full"] + [series_of(method) for method in best])
  for left_out, why in ((errors_of, "the metric is an error, not in points"),
                        (others, "no run of full fine-tuning")):
    notes += ["left out: %s: %s" % (task, why) for task in left_out]
  rows = []
  for method, found in best.items():
    lacking = [task for task in reference if task not in found]
    if lacking:
      notes.append("left out: %s: no run on %s" %
                   (method.label, ", ".join(lacking)))
      continue
    changes = [found[task].mean - reference[task].mean for task in reference]
    rows.append([series_of(method), method.choice,
                 found[list(reference)[0]].parameters] + [
                     float(p) for p in np.percentile(changes, PERCENTILES)
                 ] + [len(changes)])
  _require(rows, where, "any one method on all of %s" % ", ".join(reference),
           "figure3")
  columns = [("series", TEXT), ("choice", INT),
             ("trained_parameters", COUNT)] + [
                 ("percentile_%d" % p, CHANGE) for p in PERCENTILES
             ] + [("tasks", INT)]
  return tables.Table("", columns, rows, notes=notes)


def init_scale_numbers(settings, where):
  """Figure 6, right: score against the adapters' initial standard deviation.

  Apart from that a curve is of one setting: of each task and size the one that
  was run with most scales, and of several such the one with the best score.

  Args:
    settings, where: as for parameter_numbers.

  Returns: tables.Table.

  Raises: errors.InputError if there is nothing to draw.
  """
  curves = {}
  for setting in settings:
    if setting.method.tune == "adapters" and not setting.method.adapter_fn:
      rest = sorted((name, value) for name, value in setting.settings.items()
                    if name != "adapter_init_scale")
      curves.setdefault(
          (setting.task, setting.method), {}).setdefault(
              str(rest), []).append(setting)
  columns = [("task", TEXT), ("metric", TEXT), ("method", TEXT),
             ("adapter_init_scale", NUMBER)] + _OF_A_SETTING
  rows = []
  for task, method in sorted(curves, key=lambda key: (key[0], key[1].choice,
                                                      key[1].label)):
    found = list(curves[task, method].values())
    longest = [c for c in found if len(c) == max(len(c) for c in found)]
    best = report.choose([setting for c in longest for setting in c])
    curve, = [c for c in longest if best in c]
    if len(curve) > 1:
      points = [(grid.setting(s.settings, "adapter_init_scale"), s)
                for s in curve]
      rows += [[task, s.metric, method.label, scale] + _of_a_setting(s)
               for scale, s in sorted(points, key=lambda point: point[0])]
  _require(rows, where, "adapters with two values of adapter_init_scale",
           "figure6_right")
  return tables.Table("", columns, rows, notes=[])


# ------------------------------------------------------------------ the drawing


def _metric_label(numbers, task):
  metric = tables.select(numbers, task=task)[0]["metric"]
  return "dev %s%s" % (metric, ", in points" * (tasks.points_of(metric) != 1))


def draw_parameters(numbers):
  """Figure 4 of parameter_numbers: a matplotlib Figure."""
  drawing, panels = plots.panels_of(tables.distinct(numbers, "task"),
                            "trained parameters (without the head)")
  for task, axes in panels.items():
    for full in tables.select(numbers, task=task, series="full"):
      axes.axhline(full["score"], linestyle="--", linewidth=1.2, **_FULL)
      error = full["standard_error"] or 0.0
      axes.axhspan(full["score"] - error, full["score"] + error, alpha=0.15,
                   linewidth=0, color=_FULL["color"])
    for series, style in _SERIES.items():
      rows = tables.select(numbers, task=task, series=series)
      if rows:
        plots.curve_with_errors(axes, rows, "trained_parameters", **style)
    axes.set_ylabel(_metric_label(numbers, task))
  plots.legend_below(drawing, panels.values())
  return drawing


def draw_percentiles(numbers):
  """Figure 3 of percentile_numbers: a matplotlib Figure."""
  num_tasks = tables.distinct(numbers, "tasks")[0]
  drawing, panels = plots.panels_of(
      ["%d tasks" % num_tasks if num_tasks > 1 else "1 task"],
      "trained parameters (without the head)")
  axes, = panels.values()
  axes.axhline(0.0, linestyle="--", linewidth=1.2, **_FULL)
  for series, style in _SERIES.items():
    rows = tables.select(numbers, series=series)
    x = [row["trained_parameters"] for row in rows]
    low, middle, high = [[row["percentile_%d" % p] for row in rows]
                         for p in PERCENTILES]
    if len(rows) > 1:
      axes.plot(x, middle, markersize=4, linewidth=1.4, **style)
      axes.fill_between(x, low, high, color=style["color"], alpha=0.2,
                        linewidth=0)
    elif rows:
      axes.errorbar(x, middle, yerr=[np.subtract(middle, low),
                                     np.subtract(high, middle)],
                    capsize=2.5, markersize=4, linewidth=1.4, **style)
  axes.set_ylabel("dev score - full fine-tuning\n"
                  "(%dth, %dth and %dth percentile)" % PERCENTILES)
  plots.legend_below(drawing, [axes])
  return drawing


def draw_init_scale(numbers):
  """Figure 6, right, of init_scale_numbers: a matplotlib Figure."""
  drawing, panels = plots.panels_of(tables.distinct(numbers, "task"),
                            "standard deviation of the initial weights")
  methods = tables.distinct(numbers, "method")
  for task, axes in panels.items():
    for i, method in enumerate(methods):
      rows = tables.select(numbers, task=task, method=method)
      if rows:
        plots.curve_with_errors(axes, rows, "adapter_init_scale",
                                color="C%d" % (i + 1), marker="o", label=method)
    axes.set_ylabel(_metric_label(numbers, task))
  plots.legend_below(drawing, panels.values())
  return drawing


def draw_ablation(numbers, title):
  """Figure 6, left, of `ablate`'s numbers: a matplotlib Figure."""
  from matplotlib import patches
  rows = [row for row in tables.select(numbers)
          if row["first_layer"] is not None]
  layers = [row["first_layer"] for row in rows
            if row["first_layer"] == row["last_layer"]]
  losses = np.full([len(layers)] * 2, np.nan)
  for row in rows:
    losses[layers.index(row["first_layer"]),
           layers.index(row["last_layer"])] = row["relative_loss"]
  side = 2.0 + 0.5 * max(len(layers), 5)
  drawing = plots.new_figure(side + 1.2, side)
  axes = drawing.add_subplot()
  top = max(np.nanmax(losses), 1.0)  # a scale even where nothing is lost
  image = axes.imshow(losses, cmap="YlOrRd", vmin=min(np.nanmin(losses), 0.0),
                      vmax=top)
  for (i, j), loss in np.ndenumerate(losses):
    if not np.isnan(loss):
      axes.text(j, i, _short(loss), ha="center", va="center", fontsize=8,
                color="white" if loss > 0.6 * top else "black")
    if i == j:
      axes.add_patch(patches.Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False,
                                       edgecolor="C2", linewidth=1.5))
  axes.set_xticks(range(len(layers)), layers)
  axes.set_yticks(range(len(layers)), layers)
  axes.set_xlabel("last layer without adapters")
  axes.set_ylabel("first layer without adapters")
  for spine in axes.spines.values():
    spine.set_visible(False)
  axes.set_title(title)
  drawing.colorbar(image, ax=axes, shrink=0.85, label="relative loss in %")
  return drawing


def _short(loss):
  """A loss in few characters: "0.4", "12"."""
  text = "%.1f" % loss if abs(loss) < 9.95 else "%.0f" % loss
  return "0" if text in ("0.0", "-0.0") else text


# ------------------------------------------------------------------ the program


def ablation_numbers(numbers):
  """Of `ablation.ablate`'s, no, each single and all layers only."""
  single = [row for row in numbers.rows if row[0] == row[1]]  # and none
  layers = [row[0] for row in single[1:]]
  everything = [row for row in numbers.rows
                if row[:2] == [layers[0], layers[-1]] and row not in single]
  rows = [[ablation.removed_label(*row[:2], layers)] + row[2:]
          for row in single + everything]
  return numbers._replace(
      columns=[("without_the_adapters_of", TEXT)] + numbers.columns[2:],
      rows=rows)


def table_for_a_reader(numbers, title):
  """The numbers with a title and plain column names, as text."""
  return tables.text(numbers._replace(
      title=title, columns=[(name.replace("_", " "), kind)
                            for name, kind in numbers.columns]))


# name: (where it is in the paper, its numbers of a sweep, its drawing).
FIGURES = collections.OrderedDict([
    ("parameters", ("figure 4", parameter_numbers, draw_parameters)),
    ("percentiles", ("figure 3", percentile_numbers, draw_percentiles)),
    ("init_scale", ("figure 6, right", init_scale_numbers, draw_init_scale)),
    ("ablation", ("figure 6, left", None, draw_ablation)),
])


SETTINGS = [
    Setting("figure", str, flags_lib.REQUIRED, "Which figure: %s." % ", ".join(
        "%s (%s)" % (name, figure[0]) for name, figure in FIGURES.items()),
            allowed=tuple(FIGURES)),
    Setting("output", str, flags_lib.REQUIRED,
            "The picture to write, as figure4.png; its numbers are written "
            "beside it, as figure4.csv.", is_path=True,
            local="matplotlib writes it"),
    Setting("results", str, None,
            "A sweep's results.csv, for all figures but the ablation.",
            is_path=True),
    Setting("task_checkpoint", str, None,
            "The trained model to ablate: a run's task/ or best/.",
            is_path=True),
] + settings_lib.optional(settings_lib.of_program("figures"))
Options = flags_lib.config_class("Options", SETTINGS)


def define_flags(flag_values=FLAGS):
  """Flags of this program, defined only where it is one."""
  flags_lib.define(SETTINGS, ("figure", "output"), flag_values)


def _check_options(options, csv_path):
  """Raises errors.InputError for flags that are missing or do not fit."""
  figure, output = options.figure, options.output
  plots.check_plot(output, "output")
  needed, others = ["results"], ["task_checkpoint"]
  if figure == "ablation":
    needed, others = ["task_checkpoint", "data_dir"], ["results"]
  for name in needed:
    if not getattr(options, name):
      raise errors.InputError("figure %s needs --%s" % (figure, name))
  for name in others:
    if getattr(options, name):
      raise errors.InputError("--%s is not for figure %s, which is drawn from "
                              "--%s" % (name, figure, needed[0]))
  if options.results and (files.real(csv_path) ==
                          files.real(options.results)):
    raise errors.InputError(
        "--output=%s: the figure's numbers would be written to %s, which is "
        "the sweep's results; give another name" % (output, csv_path))


def _of_a_sweep(options, numbers_of, title):
  """(tables.Table, the report) of a figure of a sweep's results."""
  path = options.results
  numbers = numbers_of(report.candidates_of(report.read_results(path)), path)
  return numbers, table_for_a_reader(numbers, title)


def _of_a_model(options, title):
  """(tables.Table, the report, the task and its metric) of the ablation."""
  graphs.enable_graph_mode()
  _, vocab_file, init_checkpoint = model_dir.files_of(
      options.model_dir, None, options.vocab_file, options.init_checkpoint,
      needs_config=False)
  task, numbers = ablation.of_checkpoint(
      options.task_checkpoint, options.data_dir, vocab_file, init_checkpoint,
      options.force_base, options.eval_batch_size, options.adapter_fn)
  what = "%s, dev %s" % (task.display_name, task.main_metric)
  return numbers, table_for_a_reader(
      ablation_numbers(numbers), "%s: %s" % (title, what)), what


def main(argv, flag_values=FLAGS):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  # Deprecation notes about v1, which is what this is written in.
  tf.logging.set_verbosity(tf.logging.ERROR)
  options = Options(**flags_lib.values(SETTINGS, flag_values))
  csv_path = os.path.splitext(options.output)[0] + ".csv"
  _check_options(options, csv_path)
  in_paper, numbers_of, draw = FIGURES[options.figure]
  title = "%s (%s of the paper)" % (options.figure, in_paper)
  if numbers_of is None:
    numbers, text, what = _of_a_model(options, title)
    drawing = draw(numbers, what)
  else:
    numbers, text = _of_a_sweep(options, numbers_of, title)
    drawing = draw(numbers)
  files.write_atomically(csv_path, tables.csv_text([numbers]))
  plots.save_plot(drawing, options.output, "output")
  errors.say(text + "written: %s and %s\n" % (options.output, csv_path))
  return 0


def entry_point():
  """The console command `adapter-bert-figures`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
