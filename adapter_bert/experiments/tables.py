"""Tables: for a reader as text and markdown, for a program as CSV."""

import collections
import csv
import io

# How the values of a column are written. shown: the format for a reader;
# written: a function that gives a plain number, or the text, for a program;
# is_text: whether the column is aligned to the left.
Kind = collections.namedtuple("Kind", "shown written is_text",
                              defaults=(False,))

TEXT = Kind("{}", str, True)
COUNT = Kind("{:,.0f}", lambda count: "%d" % round(count))
PERCENT = Kind("{:.2%}", lambda fraction: "%.6f" % (100 * fraction))
TIMES = Kind("{:.2f}x", lambda times: "%.6f" % times)  # of a model

# A figure that stands already as it is to be read, such as "1.2x".
PRINTED = Kind("{}", lambda text: text.rstrip("%x"))

# In full precision for a program.
INT = Kind("{:d}", str)
NUMBER = Kind("{:g}", str)
SCORE = Kind("{:.2f}", str)
CHANGE = Kind("{:+.2f}", str)

# title: str. columns: list of (name, Kind). rows: list of lists of values, None
# where there is none. labels: dict of what CSV says in front of each row.
# notes: list of lines below the table.
Table = collections.namedtuple("Table", "title columns rows labels notes",
                               defaults=({}, ()))


def text(table):
  """A Table as text, under its title, with its notes and a last line end."""
  lines = [table.title, _aligned(table, "", "  ", "")] + list(table.notes)
  return "\n".join(lines) + "\n"


def markdown(table):
  """A Table in markdown, under its title and without a line end."""
  return "**%s**\n\n%s" % (table.title, _aligned(table, "| ", " | ", " |"))


def csv_text(tables):
  """Tables as one rectangular CSV.

  Its columns are the labels, then every column of any of the tables; a cell is
  empty where a row has none. Percentages and multiples are plain numbers.
  """
  header = list(tables[0].labels)
  for table in tables:
    header += [name for name, _ in table.columns if name not in header]
  output = io.StringIO()
  writer = csv.DictWriter(output, header, restval="", lineterminator="\n")
  writer.writeheader()
  for table in tables:
    for row in table.rows:
      writer.writerow(dict(table.labels, **{
          name: "" if value is None else kind.written(value)
          for (name, kind), value in zip(table.columns, row)}))
  return output.getvalue()


def _aligned(table, left, between, right):
  """The table with its columns padded; a markdown rule if there are edges."""
  lines = [[name for name, _ in table.columns]]
  lines += [["" if value is None else kind.shown.format(value)
             for (_, kind), value in zip(table.columns, row)]
            for row in table.rows]
  widths = [max(len(cell) for cell in column) for column in zip(*lines)]
  is_text = [kind.is_text for _, kind in table.columns]
  if left:
    lines.insert(1, ["-" * w if is_left else "-" * (w - 1) + ":"
                     for w, is_left in zip(widths, is_text)])
  padded = [[cell.ljust(w) if is_left else cell.rjust(w)
             for cell, w, is_left in zip(line, widths, is_text)]
            for line in lines]
  return "\n".join((left + between.join(line) + right).rstrip()
                   for line in padded)


def select(table, **values):
  """The rows with these values, as dicts of column name to value."""
  names = [name for name, _ in table.columns]
  rows = [dict(zip(names, row)) for row in table.rows]
  return [row for row in rows
          if all(row[name] == value for name, value in values.items())]


def distinct(table, name):
  """The values in a column, each once, in order."""
  return list(dict.fromkeys(row[name] for row in select(table)))
