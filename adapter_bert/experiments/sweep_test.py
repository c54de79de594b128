"""The flags of sweeps, and real sweeps of tiny runs."""

import csv
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

from adapter_bert.base import errors
from adapter_bert.base import flags as flags_lib
from adapter_bert.base import files as files_lib
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.experiments import grid
from adapter_bert.experiments import jobs
from adapter_bert.experiments import parameters
from adapter_bert.experiments import sweep
from adapter_bert.tuning import Tuning
import run_classifier_test

PROGRAM = [sys.executable, "-m", "adapter_bert.experiments.sweep"]


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


def runs_of(*args):
  flag_values = flags_of(*args)
  return sweep.runs_of(
      sweep.Options(**flags_lib.values(sweep.SETTINGS, flag_values)),
      flag_values["set"].value)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
  path = tmp_path / "grids.json"
  path.write_bytes(b'\xef\xbb\xbf[{"task_name": "RTE"}]')
  run, = runs_of("--sweep_file=%s" % path)
  assert run["task_name"] == "RTE"


@pytest.mark.parametrize("text, said", [
    ("[{", "is not JSON: line 1"),
    ('[{"seed": 1, "seed": 2}]', 'the key "seed" stands twice'),
    (None, "No such file"),
])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, text, said):
  path = tmp_path / "grids.json"
  if text:
    path.write_text(text, encoding="utf-8")
  line = refused(runs_of, "--sweep_file=%s" % path)
  assert said in line and str(path) in line


@pytest.mark.parametrize("args, said", [
    (["--tasks=RTE", "--seeds=0,x"], '--seeds: seed is "x"; it must be a'),
    (["--tasks=RTE", "--seeds=0,"], '--seeds: seed is ""'),
    (["--tasks=RTE", "--set=warmup=0"], "--set: unknown key 'warmup'; did you "
     "mean warmup_proportion?"),
    (["--tasks=RTE", "--set=precision"], "give NAME=VALUE"),
    (["--preset=table1"], "preset is table1; it can be glue_adapters or"),
    (["--preset=figure4", "--sweep_file=x"], "both given"),
    ([], "nothing to sweep over"),
    (["--preset=further_top_n"], "there is no task"),
])
def test_flags_that_make_no_sweep_are_refused(args, said):
  assert said in refused(runs_of, *args)


def test_flags_make_a_grid_and_go_over_a_preset():
  runs = runs_of(
      "--tasks=CoLA,RTE", "--tunes=adapters,top_n",
      "--learning_rates=1e-3,3e-4", "--epochs=.5", "--adapter_sizes=8",
      "--top_n_layers=1,2", "--seeds=3",
      "--init_scales=1e-2", "--set=compile_chains=false",
      "--set=adapter_layers=0-1", "--set=precision=bfloat16")
  assert len(runs) == 2 * 2 * 3  # tasks, rates, adapters and two of top-n
  assert runs[0].settings == dict(
      task_name="CoLA", learning_rate=1e-3, num_train_epochs=0.5,
      adapter_size=8, seed=3, adapter_init_scale=1e-2, compile_chains=False,
      adapter_layers="0-1", precision="bfloat16")
  assert runs[-1].settings == dict(
      task_name="RTE", tune="top_n", top_n_layers=2, learning_rate=3e-4,
      num_train_epochs=0.5, seed=3, compile_chains=False, precision="bfloat16")
  runs = runs_of("--preset=figure4", "--tasks=RTE", "--seeds=0", "--epochs=1")
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
  runs = runs_of("--preset=" + preset, *args)
  assert len(runs) == count
  if preset == "glue_adapters":
    assert {run["adapter_size"] for run in runs} == {8, 64, 256}
    assert {run["learning_rate"] for run in runs} == {3e-5, 3e-4, 3e-3}
    assert {run["num_train_epochs"] for run in runs} == {3, 20}
  if preset == "figure6_right":
    assert {run["adapter_init_scale"] for run in runs} == {
        1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1}


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
  counts = parameters.count(config, [3], 3)
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
    trained = counts.trained(Tuning(tune),
                             3 if tune == "adapters" else None)
    assert row["trained_parameters"] == "%d" % trained.parameters
    assert row["total_parameters"] == "%d" % counts.whole
    # What is trained is in the task checkpoint, and the head.
    held = weights_lib.Weights(
        [weights_lib.find(os.path.join(run_dir, "task"))]).shapes
    assert sum(np.prod(shape, dtype=int) for name, shape in held.items()
               if name != "global_step") == trained.parameters + trained.head
    # What only a run that goes on needs is gone.
    assert not weights_lib.numbered(run_dir)
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


def test_damaged_results_are_worked_out_again(files, swept, tmp_path, capsys):
  copy = str(tmp_path / "copy")
  shutil.copytree(swept, copy)
  first, second = run_dirs(copy)
  expected = json.loads(read(first, "result.json"))
  for path in (first + "/result.json", second + "/result.json",
               second + "/sweep_state.json", second + "/run.json"):
    with open(path, "wb") as damaged:
      damaged.write(b"\xff")
  assert run_main(files, copy, "--tasks=MNLI", "--tunes=adapters,full",
                  "--epochs=1") == 0
  said = capsys.readouterr().out
  assert "2 runs, 2 of them finished before" in said
  assert said.count("was damaged, and is worked out again") == 2
  assert "sweep_state.json: is not text" in said
  assert "run.json: is not text" in said
  assert json.loads(read(first, "result.json")) == expected
  rows = rows_in(copy)
  assert sorted(float(row.pop("seconds")) > 0 for row in rows) == [False, True]
  for row, other in zip(rows, rows_in(swept)):
    other.pop("seconds")
    assert row == other


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
  with files_lib.locked(swept):
    assert "%s is in use by process" % swept in refused(
        run_main, files, swept, "--tasks=MNLI")


def test_results_of_other_weights_are_not_mixed(files, swept, tmp_path):
  other = str(tmp_path / "other.ckpt")
  run_classifier_test.write_base(other, files.config)
  weights = weights_lib.Weights([other])
  arrays = {name: weights.value(name) for name in weights.shapes}
  arrays["bert/pooler/dense/bias"] = arrays["bert/pooler/dense/bias"] + 1
  weights_lib.write(other, arrays)
  for base in ("--init_checkpoint=" + other, "--init_checkpoint="):
    line = refused(run_main, files, swept, "--tasks=MNLI", "--epochs=1", base)
    assert "other weights" in line and swept in line


@pytest.mark.parametrize("args, said", [
    (["--tasks=RTE"], "RTE/train.tsv"),
    (["--tasks=AX"], "the task has no train file"),
    (["--tasks=MRPC", "--glue_dir="], "glue_dir is not given"),
    (["--tasks=MRPC", "--vocab_file="], "vocab_file is not given; give it, or"),
    (["--tasks=MRPC", "--tunes=top_n", "--top_n_layers=1,3"],
     "MRPC, top 3 layers"),
    (["--tasks=MRPC", "--set=precision=float16"], "precision is float16"),
    (["--tasks=MRPC", "--learning_rates=1e-2,-1"], "learning_rate is -1"),
    (["--tasks=MRPC", "--init_checkpoint=nowhere"], "nowhere"),
    (["--tasks=MRPC", "--set=distribution=mirror"], "distribution is mirror"),
])
def test_what_cannot_run_is_refused_before_anything_runs(files, tmp_path, args,
                                                         said):
  output_dir = str(tmp_path / "out")
  assert said in refused(run_main, files, output_dir, *args)
  assert not os.path.exists(output_dir)


def runs_and_options(files, output_dir, **settings):
  """Of a sweep over MRPC from random weights."""
  settings = dict(settings, task_name="MRPC", max_seq_length=24)
  return (grid.runs_of([settings], "here"),
          jobs.Options(str(output_dir), files.path("bert/vocab.txt"),
                        files.path("bert/bert_config.json"), None, files.root))


def test_runs_of_random_weights_are_announced(files, tmp_path, capsys):
  runs, options = runs_and_options(files, tmp_path)
  jobs.check_runs(runs, options)
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
      jobs.check_runs, runs, options)


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
  try:
    for run_dir in run_dirs(output_dir):
      with files_lib.locked(run_dir):
        pass
  except errors.InputError:
    return False
  return True


def saved(output_dir):
  """The checkpoints of half-finished runs."""
  if not os.path.isdir(os.path.join(output_dir, "runs")):
    return []
  return [prefix for run_dir in run_dirs(output_dir)
          for prefix in weights_lib.numbered(run_dir)]


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
  assert "waiting for an earlier sweep's run: " in capsys.readouterr().out


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
  assert weights_lib.numbered(run_dir)
  assert os.listdir(os.path.join(run_dir, "records"))


@pytest.mark.slow
def test_what_a_prefix_with_an_mlp_trains_and_what_it_stores(files, tmp_path):
  out = str(tmp_path / "out")
  assert run_main(files, out, "--tasks=MRPC", "--tunes=prefix", "--epochs=1",
                  "--set=prefix_length=3", "--set=prefix_hidden_size=5",
                  "--set=fresh_pooler=true") == 0
  row, = rows_in(out)
  assert row["method"] == "prefix, 3, MLP, fresh pooler"
  # [3, 16], 16 -> 5 -> 2 layers * 2 * 16 with biases; a pooler of 16 -> 16.
  trained, stored = 3 * 16 + 17 * 5 + 6 * 64 + 17 * 16, 3 * 64 + 17 * 16
  assert row["trained_parameters"] == "%d" % trained
  assert row["stored_parameters"] == "%d" % stored
  run_dir, = run_dirs(out)
  # With the head of 16 -> 2 there.
  assert json.loads(read(run_dir, "run.json"))["parameters"] == {
      "trained": trained + 34, "stored": stored + 34}
  held = weights_lib.Weights(
      [weights_lib.find(os.path.join(run_dir, "task"))]).shapes
  assert sum(np.prod(shape, dtype=int) for name, shape in held.items()
             if name != "global_step") == stored + 34
  said = read(run_dir, "log.txt")
  assert "%d of " % (trained + 34) in said
  assert "%-10s %10d parameters" % ("stored", stored + 34) in said
