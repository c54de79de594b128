"""What scoring promises: metrics of outputs, files of predictions."""

import os

import numpy as np
import pytest

from adapter_bert.base import errors
from adapter_bert.data import scoring
from adapter_bert.data import tasks

_SST = tasks.get_task("sst-2")
_STS = tasks.get_task("sts-b")


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
