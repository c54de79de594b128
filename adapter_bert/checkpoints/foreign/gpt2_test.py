"""Both projects' names of GPT-2's tensors, on the golden model's file."""

import os

import numpy as np
import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_gpt2
from adapter_bert.checkpoints.foreign import openai_gpt2
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.models import gpt2


@pytest.fixture(name="model", scope="module")
def fixture_model():
  """(config, dict of name -> array) of the golden model."""
  directory = test_util.sequence_golden("gpt2").checkpoint
  config = gpt2.GPT2Config.from_json_file(
      os.path.join(directory, "config.json"))
  return config, dict(safetensors_dir.open_dir(directory).items())


def read(config, tensors):
  return tables.apply(hf_gpt2.table(config),
                      hf_gpt2.in_order(tensors, "FILE"), hf_gpt2.IGNORED,
                      "FILE")


def test_every_tensor_has_its_place(model):
  config, tensors = model
  ours = read(config, tensors)
  # Each layer's fused projection, kernel and bias, is three of ours.
  assert len(ours) == len(tensors) + 4 * config.n_layer
  theirs = "transformer.h.1."
  for name, expected in (
      ("attention/self/query/kernel",
       tensors[theirs + "attn.c_attn.weight"][:, :config.n_embd]),
      ("attention/self/value/bias",
       tensors[theirs + "attn.c_attn.bias"][2 * config.n_embd:]),
      ("attention/output/dense/kernel", tensors[theirs + "attn.c_proj.weight"]),
      ("attention/LayerNorm/gamma", tensors[theirs + "ln_1.weight"]),
      ("intermediate/LayerNorm/beta", tensors[theirs + "ln_2.bias"]),
      ("intermediate/dense/kernel", tensors[theirs + "mlp.c_fc.weight"]),
      ("output/dense/kernel", tensors[theirs + "mlp.c_proj.weight"])):
    np.testing.assert_array_equal(ours["gpt2/decoder/layer_1/" + name],
                                  expected)


def test_the_files_of_the_hub(model):
  """No prefix, mask buffers, and the output layer once more."""
  config, tensors = model
  bare = {name[len("transformer."):]: t for name, t in tensors.items()}
  bare["lm_head.weight"] = bare["wte.weight"].copy()
  for layer in range(config.n_layer):
    bare["h.%d.attn.bias" % layer] = np.tril(np.ones([1, 1, 32, 32]))
    bare["h.%d.attn.masked_bias" % layer] = np.float32(-1e4)
  found = read(config, bare)
  for name, array in read(config, tensors).items():
    np.testing.assert_array_equal(found[name], array)
  bare["h.0.attn.c_attn.more_bias"] = np.ones([3])
  with pytest.raises(errors.InputError, match="holds h.0.attn.c_attn.more_bias"):
    read(config, bare)


def test_what_lacks_is_named(model):
  config, tensors = model
  for name in ("h.0.attn.c_attn.bias", "h.1.ln_2.weight", "wpe.weight"):
    with pytest.raises(errors.InputError, match="FILE lacks " + name):
      read(config, {n: t for n, t in tensors.items()
                    if n != "transformer." + name})
  with pytest.raises(errors.InputError, match="wte.weight and lm_head.weight"
                     " differ"):
    read(config, dict(tensors, **{
        "lm_head.weight": tensors["transformer.wte.weight"] + 1}))


def openai_tensors(tensors, layers):
  """The golden tensors as OpenAI's checkpoint would hold them."""
  get = lambda name: tensors["transformer." + name]
  found = {"model/wte": get("wte.weight"), "model/wpe": get("wpe.weight"),
           "model/ln_f/g": get("ln_f.weight"), "model/ln_f/b": get("ln_f.bias")}
  for i in range(layers):
    for norm in ("ln_1", "ln_2"):
      found["model/h%d/%s/g" % (i, norm)] = get("h.%d.%s.weight" % (i, norm))
      found["model/h%d/%s/b" % (i, norm)] = get("h.%d.%s.bias" % (i, norm))
    for dense in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj"):
      theirs = "h.%d.%s." % (i, dense.replace("/", "."))
      found["model/h%d/%s/w" % (i, dense)] = get(theirs + "weight")[None]
      found["model/h%d/%s/b" % (i, dense)] = get(theirs + "bias")
  return found


def test_openai_names_make_the_same_model(model):
  config, tensors = model
  hparams = {"n_vocab": config.vocab_size, "n_ctx": config.n_positions,
             "n_embd": config.n_embd, "n_head": config.n_head,
             "n_layer": config.n_layer}
  theirs = openai_tensors(tensors, config.n_layer)
  their_config = gpt2.GPT2Config.from_dict(openai_gpt2.config_dict(hparams))
  found = tables.apply(openai_gpt2.table(their_config),
                       openai_gpt2.in_order(theirs), openai_gpt2.IGNORED,
                       "FILE")
  expected = read(config, tensors)
  assert list(found) == list(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array)
  for key in gpt2.GPT2Config.KEYS:
    if "drop" not in key:
      assert getattr(their_config, key) == getattr(config, key), key


@pytest.mark.parametrize("hparams,message", [
    ({"n_vocab": 5}, "found n_vocab; the hparams.json of a GPT-2 has n_vocab"),
    ([], "found a JSON list")])
def test_other_hparams_are_refused(hparams, message):
  with pytest.raises(errors.InputError, match=message):
    openai_gpt2.config_dict(hparams, "hparams.json")
