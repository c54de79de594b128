"""Merged task checkpoints: means, task arithmetic, and what is refused."""

import numpy as np
import pytest

from adapter_bert import test_util as tiny
from adapter_bert.base import errors
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.serving import merging
from adapter_bert.serving import shared_model
from adapter_bert.serving import task_checkpoints
from adapter_bert.serving import test_util
from adapter_bert.training import graphs

graphs.enable_graph_mode()

ADAPTER = "bert/encoder/layer_1/output/adapters/weights1"
GAMMA = "bert/encoder/layer_1/output/LayerNorm/gamma"
HEAD = "output_weights"


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  root = str(tmp_path_factory.mktemp("merging"))
  config = tiny.tiny_config(vocab_size=len(test_util.WORDS))
  base = test_util.write_base(root + "/bert", config)
  write = lambda name, *arguments, **fields: test_util.write_task(
      "%s/%s" % (root, name), config, base, *arguments, **fields)
  paths = {"a": write("a", "MRPC", 1, adapter_size=3),
           "b": write("b", "MRPC", 2, adapter_size=3),
           "large": write("large", "MRPC", 3, adapter_size=4),
           "rte": write("rte", "RTE", 4, adapter_size=3)}
  return dict(paths, root=root, base=base)


def merged(files, names, weights):
  """The Weights of a merged checkpoint."""
  directory = files["root"] + "/merged"
  tasks = task_checkpoints.read_checkpoints([files[name] for name in names],
                                            "float32")
  merging.merge(directory, tasks, weights, task_checkpoints.open_base(
      tasks, files["base"], False))
  return weights_lib.Weights([weights_lib.find(directory)])


def value(files, name, variable):
  path = files["base"] if name == "base" else weights_lib.find(files[name])
  return weights_lib.Weights([path]).value(variable)


def test_a_mean(files):
  found = merged(files, "ab", [0.25, 0.75])
  for name in (ADAPTER, GAMMA, HEAD):
    np.testing.assert_allclose(
        found.value(name), 0.25 * value(files, "a", name) +
        0.75 * value(files, "b", name), rtol=1e-6, atol=1e-7)
  assert set(found.shapes) - {"global_step"} == set(
      weights_lib.Weights([weights_lib.find(files["a"])]).shapes)
  record = run_record.read(files["root"] + "/merged")
  assert [part["weight"] for part in record["merged"]] == [0.25, 0.75]
  assert record["task"]["name"] == "MRPC" and record["base"]


def test_it_is_a_task_checkpoint(files):
  merged(files, "ab", [0.5, 0.5])
  tasks = task_checkpoints.read_checkpoints([files["root"] + "/merged"],
                                            "float32")
  model = shared_model.SharedModel(tasks, task_checkpoints.open_base(
      tasks, files["base"], False))
  assert model.own_bytes[0] > 0


def test_a_task_that_is_taken_away_leaves_the_base(files):
  found = merged(files, "ab", [1.0, -1.0])
  a, b, base = [value(files, name, GAMMA) for name in ("a", "b", "base")]
  np.testing.assert_allclose(found.value(GAMMA), base + (a - base) - (b - base),
                             atol=1e-6)
  for name in (ADAPTER, HEAD):
    np.testing.assert_allclose(
        found.value(name), value(files, "a", name) - value(files, "b", name),
        atol=1e-6)
  np.testing.assert_allclose(merged(files, "aa", [1.0, -1.0]).value(GAMMA),
                             base, atol=1e-6)


@pytest.mark.parametrize("names,weights,words", [
    (["a", "b"], [1.0], "merge has 1 weights"),
    (["a", "large"], [0.5, 0.5], "adapter_size is 4, and 3"),
    (["a", "rte"], [0.5, 0.5], "labels is .*not_entailment"),
    (["a", "b"], [1e200, 1e200], "would not be finite"),
])
def test_what_is_refused(files, names, weights, words):
  with pytest.raises(errors.InputError, match=words):
    merged(files, names, weights)
