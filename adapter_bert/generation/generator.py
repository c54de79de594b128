"""Sequence models in one session that go on from prompts.

Several task checkpoints can stand over one model: what none of them trained is
in memory once, and each adds what it trained.
"""

import dataclasses
import functools
import os
from typing import Any, Dict, List, Tuple

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import names as names_lib
from adapter_bert.base import errors
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.generation import search
from adapter_bert.models import families
from adapter_bert.ops import fused
from adapter_bert.training import sequence_specs

_LOADED_AT_ONCE = 2**26  # bytes


@dataclasses.dataclass
class Task(object):
  """A model that generates: the base, with what a run trained over it.

  name: str, in the output; no two are equal.
  where: str, the checkpoint, for messages.
  spec: sequence_specs.SequenceSpec.
  weights: dict of variable name -> numpy array, what it trained.
  source_end: tuple of token ids that the run put behind each source: GPT-2's
    separator.
  record: dict, the run.json of the run.
  """
  name: str
  where: str
  spec: sequence_specs.SequenceSpec
  weights: Dict[str, Any]
  source_end: Tuple[int, ...] = ()
  record: Dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Result(object):
  """One thing that was generated.

  ids: list of int, up to the end and with it, without the prompt.
  score: float, see search.Found.
  """
  ids: List[int]
  score: float


def read_tasks(paths, config, base, precision, force_base=False,
               adapter_fn=None):
  """The Tasks at some paths; without paths the base alone.

  Args:
    paths: None, or list of str, what checkpoints.weights.find takes.
    config: the config of the base.
    base: mapping of name -> array, the base's weights.
    precision: a key of training.specs.PRECISIONS.
    force_base: bool, take checkpoints of another base with a warning.
    adapter_fn: the flag, see own_adapters.load_recorded.

  Raises: InputError naming the checkpoint that cannot be used.
  """
  if not paths:
    return [Task("", "", sequence_specs.SequenceSpec(
        config=config, precision=precision), {})]
  tasks, digest = [], sequence_weights.digest(base)
  for path in paths:
    prefix = weights_lib.find(path)
    directory = os.path.dirname(prefix)
    record = run_record.read(directory) or {}
    spec = sequence_specs.from_record(record, "%s: its %s" % (
        prefix, run_record.FILE), precision, adapter_fn)
    _check_base(prefix, record, spec.config, config, digest, force_base)
    weights = weights_lib.Weights([prefix])
    values = {name: weights.value(name) for name in weights.shapes
              if names_lib.is_model_variable(name)}
    spec = spec.stored_in(values)
    name = os.path.basename(os.path.dirname(os.path.abspath(directory)))
    same = sum(task.name.split("#")[0] == name for task in tasks)
    tasks.append(Task(name + ("#%d" % (same + 1) if same else ""), prefix, spec,
                      values, tuple(record.get("source_end", ())), record))
  return tasks


def _check_base(prefix, record, config, base_config, digest, force_base):
  """Raises InputError for a checkpoint that was trained on another base."""
  for key in base_config.KEYS:
    values = getattr(config, key, None), getattr(base_config, key)
    if config.MODEL_TYPE != base_config.MODEL_TYPE or (
        values[0] != values[1] and "drop" not in key):
      raise errors.InputError(
          "%s was trained on a %s with %s=%s, and model_dir has a %s with %s=%s"
          % (prefix, config.MODEL_TYPE, key, values[0], base_config.MODEL_TYPE,
             key, values[1]))
  recorded = run_record.base_of(record)
  if not recorded or recorded["sha256"] == digest:
    return
  if not force_base:
    raise errors.InputError(
        "%s was trained on other weights than those in model_dir (digest %s..., "
        "here %s...); give the directory %s, or force_base" %
        (prefix, recorded["sha256"][:12], digest[:12], recorded["path"]))
  logging.warning("%s was trained on other weights than those in model_dir; "
                  "taken all the same", prefix)


class Generator(object):
  """Models over the same base, with one way to search.

  Args:
    tasks: non-empty list of Task.
    base: mapping of variable name -> numpy array, the pre-trained weights.
    options: search.Options, validated.

  Attributes:
    config: the config of the base. names: list of str, of the tasks.
    source_end: tuple of the token ids that belong behind a text.

  Raises: InputError if a variable is nowhere, is left over, or has another
    shape, and for tasks that do not put the same tokens behind a text.
  """

  def __init__(self, tasks, base, options):
    self.config = tasks[0].spec.config
    self.names = [task.name for task in tasks]
    self.source_end = _common_source_end(tasks)
    self._tasks, self._options = tasks, options
    self._has_encoder = families.of_config(self.config).has_encoder
    shared, self._owned, self._found = {}, [], []
    with tf.Graph().as_default() as graph:
      self._ids = tf.placeholder(tf.int32, [None, None])
      self._mask = tf.placeholder(tf.int32, [None, None])
      self._seeds = tf.placeholder(tf.int32, [None, 2])
      for number, task in enumerate(tasks):
        found, own = self._build(task, "task_%d" % number, shared)
        self._found.append(found)
        self._owned.append(own)
      self._session = tf.Session(graph=graph)
      for task, own in zip(tasks, self._owned):
        for name in set(task.weights) - set(own):
          raise errors.InputError("%s has %s, for which its model has no "
                                  "variable" % (task.where, name))
        self._load(own, task.weights)
      self._load(shared, base)

  def _build(self, task, scope, shared):
    """(search.Found, the variables of its own by their name in checkpoints).

    Args:
      task: Task.
      scope: str, for what it trained.
      shared: dict of name -> variable, of all tasks; gets those that it lacks.
    """
    own = {}

    def own_or_shared(getter, name, **kwargs):
      plain = name[len(scope) + 1:]
      kwargs["initializer"] = tf.zeros_initializer()  # never run, and small
      in_collections = kwargs.get("collections") or ()
      if not set(task.spec.tuning.COLLECTIONS) & set(in_collections):
        getter = functools.partial(fused.get_variable, getter)
      if plain in task.weights:
        own[plain] = getter(name, **kwargs)
        return own[plain]
      if task.weights and task.spec.tuning.trains(plain, in_collections):
        raise errors.InputError(
            "%s lacks %s, which a run with tune=%s trains" %
            (task.where, plain, task.spec.tune))
      shared[plain] = getter(plain, **dict(kwargs, reuse=tf.AUTO_REUSE))
      return shared[plain]

    # Read once, before the loop, and not at every token.
    with tf.variable_scope(scope, custom_getter=own_or_shared,
                           caching_device=lambda op: op.device):
      model = task.spec.model(
          False, {"input_ids": self._ids, "input_mask": self._mask},
          ops=fused.FusedOps(), frozen=True)
    found = search.search(model.start(self._options.slots), self._options,
                          self._seeds)
    return found, own

  def put(self, place, weights):
    """Puts the values of another checkpoint into a task's variables.

    Args:
      place: int, the task's place in the list.
      weights: dict of name -> array, as Task.weights: the same names and shapes.
    """
    if set(weights) != set(self._owned[place]):
      raise ValueError("another checkpoint must have the same variables")
    self._load(self._owned[place], weights)

  def _load(self, variables, values):
    """Puts values into variables, by their names, in the variables' types."""
    fed, size = {}, 0
    for name, variable in variables.items():
      if name not in values:
        raise errors.InputError("%s is not in the model's weights" % name)
      value = np.asarray(values[name])
      if list(value.shape) != variable.shape.as_list():
        raise errors.InputError(
            "%s has shape %s, and the model needs %s" %
            (name, list(value.shape), variable.shape.as_list()))
      variable, value = fused.stored(variable, value)
      fed[variable.initializer] = value.astype(variable.dtype.as_numpy_dtype)
      size += value.nbytes
      # Not one by one, for each set of ops costs a look at the whole graph; nor
      # all at once, for the values are in memory beside the variables.
      if size >= _LOADED_AT_ONCE:
        self._assign(fed)
        fed, size = {}, 0
    self._assign(fed)

  def _assign(self, fed):
    """Runs initializers with the values that they are to take."""
    if fed:
      self._session.run(list(fed), {
          op.inputs[1]: value for op, value in fed.items()})

  @property
  def session(self):
    """The tf.Session with all variables, loaded; of a graph of its own."""
    return self._session

  def tensors(self, place):
    """What a task's search is asked and what it finds, for whoever exports it.

    Args:
      place: int, the task's place in the list.

    Returns: (dict of name -> placeholder, dict of name -> tensor). The inputs
      are padded on the left if the model has no encoder, else on the right.
    """
    inputs = {"input_ids": self._ids, "input_mask": self._mask}
    if self._options.do_sample:
      inputs["seeds"] = self._seeds
    found = self._found[place]
    return inputs, {"output_ids": found.ids, "lengths": found.lengths,
                    "scores": found.scores}

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._session.close()

  def check_length(self, prompt, where):
    """Raises InputError if a prompt and what follows do not fit.

    Args:
      prompt: list of int.
      where: str, its line.
    """
    positions = families.positions(self.config)
    if positions is None:
      return
    key, most = positions
    new = self._options.max_new_tokens
    first = max(task.spec.first_position for task in self._tasks)
    if self._has_encoder:
      for count, what in (
          (len(prompt), "the source has %d tokens"),
          (new + 1 + first, "max_new_tokens and what is before them are %d")):
        if count > most:
          raise errors.InputError("%s: %s, and the model has %d positions (%s)" %
                                  (where, what % count, most, key))
      return
    if len(prompt) + new + first > most:
      raise errors.InputError(
          "%s: %d prompt tokens + %d max_new_tokens%s are more than the model's "
          "%d positions (%s)" %
          (where, len(prompt), new, " + %d of the prefix" % first if first else
           "", most, key))

  def run(self, place, prompts, seeds=None):
    """What one of the tasks makes of some prompts.

    Args:
      place: int, the task's place in the list.
      prompts: list of n non-empty lists of token ids.
      seeds: None, or n pairs of int, see search.search.

    Returns: a list of n lists of Result.
    """
    ids, mask = padded(prompts, on_the_left=not self._has_encoder,
                       pad=self._options.pad_token_id)
    found = self._session.run(self._found[place], {
        self._ids: ids, self._mask: mask,
        self._seeds: np.zeros([len(prompts), 2]) if seeds is None else seeds})
    return [[Result(tokens[:length].tolist(), float(score))
             for tokens, length, score in zip(*row)] for row in zip(*found)]


def _common_source_end(tasks):
  """What all tasks put behind a text."""
  first = tasks[0]
  for task in tasks:
    if task.source_end != first.source_end:
      raise errors.InputError(
          "%s was trained with the tokens %s behind each source, and %s with %s; "
          "generate with one of them at a time" % (
              first.where, list(first.source_end), task.where,
              list(task.source_end)))
  return first.source_end


def padded(prompts, on_the_left, pad):
  """(ids, mask), each int32 [n, the longest], of n lists of token ids."""
  longest = max(map(len, prompts))
  ids = np.full([len(prompts), longest], pad, np.int32)
  mask = np.zeros([len(prompts), longest], np.int32)
  for row, prompt in enumerate(prompts):
    place = (slice(longest - len(prompt), None) if on_the_left else
             slice(len(prompt)))
    ids[row, place] = prompt
    mask[row, place] = 1
  return ids, mask
