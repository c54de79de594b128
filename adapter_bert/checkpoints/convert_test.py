"""A Hugging Face BERT becomes a Google checkpoint with the same outputs.

The model converted here is tiny and random; its values are compared one by one
and its outputs with a second forward pass, in numpy, from the Hugging Face
names. With BERT_BASE_DIR and ADAPTER_BERT_HF_DIR (a Google checkpoint and a
Hugging Face directory of the same model) real weights are compared bit by bit;
ADAPTER_BERT_GOLDEN holds the variables of published checkpoints.
"""

import json
import math
import os
import pickle
import shlex
import sys
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import convert as converter
from adapter_bert.checkpoints import weights as weights_lib
import modeling

safetensors_numpy = pytest.importorskip(
    "safetensors.numpy", reason="needs safetensors: pip install safetensors")

LAYERS = 2
HIDDEN = 8
HEADS = 2
INTERMEDIATE = 12
VOCAB = 11

CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 6,
    "model_type": "bert",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": VOCAB,
}

# Under one layer: the Google name, the Hugging Face name, whether a matrix is
# the other way round.
LAYER_NAMES = (
    ("attention/self/query/kernel", "attention.self.query.weight", True),
    ("attention/self/query/bias", "attention.self.query.bias", False),
    ("attention/self/key/kernel", "attention.self.key.weight", True),
    ("attention/self/key/bias", "attention.self.key.bias", False),
    ("attention/self/value/kernel", "attention.self.value.weight", True),
    ("attention/self/value/bias", "attention.self.value.bias", False),
    ("attention/output/dense/kernel", "attention.output.dense.weight", True),
    ("attention/output/dense/bias", "attention.output.dense.bias", False),
    ("attention/output/LayerNorm/gamma", "attention.output.LayerNorm.weight",
     False),
    ("attention/output/LayerNorm/beta", "attention.output.LayerNorm.bias",
     False),
    ("intermediate/dense/kernel", "intermediate.dense.weight", True),
    ("intermediate/dense/bias", "intermediate.dense.bias", False),
    ("output/dense/kernel", "output.dense.weight", True),
    ("output/dense/bias", "output.dense.bias", False),
    ("output/LayerNorm/gamma", "output.LayerNorm.weight", False),
    ("output/LayerNorm/beta", "output.LayerNorm.bias", False),
)
OTHER_NAMES = (
    ("bert/embeddings/word_embeddings", "embeddings.word_embeddings.weight",
     False),
    ("bert/embeddings/position_embeddings",
     "embeddings.position_embeddings.weight", False),
    ("bert/embeddings/token_type_embeddings",
     "embeddings.token_type_embeddings.weight", False),
    ("bert/embeddings/LayerNorm/gamma", "embeddings.LayerNorm.weight", False),
    ("bert/embeddings/LayerNorm/beta", "embeddings.LayerNorm.bias", False),
    ("bert/pooler/dense/kernel", "pooler.dense.weight", True),
    ("bert/pooler/dense/bias", "pooler.dense.bias", False),
)


def all_names():
  """(Google name, Hugging Face name, transposed) of the whole tiny model."""
  names = list(OTHER_NAMES)
  for layer in range(LAYERS):
    names += [("bert/encoder/layer_%d/%s" % (layer, google),
               "encoder.layer.%d.%s" % (layer, hf), transposed)
              for google, hf, transposed in LAYER_NAMES]
  return names


def hf_shape(name):
  """The shape Hugging Face stores: linear weights are [out, in]."""
  special = {
      "embeddings.word_embeddings.weight": (VOCAB, HIDDEN),
      "embeddings.position_embeddings.weight": (6, HIDDEN),
      "embeddings.token_type_embeddings.weight": (2, HIDDEN),
  }
  if name in special:
    return special[name]
  if "intermediate" in name:
    return ((INTERMEDIATE, HIDDEN) if name.endswith("weight") else
            (INTERMEDIATE,))
  if name.endswith(".output.dense.weight") and "attention" not in name:
    return (HIDDEN, INTERMEDIATE)
  if name.endswith("weight") and "LayerNorm" not in name:
    return (HIDDEN, HIDDEN)
  return (HIDDEN,)


def tiny_tensors(seed=0):
  rng = np.random.RandomState(seed)
  return {hf: rng.normal(scale=0.5, size=hf_shape(hf)).astype(np.float32)
          for _, hf, _ in all_names()}


def write_hf_dir(path, tensors=None, **config_changes):
  """A Hugging Face directory; a config value of None takes the key away."""
  path.mkdir(exist_ok=True)
  config = {key: value for key, value in {**CONFIG, **config_changes}.items()
            if value is not None}
  (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + list("abcdefg")
  (path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
  safetensors_numpy.save_file(
      tiny_tensors() if tensors is None else tensors,
      str(path / "model.safetensors"))
  return str(path)


def read_checkpoint(output_dir):
  reader = tf.train.NewCheckpointReader(
      os.path.join(str(output_dir), "bert_model.ckpt"))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def refusal(tmp_path, **arguments):
  """The one line with which converting tmp_path/hf is refused."""
  with pytest.raises(errors.InputError) as raised:
    converter.convert(str(tmp_path / "hf"), str(tmp_path / "out"), **arguments)
  assert os.listdir(str(tmp_path)) == ["hf"], "something was written"
  return str(raised.value)


# Values and names.


def test_every_variable_value_by_value(tmp_path):
  tensors = tiny_tensors()
  converter.convert(write_hf_dir(tmp_path / "hf", tensors),
                    str(tmp_path / "out"))
  variables = read_checkpoint(tmp_path / "out")
  assert sorted(variables) == sorted(google for google, _, _ in all_names())
  for google, hf, transposed in all_names():
    expected = tensors[hf].T if transposed else tensors[hf]
    np.testing.assert_array_equal(variables[google], expected, err_msg=google)
    assert variables[google].dtype == np.float32


def test_output_directory_holds_a_google_checkpoint_and_nothing_else(tmp_path):
  hf_dir = write_hf_dir(tmp_path / "hf")
  converter.convert(hf_dir, str(tmp_path / "new" / "out"))
  out = tmp_path / "new" / "out"
  assert os.listdir(str(out.parent)) == ["out"]
  assert sorted(os.listdir(str(out))) == [
      "bert_config.json", "bert_model.ckpt.data-00000-of-00001",
      "bert_model.ckpt.index", "vocab.txt"]
  assert ((out / "vocab.txt").read_bytes() ==
          (tmp_path / "hf" / "vocab.txt").read_bytes())
  config = json.loads((out / "bert_config.json").read_text(encoding="utf-8"))
  assert config.pop("hidden_act") == "gelu_erf"
  assert config == {key: CONFIG[key] for key in (
      "attention_probs_dropout_prob", "hidden_dropout_prob",
      "hidden_size", "initializer_range", "intermediate_size",
      "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
      "type_vocab_size", "vocab_size")}


def test_pretraining_file_with_prefix_and_old_names(tmp_path):
  # As BertForPreTraining saved it in 2019.
  plain = tiny_tensors()
  old = {}
  for name, value in plain.items():
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    name = name.replace("LayerNorm.bias", "LayerNorm.beta")
    old["bert." + name] = value
  old["bert.embeddings.position_ids"] = np.arange(6, dtype=np.int64)[None]
  old["cls.predictions.bias"] = np.zeros([VOCAB], np.float32)
  old["cls.seq_relationship.weight"] = np.zeros([2, HIDDEN], np.float32)
  converter.convert(write_hf_dir(tmp_path / "old", old), str(tmp_path / "a"))
  converter.convert(write_hf_dir(tmp_path / "new", plain), str(tmp_path / "b"))
  expected = read_checkpoint(tmp_path / "b")
  found = read_checkpoint(tmp_path / "a")
  assert sorted(found) == sorted(expected)
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_widened_exactly(tmp_path, dtype):
  numpy_dtype = tf.as_dtype(dtype).as_numpy_dtype
  tensors = {name: value.astype(numpy_dtype)
             for name, value in tiny_tensors().items()}
  converter.convert(write_hf_dir(tmp_path / "hf", tensors),
                    str(tmp_path / "out"))
  variables = read_checkpoint(tmp_path / "out")
  for google, hf, transposed in all_names():
    expected = tensors[hf].astype(np.float32)
    np.testing.assert_array_equal(
        variables[google], expected.T if transposed else expected, google)
    assert variables[google].dtype == np.float32


@pytest.mark.parametrize("published", ["BERT-BASE Chinese",
                                       "google BERT uncased_L-8_H-512_A-8"])
def test_names_and_shapes_are_those_of_a_published_checkpoint(published):
  golden = os.environ.get("ADAPTER_BERT_GOLDEN")
  if not golden:
    pytest.skip("ADAPTER_BERT_GOLDEN is not set")
  with open(os.path.join(golden, "original_checkpoint_variables.json"),
            encoding="utf-8") as reader:
    entry = next(value for name, value in json.load(reader).items()
                 if published in name)
  expected = {name: tuple(shape) for name, shape in entry["variables"].items()
              if name.startswith("bert/")}
  config = modeling.BertConfig.from_dict(entry["config"])
  assert converter.bert_variables(config) == expected


def test_real_weights_bit_by_bit(tmp_path):
  google_dir = os.environ.get("BERT_BASE_DIR")
  hf_dir = os.environ.get("ADAPTER_BERT_HF_DIR")
  if not google_dir or not hf_dir:
    pytest.skip("BERT_BASE_DIR or ADAPTER_BERT_HF_DIR is not set")
  converter.convert(hf_dir, str(tmp_path / "out"))
  expected = read_checkpoint(google_dir)
  found = read_checkpoint(tmp_path / "out")
  assert sorted(found) == sorted(expected)
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


# Outputs.


def numpy_bert(tensors, input_ids, input_mask, token_types, gelu):
  """BERT from Hugging Face's tensors: (sequence output, pooled output)."""

  def linear(x, name):
    return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]

  def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-12)
    return x * tensors[name + ".weight"] + tensors[name + ".bias"]

  def heads(x):
    return x.reshape(x.shape[0], x.shape[1], HEADS, -1).transpose(0, 2, 1, 3)

  embedding = lambda name: tensors["embeddings.%s_embeddings.weight" % name]
  x = norm(embedding("word")[input_ids] + embedding("token_type")[token_types] +
           embedding("position")[:input_ids.shape[1]], "embeddings.LayerNorm")
  for layer in range(LAYERS):
    scope = "encoder.layer.%d." % layer
    query, key, value = (heads(linear(x, scope + "attention.self." + name))
                         for name in ("query", "key", "value"))
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(HIDDEN / HEADS)
    scores += (1.0 - input_mask[:, None, None, :]) * -10000.0
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    context = (weights @ value).transpose(0, 2, 1, 3).reshape(x.shape)
    x = norm(x + linear(context, scope + "attention.output.dense"),
             scope + "attention.output.LayerNorm")
    inner = gelu(linear(x, scope + "intermediate.dense"))
    x = norm(x + linear(inner, scope + "output.dense"),
             scope + "output.LayerNorm")
  return x, np.tanh(linear(x[:, 0], "pooler.dense"))


def exact_gelu(x):
  return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def tanh_gelu(x):
  return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) *
                                  (x + 0.044715 * x ** 3)))


def run_converted(output_dir, input_ids, input_mask, token_types):
  """(sequence output, pooled output) of modeling.BertModel on a checkpoint."""
  with tf.Graph().as_default():
    config = modeling.BertConfig.from_json_file(
        os.path.join(output_dir, "bert_config.json"))
    model = modeling.BertModel(
        config, is_training=False, input_ids=tf.constant(input_ids),
        input_mask=tf.constant(input_mask),
        token_type_ids=tf.constant(token_types), adapter_fn=None)
    with tf.Session() as session:
      tf.train.Saver(tf.trainable_variables()).restore(
          session, os.path.join(output_dir, "bert_model.ckpt"))
      return session.run([model.get_sequence_output(),
                          model.get_pooled_output()])


@pytest.mark.parametrize("hidden_act, gelu, other_gelu", [
    (None, exact_gelu, tanh_gelu), ("gelu", tanh_gelu, exact_gelu)])
def test_the_converted_model_gives_the_same_outputs(tmp_path, hidden_act, gelu,
                                                    other_gelu):
  tensors = tiny_tensors(seed=3)
  out = str(tmp_path / "out")
  converter.convert(write_hf_dir(tmp_path / "hf", tensors), out, hidden_act)
  inputs = (np.array([[2, 5, 7, 3, 8, 3], [2, 9, 4, 3, 0, 0]], np.int32),
            np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]], np.int32),
            np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]], np.int32))
  found = run_converted(out, *inputs)
  double = {name: value.astype(np.float64) for name, value in tensors.items()}
  expected = numpy_bert(double, *inputs, gelu=gelu)
  other = numpy_bert(double, *inputs, gelu=other_gelu)
  for index in range(2):
    np.testing.assert_allclose(found[index], expected[index], atol=5e-6)
    # The two forms are far enough apart for the line above to tell them apart.
    assert np.abs(expected[index] - other[index]).max() > 2e-5


# Refusals: one line each, nothing written.


@pytest.mark.parametrize("changes, line", [
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05; only 1e-12 is"),
    ({"position_embedding_type": "relative_key"},
     'position_embedding_type is "relative_key"; only "absolute" is'),
    ({"model_type": "roberta"}, "holds a model of the kind roberta, and this"),
    ({"is_decoder": True}, "is_decoder is true; only false is"),
    ({"num_attention_heads": None}, "has no num_attention_heads; every size"),
    ({"num_attention_heads": 3}, "config.json: "),
    ({"hidden_act": "silu"},
     'hidden_act is "silu"; known are gelu, gelu_new, gelu_pytorch_tanh, relu, '
     "tanh"),
    ({"vocab_size": 10}, "vocab.txt has 11 words, but config.json's vocab_size "
     "is 10"),
    ({"intermediate_size": 16},
     "bert/encoder/layer_0/intermediate/dense/bias has shape [12] here; with the "
     "sizes in the config it is [16]"),
    ({"num_hidden_layers": 3},
     "lacks encoder.layer.2.attention.output.LayerNorm.bias, encoder.layer.2."
     "attention.output.LayerNorm.weight, encoder.layer.2.attention.output."
     "dense.bias and 13 more, which the config's model has"),
    ({"num_hidden_layers": 1},
     "holds encoder.layer.1.attention.output.LayerNorm.bias, "),
])
def test_a_config_of_another_model_is_refused(tmp_path, changes, line):
  write_hf_dir(tmp_path / "hf", **changes)
  assert line in refusal(tmp_path)


def test_absent_config_keys_mean_what_they_mean_to_hugging_face(tmp_path):
  hf_dir = write_hf_dir(tmp_path / "hf", layer_norm_eps=None, model_type=None,
                        position_embedding_type=None)
  converter.convert(hf_dir, str(tmp_path / "out"))


def _without(*names):
  return {name: value for name, value in tiny_tensors().items()
          if name not in names}


def _with(name, value):
  return {**tiny_tensors(), name: value}


@pytest.mark.parametrize("tensors, line", [
    (_without("encoder.layer.1.output.dense.bias"),
     "lacks encoder.layer.1.output.dense.bias, which the config's model has"),
    (_without("pooler.dense.weight", "pooler.dense.bias"),
     "has no pooler, and a Google checkpoint has one"),
    (_with("qa.weight", np.zeros([2, HIDDEN], np.float32)),
     "holds qa.weight, for which the config's model has no variable"),
    (_with("bert.pooler.dense.bias", np.zeros([HIDDEN], np.float32)),
     "two names of one tensor"),
    (_with("embeddings.LayerNorm.gamma", np.zeros([HIDDEN], np.float32)),
     "two names of one tensor"),
    (_with("pooler.dense.bias", np.zeros([HIDDEN], np.float64)),
     "pooler.dense.bias is stored as F64; only F32, F16, BF16 are read"),
    (_with("pooler.dense.bias", np.full([HIDDEN], np.nan, np.float32)),
     "pooler.dense.bias holds values that are not finite"),
    # Only the way round tells a kernel of the right size from a wrong one.
    (_with("encoder.layer.0.intermediate.dense.weight",
           np.zeros([HIDDEN, INTERMEDIATE], np.float32)),
     "bert/encoder/layer_0/intermediate/dense/kernel has shape [12, 8] here; "
     "with the sizes in the config it is [8, 12]"),
])
def test_tensors_that_do_not_fit_are_refused(tmp_path, tensors, line):
  write_hf_dir(tmp_path / "hf", tensors)
  assert line in refusal(tmp_path)


class _Bomb(object):
  """Unpickling one makes the file that it names."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (self.path, "w"))


def test_a_pickle_is_never_opened(tmp_path):
  write_hf_dir(tmp_path / "hf")
  os.remove(str(tmp_path / "hf" / "model.safetensors"))
  with open(str(tmp_path / "hf" / "pytorch_model.bin"), "wb") as writer:
    pickle.dump(_Bomb(str(tmp_path / "unpickled")), writer)
  line = refusal(tmp_path)
  assert "only pytorch_model.bin, a pickle, which is never unpickled" in line
  assert "weights_only=True" in line and "save_file" in line
  assert not (tmp_path / "unpickled").exists()


class _Tensor(object):
  """A PyTorch tensor, as far as the advice below uses one."""

  def __init__(self, array):
    self._array = array

  def clone(self):
    return self

  def contiguous(self):
    return self._array


def test_the_advice_for_a_pickle_leads_to_the_trained_pooler(
    tmp_path, monkeypatch, caplog):
  """PyTorch is not installed here, and its part is played; the command, its
  quotes and paths, and what comes out are real."""
  hf_dir = tmp_path / "it's a $model"
  write_hf_dir(hf_dir)
  os.rename(str(hf_dir / "model.safetensors"), str(hf_dir / "pytorch_model.bin"))
  with pytest.raises(errors.InputError) as raised:
    converter.convert(str(hf_dir), str(tmp_path / "out"))
  advice = str(raised.value).partition("write one with PyTorch: ")[2]
  python, dash_c, code, *arguments = shlex.split(advice)
  assert [python, dash_c] == ["python", "-c"]

  def load(path, map_location, weights_only):
    assert weights_only and map_location == "cpu"
    return {name: _Tensor(array)
            for name, array in safetensors_numpy.load_file(path).items()}

  torch, to_safetensors = types.ModuleType("torch"), types.ModuleType("torch")
  torch.load, to_safetensors.save_file = load, safetensors_numpy.save_file
  monkeypatch.setitem(sys.modules, "torch", torch)
  monkeypatch.setitem(sys.modules, "safetensors.torch", to_safetensors)
  monkeypatch.setattr(sys, "argv", ["-c"] + arguments)
  exec(code, {})  # pylint: disable=exec-used
  converter.convert(str(hf_dir), str(tmp_path / "out"))
  np.testing.assert_array_equal(
      read_checkpoint(tmp_path / "out")["bert/pooler/dense/bias"],
      tiny_tensors()["pooler.dense.bias"])
  assert (tmp_path / "out" / "vocab.txt").exists()
  assert "never trained" not in caplog.text


def test_an_untrained_pooler_is_converted_with_a_warning(tmp_path, caplog):
  write_hf_dir(tmp_path / "hf", _with("pooler.dense.bias",
                                      np.zeros([HIDDEN], np.float32)))
  converter.convert(str(tmp_path / "hf"), str(tmp_path / "out"))
  assert "never trained" in caplog.text and "--fresh_pooler" in caplog.text


@pytest.mark.parametrize("missing", ["config.json", "vocab.txt",
                                     "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, missing):
  write_hf_dir(tmp_path / "hf")
  os.remove(str(tmp_path / "hf" / missing))
  line = refusal(tmp_path)
  assert {"config.json": "holds no config",
          "vocab.txt": "has no vocabulary (vocab.txt or tokenizer.json)",
          "model.safetensors": "model.safetensors is not there"}[missing] in line


def test_damaged_files_are_refused(tmp_path):
  write_hf_dir(tmp_path / "hf")
  weights = tmp_path / "hf" / "model.safetensors"
  weights.write_bytes(weights.read_bytes()[:-100])
  assert "is not a whole safetensors file" in refusal(tmp_path)
  (tmp_path / "hf" / "config.json").write_text("{")
  assert "config.json: is not JSON" in refusal(tmp_path)
  (tmp_path / "hf" / "config.json").write_text("[]")
  assert "config.json: holds []; it must be an object" in refusal(tmp_path)


def test_without_the_package_the_line_says_what_to_install(tmp_path,
                                                           monkeypatch):
  write_hf_dir(tmp_path / "hf")
  monkeypatch.setitem(sys.modules, "safetensors", None)
  assert "pip install safetensors" in refusal(tmp_path)


# What is already in the output directory.


def test_an_identical_conversion_is_left_alone_another_needs_overwrite(
    tmp_path):
  hf_dir = write_hf_dir(tmp_path / "hf")
  out = tmp_path / "out"
  converter.convert(hf_dir, str(out))
  index = out / "bert_model.ckpt.index"
  before = os.stat(str(index)).st_mtime_ns
  converter.convert(hf_dir, str(out))
  assert os.stat(str(index)).st_mtime_ns == before

  write_hf_dir(tmp_path / "hf", tiny_tensors(seed=1))
  with pytest.raises(errors.InputError, match="replace it with --overwrite"):
    converter.convert(hf_dir, str(out))
  assert os.stat(str(index)).st_mtime_ns == before
  converter.convert(hf_dir, str(out), overwrite=True)
  np.testing.assert_array_equal(
      read_checkpoint(out)["bert/pooler/dense/bias"],
      tiny_tensors(seed=1)["pooler.dense.bias"])
  assert sorted(os.listdir(str(tmp_path))) == ["hf", "out"]


def test_the_digest_is_that_of_the_conversion(tmp_path):
  directory = os.path.join(test_util.TESTDATA, "hf_bert")
  converter.convert(directory, str(tmp_path / "google"))
  weights = weights_lib.Weights.open(directory)
  converted = weights_lib.Weights.open(str(tmp_path / "google"))
  assert weights.digest() == converted.digest()
  assert weights.shapes == converted.shapes
  # With the head, too: it is not part of what was pre-trained.
  with_head = weights_lib.Weights.open(directory, head_rows=[1, 0])
  assert with_head.digest() == weights.digest()
  assert set(with_head.shapes) - set(weights.shapes) == {"output_weights",
                                                         "output_bias"}
  assert sorted(os.listdir(str(tmp_path / "google"))) == [
      "bert_config.json", "bert_model.ckpt.data-00000-of-00001",
      "bert_model.ckpt.index", "tokenizer_config.json", "vocab.txt"]


def test_other_files_in_the_output_directory_are_never_touched(tmp_path):
  hf_dir = write_hf_dir(tmp_path / "hf")
  out = tmp_path / "out"
  out.mkdir()
  (out / "thesis.txt").write_text("irreplaceable")
  with pytest.raises(errors.InputError, match="other files .thesis.txt."):
    converter.convert(hf_dir, str(out), overwrite=True)
  assert os.listdir(str(out)) == ["thesis.txt"]
  with pytest.raises(errors.InputError, match="is a file"):
    converter.convert(hf_dir, str(out / "thesis.txt"))
