"""Prefixes are stored as the keys and values that their MLP makes."""

import numpy as np

from adapter_bert.checkpoints import prefixes

MLP = {
    "bert/prefix/embeddings": np.array([[1.0, 0.0], [0.0, 2.0]], np.float32),
    "bert/prefix/dense_0/kernel": np.array([[0.5], [0.25]], np.float32),
    "bert/prefix/dense_0/bias": np.array([0.5], np.float32),
    "bert/prefix/dense_1/kernel": np.array([[1.0, 2.0, 0.0, -1.0]], np.float32),
    "bert/prefix/dense_1/bias": np.array([0.0, 0.0, 3.0, 0.0], np.float32),
}
KERNEL = {"bert/encoder/layer_0/output/dense/kernel": np.eye(2)}


def test_an_mlp_is_folded_by_hand():
  # tanh(1 * 0.5 + 0.5) and tanh(2 * 0.25 + 0.5) are both tanh(1).
  t = np.tanh(1.0)
  found = prefixes.folded(dict(MLP, **KERNEL))
  assert set(found) == {"bert/prefix/embeddings"} | set(KERNEL)
  np.testing.assert_allclose(found["bert/prefix/embeddings"],
                             [[t, 2 * t, 3, -t]] * 2, rtol=1e-6)


def test_a_table_stays_as_it_is():
  table = {"bert/prefix/embeddings": np.ones([2, 8], np.float32)}
  assert prefixes.folded(table) == table
  assert not prefixes.has_mlp(table)
  assert prefixes.has_mlp(MLP)


def test_each_prefix_of_a_model_is_folded_for_itself():
  table = np.zeros([1, 4])
  found = prefixes.folded(dict(MLP, **{"bart/decoder/cross_prefix/embeddings":
                                       table}))
  assert set(found) == {"bert/prefix/embeddings",
                        "bart/decoder/cross_prefix/embeddings"}


def test_stored_size():
  shapes = {name: list(array.shape) for name, array in MLP.items()}
  assert prefixes.stored_size(shapes) == 2 * 4
  assert prefixes.stored_size({"bert/prefix/embeddings": [5, 24]}) == 120
  assert prefixes.stored_size({"bert/pooler/dense/kernel": [2, 2]}) == 0


def test_not_stored():
  shapes = {name: list(array.shape) for name, array in MLP.items()}
  shapes["output_bias"] = [3]
  size = sum(array.size for array in MLP.values())
  assert prefixes.not_stored(shapes) == size - 2 * 4
  assert prefixes.not_stored({"bert/prefix/embeddings": [5, 24],
                              "output_bias": [3]}) == 0
