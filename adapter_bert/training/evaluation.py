"""A model run over every example of a set, and written out as a whole.

    result = predict(model, records, Weights.open(output_dir))

`Evaluation` does it for the splits of a run's task, and writes the run's files.
"""

import contextlib
import dataclasses
import os
import time
import types
from typing import Any, Dict, Optional

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import matching
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import scoring
from adapter_bert.data import tasks
from adapter_bert.distributed import devices as distribution
from adapter_bert.training import graphs
from adapter_bert.training import reports
from adapter_bert.training import specs


class Predictions(types.SimpleNamespace):
  """Of n examples, in the order of the file: an array for each name.

  The model's predictions, each [n, ...], under their own names; losses, float32
  [n]; and weights, float32 [n], of a model whose losses have them.
  """


def predict(model, records, weights, batch_size=32, group=None, seed=0,
            init_shared_from=None):
  """Runs a model over every example of a record set, once.

  The arguments are those of `predictor`.

  Returns: Predictions; None in a process that is not the chief.
  """
  with predictor(model, records, weights, batch_size, group, seed,
                 init_shared_from) as run:
    return run()


@contextlib.contextmanager
def predictor(model, records, weights, batch_size=32, group=None, seed=0,
              init_shared_from=None):
  """Inside, a model with its weights that can run over a record set often.

  Args:
    model: specs.ModelSpec.
    records: the examples, of the kind that the model's datasets take.
    weights: weights_lib.Weights with all of the model's variables. Adapters and
      head may be missing; they are then new, and useless: it says so.
    batch_size: int; results do not depend on it.
    group: distribution.Group; None: one device.
    seed: int, for what is new.
    init_shared_from: see matching.match.

  Yields: function of feed_dict (dict of placeholder to value, or None) to
    Predictions of every example; to None in a process that is not the chief.
  """
  model = model.stored_in(weights.shapes)
  group = group or distribution.one_device()
  strategy = group.local  # Each process predicts its rows, without the others.
  with tf.Graph().as_default(), strategy.scope():
    dataset = model.eval_dataset(
        records, batch_size,
        row_multiple=strategy.num_replicas_in_sync * group.num_workers,
        worker_index=group.rank, num_workers=group.num_workers)

    def step_fn(batch):
      with graphs.seeded_variables(seed):
        outputs = model.build(False, batch)
      collected = dict(outputs.predictions, losses=outputs.losses,
                       index=batch["example_index"])
      if outputs.weights is not None:
        collected["weights"] = outputs.weights
      return collected

    replicas, start_data = graphs.per_replica(strategy, dataset, step_fn)
    outputs = {
        name: tf.concat(strategy.experimental_local_results(value), axis=0)
        for name, value in replicas.items()}
    variables = graphs.model_variables()
    found = matching.match(variables, weights, model.config,
                              init_shared_from)
    _check_new(found, weights, model)
    init = tf.variables_initializer(variables)
    load = matching.load_ops(variables, found, weights)
    config = group.alone().configured(graphs.session_config())
    with tf.Session(config=config) as session:
      graphs.run_and_load(session, init, load, weights)

      def run(feed_dict=None):
        session.run(start_data)
        parts = group.gather(_all_batches(session, outputs, feed_dict))
        return parts and _in_order(parts, records.num_examples)

      yield run


def _check_head(new, weights):
  """Raises InputError if one of the new variables is another task's head."""
  sizes = {v.op.name: (v.shape.as_list() or [1])[0]
           for v in graphs.model_variables()}
  for name in new:
    if name in weights.shapes:
      raise errors.InputError(
          "%s: %s has shape %s: it is the head of another task, and this one "
          "has %d outputs" % (weights, name, weights.shapes[name],
                              sizes[name]))


def _check_new(found, weights, model):
  """Warns of variables that `weights` lacks.

  Raises: InputError if they are of another task's head, or if the checkpoint on
    top has other variables than the model trains.
  """
  _check_head(found.new, weights)
  left = [name for name in found.leftover if names.is_model_variable(name) and
          weights.is_on_top(name) and
          (names.is_adapter(name) or weights.is_overlaid(name))]
  trained = set(v.op.name for v in model.tuning.variables())
  lacking = [name for name in found.new if name in trained]
  if left or lacking and len(weights.prefixes) > 1:
    raise errors.InputError("%s: %s; give the flags of its training" % (
        weights, " and ".join(
            ["has %s, which the model lacks" % name for name in left[:1]] +
            ["lacks %s, which the model has" % name for name in lacking[:1]])))
  if found.new:
    logging.warning(
        "%s lacks %d variables (%s, ...): what is computed with them is "
        "meaningless until they are trained", weights, len(found.new),
        found.new[0])


def export(model, weights, prefix, init_shared_from=None):
  """Writes a model as one complete checkpoint.

  Args:
    model: specs.ModelSpec.
    weights: weights_lib.Weights with all of its variables.
    prefix: str, the checkpoint to write.
    init_shared_from: see matching.match.

  Raises: InputError if some of them are not there.
  """
  model = model.stored_in(weights.shapes)
  with tf.Graph().as_default():
    model.build(False, model.empty_batch())
    found = matching.match(graphs.model_variables(), weights, model.config,
                              init_shared_from)
    _check_head(found.new, weights)
  if found.new:
    raise errors.InputError(
        "%s lacks %d of the model's variables (%s, ...), so it is not a whole "
        "model to export; train it first" %
        (weights, len(found.new), found.new[0]))
  matching.export_full(prefix, found, weights)


def _all_batches(session, outputs, feed_dict):
  """Runs to the end of the data: a dict of arrays, the rows as they come."""
  batches = []
  while True:
    try:
      batches.append(session.run(outputs, feed_dict))
    except tf.errors.OutOfRangeError:
      return _joined(batches)


def _joined(parts):
  """One dict of arrays of a list of them."""
  return {name: np.concatenate([part[name] for part in parts])
          for name in parts[0]}


def _in_order(parts, num_examples):
  """Predictions in the file's order, of the processes' dicts of arrays."""
  rows = _joined(parts)
  index = rows.pop("index")
  order = np.argsort(index, kind="stable")[-num_examples:]
  if list(index[order]) != list(range(num_examples)):
    raise ValueError("an example was lost or came twice")
  return Predictions(**{name: value[order] for name, value in rows.items()})


# ------------------------------------------------------ the splits of a task


class Scored(object):
  """What a run writes of the scores of its splits, whatever its model is.

  A class that has `score(split, weights)`, `records` and `output_dir`, as
  Evaluation has them, gets the rest from here.
  """

  def evaluate(self, split, weights):
    """`score`; the chief writes eval_results<suffix>.txt, too."""
    began = time.monotonic()
    results = self.score(split, weights)
    if results is None:
      return None
    logging.info("%s: %d examples in %.1f s", split.name,
                 self.records[split.name].num_examples,
                 time.monotonic() - began)
    lines = ["%s = %s\n" % item for item in sorted(results.items())]
    for line in lines:
      logging.info("  %s", line.rstrip())
    files.write_atomically(os.path.join(
        self.output_dir, "eval_results%s.txt" % split.suffix), lines)
    return results

  def write_summary(self, split, results):
    """TensorBoard scalars, in a directory of their own for each split."""
    scalars = {k: v for k, v in results.items() if k != "global_step"}
    # One writer for the whole run: a second one of the same second would
    # overwrite the first one's file.
    writer = reports.summary_writer(
        os.path.join(self.output_dir, "eval" + split.suffix))
    writer.add_summary(reports.scalar_summary(scalars), results["global_step"])
    writer.flush()


@dataclasses.dataclass(frozen=True)
class Evaluation(Scored):
  """A run's model on the splits of its task, and the files that come of it.

  records: {split.name: tfrecords.RecordSet}.
  output_dir: str, where the files go.
  group: distribution.Group; of several processes only the chief writes.
  eval_batch_size, predict_batch_size: ints; results do not depend on them.
  seed: int, for what is new. init_shared_from: see matching.match.
  """
  task: tasks.Task
  model: specs.ClassifierSpec
  records: Dict[str, Any]
  output_dir: str
  group: Any
  eval_batch_size: int = 32
  predict_batch_size: int = 32
  seed: int = 0
  init_shared_from: Optional[str] = None

  @property
  def main_metric(self):
    """(What of a score decides which checkpoint is best, max or min)."""
    name = self.task.main_metric
    return "eval_" + name, tasks.best_of(name)

  def score(self, split, weights):
    """Evaluates one split, for TensorBoard too.

    Args:
      split: tasks.Split.
      weights: weights_lib.Weights.

    Returns: dict of metric name -> float; None in a process that is not the
      chief.
    """
    predictions = self._predictions(split, weights, self.eval_batch_size)
    if predictions is None:
      return None
    loss = float(np.mean(predictions.losses, dtype=np.float64))
    results = dict(
        scoring.compute_metrics(self.task, predictions.labels,
                                predictions.outputs),
        eval_loss=loss, loss=loss,
        global_step=weights_lib.step_of(weights.prefixes[-1]))
    self.write_summary(split, results)
    return results

  def predict(self, split, weights):
    """Predicts one split: test_results<suffix>.tsv and the submission file."""
    predictions = self._predictions(split, weights, self.predict_batch_size)
    if predictions is None:
      return
    outputs = predictions.outputs
    paths = [os.path.join(self.output_dir, name) for name in (
        "test_results%s.tsv" % split.suffix, split.submission)]
    with errors.reported():
      scoring.write_test_results(outputs, paths[0])
      scoring.write_submission(self.task, split, outputs, paths[1])
    logging.info("predicted %d examples: %s", len(outputs), ", ".join(paths))

  def _predictions(self, split, weights, batch_size):
    return predict(self.model, self.records[split.name], weights, batch_size,
                   self.group, self.seed, self.init_shared_from)
