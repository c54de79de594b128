"""BART (Lewis et al. 2019, arXiv 1910.13461) with adapters and prefixes.

    config = BartConfig.from_json_file("config.json")
    model = BartModel(config, is_training=True, input_ids=ids, input_mask=mask,
                      decoder_input_ids=[start] + target without its last token)
    logits = model.logits()

The layers are post-LN, as BERT's: a half of a layer is LN(x + f(x)).
"""

import collections

import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.models import config as config_lib
from adapter_bert.models import encoder_decoder
import modeling

# Position 0 has row 2 of the table of positions.
_POSITION_OFFSET = 2
_EPSILON = 1e-5

PREFIX_POSITIONS = ("after", "unshifted")


class BartConfig(config_lib.ModelConfig):
  """The sizes of a BART, as in Hugging Face's config.json.

  Beside its keys, those of layers that share their weights, as in BertConfig:
  share_parameter_across_layers, layers_per_group, share_adapters.
  """

  MODEL_TYPE = "bart"
  KEYS = collections.OrderedDict([
      ("vocab_size", config_lib.Key(50265, config_lib.SIZE)),
      ("max_position_embeddings", config_lib.Key(1024, config_lib.SIZE)),
      ("d_model", config_lib.Key(1024, config_lib.SIZE)),
      ("encoder_layers", config_lib.Key(12, config_lib.SIZE)),
      ("encoder_attention_heads", config_lib.Key(16, config_lib.SIZE)),
      ("encoder_ffn_dim", config_lib.Key(4096, config_lib.SIZE)),
      ("decoder_layers", config_lib.Key(12, config_lib.SIZE)),
      ("decoder_attention_heads", config_lib.Key(16, config_lib.SIZE)),
      ("decoder_ffn_dim", config_lib.Key(4096, config_lib.SIZE)),
      ("activation_function", config_lib.Key("gelu", config_lib.TEXT)),
      ("dropout", config_lib.Key(0.1, config_lib.RATE)),
      ("attention_dropout", config_lib.Key(0.0, config_lib.RATE)),
      ("activation_dropout", config_lib.Key(0.0, config_lib.RATE)),
      ("init_std", config_lib.Key(0.02, config_lib.POSITIVE)),
      ("scale_embedding", config_lib.Key(False, config_lib.SWITCH)),
      ("bos_token_id", config_lib.Key(0, config_lib.TOKEN)),
      ("pad_token_id", config_lib.Key(1, config_lib.TOKEN)),
      ("eos_token_id", config_lib.Key(2, config_lib.TOKEN)),
      ("decoder_start_token_id", config_lib.Key(2, config_lib.TOKEN)),
  ] + config_lib.SHARING_KEYS)
  BUILT = {
      "is_encoder_decoder": True,
      "tie_word_embeddings": True,
      # The rest are keys of old files, some of which are mBART's or Pegasus'.
      "encoder_layerdrop": 0.0,
      "decoder_layerdrop": 0.0,
      "add_final_layer_norm": False,
      "normalize_before": False,
      "normalize_embedding": True,
      "static_position_embeddings": False,
      "extra_pos_embeddings": _POSITION_OFFSET,
  }

  def validate(self):
    super().validate()
    self.activation_name()
    for stack in ("encoder", "decoder"):
      heads = "%s_attention_heads" % stack
      if self.d_model % getattr(self, heads):
        self.refuse("d_model", "a multiple of %s (%d)" %
                    (heads, getattr(self, heads)))

  def activation_name(self):
    """str: the feed-forward half's, as modeling.get_activation takes it."""
    return self.activation("activation_function")


class BartModel(encoder_decoder.EncoderDecoder):
  """BART; the arguments are EncoderDecoder's, and one more.

  Args:
    prefix_positions: with a prefix in the decoder's self-attention its tokens
      have the positions "after" it, P, P + 1, ..., as PEFT has it, or are
      "unshifted", 0, 1, ..., as AdapterHub has it. In the encoder they are
      unshifted.

  Raises: ValueError also for more positions than the config has.
  """

  NAME = "bart"

  def __init__(self, *args, prefix_positions="unshifted", **kwargs):
    if prefix_positions not in PREFIX_POSITIONS:
      raise ValueError("prefix_positions is %r; it must be %s" %
                       (prefix_positions, " or ".join(PREFIX_POSITIONS)))
    self._prefix_positions = prefix_positions
    super().__init__(*args, **kwargs)

  def logits(self, hidden=None):
    hidden = self.get_sequence_output() if hidden is None else hidden
    shape = modeling.get_shape_list(hidden)
    with tf.variable_scope(self._scope, reuse=tf.AUTO_REUSE):
      bias = tf.get_variable("final_logits_bias", [self._config.vocab_size],
                             tf.float32, tf.zeros_initializer())
    scores = tf.matmul(modeling.reshape_to_matrix(hidden), self.embedding_table,
                       transpose_b=True)
    return tf.reshape(modeling.at_least_float32(scores) +
                      modeling.at_least_float32(bias),
                      shape[:-1] + [self._config.vocab_size])

  def _drop_nothing(self):
    config = self._config
    config.dropout = config.attention_dropout = config.activation_dropout = 0.0

  def _initial_words(self):
    return self._config.init_std

  def _first_position(self, length):
    return length if self._prefix_positions == "after" else 0

  def _stack(self, name):
    config = self._config
    heads = getattr(config, name + "_attention_heads")
    return encoder_decoder.Stack(
        getattr(config, name + "_layers"), heads, config.d_model // heads,
        getattr(config, name + "_ffn_dim"))

  def _attention_options(self):
    return {"attention_probs_dropout_prob": self._config.attention_dropout,
            "initializer_range": self._config.init_std,
            "scale": None, "use_bias": True}

  def _embed(self, ids, positions, shift):
    """Words and positions, normalised."""
    config = self._config
    words = tf.gather(self.embedding_table, ids)
    if config.scale_embedding:
      words *= config.d_model ** 0.5
    with tf.variable_scope("embeddings"):
      table = tf.get_variable(
          "position_embeddings",
          [config.max_position_embeddings + _POSITION_OFFSET, config.d_model],
          tf.float32, modeling.create_initializer(config.init_std))
      with tf.control_dependencies(self._checks(positions, shift)):
        places = tf.gather(table, positions + (_POSITION_OFFSET + shift))
      words += tf.cast(places, words.dtype)
      x = modeling.layer_norm(words, epsilon=_EPSILON, ops=self._ops)
    return self._ops.dropout(x, config.dropout)

  def _checks(self, positions, shift):
    """Operations that fail for a position that the table does not have.

    Not every device's tf.gather does.

    Raises: errors.InputError for a number of positions that is known already.
    """
    most = self._config.max_position_embeddings
    count = positions.shape[0]
    if count is not None and count + shift > most:
      raise errors.InputError(
          "%d positions (%d of the prefix) are more than "
          "max_position_embeddings (%d)" % (count + shift, shift, most))
    return [tf.debugging.assert_less(
        positions + shift, most, message="the sequence is longer than "
        "max_position_embeddings (%d)" % most)]

  def _position_bias(self, positions, key_positions, is_causal):
    return None

  def _before(self, x):
    return x

  def _intermediate(self, x, stack):
    hidden = modeling.dense(
        x, stack.intermediate_size, activation=modeling.get_activation(
            self._config.activation_name()),
        initializer_range=self._config.init_std, ops=self._ops)
    return self._ops.dropout(hidden, self._config.activation_dropout)

  def _behind(self, x, output, adapter):
    """LN(x + adapter(dropout(dense(output))))."""
    with tf.variable_scope("output"):
      product, bias = modeling.product(output, self._config.d_model,
                                       self._config.init_std, ops=self._ops)
      product = self._ops.dropout(product, self._config.dropout, bias)
      return modeling.layer_norm(adapter(product), residual=x, epsilon=_EPSILON,
                                 ops=self._ops)

  def _last(self, x):
    return x
