"""The model: the reference's numbers, its interface and its contracts."""

import functools
import inspect
import itertools
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.ops.compiled import CompiledOps
from adapter_bert.ops.dropout import SeededOps
import modeling

# ---------------------------------------------------- what scripts may rely on

# Name -> arguments, with their defaults, that existing code passes by position
# and by name. A function may take more after these, all with a default.
INTERFACE = {
    "BertConfig": (
        "vocab_size, hidden_size=768, num_hidden_layers=12,"
        " num_attention_heads=12, intermediate_size=3072, hidden_act='gelu',"
        " hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,"
        " max_position_embeddings=512, type_vocab_size=16,"
        " initializer_range=0.02"),
    "BertConfig.from_dict": "json_object",
    "BertConfig.from_json_file": "json_file",
    "BertConfig.to_dict": "self",
    "BertConfig.to_json_string": "self",
    "BertModel": (
        "config, is_training, input_ids, input_mask=None, token_type_ids=None,"
        " use_one_hot_embeddings=False, scope=None,"
        " adapter_fn='feedforward_adapter'"),
    "BertModel.get_pooled_output": "self",
    "BertModel.get_sequence_output": "self",
    "BertModel.get_all_encoder_layers": "self",
    "BertModel.get_embedding_output": "self",
    "BertModel.get_embedding_table": "self",
    "transformer_model": (
        "input_tensor, attention_mask=None, hidden_size=768,"
        " num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,"
        " intermediate_act_fn=gelu, hidden_dropout_prob=0.1,"
        " attention_probs_dropout_prob=0.1, initializer_range=0.02,"
        " do_return_all_layers=False, adapter_fn=None,"
        " share_parameter_across_layers=False, layers_per_group=None"),
    "attention_layer": (
        "from_tensor, to_tensor, attention_mask=None, num_attention_heads=1,"
        " size_per_head=512, query_act=None, key_act=None, value_act=None,"
        " attention_probs_dropout_prob=0.0, initializer_range=0.02,"
        " do_return_2d_tensor=False, batch_size=None, from_seq_length=None,"
        " to_seq_length=None"),
    "feedforward_adapter": "input_tensor, hidden_size=64, init_scale=0.001",
    "get_adapter": "function_or_name",
    "get_prefix": "function_or_name",
    "prefix_encoder": (
        "num_hidden_layers, num_attention_heads, size_per_head,"
        " prefix_length=20, hidden_size=None, embedding_size=None"),
    "get_activation": "function_or_name",
    "embedding_lookup": (
        "input_ids, vocab_size, embedding_size=128, initializer_range=0.02,"
        " word_embedding_name='word_embeddings', use_one_hot_embeddings=False"),
    "embedding_postprocessor": (
        "input_tensor, use_token_type=False, token_type_ids=None,"
        " token_type_vocab_size=16,"
        " token_type_embedding_name='token_type_embeddings',"
        " use_position_embeddings=True,"
        " position_embedding_name='position_embeddings',"
        " initializer_range=0.02, max_position_embeddings=512,"
        " dropout_prob=0.1"),
    "create_attention_mask_from_input_mask": "from_tensor, to_mask",
    "get_assignment_map_from_checkpoint": "tvars, init_checkpoint",
    "gelu": "x",
    "dropout": "input_tensor, dropout_prob",
    "layer_norm": "input_tensor, name=None",
    "layer_norm_and_dropout": "input_tensor, dropout_prob, name=None",
    "create_initializer": "initializer_range=0.02",
    "get_shape_list": "tensor, expected_rank=None, name=None",
    "reshape_to_matrix": "input_tensor",
    "reshape_from_matrix": "output_tensor, orig_shape_list",
    "assert_rank": "tensor, expected_rank, name=None",
}


@pytest.mark.parametrize("name", sorted(INTERFACE))
def test_interface(name):
  function = functools.reduce(getattr, name.split("."), modeling)
  parameters = list(inspect.signature(function).parameters.values())

  def text(parameter):
    if parameter.default is parameter.empty:
      return parameter.name
    # A function as a default is written by its name.
    return "%s=%s" % (parameter.name, getattr(
        parameter.default, "__name__", repr(parameter.default)))

  known = INTERFACE[name].split(", ")
  assert [text(p) for p in parameters[:len(known)]] == known
  for parameter in parameters[:len(known)]:
    assert parameter.kind == parameter.POSITIONAL_OR_KEYWORD
  for parameter in parameters[len(known):]:
    assert parameter.default is not parameter.empty, parameter.name


def test_import_changes_no_global_mode():
  code = """
import tensorflow.compat.v1 as tf
def mode():
  # What the modes decide, rather than the switches themselves.
  with tf.Graph().as_default():
    variable = tf.get_variable("v", [1])
    relation = tf.placeholder(tf.float32, [1]) == 1.0
    return (tf.executing_eagerly(), tf.resource_variables_enabled(),
            tf.control_flow_v2_enabled(), type(tf.TensorShape([1])[0]),
            type(variable), type(relation), tf.get_logger().level)
before = mode()
import modeling, optimization
assert mode() == before, (before, mode())
"""
  subprocess.run([sys.executable, "-c", code], check=True,
                 cwd=os.path.dirname(os.path.abspath(modeling.__file__)))


def test_where_a_model_can_be_built():
  code = """
import numpy as np
import tensorflow as tf
import modeling
config = modeling.BertConfig.from_dict(dict(
    vocab_size=31, hidden_size=16, num_hidden_layers=1, num_attention_heads=4,
    intermediate_size=20, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0))
ids = np.array([[1, 2, 3], [4, 5, 6]], np.int32)

def outputs(ids):
  model = modeling.BertModel(config, False, ids, scope="bert")
  assert len(tf.compat.v1.get_collection("adapters")) == 2 * 4
  return model.get_pooled_output()

try:
  outputs(tf.constant(ids))
except ValueError as error:
  assert "called eagerly" in str(error), error
  assert "tf.Graph" in str(error) and "wrap_function" in str(error), error
else:
  raise AssertionError("built eagerly")

wrapped = tf.compat.v1.wrap_function(
    outputs, [tf.TensorSpec([2, 3], tf.int32)])
assert wrapped(ids).shape == [2, 16]
np.testing.assert_array_equal(wrapped(ids), wrapped(tf.constant(ids)))
assert len(wrapped.variables) == 16 + 8 + 5 + 2, len(wrapped.variables)
"""
  subprocess.run([sys.executable, "-c", code], check=True,
                 cwd=os.path.dirname(os.path.abspath(modeling.__file__)))


def test_modeling_stands_alone():
  with open(modeling.__file__, encoding="utf-8") as reader:
    source = reader.read()
  imported = re.findall(r"^\s*(?:import|from) (\w+)", source, re.M)
  assert set(imported) <= {"collections", "copy", "functools", "json", "math",
                           "re", "six", "tensorflow"}
  assert len(source.splitlines()) <= 1200
  state = [name for name, value in vars(modeling).items()
           if isinstance(value, (list, set, dict)) and name[0] != "_"]
  # Tables, never changed.
  assert sorted(state) == ["ACTIVATIONS", "ADAPTER_FNS", "PREFIX_FNS"]


@pytest.mark.parametrize("is_training", [False, True])
def test_every_op_is_used(is_training):
  config = test_util.tiny_config(num_hidden_layers=2, hidden_dropout_prob=0.1,
                                 attention_probs_dropout_prob=0.1)
  with test_util.graph(resource=False) as graph:
    model = test_util.build(config, test_util.tiny_batch(), is_training)
    outputs = [model.get_embedding_output(), model.get_pooled_output()]
    waiting = [x.op for x in outputs + model.get_all_encoder_layers()]
    waiting += [v.initializer for v in tf.global_variables()]
    waiting.append(tf.global_variables_initializer())
    reached = set()
    while waiting:
      op = waiting.pop()
      if op not in reached:
        reached.add(op)
        waiting += [x.op for x in op.inputs] + list(op.control_inputs)
    # (None of `embedding_output` or the table; they are on the way.)
    assert [op.name for op in graph.get_operations() if op not in reached] == []


# ------------------------------------------------------ the reference's numbers

# Name in testdata/ -> the config keys that its json does not hold, because
# there they are arguments of the code.
GOLDEN_MODELS = {
    "adapter_small": {},
    "no_adapter_small": {},
    "albert_shared_all": {"share_parameter_across_layers": True},
    "albert_shared_pairs": {"share_parameter_across_layers": True,
                            "layers_per_group": 2},
}


@pytest.mark.parametrize("name,one_hot", [
    (name, False) for name in GOLDEN_MODELS] + [("no_adapter_small", True)])
def test_golden_model(name, one_hot):
  arrays, facts, checkpoint = test_util.golden(name)
  config = modeling.BertConfig.from_dict(
      dict(facts["config"], **GOLDEN_MODELS[name]))
  with test_util.graph():
    model = test_util.build(config, arrays, use_one_hot_embeddings=one_hot,
                            adapter_fn=facts.get("adapter_fn"))
    trainable = tf.trainable_variables()
    assert {v.name: v.shape.as_list() for v in trainable} == facts["shapes"]
    assert all(v.dtype.base_dtype == tf.float32 for v in trainable)
    assert tf.global_variables() == trainable
    if "trainable" in facts:  # the ALBERT files hold no order
      assert [v.name for v in trainable] == facts["trainable"]
    for collection, members in facts.get("collections", {}).items():
      assert [v.name for v in tf.get_collection(collection)] == members

    test_util.init_from(checkpoint, trainable)
    with test_util.session() as session:
      outputs = session.run({
          "embedding_output": model.get_embedding_output(),
          "all_encoder_layers": tf.stack(model.get_all_encoder_layers()),
          "sequence_output": model.get_sequence_output(),
          "pooled_output": model.get_pooled_output(),
      })
      table = session.run(model.get_embedding_table())
  for key, value in outputs.items():
    np.testing.assert_allclose(value, arrays[key], rtol=0, atol=2e-5,
                               err_msg=key)
  np.testing.assert_array_equal(table, tf.train.load_variable(
      checkpoint, "bert/embeddings/word_embeddings"))


def test_golden_real_weights():
  weights = test_util.external("BERT_BASE_DIR", "bert_model.ckpt")
  with np.load(test_util.external("ADAPTER_BERT_GOLDEN",
                                  "minilm_l6_forward.npz")) as arrays:
    arrays = dict(arrays)
  config = modeling.BertConfig.from_json_file(
      test_util.external("BERT_BASE_DIR", "bert_config.json"))
  with test_util.graph():
    model = test_util.build(config, arrays, adapter_fn=None)
    test_util.init_from(weights, tf.trainable_variables())
    with test_util.session() as session:
      sequence, pooled = session.run(
          [model.get_sequence_output(), model.get_pooled_output()])
  np.testing.assert_allclose(pooled, arrays["pooled_output"], rtol=0, atol=2e-5)
  tokens = arrays["input_mask"] == 1
  np.testing.assert_allclose(sequence[tokens],
                             arrays["sequence_output"][tokens], rtol=0,
                             atol=2e-5)
  # Padding is looked at by nobody. At one of its positions float32 keeps fewer
  # digits: in float64 the result is 1e-4 from the reference's there, and 3e-5
  # from ours.
  np.testing.assert_allclose(sequence, arrays["sequence_output"], rtol=0,
                             atol=5e-4)


# ------------------------------------------------------------------- adapters


@pytest.mark.parametrize("init_scale,low,high", [
    (0.0, 0.0, 2e-5),   # zero weights: the model without adapters
    (1e-3, 0.0, 1e-3),  # the default: close to it
    (0.5, 0.1, 100.0),  # a control: adapters are in the graph and do something
])
def test_adapter_is_the_identity_at_zero_weights(init_scale, low, high):
  plain = test_util.golden("no_adapter_small")
  adapter = functools.partial(modeling.feedforward_adapter,
                              init_scale=init_scale)
  with test_util.graph():
    model = test_util.build(modeling.BertConfig.from_dict(plain.facts["config"]),
                            plain.arrays, adapter_fn=adapter)
    adapters = set(tf.get_collection("adapters"))
    test_util.init_from(plain.checkpoint, [
        v for v in tf.trainable_variables() if v not in adapters])
    with test_util.session() as session:
      output = session.run(model.get_sequence_output())
  difference = np.abs(output - plain.arrays["sequence_output"]).max()
  assert low <= difference <= high


def test_adapter_hand_worked():
  with test_util.graph():
    with tf.variable_scope("here"):
      output = modeling.feedforward_adapter(
          tf.constant([[1.0, 2.0], [0.0, -1.0]]), hidden_size=1)
    variables = {v.op.name: v for v in tf.get_collection("adapters")}
    assert {k: v.shape.as_list() for k, v in variables.items()} == {
        "here/adapters/weights1": [2, 1], "here/adapters/biases1": [1, 1],
        "here/adapters/weights2": [1, 2], "here/adapters/biases2": [1, 2]}
    with test_util.session() as session:
      session.run([variables["here/adapters/weights1"].assign([[1.0], [1.0]]),
                   variables["here/adapters/biases1"].assign([[-2.0]]),
                   variables["here/adapters/weights2"].assign([[3.0, -1.0]]),
                   variables["here/adapters/biases2"].assign([[0.5, 0.25]])])
      output = session.run(output)
  # The bottleneck: gelu(1 + 2 - 2) = 0.8411920, gelu(0 - 1 - 2) = -0.0036374.
  np.testing.assert_allclose(
      output, [[1 + 3 * 0.8411920 + 0.5, 2 - 0.8411920 + 0.25],
               [3 * -0.0036374 + 0.5, -1 + 0.0036374 + 0.25]], atol=1e-6)


def test_adapter_initial_values():
  with test_util.graph():
    modeling.feedforward_adapter(tf.zeros([1, 200]), 100, init_scale=0.05)
    with test_util.session() as session:
      values = {v.op.name.split("/")[-1]: session.run(v)
                for v in tf.get_collection("adapters")}
  for name in ("weights1", "weights2"):
    assert np.abs(values[name]).max() <= 2 * 0.05
    # Cut at two standard deviations, a normal distribution keeps 0.880 of its
    # own.
    assert np.std(values[name]) == pytest.approx(0.880 * 0.05, rel=0.02)
  assert not values["biases1"].any() and not values["biases2"].any()


def _with_get_variable(x):
  return x * tf.get_variable("scale", [16], initializer=tf.ones_initializer())


def _with_a_scope(x):
  with tf.variable_scope("adapters"):
    return _with_get_variable(x)


def _with_tf_variable(x):
  return x + tf.Variable(tf.zeros([16]), name="shift")


def _with_layers_of_this_module(x):
  with tf.variable_scope("mine"):
    return modeling.layer_norm(modeling.dense(x, 16))


class _CallableWithoutName(object):

  def __call__(self, x):
    return _with_get_variable(x)


@pytest.mark.parametrize("adapter_fn,expected", [
    (_with_get_variable, ["scale"]),
    (_with_a_scope, ["adapters/scale"]),
    (_with_tf_variable, ["shift"]),
    (_with_layers_of_this_module,
     ["mine/dense/kernel", "mine/dense/bias", "mine/LayerNorm/beta",
      "mine/LayerNorm/gamma"]),
    (_CallableWithoutName(), ["scale"]),
    (functools.partial(_with_get_variable), ["scale"]),
    (lambda x: x, []),
])
def test_custom_adapter(adapter_fn, expected):
  inputs = []

  def spy(x):
    inputs.append(x.shape.as_list())
    return adapter_fn(x)

  with test_util.graph():
    test_util.build(test_util.tiny_config(num_hidden_layers=2),
                    test_util.tiny_batch(), adapter_fn=spy)
    assert inputs == [[5 * 7, 16]] * 4
    # Whatever it creates is an adapter variable, and nothing else is.
    assert test_util.names(tf.get_collection("adapters")) == [
        "bert/encoder/layer_%d/%s/%s" % (layer, half, name)
        for layer in (0, 1) for half in ("attention/output", "output")
        for name in expected]
    # With those of the plain model, each once.
    assert len(tf.global_variables()) == 2 * 16 + 7 + 4 * len(expected)
    assert tf.trainable_variables() == tf.global_variables()


@pytest.mark.parametrize("adapter_fn", [
    lambda x: modeling.dense(x, 16), lambda x: modeling.layer_norm(x)])
def test_adapter_cannot_take_the_layers_own_variables(adapter_fn):
  with test_util.graph():
    with pytest.raises(ValueError, match="layer's own; open a variable scope"):
      test_util.build(test_util.tiny_config(), test_util.tiny_batch(),
                      adapter_fn=adapter_fn)


def test_adapter_layers():
  config, batch = test_util.tiny_config(), test_util.tiny_batch()
  for layers in ([1, 2], [], None):
    with test_util.graph():
      test_util.build(config, batch, adapter_layers=layers)
      found = set(v.name.split("/")[2] for v in tf.get_collection("adapters"))
      assert found == set("layer_%d" % i
                          for i in ([0, 1, 2] if layers is None else layers))
  for layer in (3, -1):
    with test_util.graph():
      with pytest.raises(ValueError, match="names layer %d; the model has layers"
                                           " 0 to 2" % layer):
        test_util.build(config, batch, adapter_layers=[0, layer])


def _outputs_and_gradients(compiled=False, **arguments):
  """[numbers of calls, output, gradient of each variable] of a tiny BERT."""
  calls = []

  def adapter(x):
    calls.append(tf.get_variable_scope().name)
    return modeling.feedforward_adapter(x, hidden_size=3, activation=tf.tanh)

  arguments = dict(dict(adapter_fn=adapter), **arguments)
  with test_util.graph():
    output = test_util.build(
        test_util.tiny_config(num_hidden_layers=2), test_util.tiny_batch(),
        ops=CompiledOps(5, tf.constant(3)) if compiled else None,
        **arguments).get_sequence_output()
    upstream = tf.random.stateless_normal([5, 7, 16], seed=[1, 2])
    variables = [v for v in tf.trainable_variables() if "encoder" in v.name]
    names = test_util.names(variables)
    gradients = tf.gradients(output, variables, upstream)
    with test_util.session() as session:
      # Not the initial values, which depend on the number of ops.
      rng = np.random.RandomState(3)
      session.run([v.assign(0.3 * rng.normal(size=v.shape.as_list()))
                   for v in tf.trainable_variables()])
      return calls, names, session.run([output] + gradients)


def test_pfeiffer_has_an_adapter_after_the_second_half_and_one_layer_norm():
  calls, names, values = _outputs_and_gradients(adapter_order="pfeiffer")
  assert calls == ["bert/encoder/layer_0/output", "bert/encoder/layer_1/output"]
  assert len(names) == 2 * (16 + 4)
  _, _, compiled = _outputs_and_gradients(True, adapter_order="pfeiffer")
  for one, other in zip(compiled, values):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=5e-5)


def test_pfeiffer_takes_the_projection_for_the_adapters_residual():
  """Of its two LayerNorms the adapter sees one, and adds to what is before."""
  seen = []

  def adapter(x):
    seen.append(x)
    return x + 7.0 * x

  # With biases of 0 and scales of 1, y = LN(s) is (s - mean) / deviation of the
  # sum s of input and projection; so LN(s + 7 y) is y again.
  with test_util.graph():
    output = test_util.build(
        test_util.tiny_config(num_hidden_layers=1), test_util.tiny_batch(),
        adapter_fn=adapter, adapter_order="pfeiffer").get_sequence_output()
    with test_util.session() as session:
      y, output = session.run([seen[0], output])
  np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
  np.testing.assert_allclose(y.std(-1), 1, atol=1e-3)
  np.testing.assert_allclose(output.reshape(y.shape), y, atol=1e-4)


def test_pfeiffer_without_an_adapter_is_bert():
  plain, same = [_outputs_and_gradients(adapter_fn=adapter, adapter_order=order)
                 for adapter, order in ((None, "houlsby"),
                                        (lambda x: x, "pfeiffer"))]
  # TensorFlow fuses other ops where the projection is used twice.
  np.testing.assert_allclose(plain[2][0], same[2][0], atol=2e-6)


def test_adapter_order_is_known():
  with test_util.graph():
    with pytest.raises(ValueError, match="adapter_order is 'before'; known are "
                                         "houlsby and pfeiffer"):
      test_util.build(test_util.tiny_config(), test_util.tiny_batch(),
                      adapter_order="before")


def test_get_adapter():
  assert modeling.get_adapter("feedforward_adapter") is (
      modeling.feedforward_adapter)
  assert modeling.get_adapter(len) is len
  assert modeling.get_adapter(None) is None
  assert modeling.get_adapter("") is None
  for unknown in ("lora", 3):
    with pytest.raises(ValueError, match=r"unknown adapter %r; known are "
                                         r"feedforward_adapter" % unknown):
      modeling.get_adapter(unknown)


# -------------------------------------------------------------- small functions


def _run(*fetches):
  with test_util.session() as session:
    return session.run(fetches[0] if len(fetches) == 1 else fetches)


def test_get_activation():
  expected = {"linear": None, "relu": tf.nn.relu, "gelu": modeling.gelu,
              "gelu_erf": modeling.gelu_erf, "tanh": tf.tanh,
              "swish": tf.nn.silu}
  for name, function in expected.items():
    assert modeling.get_activation(name) is function
    assert modeling.get_activation(name.upper()) is function
  assert modeling.get_activation(len) is len
  assert modeling.get_activation(None) is None
  assert modeling.get_activation("") is None
  with pytest.raises(ValueError, match="unknown activation 'mish'; known are "
                                       "gelu, gelu_erf, linear, relu, swish, "
                                       "tanh"):
    modeling.get_activation("mish")
  with pytest.raises(ValueError, match="unknown activation 1"):
    modeling.get_activation(1)


def test_gelu():
  x = np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 10.0])
  with test_util.graph():
    tanh_form, exact = _run(modeling.gelu(tf.constant(x)),
                            modeling.gelu_erf(tf.constant(x)))
  np.testing.assert_allclose(
      tanh_form, [-0.0036374, -0.1588080, 0.0, 0.3457140, 0.8411920, 1.9545977,
                  10.0], atol=1e-6)
  np.testing.assert_allclose(
      exact, [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x],
      atol=1e-12)


def test_layer_norm():
  with test_util.graph():
    with tf.variable_scope("here"):
      plain = modeling.layer_norm(tf.constant([[[1.0, 2.0, 3.0, 4.0]]]))
      tiny = modeling.layer_norm(tf.constant([[0.0, 2e-6]]), name="other")
    beta, gamma = tf.get_collection("layer_norm")[:2]
    assert test_util.names(tf.get_collection("layer_norm")) == [
        "here/LayerNorm/beta", "here/LayerNorm/gamma", "here/other/beta",
        "here/other/gamma"]
    with test_util.session() as session:
      # The mean is 2.5 and the variance 1.25.
      normal = np.array([-1.5, -0.5, 0.5, 1.5]) / math.sqrt(1.25)
      np.testing.assert_allclose(session.run(plain)[0, 0], normal, rtol=1e-6)
      # Mean and standard deviation 1e-6: epsilon, 1e-12, doubles the variance.
      np.testing.assert_allclose(
          session.run(tiny)[0], [-math.sqrt(0.5), math.sqrt(0.5)], rtol=1e-4)
      session.run([gamma.assign([2, 2, 2, 3]), beta.assign([0, 1, 0, 1])])
      np.testing.assert_allclose(session.run(plain)[0, 0],
                                 normal * [2, 2, 2, 3] + [0, 1, 0, 1],
                                 atol=1e-6)


def test_layer_norm_and_dropout():
  with test_util.graph():
    x = tf.random.stateless_normal([50, 40], seed=[1, 2])
    both, normal = _run(modeling.layer_norm_and_dropout(x, 0.5, name="a"),
                        modeling.layer_norm(x, name="b"))
  kept = both != 0
  assert 0.4 < kept.mean() < 0.6
  np.testing.assert_allclose(both[kept], 2 * normal[kept], rtol=1e-6)


def test_create_initializer():
  with test_util.graph():
    values = _run(modeling.create_initializer(0.1)([100, 200]))
    default = _run(modeling.create_initializer()([100, 200]))
  assert np.abs(values).max() <= 0.2
  assert np.std(values) == pytest.approx(0.088, rel=0.02)
  assert 0.039 < np.abs(default).max() <= 0.04


def test_dense():
  with test_util.graph():
    x = tf.constant([[1.0, -2.0]])
    linear = modeling.dense(x, 3, name="a")
    squashed = modeling.dense(x, 3, activation=tf.tanh, name="b")
    assert {v.op.name: v.shape.as_list() for v in tf.global_variables()} == {
        "a/kernel": [2, 3], "a/bias": [3], "b/kernel": [2, 3], "b/bias": [3]}
    kernel = [[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]]
    with test_util.session() as session:
      biases = [v for v in tf.global_variables() if "bias" in v.name]
      assert not np.any(session.run(biases))
      session.run([v.assign(value) for value, v in zip(
          [kernel, [0.5, 0, 0]] * 2, tf.global_variables())])
      np.testing.assert_allclose(session.run(linear), [[1.5, 0.0, 1.0]])
      np.testing.assert_allclose(session.run(squashed),
                                 np.tanh([[1.5, 0.0, 1.0]]), rtol=1e-6)


def test_get_shape_list():
  with test_util.graph():
    static = tf.zeros([2, 3])
    assert modeling.get_shape_list(static) == [2, 3]
    assert modeling.get_shape_list(static, expected_rank=2) == [2, 3]
    dynamic = tf.placeholder(tf.float32, [None, 3, None])
    sizes = modeling.get_shape_list(dynamic, expected_rank=[2, 3])
    assert sizes[1] == 3
    with tf.Session() as session:
      assert session.run([sizes[0], sizes[2]],
                         {dynamic: np.zeros([5, 3, 4])}) == [5, 4]
    with pytest.raises(ValueError, match="rank 2"):
      modeling.get_shape_list(static, expected_rank=3)


def test_assert_rank():
  with test_util.graph():
    tensor = tf.zeros([2, 3], name="words")
    modeling.assert_rank(tensor, 2)
    modeling.assert_rank(tensor, [1, 2])
    with tf.variable_scope("bert"):
      with pytest.raises(ValueError, match=(
          r"tensor words:0 in scope bert has rank 2 \(shape \(2, 3\)\); "
          r"expected 3 or 4")):
        modeling.assert_rank(tensor, [3, 4])
      with pytest.raises(ValueError, match="tensor the words in"):
        modeling.assert_rank(tensor, 1, name="the words")


def test_reshape_to_and_from_matrix():
  with test_util.graph():
    x = np.arange(24).reshape([2, 3, 4])
    matrix = modeling.reshape_to_matrix(tf.constant(x))
    assert matrix.shape.as_list() == [6, 4]
    np.testing.assert_array_equal(
        _run(modeling.reshape_from_matrix(matrix[:, :1], [2, 3, 4])),
        x[:, :, :1])
    assert modeling.reshape_to_matrix(matrix) is matrix
    assert modeling.reshape_from_matrix(matrix, [6, 9]) is matrix
    with pytest.raises(ValueError, match="at least rank 2"):
      modeling.reshape_to_matrix(tf.zeros([3]))


# -------------------------------------------------------------------- dropout


def test_model_drops_while_training_only():
  config = test_util.tiny_config(hidden_dropout_prob=0.2,
                                 attention_probs_dropout_prob=0.2)
  batch = test_util.tiny_batch()
  with test_util.graph():
    step = tf.placeholder(tf.int64, [])
    training = test_util.build(config, batch, is_training=True, scope="b",
                               ops=SeededOps(1, step))
    with tf.variable_scope("", reuse=True):
      again = test_util.build(config, batch, is_training=True, scope="b")
      evaluated = test_util.build(config, batch, scope="b")
    with test_util.session() as session:
      run = lambda model, step_: session.run(model.get_pooled_output(),
                                             {step: step_})
      np.testing.assert_array_equal(run(evaluated, 0), run(evaluated, 1))
      np.testing.assert_array_equal(run(training, 0), run(training, 0))
      assert (run(training, 0) != run(training, 1)).any()
      assert (run(training, 0) != run(evaluated, 0)).any()
      assert (run(again, 0) != run(again, 0)).any()


@pytest.mark.parametrize("keys,count", [
    # After the embeddings, and after both projections of each of 3 layers.
    ({"hidden_dropout_prob": 0.2}, 1 + 3 * 2),
    ({"attention_probs_dropout_prob": 0.2}, 3),
    ({}, 0),
])
def test_where_the_model_drops(keys, count):
  def randoms(graph):
    return [op for op in graph.get_operations() if op.type == "RandomUniform"]

  def spy(x):
    adapter_inputs.append(x)
    return x

  for is_training in (True, False):
    adapter_inputs = []
    with test_util.graph() as graph:
      model = test_util.build(test_util.tiny_config(**keys),
                              test_util.tiny_batch(), is_training, adapter_fn=spy)
      assert len(randoms(graph)) == (count if is_training else 0)
      with test_util.session() as session:
        zeros = [(x == 0).mean() for x in session.run(adapter_inputs)]
        embedded = session.run(model.get_embedding_output())
    # An adapter's input has been dropped already; a layer's output is not.
    rate = keys.get("hidden_dropout_prob", 0) if is_training else 0
    np.testing.assert_allclose(zeros + [(embedded == 0).mean()], [rate] * 7,
                               atol=0.07)


# ------------------------------------------------------------------- attention


def _attention_in_numpy(from_tensor, to_tensor, mask, weights, heads, size):
  """Attention by loops, float64: [B, F, heads * size]."""
  batch_size, from_length = from_tensor.shape[:2]
  project = lambda x, name: x @ weights[name + "/kernel"] + (
      weights[name + "/bias"])
  query = project(from_tensor, "query")
  key = project(to_tensor, "key")
  value = project(to_tensor, "value")
  output = np.zeros([batch_size, from_length, heads * size])
  for b in range(batch_size):
    for h in range(heads):
      part = slice(h * size, (h + 1) * size)
      for f in range(from_length):
        scores = np.array([np.dot(query[b, f, part], k) / math.sqrt(size)
                           for k in key[b, :, part]])
        scores -= 10000.0 * (1 - mask[b, f])
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        output[b, f, part] = sum(
            p * v for p, v in zip(probabilities, value[b, :, part]))
  return output


@pytest.mark.parametrize("masked", [False, True])
def test_attention_layer(masked):
  batch_size, from_length, to_length, heads, size = 2, 3, 4, 2, 5
  rng = np.random.RandomState(0)
  from_value = rng.normal(size=[batch_size, from_length, 6])
  to_value = rng.normal(size=[batch_size, to_length, 7])
  mask = np.ones([batch_size, from_length, to_length], np.int32)
  if masked:
    mask[0, :, 3] = mask[1, 0, :2] = 0
    mask[1, 2] = 0  # nothing to look at: every score is lowered alike
  with test_util.graph():
    from_tensor = tf.constant(from_value, tf.float32)
    to_tensor = tf.constant(to_value, tf.float32)
    arguments = dict(attention_mask=tf.constant(mask) if masked else None,
                     num_attention_heads=heads, size_per_head=size)
    matrices = (modeling.reshape_to_matrix(from_tensor),
                modeling.reshape_to_matrix(to_tensor))
    sizes = dict(batch_size=batch_size, from_seq_length=from_length,
                 to_seq_length=to_length)
    with tf.variable_scope("self", reuse=tf.AUTO_REUSE):
      outputs = [
          modeling.attention_layer(from_tensor, to_tensor, **arguments),
          modeling.attention_layer(from_tensor, to_tensor,
                                   do_return_2d_tensor=True, **arguments),
          modeling.attention_layer(*matrices, **arguments, **sizes),
          modeling.attention_layer(*matrices, do_return_2d_tensor=True,
                                   **arguments, **sizes)]
    with test_util.session(scale=0.5) as session:
      outputs = session.run(outputs)
      weights = {v.op.name.partition("/")[2]: session.run(v)
                 for v in tf.global_variables()}
  assert sorted(weights) == ["key/bias", "key/kernel", "query/bias",
                             "query/kernel", "value/bias", "value/kernel"]
  expected = _attention_in_numpy(from_value, to_value, mask, weights, heads,
                                 size)
  for output, rank in zip(outputs, (3, 2, 3, 2)):
    assert output.ndim == rank
    # A row without anything to look at keeps 3 digits: its scores are -10000
    # and something, in float32.
    np.testing.assert_allclose(output.reshape(expected.shape), expected,
                               atol=5e-3 if masked else 1e-5)
    np.testing.assert_allclose(output.reshape(expected.shape)[:, :2],
                               expected[:, :2], atol=1e-5)


def test_attention_layer_activations_and_dropout():
  with test_util.graph():
    x = tf.random.stateless_normal([2, 3, 6], seed=[1, 2])
    zero = tf.zeros_like
    with tf.variable_scope("self", reuse=tf.AUTO_REUSE):
      # No value, no output; no query or no key, equal probabilities.
      no_value = modeling.attention_layer(x, x, value_act=zero)
      no_query = modeling.attention_layer(x, x, query_act=zero)
      no_key = modeling.attention_layer(x, x, key_act=zero)
      dropped = modeling.attention_layer(x, x, attention_probs_dropout_prob=0.5)
    with test_util.session() as session:
      assert not session.run(no_value).any()
      query, key = session.run([no_query, no_key])
      np.testing.assert_allclose(query, key, atol=1e-6)
      np.testing.assert_allclose(query[:, :1], query[:, 1:2], atol=1e-6)
      assert (session.run(dropped) != session.run(dropped)).any()


@pytest.mark.parametrize("seeded", [False, True])
def test_attention_layer_drops_probabilities_at_the_rate(seeded):
  with test_util.graph():
    x = tf.ones([3000, 1, 1])
    # One position to look at: its probability is 1, until it is dropped.
    output = _run(modeling.attention_layer(
        x, x, size_per_head=1, value_act=tf.ones_like,
        attention_probs_dropout_prob=0.3,
        ops=SeededOps(5, tf.constant(3)) if seeded else None))
  assert abs((output == 0).mean() - 0.3) < 0.035
  np.testing.assert_allclose(output[output != 0], 1 / 0.7, rtol=2e-5)


def test_attention_layer_errors():
  with test_util.graph():
    with pytest.raises(ValueError, match="has rank 3 and to_tensor rank 2"):
      modeling.attention_layer(tf.zeros([2, 3, 4]), tf.zeros([6, 4]))
    with pytest.raises(ValueError, match="rank 4.*expected 2 or 3"):
      modeling.attention_layer(tf.zeros([2, 3, 4, 5]), tf.zeros([2, 3, 4, 5]))
    sizes = dict(batch_size=2, from_seq_length=3, to_seq_length=3)
    for missing in sizes:
      with pytest.raises(ValueError, match="needs batch_size, from_seq_length"):
        modeling.attention_layer(tf.zeros([6, 4]), tf.zeros([6, 4]),
                                 **dict(sizes, **{missing: None}))


def test_create_attention_mask_from_input_mask():
  with test_util.graph():
    to_mask = tf.constant([[1, 1, 0], [1, 0, 0]])
    mask = _run(modeling.create_attention_mask_from_input_mask(
        tf.zeros([2, 2, 5]), to_mask))
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, [[[1, 1, 0]] * 2, [[1, 0, 0]] * 2])
    np.testing.assert_array_equal(mask, _run(
        modeling.create_attention_mask_from_input_mask(tf.zeros([2, 2]),
                                                       to_mask)))


# ---------------------------------- attention with prefix, causal, cross, cache

ARITHMETIC = pytest.mark.parametrize(
    "make_ops", [modeling.PlainOps, lambda: CompiledOps(5, tf.constant(3))],
    ids=["plain", "compiled"])


def _close(actual, expected, tolerance=1e-4):
  """Compares by the largest error over the largest value."""
  assert actual.shape == expected.shape
  error = np.abs(actual - expected).max() / np.abs(expected).max()
  assert error <= tolerance, error


def _assign(session, values):
  """Gives every variable in the graph its value, by name."""
  variables = {v.op.name: v for v in tf.global_variables()}
  assert sorted(variables) == sorted(values)
  session.run([v.assign(values[name]) for name, v in variables.items()])


def _variants(case):
  """(config, inputs, values of the variables, arrays) of attention_variants."""
  with open(os.path.join(test_util.TESTDATA, "attention_variants.json"),
            encoding="utf-8") as reader:
    facts = json.load(reader)
  with np.load(os.path.join(test_util.TESTDATA,
                            "attention_variants.npz")) as arrays:
    arrays = dict(arrays)
  config = test_util.tiny_config(**dict(facts["config"], hidden_act="gelu"))
  inputs = {key: arrays[key].astype(np.int32)
            for key in ("input_ids", "input_mask", "token_type_ids")}
  start = case + "/var/"
  values = {key[len(start):]: value for key, value in arrays.items()
            if key.startswith(start)}
  return config, inputs, values, arrays


@ARITHMETIC
@pytest.mark.parametrize("case", ["prefix", "prefix_mlp"])
def test_golden_prefix_of_peft(case, make_ops):
  config, inputs, values, arrays = _variants(case)
  encoder = case + "/encoder/"
  values["bert/prefix/embeddings"] = arrays[encoder + "embedding.weight"]
  hidden_size = None
  if case == "prefix_mlp":
    hidden_size = len(arrays[encoder + "transform.0.bias"])
    for ours, theirs in (("dense_0", "transform.0"), ("dense_1", "transform.2")):
      values["bert/prefix/%s/kernel" % ours] = arrays[
          encoder + theirs + ".weight"].T
      values["bert/prefix/%s/bias" % ours] = arrays[encoder + theirs + ".bias"]
  with test_util.graph():
    ops = make_ops()
    model = test_util.build(
        config, inputs, adapter_fn=None, ops=ops, prefix_fn=functools.partial(
            modeling.prefix_encoder, prefix_length=5, hidden_size=hidden_size,
            ops=ops))
    with test_util.session() as session:
      _assign(session, values)
      sequence, pooled = session.run([model.get_sequence_output(),
                                      model.get_pooled_output()])
  _close(sequence, arrays[case + "/sequence_output"])
  _close(pooled, arrays[case + "/pooled_output"])


def _decoder(config, inputs, source, source_mask, ops):
  """A causal BERT, with cross-attention if there is a source: [B, S, D]."""
  sizes = dict(num_attention_heads=config.num_attention_heads, ops=ops,
               size_per_head=config.hidden_size // config.num_attention_heads)

  def attended(scope, x, to_tensor, mask, causal):
    with tf.variable_scope(scope):
      with tf.variable_scope("self"):
        heads = modeling.attention_layer(x, to_tensor, mask, causal=causal,
                                         **sizes)
      return projected(heads, x)

  def projected(x, residual):
    shape = modeling.get_shape_list(residual)
    with tf.variable_scope("output"):
      output = modeling.dense(modeling.reshape_to_matrix(x), shape[-1], ops=ops)
      return modeling.layer_norm(tf.reshape(output, shape), residual=residual,
                                 ops=ops)

  with tf.variable_scope("bert"):
    with tf.variable_scope("embeddings"):
      x, _ = modeling.embedding_lookup(
          tf.constant(inputs["input_ids"]), config.vocab_size,
          config.hidden_size)
      x = modeling.embedding_postprocessor(
          x, use_token_type=True, token_type_ids=inputs["token_type_ids"],
          token_type_vocab_size=config.type_vocab_size, dropout_prob=0.0,
          max_position_embeddings=config.max_position_embeddings, ops=ops)
    for layer in range(config.num_hidden_layers):
      with tf.variable_scope("encoder/layer_%d" % layer):
        x = attended("attention", x, x, inputs["input_mask"][:, np.newaxis],
                     causal=True)
        if source is not None:
          x = attended("crossattention", x, source, source_mask[:, np.newaxis],
                       causal=False)
        with tf.variable_scope("intermediate"):
          inner = modeling.dense(modeling.reshape_to_matrix(x),
                                 config.intermediate_size, modeling.gelu,
                                 ops=ops)
        x = projected(inner, x)
  return x


@ARITHMETIC
@pytest.mark.parametrize("case", ["causal", "cross"])
def test_golden_decoder(case, make_ops):
  config, inputs, values, arrays = _variants(case)
  with test_util.graph():
    source = source_mask = None
    if case == "cross":
      source = tf.constant(arrays["cross/encoder_hidden_states"])
      source_mask = arrays["cross/encoder_mask"].astype(np.int32)
    output = _decoder(config, inputs, source, source_mask, make_ops())
    with test_util.session() as session:
      _assign(session, {name: value for name, value in values.items()
                        if "/pooler/" not in name})
      output = session.run(output)
  _close(output, arrays[case + "/sequence_output"])


def _random(*shape):
  return np.random.RandomState(sum(shape)).normal(size=shape).astype(np.float32)


def _pair(batch_size, length):
  """A prefix for 2 heads of size 5."""
  return (tf.constant(_random(batch_size, 2, length, 5)),
          tf.constant(_random(batch_size, 2, length, 5)[..., ::-1]))


_SIZES = dict(num_attention_heads=2, size_per_head=5)


@ARITHMETIC
def test_prefix_of_any_length(make_ops):
  x, mask = _random(2, 4, 6), np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)
  with test_util.graph():
    x, mask = tf.constant(x), tf.constant(mask[:, np.newaxis])
    ops = make_ops()
    with tf.variable_scope("self", reuse=tf.AUTO_REUSE):
      plain = modeling.attention_layer(x, x, mask, **_SIZES, ops=ops)
      empty = modeling.attention_layer(x, x, mask, **_SIZES, ops=ops,
                                       prefix=_pair(1, 0))
      found = {}
      for length in (1, 4, 9):  # 4 is the number of the tokens
        pair = _pair(1, length)
        found[length] = [
            modeling.attention_layer(x, x, mask, **_SIZES, ops=ops,
                                     prefix=pair),
            # The same for each example, given one by one.
            modeling.attention_layer(x, x, mask, **_SIZES, ops=ops, prefix=[
                tf.tile(part, [2, 1, 1, 1]) for part in pair]),
            # In another order.
            modeling.attention_layer(x, x, mask, **_SIZES, ops=ops, prefix=[
                part[:, :, ::-1] for part in pair])]
    with test_util.session(scale=0.5) as session:
      plain, empty, found = session.run([plain, empty, found])
  np.testing.assert_array_equal(plain, empty)
  for length, (one, tiled, turned) in found.items():
    np.testing.assert_allclose(one, tiled, rtol=1e-6)
    np.testing.assert_allclose(one, turned, atol=1e-6)
    # Every position sees it, the padded ones too.
    assert np.abs(one - plain).max(-1).min() > 1e-2, length


@ARITHMETIC
def test_prefix_against_numpy(make_ops):
  x, mask = _random(2, 3, 6), np.array([[1, 1, 0], [1, 0, 0]], np.int32)
  bias, prefix = _random(1, 2, 3, 5), (_random(1, 2, 2, 5), _random(2, 2, 2, 5))
  with test_util.graph():
    tensors = [tf.constant(value) for value in (x, bias) + prefix]
    output = modeling.attention_layer(
        tensors[0], tensors[0], tf.constant(mask[:, np.newaxis]), **_SIZES,
        prefix=tensors[2:], position_bias=tensors[1], causal=True, scale=0.3,
        use_bias=False, ops=make_ops())
    assert [v.op.name for v in tf.global_variables()] == [
        name + "/kernel" for name in ("query", "key", "value")]
    upstream = _random(2, 3, 10)
    gradients = tf.gradients(output, tensors, tf.constant(upstream))
    with test_util.session(scale=0.5) as session:
      output, gradients, kernels = session.run(
          [output, gradients, tf.global_variables()])

  def attention(x, bias, key_prefix, value_prefix):
    query, key, value = [
        (x @ np.float64(kernel)).reshape([2, 3, 2, 5]).transpose([0, 2, 1, 3])
        for kernel in kernels]
    tiled = lambda part: np.broadcast_to(part, [2] + list(part.shape[1:]))
    key = np.concatenate([tiled(key_prefix), key], axis=2)
    value = np.concatenate([tiled(value_prefix), value], axis=2)
    scores = 0.3 * query @ key.transpose([0, 1, 3, 2]) + bias
    seen = np.concatenate(
        [np.ones([2, 3, 2]), mask[:, np.newaxis] * np.tri(3)], axis=2)
    weights = np.exp(scores) * seen[:, np.newaxis]
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ value).transpose([0, 2, 1, 3]).reshape([2, 3, 10])

  inputs = [np.float64(value) for value in (x, bias) + prefix]
  np.testing.assert_allclose(output, attention(*inputs), atol=1e-5)
  for place, gradient in enumerate(gradients):
    for index in list(np.ndindex(*inputs[place].shape))[::7]:
      ends = []
      for step in (1e-5, -1e-5):
        moved = [value.copy() for value in inputs]
        moved[place][index] += step
        ends.append((attention(*moved) * upstream).sum())
      assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-5,
                                              rel=1e-3, abs=1e-3)


@ARITHMETIC
def test_prefix_never_replaces_the_source(make_ops):
  with test_util.graph():
    ops = make_ops()
    x = tf.constant(_random(1, 2, 6))
    outputs = []
    with tf.variable_scope("cross", reuse=tf.AUTO_REUSE):
      for length in (None, 3, 4, 5):  # a source has 4 positions
        prefix = length and _pair(1, length)
        for source in (_random(1, 4, 7), _random(1, 4, 7)[:, ::-1] + 1.0):
          source = tf.constant(source)
          made = modeling.keys_and_values(source, **_SIZES, ops=ops)
          outputs.append([
              modeling.attention_layer(x, to, **_SIZES, prefix=prefix, ops=ops)
              for to in (source, made)])
    with test_util.session(scale=0.5) as session:
      outputs = session.run(outputs)
  for direct, made in outputs:
    np.testing.assert_array_equal(direct, made)
  for one, other in zip(outputs[::2], outputs[1::2]):
    assert np.abs(one[0] - other[0]).max() > 1e-2


@ARITHMETIC
def test_what_is_masked_changes_nothing_at_all(make_ops):
  x = _random(2, 4, 6)
  mask = np.array([[[0, 1, 1, 0]], [[0, 0, 0, 0]]], np.int32)
  other = x.copy()
  other[:, 3] = 50.0
  other[:, 0] = -50.0
  with test_util.graph():
    ops = make_ops()
    with tf.variable_scope("self", reuse=tf.AUTO_REUSE):
      for_each = [modeling.attention_layer(
          tf.constant(x), tf.constant(to), tf.constant(mask), **_SIZES,
          scale=1.0, causal=True, ops=ops) for to in (x, other)]
    gradients = tf.gradients(for_each[0], tf.global_variables())
    with test_util.session(scale=0.5) as session:
      (one, two), gradients = session.run([for_each, gradients])
  # Query 0 sees no key, and no query of example 1: no NaN, and nobody reads it.
  np.testing.assert_array_equal(one[0, 1:], two[0, 1:])
  for value in [one, two] + gradients:
    assert np.isfinite(value).all()


@ARITHMETIC
@pytest.mark.parametrize("prefix_length", [0, 2])
def test_cached_equals_uncached(prefix_length, make_ops):
  x = _random(2, 5, 6)
  mask = np.array([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], np.int32)[:, np.newaxis]
  with test_util.graph():
    ops = make_ops()
    tensor = tf.constant(x)
    extra = dict(_SIZES, ops=ops, causal=True,
                 prefix=_pair(1, prefix_length) if prefix_length else None)
    room = np.pad(mask, [[0, 0], [0, 0], [0, 2]], constant_values=1)
    with tf.variable_scope("self", reuse=tf.AUTO_REUSE):
      whole = modeling.attention_layer(tensor, tensor, tf.constant(mask),
                                       **extra)
      # What was in the cache before does not matter.
      cache = modeling.Cache(tf.fill([2, 2, 7, 5], 9.0),
                             tf.fill([2, 2, 7, 5], -9.0), tf.constant(0))
      parts = []
      for first, last in ((0, 2), (2, 3), (3, 5)):
        part, cache = modeling.attention_layer(
            tensor[:, first:last], tensor[:, first:last], tf.constant(room),
            cache=cache, **extra)
        parts.append(part)
    with test_util.session(scale=0.5) as session:
      whole, parts, cache = session.run([whole, tf.concat(parts, 1), cache])
  np.testing.assert_allclose(parts[0, 1:], whole[0, 1:], atol=1e-5)
  np.testing.assert_allclose(parts[1], whole[1], atol=1e-5)
  assert cache.index == 5
  assert (cache.key[:, :, 5:] == 9).all() and (cache.key[:, :, :5] != 9).all()


def test_cached_without_causal_sees_what_is_written():
  x = _random(1, 3, 6)
  with test_util.graph():
    tensor = tf.constant(x)
    with tf.variable_scope("self", reuse=tf.AUTO_REUSE):
      whole = modeling.attention_layer(tensor, tensor, **_SIZES)
      empty = tf.zeros([1, 2, 8, 5])
      cached, _ = modeling.attention_layer(
          tensor, tensor, **_SIZES, cache=modeling.Cache(
              empty, empty, tf.constant(0)))
    with test_util.session(scale=0.5) as session:
      whole, cached = session.run([whole, cached])
  np.testing.assert_allclose(whole, cached, atol=1e-6)


def test_rms_norm():
  with test_util.graph():
    output = modeling.rms_norm(tf.constant([[3.0, 4.0]]), epsilon=0.5)
    gamma, = tf.get_collection("layer_norm")
    assert gamma.op.name == "LayerNorm/gamma"
    with test_util.session() as session:
      session.run(gamma.assign([2.0, 1.0]))
      # The mean square is 12.5.
      np.testing.assert_allclose(
          session.run(output), [[6 / math.sqrt(13), 4 / math.sqrt(13)]],
          rtol=1e-6)


# ---------------------------------------------------------------- prefix tuning


@functools.lru_cache(maxsize=None)
def _prefixed_golden():
  """(config, values of BERT's variables, arrays, facts) of the golden BERT."""
  golden = test_util.sequence_golden("bert")
  with open(os.path.join(golden.checkpoint, "config.json"),
            encoding="utf-8") as reader:
    keys = json.load(reader)
  config = modeling.BertConfig.from_dict(dict(
      {key: keys[key] for key in modeling.BertConfig(1).to_dict()},
      hidden_act={"gelu_new": "gelu", "gelu": "gelu_erf"}[keys["hidden_act"]]))
  tensors = hf_bert.open_dir(golden.checkpoint)
  return (config, {name: tensors[name] for name in tensors}, golden.arrays,
          golden.facts)


def _prefixed_case(case):
  """(its variables' values, where each's gradient is, its prefix_fn)."""
  _, _, arrays, facts = _prefixed_golden()
  if case == "base":
    return {}, {}, None
  if case == "prefix":
    table = lambda key: arrays[key].reshape([facts["prefix_length"], -1])
    return ({"bert/prefix/embeddings": table("prefix/var/self_prefix")},
            {"bert/prefix/embeddings": table("prefix/grad/self_prefix")},
            functools.partial(modeling.prefix_encoder,
                              prefix_length=facts["prefix_length"]))
  parts = {"bert/prefix/embeddings": "embedding"}
  for part in ("dense_0", "dense_1"):
    for name in ("kernel", "bias"):
      parts["bert/prefix/%s/%s" % (part, name)] = "%s/%s" % (part, name)
  of = lambda kind: {ours: arrays["prefix_mlp/%s/self_prefix/%s" % (
      kind, theirs)] for ours, theirs in parts.items()}
  return of("var"), of("grad"), functools.partial(
      modeling.prefix_encoder, prefix_length=facts["prefix_length"],
      hidden_size=facts["prefix_hidden_size"])


@ARITHMETIC
@pytest.mark.parametrize("case", ["base", "prefix", "prefix_mlp"])
def test_golden_sequence_model(case, make_ops):
  config, values, arrays, _ = _prefixed_golden()
  own, gradients, prefix_fn = _prefixed_case(case)
  inputs = {"input_ids": arrays["in/input_ids"],
            "input_mask": arrays["in/attention_mask"],
            "token_type_ids": arrays["in/token_type_ids"]}
  inputs = {key: value.astype(np.int32) for key, value in inputs.items()}
  with test_util.graph():
    ops = make_ops()
    model = test_util.build(
        config, inputs, adapter_fn=None, prefix_positions="unshifted", ops=ops,
        prefix_fn=prefix_fn and functools.partial(prefix_fn, ops=ops))
    prefixes = tf.get_collection("prefixes")
    assert sorted(test_util.names(prefixes)) == sorted(own)
    loss = model.get_sequence_output()
    if own:
      loss = tf.reduce_sum(loss * arrays[case + "/loss_weights"])
    with test_util.session() as session:
      _assign(session, dict(values, **own))
      outputs = session.run([model.get_sequence_output(),
                             model.get_pooled_output()])
      found = session.run(dict(zip(
          test_util.names(prefixes), tf.gradients(loss, prefixes))))
  _close(outputs[0], arrays[case + "/sequence_output"])
  _close(outputs[1], arrays[case + "/pooled_output"])
  for name, gradient in gradients.items():
    _close(found[name], gradient, 1e-3)


@ARITHMETIC
def test_golden_prefix_over_tokens_alone(make_ops):
  # Padded batch, its tokens alone, and each row alone: the same.
  config, values, arrays, _ = _prefixed_golden()
  own, gradients, prefix_fn = _prefixed_case("prefix")
  mask = arrays["in/attention_mask"].astype(np.int32)
  assert mask.min() == 0
  with test_util.graph():
    ops = make_ops()
    prefix_fn = functools.partial(prefix_fn, ops=ops)
    weights = arrays["prefix/loss_weights"] * mask[:, :, np.newaxis]

    def run(rows, length, **arguments):
      model = test_util.build(
          config, {"input_ids": arrays["in/input_ids"][rows, :length].astype(
              np.int32), "input_mask": mask[rows, :length],
                   "token_type_ids": arrays["in/token_type_ids"][
                       rows, :length].astype(np.int32)},
          adapter_fn=None, prefix_positions="unshifted", scope="bert", ops=ops,
          prefix_fn=prefix_fn, **arguments)
      output = model.get_sequence_output()
      return output, tf.reduce_sum(output * weights[rows, :length])

    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
      every = slice(None)
      (whole, whole_loss), (packed, packed_loss) = [
          run(every, mask.shape[1], skip_padding=skip)
          for skip in (False, True)]
      alone = [run(slice(i, i + 1), count)[0]
               for i, count in enumerate(mask.sum(1))]
    table, = tf.get_collection("prefixes")
    found = [tf.gradients(loss, table)[0] for loss in (whole_loss, packed_loss)]
    with test_util.session() as session:
      _assign(session, dict(values, **own))
      whole, packed, alone, found = session.run([whole, packed, alone, found])
  for i, row in enumerate(alone):
    _close(whole[i, :row.shape[1]], row[0], 1e-5)
    _close(packed[i, :row.shape[1]], row[0], 1e-5)
  _close(found[1], found[0], 1e-5)
  assert np.abs(found[0] - gradients["bert/prefix/embeddings"]).max() > 1e-3


def _prefix_of(prefix_length, **arguments):
  return functools.partial(modeling.prefix_encoder, prefix_length=prefix_length,
                           **arguments)


def test_prefix_variables():
  with test_util.graph():
    test_util.build(test_util.tiny_config(), test_util.tiny_batch(),
                    prefix_fn=_prefix_of(2, hidden_size=5, embedding_size=3))
    prefixes = {v.op.name: v.shape.as_list()
                for v in tf.get_collection("prefixes")}
    assert prefixes == {
        "bert/prefix/embeddings": [2, 3], "bert/prefix/dense_0/kernel": [3, 5],
        "bert/prefix/dense_0/bias": [5],
        "bert/prefix/dense_1/kernel": [5, 3 * 2 * 16],
        "bert/prefix/dense_1/bias": [3 * 2 * 16]}
    assert tf.trainable_variables() == tf.global_variables()
  with test_util.graph():
    modeling.transformer_model(
        tf.zeros([2, 3, 16]), hidden_size=16, num_attention_heads=2,
        num_hidden_layers=1, prefix_fn="prefix_encoder")
    assert test_util.names(tf.get_collection("prefixes")) == [
        "prefix/embeddings"]
    assert tf.get_collection("prefixes")[0].shape.as_list() == [20, 32]


def test_prefix_of_no_tokens_is_none():
  batch = test_util.tiny_batch()
  with test_util.graph():
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
      plain, empty = [
          test_util.build(test_util.tiny_config(), batch, scope="b",
                          prefix_fn=prefix_fn).get_pooled_output()
          for prefix_fn in (None, lambda *sizes: [
              (tf.zeros([4, 0, 4]), tf.zeros([4, 0, 4]))] * 3)]
    with test_util.session(scale=0.3) as session:
      np.testing.assert_array_equal(*session.run([plain, empty]))


def test_prefix_of_ones_own_in_some_layers_and_over_shared_ones():
  def own(num_hidden_layers, num_attention_heads, size_per_head):
    assert (num_hidden_layers, num_attention_heads, size_per_head) == (3, 4, 4)
    pair = lambda i: tuple(tf.Variable(tf.random_normal([4, 2, 4], seed=i),
                                       name="p%d" % i) for _ in "kv")
    return [pair(0), None, pair(2)]

  for sharing in ({}, {"share_parameter_across_layers": True}):
    with test_util.graph():
      config = test_util.tiny_config(**sharing)
      model = test_util.build(config, test_util.tiny_batch(), prefix_fn=own)
      prefixes = tf.get_collection("prefixes")
      assert test_util.names(prefixes) == ["bert/p0", "bert/p0_1", "bert/p2",
                                           "bert/p2_1"]
      layers = model.get_all_encoder_layers()
      # A layer's own: the top one's does not reach what is below.
      assert tf.gradients(layers[1], prefixes)[2:] == [None, None]
      with test_util.session(scale=0.3) as session:
        for gradient in session.run(tf.gradients(layers[2], prefixes)):
          assert np.abs(gradient).max() > 0


def test_prefix_is_dropped():
  with test_util.graph():
    kept = _run(modeling.prefix_encoder(1, 2, 50, 20, dropout_prob=0.25)[0][0])
  assert 0.2 < (kept == 0).mean() < 0.3


def test_prefix_positions():
  config, batch = test_util.tiny_config(), test_util.tiny_batch()
  with test_util.graph():
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
      after, unshifted = [
          test_util.build(config, batch, scope="b", prefix_fn=_prefix_of(2),
                          adapter_fn=None, **arguments).get_embedding_output()
          for arguments in ({}, {"prefix_positions": "unshifted"})]
    with test_util.session(scale=0.3) as session:
      after, unshifted = session.run([after, unshifted])
      table = [v for v in tf.global_variables()
               if v.op.name.endswith("/position_embeddings")][0]
      session.run(table.assign(np.roll(session.run(table), 2, axis=0)))
  assert (np.abs(after - unshifted).max(-1) > 1e-2).all()


@pytest.mark.parametrize("arguments,message", [
    ({"prefix_fn": _prefix_of(3)},
     r"prefix \(3\) and the sequence is longer than max_position_embeddings "
     r"\(9\): 7"),
    ({"prefix_fn": "lora"}, "unknown prefix 'lora'; known are prefix_encoder"),
    ({"prefix_positions": "before"},
     "prefix_positions is 'before'; known are after and unshifted"),
    ({"prefix_fn": lambda *sizes: [None]}, r"needs a list of 3 \(key, value\)"),
    ({"prefix_fn": lambda *sizes: [(tf.zeros([4, 2, 5]),) * 2] * 3},
     r"each \[4, 'P', 4\] with one P for all"),
    ({"prefix_fn": lambda *sizes: [
        (tf.zeros([4, i + 1, 4]),) * 2 for i in range(3)]}, "one P for all"),
])
def test_prefix_refuses(arguments, message):
  with test_util.graph():
    with pytest.raises(ValueError, match=message) as caught:
      test_util.build(test_util.tiny_config(), test_util.tiny_batch(),
                      **arguments)
  assert "\n" not in str(caught.value)


# -------------------------------------------------------------- without padding


def _mask(*lengths):
  """int32 [B, 7] of examples of these lengths."""
  return (np.arange(7) < np.array(lengths)[:, np.newaxis]).astype(np.int32)


@pytest.mark.parametrize("mask,compiled", [
    (_mask(6, 3, 5, 5, 6), False), (_mask(6, 3, 5, 5, 6), True),
    (_mask(1, 1, 1, 1, 1), False), (_mask(7, 7, 7, 7, 7), False),
    (_mask(7, 7, 7, 7, 6), True),
    # With holes.
    (_mask(1, 2, 1, 3, 1) + _mask(7, 6, 5, 7, 7) - _mask(3, 2, 4, 5, 2), False),
])
def test_skipped_padding_changes_nothing(mask, compiled):
  config = test_util.tiny_config(num_hidden_layers=2)
  batch = dict(test_util.tiny_batch(), input_mask=mask)

  def run(skip_padding):
    rows = []

    def adapter(x):
      rows.append(tf.shape(x)[0])
      return modeling.feedforward_adapter(x, hidden_size=3)

    with test_util.graph():
      ops = (CompiledOps(5, tf.constant(3)) if compiled and skip_padding else
             None)
      model = test_util.build(config, batch, skip_padding=skip_padding,
                              adapter_fn=adapter, ops=ops)
      variables = tf.trainable_variables()
      upstream = tf.random.stateless_normal([5, 7, 16], seed=[1, 2])
      if not skip_padding:  # else no gradient comes from padding in any case
        upstream *= tf.cast(mask[:, :, np.newaxis], tf.float32)
      output = model.get_sequence_output()
      gradients = tf.gradients([output, model.get_pooled_output()], variables,
                               [upstream, upstream[:, 0]])
      with test_util.session(scale=0.3) as session:
        return session.run([rows, output] + [tf.convert_to_tensor(g)
                                             for g in gradients])

  expected, actual = run(False), run(True)
  assert set(expected[0]) == {35}
  # A multiple of 16 above the tokens, and at most all positions.
  assert set(actual[0]) == {min(35, mask.sum() // 16 * 16 + 16)}
  np.testing.assert_allclose(actual[1][mask > 0], expected[1][mask > 0],
                             atol=2e-5)
  for one, other in zip(actual[2:], expected[2:]):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("count,rows", [
    (0, 16), (15, 16), (16, 32), (511, 512), (512, 544), (600, 608),
    (1023, 1024), (1024, 1088), (1199, 1200), (1200, 1200)])
def test_rows_of_tokens(count, rows):
  mask = np.zeros([1200], np.int32)
  mask[np.random.RandomState(0).permutation(1200)[:count]] = 1
  numbers = np.arange(2400, dtype=np.float32).reshape([1200, 2])
  with test_util.graph():
    tokens = modeling.TokenRows(tf.constant(mask.reshape([12, 100])))
    packed = tokens.pack(tf.constant(numbers))
    with test_util.session() as session:
      packed, unpacked = session.run([packed, tokens.unpack(packed)])
  assert packed.shape == (rows, 2)
  np.testing.assert_array_equal(packed[:count], numbers[mask > 0])
  assert (packed[count:] == numbers[0]).all()
  np.testing.assert_array_equal(unpacked[mask > 0], numbers[mask > 0])


def test_attention_over_tokens_alone_needs_matrices_and_a_mask():
  tokens = modeling.TokenRows(tf.ones([2, 3], tf.int32))
  for tensor, mask in ((tf.zeros([2, 3, 4]), tf.ones([2, 1, 3])),
                       (tf.zeros([6, 4]), None)):
    with pytest.raises(ValueError, match="needs their rows and a mask"):
      modeling.attention_layer(tensor, tensor, mask, batch_size=2,
                               from_seq_length=3, to_seq_length=3,
                               tokens=tokens)


# ------------------------------------------------------------------ embeddings


def test_embedding_lookup():
  with test_util.graph():
    ids = np.array([[0, 3], [1, 3]])
    gathered, table = modeling.embedding_lookup(tf.constant(ids), 4, 5)
    with tf.variable_scope("", reuse=True):
      multiplied, _ = modeling.embedding_lookup(
          tf.constant(ids), 4, 5, use_one_hot_embeddings=True)
      # Two ids at each position: their vectors one after the other.
      double, _ = modeling.embedding_lookup(
          tf.constant(np.stack([ids, ids[::-1]], -1)), 4, 5)
    assert test_util.names(tf.global_variables()) == ["word_embeddings"]
    gathered, multiplied, double, table = _run(gathered, multiplied, double,
                                               table)
    modeling.embedding_lookup(tf.constant(ids), 4, word_embedding_name="mine")
    assert tf.global_variables()[-1].op.name == "mine"
    assert tf.global_variables()[-1].shape.as_list() == [4, 128]
  np.testing.assert_array_equal(gathered, table[ids])
  np.testing.assert_array_equal(multiplied, gathered)
  np.testing.assert_array_equal(
      double, np.concatenate([table[ids], table[ids[::-1]]], -1))


def test_embedding_postprocessor():
  with test_util.graph():
    x = tf.random.stateless_normal([2, 3, 8], seed=[1, 2])
    types = np.array([[0, 1, 1], [0, 0, 1]])
    arguments = dict(token_type_ids=tf.constant(types), token_type_vocab_size=2,
                     max_position_embeddings=5, dropout_prob=0.0)
    both = modeling.embedding_postprocessor(x, use_token_type=True, **arguments)
    with tf.variable_scope("", reuse=True):
      type_only = modeling.embedding_postprocessor(
          x, use_token_type=True, use_position_embeddings=False, **arguments)
      position_only = modeling.embedding_postprocessor(x, **arguments)
      neither = modeling.embedding_postprocessor(
          x, use_position_embeddings=False, dropout_prob=0.0)
    assert {v.op.name: v.shape.as_list() for v in tf.global_variables()} == {
        "token_type_embeddings": [2, 8], "position_embeddings": [5, 8],
        "LayerNorm/beta": [8], "LayerNorm/gamma": [8]}
    type_table, position_table = tf.global_variables()[:2]
    values = _run(both, type_only, position_only, neither, x, type_table,
                  position_table)
  x, type_table, position_table = values[4:]

  def normal(sum_):
    sum_ = sum_ - sum_.mean(-1, keepdims=True)
    return sum_ / sum_.std(-1, keepdims=True)

  for output, expected in zip(values, [
      x + type_table[types] + position_table[:3], x + type_table[types],
      x + position_table[:3], x]):
    np.testing.assert_allclose(output, normal(expected), atol=1e-5)


def test_embedding_postprocessor_drops():
  with test_util.graph():
    output = _run(modeling.embedding_postprocessor(tf.random.stateless_normal(
        [20, 50, 8], seed=[1, 2])))
  assert 0.08 < (output == 0).mean() < 0.12


def test_embedding_postprocessor_errors():
  with test_util.graph():
    with pytest.raises(ValueError, match="needs token_type_ids"):
      modeling.embedding_postprocessor(tf.zeros([2, 6, 8]), use_token_type=True)
  too_long = r"longer than max_position_embeddings \(5\)"
  with test_util.graph():
    with pytest.raises(ValueError, match=too_long + ": 6 positions"):
      modeling.embedding_postprocessor(tf.zeros([2, 6, 8]),
                                       max_position_embeddings=5)
  with test_util.graph():
    x = tf.placeholder(tf.float32, [None, None, 8])
    output = modeling.embedding_postprocessor(x, max_position_embeddings=5)
    with test_util.session() as session:
      assert session.run(output, {x: np.ones([2, 5, 8])}).shape == (2, 5, 8)
      with pytest.raises(tf.errors.InvalidArgumentError, match=too_long):
        session.run(output, {x: np.ones([2, 6, 8])})


# ------------------------------------------------------------------- BertConfig


def test_config_from_dict():
  config = modeling.BertConfig.from_dict(
      {"vocab_size": 7, "hidden_size": 24, "directionality": "bidi"})
  assert (config.vocab_size, config.hidden_size) == (7, 24)
  assert config.intermediate_size == 3072
  assert config.directionality == "bidi"  # not ours, kept
  assert config.to_dict()["directionality"] == "bidi"
  changed = config.to_dict()
  changed["vocab_size"] = 8
  assert config.vocab_size == 7


def test_config_json(tmp_path):
  path = tmp_path / "bert_config.json"
  config = modeling.BertConfig.from_dict(
      {"vocab_size": 7, "hidden_act": "relu", "pooler_type": "first_token",
       "embedding_size": 128, "share_parameter_across_layers": True})
  path.write_text(config.to_json_string())
  assert json.loads(config.to_json_string()) == config.to_dict()
  again = modeling.BertConfig.from_json_file(str(path))
  assert again.to_dict() == config.to_dict()

  path.write_text("{not json")
  with pytest.raises(ValueError, match="bert_config.json: .*line 1"):
    modeling.BertConfig.from_json_file(str(path))
  path.write_text('{"vocab_size": 0}')
  with pytest.raises(ValueError, match="bert_config.json: config: vocab_size"):
    modeling.BertConfig.from_json_file(str(path))


@pytest.mark.parametrize("keys,message", [
    ({"vocab_size": "30522"}, "vocab_size is '30522'; it must be a whole number"),
    ({"vocab_size": None}, "vocab_size is None"),
    ({"hidden_size": 16.0}, "hidden_size is 16.0; it must be a whole number"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ({"num_hidden_layers": True}, "num_hidden_layers is True"),
    ({"num_attention_heads": -1}, "num_attention_heads is -1"),
    ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
    ({"attention_probs_dropout_prob": "0.1"}, "attention_probs_dropout_prob is"),
    ({"initializer_range": 0}, "initializer_range is 0"),
    ({"hidden_act": "mish"}, "unknown activation 'mish'"),
    ({"hidden_size": 20, "num_attention_heads": 8},
     r"hidden_size \(20\) is not a multiple of num_attention_heads \(8\)"),
    ({"share_parameter_across_layers": "yes"},
     "share_parameter_across_layers is 'yes'; it must be true or false"),
    ({"share_adapters": 1}, "share_adapters is 1"),
    ({"layers_per_group": 2},
     "layers_per_group is 2, but share_parameter_across_layers is false"),
    ({"layers_per_group": 0, "share_parameter_across_layers": True},
     "layers_per_group is 0; it must be a whole number >= 1"),
    ({"embedding_size": 17},
     r"embedding_size is 17; .* from 1 to hidden_size \(16\)"),
    ({"embedding_size": 0}, "embedding_size is 0"),
    ({"ln_type": "preln"}, "ln_type is 'preln'; only \"postln\" is built"),
])
def test_config_refuses(keys, message):
  with pytest.raises(ValueError, match=message) as caught:
    test_util.tiny_config(**keys)
  assert "\n" not in str(caught.value)


def test_config_refuses_what_is_no_config():
  with pytest.raises(ValueError, match="no vocab_size; is it a bert_config"):
    modeling.BertConfig.from_dict({"model": "gpt"})
  with pytest.raises(ValueError, match="is a JSON list"):
    modeling.BertConfig.from_dict([1])


def test_config_is_judged_when_a_model_is_built():
  config = modeling.BertConfig(vocab_size=99, hidden_size=37)
  assert json.loads(config.to_json_string())["hidden_size"] == 37
  with test_util.graph():
    with pytest.raises(ValueError, match=r"hidden_size \(37\) is not a mul"):
      test_util.build(config, test_util.tiny_batch())


# ------------------------------------------------------------------- BertModel


def test_model_shapes():
  batch = test_util.tiny_batch()
  with test_util.graph():
    static = test_util.build(test_util.tiny_config(), batch)
    assert static.get_pooled_output().shape.as_list() == [5, 16]
    assert static.get_sequence_output().shape.as_list() == [5, 7, 16]
    assert static.get_embedding_output().shape.as_list() == [5, 7, 16]
    assert static.get_embedding_table().shape.as_list() == [31, 16]
    assert [x.shape.as_list() for x in static.get_all_encoder_layers()] == (
        [[5, 7, 16]] * 3)
    assert static.get_all_encoder_layers()[-1] is static.get_sequence_output()


def test_model_with_shapes_known_at_run_time_only():
  batch = test_util.tiny_batch()
  with test_util.graph():
    feeds = {tf.placeholder(tf.int32, [None, None]): batch[key]
             for key in ("input_ids", "input_mask", "token_type_ids")}
    dynamic = modeling.BertModel(test_util.tiny_config(), False, *feeds,
                                 scope="b")
    with tf.variable_scope("", reuse=True):
      static = test_util.build(test_util.tiny_config(), batch, scope="b")
    with test_util.session(scale=0.3) as session:
      fetches = lambda model: [model.get_pooled_output(),
                               model.get_sequence_output()]
      for one, other in zip(*session.run(
          [fetches(dynamic), fetches(static)], feeds)):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_model_without_mask_and_token_types():
  batch = test_util.tiny_batch()
  config = test_util.tiny_config()
  ids = batch["input_ids"]
  with test_util.graph():
    bare = modeling.BertModel(config, False, tf.constant(ids), scope="b")
    with tf.variable_scope("", reuse=True):
      explicit = test_util.build(
          config, {"input_ids": ids, "input_mask": np.ones_like(ids),
                   "token_type_ids": np.zeros_like(ids)}, scope="b")
      other = test_util.build(config, batch, scope="b")
    with test_util.session(scale=0.3) as session:
      bare, explicit, other = session.run([
          m.get_sequence_output() for m in (bare, explicit, other)])
  np.testing.assert_array_equal(bare, explicit)
  assert np.abs(bare - other).max() > 0.1


def test_padding_changes_nothing():
  config = test_util.tiny_config()
  batch = test_util.tiny_batch()
  batch = {k: v[:, :5] for k, v in batch.items() if k != "label_ids"}
  padded = {k: np.pad(v, [[0, 0], [0, 3]]) for k, v in batch.items()}
  padded["input_ids"][:, 5:] = 9
  with test_util.graph():
    short = test_util.build(config, batch, scope="b")
    with tf.variable_scope("", reuse=True):
      long = test_util.build(config, padded, scope="b")
    with test_util.session(scale=0.3) as session:
      short, long = session.run([short.get_sequence_output(),
                                 long.get_sequence_output()])
  np.testing.assert_allclose(long[:, :5], short, atol=1e-6)


def test_model_scopes():
  batch = test_util.tiny_batch()
  config = test_util.tiny_config(num_hidden_layers=1)
  with test_util.graph():
    for _ in range(2):
      test_util.build(config, batch)
    test_util.build(config, batch, scope="mine")
    tops = [name.split("/")[0] for name in test_util.names(
        tf.global_variables())]
    assert list(dict.fromkeys(tops)) == ["bert", "bert_1", "mine"]
    assert tops.count("bert") == tops.count("bert_1") == tops.count("mine")
    # A name that is taken is not shared by accident.
    with pytest.raises(ValueError, match="already exists"):
      test_util.build(config, batch, scope="mine")


def test_model_never_modifies_the_config():
  config = test_util.tiny_config(hidden_dropout_prob=0.3, remark=["mine"])
  before = config.to_dict()
  for is_training in (True, False):
    with test_util.graph():
      test_util.build(config, test_util.tiny_batch(), is_training=is_training)
  assert config.to_dict() == before


def test_hidden_act():
  batch = test_util.tiny_batch()
  acts = ["linear", None, tf.identity, "gelu", "relu"]
  with test_util.graph():
    outputs = []
    for act in acts:
      with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        outputs.append(test_util.build(
            test_util.tiny_config(hidden_act=act), batch, scope="b",
            adapter_fn=None).get_pooled_output())
    with test_util.session(scale=0.3) as session:
      linear, none, identity, gelu, relu = session.run(outputs)
  np.testing.assert_array_equal(linear, none)
  np.testing.assert_array_equal(linear, identity)
  for one, other in itertools.combinations([linear, gelu, relu], 2):
    assert np.abs(one - other).max() > 1e-2


def test_transformer_model_defaults_and_errors():
  with test_util.graph():
    x = tf.zeros([2, 3, 768])
    output = modeling.transformer_model(x, num_hidden_layers=1)
    assert output.shape.as_list() == [2, 3, 768]
    assert not tf.get_collection("adapters")
  with test_util.graph():
    x = tf.zeros([2, 3, 16])
    with pytest.raises(ValueError, match=r"\(16\) is not a multiple of .* \(3\)"):
      modeling.transformer_model(x, hidden_size=16, num_attention_heads=3)
    with pytest.raises(ValueError, match="input is 16 wide and hidden_size is"):
      modeling.transformer_model(x)
    arguments = dict(hidden_size=16, num_attention_heads=2)
    with pytest.raises(ValueError, match="unknown adapter 'lora'"):
      modeling.transformer_model(x, adapter_fn="lora", **arguments)
    for group in (0, -1, 1.5):
      with pytest.raises(ValueError, match="layers_per_group is %s; it must"
                                           % group):
        modeling.transformer_model(x, share_parameter_across_layers=True,
                                   layers_per_group=group, **arguments)
    with pytest.raises(ValueError, match="layers_per_group is 2, but share_par"):
      modeling.transformer_model(x, layers_per_group=2, **arguments)


def test_classifier_head():
  with test_util.graph():
    pooled = tf.random.stateless_normal([400, 16], seed=[1, 2])
    logits = modeling.classifier_head(pooled, 3, is_training=False)
    with tf.variable_scope("", reuse=True):
      training = modeling.classifier_head(pooled, 3, is_training=True)
    weights, bias = tf.get_collection("head")
    assert [weights.op.name, bias.op.name] == ["output_weights", "output_bias"]
    assert (weights.shape.as_list(), bias.shape.as_list()) == ([3, 16], [3])
    with test_util.session() as session:
      assert 0.02 < np.abs(session.run(weights)).max() <= 0.04
      assert not session.run(bias).any()
      # Weights that make a logit of the number of values that were kept.
      session.run([weights.assign(np.zeros([3, 16])), bias.assign([1, 2, 3])])
      np.testing.assert_array_equal(session.run(logits)[0], [1, 2, 3])
      session.run([weights.assign(np.eye(3, 16)), bias.assign(np.zeros(3))])
      plain, dropped, pooled = session.run([logits, training, pooled])
  np.testing.assert_allclose(plain, pooled[:, :3], rtol=1e-6)
  assert 0.07 < (dropped == 0).mean() < 0.13  # 0.1 of the pooled output


def test_get_assignment_map_from_checkpoint(tmp_path):
  path = str(tmp_path / "model.ckpt")
  with test_util.graph():
    for name in ("b/w", "a", "only/in/checkpoint"):
      tf.get_variable(name, [2])
    with test_util.session() as session:
      tf.train.Saver().save(session, path, write_meta_graph=False)
  with test_util.graph():
    variables = [tf.get_variable(name, [2]) for name in ("b/w", "new", "a")]
    assignment_map, initialized = modeling.get_assignment_map_from_checkpoint(
        variables, path)
  assert list(assignment_map.items()) == [("b/w", "b/w"), ("a", "a")]
  assert sorted(initialized) == ["a", "a:0", "b/w", "b/w:0"]


# --------------------------------------------------------------- layer sharing

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


@pytest.mark.parametrize("layers,group,scopes", [
    (3, None, ["layer_shared"]),
    (4, 2, ["layer_0", "layer_1"]),
    (3, 2, ["layer_0", "layer_1"]),  # the last group is smaller
    (3, 1, ["layer_0", "layer_1", "layer_2"]),
    (3, 5, ["layer_0"]),
])
def test_shared_layers_variables(layers, group, scopes):
  with test_util.graph():
    model = test_util.build(
        test_util.tiny_config(num_hidden_layers=layers, layers_per_group=group,
                              share_parameter_across_layers=True),
        test_util.tiny_batch())
    assert len(model.get_all_encoder_layers()) == layers
    expected = ["bert/encoder/%s/%s" % (s, n) for s in scopes for n in _LAYER]
    adapters = _adapters_in("%s/%s/adapters" % (scope, half) for scope in scopes
                            for half in ("attention/output", "output"))
    encoder = [name for name in test_util.names(tf.global_variables())
               if name.startswith("bert/encoder/")]
    assert sorted(encoder) == sorted(expected + adapters)
    assert test_util.names(tf.get_collection("adapters")) == adapters
    assert sorted(test_util.names(tf.get_collection("layer_norm"))) == sorted(
        [name for name in expected if "LayerNorm" in name] +
        ["bert/embeddings/LayerNorm/beta", "bert/embeddings/LayerNorm/gamma"])


@pytest.mark.parametrize("layers,group,scopes", [
    (3, None, ["layer_shared"] * 3),
    (3, 2, ["layer_0", "layer_0", "layer_1"]),
])
@pytest.mark.parametrize("adapter", ["default", "without a scope"])
def test_shared_layers_with_adapters_of_their_own(layers, group, scopes,
                                                  adapter):
  def without_scope(x):
    for name in _ADAPTER:
      x += tf.get_variable(name, [16])
    return x

  with test_util.graph():
    test_util.build(
        test_util.tiny_config(num_hidden_layers=layers, layers_per_group=group,
                              share_parameter_across_layers=True,
                              share_adapters=False),
        test_util.tiny_batch(),
        adapter_fn=(without_scope if adapter == "without a scope" else
                    "feedforward_adapter"))
    expected = _adapters_in(
        "%s/%s/adapters_%d" % (scope, half, i) for i, scope in enumerate(scopes)
        for half in ("attention/output", "output"))
    assert ("bert/encoder/%s/attention/output/adapters_0/weights1" % scopes[0]
            in expected)
    assert test_util.names(tf.get_collection("adapters")) == expected
    rest = [name for name in test_util.names(tf.global_variables())
            if name.startswith("bert/encoder/") and name not in expected]
    assert len(rest) == len(set(scopes)) * len(_LAYER)


def test_own_adapters_without_sharing_keep_their_names():
  with test_util.graph():
    test_util.build(
        test_util.tiny_config(num_hidden_layers=1, share_adapters=False),
        test_util.tiny_batch())
    assert test_util.names(tf.get_collection("adapters")) == _adapters_in(
        ["layer_0/attention/output/adapters", "layer_0/output/adapters"])


def test_own_adapters_in_some_layers():
  with test_util.graph():
    test_util.build(
        test_util.tiny_config(share_parameter_across_layers=True,
                              share_adapters=False),
        test_util.tiny_batch(), adapter_layers=[1])
    assert test_util.names(tf.get_collection("adapters")) == _adapters_in(
        ["layer_shared/attention/output/adapters_1",
         "layer_shared/output/adapters_1"])


@pytest.mark.parametrize("group", [None, 2])
def test_shared_gradient_is_the_sum_over_the_layers(group):
  batch = test_util.tiny_batch()
  with test_util.graph():
    shared = test_util.build(
        test_util.tiny_config(share_parameter_across_layers=True,
                              layers_per_group=group), batch, scope="shared")
    plain = test_util.build(test_util.tiny_config(), batch, scope="plain")
    of = lambda scope: {
        v.op.name.partition("/")[2]: v for v in tf.trainable_variables()
        if v.op.name.startswith(scope)}
    shared_variables, plain_variables = of("shared"), of("plain")
    upstream = tf.random.stateless_normal([5, 7, 16], seed=[1, 2])

    def gradients(model, variables):
      loss = tf.reduce_sum(model.get_sequence_output() * upstream)
      found = tf.gradients(loss, list(variables.values()))
      return {name: tf.convert_to_tensor(g)
              for name, g in zip(variables, found) if g is not None}

    fetches = [gradients(shared, shared_variables),
               gradients(plain, plain_variables),
               shared.get_sequence_output(), plain.get_sequence_output()]

    def shared_name(name):
      for layer in range(3):
        scope = "layer_shared" if group is None else "layer_%d" % (layer // 2)
        if "layer_%d/" % layer in name:
          return name.replace("layer_%d" % layer, scope)
      return name

    with test_util.session(scale=0.3) as session:
      values = session.run(shared_variables)
      session.run([v.assign(values[shared_name(name)])
                   for name, v in plain_variables.items()])
      shared_found, plain_found, *outputs = session.run(fetches)
  np.testing.assert_allclose(*outputs, atol=1e-6)
  sums = {}
  for name, gradient in plain_found.items():
    sums[shared_name(name)] = sums.get(shared_name(name), 0) + gradient
  assert sorted(sums) == sorted(shared_found)
  assert "encoder/layer_shared/attention/output/adapters/weights1" in sums or (
      group == 2)
  for name, gradient in shared_found.items():
    np.testing.assert_allclose(gradient, sums[name], rtol=1e-4, atol=1e-4,
                               err_msg=name)


def test_factorised_embeddings():
  with test_util.graph():
    model = test_util.build(test_util.tiny_config(embedding_size=4),
                            test_util.tiny_batch())
    shapes = {v.op.name: v.shape.as_list() for v in tf.global_variables()
              if "/embeddings/" in v.op.name}
    assert shapes == {
        "bert/embeddings/word_embeddings": [31, 4],
        "bert/embeddings/word_embeddings_2": [4, 16],
        "bert/embeddings/token_type_embeddings": [2, 16],
        "bert/embeddings/position_embeddings": [9, 16],
        "bert/embeddings/LayerNorm/beta": [16],
        "bert/embeddings/LayerNorm/gamma": [16]}
    assert model.get_embedding_table().shape.as_list() == [31, 4]
  for same in (16, None):
    with test_util.graph():
      test_util.build(test_util.tiny_config(embedding_size=same),
                      test_util.tiny_batch())
      names = test_util.names(tf.global_variables())
      assert "bert/embeddings/word_embeddings_2" not in names
