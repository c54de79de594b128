"""Hugging Face's BERT: its names for our variables."""

import collections
import re

from adapter_bert.checkpoints.foreign import tables

# What may stand before a name: the model's attribute in a class with a head, and
# what wrappers of PyTorch (compile, data parallel) put in front.
PREFIXES = ("bert.", "model.", "_orig_mod.", "module.")

# May be in a file though the model has no variable for it: a constant, and the
# heads of pre-training.
IGNORED = (r"embeddings\.position_ids", r"cls\..*")

_DENSE = ("attention/self/query", "attention/self/key", "attention/self/value",
          "attention/output/dense", "intermediate/dense", "output/dense")
_LAYER_NORMS = ("attention/output/LayerNorm", "output/LayerNorm")


def table(config):
  """OrderedDict of variable name -> tables.Entry.

  Args:
    config: modeling.BertConfig of a plain BERT (no sharing, no factorisation).
  """
  entries = collections.OrderedDict()
  for name in ("word_embeddings", "position_embeddings",
               "token_type_embeddings"):
    entries["bert/embeddings/" + name] = tables.copied(
        "embeddings.%s.weight" % name)
  _add_layer_norm(entries, "embeddings/LayerNorm", "embeddings.LayerNorm")
  for layer in range(config.num_hidden_layers):
    ours, theirs = "encoder/layer_%d/" % layer, "encoder.layer.%d." % layer
    for name in _DENSE:
      _add_dense(entries, ours + name, theirs + name.replace("/", "."))
    for name in _LAYER_NORMS:
      _add_layer_norm(entries, ours + name, theirs + name.replace("/", "."))
  _add_dense(entries, "pooler/dense", "pooler.dense")
  return entries


def _add_dense(entries, ours, theirs):
  entries["bert/%s/kernel" % ours] = tables.transposed(theirs + ".weight")
  entries["bert/%s/bias" % ours] = tables.copied(theirs + ".bias")


def _add_layer_norm(entries, ours, theirs):
  entries["bert/%s/gamma" % ours] = tables.copied(theirs + ".weight")
  entries["bert/%s/beta" % ours] = tables.copied(theirs + ".bias")


def in_order(tensors, where=""):
  """The tensors under the names that `table` has.

  Without the prefixes, and with today's names of LayerNorm's variables in
  place of those of 2019 (gamma and beta).
  """
  new = {"LayerNorm.gamma": "LayerNorm.weight",
         "LayerNorm.beta": "LayerNorm.bias"}
  return tables.renamed(
      tables.without_prefixes(tensors, PREFIXES, where),
      lambda name: re.sub(r"LayerNorm\.(gamma|beta)$",
                          lambda match: new[match.group(0)], name), where)
