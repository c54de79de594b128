"""Mesh TensorFlow's T5, 1.0 and 1.1 (and mT5): its names for our variables.

The names are those of two public loaders of these checkpoints; no checkpoint
was at hand. Kernels are [in, out], as ours.
"""

import collections

from adapter_bert.checkpoints.foreign import tables

# What the optimizer keeps of each variable, and the step.
IGNORED = (r".*_slot_.*", r"global_step")

_ATTENTIONS = {
    "encoder": [("attention", "SelfAttention")],
    "decoder": [("attention", "SelfAttention"),
                ("crossattention", "EncDecAttention")],
}


def table(config):
  """OrderedDict of variable name -> tables.Entry.

  Args:
    config: models.t5.T5Config, without layers that share their weights.
  """
  entries = collections.OrderedDict()
  entries["t5/embeddings/word_embeddings"] = tables.copied("shared/embedding")
  for stack, layers in (("encoder", config.num_layers),
                        ("decoder", config.decoder_layers)):
    # [N, buckets] there.
    entries["t5/%s/relative_attention_bias" % stack] = tables.transposed(
        stack + "/block_000/layer_000/SelfAttention/relative_attention_bias")
    for layer in range(layers):
      _add_layer(entries, "t5/%s/layer_%d/" % (stack, layer),
                 "%s/block_%03d/layer_" % (stack, layer), _ATTENTIONS[stack],
                 config.is_gated)
    entries["t5/%s/LayerNorm/gamma" % stack] = tables.copied(
        stack + "/final_layer_norm/scale")
  if config.has_output_table:
    # [D, V] there.
    entries["t5/output_embeddings"] = tables.transposed("decoder/logits/kernel")
  return entries


def _add_layer(entries, ours, theirs, attentions, is_gated):
  for number, (scope, name) in enumerate(attentions):
    entries["%s%s/LayerNorm/gamma" % (ours, scope)] = tables.copied(
        "%s%03d/layer_norm/scale" % (theirs, number))
    for projection in ("query", "key", "value"):
      entries["%s%s/self/%s/kernel" % (ours, scope, projection)] = (
          tables.copied("%s%03d/%s/%s" % (theirs, number, name, projection[0])))
    entries["%s%s/output/dense/kernel" % (ours, scope)] = tables.copied(
        "%s%03d/%s/o" % (theirs, number, name))
  theirs += "%03d/" % len(attentions)
  entries[ours + "intermediate/LayerNorm/gamma"] = tables.copied(
      theirs + "layer_norm/scale")
  for scope, name in ([("gate", "wi_0"), ("dense", "wi_1")] if is_gated else
                      [("dense", "wi")]):
    entries["%sintermediate/%s/kernel" % (ours, scope)] = tables.copied(
        "%sDenseReluDense/%s/kernel" % (theirs, name))
  entries[ours + "output/dense/kernel"] = tables.copied(
      theirs + "DenseReluDense/wo/kernel")


def in_order(tensors, where=""):
  """The tensors under the names that `table` has.

  T5 1.1 and mT5 call every norm rms_norm: the last of a stack, and those of its
  layers.
  """

  def rename(name):
    parts = name.split("/")
    if "rms_norm" in parts:
      new = "final_layer_norm" if len(parts) == 3 else "layer_norm"
      parts[parts.index("rms_norm")] = new
    return "/".join(parts)

  return tables.renamed(tensors, rename, where)
