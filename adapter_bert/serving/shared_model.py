"""The models of several tasks in one graph and session; what is frozen is there
once.
"""

import collections
import functools
import json

import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.checkpoints import matching
from adapter_bert.checkpoints import record as run_record
from adapter_bert.data import datasets
from adapter_bert.ops import fused
from adapter_bert.serving import stacks
from adapter_bert.training import graphs
from adapter_bert.training import specs


class SharedModel(object):
  """The models of several tasks over one base, loaded.

  Tasks that can be in one pass are in one stacks.Stack; each of the others is a
  stacks.Single.

  Args:
    tasks: list of TaskCheckpoint.
    base: weights.Weights.

  Attributes:
    tasks: as given.
    graph, session: with all variables, loaded.
    groups: list of stacks.Stack and stacks.Single.
    members: for each group, the places of its tasks in `tasks`.
    shared: the names of the variables that not every task trained, from the base.
    shared_bytes: int, theirs.
    own_bytes: for each task, the bytes of what it trained.
    padding_bytes: int, what the tables have beyond that.

  Raises: InputError if a checkpoint is damaged, lacks a variable or has one of
    another shape.
  """

  def __init__(self, tasks, base):
    self.tasks = tasks
    self.groups, self.members = [], []
    self._values = []  # for each group, name -> variable
    self.own_bytes = [None] * len(tasks)
    sources = _sources(tasks, base)
    # Read before variables are made: what is damaged is found at once.
    with tf.Graph().as_default() as self.graph:
      self.session = tf.Session(graph=self.graph,
                                config=graphs.session_config())
      shared = {}
      for number, places in enumerate(_grouped(sources)):
        self._add_group("group_%d" % number, places,
                        [sources[place] for place in places], shared)
    self.shared = sorted(shared)
    self.shared_bytes = sum({name: variable.size for group in self.groups
                             for name, variable in group.frozen.items()}.values())
    tables = sum(variable.size for group in self.groups
                 for variable in group.own.values())
    self.padding_bytes = tables - sum(self.own_bytes)

  def _add_group(self, scope, places, sources, shared):
    """Makes and loads the variables of some tasks.

    Args:
      scope: str, a variable scope for what they trained.
      places: list of int. sources: list of _Source.
      shared: dict of name -> variable, those that are there already.
    """
    models = [source.model for source in sources]
    key = stacks.key_of(models[0], sources[0].trained)
    group = (stacks.Single(models[0], sources[0].variables) if key is None else
             stacks.Stack(models, [source.variables for source in sources]))
    for name, variable in group.frozen.items():
      if name not in shared:
        shared[name] = self._variable(
            name, variable, _holder(name, sources).value(name), is_frozen=True)
    values = {name: shared[name] for name in group.frozen}
    for name, variable in group.own.items():
      value = (sources[0].value(name) if key is None else
               table_of(variable.shape, [
                   source.value(name) if name in source.variables else None
                   for source in sources]))
      values[name] = self._variable("%s/%s" % (scope, name), variable, value)
    for place, source in zip(places, sources):
      self.own_bytes[place] = sum(
          tf.TensorShape(source.variables[name].shape).num_elements() *
          group.own[name].dtype.size for name in source.trained)
    self.groups.append(group)
    self.members.append(places)
    self._values.append(values)

  def _variable(self, name, variable, value, is_frozen=False):
    """A variable with a value, a numpy array; see fused.get_variable."""
    getter = tf.get_variable
    if is_frozen:
      getter = functools.partial(fused.get_variable, getter)
    made = getter(name, shape=variable.shape, dtype=variable.dtype,
                  initializer=tf.zeros_initializer())
    stored, value = fused.stored(made, value)
    # Fed to the op that initialises it, so that the graph needs no other.
    self.session.run(stored.initializer, {
        stored.initializer.inputs[1]: value.astype(
            variable.dtype.as_numpy_dtype)})
    return made

  def outputs(self, group, batch, numbers, rows=None):
    """Builds what the tasks of a group say; see stacks.Stack.outputs.

    Args:
      group: int, its number.
    """
    return self.groups[group].outputs(self._values[group], batch, numbers, rows)

  def is_stack(self, group):
    """Whether rows of several tasks can be in one pass of a group."""
    return isinstance(self.groups[group], stacks.Stack)

  def group_of(self, place):
    """(The group of a task, its place in the group), ints."""
    for group, members in enumerate(self.members):
      if place in members:
        return group, members.index(place)
    raise ValueError("there is no task %d" % place)


class RecordModel(object):
  """Runs a SharedModel on serialized examples (features.serialized).

  Args:
    model: SharedModel.
    max_seq_length: int, of the records that will come.
  """

  def __init__(self, model, max_seq_length):
    self._session = model.session
    with model.graph.as_default():
      self._records = tf.placeholder(tf.string, [None])
      self._numbers = tf.placeholder(tf.int32, [None])
      self._rows = tf.placeholder(tf.int32, [None])
      batch = datasets.batch_of(self._records, max_seq_length)
      self._outputs = [
          model.outputs(group, batch, self._numbers, self._rows)
          for group in range(len(model.groups))]

  def run(self, group, records, numbers, rows):
    """float32 [B, L]; see stacks.Stack.outputs.

    Args:
      group: int.
      records: list of U bytes.
      numbers: list of T ints. rows: list of B ints.
    """
    return self._session.run(self._outputs[group], {
        self._records: records, self._numbers: numbers, self._rows: rows})


# ------------------------------------------------- where each value comes from


class _Source(object):
  """A task's variables and their values.

  Args:
    task: TaskCheckpoint.
    weights: weights.Weights, the checkpoint over the base.
    variables, all_variables: what stacks.variables_of gives for the model as it
      is built, and as it was trained.

  Attributes:
    model, variables: of the model that is built.
    trained: list of str, the names of those that the task has of its own.

  Raises: InputError.
  """

  def __init__(self, task, weights, variables, all_variables):
    self.model, self.variables = task.built_model, variables
    self._weights = weights
    may_be_new = [name for name, variable in all_variables.items()
                  if set(matching.MAY_BE_NEW) & set(variable.collections)]
    self._found = matching.match_shapes(
        {name: v.shape for name, v in all_variables.items()}, may_be_new, weights,
        task.model.bert_config, task.record.get("init_shared_from"))
    trained = stacks.trained_of(task.model, all_variables)
    _check_trained(task, weights,
                   {name: all_variables[name].shape for name in trained})
    self.trained = [name for name in trained if name in variables]
    for name in self._found.new:
      raise errors.InputError(
          "%s: %s is not in it (tune=%s), nor in its base; leave out "
          "init_checkpoint, so that the base is the one in its %s" %
          (task.prefix, name, task.model.tune, run_record.FILE))

  def value(self, name):
    """numpy array."""
    values = [self._weights.value(start) for start in self._found.loaded[name]]
    return values[0] if len(values) == 1 else np.mean(values, axis=0)


def _sources(tasks, base):
  """The _Source of each task; models that are alike are looked at once."""
  known = {}

  def variables_of(model):
    key = json.dumps(dict(specs.describe_model(model), bert_config=None,
                          is_regression=model.is_regression), sort_keys=True)
    if key not in known:
      known[key] = stacks.variables_of(model)
    return known[key]

  return [_Source(task, base.with_top(task.prefix),
                  variables_of(task.built_model), variables_of(task.model))
          for task in tasks]


def _grouped(sources):
  """Lists of the places of those that can be in one stack."""
  groups = collections.OrderedDict()
  for place, source in enumerate(sources):
    key = stacks.key_of(source.model, source.trained)
    groups.setdefault(key or place, []).append(place)
  return list(groups.values())


def _holder(name, sources):
  """The first _Source whose model has a variable."""
  return next(source for source in sources if name in source.variables)


def table_of(shape, values):
  """Arrays in one, padded with zeros: float32 of that shape, [n, ...].

  Args:
    values: n arrays, or None in place of one that is all zeros.
  """
  table = np.zeros(shape, np.float32)
  for row, value in zip(table, values):
    if value is not None:
      row[tuple(slice(size) for size in value.shape)] = value
  return table


def _check_trained(task, weights, trained):
  """Raises InputError unless a checkpoint has just what its task trained.

  Args:
    task: TaskCheckpoint.
    weights: weights.Weights, it over the base.
    trained: dict of name -> shape.
  """
  held = set(name for name in weights.shapes if weights.is_on_top(name) and
             names.is_model_variable(name))
  for name in sorted(held ^ set(trained)):
    raise errors.InputError(
        "%s: %s %s, and the model in its %s (tune=%s) %s it; the two are not "
        "of one run" % (task.prefix, "has" if name in held else "lacks", name,
                        run_record.FILE, task.model.tune,
                        "trains" if name in trained else "does not train"))
  for name, shape in trained.items():
    if weights.shapes[name] != shape:
      raise errors.InputError(
          "%s: %s has shape %s, and the task %s with %d outputs needs %s" %
          (task.prefix, name, weights.shapes[name], task.task.display_name,
           task.model.num_labels, shape))
