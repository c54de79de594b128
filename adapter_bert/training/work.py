"""The training of a run, once its plan is made: the same for every model."""

import dataclasses
import os

from absl import logging

from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import task as task_lib
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.training import best
from adapter_bert.training import loop
from adapter_bert.training import plan as plan_lib


def train(plan, evaluation):
  """Trains and writes the task checkpoint.

  Args:
    plan: plan.Plan.
    evaluation: evaluation.Evaluation, or another with its methods; it has the
      examples, too.
  """
  group, output_dir = plan.group, plan.output_dir
  records = evaluation.records[plan.task.train.name]
  spec = plan.training.spec_for(records.num_examples)
  logging.info("training: %d examples, %d steps of %d on %d device(s)",
               records.num_examples, spec.num_train_steps, spec.batch_size,
               group.num_replicas)
  if group.is_chief:
    record_run(plan, spec)
  listeners = []
  if plan.training.save_best and group.is_chief:
    listeners = [keep_best(plan, evaluation)]
  if not group.decide("stopped early", lambda: any(
      listener.has_stopped() for listener in listeners)):
    loop.train(plan.model, spec, records, plan.training.weights, output_dir,
               group, init_shared_from=plan.init_shared_from,
               listeners=listeners)
  if group.is_chief:
    task = os.path.join(output_dir, plan_lib.TASK)
    size = task_lib.write(task, output_dir)
    run_record.write(output_dir, run_record.read(task))
    logging.info("task checkpoint: %s, %.1f MB", task, size / 1e6)


def record_run(plan, spec):
  """Writes run.json, unless the run there is finished: it has what was used."""
  is_finished = bool(plan.found) and weights_lib.step_of(
      weights_lib.newest_readable(plan.output_dir)) >= spec.num_train_steps
  run_record.log_changes(plan.found, plan.record, is_finished)
  if not is_finished:
    run_record.write(plan.output_dir, plan.record)


def keep_best(plan, evaluation):
  """The best.KeepBest of a run, on the first dev file; up to date."""
  split, (metric, best_of) = plan.task.dev[0], evaluation.main_metric
  chief_alone = dataclasses.replace(evaluation, group=plan.group.alone())
  listener = best.KeepBest(
      plan.output_dir, lambda weights: chief_alone.score(split, weights),
      metric, best_of, plan.training.patience, plan.open_weights)
  listener.catch_up()
  return listener
