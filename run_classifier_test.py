"""The main program from end to end: real files, the real `run` and `main`."""

import dataclasses
import functools
import glob
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from absl import flags
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.base import errors
from adapter_bert.base import files as files_lib
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
import modeling
import run_classifier
from adapter_bert import settings
from adapter_bert.experiments import jobs
from adapter_bert import test_util
from adapter_bert.training import evaluation
from adapter_bert.training import graphs
from adapter_bert.training import inputs as inputs_lib

graphs.enable_graph_mode()

WORDS = ("[PAD] [UNK] [CLS] [SEP] the a cat dog sat ran good bad fine poor is "
         "not very on mat . , and it was he she they we").split()
SENTENCES = ["the cat sat on the mat .", "a dog ran , and it was good",
             "he is not very fine", "she was bad .", "they ran",
             "we sat on a poor mat , and the dog was not good"]
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                       "run_classifier.py")


class Files(object):
  """A tiny BERT with random weights, and data in the layouts of GLUE."""

  def __init__(self, root):
    self.root = root
    os.makedirs(self.path("bert"))
    self.config = test_util.tiny_config(
        vocab_size=len(WORDS), num_hidden_layers=2, max_position_embeddings=32,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    self.write("bert/vocab.txt", WORDS)
    self.write("bert/bert_config.json", [self.config.to_json_string()])
    write_base(self.path("bert/bert_model.ckpt"), self.config)
    for name in ("train", "dev"):
      self.table("MRPC/%s.tsv" % name, "label a b sentence1 sentence2", [
          [str(i % 2), "1", "2", SENTENCES[i % 6], SENTENCES[(i + i // 6) % 6]]
          for i in range(20)])
      self.table("STS-B/%s.tsv" % name, "0 1 2 3 4 5 6 sentence1 sentence2 score", [
          ["x"] * 7 + [SENTENCES[i % 6], SENTENCES[i % 5], str(i % 6)]
          for i in range(20)])
      self.write("CoLA/%s.tsv" % name, [
          "\t".join(["x", str(i % 2), "", SENTENCES[i % 6]])
          for i in range(20)])
    self.table("MRPC/test.tsv", "i a b sentence1 sentence2", [
        [str(i), "1", "2", SENTENCES[i % 6], SENTENCES[i % 4]]
        for i in range(7)])
    self.table("STS-B/test.tsv", "0 1 2 3 4 5 6 sentence1 sentence2", [
        ["x"] * 7 + [SENTENCES[i % 6], SENTENCES[i % 4]] for i in range(7)])
    self.table("CoLA/test.tsv", "index sentence", [
        [str(i), SENTENCES[i % 6]] for i in range(7)])
    rows = [["x"] * 8 + [SENTENCES[i % 6], SENTENCES[i % 4],
                         tasks.get_task("mnli").labels[i % 3]]
            for i in range(12)]
    header = "0 1 2 3 4 5 6 7 sentence1 sentence2 gold_label"
    self.table("MNLI/train.tsv", header, rows)
    self.table("MNLI/dev_matched.tsv", header, rows[:5])
    self.table("MNLI/dev_mismatched.tsv", header, rows[5:])
    for name in ("matched", "mismatched"):
      self.table("MNLI/test_%s.tsv" % name, header[:-len(" gold_label")],
                 [row[:-1] for row in rows[:4]])
    self.table("AX/diagnostic.tsv", "index sentence1 sentence2", [
        [str(i), SENTENCES[i], SENTENCES[0]] for i in range(4)])

  def path(self, name):
    return os.path.join(self.root, name)

  def write(self, name, lines):
    path = self.path(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as output:
      output.write("\n".join(lines) + "\n")
    return path

  def table(self, name, header, rows):
    return self.write(name, ["\t".join(header.split())] +
                      ["\t".join(row) for row in rows])

  def settings(self, task, output_dir, **changes):
    """A dict of RunConfig's fields."""
    return dict(dict(
        task_name=task, data_dir=self.path(task or "."),
        output_dir=str(output_dir),
        vocab_file=self.path("bert/vocab.txt"),
        bert_config_file=self.path("bert/bert_config.json"),
        init_checkpoint=self.path("bert/bert_model.ckpt"),
        max_seq_length=24, train_batch_size=4, num_train_epochs=1.0,
        learning_rate=1e-2, adapter_size=3, compile_chains=False), **changes)

  def run(self, task, output_dir, **changes):
    return run_classifier.run(settings.RunConfig(
        **self.settings(task, output_dir, **changes)))


def write_base(prefix, config):
  """Writes random weights of a plain BERT."""
  rng = np.random.RandomState(11)
  with tf.Graph().as_default():
    modeling.BertModel(config, False, tf.zeros([1, 2], tf.int32),
                       adapter_fn=None)
    weights_lib.write(prefix, {
        v.op.name: (rng.normal(size=v.shape.as_list()) * 0.3 +
                    v.op.name.endswith("gamma")).astype(np.float32)
        for v in tf.trainable_variables()})


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  return Files(str(tmp_path_factory.mktemp("files")))


@pytest.fixture(scope="module", name="mrpc")
def fixture_mrpc(files):
  """The output_dir of one MRPC run, trained, evaluated and predicted."""
  output_dir = files.path("out/mrpc")
  files.run("MRPC", output_dir, do_train=True, do_eval=True, do_predict=True)
  return output_dir


def lines_of(*parts):
  with open(os.path.join(*parts), encoding="utf-8") as source:
    return source.read().splitlines()


def values_in(prefix):
  weights = weights_lib.Weights([prefix])
  return {name: weights.value(name) for name in weights.shapes}


def events_of(directory, tag):
  """step -> value of a scalar in a directory's event files."""
  return {event.step: value.simple_value
          for name in sorted(os.listdir(directory)) if "tfevents" in name
          for event in tf.train.summary_iterator(os.path.join(directory, name))
          for value in event.summary.value if value.tag == tag}


# ------------------------------------------------------- what a run leaves


def test_eval_results_are_sorted_key_value_lines(mrpc):
  lines = lines_of(mrpc, "eval_results.txt")
  assert [line.split(" = ")[0] for line in lines] == [
      "eval_accuracy", "eval_f1", "eval_loss", "global_step", "loss"]
  results = dict(line.split(" = ") for line in lines)
  assert results["global_step"] == "5"  # 20 examples, batches of 4, 1 epoch
  assert results["loss"] == results["eval_loss"]


def test_predictions_are_rows_in_order_and_a_submission(files, mrpc):
  rows = np.loadtxt(os.path.join(mrpc, "test_results.tsv"))
  assert rows.shape == (7, 2)
  np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
  submission = lines_of(mrpc, "MRPC.tsv")
  assert submission[0] == "index\tprediction"
  assert submission[1:] == ["%d\t%d" % (i, p)
                            for i, p in enumerate(rows.argmax(1))]
  # They are what evaluation.predict computes.
  inputs = inputs_lib.read(settings.RunConfig(
      **files.settings("MRPC", mrpc, do_predict=True)))
  split, = inputs.task.test
  outputs = evaluation.predict(
      inputs.model, tfrecords.prepare(
          inputs.task, split, files.path("MRPC"), inputs.tokenizer, 24, mrpc),
      weights_lib.Weights.open(mrpc)).outputs
  np.testing.assert_allclose(rows, outputs, atol=1e-6)
  assert np.ptp(rows[:, 0]) > 1e-4  # else an order could not be told
  # As the Hugging Face hub has the file, in another order of columns and rows,
  # with another batch: the same rows.
  files.table("turned/test.tsv", "idx sentence2 label sentence1", [
      [str(i), SENTENCES[i % 4], "-1", SENTENCES[i % 6]]
      for i in reversed(range(7))])
  files.run("MRPC", mrpc, do_predict=True, predict_batch_size=2,
            data_dir=files.path("turned"))
  turned = np.loadtxt(os.path.join(mrpc, "test_results.tsv"))
  np.testing.assert_allclose(turned[::-1], rows, atol=1e-6)


def test_checkpoints_hold_what_is_trained_and_nothing_frozen(files, mrpc):
  held = values_in(weights_lib.newest_readable(mrpc))
  trained = [n for n in held if n + "/adam_m" in held]
  assert sorted(held) == sorted(
      trained + [n + s for n in trained for s in ("/adam_m", "/adam_v")] +
      ["global_step"])
  assert all("/adapters/" in n or "LayerNorm" in n or n.startswith("output_")
             for n in trained)
  base = values_in(files.path("bert/bert_model.ckpt"))
  norms = [n for n in trained if "LayerNorm" in n]
  assert norms and all((held[n] != base[n]).any() for n in norms)


def test_task_checkpoint_and_full_export_are_the_same_model(files, mrpc,
                                                            tmp_path):
  expected = lines_of(mrpc, "eval_results.txt")
  held = values_in(weights_lib.find(os.path.join(mrpc, "task")))
  assert not any("adam" in name or "query" in name for name in held)
  files.run("MRPC", tmp_path / "a", do_eval=True,
            task_checkpoint=os.path.join(mrpc, "task"))
  assert lines_of(tmp_path / "a", "eval_results.txt") == expected
  full = str(tmp_path / "full" / "model.ckpt")
  files.run("MRPC", mrpc, export_full_checkpoint=full)
  files.run("MRPC", tmp_path / "b", do_eval=True, init_checkpoint=full)
  assert lines_of(tmp_path / "b", "eval_results.txt") == expected
  base = values_in(files.path("bert/bert_model.ckpt"))
  exported = values_in(full)
  for name in base:
    if "LayerNorm" not in name:  # frozen: not a bit has changed
      np.testing.assert_array_equal(exported[name], base[name])


def test_evaluation_finds_the_base_through_run_json(files, mrpc):
  expected = lines_of(mrpc, "eval_results.txt")
  files.run("MRPC", mrpc, do_eval=True, init_checkpoint=None)
  assert lines_of(mrpc, "eval_results.txt") == expected


@pytest.fixture(name="swept")
def fixture_swept(mrpc, tmp_path):
  """The output_dir of `mrpc`, without what only going on needs."""
  swept = shutil.copytree(mrpc, str(tmp_path / "swept"))
  jobs.clean(swept)
  assert not weights_lib.newest_readable(swept)
  return swept


def test_without_a_training_checkpoint_the_task_checkpoint_counts(
    files, swept, tmp_path):
  names = ["eval_results.txt", "test_results.tsv"]
  files.run("MRPC", tmp_path, do_eval=True, do_predict=True,
            task_checkpoint=os.path.join(swept, "task"))
  expected = [lines_of(tmp_path, name) for name in names]
  for name in names:
    os.remove(os.path.join(swept, name))
  # As after a kill while it was being replaced.
  os.rename(os.path.join(swept, "task"), os.path.join(swept, "task.old"))
  files.run("MRPC", swept, do_eval=True, do_predict=True)
  assert [lines_of(swept, name) for name in names] == expected
  for action in ("do_train", "do_eval"):
    line = refused(files, swept, task="MRPC", adapter_size=4,
                   **{"do_train": False, action: True})
    assert "adapter_size is 3" in line and swept in line
  line = refused(files, swept, task="MRPC")
  assert "finished run" in line and "do_train" in line and swept in line


def test_scores_of_another_run_do_not_count(files, tmp_path):
  """As when a run with save_best was deleted except for a few files."""
  (tmp_path / "dev_scores.json").write_text("[[2, 1.0], [4, 1.0]]")
  files.run("CoLA", tmp_path, do_train=True, num_train_epochs=.8,
            save_checkpoints_steps=2, save_best=True, early_stopping=1)
  scores = json.loads((tmp_path / "dev_scores.json").read_text())
  assert [step for step, _ in scores] == [2, 4]
  assert all(abs(score) < 1 for _, score in scores)
  assert run_record.read(str(tmp_path / "best"))["dev"]


def test_other_files_of_the_same_task(files, mrpc, tmp_path):
  """They may be evaluated, but a run does not go on with them."""
  files.table("MRPC/more.tsv", "label a b sentence1 sentence2", [
      [str(i % 2), "1", "2", SENTENCES[i], SENTENCES[0]] for i in range(6)])
  spec = dict(task_specs.task_to_dict(tasks.get_task("mrpc")), test=[])
  spec["dev"] = [dict(spec["dev"][0], file="more.tsv")]
  path = files.write("more.json", [json.dumps(spec)])
  arguments = dict(task_spec=path, data_dir=files.path("MRPC"))
  files.run(None, tmp_path, do_eval=True,
            task_checkpoint=os.path.join(mrpc, "task"), **arguments)
  assert "eval_f1" in lines_of(tmp_path, "eval_results.txt")[1]
  assert "task.dev" in refused(files, mrpc, None, num_train_epochs=2,
                               **arguments)


def test_a_second_run_trains_nothing(files, mrpc):
  newest = weights_lib.newest_readable(mrpc)
  before = os.stat(newest + ".index").st_mtime_ns
  files.run("MRPC", mrpc, do_train=True)
  assert weights_lib.newest_readable(mrpc) == newest
  assert os.stat(newest + ".index").st_mtime_ns == before


def test_tensorboard_scalars(mrpc):
  assert sorted(events_of(mrpc, "loss")) == [5]
  assert events_of(mrpc, "learning_rate")[5] == pytest.approx(1e-2 * (1 - 4 / 5))
  assert list(events_of(os.path.join(mrpc, "eval"), "eval_f1")) == [5]
  # Graphs of BERT are big.
  assert all(os.path.getsize(path) < 10000 for path in glob.glob(
      os.path.join(mrpc, "**", "events.*"), recursive=True))


# --------------------------------------------------------------- the tasks


def test_single_sentences(files, tmp_path):
  results = files.run("CoLA", tmp_path, do_train=True, do_eval=True)
  assert sorted(results["dev"]) == ["eval_accuracy", "eval_loss",
                                    "eval_matthews", "global_step", "loss"]


def test_regression(files, tmp_path):
  results = files.run("STS-B", tmp_path, do_train=True, do_eval=True,
                      do_predict=True)
  assert {"eval_pearson", "eval_spearman"} <= set(results["dev"])
  scores = np.loadtxt(str(tmp_path / "test_results.tsv"))
  assert scores.shape == (7,)
  clipped = [float(line.split("\t")[1])
             for line in lines_of(tmp_path, "STS-B.tsv")[1:]]
  np.testing.assert_allclose(clipped, np.clip(scores, 0, 5), rtol=1e-5)


@pytest.mark.slow
def test_mnli_has_two_of_each_and_ax_is_predicted_from_it(files, tmp_path):
  results = files.run("MNLI", tmp_path, do_train=True, do_eval=True,
                      do_predict=True)
  assert sorted(results) == ["dev", "dev_mm"]
  files.run("AX", tmp_path, do_predict=True)
  assert {"eval_results.txt", "eval_results_mm.txt", "test_results.tsv",
          "test_results_mm.tsv", "MNLI-m.tsv", "MNLI-mm.tsv",
          "AX.tsv"} <= set(os.listdir(str(tmp_path)))
  assert {line.split("\t")[1] for line in lines_of(tmp_path, "AX.tsv")[1:]} <= (
      set(tasks.get_task("mnli").labels))


def test_task_of_ones_own(files, tmp_path):
  files.table("beer/train.tsv", "text taste", [
      [SENTENCES[i % 6], ("bad", "good")[i % 2]] for i in range(8)])
  spec = files.write("beer.json", [json.dumps({
      "name": "Beer", "labels": ["bad", "good"], "metrics": ["f1"],
      "columns": {"text_a": 0, "label": 1}, "header": True,
      "train": "train.tsv", "dev": "train.tsv"})])
  results = files.run(None, tmp_path, task_spec=spec, do_train=True,
                      do_eval=True, data_dir=files.path("beer"))
  assert "eval_f1" in results["dev"]


# -------------------------------------------------- methods and precisions


@pytest.mark.parametrize("changes,trained", [
    (dict(tune="full"), {"query", "LayerNorm", "output_bias", "embeddings"}),
    (dict(tune="top_n", top_n_layers=1), {"layer_1", "pooler", "output_bias"}),
    (dict(tune="layer_norm"), {"LayerNorm", "output_bias"}),
    (dict(tune="head"), {"output_bias"}),
    (dict(tune="adapters+head", adapter_layers="1"),
     {"layer_1/output/adapters", "output_bias"}),
])
def test_tuning_methods(files, tmp_path, changes, trained):
  files.run("CoLA", tmp_path, do_train=True, do_eval=True, num_train_epochs=.4,
            **changes)
  held = [n for n in values_in(weights_lib.newest_readable(str(tmp_path)))
          if n.endswith("/adam_m")]
  for part in trained:
    assert any(part in name for name in held), part
  outside = {"query": changes["tune"] != "full",
             "layer_0": changes["tune"] in ("top_n", "head", "adapters+head"),
             "adapters": "adapters" not in changes["tune"]}
  for part, absent in outside.items():
    if absent and part not in trained and not (
        part == "query" and changes["tune"] == "top_n"):
      assert not any(part in name for name in held), part


OWN_ADAPTERS = """
import tensorflow.compat.v1 as tf

def _scaled(tensor, name):
  with tf.variable_scope("adapters"):
    return tensor * (1 + tf.get_variable(
        name, [tensor.shape[-1]], tf.float32, tf.zeros_initializer()))

def scaled(tensor):
  return _scaled(tensor, "scale")

def renamed(tensor):
  return _scaled(tensor, "another")
"""


@pytest.fixture(name="own_adapters")
def fixture_own_adapters(tmp_path, monkeypatch):
  """The module own_adapters_here, which can be imported."""
  (tmp_path / "own_adapters_here.py").write_text(OWN_ADAPTERS)
  monkeypatch.syspath_prepend(str(tmp_path))
  yield importlib.import_module("own_adapters_here")
  del sys.modules["own_adapters_here"]


def test_an_adapter_of_ones_own(files, tmp_path, own_adapters, monkeypatch):
  name = "own_adapters_here:scaled"
  run = functools.partial(files.run, "CoLA", tmp_path / "out",
                          adapter_size=64, adapter_fn=name)
  run(do_train=True, do_eval=True)
  held = values_in(weights_lib.find(str(tmp_path / "out" / "task")))
  scales = [n for n in held if n.endswith("/adapters/scale")]
  assert len(scales) == 4 and all(held[n].any() for n in scales)
  record = run_record.read(str(tmp_path / "out"))
  assert (record["adapter_fn"], record["adapter_size"]) == (name, None)
  results = lines_of(tmp_path, "out", "eval_results.txt")
  run(do_eval=True)
  assert lines_of(tmp_path, "out", "eval_results.txt") == results
  # The same name, and by now another function.
  monkeypatch.setattr(own_adapters, "scaled", own_adapters.renamed)
  for changes, words in [
      (dict(do_eval=True), ["has bert/encoder/layer_", "adapters/scale",
                            "lacks bert/encoder/layer_", "adapters/another"]),
      (dict(do_train=True, num_train_epochs=2.0),
       ["lacks bert/encoder/layer_", "adapters/another"]),
      (dict(do_eval=True, adapter_fn=None),
       ["its adapter_", "and here it is"])]:
    with pytest.raises(errors.InputError) as caught:
      run(**changes)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.slow
def test_bfloat16_trains_close_to_float32(files, tmp_path):
  losses = [files.run("CoLA", tmp_path / precision, do_train=True, do_eval=True,
                      precision=precision)["dev"]["eval_loss"]
            for precision in ("float32", "bfloat16")]
  assert losses[0] == pytest.approx(losses[1], abs=2e-2)
  held = values_in(weights_lib.newest_readable(str(tmp_path / "bfloat16")))
  assert {str(value.dtype) for value in held.values()} == {"float32", "int64"}


def test_save_best_keeps_the_best_and_stops_early(files, tmp_path):
  results = files.run("CoLA", tmp_path, do_train=True, do_eval=True,
                      num_train_epochs=8, save_checkpoints_steps=2,
                      save_best=True, early_stopping=2)
  with open(str(tmp_path / "dev_scores.json"), encoding="utf-8") as source:
    scores = json.load(source)
  values = [score for _, score in scores]
  best = values.index(max(values))
  assert len(values) == best + 3 and scores[-1][0] < 40
  assert results["dev"]["global_step"] == scores[best][0]
  assert results["dev"]["eval_matthews"] == values[best]
  steps = weights_lib.step_of(weights_lib.newest_readable(str(tmp_path)))
  files.run("CoLA", tmp_path, do_train=True, num_train_epochs=8,
            save_best=True, early_stopping=2)
  assert weights_lib.step_of(weights_lib.newest_readable(str(tmp_path))) == steps


@pytest.mark.slow
def test_the_best_of_an_error_is_the_least(files, tmp_path):
  files.table("warm/train.tsv", "text score", [
      [SENTENCES[i % 6], "%d" % (i % 6)] for i in range(8)])
  spec = files.write("warm.json", [json.dumps({
      "name": "Warm", "score_range": [0, 5], "metrics": ["mean_squared_error"],
      "columns": {"text_a": 0, "label": 1}, "header": True,
      "train": "train.tsv", "dev": "train.tsv"})])
  results = files.run(None, tmp_path, task_spec=spec, do_train=True,
                      do_eval=True, data_dir=files.path("warm"), save_best=True,
                      num_train_epochs=3, save_checkpoints_steps=2)
  with open(str(tmp_path / "dev_scores.json"), encoding="utf-8") as source:
    scores = dict(json.load(source))
  first = scores[min(scores)]
  assert min(scores.values()) < first  # else there is nothing to choose
  assert results["dev"]["eval_mean_squared_error"] == min(scores.values())
  # However quickly one follows the other.
  assert events_of(str(tmp_path / "eval"), "eval_mean_squared_error"
                  ) == pytest.approx(scores, rel=1e-6)


# ------------------------------------------------------------ layer sharing


# In groups the base and the shared model both have a scope layer_0.
@pytest.mark.parametrize("layers_per_group", [
    2, pytest.param(None, marks=pytest.mark.slow)])
def test_shared_layers_train_evaluate_and_resume(files, tmp_path,
                                                 layers_per_group):
  shared = dict(share_parameter_across_layers=True,
                layers_per_group=layers_per_group)
  files.run("CoLA", tmp_path, do_train=True, num_train_epochs=.4,
            init_shared_from="mean", **shared)
  results = files.run("CoLA", tmp_path, do_train=True, do_eval=True, **shared)
  full = str(tmp_path / "full" / "model.ckpt")
  again = files.run("CoLA", tmp_path / "again", do_eval=True,
                    task_checkpoint=str(tmp_path / "task"),
                    export_full_checkpoint=full, **shared)
  assert again == results
  exported = files.run("CoLA", tmp_path / "full", do_eval=True,
                       init_checkpoint=full, **shared)
  assert exported == results
  held = values_in(weights_lib.newest_readable(str(tmp_path)))
  assert held["global_step"] == 5
  scope = "layer_0" if layers_per_group else "layer_shared"
  assert held["bert/encoder/%s/output/adapters/weights1" % scope].shape == (
      16, 3)


@pytest.mark.parametrize("layers_per_group", [
    None, pytest.param(2, marks=pytest.mark.slow)])
def test_shared_layers_can_be_tuned_in_full(files, tmp_path, layers_per_group):
  changes = dict(do_train=True, tune="full", share_parameter_across_layers=True,
                 layers_per_group=layers_per_group)
  first = files.run("CoLA", tmp_path, do_eval=True, init_shared_from="mean",
                    **changes)
  assert files.run("CoLA", tmp_path, do_eval=True, **changes) == first


def test_a_shared_checkpoint_is_recognised(files, tmp_path):
  shared = dict(share_parameter_across_layers=True)
  prefix = str(tmp_path / "albert" / "bert_model.ckpt")
  os.makedirs(os.path.dirname(prefix))
  write_base(prefix, test_util.tiny_config(**dict(files.config.to_dict(),
                                                  **shared)))
  line = refused(files, tmp_path / "out", init_checkpoint=prefix)
  assert "layer_shared" in line and "--share_parameter_across_layers" in line
  files.run("CoLA", tmp_path / "out", do_train=True, num_train_epochs=.2,
            init_checkpoint=prefix, **shared)


def test_shared_layers_start_from_the_mean_or_the_first(files, tmp_path):
  base = values_in(files.path("bert/bert_model.ckpt"))
  name = "bert/encoder/layer_%s/output/LayerNorm/beta"
  for how, start in (("mean", (base[name % 0] + base[name % 1]) / 2),
                     ("first", base[name % 0])):
    files.run("CoLA", tmp_path / how, do_train=True, num_train_epochs=.2,
              learning_rate=0.0, share_parameter_across_layers=True,
              share_adapters=False, init_shared_from=how)
    held = values_in(weights_lib.newest_readable(str(tmp_path / how)))
    np.testing.assert_allclose(held[name % "shared"], start, atol=1e-7)
    assert "bert/encoder/layer_shared/output/adapters_1/weights1" in held


# ------------------------------------------------------------------ resuming


def start(files, output_dir, **changes):
  settings = files.settings("MRPC", output_dir, do_train=True,
                            num_train_epochs=60.0, save_checkpoints_steps=7,
                            **changes)
  return subprocess.Popen(
      [sys.executable, PROGRAM] + [
          "--%s=%s" % (key, value) for key, value in settings.items()
          if value is not None],
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("compile_chains", [False, True])
def test_killed_and_started_again_ends_as_if_undisturbed(files, tmp_path,
                                                         compile_chains):
  whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
  process = start(files, killed, compile_chains=compile_chains)
  until = time.monotonic() + 600
  while not weights_lib.newest_readable(killed):
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < until
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  step = weights_lib.step_of(weights_lib.newest_readable(killed))
  assert 0 < step < 300
  for output_dir in (whole, killed):
    finished = start(files, output_dir, compile_chains=compile_chains)
    _, log = finished.communicate()
    assert finished.returncode == 0, log[-2000:]
  assert "step %d of 300" % step in log
  expected = values_in(weights_lib.newest_readable(whole))
  found = values_in(weights_lib.newest_readable(killed))
  assert sorted(expected) == sorted(found)
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
  assert expected["global_step"] == 300
  losses = events_of(whole, "loss")
  for number, loss in events_of(killed, "loss").items():
    assert losses[number] == loss


def test_resuming_with_other_settings_says_so(files, tmp_path, caplog):
  files.run("MRPC", tmp_path, do_train=True, num_train_epochs=.4)
  files.run("MRPC", tmp_path, do_train=True, learning_rate=1e-3,
            num_train_epochs=.8)
  text = caplog.text
  assert "goes on with learning_rate=0.001; so far it was 0.01" in text
  assert "goes on with num_train_epochs=0.8; so far it was 0.4" in text
  assert "train_batch_size" not in text
  files.run("MRPC", tmp_path, do_train=True, learning_rate=1e-4,
            num_train_epochs=.8)
  assert "finished: learning_rate=0.0001 is not used; it was 0.001" in (
      caplog.text)


# ---------------------------------------------------------- the command line


OLD_COMMAND_LINE = """
    --data_dir=d --bert_config_file=c --task_name=MRPC --vocab_file=v
    --output_dir=o --init_checkpoint=i --do_lower_case=true
    --max_seq_length=128 --do_train=true --do_eval=true --do_predict=false
    --train_batch_size=32 --eval_batch_size=8 --predict_batch_size=8
    --learning_rate=5e-5 --num_train_epochs=3.0 --warmup_proportion=0.1
    --save_checkpoints_steps=1000 --iterations_per_loop=1000 --use_tpu=false
    --tpu_name=t --tpu_zone=z --gcp_project=g --master=m --num_tpu_cores=8
"""


@pytest.fixture(scope="module", name="flag_values")
def fixture_flag_values():
  """The program's flags, defined apart from those of this process."""
  holder = flags.FlagValues()
  run_classifier.define_flags(holder)
  return holder


def test_an_old_command_line_still_works(flag_values, caplog):
  flag_values(["program"] + OLD_COMMAND_LINE.split())
  config = run_classifier.config_from_flags(flag_values)
  assert (config.task_name, config.do_train, config.eval_batch_size,
          config.learning_rate) == ("MRPC", True, 8, 5e-5)
  for name in ("tpu_name", "tpu_zone", "gcp_project", "master",
               "num_tpu_cores", "iterations_per_loop"):
    assert "--%s=" % name in caplog.text
  for arguments, error in (
      (["--learnin_rate=1"], flags.UnrecognizedFlagError),
      (["--train_batch_size=many"], flags.IllegalFlagValueError),
      (["--data_dir=d"], flags.IllegalFlagValueError)):  # others are required
    flag_values.unparse_flags()
    for name in ("data_dir", "output_dir"):
      flag_values[name].unparse()
    with pytest.raises(error):
      flag_values(["program"] + arguments)


def command(*arguments):
  return subprocess.run([sys.executable, PROGRAM] + list(arguments),
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        text=True, check=False)


@pytest.mark.slow
def test_flagfile_and_flags_without_effect(files, tmp_path):
  settings = files.settings("CoLA", tmp_path / "out", do_eval=True,
                            iterations_per_loop=7)
  flagfile = tmp_path / "flags"
  flagfile.write_text("".join("--%s=%s\n" % item for item in settings.items()))
  done = command("--flagfile=%s" % flagfile)
  assert done.returncode == 0, done.stderr[-2000:]
  assert "--iterations_per_loop=7 has no effect" in done.stderr
  assert (tmp_path / "out" / "eval_results.txt").exists()


# ------------------------------------------------------------------ bad input


def refused(files, output_dir, task="CoLA", **changes):
  """The line that a run is refused with."""
  with pytest.raises(errors.InputError) as caught:
    files.run(task, output_dir, **dict(dict(do_train=True), **changes))
  line = str(caught.value)
  assert "\n" not in line
  return line


@pytest.mark.parametrize("changes,words", [
    (dict(do_train=False), ["do_train", "do_eval", "do_predict"]),
    (dict(task_name="colla"), ["colla", "cola", "task_spec"]),
    (dict(data_dir="/nowhere"), ["/nowhere"]),
    (dict(vocab_file="/nowhere/vocab.txt"), ["/nowhere/vocab.txt"]),
    (dict(bert_config_file="/nowhere.json"), ["/nowhere.json"]),
    (dict(init_checkpoint="/nowhere.ckpt"), ["/nowhere.ckpt"]),
    (dict(max_seq_length=33), ["max_seq_length is 33", "32 positions"]),
    (dict(train_batch_size=0), ["train_batch_size is 0"]),
    (dict(train_batch_size=21), ["20 examples", "no full step"]),
    (dict(adapter_size=0), ["adapter_size is 0"]),
    (dict(tune="adaptors"), ["adaptors", "layer_norm"]),
    (dict(tune="top_n"), ["top_n_layers"]),
    (dict(tune="top_n", top_n_layers=3), ["top_n_layers", "3"]),
    (dict(adapter_layers="1-2"), ["1-2", "0 to 1"]),
    (dict(adapter_layers="top"), ["top", "6-11"]),
    (dict(tune="head", adapter_layers="1"), ["adapter_layers", "head"]),
    (dict(precision="float16"), ["float16", "bfloat16"]),
    (dict(early_stopping=3), ["early_stopping", "save_best"]),
    (dict(export_full_checkpoint="new/"), ["new/", "directory", "prefix"]),
    (dict(warmup_proportion=2.0), ["warmup_proportion is 2"]),
    (dict(seed=-1), ["seed is -1"]),
    (dict(learning_rate=float("nan")), ["learning_rate is nan"]),
    (dict(num_train_epochs=float("inf")), ["num_train_epochs is inf"]),
    (dict(num_train_epochs=0.0), ["num_train_epochs is 0", "do_train"]),
    (dict(max_seq_length=2), ["max_seq_length=2"]),
    (dict(do_train=False, do_eval=True, init_checkpoint=None),
     ["nothing to evaluate"]),
    (dict(layers_per_group=2), ["layers_per_group", "share_parameter"]),
    (dict(share_parameter_across_layers=True, layers_per_group=0),
     ["layers_per_group is 0"]),
    (dict(share_parameter_across_layers=True), ["init_shared_from"]),
    (dict(init_shared_from="mean"), ["init_shared_from", "not shared"]),
    (dict(share_parameter_across_layers=True, init_shared_from="mean",
          init_checkpoint=None), ["init_shared_from", "init_checkpoint"]),
    (dict(share_parameter_across_layers=True, init_shared_from="median"),
     ["median", "first or mean"]),
])
def test_what_is_refused(files, tmp_path, changes, words):
  line = refused(files, tmp_path, **changes)
  for word in words:
    assert word in line, line


def test_what_is_not_whole_is_not_exported(files, mrpc, tmp_path):
  full = str(tmp_path / "full.ckpt")
  line = refused(files, tmp_path, do_train=False, export_full_checkpoint=full)
  assert "lacks 18 of the model's variables" in line
  files.run("MRPC", mrpc, export_full_checkpoint=full)
  line = refused(files, tmp_path, task="MNLI", do_train=False,
                 init_checkpoint=full, export_full_checkpoint=full + "2")
  assert "head of another task" in line
  assert not os.path.exists(full + "2.index")
  # By another name it is the same file.
  base = os.path.relpath(files.path("bert/bert_model.ckpt"))
  line = refused(files, mrpc, task="MRPC", do_train=False,
                 export_full_checkpoint=base)
  assert "what is exported" in line


def test_save_best_reads_dev_before_training(files, tmp_path):
  data = shutil.copytree(files.path("CoLA"), str(tmp_path / "CoLA"))
  os.remove(os.path.join(data, "dev.tsv"))
  line = refused(files, tmp_path / "out", data_dir=data, save_best=True)
  assert "dev.tsv" in line
  assert not os.path.exists(str(tmp_path / "out" / "run.json"))


@pytest.mark.parametrize("changes,words", [
    (dict(task=None), "does not say of which task"),
    (dict(base={"path": "x"}), "no 'sha256'"),
    (dict(base={"sha256": "x"}), "no 'path'"),
])
def test_a_record_that_says_too_little(files, mrpc, tmp_path, changes, words):
  task = shutil.copytree(os.path.join(mrpc, "task"), str(tmp_path / "task"))
  run_record.write(
      task, dict(run_record.read(task), **changes))
  line = refused(files, tmp_path / "out", task="MRPC", do_train=False,
                 do_eval=True, task_checkpoint=task)
  assert words in line and task in line and "run.json" in line


def test_bad_configs(files, tmp_path):
  for key, value, words in (
      ("hidden_size", "16", ["hidden_size", "'16'"]),
      ("num_attention_heads", 3, ["hidden_size (16)", "num_attention_heads"]),
      ("embedding_size", 17, ["embedding_size is 17"]),
      ("ln_type", "preln", ["preln"]),
      ("vocab_size", 5, ["28 words", "5"]),
      ("num_hidden_layers", 1, ["2 layers", "uses 1"]),
      ("num_hidden_layers", 3, ["2 layers", "uses 3"]),
      ("intermediate_size", 21, ["[16, 20]", "[16, 21]"])):
    path = files.write("bad/%s.json" % key, [
        json.dumps(dict(files.config.to_dict(), **{key: value}))])
    line = refused(files, tmp_path, bert_config_file=path)
    for word in words:
      assert word in line, line
  broken = files.write("bad/broken.json", ["{"])
  assert broken in refused(files, tmp_path, bert_config_file=broken)


def test_bad_data_names_file_and_line(files, tmp_path):
  for rows, words in (
      (["x\t0\t\tthe cat", "x\t0"], ["train.tsv:2", "column"]),
      (["x\t2\t\tthe cat"], ["train.tsv:1", "'2'"]),
      ([], ["train.tsv"])):
    files.write("bad/train.tsv", rows)
    line = refused(files, tmp_path, data_dir=files.path("bad"))
    for word in words:
      assert word in line, line


def test_bad_bytes_and_scores(files, tmp_path):
  files.write("bad/train.tsv", ["x\t0\t\tthe cat"])
  with open(files.path("bad/train.tsv"), "ab") as output:
    output.write(b"x\t0\t\tthe \xff\n")
  line = refused(files, tmp_path, data_dir=files.path("bad"))
  assert "train.tsv:2" in line and "0xff" in line
  for score in ("5.5", "nan", "much"):
    files.table("bad/train.tsv", "0 1 2 3 4 5 6 sentence1 sentence2 score", [
        ["x"] * 7 + ["the cat", "a dog", score]])
    line = refused(files, tmp_path, task="STS-B", data_dir=files.path("bad"))
    assert "train.tsv:2" in line and score in line, line


@pytest.mark.parametrize("action", ["do_train", "do_eval"])
@pytest.mark.parametrize("size", [1000, None])
def test_a_damaged_base(files, tmp_path, action, size):
  prefix = str(tmp_path / "bert_model.ckpt")
  data = prefix + ".data-00000-of-00001"
  for suffix in (".index", ".data-00000-of-00001"):
    shutil.copy(files.path("bert/bert_model.ckpt" + suffix), prefix + suffix)
  if size:
    os.truncate(data, size)
  else:
    os.remove(data)
  line = refused(files, tmp_path / "out", init_checkpoint=prefix,
                 **{"do_train": False, action: True})
  assert prefix in line and "complete?" in line


def test_cased_and_uncased(files, tmp_path):
  line = refused(files, tmp_path, do_lower_case=False,
                 init_checkpoint="/x/uncased_L-12_H-768_A-12/bert_model.ckpt")
  assert "do_lower_case" in line and "uncased_L-12_H-768_A-12" in line


def test_an_output_dir_of_another_run_is_left_alone(files, mrpc):
  before = sorted(os.listdir(mrpc))
  for task, changes, words in (
      ("CoLA", {}, ["task is MRPC", "CoLA"]),
      ("MRPC", dict(adapter_size=4), ["adapter_size is 3", "4"]),
      ("MRPC", dict(tune="head"), ["tune is adapters", "head"]),
      ("MRPC", dict(do_lower_case=False), ["do_lower_case"])):
    line = refused(files, mrpc, task=task, num_train_epochs=2, **changes)
    for word in words + [mrpc]:
      assert word in line, line
  other = test_util.tiny_config(**dict(files.config.to_dict(),
                                       initializer_range=0.03))
  path = files.write("other.json", [other.to_json_string()])
  assert "initializer_range" in refused(files, mrpc, task="MRPC",
                                        bert_config_file=path)
  prefix = files.path("other/bert_model.ckpt")
  os.makedirs(os.path.dirname(prefix), exist_ok=True)
  weights_lib.write(prefix, {
      name: value + 1
      for name, value in values_in(files.path("bert/bert_model.ckpt")).items()})
  line = refused(files, mrpc, task="MRPC", init_checkpoint=prefix,
                 num_train_epochs=2)
  assert "digest" in line
  assert sorted(os.listdir(mrpc)) == before


def test_two_runs_do_not_train_in_one_output_dir(files, mrpc):
  expected = lines_of(mrpc, "eval_results.txt")
  with files_lib.locked(mrpc):
    line = refused(files, mrpc, task="MRPC", num_train_epochs=2)
    assert mrpc in line and "process %d on" % os.getpid() in line
    files.run("MRPC", mrpc, do_eval=True)  # of a training that is under way
  assert lines_of(mrpc, "eval_results.txt") == expected


@pytest.mark.slow
def test_a_run_in_memory_is_a_run_on_disk(files, tmp_path):
  """All paths with a scheme: what is read, what is written, and run again."""
  in_memory = "ram://run_classifier_test"
  for directory in ("bert", "CoLA"):
    tf.io.gfile.makedirs("%s/%s" % (in_memory, directory))
    for name in os.listdir(files.path(directory)):
      if os.path.isfile(files.path(directory + "/" + name)):
        tf.io.gfile.copy(files.path(directory + "/" + name),
                         "%s/%s/%s" % (in_memory, directory, name), True)

  run_there = functools.partial(
      files.run, "CoLA", in_memory + "/out", data_dir=in_memory + "/CoLA",
      vocab_file=None, bert_config_file=None, init_checkpoint=None,
      model_dir=in_memory + "/bert")

  def both(**changes):
    files.run("CoLA", tmp_path / "out", **changes)
    run_there(**changes)

  def read(name):
    with tf.io.gfile.GFile("%s/out/%s" % (in_memory, name)) as source:
      return source.read().splitlines()

  both(do_train=True, save_best=True)
  both(do_eval=True, do_predict=True)
  for name in ("eval_results.txt", "test_results.tsv", "CoLA.tsv"):
    assert read(name) == lines_of(tmp_path / "out", name), name
  for name in ("model.ckpt-5", "task/model.ckpt", "best/model.ckpt"):
    found = values_in("%s/out/%s" % (in_memory, name))
    for variable, value in values_in(str(tmp_path / "out" / name)).items():
      np.testing.assert_array_equal(found[variable], value)
  # It goes on, and its best and its task checkpoint are replaced.
  both(do_train=True, save_best=True, num_train_epochs=2.0)
  assert weights_lib.step_of(in_memory + "/out/task/model.ckpt") == 10
  full = in_memory + "/full/bert_model.ckpt"
  run_there(export_full_checkpoint=full)
  assert "bert/pooler/dense/kernel" in values_in(full)
  assert not [name for name in tf.io.gfile.listdir(in_memory + "/out")
              if ".tmp-" in name]


def test_a_scheme_that_nobody_can_open_is_refused_first(files, tmp_path):
  for name in ("output_dir", "init_checkpoint", "data_dir", "vocab_file"):
    with pytest.raises(errors.InputError, match="%s is nowhere://x" % name):
      settings.RunConfig(**dict(files.settings("MRPC", tmp_path),
                                **{name: "nowhere://x"}))


def test_a_task_checkpoint_of_another_base_unless_forced(files, mrpc, tmp_path):
  prefix = files.path("shifted/bert_model.ckpt")
  os.makedirs(os.path.dirname(prefix))
  base = values_in(files.path("bert/bert_model.ckpt"))
  weights_lib.write(prefix, {n: v * 1.001 for n, v in base.items()})
  task = dict(task_checkpoint=os.path.join(mrpc, "task"), do_train=False,
              do_eval=True, init_checkpoint=prefix)
  assert "digest" in refused(files, tmp_path, task="MRPC", **task)
  files.run("MRPC", tmp_path, force_base=True, **task)
  assert "init_checkpoint" in refused(
      files, tmp_path, task="MRPC",
      **dict(task, do_train=True))  # and trains on from none


@pytest.mark.parametrize("where", ["task", "task/model.ckpt"])
@pytest.mark.parametrize("task,changes,words", [
    ("CoLA", {}, "its task is MRPC, and here it is CoLA"),
    ("MRPC", dict(adapter_size=5), "adapter_size is 3, and here it is 5"),
    ("MRPC", dict(tune="head"), "tune is adapters, and here it is head"),
])
def test_a_task_checkpoint_of_another_run(files, mrpc, tmp_path, where, task,
                                          changes, words):
  line = refused(files, tmp_path, task=task, do_train=False, do_eval=True,
                 task_checkpoint=os.path.join(mrpc, where), **changes)
  assert words in line and "task_checkpoint" in line
  assert "the flags that it was trained with" in line


def test_an_output_dir_that_cannot_be_written(files, tmp_path):
  (tmp_path / "file").write_text("")
  assert "file" in refused(files, tmp_path / "file" / "out")


def test_a_loss_that_is_not_finite_stops_the_run(files, tmp_path):
  line = refused(files, tmp_path, task="STS-B", learning_rate=1e30,
                 num_train_epochs=4, save_checkpoints_steps=2)
  assert "step" in line and "learning_rate" in line
  saved = weights_lib.newest_readable(str(tmp_path))
  if saved:
    assert all(np.isfinite(value).all() for value in values_in(saved).values())


# ------------------------------------------------- a Hugging Face directory

HF = os.path.join(test_util.TESTDATA, "hf_bert")


@pytest.fixture(scope="module", name="hf_golden")
def fixture_hf_golden():
  pytest.importorskip("safetensors")
  with open(os.path.join(HF, "golden.json"), encoding="utf-8") as source:
    return json.load(source)


def hf_settings(files, hf_golden, output_dir, **changes):
  """A RunConfig on testdata/hf_bert and the texts of its golden.json."""
  rows = [[str(i), case["text_a"], case["text_b"]]
          for i, case in enumerate(hf_golden["cases"])]
  header = "index\tsentence1\tsentence2"
  labels = tasks.get_task("rte").labels
  for name in ("train", "dev"):
    files.write("HF/%s.tsv" % name, [header + "\tlabel"] + [
        "\t".join(row + [labels[i % 2]]) for i, row in enumerate(rows)])
  files.write("HF/test.tsv", [header] + ["\t".join(row) for row in rows])
  return settings.RunConfig(**dict(dict(
      task_name="RTE", data_dir=files.path("HF"), output_dir=str(output_dir),
      model_dir=HF, max_seq_length=32, train_batch_size=2, num_train_epochs=1.0,
      adapter_size=3, compile_chains=False), **changes))


def test_a_hugging_face_classifier_predicts_as_transformers_does(
    files, hf_golden, tmp_path):
  run_classifier.run(hf_settings(files, hf_golden, tmp_path, tune="head",
                                 do_predict=True))
  # Their rows are not_entailment, entailment; RTE's labels the other way round.
  logits = np.array([case["logits"][::-1] for case in hf_golden["cases"]])
  expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  np.testing.assert_allclose(
      np.loadtxt(str(tmp_path / "test_results.tsv")), expected, atol=1e-5)


def test_a_fresh_pooler_is_trained_and_saved_with_the_head(
    files, hf_golden, tmp_path):
  run = hf_settings(files, hf_golden, tmp_path / "run", fresh_pooler=True,
                    do_train=True)
  run_classifier.run(run)
  record = run_record.read(str(tmp_path / "run" / "task"))
  assert record["fresh_pooler"] and record["base"]["head"] == [1, 0]
  assert not record["do_lower_case"]
  held = values_in(weights_lib.find(str(tmp_path / "run" / "task")))
  base = weights_lib.Weights.open(HF)
  assert record["base"]["sha256"] == base.digest()
  for name in ("bert/pooler/dense/kernel", "bert/pooler/dense/bias"):
    assert not np.allclose(held[name], base.value(name), atol=1e-3)
  # The whole model is found again from run.json alone.
  whole = weights_lib.Weights.open(str(tmp_path / "run"))
  np.testing.assert_array_equal(whole.value("bert/pooler/dense/bias"),
                                held["bert/pooler/dense/bias"])
  assert not np.allclose(whole.value("output_weights"),
                         hf_bert.read_head(HF, [1, 0])["output_weights"],
                         atol=1e-9)
  # A shuffled vocabulary is another one.
  words = list(hf_golden["vocab"])
  words[5:7] = words[6:4:-1]
  vocab_file = files.write("shuffled.txt", words)
  with pytest.raises(errors.InputError, match="its tokenizer.*is.*, and here"):
    run_classifier.run(dataclasses.replace(
        run, do_train=False, do_eval=True, vocab_file=vocab_file,
        do_lower_case=False))


@pytest.mark.parametrize("changes, line", [
    (dict(do_lower_case=True), "says that the model's text was not lower-cased"),
    (dict(fresh_pooler=True, tune="adapters+layer_norm"), "does not train the h"),
    (dict(head_labels=["a", "b"]), "head_labels is a,b; the classifier"),
    (dict(model_dir=None), "bert_config_file is not given; give it, or --model"),
    (dict(model_dir=None, init_checkpoint=HF), "give --model_dir="),
    (dict(model_dir="/none"), "model_dir /none is not there"),
    (dict(hidden_act="silu"), "hidden_act is silu; it can be gelu or gelu_erf"),
])
def test_what_does_not_fit_a_hugging_face_directory(files, hf_golden, tmp_path,
                                                    changes, line):
  with pytest.raises(errors.InputError) as caught:
    run_classifier.run(hf_settings(files, hf_golden, tmp_path / "out",
                                   do_predict=True, **changes))
  assert line in str(caught.value) and "\n" not in str(caught.value)


def test_an_untrained_pooler_is_a_warning(files, tmp_path, caplog):
  prefix = str(tmp_path / "zero.ckpt")
  held = values_in(files.path("bert/bert_model.ckpt"))
  held["bert/pooler/dense/bias"] *= 0
  weights_lib.write(prefix, held)
  files.run("MRPC", tmp_path / "out", do_predict=True, init_checkpoint=prefix)
  assert "--fresh_pooler trains a new one" in caplog.text


# ------------------------------------------------------------- the reference


def reference_checkpoint(directory):
  """One complete checkpoint, as the reference wrote it, of the golden parts."""
  weights = weights_lib.Weights([
      test_util.external("BERT_BASE_DIR", "bert_model.ckpt"),
      test_util.external("ADAPTER_BERT_GOLDEN", "reference_mrpc.ckpt")])
  prefix = os.path.join(directory, "model.ckpt-573")
  weights_lib.write(prefix, {n: weights.value(n) for n in weights.shapes})
  return prefix


@pytest.mark.slow
def test_a_checkpoint_of_the_reference_evaluates_as_it_did(tmp_path):
  with open(test_util.external("ADAPTER_BERT_GOLDEN", "reference_mrpc.json"),
            encoding="utf-8") as source:
    expected = json.load(source)
  bert = test_util.external("BERT_BASE_DIR")
  results = run_classifier.run(settings.RunConfig(
      task_name="MRPC", data_dir=test_util.external("GLUE_DIR", "MRPC"),
      vocab_file=os.path.join(bert, "vocab.txt"),
      bert_config_file=os.path.join(bert, "bert_config.json"),
      init_checkpoint=reference_checkpoint(str(tmp_path)),
      output_dir=str(tmp_path / "out"), do_eval=True, do_predict=True))["dev"]
  for key in ("eval_accuracy", "eval_loss"):
    assert results[key] == pytest.approx(expected["eval"][key], abs=1e-4)
  rows = np.loadtxt(str(tmp_path / "out" / "test_results.tsv"))
  np.testing.assert_allclose(
      rows[:100], expected["test_probabilities_first_100"], atol=1e-4)
