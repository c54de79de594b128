"""GPT-2: its config, and its outputs against the golden numbers."""

import functools
import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_gpt2
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.generation import search
from adapter_bert.models import gpt2
from adapter_bert.ops.compiled import CompiledOps
import modeling


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


class Model(object):
  """A golden model with its weights in a session of its own.

  Args:
    golden: test_util.Golden.
    case: "base", "prefix", "prefix_mlp" or "adapters".
    compiled: bool.
    **arguments: of GPT2Model.

  Attributes: model; ids, mask: placeholders; variables: name -> variable.
  """

  def __init__(self, golden, case, compiled=False, **arguments):
    self.arrays = golden.arrays
    self._searches = {}  # each built once
    self.config = gpt2.GPT2Config.from_json_file(
        os.path.join(golden.checkpoint, "config.json"))
    self.graph = tf.Graph()
    with self.graph.as_default():
      tf.get_variable_scope().set_use_resource(True)
      ops = (CompiledOps(0, tf.constant(0, tf.int64)) if compiled else None)
      self.ids, self.mask = (tf.placeholder(tf.int32, [None, None]),
                             tf.placeholder(tf.int32, [None, None]))
      hooks = dict(adapter_fn=None, prefix_positions="unshifted")
      if case.startswith("prefix"):
        hooks["prefix_fn"] = functools.partial(
            modeling.prefix_encoder,
            prefix_length=golden.facts["prefix_length"],
            hidden_size=(golden.facts["prefix_hidden_size"]
                         if case == "prefix_mlp" else None), ops=ops)
      if case == "adapters":
        hooks["adapter_fn"] = functools.partial(
            modeling.feedforward_adapter,
            hidden_size=golden.facts["adapter_size"], ops=ops)
      self.model = gpt2.GPT2Model(self.config, False, self.ids, self.mask,
                                  ops=ops, **dict(hooks, **arguments))
      self.variables = {v.op.name: v for v in tf.global_variables()}
    self.session = tf.Session(graph=self.graph)
    values = self._values(golden, case)
    with self.graph.as_default():
      for name, variable in self.variables.items():
        variable.load(values[name].reshape(variable.shape.as_list()),
                      self.session)

  def _values(self, golden, case):
    tensors = dict(safetensors_dir.open_dir(golden.checkpoint).items())
    values = dict(tables.apply(hf_gpt2.table(self.config),
                               hf_gpt2.in_order(tensors), hf_gpt2.IGNORED))
    of_case = lambda key: golden.arrays["%s/var/%s" % (case, key)]
    if case == "prefix":
      values["gpt2/prefix/embeddings"] = of_case("self_prefix")
    if case == "prefix_mlp":
      values["gpt2/prefix/embeddings"] = of_case("self_prefix/embedding")
      for name in ("dense_0/kernel", "dense_0/bias", "dense_1/kernel",
                   "dense_1/bias"):
        values["gpt2/prefix/" + name] = of_case("self_prefix/" + name)
    if case == "adapters":
      for layer in range(self.config.n_layer):
        for theirs, ours in (("attention", "attention/output"),
                             ("output", "output")):
          for their_part, our_part, number in (("adapter_down.0", "1", 0),
                                               ("adapter_up", "2", 1)):
            module = "transformer.h.%d.%s_adapters.adapters.a.%s." % (
                layer, theirs, their_part)
            name = "gpt2/decoder/layer_%d/%s/adapters/" % (layer, ours)
            values[name + "weights" + our_part] = of_case(module + "weight").T
            values[name + "biases" + our_part] = of_case(module + "bias")
    return values

  def run(self, fetches, ids=None, mask=None):
    """What the fetches are for a batch; default: the golden one."""
    ids = self.arrays["in/input_ids"] if ids is None else ids
    mask = self.arrays["in/attention_mask"] if mask is None else mask
    return self.session.run(fetches, {self.ids: ids, self.mask: mask})

  def search(self, ids, mask, **options):
    """search.Found, from the config's end, which is padding too."""
    end = self.config.eos_token_id
    options = search.Options(**dict(dict(
        max_new_tokens=12, eos_token_ids=(end,), pad_token_id=end), **options))
    if options not in self._searches:
      options.validate(self.config.vocab_size)
      with self.graph.as_default():
        self._searches[options] = search.search(
            self.model.start(options.slots), options)
    return search.Found(*self.run(list(self._searches[options]), ids, mask))


@pytest.fixture(name="models", scope="module")
def fixture_models():
  """(case, compiled) -> Model, each built once."""
  golden = test_util.sequence_golden("gpt2")
  return functools.lru_cache(None)(
      lambda case, compiled=False: Model(golden, case, compiled))


def assert_close(found, expected, tolerance):
  """Compares as spec/sequence_models.md says: by the largest value."""
  error = np.abs(found - expected).max() / np.abs(expected).max()
  assert error < tolerance


@pytest.mark.parametrize("case,compiled", [
    ("base", False), ("prefix", False), ("prefix_mlp", False),
    ("prefix_mlp", True), ("adapters", False), ("adapters", True)])
def test_golden_outputs(models, case, compiled):
  model = models(case, compiled)
  with model.graph.as_default():
    fetches = [model.model.logits(), tf.stack(model.model.all_layers)]
  logits, layers = model.run(fetches)
  assert_close(logits, model.arrays[case + "/logits"], 1e-4)
  assert_close(layers, model.arrays[case + "/hidden_states"], 1e-4)


@pytest.mark.parametrize("case,compiled", [
    ("prefix", False), ("prefix_mlp", False), ("prefix_mlp", True)])
def test_golden_gradients(models, case, compiled):
  model = models(case, compiled)
  trained = {name[len("gpt2/prefix/"):]: v for name, v in
             model.variables.items() if name.startswith("gpt2/prefix/")}
  assert len(trained) == {"prefix": 1, "prefix_mlp": 5}[case]
  with model.graph.as_default():
    loss = tf.reduce_sum(model.model.logits() *
                         model.arrays[case + "/loss_weights"])
    gradients = dict(zip(trained, tf.gradients(loss, list(trained.values()))))
  for name, found in model.run(gradients).items():
    key = case + "/grad/self_prefix"
    if case == "prefix_mlp":
      key += "/" + name.replace("embeddings", "embedding")
    expected = model.arrays[key]
    assert_close(found.reshape(expected.shape), expected, 1e-3)


@pytest.mark.parametrize("case,key", [("base", "generate/"),
                                      ("prefix", "prefix/generate/")])
@pytest.mark.parametrize("name,options", [
    ("greedy", dict()),
    ("beam3_penalty1", dict(num_beams=3)),
    ("beam3_penalty2", dict(num_beams=3, length_penalty=2.0))])
def test_golden_generation(models, case, key, name, options):
  model = models(case)
  arrays = model.arrays
  ids, mask = arrays["generate/input_ids"], arrays["generate/attention_mask"]
  expected = arrays[key + name][:, ids.shape[1]:]
  found = model.search(ids, mask, **options)
  width = expected.shape[1]
  np.testing.assert_array_equal(found.ids[:, 0, :width], expected)
  assert (found.ids[:, 0, width:] == model.config.eos_token_id).all()
  if options:
    assert_close(found.scores[:, 0], arrays[key + name + "_scores"], 1e-4)


@pytest.mark.parametrize("places", [
    # All options at once; each search takes seconds to build.
    slice(5, 6), pytest.param(slice(None), marks=pytest.mark.slow)])
def test_searches_of_transformers(models, places):
  """What transformers found on the model in testdata with further options."""
  if os.environ.get("ADAPTER_BERT_SEQUENCE_GOLDEN"):
    pytest.skip("the searches are of the model in testdata")
  with open(os.path.join(test_util.TESTDATA, "gpt2_searches.json"),
            encoding="utf-8") as reader:
    cases = json.load(reader)["cases"][places]
  model = models("base")
  ids = model.arrays["generate/input_ids"]
  mask = model.arrays["generate/attention_mask"]
  for case in cases:
    found = model.search(ids, mask, **case["options"])
    for row, expected in enumerate(case["rows"]):
      for place, tokens in enumerate(expected["ids"]):
        length = found.lengths[row, place]
        assert found.ids[row, place, :length].tolist() == tokens, case
      if "scores" in expected:
        np.testing.assert_allclose(found.scores[row], expected["scores"],
                                   rtol=1e-4, err_msg=str(case))


@pytest.mark.parametrize("case", ["base", "prefix"])
def test_the_cache_changes_nothing(models, case):
  """Each step's choice is that of the model run anew over all tokens."""
  model = models(case)
  with model.graph.as_default():
    last = model.model.logits(model.model.get_sequence_output()[:, -1])
  ids = model.arrays["generate/input_ids"]
  mask = model.arrays["generate/attention_mask"]
  found = model.search(ids, mask, eos_token_ids=())
  for token in found.ids[:, 0].T:
    np.testing.assert_array_equal(np.argmax(model.run(last, ids, mask), -1),
                                  token)
    ids = np.concatenate([ids, token[:, None]], 1)
    mask = np.concatenate([mask, np.ones_like(token)[:, None]], 1)


def test_a_row_alone_generates_what_it_does_in_a_batch(models):
  model, options = models("prefix"), dict(num_beams=3)
  ids = model.arrays["generate/input_ids"]
  mask = model.arrays["generate/attention_mask"]
  together = model.search(ids, mask, **options)
  for row in range(len(ids)):
    alone = ids[row:row + 1, mask[row] == 1]
    found = model.search(alone, np.ones_like(alone), **options)
    np.testing.assert_array_equal(found.ids[0], together.ids[row])
    np.testing.assert_allclose(found.scores[0], together.scores[row], rtol=1e-4)


@pytest.mark.parametrize("front,behind", [(3, 0), (0, 2), (2, 1)])
def test_padding_on_either_side_changes_nothing(models, front, behind):
  model = models("prefix")
  with model.graph.as_default():
    logits = model.model.logits()
  ids = model.arrays["in/input_ids"][:1]
  plain = model.run(logits, ids, np.ones_like(ids))
  sides = ((0, 0), (front, behind))
  padded = model.run(logits, np.pad(ids, sides, constant_values=5),
                     np.pad(np.ones_like(ids), sides))
  assert np.isfinite(padded).all()
  np.testing.assert_allclose(padded[:, front:front + ids.shape[1]], plain,
                             rtol=1e-4, atol=1e-4)


def test_skipping_padding_changes_nothing_for_tokens(models):
  model = models("adapters")
  with model.graph.as_default():
    expected = model.model.logits()
  skipping = Model(test_util.sequence_golden("gpt2"), "adapters",
                   skip_padding=True)
  with skipping.graph.as_default():
    logits = skipping.model.logits()
  is_token = model.arrays["in/attention_mask"] == 1
  np.testing.assert_allclose(skipping.run(logits)[is_token],
                             model.run(expected)[is_token], rtol=1e-4,
                             atol=1e-4)


def tiny(ids=((1, 2, 3, 4),), **changes):
  """(config, ids) of a GPT-2 that is built in a moment."""
  keys = dict(vocab_size=11, n_positions=9, n_embd=8, n_layer=3, n_head=2,
              eos_token_id=10)
  return gpt2.GPT2Config.from_dict(dict(keys, **changes)), tf.constant(ids)


def test_cached_tokens_are_a_prefix():
  """The keys and values of P tokens as a prefix are running them first."""
  with test_util.graph():
    config, ids = tiny()
    with tf.variable_scope("all", reuse=tf.AUTO_REUSE):
      whole = gpt2.GPT2Model(config, False, ids, adapter_fn=None, scope="gpt2")
      first = gpt2.GPT2Model(config, False, ids[:, :3], adapter_fn=None,
                             scope="gpt2")
      # Of the one row.
      prefix = [(cache[0][0, :, :3], cache[1][0, :, :3])
                for cache in first.start(1).cache]
      rest = gpt2.GPT2Model(config, False, ids[:, 3:], adapter_fn=None,
                            scope="gpt2", prefix_fn=lambda *_: prefix)
    with test_util.session(scale=0.3) as session:
      expected, found = session.run([whole.logits()[:, 3:], rest.logits()])
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_without_a_prefix_has_a_cache_too():
  def prefix_fn(layers, heads, size):
    prefixes = modeling.prefix_encoder(layers, heads, size, prefix_length=2)
    return [prefixes[0], None, prefixes[2]]

  with test_util.graph():
    config, ids = tiny()
    with tf.variable_scope("all", reuse=tf.AUTO_REUSE):
      build = functools.partial(gpt2.GPT2Model, config, False, scope="gpt2",
                                adapter_fn=None, prefix_fn=prefix_fn)
      start = build(ids[:, :2]).start(2)
      logits, cache = start.step(ids[:, 2:3], tf.constant(0),
                                 tf.constant([[[1, 0]]]), start.cache)
      again, _ = start.step(ids[:, 3:], tf.constant(1),
                            tf.constant([[[1, 1]]]), cache)
      whole = build(ids).logits()
    with test_util.session(scale=0.3) as session:
      expected, *found = session.run([whole, start.logits, logits[:, 0],
                                      again[:, 0]])
  for row, position in zip(found, (1, 2, 3)):
    np.testing.assert_allclose(row, expected[:, position], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group,share_adapters,scopes,adapters", [
    (None, True, ["layer_shared"], ["adapters"]),
    (None, False, ["layer_shared"], ["adapters_0", "adapters_1", "adapters_2"]),
    (2, True, ["layer_0", "layer_1"], ["adapters"])])
def test_layers_that_share(group, share_adapters, scopes, adapters):
  with test_util.graph():
    config, ids = tiny(share_parameter_across_layers=True,
                       layers_per_group=group, share_adapters=share_adapters)
    gpt2.GPT2Model(config, True, ids, prefix_fn="prefix_encoder",
                   prefix_positions="unshifted")
    names = test_util.names(tf.global_variables())
    assert sorted({n.split("/")[2] for n in names if "/layer_" in n}) == scopes
    found = test_util.names(tf.get_collection("adapters"))
    assert sorted({n.split("/")[-2] for n in found}) == adapters
    assert len(found) == len(scopes) * len(adapters) * 8
    # Each layer has a prefix of its own, 20 positions of key and value.
    assert [v.shape.as_list() for v in tf.get_collection("prefixes")] == [
        [20, 3 * 2 * 8]]


def test_the_variables_and_their_collections():
  with test_util.graph():
    config, ids = tiny()
    gpt2.GPT2Model(config, True, ids, adapter_layers=[2],
                   prefix_fn="prefix_encoder", prefix_positions="unshifted")
    names = test_util.names(tf.global_variables())
    norms = test_util.names(tf.get_collection("layer_norm"))
    adapters = test_util.names(tf.get_collection("adapters"))
    prefixes = test_util.names(tf.get_collection("prefixes"))
  assert len(names) == len(set(names)) == 2 + 3 * 16 + 2 + 8 + 1
  assert prefixes == ["gpt2/prefix/embeddings"]
  assert len(norms) == 3 * 4 + 2
  assert {n.split("/adapters/")[0] for n in adapters} == {
      "gpt2/decoder/layer_2/attention/output", "gpt2/decoder/layer_2/output"}


def test_the_table_of_words_is_not_copied():
  with test_util.graph():
    config, ids = tiny()
    model = gpt2.GPT2Model(config, True, ids)
    model.start(2).step(ids[:, :1], 0, tf.ones([1, 1, 2], tf.int32),
                        model.start(2).cache)
    assert test_util.words_looked_up_in_the_variable() == []


def test_dropout_and_gradients_reach_everything():
  with test_util.graph():
    config, ids = tiny()
    model = gpt2.GPT2Model(config, True, ids, prefix_fn="prefix_encoder",
                           prefix_positions="unshifted")
    loss = tf.reduce_sum(tf.square(model.logits()))
    gradients = tf.gradients(loss, tf.trainable_variables())
    assert all(gradient is not None for gradient in gradients)
    with test_util.session(scale=0.3) as session:
      assert session.run(loss) != session.run(loss)


def test_more_positions_than_there_are():
  for length, positions, message in (
      (10, "unshifted", "10 .* n_positions"), (7, "after", "27 .* n_positions")):
    with test_util.graph():
      config, ids = tiny(ids=[[1] * length])
      with pytest.raises(ValueError, match=message):
        gpt2.GPT2Model(config, False, ids, prefix_fn="prefix_encoder",
                       prefix_positions=positions)
