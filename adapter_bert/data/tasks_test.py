"""What tasks, task_specs, reading and scoring promise.

Real GLUE files are read where GLUE_DIR is set, the reference's examples where
ADAPTER_BERT_GOLDEN is set too; the layouts of the other tasks, and everything
that can be wrong with a file, are shown on small files written here.
"""

import copy
import json
import os
import subprocess
import sys

from absl import logging
import numpy as np
import pytest

from adapter_bert.base import errors
from adapter_bert import test_util
from adapter_bert.data import reading
from adapter_bert.data import scoring
from adapter_bert.data import task_specs
from adapter_bert.data import tasks


def _write(directory, name, *lines):
  """Writes lines (str without ends) as a UTF-8 file; returns its path."""
  path = directory / name
  path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8"))
  return str(path)


def _row(width, **cells):
  """A tab-separated row: _row(3, c1="x") is "-\\tx\\t-"."""
  return "\t".join(cells.get("c%d" % column, "-") for column in range(width))


def _read(task, split, directory):
  return list(reading.read_examples(task, split, str(directory)))


def _error(task, split, directory):
  with pytest.raises(errors.InputError) as error:
    _read(task, split, directory)
  assert "\n" not in str(error.value)
  return str(error.value)


# The table.


def test_all_of_glue_is_there():
  assert list(tasks.TASKS) == ["cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli",
                              "qnli", "rte", "wnli", "ax"]
  for name, task in tasks.TASKS.items():
    assert task.name == name == task.display_name.lower()


@pytest.mark.parametrize("name, labels, metrics", [
    ("cola", ("0", "1"), ("matthews",)),
    ("sst-2", ("0", "1"), ("accuracy",)),
    ("mrpc", ("0", "1"), ("f1", "accuracy")),
    ("sts-b", (), ("spearman", "pearson")),
    ("qqp", ("0", "1"), ("f1", "accuracy")),
    ("mnli", ("contradiction", "entailment", "neutral"), ("accuracy",)),
    ("qnli", ("entailment", "not_entailment"), ("accuracy",)),
    ("rte", ("entailment", "not_entailment"), ("accuracy",)),
    ("wnli", ("0", "1"), ("accuracy",)),
    ("ax", ("contradiction", "entailment", "neutral"), ("matthews",)),
])
def test_labels_and_metrics(name, labels, metrics):
  task = tasks.get_task(name)
  assert task.labels == labels
  assert task.metrics == metrics
  assert task.main_metric == metrics[0]
  assert task.is_regression == (name == "sts-b")
  assert task.num_labels == (1 if name == "sts-b" else len(labels))
  assert task.score_range == ((0.0, 5.0) if name == "sts-b" else None)


def test_submission_names():
  assert sorted(split.submission for task in tasks.TASKS.values()
                for split in task.test) == [
                    "AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv",
                    "MRPC.tsv", "QNLI.tsv", "QQP.tsv", "RTE.tsv", "SST-2.tsv",
                    "STS-B.tsv", "WNLI.tsv"]


@pytest.mark.parametrize("name, expected", [
    ("CoLA", "cola"), ("sst2", "sst-2"), ("SST-2", "sst-2"),
    ("STSB", "sts-b"), ("sts_b", "sts-b"), ("MNLI", "mnli"), ("aX", "ax")])
def test_task_names(name, expected):
  assert tasks.get_task(name).name == expected


def test_unknown_task_lists_the_known():
  with pytest.raises(errors.InputError,
                     match="unknown task 'snli'; known are cola, sst-2, .*ax"):
    tasks.get_task("snli")


def test_import_does_not_load_tensorflow():
  subprocess.run(
      [sys.executable, "-c", "import sys, tokenization\n"
                             "from adapter_bert.data import reading\n"
                             "assert 'tensorflow' not in sys.modules"],
      cwd=test_util.ROOT, check=True)


# The layouts. For each: rows of the labelled file, of the test file, and the
# example (text_a, text_b, label) that they hold; "-" is what nobody reads.

_LAYOUTS = {
    "cola": ([_row(4, c1="1", c3="A")], ["h\th", _row(2, c1="A")],
             ("A", None, "1")),
    "sst-2": (["h\th", _row(2, c0="A", c1="0")], ["h\th", _row(2, c1="A")],
              ("A", None, "0")),
    "mrpc": (["\ufeffh", _row(5, c0="1", c3="A", c4="B")],
             ["h", _row(5, c3="A", c4="B")], ("A", "B", "1")),
    "sts-b": (["h", _row(10, c7="A", c8="B", c9="3.800")],
              ["h", _row(9, c7="A", c8="B")], ("A", "B", "3.800")),
    "qqp": (["h", _row(6, c3="A", c4="B", c5="1")],
            ["h", _row(3, c1="A", c2="B")], ("A", "B", "1")),
    # The label is the last column: the 12th in train, the 16th in dev.
    "mnli": (["h", _row(12, c8="A", c9="B", c11="neutral")],
             ["h", _row(10, c8="A", c9="B")], ("A", "B", "neutral")),
    "qnli": (["h", _row(4, c1="A", c2="B", c3="entailment")],
             ["h", _row(3, c1="A", c2="B")], ("A", "B", "entailment")),
    "rte": (["h", _row(4, c1="A", c2="B", c3="not_entailment")],
            ["h", _row(3, c1="A", c2="B")], ("A", "B", "not_entailment")),
    "wnli": (["h", _row(4, c1="A", c2="B", c3="0")],
             ["h", _row(3, c1="A", c2="B")], ("A", "B", "0")),
}


@pytest.mark.parametrize("name", _LAYOUTS)
def test_layout(tmp_path, name):
  task = tasks.get_task(name)
  labelled, unlabelled, (text_a, text_b, label) = _LAYOUTS[name]
  line = 0 if name == "cola" else 1
  for split in (task.train,) + task.dev:
    _write(tmp_path, split.filename, *labelled)
    assert split.has_labels
    assert _read(task, split, tmp_path) == [reading.InputExample(
        "%s-%d" % (split.name, line), text_a, text_b, label)]
  for split in task.test:
    _write(tmp_path, split.filename, *unlabelled)
    assert not split.has_labels
    assert _read(task, split, tmp_path) == [
        reading.InputExample(split.name + "-1", text_a, text_b)]


def test_mnli_has_two_dev_and_test_files(tmp_path):
  task = tasks.get_task("mnli")
  assert [(split.filename, split.suffix) for split in task.dev + task.test] == [
      ("dev_matched.tsv", ""), ("dev_mismatched.tsv", "_mm"),
      ("test_matched.tsv", ""), ("test_mismatched.tsv", "_mm")]
  # Dev files carry the five annotators' labels before the gold one.
  _write(tmp_path, "dev_mismatched.tsv", "h",
         _row(16, c8="A", c9="B", c10="neutral", c15="entailment"))
  assert _read(task, task.dev[1], tmp_path) == [
      reading.InputExample("dev_mm-1", "A", "B", "entailment")]


def test_ax_is_for_prediction_only(tmp_path):
  task = tasks.get_task("ax")
  assert task.train is None and not task.dev
  assert task.labels == tasks.get_task("mnli").labels
  _write(tmp_path, "diagnostic.tsv", "index\tsentence1\tsentence2",
         "0\tThe cat sat.\tThe cat did not sit.")
  assert _read(task, task.test[0], tmp_path) == [
      reading.InputExample("test-1", "The cat sat.", "The cat did not sit.")]


# Real files.


@pytest.mark.parametrize("name, train, dev, test", [
    ("CoLA", 8551, 1043, 1063), ("SST-2", 67349, 872, 1821),
    ("MRPC", 3668, 408, 1725), ("STS-B", 5749, 1500, 1379)])
def test_real_files(name, train, dev, test):
  glue_dir = os.environ.get("GLUE_DIR")
  if not glue_dir:
    pytest.skip("set GLUE_DIR to run this")
  directory = os.path.join(glue_dir, name)
  if not os.path.isdir(directory):
    pytest.skip("%s is not there" % directory)
  task = tasks.get_task(name)
  for split, count in ((task.train, train), (task.dev[0], dev),
                       (task.test[0], test)):
    examples = _read(task, split, directory)
    assert len(examples) == count
    assert len({example.guid for example in examples}) == count
    for example in examples:
      assert example.text_a.strip()
      assert (example.label is not None) == split.has_labels
      tasks.label_id(task, example.label)


@pytest.mark.parametrize("name, filename", [
    ("CoLA", "features_cola_16.json"), ("MRPC", "features_mrpc_128.json"),
    ("MRPC", "features_mrpc_24.json")])
def test_golden_examples(name, filename):
  golden_dir = os.environ.get("ADAPTER_BERT_GOLDEN")
  glue_dir = os.environ.get("GLUE_DIR")
  if not golden_dir or not glue_dir:
    pytest.skip("set ADAPTER_BERT_GOLDEN and GLUE_DIR to run this")
  with open(os.path.join(golden_dir, filename), encoding="utf-8") as golden:
    cases = json.load(golden)
  task = tasks.get_task(name)
  examples = {example.guid: example for example in _read(
      task, task.dev[0], os.path.join(glue_dir, name))}
  for case in cases:
    assert examples[case["guid"]] == reading.InputExample(
        case["guid"], case["text_a"], case["text_b"], case["label"])
    assert tasks.label_id(task, case["label"]) == case["label_id"]


# Reading, in detail.

_SST = tasks.get_task("sst-2")
_STS = tasks.get_task("sts-b")


def test_quotes_are_characters(tmp_path):
  _write(tmp_path, "dev.tsv", "h\th", '"open\t1', 'a "b" ""\t0')
  assert [(example.text_a, example.label)
          for example in _read(_SST, _SST.dev[0], tmp_path)] == [
              ('"open', "1"), ('a "b" ""', "0")]


def test_only_newline_ends_a_line(tmp_path):
  text = "a\u2028b\u2029c\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\rj "
  _write(tmp_path, "dev.tsv", "h\th", text + "\t1")
  (example,) = _read(_SST, _SST.dev[0], tmp_path)
  assert example.text_a == text


def test_carriage_returns_byte_order_mark_and_missing_last_newline(tmp_path):
  (tmp_path / "dev.tsv").write_bytes(
      b"\xef\xbb\xbfsentence\tlabel\r\ngood\t1\r\nbad\t0")
  assert [(example.guid, example.text_a, example.label)
          for example in _read(_SST, _SST.dev[0], tmp_path)] == [
              ("dev-1", "good", "1"), ("dev-2", "bad", "0")]


def test_byte_order_mark_without_a_header_is_not_text(tmp_path):
  cola = tasks.get_task("cola")
  _write(tmp_path, "dev.tsv", "\ufeffx\t1\t\tHe left.")
  task = task_specs.task_from_dict(
      {"name": "t", "labels": ["0", "1"], "metrics": ["accuracy"],
       "columns": {"text_a": 0, "label": 1}, "header": False,
       "dev": "dev.tsv"})
  assert _read(cola, cola.dev[0], tmp_path)[0].guid == "dev-0"
  assert _read(task, task.dev[0], tmp_path)[0].text_a == "x"


def test_reading_streams(tmp_path):
  """An example arrives before the rest of the file has been looked at."""
  _write(tmp_path, "dev.tsv", "h\th", "fine\t1", "not fine\t7")
  examples = reading.read_examples(_SST, _SST.dev[0], str(tmp_path))
  assert next(examples).text_a == "fine"
  with pytest.raises(errors.InputError):
    next(examples)


# Bad files.


def test_missing_file_is_found_at_once(tmp_path):
  with pytest.raises(errors.InputError) as error:
    reading.read_examples(_SST, _SST.train, str(tmp_path))
  assert str(error.value) == (
      "%s: no such file; SST-2's train examples are read from train.tsv under "
      "--data_dir" % (tmp_path / "train.tsv"))


@pytest.mark.parametrize("line, problem", [
    ("no tab", "found 1 tab-separated column, SST-2's dev file needs 2; "
               "correct or remove the line"),
    ("", "found 1 tab-separated column, SST-2's dev file needs 2; "
         "correct or remove the line"),
    ("text\t2", "label '2' is not one of SST-2's labels (0, 1); it stands in "
                "column 1, counted from 0; correct the line, or the task or "
                "--data_dir is the wrong one"),
    ("text\t1 ", "label '1 ' is not one of SST-2's labels (0, 1); it stands "
                 "in column 1, counted from 0; correct the line, or the task "
                 "or --data_dir is the wrong one"),
])
def test_bad_row(tmp_path, line, problem):
  path = _write(tmp_path, "dev.tsv", "h\th", "fine\t1", line, "fine\t0")
  assert _error(_SST, _SST.dev[0], tmp_path) == "%s:3: %s" % (path, problem)


@pytest.mark.parametrize("score, problem", [
    ("5.001", "score '5.001' is outside STS-B's range, 0 to 5"),
    ("-0.1", "score '-0.1' is outside STS-B's range, 0 to 5"),
    ("high", "score 'high' is not a number"),
    ("", "score '' is not a number"),
    ("nan", "score 'nan' is not a number"),
    ("1_0", "score '1_0' is not a number"),
    ("1e999", "score '1e999' is not a number"),
])
def test_bad_score(tmp_path, score, problem):
  path = _write(tmp_path, "train.tsv", "h", _row(10, c9="0.000"),
                _row(10, c9="5"), _row(10, c9=score))
  assert _error(_STS, _STS.train, tmp_path).startswith(
      "%s:4: %s; it stands in column 9," % (path, problem))


def test_long_label_is_cut(tmp_path):
  _write(tmp_path, "dev.tsv", "h\th", "text\t" + "x" * 5000)
  assert len(_error(_SST, _SST.dev[0], tmp_path)) < 500


def test_mnli_row_without_its_label(tmp_path):
  task = tasks.get_task("mnli")
  path = _write(tmp_path, "train.tsv", "h", _row(10, c8="A", c9="B"))
  assert _error(task, task.train, tmp_path).startswith(
      "%s:2: found 10 tab-separated columns, MNLI's train file needs 11"
      % path)


def test_bytes_that_are_not_utf8(tmp_path):
  path = tmp_path / "dev.tsv"
  path.write_bytes(b"h\th\nfine\t1\ncaf\xe9\t0\n")
  assert _error(_SST, _SST.dev[0], tmp_path) == (
      "%s:3: byte 0xe9 at position 3 of the line is not UTF-8; convert the "
      "file to UTF-8" % path)


@pytest.mark.parametrize("lines, problem", [
    ((), "has no examples, only a header line; is the download complete?"),
    (("sentence\tlabel",),
     "has no examples, only a header line; is the download complete?")])
def test_empty_data_set(tmp_path, lines, problem):
  path = _write(tmp_path, "dev.tsv", *lines)
  assert _error(_SST, _SST.dev[0], tmp_path) == "%s: %s" % (path, problem)


def test_example_in_the_header_s_place(tmp_path):
  path = _write(tmp_path, "train.tsv", "fine\t1", "bad\t0")
  assert _error(_SST, _SST.train, tmp_path) == (
      "%s:1: found an example with the label '1' where SST-2's train file has "
      "its header line; put the header back" % path)


def test_header_where_there_is_none(tmp_path):
  task = tasks.get_task("cola")
  path = _write(tmp_path, "dev.tsv", "source\tlabel\tmark\tsentence")
  assert _error(task, task.dev[0], tmp_path).startswith(
      "%s:1: label 'label' is not one of CoLA's labels (0, 1)" % path)


_QQP = tasks.get_task("qqp")
_QQP_LINES = ("h", _row(6, c3="A", c4="B", c5="1"), "torn\tin", "two",
              _row(6, c3="C", c4="D", c5="0"))


@pytest.mark.parametrize("split", [_QQP.train, _QQP.dev[0]])
def test_qqp_malformed_rows_are_skipped_and_counted(
    tmp_path, monkeypatch, split):
  logged = []
  monkeypatch.setattr(logging, "warning",
                      lambda text, *args: logged.append(text % args))
  path = _write(tmp_path, split.filename, *_QQP_LINES)
  assert [(example.guid, example.text_a)
          for example in _read(_QQP, split, tmp_path)] == [
              (split.name + "-1", "A"), (split.name + "-4", "C")]
  assert logged == ["%s: skipped 2 malformed rows (fewer than 6 columns), the "
                    "first in line 3" % path]


def test_qqp_unknown_label_is_not_skipped(tmp_path):
  path = _write(tmp_path, "train.tsv", "h", _row(6, c5="yes"))
  assert _error(_QQP, _QQP.train, tmp_path).startswith(
      "%s:2: label 'yes' is not" % path)


def test_qqp_malformed_row_in_test_is_an_error(tmp_path):
  path = _write(tmp_path, "test.tsv", "h", _row(3), "torn\tin")
  assert _error(_QQP, _QQP.test[0], tmp_path).startswith(
      "%s:3: found 2 tab-separated columns, QQP's test file needs 3" % path)


def test_qqp_with_nothing_but_malformed_rows(tmp_path):
  path = _write(tmp_path, "train.tsv", "h", "a\tb", "c")
  assert _error(_QQP, _QQP.train, tmp_path).startswith(
      "%s: has no examples" % path)
  assert "2 malformed rows" in _error(_QQP, _QQP.train, tmp_path)


# Labels and scores.


def test_label_id():
  assert tasks.label_id(tasks.get_task("mnli"), "neutral") == 2
  score = tasks.label_id(_STS, "3.800")
  assert score == 3.8 and isinstance(score, float)
  assert tasks.label_id(_SST, None) == 0
  assert tasks.label_id(_STS, None) == 0.0
  with pytest.raises(errors.InputError, match="label 'x' is not one of"):
    tasks.label_id(_SST, "x")
  with pytest.raises(errors.InputError, match="score '9' is outside"):
    tasks.label_id(_STS, "9")


def test_compute_metrics_of_classes():
  # Predicted 1, 1, 0, 0 for labels 1, 0, 0, 0.
  outputs = np.array([[.1, .9], [.2, .8], [.7, .3], [3., -3.]], np.float32)
  labels = [1, 0, 0, 0]
  assert scoring.compute_metrics(_SST, labels, outputs) == {
      "eval_accuracy": 0.75}
  assert scoring.compute_metrics(tasks.get_task("mrpc"), labels, outputs) == {
      "eval_accuracy": 0.75, "eval_f1": pytest.approx(2 / 3)}
  # (1 * 2 - 1 * 0) / sqrt(2 * 1 * 3 * 2); accuracy comes with every task.
  assert scoring.compute_metrics(tasks.get_task("cola"), labels, outputs) == {
      "eval_accuracy": 0.75, "eval_matthews": pytest.approx(2 / 12**.5)}


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_compute_metrics_of_scores(shape):
  scores = np.array([2, 5, 5.5], np.float32).reshape(shape)
  result = scoring.compute_metrics(_STS, [1.0, 2.0, 3.0], scores)
  # Deviations (-1, 0, 1) and, times 6, (-13, 5, 8): 21 / sqrt(2 * 258).
  assert result == {"eval_pearson": pytest.approx(21 / 516**.5),
                    "eval_spearman": pytest.approx(1.0)}


def test_compute_metrics_refuses_other_shapes_and_nan():
  with pytest.raises(ValueError, match=r"shape \['n', 2\], found \[2, 3\]"):
    scoring.compute_metrics(_SST, [0, 1], np.zeros([2, 3]))
  with pytest.raises(ValueError, match=r"shape \['n'\], found \[2, 2\]"):
    scoring.compute_metrics(_STS, [0, 1], np.zeros([2, 2]))
  with pytest.raises(errors.InputError, match="example 1 .* not a finite"):
    scoring.compute_metrics(_SST, [0, 1], [[0, 1], [0, float("nan")]])


# Files of predictions.


def test_submission_has_label_words(tmp_path):
  task = tasks.get_task("rte")
  path = tmp_path / task.test[0].submission
  path.write_text("old")
  scoring.write_submission(task, task.test[0], [[.9, .1], [.2, .8], [.6, .4]],
                        str(path))
  assert path.read_bytes() == (b"index\tprediction\n0\tentailment\n"
                               b"1\tnot_entailment\n2\tentailment\n")
  assert os.listdir(tmp_path) == ["RTE.tsv"]


def test_submission_of_scores_is_clipped(tmp_path):
  path = tmp_path / "STS-B.tsv"
  scoring.write_submission(_STS, _STS.test[0],
                        np.array([5.25, -0.5, 3.8], np.float32), str(path))
  assert path.read_text() == "index\tprediction\n0\t5.0\n1\t0.0\n2\t3.8\n"


def test_submission_is_for_test_only(tmp_path):
  with pytest.raises(ValueError, match="not of SST-2's dev split"):
    scoring.write_submission(_SST, _SST.dev[0], [[0, 1]], str(tmp_path / "x"))


@pytest.mark.parametrize("outputs, text", [
    (np.array([[.25, .75], [1e-05, .99999]], np.float32),
     "0.25\t0.75\n1e-05\t0.99999\n"),
    (np.array([2.5, -0.125], np.float32), "2.5\n-0.125\n"),
    ([[2.5], [-0.125]], "2.5\n-0.125\n")])
def test_test_results(tmp_path, outputs, text):
  path = tmp_path / "test_results.tsv"
  scoring.write_test_results(outputs, str(path))
  assert path.read_text() == text


# Tasks of one's own.

_SPEC = {
    "name": "Beer",
    "labels": ["bad", "good"],
    "metrics": ["accuracy", "f1"],
    "columns": {"text_a": 0, "label": 1},
    "header": True,
    "train": "train.tsv",
    "dev": "dev.tsv",
    "test": {"file": "test.tsv", "columns": {"text_a": 1}},
}


def _load(tmp_path, spec):
  path = tmp_path / "spec.json"
  path.write_text(spec if isinstance(spec, str) else json.dumps(spec))
  return task_specs.load_task_spec(str(path))


def test_task_spec(tmp_path):
  columns = tasks.Columns(0, None, 1, True)
  assert _load(tmp_path, _SPEC) == tasks.Task(
      name="beer", display="Beer", labels=("bad", "good"),
      metrics=("accuracy", "f1"),
      train=tasks.Split("train", "train.tsv", columns),
      dev=(tasks.Split("dev", "dev.tsv", columns),),
      test=(tasks.Split("test", "test.tsv", tasks.Columns(1),
                       submission="Beer.tsv"),))


def test_task_spec_in_the_docstring_is_the_one_tested_here(tmp_path):
  docstring = task_specs.__doc__
  example = docstring[docstring.index("    {"):docstring.index("    }\n") + 6]
  assert json.loads(example) == _SPEC
  task = _load(tmp_path, example)
  _write(tmp_path, "train.tsv", "text\tlabel", "Crisp.\tgood", "Flat.\tbad")
  assert [tasks.label_id(task, example.label)
          for example in _read(task, task.train, tmp_path)] == [1, 0]


def test_task_spec_of_a_regression(tmp_path):
  spec = {"name": "age", "score_range": [0, 120], "metrics": ["pearson"],
          "columns": {"text_a": 1, "text_b": None, "label": -1},
          "header": False, "train": "t.tsv", "test": "x.tsv"}
  task = _load(tmp_path, spec)
  assert task.is_regression and task.score_range == (0.0, 120.0)
  # Test files take the common columns, without the label.
  assert task.test[0].columns == tasks.Columns(1, header=False)
  assert not task.dev
  task = _load(tmp_path, dict(spec, score_range=None))
  assert tasks.label_id(task, "-1e6") == -1e6


@pytest.mark.parametrize("task", tasks.TASKS.values(), ids=tasks.TASKS)
def test_every_task_survives_json(task):
  text = json.dumps(task_specs.task_to_dict(task))
  assert task_specs.task_from_dict(json.loads(text)) == task


def _changed(path, *value):
  """_SPEC with the key at `path` set to value, or removed without one."""
  spec = copy.deepcopy(_SPEC)
  keys = path.split("/")
  place = spec
  for key in keys[:-1]:
    place = place[key]
  if value:
    place[keys[-1]] = value[0]
  else:
    del place[keys[-1]]
  return spec


@pytest.mark.parametrize("spec, problem", [
    (_changed("tarin", "x"), 'the task has an unknown key "tarin"; known are '
     "name, labels, score_range, metrics, columns, header, train, dev, test;"),
    (_changed("columns/txt", 1), 'unknown key "txt"; known are text_a, text_b'),
    (_changed("test/skip_malformed", True), '"test" has an unknown key "skip'),
    (_changed("name"), 'the task has no "name"; it must be a name of letters'),
    (_changed("name", "a/b"), "has \"name\": 'a/b'; it must be a name of"),
    (_changed("name", "a b"), "has \"name\": 'a b'; it must be a name of"),
    (_changed("labels"), 'must have either "labels" (classes) or "score_ra'),
    (_changed("score_range", [0, 1]), 'must have either "labels" (classes) or'),
    (_changed("labels", [0, 1]), 'has "labels": [0, 1]; it must be a list of'),
    (_changed("labels", ["a", "a"]), "two or more different strings"),
    (_changed("labels", ["a"]), "two or more different strings"),
    (_changed("labels", ["a", "b", "c"]), "f1, which is for two labels, not 3"),
    (_changed("metrics"), 'has no "metrics"; it must be a list of some of acc'),
    (_changed("metrics", ["auc"]), "some of accuracy, f1, matthews"),
    (_changed("metrics", []), "some of accuracy, f1, matthews"),
    (_changed("metrics", "f1"), "some of accuracy, f1, matthews"),
    (_changed("metrics", ["pearson"]), "some of accuracy, f1, matthews"),
    (_changed("header", 1), 'has "header": 1; it must be true or false'),
    (_changed("header"), '"train" has no "header"; it must be true or false'),
    (_changed("columns"), '"train" has no "columns"; it must be an object'),
    (_changed("columns", [0, 1]), "must be an object, found [0, 1]"),
    (_changed("columns/text_a"), '"columns" of "train" has no "text_a"'),
    (_changed("columns/label"), '"columns" of "train" has no "label"'),
    (_changed("columns/text_a", True), 'has "text_a": true; it must be a col'),
    (_changed("columns/text_a", -1), 'has "text_a": -1; it must be a column'),
    (_changed("columns/label", -2), 'has "label": -2; it must be a column'),
    (_changed("columns/label", 0), "one column twice: text_a 0, text_b None, "),
    (_changed("train", ["a", "b"]), 'has "train": ["a", "b"]; it must be a fi'),
    (_changed("train", ""), "has \"train\": ''; it must be a file name"),
    (_changed("test/file"), '"test" has no "file"; it must be a file name'),
    (_changed("test/submission", "a/b"), "a file name without directory"),
    (_changed("dev", ["a.tsv", "b.tsv"]), 'two files under "dev" with the suf'),
    ({"name": "a", "score_range": [5, 0], "metrics": ["pearson"]},
     'has "score_range": [5, 0]; it must be [lowest, highest]'),
    ({"name": "a", "score_range": None, "metrics": ["pearson"]},
     'has no file; give "train", "dev" or "test"'),
    ([], "the task must be an object, found []"),
    ('{"name": "a", "name": "b"}', 'the key "name" stands twice'),
])
def test_bad_task_spec(tmp_path, spec, problem):
  with pytest.raises(errors.InputError) as error:
    _load(tmp_path, spec)
  message = str(error.value)
  assert message.startswith("%s: " % (tmp_path / "spec.json"))
  assert problem in message
  assert "\n" not in message


def test_task_spec_that_is_not_json(tmp_path):
  with pytest.raises(errors.InputError,
                     match=r"spec.json: is not JSON: line 2, column 11: "):
    _load(tmp_path, '{\n  "name": }')


def test_task_spec_that_cannot_be_read(tmp_path):
  with pytest.raises(errors.InputError, match="nope.json: cannot be read: No such file"):
    task_specs.load_task_spec(str(tmp_path / "nope.json"))
  (tmp_path / "spec.json").write_bytes(b'{"name": "\xff"}')
  with pytest.raises(errors.InputError, match="byte 0xff at 10 is not UTF-8"):
    task_specs.load_task_spec(str(tmp_path / "spec.json"))
