"""A task checkpoint has what a run trained, and no slots."""

import os

import numpy as np
import pytest

from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import task
from adapter_bert.checkpoints import weights as weights_lib

ARRAYS = {
    "bert/embeddings/word_embeddings": np.arange(12, dtype=np.float32).reshape(
        3, 4),
    "bert/embeddings/LayerNorm/beta": np.arange(4, dtype=np.float32),
    "bert/pooler/dense/bias": np.ones(4, np.float32),
}


@pytest.fixture(name="base")
def fixture_base(tmp_path):
  """The prefix of a checkpoint and its arrays."""
  prefix = str(tmp_path / "base" / "bert_model.ckpt")
  os.makedirs(os.path.dirname(prefix))
  weights_lib.write(prefix, ARRAYS)
  return prefix, ARRAYS


def run_on(base, directory, record=None):
  """A run's output_dir: one trained variable, over the base."""
  os.makedirs(directory)
  name = "bert/embeddings/LayerNorm/beta"
  value = base[1][name] + 1
  weights_lib.write(os.path.join(directory, "model.ckpt-4"), {
      name: value, name + "/adam_m": value, name + "/adam_v": value,
      "global_step": np.int64(4)})
  run_record.write(directory, record or {
      "base": run_record.describe_base(weights_lib.Weights([base[0]]),
                                        base[0])})
  return name, value


def test_a_task_checkpoint_has_no_slots(base, tmp_path):
  directory, path = str(tmp_path / "run"), str(tmp_path / "run" / "task")
  name, value = run_on(base, directory)
  for _ in range(2):  # the second one replaces the first
    size = task.write(path, directory, {"dev": {"f1": 0.5}})
  assert size == sum(os.path.getsize(os.path.join(path, f))
                     for f in os.listdir(path))
  weights = weights_lib.Weights.open(path)
  np.testing.assert_array_equal(weights.value(name), value)
  assert set(weights.shapes) == set(base[1]) | {"global_step"}
  assert run_record.read(path)["dev"] == {"f1": 0.5}
  assert sorted(os.listdir(directory)) == sorted(
      ["task", "run.json", "model.ckpt-4.index",
       "model.ckpt-4.data-00000-of-00001"])


def test_without_a_base_a_task_checkpoint_has_everything(base, tmp_path):
  directory = str(tmp_path / "run")
  os.makedirs(directory)
  weights_lib.write(os.path.join(directory, "model.ckpt-4"),
                    dict(base[1], global_step=np.int64(4)))
  run_record.write(directory, {"base": None})
  task.write(str(tmp_path / "task"), directory)
  weights = weights_lib.Weights.open(str(tmp_path / "task"))
  assert set(base[1]) < set(weights.shapes)
