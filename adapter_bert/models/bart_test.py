"""BART: its config, positions, and two real models on a real task."""

import functools
import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_bart
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.generation import search
from adapter_bert.models import bart
import modeling


def tiny_config(**keys):
  return bart.BartConfig(**dict(
      dict(vocab_size=31, d_model=12, max_position_embeddings=9,
           encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
           decoder_attention_heads=2, encoder_ffn_dim=10, decoder_ffn_dim=10),
      **keys))


def test_config_has_hugging_faces_defaults():
  config = bart.BartConfig.from_dict({"vocab_size": 9})
  assert (config.d_model, config.encoder_layers, config.decoder_layers) == (
      1024, 12, 12)
  assert (config.bos_token_id, config.pad_token_id, config.eos_token_id,
          config.decoder_start_token_id) == (0, 1, 2, 2)
  assert config.activation_name() == "gelu_erf"
  assert not config.scale_embedding


@pytest.mark.parametrize("keys, message", [
    ({"d_model": 10}, "d_model is 10; it must be a multiple of encoder_att"),
    ({"model_type": "mbart"}, "model_type is 'mbart'; this is the config of"),
    ({"add_final_layer_norm": True}, "add_final_layer_norm is true; it mus"),
    ({"normalize_embedding": False}, "normalize_embedding is false; it mus"),
    ({"decoder_layerdrop": 0.1}, "decoder_layerdrop is 0.1; it must be"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is false; it mus"),
    ({"activation_function": "swish"}, "activation_function is \"swish\""),
])
def test_what_is_not_built_is_refused(keys, message):
  with pytest.raises(errors.InputError, match=message):
    bart.BartConfig.from_dict(dict({"vocab_size": 9}, **keys))


def test_a_position_that_the_table_lacks_is_refused():
  ids = lambda length: tf.zeros([2, length], tf.int32)
  with test_util.graph():
    bart.BartModel(tiny_config(), False, ids(9), decoder_input_ids=ids(9))
    for lengths, arguments in (((10, 3), {}), ((3, 10), {}), ((3, 6), dict(
        prefix_fn=functools.partial(modeling.prefix_encoder, prefix_length=4),
        prefix_positions="after"))):
      with pytest.raises(errors.InputError,
                         match="more than max_position_embeddings"):
        bart.BartModel(tiny_config(), False, ids(lengths[0]),
                       decoder_input_ids=ids(lengths[1]), **arguments)
  with test_util.graph():
    fed = tf.placeholder(tf.int32, [2, None])
    model = bart.BartModel(tiny_config(), False, fed)
    with test_util.session() as session:
      session.run(model.encoder_output, {fed: np.ones([2, 9])})
      with pytest.raises(tf.errors.InvalidArgumentError,
                         match="longer than max_position_embeddings .9."):
        session.run(model.encoder_output, {fed: np.ones([2, 10])})


def test_unknown_places_and_positions_are_refused():
  for arguments in (dict(prefix_in=["decoder"]), dict(prefix_positions="no")):
    with test_util.graph(), pytest.raises(ValueError, match="decoder|no"):
      bart.BartModel(tiny_config(), False, tf.zeros([2, 3], tf.int32),
                     **arguments)


def test_scale_embedding_scales_the_words_and_not_the_output_layer():
  ids = np.array([[3, 7, 4]])
  found = {}
  for scale in (False, True):
    with test_util.graph():
      model = bart.BartModel(
          tiny_config(scale_embedding=scale), False, tf.constant(ids),
          decoder_input_ids=tf.constant(ids))
      words, = [v for v in tf.global_variables()
                if "word_embeddings" in v.op.name]
      logits = model.logits(tf.constant([[1.0] * 12, [0.0] * 12]))
      fetches = model.all_decoder_layers[0], logits[0] - logits[1]
      with test_util.session(scale=0.5) as session:
        table = session.run(words)
        if not scale:
          session.run(words.assign(table * 12 ** 0.5))
        found[scale] = session.run(fetches)
  np.testing.assert_allclose(found[True][0], found[False][0], rtol=1e-4,
                             atol=1e-5)
  np.testing.assert_allclose(found[True][1] * 12 ** 0.5, found[False][1],
                             rtol=1e-4, atol=1e-4)


# --------------------------------------------------- from spelling to sound


def characters(path):
  """{character: id} of a tokenizer.json of single characters."""
  with open(path, encoding="utf-8") as reader:
    return json.load(reader)["model"]["vocab"]


def words_right(model, task):
  """How many words of a task's dev.tsv a model pronounces as it says.

  Args:
    model: str, "us_bart" or "gb_bart".
    task: str, "us" or "gb".
  """
  directory = test_util.external("G2P_BART_DIR", model)
  config = bart.BartConfig.from_json_file(
      os.path.join(directory, "config.json"))
  source_ids = characters(os.path.join(directory, "source_tokenizer.json"))
  sounds = {i: c for c, i in characters(
      os.path.join(directory, "target_tokenizer.json")).items()}
  with open(test_util.external("G2P_BART_DIR", task, "dev.tsv"),
            encoding="utf-8") as reader:
    rows = [line.rstrip("\n").split("\t") for line in reader][1:]
  sources = [[1] + [source_ids[c] for c in word] + [2] for word, _ in rows]
  ids = np.zeros([len(rows), max(map(len, sources))], np.int32)
  for row, source in zip(ids, sources):
    row[:len(source)] = source
  options = search.Options(max_new_tokens=62, eos_token_ids=(2,),
                           pad_token_id=0)
  with test_util.graph(), tf.Session() as session:
    model = bart.BartModel(config, False, tf.constant(ids),
                           tf.constant(np.int32(ids != 0)), adapter_fn=None)
    found = search.search(model.start(options.slots), options)
    weights = tables.apply(
        hf_bart.table(config),
        hf_bart.in_order(safetensors_dir.open_dir(directory)), (), directory)
    variables = tf.global_variables()
    session.run([v.initializer for v in variables],
                {v.initializer.inputs[1]: weights[v.name[:-2]]
                 for v in variables})
    generated = session.run(found.ids)[:, 0]
  texts = []
  for row in generated.tolist():
    row = row[:row.index(2)] if 2 in row else row
    texts.append("".join(sounds.get(i, "?") for i in row if i > 3))
  return sum(text == target for text, (_, target) in zip(texts, rows))


@pytest.mark.slow
@pytest.mark.parametrize("model, task, expected", [
    ("us_bart", "us", 334), ("gb_bart", "gb", 356), ("us_bart", "gb", 60)])
def test_real_models_get_exactly_as_many_words_right(model, task, expected):
  assert words_right(model, task) == expected
