"""What is measured of this project: the step that run_classifier.py trains."""

import collections

import tensorflow.compat.v1 as tf

from adapter_bert.data import datasets
import modeling
from adapter_bert.training import graphs
from adapter_bert.training import loop as training
from adapter_bert.training import specs


class Subject(object):
  """A model of random weights, and its training step.

  Args:
    config: dict, as a bert_config.json.
    adapters: str, the layers with adapters: "all", "upper" for the upper half
      of the layers, or "none" to train the whole model without adapters.
    precision: str, see specs.PRECISIONS.
    batch_size: int.
  """

  def __init__(self, config, adapters, precision, batch_size):
    graphs.enable_graph_mode()
    tf.logging.set_verbosity(tf.logging.ERROR)
    self._batches = collections.deque()
    with tf.Graph().as_default():
      dataset = tf.data.Dataset.from_generator(
          self._next, *_signature(batch_size))
      options = tf.data.Options()
      # Or it asks for the batch after the last.
      options.experimental_optimization.inject_prefetch = False
      dataset = dataset.with_options(options)
      spec = training.TrainSpec(num_train_steps=1000, num_warmup_steps=100,
                                batch_size=batch_size)
      self._graph = training.train_graph(
          _model(config, adapters, precision), spec, dataset,
          tf.distribute.get_strategy())
      self._session = tf.Session(config=graphs.session_config())
      self._session.run(tf.global_variables_initializer())
      self._session.run(self._graph.start_data)

  @staticmethod
  def padded_length(longest):
    return datasets.padded_length(longest, 512)

  def _next(self):
    while True:
      yield self._batches.popleft()

  def steps(self, batches):
    """Trains on these batches."""
    self._batches.extend(batches)
    for _ in batches:
      self._session.run(self._graph.train_op)

  def profile(self, batch):
    """Trains on a batch. Returns {type of op: (seconds, number of them)}."""
    self._batches.append(batch)
    metadata = tf.RunMetadata()
    self._session.run(
        self._graph.train_op, run_metadata=metadata,
        options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE))
    found = {}
    for device in metadata.step_stats.dev_stats:
      for node in device.node_stats:
        kind = _op_type(node)
        seconds, count = found.get(kind, (0.0, 0))
        found[kind] = (seconds + node.op_end_rel_micros / 1e6, count + 1)
    return found


def _model(config, adapters, precision):
  """The specs.ClassifierSpec of a Subject's arguments."""
  config = modeling.BertConfig.from_dict(config)
  model = specs.ClassifierSpec(bert_config=config, num_labels=2,
                               precision=precision)
  if adapters == "none":
    model.tune = "full"
  elif adapters == "upper":
    # No LayerNorm: with those of the lower layers, gradients go down to them.
    model.tune = "adapters+head"
    layers = config.num_hidden_layers
    model.adapter_layers = list(range(layers // 2, layers))
  return model


def _signature(batch_size):
  """(types, shapes) of the batches that datasets.py makes."""
  tokens = ["input_ids", "input_mask", "segment_ids"]
  types = dict({name: tf.int32 for name in tokens}, label_ids=tf.int32,
               example_weights=tf.float32, example_index=tf.int64)
  return types, {name: [batch_size, None] if name in tokens else [batch_size]
                 for name in types}


def _op_type(node):
  """The type of the op that a NodeExecStats is of."""
  # "name = Type(inputs)"; a name alone where the runtime itself is at work.
  label = node.timeline_label.partition(" = ")[2] or node.node_name
  return label.partition("(")[0].partition(":")[0]
