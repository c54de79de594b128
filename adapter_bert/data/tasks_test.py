"""What the table of tasks promises."""

import pytest

from adapter_bert.base import errors
from adapter_bert.data import tasks

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


# Labels and scores.


def test_label_id():
  assert tasks.label_id(tasks.get_task("mnli"), "neutral") == 2
  score = tasks.label_id(tasks.get_task("sts-b"), "3.800")
  assert score == 3.8 and isinstance(score, float)
  assert tasks.label_id(tasks.get_task("sst-2"), None) == 0
  assert tasks.label_id(tasks.get_task("sts-b"), None) == 0.0
  with pytest.raises(errors.InputError, match="label 'x' is not one of"):
    tasks.label_id(tasks.get_task("sst-2"), "x")
  with pytest.raises(errors.InputError, match="score '9' is outside"):
    tasks.label_id(tasks.get_task("sts-b"), "9")
