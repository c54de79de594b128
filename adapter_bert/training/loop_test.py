"""Training, evaluation and prediction, below the flags."""

import collections
import dataclasses
import functools
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.distributed import devices as distribution
from adapter_bert.base import errors
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
import modeling
from adapter_bert import test_util
import tokenization
from adapter_bert.training import evaluation
from adapter_bert.training import graphs
from adapter_bert.training import loop as training
from adapter_bert.training import specs
from adapter_bert.tuning import Tuning

graphs.enable_graph_mode()

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + list("abcdefghijklmnopqrstuvwxyz")
TASK = task_specs.task_from_dict({
    "name": "Toy", "labels": ["no", "yes"], "metrics": ["accuracy"],
    "columns": {"text_a": 0, "label": 1}, "header": False,
    "train": "train.tsv", "dev": "dev.tsv"})
SPEC = training.TrainSpec(num_train_steps=6, num_warmup_steps=2,
                          learning_rate=1e-2, batch_size=4, seed=3,
                          compile_chains=False)


@pytest.fixture(scope="module", name="records")
def fixture_records(tmp_path_factory):
  """22 examples of 3 to 9 tokens."""
  root = tmp_path_factory.mktemp("records")
  rng = np.random.RandomState(2)
  with open(str(root / "train.tsv"), "w", encoding="utf-8") as output:
    for i in range(22):
      letters = rng.choice(WORDS[4:], rng.randint(1, 8))
      output.write("%s\t%s\n" % (" ".join(letters), ("no", "yes")[i % 2]))
  (root / "vocab.txt").write_text("\n".join(WORDS) + "\n")
  tokenizer = tokenization.FullTokenizer(str(root / "vocab.txt"))
  return tfrecords.prepare(TASK, TASK.train, str(root), tokenizer, 9,
                                str(root))


@pytest.fixture(scope="module", name="weights")
def fixture_weights(tmp_path_factory):
  """Random weights of a plain BERT of the tiny size."""
  prefix = str(tmp_path_factory.mktemp("base") / "bert_model.ckpt")
  rng = np.random.RandomState(4)
  with tf.Graph().as_default():
    modeling.BertModel(spec_of().bert_config, False, tf.zeros([1, 2], tf.int32),
                       adapter_fn=None)
    weights_lib.write(prefix, {
        v.op.name: (rng.normal(size=v.shape.as_list()) * 0.3 +
                    v.op.name.endswith("gamma")).astype(np.float32)
        for v in tf.trainable_variables()})
  return weights_lib.Weights([prefix])


def spec_of(dropout=0.0, layers=1, **fields):
  """A ClassifierSpec of tiny layers; one, because each costs time to build."""
  config = test_util.tiny_config(
      num_hidden_layers=layers, hidden_dropout_prob=dropout,
      attention_probs_dropout_prob=dropout)
  return specs.ClassifierSpec(config, 2, adapter_size=3,
                            head_dropout_prob=dropout, **fields)


def train(model, records, weights, output_dir, group=None, **changes):
  """The values in the last checkpoint, by name."""
  training.train(model, dataclasses.replace(SPEC, **changes), records, weights,
                 str(output_dir), group)
  held = weights_lib.Weights([weights_lib.newest_readable(str(output_dir))])
  return {name: held.value(name) for name in held.shapes}


def scalars(directory, tag):
  return {event.step: value.simple_value
          for name in sorted(os.listdir(str(directory))) if "tfevents" in name
          for event in tf.train.summary_iterator(
              os.path.join(str(directory), name))
          for value in event.summary.value if value.tag == tag}


def assert_equal(found, expected, atol=0.0):
  assert sorted(found) == sorted(expected)
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol,
                               err_msg=name)


@pytest.fixture(scope="module", name="undisturbed")
def fixture_undisturbed(records, weights, tmp_path_factory):
  """What six steps with dropout end with."""
  return train(spec_of(dropout=0.1), records, weights,
               tmp_path_factory.mktemp("undisturbed"))


def test_the_same_seed_gives_the_same_run(records, weights, undisturbed,
                                          tmp_path):
  assert_equal(train(spec_of(0.1), records, weights, tmp_path), undisturbed)


def stop_early(records, weights, output_dir, **changes):
  """Stops behind the fourth step; the schedule is that of all six."""

  class StopEarly(object):

    def after_save(self, session, global_step_value):
      return global_step_value == 4

  training.train(spec_of(0.1), dataclasses.replace(
      SPEC, save_checkpoints_steps=2, **changes), records, weights, output_dir,
                 listeners=[StopEarly()])
  assert weights_lib.step_of(weights_lib.newest_readable(output_dir)) == 4


@pytest.fixture(scope="module", name="stopped")
def fixture_stopped(records, weights, tmp_path_factory):
  """The output_dir of a run that stopped early; it must not be changed."""
  output_dir = tmp_path_factory.mktemp("stopped") / "out"
  stop_early(records, weights, str(output_dir))
  return output_dir


def test_a_run_in_two_parts_ends_the_same(records, weights, undisturbed,
                                          stopped, tmp_path):
  output_dir = tmp_path / "out"
  shutil.copytree(str(stopped), str(output_dir))
  # The copy goes on with its own files, not with the original's.
  assert weights_lib.newest_readable(str(output_dir)).startswith(str(output_dir))
  assert str(stopped) not in (output_dir / "checkpoint").read_text()
  assert_equal(train(spec_of(0.1), records, weights, output_dir), undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_a_step_that_is_saved(
    records, weights, undisturbed, tmp_path, number):

  class Send(object):

    def after_save(self, session, global_step_value):
      if global_step_value == 2:
        os.kill(os.getpid(), number)

  spec = dataclasses.replace(SPEC, save_checkpoints_steps=2)
  with pytest.raises(errors.Interrupted) as caught:
    training.train(spec_of(0.1), spec, records, weights, str(tmp_path),
                   listeners=[Send()])
  assert str(caught.value) == (
      "stopped by %s after step 3 of 6, which is saved; the same command goes "
      "on from there" % number.name)
  assert caught.value.code == 128 + number
  assert weights_lib.step_of(weights_lib.newest_readable(str(tmp_path))) == 3
  assert_equal(train(spec_of(0.1), records, weights, tmp_path), undisturbed)


@pytest.mark.parametrize("state", [None, 'model_checkpoint_path: "gone-9"\n'])
def test_resuming_does_not_need_the_checkpoint_file(
    records, weights, undisturbed, stopped, tmp_path, state):
  output_dir = tmp_path / "out"
  shutil.copytree(str(stopped), str(output_dir))
  if state is None:
    (output_dir / "checkpoint").unlink()
  else:
    (output_dir / "checkpoint").write_text(state)
  assert_equal(train(spec_of(0.1), records, weights, output_dir), undisturbed)


def test_resuming_from_the_one_before_a_damaged_checkpoint(
    records, weights, undisturbed, stopped, tmp_path, caplog):
  output_dir = tmp_path / "out"
  shutil.copytree(str(stopped), str(output_dir))
  last = weights_lib.numbered(str(output_dir))[-1]
  os.truncate(last + ".data-00000-of-00001", 100)
  assert_equal(train(spec_of(0.1), records, weights, output_dir), undisturbed)
  assert "incomplete" in caplog.text and last in caplog.text


def test_checkpoints_of_earlier_starts_count(records, weights, stopped,
                                             tmp_path):
  output_dir = tmp_path / "out"
  shutil.copytree(str(stopped), str(output_dir))
  train(spec_of(0.1), records, weights, output_dir, keep_checkpoint_max=2,
        save_checkpoints_steps=2)
  kept = [os.path.basename(p) for p in weights_lib.numbered(str(output_dir))]
  assert len(kept) == 2 and kept[-1] == "model.ckpt-6"


@pytest.mark.slow
def test_buckets_resume_too(records, weights, undisturbed, tmp_path):
  whole = train(spec_of(0.1), records, weights, tmp_path / "whole",
                bucket_window=3)
  with pytest.raises(AssertionError):  # another order than without
    assert_equal(whole, undisturbed)
  stop_early(records, weights, str(tmp_path / "parts"), bucket_window=3)
  assert_equal(train(spec_of(0.1), records, weights, tmp_path / "parts",
                     bucket_window=3), whole)


def test_event_files(records, weights, tmp_path):
  spec = dict(num_train_steps=41, num_warmup_steps=20)
  train(spec_of(), records, weights, tmp_path, **spec)
  rates = scalars(tmp_path, "learning_rate")
  assert sorted(rates) == sorted(scalars(tmp_path, "loss")) == [20, 40, 41]
  # Those of the 20th and of the 41st step, which are counted from 0.
  assert rates[20] == pytest.approx(1e-2 * 19 / 20, rel=1e-4)
  assert rates[41] == pytest.approx(1e-2 * (1 - 40 / 41), rel=1e-4)
  assert all(v > 0 for v in scalars(tmp_path, "examples_per_second").values())
  assert 40 in scalars(tmp_path, "examples_per_second")


def test_the_seed_matters(records, weights, undisturbed, tmp_path):
  other = train(spec_of(0.1), records, weights, tmp_path, seed=4)
  assert (other["output_weights"] != undisturbed["output_weights"]).any()


def test_initial_values_follow_from_seed_and_name():
  def initial(extra_op):
    with tf.Graph().as_default(), graphs.seeded_variables(5):
      if extra_op:
        tf.random.normal([2])
      first = tf.get_variable("a", [3],
                              initializer=modeling.create_initializer())
      second = tf.get_variable("b", [3],
                               initializer=modeling.create_initializer())
      with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run([first, second])
  one, other = initial(False), initial(True)
  np.testing.assert_array_equal(one, other)
  assert (one[0] != one[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    {}, dict(tune="adapters+head", adapter_layers=[1])])
def test_compiled_chains_change_only_rounding(records, tmp_path, fields):
  plain, compiled = [
      train(spec_of(0.1, layers=2, **fields), records, None,
            tmp_path / str(chains), compile_chains=chains)
      for chains in (False, True)]
  assert_equal(compiled, plain, atol=2e-4)


@pytest.mark.parametrize("replicas", [
    2, pytest.param(3, marks=pytest.mark.slow)])
def test_mirrored_replicas_train_as_one_device(records, weights, tmp_path,
                                               replicas):
  # A batch of 4 does not divide by 3: rows of weight 0 fill it up.
  group = distribution.mirrored(",".join("cpu:%d" % i for i in range(replicas)))
  assert group.num_replicas == replicas
  one = train(spec_of(), records, weights, tmp_path / "one")
  several = train(spec_of(), records, weights, tmp_path / "several", group)
  predicted = evaluation.predict(
      spec_of(), records, weights_lib.Weights(
          weights.prefixes + [weights_lib.newest_readable(str(tmp_path / "several"))]),
      batch_size=5, group=group)
  assert_equal(several, one, atol=1e-4)
  losses = scalars(tmp_path / "one", "loss")
  for step, loss in scalars(tmp_path / "several", "loss").items():
    assert loss == pytest.approx(losses[step], abs=1e-5)
  alone = evaluation.predict(spec_of(), records, weights_lib.Weights(
      weights.prefixes + [weights_lib.newest_readable(str(tmp_path / "one"))]))
  np.testing.assert_allclose(predicted.outputs, alone.outputs, atol=1e-4)
  np.testing.assert_array_equal(predicted.labels, alone.labels)


def test_predictions_are_in_order_whatever_the_batch(records, weights):
  expected = evaluation.predict(spec_of(), records, weights, batch_size=1)
  assert expected.labels.tolist() == [i % 2 for i in range(22)]
  for batch_size in (4, 22, 30):
    found = evaluation.predict(spec_of(), records, weights, batch_size)
    np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-6)
    np.testing.assert_allclose(found.losses, expected.losses, atol=1e-6)
  picked = expected.outputs[np.arange(22), expected.labels]
  np.testing.assert_allclose(expected.losses, -np.log(picked), atol=1e-5)


def test_checkpoints_by_steps_and_how_many_stay(records, weights, tmp_path):
  train(spec_of(), records, weights, tmp_path, save_checkpoints_steps=1,
        keep_checkpoint_max=2)
  kept = sorted(n for n in os.listdir(str(tmp_path)) if n.endswith(".index"))
  assert kept == ["model.ckpt-5.index", "model.ckpt-6.index"]


def test_checkpoints_by_seconds(records, weights, tmp_path):
  train(spec_of(), records, weights, tmp_path, save_checkpoints_steps=1000,
        save_checkpoints_secs=0.001, keep_checkpoint_max=9)
  kept = [n for n in os.listdir(str(tmp_path)) if n.endswith(".index")]
  assert len(kept) > 2


def test_the_seconds_count_from_the_end_of_a_save(records, weights, tmp_path,
                                                  monkeypatch):
  class Slow(object):

    def after_save(self, session, global_step_value):
      saved.append(global_step_value)

  saved, clock = [], time.monotonic
  monkeypatch.setattr(time, "monotonic", lambda: clock() + 1000 * len(saved))
  training.train(
      spec_of(), dataclasses.replace(SPEC, save_checkpoints_steps=2,
                                     save_checkpoints_secs=500),
      records, weights, str(tmp_path), listeners=[Slow()])
  assert saved == [2, 4, 6]


def test_a_loss_that_is_not_finite_is_not_saved(records, tmp_path):
  base = str(tmp_path / "nan.ckpt")
  with tf.Graph().as_default():
    modeling.BertModel(spec_of().bert_config, False, tf.zeros([1, 2], tf.int32),
                       adapter_fn=None)
    weights_lib.write(base, {
        v.op.name: np.full(v.shape.as_list(), np.nan, np.float32)
        for v in tf.trainable_variables()})
  with pytest.raises(errors.InputError,
                     match="not finite at step 0; .*learning_rate"):
    train(spec_of(), records, weights_lib.Weights([base]), tmp_path / "out",
          save_checkpoints_steps=1)
  assert weights_lib.newest_readable(str(tmp_path / "out")) is None


def test_a_gradient_that_is_not_finite_is_not_saved(records, weights, tmp_path):

  def adapter(x):
    shift = tf.get_variable("shift", [], initializer=tf.zeros_initializer())
    return x + tf.sqrt(shift)

  with pytest.raises(errors.InputError, match="not finite at step 0"):
    train(spec_of(adapter_fn=adapter), records, weights, tmp_path / "out",
          save_checkpoints_steps=1)
  assert weights_lib.newest_readable(str(tmp_path / "out")) is None


def test_what_is_bfloat16():
  model = spec_of(0.1, precision="bfloat16")
  batch = test_util.tiny_batch()
  with tf.Graph().as_default() as graph:
    losses = model.build(True, {
        "input_ids": tf.constant(batch["input_ids"]),
        "input_mask": tf.constant(batch["input_mask"]),
        "segment_ids": tf.constant(batch["token_type_ids"]),
        "label_ids": tf.constant(batch["label_ids"]) % 2}).losses
    trained = model.tuning.variables()
    frozen = set(tf.global_variables()) - set(trained)
  assert losses.dtype == tf.float32
  assert {v.dtype.base_dtype for v in frozen} == {tf.bfloat16}
  assert {v.dtype.base_dtype for v in trained} == {tf.float32}
  types = collections.defaultdict(set)
  for op in graph.get_operations():
    if op.type in ("MatMul", "BatchMatMulV2", "Softmax", "Rsqrt", "Mean"):
      types[op.type, op.name.startswith("bert/")].add(op.outputs[0].dtype)
  assert types["MatMul", True] == types["BatchMatMulV2", True] == {tf.bfloat16}
  assert types["MatMul", False] == {tf.float32}  # the head
  assert types["Softmax", True] == types["Rsqrt", True] == {tf.float32}
  assert types["Mean", True] == {tf.float32}  # LayerNorm's


def test_without_weights_everything_is_saved(records, tmp_path, caplog):
  held = train(spec_of(), records, None, tmp_path, num_train_steps=1)
  assert "bert/encoder/layer_0/attention/self/query/kernel" in held
  assert "bert/encoder/layer_0/attention/self/query/kernel/adam_m" not in held
  assert "NO init_checkpoint" in caplog.text


def test_what_is_trained_is_logged_with_counts(records, weights, tmp_path,
                                               caplog):
  with caplog.at_level("INFO", logger="absl"):
    train(spec_of(), records, weights, tmp_path, num_train_steps=1)
  adapters, norms, head = 2 * (2 * 16 * 3 + 16 + 3), 3 * 2 * 16, 2 * 16 + 2
  assert "%d of " % (adapters + norms + head) in caplog.text
  for name, count in (("adapters", adapters), ("layer_norm", norms),
                      ("head", head)):
    assert "%-10s %10d parameters" % (name, count) in caplog.text


@pytest.mark.parametrize("hidden_size, trained, stored", [
    (None, 3 * 64, None),
    # [3, 16], 16 -> 5 -> 2 layers * 2 * 16, with biases; the task keeps [3, 64].
    (5, 3 * 16 + 17 * 5 + 6 * 64, 3 * 64)])
def test_what_is_stored_of_a_prefix_is_logged(caplog, hidden_size, trained,
                                              stored):
  with tf.Graph().as_default(), caplog.at_level("INFO", logger="absl"):
    with tf.variable_scope("bert"):
      modeling.call_prefix(functools.partial(
          modeling.prefix_encoder, prefix_length=3, hidden_size=hidden_size),
                           2, 4, 4)
    tf.get_variable("output_bias", [2], collections=[
        tf.GraphKeys.GLOBAL_VARIABLES, "head"])
    variables = tf.global_variables()
    training.log_trained(Tuning("prefix"), variables, variables)
  assert "%d of %d " % (trained + 2, trained + 2) in caplog.text
  assert "%-10s %10d parameters" % ("prefixes", trained) in caplog.text
  assert ("  stored " in caplog.text) == (stored is not None)
  if stored:
    assert "%-10s %10d parameters" % ("stored", stored + 2) in caplog.text


def test_a_checkpoint_without_slots_cannot_be_resumed(records, weights,
                                                      tmp_path):
  weights_lib.write(str(tmp_path / "model.ckpt-2"),
                    {"global_step": np.int64(2)})
  with pytest.raises(errors.InputError, match="lacks .*--init_checkpoint"):
    train(spec_of(), records, weights, tmp_path)


def test_an_adapter_of_ones_own(records, weights, tmp_path):

  def scale(tensor):
    factor = tf.get_variable("scale", [tensor.shape[-1]],
                             initializer=tf.ones_initializer())
    return tensor * factor

  held = train(spec_of(adapter_fn=scale), records, weights, tmp_path)
  trained = [n for n in held if n.endswith("output/scale")]
  assert len(trained) == 2
  assert all((held[n] != 1).any() for n in trained)


def test_a_predictor_runs_often_and_takes_what_is_fed(records, weights):
  factors = []

  def fed(tensor):
    factors.append(tf.placeholder_with_default(1.0, []))
    return tensor * factors[-1]

  model = spec_of(adapter_fn=fed)
  with evaluation.predictor(model, records, weights, batch_size=5) as run:
    plain, without, again = run(), run({factors[1]: 0.0}), run()
  np.testing.assert_array_equal(plain.outputs, again.outputs)
  once = evaluation.predict(spec_of(adapter_fn=lambda x: x), records, weights)
  np.testing.assert_allclose(plain.outputs, once.outputs, atol=1e-6)
  np.testing.assert_array_equal(without.labels, once.labels)
  assert np.abs(without.outputs - once.outputs).max() > 1e-4


# ------------------------------------------------------------- run records


def recorded(model, of=TASK, **changes):
  """What a run leaves in run.json of a task and a model, through JSON."""
  record = dict(specs.describe_model(model), task=task_specs.task_to_dict(of),
                schedule={"precision": model.precision})
  return json.loads(json.dumps(dict(record, **changes)))


@pytest.mark.parametrize("fields", [
    dict(adapter_layers=[1]), dict(tune="top_n", top_n_layers=1),
    dict(tune="adapters+head", precision="bfloat16"),
    dict(adapter_order="pfeiffer", adapter_act="gelu_erf")])
def test_a_model_comes_back_from_its_record(fields):
  model = spec_of(layers=2, **fields)
  task, again = specs.model_from_record(recorded(model), "here")
  assert task == TASK
  assert specs.describe_model(again) == specs.describe_model(model)
  assert again.precision == model.precision
  _, reduced = specs.model_from_record(recorded(model), "here", "float32")
  assert reduced.precision == "float32"


def test_a_record_without_the_form_of_adapters_has_the_first_one():
  record = recorded(spec_of())
  assert record["adapter_order"] is None and record["adapter_act"] is None
  del record["adapter_order"], record["adapter_act"]
  _, model = specs.model_from_record(record, "here")
  assert (model.adapter_order, model.adapter_act) == ("houlsby", "gelu")


def test_a_regression_comes_back_from_its_record():
  task = tasks.get_task("sts-b")
  model = dataclasses.replace(spec_of(), num_labels=1, is_regression=True)
  found, again = specs.model_from_record(recorded(model, task), "here")
  assert found == task and again.is_regression and again.num_labels == 1


@pytest.mark.parametrize("changes,words", [
    (dict(task={"name": "Toy"}), ["labels", "score_range"]),
    (dict(num_labels=3), ["3 outputs", "Toy 2"]),
    (dict(tune="adaptors"), ["adaptors"]),
    (dict(adapter_size="8"), ["adapter_size is '8'"]),
    (dict(adapter_order="before"), ["adapter_order", "houlsby or pfeiffer"]),
    (dict(adapter_act="mish"), ["adapter_act", "relu"]),
    (dict(bert_config={}), ["vocab_size"]),
    (dict(top_n_layers=2), ["top_n_layers"]),
])
def test_a_record_that_cannot_be_used_is_one_line(changes, words):
  with pytest.raises(errors.InputError) as caught:
    specs.model_from_record(recorded(spec_of(), **changes), "here")
  line = str(caught.value)
  assert line.startswith("here: its run.json") and "\n" not in line
  for word in words:
    assert word in line, line


def test_a_record_that_lacks_something_says_what():
  with pytest.raises(errors.InputError, match="here: has no run.json"):
    specs.model_from_record(None, "here")
  for key in ("task", "bert_config", "num_labels", "adapter_size",
              "adapter_layers", "tune", "top_n_layers", "schedule"):
    record = recorded(spec_of())
    del record[key]
    with pytest.raises(errors.InputError, match="run.json has no '%s'" % key):
      specs.model_from_record(record, "here")


@pytest.mark.parametrize("last_step, words", [
    (0, "there is no earlier one to go on from"),
    (10, "that of step 10 is still there")])
def test_a_checkpoint_that_cannot_be_written(tmp_path, last_step, words):
  (tmp_path / "file").write_text("in place of output_dir")
  with tf.Graph().as_default(), tf.Session() as session:
    tf.get_variable("x", [1])
    session.run(tf.global_variables_initializer())
    saving = training._Saving(  # pylint: disable=protected-access
        session, tf.train.Saver(), str(tmp_path / "file" / "out"), SPEC, (),
        last_step)
    with pytest.raises(errors.InputError, match="step 12 .*" + words):
      saving.save_unless_saved(12)
