"""The golden GPT-2 out of a Hugging Face directory and out of OpenAI's files."""

import json
import os

import numpy as np
import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints.foreign import gpt2_test
from adapter_bert.checkpoints.foreign import mesh_t5_test
from adapter_bert.checkpoints.foreign import safetensors_dir


def read(path):
  """(config, weights) of a directory."""
  directory = model_dir.open_model_dir(str(path))
  config = sequence_weights.read_config(directory)
  return config, sequence_weights.open_weights(directory, config)


def test_openai_files_are_the_same_model(tmp_path):
  golden = test_util.sequence_golden("gpt2").checkpoint
  config, expected = read(golden)
  tensors = dict(safetensors_dir.open_dir(golden).items())
  weights_lib.write(str(tmp_path / "model.ckpt"),
                    gpt2_test.openai_tensors(tensors, config.n_layer))
  (tmp_path / "hparams.json").write_text(json.dumps({
      "n_vocab": config.vocab_size, "n_ctx": config.n_positions,
      "n_embd": config.n_embd, "n_head": config.n_head,
      "n_layer": config.n_layer}))
  theirs, found = read(tmp_path)
  assert theirs.eos_token_id == config.eos_token_id
  assert sorted(found) == sorted(expected)
  for name, array in found.items():
    np.testing.assert_array_equal(array, expected[name])
  assert sequence_weights.digest(found) == sequence_weights.digest(expected)
  assert sequence_weights.digest(dict(expected, more=np.zeros(1))) != (
      sequence_weights.digest(expected))


@pytest.mark.parametrize("name, norm", [("t5", None), ("t5_v1_1", "rms_norm")])
def test_mesh_tensorflow_files_are_the_same_model(tmp_path, name, norm):
  golden = test_util.sequence_golden(name).checkpoint
  _, expected = read(golden)
  with open(os.path.join(golden, "config.json"), encoding="utf-8") as reader:
    (tmp_path / "config.json").write_text(reader.read())
  (tmp_path / "sentencepiece.model").write_bytes(b"x")
  tensors = dict(safetensors_dir.open_dir(golden).items())
  weights_lib.write(str(tmp_path / "model.ckpt-1000"), {
      key: np.ascontiguousarray(value)
      for key, value in mesh_t5_test.as_mesh(tensors, norm).items()})
  _, found = read(tmp_path)
  assert sequence_weights.digest(found) == sequence_weights.digest(expected)
  directory = model_dir.open_model_dir(str(tmp_path))
  assert directory.kind == model_dir.MESH
  assert directory.vocab_file == str(tmp_path / "sentencepiece.model")
  weights_lib.write(str(tmp_path / "model.ckpt-2000"), {"a": np.zeros(1)})
  with pytest.raises(errors.InputError, match="holds more than a checkpoint"):
    read(tmp_path)


def test_layers_that_share_are_not_published(tmp_path):
  golden = test_util.sequence_golden("gpt2").checkpoint
  for name in os.listdir(golden):
    os.symlink(os.path.join(golden, name), str(tmp_path / name))
  with open(os.path.join(golden, "config.json"), encoding="utf-8") as reader:
    config = dict(json.load(reader), share_parameter_across_layers=True)
  os.remove(str(tmp_path / "config.json"))
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match="of layers that do not share"):
    read(tmp_path)


def test_a_checkpoint_that_is_none(tmp_path):
  (tmp_path / "model.ckpt.index").write_bytes(b"no index")
  (tmp_path / "hparams.json").write_text(json.dumps({
      "n_vocab": 9, "n_ctx": 8, "n_embd": 4, "n_head": 2, "n_layer": 1}))
  with pytest.raises(errors.InputError, match="cannot be read as a checkpoint"):
    read(tmp_path)
