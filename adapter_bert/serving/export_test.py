"""The exported model, loaded by TensorFlow alone, says what predict_tasks says."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util as tiny
from adapter_bert.base import errors
from adapter_bert.ops import fused
from adapter_bert.serving import export
from adapter_bert.serving import test_util
from adapter_bert.training import graphs
import tokenization

graphs.enable_graph_mode()

# Name -> fields of the model, and the tasks that are in one stack.
TASKS = {
    "MRPC": dict(adapter_size=3),
    "STS-B": dict(adapter_size=5, adapter_layers=[1]),
    "MNLI": dict(tune="top_n", top_n_layers=1),
    "CoLA": dict(tune="head"),
    "RTE": dict(tune="prefix", prefix_length=2),
}
STACKED = ["MRPC", "STS-B", "CoLA"]
LINES = ["the cat sat\ta dog ran .", "the cat .", "a dog\tthe dog , the cat sat",
         "the dog , the cat ran"]

# A program that knows TensorFlow only: inputs from one file, outputs to another.
CLIENT = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
assert not {"modeling", "adapter_bert", "tokenization"} & set(sys.modules)
asked = np.load(sys.argv[2], allow_pickle=False)
answers = {}
for name, signature in model.signatures.items():
  keys = [key.split("/")[1] for key in asked if key.startswith(name + "/")]
  if not keys:
    continue
  found = signature(**{key: tf.constant(asked[name + "/" + key])
                       for key in keys})
  answers.update({name + "/" + key: value.numpy().astype(
      "U" if value.dtype == tf.string else value.dtype.as_numpy_dtype)
                  for key, value in found.items()})
np.savez(sys.argv[3], **answers)
"""


def ask(tmp_path, model, asked):
  """What a fresh process says: a dict of "signature/output" -> array."""
  np.savez(str(tmp_path / "asked.npz"), **asked)
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
      [sys.executable, "-c", CLIENT, model, str(tmp_path / "asked.npz"),
       str(tmp_path / "answers.npz")], cwd=str(tmp_path), env=environment,
      check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  assert done.returncode == 0, done.stdout
  with np.load(str(tmp_path / "answers.npz")) as answers:
    return dict(answers)


class Files(object):
  """A tiny base with a checkpoint of each of TASKS, exported."""

  def __init__(self, root):
    self.root = str(root)
    self.config = tiny.tiny_config(vocab_size=len(test_util.WORDS),
                                   max_position_embeddings=24)
    self.base = test_util.write_base(self.root + "/bert", self.config)
    self.paths = [
        test_util.write_task("%s/%s" % (self.root, name), self.config,
                             self.base, name, seed, **fields)
        for seed, (name, fields) in enumerate(TASKS.items(), 1)]
    self.common = dict(task_checkpoints=self.paths, init_checkpoint=self.base,
                       vocab_file=self.root + "/bert/vocab.txt")
    self.directory = self.export()

  def export(self, **changes):
    return export.run(export.Options(**dict(dict(
        self.common, output_dir=self.root + "/served"), **changes)))

  def predicted(self, **changes):
    """{task: [n, labels]} of the lines, {task: the lines}, by predict_tasks."""
    source, output = self.root + "/in.tsv", self.root + "/out.jsonl"
    with open(source, "w", encoding="utf-8") as out:
      out.write("\n".join(LINES) + "\n")
    settings = dict(dict(self.common, input=source, output=output,
                         max_seq_length=20), **changes)
    settings["task_checkpoints"] = ",".join(settings["task_checkpoints"])
    subprocess.run([sys.executable, "-m", "adapter_bert.serving.predict_tasks"]
                   + ["--%s=%s" % item for item in settings.items()],
                   check=True)
    values, lines = {}, {}
    with open(output, encoding="utf-8") as rows:
      for line, row in zip(LINES, map(json.loads, rows)):
        for name, found in row["tasks"].items():
          values.setdefault(name, []).append(
              [found["score"]] if "score" in found else
              list(found["probabilities"].values()))
          lines.setdefault(name, []).append(line)
    return {name: np.array(rows) for name, rows in values.items()}, lines

  def batch(self, lines, length):
    """The three inputs for some lines, padded to a length."""
    vocab = tokenization.FullTokenizer(self.root + "/bert/vocab.txt")
    batch = {key: np.zeros([len(lines), length], np.int32)
             for key in ("input_ids", "input_mask", "segment_ids")}
    for row, line in enumerate(lines):
      ids = [2]
      for segment, text in enumerate(line.split("\t")):
        more = vocab.encode(text) + [3]
        batch["segment_ids"][row, len(ids):len(ids) + len(more)] = segment
        ids += more
      batch["input_ids"][row, :len(ids)] = ids
      batch["input_mask"][row, :len(ids)] = 1
    return batch


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  return Files(tmp_path_factory.mktemp("export"))


def asked_of(signature, batch):
  return {"%s/%s" % (signature, key): value for key, value in batch.items()}


def test_plain_tensorflow_says_what_predict_tasks_says(files, tmp_path):
  expected, lines = files.predicted()
  asked = {}
  for length, name in enumerate(TASKS, 13):
    batch = files.batch(lines[name], length)
    asked.update(asked_of(name.lower(), batch))
    asked["%s_ids/input_ids" % name.lower()] = files.batch(
        lines[name], 20)["input_ids"]
  asked.update(asked_of("serving_default", files.batch(lines["MRPC"], 19)))
  mixed = [(name, i) for i in range(2) for name in STACKED]
  asked.update(asked_of("tasks", files.batch(
      [lines[name][i] for name, i in mixed], 17)))
  asked["tasks/task_ids"] = np.array([STACKED.index(name) for name, _ in mixed],
                                     np.int32)
  found = ask(tmp_path, files.directory, asked)

  for name in TASKS:
    for signature in (name.lower(), name.lower() + "_ids"):
      if name == "STS-B":
        assert {key for key in found if key.startswith(signature + "/")} == {
            signature + "/scores"}
        np.testing.assert_allclose(found[signature + "/scores"],
                                   expected[name][:, 0], atol=1e-6)
        continue
      np.testing.assert_allclose(found[signature + "/probabilities"],
                                 expected[name], atol=1e-6)
      best = expected[name].argmax(1)
      np.testing.assert_array_equal(found[signature + "/label_ids"], best)
      labels = {"MNLI": ["contradiction", "entailment", "neutral"],
                "RTE": ["entailment", "not_entailment"]}.get(name, ["0", "1"])
      assert found[signature + "/labels"].tolist() == [labels[i] for i in best]
  np.testing.assert_allclose(found["serving_default/probabilities"],
                             expected["MRPC"], atol=1e-6)
  for row, (name, i) in enumerate(mixed):
    if name == "STS-B":
      assert abs(found["tasks/scores"][row] - expected[name][i, 0]) < 1e-6
      assert found["tasks/labels"][row] == ""
      assert found["tasks/label_ids"][row] == -1
      assert not found["tasks/probabilities"][row].any()
    else:
      np.testing.assert_allclose(found["tasks/probabilities"][row],
                                 expected[name][i], atol=1e-6)
      assert found["tasks/scores"][row] == 0


def test_what_is_in_the_directory(files):
  assert files.directory == files.root + "/served/1"
  variables = dict(tf.train.list_variables(
      files.directory + "/variables/variables"))
  # Frozen ones once, whatever group asks for them, and tables for the stack.
  words = [name for name in variables if name.endswith("word_embeddings")]
  assert words == ["bert/embeddings/word_embeddings"]
  assert variables["group_0/output_weights"] == [3, 2, 16]
  with open(files.directory + "/assets/tasks.json", encoding="utf-8") as source:
    facts = json.load(source)
  assert [(task["name"], task["task_id"]) for task in facts["tasks"]] == [
      ("MRPC", 0), ("STS-B", 1), ("MNLI", None), ("CoLA", 2), ("RTE", None)]
  assert facts["tasks"][1]["labels"] is None
  with open(files.directory + "/assets/vocab.txt", encoding="utf-8") as source:
    assert source.read().split() == test_util.WORDS
  with open(files.directory + "/saved_model.pb", "rb") as source:
    content = source.read()
  assert b"PyFunc" not in content and files.root.encode() not in content
  assert not [name for name in os.listdir(files.root + "/served")
              if not name.isdigit()]


def test_the_next_version_and_one_that_is_there(files):
  output_dir = files.root + "/versions"
  one = dict(output_dir=output_dir, task_checkpoints=files.paths[3:4])
  assert files.export(model_version=7, **one) == output_dir + "/7"
  assert files.export(**one) == output_dir + "/8"
  with pytest.raises(errors.InputError, match="7 is there already"):
    files.export(model_version=7, **one)


@pytest.mark.parametrize("changes,words", [
    (dict(merge=["1", "inf"]), "must be finite"),
    (dict(merge=["1", "x"]), "could not convert"),
    (dict(merge=["1"], drop_adapters="0"), "neither"),
    (dict(merge=["1"]), "merge has 1 weights"),
    (dict(drop_adapters="3"), "layer 3"),
    (dict(vocab_file="/nowhere.txt"), "/nowhere.txt"),
])
def test_what_is_refused(files, tmp_path, changes, words):
  with pytest.raises(errors.InputError, match=words):
    files.export(output_dir=str(tmp_path / "out"), **changes)
  assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("large", [fused.LARGE_KERNEL, 1])
def test_bfloat16_is_smaller(files, tmp_path, monkeypatch, large):
  """Also with all kernels stored as their transposes."""
  monkeypatch.setattr(fused, "LARGE_KERNEL", large)
  size = lambda directory: os.path.getsize(
      directory + "/variables/variables.data-00000-of-00001")
  few = dict(task_checkpoints=[files.paths[0], files.paths[3]])
  directories = [files.export(precision=precision, output_dir=str(
      tmp_path / precision), **few) for precision in ("float32", "bfloat16")]
  assert size(directories[1]) < 0.65 * size(directories[0])
  expected, lines = files.predicted(precision="bfloat16", **few)
  found = ask(tmp_path, directories[1],
              asked_of("mrpc", files.batch(lines["MRPC"], 14)))
  np.testing.assert_allclose(found["mrpc/probabilities"], expected["MRPC"],
                             atol=5e-3)


@pytest.mark.slow
def test_saved_model_cli(files, tmp_path):
  cli = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
  shown = subprocess.run(cli + ["show", "--dir", files.directory, "--all"],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
  for words in ("signature_def['mrpc']", "signature_def['sts-b_ids']",
                "signature_def['tasks']", "inputs['task_ids']",
                "outputs['labels']", "shape: (-1, -1)"):
    assert words in shown
  ids = str(tmp_path / "ids.npy")
  np.save(ids, np.array([[2, 4, 3, 5, 3]], np.int32))
  subprocess.run(
      cli + ["run", "--dir", files.directory, "--tag_set", "serve",
             "--signature_def", "mrpc_ids", "--inputs", "input_ids=" + ids,
             "--outdir", str(tmp_path)], check=True)
  expected, _ = files.predicted()
  assert np.load(str(tmp_path / "probabilities.npy")).shape == (
      1, expected["MRPC"].shape[1])
