"""The GLUE tasks, one row of one table each: files, columns, labels, metrics.

The files are the original .tsv files (Wang et al. 2018, gluebenchmark.com). A
task of one's own is the same row, made of a JSON file: task_specs.py.
"""

import dataclasses
import math
import re
from typing import Optional, Tuple, Union

from adapter_bert.base import errors


def best_of(metric):
  """What picks the best of a metric's values: `max`, or `min` for an error."""
  return min if metric == "mean_squared_error" else max


def points_of(metric):
  """How many points a metric's 1.0 is in tables: 100, or 1 for an error."""
  return 1 if best_of(metric) is min else 100


# A column: its place counted from 0, or its name in the header.
Column = Union[int, str]


@dataclasses.dataclass(frozen=True)
class Columns(object):
  """Where a file has what. A label of -1 is the last column."""
  text_a: Column
  text_b: Optional[Column] = None
  label: Optional[Column] = None
  header: bool = True

  @property
  def used(self):
    """The columns that are read, a tuple."""
    return tuple(column for column in (self.text_a, self.text_b, self.label)
                 if column is not None)

  @property
  def are_named(self):
    return any(isinstance(column, str) for column in self.used)

  @property
  def needed(self):
    """The number of columns that a row must have; of counted columns only."""
    last_text = max(self.text_a,
                    -1 if self.text_b is None else self.text_b)
    if self.label is None:
      return last_text + 1
    if self.label == -1:
      return last_text + 2
    return max(last_text, self.label) + 1


@dataclasses.dataclass(frozen=True)
class Split(object):
  """One file of a task."""
  set_type: str  # "train", "dev" or "test"
  filename: str  # under data_dir
  columns: Columns
  suffix: str = ""  # tells several files of one set_type apart: "_mm"
  submission: Optional[str] = None  # test: the GLUE server's file name
  skip_malformed: bool = False  # skip and count rows with too few columns
  # GLUE's: the names in its header, "" for one that does not matter; the label,
  # where it is the last column of files of several widths, is the last name.
  # () if the file has no header, or is not GLUE's.
  header_names: Tuple[str, ...] = ()

  @property
  def name(self):
    return self.set_type + self.suffix

  @property
  def has_labels(self):
    return self.columns.label is not None


@dataclasses.dataclass(frozen=True)
class HubLayout(object):
  """How the Hugging Face hub (the data set nyu-mll/glue) writes a GLUE task.

  Columns with these names, "label" and "idx", in any order. A label is a word
  or its place in `words`; -1 is none.
  """
  text_a: str
  text_b: Optional[str] = None
  words: Tuple[str, ...] = ()  # () for regression
  labels: Tuple[str, ...] = ()  # what GLUE's own files have for the words


@dataclasses.dataclass(frozen=True)
class Task(object):
  """A row of the table."""
  name: str  # lower case
  labels: Tuple[str, ...]  # a label's id is its index; () for regression
  metrics: Tuple[str, ...]  # the first one selects the best of several runs
  train: Optional[Split] = None
  dev: Tuple[Split, ...] = ()
  test: Tuple[Split, ...] = ()
  score_range: Optional[Tuple[float, float]] = None  # regression; None: any
  display: str = ""  # the name as people write it
  hub: Optional[HubLayout] = None  # only GLUE's tasks have one
  # Whether its files may lie outside of data_dir, which a stranger's may not.
  files_anywhere: bool = False

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


def _row(display, labels, main_metrics, labelled, test, hub, train_header,
         test_header="index sentence1 sentence2", score_range=None,
         skip_malformed=False):
  """A row for a task with the usual three files.

  labelled and test are (text_a, text_b, label) and (text_a, text_b), the
  headers are names with spaces between them ("|" where names have spaces);
  train_header None: train and dev have none.
  """
  names = _names(train_header) if train_header else ()
  columns = Columns(*labelled, header=bool(train_header))
  return Task(
      name=display.lower(),
      labels=labels,
      metrics=main_metrics,
      train=Split("train", "train.tsv", columns, header_names=names,
                  skip_malformed=skip_malformed),
      dev=(Split("dev", "dev.tsv", columns, header_names=names,
                 skip_malformed=skip_malformed),),
      test=(Split("test", "test.tsv", Columns(*test),
                  submission=display + ".tsv",
                  header_names=_names(test_header)),),
      score_range=score_range,
      display=display,
      hub=hub)


def _names(header):
  return tuple(header.split("|" if "|" in header else " "))


_BINARY = ("0", "1")
_NLI = ("contradiction", "entailment", "neutral")
_ENTAILMENT = ("entailment", "not_entailment")
_HUB_NLI = HubLayout("premise", "hypothesis",
                     ("entailment", "neutral", "contradiction"),
                     ("entailment", "neutral", "contradiction"))

# Eight columns of parse trees and numbers come first; what lies between the
# sentences and the label differs between train and dev.
_MNLI_TEST = ("",) * 8 + ("sentence1", "sentence2")
_MNLI_LABELLED = _MNLI_TEST + ("gold_label",)


def _mnli_split(set_type, filename, suffix="", submission=None):
  is_test = set_type == "test"
  return Split(set_type, filename, Columns(8, 9, None if is_test else -1),
               suffix=suffix, submission=submission,
               header_names=_MNLI_TEST if is_test else _MNLI_LABELLED)


# The metrics are the official ones. Where there are two, the first is the one
# by which Houlsby et al. 2019 (table 1) report the task: F1 for MRPC and QQP,
# Spearman for STS-B.
_ROWS = (
    _row("CoLA", _BINARY, ("matthews",), (3, None, 1), (1, None),
         HubLayout("sentence", None, ("unacceptable", "acceptable"), _BINARY),
         None, "index sentence"),
    _row("SST-2", _BINARY, ("accuracy",), (0, None, 1), (1, None),
         HubLayout("sentence", None, ("negative", "positive"), _BINARY),
         "sentence label", "index sentence"),
    _row("MRPC", _BINARY, ("f1", "accuracy"), (3, 4, 0), (3, 4),
         HubLayout("sentence1", "sentence2",
                   ("not_equivalent", "equivalent"), _BINARY),
         "Quality|#1 ID|#2 ID|#1 String|#2 String",
         "index|#1 ID|#2 ID|#1 String|#2 String"),
    _row("STS-B", (), ("spearman", "pearson"), (7, 8, 9), (7, 8),
         HubLayout("sentence1", "sentence2"),
         "index genre filename year old_index source1 source2 sentence1 "
         "sentence2 score",
         "index genre filename year old_index source1 source2 sentence1 "
         "sentence2", score_range=(0.0, 5.0)),
    # The published train.tsv has a few rows that are broken in two.
    _row("QQP", _BINARY, ("f1", "accuracy"), (3, 4, 5), (1, 2),
         HubLayout("question1", "question2",
                   ("not_duplicate", "duplicate"), _BINARY),
         "id qid1 qid2 question1 question2 is_duplicate",
         "id question1 question2", skip_malformed=True),
    Task(
        name="mnli",
        labels=_NLI,
        metrics=("accuracy",),
        train=_mnli_split("train", "train.tsv"),
        dev=(_mnli_split("dev", "dev_matched.tsv"),
             _mnli_split("dev", "dev_mismatched.tsv", "_mm")),
        test=(_mnli_split("test", "test_matched.tsv",
                          submission="MNLI-m.tsv"),
              _mnli_split("test", "test_mismatched.tsv", "_mm",
                          submission="MNLI-mm.tsv")),
        display="MNLI",
        hub=_HUB_NLI),
    _row("QNLI", _ENTAILMENT, ("accuracy",), (1, 2, 3), (1, 2),
         HubLayout("question", "sentence", _ENTAILMENT, _ENTAILMENT),
         "index question sentence label", "index question sentence"),
    _row("RTE", _ENTAILMENT, ("accuracy",), (1, 2, 3), (1, 2),
         HubLayout("sentence1", "sentence2", _ENTAILMENT, _ENTAILMENT),
         "index sentence1 sentence2 label"),
    _row("WNLI", _BINARY, ("accuracy",), (1, 2, 3), (1, 2),
         HubLayout("sentence1", "sentence2",
                   ("not_entailment", "entailment"), _BINARY),
         "index sentence1 sentence2 label"),
    # Predicted with a model trained on MNLI; only the server has the labels.
    Task(
        name="ax",
        labels=_NLI,
        metrics=("matthews",),
        test=(Split("test", "diagnostic.tsv", Columns(1, 2),
                    submission="AX.tsv",
                    header_names=_names("index sentence1 sentence2")),),
        display="AX",
        hub=_HUB_NLI),
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
