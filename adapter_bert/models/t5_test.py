"""T5: its buckets, the golden numbers, prefixes and adapters."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.models import t5


# ---------------------------------------------------------------- the config


def test_config_has_hugging_faces_defaults():
  config = t5.T5Config.from_dict({"vocab_size": 9, "num_layers": 5})
  assert (config.decoder_layers, config.d_kv, config.num_heads) == (5, 64, 8)
  assert (config.relative_attention_num_buckets,
          config.relative_attention_max_distance) == (32, 128)
  assert config.scales_output and not config.has_output_table
  assert not config.is_gated and config.activation_name() == "relu"


@pytest.mark.parametrize("name, gated, activation", [
    ("gated-gelu", True, "gelu"), ("gated-relu", True, "relu"),
    ("gelu", False, "gelu_erf"), ("gelu_new", False, "gelu")])
def test_gated_gelu_is_the_tanh_form(name, gated, activation):
  config = t5.T5Config(feed_forward_proj=name)
  assert (config.is_gated, config.activation_name()) == (gated, activation)


@pytest.mark.parametrize("keys, message", [
    ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj is \"gated"),
    ({"is_encoder_decoder": False}, "is_encoder_decoder is false; it must be"),
    ({"relative_attention_num_buckets": 3}, "must be an even number >= 4"),
    ({"relative_attention_max_distance": 16}, "must be above half of rel"),
])
def test_what_is_not_built_is_refused(keys, message):
  with pytest.raises(errors.InputError, match=message):
    t5.T5Config.from_dict(dict({"vocab_size": 9}, **keys))


# --------------------------------------------------------------- the buckets

# The distances at which the bucket rises, for 32 buckets up to 128.
ENCODER_RISES = list(range(1, 9)) + [12, 16, 23, 32, 46, 64, 91]
DECODER_RISES = list(range(1, 17)) + [19, 21, 24, 27, 31, 35, 40, 46, 52, 59,
                                      67, 77, 87, 99, 113]


@pytest.mark.parametrize("is_causal, rises", [(False, ENCODER_RISES),
                                              (True, DECODER_RISES)])
def test_buckets_rise_where_t5s_do(is_causal, rises):
  with test_util.graph():
    buckets = t5.relative_buckets(tf.constant([300]), tf.range(601), 32, 128,
                                  is_causal)
    with tf.Session() as session:
      found = session.run(buckets)[0]
  before, behind = found[300::-1], found[300:]
  expected = np.searchsorted(rises, np.arange(301), side="right")
  np.testing.assert_array_equal(before, expected)
  np.testing.assert_array_equal(
      behind, 0 * expected if is_causal else expected + 16 * (
          np.arange(301) > 0))
