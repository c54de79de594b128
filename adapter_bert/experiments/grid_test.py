"""Grids, the choice of the best, the tables, and real sweeps of tiny runs."""

import csv
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from absl import flags
import numpy as np
import pytest

from adapter_bert.checkpoints import checkpoints
from adapter_bert.experiments import count_parameters
from adapter_bert.base import errors
import modeling
import run_classifier_test
from adapter_bert.experiments import sweep

PROGRAM = [sys.executable, "-m", "adapter_bert.experiments.sweep"]


def runs_of(*grids, **common):
  return sweep.runs_of({"common": common, "grids": list(grids)}, "here")


def refused(function, *args):
  with pytest.raises(errors.InputError) as caught:
    function(*args)
  line = str(caught.value)
  assert "\n" not in line
  return line


def flags_of(*args):
  flag_values = flags.FlagValues()
  sweep.define_flags(flag_values)
  flag_values(["sweep"] + list(args))
  return flag_values


# --------------------------------------------------------- from grids to runs


def test_a_grid_is_every_combination_in_order():
  runs = runs_of({"task_name": ["RTE", "CoLA"], "learning_rate": [1e-3, 1e-4],
                  "seed": [0, 1, 2]}, num_train_epochs=5)
  assert [(run["task_name"], run["learning_rate"], run["seed"])
          for run in runs] == [
              (task, rate, seed) for task in ("RTE", "CoLA")
              for rate in (1e-3, 1e-4) for seed in (0, 1, 2)]
  assert {run["num_train_epochs"] for run in runs} == {5}
  assert len({run.slug for run in runs}) == 12


def test_equal_runs_are_one():
  # A default given or not, another spelling of the task, 5.0 and 5.
  runs = runs_of({"task_name": "MRPC", "num_train_epochs": 5},
                 {"task_name": "mrpc", "num_train_epochs": 5.0, "seed": 0,
                  "adapter_size": [64, 8], "adapter_init_scale": 1e-3})
  assert [run["adapter_size"] for run in runs] == [64, 8]
  # What means nothing for a method does not make runs of it.
  runs = runs_of({"task_name": "RTE", "adapter_size": [8, 64],
                  "tune": ["adapters", "full", "top_n", "head"],
                  "top_n_layers": [1, 2], "adapter_init_scale": [1e-3, 1e-2]})
  assert [tuple(run.settings.get(name) for name in (
      "tune", "adapter_size", "adapter_init_scale", "top_n_layers"))
          for run in runs] == [
              (None, 8, None, None), (None, 8, 1e-2, None),
              ("full", None, None, None), ("top_n", None, None, 1),
              ("top_n", None, None, 2), ("head", None, None, None),
              (None, None, None, None), (None, None, 1e-2, None)]


def test_the_name_of_a_run_stays():
  # Finished runs of earlier sweeps are found by it.
  run, = runs_of({"task_name": "CoLA", "num_train_epochs": 0.03,
                  "precision": "bfloat16", "bucket_window": 20,
                  "adapter_size": 64, "learning_rate": 1e-3, "seed": 1,
                  "tokenize_workers": 2})
  assert run.slug == "CoLA-adapters64-lr0.001-ep0.03-seed1-23a00bd9"
  assert run.label == ("CoLA, adapters, 64: lr 0.001, epochs 0.03, "
                       "bucket_window 20, precision bfloat16, "
                       "tokenize_workers 2, seed 1")


@pytest.mark.parametrize("grids, said", [
    ([{"task_name": "RTE", "learning_rat": 1}],
     "here: grid 1: unknown key 'learning_rat'; did you mean learning_rate?"),
    ([{"task_name": "RTE"}, {"epochs": 3}],
     "here: grid 2: unknown key 'epochs'; did you mean num_train_epochs?"),
    ([{"xyz": 3}], "grid 1: unknown key 'xyz'; known are data_dir, task_name"),
    ({"grid": [{}]}, "here: unknown key 'grid'; did you mean grids?"),
    ({"common": {"sead": 0}, "grids": [{}]}, "here: common: unknown key"),
    ([{"output_dir": "x"}], "'output_dir' is not part of a grid"),
    ([{"do_train": True}], "'do_train' is not part of a grid"),
    ([{"learning_rate": "3e-4"}],
     'learning_rate is "3e-4"; it must be a number'),
    ([{"seed": [0, 1.5]}], "seed is 1.5; it must be a whole number"),
    ([{"adapter_size": True}], "adapter_size is true; it must be a whole"),
    ([{"learning_rate": True}], "learning_rate is true; it must be a number"),
    ([{"learning_rate": None}], "learning_rate is null; it must be a number"),
    ([{"compile_chains": 1}], "compile_chains is 1; it must be true or false"),
    ([{"task_name": [["RTE"]]}], 'task_name is ["RTE"]; it must be a string'),
    ([{"learning_rate": float("nan")}], "learning_rate is NaN; it must be a"),
    ([{"learning_rate": 10**400}], "learning_rate is 1000"),
    ([{"seed": []}], "seed is an empty list"),
    ([{"seed": 1}], "grid 1: there is no task; give task_name"),
    ([{"task_name": "RET"}], "unknown task 'RET'"),
    ([{"task_name": "RTE", "tune": "adapter"}], "unknown tuning method"),
    ([{"task_name": "RTE", "tune": "top_n"}], "give top_n_layers"),
    ([{"task_spec": "nowhere.json"}], "nowhere.json"),
    ([], "must be a list of grids"),
    ({"common": {}}, "must be a list of grids"),
    ("RTE", 'must be a list of grids, [{...}, ...], or an object with "grids", '
     'found "RTE"'),
    (["RTE"], 'grid 1: must be an object of settings, found "RTE"'),
])
def test_what_is_no_grid_is_refused_in_a_line(grids, said):
  assert said in refused(sweep.runs_of, grids, "here")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
  path = tmp_path / "grids.json"
  path.write_bytes(b'\xef\xbb\xbf[{"task_name": "RTE"}]')
  run, = sweep.runs_from_flags(flags_of("--sweep_file=%s" % path))
  assert run["task_name"] == "RTE"


@pytest.mark.parametrize("text, said", [
    ("[{", "cannot be read as JSON"),
    ('[{"seed": 1, "seed": 2}]', 'the key "seed" stands twice'),
    (None, "No such file"),
])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, text, said):
  path = tmp_path / "grids.json"
  if text:
    path.write_text(text, encoding="utf-8")
  line = refused(sweep.runs_from_flags, flags_of("--sweep_file=%s" % path))
  assert said in line and str(path) in line


@pytest.mark.parametrize("args, said", [
    (["--tasks=RTE", "--seeds=0,x"], '--seeds: seed is "x"; it must be a'),
    (["--tasks=RTE", "--seeds=0,"], '--seeds: seed is ""'),
    (["--tasks=RTE", "--set=warmup=0"], "--set: unknown key 'warmup'; did you "
     "mean warmup_proportion?"),
    (["--tasks=RTE", "--set=precision"], "give NAME=VALUE"),
    (["--preset=table1"], "preset table1 is unknown; known are glue_adapters"),
    (["--preset=figure4", "--sweep_file=x"], "both given"),
    ([], "nothing to sweep over"),
    (["--preset=further_top_n"], "there is no task"),
])
def test_flags_that_make_no_sweep_are_refused(args, said):
  assert said in refused(sweep.runs_from_flags, flags_of(*args))


def test_flags_make_a_grid_and_go_over_a_preset():
  runs = sweep.runs_from_flags(flags_of(
      "--tasks=CoLA,RTE", "--tunes=adapters,top_n",
      "--learning_rates=1e-3,3e-4", "--epochs=.5", "--adapter_sizes=8",
      "--top_n_layers=1,2", "--seeds=3",
      "--init_scales=1e-2", "--set=compile_chains=false",
      "--set=adapter_layers=0-1", "--set=precision=bfloat16"))
  assert len(runs) == 2 * 2 * 3  # tasks, rates, adapters and two of top-n
  assert runs[0].settings == dict(
      task_name="CoLA", learning_rate=1e-3, num_train_epochs=0.5,
      adapter_size=8, seed=3, adapter_init_scale=1e-2, compile_chains=False,
      adapter_layers="0-1", precision="bfloat16")
  assert runs[-1].settings == dict(
      task_name="RTE", tune="top_n", top_n_layers=2, learning_rate=3e-4,
      num_train_epochs=0.5, seed=3, compile_chains=False, precision="bfloat16")
  runs = sweep.runs_from_flags(flags_of("--preset=figure4", "--tasks=RTE",
                                        "--seeds=0", "--epochs=1"))
  assert {run["task_name"] for run in runs} == {"RTE"}
  assert len(runs) == 10 * 3 + 3 + 12 * 3 + 3


# By hand: tasks x methods x rates x epochs x seeds.
@pytest.mark.parametrize("preset, args, count", [
    ("glue_adapters", [], 8 * 3 * 3 * 2 * 5),
    ("further_adapters", ["--tasks=RTE"], 6 * 4 * 3 * 5),
    ("further_top_n", ["--tasks=RTE"], 8 * 4 * 3 * 5),
    ("figure3", [], 8 * (10 + 1 + 12 + 1) * 3 * 2 * 3),
    ("figure4", [], 2 * (10 + 1 + 12 + 1) * 3 * 2 * 3),
    ("figure6_right", [], 2 * 8 * 3),
])
def test_the_papers_sweeps(preset, args, count):
  runs = sweep.runs_from_flags(flags_of("--preset=" + preset, *args))
  assert len(runs) == count
  if preset == "glue_adapters":
    assert {run["adapter_size"] for run in runs} == {8, 64, 256}
    assert {run["learning_rate"] for run in runs} == {3e-5, 3e-4, 3e-3}
    assert {run["num_train_epochs"] for run in runs} == {3, 20}
  if preset == "figure6_right":
    assert {run["adapter_init_scale"] for run in runs} == {
        1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1}


def test_each_job_has_its_own_cores():
  cores = os.sched_getaffinity(0)
  assert sweep.shares_of_cores(1) == [None]
  assert sweep.shares_of_cores(len(cores) + 1) == [None] * (len(cores) + 1)
  if len(cores) > 1:
    shares = sweep.shares_of_cores(2)
    assert set.union(*shares) == cores and not set.intersection(*shares)


# ----------------------------------------------------------------- the tables


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
  rows = rows_of(sweep.results_tables(RESULTS),
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


def test_the_summary_by_hand():
  rows = rows_of(sweep.results_tables(RESULTS),
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
  text = sweep.results_tables([
      result(80, seed, bucket_window=20, adapter_init_scale=scale)
      for scale in (1e-2, 1e-4) for seed in (0, 1)])
  rows = rows_of(text, "All settings")
  assert [row["settings"] for row in rows] == [
      "lr 5e-05, epochs 3, init scale 0.0001",
      "lr 5e-05, epochs 3, init scale 0.01"]
  assert [row["seeds"] for row in rows] == ["2", "2"]
  assert "In all runs: bucket_window 20." in text
  assert "best of" not in text.split("\n\n")[1]
  assert "No run has finished" in sweep.results_tables([])


def test_of_an_error_the_least_is_the_best():
  results = [dict(result(score, seed, learning_rate=rate),
                  metric="mean_squared_error")
             for rate, scores in ((1e-3, (2, 3)), (1e-4, (4, 0.5)))
             for seed, score in enumerate(scores)]
  row, = rows_of(sweep.results_tables(results),
                 "The settings chosen for each task")
  assert (row["chosen"], row["mean"], row["best"]) == (
      "lr 0.0001, epochs 3", "2.25", "0.50")


def test_the_csv():
  results = {"run-%d" % i: r for i, r in enumerate(RESULTS)}
  results["low"] = result(10, 2, tune="head", precision="bfloat16")
  rows = list(csv.DictReader(io.StringIO(sweep.results_csv(results))))
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
  path.write_text(sweep.results_csv({str(i): r for i, r in enumerate(
      RESULTS + more)}), encoding="utf-8")
  expected = sweep.settings_of(RESULTS + more)
  found = sweep.settings_of(sweep.read_results(str(path)))
  for one, other in zip(found, expected):
    for name in sweep.SETTINGS:
      if name not in ("seed", "task_name", *one.method.meaningless):
        values = [sweep.setting(s.settings, name) for s in (one, other)]
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
  assert said in refused(sweep.read_results, str(path))


def test_other_files_among_the_runs(tmp_path):
  runs = tmp_path / "runs"
  (runs / "half-finished").mkdir(parents=True)
  (runs / "notes.txt").write_text("mine", encoding="utf-8")
  assert sweep.finished_results(str(tmp_path)) == {}
  damaged = runs / "half-finished" / "result.json"
  for text, said in (("{}", "is not a run's result; delete it"),
                     ("[1]", "is not a run's result"),
                     ('{"a"', "cannot be read")):
    damaged.write_text(text, encoding="utf-8")
    line = refused(sweep.finished_results, str(tmp_path))
    assert said in line and str(damaged) in line


# ------------------------------------------------------------------ real runs


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  return run_classifier_test.Files(str(tmp_path_factory.mktemp("files")))


def arguments(files, output_dir, *args, glue_dir=None):
  bert = files.path("bert")
  return ["--glue_dir=%s" % (glue_dir or files.root),
          "--vocab_file=%s/vocab.txt" % bert,
          "--bert_config_file=%s/bert_config.json" % bert,
          "--init_checkpoint=%s/bert_model.ckpt" % bert,
          "--output_dir=%s" % output_dir, "--set=max_seq_length=24",
          "--set=train_batch_size=4", "--set=compile_chains=false",
          "--adapter_sizes=3", "--learning_rates=1e-2"] + list(args)


def run_main(files, output_dir, *args, **changes):
  """The exit status of the real main in this process."""
  return sweep.main(["sweep"], flags_of(
      *arguments(files, output_dir, *args, **changes)))


def started(files, output_dir, *args):
  """The real program in a process of its own."""
  return subprocess.Popen(
      PROGRAM + arguments(files, output_dir, *args),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_dirs(output_dir):
  runs = os.path.join(str(output_dir), "runs")
  return sorted(os.path.join(runs, name) for name in os.listdir(runs))


def read(*parts):
  with open(os.path.join(*[str(part) for part in parts]),
            encoding="utf-8") as source:
    return source.read()


def rows_in(output_dir):
  return list(csv.DictReader(io.StringIO(read(output_dir, "results.csv"))))


def wait_for(condition, process=None):
  until = time.monotonic() + 600
  while time.monotonic() < until:
    if condition():
      return
    assert process is None or process.poll() is None, process.communicate()
    time.sleep(0.02)
  raise AssertionError("it did not happen")


@pytest.fixture(scope="module", name="swept")
def fixture_swept(files, tmp_path_factory):
  """The output_dir of a finished sweep of two runs at a time."""
  output_dir = str(tmp_path_factory.mktemp("swept"))
  assert run_main(files, output_dir, "--tasks=MNLI", "--tunes=adapters,full",
                  "--epochs=1", "--jobs=2") == 0
  return output_dir


def test_a_sweep_leaves_results_and_task_checkpoints(files, swept):
  rows = rows_in(swept)
  assert [row["method"] for row in rows] == ["adapters, 3", "full fine-tuning"]
  config = files.config
  counts = count_parameters.count(config, [3], 3)
  for row, tune in zip(rows, ("adapters", "full")):
    run_dir = os.path.join(swept, "runs", row["run"])
    said = dict(line.split(" = ") for line in
                read(run_dir, "eval_results.txt").splitlines())
    other = dict(line.split(" = ") for line in
                 read(run_dir, "eval_results_mm.txt").splitlines())
    assert float(row["score"]) == pytest.approx(
        100 * float(said["eval_accuracy"]), abs=1e-4)
    assert row["eval_accuracy_mm"] == other["eval_accuracy"]
    assert row["eval_loss_mm"] == other["eval_loss"]
    trained = counts.trained(modeling.Tuning(tune),
                             3 if tune == "adapters" else None)
    assert row["trained_parameters"] == "%d" % trained.parameters
    assert row["total_parameters"] == "%d" % counts.whole
    # What is trained is in the task checkpoint, and the head.
    held = checkpoints.Weights(
        [checkpoints.find(os.path.join(run_dir, "task"))]).shapes
    assert sum(np.prod(shape, dtype=int) for name, shape in held.items()
               if name != "global_step") == trained.parameters + trained.head
    # What only a run that goes on needs is gone.
    assert not checkpoints.numbered(run_dir)
    assert not os.path.lexists(os.path.join(run_dir, "records"))
    assert float(row["seconds"]) > 0
  assert not os.path.exists(os.path.join(swept, "records"))
  assert "| full fine-tuning |" in read(swept, "table.md")


def test_finished_runs_are_not_repeated(files, swept, capsys):
  before = {run_dir: read(run_dir, "log.txt") for run_dir in run_dirs(swept)}
  table = read(swept, "table.md")
  os.remove(os.path.join(swept, "table.md"))
  # Neither a default nor what no result depends on makes another run.
  assert run_main(files, swept, "--tasks=mnli", "--tunes=full,adapters",
                  "--epochs=1.0", "--seeds=0", "--set=eval_batch_size=7") == 0
  assert "2 runs, 2 of them finished before" in capsys.readouterr().out
  assert {d: read(d, "log.txt") for d in run_dirs(swept)} == before
  assert read(swept, "table.md") == table


def test_the_report_alone(swept, tmp_path):
  copy = str(tmp_path / "copy")
  shutil.copytree(swept, copy)
  os.remove(os.path.join(copy, "results.csv"))
  os.remove(os.path.join(copy, "table.md"))
  assert sweep.main(["sweep"], flags_of("--report_only",
                                        "--output_dir=" + copy)) == 0
  for name in ("results.csv", "table.md"):
    assert read(copy, name) == read(swept, name)
  line = refused(sweep.main, ["sweep"], flags_of(
      "--report_only", "--output_dir=%s" % tmp_path))
  assert str(tmp_path) in line


def test_one_sweep_at_a_time(files, swept):
  with sweep.lock_sweep(swept):
    assert "another sweep is at work in %s" % swept in refused(
        run_main, files, swept, "--tasks=MNLI")


def test_results_of_other_weights_are_not_mixed(files, swept, tmp_path):
  other = str(tmp_path / "other.ckpt")
  run_classifier_test.write_base(other, files.config)
  weights = checkpoints.Weights([other])
  arrays = {name: weights.value(name) for name in weights.shapes}
  arrays["bert/pooler/dense/bias"] = arrays["bert/pooler/dense/bias"] + 1
  checkpoints.write(other, arrays)
  for base in ("--init_checkpoint=" + other, "--init_checkpoint="):
    line = refused(run_main, files, swept, "--tasks=MNLI", "--epochs=1", base)
    assert "other weights" in line and swept in line


@pytest.mark.parametrize("args, said", [
    (["--tasks=RTE"], "RTE/train.tsv"),
    (["--tasks=AX"], "the task has no train file"),
    (["--tasks=MRPC", "--glue_dir="], "glue_dir is not given"),
    (["--tasks=MRPC", "--vocab_file="], "vocab_file is not given"),
    (["--tasks=MRPC", "--tunes=top_n", "--top_n_layers=1,3"],
     "MRPC, top 3 layers"),
    (["--tasks=MRPC", "--set=precision=float16"], "precision is float16"),
    (["--tasks=MRPC", "--learning_rates=1e-2,-1"], "learning_rate is -1"),
    (["--tasks=MRPC", "--init_checkpoint=nowhere"], "nowhere"),
    (["--tasks=MRPC", "--set=distribution=mirror"], "distribution is 'mirror'"),
])
def test_what_cannot_run_is_refused_before_anything_runs(files, tmp_path, args,
                                                         said):
  output_dir = str(tmp_path / "out")
  assert said in refused(run_main, files, output_dir, *args)
  assert not os.path.exists(output_dir)


def runs_and_options(files, output_dir, **grid):
  """Of a sweep over MRPC from random weights."""
  return (runs_of(dict(grid, task_name="MRPC", max_seq_length=24)),
          sweep.Options(str(output_dir), files.path("bert/vocab.txt"),
                        files.path("bert/bert_config.json"), None, files.root))


def test_runs_of_random_weights_are_announced(files, tmp_path, capsys):
  runs, options = runs_and_options(files, tmp_path)
  sweep.check_runs(runs, options)
  assert "random weights" in capsys.readouterr().out
  config = options.config(runs[0])
  assert (config.keep_checkpoint_max, config.save_checkpoints_secs) == (1, 60)


@pytest.mark.parametrize("settings,expected", [
    (dict(save_best=True), (1, 300)),  # the best is chosen as it always was
    (dict(keep_checkpoint_max=5, save_checkpoints_secs=300), (5, 300)),
])
def test_how_often_runs_are_saved(files, tmp_path, settings, expected):
  runs, options = runs_and_options(files, tmp_path, **settings)
  config = options.config(runs[0])
  assert (config.keep_checkpoint_max, config.save_checkpoints_secs) == expected


def test_combinations_are_checked_too(files, tmp_path):
  runs, options = runs_and_options(files, tmp_path, save_best=[True, False],
                                   early_stopping=[3, 0])
  assert "early_stopping is 3, but save_best" in refused(
      sweep.check_runs, runs, options)


@pytest.mark.slow
def test_a_failing_run_is_reported_and_the_others_go_on(files, tmp_path,
                                                        capsys):
  for task in ("MRPC", "CoLA"):
    shutil.copytree(files.path(task), str(tmp_path / "glue" / task))
  with open(str(tmp_path / "glue" / "MRPC" / "dev.tsv"), "a",
            encoding="utf-8") as dev:
    dev.write("maybe\t1\t2\tthe cat sat\tthe dog ran\n")
  out = str(tmp_path / "out")
  args = ["--tasks=MRPC,CoLA", "--epochs=.4"]
  glue_dir = str(tmp_path / "glue")
  assert run_main(files, out, *args, glue_dir=glue_dir) == 1
  said = capsys.readouterr().out.splitlines()
  assert "1 of 2 runs failed:" in said
  line = said[-1]
  assert "maybe" in line and "MRPC, adapters, 3" in line
  log = re.search(r"\(log: (.*)\)$", line).group(1)
  assert "maybe" in read(log)
  assert [row["task"] for row in rows_in(out)] == ["CoLA"]
  # Mended, it is the one that runs again.
  shutil.copy(files.path("MRPC/dev.tsv"), os.path.join(glue_dir, "MRPC"))
  assert run_main(files, out, *args, glue_dir=glue_dir) == 0
  assert "2 runs, 1 of them finished before" in capsys.readouterr().out
  assert [row["task"] for row in rows_in(out)] == ["CoLA", "MRPC"]


LONG = ["--tasks=MRPC", "--epochs=200", "--seeds=0,1", "--jobs=2",
        "--set=save_checkpoints_steps=20"]


def locks_are_free(output_dir):
  """Whether no process works on a run any more."""
  for run_dir in run_dirs(output_dir):
    with open(os.path.join(run_dir, "lock"), "a", encoding="utf-8") as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        return False
  return True


def saved(output_dir):
  """The checkpoints of half-finished runs."""
  if not os.path.isdir(os.path.join(output_dir, "runs")):
    return []
  return [prefix for run_dir in run_dirs(output_dir)
          for prefix in checkpoints.numbered(run_dir)]


@pytest.fixture(scope="module", name="uninterrupted")
def fixture_uninterrupted(files, tmp_path_factory):
  output_dir = str(tmp_path_factory.mktemp("uninterrupted"))
  assert run_main(files, output_dir, *LONG) == 0
  return [{key: value for key, value in row.items() if key != "seconds"}
          for row in rows_in(output_dir)]


def check_resumed(files, output_dir, uninterrupted):
  """The sweep goes on, and ends as one that was never stopped."""
  assert run_main(files, output_dir, *LONG) == 0
  assert any("going on from" in read(run_dir, "log.txt") or
             "nothing to train" in read(run_dir, "log.txt")
             for run_dir in run_dirs(output_dir))
  rows = rows_in(output_dir)
  for row in rows:
    row.pop("seconds")
  assert rows == uninterrupted


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on(files, tmp_path, uninterrupted):
  out = str(tmp_path / "out")
  for number in (signal.SIGINT, signal.SIGTERM):
    before = saved(out)
    process = started(files, out, *LONG)
    wait_for(lambda before=before: saved(out) not in ([], before), process)
    process.send_signal(number)
    output, error = process.communicate()
    assert process.returncode == 130, error
    assert output.splitlines()[-1] == (
        "stopped; the same command goes on from here")
    assert "Traceback" not in error
    assert locks_are_free(out)
    assert not os.path.exists(os.path.join(out, "results.csv"))
  # As another sweep into the same directory does at its end.
  shutil.rmtree(os.path.join(out, "records"))
  check_resumed(files, out, uninterrupted)


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(files, tmp_path, uninterrupted, capsys):
  out = str(tmp_path / "out")
  process = started(files, out, *LONG)
  wait_for(lambda: saved(out), process)
  process.kill()
  process.communicate()
  # Its runs are at work still, and no second process may join them.
  assert not locks_are_free(out)
  check_resumed(files, out, uninterrupted)
  assert "after the process that an earlier sweep left" in (
      capsys.readouterr().out)


@pytest.mark.slow
def test_a_task_of_ones_own_and_layers_of_ones_choice(files, tmp_path):
  files.table("beer/train.tsv", "text taste", [
      [run_classifier_test.SENTENCES[i % 6], ("bad", "good")[i % 2]]
      for i in range(8)])
  spec = files.write("beer.json", [json.dumps({
      "name": "Beer", "labels": ["bad", "good"], "metrics": ["f1"],
      "columns": {"text_a": 0, "label": 1}, "header": True,
      "train": "train.tsv", "dev": "train.tsv"})])
  out = str(tmp_path / "out")
  assert run_main(files, out, "--task_specs=" + spec, "--epochs=1",
                  "--set=data_dir=" + files.path("beer"),
                  "--set=adapter_layers=1", "--keep_checkpoints") == 0
  row, = rows_in(out)
  assert (row["task"], row["metric"], row["method"]) == (
      "Beer", "f1", "adapters, 3 in layers 1")
  # Two adapters of 2 md + d + m in one layer, and five LayerNorms of 2 d.
  assert row["trained_parameters"] == "%d" % (
      2 * (2 * 3 * 16 + 16 + 3) + 5 * 2 * 16)
  run_dir, = run_dirs(out)
  assert checkpoints.numbered(run_dir)
  assert os.listdir(os.path.join(run_dir, "records"))
