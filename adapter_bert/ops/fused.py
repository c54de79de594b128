"""The chains of modeling.PlainOps for graphs that only answer.

On a CPU, TensorFlow makes one kernel of a product, the bias added to it and its
activation, if nothing stands between them. The chains of PlainOps have casts to
float32 there when the product is bfloat16; that kernel needs none, because it
sums in float32 and rounds what it hands on. Elsewhere each step rounds, which
moves a bfloat16 result by its own rounding; training has compiled.py.
"""

import tensorflow.compat.v1 as tf

import modeling


class FusedOps(modeling.PlainOps):
  """The arithmetic of one model that is not trained."""

  def activation(self, function, x, bias=None):
    """See PlainOps."""
    if bias is not None and bias.shape.ndims > 2:  # One bias a group of rows.
      return super().activation(function, x, bias)
    x = super().activation(None, x, bias)
    return x if function is None else function(x)

  def split_heads(self, x, bias, shape):
    """See PlainOps; the bias is added before anything is moved."""
    return super().split_heads(self.activation(None, x, bias), None, shape)
