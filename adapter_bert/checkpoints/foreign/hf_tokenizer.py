"""What a Hugging Face directory says of BERT's tokenizer.

tokenizer_config.json has its settings and tokenizer.json the tokenizer whole;
one directory can have either, both or neither, and where both speak the first
wins, as in transformers. What tokenization.py cannot do is refused.

`convert` writes the same settings, as a tokenizer_config.json, beside the
checkpoint that it makes, so that every vocabulary is read through here.
"""

import dataclasses
import json
import os
from typing import Dict, List, Optional

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
import tokenization

VOCAB, WHOLE, CONFIG = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
OLD_ADDED = "added_tokens.json"

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer",
            "PreTrainedTokenizerFast")
_SETTINGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars",
             "max_input_chars_per_word")


@dataclasses.dataclass
class TokenizerFiles(object):
  """What a tokenizer is made of.

  vocab_file: str, the path of vocab.txt or tokenizer.json.
  vocab: dict of token -> id.
  settings: dict with those of FullTokenizer's arguments of which the files say
    something.
  added_tokens: list of tokenization.AddedToken.
  said_by: str, the file whose word the settings are; None if there is none.
  """
  vocab_file: str
  vocab: Dict[str, int]
  settings: Dict[str, object]
  added_tokens: List[tokenization.AddedToken]
  said_by: Optional[str]

  def tokenizer(self, do_lower_case=None, flag="do_lower_case"):
    """The FullTokenizer.

    Args:
      do_lower_case: bool, what the user says; None: what the files say, or
        else true.
      flag: str, for the message.

    Raises:
      errors.InputError: the user says another thing than the files.
    """
    said = self.settings.get("do_lower_case")
    if None not in (said, do_lower_case) and said != do_lower_case:
      raise errors.InputError(
          "--%s=%s, but %s says that the model's text was %slower-cased; leave "
          "the flag out" % (flag, str(do_lower_case).lower(), self.said_by,
                            "" if said else "not "))
    settings = dict(self.settings)
    if said is None:
      settings["do_lower_case"] = do_lower_case is not False
    with errors.reported():
      return tokenization.FullTokenizer(
          self.vocab_file, vocab=self.vocab, added_tokens=self.added_tokens,
          **settings)

  def write(self, directory):
    """Writes vocab.txt, and tokenizer_config.json if there is something to say.

    Returns: list of the files' names.
    """
    tokens = {index: token for token, index in self.vocab.items()}
    # A number that no token has is an empty line.
    files.write_atomically(
        os.path.join(directory, VOCAB),
        ("%s\n" % tokens.get(index, "") for index in range(max(tokens) + 1)))
    if not self.settings and not self.added_tokens:
      return [VOCAB]
    config = dict(self.settings, tokenizer_class="BertTokenizer")
    if self.added_tokens:
      config["added_tokens_decoder"] = {
          str(self.vocab[token.content]): dict(token._asdict())
          for token in self.added_tokens}
    files.write_json(os.path.join(directory, CONFIG), config)
    return [VOCAB, CONFIG]


def read(vocab_file):
  """The tokenizer whose vocabulary is in a file.

  Args:
    vocab_file: str, a vocab.txt or a tokenizer.json; what lies beside it says
      how it is used.

  Returns: TokenizerFiles.

  Raises:
    errors.InputError: a file is damaged, or says what cannot be done.
  """
  directory = os.path.dirname(vocab_file)
  path = lambda name: os.path.join(directory, name)
  is_whole = vocab_file.endswith(".json")
  config = files.read_json(path(CONFIG), dict, missing_ok=True,
                           any_size=True) or {}
  whole = files.read_json(vocab_file if is_whole else path(WHOLE), dict,
                          missing_ok=not is_whole)
  if is_whole:
    _check_whole(whole, vocab_file)
    vocab = dict(whole["model"]["vocab"])
    _check_ids(vocab, vocab_file)
  else:
    files.check_regular(vocab_file, "--vocab_file")
    if files.has_scheme(vocab_file) and not files.is_file(vocab_file):
      raise errors.InputError("cannot read the vocabulary %s: there is no such "
                              "file" % vocab_file)
    with errors.reported():
      vocab = tokenization.load_vocab(vocab_file, files.open_binary)
    if whole:
      _check_whole(whole, path(WHOLE))
  _check_config(config, path(CONFIG))
  added = _added_tokens(directory, config, whole, vocab)
  settings, said_by = _settings(directory, config, whole)
  return TokenizerFiles(vocab_file, vocab, settings, added, said_by)


def _settings(directory, config, whole):
  """(dict, str): what the files say, and which of them says it."""
  of_config = {key: config[key] for key in _SETTINGS
               if config.get(key) is not None}
  of_whole = {}
  if whole:
    normalizer = whole["normalizer"]
    of_whole = {"do_lower_case": normalizer.get("lowercase", True),
                "strip_accents": normalizer.get("strip_accents"),
                "tokenize_chinese_chars": normalizer.get(
                    "handle_chinese_chars", True),
                "max_input_chars_per_word": whole["model"].get(
                    "max_input_chars_per_word", 100)}
    of_whole = {key: value for key, value in of_whole.items()
                if value is not None}
  for key in sorted(set(of_config) & set(of_whole)):
    if of_config[key] != of_whole[key]:
      logging.warning("%s: %s is %s in %s and %s in %s; the first is used",
                      directory, key, json.dumps(of_config[key]), CONFIG,
                      json.dumps(of_whole[key]), WHOLE)
  settings = dict(of_whole, **of_config)
  where = os.path.join(directory, CONFIG if "do_lower_case" in of_config else
                       WHOLE)
  files.check_shape(settings, {
      key: files.Optional(int if key.startswith("max") else bool)
      for key in _SETTINGS}, where)
  return settings, where if settings else None


def _check_config(config, where):
  """Refuses a tokenizer_config.json of another tokenizer."""
  name = str(config.get("tokenizer_class", _CLASSES[0]))
  if name not in _CLASSES and not (
      name.endswith("Fast") and name[:-len("Fast")] in _CLASSES):
    _refuse(where, "tokenizer_class", name, "BertTokenizer")
  for key, value in (("do_basic_tokenize", True), ("never_split", None),
                     ("clean_text", True)):
    if config.get(key, value) not in (value, []):
      _refuse(where, key, config[key], value)
  for key, token in (("unk_token", "[UNK]"), ("cls_token", "[CLS]"),
                     ("sep_token", "[SEP]"), ("pad_token", "[PAD]")):
    found = config.get(key) or token
    if isinstance(found, dict):
      found = found.get("content")
    if found != token:
      _refuse(where, key, found, token)


def _check_whole(whole, where):
  """Refuses a tokenizer.json of another tokenizer."""
  files.check_shape(whole, {"model": {"type": str}}, where)
  for place, key, value in (
      ("model", "type", "WordPiece"), ("model", "unk_token", "[UNK]"),
      ("model", "continuing_subword_prefix", "##"),
      ("normalizer", "type", "BertNormalizer"),
      ("normalizer", "clean_text", True),
      ("pre_tokenizer", "type", "BertPreTokenizer")):
    found = (whole.get(place) or {"type": None}).get(key, value)
    if found != value:
      _refuse(where, "%s.%s" % (place, key), found, value)
  files.check_shape(whole["model"], {"vocab": dict}, where)
  template = whole.get("post_processor") or {}
  if template.get("type") == "TemplateProcessing":
    for key, value in (("single", "[CLS]:0 A:0 [SEP]:0"),
                       ("pair", "[CLS]:0 A:0 [SEP]:0 B:1 [SEP]:1")):
      found = _template(template.get(key, []))
      if found != value:
        _refuse(where, "post_processor." + key, found, value)


def _template(items):
  """A list of tokenizer.json's template as a line: "[CLS]:0 A:0 [SEP]:0"."""
  parts = [next(iter(item.values())) for item in items]
  return " ".join("%s:%s" % (part.get("id"), part.get("type_id"))
                  for part in parts)


def _refuse(where, key, found, value):
  raise errors.InputError(
      "%s: %s is %s; only %s is built, with another the text would become other "
      "tokens" % (where, key, json.dumps(found), json.dumps(value)))


def _check_ids(vocab, where):
  """Raises InputError unless the ids of a JSON vocabulary can be."""
  files.check_shape(list(vocab.values()), [int], where)
  ids = sorted(vocab.values())
  if not ids or ids[0] < 0 or len(set(ids)) < len(ids) or (
      ids[-1] >= 2 * len(ids) + 1000):
    raise errors.InputError(
        "%s: its vocabulary of %d words has numbers that cannot be; they must "
        "be from 0 on, each for one word" % (where, len(ids)))


def _added_tokens(directory, config, whole, vocab):
  """The tokens that stand in text as they are; adds them to the vocabulary."""
  if whole and whole.get("added_tokens"):
    where, found = WHOLE, {entry["id"]: entry
                           for entry in whole["added_tokens"]}
  elif config.get("added_tokens_decoder"):
    where, found = CONFIG, config["added_tokens_decoder"]
  else:
    where = OLD_ADDED
    old = files.read_json(os.path.join(directory, where), dict,
                          missing_ok=True) or {}
    found = {index: {"content": token} for token, index in old.items()}
  where, added = os.path.join(directory, where), []
  for index, entry in sorted(found.items(), key=lambda item: int(item[0])):
    files.check_shape(entry, {"content": str}, where)
    token = entry["content"]
    if token in _SPECIAL:
      continue
    for key in ("single_word", "lstrip", "rstrip"):
      if entry.get(key):
        _refuse(where, "%s of the added token %s" % (key, token), True, False)
    if vocab.setdefault(token, int(index)) != int(index):
      raise errors.InputError(
          "%s: the added token %s has number %s, and the vocabulary gives it "
          "%d" % (where, token, index, vocab[token]))
    added.append(tokenization.AddedToken(token, bool(entry.get("normalized"))))
  if added:
    _check_ids(vocab, where)
  return added
