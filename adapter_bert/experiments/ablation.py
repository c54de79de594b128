"""Scores a trained model without the adapters of some of its layers.

Houlsby et al. 2019, figure 6, left: nothing is trained again, the adapters of
every span of neighbouring layers are passed over in turn.
"""

import dataclasses
import os
import tempfile
import time

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import scoring
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
from adapter_bert.experiments import tables
from adapter_bert.experiments.tables import INT
from adapter_bert.experiments.tables import SCORE
from adapter_bert.training import evaluation
from adapter_bert.training import specs


class SwitchedAdapter(object):
  """An adapter_fn whose layers are switched on and off at run time.

  BertModel calls an adapter twice a layer, from the bottom layer up. The calls
  are counted, because the scope does not tell layers apart that share it: where
  layers share their weights, each of them is switched for itself.

  Args:
    adapter_fn: the adapter of one tensor, see modeling.BertModel.
    num_layers: int, how many layers have adapters.

  Attributes:
    switches: bool placeholder [num_layers], all on by default; None before the
      model is built.
  """

  def __init__(self, adapter_fn, num_layers):
    self._adapter_fn = adapter_fn
    self._num_layers = num_layers
    self._calls = 0
    self.switches = None

  def __call__(self, tensor):
    if self.switches is None:
      self.switches = tf.placeholder_with_default(
          [True] * self._num_layers, [self._num_layers], "adapter_switches")
    switch = self.switches[self._calls // 2]
    self._calls += 1
    return tf.where_v2(switch, self._adapter_fn(tensor), tensor)


def spans(layers):
  """Every contiguous part of a list, as (first, last)."""
  return [(first, last) for i, first in enumerate(layers)
          for last in layers[i:]]


def ablate(task, model, records, weights, batch_size=32, init_shared_from=None):
  """Scores a trained model without the adapters of every span of layers.

  Args:
    task: tasks.Task.
    model: specs.ClassifierSpec with adapters.
    records: tfrecords.RecordSet, the examples to score on.
    weights, batch_size, init_shared_from: see evaluation.predictor.

  Returns: tables.Table. first_layer and last_layer are None where nothing is
    removed; relative_loss is in percent of that row's score.

  Raises: errors.InputError if nothing removed scores 0 or less.
  """
  layers = sorted(range(model.bert_config.num_hidden_layers)
                  if model.adapter_layers is None else model.adapter_layers)
  adapter = SwitchedAdapter(model.get_adapter_fn(), len(layers))
  model = dataclasses.replace(model, adapter_fn=adapter)
  metric = "eval_" + task.main_metric
  points = tasks.points_of(task.main_metric)
  sign = -1 if tasks.best_of(task.main_metric) is min else 1
  rows, whole = [], None
  began, todo = time.monotonic(), [(None, None)] + spans(layers)
  with evaluation.predictor(model, records, weights, batch_size,
                          init_shared_from=init_shared_from) as run:
    for first, last in todo:
      predictions = run({adapter.switches: [
          first is None or not first <= layer <= last for layer in layers]})
      score = points * scoring.compute_metrics(task, predictions.labels,
                                            predictions.outputs)[metric]
      whole = score if whole is None else whole
      if not whole > 0:
        raise errors.InputError(
            "%s: its %s on dev is %.2f with all adapters, so there is nothing "
            "to lose; train it for longer" % (weights, task.main_metric, whole))
      rows.append([first, last, score, sign * 100 * (whole - score) / whole])
      logging.info("%s: %.2f; %d of %d, about %.0f s left",
                   removed_label(first, last, layers), score, len(rows),
                   len(todo), (time.monotonic() - began) / len(rows) *
                   (len(todo) - len(rows)))
  columns = [("first_layer", INT), ("last_layer", INT),
             ("score", SCORE),
             ("relative_loss", SCORE)]
  return tables.Table("", columns, rows,
                      notes=_majority_notes(task, predictions.labels))


def removed_label(first, last, layers):
  """What was removed: "no adapters removed", "layer 3", "layers 2-4"."""
  if first is None:
    return "no adapters removed"
  if (first, last) == (layers[0], layers[-1]) and first != last:
    return "all, layers %d-%d" % (first, last)
  return ("layer %d" % first if first == last else
          "layers %d-%d" % (first, last))


def _majority_notes(task, labels):
  """What always saying the most frequent class scores, as a line of text."""
  if task.is_regression:
    return []
  outputs = np.zeros([len(labels), task.num_labels])
  outputs[:, np.bincount(labels).argmax()] = 1
  scores = scoring.compute_metrics(task, labels, outputs)
  return ["always the most frequent class: %.2f" %
          (tasks.points_of(task.main_metric) *
           scores["eval_" + task.main_metric])]


def of_checkpoint(task_checkpoint, data_dir, vocab_file,
                           init_checkpoint=None, force_base=False,
                           batch_size=32, adapter_fn=None):
  """`ablate` of a task checkpoint, on the task's first dev file.

  All settings are those in its run.json. `adapter_fn` is the flag, see
  own_adapters.load_recorded.

  Returns: (tasks.Task, tables.Table).

  Raises: errors.InputError.
  """
  prefix = weights_lib.find(task_checkpoint)
  directory = os.path.dirname(prefix)
  record = run_record.read(directory)
  task, model = specs.model_from_record(record, task_checkpoint,
                                        adapter_fn=adapter_fn)
  if not model.tuning.uses_adapters or model.adapter_layers == []:
    raise errors.InputError(
        "%s: was trained with tune=%s and has no adapters to remove; give a "
        "task checkpoint of tune=adapters" % (task_checkpoint, model.tune))
  if not task.dev:
    raise errors.InputError("%s: the task %s has no dev file to score on" %
                            (task_checkpoint, task.display_name))
  where = os.path.join(directory, run_record.FILE)
  try:
    length = record["schedule"]["max_seq_length"]
    do_lower_case = record["do_lower_case"]
  except KeyError as error:
    raise errors.InputError("%s: has no %s" % (where, error)) from error
  tokenizer = model_dir.load_tokenizer(
      vocab_file, do_lower_case, init_checkpoint, model.bert_config, where)
  model_dir.check_tokenizer(record.get("tokenizer"), tokenizer, vocab_file,
                            task_checkpoint)
  weights = weights_lib.Weights.open(task_checkpoint, init_checkpoint,
                                     force_base)
  with tempfile.TemporaryDirectory() as work_dir:
    records = tfrecords.prepare(task, task.dev[0], data_dir, tokenizer,
                                     length, work_dir)
    return task, ablate(task, model, records, weights, batch_size,
                        record.get("init_shared_from"))
