"""Adapter-tunes BERT on a GLUE task, evaluates it and predicts.

    python run_classifier.py --task_name=MRPC --do_train --do_eval \\
      --data_dir=$GLUE_DIR/MRPC \\
      --vocab_file=$BERT_BASE_DIR/vocab.txt \\
      --bert_config_file=$BERT_BASE_DIR/bert_config.json \\
      --init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt \\
      --learning_rate=3e-4 --num_train_epochs=5 --output_dir=/tmp/mrpc

Run again with the same output_dir, it goes on from the newest checkpoint.
Results are in output_dir: eval_results.txt, test_results.tsv, the GLUE
submission file, checkpoints and TensorBoard events. docs/outputs.md lists them all.
"""

import contextlib
import dataclasses
import hashlib
import os
import platform
import shutil
import time

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import checkpoints
from adapter_bert.checkpoints import record as run_record
from adapter_bert.distributed import heartbeats
from adapter_bert.distributed import meeting as meeting_lib
from adapter_bert.distributed import devices as distribution
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.base import flags as flags_lib
from adapter_bert.data import datasets
from adapter_bert.data import features
from adapter_bert.data import metrics
from adapter_bert.data import reading
from adapter_bert.data import scoring
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
import modeling
import optimization
from adapter_bert import settings
import tokenization
from adapter_bert.training import loop as training
from adapter_bert.training.loop import create_model  # pylint: disable=unused-import

FLAGS = flags.FLAGS

# Under output_dir: the task checkpoints of the last step and of the best one,
# and the dev scores that decide which that is.
TASK, BEST, DEV_SCORES = "task", "best", "dev_scores.json"

def define_flags(flag_values=FLAGS):
  """A flag for each setting of a run, and the reference's TPU flags."""
  _, required = settings.PROGRAMS["run_classifier"]
  flags_lib.define(settings.of_program("run_classifier"), required, flag_values)


def config_from_flags(flag_values=FLAGS):
  """The RunConfig that the command line gives.

  Raises: InputError for a flag that cannot do what it says.
  """
  if flag_values.use_tpu:
    raise errors.InputError(
        "use_tpu=true, but TPUs are not supported: looked for %s and would not "
        "know how to use it; drop the flag to train on this machine" %
        ("tpu_name=%s" % flag_values.tpu_name if flag_values.tpu_name else
         "a TPU"))
  for setting in settings.TPU:
    if setting.name != "use_tpu" and flag_values[setting.name].present:
      logging.warning("--%s=%s has no effect: there is no TPU here, and steps "
                      "run one by one", setting.name,
                      flag_values[setting.name].value)
  return settings.RunConfig(**flags_lib.values(settings.RUN, flag_values))


# ------------------------------------------------------------ before the work


@dataclasses.dataclass
class Setup(object):
  """What a RunConfig names, read and checked."""
  task: tasks.Task
  tokenizer: tokenization.FullTokenizer
  model: training.ModelSpec
  record: dict  # what run.json is to hold


def set_up(config):
  """Reads and checks what the config names, before anything is written.

  Returns: Setup.

  Raises: InputError.
  """
  task = _task(config)
  check_actions(config, task)
  features.check_room(config.max_seq_length, task.is_pair)
  bert_config = _bert_config(config)
  tokenizer = load_tokenizer(config.vocab_file, config.do_lower_case,
                             config.init_checkpoint, bert_config,
                             config.bert_config_file)
  model = training.ModelSpec(
      bert_config=bert_config, num_labels=task.num_labels,
      is_regression=task.is_regression, adapter_size=config.adapter_size,
      adapter_init_scale=config.adapter_init_scale,
      adapter_layers=_layer_list(config.adapter_layers,
                                 bert_config.num_hidden_layers),
      tune=config.tune, top_n_layers=config.top_n_layers,
      precision=config.precision)
  with errors.reported():
    _check_tuning(model)
  return Setup(task, tokenizer, model, _record(config, task, model))


def load_tokenizer(vocab_file, do_lower_case, init_checkpoint, bert_config,
                   config_path):
  """The tokenizer, checked against the model that reads its ids.

  Args:
    vocab_file, do_lower_case, init_checkpoint: as in RunConfig.
    bert_config: modeling.BertConfig.
    config_path: str, where it comes from, for messages.

  Raises: InputError.
  """
  with errors.reported():
    tokenization.validate_case_matches_checkpoint(do_lower_case,
                                                  init_checkpoint)
    tokenizer = tokenization.FullTokenizer(vocab_file, do_lower_case)
  if len(tokenizer.vocab) > bert_config.vocab_size:
    raise errors.InputError(
        "%s has %d words and the model %d (vocab_size in %s); give the "
        "vocabulary that the model was trained with" %
        (vocab_file, len(tokenizer.vocab), bert_config.vocab_size,
         config_path))
  return tokenizer


def check_length(max_seq_length, bert_config, config_path):
  """Raises InputError if the model has fewer positions than max_seq_length."""
  if max_seq_length > bert_config.max_position_embeddings:
    raise errors.InputError(
        "max_seq_length is %d and the model has %d positions "
        "(max_position_embeddings in %s); give at most that" %
        (max_seq_length, bert_config.max_position_embeddings, config_path))


def _task(config):
  if config.task_spec:
    task = task_specs.load_task_spec(config.task_spec)
    if config.task_name and config.task_name.lower() != task.name:
      raise errors.InputError(
          "task_name is %s and task_spec describes %s; give one of them" %
          (config.task_name, task.name))
    return task
  if not config.task_name:
    raise errors.InputError("neither task_name nor task_spec is given; tasks "
                            "are %s" % ", ".join(tasks.TASKS))
  return tasks.get_task(config.task_name)


def _layer_list(text, num_hidden_layers):
  """"6-11" or "0,2,4-5" -> a sorted list of layers; None stays None."""
  if text is None:
    return None
  layers = settings.layers_of(text)
  if layers[-1] >= num_hidden_layers:
    raise errors.InputError(
        "adapter_layers is %s; the model's layers are 0 to %d" %
        (text, num_hidden_layers - 1))
  return layers


def _check_tuning(model):
  """Raises ValueError for a method that is unknown or does not fit."""
  if not model.tuning.uses_adapters and model.adapter_layers is not None:
    raise ValueError("adapter_layers is given, but the tuning method is %s, "
                     "which has no adapters" % model.tune)
  if model.tune == "top_n" and model.bert_config.share_parameter_across_layers:
    raise ValueError("tune=top_n needs layers of their own, and the model's "
                     "layers share their weights")


def check_actions(config, task):
  """Raises InputError if there is nothing to do, or it cannot be done."""
  if not (config.do_train or config.do_eval or config.do_predict or
          config.export_full_checkpoint):
    raise errors.InputError("nothing to do: give at least one of --do_train, "
                            "--do_eval, --do_predict and "
                            "--export_full_checkpoint")
  for wanted, splits, flag in ((config.do_train, task.train, "do_train"),
                               (config.do_eval, task.dev, "do_eval"),
                               (config.do_predict, task.test, "do_predict")):
    if wanted and not splits:
      raise errors.InputError(
          "--%s: the task %s has no file for that%s" %
          (flag, task.display_name,
           "; it is predicted from the output_dir of an MNLI run"
           if task.name == "ax" else ""))
  path = config.export_full_checkpoint
  if path and (not os.path.basename(path) or os.path.isdir(path)):
    raise errors.InputError(
        "export_full_checkpoint is %s, a directory; give a prefix in it, such "
        "as %s" % (path, os.path.join(path, "bert_model.ckpt")))
  if config.do_train and not config.num_train_epochs:
    raise errors.InputError("num_train_epochs is 0, so there is nothing to "
                            "train; leave out do_train")
  if config.do_train and config.task_checkpoint:
    raise errors.InputError(
        "task_checkpoint is evaluated and predicted with; to train on from it, "
        "give it as --init_checkpoint")
  if config.save_best and not task.dev:
    raise errors.InputError("save_best needs a dev file, and %s has none" %
                            task.display_name)
  if config.early_stopping and not config.save_best:
    raise errors.InputError("early_stopping is %d, but save_best is not set" %
                            config.early_stopping)
  distribution.check(config.distribution, config.start_timeout,
                     config.heartbeat_timeout)


def _bert_config(config):
  """The model's BertConfig, the sharing flags put over the file's keys."""
  with errors.reported():
    values = modeling.BertConfig.from_json_file(
        config.bert_config_file).to_dict()
    for key in ("share_parameter_across_layers", "layers_per_group",
                "share_adapters"):
      if getattr(config, key) is not None:
        values[key] = getattr(config, key)
    bert_config = modeling.BertConfig.from_dict(values)
  check_length(config.max_seq_length, bert_config, config.bert_config_file)
  return bert_config


# ------------------------------------------- which run an output_dir belongs to

def _record(config, task, model):
  """What run.json holds: enough to evaluate, and to refuse another run."""
  return dict(
      training.describe_model(model),
      task=task_specs.task_to_dict(task),
      init_shared_from=config.init_shared_from,
      do_lower_case=config.do_lower_case,
      schedule={name: getattr(config, name)
                for name in settings.recorded("schedule")},
      versions={"tensorflow": tf.__version__, "numpy": np.__version__,
                "python": platform.python_version()},
      base=None)


def _starting_weights(config, found, record):
  """The Weights that training starts from, or None; fills record["base"]."""
  known = run_record.base_of(found, config.output_dir)
  if found and not known:
    _check_without_base(config, found)
  if not config.init_checkpoint and not known:
    if config.init_shared_from:
      raise errors.InputError(
          "init_shared_from=%s, but init_checkpoint is not given: there are no "
          "layers to start from" % config.init_shared_from)
    return None
  if known:
    weights = checkpoints.find_base(
        known, config.init_checkpoint,
        "the run in %s started from" % config.output_dir)
    record["base"] = dict(
        known, path=os.path.abspath(config.init_checkpoint or known["path"]))
    return weights
  weights = checkpoints.Weights.open(config.init_checkpoint)
  record["base"] = run_record.describe_base(weights, config.init_checkpoint)
  return weights


def _check_without_base(config, found):
  """Refuses what cannot go on from random frozen weights of a run's own."""
  if config.init_checkpoint:
    raise errors.InputError(
        "the run in %s started without init_checkpoint, and now it is %s; give "
        "another output_dir" % (config.output_dir, config.init_checkpoint))
  precision = found["schedule"]["precision"]
  if precision != config.precision:
    raise errors.InputError(
        "the run in %s has frozen weights of its own, in %s, and precision is "
        "%s; give that one, or another output_dir" %
        (config.output_dir, precision, config.precision))


def _task_checkpoint_in(output_dir, name):
  """The prefix of the task checkpoint of that name, or None."""
  # The second one if a kill came while it was being replaced.
  for directory in (name, name + ".old"):
    prefix = os.path.join(output_dir, directory, checkpoints.CHECKPOINT_NAME)
    if os.path.isfile(prefix + ".index"):
      return prefix
  return None


def _run_in(output_dir):
  """What output_dir has been used for so far.

  Returns: (dict, its run.json, or None; whether there is a training checkpoint
    to go on from). A run that has saved nothing leaves nothing to keep.
  """
  newest = checkpoints.newest(output_dir)
  # A sweep leaves the task checkpoint alone.
  path = newest or _task_checkpoint_in(output_dir, TASK)
  record = path and run_record.read(os.path.dirname(path))
  return record, bool(newest)


def trained_weights(config, group):
  """The Weights to evaluate: the first there is of task_checkpoint, the best
  with save_best, the newest in output_dir, the task checkpoint in it, and
  init_checkpoint."""

  def in_output_dir():
    best = config.save_best and _task_checkpoint_in(config.output_dir, BEST)
    return (best or checkpoints.newest(config.output_dir) or
            _task_checkpoint_in(config.output_dir, TASK))

  path = config.task_checkpoint or group.shared_path(
      config.output_dir, in_output_dir, ".index")
  if path:
    weights = checkpoints.Weights.open(path, base=config.init_checkpoint,
                                       force_base=config.force_base)
  elif config.init_checkpoint:
    weights = checkpoints.Weights.open(config.init_checkpoint)
  else:
    raise errors.InputError(
        "%s has no checkpoint, and init_checkpoint is not given: there is "
        "nothing to evaluate" % config.output_dir)
  if group.num_workers > 1:
    group.same({"the weights to evaluate (their digest)":
                    weights.full_digest()})
  return weights


# ------------------------------------------------------------------- the work


def run(config):
  """Does what the config says.

  Returns: dict, the evaluation's results by split name ("dev", "dev_mm"); empty
    in a process that is not the chief.

  Raises: InputError.
  """
  with distribution.joined(
      config.distribution, config.output_dir, config.start_timeout,
      config.heartbeat_timeout) as meeting:
    setup = set_up(config)
    group = distribution.group_of(config.distribution, meeting, config.devices,
                                  _in_common(config, setup))
    if config.do_train and config.train_batch_size < group.num_replicas:
      raise errors.InputError(
          "train_batch_size is %d, over all devices, and there are %d devices; "
          "give at least one example to each" %
          (config.train_batch_size, group.num_replicas))
    setup.record["schedule"]["replicas"] = group.num_replicas
    with contextlib.ExitStack() as stack:
      if config.do_train and group.is_chief:
        stack.enter_context(files.locked(config.output_dir))
        files.remove_litter(config.output_dir, alone=True)
      return _work(config, setup, group)


def _in_common(config, setup):
  """What all processes of a run must agree in, a dict."""
  code = hashlib.sha256()
  modules = (checkpoints, datasets, distribution, features, heartbeats,
             meeting_lib, metrics, reading, scoring, task_specs, tasks, tfrecords,
             modeling, optimization, tokenization, training)
  for path in [__file__] + [module.__file__ for module in modules]:
    with open(path, "rb") as source:
      code.update(source.read())
  words = hashlib.sha256("\n".join(setup.tokenizer.vocab).encode("utf-8"))
  return dict(
      settings.agreed(config),
      bert_config=setup.record["bert_config"], task=setup.record["task"],
      vocabulary=words.hexdigest()[:12], code=code.hexdigest()[:12],
      tensorflow=tf.__version__)


def _work(config, setup, group):
  """Checks the output_dir, then trains, evaluates and predicts; as `run`."""
  found, goes_on = group.decide("the run in output_dir",
                                lambda: _run_in(config.output_dir))
  records = [(found, "output_dir %s holds another run" % config.output_dir,
              "another output_dir")]
  if config.task_checkpoint:
    prefix = checkpoints.find(config.task_checkpoint)
    records.append((run_record.read(os.path.dirname(prefix)),
                    "task_checkpoint %s is of another run" % prefix,
                    "the flags that it was trained with"))
  for record, what, give in records:
    if record and config.init_shared_from is None:
      # Where the frozen layers came from does not have to be said again.
      config = dataclasses.replace(
          config, init_shared_from=record.get("init_shared_from"))
      setup.record["init_shared_from"] = config.init_shared_from
    run_record.check_same_run(record, setup.record, settings.recorded("run"),
                              what, give, config.do_train)
  if config.do_train and found and not goes_on:
    raise errors.InputError(
        "output_dir %s has the task checkpoint of a finished run, and no "
        "training checkpoint to go on from; leave out do_train, or give another "
        "output_dir" % config.output_dir)
  if config.init_checkpoint:
    checkpoints.find(config.init_checkpoint)  # before minutes of tokenizing
  # All of the data before the work: a bad row of the test file is not to be
  # found after hours of training.
  for wanted, splits in ((config.do_train, [setup.task.train]),
                         (config.do_eval, setup.task.dev),
                         (config.do_train and config.save_best,
                          setup.task.dev[:1]),
                         (config.do_predict, setup.task.test)):
    for split in splits if wanted else ():
      _prepare(config, setup, split, group)
  if config.do_train:
    train(config, setup, found, group)
  results = {}
  if config.do_eval or config.do_predict or config.export_full_checkpoint:
    weights = trained_weights(config, group)
    if config.export_full_checkpoint and group.is_chief:
      _export(config, setup, weights)
    if config.do_eval:
      for split in setup.task.dev:
        results[split.name] = evaluate(config, setup, split, weights, group)
    if config.do_predict:
      for split in setup.task.test:
        predict(config, setup, split, weights, group)
  return results if group.is_chief else {}


def _export(config, setup, weights):
  path = os.path.realpath(config.export_full_checkpoint)
  if path in map(os.path.realpath, weights.prefixes):
    raise errors.InputError(
        "export_full_checkpoint is %s, which is what is exported; give "
        "another prefix" % config.export_full_checkpoint)
  training.export(setup.model, weights, config.export_full_checkpoint,
                  config.init_shared_from)
  logging.info("the whole model: %s", config.export_full_checkpoint)


def _prepare(config, setup, split, group):
  """The split's RecordSet; of several processes the chief makes it."""
  inputs = (setup.task, split, config.data_dir, setup.tokenizer,
            config.max_seq_length)
  made = []

  def directory():
    made.append(tfrecords.prepare(*inputs, config.output_dir,
                                       workers=config.tokenize_workers))
    return os.path.dirname(made[0].paths[0])

  shared = group.shared_path(config.output_dir, directory,
                             os.sep + tfrecords.INDEX)
  return made[0] if made else tfrecords.prepared_elsewhere(*inputs, shared)


def train(config, setup, found, group):
  """Trains; `found` is the output_dir's run.json as it was, or None."""
  weights = _starting_weights(config, found, setup.record)
  group.same({"init_checkpoint (its digest)":
                  (setup.record["base"] or {}).get("sha256")})
  records = _prepare(config, setup, setup.task.train, group)
  num_train_steps = int(
      records.num_examples / config.train_batch_size * config.num_train_epochs)
  if num_train_steps < 1:
    raise errors.InputError(
        "%d examples, %g epochs and a batch of %d make no full step; lower "
        "train_batch_size or raise num_train_epochs" %
        (records.num_examples, config.num_train_epochs,
         config.train_batch_size))
  logging.info("training: %d examples, %d steps of %d on %d device(s)",
               records.num_examples, num_train_steps, config.train_batch_size,
               group.num_replicas)
  if group.is_chief:
    is_finished = bool(found) and checkpoints.step_of(
        checkpoints.newest(config.output_dir)) >= num_train_steps
    run_record.log_changes(found, setup.record, is_finished)
    if not is_finished:  # The record is of what was trained with.
      run_record.write(config.output_dir, setup.record)
  listeners = ([_KeepBest(config, setup, group.alone())]
               if config.save_best and group.is_chief else [])
  for listener in listeners:
    listener.catch_up()
  if not group.decide("stopped early", lambda: any(
      listener.has_stopped() for listener in listeners)):
    training.train(
        setup.model, _train_spec(config, num_train_steps), records, weights,
        config.output_dir, group, init_shared_from=config.init_shared_from,
        listeners=listeners)
  if group.is_chief:
    task = os.path.join(config.output_dir, TASK)
    size = checkpoints.write_task(task, config.output_dir)
    logging.info("task checkpoint: %s, %.1f MB", task, size / 1e6)


def _train_spec(config, num_train_steps):
  """The training.TrainSpec that a RunConfig asks for."""
  return training.TrainSpec(
      num_train_steps=num_train_steps,
      num_warmup_steps=int(num_train_steps * config.warmup_proportion),
      learning_rate=config.learning_rate,
      batch_size=config.train_batch_size,
      seed=config.seed,
      bucket_window=config.bucket_window,
      compile_chains=config.compile_chains,
      save_checkpoints_steps=config.save_checkpoints_steps,
      save_checkpoints_secs=config.save_checkpoints_secs,
      keep_checkpoint_max=config.keep_checkpoint_max)


class _KeepBest(tf.train.CheckpointSaverListener):
  """Scores each checkpoint on dev and keeps the best one as a task checkpoint.

  The scores are on disk, so that a run that is killed goes on with them.
  """

  def __init__(self, config, setup, group):
    self._config = config
    self._setup = setup
    self._group = group
    self._metric = "eval_" + setup.task.main_metric
    self._best_of = tasks.best_of(setup.task.main_metric)
    self._path = os.path.join(config.output_dir, DEV_SCORES)
    self._best = os.path.join(config.output_dir, BEST)
    files.recover_directory(self._best)

  def catch_up(self):
    """Scores the newest checkpoint if a kill came before its score."""
    newest = checkpoints.newest(self._config.output_dir)
    if not newest:
      # What is left of another run says nothing of this one.
      with contextlib.suppress(FileNotFoundError):
        os.remove(self._path)
      return
    step = checkpoints.step_of(newest)
    if step not in [step_ for step_, _ in self._read()]:
      self.after_save(None, step)

  def after_save(self, session, global_step_value):
    config, split = self._config, self._setup.task.dev[0]
    scores = [pair for pair in self._read() if pair[0] < global_step_value]
    if not scores:
      shutil.rmtree(self._best, ignore_errors=True)  # of an earlier run
    weights = checkpoints.Weights.open(
        checkpoints.newest(config.output_dir), base=config.init_checkpoint)
    results, _ = _score(config, self._setup, split, weights, self._group)
    _write_eval_summary(config.output_dir, split, results)
    score = results[self._metric]
    # The best one's own record, not the list: a kill can come between the two.
    best = (run_record.read(self._best) or {}).get(
        "dev", {}).get(self._metric)
    scores.append((int(global_step_value), score))
    is_best = best is None or (
        score != best and score == self._best_of(score, best))
    logging.info("step %d: %s %.4f%s", global_step_value, self._metric, score,
                 ", the best so far" if is_best else "")
    if is_best:
      checkpoints.write_task(self._best, config.output_dir, {"dev": results})
    files.write_json(self._path, scores)
    return self.has_stopped()

  def has_stopped(self):
    """Whether early_stopping's number of evaluations brought nothing better."""
    scores = [score for _, score in self._read()]
    patience = self._config.early_stopping
    since = 0
    if scores:
      since = len(scores) - 1 - scores.index(self._best_of(scores))
    if not patience or since < patience:
      return False
    logging.info("no better score in %d evaluations: stopping early", since)
    return True

  def _read(self):
    """The scores so far: a list of (step, score)."""
    try:
      return files.read_json(self._path, [(int, float)], missing_ok=True) or []
    except errors.InputError as error:
      # The best one's own record has its score; the others are lost.
      dev = (run_record.read(self._best) or {}).get("dev", {})
      logging.warning("%s; going on with the best one's score alone", error)
      return [(dev["global_step"], dev[self._metric])] if dev else []


def _score(config, setup, split, weights, group):
  """(dict of metric name -> float, the number of examples) of one split.

  (None, the number) in a process that is not the chief.
  """
  records = _prepare(config, setup, split, group)
  predictions = training.predict(
      setup.model, records, weights, config.eval_batch_size, group,
      seed=config.seed, init_shared_from=config.init_shared_from)
  if predictions is None:
    return None, records.num_examples
  loss = float(np.mean(predictions.losses, dtype=np.float64))
  return dict(
      scoring.compute_metrics(setup.task, predictions.labels,
                           predictions.outputs),
      eval_loss=loss, loss=loss,
      global_step=checkpoints.step_of(weights.prefixes[-1])
  ), records.num_examples


def evaluate(config, setup, split, weights, group):
  """Evaluates one split; the chief writes eval_results<suffix>.txt.

  Returns: dict of metric name -> float; None if not the chief.
  """
  began = time.monotonic()
  results, num_examples = _score(config, setup, split, weights, group)
  if results is None:
    return None
  path = os.path.join(config.output_dir, "eval_results%s.txt" % split.suffix)
  logging.info("%s: %d examples in %.1f s", split.name, num_examples,
               time.monotonic() - began)
  lines = ["%s = %s\n" % item for item in sorted(results.items())]
  for line in lines:
    logging.info("  %s", line.rstrip())
  files.write_atomically(path, lines)
  _write_eval_summary(config.output_dir, split, results)
  return results


def _write_eval_summary(output_dir, split, results):
  """TensorBoard scalars, in a directory of their own for each split."""
  scalars = {k: v for k, v in results.items() if k != "global_step"}
  # One writer for the whole run: a second one of the same second would
  # overwrite the first one's file.
  writer = training.summary_writer(
      os.path.join(output_dir, "eval" + split.suffix))
  writer.add_summary(training.scalar_summary(scalars), results["global_step"])
  writer.flush()


def predict(config, setup, split, weights, group):
  """Predicts one split: test_results<suffix>.tsv and the submission file."""
  records = _prepare(config, setup, split, group)
  predictions = training.predict(
      setup.model, records, weights, config.predict_batch_size, group,
      seed=config.seed, init_shared_from=config.init_shared_from)
  if predictions is None:
    return
  outputs = predictions.outputs
  paths = [os.path.join(config.output_dir, name)
           for name in ("test_results%s.tsv" % split.suffix, split.submission)]
  with errors.reported():
    scoring.write_test_results(outputs, paths[0])
    scoring.write_submission(setup.task, split, outputs, paths[1])
  logging.info("predicted %d examples: %s", len(outputs), ", ".join(paths))


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  # Deprecation notes about v1, which is what this is written in.
  tf.logging.set_verbosity(tf.logging.ERROR)
  training.enable_graph_mode()
  run(config_from_flags())


def entry_point():
  """The console command `adapter-bert`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
