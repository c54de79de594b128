"""One pass for the rows of many tasks: what they trained is in tables.

The base of the tasks is frozen, so its products are made for all rows together.
What differs between tasks (adapters, LayerNorms, heads, prefixes) lies in
tables, [n, ...] for n tasks, from which each row gets its own task's. In the
shapes below:

  n tasks in a stack      T groups of rows of one task, R rows in each
  B = T R rows            U texts, of which several rows may ask the same
  S, D, m, P, N, H        as in modeling.py         L labels, the most of a task

A table is as large as its largest task needs. What is padded with zeros changes
nothing: an adapter's zeros add 0 (each activation of 0 is 0), an adapter of
zeros alone is the identity, and a label that a task lacks gets no probability.
A prefix of zeros would be looked at, so tasks in one stack have prefixes of one
length.
"""

import collections
import contextlib
import copy
import dataclasses
import functools
import json
from typing import Any, List, Tuple

import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.ops import fused
import modeling
from adapter_bert.training import specs


@dataclasses.dataclass
class Variable(object):
  """What a model asks tf.get_variable for."""
  shape: List[int]
  dtype: Any
  collections: Tuple[str, ...]

  @property
  def size(self):
    """int: its bytes."""
    return tf.TensorShape(self.shape).num_elements() * self.dtype.size


def variables_of(model):
  """OrderedDict name -> Variable of a specs.ClassifierSpec."""
  found = collections.OrderedDict()

  def note(getter, name, shape=None, dtype=tf.float32, collections=None,
           **kwargs):  # pylint: disable=redefined-outer-name
    del getter, kwargs
    dtype = tf.as_dtype(dtype)
    found[name] = Variable([int(size) for size in shape], dtype,
                           tuple(collections or ()))
    return tf.zeros(shape, dtype)

  with tf.Graph().as_default():
    with tf.variable_scope("", custom_getter=note):
      model.build(False, model.empty_batch())
  return found


def trained_of(model, variables):
  """The names of those of `variables_of` that the model's method trains."""
  return [name for name, variable in variables.items()
          if model.tuning.trains(name, variable.collections)]


def key_of(model, trained):
  """What must be equal of tasks in one stack; None: it can be in none.

  Args:
    model: specs.ClassifierSpec.
    trained: the names of what it trains.
  """
  in_tables = lambda name: (names.is_adapter(name) or names.is_head(name) or
                            names.is_layer_norm(name) or
                            names.is_prefix(name) and "/dense_" not in name)
  if model.adapter_fn is not None or not all(map(in_tables, trained)):
    return None
  prefix = (model.tuning.uses_prefixes and
            (model.prefix_length, model.prefix_positions))
  adapter = model.tuning.uses_adapters and (
      model.adapter_order, model.adapter_act)
  if not adapter:  # It can be with those that have the usual ones.
    adapter = specs.ClassifierSpec.adapter_order, specs.ClassifierSpec.adapter_act
  # Layers that share one adapter cannot leave it out by zeros in one of them.
  layers = (model.bert_config.share_parameter_across_layers and
            model.tuning.uses_adapters and model.adapter_layers)
  return json.dumps([prefix, adapter, layers])


class Single(object):
  """A task on its own: any method, in variables of its own.

  Args:
    model: specs.ClassifierSpec.
    variables: what `variables_of` gave.

  Attributes:
    own, frozen: dicts of name -> Variable.
  """

  def __init__(self, model, variables):
    self._model = model
    trained = set(trained_of(model, variables))
    self.own = {name: v for name, v in variables.items() if name in trained}
    self.frozen = {name: v for name, v in variables.items()
                   if name not in trained}

  def outputs(self, values, batch, numbers, rows=None):
    """float32 [B, L]: see Stack.outputs; numbers is of no importance."""
    del numbers
    if rows is not None:
      batch = {key: tf.gather(batch[key], rows) for key in _INPUTS}
    kind = tf.float32 if self._model.is_regression else tf.int32
    labels = tf.zeros(tf.shape(batch["input_ids"])[:1], kind)
    with _variables(lambda name: values[name]):
      return self._model.build(
          False, dict(batch, label_ids=labels),
          ops=fused.FusedOps()).predictions["outputs"]


_INPUTS = ("input_ids", "input_mask", "segment_ids")


class Stack(object):
  """Tasks whose rows can be in one pass.

  Args:
    models: list of n specs.ClassifierSpec with the same `key_of`, which is not
      None, and the same BERT.
    variables: list of what `variables_of` gave for each.

  Attributes:
    own: OrderedDict of name -> Variable, the tables, [n, ...].
    frozen: OrderedDict of name -> Variable.
    lower: int; this many layers, from below, are the base's for all tasks. -1:
      not even the embeddings are.
  """

  def __init__(self, models, variables):
    self._models = models
    first = models[0]
    self._config = copy.deepcopy(first.bert_config)
    self._dtype = specs.PRECISIONS[first.precision]
    with_adapter = [m for m in models if m.tuning.uses_adapters] or models
    self._adapter_order = with_adapter[0].adapter_order
    self._adapter_act = modeling.get_activation(with_adapter[0].adapter_act)
    trained = set()
    for model, mine in zip(models, variables):
      trained.update(trained_of(model, mine))
    self.own, self.frozen = collections.OrderedDict(), collections.OrderedDict()
    for mine in variables:
      for name, variable in mine.items():
        # The head is always in a table: its rows are the tasks' labels.
        is_own = name in trained or names.is_head(name)
        self._add(self.own if is_own else self.frozen, name, variable, is_own)
    self._with_adapter = sorted(set().union(*(
        _adapter_layers(model) for model in models)))
    self.lower = self._lower()

  def _add(self, found, name, variable, is_own):
    """Adds a variable, or makes a table large enough for it."""
    if not is_own:
      found[name] = variable
      return
    shape, dtype = [len(self._models)] + variable.shape, variable.dtype
    if names.is_adapter(name) and "/weights" in name:
      # A product casts them to this anyway: so they are gathered in it.
      dtype = self._dtype
    if name in found:
      shape = [max(pair) for pair in zip(shape, found[name].shape)]
    found[name] = Variable(shape, dtype, variable.collections)

  def _lower(self):
    layers = self._config.num_hidden_layers
    lower = layers
    for name in self.own:
      layer = names.layer_of(name)
      if names.is_prefix(name) or names.part_of(name) == "embeddings":
        return -1
      if layer:
        is_shared = self._config.share_parameter_across_layers
        lower = min(lower, 0 if is_shared else int(layer.id))
    return lower

  def outputs(self, values, batch, numbers, rows=None):
    """What the tasks say of some rows.

    Args:
      values: dict of name -> variable or tensor, of `own` and `frozen`.
      batch: dict of int32 tensors [U, S], input_ids, input_mask, segment_ids.
      numbers: int32 [T], the task of each group of rows, by its place in the
        stack; the rows of a group are neighbours.
      rows: int32 [B], the text of each row; None: each text is a row.

    Returns: float32 [B, L]; probabilities, 0 behind a task's own labels. Of a
      regression the first is the score, and the others are 0.
    """
    ops, config = RowOps(tf.size(numbers)), self._config
    ids, mask, segments = [batch[key] for key in _INPUTS]
    take = lambda tensor: tensor if rows is None else tf.gather(tensor, rows)
    gathered = {}  # Layers that share their weights gather them once.

    def value_of(name):
      if name not in self.own:
        return values[name]
      if name not in gathered:
        gathered[name] = tf.gather(values[name], numbers)
      return gathered[name]

    if self.lower < 0:
      ids, mask, segments = take(ids), take(mask), take(segments)
    with _variables(value_of), tf.variable_scope("bert"):
      prefixes, shift = self._prefixes(value_of, ids, ops)
      with tf.variable_scope("embeddings"):
        hidden = _embed(config, ids, segments, shift, ops)
      if self.lower > 0:
        hidden = self._layers(hidden, mask, range(self.lower), prefixes, ops)
      if self.lower >= 0:
        hidden, mask = take(hidden), take(mask)
      rest = range(max(self.lower, 0), config.num_hidden_layers)
      if rest:
        hidden = self._layers(hidden, mask, rest, prefixes, ops)
      with tf.variable_scope("pooler"):
        pooled = modeling.dense(hidden[:, 0, :], config.hidden_size, tf.tanh,
                                ops=ops)
    return self._head(pooled, value_of, numbers, ops)

  def _layers(self, hidden, mask, layers, prefixes, ops):
    """Some layers of the encoder: [B, S, D] -> [B, S, D]."""
    config, first = self._config, layers[0]

    def in_place(getter, name, **kwargs):
      # transformer_model counts its layers from 0.
      layer = names.layer_of(name)
      if first and layer:
        name = names.in_layer(name, int(layer.id) + first)
      return getter(name, **kwargs)

    with tf.variable_scope("encoder", custom_getter=in_place):
      return modeling.transformer_model(
          hidden, tf.expand_dims(mask, 1), config.hidden_size, len(layers),
          config.num_attention_heads, config.intermediate_size,
          modeling.get_activation(config.hidden_act), 0.0, 0.0,
          adapter_fn=functools.partial(ops.adapter,
                                       activation=self._adapter_act),
          adapter_order=self._adapter_order,
          share_parameter_across_layers=config.share_parameter_across_layers,
          layers_per_group=config.layers_per_group,
          share_adapters=config.share_adapters,
          adapter_layers=[layer - first for layer in self._with_adapter
                          if layer in layers],
          prefix_fn=prefixes[first:first + len(layers)], ops=ops)

  def _prefixes(self, value_of, ids, ops):
    """([key, value] for each layer, [B, N, P, H], or Nones; the first position).
    """
    config, model = self._config, self._models[0]
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if not model.tuning.uses_prefixes:
      return [None] * layers, 0
    length = model.prefix_length
    table = tf.reshape(value_of("bert/prefix/embeddings"), [
        -1, length, layers, 2, heads, config.hidden_size // heads])
    # [T, P, layers, 2, N, H] -> [layers, 2, B, N, P, H]
    table = tf.repeat(table, tf.shape(ids)[0] // ops.groups, axis=0)
    table = tf.transpose(table, [2, 3, 0, 4, 1, 5])
    return ([tf.unstack(layer) for layer in tf.unstack(table)],
            length if model.prefix_positions == "after" else 0)

  def _head(self, pooled, value_of, numbers, ops):
    """[B, D] -> [B, L]."""
    pooled = ops.by_group(modeling.at_least_float32(pooled))      # [T, R, D]
    logits = tf.matmul(pooled, value_of("output_weights"), transpose_b=True)
    logits += value_of("output_bias")[:, tf.newaxis]              # [T, R, L]
    width = self.own["output_bias"].shape[1]
    labels = tf.constant([[i < model.num_labels for i in range(width)]
                          for model in self._models])
    has_label = tf.gather(labels, numbers)[:, tf.newaxis]
    probabilities = tf.nn.softmax(tf.where(
        tf.broadcast_to(has_label, tf.shape(logits)), logits,
        tf.fill(tf.shape(logits), logits.dtype.min)))
    is_score = tf.gather(tf.constant([
        model.is_regression for model in self._models]), numbers)
    outputs = tf.where(
        tf.broadcast_to(is_score[:, tf.newaxis, tf.newaxis], tf.shape(logits)),
        logits * tf.cast(has_label, logits.dtype), probabilities)
    return tf.reshape(outputs, [-1, width])


class RowOps(fused.FusedOps):
  """modeling's arithmetic, where each group of rows has its own LayerNorm.

  Args:
    groups: int32 scalar tensor, T.
  """

  def __init__(self, groups):
    self.groups = groups

  def by_group(self, x):
    """[..., width] -> [T, rows of a group, width]."""
    return tf.reshape(x, [self.groups, -1, x.shape[-1]])

  def layer_norm(self, x, beta, gamma, residual=None,
                 epsilon=modeling.LAYER_NORM_EPSILON):
    """See PlainOps; or beta and gamma are [T, D]."""
    if beta.shape.ndims == 1:
      return super().layer_norm(x, beta, gamma, residual, epsilon)
    # Grappler drops a product with ones that it sees, and the kernel with it.
    ones, zeros = [tf.placeholder_with_default(
        tf.fill(x.shape[-1:], value), x.shape[-1:]) for value in (1.0, 0.0)]
    normal = self.by_group(super().layer_norm(x, zeros, ones, residual, epsilon))
    output = (normal * tf.cast(gamma[:, tf.newaxis], x.dtype) +
              tf.cast(beta[:, tf.newaxis], x.dtype))
    output = tf.reshape(output, tf.shape(x))
    output.set_shape(x.shape)
    return output

  def adapter(self, x, activation):
    """modeling.feedforward_adapter with a group's own weights, [T, D, m]."""
    with tf.variable_scope("adapters"):
      weights1, biases1, weights2, biases2 = [
          tf.get_variable(name)
          for name in ("weights1", "biases1", "weights2", "biases2")]
    rows = self.by_group(x)
    bottleneck = tf.matmul(rows, weights1)                        # [T, R S, m]
    bottleneck = self.activation(
        activation, bottleneck + tf.cast(biases1, x.dtype))
    output = rows + (tf.matmul(bottleneck, weights2) +
                     tf.cast(biases2, x.dtype))
    return tf.reshape(output, [-1, x.shape[-1]])


@contextlib.contextmanager
def _variables(value_of):
  """Inside, tf.get_variable gives value_of(name); names are those inside."""
  with tf.variable_scope(None, default_name="model") as scope:
    # A scope of its own, so that the model's second call is no "bert_1".
    start = len(scope.name) + 1
    with tf.variable_scope(
        scope, auxiliary_name_scope=False,
        custom_getter=lambda getter, name, **kwargs: value_of(name[start:])):
      yield


def _adapter_layers(model):
  """The layers in which a model has adapters: a collection of ints."""
  if not model.tuning.uses_adapters:
    return ()
  layers = range(model.bert_config.num_hidden_layers)
  return layers if model.adapter_layers is None else model.adapter_layers


def _embed(config, ids, segments, shift, ops):
  """What goes into the first layer, [U, S, D], as modeling.BertModel has it."""
  width = config.embedding_size or config.hidden_size
  words, _ = modeling.embedding_lookup(ids, config.vocab_size, width)
  if width != config.hidden_size:
    projection = tf.get_variable("word_embeddings_2")
    shape = modeling.get_shape_list(words)
    words = modeling.reshape_from_matrix(tf.matmul(
        modeling.reshape_to_matrix(words), projection), shape)
  return modeling.embedding_postprocessor(
      words, True, segments, config.type_vocab_size,
      max_position_embeddings=config.max_position_embeddings, dropout_prob=0.0,
      first_position=shift, ops=ops)
