"""Tables as text, markdown and CSV."""

import csv
import io

from adapter_bert.experiments import tables

TABLE = tables.Table(
    "A title",
    [("method", tables.TEXT), ("trained", tables.COUNT),
     ("of it", tables.PERCENT), ("total", tables.TIMES),
     ("paper", tables.PRINTED)],
    [["adapters, 64", 6444032, 0.0213160, 1.1918, "2.1%"],
     ["none", 0, 0.0, 1.0, None]],
    labels={"table": "t", "model": "some-model"}, notes=["a note"])
OTHER = tables.Table(
    "Other", [("more", tables.COUNT), ("change", tables.CHANGE)],
    [[1.6, 1 / 3]], labels={"table": "u", "model": "m"})


def test_text_is_aligned():
  assert tables.text(TABLE) == """\
A title
method          trained  of it  total  paper
adapters, 64  6,444,032  2.13%  1.19x   2.1%
none                  0  0.00%  1.00x
a note
"""
  assert tables.text(OTHER) == "Other\nmore  change\n   2   +0.33\n"


def test_markdown_columns():
  assert tables.markdown(TABLE) == """\
**A title**

| method       |   trained | of it | total | paper |
| ------------ | --------: | ----: | ----: | ----: |
| adapters, 64 | 6,444,032 | 2.13% | 1.19x |  2.1% |
| none         |         0 | 0.00% | 1.00x |       |"""


def test_csv_is_one_table():
  rows = list(csv.reader(io.StringIO(tables.csv_text([TABLE, OTHER]))))
  assert rows == [
      ["table", "model", "method", "trained", "of it", "total", "paper", "more",
       "change"],
      ["t", "some-model", "adapters, 64", "6444032", "2.131600", "1.191800",
       "2.1", "", ""],
      ["t", "some-model", "none", "0", "0.000000", "1.000000", "", "", ""],
      ["u", "m", "", "", "", "", "", "2", "0.3333333333333333"]]


def test_rows_are_selected_by_value():
  assert tables.select(TABLE, method="none", trained=0) == [
      {"method": "none", "trained": 0, "of it": 0.0, "total": 1.0,
       "paper": None}]
  assert len(tables.select(TABLE)) == 2 and not tables.select(TABLE, trained=1)
  assert tables.distinct(TABLE._replace(rows=TABLE.rows * 2), "method") == [
      "adapters, 64", "none"]
