"""What tokenization.py promises.

The two plain classes are checked against hand-worked cases and, where
ADAPTER_BERT_GOLDEN and BERT_BASE_DIR are set, against the reference's tokens;
the fast FullTokenizer is checked against the plain classes on random odd text.
"""

import json
import os
import pickle
import random
import sys
import unicodedata

import pytest

import tokenization

_VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa",
          "un", "runn", "##ing", ",", ".", "'", "i", "a", "ab", "##c", "##a",
          "UN", "\u4e2d", "##\u0301", "`", "\u03c3", "##\u03c3", "##\u03c2"]


@pytest.fixture(name="vocab_file")
def _vocab_file(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("".join(token + "\n" for token in _VOCAB), encoding="utf-8")
  return str(path)


def _plain_tokens(tokenizer, text):
  """The definition: the basic tokenizer, then the wordpiece tokenizer."""
  return [piece for word in tokenizer.basic_tokenizer.tokenize(text)
          for piece in tokenizer.wordpiece_tokenizer.tokenize(word)]


# The basic tokenizer.


@pytest.mark.parametrize("text, words", [
    (" \tHeLLo!how  \n Are yoU?  ",
     ["hello", "!", "how", "are", "you", "?"]),
    ("H\u00e9llo", ["hello"]),
    ("ah\u535a\u63a8zz", ["ah", "\u535a", "\u63a8", "zz"]),
    ("a\x00b\ufffdc\u200bd\u00a0e", ["abcd", "e"]),
    ("$1.50", ["$", "1", ".", "50"]),
    ("\u2028line\u2029sep \x85nel \x0bvt", ["line", "sep", "nel", "vt"]),
    # U+1FEF decomposes to a grave accent, which is punctuation here.
    ("a\u1fefb", ["a", "`", "b"]),
    ("", []),
])
def test_basic_tokenizer_lower(text, words):
  assert tokenization.BasicTokenizer().tokenize(text) == words


def test_basic_tokenizer_keeps_case_and_accents():
  tokenizer = tokenization.BasicTokenizer(do_lower_case=False)
  assert tokenizer.tokenize(" H\u00c9LLo!how ") == ["H\u00c9LLo", "!", "how"]


@pytest.mark.parametrize("do_lower_case, strip_accents, words", [
    (True, None, ["he", "\u03c3"]), (True, True, ["he", "\u03c3"]),
    (True, False, ["h\u00e9", "\u03c3"]), (False, None, ["H\u00e9", "\u03a3"]),
    (False, True, ["He", "\u03a3"]), (False, False, ["H\u00e9", "\u03a3"])])
def test_case_and_accents_are_two_things(do_lower_case, strip_accents, words):
  tokenizer = tokenization.BasicTokenizer(do_lower_case, strip_accents)
  assert tokenizer.tokenize("H\u00e9 \u03a3") == words


def test_ideographs_stay_in_their_word_if_asked():
  tokenizer = tokenization.BasicTokenizer(tokenize_chinese_chars=False)
  assert tokenizer.tokenize("ah\u535a\u63a8zz!") == ["ah\u535a\u63a8zz", "!"]


def test_character_classes():
  for char in " \t\r\n\u00a0\u3000":
    assert tokenization._is_whitespace(char)
  for char in "A-\u200b\x0b":
    assert not tokenization._is_whitespace(char)
  for char in "\x05\x85\u200d\u00ad":
    assert tokenization._is_control(char)
  for char in "A \t\r\n\U0001f4a9\ue000":
    assert not tokenization._is_control(char)
  for char in "-$`.^~\u2014\u3002":
    assert tokenization._is_punctuation(char)
  for char in "A 1\u00bd\u2122":
    assert not tokenization._is_punctuation(char)


# The wordpiece tokenizer.


def test_wordpiece_takes_the_longest_piece_first():
  tokenizer = tokenization.WordpieceTokenizer(
      vocab={"[UNK]", "un", "u", "##aff", "##able", "##a", "##n"})
  assert tokenizer.tokenize("unaffable un una") == [
      "un", "##aff", "##able", "un", "un", "##a"]
  assert tokenizer.tokenize("") == []


def test_wordpiece_unknown_word_is_one_token():
  tokenizer = tokenization.WordpieceTokenizer(
      vocab={"un", "##aff"}, unk_token="?", max_input_chars_per_word=5)
  # Neither a word with a rest that no piece fits, nor one that is too long.
  assert tokenizer.tokenize("unaffx unaff ununun un") == [
      "?", "un", "##aff", "?", "un"]


def test_wordpiece_length_limit_is_200_characters():
  tokenizer = tokenization.WordpieceTokenizer(vocab={"a", "##a"})
  assert len(tokenizer.tokenize("a" * 200)) == 200
  assert tokenizer.tokenize("a" * 201) == ["[UNK]"]


# The full tokenizer.


def test_full_tokenizer(vocab_file):
  tokenizer = tokenization.FullTokenizer(vocab_file)
  tokens = tokenizer.tokenize("UNwant\u00c9d,running")
  assert tokens == ["un", "##want", "##ed", ",", "runn", "##ing"]
  ids = [_VOCAB.index(token) for token in tokens]
  assert tokenizer.convert_tokens_to_ids(tokens) == ids
  assert tokenizer.encode("UNwant\u00c9d,running") == ids
  assert tokenizer.convert_ids_to_tokens(ids) == tokens
  assert tokenizer.tokenize("want!") == ["want", "[UNK]"]


def test_full_tokenizer_cased(vocab_file):
  tokenizer = tokenization.FullTokenizer(vocab_file, do_lower_case=False)
  assert tokenizer.tokenize("UN want Want un") == [
      "UN", "want", "[UNK]", "un"]


def test_full_tokenizer_takes_bytes(vocab_file):
  tokenizer = tokenization.FullTokenizer(vocab_file)
  assert tokenizer.tokenize("a \u4e2d".encode("utf-8")) == ["a", "\u4e2d"]


def test_result_may_be_changed_by_the_caller(vocab_file):
  tokenizer = tokenization.FullTokenizer(vocab_file)
  tokenizer.encode("want").append(7)
  tokenizer.tokenize("want").append("x")
  assert tokenizer.encode("want") == [_VOCAB.index("want")]
  assert tokenizer.tokenize("want") == ["want"]


def test_text_that_looks_like_a_special_token_is_text(vocab_file):
  tokenizer = tokenization.FullTokenizer(vocab_file)
  assert "[SEP]" not in tokenizer.tokenize("want [SEP] want")


def test_what_decides_the_ids_is_described(vocab_file, tmp_path):
  described = tokenization.FullTokenizer(vocab_file).describe()
  vocabulary = described.pop("vocabulary")
  assert described == {"do_lower_case": True, "strip_accents": True,
                       "tokenize_chinese_chars": True,
                       "max_input_chars_per_word": 200, "added_tokens": []}
  other = tokenization.FullTokenizer(
      vocab_file, do_lower_case=False, strip_accents=True,
      tokenize_chinese_chars=False, max_input_chars_per_word=5)
  assert other.describe() == {
      "vocabulary": vocabulary, "do_lower_case": False, "strip_accents": True,
      "tokenize_chinese_chars": False, "max_input_chars_per_word": 5,
      "added_tokens": []}
  assert other.tokenize("wantwa") == ["[UNK]"]
  # The order counts; how the lines end does not.
  for name, tokens, end, same in (("shuffled", _VOCAB[::-1], "\n", False),
                                  ("fewer", _VOCAB[:-1], "\n", False),
                                  ("windows", _VOCAB, "\r\n", True)):
    path = tmp_path / name
    path.write_bytes(end.join(tokens).encode("utf-8"))
    found = tokenization.FullTokenizer(str(path)).describe()["vocabulary"]
    assert (found == vocabulary) == same, name


def test_added_tokens_stand_wherever_they_are(vocab_file):
  with open(vocab_file, "a", encoding="utf-8") as vocab:
    vocab.write("<X>\nnew word\n<X>Y\n")
  tokenizer = tokenization.FullTokenizer(vocab_file, added_tokens=[
      tokenization.AddedToken("<X>", False),
      tokenization.AddedToken("new word", True),
      tokenization.AddedToken("<X>Y", False)])
  text = "want<X>ed <x> NEW w\u00f3rdab <X>Y"
  tokens = ["want", "<X>", "[UNK]", "[UNK]", "[UNK]", "[UNK]", "new word", "ab",
            "<X>Y"]
  assert tokenizer.tokenize(text) == tokens
  assert tokenizer.encode(text) == [tokenizer.vocab[t] for t in tokens]
  assert tokenizer.describe()["added_tokens"] == [
      ["<X>", False], ["new word", True], ["<X>Y", False]]


@pytest.mark.parametrize("words, do_lower_case, line", [
    (["[CLS]", "a", "Ab", "##C"], True, "2 of the vocabulary's 4 words"),
    (["[CLS]", "a", "Ab", "##C"], False, None),
    (["[CLS]", "a", "##b"], True, None),
    (["[CLS]", "a", "##b"], False, "0 of the vocabulary's 3 words"),
    (["[CLS]", "\u4e2d", "1"], True, None),
    (["[CLS]", "\u4e2d", "1"], False, None)])
def test_a_vocabulary_of_the_other_case(words, do_lower_case, line):
  warning = tokenization.case_warning(words, do_lower_case)
  assert warning is None if line is None else warning.startswith(line)


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_fast_path_equals_plain_path_on_every_character(
    vocab_file, do_lower_case):
  # Accents the other way round, to have all ways through.
  tokenizer = tokenization.FullTokenizer(vocab_file, do_lower_case,
                                         strip_accents=not do_lower_case)
  # Between letters that make other pieces when joined than when parted; only
  # classes of characters matter, so ideographs and the like are thinned out.
  for code in range(sys.maxunicode + 1):
    char = chr(code)
    if code > 0x3100 and code % 101 and (
        unicodedata.category(char) in ("Lo", "Cn", "Co", "Cs", "So")):
      continue
    text = "a%sc \u03c3%sab" % (char, char)
    assert tokenizer.tokenize(text) == _plain_tokens(tokenizer, text), (
        "U+%04X" % code)


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_fast_path_equals_plain_path_on_random_text(vocab_file, do_lower_case):
  tokenizer = tokenization.FullTokenizer(vocab_file, do_lower_case)
  rng = random.Random(20190613)
  alphabet = (
      "acdeginrtuwUNA   ..,,''`$_-\t\n\r\x00\x07\x0b\x0c\x1c\x1d\x1e\x1f\x7f"
      "\x85\xa0\xad\xe9\u0130\u0301\u0345\u03a3\u03c2\u1680\u180e\u1fef\u2000"
      "\u200b\u2028\u2029\u202f\u205f\u2060\u3000\u4e2d\uf900\ufb01\ufeff"
      "\ufffd\ud800\ue000\U0001f600\U00020000\U0002f800\U0001d400")
  for _ in range(4000):
    text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(40)))
    tokens = _plain_tokens(tokenizer, text)
    for _ in range(2):  # Computed, then remembered.
      assert tokenizer.tokenize(text) == tokens, ascii(text)
      assert tokenizer.encode(text) == [tokenizer.vocab[token]
                                        for token in tokens], ascii(text)


def test_memory_is_bounded(vocab_file, monkeypatch):
  monkeypatch.setattr(tokenization, "_MEMO_ENTRIES", 10)
  tokenizer = tokenization.FullTokenizer(vocab_file)
  for number in range(200):
    text = "want%d %s" % (number, "a" * (number + 1))
    assert tokenizer.tokenize(text) == _plain_tokens(tokenizer, text)
    tokenizer.encode(text)
  for memo in (tokenizer._chunk_tokens, tokenizer._chunk_ids,
               tokenizer._word_tokens):
    assert 0 < len(memo) <= 10
    assert max(map(len, memo)) <= tokenization._MEMO_KEY_CHARS


def test_tokenizer_can_be_sent_to_another_process(vocab_file):
  tokenizer = tokenization.FullTokenizer(vocab_file)
  ids = tokenizer.encode("unwanted running")
  assert pickle.loads(pickle.dumps(tokenizer)).encode(
      "unwanted running") == ids


# The vocabulary.


def test_load_vocab_strips_and_keeps_line_numbers(tmp_path):
  path = tmp_path / "vocab.txt"
  # Not a line end: U+2028; a token twice has its last id.
  path.write_bytes("[UNK]\r\n  b \n\na\u2028c\nb\n".encode("utf-8"))
  assert tokenization.load_vocab(str(path)) == {
      "[UNK]": 0, "": 2, "a\u2028c": 3, "b": 4}


def test_blank_lines_at_the_end_are_no_tokens(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_bytes(b"[UNK]\n\na\n\n \r\n")
  assert tokenization.load_vocab(str(path)) == {"[UNK]": 0, "": 1, "a": 2}


@pytest.mark.parametrize("content, message", [
    (None, "cannot read the vocabulary {}: No such file"),
    (b"", "the vocabulary {} is empty"),
    (b"\n\n", "the vocabulary {} is empty"),
    (b"[UNK]\na\xffb\n", "{}:2: byte 0xff is not UTF-8"),
    (b"[UNK]\n[CLS]\nword\n", "the vocabulary {} (3 tokens) has no [SEP]"),
    (b"a\n", "the vocabulary {} (1 tokens) has no [UNK], [CLS], [SEP]"),
])
def test_bad_vocabulary(tmp_path, content, message):
  path = tmp_path / "vocab.txt"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(ValueError) as error:
    tokenization.FullTokenizer(str(path))
  assert str(error.value).startswith(message.format(path))
  assert "--vocab_file" in str(error.value)
  assert "\n" not in str(error.value)


def test_vocabulary_that_is_a_directory(tmp_path):
  with pytest.raises(ValueError, match="cannot read the vocabulary"):
    tokenization.load_vocab(str(tmp_path))


def test_unknown_token_and_id_are_named():
  vocab = {"a": 0, "b": 1}
  assert tokenization.convert_tokens_to_ids(vocab, ["b", "a"]) == [1, 0]
  with pytest.raises(ValueError, match="'c' is not in the vocabulary of 2"):
    tokenization.convert_tokens_to_ids(vocab, ["a", "c"])
  with pytest.raises(ValueError, match="7 is not in the vocabulary of 1"):
    tokenization.convert_ids_to_tokens({0: "a"}, [0, 7])


# Text types and the case check.


def test_convert_to_unicode_and_printable_text():
  for function in (tokenization.convert_to_unicode,
                   tokenization.printable_text):
    assert function("\u00e9") == "\u00e9"
    assert function(b"\xc3\xa9") == "\u00e9"
    assert function(b"a\xffb") == "ab"
    with pytest.raises(ValueError, match="must be str or bytes, not int: 3"):
      function(3)


@pytest.mark.parametrize("path, do_lower_case", [
    ("models/uncased_L-12_H-768_A-12/bert_model.ckpt", True),
    ("models/cased_L-24_H-1024_A-16/bert_model.ckpt", False),
    ("multilingual_L-12_H-768_A-12/bert_model.ckpt", True),
    ("multi_cased_L-12_H-768_A-12/bert_model.ckpt", False),
    ("chinese_L-12_H-768_A-12/bert_model.ckpt", True),
    ("/m/wwm_uncased_L-24_H-1024_A-16/bert_model.ckpt", True),
    ("wwm_cased_L-24_H-1024_A-16/bert_model.ckpt", False),
    ("uncased_L-2_H-128_A-2", True),
    ("bert-large-cased-whole-word-masking/bert_model.ckpt", False),
    # The directory nearest to the file decides.
    ("uncased_L-12_H-768_A-12/cased_L-12_H-768_A-12/bert_model.ckpt", False),
])
def test_case_flag_against_published_names(path, do_lower_case):
  tokenization.validate_case_matches_checkpoint(do_lower_case, path)
  with pytest.raises(ValueError) as error:
    tokenization.validate_case_matches_checkpoint(not do_lower_case, path)
  message = str(error.value)
  assert "--do_lower_case=%s, but" % str(not do_lower_case).lower() in message
  assert "set --do_lower_case=%s" % str(do_lower_case).lower() in message
  assert path in message and "\n" not in message


@pytest.mark.parametrize("path", [
    None, "", "my_cased_model/bert_model.ckpt", "runs/uncased/model.ckpt-9"])
def test_case_flag_is_free_for_other_names(path):
  tokenization.validate_case_matches_checkpoint(True, path)
  tokenization.validate_case_matches_checkpoint(False, path)


# The reference's own output.


@pytest.mark.parametrize("name, do_lower_case", [
    ("uncased", True), ("cased", False)])
def test_golden(name, do_lower_case):
  """Both files come from the same, uncased, vocabulary."""
  golden_dir = os.environ.get("ADAPTER_BERT_GOLDEN")
  bert_dir = os.environ.get("BERT_BASE_DIR")
  if not golden_dir or not bert_dir:
    pytest.skip("set ADAPTER_BERT_GOLDEN and BERT_BASE_DIR to run this")
  tokenizer = tokenization.FullTokenizer(
      os.path.join(bert_dir, "vocab.txt"), do_lower_case)
  path = os.path.join(golden_dir, "tokenization_%s.json" % name)
  with open(path, encoding="utf-8") as golden_file:
    cases = json.load(golden_file)
  assert len(cases) > 100
  for case in cases:
    text = case["text"]
    assert _plain_tokens(tokenizer, text) == case["tokens"], ascii(text)
    assert tokenizer.tokenize(text) == case["tokens"], ascii(text)
    assert tokenizer.encode(text) == case["ids"], ascii(text)
    assert tokenizer.convert_tokens_to_ids(case["tokens"]) == case["ids"]
