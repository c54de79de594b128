"""Finding, matching, recording and writing of checkpoints."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import checkpoints
from adapter_bert.checkpoints import record as run_record
from adapter_bert.base import errors
import modeling
from adapter_bert import test_util
from adapter_bert.training import loop as training

training.enable_graph_mode()


def model_arrays(config, adapter_fn=None, head=None, **build):
  """variable name -> random array, of a model's own shapes."""
  rng = np.random.RandomState(5)
  with tf.Graph().as_default():
    variables = model_variables(config, adapter_fn, head, **build)
    return {v.op.name: rng.normal(size=v.shape.as_list()).astype(np.float32)
            for v in variables}


def model_variables(config, adapter_fn="feedforward_adapter", head=None):
  model = modeling.BertModel(config, False, tf.zeros([1, 2], tf.int32),
                             adapter_fn=adapter_fn)
  if head:
    modeling.classifier_head(model.get_pooled_output(), head, False)
  return tf.trainable_variables()


@pytest.fixture(name="config")
def fixture_config():
  return test_util.tiny_config(num_hidden_layers=2)


@pytest.fixture(name="base")
def fixture_base(tmp_path, config):
  """The prefix of a plain BERT's checkpoint, and its arrays."""
  arrays = model_arrays(config)
  prefix = str(tmp_path / "base" / "bert_model.ckpt")
  os.makedirs(os.path.dirname(prefix))
  checkpoints.write(prefix, arrays)
  return prefix, arrays


def match(weights, config, head=2, shared=None, **changes):
  with tf.Graph().as_default():
    keys = dict(config.to_dict(), **changes)
    changed = modeling.BertConfig.from_dict(keys)
    return checkpoints.match(model_variables(changed, head=head), weights,
                             changed, shared)


def refusal(weights, config, **arguments):
  with pytest.raises(errors.InputError) as caught:
    match(weights, config, **arguments)
  assert "\n" not in str(caught.value)
  return str(caught.value)


# ----------------------------------------------------------------- finding


def test_write_and_read_back(base):
  prefix, arrays = base
  weights = checkpoints.Weights([prefix])
  assert weights.shapes == {n: list(a.shape) for n, a in arrays.items()}
  for name, array in arrays.items():
    np.testing.assert_array_equal(weights.value(name), array)


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_find_takes_prefix_file_or_directory(base, suffix):
  prefix, _ = base
  assert checkpoints.find(prefix + suffix) == prefix
  assert checkpoints.find(os.path.dirname(prefix)) == prefix


def test_find_says_what_is_missing(tmp_path):
  for path in (str(tmp_path), str(tmp_path / "no.ckpt")):
    with pytest.raises(errors.InputError, match="no (such )?checkpoint"):
      checkpoints.find(path)


def test_newest_is_the_highest_step_that_is_complete(tmp_path):
  assert checkpoints.newest(str(tmp_path)) is None
  for step in (9, 10):
    checkpoints.write(str(tmp_path / ("model.ckpt-%d" % step)),
                      {"global_step": np.int64(step)})
  newest = checkpoints.newest(str(tmp_path))
  assert newest.endswith("model.ckpt-10")  # by number, not by letters
  assert checkpoints.step_of(newest) == 10
  # Half-written: data without its index, as a kill leaves it.
  (tmp_path / "model.ckpt-11.data-00000-of-00001").write_bytes(b"half")
  (tmp_path / "model.ckpt-12.index.tempstate123").write_bytes(b"half")
  # And a state file that names a checkpoint that is gone.
  (tmp_path / "checkpoint").write_text(
      'model_checkpoint_path: "model.ckpt-11"\n')
  assert checkpoints.newest(str(tmp_path)) == newest


@pytest.mark.parametrize("damage", ["half index", "half data", "no data"])
@pytest.mark.parametrize("named", [True, False])
def test_newest_passes_over_what_is_incomplete(tmp_path, caplog, damage, named):
  for step in (3, 4):
    checkpoints.write(str(tmp_path / ("model.ckpt-%d" % step)), {
        "global_step": np.int64(step), "x": np.ones([99], np.float32)})
  part = tmp_path / ("model.ckpt-4.index" if damage == "half index" else
                     "model.ckpt-4.data-00000-of-00001")
  if damage == "no data":
    part.unlink()
  else:
    part.write_bytes(part.read_bytes()[:part.stat().st_size // 2])
  if named:
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-4"\n')
  assert checkpoints.newest(str(tmp_path)) == str(tmp_path / "model.ckpt-3")
  assert "incomplete" in caplog.text and "model.ckpt-4" in caplog.text
  with pytest.raises(errors.InputError, match="model.ckpt-4.*complete"):
    checkpoints.Weights([str(tmp_path / "model.ckpt-4")]).check()


def test_the_checkpoint_file_decides_which_is_the_newest(tmp_path):
  for step in (3, 4, 10):
    checkpoints.write(str(tmp_path / ("model.ckpt-%d" % step)),
                      {"global_step": np.int64(step)})
  (tmp_path / "checkpoint").write_text(
      'model_checkpoint_path: "model.ckpt-4"\n')
  assert checkpoints.newest(str(tmp_path)) == str(tmp_path / "model.ckpt-4")
  (tmp_path / "copy").mkdir()
  (tmp_path / "copy" / "checkpoint").write_text(
      'model_checkpoint_path: "%s/model.ckpt-4"\n' % tmp_path)
  assert checkpoints.newest(str(tmp_path / "copy")) is None
  assert [os.path.basename(p) for p in checkpoints.numbered(str(tmp_path))] == [
      "model.ckpt-3", "model.ckpt-4", "model.ckpt-10"]


def test_a_file_that_is_no_checkpoint(tmp_path):
  (tmp_path / "x.ckpt.index").write_text("not an index")
  with pytest.raises(errors.InputError, match="cannot be read"):
    checkpoints.Weights([str(tmp_path / "x.ckpt")])


# ------------------------------------------------------------------ matching


def test_adapters_and_head_may_be_new(base, config):
  found = match(checkpoints.Weights([base[0]]), config)
  assert found.loaded == {name: (name,) for name in base[1]}
  assert {"output_weights", "output_bias"} <= set(found.new)
  assert all("adapters" in n or n.startswith("output_") for n in found.new)
  assert len(found.new) == 2 + 2 * 2 * 4
  assert found.leftover == []


def test_leftovers_that_do_not_matter(base, config, tmp_path):
  prefix = str(tmp_path / "more.ckpt")
  more = {name: np.float32(0) for name in (
      "cls/predictions/bias", "bert/pooler/dense/bias/adam_m")}
  checkpoints.write(prefix, dict(base[1], global_step=np.int64(3), **more))
  found = match(checkpoints.Weights([prefix]), config)
  assert sorted(found.leftover) == sorted(list(more) + ["global_step"])


def test_a_head_of_another_task_is_left_over(config, tmp_path):
  prefix = str(tmp_path / "other.ckpt")
  checkpoints.write(prefix, model_arrays(config, "feedforward_adapter", head=3))
  weights = checkpoints.Weights([prefix])
  assert match(weights, config, head=3).new == []
  assert match(weights, config, head=2).new == ["output_weights", "output_bias"]


def test_anything_else_that_is_missing(base, config, tmp_path):
  arrays = dict(base[1])
  del arrays["bert/pooler/dense/bias"]
  prefix = str(tmp_path / "less.ckpt")
  checkpoints.write(prefix, arrays)
  line = refusal(checkpoints.Weights([prefix]), config)
  assert "lacks 1 of" in line and "bert/pooler/dense/bias" in line


def test_shapes_that_differ_are_both_named(base, config):
  line = refusal(checkpoints.Weights([base[0]]), config, vocab_size=32)
  assert "word_embeddings has shape [31, 16]" in line and "[32, 16]" in line


@pytest.mark.parametrize("layers", [1, 3])
def test_every_layer_of_both_sides_must_be_used(base, config, layers):
  line = refusal(checkpoints.Weights([base[0]]), config,
                 num_hidden_layers=layers)
  assert "has 2 layers" in line and "uses %d" % layers in line


def test_layers_that_are_shared_on_one_side(base, config, tmp_path):
  line = refusal(checkpoints.Weights([base[0]]), config,
                 share_parameter_across_layers=True)
  assert "plain BERT" in line and "--init_shared_from" in line
  prefix = str(tmp_path / "shared.ckpt")
  shared = modeling.BertConfig.from_dict(
      dict(config.to_dict(), share_parameter_across_layers=True))
  checkpoints.write(prefix, model_arrays(shared))
  line = refusal(checkpoints.Weights([prefix]), config)
  assert "layer_shared" in line and "--share_parameter_across_layers" in line
  assert match(checkpoints.Weights([prefix]), shared).loaded


def test_an_albert_zh_checkpoint_loads_by_name():
  golden = test_util.golden("albert_shared_all")
  config = modeling.BertConfig.from_dict(golden.facts["config"])
  weights = checkpoints.Weights([golden.checkpoint])
  assert "--share_parameter_across_layers" in refusal(weights, config)
  found = match(weights, config, share_parameter_across_layers=True)
  assert len(found.loaded) == len(golden.facts["shapes"])


def test_shared_layers_from_a_plain_bert(base, config):
  weights = checkpoints.Weights([base[0]])
  kernel = "bert/encoder/layer_%s/intermediate/dense/kernel"
  for how, names in (("mean", (kernel % 0, kernel % 1)),
                     ("first", (kernel % 0,))):
    found = match(weights, config, shared=how,
                  share_parameter_across_layers=True)
    assert found.loaded[kernel % "shared"] == names
    assert found.loaded["bert/pooler/dense/bias"] == ("bert/pooler/dense/bias",)


def test_groups_of_a_size_that_does_not_divide(tmp_path):
  config = test_util.tiny_config(num_hidden_layers=3)
  prefix = str(tmp_path / "three.ckpt")
  checkpoints.write(prefix, model_arrays(config))
  found = match(checkpoints.Weights([prefix]), config, shared="mean",
                share_parameter_across_layers=True, layers_per_group=2)
  bias = "bert/encoder/layer_%d/intermediate/dense/bias"
  assert found.loaded[bias % 0] == (bias % 0, bias % 1)
  assert found.loaded[bias % 1] == (bias % 2,)


def test_googles_own_albert_is_refused(base, config, tmp_path):
  prefix = str(tmp_path / "albert.ckpt")
  checkpoints.write(prefix, {
      "bert/encoder/transformer/group_0/inner_group_0/x": np.float32(0)})
  line = refusal(checkpoints.Weights([prefix]), config)
  assert "Google's own ALBERT" in line


@pytest.mark.parametrize("model,sharing", [
    ("albert_zh tiny", dict(share_parameter_across_layers=True)),
    ("google BERT uncased_L-8_H-512_A-8", {}),
    ("google BERT-BASE Chinese", {})])
def test_published_checkpoints_have_the_models_names(model, sharing, tmp_path):
  path = test_util.external("ADAPTER_BERT_GOLDEN",
                            "original_checkpoint_variables.json")
  import json  # pylint: disable=g-import-not-at-top
  with open(path, encoding="utf-8") as source:
    published = json.load(source)[model]
  config = modeling.BertConfig.from_dict(dict(published["config"], **sharing))
  with tf.Graph().as_default():
    shapes = {v.op.name: v.shape.as_list()
              for v in model_variables(config, adapter_fn=None)}
  bert = {n: s for n, s in published["variables"].items()
          if n.startswith("bert/") and "adam" not in n}
  assert shapes == bert


def test_load_ops_average(base, config):
  weights = checkpoints.Weights([base[0]])
  shared = modeling.BertConfig.from_dict(
      dict(config.to_dict(), share_parameter_across_layers=True))
  with tf.Graph().as_default(), tf.Session() as session:
    variables = model_variables(shared, adapter_fn=None)
    found = checkpoints.match(variables, weights, shared, "mean")
    session.run(checkpoints.load_ops(variables, found, weights))
    values = {v.op.name: session.run(v) for v in variables}
  bias = "bert/encoder/layer_%s/intermediate/dense/bias"
  np.testing.assert_allclose(
      values[bias % "shared"],
      (base[1][bias % 0] + base[1][bias % 1]) / 2, atol=1e-7)


# ------------------------------------------------------- digests and records


def test_the_digest_is_of_berts_own_values(base, tmp_path):
  prefix, arrays = base
  digest = checkpoints.Weights([prefix]).digest()
  same = str(tmp_path / "same.ckpt")
  checkpoints.write(same, dict(arrays, global_step=np.int64(7),
                               output_bias=np.zeros(2, np.float32)))
  assert checkpoints.Weights([same]).digest() == digest
  other = str(tmp_path / "other.ckpt")
  name = "bert/pooler/dense/bias"
  checkpoints.write(other, dict(arrays, **{name: arrays[name] + 1e-6}))
  assert checkpoints.Weights([other]).digest() != digest


def run_on(base, directory, record=None):
  """A run's output_dir: one trained variable, over the base."""
  os.makedirs(directory)
  name = "bert/embeddings/LayerNorm/beta"
  value = base[1][name] + 1
  checkpoints.write(os.path.join(directory, "model.ckpt-4"), {
      name: value, name + "/adam_m": value, name + "/adam_v": value,
      "global_step": np.int64(4)})
  run_record.write(directory, record or {
      "base": run_record.describe_base(checkpoints.Weights([base[0]]),
                                        base[0])})
  return name, value


def test_what_was_trained_lies_over_its_base(base, tmp_path):
  directory = str(tmp_path / "run")
  name, value = run_on(base, directory)
  weights = checkpoints.Weights.open(directory)
  np.testing.assert_array_equal(weights.value(name), value)
  other = "bert/pooler/dense/bias"
  np.testing.assert_array_equal(weights.value(other), base[1][other])
  assert weights.is_overlaid(name) and not weights.is_overlaid(other)


@pytest.mark.parametrize("sharing,shared", [
    ({}, None),  # all of layer_1 trained, as with top_n
    (dict(share_parameter_across_layers=True), "mean"),
    (dict(share_parameter_across_layers=True, layers_per_group=2), "mean")])
def test_layers_on_top_of_a_base_hide_none_of_its_own(base, config, tmp_path,
                                                      sharing, shared):
  model = modeling.BertConfig.from_dict(dict(config.to_dict(), **sharing))
  top = {n: a + 1 for n, a in model_arrays(model).items()
         if "/layer_" in n and "/layer_0/self" not in n and
         (sharing or "/layer_1/" in n)}
  prefixes = [base[0], str(tmp_path / "top.ckpt"), str(tmp_path / "head.ckpt")]
  checkpoints.write(prefixes[1], top)
  checkpoints.write(prefixes[2], {"output_bias": np.zeros(2, np.float32)})
  # A third file on top, of a run that trained less: the second still counts.
  for some in (prefixes[:2], prefixes):
    found = match(checkpoints.Weights(some), config, shared=shared, **sharing)
    for name in top:
      assert found.loaded[name] == (name,)
  with pytest.raises(errors.InputError, match="has 2 layers"):
    match(checkpoints.Weights(prefixes), config, num_hidden_layers=3)


def test_a_task_checkpoint_has_no_slots(base, tmp_path):
  directory, task = str(tmp_path / "run"), str(tmp_path / "run" / "task")
  name, value = run_on(base, directory)
  for _ in range(2):  # the second one replaces the first
    size = checkpoints.write_task(task, directory, {"dev": 1})
  assert size == sum(os.path.getsize(os.path.join(task, f))
                     for f in os.listdir(task))
  weights = checkpoints.Weights.open(task)
  np.testing.assert_array_equal(weights.value(name), value)
  assert set(weights.shapes) == set(base[1]) | {"global_step"}
  assert run_record.read(task)["dev"] == 1
  assert sorted(os.listdir(directory)) == sorted(
      ["task", "run.json", "model.ckpt-4.index",
       "model.ckpt-4.data-00000-of-00001"])


def test_without_a_base_a_task_checkpoint_has_everything(base, tmp_path):
  directory = str(tmp_path / "run")
  os.makedirs(directory)
  checkpoints.write(os.path.join(directory, "model.ckpt-4"),
                    dict(base[1], global_step=np.int64(4)))
  run_record.write(directory, {"base": None})
  checkpoints.write_task(str(tmp_path / "task"), directory)
  weights = checkpoints.Weights.open(str(tmp_path / "task"))
  assert set(base[1]) < set(weights.shapes)


def test_a_base_that_moved_or_changed(base, tmp_path):
  directory = str(tmp_path / "run")
  run_on(base, directory)
  moved = str(tmp_path / "moved")
  os.rename(os.path.dirname(base[0]), moved)
  with pytest.raises(errors.InputError, match="--init_checkpoint"):
    checkpoints.Weights.open(directory)
  assert checkpoints.Weights.open(directory, base=moved)
  changed = str(tmp_path / "changed.ckpt")
  checkpoints.write(changed, {n: a + 1 for n, a in base[1].items()})
  with pytest.raises(errors.InputError, match="digest"):
    checkpoints.Weights.open(directory, base=changed)
  assert checkpoints.Weights.open(directory, base=changed, force_base=True)


def test_run_records(tmp_path):
  assert run_record.read(str(tmp_path)) is None
  run_record.write(str(tmp_path / "a"), {"task": "x"})
  assert run_record.read(str(tmp_path / "a")) == {"task": "x"}
  (tmp_path / "a" / "run.json").write_text("{")
  with pytest.raises(errors.InputError, match="run.json"):
    run_record.read(str(tmp_path / "a"))
