"""The GLUE tasks, one row of one table each: files, columns, labels, metrics.

The files are the original .tsv files (Wang et al. 2018, gluebenchmark.com). A
task of one's own is the same row, made of a JSON file: task_specs.py.
"""

import dataclasses
import math
import re
from typing import Optional, Tuple

from adapter_bert.base import errors


def best_of(metric):
  """What picks the best of a metric's values: `max`, or `min` for an error."""
  return min if metric == "mean_squared_error" else max


def points_of(metric):
  """How many points a metric's 1.0 is in tables: 100, or 1 for an error."""
  return 1 if best_of(metric) is min else 100


@dataclasses.dataclass(frozen=True)
class Columns:
  """Where a file has what, counted from 0. A label of -1 is the last column."""
  text_a: int
  text_b: Optional[int] = None
  label: Optional[int] = None
  header: bool = True

  @property
  def needed(self):
    """The number of columns that a row must have."""
    last_text = max(self.text_a,
                    -1 if self.text_b is None else self.text_b)
    if self.label is None:
      return last_text + 1
    if self.label == -1:
      return last_text + 2
    return max(last_text, self.label) + 1


@dataclasses.dataclass(frozen=True)
class Split:
  """One file of a task."""
  set_type: str  # "train", "dev" or "test"
  filename: str  # under data_dir
  columns: Columns
  suffix: str = ""  # tells several files of one set_type apart: "_mm"
  submission: Optional[str] = None  # test: the GLUE server's file name
  skip_malformed: bool = False  # skip and count rows with too few columns

  @property
  def name(self):
    return self.set_type + self.suffix

  @property
  def has_labels(self):
    return self.columns.label is not None


@dataclasses.dataclass(frozen=True)
class Task:
  """A row of the table."""
  name: str  # lower case
  labels: Tuple[str, ...]  # a label's id is its index; () for regression
  metrics: Tuple[str, ...]  # the first one selects the best of several runs
  train: Optional[Split] = None
  dev: Tuple[Split, ...] = ()
  test: Tuple[Split, ...] = ()
  score_range: Optional[Tuple[float, float]] = None  # regression; None: any
  display: str = ""  # the name as people write it

  @property
  def is_regression(self):
    return not self.labels

  @property
  def is_pair(self):
    """Whether an example is two texts, in the task's first file."""
    splits = [split for split in (self.train,) + self.dev + self.test if split]
    return splits[0].columns.text_b is not None

  @property
  def num_labels(self):
    """The number of outputs: one per label, 1 for regression."""
    return len(self.labels) or 1

  @property
  def display_name(self):
    return self.display or self.name

  @property
  def main_metric(self):
    return self.metrics[0]


def _row(display, labels, main_metrics, labelled, test, submission,
         labelled_header=True, score_range=None, skip_malformed=False):
  """A row for a task with the usual three files.

  labelled and test are (text_a, text_b, label) and (text_a, text_b).
  """
  columns = Columns(*labelled, header=labelled_header)
  return Task(
      name=display.lower(),
      labels=labels,
      metrics=main_metrics,
      train=Split("train", "train.tsv", columns,
                  skip_malformed=skip_malformed),
      dev=(Split("dev", "dev.tsv", columns, skip_malformed=skip_malformed),),
      test=(Split("test", "test.tsv", Columns(*test), submission=submission),),
      score_range=score_range,
      display=display)


_BINARY = ("0", "1")
_NLI = ("contradiction", "entailment", "neutral")
_ENTAILMENT = ("entailment", "not_entailment")

# The metrics are the official ones. Where there are two, the first is the one
# by which Houlsby et al. 2019 (table 1) report the task: F1 for MRPC and QQP,
# Spearman for STS-B.
_ROWS = (
    _row("CoLA", _BINARY, ("matthews",), (3, None, 1), (1, None), "CoLA.tsv",
         labelled_header=False),
    _row("SST-2", _BINARY, ("accuracy",), (0, None, 1), (1, None),
         "SST-2.tsv"),
    _row("MRPC", _BINARY, ("f1", "accuracy"), (3, 4, 0), (3, 4), "MRPC.tsv"),
    _row("STS-B", (), ("spearman", "pearson"), (7, 8, 9), (7, 8), "STS-B.tsv",
         score_range=(0.0, 5.0)),
    # The published train.tsv has a few rows that are broken in two.
    _row("QQP", _BINARY, ("f1", "accuracy"), (3, 4, 5), (1, 2), "QQP.tsv",
         skip_malformed=True),
    Task(
        name="mnli",
        labels=_NLI,
        metrics=("accuracy",),
        train=Split("train", "train.tsv", Columns(8, 9, -1)),
        dev=(Split("dev", "dev_matched.tsv", Columns(8, 9, -1)),
             Split("dev", "dev_mismatched.tsv", Columns(8, 9, -1),
                   suffix="_mm")),
        test=(Split("test", "test_matched.tsv", Columns(8, 9),
                    submission="MNLI-m.tsv"),
              Split("test", "test_mismatched.tsv", Columns(8, 9),
                    suffix="_mm", submission="MNLI-mm.tsv")),
        display="MNLI"),
    _row("QNLI", _ENTAILMENT, ("accuracy",), (1, 2, 3), (1, 2), "QNLI.tsv"),
    _row("RTE", _ENTAILMENT, ("accuracy",), (1, 2, 3), (1, 2), "RTE.tsv"),
    _row("WNLI", _BINARY, ("accuracy",), (1, 2, 3), (1, 2), "WNLI.tsv"),
    # Predicted with a model trained on MNLI; only the server has the labels.
    Task(
        name="ax",
        labels=_NLI,
        metrics=("matthews",),
        test=(Split("test", "diagnostic.tsv", Columns(1, 2),
                    submission="AX.tsv"),),
        display="AX"),
)

TASKS = {task.name: task for task in _ROWS}


def _bare(name):
  return re.sub(r"[-_ ]", "", name).lower()


def get_task(name):
  """Returns the Task of that name; case, "-" and "_" do not matter.

  Raises:
    errors.InputError: there is no such task.
  """
  for task in TASKS.values():
    if _bare(task.name) == _bare(name):
      return task
  raise errors.InputError(
      "unknown task %r; known are %s; for a task of your own give --task_spec"
      % (name, ", ".join(TASKS)))


# Labels.


_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def label_problem(task, label):
  """What is wrong with a label's text, in words; None if nothing is."""
  if not task.is_regression:
    if label in task.labels:
      return None
    return ("label %s is not one of %s's labels (%s)"
            % (errors.shown(label), task.display_name, ", ".join(task.labels)))
  # Not float() alone: it takes "nan" and "1_0".
  if not _NUMBER.fullmatch(label) or not math.isfinite(float(label)):
    return "score %s is not a number" % errors.shown(label)
  if task.score_range is None:
    return None
  lowest, highest = task.score_range
  if lowest <= float(label) <= highest:
    return None
  return ("score %s is outside %s's range, %g to %g"
          % (errors.shown(label), task.display_name, lowest, highest))


def label_id(task, label):
  """Returns a label's id (int), for regression the score (float).

  An example without a label (None) gets 0, which nobody looks at: features
  have a place for it all the same.

  Raises:
    errors.InputError: `label` is none of the task's.
  """
  if label is None:
    return 0.0 if task.is_regression else 0
  problem = label_problem(task, label)
  if problem:
    raise errors.InputError(problem)
  return float(label) if task.is_regression else task.labels.index(label)
