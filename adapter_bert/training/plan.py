"""What a run is going to do, decided and checked before anything is written.

A run goes one way:

    settings.RunConfig  -> inputs.read -> Inputs: task, tokenizer, model
    Inputs, output_dir  -> make        -> Plan
    Plan                -> the work: training, evaluation, prediction, export

What can be refused is refused here. The work has the Plan alone, and asks no
settings.
"""

import contextlib
import dataclasses
import functools
import os
from typing import Any, Callable, List, Optional

from absl import logging

from adapter_bert import names
from adapter_bert import settings
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
from adapter_bert.training import best
from adapter_bert.training import loop
from adapter_bert.training import specs

# Under output_dir: the task checkpoint of the last step.
TASK = "task"


@dataclasses.dataclass(frozen=True)
class Data(object):
  """Where a run's examples come from, and how they are tokenized."""
  task: tasks.Task
  data_dir: str
  tokenizer: Any
  max_seq_length: int
  output_dir: str
  workers: int

  def records(self, split, group):
    """The split's RecordSet; of several processes the chief makes it."""
    inputs = (self.task, split, self.data_dir, self.tokenizer,
              self.max_seq_length)
    made = []

    def directory():
      made.append(tfrecords.prepare(*inputs, self.output_dir,
                                    workers=self.workers))
      return os.path.dirname(made[0].paths[0])

    shared = group.shared_path(self.output_dir, directory,
                               os.sep + tfrecords.INDEX)
    return made[0] if made else tfrecords.prepared_elsewhere(*inputs, shared)


@dataclasses.dataclass(frozen=True)
class Training(object):
  """What is to be trained, and how.

  weights: weights_lib.Weights to start from; None: random ones.
  spec: loop.TrainSpec, except for the numbers of steps.
  num_epochs, warmup_proportion: floats; with the number of examples they give
    the numbers of steps.
  save_best: bool. patience: int, see best.KeepBest.
  """
  weights: Optional[weights_lib.Weights]
  spec: loop.TrainSpec
  num_epochs: float
  warmup_proportion: float
  save_best: bool
  patience: int

  def spec_for(self, num_examples):
    """The loop.TrainSpec for a number of examples.

    Raises: InputError if they make no step.
    """
    batch_size = self.spec.batch_size
    steps = int(num_examples / batch_size * self.num_epochs)
    if steps < 1:
      raise errors.InputError(
          "%d examples, %g epochs and a batch of %d make no full step; lower "
          "train_batch_size or raise num_train_epochs" %
          (num_examples, self.num_epochs, batch_size))
    return dataclasses.replace(
        self.spec, num_train_steps=steps,
        num_warmup_steps=int(steps * self.warmup_proportion))


@dataclasses.dataclass(frozen=True)
class Plan(object):
  """What a run does.

  data: where the examples come from.
  task, model: what it is about.
  output_dir: str.
  group: distribution.Group, what it is computed on.
  record: dict, what run.json is to hold.
  found: dict or None, the run.json of the run that goes on.
  init_shared_from: see matching.match.
  open_weights: function of a checkpoint's prefix that gives its Weights, on top
    of what the run started from.
  training: Training, or None.
  evaluated, predicted: lists of tasks.Split.
  export_prefix: str, where the whole model is written to; None: nowhere.
  weights: weights_lib.Weights to evaluate; None before they are trained.
  find_weights: function that finds them after the training.
  eval_batch_size, predict_batch_size, seed: ints.
  """
  data: Data
  task: tasks.Task
  model: specs.ClassifierSpec
  output_dir: str
  group: Any
  record: dict
  found: Optional[dict]
  init_shared_from: Optional[str]
  open_weights: Callable[[str], weights_lib.Weights]
  training: Optional[Training]
  evaluated: List[tasks.Split]
  predicted: List[tasks.Split]
  export_prefix: Optional[str]
  weights: Optional[weights_lib.Weights]
  find_weights: Callable[[], weights_lib.Weights]
  eval_batch_size: int
  predict_batch_size: int
  seed: int

  @property
  def needs_weights(self):
    """Whether something is done beside the training."""
    return bool(self.evaluated or self.predicted or self.export_prefix)

  def records(self):
    """{split.name: RecordSet} of all examples that the work will need.

    All of them before the work: a bad row of the test file is not to be found
    after hours of training. They are kept in output_dir.

    Raises: InputError for a row that cannot be used.
    """
    splits = list(self.evaluated) + list(self.predicted)
    if self.training:
      splits.insert(0, self.task.train)
      if self.training.save_best and not self.evaluated:
        splits.append(self.task.dev[0])
    return {split.name: self.data.records(split, self.group)
            for split in splits}


def make(config, inputs, group):
  """The Plan of a run.

  Args:
    config: settings.RunConfig.
    inputs: inputs.Inputs, read from it.
    group: distribution.Group.

  Raises: InputError, one line, for what cannot be done.
  """
  check_batch(config, group)
  found, goes_on = group.decide("the run in output_dir",
                                lambda: run_in(config.output_dir))
  record = _checked_record(config, inputs.record, found)
  record["schedule"]["replicas"] = group.num_replicas
  check_goes_on(config, found, goes_on)
  if config.init_checkpoint:
    weights_lib.find(config.init_checkpoint)  # Also where it is not used.
  training = weights = None
  find_weights = lambda: _weights_to_evaluate(config, inputs, group)
  if config.do_train:
    start, record["base"] = _starting_weights(config, inputs, found, record)
    group.same({"init_checkpoint (its digest)":
                    (record["base"] or {}).get("sha256")})
    training = training_of(config, start)
  else:
    weights = find_weights()
  plan = Plan(
      data=Data(inputs.task, config.data_dir, inputs.tokenizer,
                config.max_seq_length, config.output_dir,
                config.tokenize_workers),
      task=inputs.task, model=inputs.model, output_dir=config.output_dir,
      group=group, record=record, found=found,
      init_shared_from=record["init_shared_from"],
      open_weights=functools.partial(weights_lib.Weights.open,
                                     base=config.init_checkpoint),
      training=training,
      evaluated=list(inputs.task.dev) if config.do_eval else [],
      predicted=list(inputs.task.test) if config.do_predict else [],
      export_prefix=config.export_full_checkpoint, weights=weights,
      find_weights=find_weights, eval_batch_size=config.eval_batch_size,
      predict_batch_size=config.predict_batch_size, seed=config.seed)
  check_export(plan.export_prefix, weights or training.weights)
  return plan


def check_goes_on(config, found, goes_on):
  """Raises InputError if a finished run is to be trained that kept no training
  checkpoint; `found` and `goes_on` are what `run_in` gave."""
  if config.do_train and found and not goes_on:
    raise errors.InputError(
        "output_dir %s has the task checkpoint of a finished run, and no "
        "training checkpoint to go on from; leave out do_train, or give another "
        "output_dir" % config.output_dir)


def check_batch(config, group):
  """Raises InputError if a batch has less than an example for each device."""
  if config.do_train and config.train_batch_size < group.num_replicas:
    raise errors.InputError(
        "train_batch_size is %d, over all devices, and there are %d devices; "
        "give at least one example to each" %
        (config.train_batch_size, group.num_replicas))


def check_export(prefix, weights):
  """Raises InputError if an export would replace what is exported."""
  if prefix and weights and files.real(prefix) in map(files.real,
                                                       weights.prefixes):
    raise errors.InputError(
        "export_full_checkpoint is %s, which is what is exported; give "
        "another prefix" % prefix)


def training_of(config, weights):
  """The Training that a config asks for, from the weights."""
  spec = loop.TrainSpec(
      num_train_steps=0,
      learning_rate=config.learning_rate,
      batch_size=config.train_batch_size,
      seed=config.seed,
      bucket_window=config.bucket_window,
      compile_chains=config.compile_chains,
      save_checkpoints_steps=config.save_checkpoints_steps,
      save_checkpoints_secs=config.save_checkpoints_secs,
      keep_checkpoint_max=config.keep_checkpoint_max)
  return Training(weights, spec, config.num_train_epochs,
                  config.warmup_proportion, config.save_best,
                  config.early_stopping)


@contextlib.contextmanager
def alone(config, group):
  """Inside, no other run trains in the same output_dir.

  Evaluating a training that is under way is fine.

  Raises: InputError if another one trains there, naming it.
  """
  if not (config.do_train and group.is_chief):
    yield
    return
  with files.locked(config.output_dir):
    files.remove_litter(config.output_dir, alone=True)
    yield


# ------------------------------------------- which run an output_dir belongs to


def run_in(output_dir):
  """What output_dir has been used for so far.

  Returns: (dict, its run.json, or None; whether there is a training checkpoint
    to go on from). A run that has saved nothing leaves nothing to keep.
  """
  newest = weights_lib.newest_readable(output_dir)
  # A sweep leaves the task checkpoint alone.
  path = newest or task_checkpoint_in(output_dir, TASK)
  record = path and run_record.read(os.path.dirname(path))
  return record, bool(newest)


def task_checkpoint_in(output_dir, name):
  """The prefix of the task checkpoint of that name, or None."""
  # The second one if a kill came while it was being replaced.
  for directory in (name, name + ".old"):
    prefix = os.path.join(output_dir, directory, weights_lib.CHECKPOINT_NAME)
    if files.is_file(prefix + ".index"):
      return prefix
  return None


def gone_on_with(config, found):
  """What a run has to fit: a list of (run.json's dict or None, what that is,
  what to give instead), the last two for run_record.check_same_run.

  Args:
    config: the settings of a run.
    found: dict or None, the run.json in output_dir.
  """
  others = [(found, "output_dir %s holds another run" % config.output_dir,
             "another output_dir")]
  if config.task_checkpoint:
    prefix = weights_lib.find(config.task_checkpoint)
    others.append((run_record.read(os.path.dirname(prefix)),
                   "task_checkpoint %s is of another run" % prefix,
                   "the flags that it was trained with"))
  return others


def kept_in(config):
  """The prefix of the checkpoint in output_dir that counts, or None: the best
  with save_best, else the newest, else the task checkpoint."""
  kept = config.save_best and task_checkpoint_in(config.output_dir, best.BEST)
  return (kept or weights_lib.newest_readable(config.output_dir) or
          task_checkpoint_in(config.output_dir, TASK))


def _checked_record(config, record, found):
  """What run.json is to hold, compared with the runs that are gone on with.

  Args:
    config: settings.RunConfig.
    record: dict, from the settings.
    found: dict or None, the run.json in output_dir.

  Raises: InputError if one of them is of another run.
  """
  record = dict(record, schedule=dict(record["schedule"]))
  for other, what, give in gone_on_with(config, found):
    if other and record["init_shared_from"] is None:
      # Where the frozen layers came from does not have to be said again.
      record["init_shared_from"] = other.get("init_shared_from")
    run_record.check_same_run(
        other, record, ["bert_config", "num_labels"] + settings.recorded("run"),
        what, give, config.do_train)
  return record


# ----------------------------------------------------------------- the weights


def _open_base(config, inputs):
  """The weights at init_checkpoint, with the head of a classifier if it fits.

  Returns: (weights_lib.Weights, what run.json says of them).
  """
  path, rows = config.init_checkpoint, None
  if hf_bert.is_dir(path):
    labels = None if inputs.task.is_regression else list(inputs.task.labels)
    rows = hf_bert.head_rows(path, labels, config.head_labels)
  elif config.head_labels:
    raise errors.InputError(
        "head_labels is given, and init_checkpoint %s is no Hugging Face "
        "directory, whose classifier it could describe" % path)
  weights = weights_lib.Weights.open(path, head_rows=rows)
  base = run_record.describe_base(weights, path)
  if rows is not None:
    base["head"] = rows
  return _with_pooler(weights, inputs.model), base


def _with_pooler(weights, model):
  """A base's weights, without its pooler if the model has a new one."""
  if model.fresh_pooler:
    return weights.without(names.is_pooler)
  if weights.has_untrained_pooler():
    logging.warning("%s", weights_lib.UNTRAINED_POOLER % weights)
  return weights


def _starting_weights(config, inputs, found, record):
  """What training starts from.

  Returns: (weights_lib.Weights, what run.json says of them), or (None, None).
  """
  known = run_record.base_of(found)
  if found and not known:
    _check_without_base(config, found)
  if not config.init_checkpoint and not known:
    if record["init_shared_from"]:
      raise errors.InputError(
          "init_shared_from=%s, but init_checkpoint is not given: there are no "
          "layers to start from" % record["init_shared_from"])
    return None, None
  if not known:
    return _open_base(config, inputs)
  weights = weights_lib.find_base(
      known, config.init_checkpoint,
      "the run in %s started from" % config.output_dir)
  return _with_pooler(weights, inputs.model), dict(
      known, path=files.absolute(config.init_checkpoint or known["path"]))


def _check_without_base(config, found):
  """Refuses what cannot go on from random frozen weights of a run's own."""
  if config.init_checkpoint:
    raise errors.InputError(
        "the run in %s started without init_checkpoint, and now it is %s; give "
        "another output_dir" % (config.output_dir, config.init_checkpoint))
  precision = found.get("schedule", {}).get("precision")
  if precision and precision != config.precision:
    raise errors.InputError(
        "the run in %s has frozen weights of its own, in %s, and precision is "
        "%s; give that one, or another output_dir" %
        (config.output_dir, precision, config.precision))


def _weights_to_evaluate(config, inputs, group):
  """The Weights to evaluate: the first there is of task_checkpoint, what is
  `kept_in` output_dir, and init_checkpoint."""
  path = config.task_checkpoint or group.shared_path(
      config.output_dir, lambda: kept_in(config), ".index")
  if path:
    weights = weights_lib.Weights.open(path, base=config.init_checkpoint,
                                       force_base=config.force_base)
  elif config.init_checkpoint:
    weights, _ = _open_base(config, inputs)
  else:
    raise errors.InputError(
        "%s has no checkpoint, and init_checkpoint is not given: there is "
        "nothing to evaluate" % config.output_dir)
  if group.num_workers > 1:
    group.same({"the weights to evaluate (their digest)":
                    weights.full_digest()})
  return weights
