"""Each compiled chain against its plain twin: values and gradients."""

import functools
import inspect
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.ops.compiled import CompiledOps
from adapter_bert.ops.dropout import SeededOps
from adapter_bert.tuning import Tuning
import modeling

_MASK = [[[[1, 1, 0, 1, 1]]], [[[1, 0, 0, 0, 0]]]]
_HEADS = [2, 3, 2, 4]  # B, seq, N, H

# Name -> (shapes of float inputs, function of (ops, them)). The first input, and
# those of its shape, come in the type that is computed in; the others, which
# are variables in a model, in float32.
CHAINS = {
    "dense": ([[6, 8], [8, 8], [8]], lambda ops, x, kernel, bias: ops.dense(
        modeling.gelu, x, kernel, bias)),
    "gelu": ([[6, 8]], lambda ops, x: ops.activation(modeling.gelu, x)),
    "gelu with bias": ([[6, 8], [8]], lambda ops, x, bias: ops.activation(
        modeling.gelu, x, bias)),
    "gelu with an adapter's bias": (
        [[6, 8], [1, 8]],
        lambda ops, x, bias: ops.activation(modeling.gelu, x, bias)),
    "gelu_erf": ([[6, 8], [8]], lambda ops, x, bias: ops.activation(
        modeling.gelu_erf, x, bias)),
    "relu": ([[6, 8], [8]], lambda ops, x, bias: ops.activation(
        tf.nn.relu, x, bias)),
    "relu with an adapter's bias": (
        [[6, 8], [1, 8]], lambda ops, x, bias: ops.activation(
            tf.nn.relu, x, bias)),
    "no activation": ([[6, 8], [8]], lambda ops, x, bias: ops.activation(
        None, x, bias)),
    "dropout": ([[6, 8]], lambda ops, x: ops.dropout(x, 0.3)),
    "dropout with bias": ([[6, 8], [8]], lambda ops, x, bias: ops.dropout(
        x, 0.3, bias)),
    "no dropout": ([[6, 8], [8]], lambda ops, x, bias: ops.dropout(
        x, 0.0, bias)),
    "layer_norm": ([[6, 8], [8], [8]], lambda ops, x, beta, gamma:
                   ops.layer_norm(x, beta, gamma)),
    "layer_norm with residual": (
        [[6, 8], [8], [8], [6, 8]],
        lambda ops, x, beta, gamma, residual: ops.layer_norm(
            x, beta, gamma, residual)),
    "layer_norm with epsilon": (
        [[6, 8], [8], [8]], lambda ops, x, beta, gamma: ops.layer_norm(
            x, beta, gamma, epsilon=0.5)),
    "masked_softmax": ([[2, 3, 4, 5]], lambda ops, x: ops.masked_softmax(
        x, tf.constant(_MASK), 0.7, 0.0)),
    "masked_softmax with dropout": (
        [[2, 3, 4, 5]], lambda ops, x: ops.masked_softmax(
            x, tf.constant(_MASK), 0.7, 0.3)),
    "masked_softmax with a bias for all": (
        [[2, 3, 4, 5], [1, 3, 4, 5]], lambda ops, x, bias: ops.masked_softmax(
            x, tf.constant(_MASK), 0.7, 0.0, bias)),
    "masked_softmax with a bias for each": (
        [[2, 3, 4, 5], [2, 3, 4, 5]], lambda ops, x, bias: ops.masked_softmax(
            x, tf.constant(_MASK), 0.7, 0.3, bias, modeling.LOWEST_SCORE)),
    "rms_norm": ([[6, 8], [8]], lambda ops, x, gamma: ops.rms_norm(
        x, gamma, 0.1)),
    "gated gelu": ([[6, 8], [6, 8]], lambda ops, x, gate: ops.gated(
        modeling.gelu, x, gate)),
    "gated relu": ([[6, 8], [6, 8]], lambda ops, x, gate: ops.gated(
        tf.nn.relu, x, gate)),
    "split_heads": ([[6, 8]], lambda ops, x: ops.split_heads(x, None, _HEADS)),
    "split_heads with bias": ([[6, 8], [8]], lambda ops, x, bias:
                              ops.split_heads(x, bias, _HEADS)),
    "add": ([[6, 8], [6, 8], [1, 8]],
            lambda ops, a, b, bias: ops.add(a, b, bias)),
}


def _values(chain, dtype, ops):
  """[output, gradient of each input] of a chain, as float32 arrays."""
  shapes, function = CHAINS[chain]
  rng = np.random.RandomState(4)
  with test_util.graph():
    inputs = [tf.constant(rng.normal(size=shape),
                          dtype if shape == shapes[0] else tf.float32)
              for shape in shapes]
    output = function(ops(5, tf.constant(3)), *inputs)
    upstream = rng.normal(size=output.shape.as_list())
    gradients = tf.gradients(output, inputs, tf.constant(upstream, dtype))
    # Each comes in the type of what it is of.
    assert [g.dtype for g in gradients] == [x.dtype for x in inputs]
    assert output.dtype == dtype
    with tf.Session() as session:
      return session.run([tf.cast(x, tf.float32)
                          for x in [output] + gradients])


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16],
                         ids=["float32", "bfloat16"])
@pytest.mark.parametrize("chain", sorted(CHAINS))
def test_compiled_equals_plain(chain, dtype):
  plain = _values(chain, dtype, SeededOps)
  compiled = _values(chain, dtype, CompiledOps)
  # One unit in the last place of bfloat16 is 2^-8 of the value; the gradient
  # goes through two such roundings, and is a sum over up to six rows.
  close = 1e-5 if dtype == tf.float32 else 3e-2
  for one, other in zip(compiled, plain):
    assert np.abs(other).max() > 0.1
    np.testing.assert_allclose(one, other, rtol=close, atol=close)


def test_chains_have_the_same_methods_and_arguments():
  methods = [name for name in vars(modeling.PlainOps) if name[0] != "_"]
  for name in methods:
    assert (inspect.signature(getattr(CompiledOps, name)) ==
            inspect.signature(getattr(modeling.PlainOps, name))), name
  # Each is compared above.
  compared = set(chain.split(" ")[0].replace("gelu_erf", "gelu").replace(
      "gelu", "activation") for chain in CHAINS if chain[:3] not in "relu no ")
  assert compared == set(methods) - {"trained_from_here", "random_zeros"}


def test_chains_are_one_call_each():
  with test_util.graph() as graph:
    ops = CompiledOps(5, tf.constant(3))
    x = tf.ones([6, 8])
    for _ in range(2):
      ops.activation(modeling.gelu, x)
    calls = [op for op in graph.get_operations() if "Call" in op.type]
    assert len(calls) == 2
    # The same function, so that it is compiled once.
    assert calls[0].get_attr("f").name == calls[1].get_attr("f").name
    assert "Tanh" not in [op.type for op in graph.get_operations()]


def test_a_model_gives_the_same_numbers():
  # (That it does so without dropout, optimization_test.py shows.)
  config = test_util.tiny_config(num_hidden_layers=1, hidden_dropout_prob=0.2,
                                 attention_probs_dropout_prob=0.2)
  batch = test_util.tiny_batch()

  def run(ops):
    with test_util.graph() as graph:
      model = test_util.build(config, batch, is_training=True,
                              ops=ops(5, tf.constant(3)))
      variables = tf.trainable_variables()
      upstream = tf.random.stateless_normal([5, 16], seed=[1, 2])
      gradients = tf.gradients(model.get_pooled_output(), variables, upstream)
      with test_util.session(scale=0.3) as session:
        results = session.run([model.get_sequence_output()] + [
            tf.convert_to_tensor(g) for g in gradients])
      types = set(op.type for op in graph.get_operations())
    assert ("Softmax" in types) == (ops is SeededOps)
    return dict(zip(["output"] + test_util.names(variables), results))

  plain, compiled = run(SeededOps), run(CompiledOps)
  for name, value in plain.items():
    np.testing.assert_allclose(compiled[name], value, rtol=1e-3, atol=2e-5,
                               err_msg=name)


@pytest.mark.parametrize("tune,top_n_layers,lowest", [
    ("adapters", None, -1), ("full", None, -1), ("adapters+head", None, 1),
    ("top_n", 1, 2), ("head", None, 3)])
def test_nothing_is_kept_below_what_is_trained(tune, top_n_layers, lowest):
  """Layers 0 to 2, adapters from 1 on; -1 is the embeddings' LayerNorm."""
  config = test_util.tiny_config(num_hidden_layers=3)
  tuning = Tuning(tune, top_n_layers, 3 if top_n_layers else None)

  def run(ops):
    with test_util.graph() as graph:
      ops = ops() if ops else None
      getter = tuning.variable_getter(tf.float32, ops)
      with tf.variable_scope("", custom_getter=getter):
        model = test_util.build(
            config, test_util.tiny_batch(), is_training=True,
            adapter_layers=[1, 2] if tuning.uses_adapters else None,
            adapter_fn=functools.partial(
                modeling.feedforward_adapter, hidden_size=3, ops=ops)
            if tuning.uses_adapters else None, ops=ops)
      with test_util.session(scale=0.3) as session:
        return session.run(model.get_sequence_output()), graph

  plain, _ = run(None)
  found, graph = run(lambda: CompiledOps(5, tf.constant(3), frozen=True))
  np.testing.assert_allclose(found, plain, atol=1e-5)
  kept = set()
  for op in graph.get_operations():
    if "PartitionedCall" in op.type and len(op.outputs) > 1:
      layer = re.search(r"/layer_(\d)/", op.name)
      kept.add(int(layer.group(1)) if layer else -1)
  assert kept == set(range(lowest, 3))
