"""A task of one's own, as JSON (--task_spec): a row like those of tasks.py.

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
columns  text_a, text_b for sentence pairs (else left out or null), label.
         Each is a column's name in the header, or all are counted from 0 (for
         label, -1 is the last column). The columns of .jsonl files have names.
header   Whether the first line of .tsv files is a header. Columns with names
         have one; there it may be left out.
train, dev, test
         A file under --data_dir (.tsv, or .jsonl: one object a line; what leads
         out of data_dir needs --task_files_anywhere),
         or an object: "file", and for this file
         "columns" and "header" instead of those above, "skip_malformed"
         (train, dev: rows with too few columns are left out and counted,
         else they are an error), "submission" (test: the name of the
         submission file, <name>.tsv if left out; it ends in .tsv). dev and
         test may be lists of objects, which "suffix" then tells apart. A split
         without a file is left out. Test files have no label column, or it is
         not read.

reading.py says what the files look like.
"""

import dataclasses
import json
import math
import re

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import scoring
from adapter_bert.data import tasks


class Reader(object):
  """Takes the values out of one JSON object and refuses what it cannot use."""

  def __init__(self, value, where, what,
               described="at the top of task_specs.py"):
    self._where = where
    self._described = described
    self._what = what
    if not isinstance(value, dict):
      self.fail("must be an object, found %s" % errors.shown(value))
    self._value = dict(value)
    self._asked = []

  def fail(self, problem):
    raise errors.InputError(
        "%s: %s %s; the format is described %s"
        % (self._where, self._what, problem, self._described))

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
      self.fail('has "%s": %s; it must be %s'
                % (key, errors.shown(value), allowed))
    return value

  def finish(self):
    """Refuses what nobody asked for: a mistyped key must not go unnoticed."""
    for key in self._value:
      self.fail('has an unknown key %s; known are %s'
                % (json.dumps(key[:60]), ", ".join(self._asked)))


# type() and not isinstance(): to isinstance, true and false are ints.


def _is_column(value):
  return is_text(value) or type(value) is int and value >= 0


def _is_label_column(value):
  return _is_column(value) or value == -1 and type(value) is int


def _is_bool(value):
  return isinstance(value, bool)


TASK_NAME = "a name of letters, digits, '.', '_' and '-'"


def is_task_name(value):
  return isinstance(value, str) and re.fullmatch(
      r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*", value)


def is_text(value):
  """Whether this is a string that a terminal shows as it is."""
  return isinstance(value, str) and bool(value) and not re.search(
      r"[\x00-\x1f\x7f-\x9f]", value)


def _is_submission_name(value):
  """test_results*.tsv are the only .tsv files that a run writes itself."""
  return (is_text(value) and not re.search(r"[/\\:]", value) and
          value.lower().endswith(".tsv") and
          not value.lower().startswith((".", "test_results")))


def _is_label_list(value):
  return (isinstance(value, list) and len(value) >= 2 and
          all(is_text(label) for label in value) and
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
  reader = Reader(value, where, "the task")
  display = reader.take("name", is_task_name, TASK_NAME)
  labels, score_range = _labels_from(reader)
  known = (scoring.CLASSIFICATION_METRICS if labels else
           scoring.REGRESSION_METRICS)
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
  _check_submissions(reader, splits["test"])
  task = tasks.Task(
      name=display.lower(), labels=labels, metrics=tuple(names),
      train=splits["train"][0] if splits["train"] else None,
      dev=splits["dev"], test=splits["test"], score_range=score_range,
      display=display)
  # What says the same as a row of GLUE is that row, its headers included.
  row = tasks.TASKS.get(task.name)
  return row if row and task_to_dict(row) == task_to_dict(task) else task


def _check_submissions(reader, test_splits):
  """Refuses submissions that would overwrite each other."""
  names = [split.submission.lower() for split in test_splits]
  for split in test_splits:
    if names.count(split.submission.lower()) > 1:
      reader.fail('has two files under "test" with the submission %s; give '
                  'each its own "submission"' % errors.shown(split.submission))


def _labels_from(reader):
  """(labels, score_range) of a task: exactly one of them is given."""
  if ("labels" in reader) == ("score_range" in reader):
    reader.fail('must have either "labels" (classes) or "score_range" '
                '(regression), and not both')
  labels = reader.take(
      "labels", _is_label_list,
      "a list of two or more different strings without tabs or other control "
      "characters", default=())
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
      lambda value: value is None or is_text(value) or
      isinstance(value, dict) or (several and isinstance(value, list)),
      "a file name, an object%s" % (", or a list of them" if several else ""),
      default=None)
  if values is None:
    return ()
  splits = []
  for value in values if isinstance(values, list) else [values]:
    if isinstance(value, str):
      value = {"file": value}
    split = _split_from(Reader(value, where, '"%s"' % set_type), set_type,
                        columns, header, where, display)
    if split.suffix in [other.suffix for other in splits]:
      task_reader.fail('has two files under "%s" with the suffix "%s"; give '
                       'each its own "suffix"' % (set_type, split.suffix))
    splits.append(split)
  return tuple(splits)


def _split_from(reader, set_type, columns, header, where, display):
  """One Split; columns and header are those of the task, None if not given."""
  filename = reader.take("file", is_text, "a file name")
  if columns is None or "columns" in reader:
    columns = reader.take("columns", lambda value: True,
                          "an object with text_a, text_b, label")
  columns = _columns_from(
      Reader(columns, where, '"columns" of "%s"' % set_type), set_type)
  if filename.endswith(".jsonl") and not columns.are_named:
    reader.fail("has the .jsonl file %s and counts its columns; give their "
                "names" % errors.shown(filename))
  if "header" in reader or header is None and not columns.are_named:
    header = reader.take("header", _is_bool, "true or false")
  if header is False and columns.are_named and not filename.endswith(".jsonl"):
    reader.fail('names its columns and has "header": false; count the columns '
                'or set "header" to true')
  suffix = reader.take(
      "suffix", lambda value: isinstance(value, str) and
      re.fullmatch(r"[A-Za-z0-9_-]*", value),
      "letters, digits, '_' and '-'", default="")
  submission, skip_malformed = None, False
  if set_type == "test":
    submission = reader.take(
        "submission", _is_submission_name,
        "a file name without directory that ends in .tsv and is none of the "
        "run's own files (test_results...)", default=display + suffix + ".tsv")
    if not _is_submission_name(submission):
      reader.fail("would be written to %s, which is one of the run's own files; "
                  'give another "submission"' % errors.shown(submission))
  else:
    skip_malformed = reader.take(
        "skip_malformed", _is_bool, "true or false", default=False)
  reader.finish()
  columns = dataclasses.replace(columns, header=header is not False)
  return tasks.Split(set_type, filename, columns, suffix=suffix,
                     submission=submission, skip_malformed=skip_malformed)


def _columns_from(reader, set_type):
  """The Columns that an object describes."""
  allowed = "a column's number from 0, or its name"
  text_a = reader.take("text_a", _is_column, allowed)
  text_b = reader.take("text_b", lambda value: value is None or
                       _is_column(value), allowed + ", or null", default=None)
  allowed += "; -1 is the last"
  if set_type == "test":
    # The same columns may serve all three files; test labels are not read.
    reader.take("label", lambda value: value is None or
                _is_label_column(value), allowed, default=None)
    label = None
  else:
    label = reader.take("label", _is_label_column, allowed)
  reader.finish()
  columns = tasks.Columns(text_a, text_b, label)
  if len(set(columns.used)) != len(columns.used):
    reader.fail("names one column twice: text_a %s, text_b %s, label %s"
                % (text_a, text_b, label))
  if len({type(column) for column in columns.used}) != 1:
    reader.fail("has columns with names and columns with numbers; give all of "
                "them names, or numbers")
  return columns


def load_task_spec(path, files_anywhere=False):
  """Reads a task of the user's own from a JSON file (--task_spec).

  Args:
    path: str.
    files_anywhere: bool, whether its files may lie outside of data_dir.

  Raises:
    errors.InputError: the file cannot be read, is not JSON or does not
      describe a task.
  """
  return dataclasses.replace(task_from_dict(files.read_json(path), where=path),
                             files_anywhere=files_anywhere)


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
