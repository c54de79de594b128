"""The weights of a Hugging Face directory, whole, in shards, damaged."""

import json
import os

import numpy as np
import pytest

from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import safetensors_dir

safetensors_numpy = pytest.importorskip(
    "safetensors.numpy", reason="needs safetensors: pip install safetensors")

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
          "b.weight": np.arange(4, dtype=np.float32),
          "c.weight": np.arange(5, dtype=np.float32)}


def write_shards(path, weight_map=None):
  """ARRAYS in two files with their index."""
  for name, keys in (("model-00001-of-00002.safetensors", "a"),
                     ("model-00002-of-00002.safetensors", "bc")):
    safetensors_numpy.save_file(
        {k: v for k, v in ARRAYS.items() if k[0] in keys}, str(path / name))
  weight_map = weight_map or {
      key: "model-0000%d-of-00002.safetensors" % (1 if key[0] == "a" else 2)
      for key in ARRAYS}
  (path / "model.safetensors.index.json").write_text(
      json.dumps({"metadata": {}, "weight_map": weight_map}))


def refusal(path):
  with pytest.raises(errors.InputError) as raised:
    dict(safetensors_dir.open_dir(str(path)))
  assert "\n" not in str(raised.value)
  return str(raised.value)


def test_one_file_and_shards_hold_the_same(tmp_path):
  write_shards(tmp_path)
  shards = safetensors_dir.open_dir(str(tmp_path))
  safetensors_numpy.save_file(ARRAYS, str(tmp_path / "model.safetensors"))
  whole = safetensors_dir.open_dir(str(tmp_path))
  assert sorted(shards) == sorted(whole) == sorted(ARRAYS)
  for name, array in ARRAYS.items():
    assert shards.shape(name) == whole.shape(name) == array.shape
    np.testing.assert_array_equal(shards[name], array)
    np.testing.assert_array_equal(whole[name], array)


def test_aliases_in_the_metadata_are_names_of_the_same_tensor(tmp_path):
  safetensors_numpy.save_file(
      {"a": ARRAYS["a.weight"]}, str(tmp_path / "model.safetensors"),
      metadata={"format": "pt", "tied": "a"})
  tensors = safetensors_dir.open_dir(str(tmp_path))
  assert sorted(tensors) == ["a", "tied"]
  assert tensors.tensors["tied"] is tensors.tensors["a"]


@pytest.mark.parametrize("weight_map, line", [
    ({"a.weight": "../model-00001-of-00002.safetensors"},
     "is not one in its directory"),
    ({"a.weight": "/etc/passwd"}, "is not one in its directory"),
    ({"a.weight": "none.safetensors"}, "none.safetensors is not there"),
    ({"d.weight": "model-00001-of-00002.safetensors"},
     "lists d.weight, which none of its files has"),
])
def test_an_index_that_lies(tmp_path, weight_map, line):
  write_shards(tmp_path, weight_map)
  assert line in refusal(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}',
                                     "[" * 100000])
def test_an_index_that_is_none(tmp_path, content):
  (tmp_path / "model.safetensors.index.json").write_text(content)
  line = refusal(tmp_path)
  assert "is not JSON" in line or "has no weight_map" in line


@pytest.mark.parametrize("array, line", [
    (np.zeros([2], np.float64), "a is stored as F64; only F32, F16, BF16 are"),
    (np.array([1, np.inf], np.float16), "a holds values that are not finite"),
])
def test_values_that_are_not_read(tmp_path, array, line):
  safetensors_numpy.save_file({"a": array}, str(tmp_path / "model.safetensors"))
  assert line in refusal(tmp_path)


def test_a_damaged_file_and_none(tmp_path):
  assert "model.safetensors is not there" in refusal(tmp_path)
  path = tmp_path / "model.safetensors"
  safetensors_numpy.save_file(ARRAYS, str(path))
  whole = path.read_bytes()
  for content in (whole[:-10], b"", b"\xff" * 100):
    path.write_bytes(content)
    assert "is not a whole safetensors file" in refusal(tmp_path)
  os.remove(str(path))
  (tmp_path / "pytorch_model.bin").write_bytes(b"")
  assert "a pickle, which is never unpickled" in refusal(tmp_path)
