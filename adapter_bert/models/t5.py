"""T5 1.0 and 1.1 (Raffel et al. 2020, arXiv 1910.10683) with adapters and
prefixes."""

import collections
import math

import tensorflow.compat.v1 as tf

from adapter_bert.models import config as config_lib


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
