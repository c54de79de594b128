"""What directories hold, as Google, Hugging Face, albert_zh, OpenAI have them."""

import json
import os

import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import model_dir


def make(path, *names, **config):
  path.mkdir(exist_ok=True)
  for name in names:
    (path / name).write_text(json.dumps(config) if name.endswith(".json")
                             else "")
  return str(path)


def names(found):
  return [value and os.path.basename(value)
          for value in (found.config_file, found.vocab_file, found.weights)]


@pytest.mark.parametrize("files, kind, family, found", [
    (["bert_config.json", "vocab.txt", "bert_model.ckpt.index"], "Google",
     "bert", ["bert_config.json", "vocab.txt", "bert_model.ckpt"]),
    (["albert_config_tiny.json", "vocab_chinese.txt", "albert_model.ckpt.index",
      "tokenizer_config.json"], "Google", "bert",
     ["albert_config_tiny.json", "vocab_chinese.txt", "albert_model.ckpt"]),
    (["bert_config.json", "my.ckpt-300.index"], "Google", "bert",
     ["bert_config.json", None, "my.ckpt-300"]),
    (["config.json", "vocab.txt", "tokenizer.json", "model.safetensors"],
     "Hugging Face", "bert", ["config.json", "vocab.txt", "d"]),
    (["config.json", "tokenizer.json", "model.safetensors.index.json"],
     "Hugging Face", "bert", ["config.json", "tokenizer.json", "d"]),
    (["hparams.json", "encoder.json", "vocab.bpe", "model.ckpt.index"],
     "OpenAI", "gpt2", ["hparams.json", "encoder.json", "model.ckpt"]),
])
def test_what_a_directory_holds(tmp_path, files, kind, family, found):
  path = make(tmp_path / "d", *files)
  opened = model_dir.open_model_dir(path)
  assert (opened.path, opened.kind, opened.family) == (path, kind, family)
  assert names(opened) == found


def test_what_the_user_gives_goes_over_it(tmp_path):
  path = make(tmp_path / "d", "a.ckpt.index", "b.ckpt.index")
  opened = model_dir.open_bert_dir(path, "c.json", "v.txt", "x.ckpt")
  assert names(opened) == ["c.json", "v.txt", "x.ckpt"]
  path = make(tmp_path / "hf", "config.json", "vocab.txt")
  assert names(model_dir.open_bert_dir(path, weights="x.ckpt")) == [
      "config.json", "vocab.txt", "x.ckpt"]


@pytest.mark.parametrize("files, line", [
    ([], "holds no config (bert_config.json); give a directory as Google"),
    (["bert_config.json", "vocab.txt"], "holds no checkpoint (*.ckpt.index)"),
    (["bert_config.json", "vocab.txt", "a.ckpt.index", "b.ckpt.index"],
     "more than a checkpoint (*.ckpt.index): a.ckpt.index, b.ckpt.index; give "
     "--init_checkpoint too"),
    (["bert_config.json", "bert_model.ckpt.index"],
     "no vocabulary (vocab.txt or tokenizer.json); give --vocab_file"),
    (["config.json", "vocab.txt"], "model.safetensors is not there"),
    (["config.json", "pytorch_model.bin"], "a pickle, which is never unpickled"),
])
def test_what_lacks_is_named(tmp_path, files, line):
  path = make(tmp_path / "d", *files)
  with pytest.raises(errors.InputError) as raised:
    model_dir.open_bert_dir(path)
  assert line in str(raised.value) and "\n" not in str(raised.value)


def test_another_model_a_file_and_nothing(tmp_path):
  path = make(tmp_path / "d", "config.json", "vocab.json", "model.safetensors",
              model_type="gpt2")
  assert model_dir.open_model_dir(path).family == "gpt2"
  with pytest.raises(errors.InputError, match="of the kind gpt2, and this"):
    model_dir.open_bert_dir(path)
  with pytest.raises(errors.InputError, match="is a file; give the directory"):
    model_dir.open_model_dir(os.path.join(path, "config.json"))
  with pytest.raises(errors.InputError, match="is not there; give the direc"):
    model_dir.open_model_dir(str(tmp_path / "none"))


def test_a_hugging_face_directory_as_init_checkpoint_names_model_dir(tmp_path):
  path = make(tmp_path / "d", "config.json", "vocab.txt", "model.safetensors")
  with pytest.raises(errors.InputError, match="--model_dir=%s in place" % path):
    model_dir.files_of(None, "bert_config.json", "vocab.txt", path)
  config_file, vocab_file = (os.path.join(path, name)
                             for name in ("config.json", "vocab.txt"))
  # All of them its own is what model_dir means.
  for given in ((path, None, None, None), (None, config_file, vocab_file, path),
                (path, config_file, vocab_file, path)):
    assert model_dir.files_of(*given) == (config_file, vocab_file, path)


def test_without_a_directory_both_files_must_be_given():
  assert model_dir.files_of(None, "c", "v", None) == ("c", "v", None)
  for given in ((None, "v"), ("c", None)):
    with pytest.raises(errors.InputError, match="give it, or --model_dir"):
      model_dir.files_of(None, *given, None)


# --------------------------------------------------------------- the tokenizer


@pytest.fixture(name="vocab_file")
def fixture_vocab_file(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nB\n")
  return str(path)


def load(vocab_file, do_lower_case=None, init_checkpoint=None, **changes):
  return model_dir.load_tokenizer(
      vocab_file, do_lower_case, init_checkpoint,
      test_util.tiny_config(**changes), "CONFIG")


def test_what_the_files_say_is_used_and_a_name_if_they_say_nothing(
    vocab_file, tmp_path):
  assert load(vocab_file).do_lower_case
  assert not load(vocab_file, False).do_lower_case
  named = "cased_L-2_H-128_A-2/bert_model.ckpt"
  with pytest.raises(errors.InputError, match="set --do_lower_case=false"):
    load(vocab_file, None, named)
  (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  assert not load(vocab_file, None, "un" + named).do_lower_case
  with pytest.raises(errors.InputError, match="--do_lower_case=true, but"):
    load(vocab_file, True)


def test_vocabularies_of_another_size_or_case(vocab_file, caplog):
  with pytest.raises(errors.InputError, match="has 6 words and the model 5"):
    load(vocab_file, vocab_size=5)
  assert not caplog.text or "1 of the" in caplog.text
  tokenizer = load(vocab_file, vocab_size=9)
  assert "1 of the vocabulary's 6 words have upper-case letters" in caplog.text
  model_dir.warn_of_fewer_words(tokenizer, "V", test_util.tiny_config(
      vocab_size=6))
  assert "vocab_size is" not in caplog.text
  model_dir.warn_of_fewer_words(tokenizer, "V", test_util.tiny_config(
      vocab_size=9))
  assert "V has 6 words and the model's vocab_size is 9" in caplog.text


def test_another_tokenizer_than_a_runs(vocab_file, tmp_path):
  tokenizer = load(vocab_file)
  model_dir.check_tokenizer(None, tokenizer, "V", "RUN")
  model_dir.check_tokenizer(tokenizer.describe(), tokenizer, "V", "RUN")
  shuffled = tmp_path / "shuffled.txt"
  shuffled.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nB\na\n")
  for other, line in ((load(str(shuffled)), "its vocabulary's digest is"),
                      (load(vocab_file, False), "its do_lower_case is true")):
    with pytest.raises(errors.InputError) as raised:
      model_dir.check_tokenizer(tokenizer.describe(), other, "V", "RUN")
    assert "RUN was trained with another tokenizer: " + line in str(raised.value)
