"""The seam between the loop and a model, with a model that is no BERT."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.distributed import devices as distribution
import modeling
from adapter_bert.training import graphs
from adapter_bert.training import loop as training
from adapter_bert.training import specs

graphs.enable_graph_mode()

# x, y: 4 examples of up to 3 tokens; the loss of each is a mean over its own.
ROWS = {
    "x": np.array([[1, 2, 3], [4, 0, 0], [5, 6, 0], [7, 8, 9]], np.float32),
    "y": np.array([[2, 2, 2], [1, 0, 0], [3, 3, 0], [0, 0, 0]], np.float32),
    "there": np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]], np.float32),
}


class Tuning(object):
  """All that there is."""
  name = "all"

  def variables(self):
    return tf.trainable_variables()


@dataclasses.dataclass
class Line(specs.ModelSpec):
  """y = a x for tokens, a from 0.5 on."""
  weighted: bool = True
  tuning: Any = Tuning()
  config: Any = None
  precision: str = "float32"

  def build(self, is_training, batch, ops=None):
    slope = tf.get_variable("slope", [],
                            initializer=tf.constant_initializer(0.5))
    found = slope * batch["x"]
    tokens = tf.reduce_sum(batch["there"], axis=1)
    losses = tf.reduce_sum(tf.square(found - batch["y"]) * batch["there"],
                           axis=1) / tokens
    return specs.Outputs(losses, {"found": found},
                         tokens if self.weighted else None)


def gradient(weights):
  """d loss / d slope, by hand, each row counting with its weight."""
  each = np.sum(2 * (0.5 * ROWS["x"] - ROWS["y"]) * ROWS["x"] * ROWS["there"],
                axis=1) / ROWS["there"].sum(axis=1)
  return np.sum(each * weights)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_mean_is_over_the_global_batch(replicas, weighted, monkeypatch):
  """The halves of the batch have 4 and 5 tokens, so that a mean of their means
  would be another."""
  seen = []

  def record(loss, *unused, tvars, **kwargs):
    del kwargs
    # The sum, as the optimizer's: each replica has its share of the loss.
    gradients = tf.gradients(loss, tvars)
    seen.append(tf.distribute.get_replica_context().merge_call(
        lambda strategy, x: strategy.extended.reduce_to(
            tf.distribute.ReduceOp.SUM, x, destinations=x),
        args=(tf.stack(gradients[0]),)))
    return tf.group(tf.train.get_global_step().assign_add(1), seen[-1])

  monkeypatch.setattr(training.optimization, "create_optimizer", record)
  group = (distribution.mirrored("cpu:0,cpu:1") if replicas == 2 else
           distribution.one_device())
  batch = dict(ROWS, example_weights=np.array([1, 1, 1, 0], np.float32))
  with tf.Graph().as_default(), group.strategy.scope():
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    graph = training.train_graph(
        Line(weighted), training.TrainSpec(1, batch_size=3), dataset,
        group.strategy)
    with tf.Session(config=group.configured(
        graphs.session_config())) as session:
      session.run([tf.global_variables_initializer(), graph.start_data])
      loss, found = session.run([graph.loss, seen[0]])
  tokens = np.array([3, 1, 2, 0]) if weighted else np.array([1, 1, 1, 0])
  each = np.sum(np.square(0.5 * ROWS["x"] - ROWS["y"]) * ROWS["there"],
                axis=1) / ROWS["there"].sum(axis=1)
  np.testing.assert_allclose(loss, np.sum(each * tokens) / tokens.sum(),
                             rtol=1e-6)
  np.testing.assert_allclose(found, gradient(tokens / tokens.sum()), rtol=1e-6)


def test_the_seam_has_a_classifier_on_it():
  model = specs.ClassifierSpec(
      modeling.BertConfig.from_dict(dict(
          vocab_size=9, hidden_size=4, num_hidden_layers=1,
          num_attention_heads=2, intermediate_size=3,
          max_position_embeddings=5)), num_labels=3, adapter_size=2)
  with tf.Graph().as_default():
    outputs = model.build(False, model.empty_batch())
    assert outputs.weights is None
    assert outputs.losses.shape.as_list() == [1]
    assert outputs.predictions["outputs"].shape.as_list() == [1, 3]
    assert outputs.predictions["labels"].shape.as_list() == [1]
    assert model.config is model.bert_config
    assert 0 < len(model.tuning.variables()) < len(tf.global_variables())
