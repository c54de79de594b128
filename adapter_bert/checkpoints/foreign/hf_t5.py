"""Hugging Face's T5, 1.0 and 1.1: its names for our variables."""

import collections

from adapter_bert.checkpoints.foreign import tables

# What wrappers of PyTorch put in front of a name.
PREFIXES = ("_orig_mod.", "module.")

# May be in a file though the model has no variable for it: the cross-attention
# has no relative bias. Old files carry one all the same, and nothing reads it.
IGNORED = (r"decoder\.block\.0\.layer\.1\.EncDecAttention"
           r"\.relative_attention_bias\.weight",)

WORDS = "shared.weight"
WORDS_TOO = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
OUTPUT = "lm_head.weight"

# (our scope, the number of their sublayer, its name) of the attentions; the
# feed-forward half is their last sublayer.
_ATTENTIONS = {
    "encoder": [("attention", 0, "SelfAttention")],
    "decoder": [("attention", 0, "SelfAttention"),
                ("crossattention", 1, "EncDecAttention")],
}


def table(config):
  """OrderedDict of variable name -> tables.Entry.

  Args:
    config: models.t5.T5Config, without layers that share their weights.
  """
  entries = collections.OrderedDict()
  entries["t5/embeddings/word_embeddings"] = tables.copied(WORDS)
  for stack, layers in (("encoder", config.num_layers),
                        ("decoder", config.decoder_layers)):
    entries["t5/%s/relative_attention_bias" % stack] = tables.copied(
        stack + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    for layer in range(layers):
      _add_layer(entries, "t5/%s/layer_%d/" % (stack, layer),
                 "%s.block.%d.layer." % (stack, layer), _ATTENTIONS[stack],
                 config.is_gated)
    entries["t5/%s/LayerNorm/gamma" % stack] = tables.copied(
        stack + ".final_layer_norm.weight")
  if config.has_output_table:
    entries["t5/output_embeddings"] = tables.copied(OUTPUT)
  return entries


def _add_layer(entries, ours, theirs, attentions, is_gated):
  for scope, number, name in attentions:
    entries["%s%s/LayerNorm/gamma" % (ours, scope)] = tables.copied(
        "%s%d.layer_norm.weight" % (theirs, number))
    for projection in ("query", "key", "value"):
      entries["%s%s/self/%s/kernel" % (ours, scope, projection)] = (
          tables.transposed("%s%d.%s.%s.weight" % (theirs, number, name,
                                                   projection[0])))
    entries["%s%s/output/dense/kernel" % (ours, scope)] = tables.transposed(
        "%s%d.%s.o.weight" % (theirs, number, name))
  theirs += "%d." % len(attentions)
  entries[ours + "intermediate/LayerNorm/gamma"] = tables.copied(
      theirs + "layer_norm.weight")
  for scope, name in ([("gate", "wi_0"), ("dense", "wi_1")] if is_gated else
                      [("dense", "wi")]):
    entries["%sintermediate/%s/kernel" % (ours, scope)] = tables.transposed(
        "%sDenseReluDense.%s.weight" % (theirs, name))
  entries[ours + "output/dense/kernel"] = tables.transposed(
      theirs + "DenseReluDense.wo.weight")


def in_order(tensors, where="", config=None):
  """The tensors under the names that `table` has.

  Without the prefixes, and the table of words once, whatever its names were. A
  tied output layer is the same table under one more name. Where the config says
  that it is tied and not scaled (as transformers 5 writes T5 1.1), it may be
  absent, and is that table too.

  Args:
    tensors: mapping of name -> array.
    where: str, the file, for messages.
    config: models.t5.T5Config; None: of a T5 1.0, whose output layer is tied.
  """
  tensors = tables.without_prefixes(tensors, PREFIXES, where)
  if config is None or not config.has_output_table:
    return tables.one_of(tensors, WORDS, WORDS_TOO + (OUTPUT,), where)
  tensors = tables.one_of(tensors, WORDS, WORDS_TOO, where)
  if config.tie_word_embeddings and WORDS in tensors and OUTPUT not in tensors:
    named = tensors.tensors.copy()
    named[OUTPUT] = named[WORDS]
    return tables.Tensors(named)
  return tensors
