"""A table is strict both ways and reads nothing before all of it fits."""

import collections

import numpy as np
import pytest

from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import tables


def table():
  return collections.OrderedDict([
      ("kernel", tables.transposed("w")),
      ("bias", tables.copied("b")),
      ("key", tables.columns("qkv", 1, 3)),
  ])


def tensors():
  return {"w": np.arange(6.0).reshape(2, 3), "b": np.arange(3.0),
          "qkv": np.arange(12.0).reshape(2, 6)}


def refusal(tensors_, ignored=(), shapes=None):
  with pytest.raises(errors.InputError) as raised:
    tables.apply(table(), tensors_, ignored, "FILE", shapes)
  assert "\n" not in str(raised.value)
  return str(raised.value)


def test_values():
  made = tables.apply(table(), dict(tensors(), buffer=np.zeros(1)),
                      ignored=("buf.*",))
  assert list(made) == ["kernel", "bias", "key"]
  np.testing.assert_array_equal(made["kernel"], [[0, 3], [1, 4], [2, 5]])
  np.testing.assert_array_equal(made["bias"], [0, 1, 2])
  np.testing.assert_array_equal(made["key"], [[2, 3], [8, 9]])
  assert all(array.flags["C_CONTIGUOUS"] for array in made.values())


def test_a_tensor_that_lacks_and_one_too_many_are_named():
  lacking = tensors()
  del lacking["b"]
  assert refusal(lacking) == "FILE lacks b, which the config's model has"
  lacking["bb"] = np.zeros(1)
  assert refusal(lacking) == (
      "FILE lacks b, which the config's model has; it holds bb, which the model "
      "does not have")
  extra = dict(tensors(), buffer=np.zeros(1), c=np.zeros(1))
  # The whole name has to match, not its beginning or end.
  assert refusal(extra, ignored=("buff", "uffer", "c")) == (
      "FILE holds buffer, for which the config's model has no variable")


def test_where_nothing_fits_both_sides_are_shown():
  assert refusal({"x.%d" % i: np.zeros(1) for i in range(5)}) == (
      "FILE: no tensor has a name that fits the config's model; its tensors are "
      "x.0, x.1, x.2 and 2 more, and the model's would be b, qkv, w")


def test_shapes_are_compared_before_anything_is_read():

  def never():
    raise AssertionError("a tensor was read")

  lazy = tables.Tensors((name, tables.Tensor(array.shape, never))
                        for name, array in tensors().items())
  right = {"kernel": [3, 2], "bias": [3], "key": [2, 2]}
  assert tables.view(table(), lazy, shapes=right).shape("key") == (2, 2)
  line = refusal(lazy, shapes=dict(right, kernel=[2, 3]))
  assert line == ("FILE: w has shape [2, 3], which makes [3, 2] of kernel; with "
                  "the sizes in the config it is [2, 3]")
  lazy.tensors["qkv"] = tables.Tensor([2, 7], never)
  assert "qkv has shape [[2, 7]]: array split does not" in refusal(lazy)


def test_one_tensor_under_two_names_counts_for_both():
  twice = tables.as_tensors(tensors())
  twice.tensors["tied"] = twice.tensors["w"]
  assert len(tables.apply(table(), twice)) == 3
  assert "holds equal" in refusal(dict(tensors(), equal=tensors()["w"]))


def test_prefixes_in_any_order_and_a_clash():
  prefixed = {"_orig_mod.m.w": 1.0, "m.b": 2.0, "qkv": 3.0}
  assert dict(tables.without_prefixes(prefixed, ("m.", "_orig_mod."))) == {
      "w": 1.0, "b": 2.0, "qkv": 3.0}
  with pytest.raises(errors.InputError, match="FILE has both w and m.w, two"):
    tables.without_prefixes({"w": 1.0, "m.w": 1.0}, ("m.",), "FILE")


def test_one_of_several_names():
  array, other = np.arange(3.0), np.arange(3.0) + 1
  for found in ({"b": array}, {"a": array, "b": array}, {"a": array}):
    one = tables.one_of(found, "a", ("b", "c"), "FILE")
    assert list(one) == ["a"]
    np.testing.assert_array_equal(one["a"], array)
  assert list(tables.one_of({"x": array}, "a", ("b",))) == ["x"]
  with pytest.raises(errors.InputError, match="FILE: a and b differ"):
    tables.one_of({"a": array, "b": other}, "a", ("b",), "FILE")


def test_defaults_are_for_what_lacks():
  both = tables.with_defaults({"a": np.ones(1)},
                              {"a": np.zeros(1), "b": np.zeros(2)})
  assert {name: list(value) for name, value in both.items()} == {
      "a": [1], "b": [0, 0]}
