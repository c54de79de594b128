"""Hugging Face's GPT-2: its names for our variables."""

import collections

from adapter_bert.checkpoints.foreign import tables

# What may stand before a name: the model's attribute in the class that has an
# output layer (the files of the hub's "gpt2" have none), and what wrappers of
# PyTorch put in front.
PREFIXES = ("transformer.", "_orig_mod.", "module.")

# May be in a file though the model has no variable for it: buffers with the
# causal mask. Whole names: c_attn.bias, which is a variable, ends alike.
IGNORED = (r"h\.[0-9]+\.attn\.bias", r"h\.[0-9]+\.attn\.masked_bias")

# The table of words is the output layer too.
WORDS = "wte.weight"
WORDS_TOO = ("lm_head.weight",)


def table(config):
  """OrderedDict of variable name -> tables.Entry.

  Their Conv1D stores a kernel as [in, out], as we do.

  Args:
    config: models.gpt2.GPT2Config, without layers that share their weights.
  """
  entries = collections.OrderedDict()
  for ours, theirs in (("word", WORDS), ("position", "wpe.weight")):
    entries["gpt2/embeddings/%s_embeddings" % ours] = tables.copied(theirs)
  for layer in range(config.n_layer):
    _add_layer(entries, "gpt2/decoder/layer_%d/" % layer, "h.%d." % layer)
  _add_layer_norm(entries, "gpt2/decoder/LayerNorm", "ln_f")
  return entries


def _add_layer(entries, ours, theirs):
  _add_layer_norm(entries, ours + "attention/LayerNorm", theirs + "ln_1")
  for index, name in enumerate(("query", "key", "value")):
    for our_part, their_part in (("kernel", "weight"), ("bias", "bias")):
      entries["%sattention/self/%s/%s" % (ours, name, our_part)] = (
          tables.columns("%sattn.c_attn.%s" % (theirs, their_part), index, 3))
  _add_dense(entries, ours + "attention/output/dense", theirs + "attn.c_proj")
  _add_layer_norm(entries, ours + "intermediate/LayerNorm", theirs + "ln_2")
  _add_dense(entries, ours + "intermediate/dense", theirs + "mlp.c_fc")
  _add_dense(entries, ours + "output/dense", theirs + "mlp.c_proj")


def _add_dense(entries, ours, theirs):
  entries[ours + "/kernel"] = tables.copied(theirs + ".weight")
  entries[ours + "/bias"] = tables.copied(theirs + ".bias")


def _add_layer_norm(entries, ours, theirs):
  entries[ours + "/gamma"] = tables.copied(theirs + ".weight")
  entries[ours + "/beta"] = tables.copied(theirs + ".bias")


def in_order(tensors, where=""):
  """The tensors under the names that `table` has.

  Without the prefixes, and the table of words once, whatever its names were.
  """
  return tables.one_of(tables.without_prefixes(tensors, PREFIXES, where), WORDS,
                       WORDS_TOO, where)
