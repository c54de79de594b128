"""WordPiece tokenization, token for token that of BERT (Devlin et al. 2018).

Text becomes words (`BasicTokenizer`: clean, split at white space, around CJK
characters and punctuation, optionally lower-case without accents) and words
become pieces of the vocabulary (`WordpieceTokenizer`: greedy, longest first).
These two classes do it the plain way and are the definition.

`FullTokenizer` joins them and remembers the result of every chunk of text
between white space, because text repeats its words: the same output, without
the work. Why chunks are safe to tokenize alone is said at `_chunks`.

Wrong input raises ValueError with one line that says what to do.
"""

import collections
import hashlib
import re
import unicodedata

UNKNOWN_TOKEN = "[UNK]"
# Every input needs these. [PAD] is not among them: padding is id 0 behind a
# mask, whatever token has that id.
_NEEDED_TOKENS = (UNKNOWN_TOKEN, "[CLS]", "[SEP]")

# A token that stands for its own letters wherever they are in a text, as <name>.
# content: str; normalized: bool, whether it is looked for after lower-casing.
AddedToken = collections.namedtuple("AddedToken", ["content", "normalized"])

# A longer word is unknown as a whole. Google's number; Hugging Face's is 100.
MAX_INPUT_CHARS_PER_WORD = 200

# A memo holds at most this many entries, of keys no longer than this; an entry
# takes some 300 bytes, so a full memo takes about 40 MB.
_MEMO_ENTRIES = 1 << 17
_MEMO_KEY_CHARS = 64

# White space to str.split but control characters to BERT, which drops them
# ("a\x0bb" is the one word "ab").
_DROPPED_SPACES = re.compile("[\x0b\x0c\x1c-\x1f\x85]")

_ASCII_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")

# Names under which models were published, by whether they expect lower case:
# Google's directories, then Hugging Face's.
_LOWER_CASE_MODELS = re.compile(
    r"(?:wwm_)?uncased_L-\d+_H-\d+_A-\d+"
    r"|multilingual_L-12_H-768_A-12|chinese_L-12_H-768_A-12"
    r"|bert-(?:base|large)(?:-multilingual)?-uncased(?:-whole-word-masking)?")
_CASED_MODELS = re.compile(
    r"(?:wwm_|multi_)?cased_L-\d+_H-\d+_A-\d+"
    r"|bert-(?:base|large)(?:-multilingual)?-cased(?:-whole-word-masking)?")


def validate_case_matches_checkpoint(do_lower_case, init_checkpoint):
  """Refuses a case flag that contradicts the published model in the path.

  Nothing in a checkpoint says how its text was cased; with the wrong flag the
  model runs, badly. Directories with other names are not judged.

  Args:
    do_lower_case: bool, the flag.
    init_checkpoint: path of a checkpoint, or None.

  Raises:
    ValueError: the path has a known cased model and do_lower_case is true, or
      a known uncased one and it is false.
  """
  if not init_checkpoint:
    return
  for directory in reversed(re.split(r"[\\/]+", init_checkpoint)):
    if _LOWER_CASE_MODELS.fullmatch(directory):
      expected, kind = True, "lower-cased"
    elif _CASED_MODELS.fullmatch(directory):
      expected, kind = False, "cased"
    else:
      continue
    if bool(do_lower_case) != expected:
      raise ValueError(
          "--do_lower_case=%s, but %s in --init_checkpoint=%s was pre-trained "
          "on %s text; set --do_lower_case=%s (or rename the directory if it "
          "holds another model)"
          % (str(bool(do_lower_case)).lower(), directory, init_checkpoint, kind,
             str(expected).lower()))
    return


def convert_to_unicode(text):
  """Returns str; bytes are taken as UTF-8, what is not UTF-8 is left out."""
  if isinstance(text, str):
    return text
  if isinstance(text, bytes):
    return text.decode("utf-8", "ignore")
  raise ValueError("text must be str or bytes, not %s: %.60r"
                   % (type(text).__name__, text))


def printable_text(text):
  """Returns `text` (str or UTF-8 bytes) as a str to print or log."""
  return convert_to_unicode(text)


def load_vocab(vocab_file, open_file=open):
  """Reads a vocabulary, one token per line, the id being the line's number.

  White space around a token is not part of it. A token that stands twice has
  its last id, as in BERT (published vocabularies do have such lines). Blank
  lines at the end are not tokens.

  Args:
    vocab_file: path of a UTF-8 text file.
    open_file: function of it and "rb" that opens it, wherever it is.

  Returns:
    dict of token (str) -> id (int from 0), in the file's order.

  Raises:
    ValueError: the file cannot be read, is not UTF-8 or is empty.
  """
  tokens = []
  try:
    # Binary, so that lines end at "\n" only and a bad byte's line is known.
    with open_file(vocab_file, "rb") as lines:
      for line in lines:
        tokens.append(line.decode("utf-8").strip())
  except OSError as error:
    raise ValueError("cannot read the vocabulary %s: %s; --vocab_file is the "
                     "vocab.txt that came with the model"
                     % (vocab_file, error.strerror)) from error
  except UnicodeDecodeError as error:
    raise ValueError(
        "%s:%d: byte 0x%02x is not UTF-8; --vocab_file must be a text file, "
        "one token per line"
        % (vocab_file, len(tokens) + 1, error.object[error.start])) from error
  while tokens and not tokens[-1]:
    tokens.pop()
  if not tokens:
    raise ValueError("the vocabulary %s is empty; --vocab_file is the "
                     "vocab.txt that came with the model" % vocab_file)
  return {token: index for index, token in enumerate(tokens)}


def case_warning(vocab, do_lower_case):
  """A line where a vocabulary and the case do not look alike, or None.

  Args:
    vocab: container of tokens.
    do_lower_case: bool, whether text is lower-cased.
  """
  words = [token for token in vocab
           if not (token.startswith("[") and token.endswith("]"))]
  upper = sum(word.lower() != word for word in words)
  lower = sum(word.upper() != word for word in words)
  if do_lower_case and upper:
    return ("%d of the vocabulary's %d words have upper-case letters and are "
            "never found, because do_lower_case is true; is the model cased?"
            % (upper, len(vocab)))
  if not do_lower_case and lower and not upper:
    return ("0 of the vocabulary's %d words have upper-case letters, and "
            "do_lower_case is false, so that words with one become pieces or "
            "%s; is the model uncased?" % (len(vocab), UNKNOWN_TOKEN))
  return None


def convert_by_vocab(vocab, items):
  """Returns [vocab[item] for item in items]; an unknown item is a ValueError.

  Args:
    vocab: dict, token -> id or id -> token.
    items: tokens (str) or ids (int).
  """
  try:
    return [vocab[item] for item in items]
  except KeyError as error:
    raise ValueError(
        "%r is not in the vocabulary of %d entries; WordpieceTokenizer gives "
        "%s for words it cannot make" % (error.args[0], len(vocab),
                                         UNKNOWN_TOKEN)) from error


def convert_tokens_to_ids(vocab, tokens):
  """Returns the ids (list of int) of `tokens`; see convert_by_vocab."""
  return convert_by_vocab(vocab, tokens)


def convert_ids_to_tokens(inv_vocab, ids):
  """Returns the tokens (list of str) of `ids`; see convert_by_vocab."""
  return convert_by_vocab(inv_vocab, ids)


def whitespace_tokenize(text):
  """Splits at runs of white space (str.split's); no token is empty."""
  return text.split()


class FullTokenizer:
  """Text to pieces of the vocabulary, or to their ids.

  Equal to BasicTokenizer followed by WordpieceTokenizer on every text, and ten
  times as fast or more once it has seen most of the words.
  """

  def __init__(self, vocab_file, do_lower_case=True, strip_accents=None,
               tokenize_chinese_chars=True,
               max_input_chars_per_word=MAX_INPUT_CHARS_PER_WORD, vocab=None,
               added_tokens=()):
    """Loads the vocabulary.

    Args:
      vocab_file: path, see load_vocab.
      do_lower_case: whether the model was pre-trained on lower-cased text.
      strip_accents, tokenize_chinese_chars: see BasicTokenizer.
      max_input_chars_per_word: see WordpieceTokenizer.
      vocab: None, or dict of token -> id in place of the file's content;
        vocab_file is then only for messages.
      added_tokens: sequence of AddedToken, in the vocabulary too.

    Raises:
      ValueError: as load_vocab; or [UNK], [CLS] or [SEP] is missing from it.
    """
    self.vocab = load_vocab(vocab_file) if vocab is None else vocab
    missing = [token for token in _NEEDED_TOKENS if token not in self.vocab]
    if missing:
      raise ValueError(
          "the vocabulary %s (%d tokens) has no %s; --vocab_file is the "
          "vocab.txt that came with the model"
          % (vocab_file, len(self.vocab), ", ".join(missing)))
    self.inv_vocab = {index: token for token, index in self.vocab.items()}
    self.do_lower_case = do_lower_case
    self.basic_tokenizer = BasicTokenizer(do_lower_case, strip_accents,
                                          tokenize_chinese_chars)
    self.wordpiece_tokenizer = WordpieceTokenizer(
        vocab=self.vocab, max_input_chars_per_word=max_input_chars_per_word)
    self.added_tokens = tuple(added_tokens)
    self._added_raw = _alternatives(
        [t.content for t in added_tokens if not t.normalized])
    self._added_normal = {
        self.basic_tokenizer.normalize(t.content): t.content
        for t in added_tokens if t.normalized}
    self._word_tokens = _Memo(self.wordpiece_tokenizer.tokenize)
    self._chunk_tokens = _Memo(self._tokenize_chunk)
    self._chunk_ids = _Memo(self._encode_chunk)

  def describe(self):
    """Returns a dict of all that decides a text's ids, for a run's record.

    `vocabulary` is the SHA-256 of the tokens in the order of their ids; the
    others are the arguments that the tokenizer was made with.
    """
    lines = "".join("%d %s\n" % (index, token)
                    for index, token in sorted(self.inv_vocab.items()))
    basic, pieces = self.basic_tokenizer, self.wordpiece_tokenizer
    return {
        "vocabulary": hashlib.sha256(lines.encode("utf-8")).hexdigest(),
        "do_lower_case": bool(basic.do_lower_case),
        "strip_accents": bool(basic.strip_accents),
        "tokenize_chinese_chars": bool(basic.tokenize_chinese_chars),
        "max_input_chars_per_word": pieces.max_input_chars_per_word,
        "added_tokens": [list(token) for token in self.added_tokens],
    }

  def tokenize(self, text):
    """Returns the tokens (list of str) of `text` (str or UTF-8 bytes)."""
    if self.added_tokens:
      return self._tokenize_around_added(convert_to_unicode(text))
    return self._chunk_tokens.join(_chunks(text))

  def encode(self, text):
    """Returns the ids (list of int): convert_tokens_to_ids(tokenize(text))."""
    if self.added_tokens:
      return self.convert_tokens_to_ids(self.tokenize(text))
    return self._chunk_ids.join(_chunks(text))

  def convert_tokens_to_ids(self, tokens):
    return convert_tokens_to_ids(self.vocab, tokens)

  def convert_ids_to_tokens(self, ids):
    return convert_ids_to_tokens(self.inv_vocab, ids)

  def _tokenize_chunk(self, chunk):
    if chunk.isascii() and chunk.isprintable():
      # Nothing to clean and no accents: one regular expression does it.
      words = _ASCII_WORD.findall(chunk.lower() if self.do_lower_case
                                  else chunk)
    else:
      words = self.basic_tokenizer.tokenize(chunk)
    return self._word_tokens.join(words)

  def _tokenize_around_added(self, text):
    """The tokens of a text that added tokens may be in."""
    tokens = []
    normal = _alternatives(self._added_normal)
    for raw in _split_at(self._added_raw, text):
      if raw.is_match:
        tokens.append(raw.text)
        continue
      for part in _split_at(normal, self.basic_tokenizer.normalize(raw.text)):
        if part.is_match:
          tokens.append(self._added_normal[part.text])
        else:
          tokens += self._word_tokens.join(
              self.basic_tokenizer.split(part.text))
    return tokens

  def _encode_chunk(self, chunk):
    return self.convert_tokens_to_ids(self._tokenize_chunk(chunk))


_Part = collections.namedtuple("_Part", ["text", "is_match"])


def _alternatives(texts):
  """A pattern of any of the texts, the longest first; None for no text."""
  texts = sorted(texts, key=len, reverse=True)
  return re.compile("(%s)" % "|".join(map(re.escape, texts))) if texts else None


def _split_at(pattern, text):
  """The _Parts of a text: what a pattern matches, and what is in between."""
  if pattern is None:
    return [_Part(text, False)]
  return [_Part(part, index % 2 == 1)
          for index, part in enumerate(pattern.split(text)) if part]


class _Memo(dict):
  """Remembers compute(key), a sequence, for str keys; bounded."""

  def __init__(self, compute):
    super().__init__()
    self._compute = compute

  def __missing__(self, key):
    value = tuple(self._compute(key))
    if len(key) <= _MEMO_KEY_CHARS:
      if len(self) >= _MEMO_ENTRIES:
        # Starting over costs less than keeping track of use at every look-up;
        # the frequent words are back within a few lines.
        self.clear()
      self[key] = value
    return value

  def join(self, keys):
    """Returns compute(key) of all keys, one after the other, as one list."""
    joined = []
    for key in keys:
      joined += self[key]
    return joined


def _chunks(text):
  """Splits text where BasicTokenizer certainly would; returns list of str.

  BasicTokenizer cleans character by character and then works within the words
  between white space, so tokenizing the chunks one by one gives the tokens of
  the whole, if no split falls on a character that cleaning drops.
  """
  text = convert_to_unicode(text)
  if not text.isprintable():  # A quick look, for nearly all text enough.
    text = _DROPPED_SPACES.sub("", text)
  return text.split()


class BasicTokenizer:
  """Text to words: cleaned, split, and lower-cased without accents if asked.

  Args:
    do_lower_case: bool.
    strip_accents: bool; None: as do_lower_case, which is what Google's BERT
      does.
    tokenize_chinese_chars: bool, whether each CJK ideograph is a word.
  """

  def __init__(self, do_lower_case=True, strip_accents=None,
               tokenize_chinese_chars=True):
    self.do_lower_case = do_lower_case
    self.strip_accents = (do_lower_case if strip_accents is None else
                          strip_accents)
    self.tokenize_chinese_chars = tokenize_chinese_chars

  def tokenize(self, text):
    """Returns the words (list of str) of `text` (str or UTF-8 bytes)."""
    return self.split(self.normalize(convert_to_unicode(text)))

  def normalize(self, text):
    """Returns `text` (str) cleaned, and without case and accents if asked."""
    text = self._clean_text(text)
    # CJK characters stand for words and have no spaces between them. The other
    # East Asian scripts (kana, hangul) do not get this, as in BERT.
    if self.tokenize_chinese_chars:
      text = "".join(" %s " % char if self._is_chinese_char(ord(char)) else char
                     for char in text)
    if self.do_lower_case:
      text = text.lower()
    return self._strip_accents(text) if self.strip_accents else text

  def split(self, text):
    """Returns the words (list of str) of a normalized text."""
    words = []
    for word in whitespace_tokenize(text):
      for part in self._split_on_punctuation(word):
        # Lower-casing or decomposing could have made white space.
        words.extend(whitespace_tokenize(part))
    return words

  def _clean_text(self, text):
    """Drops control characters; white space of any kind becomes a space."""
    kept = []
    for char in text:
      if ord(char) == 0 or char == "\ufffd" or _is_control(char):
        continue
      kept.append(" " if _is_whitespace(char) else char)
    return "".join(kept)

  def _strip_accents(self, text):
    """Decomposes (NFD) and drops combining marks (category Mn)."""
    return "".join(char for char in unicodedata.normalize("NFD", text)
                   if unicodedata.category(char) != "Mn")

  def _split_on_punctuation(self, text):
    """Makes every punctuation character a part of its own."""
    parts = []
    inside_word = False
    for char in text:
      if _is_punctuation(char):
        parts.append(char)
        inside_word = False
      elif inside_word:
        parts[-1] += char
      else:
        parts.append(char)
        inside_word = True
    return parts

  def _is_chinese_char(self, code):
    """Whether the code point lies in a block of CJK ideographs."""
    return (0x4E00 <= code <= 0x9FFF or  # CJK Unified Ideographs
            0x3400 <= code <= 0x4DBF or  # Extension A
            0x20000 <= code <= 0x2A6DF or  # Extension B
            0x2A700 <= code <= 0x2B73F or  # Extension C
            0x2B740 <= code <= 0x2B81F or  # Extension D
            0x2B820 <= code <= 0x2CEAF or  # Extension E
            0xF900 <= code <= 0xFAFF or  # Compatibility Ideographs
            0x2F800 <= code <= 0x2FA1F)  # Compatibility Supplement


class WordpieceTokenizer:
  """Words to pieces: from the left, always the longest in the vocabulary."""

  def __init__(self, vocab, unk_token=UNKNOWN_TOKEN,
               max_input_chars_per_word=MAX_INPUT_CHARS_PER_WORD):
    """Pieces that continue a word stand in `vocab` (any container) with ##."""
    self.vocab = vocab
    self.unk_token = unk_token
    self.max_input_chars_per_word = max_input_chars_per_word

  def tokenize(self, text):
    """Returns the pieces (list of str) of words separated by white space.

    A word that cannot be made of pieces entirely, or is longer than
    max_input_chars_per_word, is the one piece unk_token.
    For instance "unaffable" gives ["un", "##aff", "##able"].
    """
    pieces = []
    for word in whitespace_tokenize(convert_to_unicode(text)):
      pieces.extend(self._word_pieces(word) or [self.unk_token])
    return pieces

  def _word_pieces(self, word):
    """The pieces of one word, or None."""
    if len(word) > self.max_input_chars_per_word:
      return None
    pieces = []
    start = 0
    while start < len(word):
      prefix = "##" if start else ""
      for end in range(len(word), start, -1):
        piece = prefix + word[start:end]
        if piece in self.vocab:
          break
      else:
        return None
      pieces.append(piece)
      start = end
    return pieces


def _is_whitespace(char):
  """Space, tab, line ends and the Unicode spaces (Zs)."""
  return char in " \t\n\r" or unicodedata.category(char) == "Zs"


def _is_control(char):
  """Control and format characters (Cc, Cf), but not tab and line ends."""
  if char in "\t\n\r":
    return False
  return unicodedata.category(char) in ("Cc", "Cf")


def _is_punctuation(char):
  """Unicode punctuation, and all ASCII that is not a letter, digit or space.

  ASCII symbols such as $, ^ and ` are not punctuation to Unicode, but BERT
  treats them alike.
  """
  code = ord(char)
  if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or (
      123 <= code <= 126):
    return True
  return unicodedata.category(char).startswith("P")
