"""GPT-2 (Radford et al. 2019) with adapters and prefixes."""

import collections

from adapter_bert.models import config as config_lib


class GPT2Config(config_lib.ModelConfig):
  """The sizes of a GPT-2, as in Hugging Face's config.json.

  Beside its keys, those of layers that share their weights, as in BertConfig:
  share_parameter_across_layers, layers_per_group, share_adapters.
  """

  MODEL_TYPE = "gpt2"
  KEYS = collections.OrderedDict([
      ("vocab_size", config_lib.Key(50257, config_lib.SIZE)),
      ("n_positions", config_lib.Key(1024, config_lib.SIZE)),
      ("n_embd", config_lib.Key(768, config_lib.SIZE)),
      ("n_layer", config_lib.Key(12, config_lib.SIZE)),
      ("n_head", config_lib.Key(12, config_lib.SIZE)),
      # null: 4 * n_embd.
      ("n_inner", config_lib.Key(None, config_lib.SIZE_OR_NONE)),
      ("activation_function", config_lib.Key("gelu_new", config_lib.TEXT)),
      ("embd_pdrop", config_lib.Key(0.1, config_lib.RATE)),
      ("attn_pdrop", config_lib.Key(0.1, config_lib.RATE)),
      ("resid_pdrop", config_lib.Key(0.1, config_lib.RATE)),
      ("layer_norm_epsilon", config_lib.Key(1e-5, config_lib.POSITIVE)),
      ("initializer_range", config_lib.Key(0.02, config_lib.POSITIVE)),
      ("bos_token_id", config_lib.Key(50256, config_lib.TOKEN_OR_NONE)),
      ("eos_token_id", config_lib.Key(50256, config_lib.TOKEN_OR_NONE)),
  ] + config_lib.SHARING_KEYS)
  BUILT = {
      "scale_attn_weights": True,
      "scale_attn_by_inverse_layer_idx": False,
      "reorder_and_upcast_attn": False,
      "add_cross_attention": False,
      "tie_word_embeddings": True,
  }

  def validate(self):
    super().validate()
    self.activation_name()
    if self.n_embd % self.n_head:
      self.refuse("n_embd", "a multiple of n_head (%d)" % self.n_head)

  def activation_name(self):
    """str: the feed-forward half's, as modeling.get_activation takes it."""
    return self.activation("activation_function")
