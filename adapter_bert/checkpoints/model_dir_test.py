"""What directories hold, as Google, Hugging Face, albert_zh, OpenAI have them."""

import json
import os

import pytest

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
  path = make(tmp_path / "d", "config.json", "model.safetensors")
  with pytest.raises(errors.InputError, match="--model_dir=%s in place" % path):
    model_dir.check_init_checkpoint(path)
  for other in (None, str(tmp_path), str(tmp_path / "x.ckpt")):
    model_dir.check_init_checkpoint(other)
