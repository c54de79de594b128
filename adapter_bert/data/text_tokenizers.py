"""Tokenizers of sequence models, from the files that a model comes with.

`open_tokenizer` finds them: tokenizer.json; vocab.json and merges.txt (GPT-2,
BART); encoder.json and vocab.bpe (OpenAI's GPT-2), through the library
`tokenizers`; spiece.model (T5), through `sentencepiece`. Both are imported when
they are needed (pip install adapter-bert[text]).

All have encode(text) -> ids, the special ones that the file asks for included,
decode(ids) -> text without special tokens, vocab_size, describe().
"""

import hashlib
import os

from adapter_bert.base import errors
from adapter_bert.base import files

# The files of a byte-level BPE: the vocabulary and the merges.
_BYTE_LEVEL = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_SENTENCE_PIECE = ("spiece.model", "sentencepiece.model", "tokenizer.model")


def open_tokenizer(path):
  """The tokenizer in a model's directory, or in a file.

  Args:
    path: str, a directory, or a tokenizer.json or sentencepiece model.

  Raises: errors.InputError if there is none, it cannot be read, or the library
    for it is missing.
  """
  if files.is_file(path):
    return (SentencePieceTokenizer(path) if path.endswith(".model") else
            LibraryTokenizer(path))
  here = lambda name: os.path.join(path, name)
  if files.is_file(here("tokenizer.json")):
    return LibraryTokenizer(here("tokenizer.json"))
  for vocab, merges in _BYTE_LEVEL:
    if files.is_file(here(vocab)) and files.is_file(here(merges)):
      return LibraryTokenizer(here(vocab), here(merges))
  for name in _SENTENCE_PIECE:
    if files.is_file(here(name)):
      return SentencePieceTokenizer(here(name))
  raise errors.InputError(
      "%s: has no tokenizer: looked for tokenizer.json, %s, %s; give "
      "--source_tokenizer and --target_tokenizer, or token ids"
      % (path, ", ".join(" with ".join(pair) for pair in _BYTE_LEVEL),
         ", ".join(_SENTENCE_PIECE)))


class LibraryTokenizer(object):
  """A tokenizer of the library `tokenizers`."""

  def __init__(self, path, merges_path=None):
    """Reads tokenizer.json, or with merges_path a byte-level BPE's files.

    Raises: errors.InputError.
    """
    library = _library("tokenizers", path)
    self._paths = [path] + [merges_path] * bool(merges_path)
    self._digest = _digest(self._paths)
    if merges_path:
      self._tokenizer = _byte_level(library, path, merges_path)
    else:
      text = _bytes_of(path).decode("utf-8", "replace")
      files.parse_json(text, path, {"model": dict}, any_size=True)
      self._tokenizer = library.Tokenizer.from_str(text)
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()

  @property
  def vocab_size(self):
    """One more than the largest id."""
    return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

  def id_of(self, token):
    """The id of a token, None if there is none."""
    return self._tokenizer.token_to_id(token)

  def encode(self, text):
    return self._tokenizer.encode(text).ids

  def decode(self, ids):
    return self._tokenizer.decode([int(i) for i in ids],
                                  skip_special_tokens=True)

  def describe(self):
    """What decides the ids, a dict for JSON."""
    return {"tokenizer_sha256": self._digest}


class SentencePieceTokenizer(object):
  """A SentencePiece model, with the end of sequence behind each text."""

  def __init__(self, path):
    """Reads spiece.model. Raises: errors.InputError."""
    library = _library("sentencepiece", path)
    self._digest = _digest([path])
    self._processor = library.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(_bytes_of(path))
    except (RuntimeError, OSError) as error:
      raise errors.InputError("%s: is no SentencePiece model: %s"
                              % (path, " ".join(str(error).split()))) from error

  @property
  def vocab_size(self):
    return self._processor.get_piece_size()

  def id_of(self, token):
    found = self._processor.piece_to_id(token)
    return found if self._processor.id_to_piece(found) == token else None

  def encode(self, text):
    ids = self._processor.encode(text)
    end = self._processor.eos_id()
    return ids + [end] if end >= 0 else ids

  def decode(self, ids):
    """Ids that the model lacks (T5's tables are larger) are left out."""
    return self._processor.decode(
        [int(i) for i in ids if 0 <= i < self.vocab_size and
         not self._processor.is_control(int(i))])

  def describe(self):
    return {"tokenizer_sha256": self._digest}


class Pair(object):
  """Two tokenizers as one: it encodes sources and decodes targets."""

  def __init__(self, source, target):
    self.source, self.target = source, target

  def encode(self, text):
    return self.source.encode(text)

  def decode(self, ids):
    return self.target.decode(ids)

  def describe(self):
    """What run.json has of the two: a list of dicts for JSON."""
    return [self.source.describe(), self.target.describe()]


def open_pair(source_path, target_path, directory, vocab_size):
  """The Pair of a model.

  Args:
    source_path: str or None, what `open_tokenizer` takes; None: the model's own.
    target_path: the same; None: the tokenizer of sources.
    directory: model_dir.ModelDir, the model's.
    vocab_size: int, the model's.

  Raises: errors.InputError if one of them cannot be opened, or has ids that the
    model lacks.
  """
  source_path = source_path or directory.path
  source = target = open_tokenizer(source_path)
  if target_path:
    target = open_tokenizer(target_path)
  for tokenizer, path in ((source, source_path),
                          (target, target_path or source_path)):
    check_fits(tokenizer, vocab_size, path, directory.config_file)
  return Pair(source, target)


def check_fits(tokenizer, vocab_size, where, model):
  """Raises errors.InputError if a tokenizer has ids that the model lacks."""
  if tokenizer.vocab_size > vocab_size:
    raise errors.InputError(
        "%s has %d entries and the model %d (vocab_size in %s); give the "
        "tokenizer that the model was trained with"
        % (where, tokenizer.vocab_size, vocab_size, model))


def _library(name, path):
  """The library `tokenizers` or `sentencepiece`."""
  try:
    if name == "tokenizers":
      import tokenizers as library  # pylint: disable=import-outside-toplevel
    else:
      import sentencepiece as library  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise errors.InputError(
        "%s is read with the package %s, which is not installed: pip install "
        "'adapter-bert[text]'" % (path, name)) from error
  return library


def _byte_level(library, vocab_path, merges_path):
  """GPT-2's tokenizer of its two files."""
  vocab = files.read_json(vocab_path, dict, any_size=True)
  lines = _bytes_of(merges_path).decode("utf-8", "replace").split("\n")
  merges = [tuple(line.split(" ")) for line in lines
            if line and not line.startswith("#version")]
  for merge in merges:
    if len(merge) != 2 or any(part not in vocab for part in merge):
      raise errors.InputError("%s: the merge %s is not of two tokens in %s"
                              % (merges_path, errors.shown(" ".join(merge)),
                                 vocab_path))
  tokenizer = library.Tokenizer(library.models.BPE(vocab=vocab, merges=merges))
  tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(
      add_prefix_space=False)
  tokenizer.decoder = library.decoders.ByteLevel()
  special = [token for token in ("<|endoftext|>", "<s>", "<pad>", "</s>",
                                 "<unk>", "<mask>") if token in vocab]
  tokenizer.add_special_tokens(special)
  if "<s>" in vocab and "</s>" in vocab:  # BART's.
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[(token, vocab[token]) for token in ("<s>", "</s>")])
  return tokenizer


def _bytes_of(path):
  files.check_regular(path)
  try:
    with files.open_binary(path) as source:
      return source.read()
  except files.failures() as error:
    raise errors.InputError("cannot read %s: %s"
                            % (path, files.reason_of(error))) from error


def _digest(paths):
  digest = hashlib.sha256()
  for path in paths:
    digest.update(_bytes_of(path))
  return digest.hexdigest()
