"""The tables and the CSV of a sweep's results, by hand."""

import csv
import io

import pytest

from adapter_bert.base import errors
from adapter_bert.experiments import grid
from adapter_bert.experiments import report


def refused(function, *args):
  with pytest.raises(errors.InputError) as caught:
    function(*args)
  line = str(caught.value)
  assert "\n" not in line
  return line


def result(score, seed=0, task="CoLA", trained=0.02, **settings):
  """As in a result.json, of 120 seconds."""
  return {"settings": dict(settings, task_name=task, seed=seed), "task": task,
          "metric": "matthews", "score": float(score),
          "metrics": {"eval_matthews": score / 100, "loss": 0.5},
          "trained": {"parameters": 20, "head": 3, "of_encoder": 0.04,
                      "of_whole": trained, "whole": 1000}, "seconds": 120.0}


# The mean of 80, 82, 84 is 82; their variance (4 + 0 + 4) / 2 = 4, and the
# standard error 2 / sqrt(3) = 1.1547.
RESULTS = (
    [result(score, seed, adapter_size=8)
     for seed, score in enumerate((80, 82, 84))] +
    # A better seed, a worse mean.
    [result(score, seed, adapter_size=8, learning_rate=1e-3)
     for seed, score in enumerate((60, 70, 95))] +
    # The best mean, of fewer seeds.
    [result(99, 0, adapter_size=8, learning_rate=1e-4)] +
    [result(score, seed, adapter_size=64, trained=0.1)
     for seed, score in enumerate((83, 83, 83))] +
    [result(score, seed, task="RTE", trained=t, adapter_size=size)
     for size, t, scores in ((8, 0.02, (70, 72, 74)), (64, 0.1, (50, 52, 54)))
     for seed, score in enumerate(scores)] +
    [result(90, 0, tune="full", trained=1.0),
     result(85, 0, tune="top_n", top_n_layers=1, trained=0.3)])


def rows_of(markdown, title):
  """A markdown table below its title: a list of dicts."""
  lines = markdown.split("**%s**\n\n" % title)[1].split("\n\n")[0].split("\n")
  cells = [[cell.strip() for cell in line.strip("|").split("|")]
           for line in lines]
  return [dict(zip(cells[0], row)) for row in cells[2:]]


def test_the_chosen_settings_by_hand():
  rows = rows_of(report.results_tables(RESULTS),
                 "The settings chosen for each task")
  found = {(row["task"], row["method"]): row for row in rows}
  assert len(rows) == len(found) == 3 + 2 + 3
  assert found["CoLA", "adapters, 8"] == {
      "task": "CoLA", "metric": "matthews", "method": "adapters, 8",
      "chosen": "lr 5e-05, epochs 3", "mean": "82.00", "s.e.": "1.15",
      "best": "84.00", "seeds": "3", "trained": "2.00%",
      "total x": "1.04x"}  # two tasks: 1 + 2 * 0.02
  best = found["CoLA", "adapters, best of 8, 64"]
  assert best["chosen"] == "adapters, 64: lr 5e-05, epochs 3"
  assert (best["mean"], best["s.e."], best["trained"]) == (
      "83.00", "0.00", "10.00%")
  assert found["RTE", "adapters, best of 8, 64"]["mean"] == "72.00"
  full = found["CoLA", "full fine-tuning"]
  assert (full["s.e."], full["seeds"], full["total x"]) == ("", "1", "2.00x")
  assert found["CoLA", "top 1 layer"]["total x"] == "1.60x"


# An MLP of 300 of 340 parameters is trained and not kept: of the 1000 of the
# model 34% are trained, and two tasks need 1 + 2 * 0.04.
PREFIXES = [
    dict(result(score, seed, tune="prefix", prefix_length=length, **more),
         trained={"parameters": 40 + mlp, "stored": 40, "head": 3,
                  "of_encoder": 0.5, "of_whole": (40 + mlp) / 1000,
                  "whole": 1000})
    for length, mlp, scores, more in (
        (20, 300, (80, 82, 84), {"prefix_hidden_size": 7}),
        (20, 0, (70, 70, 70), {}),
        (5, 0, (71, 71, 71), {"prefix_init": "words"}))
    for seed, score in enumerate(scores)]


def test_a_prefixs_mlp_is_trained_and_not_kept():
  text = report.results_tables(PREFIXES + RESULTS)
  rows = {row["method"]: row for row in rows_of(
      text, "The settings chosen for each task") if row["task"] == "CoLA"}
  assert [row["method"] for row in rows_of(
      text, "Methods: mean ± standard error")][3:7] == [
          "prefix, 5", "prefix, 20", "prefix, best of 5, 20",
          "prefix, 20, MLP"]
  found = rows["prefix, 20, MLP"]
  assert (found["chosen"], found["mean"], found["trained"],
          found["total x"]) == ("lr 5e-05, epochs 3, MLP 7", "82.00", "34.00%",
                                "1.08x")
  found = rows["prefix, best of 5, 20"]
  assert (found["chosen"], found["trained"], found["total x"]) == (
      "prefix, 5: lr 5e-05, epochs 3, prefix from words", "4.00%", "1.08x")


def test_prefixes_in_the_csv(tmp_path):
  path = tmp_path / "results.csv"
  path.write_text(report.results_csv(
      {str(i): r for i, r in enumerate(PREFIXES + RESULTS)}), encoding="utf-8")
  rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
  cells = lambda row: [row[name] for name in (
      "method", "adapter_size", "prefix_length", "prefix_hidden_size",
      "trained_parameters", "stored_parameters")]
  assert cells(rows[0]) == ["adapters, 8", "8", "", "", "20", "20"]
  assert cells([row for row in rows if row["method"] == "prefix, 20"][0]) == [
      "prefix, 20", "", "20", "0", "40", "40"]
  assert cells([r for r in rows if r["prefix_hidden_size"] == "7"][0]) == [
      "prefix, 20, MLP", "", "20", "7", "340", "40"]
  found = {one.method.label: one for one in report.candidates_of(
      report.read_results(str(path))) if one.task == "CoLA"}
  one = found["prefix, 20, MLP"]
  assert (one.parameters, one.stored) == (340, 40)
  assert (one.trained, one.kept) == (pytest.approx(0.34), pytest.approx(0.04))


def test_the_csv_of_a_sweep_that_did_not_say_what_is_stored(tmp_path):
  rows = list(csv.reader(io.StringIO(report.results_csv({"a": RESULTS[0]}))))
  column = rows[0].index("stored_parameters")
  path = tmp_path / "results.csv"
  with open(path, "w", encoding="utf-8", newline="") as output:
    csv.writer(output).writerows(row[:column] + row[column + 1:]
                                 for row in rows)
  one, = report.candidates_of(report.read_results(str(path)))
  assert (one.stored, one.parameters, one.kept) == (20, 20,
                                                    pytest.approx(0.02))


def test_the_summary_by_hand():
  rows = rows_of(report.results_tables(RESULTS),
                 "Methods: mean ± standard error")
  assert [row["method"] for row in rows] == [
      "adapters, 8", "adapters, 64", "adapters, best of 8, 64",
      "full fine-tuning", "top 1 layer"]
  assert rows[0] == {
      "method": "adapters, 8", "CoLA": "82.0 ± 1.2", "RTE": "72.0 ± 1.2",
      "average": "77.0", "trained": "2.00%", "total x": "1.04x",
      "minutes": "2.0"}
  # 64 for CoLA and 8 for RTE: (10% + 2%) / 2, and 1 + 0.1 + 0.02.
  assert rows[2] == {
      "method": "adapters, best of 8, 64", "CoLA": "83.0 ± 0.0",
      "RTE": "72.0 ± 1.2", "average": "77.5", "trained": "6.00%",
      "total x": "1.12x", "minutes": "2.0"}
  # No average where a task is missing.
  assert (rows[3]["CoLA"], rows[3]["RTE"], rows[3]["average"]) == (
      "90.0", "", "")


def test_every_setting_is_in_a_table_and_what_is_the_same_is_said_once():
  text = report.results_tables([
      result(80, seed, bucket_window=20, adapter_init_scale=scale)
      for scale in (1e-2, 1e-4) for seed in (0, 1)])
  rows = rows_of(text, "All settings")
  assert [row["settings"] for row in rows] == [
      "lr 5e-05, epochs 3, init scale 0.0001",
      "lr 5e-05, epochs 3, init scale 0.01"]
  assert [row["seeds"] for row in rows] == ["2", "2"]
  assert "In all runs: bucket_window 20." in text
  assert "best of" not in text.split("\n\n")[1]
  assert "No run has finished" in report.results_tables([])


def test_of_an_error_the_least_is_the_best():
  results = [dict(result(score, seed, learning_rate=rate),
                  metric="mean_squared_error")
             for rate, scores in ((1e-3, (2, 3)), (1e-4, (4, 0.5)))
             for seed, score in enumerate(scores)]
  row, = rows_of(report.results_tables(results),
                 "The settings chosen for each task")
  assert (row["chosen"], row["mean"], row["best"]) == (
      "lr 0.0001, epochs 3", "2.25", "0.50")


def test_the_csv():
  results = {"run-%d" % i: r for i, r in enumerate(RESULTS)}
  results["low"] = result(10, 2, tune="head", precision="bfloat16")
  rows = list(csv.DictReader(io.StringIO(report.results_csv(results))))
  assert len(rows) == len(results)
  assert {row["run"] for row in rows} == set(results)
  first = rows[0]
  # By task, method, size, then the rates.
  assert (first["task"], first["learning_rate"]) == ("CoLA", "5e-05")
  assert [row["seed"] for row in rows[:3]] == ["0", "1", "2"]
  assert {key: first[key] for key in (
      "method", "tune", "adapter_size", "top_n_layers", "num_train_epochs",
      "adapter_init_scale", "precision", "metric", "score", "eval_matthews",
      "trained_parameters", "trained_percent", "trained_percent_of_encoder",
      "head_parameters", "total_parameters", "seconds")} == {
          "method": "adapters, 8", "tune": "adapters", "adapter_size": "8",
          "top_n_layers": "", "num_train_epochs": "3.0",
          "adapter_init_scale": "0.001", "precision": "float32",
          "metric": "matthews", "score": "80.0000", "eval_matthews": "0.8",
          "trained_parameters": "20", "trained_percent": "2.000000",
          "trained_percent_of_encoder": "4.000000", "head_parameters": "3",
          "total_parameters": "1000", "seconds": "120.0"}
  head, = [row for row in rows if row["tune"] == "head"]
  assert (head["adapter_size"], head["adapter_init_scale"],
          head["precision"]) == ("", "", "bfloat16")


def test_the_csv_is_read_back(tmp_path):
  path = tmp_path / "results.csv"
  more = [result(10, 2, tune="head", precision="bfloat16",
                 compile_chains=False, bucket_window=20),
          result(11, 0, adapter_layers="0-1,4", learning_rate=1e-3)]
  path.write_text(report.results_csv({str(i): r for i, r in enumerate(
      RESULTS + more)}), encoding="utf-8")
  expected = report.candidates_of(RESULTS + more)
  found = report.candidates_of(report.read_results(str(path)))
  for one, other in zip(found, expected):
    for name in grid.SETTINGS:
      if name not in ("seed", "task_name", *one.method.meaningless):
        values = [grid.setting(s.settings, name) for s in (one, other)]
        assert values[0] == values[1], name
        assert type(values[0]) is type(values[1]) or name in (
            "learning_rate", "num_train_epochs")
    assert (one.task, one.metric, one.method, one.scores, one.trained,
            one.parameters, one.seconds) == (
                other.task, other.metric, other.method, other.scores,
                pytest.approx(other.trained), other.parameters, other.seconds)
  assert len(found) == len(expected)
  assert expected[0].parameters == 20


@pytest.mark.parametrize("text, said", [
    (None, "results.csv: cannot be read: No such file"),
    ("a,b\n1,2\n", "has no column 'score'; give a sweep's results.csv"),
    ("task,metric,score\nRTE,accuracy,high\n", "cannot be read as a sweep's"),
    ("task,metric,score,seed\nRTE,accuracy,50,x\n", "cannot be read as a"),
    ("task,metric,score\nRTE,accuracy,nan\n", "the score of a run is nan"),
    ("task,metric,score,tune\nRTE,accuracy,50,adaptors\n",
     "results.csv: unknown tuning method 'adaptors'"),
    (b"\xff\xfe", "cannot be read as a sweep's results.csv"),
])
def test_another_file_than_the_csv_is_refused(tmp_path, text, said):
  path = tmp_path / "results.csv"
  if text is not None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
  assert said in refused(report.read_results, str(path))


def test_other_files_among_the_runs(tmp_path, caplog):
  runs = tmp_path / "runs"
  (runs / "half-finished").mkdir(parents=True)
  (runs / "notes.txt").write_text("mine", encoding="utf-8")
  assert report.finished_results(str(tmp_path)) == {}
  damaged = runs / "half-finished" / "result.json"
  for text, said in ((b"{}", "has no 'settings'"),
                     (b"[1]", "it must be an object"),
                     (b'{"a"', "is not JSON"),
                     (b"", "is empty"), (b"\xff", "is not text")):
    damaged.write_bytes(text)
    caplog.clear()
    # The others' results are reported all the same.
    assert report.finished_results(str(tmp_path)) == {}
    line, = caplog.messages
    assert line.startswith("%s: " % damaged) and said in line
