"""Reads the examples of a task's files.

Files are UTF-8 (a byte order mark is skipped). In a .tsv file lines end in
"\\n" or "\\r\\n", columns are separated by tabs, and there is no quoting: '"' is
a character. In a .jsonl file each line is a JSON object, and its keys are the
names of the columns.

A GLUE task's file is read by its header: either GLUE's own, or any order of
columns with GLUE's names or with the Hugging Face hub's.
"""

import dataclasses
import os
from typing import Dict, Optional

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import tasks

# No row of text is that long; a file without end is one.
_MOST_LINE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class InputExample(object):
  """One row of a data file.

  guid is "<split name>-<line>", the line counted from 0, a header included.
  label is one of the task's, for regression the score's text, and None in a
  split without labels.
  """
  guid: str
  text_a: str
  text_b: Optional[str] = None
  label: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class _Layout(object):
  """Where one file has what, found from its first line.

  label_words: what a label's text stands for, where it is not itself; None in
    it: no label.
  """
  columns: tasks.Columns
  header: bool  # whether that line is a header
  label_words: Dict[str, Optional[str]] = dataclasses.field(
      default_factory=dict)


def path_under(name, data_dir, anywhere, what):
  """The path of a file that a task names.

  A link in data_dir may lead anywhere: who made it is the owner of data_dir, and
  no stranger, as the one who wrote the task may be.

  Args:
    name: str, the file under data_dir.
    data_dir: str; ~ is the home directory.
    anywhere: bool, whether it may lead out of data_dir.
    what: str, for the message: "MRPC's train".

  Raises: errors.InputError if it leads out of data_dir and may not.
  """
  if not anywhere and (os.path.isabs(name) or files.has_scheme(name) or
                       ".." in name.replace("\\", "/").split("/")):
    raise errors.InputError(
        "%s file is %s, which is not under --data_dir; move it there, or allow "
        "it with --task_files_anywhere" % (what, errors.shown(name)))
  if files.has_scheme(name):
    return name
  return os.path.join(os.path.expanduser(data_dir), name)


def data_path(task, split, data_dir):
  """The path of a split's file.

  A GLUE task's file may also be the .jsonl file of the same name.

  Raises: errors.InputError if the name leads out of data_dir and the task may
    not do that, or there is both a .tsv and a .jsonl file.
  """
  path = path_under(split.filename, data_dir, task.files_anywhere,
                    "%s's %s" % (task.display_name, split.name))
  lines_path = path[:-len(".tsv")] + ".jsonl"
  if task.hub and path.endswith(".tsv") and files.is_file(lines_path):
    if files.is_file(path):
      raise errors.InputError(
          "%s and %s are both there, and either could be %s's %s file; move "
          "one of them away"
          % (path, lines_path, task.display_name, split.name))
    return lines_path
  return path


def read_examples(task, split, data_dir):
  """Returns an iterator over the examples of one file, in its order.

  The file is read while the iterator advances and is never in memory as a
  whole. Text is kept as it stands in the file.

  Args:
    task: tasks.Task.
    split: tasks.Split, one of the task's.
    data_dir: str, the directory of the task's files.

  Returns:
    An iterator of InputExample.

  Raises:
    errors.InputError: at once if the file is missing; from the iterator, with
      file and line number, for a header that is not the task's, a row with too
      few columns (unless the split skips those), an unknown label, a score that
      is not a number or out of range, bytes that are not UTF-8; and if the file
      has no example.
  """
  path = data_path(task, split, data_dir)
  files.check_regular(path)
  if not files.is_file(path):
    raise errors.InputError(
        "%s: no such file; %s's %s examples are read from %s under --data_dir"
        % (path, task.display_name, split.name,
           split.filename + (" (or the same name with .jsonl)" if task.hub
                             else "")))
  return _examples(task, split, path)


def _examples(task, split, path):
  """The generator behind read_examples."""
  layout = None
  examples, skipped, first_skipped = 0, 0, None
  for index, row in enumerate(rows_of(path)):
    if layout is None:
      layout = _layout(task, split, path, row)
      if layout.header:
        continue
    problem = _row_problem(layout.columns, row)
    if problem and split.skip_malformed:
      skipped += 1
      first_skipped = first_skipped or index + 1
      continue
    if problem:
      raise errors.InputError(
          "%s:%d: %s, %s's %s file needs %s; correct or remove the line"
          % (path, index + 1, problem, task.display_name, split.name,
             _needed(layout.columns)))
    yield InputExample(
        guid="%s-%d" % (split.name, index),
        text_a=row[layout.columns.text_a],
        text_b=(None if layout.columns.text_b is None else
                row[layout.columns.text_b]),
        label=_label(task, layout, row, "%s:%d" % (path, index + 1)))
    examples += 1
  if skipped:
    logging.warning(
        "%s: skipped %d malformed row%s (without %s), the first in line %d",
        path, skipped, "" if skipped == 1 else "s", _needed(layout.columns),
        first_skipped)
  if not examples:
    raise errors.InputError(
        "%s: has no examples%s%s; is the download complete?"
        % (path, ", only a header line" if layout and layout.header else "",
           " and %d malformed rows" % skipped if skipped else ""))


def _row_problem(columns, row):
  """What a row lacks, in words; None if nothing."""
  if isinstance(row, list):
    if len(row) >= columns.needed:
      return None
    return "found %d tab-separated column%s" % (len(row),
                                                "" if len(row) == 1 else "s")
  for name in columns.used:
    if name not in row:
      return "found no %s among %s" % (errors.shown(name),
                                       errors.shown(", ".join(row)))
    if name != columns.label and not isinstance(row[name], str):
      return "found %s, which is not a text, as %s" % (errors.shown(row[name]),
                                                    errors.shown(name))
  return None


def _needed(columns):
  return (", ".join(columns.used) if columns.are_named else
          "%d columns" % columns.needed)


def _label(task, layout, row, where):
  """The label of a row, None in a split without labels."""
  column = layout.columns.label
  if column is None:
    return None
  found = row[column]
  if not isinstance(found, str):
    # Of a .jsonl file. true is not a number, an object is not a label.
    found = "" if found is None else str(found) if (
        type(found) in (int, float)) else errors.shown(found)
  label = layout.label_words.get(found, found)
  place = (errors.shown(column) if isinstance(column, str) else
           "column %d, counted from 0" % (column % len(row)))
  if label is None:
    raise errors.InputError(
        "%s: has no label (%s in %s), as the hub's test files; give the file "
        "with labels" % (where, errors.shown(found), place))
  problem = tasks.label_problem(task, label)
  if problem:
    raise errors.InputError(
        "%s: %s; it stands in %s; correct the line, or the task or --data_dir "
        "is the wrong one" % (where, problem, place))
  return label


# -------------------------------------------------------------------- layouts


def _layout(task, split, path, first):
  """The _Layout of a file whose first row (list or dict) is given."""
  if task.hub:
    return _glue_layout(task, split, path, first)
  columns = split.columns
  if isinstance(first, dict):
    if not columns.are_named:
      raise errors.InputError(
          "%s: the columns of a .jsonl file have names and no numbers; give "
          'them in "columns" of the task' % path)
    return _Layout(columns, header=False)
  if columns.are_named:
    return _Layout(_counted(columns, first, path), header=True)
  if columns.header:
    _refuse_example(task, split, path, first)
  return _Layout(columns, header=columns.header)


def _counted(columns, header, path):
  """Named columns as places in a .tsv file's header (list of str)."""
  for name in columns.used:
    if header.count(name) != 1:
      raise errors.InputError(
          "%s:1: %s column is called %s; the header is %s; correct it, or "
          '"columns" of the task'
          % (path, "no" if name not in header else "more than one",
             errors.shown(name), errors.shown(", ".join(header))))
  return dataclasses.replace(columns, **{
      role: header.index(getattr(columns, role))
      for role in ("text_a", "text_b", "label")
      if getattr(columns, role) is not None})


def _refuse_example(task, split, path, row):
  """Refuses a first line that is an example: skipping it would lose it."""
  columns = split.columns
  if split.has_labels and len(row) >= columns.needed and (
      not tasks.label_problem(task, row[columns.label])):
    raise errors.InputError(
        "%s:1: found an example with the label %s where %s's %s file has its "
        "header line; put the header back"
        % (path, errors.shown(row[columns.label]), task.display_name,
           split.name))


def _glue_layout(task, split, path, first):
  """The _Layout of a GLUE task's file, by its header or its keys.

  Where the header is exactly GLUE's, a label is a word of GLUE's; elsewhere a
  number in the column "label" is the hub's.
  """
  is_table = isinstance(first, list)
  if is_table and split.header_names and _is_header_of(split, first):
    return _Layout(split.columns, header=True)
  names = list(first)
  for wanted in _known_names(task, split):
    if all(name in names for name in wanted.used):
      words = _hub_words(task) if wanted.label == "label" else {}
      return _Layout(_counted(wanted, names, path) if is_table else wanted,
                     header=is_table, label_words=words)
  if is_table and not split.columns.header:
    return _Layout(split.columns, header=False)
  raise errors.InputError(_header_problem(task, split, path, names, is_table))


def _is_header_of(split, row):
  """Whether a row is the header that GLUE's own file has."""
  names = split.header_names
  if split.columns.label == -1:  # Files of several widths.
    if len(row) < len(names) or row[-1] != names[-1]:
      return False
    names = names[:-1]
  elif "" not in names and len(row) != len(names):
    return False
  return len(row) >= len(names) and all(
      name in ("", cell) for name, cell in zip(names, row))


def _known_names(task, split):
  """The named Columns by which a GLUE task's file may be read.

  GLUE's first; then the hub's. GLUE's labelled files give the names too, so
  that one of them in the test file's place is read right.
  """
  known = []
  for like in (split,) + task.dev[:1] + task.test[:1]:
    if like.header_names and (like.has_labels or not split.has_labels):
      names = like.header_names
      columns = like.columns
      known.append(tasks.Columns(
          names[columns.text_a],
          None if columns.text_b is None else names[columns.text_b],
          names[columns.label] if split.has_labels else None))
  known.append(tasks.Columns(task.hub.text_a, task.hub.text_b,
                             "label" if split.has_labels else None))
  return known


def _hub_words(task):
  """What the hub's labels, as text, stand for."""
  hub = task.hub
  words = {"": None, "-1": None, "-1.0": None}
  words.update(zip(hub.words, hub.labels))
  words.update((label, label) for label in hub.labels)
  words.update((str(place), label) for place, label in enumerate(hub.labels))
  return words


def _header_problem(task, split, path, names, is_table):
  """The line that says how a GLUE task's header is not what it must be."""
  file = "%s's %s file" % (task.display_name, split.name)
  wanted = _known_names(task, split)
  advice = ("give the file as GLUE has it or as the Hugging Face hub has it (%s)"
            % ", ".join(wanted[-1].used))
  shown = errors.shown(", ".join(names))
  if not is_table:
    return "%s:1: has %s, and %s needs %s; %s" % (
        path, shown, file, " or ".join(
            sorted({", ".join(columns.used) for columns in wanted})), advice)
  own = [name for name in split.header_names if name]
  known = {name for columns in wanted for name in columns.used}.union(own)
  if not known.intersection(names):
    return ("%s:1: found %s where %s has its header line (%s); put the header "
            "back, or %s" % (path, shown, file, ", ".join(own), advice))
  place, name = next(
      (column, split.header_names[column]) for column in split.columns.used
      if column >= len(names) or names[column] != split.header_names[column])
  if place == -1:
    place = len(names) - 1
  found = ("there is no column %d (counted from 0)" % place
           if place >= len(names) else
           "column %d (counted from 0) is called %s" % (
               place, errors.shown(names[place])))
  return "%s:1: %s where %s has %s; %s" % (path, found, file,
                                           errors.shown(name), advice)


# ---------------------------------------------------------------------- lines


def rows_of(path):
  """Yields the rows of a file: lists of cells, of a .jsonl file dicts."""
  if not path.endswith(".jsonl"):
    for line in lines_of(path):
      yield line.split("\t")
    return
  for index, line in enumerate(lines_of(path)):
    yield files.parse_json(line, "%s:%d" % (path, index + 1), dict)


def lines_of(path):
  """Yields the lines of a UTF-8 file without their ends.

  Only "\\n" ends a line: text from the web holds U+2028, form feeds and the
  like, at which str.splitlines would tear a row apart.

  Raises: errors.InputError, one line.
  """
  try:
    with files.open_binary(path) as data_file:
      for index, line in enumerate(_limited(data_file, path)):
        if index == 0 and not line.endswith(b"\n") and b"\r" in line[:-1]:
          raise errors.InputError(
              "%s: its lines end in CR alone; convert it, for instance with "
              "tr '\\r' '\\n'" % path)
        yield decoded_line(line, index, path)
  except files.failures() as error:
    raise errors.InputError("cannot read %s: %s"
                            % (path, files.reason_of(error))) from error


def _limited(data_file, path):
  """The lines of an open file; refuses one without end."""
  if files.has_scheme(path):  # TensorFlow's readline takes no limit.
    yield from data_file
    return
  for index, line in enumerate(
      iter(lambda: data_file.readline(_MOST_LINE_BYTES), b"")):
    if len(line) == _MOST_LINE_BYTES:
      raise errors.InputError("%s:%d: the line has more than %d MB; is this a "
                              "text file?" % (path, index + 1,
                                              _MOST_LINE_BYTES >> 20))
    yield line


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
