"""Configs as they are published, and what is made of their keys."""

import json
import os

import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import bert_config

SIZES = dict(
    attention_probs_dropout_prob=0.1, hidden_act="gelu", hidden_dropout_prob=0.1,
    hidden_size=8, initializer_range=0.02, intermediate_size=12,
    max_position_embeddings=6, num_attention_heads=2, num_hidden_layers=4,
    type_vocab_size=2, vocab_size=11)
# bert-base-uncased's, as transformers writes it.
HF = dict(SIZES, architectures=["BertForMaskedLM"], gradient_checkpointing=False,
          layer_norm_eps=1e-12, model_type="bert", pad_token_id=0,
          position_embedding_type="absolute", transformers_version="4.6.0",
          use_cache=True, _name_or_path="x", classifier_dropout=None)
# ALBERT base, version 2, as Google publishes it.
ALBERT = dict(SIZES, embedding_size=4, num_hidden_groups=1, inner_group_num=1,
              net_structure_type=0, gap_size=0, num_memory_blocks=0,
              down_scale_factor=1)


def read(tmp_path, values, name="bert_config.json", **arguments):
  path = tmp_path / name
  path.write_text(json.dumps(values), encoding="utf-8")
  return bert_config.read(str(path), **arguments)


def refusal(tmp_path, values):
  with pytest.raises(errors.InputError) as raised:
    read(tmp_path, values)
  assert "\n" not in str(raised.value)
  return str(raised.value)


def test_whose_gelu_it_is(tmp_path, caplog):
  assert read(tmp_path, SIZES).hidden_act == "gelu"
  assert read(tmp_path, HF).hidden_act == "gelu_erf"
  assert read(tmp_path, SIZES, "config.json").hidden_act == "gelu_erf"
  assert read(tmp_path, HF, hidden_act="gelu").hidden_act == "gelu"
  assert read(tmp_path, SIZES, hidden_act="gelu_erf").hidden_act == "gelu_erf"
  assert "no meaning" not in caplog.text
  # What the record of a run keeps has the sizes alone.
  assert read(tmp_path, HF).to_dict() == dict(SIZES, hidden_act="gelu_erf")


@pytest.mark.parametrize("theirs, ours", bert_config.ACTIVATIONS.items())
def test_activations(tmp_path, theirs, ours):
  assert read(tmp_path, dict(HF, hidden_act=theirs)).hidden_act == ours


def test_flags_go_over_the_file(tmp_path):
  config = read(tmp_path, SIZES, share_parameter_across_layers=True,
                layers_per_group=2, share_adapters=None)
  assert config.share_parameter_across_layers and config.share_adapters
  assert config.layers_per_group == 2


@pytest.mark.parametrize("changes, line", [
    ({"model_type": "albert"}, 'model_type is "albert"; only "bert" is'),
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05; only 1e-12 is"),
    ({"is_decoder": True}, "is_decoder is true; only false is"),
    ({"pruned_heads": {"1": [0]}}, "pruned_heads is"),
    ({"directionality": "uni"}, 'directionality is "uni"; only "bidi" is'),
    ({"inner_group_num": 2}, "inner_group_num is 2; only 1 is"),
    ({"hidden_act": "silu"}, 'hidden_act is "silu"; known are gelu, gelu_new'),
    ({"num_attention_heads": 3}, "hidden_size (8) is not a multiple"),
    ({"vocab_size": "many"}, "vocab_size is 'many'"),
])
def test_another_model(tmp_path, changes, line):
  assert line in refusal(tmp_path, dict(HF, **changes))


def test_googles_albert(tmp_path):
  line = refusal(tmp_path, ALBERT)
  assert "num_hidden_groups is 1" in line
  assert "share_parameter_across_layers" in line
  # As many groups as layers share nothing.
  assert read(tmp_path, dict(ALBERT, num_hidden_groups=4)).embedding_size == 4


def test_sizes_are_not_guessed(tmp_path):
  less = dict(HF)
  del less["num_attention_heads"]
  assert "has no num_attention_heads; every size" in refusal(tmp_path, less)


@pytest.mark.parametrize("model", ["albert_zh tiny",
                                   "google BERT uncased_L-8_H-512_A-8",
                                   "google BERT-BASE Chinese"])
def test_published_configs_are_read_without_a_word(tmp_path, caplog, model):
  path = test_util.external("ADAPTER_BERT_GOLDEN",
                            "original_checkpoint_variables.json")
  with open(path, encoding="utf-8") as source:
    config = json.load(source)[model]["config"]
  assert read(tmp_path, config).hidden_size == config["hidden_size"]
  assert not caplog.text


def test_an_unknown_key_is_named(tmp_path, caplog):
  read(tmp_path, dict(SIZES, hiden_size=9, zeta=1))
  assert "these keys have no meaning here: hiden_size, zeta" in caplog.text


def test_pairs_need_two_types(tmp_path):
  config = read(tmp_path, dict(SIZES, type_vocab_size=1))
  with pytest.raises(errors.InputError, match="type_vocab_size is 1, so that"):
    bert_config.check_pairs(config, "FILE")
  bert_config.check_pairs(read(tmp_path, SIZES), "FILE")


def test_files_that_are_none(tmp_path):
  for content, line in (("{", "is not JSON"), ("[]", "must be an object")):
    path = tmp_path / "bert_config.json"
    path.write_text(content)
    with pytest.raises(errors.InputError, match=line):
      bert_config.read(str(path))
  with pytest.raises(errors.InputError, match="cannot be read"):
    bert_config.read(os.path.join(str(tmp_path), "none.json"))


@pytest.mark.parametrize("changes", [
    {"__class__": 1}, {"__dict__": {}}, {"to_dict": "x"}, {"validate": 1},
    {"hidden_size": 10**15}, {"hidden_size": 10**19}, {"vocab_size": 10**12},
    {"num_hidden_layers": 10**9}, {"hidden_act": ["gelu"]}, {"hidden_act": {}},
    {"hidden_act": 7}, {"vocab_size": [1]}, {"num_attention_heads": True},
    {"initializer_range": "0.1"}, {"layers_per_group": {}},
    {"share_adapters": 1}, {"embedding_size": []}, {"ln_type": []}])
def test_a_value_that_cannot_be_is_one_line(changes):
  values = dict(vocab_size=30, hidden_size=16, num_hidden_layers=2,
                num_attention_heads=4, intermediate_size=20)
  bert_config.from_values(values, "here")
  with pytest.raises(errors.InputError) as caught:
    bert_config.from_values(dict(values, **changes), "here")
  assert str(caught.value).startswith("here: ") and "\n" not in str(caught.value)
