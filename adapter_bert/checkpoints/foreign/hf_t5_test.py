"""Hugging Face's names of T5's tensors, on the golden models' files."""

import os

import numpy as np
import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_t5
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.models import t5

UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias"
          ".weight")


@pytest.fixture(name="models", scope="module")
def fixture_models():
  """{name: (config, dict of name -> array)} of the golden models."""
  found = {}
  for name in ("t5", "t5_v1_1"):
    directory = test_util.sequence_golden(name).checkpoint
    config = t5.T5Config.from_json_file(os.path.join(directory, "config.json"))
    found[name] = config, dict(safetensors_dir.open_dir(directory).items())
  return found


def read(config, tensors):
  return tables.apply(hf_t5.table(config),
                      hf_t5.in_order(tensors, "FILE", config), hf_t5.IGNORED,
                      "FILE")


def changed(config, **keys):
  return t5.T5Config.from_dict(dict(config.to_dict(), **keys))


@pytest.mark.parametrize("name", ("t5", "t5_v1_1"))
def test_every_tensor_has_its_place(models, name):
  config, tensors = models[name]
  ours = read(config, tensors)
  assert len(ours) == len(tensors)
  for scope, theirs in (
      ("encoder/layer_1/output/dense",
       "encoder.block.1.layer.1.DenseReluDense.wo"),
      ("decoder/layer_1/output/dense",
       "decoder.block.1.layer.2.DenseReluDense.wo"),
      ("decoder/layer_1/attention/self/key",
       "decoder.block.1.layer.0.SelfAttention.k"),
      ("decoder/layer_1/crossattention/output/dense",
       "decoder.block.1.layer.1.EncDecAttention.o")):
    np.testing.assert_array_equal(ours["t5/%s/kernel" % scope],
                                  tensors[theirs + ".weight"].T)
  for scope, theirs in (("decoder/layer_0/intermediate",
                         "decoder.block.0.layer.2.layer_norm"),
                        ("decoder/layer_0/crossattention",
                         "decoder.block.0.layer.1.layer_norm"),
                        ("encoder", "encoder.final_layer_norm")):
    np.testing.assert_array_equal(ours["t5/%s/LayerNorm/gamma" % scope],
                                  tensors[theirs + ".weight"])


def test_the_unused_bias_of_the_cross_attention_and_no_other_is_skipped(models):
  config, tensors = models["t5"]
  ours = read(config, dict(tensors, **{UNUSED: np.ones([8, 4])}))
  assert len(ours) == len(tensors)
  with pytest.raises(errors.InputError, match="holds decoder.block.1.layer.1"):
    read(config, dict(tensors, **{
        UNUSED.replace("0", "1", 1): np.ones([8, 4])}))


def test_a_tied_output_layer_must_be_the_words(models):
  config, tensors = models["t5"]
  words = tensors["shared.weight"]
  only = {n: t for n, t in tensors.items() if n != "shared.weight"}
  for alias in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
                "lm_head.weight"):
    ours = read(config, dict(only, **{alias: words}))
    np.testing.assert_array_equal(ours["t5/embeddings/word_embeddings"], words)
  with pytest.raises(errors.InputError, match="shared.weight and lm_head.weight"
                     " differ"):
    read(config, dict(tensors, **{"lm_head.weight": words + 1}))


def test_an_output_layer_of_its_own_by_either_convention(models):
  config, tensors = models["t5_v1_1"]
  assert not config.tie_word_embeddings
  as_transformers_5 = changed(config, tie_word_embeddings=True,
                              scale_decoder_outputs=False)
  for variant in (config, as_transformers_5):
    assert variant.has_output_table and not variant.scales_output
    np.testing.assert_array_equal(
        read(variant, tensors)["t5/output_embeddings"],
        tensors["lm_head.weight"])
  # Absent: there it is tied though not scaled, in the old convention missing.
  lacking = {n: t for n, t in tensors.items() if n != "lm_head.weight"}
  np.testing.assert_array_equal(
      read(as_transformers_5, lacking)["t5/output_embeddings"],
      tensors["shared.weight"])
  with pytest.raises(errors.InputError, match="FILE lacks lm_head.weight"):
    read(config, lacking)
  # A config without either key is a T5 1.0's.
  plain = {k: v for k, v in config.to_dict().items()
           if k not in ("tie_word_embeddings", "scale_decoder_outputs")}
  assert t5.T5Config.from_dict(plain).scales_output
