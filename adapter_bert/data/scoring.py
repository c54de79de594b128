"""Scores a model's outputs, and writes them as the GLUE server takes them."""

import numpy as np

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import metrics

CLASSIFICATION_METRICS = {
    "accuracy": metrics.accuracy,
    "f1": metrics.f1,
    "matthews": metrics.matthews,
}
REGRESSION_METRICS = {
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "mean_squared_error": metrics.mean_squared_error,
}


def _checked_outputs(task, outputs):
  """`outputs` as [n, num_labels], for regression [n]; refuses the rest."""
  outputs = np.asarray(outputs)
  if task.is_regression and outputs.ndim == 2 and outputs.shape[1] == 1:
    outputs = outputs[:, 0]
  expected = [] if task.is_regression else [task.num_labels]
  if outputs.ndim != 1 + len(expected) or list(outputs.shape[1:]) != expected:
    raise ValueError(
        "outputs for %s must have shape %s, found %s"
        % (task.display_name, ["n"] + expected, list(outputs.shape)))
  finite = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
  if not finite.all():
    raise errors.InputError(
        "the model's output for example %d (counted from 0) is not a finite "
        "number; the checkpoint is from a run that diverged: train again with "
        "a smaller --learning_rate" % np.argmin(finite))
  return outputs


def compute_metrics(task, labels, outputs):
  """Scores a model's outputs by the task's metrics.

  Args:
    task: Task.
    labels: [n], what label_id gave.
    outputs: [n, num_labels] floats, probabilities or logits (the largest is
      the prediction); for regression the scores, [n] or [n, 1].

  Returns:
    dict of "eval_<metric>" -> float: the task's metrics, and accuracy for
    every classification task.

  Raises:
    errors.InputError: an output is not finite.
    ValueError: the shapes do not fit.
  """
  outputs = _checked_outputs(task, outputs)
  return score_predictions(task, labels, outputs if task.is_regression else
                           np.argmax(outputs, axis=1))


def score_predictions(task, labels, predictions):
  """`compute_metrics` of [n] class ids, or scores; -1 is not a class."""
  if task.is_regression:
    names, known = task.metrics, REGRESSION_METRICS
  else:
    names, known = {"accuracy", *task.metrics}, CLASSIFICATION_METRICS
  return {"eval_" + name: known[name](labels, predictions)
          for name in sorted(names)}


def write_submission(task, split, outputs, path):
  """Writes the file that the GLUE server takes for one test split.

  Rows are numbered from 0 in the order of the test file; predictions are
  label words, scores are clipped to the task's range.

  Args:
    task: Task.
    split: Split, a test split; split.submission is the name the server knows.
    outputs: as in compute_metrics, in the order of the test file.
    path: the file to write; it is replaced in one step.

  Raises:
    errors.InputError: an output is not finite.
    ValueError: the shapes do not fit, or the split is not a test split.
  """
  if split.set_type != "test":
    raise ValueError("a submission is made of test predictions, not of %s's "
                     "%s split" % (task.display_name, split.name))
  outputs = _checked_outputs(task, outputs)
  if not task.is_regression:
    predictions = (task.labels[index] for index in np.argmax(outputs, axis=1))
  else:
    if task.score_range is not None:
      outputs = np.clip(outputs, *task.score_range)
    predictions = (str(score) for score in outputs)
  files.write_atomically(path, _submission_lines(predictions))


def _submission_lines(predictions):
  yield "index\tprediction\n"
  for index, prediction in enumerate(predictions):
    yield "%d\t%s\n" % (index, prediction)


def write_test_results(outputs, path):
  """Writes test_results.tsv: one row of tab-separated numbers per example.

  Args:
    outputs: [n, num_labels] class probabilities, or [n] scores.
    path: the file to write; it is replaced in one step.
  """
  outputs = np.asarray(outputs)
  rows = outputs.reshape(len(outputs), -1)
  # str gives the shortest text that reads back as the same float32.
  files.write_atomically(
      path, ("\t".join(str(number) for number in row) + "\n" for row in rows))
