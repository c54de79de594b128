"""T5 1.0 and 1.1 (Raffel et al. 2020, arXiv 1910.10683), with what is trained.

    config = T5Config.from_json_file("config.json")
    model = T5Model(config, is_training=True, input_ids=ids, input_mask=mask,
                    decoder_input_ids=[start] + target without its last token)
    logits = model.logits()

A half of a layer is x + f(norm(x)), the norm divides by the root mean square
alone, nothing has a bias, and the attention's scores are not scaled. In place
of positions the scores of self-attention get a bias for the distance between
query and key, from one table for all layers of a stack. A prefix of P keys
stands P positions before the first token, so the distances between tokens stay.
"""

import collections
import math

import tensorflow.compat.v1 as tf

from adapter_bert.models import config as config_lib
from adapter_bert.models import encoder_decoder
import modeling


class T5Config(config_lib.ModelConfig):
  """The sizes of a T5, as in Hugging Face's config.json.

  Beside its keys, those of layers that share their weights, as in BertConfig:
  share_parameter_across_layers, layers_per_group, share_adapters.

  T5 1.0 has one table for the words and for the output layer, and scales what
  goes into the latter by d_model ** -0.5; 1.1 has a table more and does not
  scale. A config says which by tie_word_embeddings. Transformers 5 writes it
  true for both, and scale_decoder_outputs for the scale; where that is false
  the output layer may have a table of its own, or not.
  """

  MODEL_TYPE = "t5"
  KEYS = collections.OrderedDict([
      ("vocab_size", config_lib.Key(32128, config_lib.SIZE)),
      ("d_model", config_lib.Key(512, config_lib.SIZE)),
      ("d_kv", config_lib.Key(64, config_lib.SIZE)),
      ("d_ff", config_lib.Key(2048, config_lib.SIZE)),
      ("num_layers", config_lib.Key(6, config_lib.SIZE)),
      ("num_decoder_layers", config_lib.Key(None, config_lib.SIZE_OR_NONE)),
      ("num_heads", config_lib.Key(8, config_lib.SIZE)),
      ("relative_attention_num_buckets", config_lib.Key(32, config_lib.SIZE)),
      ("relative_attention_max_distance", config_lib.Key(128, config_lib.SIZE)),
      ("dropout_rate", config_lib.Key(0.1, config_lib.RATE)),
      ("layer_norm_epsilon", config_lib.Key(1e-6, config_lib.POSITIVE)),
      ("initializer_factor", config_lib.Key(1.0, config_lib.POSITIVE)),
      ("feed_forward_proj", config_lib.Key("relu", config_lib.TEXT)),
      ("tie_word_embeddings", config_lib.Key(True, config_lib.SWITCH)),
      ("scale_decoder_outputs", config_lib.Key(None,
                                               config_lib.SWITCH_OR_NONE)),
      ("pad_token_id", config_lib.Key(0, config_lib.TOKEN)),
      ("eos_token_id", config_lib.Key(1, config_lib.TOKEN)),
      ("decoder_start_token_id", config_lib.Key(0, config_lib.TOKEN)),
  ] + config_lib.SHARING_KEYS)
  BUILT = {"is_encoder_decoder": True}

  def validate(self):
    super().validate()
    buckets = self.relative_attention_num_buckets
    if buckets % 2 or buckets < 4:
      self.refuse("relative_attention_num_buckets", "an even number >= 4")
    if self.relative_attention_max_distance <= buckets // 2:
      self.refuse("relative_attention_max_distance", "above half of "
                  "relative_attention_num_buckets (%d)" % (buckets // 2))
    self.activation_name()

  @property
  def decoder_layers(self):
    """int: the layers of the decoder."""
    return self.num_decoder_layers or self.num_layers

  @property
  def is_gated(self):
    """bool: whether the feed-forward half is act(x wi_0) * (x wi_1)."""
    return self.feed_forward_proj.startswith("gated-")

  def activation_name(self):
    """str: the feed-forward half's, as modeling.get_activation takes it."""
    name = self.feed_forward_proj
    if name == "gated-gelu":
      name = "gated-gelu_new"  # So it has always been read.
    return self.activation("feed_forward_proj", name.replace("gated-", "", 1))

  @property
  def scales_output(self):
    """bool: whether the decoder's output is scaled for the output layer."""
    if self.scale_decoder_outputs is None:
      return self.tie_word_embeddings
    return self.scale_decoder_outputs

  @property
  def has_output_table(self):
    """bool: whether the output layer may differ from the table of words."""
    return not (self.tie_word_embeddings and self.scales_output)


class T5Model(encoder_decoder.EncoderDecoder):
  """T5; the arguments are EncoderDecoder's."""

  NAME = "t5"

  def logits(self, hidden=None):
    config = self._config
    hidden = self.get_sequence_output() if hidden is None else hidden
    shape = modeling.get_shape_list(hidden)
    table = self.embedding_table
    if config.has_output_table:
      with tf.variable_scope(self._scope, reuse=tf.AUTO_REUSE):
        table = tf.get_variable(
            "output_embeddings", [config.vocab_size, config.d_model],
            tf.float32, modeling.create_initializer(config.initializer_factor))
    if config.scales_output:
      hidden *= config.d_model ** -0.5
    scores = tf.matmul(modeling.reshape_to_matrix(hidden), table,
                       transpose_b=True)
    return tf.reshape(modeling.at_least_float32(scores),
                      shape[:-1] + [config.vocab_size])

  def _drop_nothing(self):
    self._config.dropout_rate = 0.0

  def _initial_words(self):
    return self._config.initializer_factor

  def _stack(self, name):
    config = self._config
    layers = config.num_layers if name == "encoder" else config.decoder_layers
    return encoder_decoder.Stack(layers, config.num_heads, config.d_kv,
                                 config.d_ff)

  def _attention_options(self):
    config = self._config
    # Scores that are not scaled stay near 1 if query and key are that small.
    initial = config.d_model ** -0.5 * config.d_kv ** -0.25
    return {"attention_probs_dropout_prob": config.dropout_rate,
            "initializer_range": config.initializer_factor * initial,
            "scale": 1.0, "use_bias": False}

  def _embed(self, ids, positions, shift):
    return self._ops.dropout(tf.gather(self.embedding_table, ids),
                             self._config.dropout_rate)

  def _position_bias(self, positions, key_positions, is_causal):
    config = self._config
    buckets = relative_buckets(
        positions, key_positions, config.relative_attention_num_buckets,
        config.relative_attention_max_distance, is_causal)
    table = tf.get_variable(
        "relative_attention_bias",
        [config.relative_attention_num_buckets, config.num_heads], tf.float32,
        modeling.create_initializer(self._initial(config.d_model)))
    bias = tf.gather(table, buckets)  # [F, T, N]
    return tf.expand_dims(tf.transpose(bias, [2, 0, 1]), 0)

  def _before(self, x):
    return self._norm(x)

  def _intermediate(self, x, stack):
    """act(x wi), or act(x wi_0) * (x wi_1)."""
    config = self._config
    activation = modeling.get_activation(config.activation_name())
    initial = self._initial(config.d_model)
    hidden, _ = modeling.product(x, stack.intermediate_size, initial,
                                 use_bias=False, ops=self._ops)
    if config.is_gated:
      gate, _ = modeling.product(x, stack.intermediate_size, initial, "gate",
                                 use_bias=False, ops=self._ops)
      hidden = self._ops.gated(activation, gate, hidden)
    else:
      hidden = self._ops.activation(activation, hidden)
    return self._ops.dropout(hidden, config.dropout_rate)

  def _behind(self, x, output, adapter):
    """x + adapter(dropout(dense(output)))."""
    width = modeling.get_shape_list(output)[-1]
    with tf.variable_scope("output"):
      product, _ = modeling.product(output, self._config.d_model,
                                    self._initial(width), use_bias=False,
                                    ops=self._ops)
      return x + adapter(self._ops.dropout(product, self._config.dropout_rate))

  def _last(self, x):
    return self._ops.dropout(self._norm(x), self._config.dropout_rate)

  def _norm(self, x):
    return modeling.rms_norm(x, epsilon=self._config.layer_norm_epsilon,
                             ops=self._ops)

  def _initial(self, width):
    """float: the standard deviation of the initial kernel over `width` inputs.
    """
    return self._config.initializer_factor * width ** -0.5


def relative_buckets(query_positions, key_positions, num_buckets, max_distance,
                     is_causal):
  """The bucket of the distance of each key from each query (section 2.1).

  Near distances have a bucket each, further ones share buckets whose width
  grows with the logarithm of the distance. Where the keys behind a query count
  too, they have the upper half of the buckets.

  Args:
    query_positions: int32 [F].
    key_positions: int32 [T].
    num_buckets: int.
    max_distance: int; all distances from there on share one bucket.
    is_causal: bool; every key behind a query is in the bucket of distance 0, as
      no query looks there.

  Returns: int32 [F, T].
  """
  distance = (tf.expand_dims(query_positions, 1) -
              tf.expand_dims(key_positions, 0))  # Above 0: the key is before.
  if not is_causal:
    num_buckets //= 2
  table = tf.constant(_distance_buckets(num_buckets, max_distance), tf.int32)
  if is_causal:
    return tf.gather(table, tf.clip_by_value(distance, 0, max_distance))
  buckets = tf.gather(table, tf.minimum(tf.abs(distance), max_distance))
  return buckets + tf.where_v2(distance < 0, num_buckets, 0)


def _distance_buckets(num_buckets, max_distance):
  """A list of int: the bucket of the distances from 0 to max_distance."""
  exact = num_buckets // 2
  buckets = list(range(exact))
  for distance in range(exact, max_distance + 1):
    part = math.log(distance / exact) / math.log(max_distance / exact)
    buckets.append(min(exact + int(part * (num_buckets - exact)),
                       num_buckets - 1))
  return buckets
