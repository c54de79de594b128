"""The GLUE tasks, one row of one table each: files, columns, labels, metrics.

Reads the original .tsv files (Wang et al. 2018, gluebenchmark.com), scores
predictions and writes the files that the GLUE server takes. Builds no graph.

A task of one's own is a JSON file (--task_spec) with the same row:

    {
      "name": "Beer",
      "labels": ["bad", "good"],
      "metrics": ["accuracy", "f1"],
      "columns": {"text_a": 0, "label": 1},
      "header": true,
      "train": "train.tsv",
      "dev": "dev.tsv",
      "test": {"file": "test.tsv", "columns": {"text_a": 1}}
    }

name     Names the task's files; letters, digits, ".", "_" and "-".
labels   The label words as the files have them; a label's id is its place in
         this list. For regression leave it out and give
         "score_range": [lowest, highest], or null for any score.
metrics  The first one decides which of several runs is the best. With labels:
         accuracy (always computed), f1 (two labels; the second one is the
         positive class), matthews. With scores: pearson, spearman,
         mean_squared_error.
columns  Counted from 0: text_a, text_b for sentence pairs (else left out or
         null), label (-1 is the last column).
header   Whether the files' first line is a header.
train, dev, test
         A file under --data_dir, or an object: "file", and for this file
         "columns" and "header" instead of those above, "skip_malformed"
         (train, dev: rows with too few columns are left out and counted,
         else they are an error), "submission" (test: the name of the
         submission file, <name>.tsv if left out). dev and test may be lists of
         objects, which "suffix" then tells apart. A split without a file is
         left out. Test files have no label column, or it is not read.

Files are UTF-8 (a byte order mark is skipped), lines end in "\\n" or "\\r\\n",
columns are separated by tabs, and there is no quoting: '"' is a character.
"""

import dataclasses
import json
import math
import os
import re
from typing import Optional, Tuple

from absl import logging
import numpy as np

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import metrics

_CLASSIFICATION_METRICS = {
    "accuracy": metrics.accuracy,
    "f1": metrics.f1,
    "matthews": metrics.matthews,
}
_REGRESSION_METRICS = {
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "mean_squared_error": metrics.mean_squared_error,
}


def best_of(metric):
  """What picks the best of a metric's values: `max`, or `min` for an error."""
  return min if metric == "mean_squared_error" else max


def points_of(metric):
  """How many points a metric's 1.0 is in tables: 100, or 1 for an error."""
  return 1 if best_of(metric) is min else 100


@dataclasses.dataclass(frozen=True)
class InputExample:
  """One row of a data file.

  guid is "<split name>-<line>", the line counted from 0, a header included.
  label is the word in the file, for regression the score's text, and None in
  a split without labels.
  """
  guid: str
  text_a: str
  text_b: Optional[str] = None
  label: Optional[str] = None


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


# Tasks as JSON.


class _Reader:
  """Takes the values out of one JSON object and refuses what it cannot use."""

  def __init__(self, value, where, what):
    self._where = where
    self._what = what
    if not isinstance(value, dict):
      self.fail("must be an object, found %s" % _shown(value))
    self._value = dict(value)
    self._asked = []

  def fail(self, problem):
    raise errors.InputError(
        "%s: %s %s; the format is described at the top of glue.py"
        % (self._where, self._what, problem))

  def __contains__(self, key):
    return key in self._value

  def take(self, key, check, allowed, **default):
    """Removes and returns a value for which check(value) is true.

    `allowed` says in words what that is. Without default=... it is required.
    """
    self._asked.append(key)
    if key not in self._value and "default" in default:
      return default["default"]
    if key not in self._value:
      self.fail('has no "%s"; it must be %s' % (key, allowed))
    value = self._value.pop(key)
    if not check(value):
      self.fail('has "%s": %s; it must be %s' % (key, _shown(value), allowed))
    return value

  def finish(self):
    """Refuses what nobody asked for: a mistyped key must not go unnoticed."""
    for key in self._value:
      self.fail('has an unknown key "%s"; known are %s'
                % (key, ", ".join(self._asked)))


def _shown(value):
  """A value for an error message, in one line of bounded length."""
  text = repr(value) if isinstance(value, str) else json.dumps(value)
  return text if len(text) <= 80 else text[:77] + "..."


# type() and not isinstance(): to isinstance, true and false are ints.


def _is_index(value):
  return type(value) is int and value >= 0


def _is_label_index(value):
  return type(value) is int and value >= -1


def _is_bool(value):
  return isinstance(value, bool)


def _is_file_name(value):
  return isinstance(value, str) and bool(value) and "\0" not in value


def _is_label_list(value):
  return (isinstance(value, list) and len(value) >= 2 and
          all(isinstance(label, str) and label and
              not re.search(r"[\t\r\n]", label) for label in value) and
          len(set(value)) == len(value))


def _is_score_range(value):
  return value is None or (
      isinstance(value, list) and len(value) == 2 and
      all(type(bound) in (int, float) and math.isfinite(bound)
          for bound in value) and value[0] < value[1])


def task_from_dict(value, where="the task"):
  """Returns the Task that the JSON object `value` describes.

  Args:
    value: dict in the format that the module's docstring describes.
    where: what the errors name, such as the file it came from.

  Raises:
    errors.InputError: an unknown key, a missing one, or a value that is not
      allowed.
  """
  reader = _Reader(value, where, "the task")
  display = reader.take(
      "name", lambda name: isinstance(name, str) and
      re.fullmatch(r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*", name),
      "a name of letters, digits, '.', '_' and '-'")
  labels, score_range = _labels_from(reader)
  known = _CLASSIFICATION_METRICS if labels else _REGRESSION_METRICS
  names = reader.take(
      "metrics",
      lambda names: isinstance(names, list) and names and
      all(isinstance(name, str) and name in known for name in names) and
      len(set(names)) == len(names),
      "a list of some of %s" % ", ".join(known))
  if "f1" in names and len(labels) != 2:
    reader.fail('has the metric f1, which is for two labels, not %d'
                % len(labels))
  columns = reader.take("columns", lambda value: True, "", default=None)
  header = reader.take("header", _is_bool, "true or false",
                       default=None)
  splits = {
      set_type: _splits_from(reader, set_type, columns, header, where, display)
      for set_type in ("train", "dev", "test")}
  reader.finish()
  if not any(splits.values()):
    reader.fail('has no file; give "train", "dev" or "test"')
  return Task(
      name=display.lower(), labels=labels, metrics=tuple(names),
      train=splits["train"][0] if splits["train"] else None,
      dev=splits["dev"], test=splits["test"], score_range=score_range,
      display=display)


def _labels_from(reader):
  """(labels, score_range) of a task: exactly one of them is given."""
  if ("labels" in reader) == ("score_range" in reader):
    reader.fail('must have either "labels" (classes) or "score_range" '
                '(regression), and not both')
  labels = reader.take(
      "labels", _is_label_list,
      "a list of two or more different strings without tabs", default=())
  score_range = reader.take(
      "score_range", _is_score_range,
      "[lowest, highest], two numbers, or null for any score", default=None)
  if score_range is not None:
    score_range = (float(score_range[0]), float(score_range[1]))
  return tuple(labels), score_range


def _splits_from(task_reader, set_type, columns, header, where, display):
  """The tuple of Splits under the key set_type; () if there is none."""
  several = set_type != "train"
  values = task_reader.take(
      set_type,
      lambda value: value is None or _is_file_name(value) or
      isinstance(value, dict) or (several and isinstance(value, list)),
      "a file name, an object%s" % (", or a list of them" if several else ""),
      default=None)
  if values is None:
    return ()
  splits = []
  for value in values if isinstance(values, list) else [values]:
    if isinstance(value, str):
      value = {"file": value}
    split = _split_from(_Reader(value, where, '"%s"' % set_type), set_type,
                        columns, header, where, display)
    if split.suffix in [other.suffix for other in splits]:
      task_reader.fail('has two files under "%s" with the suffix "%s"; give '
                       'each its own "suffix"' % (set_type, split.suffix))
    splits.append(split)
  return tuple(splits)


def _split_from(reader, set_type, columns, header, where, display):
  """One Split; columns and header are those of the task, None if not given."""
  filename = reader.take("file", _is_file_name, "a file name")
  if columns is None or "columns" in reader:
    columns = reader.take("columns", lambda value: True,
                          "an object with text_a, text_b, label")
  if header is None or "header" in reader:
    header = reader.take("header", _is_bool, "true or false")
  suffix = reader.take(
      "suffix", lambda value: isinstance(value, str) and
      re.fullmatch(r"[A-Za-z0-9_-]*", value),
      "letters, digits, '_' and '-'", default="")
  submission, skip_malformed = None, False
  if set_type == "test":
    submission = reader.take(
        "submission", lambda value: _is_file_name(value) and
        os.path.basename(value) == value,
        "a file name without directory", default=display + suffix + ".tsv")
  else:
    skip_malformed = reader.take(
        "skip_malformed", _is_bool, "true or false", default=False)
  reader.finish()
  return Split(
      set_type, filename,
      _columns_from(_Reader(columns, where, '"columns" of "%s"' % set_type),
                    set_type, header),
      suffix=suffix, submission=submission, skip_malformed=skip_malformed)


def _columns_from(reader, set_type, header):
  text_a = reader.take("text_a", _is_index, "a column's number from 0")
  text_b = reader.take("text_b", lambda value: value is None or
                       _is_index(value), "a column's number from 0, or null",
                       default=None)
  allowed = "a column's number from 0, or -1 for the last"
  if set_type == "test":
    # The same columns may serve all three files; test labels are not read.
    reader.take("label", lambda value: value is None or
                _is_label_index(value), allowed, default=None)
    label = None
  else:
    label = reader.take("label", _is_label_index, allowed)
  reader.finish()
  used = [column for column in (text_a, text_b, label) if column is not None]
  if len(set(used)) != len(used):
    reader.fail("names one column twice: text_a %s, text_b %s, label %s"
                % (text_a, text_b, label))
  return Columns(text_a, text_b, label, header)


def load_task_spec(path):
  """Reads a task of the user's own from a JSON file (--task_spec).

  Raises:
    errors.InputError: the file cannot be read, is not JSON or does not
      describe a task.
  """
  return task_from_dict(files.read_json(path), where=path)


def task_to_dict(task):
  """Returns the JSON object from which task_from_dict makes the same task."""

  def columns_to_dict(columns):
    return {key: value for key, value in (
        ("text_a", columns.text_a), ("text_b", columns.text_b),
        ("label", columns.label)) if value is not None}

  def split_to_dict(split):
    value = {"file": split.filename,
             "columns": columns_to_dict(split.columns),
             "header": split.columns.header,
             "suffix": split.suffix}
    if split.set_type == "test":
      value["submission"] = split.submission
    else:
      value["skip_malformed"] = split.skip_malformed
    return value

  value = {"name": task.display_name, "metrics": list(task.metrics)}
  if task.is_regression:
    value["score_range"] = task.score_range and list(task.score_range)
  else:
    value["labels"] = list(task.labels)
  value["train"] = task.train and split_to_dict(task.train)
  value["dev"] = [split_to_dict(split) for split in task.dev]
  value["test"] = [split_to_dict(split) for split in task.test]
  return value


# Labels.


_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def _label_problem(task, label):
  """What is wrong with a label's text, in words; None if nothing is."""
  if not task.is_regression:
    if label in task.labels:
      return None
    return ("label %s is not one of %s's labels (%s)"
            % (_shown(label), task.display_name, ", ".join(task.labels)))
  # Not float() alone: it takes "nan" and "1_0".
  if not _NUMBER.fullmatch(label) or not math.isfinite(float(label)):
    return "score %s is not a number" % _shown(label)
  if task.score_range is None:
    return None
  lowest, highest = task.score_range
  if lowest <= float(label) <= highest:
    return None
  return ("score %s is outside %s's range, %g to %g"
          % (_shown(label), task.display_name, lowest, highest))


def label_id(task, label):
  """Returns a label's id (int), for regression the score (float).

  An example without a label (None) gets 0, which nobody looks at: features
  have a place for it all the same.

  Raises:
    errors.InputError: `label` is none of the task's.
  """
  if label is None:
    return 0.0 if task.is_regression else 0
  problem = _label_problem(task, label)
  if problem:
    raise errors.InputError(problem)
  return float(label) if task.is_regression else task.labels.index(label)


# Reading.


def read_examples(task, split, data_dir):
  """Returns an iterator over the examples of one file, in its order.

  The file is read while the iterator advances and is never in memory as a
  whole. Text is kept as it stands in the file.

  Args:
    task: Task.
    split: Split, one of the task's.
    data_dir: str, the directory of the task's files.

  Returns:
    An iterator of InputExample.

  Raises:
    errors.InputError: at once if the file is missing; from the iterator, with
      file and line number, for a row with too few columns (unless the split
      skips those), an unknown label, a score that is no number or out of
      range, bytes that are not UTF-8; and if the file has no example.
  """
  path = os.path.join(data_dir, split.filename)
  if not os.path.isfile(path):
    raise errors.InputError(
        "%s: no such file; %s's %s examples are read from %s under "
        "--data_dir" % (path, task.display_name, split.name, split.filename))
  return _examples(task, split, path)


def _examples(task, split, path):
  """The generator behind read_examples."""
  columns = split.columns
  examples, skipped, first_skipped = 0, 0, None
  for index, line in enumerate(_lines(path)):
    row = line.split("\t")
    if index == 0 and columns.header:
      _check_header(task, split, path, row)
      continue
    if len(row) < columns.needed:
      if not split.skip_malformed:
        raise errors.InputError(
            "%s:%d: found %d tab-separated column%s, %s's %s file needs %d; "
            "correct or remove the line"
            % (path, index + 1, len(row), "" if len(row) == 1 else "s",
               task.display_name, split.name, columns.needed))
      skipped += 1
      first_skipped = first_skipped or index + 1
      continue
    label = row[columns.label] if split.has_labels else None
    if label is not None:
      problem = _label_problem(task, label)
      if problem:
        raise errors.InputError(
            "%s:%d: %s; it stands in column %d, counted from 0; correct the "
            "line, or the task or --data_dir is the wrong one"
            % (path, index + 1, problem, columns.label % len(row)))
    yield InputExample(
        guid="%s-%d" % (split.name, index),
        text_a=row[columns.text_a],
        text_b=None if columns.text_b is None else row[columns.text_b],
        label=label)
    examples += 1
  if skipped:
    logging.warning(
        "%s: skipped %d malformed row%s (fewer than %d columns), the first "
        "in line %d", path, skipped, "" if skipped == 1 else "s",
        columns.needed, first_skipped)
  if not examples:
    raise errors.InputError(
        "%s: has no examples%s%s; is the download complete?"
        % (path, ", only a header line" if columns.header else "",
           " and %d malformed rows" % skipped if skipped else ""))


def _lines(path):
  """Yields the lines of a UTF-8 file without their ends.

  Only "\\n" ends a line: text from the web holds U+2028, form feeds and the
  like, at which str.splitlines would tear a row apart.
  """
  try:
    with open(path, "rb") as data_file:
      for index, line in enumerate(data_file):
        yield decoded_line(line, index, path)
  except OSError as error:
    raise errors.InputError("cannot read %s: %s"
                            % (path, error.strerror)) from error


def decoded_line(line, index, path):
  """The text of one line of a file, without its end.

  Args:
    line: bytes.
    index: int, the line counted from 0; the first one may have a byte order
      mark.
    path: str, for the message.

  Raises:
    errors.InputError: a byte is not UTF-8.
  """
  if index == 0 and line.startswith(b"\xef\xbb\xbf"):
    line = line[3:]
  if line.endswith(b"\n"):
    line = line[:-1]
  if line.endswith(b"\r"):
    line = line[:-1]
  try:
    return line.decode("utf-8")
  except UnicodeDecodeError as error:
    raise errors.InputError(
        "%s:%d: byte 0x%02x at position %d of the line is not UTF-8; convert "
        "the file to UTF-8"
        % (path, index + 1, error.object[error.start],
           error.start)) from error


def _check_header(task, split, path, row):
  """Refuses a first line that is an example: skipping it would lose it."""
  columns = split.columns
  if split.has_labels and len(row) >= columns.needed and (
      not _label_problem(task, row[columns.label])):
    raise errors.InputError(
        "%s:1: found an example with the label %s where %s's %s file has its "
        "header line; put the header back"
        % (path, _shown(row[columns.label]), task.display_name, split.name))


# Scores and files of predictions.


def _checked_outputs(task, outputs):
  """`outputs` as [n, num_labels], for regression [n]; refuses the rest."""
  outputs = np.asarray(outputs)
  if task.is_regression and outputs.ndim == 2 and outputs.shape[1] == 1:
    outputs = outputs[:, 0]
  expected = [] if task.is_regression else [task.num_labels]
  if outputs.ndim != 1 + len(expected) or list(outputs.shape[1:]) != expected:
    raise ValueError(
        "outputs for %s must have shape %s, found %s"
        % (task.display_name, ["n"] + expected, list(outputs.shape)))
  finite = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
  if not finite.all():
    raise errors.InputError(
        "the model's output for example %d (counted from 0) is not a finite "
        "number; the checkpoint is from a run that diverged: train again with "
        "a smaller --learning_rate" % np.argmin(finite))
  return outputs


def compute_metrics(task, labels, outputs):
  """Scores a model's outputs by the task's metrics.

  Args:
    task: Task.
    labels: [n], what label_id gave.
    outputs: [n, num_labels] floats, probabilities or logits (the largest is
      the prediction); for regression the scores, [n] or [n, 1].

  Returns:
    dict of "eval_<metric>" -> float: the task's metrics, and accuracy for
    every classification task.

  Raises:
    errors.InputError: an output is not finite.
    ValueError: the shapes do not fit.
  """
  outputs = _checked_outputs(task, outputs)
  if task.is_regression:
    names, known, predictions = task.metrics, _REGRESSION_METRICS, outputs
  else:
    names, known = {"accuracy", *task.metrics}, _CLASSIFICATION_METRICS
    predictions = np.argmax(outputs, axis=1)
  return {"eval_" + name: known[name](labels, predictions)
          for name in sorted(names)}


def write_submission(task, split, outputs, path):
  """Writes the file that the GLUE server takes for one test split.

  Rows are numbered from 0 in the order of the test file; predictions are
  label words, scores are clipped to the task's range.

  Args:
    task: Task.
    split: Split, a test split; split.submission is the name the server knows.
    outputs: as in compute_metrics, in the order of the test file.
    path: the file to write; it is replaced in one step.

  Raises:
    errors.InputError: an output is not finite.
    ValueError: the shapes do not fit, or the split is not a test split.
  """
  if split.set_type != "test":
    raise ValueError("a submission is made of test predictions, not of %s's "
                     "%s split" % (task.display_name, split.name))
  outputs = _checked_outputs(task, outputs)
  if not task.is_regression:
    predictions = (task.labels[index] for index in np.argmax(outputs, axis=1))
  else:
    if task.score_range is not None:
      outputs = np.clip(outputs, *task.score_range)
    predictions = (str(score) for score in outputs)
  files.write_atomically(path, _submission_lines(predictions))


def _submission_lines(predictions):
  yield "index\tprediction\n"
  for index, prediction in enumerate(predictions):
    yield "%d\t%s\n" % (index, prediction)


def write_test_results(outputs, path):
  """Writes test_results.tsv: one row of tab-separated numbers per example.

  Args:
    outputs: [n, num_labels] class probabilities, or [n] scores.
    path: the file to write; it is replaced in one step.
  """
  outputs = np.asarray(outputs)
  rows = outputs.reshape(len(outputs), -1)
  # str gives the shortest text that reads back as the same float32.
  files.write_atomically(
      path, ("\t".join(str(number) for number in row) + "\n" for row in rows))
