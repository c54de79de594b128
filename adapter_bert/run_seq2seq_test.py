"""The program from end to end on the golden models: the real `run` and `main`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
import tensorflow.compat.v1 as tf

from adapter_bert import run_seq2seq
from adapter_bert import settings
from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import text_tokenizers
from adapter_bert.distributed import local_processes
from adapter_bert.generation import defaults
from adapter_bert.generation import evaluation
from adapter_bert.generation import generator
from adapter_bert.training import graphs

graphs.enable_graph_mode()

LETTERS = "abcdefgh"
# The end of a sequence, and what a tokenizer puts before one.
ENDS = {"bart": (2, 0), "t5": (1, None), "gpt2": (96, None)}
DROPOUT = {"bart": ["dropout", "attention_dropout"], "t5": ["dropout_rate"],
           "gpt2": ["attn_pdrop", "embd_pdrop", "resid_pdrop"]}
METHODS = {
    "full": dict(tune="full"),
    "layer_norm": dict(tune="layer_norm"),
    "adapters": dict(tune="adapters"),
    "prefix": dict(tune="prefix", prefix_length=3),
    "prefix_mlp": dict(tune="prefix", prefix_length=3, prefix_hidden_size=5,
                       prefix_init="zero"),
    "both": dict(tune="adapters+prefixes", prefix_length=3),
}


def tokenizer_of(family, size=97):
  """A tokenizer.json of letters: "a" is 10, "A" is 20, "w7" is 7."""
  end, start = ENDS[family]
  vocab = {"w%d" % i: i for i in range(size)}
  for i, letter in enumerate(LETTERS):
    for name, token in ((letter, 10 + i), (letter.upper(), 20 + i)):
      del vocab["w%d" % token]
      vocab[name] = token
  special = lambda token: {"SpecialToken": {"id": "w%d" % token, "type_id": 0}}
  around = [{"Sequence": {"id": "A", "type_id": 0}}]
  if family != "gpt2":
    around += [special(end)]
  if start is not None:
    around.insert(0, special(start))
  used = [t for t in ENDS[family] if t is not None]
  return {
      "version": "1.0", "truncation": None, "padding": None,
      "normalizer": None, "decoder": {"type": "Fuse"},
      "added_tokens": [dict(
          id=token, content="w%d" % token, special=True, single_word=False,
          lstrip=False, rstrip=False, normalized=False)
                       for token in sorted(used)],
      "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."},
                        "behavior": "Isolated", "invert": False},
      "post_processor": {
          "type": "TemplateProcessing", "single": around, "pair": around,
          "special_tokens": {"w%d" % token: {
              "id": "w%d" % token, "ids": [token],
              "tokens": ["w%d" % token]} for token in used}},
      "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w3"}}


def tokenizer_of_numbers():
  """A tokenizer.json of ids as they are: "w7 w8", and nothing around them."""
  return {
      "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
      "decoder": None, "added_tokens": [], "post_processor": None,
      "pre_tokenizer": {"type": "WhitespaceSplit"},
      "model": {"type": "WordLevel", "unk_token": "w3",
                "vocab": {"w%d" % i: i for i in range(97)}}}


class Files(object):
  """The golden models with tokenizers, and words to be spelled backwards."""

  def __init__(self, root):
    self.root = root
    for family in ENDS:
      for name, drop in ((family, 0.1), (family + "_sure", 0.0)):
        self.model(name, family, **{key: drop for key in DROPOUT[family]})
    self.json("numbers.json", tokenizer_of_numbers())
    rng = np.random.RandomState(5)
    words = ["".join(rng.choice(list(LETTERS), rng.randint(2, 6)))
             for _ in range(22)]
    rows = [(word, word[::-1].upper()) for word in words]
    self.table("words/train.tsv", rows[:12])
    # A source twice, with two references.
    self.table("words/dev.tsv", rows[12:17] + [(words[13], "ABC")])
    self.table("words/test.tsv", rows[17:] + [rows[17]])
    self.tested = words[17:] + [words[17]]
    self.spec("words.json", {"metrics": ["character_error_rate", "exact_match"],
                             "train": "train.tsv", "dev": "dev.tsv",
                             "test": "test.tsv"})
    self.write("plain/train.txt", words[:12])
    self.write("plain/dev.txt", words[12:17])
    self.spec("plain.json", {"columns": {"target": "text"}, "dev": "dev.txt",
                             "train": "train.txt"})

  def path(self, name):
    return os.path.join(self.root, name)

  def write(self, name, lines):
    path = self.path(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as output:
      output.write("".join(line + "\n" for line in lines))
    return path

  def json(self, name, value):
    return self.write(name, [json.dumps(value)])

  def spec(self, name, keys):
    return self.json(name, dict({
        "name": "Own", "metrics": ["exact_match"],
        "columns": {"source": "source", "target": "target"}}, **keys))

  def table(self, name, rows, header=("source", "target")):
    return self.write(name, ["\t".join(row) for row in [header] + rows])

  def model(self, name, family, **changes):
    """A directory with a golden model's weights, and changes to its config."""
    source = test_util.sequence_golden(family, shipped=True).checkpoint
    with open(os.path.join(source, "config.json"), encoding="utf-8") as reader:
      config = json.load(reader)
    self.json(name + "/config.json", dict(config, **changes))
    self.json(name + "/tokenizer.json", tokenizer_of(family))
    os.symlink(os.path.join(source, "model.safetensors"),
               self.path(name + "/model.safetensors"))
    return self.path(name)

  def settings(self, model, output_dir, task="words", **changes):
    """A dict of Config's fields."""
    given = {}  # What means nothing is refused.
    if "adapters" in changes.get("tune", "adapters") and (
        "adapter_fn" not in changes):
      given["adapter_size"] = 3
    if task != "plain":
      given["max_new_tokens"] = 6
    return dict(dict(
        given, model_dir=self.path(model), task_spec=self.path(task + ".json"),
        data_dir=self.path(task), output_dir=str(output_dir),
        max_source_length=9, max_target_length=9,
        train_batch_size=4, num_train_epochs=1.0, learning_rate=1e-2,
        compile_chains=False), **changes)

  def run(self, model, output_dir, task="words", **changes):
    return run_seq2seq.run(run_seq2seq.Config(
        **self.settings(model, output_dir, task, **changes)))


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  return Files(str(tmp_path_factory.mktemp("files")))


@pytest.fixture(scope="module", name="trained")
def fixture_trained(files):
  """The output_dir of a T5 with adapters: trained, evaluated, predicted."""
  output_dir = files.path("out/t5")
  files.run("t5", output_dir, do_train=True, do_eval=True, do_predict=True)
  return output_dir


def lines_of(*parts):
  with open(os.path.join(*parts), encoding="utf-8") as source:
    return source.read().splitlines()


def values_in(prefix):
  weights = weights_lib.Weights([prefix])
  return {name: weights.value(name) for name in weights.shapes}


def values_of_run(output_dir):
  return values_in(weights_lib.newest_readable(str(output_dir)))


def scores_of(output_dir):
  """[step, score] of each checkpoint that save_best looked at."""
  with open(os.path.join(str(output_dir), "dev_scores.json"),
            encoding="utf-8") as reader:
    return json.load(reader)


# --------------------------------------------------- against the golden numbers


def numbers(ids):
  return " ".join("w%d" % token for token in ids)


def without_padding(golden, key, mask):
  return [ids[kept == 1].tolist() for ids, kept in zip(
      golden.arrays[key], golden.arrays[mask])]


def cross_entropy(logits, targets):
  """The sum over the tokens. logits: [T, V]; targets: T ids."""
  logits = logits.astype(np.float64)
  logits = logits - logits.max(-1, keepdims=True)
  log_sum = np.log(np.exp(logits).sum(-1))
  return sum(log_sum[i] - logits[i, token] for i, token in enumerate(targets))


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_published_model_has_the_golden_loss_and_texts(files, tmp_path, family):
  golden = test_util.sequence_golden(family, shipped=True)
  sources = without_padding(golden, "in/input_ids", "in/attention_mask")
  # Behind what the golden decoder read stands one token more.
  targets = [row[1:] + [7] for row in
             golden.arrays["in/decoder_input_ids"].tolist()]
  data = str(tmp_path / "data")
  files.table(data + "/dev.tsv", list(zip(map(numbers, sources),
                                          map(numbers, targets))))
  files.table(data + "/test.tsv", [(numbers(ids), "x") for ids in sources])
  spec = files.spec(data + "/task.json", {"dev": "dev.tsv", "test": "test.tsv"})
  results = files.run(
      family, tmp_path / "out", task_spec=spec, data_dir=data, do_eval=True,
      do_predict=True, source_tokenizer=files.path("numbers.json"),
      target_tokenizer=files.path("numbers.json"), max_new_tokens=12,
      num_beams=3, length_penalty=2.0, forced_eos_token_id=-1,
      eval_batch_size=2)["dev"]
  loss = sum(map(cross_entropy, golden.arrays["base/logits"], targets)) / 15
  assert results["eval_loss"] == pytest.approx(loss, rel=1e-5)
  assert results["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
  end = golden.facts["generate"]["eos_token_id"]
  expected = [row[1:row.index(end, 1) + 1] if end in row[1:] else row[1:]
              for row in golden.arrays["generate/beam3_penalty2"].tolist()]
  assert lines_of(tmp_path, "out/predictions.txt") == list(
      map(numbers, expected))
  scores = [json.loads(line)["score"] for line in lines_of(
      tmp_path, "out/predictions.jsonl")]
  np.testing.assert_allclose(
      scores, golden.arrays["generate/beam3_penalty2_scores"], rtol=1e-4)


def test_plain_text_has_the_golden_loss_and_perplexity(files, tmp_path):
  golden = test_util.sequence_golden("gpt2", shipped=True)
  texts = without_padding(golden, "in/input_ids", "in/attention_mask")
  files.write(str(tmp_path / "dev.txt"), map(numbers, texts))
  results = files.run(
      "gpt2", tmp_path / "out", "plain", data_dir=str(tmp_path), do_eval=True,
      source_tokenizer=files.path("numbers.json"))["dev"]
  # A text's first token is not asked for; the end of text is.
  loss = sum(cross_entropy(logits, ids[1:] + [96]) for logits, ids in zip(
      golden.arrays["base/logits"], texts)) / sum(map(len, texts))
  assert results["eval_loss"] == pytest.approx(loss, rel=1e-5)
  assert results["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
  assert sorted(results) == ["eval_loss", "global_step", "loss", "perplexity"]


# ------------------------------------------------------- what a run leaves


def test_results_and_predictions(files, trained):
  results = dict(line.split(" = ") for line in lines_of(
      trained, "eval_results.txt"))
  assert list(results) == ["eval_character_error_rate", "eval_exact_match",
                           "eval_loss", "global_step", "loss", "perplexity"]
  assert results["global_step"] == "3"  # 12 examples, batches of 4, 1 epoch
  texts = lines_of(trained, "predictions.txt")
  rows = [json.loads(line) for line in lines_of(trained, "predictions.jsonl")]
  assert [row["source"] for row in rows] == files.tested
  assert [row["text"] for row in rows] == texts
  assert texts[0] == texts[-1] and len(set(texts)) > 1
  assert all(row["score"] < 0 for row in rows)


def test_predictions_do_not_depend_on_the_batch(files, trained, monkeypatch):
  expected = lines_of(trained, "predictions.txt")
  said = []
  monkeypatch.setattr(evaluation, "_REPORT_SECONDS", -1.0)
  monkeypatch.setattr(evaluation.logging, "info",
                      lambda text, *args: said.append(text % args))
  files.run("t5", trained, do_predict=True, predict_batch_size=2)
  assert lines_of(trained, "predictions.txt") == expected
  # Of the six rows one comes twice, and is generated once.
  assert [line.split(",")[0] for line in said if "left" in line] == [
      "generated 2 of 5", "generated 4 of 5", "generated 5 of 5"]


def test_checkpoints_hold_what_is_trained_and_nothing_frozen(trained):
  held = values_of_run(trained)
  names = [name for name in held if name + "/adam_m" in held]
  assert sorted(held) == sorted(
      names + [n + s for n in names for s in ("/adam_m", "/adam_v")] +
      ["global_step"])
  assert all("/adapters/" in n or "LayerNorm" in n for n in names)
  assert any("decoder" in n and "/adapters/" in n for n in names)
  task = values_in(weights_lib.find(os.path.join(trained, "task")))
  assert sorted(task) == sorted(names + ["global_step"])


def test_the_task_checkpoint_evaluates_as_the_run(files, trained, tmp_path):
  files.run("t5", tmp_path, do_eval=True,
            task_checkpoint=os.path.join(trained, "task"))
  assert lines_of(tmp_path, "eval_results.txt") == lines_of(
      trained, "eval_results.txt")


def test_all_references_of_a_source_count(files, trained, tmp_path):
  source, text = next(pair for pair in zip(
      files.tested, lines_of(trained, "predictions.txt")) if pair[1])
  files.table("many/dev.tsv", [(source, "ABC"), (source, text),
                               (source, "CBA")])
  spec = files.spec("many.json", {
      "metrics": ["character_error_rate", "exact_match"], "dev": "dev.tsv"})
  found = files.run("t5", tmp_path, "many", task_spec=spec, do_eval=True,
                    task_checkpoint=os.path.join(trained, "task"))["dev"]
  assert found["eval_exact_match"] == 1


def test_glue_as_text_has_glues_own_metrics(files, tmp_path):
  rows = [("abc", "cab", "01"[i % 2]) for i in range(4)]
  files.table(str(tmp_path / "dev.tsv"), rows,
              header=("sentence1", "sentence2", "label"))
  found = files.run("t5", tmp_path / "out", task_spec=None, task_name="MRPC",
                    data_dir=str(tmp_path), do_eval=True, max_source_length=48,
                    max_target_length=24)["dev"]
  # What an untrained model says is not a label, and so wrong.
  assert (found["eval_accuracy"], found["eval_f1"],
          found["eval_exact_match"]) == (0, 0, 0)


SLOW = [("bart", method) for method in METHODS] + [
    ("t5", method) for method in METHODS if method != "adapters"] + [
        ("gpt2", method) for method in METHODS if method != "both"]


@pytest.mark.parametrize("family, method", [("gpt2", "both")] + [
    pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW])
def test_methods(files, tmp_path, family, method):
  """What is trained is saved, with slots; the rest is the published model."""
  out, again = str(tmp_path / "out"), str(tmp_path / "again")
  results = files.run(family, out, do_train=True, do_eval=True,
                      save_checkpoints_steps=1, **METHODS[method])
  held = values_of_run(out)
  names = sorted(n for n in held if n + "/adam_m" in held)
  kinds = {"adapters": "/adapters/" in "".join(names),
           "prefixes": "/prefix" in "".join(names),
           "norms": "LayerNorm" in "".join(names),
           "kernels": any(n.endswith("query/kernel") for n in names)}
  assert kinds == {"adapters": method in ("adapters", "both"),
                   "prefixes": method in ("prefix", "prefix_mlp", "both"),
                   "norms": method in ("adapters", "layer_norm", "full"),
                   "kernels": method == "full"}
  before = values_in(os.path.join(out, "model.ckpt-1"))
  assert "bart/final_logits_bias" not in names
  for name in names:  # Each of them is reached by a gradient.
    assert (held[name] != before[name]).any(), name
  found = files.run(family, again, do_eval=True, **dict(
      METHODS[method], task_checkpoint=os.path.join(out, "task")))
  assert found["dev"] == pytest.approx(results["dev"], rel=1e-5)
  published = files.run(family, str(tmp_path / "none"), do_eval=True)["dev"]
  assert found["dev"]["eval_loss"] != pytest.approx(
      published["eval_loss"], rel=1e-3)
  assert run_record.read(out)["tune"] == METHODS[method]["tune"]


OWN = """
import tensorflow.compat.v1 as tf

def scaled(tensor):
  with tf.variable_scope("adapters"):
    return tensor * (1 + tf.get_variable(
        "scale", [tensor.shape[-1]], tf.float32, tf.zeros_initializer(),
        collections=["adapters", tf.GraphKeys.GLOBAL_VARIABLES,
                     tf.GraphKeys.TRAINABLE_VARIABLES]))
"""


@pytest.mark.slow
def test_an_adapter_of_ones_own(files, tmp_path, monkeypatch):
  files.write(str(tmp_path / "own_of_seq2seq.py"), [OWN])
  monkeypatch.syspath_prepend(str(tmp_path))
  changes = dict(do_eval=True, adapter_fn="own_of_seq2seq:scaled")
  results = files.run("gpt2", tmp_path / "out", do_train=True, **changes)
  task = str(tmp_path / "out" / "task")
  assert any(value.any() for name, value in values_in(
      weights_lib.find(task)).items() if name.endswith("adapters/scale"))
  assert run_record.read(task)["adapter_fn"] == "own_of_seq2seq:scaled"
  assert files.run("gpt2", tmp_path / "again", task_checkpoint=task,
                   **changes)["dev"] == pytest.approx(results["dev"], rel=1e-5)


@pytest.mark.slow
def test_the_generating_program_has_the_tokenizers_of_the_run(files, tmp_path):
  """Of the task checkpoint; it is not told of them, and the model has others."""
  out = str(tmp_path / "out")
  letters = files.json(str(tmp_path / "letters.json"), tokenizer_of("t5"))
  files.run("t5", out, do_train=True, do_predict=True, num_train_epochs=9.0,
            source_tokenizer=letters,
            target_tokenizer=files.path("numbers.json"))
  prompts = files.write(str(tmp_path / "in.jsonl"), [
      json.dumps({"text": source}) for source in files.tested])
  found = str(tmp_path / "found.jsonl")
  subprocess.run([
      sys.executable, "-m", "adapter_bert.generation.generate",
      "--model_dir=" + files.path("t5"), "--task_checkpoints=" + out + "/task",
      "--max_new_tokens=6", "--input=" + prompts, "--output=" + found],
                 check=True)
  texts = [json.loads(line)["text"] for line in lines_of(found)]
  assert texts == lines_of(out, "predictions.txt")
  assert any(" " in text for text in texts)  # "w7 w8", and not "w7w8".


@pytest.mark.slow
def test_samples_depend_on_the_seed_and_on_nothing_else(files, trained, tmp_path):
  texts = []
  for seed, batch_size in ((1, 4), (1, 1), (2, 4)):
    files.run("t5", tmp_path, do_predict=True, do_sample=True, seed=seed,
              predict_batch_size=batch_size, max_new_tokens=9,
              task_checkpoint=os.path.join(trained, "task"))
    texts.append(lines_of(tmp_path, "predictions.txt"))
  assert texts[0] == texts[1] and texts[0] != texts[2]
  assert len(set(texts[0])) == 5  # Each source draws for itself.


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(ENDS))
def test_bfloat16_trains_close_to_float32(files, tmp_path, family):
  losses = [files.run(family + "_sure", tmp_path / precision, do_train=True,
                      do_eval=True, precision=precision)["dev"]["eval_loss"]
            for precision in ("float32", "bfloat16")]
  assert losses[0] == pytest.approx(losses[1], rel=3e-2)
  assert {str(value.dtype) for value in values_of_run(
      tmp_path / "bfloat16").values()} == {"float32", "int64"}


def test_save_best_keeps_the_least_error_and_stops_early(files, tmp_path):
  results = files.run("gpt2", tmp_path, do_train=True, do_eval=True,
                      num_train_epochs=4, save_checkpoints_steps=3,
                      save_best=True, early_stopping=1)["dev"]
  scores = scores_of(tmp_path)
  values = [score for _, score in scores]
  best = values.index(min(values))
  assert scores[-1][0] == 12 or len(values) == best + 2
  assert results["global_step"] == scores[best][0]
  assert results["eval_character_error_rate"] == values[best]
  assert run_record.read(str(tmp_path / "best"))["dev"][
      "eval_character_error_rate"] == values[best]


def test_plain_text_is_trained_and_its_loss_decides(files, tmp_path):
  results = files.run("gpt2", tmp_path, "plain", do_train=True, do_eval=True,
                      save_best=True, save_checkpoints_steps=1)["dev"]
  scores = dict(scores_of(tmp_path))
  assert results["eval_loss"] == min(scores.values())
  assert scores[results["global_step"]] == results["eval_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(ENDS))
def test_two_devices_train_as_one(files, tmp_path, family):
  """Without dropout; the rows of a batch have targets of several lengths."""
  one, two = [files.run(family + "_sure", tmp_path / name, do_train=True,
                        do_eval=True, **changes)["dev"]
              for name, changes in (
                  ("one", {}), ("two", dict(distribution="mirrored",
                                            devices="cpu:0,cpu:1")))]
  assert two == pytest.approx(one, rel=1e-4)
  expected = values_of_run(tmp_path / "one")
  for name, value in values_of_run(tmp_path / "two").items():
    np.testing.assert_allclose(value, expected[name], atol=2e-4, err_msg=name)


# ------------------------------------------------- what is learned from nothing


def write_random_gpt2(directory, characters, width=64, layers=2):
  """A small GPT-2 that knows nothing, and a tokenizer of characters."""
  rng = np.random.RandomState(8)
  end = len(characters)
  config = {"model_type": "gpt2", "vocab_size": end + 1, "n_positions": 128,
            "n_embd": width, "n_layer": layers, "n_head": 4, "attn_pdrop": 0.0,
            "embd_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": end,
            "eos_token_id": end}
  shapes = {"wte.weight": [end + 1, width], "wpe.weight": [128, width],
            "ln_f.weight": [width], "ln_f.bias": [width]}
  for layer in range(layers):
    for name, shape in (("ln_1", [width]), ("ln_2", [width]),
                        ("attn.c_attn", [width, 3 * width]),
                        ("attn.c_proj", [width, width]),
                        ("mlp.c_fc", [width, 4 * width]),
                        ("mlp.c_proj", [4 * width, width])):
      shapes["h.%d.%s.weight" % (layer, name)] = shape
      shapes["h.%d.%s.bias" % (layer, name)] = shape[-1:]
  tensors = {
      name: (np.ones(shape) if ".ln_" in "." + name and name.endswith("weight")
             else np.zeros(shape) if name.endswith("bias")
             else rng.normal(scale=0.02, size=shape)).astype(np.float32)
      for name, shape in shapes.items()}
  safetensors_numpy.save_file(tensors, os.path.join(
      directory, "model.safetensors"))
  with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as out:
    json.dump(config, out)
  vocab = {char: i for i, char in enumerate(characters)}
  tokenizer = dict(tokenizer_of("gpt2"), added_tokens=[], post_processor=None,
                   model={"type": "WordLevel", "vocab": vocab,
                          "unk_token": characters[0]})
  with open(os.path.join(directory, "tokenizer.json"), "w",
            encoding="utf-8") as out:
    json.dump(tokenizer, out)


@pytest.mark.slow
def test_a_gpt2_learns_sentences_by_heart_from_nothing(files, tmp_path):
  """Trained on whole sentences, it goes on with each from its first words."""
  sentences = [line.split("\t")[0] for line in lines_of(
      test_util.ROOT, "examples", "sentiment", "train.tsv")[1:9]]
  assert len({sentence[:12] for sentence in sentences}) == 8
  model = str(tmp_path / "model")
  os.makedirs(model)
  write_random_gpt2(model, sorted(set("".join(sentences))))
  for name in ("train.txt", "dev.txt"):
    files.write(str(tmp_path / "data" / name), sentences)
  results = files.run(
      "gpt2", tmp_path / "out", "plain", model_dir=model, tune="full",
      data_dir=str(tmp_path / "data"), do_train=True, do_eval=True,
      max_target_length=128, train_batch_size=8, num_train_epochs=300.0,
      learning_rate=3e-3)["dev"]
  assert results["perplexity"] < 1.2
  directory = model_dir.open_model_dir(model)
  config = sequence_weights.read_config(directory)
  base = sequence_weights.open_weights(directory, config)
  tasks = generator.read_tasks([str(tmp_path / "out" / "task")], config, base,
                               "float32")
  tokenizer = text_tokenizers.open_tokenizer(model)
  with generator.Generator(tasks, base, defaults.options(
      {"max_new_tokens": 100}, directory, config)) as model_of_task:
    found = model_of_task.run(0, [tokenizer.encode(sentence[:12])
                                  for sentence in sentences])
  texts = [tokenizer.decode(results[0].ids[:-1]) for results in found]
  assert [start[:12] + text for start, text in zip(sentences, texts)] == (
      sentences)
  assert all(results[0].ids[-1] == config.eos_token_id for results in found)


# ------------------------------------------------------------------ resuming


def command_of(files, output_dir, model, **changes):
  return [sys.executable, "-m", "adapter_bert.run_seq2seq"] + [
      "--%s=%s" % item for item in files.settings(
          model, output_dir, **changes).items()]


def start(files, output_dir, model):
  return subprocess.Popen(
      command_of(files, output_dir, model, do_train=True, do_eval=True,
                 num_train_epochs=60.0, save_checkpoints_steps=7,
                 bucket_window=2, tune="adapters+prefixes", prefix_length=3),
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(ENDS))
def test_killed_and_started_again_ends_as_if_undisturbed(files, tmp_path, model):
  whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
  process = start(files, killed, model)
  until = time.monotonic() + 600
  while not weights_lib.newest_readable(killed):
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < until
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  step = weights_lib.step_of(weights_lib.newest_readable(killed))
  assert 0 < step < 180
  for output_dir in (whole, killed):
    finished = start(files, output_dir, model)
    _, log = finished.communicate()
    assert finished.returncode == 0, log[-2000:]
  expected, found = values_of_run(whole), values_of_run(killed)
  assert sorted(expected) == sorted(found) and expected["global_step"] == 180
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
  assert lines_of(whole, "eval_results.txt") == lines_of(
      killed, "eval_results.txt")


# ---------------------------------------------------------- several processes


def start_two(files, output_dir, model, others=(), **changes):
  """Two processes of one run, as a cluster's scheduler starts them.

  Args:
    others: dict, the settings that the second one has in place of these.
  """
  cluster = {"worker": ["localhost:%d" % port
                        for port in local_processes.free_ports(2)]}
  return [subprocess.Popen(
      command_of(files, output_dir, model, **dict(
          changes, distribution="multi_worker", heartbeat_timeout=10.0,
          **(dict(others) if index else {}))),
      env=dict(os.environ, TF_CONFIG=json.dumps(
          {"cluster": cluster, "task": {"type": "worker", "index": index}})),
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
          for index in range(2)]


def line_of(process, status):
  """The line of the error that a process ended with, "" if it has none."""
  try:
    _, log = process.communicate(timeout=600)
  finally:
    process.kill()
  assert process.returncode == status and "Traceback" not in log, log[-3000:]
  return "".join(line for line in log.splitlines() if line.startswith("error:"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bart_sure", "gpt2_sure"])
def test_two_processes_are_as_one(files, tmp_path, model):
  """Without dropout; batches of 5 are not divided by two."""
  one, two = str(tmp_path / "one"), str(tmp_path / "two")
  changes = dict(do_train=True, do_eval=True, do_predict=True, num_beams=2,
                 num_train_epochs=6.0, train_batch_size=5, eval_batch_size=3,
                 save_best=True, save_checkpoints_steps=4)
  files.run(model, one, **changes)
  subprocess.run(
      [sys.executable, "-m", "adapter_bert.distributed.launch_local",
       "--program=adapter_bert.run_seq2seq", "--"] +
      command_of(files, two, model, **changes)[3:], check=True)
  expected, found = values_of_run(one), values_of_run(two)
  assert sorted(found) == sorted(expected) and found["global_step"] == 14
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4,
                               err_msg=name)
  np.testing.assert_allclose(scores_of(two), scores_of(one), atol=1e-4)
  results = [dict(line.split(" = ") for line in lines_of(out, "eval_results.txt"))
             for out in (one, two)]
  assert {key: float(value) for key, value in results[1].items()} == (
      pytest.approx({k: float(v) for k, v in results[0].items()}, abs=1e-4))
  assert lines_of(two, "predictions.txt") == lines_of(one, "predictions.txt")
  # The chief alone has written, and nothing is left of what was exchanged.
  assert sorted(os.listdir(os.path.join(two, "cluster"))) == [
      "worker-0.json", "worker-1.json"]


# A checkpoint comes early, and the end late.
TWO = dict(do_train=True, num_train_epochs=60.0, save_checkpoints_steps=7,
           bucket_window=2, tune="adapters+prefixes", prefix_length=3)


@pytest.fixture(scope="module", name="undisturbed")
def fixture_undisturbed(files):
  """What two processes end with, dropout on."""
  for process in start_two(files, files.path("out/undisturbed"), "t5", **TWO):
    line_of(process, 0)
  return values_of_run(files.path("out/undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_of_two_is_killed_and_the_run_goes_on(files, undisturbed, tmp_path,
                                                  victim):
  killed = str(tmp_path / "killed")
  both = start_two(files, killed, "t5", **TWO)
  until = time.monotonic() + 600
  while not weights_lib.newest_readable(killed):
    assert both[0].poll() is None and time.monotonic() < until
    time.sleep(0.02)
  both[victim].send_signal(signal.SIGKILL)
  line = line_of(both[1 - victim], 1)
  assert "worker %d (process %d" % (victim, both[victim].pid) in line
  assert "is lost" in line and "go on from the last checkpoint" in line
  assert 0 < weights_lib.step_of(weights_lib.newest_readable(killed)) < 180
  for process in start_two(files, killed, "t5", **TWO):
    line_of(process, 0)
  found = values_of_run(killed)
  assert sorted(found) == sorted(undisturbed) and found["global_step"] == 180
  for name in undisturbed:
    np.testing.assert_array_equal(found[name], undisturbed[name], err_msg=name)


@pytest.mark.slow
def test_two_processes_with_other_weights_are_refused(files, trained, tmp_path):
  """One of them has a task checkpoint of the same run, but of another step."""
  tasks = [os.path.join(trained, "task"), str(tmp_path / "task")]
  shutil.copytree(*tasks)
  prefix = weights_lib.find(tasks[1])
  weights_lib.write(prefix, {
      name: value + 1 for name, value in values_in(prefix).items()})
  for process in start_two(files, tmp_path / "out", "t5", do_eval=True,
                           task_checkpoint=tasks[0],
                           others={"task_checkpoint": tasks[1]}):
    assert "the weights to evaluate (their digest)" in line_of(process, 1)


# ----------------------------------------------------- what does not go together


def test_another_method_in_the_same_output_dir_is_refused(files, trained):
  line = refused(files, "t5", trained, tune="layer_norm")
  assert "tune is adapters, and here it is layer_norm" in line
  line = refused(files, "bart", trained)
  assert "holds another run" in line
  line = refused(files, "t5", trained,
                 target_tokenizer=files.path("numbers.json"))
  assert "tokenizers" in line


# ----------------------------------------------------------------- bad input


def refused(files, model, output_dir, task="words", **changes):
  """The line that a run is refused with."""
  with pytest.raises(errors.InputError) as caught:
    files.run(model, output_dir, task, **dict(dict(do_train=True), **changes))
  line = str(caught.value)
  assert "\n" not in line
  return line


@pytest.mark.parametrize("model, changes, words", [
    ("bart", dict(do_train=False), ["do_train", "do_eval", "do_predict"]),
    ("bart", dict(tune="head"), ["tune=head trains nothing", "adapters"]),
    ("gpt2", dict(tune="head"), ["tune=head trains nothing", "gpt2"]),
    ("t5", dict(tune="top_n"), ["top_n", "adapters"]),
    ("t5", dict(tune="adaptors"), ["adaptors", "layer_norm"]),
    ("bart", dict(max_source_length=33),
     ["max_source_length is 33", "32 positions", "max_position_embeddings"]),
    ("bart", dict(max_target_length=33), ["max_target_length is 33"]),
    ("gpt2", dict(tune="prefix", prefix_length=15),
     ["max_source_length 9", "max_target_length 9", "prefix_length 15",
      "32 positions (n_positions)"]),
    ("gpt2", dict(max_source_length=24), ["max_source_length 24", "n_positions"]),
    ("gpt2", dict(do_train=False, do_eval=True, max_new_tokens=30),
     ["max_new_tokens is 30", "behind 9 positions", "n_positions"]),
    ("bart", dict(do_train=False, do_eval=True, max_new_tokens=40),
     ["max_new_tokens is 40", "the model has 32 (max_position_embeddings"]),
    ("bart", dict(tune="prefix", prefix_length=24, prefix_positions="after"),
     ["max_target_length is 9 behind a prefix of 24", "give at most 8"]),
    ("bart", dict(adapter_layers="1"), ["adapter_layers", "for GPT-2"]),
    ("gpt2", dict(cross_adapters=True), ["cross_adapters", "GPT-2"]),
    ("bart", dict(separator="a"), ["separator", "encoder"]),
    ("gpt2", dict(separator="ab"), ["separator is 'ab'", "not a token"]),
    ("bart", dict(tune="prefix", prefix_in="encoder,both"), ["both", "cross"]),
    ("gpt2", dict(tune="prefix", prefix_length=2, prefix_init="words"),
     ["prefix_init=words is for a BERT", "random or zero"]),
    ("gpt2", dict(prefix_init="zero"), ["prefix_init is zero", "no prefixes"]),
    ("t5", dict(tune="layer_norm", adapter_act="relu"),
     ["adapter_act is relu", "layer_norm, which has no adapters"]),
    ("t5", dict(tune="full", adapter_size=8), ["adapter_size is 8"]),
    ("bart", dict(tune="prefix", adapter_init_scale=0.1),
     ["adapter_init_scale is 0.1", "no adapters"]),
    ("bart", dict(tune="prefix", cross_adapters=True), ["cross_adapters"]),
    ("bart", dict(tune="full", adapter_fn="my:own"), ["adapter_fn", "full"]),
    ("gpt2", dict(adapter_fn="my:own", adapter_act="relu"),
     ["adapter_act is relu", "says nothing of adapter_fn=my:own"]),
    ("gpt2", dict(adapter_layers="1-2"), ["adapter_layers is 1-2", "0 to 1"]),
    ("bart", dict(prefix_length=5), ["prefix_length is 5", "no prefixes"]),
    ("bart", dict(prefix_in="self"), ["prefix_in is self", "no prefixes"]),
    ("bart", dict(prefix_dropout=0.1), ["prefix_dropout is 0.1"]),
    ("gpt2", dict(tune="prefix", prefix_in="self"), ["prefix_in", "GPT-2"]),
    ("t5", dict(tune="prefix", prefix_positions="after"),
     ["prefix_positions is after", "distances"]),
    ("bart", dict(tune="prefix", prefix_in="cross", prefix_positions="after"),
     ["prefix_positions is after", "prefix_in is cross"]),
    ("bart", dict(task_name="XSum"),
     ["task_name is XSum and task_spec describes own"]),
    ("gpt2", dict(task_spec=None), ["task_name", "xsum"]),
    ("gpt2", dict(task_spec=None, task_name="XSumm"), ["XSumm", "xsum"]),
    ("gpt2", dict(data_dir="/nowhere"), ["/nowhere/train.tsv"]),
    ("nowhere", {}, ["nowhere", "is not there"]),
    ("gpt2", dict(early_stopping=3), ["early_stopping", "save_best"]),
    ("gpt2", dict(num_train_epochs=0.0), ["num_train_epochs is 0"]),
    ("gpt2", dict(train_batch_size=13), ["12 examples", "no full step"]),
    ("gpt2", dict(num_beams=98), ["num_beams", "97"]),
    ("gpt2", dict(do_sample=True, top_k=-1), ["top_k"]),
    ("bart", dict(source_tokenizer="/nowhere.json"), ["/nowhere.json"]),
])
def test_what_is_refused(files, tmp_path, model, changes, words):
  line = refused(files, model, tmp_path, **changes)
  for word in words:
    assert word in line, line
  assert not os.path.exists(str(tmp_path / "run.json"))


class Asked(object):
  """A Config that remembers what it was asked for."""

  def __init__(self, config):
    self.config, self.names = config, set()

  def __getattr__(self, name):
    self.names.add(name)
    return getattr(self.config, name)


def test_a_run_asks_for_every_setting_that_it_has(files, trained, tmp_path,
                                                  monkeypatch):
  """Beside what takes all of them: the record, and what processes agree in."""
  monkeypatch.setattr(settings, "recorded", lambda *unused: [])
  monkeypatch.setattr(settings, "agreed", lambda *unused: {})
  monkeypatch.setattr(run_seq2seq, "work", lambda *unused: {})
  asked = set()
  for model, changes in (
      ("gpt2", dict(tune="adapters+prefixes", prefix_length=3, do_train=True)),
      ("t5", dict(task_checkpoint=os.path.join(trained, "task"), do_eval=True))):
    config = Asked(run_seq2seq.Config(**files.settings(
        model, tmp_path, **changes)))
    run_seq2seq.run(config)
    asked |= config.names
  assert asked == {s.name for s in settings.of_program("run_seq2seq")}


def test_plain_text_is_refused_where_it_makes_no_sense(files, tmp_path):
  for changes in (dict(separator="a"), dict(num_beams=2)):
    assert "nothing is generated" in refused(files, "gpt2", tmp_path, "plain",
                                             **changes)
  assert "plain text, and a bart needs sources" in refused(
      files, "bart", tmp_path, "plain")
  spec = files.spec("more.json", {"columns": {"target": "text"},
                                  "test": "dev.txt"})
  assert "without sources to predict from" in refused(
      files, "gpt2", tmp_path, "plain", task_spec=spec, do_train=False,
      do_predict=True)


@pytest.mark.parametrize("lines, words", [
    (["source\ttarget", "ab\t"], [":2", "the target is empty"]),
    (["source\ttarget", " \tAB"], [":2", "the source is empty"]),
    (["source", "ab"], ["no column is called target"]),
    (["source\ttarget", "ab"], [":2", "found 1 tab-separated"]),
    (["source\ttarget"], ["has no examples"]),
])
def test_bad_files(files, tmp_path, lines, words):
  files.write(str(tmp_path / "data" / "train.tsv"), lines)
  line = refused(files, "gpt2", tmp_path / "out",
                 data_dir=str(tmp_path / "data"))
  assert "train.tsv" in line
  for word in words:
    assert word in line, line


def test_references_that_differ_in_number_from_their_sources(files, tmp_path):
  files.write(str(tmp_path / "train.source"), ["ab", "cd"])
  files.write(str(tmp_path / "train.target"), ["BA"])
  spec = files.spec(str(tmp_path / "task.json"), {"train": "train.source"})
  line = refused(files, "bart", tmp_path / "out", task_spec=spec,
                 data_dir=str(tmp_path))
  assert re.search("train.target ends behind line 1 and .*train.source goes on",
                   line)


def test_a_tokenizer_whose_ids_the_model_lacks(files, tmp_path):
  path = files.json("large.json", tokenizer_of("bart", size=98))
  for name in ("source_tokenizer", "target_tokenizer"):
    line = refused(files, "bart", tmp_path, **{name: path})
    assert path in line and "98" in line and "97" in line, line


def test_a_bert_is_refused(files, tmp_path):
  bert = test_util.sequence_golden("bert", shipped=True).checkpoint
  line = refused(files, "bart", tmp_path, model_dir=bert)
  assert "bert" in line and "run_classifier.py" in line


def test_the_command_line(files, tmp_path):
  """One line and no traceback; a flag that is not there is said, too."""
  done = subprocess.run(
      command_of(files, tmp_path, "bart", do_train=True, max_target_length=99),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
  assert done.returncode == 1 and "Traceback" not in done.stderr
  assert done.stderr.splitlines()[-1].startswith(
      "error: max_target_length is 99 and the model has 32 positions")
  assert not tf.io.gfile.glob(str(tmp_path / "*"))
