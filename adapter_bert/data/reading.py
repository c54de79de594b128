"""Reads the examples of a task's files.

Files are UTF-8 (a byte order mark is skipped), lines end in "\\n" or "\\r\\n",
columns are separated by tabs, and there is no quoting: '"' is a character.
"""

import dataclasses
import os
from typing import Optional

from absl import logging

from adapter_bert.base import errors
from adapter_bert.data import tasks


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
      problem = tasks.label_problem(task, label)
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
      not tasks.label_problem(task, row[columns.label])):
    raise errors.InputError(
        "%s:1: found an example with the label %s where %s's %s file has its "
        "header line; put the header back"
        % (path, errors.shown(row[columns.label]), task.display_name, split.name))
