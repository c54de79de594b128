"""Grids become runs, equal ones once; what is not a grid is one line."""

import pytest

from adapter_bert.base import errors
from adapter_bert.experiments import grid


def runs_of(*grids, **common):
  return grid.runs_of({"common": common, "grids": list(grids)}, "here")


def refused(function, *args):
  with pytest.raises(errors.InputError) as caught:
    function(*args)
  line = str(caught.value)
  assert "\n" not in line
  return line


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


def test_prefixes_are_methods_of_their_own():
  runs = runs_of({"task_name": "RTE", "tune": "prefix",
                  "prefix_length": [5, 20], "prefix_hidden_size": [0, 64, 128],
                  "adapter_size": [8, 64], "learning_rate": 1e-2})
  methods = [grid.Method.of(run.settings) for run in runs]
  assert [method.label for method in methods] == [
      "prefix, 5", "prefix, 5, MLP", "prefix, 5, MLP",
      "prefix, 20", "prefix, 20, MLP", "prefix, 20, MLP"]
  assert [(m.choice, m.prefix_length, m.has_mlp) for m in methods[1:4]] == [
      (5, 5, True), (5, 5, True), (20, 20, False)]
  # The MLP's width is a setting that is tuned, as a rate is.
  assert runs[1].label == "RTE, prefix, 5, MLP: lr 0.01, epochs 3, MLP 64, seed 0"
  assert methods[1] == methods[2] and runs[1].slug != runs[2].slug
  assert runs[3].slug.startswith("RTE-prefix20-lr0.01-ep3-seed0-")
  # A curve is over lengths, with an MLP or without.
  assert [m.family for m in methods[:2]] == [m.family for m in methods[3:5]]
  assert methods[0].family != methods[1].family


def test_prefixes_mean_nothing_without_one():
  runs = runs_of({"task_name": "RTE", "tune": ["adapters", "full", "prefix"],
                  "prefix_length": [5, 20], "prefix_positions": "unshifted",
                  "prefix_init_scale": 0.02})
  assert [sorted(run.settings) for run in runs] == [
      ["task_name"], ["task_name", "tune"]] + [
          ["prefix_init_scale", "prefix_length", "prefix_positions",
           "task_name", "tune"],
          ["prefix_init_scale", "prefix_positions", "task_name", "tune"]]


def test_a_fresh_pooler_and_both_methods_at_once_have_labels():
  of = lambda **settings: grid.Method.of(settings)
  assert of(tune="full", fresh_pooler=True).label == (
      "full fine-tuning, fresh pooler")
  assert of(fresh_pooler=True).label == "adapters, 64, fresh pooler"
  assert of(tune="top_n", top_n_layers=1, fresh_pooler=True).label == (
      "top 1 layer, fresh pooler")
  both = of(tune="adapters+prefixes+head", adapter_size=8, prefix_length=3,
            prefix_hidden_size=4)
  assert (both.choice, both.prefix_length) == (8, 3)
  assert both.label == "adapters+prefixes+head, 8 and prefix of 3, MLP"
  run, other = runs_of({"task_name": "RTE", "fresh_pooler": [True, False]})
  assert run.slug != other.slug and run.label == (
      "RTE, adapters, 64, fresh pooler: lr 5e-05, epochs 3, seed 0")


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
def test_what_is_not_a_grid_is_refused_in_a_line(grids, said):
  assert said in refused(grid.runs_of, grids, "here")


def test_too_many_runs_are_refused_before_they_are_made():
  values = list(range(10**4))
  line = refused(grid.runs_of, [{"task_name": "RTE", "seed": values,
                                 "top_n_layers": [i + 1 for i in values]},
                                {"task_name": "RTE"}], "here")
  assert line == "here: asks for 100000001 runs; a sweep has at most 10000"
