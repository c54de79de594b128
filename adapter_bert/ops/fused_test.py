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


def test_a_bias_for_each_group_of_rows_is_added():
  x, biases = np.float32(np.ones([2, 3, 4])), np.float32([[[0]], [[1]]])
  with tf.Graph().as_default(), tf.Session() as session:
    value = session.run(FusedOps().activation(
        modeling.gelu, tf.constant(x), tf.constant(biases)))
  np.testing.assert_allclose(value[:, 0, 0], [0.841192, 1.954598], atol=1e-6)
