"""GLUE's metrics as pure functions: (labels, predictions) -> float.

Both arguments are one-dimensional and of one length, at least 1: class ids for
the classification metrics, scores for the regression metrics. Anything else,
NaN and infinity included, is a ValueError with one line. Where a formula
divides by zero the docstring says which value is returned instead.

Which task uses which metric is tasks.py's table.
"""

import numpy as np


def accuracy(labels, predictions):
  """The share of predictions that are right, 0..1."""
  labels, predictions = _checked(labels, predictions)
  return float(np.mean(labels == predictions))


def f1(labels, predictions):
  """F1 of class 1, 0..1.

  2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall
  (van Rijsbergen, Information Retrieval, 1979). 0.0 when class 1 is neither
  among the labels nor predicted.
  """
  labels, predictions = _checked(labels, predictions)
  labels, predictions = labels == 1, predictions == 1
  positives = np.sum(labels) + np.sum(predictions)  # 2 TP + FP + FN
  if not positives:
    return 0.0
  return float(2 * np.sum(labels & predictions) / positives)


def matthews(labels, predictions):
  """Matthews correlation coefficient, -1..1, for any number of classes.

  For two classes (TP TN - FP FN) / sqrt((TP+FP) (TP+FN) (TN+FP) (TN+FN))
  (Matthews, Biochimica et Biophysica Acta 405, 1975); for more its
  generalisation R_K (Gorodkin, Computational Biology and Chemistry 28, 2004):
  with n examples, c of them right, and t_k, p_k the number of labels and
  predictions of class k,
      (n c - sum t_k p_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2)).
  0.0 when the labels or the predictions are all of one class.
  """
  labels, predictions = _checked(labels, predictions)
  classes, ids = np.unique(np.concatenate([labels, predictions]),
                           return_inverse=True)
  # As shares: products of the counts pass 2^63 at some 55,000 examples.
  n = float(labels.size)
  label_counts = np.bincount(ids[:labels.size], minlength=classes.size) / n
  prediction_counts = np.bincount(ids[labels.size:],
                                  minlength=classes.size) / n
  if label_counts.max() == 1.0 or prediction_counts.max() == 1.0:
    return 0.0
  covariance = (np.mean(labels == predictions) -
                np.dot(label_counts, prediction_counts))
  variances = ((1.0 - np.dot(label_counts, label_counts)) *
               (1.0 - np.dot(prediction_counts, prediction_counts)))
  return float(covariance / np.sqrt(variances))


def pearson(labels, predictions):
  """Pearson's correlation, -1..1.

  sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2)
  (Pearson, Proceedings of the Royal Society 58, 1895). 0.0 when the labels or
  the predictions are all equal.
  """
  labels, predictions = _checked(labels, predictions)
  # Asked directly: the mean of equal floats may differ from them by rounding.
  if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
    return 0.0
  labels = labels - np.mean(labels)
  predictions = predictions - np.mean(predictions)
  # Each divided by its own length first, so that small scores do not
  # underflow in the product.
  labels /= np.linalg.norm(labels)
  predictions /= np.linalg.norm(predictions)
  return float(np.clip(np.dot(labels, predictions), -1.0, 1.0))


def spearman(labels, predictions):
  """Spearman's rank correlation, -1..1.

  Pearson's correlation of the ranks, equal values having the average of their
  ranks (Spearman, American Journal of Psychology 15, 1904). 0.0 when the
  labels or the predictions are all equal.
  """
  labels, predictions = _checked(labels, predictions)
  return pearson(_average_ranks(labels), _average_ranks(predictions))


def mean_squared_error(labels, predictions):
  """mean (x - y)^2, at least 0; the loss of a regression task."""
  labels, predictions = _checked(labels, predictions)
  return float(np.mean((labels - predictions)**2))


def _average_ranks(values):
  """Ranks from 1, [n] float64; ties share the average of theirs."""
  _, ids, counts = np.unique(values, return_inverse=True, return_counts=True)
  last_ranks = np.cumsum(counts)
  return (last_ranks - (counts - 1) / 2.0)[ids]


def _checked(labels, predictions):
  """Both as float64 [n]; refuses what no metric is defined for."""
  arrays = []
  for name, values in (("labels", labels), ("predictions", predictions)):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
      raise ValueError("%s must have one dimension, not shape %s; class "
                       "probabilities are turned into class ids first"
                       % (name, list(values.shape)))
    if not values.size:
      raise ValueError("%s are empty; a metric needs an example" % name)
    if not np.all(np.isfinite(values)):
      raise ValueError("%s hold %s at index %d; a metric needs finite numbers"
                       % (name, values[~np.isfinite(values)][0],
                          np.argmin(np.isfinite(values))))
    arrays.append(values)
  if arrays[0].size != arrays[1].size:
    raise ValueError("%d labels but %d predictions; a metric needs one "
                     "prediction per label"
                     % (arrays[0].size, arrays[1].size))
  return arrays
