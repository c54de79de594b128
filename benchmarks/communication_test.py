"""The bytes on paper are those in the graph; the arithmetic by hand."""

import json
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.distributed import tf_config
from adapter_bert.experiments import parameters
from adapter_bert.distributed import devices as distribution
from adapter_bert import test_util
from adapter_bert.training import graphs
from adapter_bert.training import loop as training
from adapter_bert.training import specs
from benchmarks import communication

graphs.enable_graph_mode()

ROOT = test_util.ROOT


@pytest.mark.parametrize("method", communication.METHODS)
def test_only_what_is_trained_is_all_reduced(method):
  config = test_util.tiny_config(hidden_dropout_prob=0.1)
  strategy = distribution.strategy_of(tf_config.parse(json.dumps({
      "cluster": {"worker": ["localhost:1", "localhost:2"]},
      "task": {"type": "worker", "index": 0}})))
  assert strategy.num_replicas_in_sync == 2
  batch = test_util.tiny_batch()
  with tf.Graph().as_default() as graph, strategy.scope():
    dataset = tf.data.Dataset.from_tensors({
        "input_ids": batch["input_ids"], "input_mask": batch["input_mask"],
        "segment_ids": batch["token_type_ids"],
        "label_ids": batch["label_ids"] % 2,
        "example_weights": tf.ones([5])}).repeat()
    training.train_graph(
        specs.ClassifierSpec(config, 2, adapter_size=communication.ADAPTER_SIZE,
                             tune=method),
        training.TrainSpec(num_train_steps=2, batch_size=10), dataset, strategy)
  # And the loss, and the wishes to stop, early or by one of two signals: a float
  # each.
  assert communication.all_reduced_bytes(graph) == (
      communication.trained_bytes(config, method) + 4 * 4)


def test_bytes_of_a_known_model():
  base = parameters.load_config("bert-base")
  # The README's counts of what is trained, the head included.
  assert communication.trained_bytes(base, "adapters") == 4 * (2417664 + 1538)
  assert communication.trained_bytes(base, "full") == 4 * (109482240 + 1538)


def test_ring_by_hand():
  # 8 processes: 1.75 times 1e6 bytes are 14e6 bits; 14 messages of 1e-5 s.
  assert communication.ring_seconds(1e6, 8, 1e9, 1e-5) == pytest.approx(
      0.014 + 0.00014)
  assert communication.ring_seconds(1e6, 1, 1e9) == 0


@pytest.mark.slow
def test_tables():
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.communication", "--workers=1,2",
       "--steps=2", "--batch_size=4", "--length=8"], cwd=ROOT, check=False,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
  rows = [[cell.strip() for cell in line.split("|")[1:-1]]
          for line in done.stdout.splitlines() if line.startswith("|")]
  assert [row[:2] for row in rows[2:6]] == [
      [method, workers] for method in ("adapters", "full")
      for workers in ("1", "2")]
  assert [row[3] for row in rows[2:6]] == ["0.00", "2.42", "0.00", "90.86"]
  assert [row[0] for row in rows[8:]] == [
      "bert-base, adapters", "bert-base, full", "bert-large, adapters",
      "bert-large, full"]
