"""Dropout: its rate, its independence, and what its masks depend on."""

import itertools
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.ops.dropout import SeededOps
import modeling


def _run(*fetches):
  with test_util.session() as session:
    return session.run(fetches[0] if len(fetches) == 1 else fetches)


@pytest.fixture(params=["plain", "seeded"])
def any_dropout(request):
  """A function such as modeling.dropout, of either source of randomness."""
  def seeded(x, dropout_prob):
    return modeling.dropout(x, dropout_prob, ops=SeededOps(5, tf.constant(3)))
  return seeded if request.param == "seeded" else modeling.dropout


@pytest.mark.parametrize("dropout_prob", [0.1, 0.3, 0.5])
def test_dropout_rate_and_scale(any_dropout, dropout_prob):
  count = 200000
  with test_util.graph():
    output = _run(any_dropout(tf.ones([count // 4, 4]), dropout_prob)).ravel()
  dropped = (output == 0).mean()
  sigma = math.sqrt(dropout_prob * (1 - dropout_prob) / count)
  assert abs(dropped - dropout_prob) < 4 * sigma
  scale = np.unique(output[output != 0])
  assert len(scale) == 1
  assert scale[0] == pytest.approx(1 / (1 - dropout_prob), rel=1e-6)


def test_dropout_drops_independently():
  # A hash decides, so look for what a bad one would show: of neighbours, of
  # rows, of places and of steps, both are dropped as often as chance has it.
  with test_util.graph():
    x = tf.ones([512, 1024])
    masks = []
    for step in (3, 4):
      ops = SeededOps(5, tf.constant(step))
      masks += [ops.dropout(x, 0.5), ops.dropout(x, 0.5)]
    masks = [2.0 * (mask == 0) - 1.0 for mask in _run(*masks)]
  def correlation(one, other):
    return (one * other).mean() * math.sqrt(one.size)  # in standard deviations
  for one, other in itertools.combinations(masks, 2):
    assert abs(correlation(one, other)) < 4
  for mask in masks:
    for rows, columns in itertools.product((0, 1, 2, 64), (0, 1, 2, 3, 4, 64)):
      if rows or columns:
        assert abs(correlation(mask[rows:, columns:],
                               mask[:512 - rows, :1024 - columns])) < 4.5
    assert np.abs(mask.mean(axis=0)).max() < 5 / math.sqrt(512)
    assert np.abs(mask.mean(axis=1)).max() < 5 / math.sqrt(1024)


def test_dropout_adds_the_bias_first():
  with test_util.graph():
    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    bias = tf.constant([10.0, 20.0])
    ops = SeededOps(5, tf.constant(3))
    plain = ops.dropout(x, 0.0, bias)
    some = ops.dropout(tf.tile(x, [50, 1]), 0.5, bias)
    plain, some, gradients = _run(plain, some, tf.gradients(some, [x, bias]))
  np.testing.assert_array_equal(plain, [[11, 22], [13, 24]])
  kept = some != 0
  np.testing.assert_array_equal(some[kept], 2 * np.tile(plain, [50, 1])[kept])
  np.testing.assert_array_equal(gradients[1], 2 * kept.sum(axis=0))


def test_dropout_of_nothing_is_the_identity(any_dropout):
  with test_util.graph():
    x = tf.ones([3])
    assert any_dropout(x, 0.0) is x
    assert any_dropout(x, None) is x


def test_dropout_of_nearly_everything_and_of_an_empty_tensor():
  with test_util.graph():
    ops = SeededOps(5, tf.constant(3))
    output, empty = _run(ops.dropout(tf.ones([1000]), 1 - 1e-9),
                         ops.dropout(tf.ones([0, 3]), 0.5))
  assert np.isfinite(output).all()
  assert empty.shape == (0, 3)


def test_dropout_passes_gradient_to_what_it_keeps(any_dropout):
  with test_util.graph():
    # The values that are dropped reach neither output nor gradient.
    x = tf.random.stateless_normal([1000], seed=[1, 2])
    output = any_dropout(x, 0.4)
    upstream = tf.random.stateless_normal([1000], seed=[3, 4])
    x, output, upstream, gradient = _run(
        x, output, upstream, tf.gradients(output, x, upstream)[0])
  kept = output != 0
  assert 500 < kept.sum() < 700
  np.testing.assert_allclose(gradient[kept], upstream[kept] / 0.6, rtol=1e-4)
  assert not gradient[~kept].any()


def test_masks_depend_on_seed_step_replica_and_place():
  with test_util.graph():
    step = tf.placeholder(tf.int64, [])
    x = tf.ones([64])

    def masks(seed, replica=0):
      ops = SeededOps(seed, step, replica)
      return ops.dropout(x, 0.5), ops.dropout(x, 0.5)

    fetches = {"seed 1": masks(1), "seed 1 again": masks(1), "seed 2": masks(2),
               "replica 1": masks(1, 1),
               "replica 1 as a tensor": masks(1, tf.constant(1)),
               "large seed": masks(2**31 - 1)}
    with tf.Session() as session:
      at_10 = session.run(fetches, {step: 10})
      at_10_again = session.run(fetches, {step: 10})
      at_11 = session.run(fetches, {step: 11})
  for key, value in at_10.items():
    np.testing.assert_array_equal(value, at_10_again[key])
  for one, other in [("seed 1", "seed 1 again"),
                     ("replica 1", "replica 1 as a tensor")]:
    np.testing.assert_array_equal(at_10[one], at_10[other])
  different = [at[key][place] for at in (at_10, at_11) for place in (0, 1)
               for key in ("seed 1", "seed 2", "replica 1", "large seed")]
  for one, other in itertools.combinations(different, 2):
    assert (one != other).any()


def test_masks_are_those_of_earlier_versions():
  # A run that an earlier version began must go on with the same masks. Worked
  # by hand from the hash, with Python's whole numbers.
  with test_util.graph():
    ops = SeededOps(5, tf.constant(3), replica=1)
    first, second = ops._next_key(), ops._next_key()
    x = tf.ones([40])
    ops = SeededOps(5, tf.constant(3), replica=1)
    kept, = _run([ops.dropout(x, 0.25)])
    keys = _run(first, second, tf.random.stateless_uniform(
        [2], minval=None, maxval=None, dtype=tf.uint32,
        seed=[(5 << 32), 3 * 1024 + 1]))
  np.testing.assert_array_equal(keys[0], keys[2])
  assert (keys[0] != keys[1]).any()

  def keeps(index):
    whole = 2**32 - 1
    bits = (index * 0x9e3779b9 + int(keys[0][0])) & whole
    bits = ((bits ^ bits >> 16) * 0x21f0aaad & whole) ^ int(keys[0][1])
    bits = (bits ^ bits >> 15) * 0xd35a2d97 & whole
    bits ^= bits >> 15
    return bits >> 1 >= 0.25 * 2**31

  np.testing.assert_array_equal(kept != 0, [keeps(i) for i in range(40)])
