"""The training step: by hand, against the reference's run, and on the graph."""

import collections
import inspect
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.ops.compiled import CompiledOps
from adapter_bert.tuning import Tuning
import modeling
import optimization
from adapter_bert import test_util


@pytest.fixture(params=[False, True], ids=["reference", "resource"])
def graph(request):
  """A new default graph, with either kind of variables."""
  with test_util.graph(resource=request.param) as new:
    yield new


def test_interface():
  def text(function):
    return [str(p) for p in inspect.signature(function).parameters.values()]

  assert text(optimization.create_optimizer)[:5] == [
      "loss", "init_lr", "num_train_steps", "num_warmup_steps", "use_tpu"]
  arguments = text(optimization.AdamWeightDecayOptimizer)
  assert arguments[:7] == [
      "learning_rate", "weight_decay_rate=0.0", "adapter_weight_decay_rate=0.0",
      "beta_1=0.9", "beta_2=0.999", "epsilon=1e-06",
      "exclude_from_weight_decay=None"]
  assert [a.partition("=")[0] for a in arguments[7:]] == ["name"]


# --------------------------------------------------------------- learning rate


def _rates(steps, *arguments):
  """The learning rates at the steps."""
  with test_util.graph():
    step = tf.placeholder(tf.int64, [])
    rate = optimization.learning_rate_at(step, *arguments)
    assert rate.dtype == tf.float32 and rate.shape.rank == 0
    with tf.Session() as session:
      return [session.run(rate, {step: s}) for s in steps]


def test_learning_rate():
  # 4 steps up towards 1, then the line from 1 at step 0 to 0 at step 10.
  np.testing.assert_allclose(
      _rates(range(13), 1.0, 10, 4),
      [0, 0.25, 0.5, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("no_warmup", [0, None])
def test_learning_rate_without_warmup(no_warmup):
  np.testing.assert_allclose(_rates(range(6), 0.4, 4, no_warmup),
                             [0.4, 0.3, 0.2, 0.1, 0, 0], atol=1e-6)


def test_learning_rate_golden():
  arrays, facts, _ = test_util.golden("adapter_small")
  train = facts["train"]
  np.testing.assert_allclose(
      _rates(range(20), train["learning_rate"], train["steps"],
             train["num_warmup_steps"]),
      arrays["learning_rates"], rtol=1e-6)


# ------------------------------------------------------------------------ Adam


def _apply(optimizer, gradients, steps=1):
  """The variables' values after applying constant gradients.

  Args:
    optimizer: a tf.train.Optimizer.
    gradients: variable -> gradient.
    steps: int.
  """
  op = optimizer.apply_gradients([(g, v) for v, g in gradients.items()])
  with test_util.session() as session:
    for _ in range(steps):
      session.run(op)
    return session.run({v.op.name: v for v in tf.global_variables()})


def _variable(name, value, collection=None):
  value = np.array(value, np.float32)
  variable = tf.get_variable(name, value.shape,
                             initializer=tf.constant_initializer(value))
  if collection:
    tf.add_to_collection(collection, variable)
  return variable


def test_adam_hand_worked(graph):
  w = _variable("w", [1.0, -2.0])
  values = _apply(optimization.AdamWeightDecayOptimizer(0.1),
                  {w: tf.constant([0.5, -4.0])})
  assert sorted(values) == ["w", "w/adam_m", "w/adam_v"]
  # m = 0.1 g, v = 0.001 g^2, so that m / sqrt(v) is 0.1 / sqrt(0.001) =
  # 3.1622777 for any g: there is no bias correction that would make it 1. (In
  # float32 1 - 0.999 is 0.001 to 5 digits only.)
  np.testing.assert_allclose(values["w/adam_m"], [0.05, -0.4], rtol=1e-6)
  np.testing.assert_allclose(values["w/adam_v"], [0.00025, 0.016], rtol=2e-5)
  np.testing.assert_allclose(values["w"], [1 - 0.3162078, -2 + 0.3162275],
                             atol=5e-6)


def test_adam_two_steps_with_other_numbers(graph):
  w = _variable("w", [1.0])
  values = _apply(
      optimization.AdamWeightDecayOptimizer(
          learning_rate=tf.constant(0.1), weight_decay_rate=0.5, beta_1=0.5,
          beta_2=0.75, epsilon=1.0), {w: tf.constant([2.0])}, steps=2)
  # Step 1: m = 1, v = 1; the update is 1 / (1 + 1) + 0.5 * 1 = 1.
  # Step 2: m = 1.5, v = 1.75; 1.5 / (1.3228757 + 1) + 0.5 * 0.9 = 1.0957510.
  np.testing.assert_allclose(values["w/adam_m"], [1.5], rtol=1e-6)
  np.testing.assert_allclose(values["w/adam_v"], [1.75], rtol=1e-6)
  np.testing.assert_allclose(values["w"], [0.9 - 0.1095751], rtol=1e-6)


def test_weight_decay_is_decoupled_and_has_exclusions(graph):
  ones = [1.0, 1.0]
  weight = _variable("dense/kernel", ones)
  bias = _variable("dense/bias", ones)
  norm = _variable("LayerNorm/gamma", ones)
  adapter = _variable("adapters/weights1", ones, "adapters")
  # An adapter by its collection, whatever its name; a bias first of all.
  custom = _variable("mine", ones, "adapters")
  adapter_bias = _variable("adapters/biases1", ones, "adapters")
  optimizer = optimization.AdamWeightDecayOptimizer(
      0.1, weight_decay_rate=0.25, adapter_weight_decay_rate=0.75,
      exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"])
  values = _apply(optimizer, {v: tf.zeros([2]) for v in [
      weight, bias, norm, adapter, custom, adapter_bias]})
  # No gradient: what is left is w -= 0.1 * rate * w.
  for variable, rate in [(weight, 0.25), (bias, 0), (norm, 0), (adapter, 0.75),
                         (custom, 0.75), (adapter_bias, 0)]:
    assert optimizer.decay_rate_of(variable) == rate
    np.testing.assert_allclose(values[variable.op.name],
                               [1 - 0.1 * rate] * 2, rtol=1e-6)
    assert not values[variable.op.name + "/adam_m"].any()
    assert not values[variable.op.name + "/adam_v"].any()


def test_exclusions_are_regular_expressions():
  with test_util.graph():
    optimizer = optimization.AdamWeightDecayOptimizer(
        0.1, weight_decay_rate=0.25, exclude_from_weight_decay=["a.c", "^z"])
    rates = {name: optimizer.decay_rate_of(_variable(name, [1.0]))
             for name in ("abc", "in/xabcx", "ac", "z", "yz")}
  assert rates == {"abc": 0, "in/xabcx": 0, "ac": 0.25, "z": 0, "yz": 0.25}


def test_sparse_gradients_equal_dense_ones(graph):
  initial = np.arange(8.0).reshape([4, 2])
  dense, sparse = _variable("dense", initial), _variable("sparse", initial)
  optimizer = optimization.AdamWeightDecayOptimizer(0.1, weight_decay_rate=0.1)
  # Row 2 twice, row 0 and row 3 never: their moments decay all the same.
  rows, indices = np.array([[1.0, 2], [3, 4], [5, -6]]), [2, 1, 2]
  full = np.zeros([4, 2])
  np.add.at(full, indices, rows)
  values = _apply(optimizer, {
      dense: tf.constant(full, tf.float32),
      sparse: tf.IndexedSlices(tf.constant(rows, tf.float32),
                               tf.constant(indices), tf.constant([4, 2]))},
                  steps=3)
  for slot in ("", "/adam_m", "/adam_v"):
    np.testing.assert_allclose(values["sparse" + slot], values["dense" + slot],
                               rtol=1e-6)
  assert (values["sparse"] != initial)[1:].all()


def test_optimizer_by_itself_finds_the_minimum(graph):
  w = _variable("w", [0.1, -0.2, -0.1])
  loss = tf.reduce_mean(tf.square(tf.constant([0.4, 0.2, -0.5]) - w))
  variables = tf.trainable_variables()
  step = tf.train.get_or_create_global_step()
  op = optimization.AdamWeightDecayOptimizer(learning_rate=0.2).apply_gradients(
      zip(tf.gradients(loss, variables), variables), step)
  with test_util.session() as session:
    for _ in range(100):
      session.run(op)
    np.testing.assert_allclose(session.run(w), [0.4, 0.2, -0.5], atol=1e-2)


# -------------------------------------------------------------------- clipping


@pytest.mark.parametrize("scale,expected", [
    (1.0, [[0.3, 0.4], [1.2 / 1.3, 0.5 / 1.3]]), (0.1, None)])
def test_gradients_are_clipped_to_global_norm_1(scale, expected):
  with test_util.graph():
    a, b = _variable("a", [1.0, 1.0]), _variable("b", [1.0, 1.0])
    gradients = scale * np.array([[3.0, 4.0], [12.0, 0.0]])  # norm 13 * scale
    loss = tf.reduce_sum(a * gradients[0]) + tf.reduce_sum(b * gradients[1])
    with test_util.session() as session:
      found = session.run(optimization.clipped_gradients(loss, [a, b]))
      unclipped = session.run(optimization.clipped_gradients(
          0.01 * loss, [a, b]))
  np.testing.assert_allclose(np.linalg.norm(found), 1.0, rtol=1e-6)
  np.testing.assert_allclose(found, gradients / (13 * scale), rtol=1e-6)
  np.testing.assert_allclose(unclipped, 0.01 * gradients, rtol=1e-6)


def test_an_infinite_gradient_of_a_finite_loss_updates_nothing():
  with test_util.graph():
    a, b = _variable("a", [0.0]), _variable("b", [1.0])
    loss = tf.reduce_sum(tf.sqrt(a) + b)
    op = optimization.create_optimizer(loss, 0.1, 10, 0, False, tvars=[a, b])
    with test_util.session() as session:
      assert np.isfinite(session.run(loss))
      with pytest.raises(tf.errors.InvalidArgumentError,
                         match=optimization.NOT_FINITE):
        session.run(op)
      assert session.run([a, b]) == [[0.0], [1.0]]


def test_norm_of_a_word_that_occurs_twice():
  with test_util.graph():
    table = _variable("table", [[1.0], [1.0]])
    # Its gradients, 3 and 4, add up to 7; apart they would have the norm 5.
    loss = tf.reduce_sum(tf.gather(table, [1, 1]) * [[3.0], [4.0]])
    assert isinstance(tf.gradients(loss, [table])[0], tf.IndexedSlices)
    with test_util.session() as session:
      np.testing.assert_allclose(
          session.run(optimization.clipped_gradients(loss, [table], 14.0))[0],
          [[0], [7]])
      np.testing.assert_allclose(
          session.run(optimization.clipped_gradients(loss, [table], 3.5))[0],
          [[0], [3.5]])


# ------------------------------------------------------------ create_optimizer


def test_create_optimizer_hand_worked(graph):
  kernel = _variable("kernel", [1.0, 2.0], "head")
  bias = _variable("output_bias", [1.0], "head")
  adapter = _variable("mine", [3.0], "adapters")
  frozen = _variable("frozen", [5.0])
  loss = tf.reduce_sum(kernel) + tf.reduce_sum(bias) + tf.reduce_sum(adapter)
  loss *= tf.reduce_sum(frozen)
  op = optimization.create_optimizer(loss, 0.5, 10, 0, False)
  names = ["output_bias", "kernel", "mine"]
  assert sorted(test_util.names(tf.global_variables())) == sorted(
      ["frozen", "global_step"] + names + [n + "/adam_m" for n in names] +
      [n + "/adam_v" for n in names])
  step = tf.train.get_global_step()
  with test_util.session() as session:
    assert session.run(step) == 0
    session.run(op)
    assert session.run(step) == 1
    values = session.run({v.op.name: v for v in tf.global_variables()})
  # Four gradients of 5 have the norm 10, and are clipped to 0.5. m / (sqrt(v) +
  # 1e-6) = 0.05 / (0.0158114 + 1e-6) = 3.1620777; the rate is 0.5 and the decay
  # 0.01, except for the bias.
  np.testing.assert_allclose(values["mine/adam_m"], [0.05], rtol=1e-5)
  for name, before, decay in [("kernel", np.array([1.0, 2.0]), 0.01),
                              ("mine", 3.0, 0.01), ("output_bias", 1.0, 0)]:
    np.testing.assert_allclose(
        values[name], before - 0.5 * (3.1620777 + decay * before), atol=2e-5)
  assert values["frozen"] == [5.0]


def test_create_optimizer_warms_up_from_0(graph):
  w = _variable("w", [1.0], "head")
  op = optimization.create_optimizer(tf.reduce_sum(w), 0.5, 10, 2, False)
  with test_util.session() as session:
    session.run(op)
    assert session.run(w) == [1.0]  # the rate of step 0 is 0
    session.run(op)
    assert session.run(w) < [0.9]
    assert session.run(tf.train.get_global_step()) == 2


def test_create_optimizer_takes_variables_and_a_step(graph):
  a, b = _variable("a", [1.0]), _variable("b", [1.0], "head")
  step = tf.get_variable("my_step", [], tf.int64, tf.zeros_initializer(),
                         trainable=False)
  op = optimization.create_optimizer(tf.reduce_sum(a * b), 0.5, 10, 0, False,
                                     tvars=[a], global_step=step)
  assert sorted(test_util.names(tf.global_variables())) == [
      "a", "a/adam_m", "a/adam_v", "b", "my_step"]
  with test_util.session() as session:
    session.run(op)
    assert session.run([a < 1.0, tf.equal(b, 1.0), step]) == [[True], [True], 1]


def test_create_optimizer_refuses():
  with test_util.graph():
    w = _variable("w", [1.0])
    loss = tf.reduce_sum(w)
    with pytest.raises(ValueError, match="TPUs are not supported"):
      optimization.create_optimizer(loss, 0.1, 10, 0, True)
    with pytest.raises(ValueError, match="no variable to train: the graph's "
                                         "collections adapters, layer_norm and"):
      optimization.create_optimizer(loss, 0.1, 10, 0, False)
    with pytest.raises(ValueError, match="no variable to train"):
      optimization.create_optimizer(loss, 0.1, 10, 0, False, tvars=[])
    other = _variable("other", [1.0])
    with pytest.raises(ValueError, match="loss does not depend on other:0"):
      optimization.create_optimizer(loss, 0.1, 10, 0, False, tvars=[w, other])


# ---------------------------------------------- the reference's twenty steps


def _golden_step(golden, batch, total, skip_padding, compiled=False):
  """(loss, logits, learning rate) of one training step, before its update.

  Args:
    golden: test_util.Golden.
    batch: the inputs, str -> tensor; in a replica its share of them.
    total: int, the number of examples in the whole batch.
    skip_padding: see modeling.BertModel.
    compiled: bool, whether its arithmetic is.
  """
  train = golden.facts["train"]
  model = test_util.build(modeling.BertConfig.from_dict(golden.facts["config"]),
                          batch,  # without dropout, as in the reference's run
                          skip_padding=skip_padding,
                          ops=CompiledOps(0, tf.zeros([], tf.int64))
                          if compiled else None)
  logits = modeling.classifier_head(model.get_pooled_output(),
                                    train["num_labels"], is_training=False)
  loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=batch["label_ids"], logits=logits)) / total
  numbers = train["learning_rate"], train["steps"], train["num_warmup_steps"]
  rate = optimization.learning_rate_at(
      tf.identity(tf.train.get_or_create_global_step()), *numbers)
  with tf.control_dependencies([loss, logits, rate]):
    op = optimization.create_optimizer(loss, *numbers, use_tpu=False)
  with tf.control_dependencies([op]):
    return tf.identity(loss), tf.identity(logits), tf.identity(rate)


def _golden_graph(golden, feeds, replicas, skip_padding, compiled=False):
  """`_golden_step` on one device, or on as many logical CPU devices.

  Returns: (loss, logits, learning rate) of the whole batch.
  """
  total = int(feeds["label_ids"].shape[0])  # v1 gives a Dimension
  if replicas == 1:
    return _golden_step(golden, feeds, total, skip_padding, compiled)
  strategy = tf.distribute.MirroredStrategy(
      ["/cpu:%d" % i for i in range(replicas)])

  def step():
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    # Shares that are not equal: 5 examples are 3 and 2, or 2, 2 and 1.
    share = -(-total // replicas)
    return _golden_step(golden, {
        key: value[replica * share:(replica + 1) * share]
        for key, value in feeds.items()}, total, skip_padding)

  with strategy.scope():
    tf.train.get_or_create_global_step()
    losses, logits, rates = [strategy.experimental_local_results(x)
                             for x in strategy.run(step)]
  return tf.add_n(losses), tf.concat(logits, 0), rates[0]


@pytest.mark.parametrize("resource,replicas,compiled,skip_padding", [
    pytest.param(False, 1, False, False, id="reference"),
    pytest.param(True, 1, False, False, id="resource"),
    # As the training step does it by default.
    pytest.param(True, 1, True, True, id="compiled"),
    pytest.param(True, 2, False, True, id="mirrored2"),
    pytest.param(True, 3, False, False, id="mirrored3",
                 marks=pytest.mark.slow),
])
def test_golden_training(resource, replicas, compiled, skip_padding):
  golden = test_util.golden("adapter_small")
  arrays, train = golden.arrays, golden.facts["train"]
  keys = ("input_ids", "input_mask", "token_type_ids", "label_ids")
  with test_util.graph(resource):
    feeds = {key: tf.placeholder(tf.int32, arrays["train_" + key].shape[1:])
             for key in keys}
    fetches = _golden_graph(golden, feeds, replicas, skip_padding, compiled)
    variables = tf.trainable_variables()
    head = tf.get_collection("head")
    test_util.init_from(golden.checkpoint,
                        [v for v in variables if v not in head])
    initial_head = [v.assign(arrays[v.op.name + "_init"]) for v in head]

    # The optimizer is built: these are all the variables there are.
    assert {v.name: v.shape.as_list() for v in tf.global_variables()} == (
        train["all_saved_variables"])
    for collection, members in golden.facts["collections"].items():
      assert [v.name for v in tf.get_collection(collection)] == (
          members or ["output_weights:0", "output_bias:0"])
    assert [v.name for v in variables] == golden.facts["trainable"] + [
        "output_weights:0", "output_bias:0"]

    with test_util.session(devices=replicas) as session:
      session.run(initial_head)
      before = session.run({v.op.name: v for v in variables})
      steps = [session.run(fetches, {
          feeds[key]: arrays["train_" + key][i] for key in keys})
               for i in range(train["steps"])]
      copies = {v.op.name: tf.distribute.get_strategy().
                experimental_local_results(v) if replicas == 1 else v.values
                for v in variables}
      after = session.run(copies)
      assert session.run(tf.train.get_global_step()) == train["steps"]

  losses, logits, rates = zip(*steps)
  np.testing.assert_allclose(rates, arrays["learning_rates"], rtol=1e-6)
  np.testing.assert_allclose(losses, arrays["train_losses"], rtol=0, atol=1e-4)
  np.testing.assert_allclose(logits, arrays["train_logits"], rtol=0, atol=1e-4)
  assert sorted(train["trained"]) == sorted(
      key.partition("/")[2] for key in arrays if key.startswith("final/"))
  for name, values in after.items():
    assert len(values) == replicas
    for value in values:
      np.testing.assert_array_equal(value, values[0], err_msg=name)
    if name in train["trained"]:
      np.testing.assert_allclose(values[0], arrays["final/" + name], rtol=0,
                                 atol=1e-4, err_msg=name)
      assert (values[0] != before[name]).any(), name
    else:
      assert values[0].tobytes() == before[name].tobytes(), name


def test_adapter_decay_is_the_same_on_every_replica():
  with test_util.graph():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])

    def step():
      w = tf.get_variable(
          "w", [1], initializer=tf.ones_initializer(),
          collections=[tf.GraphKeys.GLOBAL_VARIABLES, "adapters"])
      return optimization.AdamWeightDecayOptimizer(
          0.1, weight_decay_rate=0.25, adapter_weight_decay_rate=0.75
      ).apply_gradients([(tf.zeros([1]), w)])

    with strategy.scope():
      ops = strategy.experimental_local_results(strategy.run(step))
    w, = tf.get_collection("adapters")
    with test_util.session(devices=2) as session:
      session.run(ops)
      np.testing.assert_allclose(session.run(w.values), [[0.925]] * 2,
                                 rtol=1e-6)


def test_custom_adapters_on_replicas():
  def adapter(x):
    return x * tf.get_variable("scale", [16], initializer=tf.ones_initializer())

  with test_util.graph():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    with strategy.scope():
      strategy.run(lambda: test_util.build(
          test_util.tiny_config(num_hidden_layers=2,
                                share_parameter_across_layers=True,
                                share_adapters=False),
          test_util.tiny_batch(), adapter_fn=adapter).get_pooled_output())
    assert test_util.names(tf.get_collection("adapters")) == [
        "bert/encoder/layer_shared/%s/adapters_%d/scale" % (half, layer)
        for layer in (0, 1) for half in ("attention/output", "output")]


# ------------------------------------------ what is computed for which variable


def _ancestors(op):
  """Every op that running `op` runs."""
  found, waiting = set(), [op]
  while waiting:
    op = waiting.pop()
    if op not in found:
      found.add(op)
      waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
  return found


_ROWS, _BATCH = 5 * 7, 5


def _training_graph(tuning, resource=True, adapter_layers=None,
                    skip_padding=False, ops=None, **keys):
  """Builds a training step of the tiny model.

  Returns: (the train op, the variables it trains).
  """
  batch = test_util.tiny_batch()
  assert batch["input_ids"].shape == (_BATCH, _ROWS // _BATCH)
  model = test_util.build(
      test_util.tiny_config(**keys), batch, is_training=True,
      adapter_layers=adapter_layers, skip_padding=skip_padding, adapter_fn=(
          (lambda x: modeling.feedforward_adapter(x, 6, ops=ops))
          if tuning.uses_adapters else None), ops=ops)
  logits = modeling.classifier_head(model.get_pooled_output(), 3, True, ops=ops)
  loss = tf.losses.sparse_softmax_cross_entropy(batch["label_ids"], logits)
  variables = tuning.variables()
  return optimization.create_optimizer(
      loss, 0.1, 10, 0, False, tvars=variables), variables


# The last layer's output, made [B, S, D] again.
_TOP = ["pooler", "encoder/Reshape_3"]

# Method, layers with adapters, the scopes in which the backward pass may run,
# and of those the lowest, in which it must.
BACKWARD = [
    (Tuning("head"), None, [], []),
    (Tuning("top_n", 1, 3), None, ["encoder/layer_2"] + _TOP,
     ["encoder/layer_2/attention/self/query"]),
    (Tuning("top_n", 2, 3), None,
     ["encoder/layer_1", "encoder/layer_2"] + _TOP,
     ["encoder/layer_1/attention/self/query"]),
    (Tuning("layer_norm"), None,
     ["embeddings/LayerNorm", "encoder", "pooler"], ["embeddings/LayerNorm"]),
    (Tuning("adapters"), None,
     ["embeddings/LayerNorm", "encoder", "pooler"], ["embeddings/LayerNorm"]),
    # Without the norms, nothing below the lowest adapter: not even the dense
    # layer right before it.
    (Tuning("adapters+head"), [1, 2],
     ["encoder/layer_1/attention/output/adapters",
      "encoder/layer_1/attention/output/LayerNorm",
      "encoder/layer_1/attention/output/add",
      "encoder/layer_1/intermediate", "encoder/layer_1/output",
      "encoder/layer_2"] + _TOP,
     ["encoder/layer_1/attention/output/adapters"]),
    (Tuning("full"), None, ["embeddings", "encoder", "pooler"],
     ["embeddings"]),
]


@pytest.mark.parametrize("tuning,layers", [
    (Tuning("head"), []), (Tuning("top_n", 1, 3), [2]),
    (Tuning("adapters+head"), [1, 2])])
def test_backward_pass_as_run_classifier_builds_it(tuning, layers):
  """With compiled chains and without padding it stops where it does plainly."""
  adapter_layers = layers if tuning.uses_adapters else None
  with test_util.graph():
    train_op, _ = _training_graph(
        tuning, adapter_layers=adapter_layers, skip_padding=True,
        ops=CompiledOps(0, tf.zeros([], tf.int64)))
    scopes = [op.name for op in _ancestors(train_op)
              if op.name.startswith("gradients/bert/")]
  assert not [name for name in scopes if "/embeddings" in name]
  assert set(int(number) for name in scopes for number in
             re.findall(r"/layer_(\d+)/", name)) == set(layers)


@pytest.mark.parametrize("tuning,adapter_layers,may,must", BACKWARD,
                         ids=["%s-%d" % (row[0].name, i)
                              for i, row in enumerate(BACKWARD)])
def test_backward_pass(tuning, adapter_layers, may, must):
  with test_util.graph():
    train_op, variables = _training_graph(tuning, adapter_layers=adapter_layers)
    ops = _ancestors(train_op)

    # An op of the backward pass is named after the one of the forward pass that
    # it belongs to.
    scopes = set(re.sub(r"^gradients/bert/", "", op.name) for op in ops
                 if op.name.startswith("gradients/bert/"))
    beneath = lambda name, of: any(
        name.startswith(scope + "/") or name.startswith(scope + "_")
        for scope in of)
    assert not [name for name in scopes if not beneath(name, may)]
    for scope in must:
      assert [name for name in scopes if beneath(name, [scope])], scope
    assert any(op.name.startswith("gradients/") for op in ops)

    # A product whose result has the shape of weights, and not one row for each
    # position or example, is a gradient of weights: there is one for each of
    # those that are trained, and none for the frozen ones.
    found = collections.Counter(
        tuple(op.outputs[0].shape.as_list()) for op in ops
        if op.type == "MatMul" and
        op.outputs[0].shape.as_list()[0] not in (_ROWS, _BATCH))
    gathered = ("word_embeddings", "position_embeddings")
    assert found == collections.Counter(
        tuple(v.shape.as_list()) for v in variables
        if v.shape.rank == 2 and not v.op.name.endswith(gathered) and
        "bias" not in v.op.name)

    # Slots for what is trained, and for nothing else.
    slots = [name for name in test_util.names(tf.global_variables())
             if re.search("/adam_[mv]$", name)]
    assert sorted(slots) == sorted(
        "%s/adam_%s" % (name, slot) for name in test_util.names(variables)
        for slot in "mv")


@pytest.mark.parametrize("group,share_adapters", [
    (None, True), (2, True), (None, False)])
def test_shared_variables_have_one_slot_each(group, share_adapters):
  with test_util.graph():
    train_op, variables = _training_graph(
        Tuning(), share_parameter_across_layers=True,
        layers_per_group=group, share_adapters=share_adapters)
    names = test_util.names(variables)
    scopes = 2 if group else 1  # 3 layers, in twos
    adapters = 3 if not share_adapters else scopes
    assert len(names) == len(set(names)) == (
        adapters * 2 * 4 + (scopes * 2 + 1) * 2 + 2)
    every = test_util.names(tf.global_variables())
    assert len(every) == len(set(every))
    assert sorted(n for n in every if "/adam_" in n) == sorted(
        name + slot for name in names for slot in ("/adam_m", "/adam_v"))
    with test_util.session() as session:
      before = session.run(variables)
      session.run(train_op)
      for name, one, other in zip(names, before, session.run(variables)):
        assert (one != other).any(), name


def test_full_tuning_trains_words_by_sparse_gradients():
  batch = test_util.tiny_batch()
  with test_util.graph():
    train_op, variables = _training_graph(Tuning("full"))
    table = variables[0]
    assert table.op.name == "bert/embeddings/word_embeddings"
    with test_util.session() as session:
      before = session.run(table)
      session.run(train_op)
      change = session.run(table) - 0.999 * before  # 0.1 * 0.01 is the decay
      moments, = session.run([v for v in tf.global_variables()
                              if v.op.name == table.op.name + "/adam_m"])
  # Not the padding's: nothing looks at it.
  occurring = np.isin(np.arange(31),
                      batch["input_ids"][batch["input_mask"] == 1])
  assert occurring.any() and not occurring.all()
  assert moments[occurring].any(1).all() and not moments[~occurring].any()
  np.testing.assert_allclose(change[~occurring], 0, atol=1e-7)
  assert (np.abs(change[occurring]).max(1) > 1e-3).all()
