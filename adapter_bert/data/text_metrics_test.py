"""Metrics of text against values worked out by hand, or said by the library."""

import sys

import pytest

from adapter_bert.base import errors
from adapter_bert.data import text_metrics


def test_exact_match():
  assert text_metrics.exact_match([["a"], ["b", "c"], ["d"], [" e"]],
                                  ["a", "c", "x", "e"]) == 0.5


@pytest.mark.parametrize("a, b, edits", [
    ("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("", "ab", 2),
    ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)])
def test_edit_distance(a, b, edits):
  assert text_metrics.edit_distance(a, b) == edits
  assert text_metrics.edit_distance(b, a) == edits


def test_character_error_rate():
  # 3 edits of 6 characters and 0 of 4: 3 / 10, not the mean of the rates.
  assert text_metrics.character_error_rate(
      [["kitten"], ["same"]], ["sitting", "same"]) == 0.3
  # The nearest reference counts: 1 of 2.
  assert text_metrics.character_error_rate([["xyz", "ab"]], ["ac"]) == 0.5
  assert text_metrics.character_error_rate([[""]], [""]) == 0.0
  with pytest.raises(ValueError, match="no character"):
    text_metrics.character_error_rate([[""]], ["a"])


@pytest.mark.parametrize("name", text_metrics.METRICS)
def test_what_no_metric_is_defined_for(name):
  metric = text_metrics.METRICS[name]
  for references, predictions in (([], []), ([["a"]], []), ([[]], ["a"]),
                                  ([["a"]], ["a", "b"])):
    with pytest.raises(ValueError):
      metric(references, predictions)
  assert text_metrics.best_of(name) is (
      min if name == "character_error_rate" else max)


def test_bleu_and_chrf():
  pytest.importorskip("sacrebleu")
  same = [["the cat sat on the mat", "a cat"], ["it rains"]]
  assert text_metrics.bleu(same, ["the cat sat on the mat",
                                  "it rains"]) == pytest.approx(100)
  assert text_metrics.chrf(same, ["a cat", "it rains"]) == pytest.approx(100)
  # Precisions 5/6, 4/5, 3/4, 2/3, as long as the reference: their geometric
  # mean, (1/3) ** (1/4).
  assert text_metrics.bleu([["the cat sat on the mat"]],
                           ["the cat sat on the hat"]) == pytest.approx(
                               100 * (1 / 3) ** .25)


def test_rouge():
  pytest.importorskip("rouge_score")
  # 2 of 3 words, 1 of 2 pairs; "runs" and "running" have one stem.
  references = [["the cat runs"]]
  predictions = ["the dog running"]
  assert text_metrics.rouge1(references, predictions) == pytest.approx(2 / 3)
  assert text_metrics.rouge2(references, predictions) == 0.0
  assert text_metrics.rouge_l(references, predictions) == pytest.approx(2 / 3)
  assert text_metrics.rouge1([["x", "the cat runs"]],
                             ["the cat runs"]) == pytest.approx(1)


@pytest.mark.parametrize("name, package", [("bleu", "sacrebleu"),
                                           ("rouge2", "rouge-score")])
def test_a_missing_library_is_one_line(monkeypatch, name, package):
  # What makes Python say that there is no such module.
  monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
  with pytest.raises(errors.InputError, match="the package %s, which is not "
                     "installed: pip install 'adapter-bert.metrics.'" % package):
    text_metrics.METRICS[name]([["a"]], ["a"])
