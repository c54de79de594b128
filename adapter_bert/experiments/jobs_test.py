"""What a sweep counts of a run, by hand; sweep_test.py has whole sweeps."""

import pytest

from adapter_bert import test_util
from adapter_bert.checkpoints import record as run_record
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.experiments import jobs
from adapter_bert.experiments import parameters
from adapter_bert.training import specs

CONFIG = test_util.tiny_config(num_hidden_layers=2)  # of 16


def counts_of(directory, **settings):
  """counts_of a run with these settings, from its run.json."""
  model = specs.ClassifierSpec(CONFIG, num_labels=2, **settings)
  run_record.write(str(directory), dict(
      specs.describe_model(model), schedule={"precision": "float32"},
      task=task_specs.task_to_dict(tasks.get_task("MRPC"))))
  return jobs.counts_of(str(directory))


@pytest.mark.parametrize("settings, trained, stored", [
    # A key and a value of 16 in each of two layers, five times.
    (dict(tune="prefix", prefix_length=5), 5 * 64, 5 * 64),
    # [5, 16], then 16 -> 6 -> 64 with biases; the task keeps what these make.
    (dict(tune="prefix", prefix_length=5, prefix_hidden_size=6),
     5 * 16 + 17 * 6 + 7 * 64, 5 * 64),
    # And four adapters of 2 md + d + m.
    (dict(tune="adapters+prefixes+head", prefix_length=5, adapter_size=3),
     5 * 64 + 4 * (2 * 3 * 16 + 16 + 3), 5 * 64 + 4 * (2 * 3 * 16 + 16 + 3)),
    # The head alone, and a pooler of 16 -> 16 that is new.
    (dict(tune="head"), 0, 0),
    (dict(tune="head", fresh_pooler=True), 17 * 16, 17 * 16),
])
def test_counts_by_hand(tmp_path, settings, trained, stored):
  found = counts_of(tmp_path, **settings)
  whole = parameters.count(CONFIG).whole
  assert (found["parameters"], found["stored"], found["head"],
          found["whole"]) == (trained, stored, 2 * 16 + 2, whole)
  assert found["of_whole"] == pytest.approx(trained / whole)


def test_a_fresh_pooler_is_counted_once(tmp_path):
  found = counts_of(tmp_path, tune="full", fresh_pooler=True)
  assert found["parameters"] == found["stored"] == found["whole"]
