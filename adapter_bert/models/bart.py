"""BART (Lewis et al. 2019, arXiv 1910.13461) with adapters and prefixes."""

import collections

from adapter_bert.models import config as config_lib

_POSITION_OFFSET = 2


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
