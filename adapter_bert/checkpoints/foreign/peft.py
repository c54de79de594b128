"""PEFT's directories of prefix tuning for a BERT classifier.

Written after peft 0.21.2: adapter_config.json and adapter_model.safetensors,
with `prompt_embeddings` [P, layers * 2 * D], the keys and values without their
MLP, and the modules that were trained beside it (modules_to_save), of which a
classifier's is its output layer. Tokens stand behind the prefix.
"""

from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import method as method_lib

NAME = "PEFT"
WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
VERSION = "0.21.2"

_BUILT = {"peft_type": ("PREFIX_TUNING",), "task_type": ("SEQ_CLS",),
          "num_transformer_submodules": (1, None), "auto_mapping": (None,),
          "init_weights": (None, True, False)}
_NO_OUTPUT = frozenset("""
    base_model_name_or_path encoder_hidden_size inference_mode modules_to_save
    num_attention_heads num_layers num_virtual_tokens peft_version
    prefix_projection revision token_dim
    """.split())

# What PEFT does with a prefix where there are an encoder and a decoder.
TWO_STACKS = (
    "%s: is a prefix of a model with an encoder and a decoder. PEFT gives it "
    "to the decoder's self-attention alone, and its layer i reads group 2 i "
    "modulo the number of layers of the file, not group i: its rows mean "
    "something else than a prefix does here, so it cannot be read")
NO_TYPES = (
    "PEFT gives a BERT no token types: this was trained with segment 0 for "
    "both texts of a pair. For single texts the outputs are PEFT's own; for "
    "pairs they are only with segment_ids of 0, which no task here has")


def is_dir(values):
  """Whether an adapter_config.json with these values is PEFT's."""
  return "peft_type" in values


def read(directory, config):
  """The method_lib.Method in a directory; as adapterhub.read."""
  where = "%s/%s" % (directory, method_lib.CONFIG)
  values = method_lib.read_config(directory)
  if values.get("peft_type") == "PREFIX_TUNING" and (
      values.get("num_transformer_submodules") == 2 or
      values.get("task_type") == "SEQ_2_SEQ_LM"):
    raise errors.InputError(TWO_STACKS % where)
  method_lib.check_values(values, _BUILT, _NO_OUTPUT, where)
  method_lib.check_model(
      {key: values.get(key) for key in ("num_layers", "num_attention_heads",
                                        "token_dim")},
      {"num_layers": config.num_hidden_layers,
       "num_attention_heads": config.num_attention_heads,
       "token_dim": config.hidden_size}, where)
  tensors = method_lib.open_tensors(directory, WEIGHTS, PICKLE)
  has_pooler = "pooler" in (values.get("modules_to_save") or ())
  table = method_lib.table_of(_pairs(has_pooler))
  prefix, head = [table[name].names[0] for name in (method_lib.PREFIX,
                                                    hf_bert.HEAD_BIAS)]
  if head not in tensors:
    raise errors.InputError(
        "%s/%s: has no %s: a task needs its output layer, which PEFT saves "
        "with task_type SEQ_CLS or modules_to_save=[\"classifier\"]" %
        (directory, WEIGHTS, head))
  length = values.get("num_virtual_tokens")
  if prefix in tensors and tensors.shape(prefix)[0] != length:
    raise errors.InputError("%s: num_virtual_tokens is %s, and %s has the "
                            "shape %s" % (where, length, prefix,
                                    list(tensors.shape(prefix))))
  return method_lib.Method(
      path=directory, library=NAME,
      model_name=str(values.get("base_model_name_or_path")),
      settings=dict(tune="prefix", prefix_length=length, prefix_hidden_size=0,
                    prefix_positions="after", fresh_pooler=has_pooler),
      num_labels=tensors.shape(head)[0], row_names=None, table=table,
      tensors=tensors, notes=[NO_TYPES])


def _pairs(has_pooler):
  """A list of method_lib.Pair."""
  pairs = [method_lib.copied(method_lib.PREFIX, "prompt_embeddings")]
  if has_pooler:
    scope = "base_model.bert.pooler.dense."
    pairs += [method_lib.transposed(method_lib.POOLER_KERNEL, scope + "weight"),
              method_lib.copied(method_lib.POOLER_BIAS, scope + "bias")]
  return pairs + [
      method_lib.copied(hf_bert.HEAD_WEIGHTS, "base_model.classifier.weight"),
      method_lib.copied(hf_bert.HEAD_BIAS, "base_model.classifier.bias")]


def write(directory, arrays, settings, config, labels, name, model_name):
  """Writes a task checkpoint's variables; as adapterhub.write."""
  del labels, name  # There is no place for them.
  if settings["tune"] == "adapters+head":
    raise errors.InputError("its method is adapters; of PEFT's methods only "
                            "prefix tuning is here, write it with "
                            "--to=adapterhub")
  if settings["prefix_positions"] != "after":
    raise errors.InputError(
        "its prefix_positions are %s; PEFT puts tokens behind the prefix "
        "(--prefix_positions=after), so that its outputs would be others" %
        settings["prefix_positions"])
  values = {
      "auto_mapping": None, "base_model_name_or_path": model_name,
      "encoder_hidden_size": config.hidden_size, "inference_mode": True,
      "modules_to_save": ["classifier"] + ["pooler"] * settings["fresh_pooler"],
      "num_attention_heads": config.num_attention_heads,
      "num_layers": config.num_hidden_layers, "num_transformer_submodules": 1,
      "num_virtual_tokens": settings["prefix_length"],
      "peft_type": "PREFIX_TUNING", "peft_version": VERSION,
      "prefix_projection": False, "revision": None, "task_type": "SEQ_CLS",
      "token_dim": config.hidden_size}
  method_lib.write_files(directory, {method_lib.CONFIG: values}, {
      WEIGHTS: method_lib.tensors_of(_pairs(settings["fresh_pooler"]), arrays)})
