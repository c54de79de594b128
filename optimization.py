"""BERT's optimizer: Adam with decoupled weight decay, warm-up and clipping.

The update is Devlin et al. 2018's: Adam (Kingma and Ba 2014) without the bias
correction, with the weight decay taken out of the gradient (Loshchilov and
Hutter 2017). The caller says which variables are trained; for any other one no
gradient is computed and no slot is made.
"""

import re

import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.tuning import Tuning
import modeling

CLIP_NORM = 1.0
WEIGHT_DECAY_RATE = 0.01
# What the error of a step says whose gradients have an infinity or a NaN, or
# are so large that their norm has.
NOT_FINITE = "the norm of the gradients is not finite"


def learning_rate_at(step, init_lr, num_train_steps, num_warmup_steps):
  """Linear warm-up from 0, then linear decay to 0; both counted from step 0.

  Args:
    step: integer scalar tensor, the steps done so far.
    init_lr: float, the peak.
    num_train_steps: int, where the rate reaches 0.
    num_warmup_steps: int; 0 or None for no warm-up.

  Returns: float32 scalar tensor, the rate of step number `step`.
  """
  step = tf.cast(step, tf.float32)
  done = tf.minimum(step / max(num_train_steps, 1), 1.0)
  rate = init_lr * (1.0 - done)
  if num_warmup_steps:
    rate = tf.where(step < num_warmup_steps,
                    init_lr * (step / num_warmup_steps), rate)
  return rate


def create_optimizer(loss, init_lr, num_train_steps, num_warmup_steps, use_tpu,
                     tvars=None, global_step=None):
  """The op of one training step.

  In a replica of a tf.distribute strategy the gradients are summed over the
  replicas first, so `loss` is then this replica's share of the global mean.

  Args:
    loss: float scalar tensor.
    init_lr: float, the learning rate at its peak.
    num_train_steps: int.
    num_warmup_steps: int; 0 or None for none.
    use_tpu: must be false; kept for scripts that pass it by position.
    tvars: the variables to train; None: what Tuning() trains.
    global_step: None: tf.train.get_or_create_global_step(). It goes up by one.

  Returns: the op.

  Raises: ValueError if there is nothing to train, or for use_tpu.
  """
  if use_tpu:
    raise ValueError("use_tpu is set, but TPUs are not supported")
  if tvars is None:
    tvars = Tuning().variables()
  if not tvars:
    raise ValueError("there is no variable to train: the graph's collections "
                     "adapters, layer_norm and head are empty")
  if global_step is None:
    global_step = tf.train.get_or_create_global_step()
  optimizer = AdamWeightDecayOptimizer(
      learning_rate=learning_rate_at(global_step, init_lr, num_train_steps,
                                     num_warmup_steps),
      weight_decay_rate=WEIGHT_DECAY_RATE,
      adapter_weight_decay_rate=WEIGHT_DECAY_RATE,
      exclude_from_weight_decay=names.NO_WEIGHT_DECAY)
  gradients = clipped_gradients(loss, tvars)
  # Already summed: adding them up again would multiply them.
  return optimizer.apply_gradients(
      list(zip(gradients, tvars)), global_step=global_step,
      skip_gradients_aggregation=True)


def clipped_gradients(loss, tvars, clip_norm=CLIP_NORM):
  """The gradients over all replicas, clipped to a global norm.

  Args:
    loss: float scalar tensor.
    tvars: variables.
    clip_norm: float.

  Returns: a list, a dense tensor for each variable.

  Raises: ValueError if the loss does not depend on one of the variables. When
    the step is run: tf.errors.InvalidArgumentError with NOT_FINITE in it.
  """
  gradients = tf.gradients(loss, tvars)
  lost = [v.name for v, g in zip(tvars, gradients) if g is None]
  if lost:
    raise ValueError("the loss does not depend on %s" % ", ".join(lost))
  # Dense, because the norm of an embedding's IndexedSlices would count a word
  # that occurs twice as two gradients.
  gradients = [tf.convert_to_tensor(g) for g in gradients]
  if tf.distribute.has_strategy():
    gradients = tf.distribute.get_replica_context().merge_call(
        _sum_over_replicas, args=(gradients, tvars))
  # After the sum, so that the norm is the global batch's. Checked before any
  # variable is updated: a finite loss can have a gradient that is not.
  norm = tf.debugging.check_numerics(tf.linalg.global_norm(gradients),
                                     NOT_FINITE)
  clipped, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
  return clipped


def _sum_over_replicas(strategy, gradients, tvars):
  """In a merge call: each replica's gradients -> their sum, on every device."""
  return strategy.extended.batch_reduce_to(
      tf.distribute.ReduceOp.SUM, list(zip(gradients, tvars)))


class AdamWeightDecayOptimizer(tf.train.Optimizer):
  """Adam without bias correction, with decoupled weight decay.

    m = beta_1 m + (1 - beta_1) g          v = beta_2 v + (1 - beta_2) g^2
    w = w - learning_rate (m / (sqrt(v) + epsilon) + weight_decay_rate w)

  The slots are saved as `<variable>/adam_m` and `<variable>/adam_v`.

  Args:
    learning_rate: float or float32 scalar tensor.
    weight_decay_rate: float.
    adapter_weight_decay_rate: float, for the collection "adapters".
    beta_1, beta_2, epsilon: floats.
    exclude_from_weight_decay: regular expressions; a variable whose name one of
      them matches anywhere is not decayed.
    name: str.
  """

  def __init__(self,
               learning_rate,
               weight_decay_rate=0.0,
               adapter_weight_decay_rate=0.0,
               beta_1=0.9,
               beta_2=0.999,
               epsilon=1e-6,
               exclude_from_weight_decay=None,
               name="AdamWeightDecayOptimizer"):
    super().__init__(use_locking=False, name=name)
    self.learning_rate = learning_rate
    self.weight_decay_rate = weight_decay_rate
    self.adapter_weight_decay_rate = adapter_weight_decay_rate
    self.beta_1 = beta_1
    self.beta_2 = beta_2
    self.epsilon = epsilon
    self.exclude_from_weight_decay = tuple(exclude_from_weight_decay or ())

  def decay_rate_of(self, variable):
    """float: the weight decay rate of a variable."""
    if any(re.search(pattern, variable.name)
           for pattern in self.exclude_from_weight_decay):
      return 0.0
    # A strategy updates each replica's own copy, which has a name of its own.
    copies_of = tf.distribute.get_strategy().experimental_local_results
    adapters = [copy.name for v in tf.get_collection(modeling.ADAPTERS)
                for copy in copies_of(v)]
    if variable.name in adapters:
      return self.adapter_weight_decay_rate
    return self.weight_decay_rate

  def _create_slots(self, var_list):
    for variable in var_list:
      self._zeros_slot(variable, "m", names.SLOTS[0])
      self._zeros_slot(variable, "v", names.SLOTS[1])

  def _adam_arguments(self, variable, grad):
    # The kernel scales the rate by sqrt(1 - beta2_power) / (1 - beta1_power):
    # powers of 0 take the bias correction out of it.
    numbers = dict(beta1_power=0.0, beta2_power=0.0, lr=self.learning_rate,
                   beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon)
    dtype = variable.dtype.base_dtype
    arguments = {k: tf.cast(x, dtype) for k, x in numbers.items()}
    return dict(arguments, grad=tf.cast(grad, dtype))

  def _decay(self, variable, value):
    """What the weight decay takes off, float of the variable's shape."""
    return tf.cast(self.learning_rate * self.decay_rate_of(variable),
                   value.dtype) * value

  def _resource_apply_dense(self, grad, handle):
    variable = handle
    decayed = []
    if self.decay_rate_of(variable):
      # Not before the gradient is there: the forward pass reads the variable,
      # and nothing else puts that read first.
      with tf.control_dependencies([grad]):
        value = tf.raw_ops.ReadVariableOp(resource=variable.handle,
                                          dtype=variable.dtype.base_dtype)
      decayed = [tf.raw_ops.AssignSubVariableOp(
          resource=variable.handle, value=self._decay(variable, value))]
    # Decay first: Adam's part does not depend on w, so the order is free.
    with tf.control_dependencies(decayed):
      return tf.raw_ops.ResourceApplyAdam(
          var=variable.handle, m=self.get_slot(variable, "m").handle,
          v=self.get_slot(variable, "v").handle,
          **self._adam_arguments(variable, grad))

  def _apply_dense(self, grad, var):
    decayed = []
    if self.decay_rate_of(var):
      with tf.control_dependencies([grad]):
        decayed = [tf.assign_sub(var, self._decay(var, var))]
    with tf.control_dependencies(decayed):
      return tf.raw_ops.ApplyAdam(
          var=var.op.outputs[0], m=self.get_slot(var, "m").op.outputs[0],
          v=self.get_slot(var, "v").op.outputs[0],
          **self._adam_arguments(var, grad))

  # Sparse gradients (an embedding table) update every row all the same: Adam's
  # moments decay for the words that a batch lacks, too.

  def _resource_apply_sparse(self, grad, handle, indices):
    return self._resource_apply_dense(
        tf.convert_to_tensor(tf.IndexedSlices(grad, indices, handle.shape)),
        handle)

  def _apply_sparse(self, grad, var):
    return self._apply_dense(tf.convert_to_tensor(grad), var)
