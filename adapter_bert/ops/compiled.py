"""The chains of modeling.PlainOps as one compiled kernel each.

A chain of element-wise operations costs memory traffic, not arithmetic: as one
XLA kernel, with the bias that comes before it, it reads and writes once. Its
gradient is another kernel, which finds what it needs kept and no more. Each new
shape of a batch costs a compilation of some tenths of a second. The numbers
differ from the plain ones by float rounding only.

Each function that computes a chain stands right above its gradient. The first
of what it returns is the output; the gradient gets the rest.
"""

import functools
import math

import tensorflow.compat.v1 as tf

from adapter_bert.ops.dropout import SeededOps, dropped
import modeling

_float32 = modeling.at_least_float32


class CompiledOps(SeededOps):
  """The arithmetic of one model in one replica, compiled.

  Args:
    seed, step, replica: see SeededOps.
    frozen: bool; nothing is kept for a gradient until `trained_from_here` is
      called. For models built with Tuning.variable_getter, which calls it.
  """

  def __init__(self, seed, step, replica=0, frozen=False):
    super().__init__(seed, step, replica)
    self._frozen = frozen
    self._functions = {}

  def trained_from_here(self):
    self._frozen = False

  def activation(self, function, x, bias=None):
    if function not in _SLOPES:
      return super().activation(function, x, bias)

    def gradient(slope, upstream):
      return _and_of_bias(self._compiled(_activated_gradient)(slope, upstream),
                          bias)

    return self._kernel(self._compiled(_activated, function), gradient,
                        _present(x, bias))

  def dropout(self, x, rate, bias=None):
    if not rate:
      return super().dropout(x, rate, bias)
    key = self._next_key()
    forward = self._compiled(_biased_and_dropped, rate)

    def gradient(upstream):
      of_x, *of_bias = _and_of_bias(forward(upstream, key)[0], bias)
      return [of_x, None] + of_bias

    return self._kernel(forward, gradient, [x, key] + _present(bias))

  def layer_norm(self, x, beta, gamma, residual=None,
                 epsilon=modeling.LAYER_NORM_EPSILON):
    # A tensor: tf.function takes one variable of a distribution strategy for
    # another, and would give each gradient the gamma of the first.
    gamma = tf.convert_to_tensor(gamma)

    def gradient(normal, scale, upstream):
      of_x = self._compiled(_normalized_gradient)(normal, scale, gamma, upstream)
      # A kernel of its own, which does not run where the two are frozen.
      of_beta, of_gamma = self._compiled(_scale_gradients)(normal, upstream)
      return [of_x, tf.cast(of_beta, beta.dtype.base_dtype),
              tf.cast(of_gamma, gamma.dtype)] + (
                  [] if residual is None else [of_x])

    return self._kernel(self._compiled(_normalized, epsilon), gradient,
                        [x, beta, gamma] + _present(residual))

  def rms_norm(self, x, gamma, epsilon):
    gamma = tf.convert_to_tensor(gamma)  # As in layer_norm.

    def gradient(normal, scale, upstream):
      of_x = self._compiled(_rms_normalized_gradient)(normal, scale, gamma,
                                                      upstream)
      _, of_gamma = self._compiled(_scale_gradients)(normal, upstream)
      return [of_x, tf.cast(of_gamma, gamma.dtype)]

    return self._kernel(self._compiled(_rms_normalized, epsilon), gradient,
                        [x, gamma])

  def gated(self, function, x, gate):
    if function not in _SLOPES:
      return super().gated(function, x, gate)

    def gradient(upstream):
      return list(self._compiled(_gated_gradient, function)(x, gate, upstream))

    return self._kernel(self._compiled(_gated, function), gradient, [x, gate])

  def masked_softmax(self, scores, mask, scale, rate, bias=None,
                     masked_score=modeling.MASKED_SCORE):
    key = [self._next_key()] if rate else []
    inputs = [scores, mask] + _present(bias) + key

    def gradient(probabilities, upstream):
      of_scores = self._compiled(_masked_softmax_gradient, scale, rate)(
          probabilities, upstream, *key)
      found = [of_scores] + [None] * len(inputs[1:])
      if bias is not None:
        found[2] = _of_position_bias(of_scores, scale, bias)
      return found

    return self._kernel(
        self._compiled(_masked_softmax, scale, masked_score, rate,
                       bias is not None), gradient, inputs)

  def split_heads(self, x, bias, shape):
    if bias is None:
      return super().split_heads(x, bias, shape)
    bias = tf.reshape(bias, shape[2:])

    def gradient(upstream):
      return _and_of_bias(tf.transpose(upstream, [0, 2, 1, 3]), bias)

    return self._kernel(self._compiled(_biased_heads), gradient,
                        [tf.reshape(x, shape), bias])

  def add(self, a, b, bias):
    def gradient(upstream):
      return [upstream] + _and_of_bias(upstream, bias)

    return self._kernel(self._compiled(_added), gradient, [a, b, bias])

  def _kernel(self, forward, gradient, inputs):
    """The output of a chain.

    Args:
      forward: a `_compiled` function of the inputs; returns a tuple, the output
        and what the gradient needs.
      gradient: a function of what forward returned behind the output and of the
        output's gradient; returns a list with the gradient of each input, or
        None for one that has none.
      inputs: list of tensors or variables.
    """
    if self._frozen:
      alone = self._compiled(_output_of, forward.python_function)
      return alone(*map(tf.convert_to_tensor, inputs))

    @tf.custom_gradient
    def kernel(*tensors):
      output, *kept = forward(*tensors)
      return output, lambda upstream: gradient(*kept, upstream)

    return kernel(*inputs)

  def _compiled(self, function, *constants):
    """`function(*constants, ...)` of tensors, as one XLA kernel.

    One object for equal arguments, so that all layers share one compilation.
    """
    key = (function,) + constants
    if key not in self._functions:
      self._functions[key] = tf.function(
          functools.partial(function, *constants), autograph=False,
          jit_compile=True)
    return self._functions[key]


def _present(*tensors):
  return [tensor for tensor in tensors if tensor is not None]


def _output_of(function, *inputs):
  return function(*inputs)[0]


def _sum(x, bias=None):
  return _float32(x) if bias is None else _float32(x) + _float32(bias)


def _and_of_bias(gradient, bias):
  """A list: the gradient of a sum, and that of the bias in it if there is one.

  An op of its own, which does not run where the bias is frozen.
  """
  if bias is None:
    return [gradient]
  of_bias = tf.raw_ops.BiasAddGrad(
      out_backprop=tf.reshape(gradient, [-1, bias.shape.num_elements()]))
  return [gradient, tf.cast(tf.reshape(of_bias, bias.shape),
                            bias.dtype.base_dtype)]


# For the gradient of an activation its slope is kept in place of x: as
# large, and nothing is left to compute but one product.


def _gelu(x):
  """(value, slope)."""
  scale, cubic = math.sqrt(2.0 / math.pi), 0.044715
  tanh = tf.tanh(scale * (x + cubic * x * x * x))
  slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * (
      scale * (1.0 + 3.0 * cubic * x * x))
  return 0.5 * x * (1.0 + tanh), slope


def _gelu_erf(x):
  """(value, slope)."""
  below = 0.5 * (1.0 + tf.math.erf(x / math.sqrt(2.0)))
  density = tf.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
  return x * below, below + x * density


_SLOPES = {modeling.gelu: _gelu, modeling.gelu_erf: _gelu_erf}


def _activated(function, x, bias=None):
  value, slope = _SLOPES[function](_sum(x, bias))
  return tf.cast(value, x.dtype), tf.cast(slope, x.dtype)


def _activated_gradient(slope, upstream):
  return tf.cast(_float32(slope) * _float32(upstream), slope.dtype)


def _gated(function, x, gate):
  value, _ = _SLOPES[function](_float32(x))
  return (tf.cast(value * _float32(gate), x.dtype),)


def _gated_gradient(function, x, gate, upstream):
  """(of x, of the gate); both are kept anyway, by the products they are of."""
  value, slope = _SLOPES[function](_float32(x))
  upstream = _float32(upstream)
  return (tf.cast(upstream * slope * _float32(gate), x.dtype),
          tf.cast(upstream * value, gate.dtype))


def _biased_and_dropped(rate, x, key, bias=None):
  """Its own gradient, without the bias: the same elements become 0."""
  return (tf.cast(dropped(rate, _sum(x, bias), key), x.dtype),)


def _normalized(epsilon, x, beta, gamma, residual=None):
  """(The output, the input normalised, its 1 / sigma)."""
  total = _sum(x, residual)
  mean, variance = tf.nn.moments(total, axes=[-1], keepdims=True)
  scale = tf.math.rsqrt(variance + epsilon)
  normal = (total - mean) * scale
  output = normal * _float32(gamma) + _float32(beta)
  return tf.cast(output, x.dtype), tf.cast(normal, x.dtype), scale


def _normalized_gradient(normal, scale, gamma, upstream):
  x, upstream = _float32(normal), _float32(upstream) * _float32(gamma)
  mean = functools.partial(tf.reduce_mean, axis=-1, keepdims=True)
  return tf.cast(scale * (upstream - mean(upstream) - x * mean(upstream * x)),
                 normal.dtype)


def _scale_gradients(normal, upstream):
  """(of beta, of gamma), each [width]."""
  upstream = _float32(upstream)
  axes = list(range(normal.shape.ndims - 1))
  return (tf.reduce_sum(upstream, axes),
          tf.reduce_sum(upstream * _float32(normal), axes))


def _rms_normalized(epsilon, x, gamma):
  """(The output, the input normalised, its 1 / root of the mean square)."""
  total = _float32(x)
  mean = tf.reduce_mean(total * total, axis=-1, keepdims=True)
  scale = tf.math.rsqrt(mean + epsilon)
  normal = total * scale
  output = normal * _float32(gamma)
  return tf.cast(output, x.dtype), tf.cast(normal, x.dtype), scale


def _rms_normalized_gradient(normal, scale, gamma, upstream):
  x, upstream = _float32(normal), _float32(upstream) * _float32(gamma)
  mean = tf.reduce_mean(upstream * x, axis=-1, keepdims=True)
  return tf.cast(scale * (upstream - x * mean), normal.dtype)


def _masked_softmax(scale, masked_score, rate, is_biased, scores, mask, *rest):
  """(The probabilities with some of them dropped, the probabilities).

  `rest` is the bias if there is one, and the key of the dropout if there is.
  """
  blocked = 1.0 - _float32(mask)
  total = _float32(scores) * scale
  if is_biased:
    total += _float32(rest[0])
  probabilities = tf.nn.softmax(total + blocked * masked_score)
  kept = dropped(rate, probabilities, rest[-1]) if rate else probabilities
  return tf.cast(kept, scores.dtype), tf.cast(probabilities, scores.dtype)


def _masked_softmax_gradient(scale, rate, probabilities, upstream, key=None):
  p, upstream = _float32(probabilities), _float32(upstream)
  if key is not None:
    upstream = dropped(rate, upstream, key)
  mean = tf.reduce_sum(p * upstream, axis=-1, keepdims=True)
  return tf.cast(scale * p * (upstream - mean), probabilities.dtype)


def _of_position_bias(of_scores, scale, bias):
  """Ops of their own, which do not run where the bias is frozen."""
  of_bias = _float32(of_scores)
  if bias.shape[0] == 1:
    of_bias = tf.reduce_sum(of_bias, axis=0, keepdims=True)
  return tf.cast(of_bias / scale, bias.dtype.base_dtype)


def _biased_heads(x, bias):
  return (tf.transpose(tf.cast(_sum(x, bias), x.dtype), [0, 2, 1, 3]),)


def _added(a, b, bias):
  return (tf.cast(_float32(a) + _float32(b) + _float32(bias), a.dtype),)
