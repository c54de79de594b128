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
import csv
import dataclasses
import io
import os
import tempfile
import time

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import checkpoints
from adapter_bert.experiments import count_parameters
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import glue
from adapter_bert.data import input_pipeline
import run_classifier
from adapter_bert.experiments import sweep
from adapter_bert.training import loop as training

FLAGS = flags.FLAGS

PERCENTILES = (20, 50, 80)

# A method of modeling.Tuning: what it is called, and how it is drawn. Full
# fine-tuning is what these are compared with.
_SERIES = collections.OrderedDict([
    ("adapters", dict(label="adapters", color="C1", marker="o")),
    ("top_n", dict(label="top n layers", color="C0", marker="s")),
    ("layer_norm", dict(label="LayerNorm only", color="C2", marker="D")),
])
_FULL = dict(label="full fine-tuning", color="0.35")

# How a column's values are shown to a reader.
_TEXT, _INT, _COUNT, _NUMBER = "{}", "{:d}", "{:,d}", "{:g}"
_SCORE, _CHANGE = "{:.2f}", "{:+.2f}"

# What a figure shows. columns: list of (name, format for a reader); rows: lists
# of values, None where there is none. notes: lines of text.
Numbers = collections.namedtuple("Numbers", "columns rows notes")


def _column(numbers, name):
  return [n for n, _ in numbers.columns].index(name)


def select(numbers, **values):
  """The rows with these values, as dicts of column name to value."""
  names = [name for name, _ in numbers.columns]
  rows = [dict(zip(names, row)) for row in numbers.rows]
  return [row for row in rows
          if all(row[name] == value for name, value in values.items())]


def distinct(numbers, name):
  """The values in a column, each once, in order."""
  index = _column(numbers, name)
  return list(collections.OrderedDict.fromkeys(
      row[index] for row in numbers.rows))


# ------------------------------------------- numbers from a sweep's results


_OF_A_SETTING = [("score", _SCORE), ("standard_error", _SCORE), ("seeds", _INT),
                 ("learning_rate", _NUMBER), ("num_train_epochs", _NUMBER)]


def _of_a_setting(found):
  return [found.mean, found.standard_error, len(found.scores)] + [
      sweep.setting(found.settings, name)
      for name in ("learning_rate", "num_train_epochs")]


def best_by_method(settings):
  """The best setting of every method, on every task.

  Args:
    settings: list of sweep.Setting.

  Returns: {sweep.Method: {task: sweep.Setting}}, of full fine-tuning and the
    methods in _SERIES (adapters in all layers), sizes in order.
  """
  groups = {}
  for setting in settings:
    method = setting.method
    if (method.tune == "full" or method.tune in _SERIES and
        not method.adapter_layers):
      groups.setdefault(method, {}).setdefault(setting.task, []).append(setting)
  order = ["full"] + list(_SERIES)
  return {method: {task: sweep.choose(groups[method][task])
                   for task in sorted(groups[method])}
          for method in sorted(groups, key=lambda m: (order.index(m.tune),
                                                      m.choice or 0))}


def _require(found, where, what, preset):
  if not found:
    raise errors.InputError(
        "%s: has no finished run of %s, which this figure needs; "
        "sweep.py --preset=%s makes all it needs" % (where, what, preset))


def _not_there(tunes):
  return ["not in the results: %s" % style["label"]
          for tune, style in [("full", _FULL)] + list(_SERIES.items())
          if tune not in tunes]


def parameter_numbers(settings, where):
  """Figure 4: score against trained parameters.

  Args:
    settings: list of sweep.Setting.
    where: str, the file they come from, for messages.

  Returns: Numbers; tune is a method of modeling.Tuning, choice the adapters'
    size or the number of layers.

  Raises: errors.InputError if there is nothing to draw.
  """
  best = best_by_method(settings)
  _require([m for m in best if m.tune != "full"], where,
           "adapters, top_n or layer_norm", "figure4")
  columns = [("task", _TEXT), ("metric", _TEXT), ("tune", _TEXT),
             ("choice", _INT), ("trained_parameters", _COUNT)] + _OF_A_SETTING
  rows = []
  for task in sorted(set(task for found in best.values() for task in found)):
    for method, found in best.items():
      if task in found:
        setting = found[task]
        rows.append([task, setting.metric, method.tune, method.choice,
                     setting.parameters] + _of_a_setting(setting))
  return Numbers(columns, rows, _not_there([m.tune for m in best]))


def percentile_numbers(settings, where):
  """Figure 3: percentiles over tasks, relative to full fine-tuning.

  All points are over the same tasks, those that were tuned in full: a method
  without a result on one of them is left out, and a note says so. So is a task
  whose metric is an error, not in points.

  Args:
    settings, where: as for parameter_numbers.

  Returns: Numbers; the percentiles are of the difference in points.

  Raises: errors.InputError if there is nothing to draw.
  """
  errors_of = sorted(set(s.task for s in settings
                         if glue.points_of(s.metric) == 1))
  best = best_by_method([s for s in settings if s.task not in errors_of])
  full = [method for method in best if method.tune == "full"]
  _require(full, where, "full fine-tuning (tune full)", "figure3")
  reference = best.pop(full[0])
  _require(best, where, "adapters, top_n or layer_norm", "figure3")
  others = sorted(set(task for found in best.values() for task in found
                      if task not in reference))
  notes = _not_there(["full"] + [method.tune for method in best])
  for tasks, why in ((errors_of, "the metric is an error, not in points"),
                     (others, "no run of full fine-tuning")):
    notes += ["left out: %s: %s" % (task, why) for task in tasks]
  rows = []
  for method, found in best.items():
    lacking = [task for task in reference if task not in found]
    if lacking:
      notes.append("left out: %s: no run on %s" %
                   (method.label, ", ".join(lacking)))
      continue
    changes = [found[task].mean - reference[task].mean for task in reference]
    rows.append([method.tune, method.choice,
                 found[list(reference)[0]].parameters] + [
                     float(p) for p in np.percentile(changes, PERCENTILES)
                 ] + [len(changes)])
  _require(rows, where, "any one method on all of %s" % ", ".join(reference),
           "figure3")
  columns = [("tune", _TEXT), ("choice", _INT),
             ("trained_parameters", _COUNT)] + [
                 ("percentile_%d" % p, _CHANGE) for p in PERCENTILES
             ] + [("tasks", _INT)]
  return Numbers(columns, rows, notes)


def init_scale_numbers(settings, where):
  """Figure 6, right: score against the adapters' initial standard deviation.

  A curve is of one setting but for that: of each task and size the setting that
  was run with most scales, and of several such the one with the best score.

  Args:
    settings, where: as for parameter_numbers.

  Returns: Numbers.

  Raises: errors.InputError if there is nothing to draw.
  """
  curves = {}
  for setting in settings:
    if setting.method.tune == "adapters":
      rest = sorted((name, value) for name, value in setting.settings.items()
                    if name != "adapter_init_scale")
      curves.setdefault(
          (setting.task, setting.method), {}).setdefault(
              str(rest), []).append(setting)
  columns = [("task", _TEXT), ("metric", _TEXT), ("method", _TEXT),
             ("adapter_init_scale", _NUMBER)] + _OF_A_SETTING
  rows = []
  for task, method in sorted(curves, key=lambda key: (key[0], key[1].choice,
                                                      key[1].label)):
    found = list(curves[task, method].values())
    longest = [c for c in found if len(c) == max(len(c) for c in found)]
    best = sweep.choose([setting for c in longest for setting in c])
    curve, = [c for c in longest if best in c]
    if len(curve) > 1:
      points = [(sweep.setting(s.settings, "adapter_init_scale"), s)
                for s in curve]
      rows += [[task, s.metric, method.label, scale] + _of_a_setting(s)
               for scale, s in sorted(points, key=lambda point: point[0])]
  _require(rows, where, "adapters with two values of adapter_init_scale",
           "figure6_right")
  return Numbers(columns, rows, [])


# --------------------------------------------------------------- the ablation


class SwitchedAdapter(object):
  """An adapter_fn whose layers are switched on and off at run time.

  BertModel calls an adapter twice a layer, from the bottom layer up. The calls
  are counted, because the scope does not tell layers apart that share it: where
  layers share their weights, each of them is switched for itself.

  Args:
    adapter_fn: the adapter of one tensor, see modeling.BertModel.
    num_layers: int, how many layers have adapters.

  Attributes:
    switches: bool placeholder [num_layers], all on by default; None before the
      model is built.
  """

  def __init__(self, adapter_fn, num_layers):
    self._adapter_fn = adapter_fn
    self._num_layers = num_layers
    self._calls = 0
    self.switches = None

  def __call__(self, tensor):
    if self.switches is None:
      self.switches = tf.placeholder_with_default(
          [True] * self._num_layers, [self._num_layers], "adapter_switches")
    switch = self.switches[self._calls // 2]
    self._calls += 1
    return tf.where_v2(switch, self._adapter_fn(tensor), tensor)


def spans(layers):
  """Every contiguous part of a list, as (first, last)."""
  return [(first, last) for i, first in enumerate(layers)
          for last in layers[i:]]


def ablate(task, model, records, weights, batch_size=32, init_shared_from=None):
  """Scores a trained model without the adapters of every span of layers.

  Args:
    task: glue.Task.
    model: training.ModelSpec with adapters.
    records: input_pipeline.RecordSet, the examples to score on.
    weights, batch_size, init_shared_from: see training.predictor.

  Returns: Numbers. first_layer and last_layer are None where nothing is
    removed; relative_loss is in percent of that row's score.

  Raises: errors.InputError if nothing removed scores 0 or less.
  """
  layers = sorted(range(model.bert_config.num_hidden_layers)
                  if model.adapter_layers is None else model.adapter_layers)
  adapter = SwitchedAdapter(model.get_adapter_fn(), len(layers))
  model = dataclasses.replace(model, adapter_fn=adapter)
  metric = "eval_" + task.main_metric
  points = glue.points_of(task.main_metric)
  sign = -1 if glue.best_of(task.main_metric) is min else 1
  rows, whole = [], None
  began, todo = time.monotonic(), [(None, None)] + spans(layers)
  with training.predictor(model, records, weights, batch_size,
                          init_shared_from=init_shared_from) as run:
    for first, last in todo:
      predictions = run({adapter.switches: [
          first is None or not first <= layer <= last for layer in layers]})
      score = points * glue.compute_metrics(task, predictions.labels,
                                            predictions.outputs)[metric]
      whole = score if whole is None else whole
      if not whole > 0:
        raise errors.InputError(
            "%s: its %s on dev is %.2f with all adapters, so there is nothing "
            "to lose; train it for longer" % (weights, task.main_metric, whole))
      rows.append([first, last, score, sign * 100 * (whole - score) / whole])
      logging.info("%s: %.2f; %d of %d, about %.0f s left",
                   removed_label(first, last, layers), score, len(rows),
                   len(todo), (time.monotonic() - began) / len(rows) *
                   (len(todo) - len(rows)))
  columns = [("first_layer", _INT), ("last_layer", _INT), ("score", _SCORE),
             ("relative_loss", _SCORE)]
  return Numbers(columns, rows, _majority_notes(task, predictions.labels))


def removed_label(first, last, layers):
  """What was removed: "no adapters removed", "layer 3", "layers 2-4"."""
  if first is None:
    return "no adapters removed"
  if (first, last) == (layers[0], layers[-1]) and first != last:
    return "all, layers %d-%d" % (first, last)
  return ("layer %d" % first if first == last else
          "layers %d-%d" % (first, last))


def _majority_notes(task, labels):
  """What always saying the most frequent class scores, as a line of text."""
  if task.is_regression:
    return []
  outputs = np.zeros([len(labels), task.num_labels])
  outputs[:, np.bincount(labels).argmax()] = 1
  scores = glue.compute_metrics(task, labels, outputs)
  return ["always the most frequent class: %.2f" %
          (glue.points_of(task.main_metric) *
           scores["eval_" + task.main_metric])]


def ablation_of_checkpoint(task_checkpoint, data_dir, vocab_file,
                           init_checkpoint=None, force_base=False,
                           batch_size=32):
  """`ablate` of a task checkpoint, on the task's first dev file.

  All settings are those in its run.json.

  Returns: (glue.Task, Numbers).

  Raises: errors.InputError.
  """
  prefix = checkpoints.find(task_checkpoint)
  directory = os.path.dirname(prefix)
  record = checkpoints.read_run_record(directory)
  task, model = training.model_from_record(record, task_checkpoint)
  if not model.tuning.uses_adapters or model.adapter_layers == []:
    raise errors.InputError(
        "%s: was trained with tune=%s and has no adapters to remove; give a "
        "task checkpoint of tune=adapters" % (task_checkpoint, model.tune))
  if not task.dev:
    raise errors.InputError("%s: the task %s has no dev file to score on" %
                            (task_checkpoint, task.display_name))
  where = os.path.join(directory, checkpoints.RUN_RECORD)
  try:
    length = record["schedule"]["max_seq_length"]
    do_lower_case = record["do_lower_case"]
  except KeyError as error:
    raise errors.InputError("%s: has no %s" % (where, error)) from error
  tokenizer = run_classifier.load_tokenizer(
      vocab_file, do_lower_case, init_checkpoint, model.bert_config, where)
  weights = checkpoints.Weights.open(task_checkpoint, init_checkpoint,
                                     force_base)
  with tempfile.TemporaryDirectory() as work_dir:
    records = input_pipeline.prepare(task, task.dev[0], data_dir, tokenizer,
                                     length, work_dir)
    return task, ablate(task, model, records, weights, batch_size,
                        record.get("init_shared_from"))


# ---------------------------------------------------------------- the drawing


def _new_figure(width, height):
  from matplotlib import figure
  # A figure of its own, without pyplot, needs no display and leaves no state.
  return figure.Figure(figsize=(width, height), layout="constrained")


def _panels(names, x_label):
  """A Figure with a panel for each name.

  Returns: (Figure, {name: Axes}).
  """
  n = len(names)
  across = {1: 1, 2: 2, 4: 2}.get(n, 3)
  down = -(-n // across)
  width = 6.4 if n == 1 else 4.4 * across
  drawing = _new_figure(width, 0.7 + (3.8 if n == 1 else 3.2) * down)
  panels = {}
  for i, name in enumerate(names):
    panels[name] = drawing.add_subplot(down, across, i + 1)
    panels[name].set_title(name)
    panels[name].set_xscale("log")
    panels[name].grid(alpha=0.3)
    if i + across >= n:
      panels[name].set_xlabel(x_label)
  return drawing, panels


def _legend_below(drawing, panels, most_across=4):
  """One legend for all panels, where it covers none of them."""
  entries = {}
  for axes in panels:
    for handle, label in zip(*axes.get_legend_handles_labels()):
      entries.setdefault(label, handle)
  drawing.legend(entries.values(), entries.keys(), loc="outside lower center",
                 ncols=min(most_across, len(entries)), frameon=False)


def _with_errors(axes, rows, x_name, **style):
  """A curve of scores with their standard errors, where there are some."""
  bars = [np.nan if row["standard_error"] is None else row["standard_error"]
          for row in rows]
  axes.errorbar([row[x_name] for row in rows], [row["score"] for row in rows],
                yerr=bars, capsize=2.5, markersize=4, linewidth=1.4, **style)


def _metric_label(numbers, task):
  metric = select(numbers, task=task)[0]["metric"]
  return "dev %s%s" % (metric, ", in points" * (glue.points_of(metric) != 1))


def draw_parameters(numbers):
  """Figure 4 of parameter_numbers: a matplotlib Figure."""
  drawing, panels = _panels(distinct(numbers, "task"),
                            "trained parameters (without the head)")
  for task, axes in panels.items():
    for full in select(numbers, task=task, tune="full"):
      axes.axhline(full["score"], linestyle="--", linewidth=1.2, **_FULL)
      error = full["standard_error"] or 0.0
      axes.axhspan(full["score"] - error, full["score"] + error, alpha=0.15,
                   linewidth=0, color=_FULL["color"])
    for tune, style in _SERIES.items():
      rows = select(numbers, task=task, tune=tune)
      if rows:
        _with_errors(axes, rows, "trained_parameters", **style)
    axes.set_ylabel(_metric_label(numbers, task))
  _legend_below(drawing, panels.values())
  return drawing


def draw_percentiles(numbers):
  """Figure 3 of percentile_numbers: a matplotlib Figure."""
  num_tasks = distinct(numbers, "tasks")[0]
  drawing, panels = _panels(
      ["%d tasks" % num_tasks if num_tasks > 1 else "1 task"],
      "trained parameters (without the head)")
  axes, = panels.values()
  axes.axhline(0.0, linestyle="--", linewidth=1.2, **_FULL)
  for tune, style in _SERIES.items():
    rows = select(numbers, tune=tune)
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
  _legend_below(drawing, [axes])
  return drawing


def draw_init_scale(numbers):
  """Figure 6, right, of init_scale_numbers: a matplotlib Figure."""
  drawing, panels = _panels(distinct(numbers, "task"),
                            "standard deviation of the initial weights")
  methods = distinct(numbers, "method")
  for task, axes in panels.items():
    for i, method in enumerate(methods):
      rows = select(numbers, task=task, method=method)
      if rows:
        _with_errors(axes, rows, "adapter_init_scale", color="C%d" % (i + 1),
                     marker="o", label=method)
    axes.set_ylabel(_metric_label(numbers, task))
  _legend_below(drawing, panels.values())
  return drawing


def draw_ablation(numbers, title):
  """Figure 6, left, of `ablate`'s numbers: a matplotlib Figure."""
  from matplotlib import patches
  rows = [row for row in select(numbers) if row["first_layer"] is not None]
  layers = [row["first_layer"] for row in rows
            if row["first_layer"] == row["last_layer"]]
  losses = np.full([len(layers)] * 2, np.nan)
  for row in rows:
    losses[layers.index(row["first_layer"]),
           layers.index(row["last_layer"])] = row["relative_loss"]
  side = 2.0 + 0.5 * max(len(layers), 5)
  drawing = _new_figure(side + 1.2, side)
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


# ----------------------------------------------------- writing and reporting


def numbers_csv(numbers):
  """Numbers as CSV, in full precision: str."""
  output = io.StringIO()
  writer = csv.writer(output, lineterminator="\n")
  writer.writerow([name for name, _ in numbers.columns])
  writer.writerows(numbers.rows)
  return output.getvalue()


def report(numbers, title):
  """Numbers as a table for a reader, with the notes: str."""
  table = count_parameters.Table(
      "", "", title,
      [(name.replace("_", " "), count_parameters.TEXT if form == _TEXT else
        count_parameters.PRINTED) for name, form in numbers.columns],
      [["" if value is None else form.format(value)
        for value, (_, form) in zip(row, numbers.columns)]
       for row in numbers.rows])
  return "\n".join([count_parameters.text(table)] + numbers.notes) + "\n"


def ablation_report(numbers, title):
  """`report`, of no, each single and all layers only: str."""
  single = [row for row in numbers.rows if row[0] == row[1]]  # and none
  layers = [row[0] for row in single[1:]]
  everything = [row for row in numbers.rows
                if row[:2] == [layers[0], layers[-1]] and row not in single]
  rows = [[removed_label(*row[:2], layers)] + row[2:]
          for row in single + everything]
  return report(Numbers([("without_the_adapters_of", _TEXT)] +
                        numbers.columns[2:], rows, numbers.notes), title)


# name: (where it is in the paper, its numbers of a sweep, its drawing).
FIGURES = collections.OrderedDict([
    ("parameters", ("figure 4", parameter_numbers, draw_parameters)),
    ("percentiles", ("figure 3", percentile_numbers, draw_percentiles)),
    ("init_scale", ("figure 6, right", init_scale_numbers, draw_init_scale)),
    ("ablation", ("figure 6, left", None, draw_ablation)),
])
# Flags of the ablation that run_classifier.py has too.
_ABLATION_FLAGS = ("data_dir", "vocab_file", "init_checkpoint", "force_base",
                   "eval_batch_size")


def define_flags(flag_values=FLAGS):
  """Flags of this program, defined only where it is one."""
  flags.DEFINE_enum("figure", None, list(FIGURES), "Which figure: %s." %
                    ", ".join("%s (%s)" % (name, figure[0])
                              for name, figure in FIGURES.items()),
                    flag_values=flag_values)
  for name, description in (
      ("output", "The picture to write, as figure4.png; its numbers are "
       "written beside it, as figure4.csv."),
      ("results", "A sweep's results.csv, for all figures but the ablation."),
      ("task_checkpoint", "The trained model to ablate: a run's task/ or "
       "best/.")):
    flags.DEFINE_string(name, None, description, flag_values=flag_values)
  for name in _ABLATION_FLAGS:
    run_classifier.define_flag(name, flag_values=flag_values)
  flags.mark_flags_as_required(["figure", "output"], flag_values=flag_values)


def _check_flags(flag_values, csv_path):
  """Raises errors.InputError for flags that are missing or do not fit."""
  figure, output = flag_values.figure, flag_values.output
  count_parameters.check_plot(output, "output")
  needed, others = ["results"], ["task_checkpoint"]
  if figure == "ablation":
    needed, others = ["task_checkpoint", "data_dir", "vocab_file"], ["results"]
  for name in needed:
    if not flag_values[name].value:
      raise errors.InputError("figure %s needs --%s" % (figure, name))
  for name in others:
    if flag_values[name].value:
      raise errors.InputError("--%s is not for figure %s, which is drawn from "
                              "--%s" % (name, figure, needed[0]))
  if flag_values.results and (os.path.realpath(csv_path) ==
                              os.path.realpath(flag_values.results)):
    raise errors.InputError(
        "--output=%s: the figure's numbers would be written to %s, which is "
        "the sweep's results; give another name" % (output, csv_path))


def _of_a_sweep(flag_values, numbers_of, title):
  """(Numbers, the report) of a figure of a sweep's results."""
  path = flag_values.results
  numbers = numbers_of(sweep.settings_of(sweep.read_results(path)), path)
  return numbers, report(numbers, title)


def _of_a_model(flag_values, title):
  """(Numbers, the report, what they are of) of the ablation."""
  training.enable_graph_mode()
  task, numbers = ablation_of_checkpoint(
      flag_values.task_checkpoint, flag_values.data_dir, flag_values.vocab_file,
      flag_values.init_checkpoint, flag_values.force_base,
      flag_values.eval_batch_size)
  what = "%s, dev %s" % (task.display_name, task.main_metric)
  return numbers, ablation_report(numbers, "%s: %s" % (title, what)), what


def main(argv, flag_values=FLAGS):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  # Deprecation notes about v1, which is what this is written in.
  tf.logging.set_verbosity(tf.logging.ERROR)
  csv_path = os.path.splitext(flag_values.output)[0] + ".csv"
  _check_flags(flag_values, csv_path)
  in_paper, numbers_of, draw = FIGURES[flag_values.figure]
  title = "%s (%s of the paper)" % (flag_values.figure, in_paper)
  if numbers_of is None:
    numbers, text, what = _of_a_model(flag_values, title)
    drawing = draw(numbers, what)
  else:
    numbers, text = _of_a_sweep(flag_values, numbers_of, title)
    drawing = draw(numbers)
  files.write_atomically(csv_path, numbers_csv(numbers))
  count_parameters.save_plot(drawing, flag_values.output, "output")
  print(text + "written: %s and %s" % (flag_values.output, csv_path))
  return 0


def entry_point():
  """The console command `adapter-bert-figures`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
