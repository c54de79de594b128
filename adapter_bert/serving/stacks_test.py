"""A stack says of each row what the row's model says on its own."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util as tiny
from adapter_bert.serving import shared_model
from adapter_bert.serving import stacks
from adapter_bert.serving import test_util
from adapter_bert.training import graphs
from adapter_bert.training import specs

graphs.enable_graph_mode()

STACKS = {
    "sizes": ({}, [dict(adapter_size=2), dict(adapter_size=5, num_labels=4),
                   dict(tune="head"), dict(tune="layer_norm", num_labels=2),
                   dict(adapter_layers=[1]),
                   dict(num_labels=1, is_regression=True)]),
    "upper": ({}, [dict(tune="adapters+head", adapter_layers=[1, 2]),
                   dict(tune="head"),
                   dict(tune="adapters+head", adapter_layers=[2])]),
    "heads": ({}, [dict(tune="head"), dict(tune="head")]),
    "prefix": ({}, [dict(tune="prefix"), dict(tune="prefixes+adapters+head"),
                    dict(tune="prefix")]),
    "unshifted": ({}, [dict(tune="prefix", prefix_positions="unshifted")] * 2),
    "factorised": (dict(embedding_size=6), [{}, dict(tune="head")]),
    "pfeiffer": ({}, [dict(adapter_order="pfeiffer", adapter_act="relu"),
                      dict(adapter_order="pfeiffer", adapter_act="relu",
                           adapter_layers=[1], adapter_size=2)]),
    "shared": (dict(share_parameter_across_layers=True, share_adapters=False),
               [{}, dict(adapter_size=3)]),
    "groups": (dict(share_parameter_across_layers=True, layers_per_group=2),
               [dict(adapter_layers=[0, 2])] * 2),
}


def model_of(config, **fields):
  return specs.ClassifierSpec(config, **dict(dict(
      num_labels=3, adapter_size=4, prefix_length=2), **fields))


@pytest.mark.parametrize("name", STACKS)
def test_rows_are_as_alone(name):
  changes, fields = STACKS[name]
  config = tiny.tiny_config(**changes)
  models = [model_of(config, **each) for each in fields]
  variables = [stacks.variables_of(model) for model in models]
  keys = {stacks.key_of(model, stacks.trained_of(model, mine))
          for model, mine in zip(models, variables)}
  assert len(keys) == 1 and None not in keys
  values = []  # of each task: what is frozen is the same in all of them
  for seed, (model, mine) in enumerate(zip(models, variables), 1):
    trained = stacks.trained_of(model, mine)
    values.append({
        key: test_util.random_value(key, variable.shape,
                                    seed if key in trained else 0)
        for key, variable in mine.items()})
  stack = stacks.Stack(models, variables)
  assert stack.lower == {"sizes": -1, "upper": 1, "heads": 3, "factorised": -1,
                         }.get(name, -1)
  inputs = tiny.tiny_batch(batch_size=4)
  numbers = np.array([len(models) - 1, 0, 1, 0], np.int32)  # 2 rows in each
  rows = np.array([0, 3, 3, 1, 2, 2, 2, 1], np.int32)

  with tf.Graph().as_default(), tf.Session() as session:
    batch = {"input_ids": tf.constant(inputs["input_ids"]),
             "input_mask": tf.constant(inputs["input_mask"]),
             "segment_ids": tf.constant(inputs["token_type_ids"])}
    merged = dict(pair for mine in reversed(values) for pair in mine.items())
    for key, table in stack.own.items():
      merged[key] = shared_model.table_of(table.shape, [
          mine.get(key) for mine in values])
    found = session.run(stack.outputs(merged_tensors(merged), batch,
                                      tf.constant(numbers), tf.constant(rows)))
    alone = session.run([plain_outputs(model, merged_tensors(own), batch)
                         for model, own in zip(models, values)])
  assert np.ptp([outputs[0, 0] for outputs in alone]) > 1e-3
  for i, row in enumerate(rows):
    expected = alone[numbers[i // 2]][row]
    np.testing.assert_allclose(found[i, :len(expected)], expected, atol=2e-6)
    assert not found[i, len(expected):].any()


def plain_outputs(model, values, batch):
  """What the model says of a batch, in modeling's own arithmetic."""
  kind = tf.float32 if model.is_regression else tf.int32
  labels = tf.zeros(tf.shape(batch["input_ids"])[:1], kind)
  with tf.variable_scope("", custom_getter=lambda getter, name, **kwargs:
                         values[name]):
    return model.build(False, dict(batch, label_ids=labels)).predictions[
        "outputs"]


def merged_tensors(arrays):
  return {name: tf.constant(array) for name, array in arrays.items()}


def test_what_cannot_be_in_one_stack():
  config = tiny.tiny_config()
  key = lambda **fields: stacks.key_of(
      model_of(config, **fields), stacks.trained_of(
          model_of(config, **fields),
          stacks.variables_of(model_of(config, **fields))))
  assert key(tune="full") is None
  assert key(tune="top_n", top_n_layers=1) is None
  assert key(fresh_pooler=True) is None
  assert key(tune="prefix", prefix_hidden_size=3) is None
  assert key(tune="prefix") != key(tune="prefix", prefix_length=3)
  assert key(tune="prefix") != key()
  assert key(adapter_act="relu") != key() != key(adapter_order="pfeiffer")
  assert key(tune="head") == key() == key(adapter_layers=[0])
