"""What a model's directory says of how it wants to be generated with.

Hugging Face keeps it in generation_config.json, and before 2023 in config.json.
"""

import os

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.generation import search
from adapter_bert.models import families

FILE = "generation_config.json"

# Their keys that are options here, by the same names.
_SAME = ("max_new_tokens", "min_new_tokens", "num_beams", "length_penalty",
         "early_stopping", "do_sample", "temperature", "top_k", "top_p",
         "repetition_penalty", "no_repeat_ngram_size", "forced_bos_token_id",
         "forced_eos_token_id", "num_return_sequences")

# Keys that are not built; with another value than this a line warns.
_NEUTRAL = {
    "bad_words_ids": None, "begin_suppress_tokens": None,
    "constraints": None, "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None, "force_words_ids": None,
    "min_p": None, "num_beam_groups": 1, "penalty_alpha": None,
    "renormalize_logits": False, "sequence_bias": None,
    "suppress_tokens": None, "typical_p": 1.0,
}


def read(directory, config):
  """The fields of search.Options that a directory gives: a dict.

  Args:
    directory: model_dir.ModelDir.
    config: the model's config.

  Raises: InputError for a file that cannot be read, or lacks an end of text.
  """
  path = os.path.join(directory.path, FILE)
  values = files.read_json(path, dict, missing_ok=True)
  if values is None:
    path, values = directory.config_file, config.to_dict()
  values = {key: value for key, value in values.items() if value is not None}
  found = {key: values[key] for key in _SAME if key in values}
  # Their lengths count the decoder's start; a prompt's is not known here.
  if families.of_config(config).has_encoder:
    for theirs, ours in (("max_length", "max_new_tokens"),
                         ("min_length", "min_new_tokens")):
      if theirs in values and ours not in found:
        found[ours] = max(values[theirs] - 1, 0)
  for key, neutral in _NEUTRAL.items():
    if values.get(key, neutral) not in (neutral, [], {}):
      logging.warning("%s: %s=%s is not built here and has no effect", path, key,
                      values[key])
  if not found.get("do_sample"):
    for key in ("temperature", "top_k", "top_p"):  # They would change nothing.
      found.pop(key, None)
  return dict(found, **_special_tokens(values, config, path))


def _special_tokens(values, config, path):
  """The ends of text, and what stands behind them."""
  ends = values.get("eos_token_id", getattr(config, "eos_token_id", None))
  ends = tuple(ends) if isinstance(ends, list) else (
      () if ends is None else (ends,))
  if not all(isinstance(end, int) for end in ends):
    raise errors.InputError("%s: eos_token_id is %r; it must be a token's "
                            "number, or a list of them" % (path, ends))
  pad = values.get("pad_token_id", getattr(config, "pad_token_id", None))
  if pad is None:
    pad = ends[0] if ends else 0
  return {"eos_token_ids": ends, "pad_token_id": pad}


def options(given, directory, config):
  """How to search.

  Args:
    given: dict of the fields of search.Options that the user gave.
    directory: model_dir.ModelDir, which gives the others.
    config: the model's config.

  Returns: search.Options, validated.

  Raises: InputError.
  """
  found = read(directory, config)
  taken = sorted(set(found) - set(given) - {"eos_token_ids", "pad_token_id"})
  if taken:
    logging.info("%s: its own settings are taken: %s", directory.path,
                 ", ".join("%s=%s" % (key, found[key]) for key in taken))
  chosen = search.Options(**dict(found, **given))
  chosen.validate(config.vocab_size)
  return chosen


# Flags that are fields of search.Options; the others have another name there.
_SEARCH = ("max_new_tokens", "min_new_tokens", "num_beams",
           "num_return_sequences", "length_penalty", "do_sample", "temperature",
           "top_k", "top_p", "repetition_penalty", "no_repeat_ngram_size",
           "forced_bos_token_id", "forced_eos_token_id")


def from_settings(config, directory, model_config, **fixed):
  """The search.Options of a program's settings; one that is not given is the
  model's.

  Args:
    config: with the fields that settings.GENERATE gives.
    directory, model_config: as `directory` and `config` of `options`.
    **fixed: fields of search.Options that are not settings of the program.

  Raises: InputError.
  """
  given = {name: getattr(config, name) for name in _SEARCH
           if name not in fixed and getattr(config, name) is not None}
  for name in ("forced_bos_token_id", "forced_eos_token_id"):
    if given.get(name) == -1:  # Not even if the model's settings say so.
      given[name] = None
  if config.beam_early_stopping is not None:
    given["early_stopping"] = {"true": True, "false": False}.get(
        config.beam_early_stopping, config.beam_early_stopping)
  return options(dict(given, **fixed), directory, model_config)
