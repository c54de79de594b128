"""Makes the tables of the task "from spelling to sound", and its tokenizers.

    python -m pip download misaki==0.9.4 --no-deps --dest=/tmp
    python -m examples.g2p.make_tables --output_dir=/tmp/g2p \\
      --package=/tmp/misaki-0.9.4-py3-none-any.whl \\
      --us_model=/path/to/us_bart --gb_model=/path/to/gb_bart

Of the package two files are read, misaki/data/us_gold.json and gb_gold.json:
words with their pronunciation. README.md beside this file has the rule by which
they are split, and says what is done with them.
"""

import hashlib
import json
import os
import zipfile

from absl import flags
from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files

FLAGS = flags.FLAGS

_LEXICON = "misaki/data/%s_gold.json"
# (file, lexicon, rows), in the order in which they take words.
TABLES = (("us/dev.tsv", "us", 500), ("gb/test.tsv", "gb", 500),
          ("gb/dev.tsv", "gb", 500), ("gb/train.tsv", "gb", 8000))
# Ids of the models' tables that are not characters.
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")

TASK = {"name": "G2P-GB", "metrics": ["exact_match", "character_error_rate"],
        "columns": {"source": "source", "target": "target"},
        "train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}


def define_flags():
  flags.DEFINE_string("package", None, "misaki's wheel, as pip downloads it.")
  flags.DEFINE_string("us_model", None, "The directory of the American model.")
  flags.DEFINE_string("gb_model", None, "The directory of the British model.")
  flags.DEFINE_string("output_dir", None, "Where the files are written.")
  for name in ("package", "us_model", "gb_model", "output_dir"):
    flags.mark_flag_as_required(name)


# ---------------------------------------------------------------- what is read


def read_lexicon(package, country):
  """{word: pronunciation} of the words that have one pronunciation.

  Args:
    package: str, the wheel.
    country: "us" or "gb".

  Raises: InputError if it is not such a wheel.
  """
  name = _LEXICON % country
  try:
    with zipfile.ZipFile(package) as archive:
      text = archive.read(name).decode("utf-8")
  except (OSError, KeyError, zipfile.BadZipFile) as error:
    raise errors.InputError("%s: has no %s (%s); give the wheel of misaki 0.9.4" %
                            (package, name, error)) from error
  # Of others it has {part of speech: pronunciation}.
  return {word: sound for word, sound in json.loads(text).items()
          if isinstance(sound, str)}


def read_characters(directory):
  """(letters, phonemes) of a model: lists of str by their ids, "" for none."""
  config = files.read_json(os.path.join(directory, "config.json"),
                           {"grapheme_chars": str, "phoneme_chars": str})
  return tuple([""] * len(SPECIAL) + list(config[key][len(SPECIAL):])
               for key in ("grapheme_chars", "phoneme_chars"))


# --------------------------------------------------------------- what is made


def with_missing(phonemes, others):
  """A model's phonemes and, behind them, those of the other one that it lacks.

  They take ids that the model has for letters of a source (the table is one for
  all), which are trained and apart; ids that stand for nothing are all alike.
  """
  return phonemes + sorted(set(others) - set(phonemes))


def usable(lexicon, letters, phonemes):
  """The (word, pronunciation) pairs that are written in these characters.

  Of words that differ in case alone only the last in the order of code points
  stays, which is the one in lower case.
  """
  found = {}
  for word, sound in sorted(lexicon.items()):
    if word and sound and set(word) <= letters and set(sound) <= phonemes:
      found[word.lower()] = (word, sound)
  return list(found.values())


def place_of(pair):
  """Decides a pair's place: the digest of its word in lower case."""
  return hashlib.sha256(pair[0].lower().encode("utf-8")).hexdigest()


def split(pairs_of, tables=TABLES):
  """{file: pairs}: a lexicon's pairs in their places, cut from the first on.

  Args:
    pairs_of: {country: list of pairs}.
    tables: as TABLES.

  Raises: InputError for a lexicon with too few words.
  """
  left = {country: sorted(pairs, key=place_of)
          for country, pairs in pairs_of.items()}
  found = {}
  for name, country, rows in tables:
    found[name], left[country] = left[country][:rows], left[country][rows:]
    if len(found[name]) < rows:
      raise errors.InputError("%s needs %d words, and the lexicon %s has %d left"
                              % (name, rows, country, len(found[name])))
  return found


def tokenizer(characters):
  """A tokenizer.json of single characters, by the list of them.

  A text is [BOS] ... [EOS]; it is decoded without spaces.
  """
  vocab = dict(zip(SPECIAL, range(len(SPECIAL))))
  vocab.update((char, i) for i, char in enumerate(characters) if char)
  token = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
  sequence = lambda name, i: {"Sequence": {"id": name, "type_id": i}}
  return {
      "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
      "added_tokens": [
          {"id": i, "content": name, "single_word": False, "lstrip": False,
           "rstrip": False, "normalized": False, "special": True}
          for i, name in enumerate(SPECIAL)],
      "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."},
                        "behavior": "Isolated", "invert": False},
      "post_processor": {
          "type": "TemplateProcessing",
          "single": [token("[BOS]"), sequence("A", 0), token("[EOS]")],
          "pair": [token("[BOS]"), sequence("A", 0), token("[EOS]"),
                   sequence("B", 1)],
          "special_tokens": {
              name: {"id": name, "ids": [vocab[name]], "tokens": [name]}
              for name in ("[BOS]", "[EOS]")}},
      "decoder": {"type": "Fuse"},
      "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}}


def make(package, us_model, gb_model, tables=TABLES):
  """{file: what is in it}: a list of pairs for a table, else a JSON value."""
  us_letters, us_phonemes = read_characters(us_model)
  gb_letters, gb_phonemes = read_characters(gb_model)
  letters = set(us_letters) & set(gb_letters)
  sounds = {"us": set(us_phonemes), "gb": set(gb_phonemes)}
  found = split({country: usable(read_lexicon(package, country), letters,
                                 sounds[country]) for country in sounds}, tables)
  for name, characters in (
      ("us_source", us_letters), ("us_target", us_phonemes),
      ("us_target_gb", with_missing(us_phonemes, gb_phonemes)),
      ("gb_source", gb_letters), ("gb_target", gb_phonemes)):
    found[name + ".json"] = tokenizer(characters)
  found["task.json"] = TASK
  return found


def write(found, output_dir):
  for name, value in found.items():
    path = os.path.join(output_dir, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if name.endswith(".tsv"):
      rows = [("source", "target")] + value
      files.write_atomically(path, ["\t".join(row) + "\n" for row in rows])
      logging.info("%s: %d words", path, len(value))
    else:
      files.write_atomically(path, [json.dumps(value, ensure_ascii=False,
                                               indent=1) + "\n"])


def main(argv):
  errors.refuse_arguments(argv)
  logging.set_verbosity(logging.INFO)
  write(make(FLAGS.package, FLAGS.us_model, FLAGS.gb_model), FLAGS.output_dir)


if __name__ == "__main__":
  define_flags()
  errors.run(main)
