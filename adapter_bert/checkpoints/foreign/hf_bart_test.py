"""Hugging Face's names of BART's tensors, on the golden model's file."""

import os

import numpy as np
import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_bart
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.models import bart


@pytest.fixture(name="model", scope="module")
def fixture_model():
  """(config, dict of name -> array) of the golden model."""
  directory = test_util.sequence_golden("bart").checkpoint
  config = bart.BartConfig.from_json_file(
      os.path.join(directory, "config.json"))
  return config, dict(safetensors_dir.open_dir(directory).items())


def read(config, tensors):
  return tables.apply(hf_bart.table(config),
                      hf_bart.in_order(tensors, "FILE"), hf_bart.IGNORED,
                      "FILE")


def test_every_tensor_has_its_place(model):
  config, tensors = model
  ours = read(config, tensors)
  assert len(ours) == len(tensors)
  for name, theirs in (
      ("decoder/layer_1/crossattention/self/value",
       "decoder.layers.1.encoder_attn.v_proj"),
      ("encoder/layer_1/intermediate/dense", "encoder.layers.1.fc1"),
      ("decoder/layer_0/output/dense", "decoder.layers.0.fc2")):
    np.testing.assert_array_equal(ours["bart/%s/kernel" % name],
                                  tensors["model.%s.weight" % theirs].T)
    np.testing.assert_array_equal(ours["bart/%s/bias" % name],
                                  tensors["model.%s.bias" % theirs])
  for name, theirs in (
      ("output", "final_layer_norm"),
      ("attention/output", "self_attn_layer_norm"),
      ("crossattention/output", "encoder_attn_layer_norm")):
    np.testing.assert_array_equal(
        ours["bart/decoder/layer_1/%s/LayerNorm/gamma" % name],
        tensors["model.decoder.layers.1.%s.weight" % theirs])
  assert ours["bart/final_logits_bias"].shape == (config.vocab_size,)


@pytest.mark.parametrize("alias", ("model.decoder.embed_tokens.weight",
                                   "model.encoder.embed_tokens.weight",
                                   "lm_head.weight"))
def test_the_words_may_have_any_of_their_names_and_several(model, alias):
  config, tensors = model
  words = tensors["model.shared.weight"]
  only = {n: t for n, t in tensors.items() if n != "model.shared.weight"}
  for variant in (dict(only, **{alias: words}),
                  dict(tensors, **{alias: words.copy()})):
    np.testing.assert_array_equal(
        read(config, variant)["bart/embeddings/word_embeddings"], words)
  with pytest.raises(errors.InputError, match="shared.weight and .* differ"):
    read(config, dict(tensors, **{alias: words + 1}))


def test_a_model_without_output_layer_has_no_bias_there(model):
  config, tensors = model
  bare = {n[len("model."):]: t for n, t in tensors.items()
          if n.startswith("model.")}
  ours = read(config, bare)
  np.testing.assert_array_equal(ours["bart/final_logits_bias"],
                                np.zeros(config.vocab_size))
  assert len(ours) == len(tensors)


def test_what_lacks_and_what_is_left_over_is_named(model):
  config, tensors = model
  name = "model.decoder.layers.0.fc1.bias"
  with pytest.raises(errors.InputError,
                     match="FILE lacks decoder.layers.0.fc1.bias"):
    read(config, {n: t for n, t in tensors.items() if n != name})
  with pytest.raises(errors.InputError, match="holds encoder.layer_norm"):
    read(config, dict(tensors, **{"encoder.layer_norm.weight": np.ones(3)}))
  read(config, dict(tensors, **{"model.encoder.version": np.ones(1)}))
