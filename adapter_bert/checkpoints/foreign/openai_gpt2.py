"""OpenAI's GPT-2 (TensorFlow, 2019): its names for our variables."""

import collections

from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_gpt2
from adapter_bert.checkpoints.foreign import tables

# hparams.json -> Hugging Face's config.json.
_HPARAMS = {"n_vocab": "vocab_size", "n_ctx": "n_positions",
            "n_embd": "n_embd", "n_head": "n_head", "n_layer": "n_layer"}

IGNORED = ()

# Hugging Face's last part of a name -> OpenAI's, by the module before it.
_LAYER_NORM_PARTS = {"weight": "g", "bias": "b"}
_DENSE_PARTS = {"weight": "w", "bias": "b"}


def config_dict(hparams, where=""):
  """The dict that GPT2Config.from_dict takes, from that of a hparams.json.

  Their files have neither activation nor epsilon nor special tokens: they are
  the config's defaults, and the end of text is the last token.

  Raises:
    errors.InputError: a key lacks, or is unknown.
  """
  if not isinstance(hparams, dict) or set(hparams) != set(_HPARAMS):
    raise errors.InputError(
        "%s: found %s; the hparams.json of a GPT-2 has %s" %
        (where, tables.some(sorted(hparams), 9) if isinstance(hparams, dict)
         else "a JSON %s" % type(hparams).__name__, ", ".join(_HPARAMS)))
  keys = {ours: hparams[theirs] for theirs, ours in _HPARAMS.items()}
  if isinstance(keys["vocab_size"], int):
    keys.update(bos_token_id=keys["vocab_size"] - 1,
                eos_token_id=keys["vocab_size"] - 1)
  return dict(keys, model_type="gpt2")


def table(config):
  """OrderedDict of variable name -> tables.Entry.

  The names are Hugging Face's, spelled another way; a kernel is [1, in, out].

  Args:
    config: models.gpt2.GPT2Config, without layers that share their weights.
  """
  return collections.OrderedDict(
      (ours, tables.Entry(tuple(map(_their_name, entry.names)),
                          _of_kernel(entry.read) if ours.endswith("/kernel")
                          else entry.read))
      for ours, entry in hf_gpt2.table(config).items())


def _their_name(name):
  """"h.0.attn.c_attn.weight" -> "model/h0/attn/c_attn/w"."""
  *modules, part = name.split(".")
  if modules[0] == "h":
    modules[:2] = ["h" + modules[1]]
  if modules[-1] in ("wte", "wpe"):
    return "model/" + modules[-1]
  parts = (_LAYER_NORM_PARTS if modules[-1].startswith("ln_") else _DENSE_PARTS)
  return "/".join(["model"] + modules + [parts[part]])


def _of_kernel(read):
  return lambda kernel: read(kernel.reshape(kernel.shape[1:]))


def in_order(tensors, where=""):
  """The tensors under the names that `table` has: as they are."""
  del where
  return tables.as_tensors(tensors)
