"""A directory with a published model: what --model_dir=DIR means.

Google publishes bert_config.json, vocab.txt and a checkpoint; Hugging Face
saves config.json, model.safetensors (or its shards) and vocab.txt or
tokenizer.json; OpenAI published GPT-2 as hparams.json, encoder.json, vocab.bpe
and a checkpoint. A directory is read as it is, nothing is converted.
"""

import dataclasses
import glob
import os
from typing import Optional

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import hf_tokenizer
from adapter_bert.checkpoints.foreign import safetensors_dir

GOOGLE, HUGGING_FACE, OPENAI = "Google", "Hugging Face", "OpenAI"
GOOGLE_CONFIG, OPENAI_CONFIG = "bert_config.json", "hparams.json"
OPENAI_VOCAB = "encoder.json"


@dataclasses.dataclass
class ModelDir(object):
  """What a directory holds.

  path: str, the directory.
  kind: GOOGLE, HUGGING_FACE or OPENAI.
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
  path = os.path.expanduser(path)
  if not os.path.isdir(path):
    raise errors.InputError(
        "model_dir %s is %s; give the directory of a model, as Google publishes "
        "it or Hugging Face saves it" %
        (path, "a file" if os.path.exists(path) else "not there"))
  if os.path.isfile(os.path.join(path, bert_config.HF_NAME)):
    return _hugging_face(path, config_file, vocab_file, weights)
  if os.path.isfile(os.path.join(path, OPENAI_CONFIG)):
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


def check_init_checkpoint(path):
  """Refuses a Hugging Face directory, which is more than a checkpoint.

  Raises:
    errors.InputError: it names --model_dir.
  """
  if path and hf_bert.is_dir(path):
    raise errors.InputError(
        "init_checkpoint %s is a directory as Hugging Face saves a model; give "
        "--model_dir=%s in place of bert_config_file, vocab_file and "
        "init_checkpoint: its config and tokenizer belong to it" % (path, path))


def _hugging_face(path, config_file, vocab_file, weights):
  own_config = os.path.join(path, bert_config.HF_NAME)
  config = files.read_json(own_config, {"model_type": files.Optional(str)})
  if not weights and not any(os.path.isfile(os.path.join(path, name)) for name in
                             (safetensors_dir.WEIGHTS, safetensors_dir.INDEX)):
    # Raises the line that says so, and what to do with a pickle.
    safetensors_dir.open_dir(path)
  vocab_file = vocab_file or _first(path, hf_tokenizer.VOCAB,
                                    hf_tokenizer.WHOLE, "vocab.json",
                                    "spiece.model")
  return ModelDir(path, HUGGING_FACE, config.get("model_type") or "bert",
                  config_file or own_config, vocab_file, weights or path)


def _google_config(path):
  """bert_config.json, or what others call it: albert_config_tiny.json, ..."""
  found = glob.glob(os.path.join(glob.escape(path), "*config*.json"))
  return _first(path, GOOGLE_CONFIG) or _only(
      sorted(name for name in found
             if os.path.basename(name) != hf_tokenizer.CONFIG),
      path, "a config (bert_config.json)", "--bert_config_file")


def _google_vocab(path):
  """vocab.txt, or the one file that is called alike; None without one."""
  found = glob.glob(os.path.join(glob.escape(path), "*vocab*.txt"))
  return _first(path, hf_tokenizer.VOCAB) or (
      found[0] if len(found) == 1 else None)


def _one_checkpoint(path):
  """The prefix of the one checkpoint in a directory."""
  found = sorted(glob.glob(os.path.join(glob.escape(path), "*.ckpt*.index")))
  return _only(found, path, "a checkpoint (*.ckpt.index)",
               "--init_checkpoint")[:-len(".index")]


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
    if os.path.isfile(os.path.join(path, name)):
      return os.path.join(path, name)
  return None
