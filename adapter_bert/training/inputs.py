"""What the settings of a run name, read and checked: task, tokenizer, model.

The first half of a plan (plan.py): it looks at the settings and at the files
that they name, and at no output_dir, checkpoint or device.
"""

import dataclasses
import hashlib
import os
import platform

import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import settings
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import bert_config as bert_config_lib
from adapter_bert.checkpoints import model_dir
from adapter_bert.data import features
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.distributed import devices as distribution
from adapter_bert.training import own_adapters
from adapter_bert.training import specs
from adapter_bert.tuning import Tuning
import modeling
import tokenization

_ROOT = os.path.dirname(os.path.abspath(modeling.__file__))


@dataclasses.dataclass(frozen=True)
class Inputs(object):
  """What a RunConfig names.

  record: dict, what run.json is to hold, as far as the settings say it.
  """
  task: tasks.Task
  tokenizer: tokenization.FullTokenizer
  model: specs.ClassifierSpec
  record: dict


def with_files(config):
  """The RunConfig with the files of its model_dir, where it names no others.

  Raises: InputError if there is no config or no vocabulary.
  """
  names_of_files = ("bert_config_file", "vocab_file", "init_checkpoint")
  found = model_dir.files_of(config.model_dir, *[
      getattr(config, name) for name in names_of_files])
  return dataclasses.replace(config, **dict(zip(names_of_files, found)))


def read(config):
  """The Inputs of a settings.RunConfig that has its files.

  Raises: InputError, also for settings that do not fit each other.
  """
  check_actions(config, _task(config))
  return describe(config)


def describe(config):
  """`read` without asking what is to be done."""
  task = _task(config)
  features.check_room(config.max_seq_length, task.is_pair)
  bert_config = _bert_config(config, task)
  tokenizer = model_dir.load_tokenizer(
      config.vocab_file, config.do_lower_case, config.init_checkpoint,
      bert_config, config.bert_config_file)
  if config.do_train:
    model_dir.warn_of_fewer_words(tokenizer, config.vocab_file, bert_config)
  model = specs.ClassifierSpec(
      bert_config=bert_config, num_labels=task.num_labels,
      is_regression=task.is_regression, adapter_size=config.adapter_size,
      adapter_init_scale=config.adapter_init_scale,
      adapter_fn=own_adapter(config),
      adapter_layers=layer_list(config.adapter_layers,
                                bert_config.num_hidden_layers),
      adapter_order=config.adapter_order, adapter_act=config.adapter_act,
      tune=config.tune, top_n_layers=config.top_n_layers,
      prefix_length=config.prefix_length,
      prefix_hidden_size=config.prefix_hidden_size,
      prefix_positions=config.prefix_positions or "unshifted",
      prefix_init=config.prefix_init,
      prefix_init_scale=config.prefix_init_scale,
      prefix_dropout_prob=config.prefix_dropout,
      fresh_pooler=config.fresh_pooler, precision=config.precision)
  with errors.reported():
    _check_tuning(model)
    _check_prefix(config, model)
  return Inputs(task, tokenizer, model,
                _record(config, task, model, tokenizer))


def check_length(max_seq_length, bert_config, config_path):
  """Raises InputError if the model has fewer positions than max_seq_length."""
  if max_seq_length > bert_config.max_position_embeddings:
    raise errors.InputError(
        "max_seq_length is %d and the model has %d positions "
        "(max_position_embeddings in %s); give at most that" %
        (max_seq_length, bert_config.max_position_embeddings, config_path))


def _task(config):
  if config.task_spec:
    task = task_specs.load_task_spec(config.task_spec,
                                     config.task_files_anywhere)
    if config.task_name and config.task_name.lower() != task.name:
      raise errors.InputError(
          "task_name is %s and task_spec describes %s; give one of them" %
          (config.task_name, task.name))
    return task
  if not config.task_name:
    raise errors.InputError("neither task_name nor task_spec is given; tasks "
                            "are %s" % ", ".join(tasks.TASKS))
  return tasks.get_task(config.task_name)


def layer_list(text, num_hidden_layers):
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
  if model.fresh_pooler and not model.tuning.trains("pooler/", [modeling.HEAD]):
    raise ValueError("fresh_pooler is set, and tune=%s does not train the head, "
                     "which a new pooler belongs to" % model.tune)
  if not model.tuning.uses_adapters:
    refuse_given(model, ("adapter_layers", "adapter_order", "adapter_act"),
                 "the tuning method is %s, which has no adapters" % model.tune)
  if model.tune == "top_n" and model.bert_config.share_parameter_across_layers:
    raise ValueError("tune=top_n needs layers of their own, and the model's "
                     "layers share their weights")


def _check_prefix(config, model):
  """Raises ValueError for settings of prefixes that do not fit."""
  if not model.tuning.uses_prefixes:
    refuse_given(config, OF_PREFIXES, "the tuning method is %s, which has no "
                 "prefixes" % model.tune)
    return
  if config.prefix_init == "words" and config.prefix_hidden_size:
    raise ValueError(
        "prefix_init=words starts from keys and values, and with "
        "prefix_hidden_size=%d an MLP makes these; give one of the two" %
        config.prefix_hidden_size)
  if (config.prefix_init != "random" and not config.prefix_hidden_size and
      config.prefix_init_scale != 1.0):
    raise ValueError(
        "prefix_init_scale is %s, but prefix_init=%s has no random numbers; "
        "give one of the two" % (config.prefix_init_scale, config.prefix_init))
  if config.prefix_init == "words" and not config.init_checkpoint:
    raise ValueError("prefix_init=words needs a pre-trained model; give "
                     "init_checkpoint")
  if config.max_seq_length > model.max_length:
    raise ValueError(
        "prefix_length %d and max_seq_length %d are more positions than the "
        "model's %d; give less of one, or prefix_positions=unshifted" %
        (config.prefix_length, config.max_seq_length,
         model.bert_config.max_position_embeddings))


# What is said of the prefixes of every model.
OF_PREFIXES = ("prefix_length", "prefix_hidden_size", "prefix_positions",
               "prefix_init", "prefix_init_scale", "prefix_dropout")


def refuse_given(config, names, why):
  """Raises InputError if one of the settings is not as by default.

  Args:
    config: with a field for each of them.
    names: the settings' names.
    why: str, why they would have no effect.
  """
  for name in names:
    value = getattr(config, name)
    if value != settings.named(name).plain_default:
      raise errors.InputError("%s is %s, but %s" % (name, value, why))


def own_adapter(config):
  """The own_adapters.OwnAdapter that a config names, or None.

  Raises: InputError if there is none of that name, or it means nothing here.
  """
  if config.adapter_fn is None:
    return None
  with errors.reported():  # Not every program has all of the settings.
    uses_adapters = Tuning(config.tune, getattr(
        config, "top_n_layers", None)).uses_adapters
  if not uses_adapters:
    raise errors.InputError(
        "adapter_fn is given, but the tuning method is %s, which has no "
        "adapters" % config.tune)
  for name in ("adapter_size", "adapter_init_scale", "adapter_act"):
    usual = settings.named(name).plain_default
    value = getattr(config, name, usual)
    if value != usual:
      raise errors.InputError(
          "%s is %s, and says nothing of adapter_fn=%s; leave it out" %
          (name, value, config.adapter_fn))
  return own_adapters.load(config.adapter_fn)


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
  if path and (not os.path.basename(path) or files.is_directory(path)):
    raise errors.InputError(
        "export_full_checkpoint is %s, a directory; give a prefix in it, such "
        "as %s" % (path, os.path.join(path, "bert_model.ckpt")))
  if config.do_train and config.task_checkpoint:
    raise errors.InputError(
        "task_checkpoint is evaluated and predicted with; to train on from it, "
        "give it as --init_checkpoint")
  if config.save_best and not task.dev:
    raise errors.InputError("save_best needs a dev file, and %s has none" %
                            task.display_name)
  check_training(config)


def check_training(config):
  """Raises InputError if the settings of a training do not fit each other."""
  if config.do_train and not config.num_train_epochs:
    raise errors.InputError("num_train_epochs is 0, so there is nothing to "
                            "train; leave out do_train")
  if config.early_stopping and not config.save_best:
    raise errors.InputError("early_stopping is %d, but save_best is not set" %
                            config.early_stopping)
  distribution.check(config.distribution, config.start_timeout,
                     config.heartbeat_timeout)


def _bert_config(config, task):
  """The model's BertConfig, the sharing flags put over the file's keys."""
  path = config.bert_config_file
  bert_config = bert_config_lib.read(
      path, config.hidden_act, layers_per_group=config.layers_per_group,
      share_parameter_across_layers=config.share_parameter_across_layers,
      share_adapters=config.share_adapters)
  check_length(config.max_seq_length, bert_config, path)
  if task.is_pair:
    bert_config_lib.check_pairs(bert_config, path)
  return bert_config


def _record(config, task, model, tokenizer):
  """What run.json holds: enough to evaluate, and to refuse another run."""
  return dict(
      specs.describe_model(model),
      task=task_specs.task_to_dict(task),
      init_shared_from=config.init_shared_from,
      do_lower_case=tokenizer.do_lower_case,
      tokenizer=tokenizer.describe(),
      schedule={name: getattr(config, name)
                for name in settings.recorded("schedule")},
      versions={"tensorflow": tf.__version__, "numpy": np.__version__,
                "python": platform.python_version()},
      base=None)


def in_common(config, inputs):
  """What all processes of a run must agree in, a dict."""
  return dict(
      settings.agreed(config),
      adapter_code=code_of(inputs.model),
      bert_config=inputs.record["bert_config"], task=inputs.record["task"],
      tokenizer=inputs.record["tokenizer"], code=digest_of_code(),
      tensorflow=tf.__version__)


def code_of(model):
  """str: a digest of the code of a model's own adapter, or ""."""
  return model.adapter_fn.code() if model.adapter_fn else ""


def digest_of_code():
  """str: of the Python files that every run of this project imports from."""
  digest = hashlib.sha256()
  paths = tf.io.gfile.glob([os.path.join(_ROOT, name) for name in (
      "modeling.py", "optimization.py", "run_classifier.py", "tokenization.py",
      "adapter_bert/*.py", "adapter_bert/*/*.py")])
  for path in sorted(paths):
    if not path.endswith("_test.py"):
      with open(path, "rb") as source:
        digest.update(source.read())
  return digest.hexdigest()[:12]
