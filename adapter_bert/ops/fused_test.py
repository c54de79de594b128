"""FusedOps against PlainOps, behind a product as in a model."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.ops.fused import FEW_ROWS, FusedOps, Transposed
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


@pytest.mark.parametrize("rows", [FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("name", ["gelu", "tanh", "linear"])
def test_dense_with_a_kernel_stored_as_its_transpose(name, rows):
  rng = np.random.RandomState(2)
  x, kernel, bias = rng.randn(rows, 16), rng.randn(16, 8) / 4, rng.randn(8)
  with tf.Graph().as_default(), tf.Session() as session:
    x, kernel = tf.constant(x, tf.bfloat16), tf.constant(kernel, tf.bfloat16)
    values = session.run([tf.cast(ops.dense(
        modeling.ACTIVATIONS[name], x, weights, tf.constant(bias, tf.float32)),
                                  tf.float32) for ops, weights in (
        (FusedOps(), Transposed(tf.transpose(kernel))),
        (modeling.PlainOps(), kernel))])
  np.testing.assert_allclose(*values, atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-6),
                                              (tf.bfloat16, 2e-3)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_masked_softmax(has_bias, dtype, tolerance):
  """Over so many keys that a sum in bfloat16 would lose most of them."""
  rng = np.random.RandomState(3)
  scores, bias = rng.randn(2, 3, 4, 512), rng.randn(1, 3, 4, 512)
  mask = np.arange(512) < np.reshape([512, 300], [2, 1, 1, 1])
  with tf.Graph().as_default(), tf.Session() as session:
    values = session.run([tf.cast(ops.masked_softmax(
        tf.constant(scores, dtype), tf.constant(mask, tf.int32), 0.125, 0.0,
        tf.constant(bias, tf.float32) if has_bias else None,
        modeling.LOWEST_SCORE), tf.float32)
                          for ops in (FusedOps(), modeling.PlainOps())])
  np.testing.assert_allclose(*values, atol=tolerance, rtol=0)
  np.testing.assert_allclose(values[0].sum(-1), 1, atol=10 * tolerance)
  assert not values[0][1, :, :, 300:].any()


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
