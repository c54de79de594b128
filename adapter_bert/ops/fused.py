"""The chains of modeling.PlainOps for graphs that only answer, on a CPU.

TensorFlow makes one kernel of a product, the bias added to it and its
activation, if nothing stands between them. With bfloat16 products this is worth
it for an activation, which PlainOps computes in float32, behind casts that hold
the kernel up; the kernel rounds once, where it hands on. For a bias alone it is
not: with 4 to 32 rows that kernel takes up to three times as long as the product
(docs/speed.md), so here a bias alone is added behind a cast. Where TensorFlow
has no such kernel each step rounds, which moves a bfloat16 result by its own
rounding.
"""

import tensorflow.compat.v1 as tf

import modeling


class FusedOps(modeling.PlainOps):
  """The arithmetic of one model that is not trained."""

  def activation(self, function, x, bias=None):
    """See PlainOps."""
    if bias is not None and bias.shape.ndims > 2:  # One bias a group of rows.
      return super().activation(function, x, bias)
    if function is not None:
      return function(super().activation(None, x, bias))
    if bias is None:
      return x
    total = modeling.at_least_float32(x) + modeling.at_least_float32(bias)
    return tf.cast(total, x.dtype)
