"""Training of any model that specs.py describes: one loop over a session.

Graph mode on a `tf.distribute` strategy; one training step for one device,
several, and several processes. No flags: run_classifier.py, the tests and the
benchmarks call this.

    graphs.enable_graph_mode()
    model = specs.ClassifierSpec(config, num_labels=2)
    train(model, TrainSpec(num_train_steps=100), records, weights, output_dir)

Callers switch to the mode that all of this needs first thing: v1 behaviour with
resource variables. (Reference variables, v1's default, let an update overtake a
read.)

Everything random is a function of the seed and of a name or a number, never of
what ran before: initial values of (seed, variable), dropout masks of (seed,
step, place), the order of the data of (seed, epoch). So a run that is killed
and started again ends as if nothing had happened.
"""

import contextlib
import dataclasses
import os
import time
from typing import Any, Sequence

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import matching
from adapter_bert.checkpoints import prefixes
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.distributed import devices as distribution
from adapter_bert.base import errors
from adapter_bert.ops.compiled import CompiledOps
from adapter_bert.ops.dropout import SeededOps
from adapter_bert.training import graphs
from adapter_bert.training import reports
from adapter_bert.training import signals
from adapter_bert.tuning import Tuning
import optimization


# ----------------------------------------------------------------- the specs


@dataclasses.dataclass
class TrainSpec(object):
  """How it is trained.

  num_train_steps, num_warmup_steps: ints.
  learning_rate: float, at its peak.
  batch_size: int, the global batch.
  seed: int.
  bucket_window: see datasets.train_dataset.
  save_checkpoints_steps, save_checkpoints_secs: a checkpoint at least so often.
  keep_checkpoint_max: int, how many checkpoints stay.
  compile_chains: bool; the arithmetic is CompiledOps, else SeededOps.
  """
  num_train_steps: int
  num_warmup_steps: int = 0
  learning_rate: float = 5e-5
  batch_size: int = 32
  seed: int = 0
  bucket_window: int = 0
  save_checkpoints_steps: int = 1000
  save_checkpoints_secs: int = 300
  keep_checkpoint_max: int = 5
  compile_chains: bool = True


# ----------------------------------------------------------------- the graph


def _replica_id():
  return tf.distribute.get_replica_context().replica_id_in_sync_group


def log_trained(tuning, trained, variables):
  """Logs what is trained, with counts."""
  count = lambda some: sum(int(np.prod(v.shape.as_list())) for v in some)
  total, ours = count(variables), count(trained)
  logging.info(
      "tuning %s: %d of %d parameters are trained (%.2f%%), %d are frozen",
      tuning.name, ours, total, 100.0 * ours / total, total - ours)
  names = set(v.name for v in trained)
  for collection in Tuning.COLLECTIONS:
    members = [v for v in tf.get_collection(collection) if v.name in names]
    if members:
      logging.info("  %-10s %10d parameters in %d variables", collection,
                   count(members), len(members))
      names -= set(v.name for v in members)
  rest = [v for v in trained if v.name in names]
  if rest:
    logging.info("  %-10s %10d parameters in %d variables", "others",
                 count(rest), len(rest))
  shapes = {v.op.name: v.shape.as_list() for v in trained}
  if prefixes.has_mlp(shapes):
    logging.info("  %-10s %10d parameters: a task keeps what the MLP makes, not "
                 "the MLP", "stored",
                 ours - prefixes.not_stored(shapes))


# -------------------------------------------------------------------- training


def train(model, spec, records, weights, output_dir, group=None,
          init_shared_from=None, listeners=()):
  """Trains up to spec.num_train_steps, from the newest checkpoint if there is.

  The checkpoints in output_dir hold what is trained, its Adam slots and the
  step. Frozen variables are read from `weights` at every start; only where
  there are none (weights is None) are they saved too.

  Args:
    model: specs.ModelSpec.
    spec: TrainSpec.
    records: the examples, of the kind that the model's datasets take.
    weights: weights_lib.Weights that the run starts from, or None for random
      ones.
    output_dir: str; of several processes only the chief writes to it.
    group: distribution.Group; None: one device.
    init_shared_from: see matching.match.
    listeners: objects of which the chief calls `after_save(session, step)`
      after each checkpoint that is due; if one returns true, the run stops.

  Returns: int, the global step at the end.

  Raises: InputError; among others if the loss or a gradient is not finite.
    errors.Interrupted if SIGINT or SIGTERM came to one of the processes: a
    checkpoint of the step that all of them stopped after is there.
  """
  group = group or distribution.one_device()
  latest, start_step = _newest_for_all(output_dir, spec, group)
  if start_step >= spec.num_train_steps:
    return start_step
  initial = {} if latest else model.initial_values(records, weights)
  with tf.Graph().as_default(), group.strategy.scope():
    dataset = _train_dataset(model, spec, records, group, start_step)
    graph = train_graph(model, spec, dataset, group.strategy)
    start = _start(graph, weights, model.config, spec, init_shared_from, initial)
    if latest:
      _check_resumable(latest, start.saved)
    tf.get_default_graph().finalize()
    # Not a MonitoredSession: it restores what the `checkpoint` file names, which
    # may be another than `latest`, and when another process is lost it starts
    # again alone.
    with tf.Session(group.target, config=group.configured(
        graphs.session_config())) as session, group.connected():
      start.run(session, latest, weights)
      saving = report = None
      if group.is_chief:
        saving = _Saving(session, start.saver, output_dir, spec, listeners,
                         start_step)
        report = reports.Report(spec, output_dir)
      stopped = _loop(session, graph, spec, group, saving, report)
      if report:
        report.flush()
  # Nobody leaves while another one may still wait for its last all-reduce.
  group.barrier("trained")
  if stopped:
    raise _interrupted(spec, *stopped)
  if not group.is_chief:
    return spec.num_train_steps
  return weights_lib.step_of(weights_lib.newest_readable(output_dir))


def _newest_for_all(output_dir, spec, group):
  """The checkpoint that all processes start from, and its step; None and 0."""
  latest = group.shared_path(
      output_dir, lambda: weights_lib.newest_readable(output_dir), ".index")
  step = weights_lib.step_of(latest) if latest else 0
  if step >= spec.num_train_steps:
    logging.info("%s has done %d steps of %d already; nothing to train",
                 latest, step, spec.num_train_steps)
  elif latest:
    logging.info("going on from %s, step %d of %d", latest, step,
                 spec.num_train_steps)
  return latest, step


def _interrupted(spec, number, step):
  """The error for a signal.Signals that came, saved after a number of steps."""
  return errors.Interrupted(
      "stopped by %s after step %d of %d, which is saved; the same command goes "
      "on from there" % (number.name, step, spec.num_train_steps), 128 + number)


def _loop(session, graph, spec, group, saving, report):
  """Runs steps up to the last one, or to where all processes stop.

  A process that stopped by itself would leave the others waiting for its
  gradients. So each says in the next step what it wishes, and all learn in that
  step what any of them does. A run of the session that a process makes for
  itself must not contain an all-reduce, nor the broadcast of an initial value:
  the processes count such runs, and must all make the same ones.

  Args:
    session: tf.Session, its variables ready.
    graph: TrainGraph.
    spec: TrainSpec.
    group: distribution.Group.
    saving, report: _Saving and reports.Report, of the chief; otherwise None.

  Returns: None; or, if a signal stopped it, (signal.Signals, the step that it
    stopped after).
  """
  step, early = int(session.run(graph.global_step)), False
  is_alone = group.num_workers == 1
  with signals.Caught() as caught:
    while step < spec.num_train_steps:
      loss, rate, wishes = _run_step(
          session, graph, spec, step,
          None if is_alone else _wishes(early, caught.number))
      step += 1
      if report:
        report.step(step, loss, rate)
      early, number = ((False, caught.number) if is_alone else
                       _what_is_wished(wishes))
      if early:  # That step was only there to tell the others.
        break
      if number:
        caught.taken = True
        if saving:
          saving.save_unless_saved(step)
        return number, step
      if saving and (saving.is_due(step) or step == spec.num_train_steps):
        early = saving.save(step)
      if early and is_alone:
        break
  return None


# What a process may wish for: to stop early, or what a signal to it was.
_EARLY = "early"
_WISHES = (_EARLY,) + signals.NUMBERS


def _wishes(early, number):
  """float [len(_WISHES)]: 1 for what this process wishes."""
  return [float(early)] + [float(number == other) for other in signals.NUMBERS]


def _what_is_wished(wishes):
  """(whether to stop early, the signal or None) of a sum of `_wishes`."""
  found = [wish for wish, count in zip(_WISHES, wishes) if count > 0]
  return _EARLY in found, next((w for w in found if w != _EARLY), None)


def _run_step(session, graph, spec, step, wishes=None):
  """Step number `step`, from 0. Returns (loss, learning rate, all's wishes).

  Raises: InputError if the loss or a gradient is not finite.
  """
  feed = None if wishes is None else {graph.wishes: wishes}
  with _not_finite_reported(step, spec):
    _, loss, rate, sums = session.run(
        [graph.train_op, graph.loss, graph.learning_rate, graph.all_wishes],
        feed)
  # All processes see the same loss, and stop.
  if not np.isfinite(loss):
    raise _not_finite("the loss is %s" % float(loss), step, spec)
  return float(loss), float(rate), sums


@contextlib.contextmanager
def _not_finite_reported(step, spec):
  """Inside, the error of gradients that are not finite becomes an InputError."""
  try:
    yield
  except tf.errors.InvalidArgumentError as error:
    if optimization.NOT_FINITE not in error.message:
      raise
    raise _not_finite("the norm of the gradients is not finite", step,
                      spec) from error


def _not_finite(what, step, spec):
  return errors.InputError(
      "%s at step %d; nothing of it was saved. Try a lower learning_rate (it is "
      "%g), a longer warm-up (warmup_proportion), or look for extreme scores in "
      "the data" % (what, step, spec.learning_rate))


def _train_dataset(model, spec, records, group, start_step):
  """This process's rows of the batches from `start_step` on."""
  return model.train_dataset(
      records, spec.batch_size, spec.seed, start_step=start_step,
      bucket_window=spec.bucket_window, row_multiple=group.num_replicas,
      worker_index=group.rank, num_workers=group.num_workers)


@dataclasses.dataclass
class TrainGraph(object):
  """The handles of a training graph."""
  train_op: Any
  loss: Any  # float scalar, the batch's mean before the update
  learning_rate: Any  # float scalar, of the same step
  global_step: Any
  wishes: Any  # float [len(_WISHES)], fed: what this process wishes
  all_wishes: Any  # the same, summed over all replicas
  variables: Sequence[Any]  # the model's
  trained: Sequence[Any]
  start_data: Any  # the op that starts the data at the first step to do


def train_graph(model, spec, dataset, strategy):
  """Builds the graph of a training step.

  Args:
    model: specs.ModelSpec.
    spec: TrainSpec.
    dataset: what model.train_dataset gave, this process's rows.
    strategy: tf.distribute.Strategy, whose scope is open.

  Returns: TrainGraph.
  """
  wishes = tf.placeholder_with_default([0.0] * len(_WISHES), [len(_WISHES)],
                                       name="wishes")
  global_step = tf.train.get_or_create_global_step()

  def step_fn(batch):
    step = tf.identity(tf.train.get_global_step())
    if spec.compile_chains:
      ops = CompiledOps(spec.seed, step, _replica_id(), frozen=True)
    else:
      ops = SeededOps(spec.seed, step, _replica_id())
    with graphs.seeded_variables(spec.seed):
      outputs = model.build(True, batch, ops)
    loss = _share_of_loss(outputs, batch, spec.batch_size)
    train_op = optimization.create_optimizer(
        loss, spec.learning_rate, spec.num_train_steps, spec.num_warmup_steps,
        use_tpu=False, tvars=model.tuning.variables())
    rate = optimization.learning_rate_at(
        step, spec.learning_rate, spec.num_train_steps, spec.num_warmup_steps)
    with tf.control_dependencies([train_op]):
      return tf.concat([[loss], tf.cast(wishes, loss.dtype)], 0), rate

  (sums, rate), start_data = graphs.per_replica(strategy, dataset, step_fn)
  sums = strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
  loss = sums[0]
  rate = strategy.experimental_local_results(rate)[0]
  trained = model.tuning.variables()
  log_trained(model.tuning, trained, graphs.model_variables())
  return TrainGraph(
      train_op=tf.group(loss, rate), loss=loss, learning_rate=rate,
      global_step=global_step, wishes=wishes, all_wishes=sums[1:],
      variables=graphs.model_variables(), trained=trained, start_data=start_data)


def _share_of_loss(outputs, batch, batch_size):
  """This replica's share of the global batch's loss: the shares add up to it.

  Args:
    outputs: specs.Outputs.
    batch: dict of tensors, this replica's rows.
    batch_size: int, examples in the global batch.

  Returns: float32 scalar.
  """
  weights = batch["example_weights"]
  if outputs.weights is None:
    return tf.reduce_sum(outputs.losses * weights) / batch_size
  weights *= outputs.weights
  total = tf.reduce_sum(weights)
  if tf.distribute.has_strategy():
    # Not the context's all_reduce: its gradient function looks for variables,
    # and does not find those of a second replica.
    total = tf.distribute.get_replica_context().merge_call(
        lambda strategy, x: strategy.extended.reduce_to(
            tf.distribute.ReduceOp.SUM, x, destinations=x), args=(total,))
  return tf.reduce_sum(outputs.losses * weights) / total


@dataclasses.dataclass
class _Start(object):
  """How a session begins, and what checkpoints hold."""
  init: Any  # the op of a first start
  load_trained: Sequence[Any]  # ops, after it
  local: Any  # the op of every start
  load_frozen: Sequence[Any]  # ops, after it
  saved: Sequence[Any]  # variables
  saver: Any  # tf.train.Saver

  def run(self, session, latest, weights):
    """Makes the variables and the data ready, from the checkpoint `latest` or,
    if that is None, from the weights."""
    if latest:
      self.saver.restore(session, latest)
    else:
      graphs.run_and_load(session, self.init, self.load_trained, weights)
    # After a restore, too, the frozen variables are still to be filled.
    graphs.run_and_load(session, self.local, self.load_frozen, weights)


def _start(graph, weights, config, spec, init_shared_from, initial):
  """Who initialises what, and what is saved: _Start."""
  trained = set(v.name for v in graph.trained)
  frozen = [v for v in graph.variables if v.name not in trained]
  saved = tf.global_variables()
  load_trained, load_frozen = [], []
  if weights is None:
    logging.warning(
        "NO init_checkpoint: the model itself starts from random weights%s. Give "
        "--init_checkpoint unless this is a test.",
        ", and they stay so, because they are frozen" if frozen else "")
  else:
    found = matching.match(graph.variables, weights, config,
                              init_shared_from)
    matching.report(found, weights)
    load_trained = matching.load_ops(graph.trained, found, weights)
    load_frozen = matching.load_ops(frozen, found, weights)
    names = set(v.name for v in frozen)
    saved = [v for v in saved if v.name not in names]
  load_trained = load_trained + [
      v.assign(initial[v.op.name]) for v in graph.trained
      if v.op.name in initial]
  return _Start(
      init=tf.global_variables_initializer(), load_trained=load_trained,
      local=tf.group(tf.local_variables_initializer(), tf.tables_initializer(),
                     graph.start_data),
      load_frozen=load_frozen, saved=saved,
      saver=tf.train.Saver(saved, max_to_keep=spec.keep_checkpoint_max,
                           save_relative_paths=True))


def _check_resumable(latest, saved):
  """Raises InputError if a checkpoint cannot give the saved variables."""
  weights = weights_lib.Weights([latest])
  lacking = [v.op.name for v in saved if v.op.name not in weights.shapes]
  for variable in saved:
    name, shape = variable.op.name, variable.shape.as_list()
    if name not in lacking and weights.value(name).shape != tuple(shape):
      raise errors.InputError(
          "%s: %s has shape %s, and the model's has %s; give the settings that "
          "it was trained with, or another output_dir" %
          (latest, name, weights.shapes[name], shape))
  if lacking:
    raise errors.InputError(
        "%s: lacks %s, so training cannot go on from it; evaluate it, or give "
        "it as --init_checkpoint with another output_dir" %
        (latest, lacking[0]))


class _Saving(object):
  """Saves after a number of steps, and after a number of seconds at most.

  Args:
    session: tf.Session.
    saver: tf.train.Saver.
    output_dir: str.
    spec: TrainSpec.
    listeners: see `train`.
    step: int, the steps done so far.
  """

  def __init__(self, session, saver, output_dir, spec, listeners, step):
    self._session = session
    self._saver = saver
    self._prefix = os.path.join(output_dir, weights_lib.CHECKPOINT_NAME)
    self._spec = spec
    self._listeners = listeners
    self._last_step, self._last_time = step, time.monotonic()
    # Those of earlier starts count towards keep_checkpoint_max.
    saver.recover_last_checkpoints(weights_lib.numbered(output_dir))

  def is_due(self, step):
    """Whether a checkpoint is to be written after this step."""
    return (step >= self._last_step + self._spec.save_checkpoints_steps or
            time.monotonic() >=
            self._last_time + self._spec.save_checkpoints_secs)

  def save(self, step):
    """Writes the checkpoint. Returns whether a listener wants to stop."""
    self.save_unless_saved(step)
    stops = [listener.after_save(self._session, step)
             for listener in self._listeners]
    # The seconds count from the end: evaluations in between take their time.
    self._last_time = time.monotonic()
    return any(stops)

  def save_unless_saved(self, step):
    """Writes the checkpoint if there is none yet; the listeners do not learn
    of it."""
    if step == self._last_step:
      return
    try:
      self._saver.save(self._session, self._prefix, global_step=step,
                       write_meta_graph=False)
    # A ValueError: the directory is gone.
    except (tf.errors.OpError, ValueError) as error:
      raise errors.InputError(
          "the checkpoint of step %d cannot be written: %s; %s" %
          (step, errors.op_reason(error) if isinstance(
              error, tf.errors.OpError) else error,
           "that of step %d is still there, run again to go on from it" %
           self._last_step if self._last_step else
           "there is no earlier one to go on from")) from error
    self._last_step, self._last_time = step, time.monotonic()
