"""What the graphs of training and of evaluation have in common."""

import copy
import zlib

import tensorflow.compat.v1 as tf


def enable_graph_mode():
  """v1 graph mode with resource variables; to be called before any graph."""
  tf.disable_v2_behavior()
  tf.enable_resource_variables()


def session_config():
  """tf.ConfigProto of every session here."""
  return tf.ConfigProto(allow_soft_placement=True)


def model_variables():
  """The model's variables: no slots, no step."""
  return tf.trainable_variables()


def seeded_variables(seed):
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


def per_replica(strategy, dataset, step_fn):
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
  """Each batch cut into batches of equal size, one after the other."""
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


def run_and_load(session, init, load, weights):
  """Runs `init`, then `load`, whose ops read what `weights` holds.

  Raises: InputError if one of the files cannot be read.
  """
  try:
    session.run(init)
    session.run(load)
  except tf.errors.OpError:
    if weights is not None:
      weights.check()  # One line if a file is at fault.
    raise
