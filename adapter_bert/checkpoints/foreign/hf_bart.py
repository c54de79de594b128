"""Hugging Face's BART: its names for our variables."""

import collections

import numpy as np

from adapter_bert.checkpoints.foreign import tables

# What may stand before a name: the model's attribute in the class that has an
# output layer, and what wrappers of PyTorch put in front.
PREFIXES = ("model.", "_orig_mod.", "module.")

# May be in a file though the model has no variable for it: numbers of old
# fairseq files, which say what is in the config too.
IGNORED = (r"(encoder|decoder)\.version",)

# The one table of words, under any of the names of its uses. A file with the
# words under one of these alone is not damaged: safetensors holds a tensor that
# has several names only once.
WORDS = "shared.weight"
WORDS_TOO = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
             "lm_head.weight")

_SELF_ATTENTION = ("attention", "self_attn")
_CROSS_ATTENTION = ("crossattention", "encoder_attn")


def table(config):
  """OrderedDict of variable name -> tables.Entry.

  Args:
    config: models.bart.BartConfig, without layers that share their weights.
  """
  entries = collections.OrderedDict()
  entries["bart/embeddings/word_embeddings"] = tables.copied(WORDS)
  for stack, layers, attentions in (
      ("encoder", config.encoder_layers, [_SELF_ATTENTION]),
      ("decoder", config.decoder_layers, [_SELF_ATTENTION, _CROSS_ATTENTION])):
    entries["bart/%s/embeddings/position_embeddings" % stack] = tables.copied(
        "%s.embed_positions.weight" % stack)
    _add_layer_norm(entries, "bart/%s/embeddings/LayerNorm" % stack,
                    "%s.layernorm_embedding" % stack)
    for layer in range(layers):
      _add_layer(entries, "bart/%s/layer_%d/" % (stack, layer),
                 "%s.layers.%d." % (stack, layer), attentions)
  entries["bart/final_logits_bias"] = tables.Entry(
      ("final_logits_bias",), lambda bias: bias.reshape([-1]))
  return entries


def _add_layer(entries, ours, theirs, attentions):
  for our_name, their_name in attentions:
    for projection in ("query", "key", "value"):
      _add_dense(entries, "%s%s/self/%s" % (ours, our_name, projection),
                 "%s%s.%s_proj" % (theirs, their_name, projection[0]))
    _add_dense(entries, "%s%s/output/dense" % (ours, our_name),
               "%s%s.out_proj" % (theirs, their_name))
    _add_layer_norm(entries, "%s%s/output/LayerNorm" % (ours, our_name),
                    "%s%s_layer_norm" % (theirs, their_name))
  _add_dense(entries, ours + "intermediate/dense", theirs + "fc1")
  _add_dense(entries, ours + "output/dense", theirs + "fc2")
  _add_layer_norm(entries, ours + "output/LayerNorm",
                  theirs + "final_layer_norm")


def _add_dense(entries, ours, theirs):
  entries[ours + "/kernel"] = tables.transposed(theirs + ".weight")
  entries[ours + "/bias"] = tables.copied(theirs + ".bias")


def _add_layer_norm(entries, ours, theirs):
  entries[ours + "/gamma"] = tables.copied(theirs + ".weight")
  entries[ours + "/beta"] = tables.copied(theirs + ".bias")


def in_order(tensors, where=""):
  """The tensors under the names that `table` has.

  Without the prefixes; the table of words once, whatever its names were; and
  with zeros for the bias of the output layer in files that lack it.
  """
  tensors = tables.without_prefixes(tensors, PREFIXES, where)
  tensors = tables.one_of(tensors, WORDS, WORDS_TOO, where)
  if WORDS not in tensors:
    return tensors  # `tables.view` says what is wrong.
  zeros = np.zeros([1, tensors.shape(WORDS)[0]], np.float32)
  return tables.with_defaults(tensors, {"final_logits_bias": zeros})
