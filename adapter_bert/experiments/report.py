"""The results of a sweep: results.csv, and table.md with the best settings.

The paper's protocol: the settings of a method are those with the best mean over
the seeds on dev, for each task.
"""

import csv
import dataclasses
import io
import json
import math
import os
import statistics

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import tasks
from adapter_bert.experiments import grid
from adapter_bert.experiments import parameters
from adapter_bert.experiments import tables
from adapter_bert.experiments.tables import PERCENT
from adapter_bert.experiments.tables import PRINTED
from adapter_bert.experiments.tables import TEXT
from adapter_bert.experiments.tables import TIMES
from adapter_bert.tuning import Tuning

# Under a sweep's output_dir.
RUNS, CSV_FILE, TABLE_FILE = "runs", "results.csv", "table.md"

# Under a run's directory, and what is in it.
RESULT = "result.json"
_RESULT_SHAPE = {
    "settings": dict, "task": str, "metric": str, "score": float,
    "metrics": dict, "seconds": float,
    # Older sweeps do not say what is stored: it was what was trained.
    "trained": {"parameters": int, "stored": files.Optional(int), "head": int,
                "of_encoder": float, "of_whole": float, "whole": int}}


def finished_results(output_dir):
  """{slug: what is in its result.json} of the finished runs.

  One that is damaged is passed over with a warning: the sweep that its run
  belongs to works it out again.
  """
  runs = os.path.join(output_dir, RUNS)
  results = {}
  for slug in sorted(os.listdir(runs)) if os.path.isdir(runs) else ():
    path = os.path.join(runs, slug, RESULT)
    try:
      result = files.read_json(path, _RESULT_SHAPE, missing_ok=True)
      if result is not None:
        grid.Method.of(result["settings"])  # Raises if there is no such one.
        results[slug] = result
    except errors.InputError as error:
      logging.warning("%s; passing over this run's result", error)
  return results


def write_report(output_dir, results):
  """Writes results.csv and table.md.

  Args:
    output_dir: str.
    results: dict as finished_results returns it.
  """
  files.write_atomically(os.path.join(output_dir, CSV_FILE),
                         results_csv(results))
  files.write_atomically(os.path.join(output_dir, TABLE_FILE),
                         results_tables(results.values()))


def _sort_key(result):
  """Tasks, methods and settings together, seeds in order."""
  settings = result["settings"]
  method = grid.Method.of(settings)
  tunes = list(Tuning.METHODS)
  return (result["task"],
          tunes.index(method.tune) if method.tune in tunes else len(tunes),
          method.tune, method.fresh_pooler, method.has_mlp, method.choice or 0,
          method.prefix_length or 0, method.adapter_layers or "",
          [grid.setting(settings, name) for name in grid.ALWAYS_SHOWN],
          json.dumps(dict(settings, seed=0), sort_keys=True),
          grid.setting(settings, "seed"))


_FIRST_COLUMNS = ("tune", "adapter_size", "top_n_layers", "learning_rate",
                  "num_train_epochs", "adapter_init_scale", "seed")


def results_csv(results):
  """A row for each finished run: str."""
  given = set(name for r in results.values() for name in r["settings"])
  if any(grid.Method.of(r["settings"]).prefix_length for r in results.values()):
    given |= {"prefix_length", "prefix_hidden_size"}
  names = list(_FIRST_COLUMNS) + [
      name for name in grid.SETTINGS
      if name in given and name not in _FIRST_COLUMNS + ("task_name",)]
  metrics = sorted(set(name for r in results.values() for name in r["metrics"]
                       if name.startswith("eval_")))
  output = io.StringIO()
  writer = csv.DictWriter(
      output, ["task", "method"] + names + ["metric", "score"] + metrics +
      ["trained_parameters", "stored_parameters", "trained_percent",
       "trained_percent_of_encoder", "head_parameters", "total_parameters",
       "seconds", "run"],
      restval="", extrasaction="ignore", lineterminator="\n")
  writer.writeheader()
  for slug, r in sorted(results.items(), key=lambda item: _sort_key(item[1])):
    method = grid.Method.of(r["settings"])
    trained = r["trained"]
    row = {name: grid.setting(r["settings"], name) for name in names
           if name not in method.meaningless}
    writer.writerow(dict(
        row, **r["metrics"], task=r["task"], method=method.label,
        metric=r["metric"], score="%.4f" % r["score"],
        trained_parameters=trained["parameters"],
        stored_parameters=_stored(trained),
        trained_percent="%.6f" % (100 * trained["of_whole"]),
        trained_percent_of_encoder="%.6f" % (100 * trained["of_encoder"]),
        head_parameters=trained["head"], total_parameters=trained["whole"],
        seconds=r["seconds"], run=slug))
  return output.getvalue()


def _stored(trained):
  """int: what a task keeps, of the "trained" of a result.json."""
  stored = trained.get("stored")
  return trained["parameters"] if stored is None else stored


def read_results(path):
  """The finished runs in a results.csv: a list of what candidates_of takes.

  Raises: errors.InputError if it cannot be read, or is another file.
  """
  try:
    with files.open_binary(path) as binary:
      text = io.StringIO(binary.read().decode("utf-8"), newline="")
    return [_result_from(row) for row in csv.DictReader(text)]
  except files.failures() as error:
    raise errors.InputError("%s: cannot be read: %s" %
                            (path, files.reason_of(error))) from error
  except KeyError as error:
    raise errors.InputError("%s: has no column %s; give a sweep's %s" %
                            (path, error, CSV_FILE)) from error
  except (ValueError, TypeError) as error:
    raise errors.InputError("%s: cannot be read as a sweep's %s: %s" %
                            (path, CSV_FILE, error)) from error


def _result_from(row):
  """What candidates_of needs of a result.json, from a row of results.csv.

  Raises: KeyError, ValueError or TypeError for another row.
  """
  parse = {bool: lambda text: bool(("False", "True").index(text))}
  settings = {}
  for name in grid.SETTINGS:
    if row.get(name):  # An empty cell is a setting that means nothing there.
      kind = grid.SETTINGS[name].kind
      settings[name] = grid.plain_number(parse.get(kind, kind)(row[name]))
  score = float(row["score"])
  if not math.isfinite(score):
    raise ValueError("the score of a run is %s" % row["score"])
  grid.Method.of(settings)  # Raises if there is none.
  return {
      "settings": settings, "task": row["task"], "metric": row["metric"],
      "score": score,
      "trained": {"parameters": int(row["trained_parameters"]),
                  "stored": int(row.get("stored_parameters") or
                                row["trained_parameters"]),
                  "of_whole": float(row["trained_percent"]) / 100,
                  "whole": int(row["total_parameters"])},
      "seconds": float(row["seconds"]),
  }


@dataclasses.dataclass
class Candidate(object):
  """The runs of one setting, which differ in the seed alone.

  settings: dict without the seed. scores: floats, one for each seed. trained,
  kept: floats, what is trained and what a task keeps of it, as fractions of the
  whole model. parameters, stored: ints, the same in parameters; all without the
  head. seconds: float, the mean of a run.
  """
  task: str
  metric: str
  settings: dict
  scores: list
  trained: float
  kept: float
  parameters: int
  stored: int
  seconds: float

  @property
  def method(self):
    return grid.Method.of(self.settings)

  @property
  def best(self):
    return tasks.best_of(self.metric)(self.scores)

  @property
  def mean(self):
    return statistics.fmean(self.scores)

  @property
  def standard_error(self):
    """Of the mean, from the sample's standard deviation; None for one seed."""
    if len(self.scores) < 2:
      return None
    return statistics.stdev(self.scores) / math.sqrt(len(self.scores))


def candidates_of(results):
  """The results put together by setting: a list of Candidate."""
  groups = {}
  for result in sorted(results, key=_sort_key):
    settings = {name: value for name, value in result["settings"].items()
                if name != "seed" and grid.decides_result(name)}
    key = result["task"] + json.dumps(settings, sort_keys=True)
    groups.setdefault(key, (settings, []))[1].append(result)
  return [_candidate(settings, rs) for settings, rs in groups.values()]


def _candidate(settings, results):
  first, trained = results[0], results[0]["trained"]
  stored = _stored(trained)
  left_out = (trained["parameters"] - stored) / trained["whole"]
  return Candidate(
      task=first["task"], metric=first["metric"], settings=settings,
      scores=[r["score"] for r in results],
      trained=trained["of_whole"], kept=trained["of_whole"] - left_out,
      parameters=trained["parameters"], stored=stored,
      seconds=statistics.fmean(r["seconds"] for r in results))


def choose(candidates):
  """The best Candidate by mean, of those with the most seeds.

  One good seed of a setting that is not done yet is not a reason to choose it.
  """
  most = max(len(candidate.scores) for candidate in candidates)
  return tasks.best_of(candidates[0].metric)(
      (candidate for candidate in candidates if len(candidate.scores) == most),
      key=lambda candidate: candidate.mean)


def methods_of(settings):
  """{label: {task: the Candidate chosen}} of each method, in order.

  Several sizes of adapters, or numbers of layers, get a row more, in which the
  size too is chosen for each task, as in the paper's tables.
  """
  by_family = {}
  for candidate in settings:
    by_family.setdefault(candidate.method.family, []).append(candidate)
  rows = {}
  for family, members in by_family.items():
    variants = {}
    for member in sorted(members, key=lambda m: m.method.choice or 0):
      variants.setdefault(member.method, []).append(member)
    for method, found in variants.items():
      rows[method.label] = _best_by_task(found)
    if len(variants) > 1:
      label = "%s%s, best of %s" % (
          "top-n" if family.tune == "top_n" else family.tune, family.of_family,
          ", ".join(m.variant for m in variants))
      rows[label] = _best_by_task(members)
  return rows


def _best_by_task(candidates):
  by_task = {}
  for candidate in candidates:
    by_task.setdefault(candidate.task, []).append(candidate)
  return {task: choose(found) for task, found in by_task.items()}


NOTE = """\
Scores are those of the dev set, in percent points of the task's main metric. \
Of a method's settings, those with the best mean over the seeds are chosen for \
each task; settings with fewer finished seeds than others are passed over. ± \
and "s.e." are the standard error of that mean, "best" is the best seed.

trained: the parameters trained for a task, without its head, over those of \
the whole model; results.csv has the other convention too, count_parameters \
explains both. total x: what N tasks need (N = %d), in models, if trained like \
the row: 1 + N x trained, and N for full fine-tuning; the MLP that makes a \
prefix is trained and not kept, so it is not in total x. minutes: of a run, \
the mean.
"""


def results_tables(results):
  """What is in table.md: str."""
  settings = candidates_of(results)
  if not settings:
    return "No run has finished yet.\n"
  task_names = sorted(set(one.task for one in settings))
  methods = methods_of(settings)
  same = _same_in_all(settings)
  blocks = [tables.markdown(table) for table in (
      _summary_table(methods, task_names),
      _chosen_table(methods, task_names, same),
      _settings_table(settings, same))]
  if same:
    blocks.append("In all runs: %s." % ", ".join(
        "%s %s" % (grid.short_name(name), grid.shown(value))
        for name, value in same.items()))
  blocks.append(NOTE % len(task_names))
  return "\n\n".join(blocks)


def _same_in_all(settings):
  """The settings that need not be said in every row."""
  return {name: value for name, value in settings[0].settings.items()
          if name not in grid.ALWAYS_SHOWN + grid.IN_A_LABEL and
          all(one.settings.get(name) == value for one in settings)}


def _total_times(chosen, num_tasks):
  """What `num_tasks` tasks need, in models, if trained like these."""
  method = chosen[0].method
  return parameters.total_times(
      parameters.method_of(method.tune, method.choice),
      statistics.fmean(one.kept for one in chosen), num_tasks)


def _summary_table(methods, task_names):
  columns = [("method", TEXT)] + [(task, PRINTED) for task in task_names] + [
      ("average", PRINTED), ("trained", PERCENT), ("total x", TIMES),
      ("minutes", PRINTED)]
  rows = []
  for label, by_task in methods.items():
    chosen = list(by_task.values())
    average = ""
    if len(chosen) == len(task_names):
      average = "%.1f" % statistics.fmean(one.mean for one in chosen)
    scores = [_with_error(by_task.get(task)) for task in task_names]
    rows.append([label] + scores +
                [average, statistics.fmean(one.trained for one in chosen),
                 _total_times(chosen, len(task_names)),
                 "%.1f" % statistics.fmean(one.seconds / 60 for one in chosen)])
  return tables.Table("Methods: mean ± standard error", columns, rows)


def _with_error(chosen):
  if chosen is None:
    return ""
  if chosen.standard_error is None:
    return "%.1f" % chosen.mean
  return "%.1f ± %.1f" % (chosen.mean, chosen.standard_error)


_STATISTICS = [("mean", PRINTED), ("s.e.", PRINTED), ("best", PRINTED),
               ("seeds", PRINTED)]


def _statistics(one):
  error = one.standard_error
  return ["%.2f" % one.mean, "" if error is None else "%.2f" % error,
          "%.2f" % one.best, "%d" % len(one.scores)]


def _chosen_table(methods, task_names, same):
  columns = [("task", TEXT), ("metric", TEXT), ("method", TEXT),
             ("chosen", TEXT)] + _STATISTICS + [
                 ("trained", PERCENT), ("total x", TIMES)]
  rows = []
  for task in task_names:
    for label, by_task in methods.items():
      if task not in by_task:
        continue
      one = by_task[task]
      chosen = grid.described(one.settings, same)
      if label != one.method.label:
        chosen = "%s: %s" % (one.method.label, chosen)
      rows.append([task, one.metric, label, chosen] + _statistics(one) +
                  [one.trained, _total_times([one], len(task_names))])
  return tables.Table(
      "The settings chosen for each task", columns, rows)


def _settings_table(settings, same):
  columns = ([("task", TEXT), ("method", TEXT), ("settings", TEXT)] +
             _STATISTICS)
  rows = [[one.task, one.method.label, grid.described(one.settings, same)] +
          _statistics(one) for one in settings]
  return tables.Table("All settings", columns, rows)
