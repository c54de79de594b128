"""The families of sequence models, by the model_type of their config."""

import collections

from adapter_bert.base import errors
from adapter_bert.models import bart
from adapter_bert.models import gpt2
from adapter_bert.models import t5

# config: the class of its config. model: the class of its model.
# has_encoder: bool; the prompt is then what the encoder reads, padding on the
#   right, and what is generated starts with the decoder's start token.
Family = collections.namedtuple("Family", ["config", "model", "has_encoder"])

FAMILIES = {
    "bart": Family(bart.BartConfig, bart.BartModel, True),
    "gpt2": Family(gpt2.GPT2Config, gpt2.GPT2Model, False),
    "t5": Family(t5.T5Config, t5.T5Model, True),
}


def of_config(config):
  """The Family of a config, one of models/config.py's."""
  return FAMILIES[config.MODEL_TYPE]


def config_from_dict(json_object, where):
  """The config of whatever family that a config.json's dict is of.

  Raises: InputError, one line, for another model or a config that is not built.
  """
  model_type = (json_object.get("model_type")
                if isinstance(json_object, dict) else None)
  if model_type not in FAMILIES:
    raise errors.InputError(
        "%s: model_type is %r; a model that generates is one of %s%s" %
        (where, model_type, ", ".join(sorted(FAMILIES)),
         " (a BERT is for run_classifier.py)" if model_type == "bert" else ""))
  try:
    return FAMILIES[model_type].config.from_dict(json_object)
  except errors.InputError as error:
    raise errors.InputError("%s: %s" % (where, error)) from error


def positions(config):
  """(The config's key, int: the positions of a sequence); None: any number."""
  for key in ("n_positions", "max_position_embeddings"):
    if key in config.KEYS:
      return key, getattr(config, key)
  return None
