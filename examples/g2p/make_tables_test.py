"""The tables and tokenizers, of a lexicon made by hand."""

import json
import zipfile

import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.data import seq2seq
from adapter_bert.data import text_tokenizers
from examples.g2p import make_tables

LEXICONS = {
    # Left out: two pronunciations, a letter that neither model has, a phoneme
    # that the model lacks, "Abc" beside "abc".
    "gb": {"abc": "ɒbs", "Abc": "ABS", "read": {"VERB": "rId", "VBD": "rEd"},
           "naïve": "ab", "ab": "aʔ", "cab": "bɒ", "bca": "ba", "b": "b",
           "cc": "ss", "ac": "as"},
    "us": {"abc": "Abs", "cab": "bA", "a": "A"},
}
MODELS = {"us": {"grapheme_chars": "____abcA", "phoneme_chars": "____Abs"},
          "gb": {"grapheme_chars": "____bacx", "phoneme_chars": "____bsaɒ"}}
TABLES = (("us/dev.tsv", "us", 2), ("gb/test.tsv", "gb", 1),
          ("gb/dev.tsv", "gb", 1), ("gb/train.tsv", "gb", 3))


@pytest.fixture(name="made", scope="module")
def fixture_made(tmp_path_factory):
  """(the directory with what is written, {file: what is in it})."""
  root = tmp_path_factory.mktemp("g2p")
  package = str(root / "misaki.whl")
  with zipfile.ZipFile(package, "w") as archive:
    for country, lexicon in LEXICONS.items():
      archive.writestr("misaki/data/%s_gold.json" % country,
                       json.dumps(lexicon))
  for country, config in MODELS.items():
    (root / country).mkdir()
    (root / country / "config.json").write_text(json.dumps(config))
  found = make_tables.make(package, str(root / "us"), str(root / "gb"), TABLES)
  make_tables.write(found, str(root / "out"))
  with pytest.raises(errors.InputError, match="gb/train.tsv needs 9 words"):
    make_tables.make(package, str(root / "us"), str(root / "gb"),
                     TABLES[:-1] + (("gb/train.tsv", "gb", 9),))
  return root / "out", found


def test_the_words_that_are_used():
  used = make_tables.usable(
      {w: s for w, s in LEXICONS["gb"].items() if isinstance(s, str)},
      set("abc"), set("bsaɒ"))
  assert sorted(used) == [("abc", "ɒbs"), ("ac", "as"), ("b", "b"),
                          ("bca", "ba"), ("cab", "bɒ"), ("cc", "ss")]


def test_each_word_is_in_one_table_at_the_place_of_its_digest(made):
  _, found = made
  words = [word for name, country, _ in TABLES if country == "gb"
           for word, _ in found[name]]
  assert [len(found[name]) for name, _, _ in TABLES] == [2, 1, 1, 3]
  # The order does not depend on the lexicon's.
  assert words == sorted(words, key=lambda word: make_tables.place_of((word, "")))
  assert make_tables.place_of(("ABC", "")) == make_tables.place_of(("abc", ""))
  assert make_tables.place_of(("abc", "")).startswith("ba7816bf")
  assert len(set(words)) == 5


def test_the_program_reads_what_is_written(made):
  directory, found = made
  task = seq2seq.load_task_spec(str(directory / "task.json"))
  rows = [(example.source, example.target) for example in
          seq2seq.read_examples(task, task.train, str(directory / "gb"))]
  assert rows == found["gb/train.tsv"]


def test_tokenizers(made):
  directory, _ = made
  open_ = lambda name: text_tokenizers.open_tokenizer(str(directory / name))
  assert open_("us_source.json").encode("cab") == [1, 6, 4, 5, 2]
  assert open_("gb_source.json").encode("cab") == [1, 6, 5, 4, 2]
  # What the American model lacks stands behind its own, in one order.
  target = open_("us_target_gb.json")
  assert target.encode("Asaɒ") == [1, 4, 6, 7, 8, 2]
  assert target.decode([1, 4, 6, 7, 8, 2]) == "Asaɒ"
  assert open_("us_target.json").encode("a") == [1, 3, 2]


def test_what_is_no_wheel(tmp_path):
  path = tmp_path / "misaki.whl"
  with pytest.raises(errors.InputError, match="misaki.whl: has no misaki/data/us"):
    make_tables.read_lexicon(str(path), "us")
  path.write_text("x")
  with pytest.raises(errors.InputError, match="give the wheel of misaki 0.9.4"):
    make_tables.read_lexicon(str(path), "gb")


def test_the_models_own_tables():
  """The real ones: the British phonemes take the ids 50 to 53."""
  models = [test_util.external("G2P_BART_DIR", name + "_bart")
            for name in ("us", "gb")]
  (_, us), (_, gb) = map(make_tables.read_characters, models)
  assert make_tables.with_missing(us, gb)[50:] == list("Qaɒː")
  with open(models[0] + "/target_tokenizer_gb.json", encoding="utf-8") as reader:
    vocab = json.load(reader)["model"]["vocab"]
  assert make_tables.tokenizer(make_tables.with_missing(us, gb))["model"][
      "vocab"] == vocab
