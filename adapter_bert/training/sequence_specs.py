"""BART, GPT-2 and T5 with what a method trains in them.

What a `SequenceSpec` builds is trained, evaluated and generated with; its
record in run.json says how to build it again.
"""

import dataclasses
import functools
from typing import Any, Optional, Sequence

import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.models import encoder_decoder
from adapter_bert.models import families
from adapter_bert.training import specs
from adapter_bert.tuning import Tuning
import modeling

# The fields that a record has, beside the config.
_RECORDED = ("tune", "adapter_size", "adapter_layers", "cross_adapters",
             "prefix_length", "prefix_hidden_size", "prefix_positions",
             "prefix_in")


@dataclasses.dataclass
class SequenceSpec(specs.ModelSpec):
  """A sequence model with its method of tuning.

  config: a config of one of models/families.py.
  tune: see tuning.Tuning; "full" is the model without adapters and prefixes.
  adapter_size, adapter_init_scale: see modeling.feedforward_adapter.
  adapter_layers: indices of the layers with adapters; None: all. GPT-2 only.
  cross_adapters: bool, see models/encoder_decoder.py.
  prefix_length: int, P. prefix_hidden_size: int, of the prefix's MLP; None: it
    has none.
  prefix_positions: "after" or "unshifted", see models/gpt2.py.
  prefix_in: the places of an encoder-decoder that have a prefix.
  precision: a key of specs.PRECISIONS.
  """
  config: Any
  tune: str = "full"
  adapter_size: int = 64
  adapter_init_scale: float = 1e-3
  adapter_layers: Optional[Sequence[int]] = None
  cross_adapters: bool = False
  prefix_length: int = 20
  prefix_hidden_size: Optional[int] = None
  prefix_positions: str = "after"
  prefix_in: Sequence[str] = encoder_decoder.PREFIX_PLACES
  precision: str = "float32"

  def __post_init__(self):
    """Raises ValueError for what the family of the config does not have."""
    has_encoder = families.of_config(self.config).has_encoder
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
    hooks = dict(adapter_fn=self._adapter_fn(ops), prefix_fn=self._prefix_fn(ops))
    if family.has_encoder:
      names += ["decoder_input_ids", "decoder_input_mask"]
      hooks.update(cross_adapters=self.cross_adapters, prefix_in=self.prefix_in)
    else:
      hooks.update(adapter_layers=self.adapter_layers,
                   prefix_positions=self.prefix_positions)
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
    return functools.partial(
        modeling.feedforward_adapter, hidden_size=self.adapter_size,
        init_scale=self.adapter_init_scale, ops=ops)

  def _prefix_fn(self, ops):
    if not self.tuning.uses_prefixes:
      return None
    return functools.partial(
        modeling.prefix_encoder, prefix_length=self.prefix_length,
        hidden_size=self.prefix_hidden_size, ops=ops)

  @property
  def first_position(self):
    """int: the position of a prompt's first token."""
    shifts = (self.tuning.uses_prefixes and self.prefix_positions == "after" and
              not families.of_config(self.config).has_encoder)
    return self.prefix_length if shifts else 0

  def describe(self):
    """What run.json records; `from_record` reads it."""
    return dict({name: getattr(self, name) for name in _RECORDED},
                config=dict(self.config.to_dict(),
                            model_type=self.config.MODEL_TYPE))


def from_record(record, where, precision="float32"):
  """The SequenceSpec of a run, or of its task checkpoint.

  Args:
    record: dict, with what `describe` gave in it.
    where: str, the file, for messages.
    precision: a key of specs.PRECISIONS.

  Raises: InputError, one line.
  """
  for name in ("config", "tune"):
    if name not in record:
      raise errors.InputError(
          "%s has no %r; it is not of a run on a sequence model" % (where, name))
  with errors.reported():
    spec = SequenceSpec(
        config=families.config_from_dict(record["config"], where),
        precision=precision, **{name: record[name] for name in _RECORDED
                                if name in record})
    spec.tuning  # pylint: disable=pointless-statement
  return spec
