"""What is measured of this project: the step that run_classifier.py trains."""

import collections

import tensorflow.compat.v1 as tf

from adapter_bert.data import datasets
from adapter_bert.models import families
from adapter_bert.training import graphs
from adapter_bert.training import loop as training
from adapter_bert.training import sequence_specs
from adapter_bert.training import specs
import modeling

PREFIX_LENGTH = 20
PREFIX_HIDDEN_SIZE = 512


class Subject(object):
  """A model of random weights, and its training step.

  Args:
    config: dict, as a bert_config.json, or a config.json with a model_type.
    adapters: str, the layers with adapters: "all", "upper" for the upper half
      of the layers, or "none" to train the whole model without adapters;
      "prefix" or "prefix-mlp" for prefixes in their place.
    precision: str, see specs.PRECISIONS.
    batch_size: int.
  """

  def __init__(self, config, adapters, precision, batch_size):
    graphs.enable_graph_mode()
    tf.logging.set_verbosity(tf.logging.ERROR)
    self._batches = collections.deque()
    with tf.Graph().as_default():
      dataset = tf.data.Dataset.from_generator(
          self._next, *_signature(batch_size, "model_type" in config))
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
    return time_by_type(metadata)


def time_by_type(metadata):
  """{type of op: (seconds, number of them)} of a traced run."""
  found = {}
  for device in metadata.step_stats.dev_stats:
    for node in device.node_stats:
      kind = _op_type(node)
      seconds, count = found.get(kind, (0.0, 0))
      found[kind] = (seconds + node.op_end_rel_micros / 1e6, count + 1)
  return found


def _model(config, adapters, precision):
  """The specs.ModelSpec of a Subject's arguments."""
  options = dict(precision=precision, tune="adapters")
  if adapters == "none":
    options.update(tune="full")
  elif adapters.startswith("prefix"):
    options.update(tune="prefix", prefix_length=PREFIX_LENGTH)
    if adapters == "prefix-mlp":
      options.update(prefix_hidden_size=PREFIX_HIDDEN_SIZE)
  if "model_type" in config:
    return sequence_specs.SequenceSpec(
        families.config_from_dict(config, "benchmark"), **options)
  config = modeling.BertConfig.from_dict(config)
  if adapters == "upper":
    # No LayerNorm: with those of the lower layers, gradients go down to them.
    layers = config.num_hidden_layers
    options.update(tune="adapters+head",
                   adapter_layers=list(range(layers // 2, layers)))
  return specs.ClassifierSpec(config, num_labels=2, **options)


def _signature(batch_size, is_sequence):
  """(types, shapes) of the batches that datasets.py makes."""
  tokens = (["source_ids", "source_mask", "target_ids", "target_mask"]
            if is_sequence else ["input_ids", "input_mask", "segment_ids"])
  types = dict({name: tf.int32 for name in tokens}, example_index=tf.int64,
               example_weights=tf.float32)
  if not is_sequence:
    types["label_ids"] = tf.int32
  return types, {name: [batch_size, None] if name in tokens else [batch_size]
                 for name in types}


def _op_type(node):
  """The type of the op that a NodeExecStats is of."""
  # "name = Type(inputs)"; a name alone where the runtime itself is at work.
  label = node.timeline_label.partition(" = ")[2] or node.node_name
  return label.partition("(")[0].partition(":")[0]
