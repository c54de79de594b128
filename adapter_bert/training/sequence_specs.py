"""BART, GPT-2 and T5 with what a method trains in them.

What a `SequenceSpec` builds is trained, evaluated and generated with; its
record in run.json says how to build it again.
"""

import dataclasses
import functools
from typing import Any, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.data import datasets
from adapter_bert.models import encoder_decoder
from adapter_bert.models import families
from adapter_bert.training import own_adapters
from adapter_bert.training import specs
from adapter_bert.training import teacher_forcing
from adapter_bert.tuning import Tuning
import modeling

# The fields that a record has, beside the config.
_RECORDED = ("tune", "adapter_size", "adapter_act", "adapter_fn",
             "adapter_layers", "cross_adapters",
             "prefix_length", "prefix_hidden_size", "prefix_positions",
             "prefix_in")


@dataclasses.dataclass
class SequenceSpec(specs.PrefixedSpec):
  """A sequence model with its method of tuning.

  config: a config of one of models/families.py.
  tune: see tuning.Tuning; "full" is the model without adapters and prefixes.
  adapter_size, adapter_init_scale: see modeling.feedforward_adapter.
  adapter_act: a key of modeling.ACTIVATIONS, the bottleneck's.
  adapter_fn: own_adapters.OwnAdapter in place of the bottleneck, or None.
  adapter_layers: indices of the layers with adapters; None: all. GPT-2 only.
  cross_adapters: bool, see models/encoder_decoder.py.
  prefix_length: int, P. prefix_hidden_size: int, of the prefix's MLP; None: it
    has none.
  prefix_positions: "after" or "unshifted", see models/gpt2.py.
  prefix_in: the places of an encoder-decoder that have a prefix.
  prefix_init: "random", or "zero": keys and values of 0.
  prefix_dropout_prob, prefix_init_scale: see modeling.prefix_encoder.
  precision: a key of specs.PRECISIONS.
  max_source_length, max_target_length: ints, of the examples.
  pads: (int, int), the ids behind a source and behind a target.
  label_smoothing: float, in training; see teacher_forcing.losses.
  """
  config: Any
  tune: str = "full"
  adapter_size: int = 64
  adapter_init_scale: float = 1e-3
  adapter_act: str = "gelu"
  adapter_fn: Optional[Any] = None
  adapter_layers: Optional[Sequence[int]] = None
  cross_adapters: bool = False
  prefix_length: int = 20
  prefix_hidden_size: Optional[int] = None
  prefix_positions: str = "after"
  prefix_in: Sequence[str] = encoder_decoder.PREFIX_PLACES
  prefix_dropout_prob: float = 0.0
  prefix_init: str = "random"
  prefix_init_scale: float = 1.0
  precision: str = "float32"
  max_source_length: int = 128
  max_target_length: int = 128
  pads: Sequence[int] = (0, 0)
  label_smoothing: float = 0.0

  def __post_init__(self):
    """Raises ValueError for what the family of the config does not have."""
    has_encoder = families.of_config(self.config).has_encoder
    modeling.get_activation(self.adapter_act)
    if has_encoder and self.adapter_layers is not None:
      raise ValueError("adapter_layers is %s; it is for GPT-2" %
                       (self.adapter_layers,))
    if self.cross_adapters and not has_encoder:
      raise ValueError("cross_adapters is on, and GPT-2 has no cross-attention")

  @property
  def tuning(self):
    return Tuning(self.tune)

  def model(self, is_training, batch, ops=None, frozen=False):
    """The model over a batch, in the open variable scope.

    Args:
      is_training: bool.
      batch: dict of int32 tensors: input_ids and input_mask [B, S]; for an
        encoder-decoder that is to read a target, decoder_input_ids and
        decoder_input_mask [B, T], too.
      ops: see modeling.BertModel.
      frozen: bool; nothing is to be trained, so that the pre-trained variables
        are stored in the type that is computed in, whatever the method trains.
    """
    family = families.of_config(self.config)
    names = ["input_ids", "input_mask"]
    hooks = dict(adapter_fn=self._adapter_fn(ops),
                 prefix_fn=self.get_prefix_fn(is_training, ops))
    if family.has_encoder:
      names += ["decoder_input_ids", "decoder_input_mask"]
      hooks.update(cross_adapters=self.cross_adapters, prefix_in=self.prefix_in)
    else:
      hooks.update(adapter_layers=self.adapter_layers)
    if self.config.MODEL_TYPE != "t5":  # Its positions are distances.
      hooks.update(prefix_positions=self.prefix_positions)
    tuning = Tuning("head") if frozen else self.tuning
    getter = tuning.variable_getter(specs.PRECISIONS[self.precision], ops)
    with tf.variable_scope(tf.get_variable_scope(), auxiliary_name_scope=False,
                           custom_getter=getter):
      return family.model(self.config, is_training, skip_padding=is_training,
                          ops=ops, **hooks,
                          **{name: batch.get(name) for name in names})

  def _adapter_fn(self, ops):
    if not self.tuning.uses_adapters:
      return None
    return self.adapter_fn or functools.partial(
        modeling.feedforward_adapter, hidden_size=self.adapter_size,
        init_scale=self.adapter_init_scale,
        activation=modeling.get_activation(self.adapter_act), ops=ops)

  def build(self, is_training, batch, ops=None):
    """See specs.ModelSpec; the batch is one of datasets.py's sequences.

    The loss of an example is the mean over its target's tokens, and its weight
    their number.
    """
    if families.of_config(self.config).has_encoder:
      model = self.model(is_training, teacher_forcing.encoder_decoder_inputs(
          batch, self.config.decoder_start_token_id), ops)
      hidden = model.get_sequence_output()
    else:
      model = self.model(is_training, teacher_forcing.joined_inputs(batch), ops)
      hidden = teacher_forcing.before_targets(model.get_sequence_output(), batch)
    losses, weights = teacher_forcing.losses(
        model.logits(hidden), batch,
        self.label_smoothing if is_training else 0.0)
    return specs.Outputs(losses, {}, weights)

  def train_dataset(self, records, batch_size, seed, **options):
    """See specs.ModelSpec; `records` is a tfrecords.RecordSet."""
    return datasets.train_sequences(
        records, batch_size, self.max_source_length, self.max_target_length,
        seed, *self.pads, **options)

  def eval_dataset(self, records, batch_size, **options):
    """See specs.ModelSpec; `records` is a tfrecords.RecordSet."""
    return datasets.eval_sequences(
        records, batch_size, self.max_source_length, self.max_target_length,
        *self.pads, **options)

  def empty_batch(self):
    """See specs.ModelSpec."""
    ids = tf.zeros([1, 2], tf.int32)
    return {"source_ids": ids, "source_mask": ids + 1, "target_ids": ids,
            "target_mask": ids + 1}

  def initial_values(self, records, weights):
    """See specs.ModelSpec: prefixes of 0, if they are to start so."""
    del records, weights
    if self.prefix_init != "zero" or not self.tuning.uses_prefixes:
      return {}
    # What gives the keys and values: the MLP's last layer, or the table.
    last = "/dense_1/kernel" if self.prefix_hidden_size else "/embeddings"
    with tf.Graph().as_default():
      self.build(False, self.empty_batch())
      return {v.op.name: np.zeros(v.shape.as_list(), np.float32)
              for v in tf.get_collection(modeling.PREFIXES)
              if v.op.name.endswith(last)}

  @property
  def first_position(self):
    """int: the position of the first token of a prompt, or of BART's decoder."""
    shifts = (self.tuning.uses_prefixes and self.prefix_positions == "after" and
              self.config.MODEL_TYPE != "t5" and (
                  not families.of_config(self.config).has_encoder or
                  "self" in self.prefix_in))
    return self.prefix_length if shifts else 0

  def describe(self):
    """What run.json records; `from_record` reads it."""
    unused = [prefix for prefix, is_used in (
        ("adapter_", self.tuning.uses_adapters), ("cross_",
                                                  self.tuning.uses_adapters),
        ("prefix_", self.tuning.uses_prefixes)) if not is_used]
    values = {name: None if name.startswith(tuple(unused)) else
                    getattr(self, name) for name in _RECORDED}
    if values["adapter_act"] == SequenceSpec.adapter_act:
      values["adapter_act"] = None  # As in runs of before this setting.
    if values["adapter_fn"]:
      values.update(adapter_fn=self.adapter_fn.name, adapter_size=None)
    if values["prefix_in"]:
      values["prefix_in"] = list(values["prefix_in"])
    return dict(values, config=dict(self.config.to_dict(),
                                    model_type=self.config.MODEL_TYPE))


def from_record(record, where, precision="float32", adapter_fn=None):
  """The SequenceSpec of a run, or of its task checkpoint.

  Args:
    record: dict, with what `describe` gave in it.
    where: str, the file, for messages.
    precision: a key of specs.PRECISIONS.
    adapter_fn: the flag, see own_adapters.load_recorded.

  Raises: InputError, one line.
  """
  for name in ("config", "tune"):
    if name not in record:
      raise errors.InputError(
          "%s has no %r; it is not of a run on a sequence model" % (where, name))
  values = {name: record[name] for name in _RECORDED
            if record.get(name) is not None}
  own = own_adapters.load_recorded(values.pop("adapter_fn", None), adapter_fn,
                                   where)
  with errors.reported():
    spec = SequenceSpec(
        config=families.config_from_dict(record["config"], where),
        precision=precision, adapter_fn=own, **values)
    spec.tuning  # pylint: disable=pointless-statement
  return spec
