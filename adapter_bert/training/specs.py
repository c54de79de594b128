"""What the loop knows of a model, and the classifier on BERT as one such model.

The loop and the evaluation see batches, a loss for each example, and
predictions; `ModelSpec` is all that they ask of a model. Another kind of model
is another class with the same few methods:

    class MySpec(specs.ModelSpec):
      config, tuning, precision = ...

      def build(self, is_training, batch, ops=None):
        ...
        return specs.Outputs(losses, predictions)
"""

import dataclasses
import functools
from typing import Any, Callable, Dict, Optional, Sequence

import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.checkpoints import bert_config as bert_config_lib
from adapter_bert.checkpoints import prefixes
from adapter_bert.checkpoints import record as run_record
from adapter_bert.data import datasets
from adapter_bert.data import task_specs
from adapter_bert.training import own_adapters
from adapter_bert.training import prefix_start
from adapter_bert.tuning import Tuning
import modeling

PRECISIONS = {"float32": tf.float32, "bfloat16": tf.bfloat16}
ADAPTER_ORDERS = ("houlsby", "pfeiffer")


# -------------------------------------------------------------- the interface


@dataclasses.dataclass
class Outputs(object):
  """What a model makes of a batch of B examples.

  losses: float32 [B], each example's loss.
  predictions: dict of name -> tensor [B, ...]. What evaluation collects, the
    labels too, if there are any; one name has one shape behind the first axis
    in all batches. Without "losses" and "weights", which are here.
  weights: float32 [B], how much each example counts in a mean over examples,
    such as its number of target tokens where losses are means over those; None:
    all count alike.
  """
  losses: Any
  predictions: Dict[str, Any]
  weights: Optional[Any] = None


class ModelSpec(object):
  """A model with its method of tuning, as the loop and the evaluation know it.

  Attributes:
    config: the sizes of the model, such as a modeling.BertConfig.
    tuning: what is trained, see Tuning.
    precision: a key of PRECISIONS.
  """

  def build(self, is_training, batch, ops=None):
    """Builds the model on a batch, in the open variable scope.

    Called once for each replica, inside the function that strategy.run calls.

    Args:
      is_training: bool.
      batch: dict of tensors [B, ...], of the names that the spec's own datasets
        give them.
      ops: the arithmetic of a layer and its dropout; None: modeling's own.

    Returns: Outputs.
    """
    raise NotImplementedError

  def train_dataset(self, records, batch_size, seed, **options):
    """The endless tf.data.Dataset of training batches, dicts of tensors.

    A batch's "example_weights", float32 [B], are 1, or 0 for a row that only
    fills up the batch.

    Args:
      records: the examples, with `num_examples`.
      batch_size: int, examples in a batch of all processes together.
      seed: int; the batches are a function of it and of their number.
      **options: start_step, bucket_window, row_multiple, worker_index and
        num_workers, as of datasets.train_dataset.
    """
    raise NotImplementedError

  def eval_dataset(self, records, batch_size, **options):
    """The tf.data.Dataset that has each example once.

    A batch's "example_index", int64 [B], is the place in the file, -1 for a row
    that only fills up the batch.

    Args:
      records, batch_size: as above.
      **options: row_multiple, worker_index and num_workers, as of
        datasets.eval_dataset.
    """
    raise NotImplementedError

  def empty_batch(self):
    """A small batch of constants, on which `build` makes every variable."""
    raise NotImplementedError

  def stored_in(self, variables):
    """The spec of the model that a checkpoint holds; mostly this one.

    Args:
      variables: container of the names of the checkpoint's variables.
    """
    del variables
    return self

  def initial_values(self, records, weights):
    """{variable: array}: what training starts from, where no initializer says.

    Args:
      records: the examples that it is trained on.
      weights: checkpoints.Weights of the pre-trained model, or None.
    """
    del records, weights
    return {}


class PrefixedSpec(ModelSpec):
  """A ModelSpec whose method may have prefixes.

  It has `prefix_length`, `prefix_hidden_size`, `prefix_init_scale` and
  `prefix_dropout_prob`, as ClassifierSpec has them.
  """

  def get_prefix_fn(self, is_training, ops=None):
    """The prefix to build, or None where the method has none."""
    if not self.tuning.uses_prefixes:
      return None
    return functools.partial(
        modeling.prefix_encoder, prefix_length=self.prefix_length,
        hidden_size=self.prefix_hidden_size or None,
        init_scale=self.prefix_init_scale,
        dropout_prob=self.prefix_dropout_prob if is_training else 0.0, ops=ops)

  def stored_in(self, variables):
    """See ModelSpec: task checkpoints have the prefix without its MLP."""
    if not self.prefix_hidden_size or prefixes.has_mlp(variables):
      return self
    return dataclasses.replace(self, prefix_hidden_size=0)


# ------------------------------------------------------- a classifier on BERT


@dataclasses.dataclass
class ClassifierSpec(PrefixedSpec):
  """A BERT, its adapters and a head with a score for each class.

  The predictions are "outputs", float32 [B, num_labels], the probabilities of
  the classes, or scores [B, 1] for a regression; and "labels", int32 or float32
  [B].

  bert_config: modeling.BertConfig.
  num_labels: int; the head's outputs.
  is_regression: one score with a squared error in place of classes.
  adapter_size: int, m; adapter_init_scale: float (Houlsby et al., section 2.1).
  adapter_layers: indices of the layers with adapters; None: all.
  adapter_order: "houlsby" or "pfeiffer", see modeling.transformer_model.
  adapter_act: the bottleneck's activation, a key of modeling.ACTIVATIONS.
  adapter_fn: an adapter of one's own, in place of the bottleneck; what
    run.json records is its `name`, see own_adapters.OwnAdapter.
  tune, top_n_layers: what is trained, see Tuning.
  precision: "float32" or "bfloat16", see Tuning.variable_getter.
  head_dropout_prob: float, dropout before the head while training.
  fresh_pooler: bool; the pooler is new, and of the head: trained with it and
    saved with it.
  prefix_length: int, P; prefix_hidden_size: int, of the MLP that makes the
    prefix while it is trained, 0 for none; prefix_positions, prefix_dropout_prob,
    prefix_init_scale: see modeling.BertModel and modeling.prefix_encoder.
  prefix_init: a key of prefix_start.KINDS.
  """
  bert_config: modeling.BertConfig
  num_labels: int
  is_regression: bool = False
  adapter_size: int = 64
  adapter_init_scale: float = 1e-3
  adapter_layers: Optional[Sequence[int]] = None
  adapter_order: str = "houlsby"
  adapter_act: str = "gelu"
  adapter_fn: Optional[Callable[[Any], Any]] = None
  tune: str = "adapters"
  top_n_layers: Optional[int] = None
  precision: str = "float32"
  head_dropout_prob: float = modeling.HEAD_DROPOUT
  fresh_pooler: bool = False
  prefix_length: int = 20
  prefix_hidden_size: int = 0
  prefix_positions: str = "after"
  prefix_dropout_prob: float = 0.0
  prefix_init_scale: float = 1.0
  prefix_init: str = "random"

  @property
  def config(self):
    return self.bert_config

  @property
  def tuning(self):
    return Tuning(self.tune, self.top_n_layers,
                  self.bert_config.num_hidden_layers)

  def get_adapter_fn(self, ops=None):
    """The adapter to build, or None where the method has none."""
    if not self.tuning.uses_adapters:
      return None
    return self.adapter_fn or functools.partial(
        modeling.feedforward_adapter, hidden_size=self.adapter_size,
        init_scale=self.adapter_init_scale,
        activation=modeling.get_activation(self.adapter_act), ops=ops)

  def initial_values(self, records, weights):
    """See ModelSpec."""
    if not self.tuning.uses_prefixes:
      return {}
    return prefix_start.KINDS[self.prefix_init](self, records, weights)

  def build(self, is_training, batch, ops=None):
    """See ModelSpec; the batch is one of datasets.py's."""
    getter = self.tuning.variable_getter(PRECISIONS[self.precision], ops)
    if self.fresh_pooler:
      getter = _with_pooler_in_head(getter)
    with tf.variable_scope(tf.get_variable_scope(), auxiliary_name_scope=False,
                           custom_getter=getter):
      _, losses, _, probabilities = create_model(
          self.bert_config, is_training, batch["input_ids"],
          batch["input_mask"], batch["segment_ids"], batch["label_ids"],
          self.num_labels, use_one_hot_embeddings=False,
          adapter_fn=self.get_adapter_fn(ops),
          adapter_layers=self.adapter_layers,
          is_regression=self.is_regression,
          head_dropout_prob=self.head_dropout_prob, skip_padding=is_training,
          prefix_fn=self.get_prefix_fn(is_training, ops),
          prefix_positions=self.prefix_positions,
          adapter_order=self.adapter_order, ops=ops)
    return Outputs(losses, {"outputs": probabilities,
                            "labels": batch["label_ids"]})

  def train_dataset(self, records, batch_size, seed, **options):
    """See ModelSpec; `records` is an tfrecords.RecordSet."""
    return datasets.train_dataset(
        records, batch_size, self._longest(records), seed, **options)

  def eval_dataset(self, records, batch_size, **options):
    """See ModelSpec; `records` is an tfrecords.RecordSet."""
    return datasets.eval_dataset(
        records, batch_size, self._longest(records), **options)

  def _longest(self, records):
    """The max_seq_length of a RecordSet's batches."""
    return min(records.max_length, self.max_length)

  @property
  def max_length(self):
    """int: the longest sequence that the model takes."""
    after = self.tuning.uses_prefixes and self.prefix_positions == "after"
    return (self.bert_config.max_position_embeddings -
            (self.prefix_length if after else 0))

  def empty_batch(self):
    """See ModelSpec."""
    ids = tf.zeros([1, 2], tf.int32)
    labels = tf.zeros([1], tf.float32 if self.is_regression else tf.int32)
    return {"input_ids": ids, "input_mask": ids, "segment_ids": ids,
            "label_ids": labels}


def _with_pooler_in_head(inner):
  """A custom getter like another one, to which the pooler is of the head."""

  def get_variable(getter, name, **kwargs):
    if names.is_pooler(name):
      kwargs["collections"] = list(kwargs["collections"]) + [modeling.HEAD]
    return inner(getter, name, **kwargs)

  return get_variable


def create_model(bert_config, is_training, input_ids, input_mask, segment_ids,
                 labels, num_labels, use_one_hot_embeddings,
                 adapter_fn="feedforward_adapter", adapter_layers=None,
                 is_regression=False,
                 head_dropout_prob=modeling.HEAD_DROPOUT, skip_padding=False,
                 *, prefix_fn=None, prefix_positions="after",
                 adapter_order="houlsby", ops=None):
  """BERT with a head, and its loss.

  Args:
    bert_config: modeling.BertConfig.
    is_training: bool.
    input_ids, input_mask, segment_ids: int32 [B, S].
    labels: int32 [B]; float32 [B] for a regression.
    num_labels: int.
    use_one_hot_embeddings: bool, see modeling.BertModel.
    adapter_fn, adapter_layers, skip_padding, prefix_fn, prefix_positions,
      adapter_order: see modeling.BertModel.
    is_regression: bool; squared error in place of cross-entropy.
    head_dropout_prob: float, the probability of dropping before the head.
    ops: see modeling.BertModel.

  Returns: (loss, float scalar, the mean over the batch; per_example_loss, float
    [B]; logits, float [B, num_labels]; probabilities, the same shape, equal to
    the logits for a regression).
  """
  model = modeling.BertModel(
      config=bert_config,
      is_training=is_training,
      input_ids=input_ids,
      input_mask=input_mask,
      token_type_ids=segment_ids,
      use_one_hot_embeddings=use_one_hot_embeddings,
      adapter_fn=adapter_fn,
      adapter_layers=adapter_layers,
      skip_padding=skip_padding,
      prefix_fn=prefix_fn,
      prefix_positions=prefix_positions,
      adapter_order=adapter_order,
      ops=ops)
  logits = modeling.classifier_head(model.get_pooled_output(), num_labels,
                                    is_training, head_dropout_prob, ops=ops)
  if is_regression:
    probabilities = logits
    per_example_loss = tf.square(tf.squeeze(logits, -1) - labels)
  else:
    probabilities = tf.nn.softmax(logits)
    per_example_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=logits)
  loss = tf.reduce_mean(per_example_loss)
  return loss, per_example_loss, logits, probabilities


# ------------------------------------------------------ a classifier's run.json


# None in runs without a prefix; absent in those of before there were prefixes.
_PREFIX_KEYS = ("prefix_length", "prefix_hidden_size", "prefix_positions")
# Runs whose adapters are as all were at first have None for them, or nothing.
_ADAPTER_KEYS = ("adapter_order", "adapter_act")


def describe_model(model):
  """What run.json records of a ClassifierSpec; `model_from_record` reads it."""
  config, with_prefix = model.bert_config, model.tuning.uses_prefixes
  defaults = {key: getattr(config, key) for key in (
      "embedding_size", "share_parameter_across_layers", "layers_per_group",
      "share_adapters", "ln_type")}
  return {
      "bert_config": dict(defaults, **config.to_dict()),
      "num_labels": model.num_labels,
      "adapter_size": (model.adapter_size if model.tuning.uses_adapters and
                       not model.adapter_fn else None),
      "adapter_fn": model.adapter_fn and model.adapter_fn.name,
      "adapter_layers": model.adapter_layers,
      "tune": model.tune,
      "top_n_layers": model.top_n_layers,
      "fresh_pooler": model.fresh_pooler,
      **{key: getattr(model, key) if with_prefix else None
         for key in _PREFIX_KEYS},
      **{key: getattr(model, key) if model.tuning.uses_adapters and
              getattr(model, key) != getattr(ClassifierSpec, key) else None
         for key in _ADAPTER_KEYS},
  }


def model_from_record(record, where, precision=None, adapter_fn=None):
  """The task and the model of a run, or of its task checkpoint.

  Args:
    record: what run_record.read gave.
    where: str, the checkpoint, for messages.
    precision: one of PRECISIONS; None: the one that it was trained in.
    adapter_fn: the flag, see own_adapters.load_recorded.

  Returns: (tasks.Task, ClassifierSpec).

  Raises: InputError, one line, if there is no record or it cannot be used.
  """
  if record is None:
    raise errors.InputError(
        "%s: has no %s beside it, which says what task and model it is; give "
        "a run's output_dir, or the task/ or best/ in it" %
        (where, run_record.FILE))
  where = "%s: its %s" % (where, run_record.FILE)
  try:
    task = task_specs.task_from_dict(record["task"], where)
    model = ClassifierSpec(
        bert_config=bert_config_lib.from_values(record["bert_config"], where),
        num_labels=task.num_labels, is_regression=task.is_regression,
        adapter_size=record["adapter_size"],
        adapter_fn=own_adapters.load_recorded(record.get("adapter_fn"),
                                              adapter_fn, where),
        adapter_layers=record["adapter_layers"], tune=record["tune"],
        top_n_layers=record["top_n_layers"],
        fresh_pooler=record.get("fresh_pooler", False),
        **{key: record[key] for key in _PREFIX_KEYS + _ADAPTER_KEYS
           if record.get(key) is not None},
        precision=precision or record["schedule"]["precision"])
    uses_adapters = model.tuning.uses_adapters
    num_labels = record["num_labels"]
  except KeyError as error:
    raise errors.InputError("%s has no %s" % (where, error)) from error
  except errors.InputError:
    raise
  except (TypeError, ValueError) as error:
    raise errors.InputError("%s: %s" % (where, error)) from error
  if num_labels != task.num_labels:
    raise errors.InputError(
        "%s: the head has %s outputs, and the task %s %d" %
        (where, num_labels, task.display_name, task.num_labels))
  _check_values(model, uses_adapters, where)
  return task, model


def _check_values(model, uses_adapters, where):
  """Raises InputError for values of a run.json that cannot be built."""
  size, layers = model.adapter_size, model.bert_config.num_hidden_layers
  if uses_adapters and not model.adapter_fn and not (isinstance(size, int) and 1 <= size <= 10**6):
    raise errors.InputError("%s: adapter_size is %r, and must be at least 1" %
                            (where, size))
  if not all(0 <= layer < layers for layer in model.adapter_layers or ()):
    raise errors.InputError("%s: adapter_layers is %s; the model's layers are "
                            "0 to %d" % (where, model.adapter_layers,
                                         layers - 1))
  for value, known, key in (
      (model.adapter_order, ADAPTER_ORDERS, "adapter_order"),
      (model.adapter_act, tuple(modeling.ACTIVATIONS), "adapter_act")):
    if value not in known:
      raise errors.InputError("%s: %s is %s; it can be %s" % (
          where, key, errors.shown(value), " or ".join(known)))
  if model.precision not in PRECISIONS:
    raise errors.InputError("%s: precision is %s; it can be %s" % (
        where, errors.shown(model.precision), " or ".join(PRECISIONS)))
