"""Mesh TensorFlow's names of T5's variables, made from the golden models."""

import os
import re

import numpy as np
import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_t5
from adapter_bert.checkpoints.foreign import mesh_t5
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.models import t5


def as_mesh(tensors, norm=None):
  """Hugging Face's tensors of a T5 as Mesh TensorFlow has them.

  Args:
    tensors: dict of name -> array.
    norm: None, or what every norm is called.
  """
  made = {"global_step": np.array(7)}
  for name, array in tensors.items():
    name = re.sub(r"\.weight$", "", name)
    name = re.sub(r"(block|layer)\.(\d+)", lambda match: "%s_%03d" % (
        match.group(1), int(match.group(2))), name)
    name = name.replace(".", "/").replace("shared", "shared/embedding")
    name = re.sub("(wi|wi_0|wi_1|wo)$", r"\1/kernel", name)
    name = re.sub("^lm_head$", "decoder/logits/kernel", name)
    name = re.sub("layer_norm$", "layer_norm/scale", name)
    if norm:
      name = re.sub("(final_)?layer_norm/", norm + "/", name)
    is_table = name == "shared/embedding" or array.ndim == 1
    made[name] = array if is_table else array.T
    made[name + "_slot_vc"] = np.ones(3)
  return made


def test_names_are_those_of_the_checkpoints():
  config = t5.T5Config(num_layers=12, num_decoder_layers=1,
                       feed_forward_proj="gated-gelu",
                       tie_word_embeddings=False)
  entries = mesh_t5.table(config)
  for ours, theirs in (
      ("encoder/relative_attention_bias",
       "encoder/block_000/layer_000/SelfAttention/relative_attention_bias"),
      ("encoder/layer_11/attention/self/query/kernel",
       "encoder/block_011/layer_000/SelfAttention/q"),
      ("decoder/layer_0/crossattention/output/dense/kernel",
       "decoder/block_000/layer_001/EncDecAttention/o"),
      ("decoder/layer_0/intermediate/gate/kernel",
       "decoder/block_000/layer_002/DenseReluDense/wi_0/kernel"),
      ("decoder/layer_0/crossattention/LayerNorm/gamma",
       "decoder/block_000/layer_001/layer_norm/scale"),
      ("decoder/LayerNorm/gamma", "decoder/final_layer_norm/scale"),
      ("output_embeddings", "decoder/logits/kernel")):
    assert entries["t5/" + ours].names == (theirs,)


@pytest.mark.parametrize("name, norm", [("t5", None), ("t5_v1_1", "rms_norm")])
def test_gives_what_hugging_faces_file_gives(name, norm):
  directory = test_util.sequence_golden(name).checkpoint
  config = t5.T5Config.from_json_file(os.path.join(directory, "config.json"))
  theirs = dict(safetensors_dir.open_dir(directory).items())
  expected = tables.apply(hf_t5.table(config), theirs, (), "FILE")
  checkpoint = as_mesh(theirs, norm)
  found = tables.apply(mesh_t5.table(config), mesh_t5.in_order(checkpoint),
                       mesh_t5.IGNORED, "FILE")
  assert list(found) == list(expected)
  for variable in expected:
    np.testing.assert_array_equal(found[variable], expected[variable], variable)
  checkpoint["encoder/block_000/layer_000/SelfAttention/w"] = np.ones(2)
  with pytest.raises(errors.InputError, match="holds .*SelfAttention/w, for"):
    tables.apply(mesh_t5.table(config), mesh_t5.in_order(checkpoint),
                 mesh_t5.IGNORED, "FILE")
