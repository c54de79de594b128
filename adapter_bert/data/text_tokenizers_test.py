"""What text_tokenizers promises, on small tokenizers made here.

The letters and sounds of the real task are read where G2P_BART_DIR is set.
"""

import json
import os
import pickle
import sys

import pytest

from adapter_bert.base import errors
from adapter_bert.data import seq2seq
from adapter_bert.data import text_tokenizers

_WORDS = {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3, "\u0120": 4,
          "\u0120a": 5, "\u0120ab": 6}
_MERGES = ["#version: 0.2", "a b", "\u0120 a", "\u0120 ab"]


def _write_byte_level(directory, vocab, merges, words):
  with open(os.path.join(str(directory), vocab), "w",
            encoding="utf-8") as output:
    json.dump(words, output)
  with open(os.path.join(str(directory), merges), "w",
            encoding="utf-8") as output:
    output.write("\n".join(_MERGES) + "\n")


@pytest.mark.parametrize("vocab, merges", [("vocab.json", "merges.txt"),
                                           ("encoder.json", "vocab.bpe")])
def test_byte_level(tmp_path, vocab, merges):
  pytest.importorskip("tokenizers")
  _write_byte_level(tmp_path, vocab, merges, _WORDS)
  tokenizer = text_tokenizers.open_tokenizer(str(tmp_path))
  assert tokenizer.encode("ab a ab") == [3, 5, 6]
  assert tokenizer.decode([3, 5, 6, 0]) == "ab a ab"
  assert tokenizer.vocab_size == 7
  assert tokenizer.id_of("<|endoftext|>") == 0
  assert tokenizer.id_of("nothing") is None
  again = pickle.loads(pickle.dumps(tokenizer))
  assert again.encode("ab") == [3]
  assert again.describe() == tokenizer.describe()
  text_tokenizers.check_fits(tokenizer, 7, "here", "config.json")
  with pytest.raises(errors.InputError, match="has 7 entries and the model 6"):
    text_tokenizers.check_fits(tokenizer, 6, "here", "config.json")


def test_bart_s_special_tokens(tmp_path):
  pytest.importorskip("tokenizers")
  _write_byte_level(tmp_path, "vocab.json", "merges.txt",
                    dict(_WORDS, **{"<s>": 7, "</s>": 8}))
  tokenizer = text_tokenizers.open_tokenizer(str(tmp_path))
  assert tokenizer.encode("ab") == [7, 3, 8]
  assert tokenizer.decode([7, 3, 8]) == "ab"


def test_sentencepiece(tmp_path):
  library = pytest.importorskip("sentencepiece")
  text = tmp_path / "text.txt"
  text.write_text("the cat sat on the mat\nthe dog sat on the cat\n" * 20)
  library.SentencePieceTrainer.train(
      input=str(text), model_prefix=str(tmp_path / "spiece"), vocab_size=17,
      pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
  tokenizer = text_tokenizers.open_tokenizer(str(tmp_path))
  ids = tokenizer.encode("the cat sat")
  assert ids[-1] == 1 and 1 not in ids[:-1]
  assert tokenizer.encode("") == [1]
  # T5 has more ids than its tokenizer.
  assert tokenizer.decode([0] + ids + [0, 99]) == "the cat sat"
  assert pickle.loads(pickle.dumps(tokenizer)).encode("the cat sat") == ids
  assert tokenizer.vocab_size == 17


@pytest.mark.parametrize("name, content, problem", [
    ("tokenizer.json", "{}", "has no 'model'"),
    ("tokenizer.json", "[", "is not JSON"),
    ("spiece.model", "no model", "is no SentencePiece model"),
    ("other.txt", "", "has no tokenizer: looked for tokenizer.json, vocab.json "
     "with merges.txt, encoder.json with vocab.bpe, spiece.model"),
])
def test_bad_files(tmp_path, name, content, problem):
  pytest.importorskip("tokenizers")
  pytest.importorskip("sentencepiece")
  (tmp_path / name).write_text(content)
  with pytest.raises(errors.InputError) as error:
    text_tokenizers.open_tokenizer(str(tmp_path))
  assert problem in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name, package", [("tokenizer.json", "tokenizers"),
                                           ("spiece.model", "sentencepiece")])
def test_a_missing_library_is_one_line(tmp_path, monkeypatch, name, package):
  (tmp_path / name).write_text("{}")
  # What makes Python say that there is no such module.
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(errors.InputError, match="the package %s, which is not "
                     "installed: pip install 'adapter-bert.text.'" % package):
    text_tokenizers.open_tokenizer(str(tmp_path))


def test_the_real_letters_and_sounds():
  root = os.environ.get("G2P_BART_DIR")
  if not root:
    pytest.skip("set G2P_BART_DIR to run this")
  pytest.importorskip("tokenizers")
  model = os.path.join(root, "us_bart")
  words, sounds = (text_tokenizers.open_tokenizer(os.path.join(model, name))
                   for name in ("source_tokenizer.json",
                                "target_tokenizer.json"))
  task = seq2seq.task_from_dict({"name": "G2P", "dev": "dev.tsv"})
  examples = list(seq2seq.read_examples(task, task.dev[0],
                                        os.path.join(root, "us")))
  assert len(examples) == 500
  for example in examples:
    assert words.decode(words.encode(example.source)) == example.source
    ids = sounds.encode(example.target)
    assert sounds.decode(ids) == example.target
    # One for each character, [BOS] and [EOS], and nothing unknown.
    assert len(ids) == len(example.target) + 2
    assert (ids[0], ids[-1]) == (1, 2) and min(ids[1:-1]) > 3
  encoder = seq2seq.Encoder(words, sounds, 64, 64)
  source, target, truncated = encoder.encode(examples[0])
  # propene: the letters' ids are in config.json.
  with open(os.path.join(model, "config.json"), encoding="utf-8") as config:
    config = json.load(config)
  assert [config["grapheme_chars"][i] for i in source[1:-1]] == list(
      examples[0].source)
  assert [config["phoneme_chars"][i] for i in target[1:-1]] == list(
      examples[0].target)
  assert truncated == (False, False)
