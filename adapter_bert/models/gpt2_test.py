"""GPT-2: its config, and its outputs against the golden numbers."""

import pytest

from adapter_bert.base import errors
from adapter_bert.models import gpt2


@pytest.mark.parametrize("change,message", [
    ({"scale_attn_by_inverse_layer_idx": True},
     "scale_attn_by_inverse_layer_idx is true; it must be false; no other"),
    ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is true"),
    ({"add_cross_attention": True}, "add_cross_attention is true"),
    ({"scale_attn_weights": False}, "scale_attn_weights is false"),
    ({"n_embd": 10}, "n_embd is 10; it must be a multiple of n_head .4."),
    ({"n_layer": 0}, "n_layer is 0; it must be a whole number >= 1"),
    ({"activation_function": "swish"}, "activation_function is \"swish\""),
    ({"model_type": "bert"}, "model_type is 'bert'; this is the config of a "
                             "gpt2"),
])
def test_a_config_that_is_not_built_is_refused(change, message):
  keys = dict(vocab_size=97, n_embd=24, n_head=4)
  gpt2.GPT2Config.from_dict(keys)
  with pytest.raises(errors.InputError, match=message):
    gpt2.GPT2Config.from_dict(dict(keys, **change))
