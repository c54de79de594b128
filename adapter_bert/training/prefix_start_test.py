"""Prefix tuning of BERT from the first step to the task checkpoint."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.checkpoints import prefixes
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.training import graphs
from adapter_bert.training import prefix_start
import modeling
import run_classifier_test

graphs.enable_graph_mode()

PREFIX = "bert/prefix/embeddings"


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  return run_classifier_test.Files(str(tmp_path_factory.mktemp("files")))


def prefix_run(files, output_dir, **changes):
  """Trains and evaluates a prefix on the tiny MRPC; returns the results."""
  return files.run("MRPC", output_dir, **dict(
      dict(tune="prefix", prefix_length=3, do_eval=True), **changes))["dev"]


@pytest.fixture(scope="module", name="trained")
def fixture_trained(files):
  """(output_dir, results) of a run whose prefix is made by an MLP."""
  output_dir = os.path.join(files.root, "trained")
  return output_dir, prefix_run(files, output_dir, do_train=True,
                                prefix_hidden_size=5)


def variables_in(directory):
  """{name: shape} of a directory's checkpoint, without slots."""
  shapes = weights_lib.Weights([weights_lib.find(directory)]).shapes
  return {name: shape for name, shape in shapes.items()
          if names.is_model_variable(name)}


def test_checkpoints_hold_the_mlp_and_task_checkpoints_what_it_makes(trained):
  output_dir, _ = trained
  head = {"output_weights": [2, 16], "output_bias": [2]}
  assert variables_in(output_dir) == dict(head, **{
      PREFIX: [3, 16], "bert/prefix/dense_0/kernel": [16, 5],
      "bert/prefix/dense_0/bias": [5],
      "bert/prefix/dense_1/kernel": [5, 2 * 2 * 16],
      "bert/prefix/dense_1/bias": [2 * 2 * 16]})
  task = os.path.join(output_dir, "task")
  assert variables_in(task) == dict(head, **{PREFIX: [3, 2 * 2 * 16]})
  # With the head, 2 * 16 + 2, in both.
  counts = {"trained": 3 * 16 + 17 * 5 + 6 * 64 + 34, "stored": 3 * 64 + 34}
  for directory in (output_dir, task):
    assert run_record.read(directory)["parameters"] == counts


def test_the_folded_prefix_evaluates_as_the_mlp_does(files, trained, tmp_path):
  output_dir, results = trained
  folded = prefix_run(files, tmp_path, prefix_hidden_size=5,
                      task_checkpoint=os.path.join(output_dir, "task"))
  np.testing.assert_allclose(folded["eval_loss"], results["eval_loss"],
                             rtol=1e-5)
  # And another prefix would not: the loss depends on it.
  assert abs(prefix_run(files, tmp_path / "other", do_train=True, seed=9)
             ["eval_loss"] - results["eval_loss"]) > 1e-3


def test_a_prefix_and_adapters_are_trained_together(files, tmp_path):
  prefix_run(files, tmp_path, do_train=True, tune="adapters+prefixes+head",
             prefix_positions="unshifted", adapter_layers="1")
  trained = variables_in(str(tmp_path))
  assert sum(names.is_prefix(name) for name in trained) == 1
  assert sum(names.is_adapter(name) for name in trained) == 8
  assert len(trained) == 1 + 8 + 2


def test_shared_layers_have_a_prefix_each(files, tmp_path):
  prefix_run(files, tmp_path, do_train=True, share_parameter_across_layers=True,
             init_shared_from="mean")
  assert variables_in(str(tmp_path))[PREFIX] == [3, 2 * 2 * 16]


# ------------------------------------------------------ where it starts from


def started(files, output_dir, **changes):
  """The prefix after training with a rate too small to change a float."""
  prefix_run(files, output_dir, do_train=True, learning_rate=1e-30, **changes)
  return prefixes.folded({
      name: array for name, array in run_classifier_test.values_in(
          weights_lib.newest_readable(str(output_dir))).items()
      if names.is_model_variable(name)})[PREFIX]


@pytest.mark.parametrize("hidden_size", [0, 5])
def test_zero(files, tmp_path, hidden_size):
  found = started(files, tmp_path, prefix_init="zero",
                  prefix_hidden_size=hidden_size)
  np.testing.assert_allclose(found, np.zeros([3, 2 * 2 * 16]), atol=1e-20)


def test_the_initial_scale(files, tmp_path):
  found = started(files, tmp_path, prefix_init_scale=0.01)
  # 192 numbers: four standard errors of their deviation are 20%.
  assert np.std(found) == pytest.approx(0.01, rel=0.2)


def test_words_are_those_of_the_first_examples(files, tmp_path):
  found = started(files, tmp_path, prefix_init="words", prefix_length=8)
  # The first example is a pair of the same sentence.
  tokens = ["[CLS]"] + run_classifier_test.SENTENCES[0].split()  # "the cat ..."
  assert len(tokens) == 8
  ids = [run_classifier_test.WORDS.index(token) for token in tokens]
  base = weights_lib.Weights.open(files.path("bert/bert_model.ckpt"))
  np.testing.assert_allclose(
      found, prefix_start.keys_and_values(files.config, ids, base), atol=1e-6)


def test_keys_and_values_are_those_of_the_layers(files):
  base = weights_lib.Weights.open(files.path("bert/bert_model.ckpt"))
  ids = [2, 7, 5, 9]
  found = prefix_start.keys_and_values(files.config, ids, base)
  with tf.Graph().as_default(), tf.Session() as session:
    bert = modeling.BertModel(files.config, False, tf.constant([ids]),
                              adapter_fn=None)
    graphs.run_and_load(
        session, tf.global_variables_initializer(),
        [v.assign(base.value(v.op.name)) for v in tf.trainable_variables()],
        base)
    inputs = session.run([bert.embedding_output, bert.all_encoder_layers[0]])
  for column, (layer, name) in enumerate(
      [(0, "key"), (0, "value"), (1, "key"), (1, "value")]):
    scope = "bert/encoder/layer_%d/attention/self/%s/" % (layer, name)
    np.testing.assert_allclose(
        found[:, 16 * column:16 * (column + 1)],
        inputs[layer][0] @ base.value(scope + "kernel") +
        base.value(scope + "bias"), atol=1e-5)


# ------------------------------------------------------------- what is refused


@pytest.mark.parametrize("changes, words", [
    (dict(tune="adapters", prefix_hidden_size=5), "which has no prefixes"),
    (dict(tune="adapters", prefix_length=3), "prefix_length is 3"),
    (dict(tune="full", prefix_length=20, prefix_init_scale=0.1),
     "prefix_init_scale is 0.1"),
    (dict(prefix_init="words", prefix_hidden_size=5), "an MLP makes these"),
    (dict(prefix_init="words", prefix_init_scale=0.1), "has no random numbers"),
    (dict(prefix_init="words", init_checkpoint=None), "needs a pre-trained"),
    (dict(prefix_length=9, prefix_positions="after"),
     "prefix_length 9 and max_seq_length 24 are more positions than the "
     "model's 32"),
    (dict(prefix_length=0), "prefix_length"),
    (dict(prefix_positions="before"), "prefix_positions"),
])
def test_settings_that_do_not_fit_are_one_line(files, tmp_path, changes, words):
  with pytest.raises(errors.InputError, match=words) as caught:
    prefix_run(files, tmp_path, do_train=True, **changes)
  assert "\n" not in str(caught.value)


def test_too_few_words(files, tmp_path):
  with pytest.raises(errors.InputError, match="needs 1000 tokens"):
    prefix_run(files, tmp_path, do_train=True, prefix_init="words",
               prefix_length=1000, prefix_positions="unshifted")


def test_unshifted_positions_leave_room(files, tmp_path):
  assert prefix_run(files, tmp_path, do_train=True, prefix_length=9,
                    prefix_positions="unshifted")
