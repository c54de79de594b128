"""Hugging Face's configs: defaults, what is kept, what is refused."""

import collections
import json

import pytest

from adapter_bert.base import errors
from adapter_bert.models import config


class FishConfig(config.ModelConfig):
  """A config of a model that does not exist."""
  MODEL_TYPE = "fish"
  KEYS = collections.OrderedDict([
      ("vocab_size", config.Key(31, config.SIZE)),
      ("fins", config.Key(2, config.SIZE)),
      ("dropout", config.Key(0.1, config.RATE)),
      ("act", config.Key("gelu", config.TEXT)),
  ] + config.SHARING_KEYS)
  BUILT = {"swims_backwards": False}


def test_absent_keys_have_their_defaults_and_unknown_ones_are_kept():
  read = FishConfig.from_dict({"vocab_size": 5, "model_type": "fish",
                               "swims_backwards": False,
                               "id2label": {"0": "A"}})
  assert (read.vocab_size, read.fins, read.id2label) == (5, 2, {"0": "A"})
  assert FishConfig.from_dict(json.loads(read.to_json_string())).to_dict() == (
      read.to_dict())
  assert FishConfig(fins=3).fins == 3
  with pytest.raises(TypeError, match="has no key finns"):
    FishConfig(finns=3)


@pytest.mark.parametrize("keys, message", [
    ({"fins": 0}, "fins is 0; it must be a whole number >= 1"),
    ({"fins": True}, "fins is true; it must be a whole number"),
    ({"dropout": 1}, "dropout is 1; it must be a number from 0"),
    ({"swims_backwards": True}, "swims_backwards is true; it must be fals"),
    ({"model_type": "bird"}, "model_type is 'bird'; this is the config of a f"),
    ({"layers_per_group": 2}, "layers_per_group is 2; it must be null unless"),
])
def test_what_cannot_be_built_is_refused_by_its_key(keys, message):
  with pytest.raises(errors.InputError, match=message):
    FishConfig.from_dict(dict({"vocab_size": 5}, **keys))


def test_gelu_is_the_exact_one_and_gelu_new_the_tanh_one():
  assert FishConfig(act="gelu").activation("act") == "gelu_erf"
  assert FishConfig(act="gelu_new").activation("act") == "gelu"
  with pytest.raises(errors.InputError, match="act is \"swish\"; it must be"):
    FishConfig(act="swish").activation("act")


def test_a_file_that_is_no_config_is_named(tmp_path):
  path = tmp_path / "config.json"
  with pytest.raises(errors.InputError, match="config.json: No such file"):
    FishConfig.from_json_file(str(path))
  for text, message in (("{", "config.json: Expecting"), ("[]", "JSON list"),
                        ("{}", "has no vocab_size")):
    path.write_text(text)
    with pytest.raises(errors.InputError, match=message):
      FishConfig.from_json_file(str(path))
