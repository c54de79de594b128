"""Ablations of tiny models are those models without the adapters."""

import dataclasses
import os
import shutil

import numpy as np
import pytest

from adapter_bert.base import errors
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import scoring
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
from adapter_bert.experiments import ablation
from adapter_bert.training import evaluation
from adapter_bert.training import graphs
from adapter_bert.training import specs
import run_classifier_test
import tokenization

graphs.enable_graph_mode()


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  return run_classifier_test.Files(str(tmp_path_factory.mktemp("files")))


def trained(files, name, **changes):
  """The task checkpoint of a run whose adapters all matter, and its results."""
  settings = dict(do_train=True, num_train_epochs=12.0, adapter_init_scale=0.3,
                  max_seq_length=20, **changes)
  output_dir = files.path("out/" + name)
  results = files.run("STS-B", output_dir, **settings)
  task_checkpoint = os.path.join(output_dir, "task")
  record = run_record.read(task_checkpoint)
  # Two models may well rank a few sentences alike; this metric tells them apart.
  run_record.write(task_checkpoint, dict(
      record, task=dict(record["task"], metrics=["pearson"])))
  return task_checkpoint, results.get("dev")


@pytest.fixture(scope="module", name="stsb")
def fixture_stsb(files):
  # At a higher rate the outputs come out nearly the same for all sentences, and
  # how they correlate with the labels is float noise.
  return trained(files, "stsb", do_eval=True, learning_rate=3e-3)


def ablated(files, task_checkpoint, **changes):
  return ablation.of_checkpoint(**dict(dict(
      task_checkpoint=task_checkpoint, data_dir=files.path("STS-B"),
      vocab_file=files.path("bert/vocab.txt")), **changes))


def score_of(files, task_checkpoint, tmp_path, without, **changes):
  """The main metric in points of a checkpoint, its model changed.

  `without`: str, a part of the names of the variables that it has no more.
  """
  record = run_record.read(task_checkpoint)
  task, model = specs.model_from_record(record, task_checkpoint)
  records = tfrecords.prepare(
      task, task.dev[0], files.path("STS-B"),
      tokenization.FullTokenizer(files.path("bert/vocab.txt")), 20,
      str(tmp_path))
  predictions = evaluation.predict(
      dataclasses.replace(model, **changes), records,
      weights_lib.Weights.open(task_checkpoint).without(
          lambda name: without in name and "/adapters/" in name),
      init_shared_from=record["init_shared_from"])
  metrics = scoring.compute_metrics(task, predictions.labels, predictions.outputs)
  return 100 * metrics["eval_" + task.main_metric]


def test_an_ablation_is_the_model_without_those_adapters(files, stsb, tmp_path):
  task_checkpoint, results = stsb
  task, numbers = ablated(files, task_checkpoint)
  assert [row[:2] for row in numbers.rows] == [[None, None], [0, 0], [0, 1],
                                               [1, 1]]
  scores = {tuple(row[:2]): row[2] for row in numbers.rows}
  assert scores[None, None] == pytest.approx(
      100 * results["eval_" + task.main_metric], abs=1e-3)
  assert scores[0, 1] == pytest.approx(
      score_of(files, task_checkpoint, tmp_path, "", adapter_fn=lambda x: x),
      abs=1e-3)
  assert scores[0, 0] == pytest.approx(
      score_of(files, task_checkpoint, tmp_path, "layer_0/",
               adapter_layers=[1]),
      abs=1e-3)
  assert len(set(round(score, 2) for score in scores.values())) == 4
  whole = scores[None, None]
  for row in numbers.rows:
    assert row[3] == pytest.approx(100 * (1 - row[2] / whole), abs=1e-9)
  assert numbers.notes == []  # a regression has no classes


@pytest.mark.slow
def test_layers_that_share_adapters_are_removed_one_by_one(files, tmp_path):
  # A seed and a rate with which it learns something: there must be a loss.
  task_checkpoint, _ = trained(files, "shared", init_shared_from="mean",
                               share_parameter_across_layers=True,
                               learning_rate=3e-3, seed=2)
  _, numbers = ablated(files, task_checkpoint)
  scores = {tuple(row[:2]): row[2] for row in numbers.rows}
  assert scores[0, 0] == pytest.approx(
      score_of(files, task_checkpoint, tmp_path, "layer_0/",
               adapter_layers=[1]),
      abs=1e-3)
  assert len(set(round(score, 2) for score in scores.values())) == 4


@pytest.mark.slow
def test_only_layers_that_have_adapters_are_ablated(files, tmp_path):
  task_checkpoint, _ = trained(files, "upper", adapter_layers="1",
                               learning_rate=3e-3)
  _, numbers = ablated(files, task_checkpoint)
  assert [row[:2] for row in numbers.rows] == [[None, None], [1, 1]]
  assert numbers.rows[1][2] == pytest.approx(
      score_of(files, task_checkpoint, tmp_path, "", adapter_fn=lambda x: x),
      abs=1e-3)


def test_spans_and_their_names():
  assert ablation.spans([0, 1, 2]) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2),
                                      (2, 2)]
  assert len(ablation.spans(range(12))) == 78
  assert [ablation.removed_label(first, last, [0, 1, 2]) for first, last in (
      (None, None), (1, 1), (0, 1), (0, 2))] == [
          "no adapters removed", "layer 1", "layers 0-1", "all, layers 0-2"]


def test_the_most_frequent_class_by_hand():
  # Always 1 where three of four are: precision 3/4, recall 1, F1 6/7.
  assert ablation._majority_notes(tasks.get_task("MRPC"), np.array([1, 1, 0, 1])
                                ) == ["always the most frequent class: 85.71"]
  assert ablation._majority_notes(tasks.get_task("MNLI"), np.array([2, 1, 2, 0])
                                ) == ["always the most frequent class: 50.00"]


def copied(task_checkpoint, directory, **changes):
  """A copy of a task checkpoint with another run.json; without, if none."""
  shutil.copytree(task_checkpoint, directory)
  record = run_record.read(directory)
  os.remove(os.path.join(directory, run_record.FILE))
  if changes:
    run_record.write(directory, dict(record, **changes))
  return directory


def test_what_cannot_be_ablated(files, stsb, tmp_path):
  full = copied(stsb[0], str(tmp_path / "full"), tune="full", adapter_size=None)
  without = copied(stsb[0], str(tmp_path / "without"))
  short = copied(stsb[0], str(tmp_path / "short"),
                 schedule={"precision": "float32"})
  # Scores that are all the same go with no prediction.
  files.table("constant/dev.tsv", "0 1 2 3 4 5 6 sentence1 sentence2 score", [
      ["x"] * 7 + run_classifier_test.SENTENCES[i:i + 2] + ["3"]
      for i in range(4)])
  for changes, said in (
      ({"task_checkpoint": full},
       "was trained with tune=full and has no adapters to remove"),
      ({"task_checkpoint": without}, "has no run.json beside it"),
      ({"task_checkpoint": short}, "run.json: has no 'max_seq_length'"),
      ({"task_checkpoint": str(tmp_path / "none")}, "no such checkpoint"),
      ({"data_dir": str(tmp_path)}, "dev.tsv: no such file"),
      ({"data_dir": files.path("constant")}, "there is nothing to lose"),
      ({"batch_size": 0}, "a batch size of 0 cannot be")):
    with pytest.raises(errors.InputError, match=said):
      ablated(files, **dict({"task_checkpoint": stsb[0]}, **changes))
