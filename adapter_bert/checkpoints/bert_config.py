"""Reads the config of a BERT, Google's bert_config.json or Hugging Face's.

modeling.BertConfig keeps every key of a file and looks at those it knows. Here
the others are judged: one that means another model than the one that is built
is refused, one that changes nothing is passed over, and one that nobody knows
is named in a line.
"""

import collections
import json
import os

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
import modeling

HF_NAME = "config.json"

# Far above any BERT.
_MOST_PARAMETERS, _MOST_LAYERS = 10**12, 10**4

# The name of each activation in a Hugging Face config -> its name here.
ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
    "tanh": "tanh",
}
# What --hidden_act can be.
HIDDEN_ACTS = ("gelu", "gelu_erf", "relu", "tanh")

# Keys that change the outputs -> the value that is built; without the key it is
# that one.
_BUILT = collections.OrderedDict([
    ("model_type", "bert"),
    ("layer_norm_eps", modeling.LAYER_NORM_EPSILON),
    ("position_embedding_type", "absolute"),
    ("is_decoder", False),
    ("is_encoder_decoder", False),
    ("add_cross_attention", False),
    ("pruned_heads", {}),
    ("directionality", "bidi"),
    ("pooler_type", "first_token_transform"),
    # Google's ALBERT.
    ("inner_group_num", 1),
    ("net_structure_type", 0),
    ("gap_size", 0),
    ("num_memory_blocks", 0),
    ("down_scale_factor", 1),
    # ELECTRA, MobileBERT and others that look alike.
    ("summary_type", "first"),
    ("use_bottleneck", False),
    ("rescale_embeddings", False),
    ("attention_type", "original_full"),
])

# Keys that change no output of the model as it is used here.
_HARMLESS = frozenset("""
    architectures attn_implementation auto_map bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward classifier_dropout
    classifier_dropout_prob cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing id2label label2id language length_penalty max_length
    min_length name no_repeat_ngram_size num_beam_groups num_beams num_labels
    num_return_sequences output_attentions output_hidden_states output_past
    output_scores pad_token_id pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head prefix problem_type
    remove_invalid_values repetition_penalty return_dict
    return_dict_in_generate sentence_transformers sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder
    tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 use_cache
    """.split())

# What is built here, beyond the arguments of BertConfig.
_OURS = ("embedding_size", "share_parameter_across_layers", "layers_per_group",
         "share_adapters", "ln_type")
_SIZES = tuple(sorted(modeling.BertConfig(vocab_size=1).to_dict()))


def read(path, hidden_act=None, **changes):
  """The BertConfig in a file.

  Args:
    path: str. A file called config.json, or one that has a model_type, is
      Hugging Face's; there "gelu" is the exact form.
    hidden_act: None, or one of HIDDEN_ACTS in place of the file's.
    **changes: further keys whose values go over the file's; None changes
      nothing.

  Raises:
    errors.InputError: the file is missing or damaged, lacks a size, or says
      what is not built.
  """
  values = files.read_json(path, dict)
  is_hf = is_hugging_face(path, values)
  if is_hf:
    values = _from_hugging_face(path, values)
  else:
    check_keys(values, path)
  if hidden_act is not None and hidden_act != values.get("hidden_act"):
    logging.info("hidden_act: %s in place of the config's %s.", hidden_act,
                 values.get("hidden_act"))
    values["hidden_act"] = hidden_act
  values.update((k, v) for k, v in changes.items() if v is not None)
  return from_values(values, path)


def from_values(values, where):
  """The BertConfig of a dict, checked.

  Args:
    values: dict, from a JSON file.
    where: str, the file, for messages.

  Raises:
    errors.InputError: a value cannot be, or the model would fit no machine.
  """
  try:
    config = modeling.BertConfig.from_dict(values)
    config.validate()
  except ValueError as error:
    raise errors.InputError("%s: %s" % (where, error)) from error
  width, layers = config.hidden_size, config.num_hidden_layers
  tables = (config.vocab_size + config.max_position_embeddings +
            config.type_vocab_size) * width
  size = tables + layers * width * (4 * width + 2 * config.intermediate_size)
  if size > _MOST_PARAMETERS or layers > _MOST_LAYERS:
    raise errors.InputError(
        "%s: a model of these sizes has %.1e parameters in %.1e layers, which "
        "no machine can hold; is a size mistyped?" % (where, size, layers))
  return config


def is_hugging_face(path, values):
  """Whether a config with these values is Hugging Face's, and not Google's."""
  return os.path.basename(path) == HF_NAME or any(
      key in values for key in ("model_type", "architectures",
                                "transformers_version"))


def check_keys(values, where):
  """Judges the keys of a config that BertConfig does not know.

  Args:
    values: dict, the config.
    where: str, its file, for messages.

  Raises:
    errors.InputError: a key means another model than the one that is built.
  """
  layers, groups = values.get("num_hidden_layers"), values.get(
      "num_hidden_groups")
  if groups is not None and groups != layers:
    raise errors.InputError(
        "%s: num_hidden_groups is %s: this is the config of Google's own "
        "ALBERT, whose layers share their weights and whose embeddings are "
        "built in another way; here a config says "
        "share_parameter_across_layers (and layers_per_group), as albert_zh's "
        "checkpoints need it" % (where, json.dumps(groups)))
  for key, value in _BUILT.items():
    found = values.get(key, value)
    if found != value and found is not None:
      raise errors.InputError(
          "%s: %s is %s; only %s is BERT as it is built here, with another its "
          "outputs would differ, so this model cannot be used" %
          (where, key, json.dumps(found), json.dumps(value)))
  unknown = sorted(
      key for key in set(values) - set(_BUILT) - _HARMLESS - set(_OURS) -
      set(_SIZES) - {"num_hidden_groups"} if not key.startswith("_"))
  if unknown:
    logging.warning("%s: these keys have no meaning here: %s", where,
                    ", ".join(unknown))


def check_pairs(config, where):
  """Raises InputError if the model cannot tell the two texts of a pair apart.

  Args:
    config: modeling.BertConfig.
    where: str, its file, for the message.
  """
  if config.type_vocab_size < 2:
    raise errors.InputError(
        "%s: type_vocab_size is %d, so that the model cannot tell the two texts "
        "of a pair apart, and the task has pairs; take a model with two, or a "
        "task of single texts" % (where, config.type_vocab_size))


def _from_hugging_face(path, values):
  """The keys and values for a BertConfig of Hugging Face's config."""
  check_keys(values, path)
  missing = [key for key in _SIZES if key not in values]
  if missing:
    raise errors.InputError(
        "%s has no %s; every size must be stated, none is guessed" %
        (path, ", ".join(missing)))
  activation = values["hidden_act"]
  if str(activation) not in ACTIVATIONS:
    raise errors.InputError(
        "%s: hidden_act is %s; known are %s" %
        (path, json.dumps(activation), ", ".join(ACTIVATIONS)))
  return dict({key: values[key] for key in _SIZES},
              hidden_act=ACTIVATIONS[activation])
