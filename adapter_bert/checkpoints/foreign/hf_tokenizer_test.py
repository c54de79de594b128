"""Tokenizers as Hugging Face saves them give transformers' tokens.

testdata/hf_bert is a tiny BertForSequenceClassification with its tokenizer, and
golden.json what transformers 4.57 made of them. (Only a capital sigma at the end
of a word, which Python lower-cases to another letter than Rust, is not in it.)
"""

import json
import os
import shutil

import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_tokenizer
import tokenization

HF = os.path.join(test_util.TESTDATA, "hf_bert")


@pytest.fixture(name="golden", scope="module")
def fixture_golden():
  with open(os.path.join(HF, "golden.json"), encoding="utf-8") as reader:
    return json.load(reader)


@pytest.fixture(name="hf")
def fixture_hf(tmp_path):
  """A copy of the directory's tokenizer, to be changed."""
  for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(os.path.join(HF, name), str(tmp_path / name))
  return tmp_path


def read(path):
  return hf_tokenizer.read(os.path.join(str(path), "tokenizer.json"))


def change(path, place, value):
  """Sets `value` at a place such as ("normalizer", "lowercase")."""
  content = inner = json.loads(path.read_text(encoding="utf-8"))
  for key in place[:-1]:
    inner = inner[key]
  inner[place[-1]] = value
  path.write_text(json.dumps(content), encoding="utf-8")


def refusal(hf):
  with pytest.raises(errors.InputError) as raised:
    read(hf)
  assert "\n" not in str(raised.value)
  return str(raised.value)


def test_ids_are_those_of_transformers(golden):
  tokenizer = read(HF).tokenizer()
  for case in golden["cases"]:
    a, b = tokenizer.encode(case["text_a"]), tokenizer.encode(case["text_b"])
    cls, sep = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
    assert [cls] + a + [sep] + b + [sep] == case["input_ids"]


def test_every_setting_gives_the_tokens_of_transformers(golden, tmp_path):
  texts = [case[key] for case in golden["cases"] for key in ("text_a", "text_b")]
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(golden["vocab"]) + "\n", encoding="utf-8")
  seen = set()
  for settings in golden["tokenizers"]:
    expected = settings.pop("tokens")
    tokenizer = tokenization.FullTokenizer(str(path), **settings)
    assert [tokenizer.tokenize(text) for text in texts] == expected, settings
    seen.add(json.dumps(expected))
  assert len(golden["tokenizers"]) == 12 and len(seen) >= 6


def test_what_is_written_reads_back_as_the_same(golden, tmp_path):
  first = read(HF)
  assert first.write(str(tmp_path)) == ["vocab.txt", "tokenizer_config.json"]
  again = hf_tokenizer.read(str(tmp_path / "vocab.txt"))
  assert again.tokenizer().describe() == first.tokenizer().describe()
  assert again.added_tokens == first.added_tokens
  assert first.settings == {"do_lower_case": False, "strip_accents": False,
                            "tokenize_chinese_chars": True,
                            "max_input_chars_per_word": 100}
  del golden


def test_without_a_word_about_it_the_flag_decides(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("[UNK]\n[CLS]\n[SEP]\na\n")
  found = hf_tokenizer.read(str(path))
  assert found.settings == {} and found.said_by is None
  assert found.tokenizer().do_lower_case
  assert not found.tokenizer(do_lower_case=False).do_lower_case
  (tmp_path / "out").mkdir()
  assert found.write(str(tmp_path / "out")) == ["vocab.txt"]
  assert (tmp_path / "out" / "vocab.txt").read_text() == path.read_text()


def test_a_flag_that_contradicts_is_refused():
  files = read(HF)
  assert not files.tokenizer(do_lower_case=False).do_lower_case
  with pytest.raises(errors.InputError) as raised:
    files.tokenizer(do_lower_case=True)
  assert str(raised.value) == (
      "--do_lower_case=true, but %s says that the model's text was not "
      "lower-cased; leave the flag out" %
      os.path.join(HF, "tokenizer_config.json"))


def test_where_the_files_differ_the_config_is_used_with_a_warning(hf, caplog):
  change(hf / "tokenizer_config.json", ["strip_accents"], True)
  assert read(hf).settings["strip_accents"] is True
  assert "strip_accents is true in tokenizer_config.json and false" in (
      caplog.text)


@pytest.mark.parametrize("name, place, value, line", [
    ("tokenizer.json", ["model", "type"], "BPE",
     'model.type is "BPE"; only "WordPiece" is built'),
    ("tokenizer.json", ["model", "continuing_subword_prefix"], "@@",
     'continuing_subword_prefix is "@@"; only "##"'),
    ("tokenizer.json", ["normalizer", "type"], "NFKC", 'normalizer.type is'),
    ("tokenizer.json", ["normalizer"], None, "normalizer.type is null"),
    ("tokenizer.json", ["normalizer", "clean_text"], False, "clean_text is"),
    ("tokenizer.json", ["pre_tokenizer", "type"], "Whitespace",
     "pre_tokenizer.type"),
    ("tokenizer.json", ["post_processor", "single"], [], "post_processor.sing"),
    ("tokenizer.json", ["model", "vocab"], {"[UNK]": 0, "a": 0}, "cannot be"),
    ("tokenizer.json", ["model", "vocab"], {"[UNK]": 0, "a": 10**9},
     "cannot be"),
    ("tokenizer.json", ["model", "vocab"], {"a": "b"}, "a whole number"),
    ("tokenizer.json", ["added_tokens", 5, "lstrip"], True,
     "lstrip of the added token <e1> is true; only false"),
    ("tokenizer.json", ["added_tokens", 5, "id"], 7, "cannot be"),
    ("tokenizer_config.json", ["tokenizer_class"], "RobertaTokenizer",
     'tokenizer_class is "RobertaTokenizer"; only "BertTokenizer"'),
    ("tokenizer_config.json", ["do_basic_tokenize"], False, "do_basic_tokenize"),
    ("tokenizer_config.json", ["never_split"], ["x"], "never_split"),
    ("tokenizer_config.json", ["cls_token"], "<s>", 'cls_token is "<s>"'),
    ("tokenizer_config.json", ["do_lower_case"], "no", "true or false"),
])
def test_what_cannot_be_done_is_refused(hf, name, place, value, line):
  change(hf / name, place, value)
  assert line in refusal(hf)
