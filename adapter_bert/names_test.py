"""names.py agrees with the variables and collections of a model's own graph."""

import pytest
import tensorflow.compat.v1 as tf

import modeling
from adapter_bert import names
from adapter_bert import test_util


@pytest.fixture(name="variables", scope="module")
def fixture_variables():
  """name -> its collections, of a model of 3 layers with adapters and a head."""
  with test_util.graph():
    model = test_util.build(test_util.tiny_config(), test_util.tiny_batch())
    modeling.classifier_head(model.get_pooled_output(), 3, False)
    return {v.op.name: [c for c in ("adapters", "layer_norm", "head")
                        if v in tf.get_collection(c)]
            for v in tf.trainable_variables()}


def test_names_and_collections_agree(variables):
  for is_kind, collection in ((names.is_adapter, "adapters"),
                              (names.is_layer_norm, "layer_norm"),
                              (names.is_head, "head")):
    found = set(filter(is_kind, variables))
    assert found == {n for n in variables if collection in variables[n]}
    assert found


def test_every_variable_is_in_a_part(variables):
  parts = {}
  for name in variables:
    parts.setdefault(names.part_of(name), []).append(name)
  assert {part: len(found) for part, found in parts.items()} == {
      "embeddings": 5, "layer_0": 24, "layer_1": 24, "layer_2": 24,
      "pooler": 2, "head": 2}
  assert not any(map(names.is_slot, variables))


@pytest.mark.parametrize("name, layer, in_seven", [
    ("bert/encoder/layer_3/output/dense/bias", ("bert/encoder", "3"),
     "bert/encoder/layer_7/output/dense/bias"),
    ("bert/encoder/layer_shared/output/dense/bias", ("bert/encoder", "shared"),
     "bert/encoder/layer_7/output/dense/bias"),
    ("layer_12/x", ("", "12"), "layer_7/x"),
    ("bert/embeddings/LayerNorm/beta", None, None),
    ("bert/encoder/layer_norm/beta", None, None),
    ("bert/encoder/player_1/x", None, None)])
def test_layers(name, layer, in_seven):
  assert names.layer_of(name) == layer
  if layer:
    assert names.in_layer(name, 7) == in_seven


def test_slots_and_what_pretraining_left():
  kernel = "bert/pooler/dense/kernel"
  assert names.slots_of(kernel) == [kernel + "/adam_m", kernel + "/adam_v"]
  assert all(map(names.is_slot, names.slots_of(kernel)))
  assert names.is_pretrained(kernel) and names.is_model_variable(kernel)
  for name in names.slots_of(kernel) + ["global_step"]:
    assert not names.is_model_variable(name) and not names.is_pretrained(name)
  for name in ("output_weights", "output_bias", "cls/predictions/output_bias",
               "bert/encoder/layer_0/output/adapters_1/up/kernel",
               "bert/prefix/embeddings"):
    assert names.is_model_variable(name) and not names.is_pretrained(name)


def test_weight_decay_leaves_out_biases_and_layer_norms(variables):
  left_out = {n for n in variables if not names.is_decayed(n)}
  assert left_out == {n for n in variables if n.endswith(
      ("bias", "biases1", "biases2", "beta", "gamma"))}


def test_names_of_others():
  assert names.is_google_albert(
      "bert/encoder/transformer/group_0/inner_group_0/x")
  assert names.is_object_based("model/layer/.ATTRIBUTES/VARIABLE_VALUE")
  assert names.is_object_based("_CHECKPOINTABLE_OBJECT_GRAPH")
  assert not names.is_object_based("bert/pooler/dense/bias")
