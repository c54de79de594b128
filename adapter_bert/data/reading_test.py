"""What reading promises: the layouts of GLUE and of the hub, and bad files.

Real GLUE files are read where GLUE_DIR is set, the reference's examples where
ADAPTER_BERT_GOLDEN is set too; the layouts of the other tasks, and everything
that can be wrong with a file, are shown on small files written here.
"""

import dataclasses
import json
import os
import subprocess
import sys

from absl import logging
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert import test_util
from adapter_bert.data import reading
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


def _tabs(header):
  """A header line: names with spaces, or "|", between them."""
  return header.replace("|" if "|" in header else " ", "\t")


def _read(task, split, directory):
  return list(reading.read_examples(task, split, str(directory)))


def _error(task, split, directory):
  with pytest.raises(errors.InputError) as error:
    _read(task, split, directory)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_import_does_not_load_tensorflow():
  subprocess.run(
      [sys.executable, "-c", "import sys, tokenization\n"
                             "from adapter_bert.data import reading\n"
                             "assert 'tensorflow' not in sys.modules"],
      cwd=test_util.ROOT, check=True)


# The layouts. For each task: the header of GLUE's labelled files and of its
# test files, the hub's names of the texts, where GLUE's files have text_a,
# text_b and the label, and its labels in the hub's order: the hub's word and
# GLUE's.

_MNLI_TEST = ("index promptID pairID genre binary1 binary2 parse1 parse2 "
              "sentence1 sentence2")
_NLI = [(word, word) for word in ("entailment", "neutral", "contradiction")]
_TWO = [(word, word) for word in ("entailment", "not_entailment")]
_STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"


@dataclasses.dataclass
class _Layout(object):
  labelled: str
  test: str
  hub: str
  places: tuple
  test_places: tuple
  labels: list


_LAYOUTS = {
    "cola": _Layout(
        "", "index sentence", "sentence", (3, None, 1), (1, None),
        [("unacceptable", "0"), ("acceptable", "1")]),
    "sst-2": _Layout(
        "sentence label", "index sentence", "sentence", (0, None, 1),
        (1, None), [("negative", "0"), ("positive", "1")]),
    "mrpc": _Layout(
        "\ufeffQuality|#1 ID|#2 ID|#1 String|#2 String",
        "index|#1 ID|#2 ID|#1 String|#2 String", "sentence1 sentence2",
        (3, 4, 0), (3, 4), [("not_equivalent", "0"), ("equivalent", "1")]),
    "sts-b": _Layout(
        _STSB + " score", _STSB, "sentence1 sentence2", (7, 8, 9), (7, 8),
        [("3.8", "3.8"), ("0.0", "0.0"), ("5.0", "5.0")]),
    "qqp": _Layout(
        "id qid1 qid2 question1 question2 is_duplicate",
        "id question1 question2", "question1 question2", (3, 4, 5), (1, 2),
        [("not_duplicate", "0"), ("duplicate", "1")]),
    # The label is the last column: the 12th in train, the 16th in dev.
    "mnli": _Layout(
        _MNLI_TEST + " label1 gold_label", _MNLI_TEST, "premise hypothesis",
        (8, 9, 11), (8, 9), _NLI),
    "qnli": _Layout(
        "index question sentence label", "index question sentence",
        "question sentence", (1, 2, 3), (1, 2), _TWO),
    "rte": _Layout(
        "index sentence1 sentence2 label", "index sentence1 sentence2",
        "sentence1 sentence2", (1, 2, 3), (1, 2), _TWO),
    "wnli": _Layout(
        "index sentence1 sentence2 label", "index sentence1 sentence2",
        "sentence1 sentence2", (1, 2, 3), (1, 2),
        [("not_entailment", "0"), ("entailment", "1")]),
    "ax": _Layout(
        "", "index sentence1 sentence2", "premise hypothesis", (), (1, 2),
        _NLI),
}


def _expected(name):
  """[(text_a, text_b, label in GLUE's words)], each label there."""
  layout = _LAYOUTS[name]
  is_pair = layout.test_places[1] is not None
  return [('He said: "%d"' % i, "B%d's" % i if is_pair else None, glue)
          for i, (_, glue) in enumerate(layout.labels)]


def _glue_lines(header, places, examples):
  width = len(_tabs(header).split("\t")) if header else 4
  rows = [_row(width, **{"c%d" % place: value
                         for place, value in zip(places, example)
                         if place is not None}) for example in examples]
  return ([_tabs(header)] if header else []) + rows


def _hub_objects(name, kind):
  """The examples as the hub has them; kind: "numbers", "words" or "test"."""
  layout = _LAYOUTS[name]
  objects = []
  for i, (text_a, text_b, _) in enumerate(_expected(name)):
    number = float(layout.labels[i][0]) if name == "sts-b" else i
    label = {"numbers": number, "words": layout.labels[i][0],
             "test": -1.0 if name == "sts-b" else -1}[kind]
    texts = dict(zip(layout.hub.split(), (text_a, text_b)))
    objects.append(dict({"label": label}, idx=7 - i, **texts))
  return objects


def _hub_lines(name, kind, suffix, order):
  """The lines of a hub file, the columns in the order of their names or not."""
  objects = _hub_objects(name, kind)
  keys = sorted(objects[0], reverse=order)
  if suffix == ".jsonl":
    return [json.dumps({key: value[key] for key in keys}) for value in objects]
  return ["\t".join(keys)] + [
      "\t".join(str(value[key]) for key in keys) for value in objects]


def _seen(task, split, directory):
  return [(example.text_a, example.text_b, example.label)
          for example in _read(task, split, directory)]


@pytest.mark.parametrize("name", _LAYOUTS)
def test_layout_of_glue(tmp_path, name):
  task, layout = tasks.get_task(name), _LAYOUTS[name]
  expected = _expected(name)
  for split in [task.train] * bool(task.train) + list(task.dev):
    _write(tmp_path, split.filename,
           *_glue_lines(layout.labelled, layout.places, expected))
    assert _seen(task, split, tmp_path) == expected
    assert _read(task, split, tmp_path)[1].guid == "%s-%d" % (
        split.name, 1 if name == "cola" else 2)
  for split in task.test:
    _write(tmp_path, split.filename,
           *_glue_lines(layout.test, layout.test_places, expected))
    assert _seen(task, split, tmp_path) == [
        (text_a, text_b, None) for text_a, text_b, _ in expected]


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl"])
@pytest.mark.parametrize("name", _LAYOUTS)
def test_layout_of_the_hub(tmp_path, name, suffix):
  """Row by row what GLUE's own layout gives, whatever the columns' order."""
  task = tasks.get_task(name)
  expected = _expected(name)
  for split in [task.train] * bool(task.train) + list(task.dev + task.test):
    filename = split.filename.replace(".tsv", suffix)
    for order in (False, True):
      for kind in ("numbers", "words") if split.has_labels else (
          "numbers", "words", "test"):
        _write(tmp_path, filename, *_hub_lines(name, kind, suffix, order))
        assert _seen(task, split, tmp_path) == [
            (text_a, text_b, label if split.has_labels else None)
            for text_a, text_b, label in expected], (split, kind, order)


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl"])
@pytest.mark.parametrize("name", [name for name in _LAYOUTS if name != "ax"])
def test_the_hub_s_test_file_in_the_dev_file_s_place(tmp_path, name, suffix):
  task = tasks.get_task(name)
  path = _write(tmp_path, task.dev[0].filename.replace(".tsv", suffix),
                *_hub_lines(name, "test", suffix, False))
  assert _error(task, task.dev[0], tmp_path).startswith(
      "%s:%d: has no label ('-1" % (path, 2 if suffix == ".tsv" else 1))


@pytest.mark.parametrize("name", [name for name in _LAYOUTS if name != "ax"])
def test_a_dev_file_in_the_test_file_s_place(tmp_path, name):
  """Either its sentences are read, or it is refused; never its labels."""
  task, layout = tasks.get_task(name), _LAYOUTS[name]
  expected = _expected(name)
  for split in task.test:
    path = _write(tmp_path, split.filename,
                  *_glue_lines(layout.labelled, layout.places, expected))
    if name == "cola":
      assert _error(task, split, tmp_path) == (
          "%s:1: found '-, 0, -, He said: \"0\"' where CoLA's test file has its "
          "header line (index, sentence); put the header back, or give the file "
          "as GLUE has it or as the Hugging Face hub has it (sentence)" % path)
    else:
      assert _seen(task, split, tmp_path) == [
          (text_a, text_b, None) for text_a, text_b, _ in expected]


@pytest.mark.parametrize("name", [name for name in _LAYOUTS if name != "cola"])
def test_a_file_without_its_header(tmp_path, name):
  task, layout = tasks.get_task(name), _LAYOUTS[name]
  splits = [(split, layout.labelled, layout.places) for split in task.dev]
  splits += [(split, layout.test, layout.test_places) for split in task.test]
  for split, header, places in splits:
    path = _write(tmp_path, split.filename,
                  *_glue_lines(header, places, _expected(name))[1:])
    message = _error(task, split, tmp_path)
    assert message.startswith("%s:1: found '" % path)
    assert "where %s's %s file has its header line (" % (
        task.display_name, split.name) in message
    assert "; put the header back" in message


@pytest.mark.parametrize("name, set_type, header, problem", [
    ("sst-2", "test", "index text", "column 1 (counted from 0) is called "
     "'text' where SST-2's test file has 'sentence'; give the file as GLUE has "
     "it or as the Hugging Face hub has it (sentence)"),
    ("sst-2", "dev", "sentence polarity", "column 1 (counted from 0) is called "
     "'polarity' where SST-2's dev file has 'label'"),
    ("rte", "dev", "index sentence1 hypothesis label", "column 2 (counted from "
     "0) is called 'hypothesis' where RTE's dev file has 'sentence2'; give the "
     "file as GLUE has it or as the Hugging Face hub has it (sentence1, "
     "sentence2, label)"),
    ("rte", "test", "index sentence1", "there is no column 2 (counted from 0) "
     "where RTE's test file has 'sentence2'"),
    ("mnli", "dev", _MNLI_TEST + " label1 label2", "column 11 (counted from 0) "
     "is called 'label2' where MNLI's dev file has 'gold_label'"),
    ("qqp", "train", "id qid1 qid2 question1 text is_duplicate", "column 4 "
     "(counted from 0) is called 'text' where QQP's train file has 'question2'"),
    ("rte", "dev", "sentence1 sentence2 label label", "more than one column is "
     "called 'label'"),
    ("sst-2", "test", "\x1b[31m sentence\x07", "found '\\x1b[31m, sentence\\x07' "
     "where SST-2's test file has its header line"),
])
def test_a_header_that_contradicts(tmp_path, name, set_type, header, problem):
  task = tasks.get_task(name)
  split = {"train": (task.train,), "dev": task.dev, "test": task.test}[
      set_type][0]
  path = _write(tmp_path, split.filename, _tabs(header),
                _row(len(header.split()), c0="x"))
  message = _error(task, split, tmp_path)
  assert message.startswith("%s:1: %s" % (path, problem)), message


def test_other_keys_of_json_lines(tmp_path):
  task = tasks.get_task("rte")
  path = _write(tmp_path, "dev.jsonl", '{"text": "a", "label": 0}')
  assert _error(task, task.dev[0], tmp_path).startswith(
      "%s:1: has 'text, label', and RTE's dev file needs sentence1, sentence2, "
      "label; give the file" % path)
  _write(tmp_path, "dev.jsonl", '{"sentence1": "a", "sentence2": "b", '
         '"label": 0}', '{"sentence1": "a", "label": 0}')
  assert _error(task, task.dev[0], tmp_path).startswith(
      "%s:2: found no 'sentence2' among 'sentence1, label', RTE's dev file needs "
      "sentence1, sentence2, label; correct or remove the line" % path)
  _write(tmp_path, "dev.jsonl", '{"sentence1": 5, "sentence2": "b", "label": 0}')
  assert "%s:1: found 5, which is not a text, as 'sentence1'" % path in _error(
      task, task.dev[0], tmp_path)
  for label, shown in (("2", "2"), ("true", "true"), ("0.5", "0.5"),
                       ("[0]", "[0]"), ('"no"', "no")):
    _write(tmp_path, "dev.jsonl",
           '{"sentence1": "a", "sentence2": "b", "label": %s}' % label)
    assert "label '%s' is not one of RTE's" % shown in _error(
        task, task.dev[0], tmp_path)
  _write(tmp_path, "dev.jsonl", "[1]")
  assert "%s:1: holds [1]; it must be an object" % path in _error(
      task, task.dev[0], tmp_path)
  _write(tmp_path, "dev.tsv", "x")
  assert "are both there" in _error(task, task.dev[0], tmp_path)


def test_numbers_are_the_hub_s_only_in_its_layout(tmp_path):
  """Under GLUE's own header a label is a word; nobody says what 0 means."""
  task = tasks.get_task("rte")
  _write(tmp_path, "dev.tsv", _tabs("index sentence1 sentence2 label"),
         "0\ta\tb\t0")
  assert "label '0' is not one of RTE's labels" in _error(task, task.dev[0],
                                                          tmp_path)


def test_mnli_has_two_dev_and_test_files(tmp_path):
  task = tasks.get_task("mnli")
  assert [(split.filename, split.suffix) for split in task.dev + task.test] == [
      ("dev_matched.tsv", ""), ("dev_mismatched.tsv", "_mm"),
      ("test_matched.tsv", ""), ("test_mismatched.tsv", "_mm")]
  # Dev files carry the five annotators' labels before the gold one.
  _write(tmp_path, "dev_mismatched.tsv",
         _tabs(_MNLI_TEST + " label1 label2 label3 label4 label5 gold_label"),
         _row(16, c8="A", c9="B", c10="neutral", c15="entailment"))
  assert _read(task, task.dev[1], tmp_path) == [
      reading.InputExample("dev_mm-1", "A", "B", "entailment")]


def test_ax_is_for_prediction_only():
  task = tasks.get_task("ax")
  assert task.train is None and not task.dev
  assert task.labels == tasks.get_task("mnli").labels


# Tasks of one's own, by name.


_OWN = {"name": "own", "labels": ["bad", "good"], "metrics": ["accuracy"],
        "columns": {"text_a": "text", "label": "stars"}, "dev": "dev.tsv",
        "test": "test.jsonl"}


def _own(**changes):
  return task_specs.task_from_dict(dict(_OWN, **changes))


def test_named_columns(tmp_path):
  task = _own()
  assert task_specs.task_from_dict(task_specs.task_to_dict(task)) == task
  _write(tmp_path, "dev.tsv", "id\tstars\ttext", "7\tgood\tCrisp.")
  _write(tmp_path, "test.jsonl", '{"text": "Flat.", "id": 8}')
  assert _seen(task, task.dev[0], tmp_path) == [("Crisp.", None, "good")]
  assert _seen(task, task.test[0], tmp_path) == [("Flat.", None, None)]
  path = _write(tmp_path, "dev.tsv", "id\trating\ttext", "7\tgood\tCrisp.")
  assert _error(task, task.dev[0], tmp_path) == (
      "%s:1: no column is called 'stars'; the header is 'id, rating, text'; "
      'correct it, or "columns" of the task' % path)
  _write(tmp_path, "dev.tsv", "text\tstars\ttext", "7\tgood\tCrisp.")
  assert "more than one column is called 'text'" in _error(task, task.dev[0],
                                                           tmp_path)


def test_named_labels_that_are_numbers(tmp_path):
  task = _own(labels=["1", "5"], dev="dev.jsonl")
  _write(tmp_path, "dev.jsonl", '{"text": "a", "stars": 5}',
         '{"text": "b", "stars": "1"}')
  assert [label for _, _, label in _seen(task, task.dev[0], tmp_path)] == [
      "5", "1"]


# Where files are.


@pytest.mark.parametrize("name", ["../x.tsv", "a/../../x.tsv", "/x.tsv",
                                  "gs://bucket/x.tsv", "..\\x.tsv"])
def test_files_stay_under_data_dir(tmp_path, name):
  spec = tmp_path / "spec.json"
  spec.write_text(json.dumps(dict(_OWN, dev=name)))
  task = task_specs.load_task_spec(str(spec))
  assert "is not under --data_dir" in _error(task, task.dev[0], tmp_path)
  free = task_specs.load_task_spec(str(spec), files_anywhere=True)
  assert reading.data_path(free, free.dev[0], "/d") == (
      name if name[0] in "/g" else "/d/" + name)


def test_paths_with_a_scheme_and_a_home(tmp_path, monkeypatch):
  tf.io.gfile.makedirs("ram://reading")
  with tf.io.gfile.GFile("ram://reading/dev.tsv", "w") as output:
    output.write("sentence\tlabel\nfine\t1\nbad\t0\n")
  assert _seen(_SST, _SST.dev[0], "ram://reading") == [
      ("fine", None, "1"), ("bad", None, "0")]
  assert "ram://reading/train.tsv: no such file" in _error(
      _SST, _SST.train, "ram://reading")
  assert "nowhere://x" in _error(_SST, _SST.train, "nowhere://x")
  monkeypatch.setenv("HOME", str(tmp_path))
  _write(tmp_path, "dev.tsv", "sentence\tlabel", "fine\t1")
  assert _seen(_SST, _SST.dev[0], "~") == [("fine", None, "1")]


def test_a_link_in_data_dir_is_its_owners(tmp_path):
  _write(tmp_path, "elsewhere.tsv", "sentence\tlabel", "fine\t1")
  os.mkdir(str(tmp_path / "data"))
  os.symlink("../elsewhere.tsv", str(tmp_path / "data" / "dev.tsv"))
  assert _seen(_SST, _SST.dev[0], tmp_path / "data") == [("fine", None, "1")]


def test_what_is_no_file(tmp_path, monkeypatch):
  os.mkfifo(str(tmp_path / "dev.tsv"))
  assert "is a device or a pipe" in _error(_SST, _SST.dev[0], tmp_path)
  os.mkdir(str(tmp_path / "train.tsv"))
  assert "is a directory" in _error(_SST, _SST.train, tmp_path)
  monkeypatch.setattr(reading, "_MOST_LINE_BYTES", 1 << 20)
  with open(str(tmp_path / "test.tsv"), "wb") as endless:
    endless.truncate(1 << 40)  # takes no room
  assert "test.tsv:1: the line has more than 1 MB" in _error(
      _SST, _SST.test[0], tmp_path)


def test_lines_that_end_in_cr_alone(tmp_path):
  path = tmp_path / "dev.tsv"
  path.write_bytes(b"sentence\tlabel\rfine\t1\rbad\t0\r")
  assert _error(_SST, _SST.dev[0], tmp_path) == (
      "%s: its lines end in CR alone; convert it, for instance with tr '\\r' "
      "'\\n'" % path)


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
  _write(tmp_path, "dev.tsv", "sentence\tlabel", '"open\t1', 'a "b" ""\t0')
  assert [(example.text_a, example.label)
          for example in _read(_SST, _SST.dev[0], tmp_path)] == [
              ('"open', "1"), ('a "b" ""', "0")]


def test_only_newline_ends_a_line(tmp_path):
  text = "a\u2028b\u2029c\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\rj "
  _write(tmp_path, "dev.tsv", "sentence\tlabel", text + "\t1")
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
  _write(tmp_path, "dev.tsv", "sentence\tlabel", "fine\t1", "not fine\t7")
  examples = reading.read_examples(_SST, _SST.dev[0], str(tmp_path))
  assert next(examples).text_a == "fine"
  with pytest.raises(errors.InputError):
    next(examples)


# Bad files.


def test_missing_file_is_found_at_once(tmp_path):
  with pytest.raises(errors.InputError) as error:
    reading.read_examples(_SST, _SST.train, str(tmp_path))
  assert str(error.value) == (
      "%s: no such file; SST-2's train examples are read from train.tsv (or the "
      "same name with .jsonl) under --data_dir" % (tmp_path / "train.tsv"))


@pytest.mark.parametrize("line, problem", [
    ("no tab", "found 1 tab-separated column, SST-2's dev file needs 2 columns; "
               "correct or remove the line"),
    ("", "found 1 tab-separated column, SST-2's dev file needs 2 columns; "
         "correct or remove the line"),
    ("text\t2", "label '2' is not one of SST-2's labels (0, 1); it stands in "
                "column 1, counted from 0; correct the line, or the task or "
                "--data_dir is the wrong one"),
    ("text\t1 ", "label '1 ' is not one of SST-2's labels (0, 1); it stands "
                 "in column 1, counted from 0; correct the line, or the task "
                 "or --data_dir is the wrong one"),
])
def test_bad_row(tmp_path, line, problem):
  path = _write(tmp_path, "dev.tsv", "sentence\tlabel", "fine\t1", line, "fine\t0")
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
  path = _write(tmp_path, "train.tsv", _tabs(_STSB + " score"),
                _row(10, c9="0.000"),
                _row(10, c9="5"), _row(10, c9=score))
  assert _error(_STS, _STS.train, tmp_path).startswith(
      "%s:4: %s; it stands in column 9," % (path, problem))


def test_long_label_is_cut(tmp_path):
  _write(tmp_path, "dev.tsv", "sentence\tlabel", "text\t" + "x" * 5000)
  assert len(_error(_SST, _SST.dev[0], tmp_path)) < 500


def test_mnli_row_without_its_label(tmp_path):
  task = tasks.get_task("mnli")
  path = _write(tmp_path, "train.tsv",
                _tabs(_MNLI_TEST + " label1 gold_label"),
                _row(10, c8="A", c9="B"))
  assert _error(task, task.train, tmp_path).startswith(
      "%s:2: found 10 tab-separated columns, MNLI's train file needs 11 columns"
      % path)


def test_bytes_that_are_not_utf8(tmp_path):
  path = tmp_path / "dev.tsv"
  path.write_bytes(b"sentence\tlabel\nfine\t1\ncaf\xe9\t0\n")
  assert _error(_SST, _SST.dev[0], tmp_path) == (
      "%s:3: byte 0xe9 at position 3 of the line is not UTF-8; convert the "
      "file to UTF-8" % path)


@pytest.mark.parametrize("lines, problem", [
    ((), "has no examples; is the download complete?"),
    (("sentence\tlabel",),
     "has no examples, only a header line; is the download complete?")])
def test_empty_data_set(tmp_path, lines, problem):
  path = _write(tmp_path, "dev.tsv", *lines)
  assert _error(_SST, _SST.dev[0], tmp_path) == "%s: %s" % (path, problem)


def test_example_in_the_header_s_place(tmp_path):
  task = task_specs.task_from_dict(
      {"name": "own", "labels": ["0", "1"], "metrics": ["accuracy"],
       "columns": {"text_a": 0, "label": 1}, "header": True,
       "train": "train.tsv"})
  path = _write(tmp_path, "train.tsv", "fine\t1", "bad\t0")
  assert _error(task, task.train, tmp_path) == (
      "%s:1: found an example with the label '1' where own's train file has its "
      "header line; put the header back" % path)


def test_header_where_there_is_none(tmp_path):
  task = tasks.get_task("cola")
  path = _write(tmp_path, "dev.tsv", "source\tlabel\tmark\ttext")
  assert _error(task, task.dev[0], tmp_path).startswith(
      "%s:1: label 'label' is not one of CoLA's labels (0, 1)" % path)


_QQP = tasks.get_task("qqp")
_QQP_HEADER = _tabs("id qid1 qid2 question1 question2 is_duplicate")
_QQP_LINES = (_QQP_HEADER, _row(6, c3="A", c4="B", c5="1"), "torn\tin", "two",
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
  assert logged == ["%s: skipped 2 malformed rows (without 6 columns), the "
                    "first in line 3" % path]


def test_qqp_unknown_label_is_not_skipped(tmp_path):
  path = _write(tmp_path, "train.tsv", _QQP_HEADER, _row(6, c5="yes"))
  assert _error(_QQP, _QQP.train, tmp_path).startswith(
      "%s:2: label 'yes' is not" % path)


def test_qqp_malformed_row_in_test_is_an_error(tmp_path):
  path = _write(tmp_path, "test.tsv", _tabs("id question1 question2"),
                _row(3), "torn\tin")
  assert _error(_QQP, _QQP.test[0], tmp_path).startswith(
      "%s:3: found 2 tab-separated columns, QQP's test file needs 3" % path)


def test_qqp_with_nothing_but_malformed_rows(tmp_path):
  path = _write(tmp_path, "train.tsv", _QQP_HEADER, "a\tb", "c")
  assert _error(_QQP, _QQP.train, tmp_path).startswith(
      "%s: has no examples" % path)
  assert "2 malformed rows" in _error(_QQP, _QQP.train, tmp_path)
