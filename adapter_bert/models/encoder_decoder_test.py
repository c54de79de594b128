"""BART and T5: the golden numbers, prefixes in three places, adapters, cache.

The golden numbers are those of Hugging Face's transformers, peft and adapters
(testdata/sequence_models/README.md).
"""

import collections
import functools
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.checkpoints.foreign import hf_bart
from adapter_bert.checkpoints.foreign import hf_t5
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.generation import search
from adapter_bert.models import bart
from adapter_bert.models import t5
from adapter_bert import names as names_lib
from adapter_bert.ops import compiled
from adapter_bert import tuning
import modeling

NAMES = ("bart", "t5", "t5_v1_1")

# Place of a prefix -> (its name in the golden data, its scope in the model's).
PLACES = collections.OrderedDict([
    ("encoder", ("encoder_prefix", "encoder/prefix")),
    ("self", ("self_prefix", "decoder/prefix")),
    ("cross", ("cross_prefix", "decoder/crossattention/prefix"))])

# What a test needs of a golden model. weights: dict of our name -> array.
Case = collections.namedtuple("Case", ["config", "model", "weights", "arrays",
                                       "facts"])


@functools.lru_cache(maxsize=None)
def case(name, shipped=False):
  """The golden model of that name, as a Case; see test_util.sequence_golden."""
  golden = test_util.sequence_golden(name, shipped)
  config_class, model, names = (
      (bart.BartConfig, bart.BartModel, hf_bart) if name == "bart" else
      (t5.T5Config, t5.T5Model, hf_t5))
  config = config_class.from_json_file(
      os.path.join(golden.checkpoint, "config.json"))
  tensors = safetensors_dir.open_dir(golden.checkpoint)
  tensors = (hf_bart.in_order(tensors) if name == "bart" else
             hf_t5.in_order(tensors, config=config))
  return Case(config, model, tables.apply(names.table(config), tensors),
              golden.arrays, golden.facts)


def close(found, expected, tolerance=1e-4):
  """Asserts that the largest error is that part of the largest value."""
  expected = np.asarray(expected)
  assert found.shape == expected.shape
  error = np.abs(found - expected).max() / np.abs(expected).max()
  assert error <= tolerance


def build(case_, **arguments):
  """The model over the golden inputs; `arguments` replace some."""
  inputs = dict(input_ids="input_ids", input_mask="attention_mask",
                decoder_input_ids="decoder_input_ids")
  arguments = dict({ours: case_.arrays["in/" + theirs]
                    for ours, theirs in inputs.items()},
                   **dict({"adapter_fn": None}, **arguments))
  for key, value in arguments.items():
    if isinstance(value, np.ndarray):
      arguments[key] = tf.constant(value, tf.int32)
  with tf.variable_scope("", reuse=tf.AUTO_REUSE):
    return case_.model(case_.config, False, scope=case_.model.NAME, **arguments)


def load(case_, session, more=None):
  """Gives every variable its value: the golden weights', or that in `more`."""
  values = dict(case_.weights, **(more or {}))
  variables = {v.name[:-2]: v for v in tf.global_variables()}
  assert set(variables) == set(values)
  # In one call: each other one would prune the whole graph again.
  session.run([v.initializer for v in variables.values()],
              {v.initializer.inputs[1]: np.reshape(values[name], v.shape)
               for name, v in variables.items()})


def outputs(model):
  """The tensors that the golden data has, by their keys."""
  return {"logits": model.logits(),
          "encoder_output": model.get_encoder_output(),
          "decoder_hidden_states": tf.stack(model.all_decoder_layers)}


def equals_golden(case_, key, found):
  for name, value in found.items():
    close(value, case_.arrays["%s/%s" % (key, name)])


def compiled_ops():
  return compiled.CompiledOps(seed=1, step=tf.constant(0, tf.int64))


# --------------------------------------------------------- the golden numbers


@pytest.mark.parametrize("name", NAMES)
def test_base_equals_golden(name):
  with test_util.graph(), tf.Session() as session:
    fetches = outputs(build(case(name)))
    load(case(name), session)
    equals_golden(case(name), "base", session.run(fetches))


def golden_prefixes(case_, key):
  """{the variable's name: (its value, its gradient)} of "prefix" or "..._mlp".
  """
  found = {}
  for theirs, ours in PLACES.values():
    for their_part, our_part in (
        ("", "embeddings"), ("/embedding", "embeddings"),
        ("/dense_0/kernel", "dense_0/kernel"),
        ("/dense_0/bias", "dense_0/bias"),
        ("/dense_1/kernel", "dense_1/kernel"),
        ("/dense_1/bias", "dense_1/bias")):
      gradient = case_.arrays.get("%s/grad/%s%s" % (key, theirs, their_part))
      if gradient is not None:
        found["%s/%s/%s" % (case_.model.NAME, ours, our_part)] = (
            case_.arrays["%s/var/%s%s" % (key, theirs, their_part)], gradient)
  return found


@pytest.mark.parametrize("key, ops", [("prefix", None), ("prefix_mlp", None),
                                      ("prefix_mlp", compiled_ops)])
@pytest.mark.parametrize("name", NAMES)
def test_prefixes_and_their_gradients_equal_golden(name, key, ops):
  case_ = case(name)
  expected = golden_prefixes(case_, key)
  assert len(expected) == (3 if key == "prefix" else 15)
  prefix_fn = functools.partial(modeling.prefix_encoder,
                                prefix_length=case_.facts["prefix_length"])
  if key == "prefix_mlp":
    prefix_fn = functools.partial(
        prefix_fn, hidden_size=case_.facts["prefix_hidden_size"],
        embedding_size=case_.config.d_model)
  with test_util.graph(), tf.Session() as session:
    fetches = outputs(build(case_, prefix_fn=prefix_fn, ops=ops and ops()))
    variables = tf.get_collection(modeling.PREFIXES)
    gradients = tf.gradients(
        fetches["logits"] * case_.arrays[key + "/loss_weights"], variables)
    load(case_, session, {n: value for n, (value, _) in expected.items()})
    found, gradients = session.run([fetches, gradients])
  equals_golden(case_, key, found)
  names = test_util.names(variables)
  assert set(names) == set(expected)
  for variable, gradient in zip(names, gradients):
    close(gradient.ravel(), expected[variable][1].ravel(), 1e-3)


def golden_adapters(case_):
  """{the variable's name: its value}."""
  found = {}
  for name, value in case_.arrays.items():
    if not name.startswith("adapters/var/"):
      continue
    module, _, part = name[len("adapters/var/"):].partition(".adapters.a.")
    where = module.replace("model.", "").split(".")
    half = "attention/output" if where[-1] in ("attention_adapters", "0") else (
        "output")
    part = {"adapter_down.0.weight": "weights1",
            "adapter_down.0.bias": "biases1",
            "adapter_up.weight": "weights2", "adapter_up.bias": "biases2"}[part]
    found["%s/%s/layer_%s/%s/adapters/%s" % (
        case_.model.NAME, where[0], where[2], half, part)] = value.T
  return found


@pytest.mark.parametrize("name, ops", [(n, None) for n in NAMES] +
                         [("t5_v1_1", compiled_ops)])
def test_adapters_equal_golden(name, ops):
  case_ = case(name)
  adapter_fn = functools.partial(modeling.feedforward_adapter,
                                 hidden_size=case_.facts["adapter_size"])
  with test_util.graph(), tf.Session() as session:
    fetches = outputs(build(case_, adapter_fn=adapter_fn, ops=ops and ops()))
    expected = golden_adapters(case_)
    assert set(test_util.names(tf.get_collection(modeling.ADAPTERS))) == set(
        expected)
    load(case_, session, expected)
    equals_golden(case_, "adapters", session.run(fetches))


@pytest.mark.parametrize("name", NAMES)
def test_searches_equal_golden(name):
  case_ = case(name)
  facts = case_.facts["generate"]
  searches = {}
  with test_util.graph(), tf.Session() as session:
    for key, prefix_fn in (("generate/", None),
                           ("prefix/generate/", given(case_))):
      start_of = build(
          case_, input_ids=case_.arrays["generate/input_ids"],
          input_mask=case_.arrays["generate/attention_mask"],
          decoder_input_ids=None, prefix_fn=prefix_fn).start
      for kind, beams, penalty in (("greedy", 1, 1.0),
                                   ("beam3_penalty1", 3, 1.0),
                                   ("beam3_penalty2", 3, 2.0)):
        options = search.Options(
            max_new_tokens=facts["max_new_tokens"], num_beams=beams,
            length_penalty=penalty, eos_token_ids=(facts["eos_token_id"],),
            pad_token_id=facts["pad_token_id"])
        searches[key + kind] = search.search(start_of(options.slots), options)
    load(case_, session)
    found = session.run(searches)
  for key, result in found.items():
    expected = case_.arrays[key]
    start = np.full([len(expected), 1], case_.config.decoder_start_token_id)
    ids = np.concatenate([start, result.ids[:, 0]], 1)
    np.testing.assert_array_equal(ids[:, :expected.shape[1]], expected, key)
    assert (ids[:, expected.shape[1]:] == facts["pad_token_id"]).all()
    if key + "_scores" in case_.arrays:
      close(result.scores[:, 0], case_.arrays[key + "_scores"])


# --------------------------------------------------------- what prefixes do


def given(case_, length=None, places=PLACES, tensors=None):
  """A prefix_fn that gives out the golden prefixes, in the order of `places`.

  Args:
    case_: Case.
    length: int, P, of which the golden rows are repeated; None: theirs.
    places: the places that it is called for.
    tensors: {place: float [P, layers, 2, N, H]} in place of the golden ones.
  """
  left = list(places)

  def prefix_fn(layers, heads, head_size):
    place = left.pop(0)
    if tensors is None:
      array = case_.arrays["prefix/var/" + PLACES[place][0]]
      if length is not None:
        array = np.resize(array, (length,) + array.shape[1:])
      tensor = tf.constant(array, tf.float32)
    else:
      tensor = tensors[place]
    assert tensor.shape.as_list()[1:] == [layers, 2, heads, head_size]
    return [tuple(tf.transpose(tensor[:, layer, i], [1, 0, 2]) for i in (0, 1))
            for layer in range(layers)]

  return prefix_fn


def logits_of(case_, variants):
  """{key: logits} of models that differ in arguments, in one graph."""
  with test_util.graph(), tf.Session() as session:
    fetches = {key: build(case_, **arguments).logits()
               for key, arguments in variants.items()}
    load(case_, session)
    return session.run(fetches)


@pytest.mark.parametrize("name", ("bart", "t5"))
def test_another_source_gives_another_output_whatever_the_prefixs_length(name):
  case_ = case(name, shipped=True)
  ids = case_.arrays["in/input_ids"]
  both = np.concatenate([ids, np.where(ids < 40, ids + 7, ids)])
  source = ids.shape[1]
  inputs = dict(
      input_ids=both, input_mask=np.ones_like(both),
      decoder_input_ids=np.tile(case_.arrays["in/decoder_input_ids"], [2, 1]))
  variants = {None: inputs}
  for length in (0, source - 3, source, source + 4):
    variants[length] = dict(
        inputs, prefix_fn=given(case_, length, places=["cross"]),
        prefix_in=["cross"])
  found = logits_of(case_, variants)
  for length, logits in found.items():
    one, other = np.split(logits, 2)
    assert (np.abs(one - other).max(axis=(1, 2)) > 0.1).all(), length
    if length:
      assert np.abs(logits - found[None]).max() > 0.1
  # No key in front: the model without, bit for bit.
  np.testing.assert_array_equal(found[0], found[None])


@pytest.mark.parametrize("name", ("bart", "t5"))
def test_every_position_sees_every_prefix(name):
  """A change of any row of a prefix changes all positions, padding too."""
  case_ = case(name, shipped=True)
  arrays = {place: case_.arrays["prefix/var/" + theirs]
            for place, (theirs, _) in PLACES.items()}
  with test_util.graph(), tf.Session() as session:
    fed = {place: tf.constant(array, tf.float32)
           for place, array in arrays.items()}
    logits = build(case_, prefix_fn=given(case_, tensors=fed)).logits()
    load(case_, session)
    base = session.run(logits)
    for place, array in arrays.items():
      for row in (0, len(array) - 1):
        other = array.copy()
        other[row] += 0.5
        change = np.abs(session.run(logits, {fed[place]: other}) - base)
        assert (change.max(axis=2) > 1e-3).all(), (place, row)
      change = np.abs(session.run(logits, {fed[place]: array[::-1]}) - base)
      if name == "bart" or place == "cross":
        # Keys have no order; T5's have distances where it has positions.
        assert change.max() < 1e-4 * np.abs(base).max(), place
      else:
        assert change.max() > 1e-2, place


@pytest.mark.parametrize("name, arguments", [
    ("bart", dict(prefix_positions="after")), ("t5", {})])
def test_cached_keys_of_tokens_are_a_prefix(name, arguments):
  """Tokens that have run, given as a prefix, are as if they ran before."""
  case_ = case(name, shipped=True)
  ids = case_.arrays["in/decoder_input_ids"][:1]
  ids[:, 0] = case_.config.decoder_start_token_id
  source = case_.arrays["in/input_ids"][:1]
  inputs = dict(input_ids=source, input_mask=np.ones_like(source))
  count = 3
  with test_util.graph(), tf.Session() as session:
    model = build(case_, decoder_input_ids=ids, **inputs)
    start = model.start(slots=count - 1)
    steps, cache = [start.logits], start.cache
    for time in range(count - 1):
      visible = tf.constant([[[1] * (time + 1) + [0] * (count - 2 - time)]])
      logits, cache = start.step(tf.constant(ids[:, time + 1:time + 2]), time,
                                 visible, cache)
      steps.append(logits[:, 0])
    behind = build(
        case_, decoder_input_ids=ids[:, count:], prefix_in=["self"],
        prefix_fn=lambda *_: [(key[0], value[0]) for key, value in cache],
        **dict(inputs, **arguments))
    fetches = model.logits(), tf.stack(steps, 1), behind.logits()
    load(case_, session)
    whole, steps, behind = session.run(fetches)
  close(steps, whole[:, :count], 1e-5)
  close(behind, whole[:, count:], 1e-5)


@pytest.mark.parametrize("name", ("bart", "t5"))
def test_padding_changes_nothing(name):
  case_ = case(name, shipped=True)
  arrays = case_.arrays
  ids, mask = arrays["in/input_ids"], arrays["in/attention_mask"]
  target = arrays["in/decoder_input_ids"]
  target_mask = np.int32(np.arange(target.shape[1]) < [[5], [3], [4]])
  wider = lambda array, value: np.pad(array, [[0, 0], [0, 2]],
                                      constant_values=value)
  padded = dict(input_ids=wider(ids, 5), input_mask=wider(mask, 0),
                decoder_input_ids=wider(target, 6),
                decoder_input_mask=wider(target_mask, 0))
  found = logits_of(case_, {
      "base": dict(prefix_fn=given(case_)),
      "padded": dict(padded, prefix_fn=given(case_)),
      "skipped": dict(padded, prefix_fn=given(case_), skip_padding=True)})
  is_token = target_mask > 0
  for key in ("padded", "skipped"):
    close(found[key][:, :target.shape[1]][is_token], found["base"][is_token],
          1e-5)


# ------------------------------------------------------------------ variables


def tiny(name, **keys):
  """(config, model class) of a model whose encoder and decoder differ."""
  if name == "bart":
    return bart.BartConfig(
        vocab_size=31, d_model=12, max_position_embeddings=40,
        encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=3, encoder_ffn_dim=10, decoder_ffn_dim=14,
        **keys), bart.BartModel
  return t5.T5Config(vocab_size=31, d_model=12, num_layers=2, num_heads=3,
                     num_decoder_layers=3, d_kv=5, d_ff=10, **keys), t5.T5Model


def build_tiny(name, keys=None, **arguments):
  config, model = tiny(name, **(keys or {}))
  ids = tf.constant(np.arange(12).reshape(2, 6), tf.int32)
  return model(config, False, ids, decoder_input_ids=ids[:, 2:], **arguments)


@pytest.mark.parametrize("name", ("bart", "t5"))
def test_prefix_tuning_trains_the_prefixes_and_nothing_else(name):
  head_sizes = {"bart": (2 * 6, 3 * 4), "t5": (3 * 5, 3 * 5)}[name]
  wanted = {"encoder": 2 * 2 * head_sizes[0], "self": 3 * 2 * head_sizes[1],
            "cross": 3 * 2 * head_sizes[1]}
  prefix_fn = functools.partial(modeling.prefix_encoder, prefix_length=7)
  for places in (["encoder", "self", "cross"], ["cross"], ["self"]):
    with test_util.graph():
      model = build_tiny(name, adapter_fn=None, prefix_fn=prefix_fn,
                         prefix_in=places)
      trained = tuning.Tuning("prefix").variables()
      assert sorted(test_util.names(trained)) == sorted(
          "%s/%s/embeddings" % (name, PLACES[place][1]) for place in places)
      assert sum(v.shape.num_elements() for v in trained) == 7 * sum(
          wanted[place] for place in places)
      assert all(names_lib.is_prefix(v) for v in test_util.names(trained))
      gradients = tf.gradients(model.logits(), trained)
      assert None not in gradients


@pytest.mark.parametrize("name", ("bart", "t5"))
def test_adapters_and_norms_are_in_their_collections(name):
  for cross, count in ((False, 2 * 2 + 3 * 2), (True, 2 * 2 + 3 * 3)):
    with test_util.graph():
      build_tiny(name, cross_adapters=cross)
      adapters = tf.get_collection(modeling.ADAPTERS)
      assert len(adapters) == 4 * count
      crossed = [v for v in test_util.names(adapters)
                 if "crossattention/output/adapters" in v]
      assert len(crossed) == (12 if cross else 0)
      norms = [v for v in test_util.names(tf.global_variables())
               if names_lib.is_layer_norm(v)]
      assert sorted(norms) == sorted(
          test_util.names(tf.get_collection(modeling.LAYER_NORM)))
      # Each half has one. BART: 2 more, of the embeddings, and beta with gamma;
      # T5: 2 more, at the ends.
      halves = 2 * 2 + 3 * 3
      assert len(norms) == (2 * (halves + 2) if name == "bart" else halves + 2)


@pytest.mark.parametrize("name", ("bart", "t5"))
def test_the_table_of_words_is_not_copied(name):
  with test_util.graph():
    build_tiny(name).logits()
    assert test_util.words_looked_up_in_the_variable() == []


def test_no_adapter_by_either_name_of_nothing():
  for nothing in ("", None):
    with test_util.graph():
      build_tiny("t5", adapter_fn=nothing)
      assert not tf.get_collection(modeling.ADAPTERS)


@pytest.mark.parametrize("name", ("bart", "t5"))
def test_layers_share_their_weights_as_berts_do(name):

  def scopes(**keys):
    with test_util.graph():
      build_tiny(name, keys, prefix_fn="prefix_encoder")
      found = test_util.names(tf.global_variables())
    layers = sorted(set(v.split("/")[1] + "/" + v.split("/")[2] for v in found
                        if v.split("/")[2].startswith("layer_")))
    return layers, sorted(v for v in found if "/adapters" in v)

  layers, adapters = scopes(share_parameter_across_layers=True)
  assert layers == ["decoder/layer_shared", "encoder/layer_shared"]
  assert len(adapters) == 4 * 4
  layers, adapters = scopes(share_parameter_across_layers=True,
                            layers_per_group=2, share_adapters=False)
  assert layers == ["decoder/layer_0", "decoder/layer_1", "encoder/layer_0"]
  assert len(adapters) == 4 * 2 * 5
  assert "%s/decoder/layer_1/output/adapters_2/weights1" % name in adapters


# --------------------------------------------------------------- arithmetics


def test_compiled_gradients_of_all_variables_are_the_plain_ones():
  """RMS norm, gated activation and position bias, each with its gradient."""
  case_ = case("t5_v1_1", shipped=True)
  with test_util.graph(), tf.Session() as session:
    found = []
    for ops in (None, compiled_ops()):
      logits = build(case_, ops=ops).logits()
      gradients = tf.gradients(logits * case_.arrays["prefix/loss_weights"],
                               tf.trainable_variables())
      found.append([tf.convert_to_tensor(gradient) for gradient in gradients])
    names = test_util.names(tf.trainable_variables())
    load(case_, session)
    plain, other = session.run(found)
  for name, expected, gradient in zip(names, plain, other):
    assert np.abs(expected).max() > 0, name
    close(gradient, expected, 1e-3)


@pytest.mark.parametrize("name", ("bart", "t5_v1_1"))
def test_bfloat16_computes_about_the_same(name):
  case_ = case(name, shipped=True)
  with test_util.graph(), tf.Session() as session:
    ops = compiled_ops()
    trained = tuning.Tuning("adapters+prefixes")
    getter = trained.variable_getter(tf.bfloat16, ops)
    with tf.variable_scope("", custom_getter=getter):
      model = build(case_, prefix_fn=given(case_), ops=ops)
    assert model.encoder_output.dtype == tf.bfloat16
    logits = model.logits()
    assert logits.dtype == tf.float32
    start = model.start(4).logits
    load(case_, session)
    found, first = session.run([logits, start])
  # 8 bits: the error is that of the whole, not of the worst of many.
  for array, expected in ((found, case_.arrays["prefix/logits"]),
                          (first, case_.arrays["prefix/logits"][:, 0])):
    error = np.square(array - expected).mean() / np.square(expected).mean()
    assert 1e-6 < error < 0.1**2
