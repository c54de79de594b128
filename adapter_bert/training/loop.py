"""Training, evaluation and prediction of any model that specs.py describes.

Graph mode on a `tf.distribute` strategy, TensorFlow's own session, saver and
hooks; one training step for one device, several, and several processes. No
flags: run_classifier.py, the tests and the benchmarks call this.

    model = specs.ClassifierSpec(config, num_labels=2)
    train(model, TrainSpec(num_train_steps=100), records, weights, output_dir)
    result = predict(model, records, Weights.open(output_dir))

Callers switch to the mode that all of this needs with `enable_graph_mode()`,
first thing: v1 behaviour with resource variables. (Reference variables, v1's
default, let an update overtake a read.)

Everything random is a function of the seed and of a name or a number, never of
what ran before: initial values of (seed, variable), dropout masks of (seed,
step, place), the order of the data of (seed, epoch). So a run that is killed
and started again ends as if nothing had happened.
"""

import contextlib
import copy
import dataclasses
import sys
import time
import types
from typing import Any, Sequence
import zlib

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import checkpoints
from adapter_bert.distributed import devices as distribution
from adapter_bert.base import errors
from adapter_bert.training import specs
import modeling
import optimization


# Here until their callers take them from specs.
PRECISIONS = specs.PRECISIONS
ModelSpec = specs.ClassifierSpec
create_model = specs.create_model
describe_model = specs.describe_model
model_from_record = specs.model_from_record


def enable_graph_mode():
  """v1 graph mode with resource variables; to be called before any graph."""
  tf.disable_v2_behavior()
  tf.enable_resource_variables()


# ----------------------------------------------------------------- the specs


@dataclasses.dataclass
class TrainSpec(object):
  """How it is trained.

  num_train_steps, num_warmup_steps: ints.
  learning_rate: float, at its peak.
  batch_size: int, the global batch.
  seed: int.
  bucket_window: see input_pipeline.train_dataset.
  save_checkpoints_steps, save_checkpoints_secs: a checkpoint at least so often.
  keep_checkpoint_max: int, how many checkpoints stay.
  compile_chains: see modeling.compiled_chains.
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


class Predictions(types.SimpleNamespace):
  """Of n examples, in the order of the file: an array for each name.

  The model's predictions, each [n, ...], under their own names; losses, float32
  [n]; and weights, float32 [n], of a model whose losses have them.
  """


# ----------------------------------------------------------------- the graph


def build(model, is_training, batch):
  """(None, losses, None, outputs) of a ClassifierSpec's `build`."""
  outputs = model.build(is_training, batch)
  return None, outputs.losses, None, outputs.predictions["outputs"]


def _seeded_variables(seed):
  """A variable scope in which initial values depend on (seed, name) alone.

  TensorFlow's own per-op seeds count the ops of the graph, so that one more op
  anywhere would change every initial value behind it.
  """

  def seeded(getter, name, initializer=None, **kwargs):
    if initializer is None:
      initializer = tf.glorot_uniform_initializer()
    if hasattr(initializer, "seed"):
      initializer = copy.copy(initializer)
      initializer.seed = zlib.crc32(("%d/%s" % (seed, name)).encode("utf-8"))
    return getter(name, initializer=initializer, **kwargs)

  tf.set_random_seed(seed)
  return tf.variable_scope(tf.get_variable_scope(), custom_getter=seeded)


def _per_replica(strategy, dataset, step_fn):
  """Runs `step_fn(batch)` on each of this process's replicas.

  Args:
    strategy: tf.distribute.Strategy.
    dataset: of this process's rows of each batch; each replica gets an equal
      share of them.
    step_fn: function.

  Returns: (what step_fn returned, on each replica; the op that starts the
    dataset).
  """
  if strategy.num_replicas_in_sync == 1:
    iterator = tf.data.make_initializable_iterator(dataset)
  else:
    # Not experimental_distribute_dataset: it divides by the replicas of all
    # processes, and this process's rows are cut already; and its processes ask
    # each other at every step whether the data has ended.
    parts = _cut(dataset, len(strategy.extended.worker_devices))
    iterator = strategy.make_input_fn_iterator(lambda context: parts)
  outputs = strategy.run(step_fn, args=(iterator.get_next(),))
  return outputs, iterator.initializer


def _cut(dataset, parts):
  """Each batch as so many batches of equal size, one after the other."""
  if parts == 1:
    return dataset

  def cut(batch):
    return tf.data.Dataset.from_tensor_slices({
        name: tf.reshape(rows, tf.concat([[parts, -1], tf.shape(rows)[1:]], 0))
        for name, rows in batch.items()})

  def shaped(batch):
    for name, rows in batch.items():
      known = shapes[name].as_list()
      rows.set_shape([known[0] and known[0] // parts] + known[1:])
    return batch

  shapes = {name: spec.shape for name, spec in dataset.element_spec.items()}
  return dataset.flat_map(cut).map(shaped)


def _replica_id():
  return tf.distribute.get_replica_context().replica_id_in_sync_group


def _model_variables():
  """The model's variables: no slots, no step."""
  return tf.trainable_variables()


def log_trained(tuning, trained, variables):
  """Logs what is trained, with counts."""
  count = lambda some: sum(int(np.prod(v.shape.as_list())) for v in some)
  total, ours = count(variables), count(trained)
  logging.info(
      "tuning %s: %d of %d parameters are trained (%.2f%%), %d are frozen",
      tuning.name, ours, total, 100.0 * ours / total, total - ours)
  names = set(v.name for v in trained)
  for collection in modeling.Tuning.COLLECTIONS:
    members = [v for v in tf.get_collection(collection) if v.name in names]
    if members:
      logging.info("  %-10s %10d parameters in %d variables", collection,
                   count(members), len(members))
      names -= set(v.name for v in members)
  rest = [v for v in trained if v.name in names]
  if rest:
    logging.info("  %-10s %10d parameters in %d variables", "other BERT",
                 count(rest), len(rest))


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
    weights: checkpoints.Weights that the run starts from, or None for random
      ones.
    output_dir: str; of several processes only the chief writes to it.
    group: distribution.Group; None: one device.
    init_shared_from: see checkpoints.match.
    listeners: tf.train.CheckpointSaverListeners, called in the chief.

  Returns: int, the global step at the end.

  Raises: InputError; among others if the loss or a gradient is not finite.
  """
  group = group or distribution.one_device()
  latest = group.shared_path(
      output_dir, lambda: checkpoints.newest(output_dir), ".index")
  start_step = checkpoints.step_of(latest) if latest else 0
  if start_step >= spec.num_train_steps:
    logging.info("%s has done %d steps of %d already; nothing to train",
                 latest, start_step, spec.num_train_steps)
    return start_step
  if latest:
    logging.info("going on from %s, step %d of %d", latest, start_step,
                 spec.num_train_steps)
  with tf.Graph().as_default(), group.strategy.scope():
    dataset = _train_dataset(model, spec, records, group, start_step)
    graph = train_graph(model, spec, dataset, group.strategy)
    scaffold, saved = _scaffold(graph, weights, model.config, spec,
                                init_shared_from)
    if latest:
      _check_resumable(latest, saved)
    hooks = _hooks(graph, spec, group, scaffold, output_dir, listeners)
    # Not MonitoredTrainingSession: it restores what the `checkpoint` file
    # names, which may be another than `latest`, and runs its saving hook first.
    # Nor MonitoredSession: when another process is lost, it starts again alone.
    with group.connected(), tf.train.SingularMonitoredSession(
        hooks, scaffold, master=group.target,
        config=group.configured(session_config()),
        checkpoint_filename_with_path=latest) as session:
      # Those of earlier starts count towards keep_checkpoint_max.
      scaffold.saver.recover_last_checkpoints(checkpoints.numbered(output_dir))
      for step in range(start_step, spec.num_train_steps):
        if not session.should_stop():
          with _not_finite_reported(step, spec):
            session.run(graph.train_op)
  # Nobody leaves while another one may still wait for its last all-reduce.
  group.barrier("trained")
  if not group.is_chief:
    return spec.num_train_steps
  return checkpoints.step_of(checkpoints.newest(output_dir))


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


def _hooks(graph, spec, group, scaffold, output_dir, listeners):
  """The hooks of the training session; arguments as in `train`, and its graph.

  A run of the session that a process makes for itself must not contain an
  all-reduce, nor the broadcast of an initial value: the processes count such
  runs, and must all make the same ones. TensorFlow's StopAtStepHook does.
  """
  # The report first: it stops at a bad loss, before that is saved.
  hooks = [_ReportHook(graph, spec, output_dir if group.is_chief else None)]
  together = _StopTogetherHook(graph) if group.num_workers > 1 else None
  if together:
    hooks.append(together)
  if group.is_chief:
    hooks.append(
        _CheckpointHook(output_dir, spec, scaffold, listeners, together))
  return hooks


@dataclasses.dataclass
class TrainGraph(object):
  """The handles of a training graph."""
  train_op: Any
  loss: Any  # float scalar, the batch's mean before the update
  learning_rate: Any  # float scalar, of the same step
  global_step: Any
  wants_stop: Any  # bool scalar, fed: whether this process wants to stop
  stops: Any  # float scalar: above 0 if any of the processes does
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
  wants_stop = tf.placeholder_with_default(False, [], name="wants_stop")
  global_step = tf.train.get_or_create_global_step()

  def step_fn(batch):
    step = tf.identity(tf.train.get_global_step())
    with _seeded_variables(spec.seed), modeling.stateless_dropout(
        spec.seed, step, _replica_id()), modeling.compiled_chains(
            spec.compile_chains):
      outputs = model.build(True, batch)
    loss = _share_of_loss(outputs, batch, spec.batch_size)
    train_op = optimization.create_optimizer(
        loss, spec.learning_rate, spec.num_train_steps, spec.num_warmup_steps,
        use_tpu=False, tvars=model.tuning.variables())
    rate = optimization.learning_rate_at(
        step, spec.learning_rate, spec.num_train_steps, spec.num_warmup_steps)
    with tf.control_dependencies([train_op]):
      return tf.stack([loss, tf.cast(wants_stop, loss.dtype)]), rate

  (sums, rate), start_data = _per_replica(strategy, dataset, step_fn)
  loss, stops = tf.unstack(
      strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None))
  rate = strategy.experimental_local_results(rate)[0]
  trained = model.tuning.variables()
  log_trained(model.tuning, trained, _model_variables())
  return TrainGraph(
      train_op=tf.group(loss, rate), loss=loss, learning_rate=rate,
      global_step=global_step, wants_stop=wants_stop, stops=stops,
      variables=_model_variables(), trained=trained, start_data=start_data)


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


def _scaffold(graph, weights, config, spec, init_shared_from):
  """Who initialises what, and what is saved.

  The first start initialises all and overwrites what `weights` has. After a
  restore the frozen variables are still to be filled, so they are loaded by the
  local init op, which runs at every start.

  Returns: (tf.train.Scaffold, the variables that checkpoints hold).
  """
  trained = set(v.name for v in graph.trained)
  frozen = [v for v in graph.variables if v.name not in trained]
  every = tf.global_variables()
  local = [tf.local_variables_initializer(), tf.tables_initializer(),
           graph.start_data]
  init = tf.global_variables_initializer()
  saved = every
  if weights is None:
    logging.warning(
        "NO init_checkpoint: BERT itself starts from random weights%s. Give "
        "--init_checkpoint unless this is a test.",
        ", and they stay so, because they are frozen" if frozen else "")
  else:
    found = checkpoints.match(graph.variables, weights, config,
                              init_shared_from)
    checkpoints.report(found, weights)
    with tf.control_dependencies([init]):
      init = tf.group(init, *checkpoints.load_ops(graph.trained, found,
                                                  weights))
    local += checkpoints.load_ops(frozen, found, weights)
    saved = [v for v in every if v.name not in set(f.name for f in frozen)]
  return tf.train.Scaffold(
      init_op=init,
      local_init_op=tf.group(*local),
      ready_for_local_init_op=tf.report_uninitialized_variables(saved),
      saver=tf.train.Saver(saved, max_to_keep=spec.keep_checkpoint_max,
                           save_relative_paths=True)), saved


def _check_resumable(latest, saved):
  """Raises InputError if a checkpoint cannot give the saved variables."""
  weights = checkpoints.Weights([latest])
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


def session_config():
  """tf.ConfigProto of every session here."""
  return tf.ConfigProto(allow_soft_placement=True)


class _CheckpointHook(tf.train.CheckpointSaverHook):
  """Saves every so many steps, and every so many seconds whatever the steps."""

  def __init__(self, output_dir, spec, scaffold, listeners, together=None):
    super().__init__(output_dir, save_steps=spec.save_checkpoints_steps,
                     scaffold=scaffold,
                     checkpoint_basename=checkpoints.CHECKPOINT_NAME,
                     listeners=list(listeners), save_graph_def=False)
    # The class takes one of the two; its timer can be asked for both.
    self._timer = _EitherTimer(spec.save_checkpoints_steps,
                               spec.save_checkpoints_secs)
    self._together = together  # _StopTogetherHook

  def begin(self):
    super().begin()
    # Not the class's own: that contains the initial value, see _hooks.
    self._global_step_tensor = tf.train.get_global_step()

  def _save(self, session, step):
    try:
      stop = super()._save(session, step)
    except tf.errors.OpError as error:
      raise errors.InputError(
          "the checkpoint of step %d cannot be written: %s; the one before is "
          "still there, run again to go on from it" %
          (step, errors.op_reason(error))) from error
    # The seconds count from the end: evaluations in between take their time.
    self._timer.update_last_triggered_step(step)
    if stop and self._together:
      self._together.wanted = True
      return False
    return stop

  def _is_one_too_many(self):
    """Whether the last step was only there to tell the others to stop."""
    return self._together is not None and self._together.wanted

  def after_run(self, run_context, run_values):
    if not self._is_one_too_many():
      super().after_run(run_context, run_values)

  def end(self, session):
    if not self._is_one_too_many():
      super().end(session)

  def after_create_session(self, session, coord):
    # Not the class's own: that writes the graph into the event file and saves
    # what has just been loaded.
    self._timer.update_last_triggered_step(
        session.run(tf.train.get_global_step()))


class _EitherTimer(tf.train.SecondOrStepTimer):
  """Triggers when the steps, or when the seconds, have passed."""

  def __init__(self, every_steps, every_secs):
    super().__init__(every_steps=every_steps)
    self._seconds = tf.train.SecondOrStepTimer(every_secs=every_secs)

  def reset(self):
    super().reset()
    if hasattr(self, "_seconds"):
      self._seconds.reset()

  def should_trigger_for_step(self, step):
    return (super().should_trigger_for_step(step) or
            self._seconds.should_trigger_for_step(step))

  def update_last_triggered_step(self, step):
    self._seconds.update_last_triggered_step(step)
    return super().update_last_triggered_step(step)


class _StopTogetherHook(tf.train.SessionRunHook):
  """Stops all processes in the same step, if `wanted` is set in one of them.

  One that stopped by itself would leave the others waiting for its gradients.
  """

  def __init__(self, graph):
    self._graph = graph
    self.wanted = False

  def before_run(self, run_context):
    return tf.train.SessionRunArgs(
        self._graph.stops, {self._graph.wants_stop: self.wanted})

  def after_run(self, run_context, run_values):
    if run_values.results > 0:
      run_context.request_stop()


class _ReportHook(tf.train.SessionRunHook):
  """Progress for people, scalars for TensorBoard, a stop at a bad loss.

  Without an output_dir only the last: all processes see the same loss.
  """

  SUMMARY_STEPS = 20

  def __init__(self, graph, spec, output_dir):
    self._graph = graph
    self._spec = spec
    self._output_dir = output_dir
    self._tty = sys.stderr.isatty()
    self._interval = 0.5 if self._tty else 10.0

  def begin(self):
    self._writer = self._output_dir and summary_writer(self._output_dir)
    self._began = self._last = None

  def before_run(self, run_context):
    if self._began is None:
      # From the first step's end on: the first one also builds and warms up.
      self._last = self._last_summary = time.monotonic()
    return tf.train.SessionRunArgs({
        "loss": self._graph.loss, "rate": self._graph.learning_rate})

  def after_run(self, run_context, run_values):
    loss = float(run_values.results["loss"])
    if self._began is None:
      self._step = int(run_context.session.run(self._graph.global_step))
      self._began, self._first = time.monotonic(), self._step
      self._summary_step = self._step
    else:
      self._step += 1
    if not np.isfinite(loss):
      raise _not_finite("the loss is %s" % loss, self._step - 1, self._spec)
    if not self._writer:
      return
    now = time.monotonic()
    done = self._step >= self._spec.num_train_steps
    if self._step % self.SUMMARY_STEPS == 0 or done:
      self._summarize(loss, float(run_values.results["rate"]), now)
    if now - self._last >= self._interval or done:
      self._last = now
      self._show(loss, now, done)

  def _summarize(self, loss, rate, now):
    """Scalars: loss, learning_rate, and examples_per_second since the last."""
    scalars = {"loss": loss, "learning_rate": rate}
    if now > self._last_summary and self._step > self._summary_step:
      scalars["examples_per_second"] = (
          (self._step - self._summary_step) * self._spec.batch_size /
          (now - self._last_summary))
    self._last_summary, self._summary_step = now, self._step
    self._writer.add_summary(scalar_summary(scalars), self._step)

  def _show(self, loss, now, done):
    speed = (self._step - self._first) / max(now - self._began, 1e-6)
    left = (self._spec.num_train_steps - self._step) / speed if speed else 0
    text = "step %d/%d  loss %.4f  %.1f examples/s  %s left" % (
        self._step, self._spec.num_train_steps, loss,
        speed * self._spec.batch_size, _duration(left))
    if self._tty:
      print("\r%-78s" % text, end="\n" if done else "", file=sys.stderr,
            flush=True)
    else:
      logging.info("%s", text)

  def end(self, session):
    if self._writer:
      self._writer.flush()


def summary_writer(directory):
  """The process's tf.summary.FileWriter of a directory."""
  # It writes the default graph first, and the model's is 10 MB for six layers.
  with tf.Graph().as_default():
    return tf.summary.FileWriterCache.get(directory)


def scalar_summary(scalars):
  """tf.Summary of a dict of name -> float."""
  return tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=value)
                           for name, value in sorted(scalars.items())])


def _duration(seconds):
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return "%d:%02d:%02d" % (hours, minutes, seconds)


# ------------------------------------------------- evaluation and prediction


def predict(model, records, weights, batch_size=32, group=None, seed=0,
            init_shared_from=None):
  """Runs a model over every example of a record set, once.

  The arguments are those of `predictor`.

  Returns: Predictions; None in a process that is not the chief.
  """
  with predictor(model, records, weights, batch_size, group, seed,
                 init_shared_from) as run:
    return run()


@contextlib.contextmanager
def predictor(model, records, weights, batch_size=32, group=None, seed=0,
              init_shared_from=None):
  """Inside, a model with its weights that can run over a record set often.

  Args:
    model: specs.ModelSpec.
    records: the examples, of the kind that the model's datasets take.
    weights: checkpoints.Weights with all of the model's variables. Adapters and
      head may be missing; they are then new, and useless: it says so.
    batch_size: int; results do not depend on it.
    group: distribution.Group; None: one device.
    seed: int, for what is new.
    init_shared_from: see checkpoints.match.

  Yields: function of feed_dict (dict of placeholder to value, or None) to
    Predictions of every example; to None in a process that is not the chief.
  """
  group = group or distribution.one_device()
  strategy = group.local  # Each process predicts its rows, without the others.
  with tf.Graph().as_default(), strategy.scope():
    dataset = model.eval_dataset(
        records, batch_size,
        row_multiple=strategy.num_replicas_in_sync * group.num_workers,
        worker_index=group.rank, num_workers=group.num_workers)

    def step_fn(batch):
      with _seeded_variables(seed):
        outputs = model.build(False, batch)
      collected = dict(outputs.predictions, losses=outputs.losses,
                       index=batch["example_index"])
      if outputs.weights is not None:
        collected["weights"] = outputs.weights
      return collected

    replicas, start_data = _per_replica(strategy, dataset, step_fn)
    outputs = {
        name: tf.concat(strategy.experimental_local_results(value), axis=0)
        for name, value in replicas.items()}
    variables = _model_variables()
    found = checkpoints.match(variables, weights, model.config,
                              init_shared_from)
    _check_new(found.new, weights)
    init = [tf.variables_initializer(variables)]
    with tf.control_dependencies(init):
      load = checkpoints.load_ops(variables, found, weights)
    config = group.alone().configured(session_config())
    with tf.Session(config=config) as session:
      try:
        session.run([init, load])
      except tf.errors.OpError:
        weights.check()  # One line if a file is at fault.
        raise

      def run(feed_dict=None):
        session.run(start_data)
        parts = group.gather(_all_batches(session, outputs, feed_dict))
        return parts and _in_order(parts, records.num_examples)

      yield run


def _check_head(names, weights):
  """Raises InputError if one of the new variables is another task's head."""
  sizes = {v.op.name: v.shape.as_list()[0] for v in _model_variables()
           if v.shape.rank}
  for name in names:
    if name in weights.shapes:
      raise errors.InputError(
          "%s: %s has shape %s: it is the head of another task, and this one "
          "has %d outputs" % (weights, name, weights.shapes[name],
                              sizes[name]))


def _check_new(names, weights):
  """Warns of variables that `weights` lacks, refuses another task's head."""
  _check_head(names, weights)
  if names:
    logging.warning(
        "%s lacks %d variables (%s, ...): what is computed with them is "
        "meaningless until they are trained", weights, len(names), names[0])


def export(model, weights, prefix, init_shared_from=None):
  """Writes a model as one complete checkpoint.

  Args:
    model: specs.ModelSpec.
    weights: checkpoints.Weights with all of its variables.
    prefix: str, the checkpoint to write.
    init_shared_from: see checkpoints.match.

  Raises: InputError if some of them are not there.
  """
  with tf.Graph().as_default():
    model.build(False, model.empty_batch())
    found = checkpoints.match(_model_variables(), weights, model.config,
                              init_shared_from)
    _check_head(found.new, weights)
  if found.new:
    raise errors.InputError(
        "%s lacks %d of the model's variables (%s, ...), so it is no whole "
        "model to export; train it first" %
        (weights, len(found.new), found.new[0]))
  checkpoints.export_full(prefix, found, weights)


def _all_batches(session, outputs, feed_dict):
  """Runs to the end of the data: a dict of arrays, the rows as they come."""
  batches = []
  while True:
    try:
      batches.append(session.run(outputs, feed_dict))
    except tf.errors.OutOfRangeError:
      return _joined(batches)


def _joined(parts):
  """One dict of arrays of a list of them."""
  return {name: np.concatenate([part[name] for part in parts])
          for name in parts[0]}


def _in_order(parts, num_examples):
  """Predictions in the file's order, of the processes' dicts of arrays."""
  rows = _joined(parts)
  index = rows.pop("index")
  order = np.argsort(index, kind="stable")[-num_examples:]
  if list(index[order]) != list(range(num_examples)):
    raise ValueError("an example was lost or came twice")
  return Predictions(**{name: value[order] for name, value in rows.items()})
