"""The chains of modeling.PlainOps for graphs that only answer, on a CPU.

TensorFlow's rewriter (Grappler) knows oneDNN kernels for some chains if it finds
them in the shape it looks for, with nothing between the steps:

- A LayerNorm, written as Keras wrote it, a batch normalisation of the rows: one
  kernel in place of ten; 16,384 x 768 bfloat16 numbers take 3 ms in place of 67.
- A product, its bias and its activation. With bfloat16 this is worth it for the
  activation; with the bias alone that kernel takes up to three times as long as
  the product (docs/speed.md), so a reshape keeps such a bias out of it.

Between these kernels bfloat16 numbers mostly stay so, and each step rounds:
PlainOps' float32 chains spend most of their time on casts. Where TensorFlow has
no such kernel each step of it rounds, too, which moves a bfloat16 result by its
own rounding, and takes longer.
"""

import collections

import numpy as np
import tensorflow.compat.v1 as tf

import modeling

# Up to so many rows times a kernel of at least so many bfloat16 numbers takes 0.5
# to 0.8 of the time with its transpose (docs/speed.md).
FEW_ROWS, LARGE_KERNEL = 64, 1 << 20


class Transposed(collections.namedtuple("Transposed", ["rows"])):
  """A kernel that is stored as its transpose: the variable `rows`, [units, in].
  """

  @property
  def shape(self):
    """The kernel's, [in, units]."""
    return tf.TensorShape(self.rows.shape[::-1])


def get_variable(getter, name, shape, dtype, **kwargs):
  """getter's variable, or where it pays for FusedOps a Transposed of one.

  For a model's own variables alone: a hook's would be handed to its author.
  """
  if (dtype != tf.bfloat16 or not name.endswith("/kernel") or
      np.prod(shape) < LARGE_KERNEL):
    return getter(name, shape=shape, dtype=dtype, **kwargs)
  return Transposed(getter(name, shape=shape[::-1], dtype=dtype, **kwargs))


def stored(variable, value):
  """(The tf.Variable, what it is to hold) of what `get_variable` returned."""
  if isinstance(variable, Transposed):
    return variable.rows, value.T
  return variable, value


class FusedOps(modeling.PlainOps):
  """The arithmetic of a model that is not trained; a kernel may be Transposed."""

  def dense(self, function, x, kernel, bias):
    """See PlainOps."""
    if not isinstance(kernel, Transposed):
      return super().dense(function, x, kernel, bias)
    rows = tf.convert_to_tensor(kernel.rows)

    def of_few():
      # Nothing of this is one kernel, so the activation is computed in float32.
      output = tf.transpose(tf.matmul(rows, x, transpose_b=True))
      return super(FusedOps, self).activation(function, output, bias)

    def of_many():
      return self.activation(function, tf.matmul(x, rows, transpose_b=True), bias)

    return tf.cond(tf.shape(x)[0] <= FEW_ROWS, of_few, of_many)

  def activation(self, function, x, bias=None):
    """See PlainOps."""
    if function is not None and bias is not None:
      return function(super().activation(None, x, bias))
    if bias is None:
      return super().activation(function, x)
    return _with_bias(x, bias)

  def layer_norm(self, x, beta, gamma, residual=None,
                 epsilon=modeling.LAYER_NORM_EPSILON):
    """See PlainOps."""
    # This is for the CPU's kernel, and was not tried on a GPU.
    if tf.config.list_physical_devices("GPU"):
      return super().layer_norm(x, beta, gamma, residual, epsilon)
    if residual is not None:
      x += tf.cast(residual, x.dtype)
    width = x.shape[-1]
    rows = tf.stack([tf.size(x) // width])
    none = tf.constant([], tf.float32)
    normal = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, [1, -1, width, 1]), scale=tf.fill(rows, 1.0),
        offset=tf.fill(rows, 0.0), mean=none, variance=none, epsilon=epsilon,
        data_format="NCHW").y
    return (tf.reshape(normal, tf.shape(x)) * tf.cast(gamma, x.dtype) +
            tf.cast(beta, x.dtype))

  def masked_softmax(self, scores, mask, scale, rate, bias=None,
                     masked_score=modeling.MASKED_SCORE):
    """See PlainOps; nothing is dropped."""
    total = scores * tf.cast(scale, scores.dtype)
    if bias is not None:
      total += tf.cast(bias, scores.dtype)
    blocked = (1.0 - tf.cast(mask, tf.float32)) * masked_score
    return tf.nn.softmax(total + tf.cast(blocked, scores.dtype))

  def split_heads(self, x, bias, shape):
    """See PlainOps."""
    x = tf.reshape(x, shape)
    if bias is not None:
      x += tf.cast(tf.reshape(bias, shape[2:]), x.dtype)
    return tf.transpose(x, [0, 2, 1, 3])

  def add(self, a, b, bias):
    """See PlainOps."""
    return a + _with_bias(tf.cast(b, a.dtype), bias)


def _with_bias(x, bias):
  """x + bias, [rows, width] and [width] or [1, width]."""
  bias = tf.cast(bias, x.dtype)
  if x.dtype != tf.bfloat16:
    return x + bias
  return tf.reshape(tf.reshape(x, [-1, 1, x.shape[-1]]) + bias, tf.shape(x))
