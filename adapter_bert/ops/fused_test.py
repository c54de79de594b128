"""FusedOps against PlainOps, behind a product as in a model."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.ops.fused import FusedOps
import modeling


def _value(ops, dtype, chain):
  """What a chain makes of a product [6, 8] and a bias [8]."""
  rng = np.random.RandomState(0)
  x, kernel, bias = rng.randn(6, 16), rng.randn(16, 8) / 4, rng.randn(8)
  with tf.Graph().as_default(), tf.Session() as session:
    product = tf.matmul(tf.placeholder_with_default(
        tf.constant(x, dtype), [6, 16]), tf.constant(kernel, dtype))
    value = chain(ops, product, tf.constant(bias, tf.float32))
    assert value.dtype == dtype
    return session.run(tf.cast(value, tf.float32))


# bfloat16 has 8 bits: 2^-8 of values of up to 4, for each step that rounds.
@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-6),
                                              (tf.bfloat16, 0.05)])
@pytest.mark.parametrize("name", sorted(modeling.ACTIVATIONS) + ["none"])
def test_an_activation_behind_a_product(name, dtype, tolerance):
  function = modeling.ACTIVATIONS.get(name)
  chain = lambda ops, x, bias: ops.activation(function, x, bias)
  np.testing.assert_allclose(_value(FusedOps(), dtype, chain),
                             _value(modeling.PlainOps(), dtype, chain),
                             atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-5),
                                              (tf.bfloat16, 0.05)])
@pytest.mark.parametrize("has_residual", [False, True])
def test_layer_norm(has_residual, dtype, tolerance):
  rng = np.random.RandomState(1)
  beta, gamma, residual = rng.randn(8), rng.randn(8), 5 + rng.randn(6, 8)

  def chain(ops, x, bias):
    del bias
    return ops.layer_norm(
        x, tf.constant(beta, tf.float32), tf.constant(gamma, tf.float32),
        tf.constant(residual, x.dtype) if has_residual else None, 1e-12)

  np.testing.assert_allclose(_value(FusedOps(), dtype, chain),
                             _value(modeling.PlainOps(), dtype, chain),
                             atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("rank", [2, 3])
def test_layer_norm_is_one_kernel(rank, dtype):
  """Where TensorFlow uses oneDNN at all, it must know the chain again."""
  with tf.Graph().as_default(), tf.Session() as session:
    x = tf.placeholder(tf.float32, [None] * (rank - 1) + [8])
    product = tf.matmul(tf.cast(tf.reshape(x, [-1, 8]), dtype),
                        tf.eye(8, dtype=dtype))
    output = tf.identity(FusedOps().layer_norm(
        tf.reshape(product, tf.shape(x)), tf.ones([8]), tf.range(8.0)))
    metadata = tf.RunMetadata()
    session.run(output, {x: np.ones([2] * (rank - 1) + [8])},
                tf.RunOptions(output_partition_graphs=True), metadata)
  kernels = {node.op for graph in metadata.partition_graphs
             for node in graph.node}
  if not any("Mkl" in kernel for kernel in kernels):
    pytest.skip("this TensorFlow does not use oneDNN")
  assert "_MklLayerNorm" in kernels


@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-6),
                                              (tf.bfloat16, 0.05)])
@pytest.mark.parametrize("name", ["add", "split_heads"])
def test_sums(name, dtype, tolerance):
  def chain(ops, x, bias):
    if name == "add":
      return ops.add(x, 2 * x, bias[tf.newaxis])
    return ops.split_heads(x, bias, [2, 3, 4, 2])

  np.testing.assert_allclose(_value(FusedOps(), dtype, chain),
                             _value(modeling.PlainOps(), dtype, chain),
                             atol=tolerance, rtol=0)
