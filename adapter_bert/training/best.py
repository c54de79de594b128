"""The best checkpoint of a run by its score on dev, kept while it trains."""

import os

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import task as task_lib
from adapter_bert.checkpoints import weights as weights_lib

# Under output_dir: the task checkpoint of the best step, and the dev scores
# that decide which that is.
BEST, DEV_SCORES = "best", "dev_scores.json"


class KeepBest(object):
  """Scores each checkpoint and keeps the best one as a task checkpoint.

  A listener of loop.train. The scores are on disk, so that a run that is killed
  goes on with them.

  Args:
    output_dir: str, the run's.
    score: function of weights_lib.Weights that gives a dict of metric name ->
      float, with "global_step".
    metric: str, the key of that dict that decides.
    best_of: function, `max` or `min`.
    patience: int; stop after this many scores without a better one; 0: never.
    open_weights: function of a checkpoint's prefix that gives its
      weights_lib.Weights; None: those in it and the base that its run.json names.
  """

  def __init__(self, output_dir, score, metric, best_of, patience=0,
               open_weights=None):
    self._output_dir = output_dir
    self._score = score
    self._metric = metric
    self._best_of = best_of
    self._patience = patience
    self._open_weights = open_weights or weights_lib.Weights.open
    self._path = os.path.join(output_dir, DEV_SCORES)
    self._best = os.path.join(output_dir, BEST)
    files.recover_directory(self._best)

  def catch_up(self):
    """Scores the newest checkpoint if a kill came before its score."""
    newest = weights_lib.newest_readable(self._output_dir)
    if not newest:
      # What is left of another run says nothing of this one.
      files.remove_file(self._path)
      return
    step = weights_lib.step_of(newest)
    if step not in [step_ for step_, _ in self._read()]:
      self.after_save(None, step)

  def after_save(self, session, step):
    """Scores the checkpoint of a step; returns whether to stop."""
    del session
    scores = [pair for pair in self._read() if pair[0] < step]
    if not scores:
      files.remove_directory(self._best)  # of an earlier run
    results = self._score(self._open_weights(
        weights_lib.newest_readable(self._output_dir)))
    score = results[self._metric]
    # The best one's own record, not the list: a kill can come between the two.
    best = self._recorded().get(self._metric)
    scores.append((int(step), score))
    is_best = best is None or (
        score != best and score == self._best_of(score, best))
    logging.info("step %d: %s %.4f%s", step, self._metric, score,
                 ", the best so far" if is_best else "")
    if is_best:
      task_lib.write(self._best, self._output_dir, {"dev": results})
    files.write_json(self._path, scores)
    return self.has_stopped()

  def has_stopped(self):
    """Whether `patience` evaluations brought nothing better."""
    scores = [score for _, score in self._read()]
    since = 0
    if scores:
      since = len(scores) - 1 - scores.index(self._best_of(scores))
    if not self._patience or since < self._patience:
      return False
    logging.info("no better score in %d evaluations: stopping early", since)
    return True

  def _recorded(self):
    """The best one's results, as its own run.json has them: a dict."""
    return (run_record.read(self._best) or {}).get("dev", {})

  def _read(self):
    """The scores so far: a list of (step, score)."""
    try:
      return files.read_json(self._path, [(int, float)], missing_ok=True) or []
    except errors.InputError as error:
      # The best one's own record has its score; the others are lost.
      dev = self._recorded()
      logging.warning("%s; going on with the best one's score alone", error)
      return [(dev["global_step"], dev[self._metric])] if dev else []
