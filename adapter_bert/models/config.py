"""What the configs of the models here share: Hugging Face's keys, checked.

A subclass is a table: each key with its default and what it may be, and the
keys that would change the outputs but are built for one value only. A
config.json is read by `from_json_file`, which refuses what is not built.
"""

import collections
import copy
import json

from adapter_bert.base import errors

# default: the value where a config.json does not have the key; allowed: one of
# the kinds below, (a function of the value, what it says in words).
Key = collections.namedtuple("Key", ["default", "allowed"])


def _is_integer(value):
  return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


SIZE = (lambda v: _is_integer(v) and v >= 1, "a whole number >= 1")
SIZE_OR_NONE = (lambda v: v is None or SIZE[0](v),
                "a whole number >= 1, or null")
TOKEN = (lambda v: _is_integer(v) and v >= 0, "a token's number, >= 0")
TOKEN_OR_NONE = (lambda v: v is None or TOKEN[0](v),
                 "a token's number, >= 0, or null")
RATE = (lambda v: _is_number(v) and 0 <= v < 1,
        "a number from 0 up to, not including, 1")
POSITIVE = (lambda v: _is_number(v) and v > 0, "a number above 0")
SWITCH = (lambda v: isinstance(v, bool), "true or false")
SWITCH_OR_NONE = (lambda v: v is None or isinstance(v, bool),
                  "true, false, or null")
TEXT = (lambda v: isinstance(v, str), "a string")

# Hugging Face's name of an activation -> its name in modeling.ACTIVATIONS.
# Their "gelu" is the exact form, "gelu_new" what Google's BERT calls gelu.
ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
    "tanh": "tanh",
}

# Layers that share their weights, as in modeling.transformer_model; Hugging
# Face has no such keys for these models.
SHARING_KEYS = [
    ("share_parameter_across_layers", Key(False, SWITCH)),
    ("layers_per_group", Key(None, SIZE_OR_NONE)),
    ("share_adapters", Key(True, SWITCH)),
]


class ModelConfig(object):
  """A config with the subclass's keys as attributes.

  Every other key of a config.json is kept as an attribute too, and means
  nothing here.

  A subclass has:
    MODEL_TYPE: str, what a config.json must have as model_type, if it has one.
    KEYS: OrderedDict of str -> Key.
    BUILT: dict of str -> value; a config.json may have such a key with this
      value only, because no other is built.

  Args:
    **keys: any of KEYS.

  Raises (the constructors): errors.InputError for a key with a value that it
    may not have, or that is not built; TypeError for an unknown key.
  """

  MODEL_TYPE = None
  KEYS = collections.OrderedDict()
  BUILT = {}

  def __init__(self, **keys):
    for key in keys:
      if key not in self.KEYS:
        raise TypeError("%s has no key %s" % (type(self).__name__, key))
    self._fill(keys)

  @classmethod
  def from_dict(cls, json_object):
    """A config from a dict, such as a config.json holds."""
    if not isinstance(json_object, dict):
      raise errors.InputError("the config is a JSON %s, not an object of keys "
                              "and values" % type(json_object).__name__)
    model_type = json_object.get("model_type", cls.MODEL_TYPE)
    if model_type != cls.MODEL_TYPE:
      raise errors.InputError("config: model_type is %r; this is the config of "
                              "a %s" % (model_type, cls.MODEL_TYPE))
    # No size of a model is guessed but those that Hugging Face leaves out.
    if "vocab_size" not in json_object:
      raise errors.InputError(
          "the config has no vocab_size; is it a %s's config.json? (its keys: "
          "%s)" % (cls.MODEL_TYPE, ", ".join(sorted(json_object))))
    config = cls.__new__(cls)
    config._fill(json_object)  # pylint: disable=protected-access
    return config

  @classmethod
  def from_json_file(cls, json_file):
    """A config from the path of a JSON file."""
    try:
      with open(json_file, encoding="utf-8") as reader:
        return cls.from_dict(json.load(reader))
    except OSError as error:
      raise errors.InputError("%s: %s" % (json_file, error.strerror)) from error
    except ValueError as error:
      raise errors.InputError("%s: %s" % (json_file, error)) from error

  def _fill(self, keys):
    for key, (default, _) in self.KEYS.items():
      setattr(self, key, default)
    for key, value in keys.items():
      setattr(self, key, copy.deepcopy(value))
    self.validate()

  def to_dict(self):
    return copy.deepcopy(self.__dict__)

  def to_json_string(self):
    return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

  def validate(self):
    """Raises errors.InputError, naming the key, if it cannot be built."""
    for key, (_, (is_good, words)) in self.KEYS.items():
      if not is_good(getattr(self, key)):
        self.refuse(key, words)
    for key, value in self.BUILT.items():
      if getattr(self, key, value) != value:
        self.refuse(key, "%s; no other is built" % json.dumps(value))
    if (getattr(self, "layers_per_group", None) is not None and
        not self.share_parameter_across_layers):
      self.refuse("layers_per_group",
                  "null unless share_parameter_across_layers is true")

  def activation(self, key, name=None):
    """The name in modeling.ACTIVATIONS of the activation in `key`.

    Args:
      key: str, for the message, and where the name is found.
      name: str, Hugging Face's name of it; None: the value of `key`.
    """
    name = getattr(self, key) if name is None else name
    if name not in ACTIVATIONS:
      self.refuse(key, "made of one of %s" % ", ".join(sorted(ACTIVATIONS)))
    return ACTIVATIONS[name]

  def refuse(self, key, allowed):
    """Raises errors.InputError: the key's value is not what it must be."""
    raise errors.InputError("config: %s is %s; it must be %s" % (
        key, json.dumps(getattr(self, key), default=repr), allowed))
