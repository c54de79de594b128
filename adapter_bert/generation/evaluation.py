"""A run of a sequence model on the splits of its task, and what it writes.

The loss is that of the right targets, read as in training. The metrics are of
texts that the model generates itself.
"""

import dataclasses
import json
import math
import os
import time
from typing import Any, Dict

from absl import logging
import numpy as np

from adapter_bert import names
from adapter_bert.base import files
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import seq2seq
from adapter_bert.data import tasks
from adapter_bert.data import text_metrics
from adapter_bert.generation import generator
from adapter_bert.training import evaluation
from adapter_bert.training import reports
from adapter_bert.training import sequence_specs

# Seconds between two lines about how far generation has come.
_REPORT_SECONDS = 10.0


class Loaded(object):
  """A model in one session that generates with one checkpoint after another.

  A graph takes seconds to make, and checkpoints of one run differ by their
  values alone. To be used in a `with` statement: the session ends with it.

  Args:
    base: mapping of variable name -> array, what the model was made of.
    options: search.Options.
  """

  def __init__(self, base, options):
    self._base, self._options = base, options
    self._task = self._generator = None

  def of(self, task):
    """The generator.Generator of a generator.Task, until the next call."""
    if self._generator and task.spec == self._task.spec and (
        set(task.weights) == set(self._task.weights)):
      self._generator.put(0, task.weights)
    else:
      self._close()
      self._generator = generator.Generator([task], self._base, self._options)
    self._task = dataclasses.replace(task, weights=dict.fromkeys(task.weights))
    return self._generator

  def _close(self):
    if self._generator:
      self._generator.__exit__()
    self._generator = None

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._close()


@dataclasses.dataclass(frozen=True)
class Evaluation(evaluation.Scored):
  """A run's model on the splits of its task.

  task: seq2seq.TextTask.
  model: sequence_specs.SequenceSpec.
  loaded: Loaded, which generates.
  records: {split.name: tfrecords.RecordSet}.
  data: training/sequence_plan.py's Data, with the texts and the tokenizers.
  output_dir: str. group: distribution.Group; only the chief generates.
  eval_batch_size, predict_batch_size: ints. seed: int, of what is sampled.
  """
  task: seq2seq.TextTask
  model: sequence_specs.SequenceSpec
  loaded: Loaded
  records: Dict[str, Any]
  data: Any
  output_dir: str
  group: Any
  eval_batch_size: int = 32
  predict_batch_size: int = 32
  seed: int = 0

  @property
  def main_metric(self):
    """(What of a score decides which checkpoint is best, max or min)."""
    if self.task.is_plain_text:
      return "eval_loss", min
    if self.task.glue:
      name = self.task.glue.main_metric
      return "eval_" + name, tasks.best_of(name)
    name = self.task.main_metric
    return "eval_" + name, text_metrics.best_of(name)

  def score(self, split, weights):
    """Evaluates one split, for TensorBoard too.

    Args:
      split: seq2seq.TextSplit.
      weights: weights.Weights.

    Returns: dict of name -> float: loss, perplexity, and for pairs the task's
      metrics; None in a process that is not the chief.
    """
    predictions = evaluation.predict(
        self.model, self.records[split.name], weights, self.eval_batch_size,
        self.group, self.seed)
    if predictions is None:
      return None
    loss = float(np.average(predictions.losses, weights=predictions.weights))
    results = {"eval_loss": loss, "loss": loss, "perplexity": math.exp(loss),
               "global_step": weights_lib.step_of(weights.prefixes[-1])}
    if not self.task.is_plain_text:
      results.update(self._metrics(split, weights))
    self.write_summary(split, results)
    return results

  def _metrics(self, split, weights):
    """{"eval_" + metric: float} of texts generated for each source."""
    examples = list(self.data.examples(split))
    references = seq2seq.grouped(examples)
    found = self.generate(list(references), weights, self.eval_batch_size)
    texts = [text for text, _ in found]
    results = {"eval_" + name: text_metrics.METRICS[name](
        list(references.values()), texts) for name in self.task.metrics}
    if self.task.glue:
      text_of = dict(zip(references, texts))
      results.update(seq2seq.glue_metrics(
          self.task, split, self.data.data_dir,
          [text_of[example.source] for example in examples]))
    return results

  def predict(self, split, weights):
    """Generates for one split: predictions<suffix>.txt has a text for each row,
    predictions<suffix>.jsonl its score, too."""
    if not self.group.is_chief:
      return
    sources = [example.source for example in self.data.examples(split)]
    different = list(dict.fromkeys(sources))
    found = dict(zip(different, self.generate(different, weights,
                                              self.predict_batch_size)))
    path = os.path.join(self.output_dir, "predictions%s." % split.suffix)
    # A text is one line there, whatever was generated.
    files.write_atomically(path + "txt", [
        " ".join(found[source][0].split("\n")) + "\n" for source in sources])
    files.write_atomically(path + "jsonl", [json.dumps(
        {"source": source, "text": found[source][0],
         "score": float("%.9g" % found[source][1])},
        ensure_ascii=False) + "\n" for source in sources])
    logging.info("generated for %d rows: %stxt, %sjsonl", len(sources), path,
                 path)

  def generate(self, sources, weights, batch_size):
    """What the model makes of texts.

    Args:
      sources: list of n str.
      weights: weights.Weights, with all that the model needs.
      batch_size: int.

    Returns: list of n (str, the best text; float, its score).
    """
    trained = {name: weights.value(name) for name in weights.shapes
               if weights.is_overlaid(name) and names.is_model_variable(name)}
    task = generator.Task("", str(weights), self.model.stored_in(trained),
                          trained)
    prompts = [self.data.encoder.encode(seq2seq.TextExample("", text, None))[0]
               for text in sources]
    found = [None] * len(prompts)
    # Rows of like lengths beside each other; the longest first, which needs the
    # most memory.
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    model = self.loaded.of(task)
    began = last = time.monotonic()
    for start in range(0, len(order), batch_size):
      rows = order[start:start + batch_size]
      # A sample depends on its row alone, not on the batch.
      for row, results in zip(rows, model.run(
          0, [prompts[i] for i in rows], [(self.seed, i) for i in rows])):
        found[row] = (self.data.encoder.target_tokenizer.decode(
            results[0].ids), results[0].score)
      done, now = start + len(rows), time.monotonic()
      if now - last > _REPORT_SECONDS:
        last = now
        logging.info("generated %d of %d, %s left", done, len(order),
                     reports.duration((len(order) - done) / done *
                                      (now - began)))
    return found
