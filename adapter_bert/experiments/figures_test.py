"""The figures' numbers by hand, and their drawings."""

import csv
import os
import sys

from absl import flags
import numpy as np
import pytest

from adapter_bert.base import errors
from adapter_bert.experiments import figures
from adapter_bert.experiments import grid
from adapter_bert.experiments import report
from adapter_bert.experiments import tables
import run_classifier_test


def result(task, tune, choice, seed, score, parameters, stored=None,
           **settings):
  """A finished run as a sweep keeps it."""
  name = {"adapters": "adapter_size", "top_n": "top_n_layers",
          "prefix": "prefix_length"}.get(tune)
  settings = dict(settings, tune=tune, seed=seed, **({name: choice} if name else
                                                     {}))
  return {"settings": settings, "task": task, "metric": "accuracy",
          "score": score, "metrics": {"eval_accuracy": score / 100},
          "trained": {"parameters": parameters,
                      "stored": parameters if stored is None else stored,
                      "head": 10, "whole": 5000,
                      "of_whole": parameters / 5000, "of_encoder": 0.5},
          "seconds": 2.0}


def runs(task, tune, choice, scores, parameters=100, **settings):
  return [result(task, tune, choice, seed, score, parameters, **settings)
          for seed, score in enumerate(scores)]


def results_file(tmp_path, results):
  path = str(tmp_path / "results.csv")
  with open(path, "w", encoding="utf-8") as output:
    output.write(report.results_csv({str(i): r for i, r in enumerate(results)}))
  return path


def numbers_of(function, tmp_path, results):
  """A figure's numbers, from the results by way of their CSV."""
  path = results_file(tmp_path, results)
  return function(report.candidates_of(report.read_results(path)), path)


def run_main(*args):
  flag_values = flags.FlagValues()
  figures.define_flags(flag_values)
  return figures.main(flag_values(["figures"] + list(args)), flag_values)


def rows_of(path):
  with open(path, encoding="utf-8", newline="") as source:
    return list(csv.DictReader(source))


def test_parameters_by_hand(tmp_path):
  numbers = numbers_of(
      figures.parameter_numbers, tmp_path,
      runs("RTE", "adapters", 8, [60, 62, 64], 300, learning_rate=1e-3) +
      # Its best seed is better and its mean is not.
      runs("RTE", "adapters", 8, [50, 60, 70], 300, learning_rate=1e-4) +
      runs("RTE", "adapters", 2, [59], 200) +
      # Adapters in some layers only are not a point of the curve.
      runs("RTE", "adapters", 8, [99, 99, 99], 150, adapter_layers="1-2") +
      runs("RTE", "top_n", 1, [50, 51], 1000) + runs("RTE", "head", 0, [40]) +
      runs("RTE", "full", None, [70, 72], 5000, num_train_epochs=7) +
      runs("CoLA", "adapters", 8, [10, 10, 10], 300))
  names = [name for name, _ in numbers.columns]
  assert names == ["task", "metric", "series", "choice", "trained_parameters",
                   "stored_parameters", "score", "standard_error", "seeds",
                   "learning_rate", "num_train_epochs"]
  # The mean of 60, 62, 64 is 62, their deviation sqrt((4 + 0 + 4) / 2) = 2.
  assert numbers.rows == [
      ["CoLA", "accuracy", "adapters", 8, 300, 300, 10, 0, 3, 5e-5, 3],
      ["RTE", "accuracy", "full", None, 5000, 5000, 71, pytest.approx(1.0), 2,
       5e-5, 7],
      ["RTE", "accuracy", "adapters", 2, 200, 200, 59, None, 1, 5e-5, 3],
      ["RTE", "accuracy", "adapters", 8, 300, 300, 62,
       pytest.approx(2 / 3**0.5), 3, 1e-3, 3],
      ["RTE", "accuracy", "top_n", 1, 1000, 1000, 50.5, pytest.approx(0.5), 2,
       5e-5, 3]]
  assert numbers.notes == [
      "not in the results: " + label
      for label in ("LayerNorm only", "prefix", "prefix with an MLP")]
  numbers = numbers_of(figures.parameter_numbers, tmp_path,
                       runs("RTE", "layer_norm", None, [60]))
  assert numbers.notes == [
      "not in the results: " + label
      for label in ("full fine-tuning", "adapters", "top n layers", "prefix",
                    "prefix with an MLP")]


def prefixes():
  """Prefixes of 5 and 20 that are trained themselves, one with an MLP; others
  that are not points of these curves."""
  return (
      runs("RTE", "prefix", 20, [60, 62, 64], 400, learning_rate=1e-2) +
      runs("RTE", "prefix", 20, [61, 61, 61], 400, learning_rate=1e-3) +
      runs("RTE", "prefix", 5, [59], 100) +
      runs("RTE", "prefix", 20, [58, 60], 2500, stored=400,
           prefix_hidden_size=7) +
      runs("RTE", "adapters", 8, [55], 300) +
      runs("RTE", "adapters", 8, [99], 350, fresh_pooler=True) +
      runs("RTE", "full", None, [99], 5000, fresh_pooler=True))


def test_prefixes_are_two_series_of_the_parameters_by_hand(tmp_path):
  numbers = numbers_of(figures.parameter_numbers, tmp_path, prefixes())
  assert [row[2:8] for row in numbers.rows] == [
      ["adapters", 8, 300, 300, 55, None],
      ["prefix", 5, 100, 100, 59, None],
      ["prefix", 20, 400, 400, 62, pytest.approx(2 / 3**0.5)],
      ["prefix, MLP", 20, 2500, 400, 59, pytest.approx(1.0)]]
  assert [row[9] for row in numbers.rows] == [5e-5, 5e-5, 1e-2, 5e-5]
  pytest.importorskip("matplotlib")
  axes, = figures.draw_parameters(numbers).axes
  curves = {c.get_label(): c.lines[0] for c in axes.containers}
  assert {label: line.get_xydata().tolist()
          for label, line in curves.items()} == {
              "adapters": [[300, 55]], "prefix": [[100, 59], [400, 62]],
              "prefix with an MLP": [[2500, 59]]}


def five_tasks():
  """Adapters of size 4 that lose 4, 3, 2, 1 and 0 points; LayerNorm 10."""
  results = []
  for i, task in enumerate(["CoLA", "MRPC", "QNLI", "RTE", "SST-2"]):
    results += runs(task, "full", None, [69 + i, 71 + i], 5000)
    results += runs(task, "adapters", 4, [66 + 2 * i], 200)
    results += runs(task, "layer_norm", None, [60 + i], 40)
  return results


def test_percentiles_by_hand(tmp_path):
  numbers = numbers_of(figures.percentile_numbers, tmp_path, five_tasks())
  assert [name for name, _ in numbers.columns][:2] == ["series", "choice"]
  assert [name for name, _ in numbers.columns][3:] == [
      "percentile_20", "percentile_50", "percentile_80", "tasks"]
  # Of -4, -3, -2, -1, 0 the 20th percentile lies 0.8 of a step above the first.
  assert numbers.rows == [
      ["adapters", 4, 200] + [pytest.approx(x) for x in (-3.2, -2, -0.8)] + [5],
      ["layer_norm", None, 40] + [pytest.approx(-10)] * 3 + [5]]
  assert numbers.notes == [
      "not in the results: " + label
      for label in ("top n layers", "prefix", "prefix with an MLP")]


def test_percentiles_are_over_the_same_tasks(tmp_path):
  error = runs("Toy", "full", None, [1]) + runs("Toy", "adapters", 4, [2])
  for r in error:
    r["metric"] = "mean_squared_error"
  numbers = numbers_of(
      figures.percentile_numbers, tmp_path,
      five_tasks() + runs("RTE", "adapters", 8, [90]) +
      runs("RTE", "top_n", 1, [90]) + runs("QQP", "adapters", 4, [0]) +
      error)
  assert [row[:2] for row in numbers.rows] == [["adapters", 4],
                                               ["layer_norm", None]]
  assert numbers.rows[0][3:] == [pytest.approx(x) for x in (-3.2, -2, -0.8, 5)]
  assert [note for note in numbers.notes if not note.startswith("not in")] == [
      "left out: Toy: the metric is an error, not in points",
      "left out: QQP: no run of full fine-tuning",
      "left out: adapters, 8: no run on CoLA, MRPC, QNLI, SST-2",
      "left out: top 1 layer: no run on CoLA, MRPC, QNLI, SST-2"]


def init_scales(task, rate, scores, size=64):
  return [r for scale, score in scores.items()
          for r in runs(task, "adapters", size, [score - 1, score + 1],
                        learning_rate=rate, adapter_init_scale=scale)]


def test_an_init_scale_curve_is_of_one_setting(tmp_path):
  numbers = numbers_of(
      figures.init_scale_numbers, tmp_path,
      init_scales("RTE", 1e-4, {1e-3: 60, 1e-7: 61, 1.0: 50}) +
      init_scales("RTE", 3e-4, {1e-3: 58, 1e-7: 62, 1.0: 50}) +
      init_scales("RTE", 1e-3, {1e-3: 99}) +  # no curve
      init_scales("CoLA", 1e-3, {1e-3: 20}) +
      init_scales("MRPC", 1e-3, {1e-3: 20, 1e-2: 21}, size=8))
  assert [row[:5] for row in numbers.rows] == [
      ["MRPC", "accuracy", "adapters, 8", 1e-3, 20],
      ["MRPC", "accuracy", "adapters, 8", 1e-2, 21],
      ["RTE", "accuracy", "adapters, 64", 1e-7, 62],
      ["RTE", "accuracy", "adapters, 64", 1e-3, 58],
      ["RTE", "accuracy", "adapters, 64", 1.0, 50]]
  # Of two values x - 1 and x + 1 the standard error is 1.
  assert numbers.rows[2][5:] == [pytest.approx(1.0), 2, 3e-4, 3]


@pytest.mark.parametrize("function, results, said", [
    (figures.parameter_numbers, runs("RTE", "full", None, [1]),
     "no finished run of adapters, top_n, layer_norm or prefix.* --preset=figure4"),
    (figures.parameter_numbers, [], "--preset=figure4"),
    (figures.percentile_numbers, runs("RTE", "adapters", 4, [1]),
     r"no finished run of full fine-tuning \(tune full\).* --preset=figure3"),
    (figures.percentile_numbers, runs("RTE", "full", None, [1]),
     "no finished run of adapters, top_n, layer_norm or prefix.* --preset=figure3"),
    (figures.percentile_numbers, runs("RTE", "full", None, [1]) +
     runs("CoLA", "full", None, [1]) + runs("RTE", "adapters", 4, [1]),
     "no finished run of any one method on all of CoLA, RTE"),
    (figures.init_scale_numbers, runs("RTE", "adapters", 64, [1, 2]),
     "two values of adapter_init_scale.* --preset=figure6_right"),
])
def test_what_is_missing_is_said_with_the_preset(tmp_path, function, results,
                                                 said):
  with pytest.raises(errors.InputError, match=said) as caught:
    numbers_of(function, tmp_path, results)
  assert str(caught.value).startswith(str(tmp_path))
  assert any("--preset=%s " % name in str(caught.value)
             for name in grid.PRESETS)


def everything():
  results = five_tasks()
  for task in ("CoLA", "RTE"):
    results += runs(task, "adapters", 64, [70, 71, 75], 900)
    results += runs(task, "top_n", 1, [60, 62], 1000)
    results += runs(task, "top_n", 2, [64], 2000)
  return results


@pytest.mark.parametrize("figure, ending, magic", [
    ("parameters", "png", b"\x89PNG"), ("percentiles", "pdf", b"%PDF"),
    ("init_scale", "svg", b"<?xml")])
def test_main_writes_a_picture_and_its_numbers(tmp_path, capsys, figure, ending,
                                               magic):
  pytest.importorskip("matplotlib")
  results = everything() + init_scales("RTE", 1e-4, {1e-3: 60, 1e-7: 61})
  path = results_file(tmp_path, results)
  output = tmp_path / ("picture." + ending)
  assert run_main("--figure=" + figure, "--results=" + path,
                  "--output=%s" % output) == 0
  assert output.read_bytes().startswith(magic)
  numbers = numbers_of(figures.FIGURES[figure][1], tmp_path, results)
  written = rows_of(str(tmp_path / "picture.csv"))
  assert [list(row.values()) for row in written] == [
      ["" if value is None else str(value) for value in row]
      for row in numbers.rows]
  printed = capsys.readouterr().out.splitlines()
  assert figures.FIGURES[figure][0] in printed[0]
  assert len(printed) == 2 + len(numbers.rows) + len(numbers.notes) + 1


def test_parameters_are_drawn_with_their_standard_errors(tmp_path):
  pytest.importorskip("matplotlib")
  drawing = figures.draw_parameters(
      numbers_of(figures.parameter_numbers, tmp_path, everything()))
  panels = {axes.get_title(): axes for axes in drawing.axes}
  assert sorted(panels) == ["CoLA", "MRPC", "QNLI", "RTE", "SST-2"]
  axes = panels["RTE"]
  assert axes.get_xscale() == "log"
  assert axes.get_ylabel() == "dev accuracy, in points"
  curves = {c.get_label(): c for c in axes.containers}
  assert sorted(curves) == ["LayerNorm only", "adapters", "top n layers"]
  line, _, (bars,) = curves["adapters"].lines
  assert list(line.get_xdata()) == [200, 900]
  assert list(line.get_ydata()) == [72, 72]
  segments = bars.get_segments()
  # Of 70, 71, 75 the deviation is sqrt((4 + 1 + 9) / 2); one seed has none.
  np.testing.assert_allclose(segments[-1], [[900, 72 - (7 / 3)**0.5],
                                            [900, 72 + (7 / 3)**0.5]])
  assert not np.isfinite(segments[0]).any()
  full = [line for line in axes.get_lines() if line.get_label() ==
          "full fine-tuning"]
  assert list(full[0].get_ydata()) == [73, 73]
  legend, = drawing.legends
  assert [text.get_text() for text in legend.get_texts()] == [
      "full fine-tuning", "adapters", "top n layers", "LayerNorm only"]


def test_percentiles_are_drawn_as_a_band(tmp_path):
  pytest.importorskip("matplotlib")
  results = five_tasks()
  for i, task in enumerate(["CoLA", "MRPC", "QNLI", "RTE", "SST-2"]):
    results += runs(task, "adapters", 64, [69 + i], 900)
  axes, = figures.draw_percentiles(
      numbers_of(figures.percentile_numbers, tmp_path, results)).axes
  curve, = [line for line in axes.get_lines()
            if line.get_label() == "adapters"]
  np.testing.assert_allclose(curve.get_xydata(), [[200, -2], [900, -1]])
  band = axes.collections[0].get_paths()[0].vertices
  for corner in ([200, -3.2], [200, -0.8], [900, -1]):
    assert np.abs(band - corner).sum(axis=1).min() < 1e-9


def test_flags_that_do_not_fit(tmp_path, monkeypatch):
  pytest.importorskip("matplotlib")
  path = results_file(tmp_path, everything())
  before = open(path, "rb").read()
  output = "--output=%s/a.png" % tmp_path
  for args, said in (
      (["--figure=parameters", output], "needs --results"),
      (["--figure=ablation", output], "needs --task_checkpoint"),
      (["--figure=ablation", output, "--task_checkpoint=x"],
       "needs --data_dir"),
      (["--figure=parameters", output, "--results=" + path,
        "--task_checkpoint=x"], "--task_checkpoint is not for figure"),
      (["--figure=ablation", output, "--task_checkpoint=x", "--data_dir=x",
        "--vocab_file=x", "--results=" + path], "--results is not for figure"),
      (["--figure=parameters", "--results=" + path,
        "--output=%s/results.png" % tmp_path], "which is the sweep's results"),
      (["--figure=parameters", "--results=" + path,
        "--output=%s/none/a.png" % tmp_path], "there is no directory"),
      (["--figure=parameters", "--results=" + path,
        "--output=%s/a.xyz" % tmp_path], "must be one of"),
      (["--figure=parameters", "--results=%s/none.csv" % tmp_path, output],
       "none.csv: cannot be read: No such file"),
  ):
    with pytest.raises(errors.InputError, match=said):
      run_main(*args)
  assert open(path, "rb").read() == before
  assert os.listdir(str(tmp_path)) == ["results.csv"]


def test_without_matplotlib(monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.setitem(sys.modules, "matplotlib.backends", None)
  with pytest.raises(errors.InputError,
                     match='--output needs matplotlib.*extra "plot"'):
    run_main("--figure=parameters", "--results=r.csv", "--output=a.png")


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  return run_classifier_test.Files(str(tmp_path_factory.mktemp("files")))


@pytest.mark.slow
def test_the_ablation_from_the_command_line(files, tmp_path, capsys):
  pytest.importorskip("matplotlib")
  files.run("STS-B", files.path("out"), do_train=True, num_train_epochs=12.0,
            adapter_init_scale=0.3, max_seq_length=20, learning_rate=3e-3)
  output = tmp_path / "heat.png"
  assert run_main(
      "--figure=ablation", "--task_checkpoint=" + files.path("out/task"),
      "--data_dir=" + files.path("STS-B"), "--output=%s" % output,
      "--vocab_file=" + files.path("bert/vocab.txt"),
      "--eval_batch_size=7") == 0
  assert output.read_bytes().startswith(b"\x89PNG")
  rows = rows_of(str(tmp_path / "heat.csv"))
  assert [(row["first_layer"], row["last_layer"]) for row in rows] == [
      ("", ""), ("0", "0"), ("0", "1"), ("1", "1")]
  lines = capsys.readouterr().out.splitlines()
  assert [line.split("  ")[0] for line in lines[2:-1]] == [
      "no adapters removed", "layer 0", "layer 1", "all, layers 0-1"]
  assert float(lines[2].split()[-1]) == 0
  assert float(lines[3].split()[-2]) == pytest.approx(
      float(rows[1]["score"]), abs=0.0051)
  assert sorted(os.listdir(str(tmp_path))) == ["heat.csv", "heat.png"]


def test_the_heat_map_has_an_empty_lower_triangle():
  pytest.importorskip("matplotlib")
  numbers = tables.Table(
      "", [(name, tables.NUMBER) for name in ("first_layer", "last_layer",
                                              "score", "relative_loss")],
      [[None, None, 80.0, 0.0], [3, 3, 79.2, 1.0], [3, 5, 40.0, 50.0],
       [5, 5, 80.8, -1.0]])
  drawing = figures.draw_ablation(numbers, "title")
  axes = drawing.axes[0]
  shown = np.ma.filled(axes.get_images()[0].get_array(), np.nan)
  np.testing.assert_array_equal(shown, [[1.0, 50.0], [np.nan, -1.0]])
  assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "5"]
  assert {text.get_text(): text.get_position() for text in axes.texts} == {
      "1.0": (0, 0), "50": (1, 0), "-1.0": (1, 1)}
