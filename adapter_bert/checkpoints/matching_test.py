"""Matching a model's variables with what checkpoints hold."""

import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import matching
from adapter_bert.checkpoints import weights as weights_lib
import modeling


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
  weights_lib.write(prefix, arrays)
  return prefix, arrays


def match(weights, config, head=2, shared=None, **changes):
  with tf.Graph().as_default():
    keys = dict(config.to_dict(), **changes)
    changed = modeling.BertConfig.from_dict(keys)
    return matching.match(model_variables(changed, head=head), weights,
                             changed, shared)


def refusal(weights, config, **arguments):
  with pytest.raises(errors.InputError) as caught:
    match(weights, config, **arguments)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_adapters_and_head_may_be_new(base, config):
  found = match(weights_lib.Weights([base[0]]), config)
  assert found.loaded == {name: (name,) for name in base[1]}
  assert {"output_weights", "output_bias"} <= set(found.new)
  assert all("adapters" in n or n.startswith("output_") for n in found.new)
  assert len(found.new) == 2 + 2 * 2 * 4
  assert found.leftover == []


def test_leftovers_that_do_not_matter(base, config, tmp_path):
  prefix = str(tmp_path / "more.ckpt")
  more = {name: np.float32(0) for name in (
      "cls/predictions/bias", "bert/pooler/dense/bias/adam_m")}
  weights_lib.write(prefix, dict(base[1], global_step=np.int64(3), **more))
  found = match(weights_lib.Weights([prefix]), config)
  assert sorted(found.leftover) == sorted(list(more) + ["global_step"])


def test_a_head_of_another_task_is_left_over(config, tmp_path):
  prefix = str(tmp_path / "other.ckpt")
  weights_lib.write(prefix, model_arrays(config, "feedforward_adapter", head=3))
  weights = weights_lib.Weights([prefix])
  assert match(weights, config, head=3).new == []
  assert match(weights, config, head=2).new == ["output_weights", "output_bias"]


def test_anything_else_that_is_missing(base, config, tmp_path):
  arrays = dict(base[1])
  del arrays["bert/pooler/dense/bias"]
  prefix = str(tmp_path / "less.ckpt")
  weights_lib.write(prefix, arrays)
  line = refusal(weights_lib.Weights([prefix]), config)
  assert "lacks 1 of" in line and "bert/pooler/dense/bias" in line


def test_shapes_that_differ_are_both_named(base, config):
  line = refusal(weights_lib.Weights([base[0]]), config, vocab_size=32)
  assert "word_embeddings has shape [31, 16]" in line and "[32, 16]" in line


@pytest.mark.parametrize("layers", [1, 3])
def test_every_layer_of_both_sides_must_be_used(base, config, layers):
  line = refusal(weights_lib.Weights([base[0]]), config,
                 num_hidden_layers=layers)
  assert "has 2 layers" in line and "uses %d" % layers in line


def test_layers_that_are_shared_on_one_side(base, config, tmp_path):
  line = refusal(weights_lib.Weights([base[0]]), config,
                 share_parameter_across_layers=True)
  assert "plain BERT" in line and "--init_shared_from" in line
  prefix = str(tmp_path / "shared.ckpt")
  shared = modeling.BertConfig.from_dict(
      dict(config.to_dict(), share_parameter_across_layers=True))
  weights_lib.write(prefix, model_arrays(shared))
  line = refusal(weights_lib.Weights([prefix]), config)
  assert "layer_shared" in line and "--share_parameter_across_layers" in line
  assert match(weights_lib.Weights([prefix]), shared).loaded


def test_an_albert_zh_checkpoint_loads_by_name():
  golden = test_util.golden("albert_shared_all")
  config = modeling.BertConfig.from_dict(golden.facts["config"])
  weights = weights_lib.Weights([golden.checkpoint])
  assert "--share_parameter_across_layers" in refusal(weights, config)
  found = match(weights, config, share_parameter_across_layers=True)
  assert len(found.loaded) == len(golden.facts["shapes"])


def test_shared_layers_from_a_plain_bert(base, config):
  weights = weights_lib.Weights([base[0]])
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
  weights_lib.write(prefix, model_arrays(config))
  found = match(weights_lib.Weights([prefix]), config, shared="mean",
                share_parameter_across_layers=True, layers_per_group=2)
  bias = "bert/encoder/layer_%d/intermediate/dense/bias"
  assert found.loaded[bias % 0] == (bias % 0, bias % 1)
  assert found.loaded[bias % 1] == (bias % 2,)


def test_googles_own_albert_is_refused(base, config, tmp_path):
  prefix = str(tmp_path / "albert.ckpt")
  weights_lib.write(prefix, {
      "bert/encoder/transformer/group_0/inner_group_0/x": np.float32(0)})
  line = refusal(weights_lib.Weights([prefix]), config)
  assert "Google's own ALBERT" in line


@pytest.mark.parametrize("model,sharing", [
    ("albert_zh tiny", dict(share_parameter_across_layers=True)),
    ("google BERT uncased_L-8_H-512_A-8", {}),
    ("google BERT-BASE Chinese", {})])
def test_published_checkpoints_have_the_models_names(model, sharing, tmp_path):
  path = test_util.external("ADAPTER_BERT_GOLDEN",
                            "original_checkpoint_variables.json")
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
  weights = weights_lib.Weights([base[0]])
  shared = modeling.BertConfig.from_dict(
      dict(config.to_dict(), share_parameter_across_layers=True))
  with tf.Graph().as_default(), tf.Session() as session:
    variables = model_variables(shared, adapter_fn=None)
    found = matching.match(variables, weights, shared, "mean")
    session.run(matching.load_ops(variables, found, weights))
    values = {v.op.name: session.run(v) for v in variables}
  bias = "bert/encoder/layer_%s/intermediate/dense/bias"
  np.testing.assert_allclose(
      values[bias % "shared"],
      (base[1][bias % 0] + base[1][bias % 1]) / 2, atol=1e-7)


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
  weights_lib.write(prefixes[1], top)
  weights_lib.write(prefixes[2], {"output_bias": np.zeros(2, np.float32)})
  # A third file on top, of a run that trained less: the second still counts.
  for some in (prefixes[:2], prefixes):
    found = match(weights_lib.Weights(some), config, shared=shared, **sharing)
    for name in top:
      assert found.loaded[name] == (name,)
  with pytest.raises(errors.InputError, match="has 2 layers"):
    match(weights_lib.Weights(prefixes), config, num_hidden_layers=3)
