"""A Hugging Face directory read as it is gives transformers' outputs.

testdata/hf_bert is a tiny BertForSequenceClassification with random weights
(exact gelu; its labels are RTE's in the other order) and golden.json what
transformers 4.57 made of it.
"""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints import matching
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints.foreign import hf_bert
import modeling

safetensors_numpy = pytest.importorskip(
    "safetensors.numpy", reason="needs safetensors: pip install safetensors")

HF = os.path.join(test_util.TESTDATA, "hf_bert")
RTE = ["entailment", "not_entailment"]


@pytest.fixture(name="golden", scope="module")
def fixture_golden():
  with open(os.path.join(HF, "golden.json"), encoding="utf-8") as reader:
    return json.load(reader)


@pytest.fixture(name="hf")
def fixture_hf(tmp_path):
  """A copy of the directory, to be changed."""
  return shutil.copytree(HF, str(tmp_path / "hf"))


def change_tensors(directory, change):
  path = os.path.join(directory, "model.safetensors")
  safetensors_numpy.save_file(change(safetensors_numpy.load_file(path)), path)


def change_config(directory, **keys):
  path = os.path.join(directory, "config.json")
  with open(path, encoding="utf-8") as reader:
    config = dict(json.load(reader), **keys)
  with open(path, "w", encoding="utf-8") as writer:
    json.dump(config, writer)


def test_outputs_are_those_of_transformers(golden):
  weights = weights_lib.Weights.open(
      HF, head_rows=hf_bert.head_rows(HF, RTE))
  config = bert_config.read(os.path.join(HF, "config.json"))
  with test_util.graph(), tf.Session() as session:
    ids, segments = (tf.placeholder(tf.int32, [1, None]) for _ in range(2))
    model = modeling.BertModel(config, False, ids, token_type_ids=segments,
                               adapter_fn=None)
    logits = modeling.classifier_head(model.get_pooled_output(), 2, False)
    variables = tf.trainable_variables()
    found = matching.match(variables, weights, config)
    assert not found.new and not found.leftover
    session.run(matching.load_ops(variables, found, weights))
    for case in golden["cases"]:
      made = session.run(
          [logits, model.get_pooled_output(), model.get_sequence_output()],
          {ids: [case["input_ids"]], segments: [case["segment_ids"]]})
      # RTE has entailment first.
      np.testing.assert_allclose(made[0][0], case["logits"][::-1], atol=1e-5)
      np.testing.assert_allclose(made[1][0], case["pooled"], atol=1e-5)
      np.testing.assert_allclose(made[2][0, 0], case["last_of_first"],
                                 atol=1e-5)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "model._orig_mod.",
                                    "module."])
def test_prefixes_are_found(hf, prefix):
  digest = weights_lib.Weights.open(HF).digest()
  change_tensors(hf, lambda tensors: {prefix + n: t for n, t in tensors.items()})
  assert weights_lib.Weights.open(hf).digest() == digest


def test_what_is_there_is_shown_where_nothing_fits(hf):
  change_tensors(hf, lambda tensors: {"roberta.x": np.zeros(2, np.float32)})
  with pytest.raises(errors.InputError, match="its tensors are roberta.x, and"):
    weights_lib.Weights.open(hf)


def test_without_a_pooler(hf):
  change_tensors(hf, lambda tensors: {n: t for n, t in tensors.items()
                                      if "pooler" not in n})
  weights = weights_lib.Weights.open(hf)
  with test_util.graph():
    config = bert_config.read(os.path.join(hf, "config.json"))
    modeling.BertModel(config, False, tf.zeros([1, 2], tf.int32),
                       adapter_fn=None)
    with pytest.raises(errors.InputError, match="has no pooler.*--fresh_pooler"):
      matching.match(tf.trainable_variables(), weights, config)
    # Of the head, it may be new.
    for variable in tf.trainable_variables():
      if "pooler" in variable.name:
        tf.add_to_collection("head", variable)
    found = matching.match(tf.trainable_variables(), weights, config)
    assert found.new == ["bert/pooler/dense/kernel", "bert/pooler/dense/bias"]


# ------------------------------------------------------------------ the head


def test_rows_go_by_the_names_of_the_labels(hf, caplog):
  assert hf_bert.head_rows(HF, RTE) == [1, 0]
  assert hf_bert.head_rows(HF, RTE[::-1]) == [0, 1]
  change_config(hf, id2label={"0": "Entailment", "1": "not entailment"})
  assert hf_bert.head_rows(hf, RTE) == [0, 1]
  head = hf_bert.read_head(HF, [1, 0])
  tensors = safetensors_numpy.load_file(os.path.join(HF, "model.safetensors"))
  np.testing.assert_array_equal(head["output_bias"],
                                tensors["classifier.bias"][::-1])
  np.testing.assert_array_equal(head["output_weights"],
                                tensors["classifier.weight"][::-1])
  assert "is not used" not in caplog.text


def test_labels_without_names_need_head_labels(hf, caplog):
  change_config(hf, id2label={"0": "LABEL_0", "1": "LABEL_1"})
  assert hf_bert.head_rows(hf, RTE) is None
  assert "its classifier (LABEL_0, LABEL_1) is not used" in caplog.text
  assert "--head_labels=entailment,not_entailment" in caplog.text
  assert hf_bert.head_rows(hf, RTE, ["not_entailment", "entailment"]) == [1, 0]


@pytest.mark.parametrize("labels, given, line", [
    (RTE, ["entailment"], "has 2 rows, and the task's labels are entailment, n"),
    (RTE, ["a", "b"], "head_labels is a,b; the classifier"),
    (None, ["a", "b"], "the task's labels are one score"),
])
def test_head_labels_that_do_not_fit(labels, given, line):
  with pytest.raises(errors.InputError) as raised:
    hf_bert.head_rows(HF, labels, given)
  assert line in str(raised.value)


def test_heads_of_other_tasks_are_dropped_with_a_line(hf, caplog):
  assert hf_bert.head_rows(HF, ["a", "b", "c"]) is None
  assert hf_bert.head_rows(HF, None) is None
  change_tensors(hf, lambda tensors: {
      n.replace("classifier", "qa_outputs"): t for n, t in tensors.items()})
  caplog.set_level("INFO", logger="absl")
  assert hf_bert.head_rows(hf, RTE) is None
  assert "its head (qa_outputs) is of another task" in caplog.text
  with pytest.raises(errors.InputError, match="has no classifier; its head is"):
    hf_bert.head_rows(hf, RTE, RTE)


def test_one_score_is_a_regressions(hf):
  change_tensors(hf, lambda tensors: {
      n: t[:1].copy() if n.startswith("classifier") else t
      for n, t in tensors.items()})
  assert hf_bert.head_rows(hf, None) == [0]
