"""Which variables a method trains, and in which types they are kept."""

import functools

import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.tuning import Tuning
import modeling

_LAYER = [
    "attention/self/query/kernel", "attention/self/query/bias",
    "attention/self/key/kernel", "attention/self/key/bias",
    "attention/self/value/kernel", "attention/self/value/bias",
    "attention/output/dense/kernel", "attention/output/dense/bias",
    "attention/output/LayerNorm/beta", "attention/output/LayerNorm/gamma",
    "intermediate/dense/kernel", "intermediate/dense/bias",
    "output/dense/kernel", "output/dense/bias",
    "output/LayerNorm/beta", "output/LayerNorm/gamma",
]
_ADAPTER = ["weights1", "biases1", "weights2", "biases2"]


def _adapters_in(scopes):
  """The names of the adapters' variables in the scopes, adapters' own last."""
  return ["bert/encoder/%s/%s" % (scope, name)
          for scope in scopes for name in _ADAPTER]


@functools.lru_cache(maxsize=None)
def _classifier(adapters, **keys):
  """The graph of the tiny model with a head, with or without adapters."""
  with test_util.graph() as graph:
    model = test_util.build(
        test_util.tiny_config(**keys), test_util.tiny_batch(),
        adapter_fn="feedforward_adapter" if adapters else None)
    modeling.classifier_head(model.get_pooled_output(), 3, is_training=True)
    assert bool(tf.get_collection("adapters")) == adapters
  return graph


def _trained(tuning, **keys):
  """The sorted names of what a method trains in the model that is for it."""
  with _classifier(tuning.uses_adapters, **keys).as_default() as graph:
    variables = tuning.variables()
    order = test_util.names(tf.trainable_variables())
  found = test_util.names(variables)
  assert found == sorted(found, key=order.index)
  assert found == test_util.names(tuning.variables(graph))
  return sorted(found)


def _layers(numbers, part=""):
  return ["bert/encoder/layer_%d/%s" % (i, name) for i in numbers
          for name in _LAYER if part in name]


_HEAD = ["output_bias", "output_weights"]
_NORMS = _layers(range(3), "LayerNorm") + [
    "bert/embeddings/LayerNorm/beta", "bert/embeddings/LayerNorm/gamma"]
_ADAPTERS = _adapters_in(
    "layer_%d/%s/adapters" % (i, half) for i in range(3)
    for half in ("attention/output", "output"))
_POOLER = ["bert/pooler/dense/kernel", "bert/pooler/dense/bias"]
_EMBEDDINGS = ["bert/embeddings/word_embeddings",
               "bert/embeddings/token_type_embeddings",
               "bert/embeddings/position_embeddings"]


@pytest.mark.parametrize("arguments,expected", [
    ((), _ADAPTERS + _NORMS + _HEAD),
    (("adapters",), _ADAPTERS + _NORMS + _HEAD),
    (("layer_norm",), _NORMS + _HEAD),
    (("head",), _HEAD),
    (("full",), _EMBEDDINGS + ["bert/embeddings/LayerNorm/beta",
                               "bert/embeddings/LayerNorm/gamma"] +
     _layers(range(3)) + _POOLER + _HEAD),
    (("top_n", 1, 3), _layers([2]) + _POOLER + _HEAD),
    (("top_n", 3, 3), _layers(range(3)) + _POOLER + _HEAD),
    (("adapters+head",), _ADAPTERS + _HEAD),
    (("head+adapters",), _ADAPTERS + _HEAD),
    (("adapters+layer_norm",), _ADAPTERS + _NORMS),
    (("layer_norm+head",), _NORMS + _HEAD),
    (("adapters+layer_norm+head",), _ADAPTERS + _NORMS + _HEAD),
])
def test_tuning(arguments, expected):
  assert _trained(Tuning(*arguments)) == sorted(expected)


def test_tuning_agrees_with_the_reference():
  facts = test_util.golden("adapter_small").facts
  collections_ = facts["collections"]
  tuning = Tuning()
  trained = [name for name in facts["trainable"] if tuning.trains(
      name, [c for c in collections_ if name in collections_[c]])]
  assert sorted(test_util.names(type("V", (), {"name": n}) for n in trained) +
                _HEAD) == sorted(facts["train"]["trained"])


@pytest.mark.parametrize("arguments,message", [
    (("adapter",), "unknown tuning method 'adapter'; known are adapters, prefix, "
                   "full, top_n, layer_norm, head, and adapters, prefixes, "
                   "layer_norm, head joined with"),
    (("adapters+full",), r"unknown tuning method 'adapters\+full'"),
    (("adapters+",), "unknown tuning method"),
    (("",), "unknown tuning method ''"),
    ((None,), "unknown tuning method None"),
    (("top_n",), r"needs top_n_layers from 1 to the model's layers \(None\), and"
                 " got None"),
    (("top_n", 0, 3), r"from 1 to the model's layers \(3\), and got 0"),
    (("top_n", 4, 3), r"from 1 to the model's layers \(3\), and got 4"),
    (("top_n", True, 3), "and got True"),
    (("top_n", 2), "needs num_hidden_layers"),
    (("head", 2, 3), "top_n_layers is 2, but the tuning method is head"),
])
def test_tuning_refuses(arguments, message):
  with pytest.raises(ValueError, match=message):
    Tuning(*arguments)


def test_top_n_refuses_shared_layers():
  for group in (None, 2):
    with pytest.raises(ValueError, match="layers share their weights"):
      _trained(Tuning("top_n", 1, 3), layers_per_group=group,
               share_parameter_across_layers=True)
  # Groups of one layer share nothing.
  assert _trained(Tuning("top_n", 1, 3), layers_per_group=1,
                  share_parameter_across_layers=True) == sorted(
                      _layers([2]) + _POOLER + _HEAD)


def test_top_n_counts_layers_as_numbers():
  # layer_10 comes after layer_9, and belongs to another model all the same.
  tuning = Tuning("top_n", 2, 12)
  trains = lambda name: tuning.trains(name, [])
  assert trains("bert/encoder/layer_10/output/dense/kernel:0")
  assert trains("bert_1/encoder/layer_11/output/dense/kernel:0")
  assert not trains("bert/encoder/layer_9/output/dense/kernel:0")
  assert not trains("bert/encoder/layer_1/output/dense/kernel:0")
  assert not trains("bert/embeddings/word_embeddings:0")


def test_tuning_of_adapters_that_a_function_of_ones_own_makes():
  def own(x):
    return x + tf.get_variable("shift", [16])

  with test_util.graph():
    test_util.build(test_util.tiny_config(num_hidden_layers=1),
                    test_util.tiny_batch(), adapter_fn=own)
    assert [name for name in test_util.names(Tuning().variables())
            if "LayerNorm" not in name] == [
                "bert/encoder/layer_0/attention/output/shift",
                "bert/encoder/layer_0/output/shift"]


# ------------------------------------------------------------------- prefixes


@pytest.mark.parametrize("tune,expected", [
    ("prefix", ["prefix", "head"]),
    ("prefixes+layer_norm+head", ["prefix", "norm", "head"]),
    ("adapters+prefixes+head", ["adapter", "prefix", "head"]),
    ("adapters", ["adapter", "norm", "head"])])
def test_tuning_of_prefixes(tune, expected):
  tuning = Tuning(tune)
  assert tuning.uses_prefixes == ("prefix" in expected)
  assert tuning.uses_adapters == ("adapter" in expected)
  with test_util.graph():
    for name, collection in (("adapter", "adapters"), ("prefix", "prefixes"),
                             ("norm", "layer_norm"), ("head", "head"),
                             ("kernel", None)):
      tf.get_variable(name, [1], collections=[tf.GraphKeys.GLOBAL_VARIABLES] + (
          [collection] if collection else []))
    assert test_util.names(tuning.variables()) == expected


def test_prefixes_cannot_be_trained_where_there_are_none():
  with test_util.graph():
    tf.get_variable("head", [1], collections=["head"])
    with pytest.raises(ValueError, match="tuning method is prefix, and the "
                                         "model was built without prefixes"):
      Tuning("prefix").variables()


# ------------------------------------------------------------------ the getter


def _built(tuning, dtype):
  """(the tiny model with a head, its variables' types by name)."""
  with tf.variable_scope("", custom_getter=tuning.variable_getter(dtype)):
    model = test_util.build(
        test_util.tiny_config(num_hidden_layers=1), test_util.tiny_batch(),
        adapter_fn=(lambda x: x * tf.cast(tf.get_variable("scale", [16]),
                                          x.dtype))
        if tuning.uses_adapters else None)
    modeling.classifier_head(model.get_pooled_output(), 3, is_training=True)
  return model, {v.op.name: v.dtype.base_dtype for v in tf.global_variables()}


@pytest.mark.parametrize("tune", ["adapters", "full", "head", "adapters+head"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16],
                         ids=["float32", "bfloat16"])
def test_types(tune, dtype):
  tuning = Tuning(tune)
  with test_util.graph() as graph:
    model, types = _built(tuning, dtype)
    for collection in ("adapters", "layer_norm", "head"):
      for name in test_util.names(tf.get_collection(collection)):
        assert types.pop(name) == tf.float32, name
    # The rest: kernels, biases and embeddings.
    assert len(types) == 3 + 6 * 2 + 2
    assert set(types.values()) == {tf.float32 if tune == "full" else dtype}
    # What is computed in follows, however the variables are stored.
    for output in (model.get_embedding_output(), model.get_pooled_output()):
      assert output.dtype == dtype
    products = set(op.outputs[0].dtype for op in graph.get_operations()
                   if "MatMul" in op.type and "bert/embeddings" not in op.name
                   and "bert/" in op.name)
    assert products == {dtype}
    # No table is read as a whole and cast where nothing is to be cast.
    assert (model.get_embedding_table() in tf.global_variables()) == (
        dtype == tf.float32 or tune != "full")


def test_a_constant_is_never_trained():
  """BART's bias of the words is a buffer in Hugging Face."""
  for tune in Tuning.METHODS:
    if tune != "top_n":
      assert not Tuning(tune).trains("bart/final_logits_bias", [])
      assert not Tuning(tune).trains("bart/final_logits_bias:0", [])
  assert Tuning("full").trains("bart/decoder/LayerNorm/beta", [])


def test_first_trained_variable_is_reported():
  class Ops(modeling.PlainOps):
    at = None

    def trained_from_here(self):
      if self.at is None:
        self.at = len(tf.global_variables())

  for tune, first in (("full", "bert/embeddings/word_embeddings"),
                      ("layer_norm", "bert/embeddings/LayerNorm/beta"),
                      ("head", "output_weights")):
    with test_util.graph():
      ops = Ops()
      getter = Tuning(tune).variable_getter(tf.float32, ops)
      with tf.variable_scope("", custom_getter=getter):
        model = test_util.build(test_util.tiny_config(num_hidden_layers=1),
                                test_util.tiny_batch(), adapter_fn=None)
        modeling.classifier_head(model.get_pooled_output(), 3, is_training=True)
      assert test_util.names(tf.global_variables())[ops.at] == first
