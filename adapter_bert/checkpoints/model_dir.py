"""A directory with a published model: what --model_dir=DIR means.

Google publishes bert_config.json, vocab.txt and a checkpoint; Hugging Face
saves config.json, model.safetensors (or its shards) and vocab.txt or
tokenizer.json; OpenAI published GPT-2 as hparams.json, encoder.json, vocab.bpe
and a checkpoint; T5 was published as a checkpoint of Mesh TensorFlow, beside
which Hugging Face's config.json has to be put. A directory is read as it is,
nothing is converted.
"""

import dataclasses
import json
import os
from typing import Optional

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import hf_tokenizer
from adapter_bert.checkpoints.foreign import safetensors_dir
import tokenization

GOOGLE, HUGGING_FACE, OPENAI = "Google", "Hugging Face", "OpenAI"
MESH = "Mesh TensorFlow"
GOOGLE_CONFIG, OPENAI_CONFIG = "bert_config.json", "hparams.json"
OPENAI_VOCAB = "encoder.json"
_SEQUENCE_VOCABS = (hf_tokenizer.WHOLE, "vocab.json", "spiece.model",
                    "sentencepiece.model")


@dataclasses.dataclass
class ModelDir(object):
  """What a directory holds.

  path: str, the directory.
  kind: GOOGLE, HUGGING_FACE, OPENAI or MESH.
  family: str, "bert", "gpt2", "bart", "t5", ...: a config.json's model_type.
  config_file: str, the path of the config.
  vocab_file: str, the path of the file with the vocabulary; None if there is
    none. What else a tokenizer needs lies beside it.
  weights: str, what takes the place of init_checkpoint: a checkpoint's prefix,
    or the directory for Hugging Face's.
  """
  path: str
  kind: str
  family: str
  config_file: str
  vocab_file: Optional[str]
  weights: str


def open_model_dir(path, config_file=None, vocab_file=None, weights=None):
  """Finds out what a directory holds; of the weights nothing is read.

  Args:
    path: str.
    config_file, vocab_file, weights: str or None, what the user gives in place
      of what the directory holds.

  Returns: ModelDir.

  Raises:
    errors.InputError: there is no model, or more than one.
  """
  if not files.is_directory(path):
    raise errors.InputError(
        "model_dir %s is %s; give the directory of a model, as Google publishes "
        "it or Hugging Face saves it" %
        (path, "a file" if files.is_file(path) else "not there"))
  if files.is_file(os.path.join(path, bert_config.HF_NAME)):
    return _hugging_face(path, config_file, vocab_file, weights)
  if files.is_file(os.path.join(path, OPENAI_CONFIG)):
    return ModelDir(path, OPENAI, "gpt2",
                    config_file or os.path.join(path, OPENAI_CONFIG),
                    vocab_file or _first(path, OPENAI_VOCAB),
                    weights or _one_checkpoint(path))
  return ModelDir(path, GOOGLE, "bert", config_file or _google_config(path),
                  vocab_file or _google_vocab(path),
                  weights or _one_checkpoint(path))


def open_bert_dir(path, config_file=None, vocab_file=None, weights=None):
  """`open_model_dir` for the programs that build a BERT.

  Raises:
    errors.InputError: also if it is another model, or has no vocabulary.
  """
  found = open_model_dir(path, config_file, vocab_file, weights)
  if found.family != "bert":
    raise errors.InputError("model_dir %s holds a model of the kind %s, and "
                            "this program needs a BERT" % (path, found.family))
  if found.vocab_file is None:
    raise errors.InputError(
        "model_dir %s has no vocabulary (%s or %s); give --vocab_file" %
        (path, hf_tokenizer.VOCAB, hf_tokenizer.WHOLE))
  return found


def files_of(model_dir, config_file, vocab_file, init_checkpoint,
             needs_config=True):
  """The files of a BERT: what the user gives, and the rest from model_dir.

  Args:
    model_dir: str or None.
    config_file, vocab_file, init_checkpoint: str or None, the flags that go
      over what the directory holds.
    needs_config: bool; otherwise there may be no config_file.

  Returns: (config_file, vocab_file, init_checkpoint); without model_dir the
    last may be None.

  Raises:
    errors.InputError: one of the first two is nowhere, or a Hugging Face
      directory is given as init_checkpoint, without its config.
  """
  is_own = model_dir and init_checkpoint and (
      files.real(model_dir) == files.real(init_checkpoint))
  if not is_own and init_checkpoint and hf_bert.is_dir(init_checkpoint) and (
      not config_file or
      files.real(os.path.dirname(config_file) or ".") !=
      files.real(init_checkpoint)):
    raise errors.InputError(
        "init_checkpoint %s is a directory as Hugging Face saves a model; give "
        "--model_dir=%s in place of bert_config_file, vocab_file and "
        "init_checkpoint: its config and tokenizer belong to it" %
        (init_checkpoint, init_checkpoint))
  if model_dir:
    found = open_bert_dir(model_dir, config_file, vocab_file, init_checkpoint)
    return found.config_file, found.vocab_file, found.weights
  for name, value, is_needed in (
      ("bert_config_file", config_file, needs_config),
      ("vocab_file", vocab_file, True)):
    if is_needed and not value:
      raise errors.InputError("%s is not given; give it, or --model_dir" % name)
  return config_file, vocab_file, init_checkpoint


# --------------------------------------------------------------- the tokenizer


def load_tokenizer(vocab_file, do_lower_case, init_checkpoint, config,
                   config_path):
  """The tokenizer, with the settings beside its vocabulary, checked.

  Args:
    vocab_file: str, see hf_tokenizer.read.
    do_lower_case: bool; None: what the files say, or else true.
    init_checkpoint: str or None; a published model's name in it is compared
      where the files say nothing.
    config: the config of the model that reads the ids.
    config_path: str, where it comes from, for messages.

  Raises:
    errors.InputError: they do not fit each other.
  """
  found = hf_tokenizer.read(vocab_file)
  tokenizer = found.tokenizer(do_lower_case)
  if "do_lower_case" not in found.settings:
    with errors.reported():
      tokenization.validate_case_matches_checkpoint(tokenizer.do_lower_case,
                                                    init_checkpoint)
  words = max(tokenizer.inv_vocab) + 1
  if words > config.vocab_size:
    raise errors.InputError(
        "%s has %d words and the model %d (vocab_size in %s); give the "
        "vocabulary that the model was trained with" %
        (vocab_file, words, config.vocab_size, config_path))
  warning = tokenization.case_warning(tokenizer.vocab, tokenizer.do_lower_case)
  if warning:
    logging.warning("%s: %s", vocab_file, warning)
  return tokenizer


def warn_of_fewer_words(tokenizer, vocab_file, config):
  """Warns before a training whose vocabulary is smaller than the model's."""
  words = max(tokenizer.inv_vocab) + 1
  if words < config.vocab_size:
    logging.warning(
        "%s has %d words and the model's vocab_size is %d; is it the vocabulary "
        "that the model was trained with?", vocab_file, words,
        config.vocab_size)


def check_tokenizer(recorded, tokenizer, vocab_file, where):
  """Compares a tokenizer with the one that a run was trained with.

  Args:
    recorded: dict, from FullTokenizer.describe; None compares nothing.
    tokenizer: tokenization.FullTokenizer.
    vocab_file: str, its file, for the message.
    where: str, whose record it is.

  Raises:
    errors.InputError: they are not the same.
  """
  described = tokenizer.describe()
  for key in sorted(described) if recorded else ():
    there, here = recorded.get(key), described[key]
    if there != here:
      short = lambda value: (value[:12] + "..." if key == "vocabulary" and value
                             else json.dumps(value))
      raise errors.InputError(
          "%s was trained with another tokenizer: its %s is %s, and that of %s "
          "is %s; give the vocab_file that it was trained with" %
          (where, "vocabulary's digest" if key == "vocabulary" else key,
           short(there), vocab_file, short(here)))


# ----------------------------------------------------- the kinds of directories


def _hugging_face(path, config_file, vocab_file, weights):
  files.check_local(path, "model_dir", "a model as Hugging Face saves it is "
                    "mapped into memory")
  own_config = os.path.join(path, bert_config.HF_NAME)
  config = files.read_json(own_config, {"model_type": files.Optional(str)})
  if config.get("model_type") == "t5" and not _has_safetensors(path) and (
      weights or _checkpoints_in(path)):
    return ModelDir(path, MESH, "t5", config_file or own_config,
                    vocab_file or _first(path, *_SEQUENCE_VOCABS),
                    weights or _one_checkpoint(path))
  if not weights and not _has_safetensors(path):
    # Raises the line that says so, and what to do with a pickle.
    safetensors_dir.open_dir(path)
  vocab_file = vocab_file or _first(path, hf_tokenizer.VOCAB,
                                    *_SEQUENCE_VOCABS)
  return ModelDir(path, HUGGING_FACE, config.get("model_type") or "bert",
                  config_file or own_config, vocab_file, weights or path)


def _has_safetensors(path):
  return _first(path, safetensors_dir.WEIGHTS, safetensors_dir.INDEX) is not None


def _google_config(path):
  """bert_config.json, or what others call it: albert_config_tiny.json, ..."""
  found = files.matching(path, "*config*.json")
  return _first(path, GOOGLE_CONFIG) or _only(
      sorted(name for name in found
             if os.path.basename(name) != hf_tokenizer.CONFIG),
      path, "a config (bert_config.json)", "--bert_config_file")


def _google_vocab(path):
  """vocab.txt, or the one file that is called alike; None without one."""
  found = files.matching(path, "*vocab*.txt")
  return _first(path, hf_tokenizer.VOCAB) or (
      found[0] if len(found) == 1 else None)


def _one_checkpoint(path):
  """The prefix of the one checkpoint in a directory."""
  return _only(_checkpoints_in(path), path, "a checkpoint (*.ckpt.index)",
               "--init_checkpoint")[:-len(".index")]


def _checkpoints_in(path):
  """The .index files of the checkpoints in a directory."""
  return sorted(files.matching(path, "*.ckpt*.index"))


def _only(found, path, what, flag):
  if len(found) == 1:
    return found[0]
  raise errors.InputError(
      "model_dir %s holds %s%s; give %s" %
      (path, ("no %s" % what[len("a "):]) if not found else
       "more than %s: " % what, ", ".join(map(os.path.basename, found)),
       "a directory as Google publishes a BERT or Hugging Face saves one"
       if not found else "%s too, to say which" % flag))


def _first(path, *names):
  """The path of the first of the files that is there, or None."""
  for name in names:
    if files.is_file(os.path.join(path, name)):
      return os.path.join(path, name)
  return None
