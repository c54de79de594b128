"""What a run on a sequence model records is what is built again."""

import json

import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.models import gpt2
from adapter_bert.models import t5
from adapter_bert.training import sequence_specs

GPT2 = dict(vocab_size=11, n_positions=40, n_embd=8, n_layer=2, n_head=2)


def spec_of(**changes):
  return sequence_specs.SequenceSpec(
      config=gpt2.GPT2Config.from_dict(GPT2), **changes)


def variables_of(spec, **arguments):
  """{name: (dtype, whether it is trained)} of what a spec builds."""
  with test_util.graph():
    ids = tf.zeros([1, 3], tf.int32)
    spec.model(False, {"input_ids": ids, "input_mask": ids + 1}, **arguments)
    trained = set(test_util.names(spec.tuning.variables()))
    return {v.op.name: (v.dtype.base_dtype.name, v.op.name in trained)
            for v in tf.global_variables()}


@pytest.mark.parametrize("changes,first_position", [
    (dict(tune="adapters", adapter_size=3, adapter_layers=[1]), 0),
    (dict(tune="adapters", adapter_act="relu"), 0),
    (dict(tune="prefix", prefix_length=4, prefix_hidden_size=5), 4),
    (dict(tune="prefix", prefix_length=4, prefix_positions="unshifted"), 0)])
def test_a_record_builds_the_same_model(changes, first_position):
  spec = spec_of(**changes)
  again = sequence_specs.from_record(json.loads(json.dumps(spec.describe())),
                                     "run.json")
  assert again.describe() == spec.describe()
  assert variables_of(again) == variables_of(spec)
  assert again.first_position == spec.first_position == first_position


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_activation_of_adapters(activation):
  with test_util.graph():
    ids = tf.zeros([1, 3], tf.int32)
    spec_of(tune="adapters", adapter_act=activation).model(
        False, {"input_ids": ids, "input_mask": ids + 1})
    kinds = {op.type for op in tf.get_default_graph().get_operations()}
  assert ("Relu" in kinds) == (activation == "relu")


@pytest.mark.parametrize("hidden_size, moved", [
    (None, ["gpt2/prefix/embeddings"]), (5, ["gpt2/prefix/dense_1/kernel"])])
def test_prefixes_that_start_from_zero(hidden_size, moved):
  spec = spec_of(tune="prefix", prefix_length=4, prefix_hidden_size=hidden_size,
                 prefix_init="zero")
  values = spec.initial_values(None, None)
  assert sorted(values) == moved
  assert not values[moved[0]].any()
  assert values[moved[0]].shape == (hidden_size or 4, 2 * 2 * 8)
  assert not spec_of(tune="prefix").initial_values(None, None)


def test_frozen_weights_are_stored_as_they_are_computed_with():
  spec = spec_of(tune="full", precision="bfloat16")
  table, norm = "gpt2/embeddings/word_embeddings", "gpt2/decoder/LayerNorm/beta"
  assert variables_of(spec)[table] == ("float32", True)
  frozen = variables_of(spec, frozen=True)
  assert frozen[table][0] == "bfloat16" and frozen[norm][0] == "float32"


@pytest.mark.parametrize("changes,message", [
    (dict(adapter_act="gelo"), "unknown activation 'gelo'"),
    (dict(tune="most"), "unknown tuning method 'most'"),
    (dict(cross_adapters=True), "GPT-2 has no cross-attention"),
    (dict(config=dict(GPT2, model_type="bert")), "model_type is 'bert'"),
    (dict(config=dict(GPT2, model_type="gpt2", n_head=3)), "multiple of n_head"),
])
def test_records_that_cannot_be(changes, message):
  with pytest.raises(errors.InputError, match=message):
    sequence_specs.from_record(dict(spec_of().describe(), **changes), "run.json")
  with pytest.raises(errors.InputError, match="run.json has no 'config'"):
    sequence_specs.from_record({"tune": "head"}, "run.json")


def test_layers_with_adapters_are_for_gpt2():
  config = t5.T5Config.from_dict(dict(vocab_size=11))
  with pytest.raises(ValueError, match="adapter_layers is .0.; it is for GPT-2"):
    sequence_specs.SequenceSpec(config=config, adapter_layers=[0])
