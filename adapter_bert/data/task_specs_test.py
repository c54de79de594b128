"""What task_specs promises: tasks as JSON."""

import copy
import json

import pytest

from adapter_bert.base import errors
from adapter_bert.data import reading
from adapter_bert.data import task_specs
from adapter_bert.data import tasks

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
  (tmp_path / "train.tsv").write_text(
      "text\tlabel\nCrisp.\tgood\nFlat.\tbad\n")
  examples = reading.read_examples(task, task.train, str(tmp_path))
  assert [tasks.label_id(task, each.label) for each in examples] == [1, 0]


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
    (_changed("test/submission", "run.json"), "that ends in .tsv and is none of"),
    (_changed("test/submission", "test_results.tsv"), "none of the run's own"),
    (_changed("test/submission", "TEST_RESULTS_mm.tsv"), "none of the run's own"),
    (_changed("test/submission", "..\\x.tsv"), "a file name without directory"),
    (_changed("name", "test_results"), "written to 'test_results.tsv', which is "
     "one of the run's own files"),
    (_changed("test", [{"file": "a.tsv", "submission": "x.tsv"},
                       {"file": "b.tsv", "suffix": "2",
                        "submission": "X.tsv"}]),
     "two files under \"test\" with the submission 'x.tsv'"),
    (_changed("columns/label", "stars"), "columns with names and columns with "
     "numbers"),
    (_changed("train", "train.jsonl"), "has the .jsonl file 'train.jsonl' and "
     "counts its columns"),
    (dict(_changed("columns", {"text_a": "x", "label": "y"}), header=False),
     'names its columns and has "header": false'),
    (_changed("labels", ["bad", "\x1b[2Jgood"]),
     "two or more different strings without tabs"),
    (_changed("train", "a\x1b[2J.tsv"), "has \"train\": 'a\\x1b[2J.tsv'; it must"),
    (_changed("a\x07", 1), 'unknown key "a\\u0007"'),
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
  with pytest.raises(errors.InputError,
                     match="nope.json: cannot be read: No such file"):
    task_specs.load_task_spec(str(tmp_path / "nope.json"))
  (tmp_path / "spec.json").write_bytes(b'{"name": "\xff"}')
  with pytest.raises(errors.InputError, match="byte 0xff at 10 is not UTF-8"):
    task_specs.load_task_spec(str(tmp_path / "spec.json"))
