"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from adapter_bert.data import metrics

_ALL = [metrics.accuracy, metrics.f1, metrics.matthews, metrics.pearson,
        metrics.spearman, metrics.mean_squared_error]

# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
_LABELS = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
_PREDICTIONS = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]


def test_accuracy():
  assert metrics.accuracy(_LABELS, _PREDICTIONS) == pytest.approx(0.7)
  assert metrics.accuracy([2, 0, 1], [2, 1, 1]) == pytest.approx(2 / 3)


def test_f1_is_that_of_class_1():
  # 2 * 3 / (2 * 3 + 1 + 2)
  assert metrics.f1(_LABELS, _PREDICTIONS) == pytest.approx(6 / 9)
  # Of class 0 it would be 8 / 11.
  assert metrics.f1(1 - np.array(_LABELS),
                    1 - np.array(_PREDICTIONS)) == pytest.approx(8 / 11)


def test_f1_extremes():
  assert metrics.f1([1, 0], [1, 0]) == 1.0
  assert metrics.f1([1, 0], [0, 1]) == 0.0
  assert metrics.f1([0, 0], [0, 0]) == 0.0


def test_matthews_two_classes():
  # (3 * 4 - 1 * 2) / sqrt(4 * 5 * 5 * 6)
  expected = 10 / math.sqrt(600)
  assert metrics.matthews(_LABELS, _PREDICTIONS) == pytest.approx(expected)
  assert metrics.matthews([1, 0, 1], [1, 0, 1]) == pytest.approx(1.0)
  assert metrics.matthews([1, 0, 1], [0, 1, 0]) == pytest.approx(-1.0)


def test_matthews_three_classes():
  # n = 5, c = 3; t = (2, 1, 2), p = (2, 2, 1):
  # (5 * 3 - (4 + 2 + 2)) / sqrt((25 - 9) * (25 - 9)) = 7 / 16
  assert metrics.matthews([0, 0, 1, 2, 2],
                          [0, 1, 1, 2, 0]) == pytest.approx(7 / 16)


def test_matthews_of_one_class_is_zero():
  assert metrics.matthews([1, 1, 1], [1, 0, 1]) == 0.0
  assert metrics.matthews([1, 0, 1], [0, 0, 0]) == 0.0
  assert metrics.matthews([1, 1], [1, 1]) == 0.0


def test_matthews_of_many_examples():
  # The counts' products would not fit into 64 bits.
  labels = np.repeat([0, 1], 100000)
  assert metrics.matthews(labels, labels) == pytest.approx(1.0)


def test_pearson():
  # Deviations (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6)
  assert metrics.pearson([1, 2, 3], [2, 5, 5]) == pytest.approx(
      3 / math.sqrt(12))
  assert metrics.pearson([1, 2, 4], [2, 4, 8]) == pytest.approx(1.0)
  assert metrics.pearson([1, 2, 4], [-1, -2, -4]) == pytest.approx(-1.0)


def test_pearson_of_very_small_scores():
  assert metrics.pearson([1, 2, 3], [2e-100, 5e-100, 5e-100]) == (
      pytest.approx(3 / math.sqrt(12)))


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman])
def test_correlation_with_a_constant_is_zero(metric):
  # The mean of three times 0.1 is not 0.1.
  assert metric([0.1, 0.1, 0.1], [1, 2, 3]) == 0.0
  assert metric([1, 2, 3], [0.1, 0.1, 0.1]) == 0.0
  assert metric([1], [2]) == 0.0


def test_spearman_looks_at_the_order_only():
  assert metrics.spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == (
      pytest.approx(1.0))
  # Ranks (1, 2, 3, 4), (2, 1, 4, 3): 1 - 6 * 4 / (4 * 15)
  assert metrics.spearman([1, 2, 3, 4], [5, 3, 9, 8]) == pytest.approx(0.6)


def test_spearman_gives_ties_their_average_rank():
  # Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): deviations (-1.5, 0, 0, 1.5) and
  # (-1.5, -0.5, 0.5, 1.5), 4.5 / sqrt(4.5 * 5)
  assert metrics.spearman([0, 1, 1, 7], [1, 2, 3, 4]) == pytest.approx(
      4.5 / math.sqrt(22.5))


def test_mean_squared_error():
  assert metrics.mean_squared_error([1.0, 2.0], [1.5, 0.0]) == pytest.approx(
      (0.25 + 4.0) / 2)


@pytest.mark.parametrize("metric", _ALL)
def test_float32_arrays_and_lists_give_a_float(metric):
  value = metric(np.array([0, 1, 1], np.int32),
                 np.array([0, 1, 0], np.float32))
  assert isinstance(value, float)
  assert value == metric([0, 1, 1], [0, 1, 0])


@pytest.mark.parametrize("metric", _ALL)
@pytest.mark.parametrize("labels, predictions, message", [
    ([0, 1], [0], "2 labels but 1 predictions"),
    ([], [], "labels are empty"),
    ([0, 1], [[0, 1], [1, 0]], r"predictions must .* not shape \[2, 2\]"),
    ([0, 1], [0, float("nan")], "predictions hold nan at index 1"),
    ([float("inf"), 1], [0, 1], "labels hold inf at index 0"),
])
def test_bad_input(metric, labels, predictions, message):
  with pytest.raises(ValueError, match=message):
    metric(labels, predictions)
