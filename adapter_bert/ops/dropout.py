"""Dropout whose masks are a function of (seed, step, replica, place) alone.

A run that stops and goes on from its checkpoint then draws what the undisturbed
run would have drawn.
"""

import tensorflow.compat.v1 as tf

import modeling


class SeededOps(modeling.PlainOps):
  """Plain arithmetic with dropout that repeats.

  The place is the number of the dropout within the model, so a model that is
  built the same way gets the same masks. Made for one replica, inside the
  function that strategy.run calls, and for one model.

  Args:
    seed: int, from 0 to 2^31 - 1.
    step: integer scalar tensor.
    replica: int or int32 scalar tensor, the number of the replica.
  """

  def __init__(self, seed, step, replica=0):
    self._seed = seed
    self._place = 0
    self._step = (tf.cast(step, tf.int64) * 1024 + tf.cast(replica, tf.int64))

  def random_zeros(self, x, rate):
    return dropped(rate, x, self._next_key())

  def _next_key(self):
    """The next place's random key, uint32 [2]."""
    place = (self._seed << 32) + self._place
    self._place += 1
    return tf.random.stateless_uniform(
        [2], minval=None, maxval=None, dtype=tf.uint32,
        seed=tf.stack([tf.constant(place, tf.int64), self._step]))


def dropped(rate, x, key):
  """x where a hash of the element's number and the key says keep, scaled.

  A random generator's numbers would cost more than the model's own operations,
  and would have to be kept, or drawn again, for the gradient. The hash is
  Wellons' lowbias32 (github.com/skeeto/hash-prospector) with half of the key
  added before and the other half mixed in between. Its upper 31 bits decide,
  so the rate is the nearest multiple of 2^-31.

  Args:
    rate: float, the probability of a zero.
    x: a float tensor.
    key: uint32 [2].
  """
  number = lambda value: tf.constant(value, tf.uint32)
  shifted = lambda bits, by: tf.bitwise.right_shift(bits, number(by))
  xor = tf.bitwise.bitwise_xor
  index = tf.cast(tf.range(tf.size(x)), tf.uint32)
  bits = index * number(0x9e3779b9) + key[0]
  bits = xor(bits, shifted(bits, 16)) * number(0x21f0aaad)
  bits = xor(bits, key[1])
  bits = xor(bits, shifted(bits, 15)) * number(0xd35a2d97)
  bits = xor(bits, shifted(bits, 15))
  threshold = min(int(round(rate * 2**31)), 2**31 - 1)
  # int32, because some devices do not compare uint32.
  keep = tf.reshape(tf.cast(shifted(bits, 1), tf.int32) >= threshold,
                    tf.shape(x))
  return tf.where(keep, x * (1.0 / (1.0 - threshold / 2.0**31)),
                  tf.zeros_like(x))
