"""What a run of GPT-2, BART or T5 is going to do, decided before it is done.

As plan.py for a classifier: settings -> `read` -> Inputs -> `make` -> plan.Plan.
What can be refused is refused here, before anything is written.
"""

import dataclasses
import functools
import os
import platform
from typing import Any

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import settings
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import model_dir as model_dirs
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import seq2seq
from adapter_bert.data import text_tokenizers
from adapter_bert.data import tfrecords
from adapter_bert.models import families
from adapter_bert.training import inputs as inputs_lib
from adapter_bert.training import plan as plan_lib
from adapter_bert.training import sequence_specs

_PROGRAM = "run_seq2seq"

# The settings of the search.
_GENERATES = tuple(s.name for s in settings.GENERATE if _PROGRAM in s.programs)


@dataclasses.dataclass(frozen=True)
class Data(object):
  """Where a run's texts come from, and how they become ids."""
  task: seq2seq.TextTask
  data_dir: str
  encoder: seq2seq.Encoder
  output_dir: str
  workers: int

  def examples(self, split):
    """The iterator of the split's seq2seq.TextExamples."""
    return seq2seq.read_examples(self.task, split, self.data_dir)

  def records(self, split, group):
    """The split's RecordSet; of several processes the chief makes it."""
    made = []

    def directory():
      made.append(seq2seq.prepare(self.task, split, self.data_dir, self.encoder,
                                  self.output_dir, workers=self.workers))
      return os.path.dirname(made[0].paths[0])

    shared = group.shared_path(self.output_dir, directory,
                               os.sep + tfrecords.INDEX)
    return made[0] if made else tfrecords.source_prepared_elsewhere(
        seq2seq.source_of(self.task, split, self.data_dir, self.encoder), shared)


@dataclasses.dataclass(frozen=True)
class Inputs(object):
  """What the settings name, read and checked.

  directory: model_dir.ModelDir.
  base: mapping of variable name -> array, the pre-trained weights.
  record: dict, what run.json is to hold, as far as the settings say it.
  """
  directory: model_dirs.ModelDir
  task: seq2seq.TextTask
  encoder: seq2seq.Encoder
  model: sequence_specs.SequenceSpec
  base: Any
  record: dict


def read(config):
  """The Inputs of a run's settings. Raises: InputError."""
  task = _task(config)
  _check_actions(config, task)
  directory = model_dirs.open_model_dir(config.model_dir)
  model_config = sequence_weights.read_config(directory)
  encoder = _encoder(config, task, directory, model_config)
  model = _model(config, model_config)
  _check_lengths(config, task, model)
  base = sequence_weights.open_weights(directory, model_config)
  return Inputs(directory, task, encoder, model, base,
                _record(config, task, model, encoder))


def _task(config):
  if config.task_spec:
    task = seq2seq.load_task_spec(config.task_spec, config.task_files_anywhere)
    if config.task_name and config.task_name.lower() != task.name:
      raise errors.InputError(
          "task_name is %s and task_spec describes %s; give one of them" %
          (config.task_name, task.name))
    return task
  if not config.task_name:
    raise errors.InputError("neither task_name nor task_spec is given; tasks "
                            "are %s" % ", ".join(seq2seq.TASKS))
  return seq2seq.get_task(config.task_name)


def _check_actions(config, task):
  """Raises InputError if there is nothing to do, or it cannot be done."""
  if not (config.do_train or config.do_eval or config.do_predict):
    raise errors.InputError("nothing to do: give at least one of --do_train, "
                            "--do_eval and --do_predict")
  for wanted, splits, flag in ((config.do_train, task.train, "do_train"),
                               (config.do_eval, task.dev, "do_eval"),
                               (config.do_predict, task.test, "do_predict"),
                               (config.save_best, task.dev, "save_best")):
    if wanted and not splits:
      raise errors.InputError("--%s: the task %s has no file for that" %
                              (flag, task.display_name))
  if config.do_predict and task.is_plain_text:
    raise errors.InputError(
        "--do_predict: the task %s is plain text, without sources to predict "
        "from; generate.py goes on from prompts" % task.display_name)
  if task.is_plain_text:
    inputs_lib.refuse_given(
        config, ("separator",) + _GENERATES, "the task %s is plain text, of which "
        "nothing has a source, and nothing is generated" % task.display_name)
  if config.do_train and config.task_checkpoint:
    raise errors.InputError("task_checkpoint is evaluated and predicted with, "
                            "and not trained on; leave out one of the two")
  inputs_lib.check_training(config)


# ------------------------------------------------------- model and tokenizers


def _encoder(config, task, directory, model_config):
  """The seq2seq.Encoder: how texts become the model's ids."""
  pair = text_tokenizers.open_pair(config.source_tokenizer,
                                   config.target_tokenizer, directory,
                                   model_config.vocab_size)
  source_end = target_end = ()
  if families.of_config(model_config).has_encoder:
    if config.separator:
      raise errors.InputError("separator is %s, but a %s reads its source in an "
                              "encoder; leave it out" %
                              (config.separator, model_config.MODEL_TYPE))
    if task.is_plain_text:
      raise errors.InputError("the task %s is plain text, and a %s needs sources "
                              "and targets" % (task.display_name,
                                               model_config.MODEL_TYPE))
  else:
    target_end = (model_config.eos_token_id,)
    source_end = () if task.is_plain_text else (
        _separator(config.separator, pair.source, model_config),)
  return seq2seq.Encoder(pair.source, pair.target, config.max_source_length,
                         config.max_target_length, source_end, target_end)


def _separator(token, tokenizer, model_config):
  """The id between source and target."""
  if token is None:
    return model_config.eos_token_id
  found = tokenizer.id_of(token)
  if found is None:
    raise errors.InputError("separator is %s, which is not a token of the "
                            "tokenizer" % errors.shown(token))
  return found


def _model(config, model_config):
  """The SequenceSpec. Raises: InputError for a method that does not fit."""
  family = families.of_config(model_config)
  if config.tune == "top_n":
    raise errors.InputError("tune=top_n is for a BERT; a %s is tuned with full, "
                            "adapters, prefix or layer_norm" %
                            model_config.MODEL_TYPE)
  layers = config.adapter_layers and (
      settings.layers_of(config.adapter_layers) if family.has_encoder else
      inputs_lib.layer_list(config.adapter_layers, model_config.n_layer))
  with errors.reported():
    model = sequence_specs.SequenceSpec(
        config=model_config, tune=config.tune,
        adapter_size=config.adapter_size,
        adapter_init_scale=config.adapter_init_scale,
        adapter_act=config.adapter_act,
        adapter_fn=inputs_lib.own_adapter(config), adapter_layers=layers,
        cross_adapters=config.cross_adapters,
        prefix_length=config.prefix_length,
        prefix_hidden_size=config.prefix_hidden_size or None,
        prefix_positions=config.prefix_positions or (
            "unshifted" if family.has_encoder else "after"),
        prefix_in=settings.prefix_places(config.prefix_in),
        prefix_dropout_prob=config.prefix_dropout,
        prefix_init=config.prefix_init,
        prefix_init_scale=config.prefix_init_scale, precision=config.precision,
        max_source_length=config.max_source_length,
        max_target_length=config.max_target_length,
        pads=_pads(model_config), label_smoothing=config.label_smoothing)
    tuning = model.tuning
  if not _trains_something(tuning):
    raise errors.InputError(
        "tune=%s trains nothing here: a %s has no head of its own; give %s" %
        (config.tune, model_config.MODEL_TYPE,
         "full, adapters, prefix or layer_norm"))
  _check_method(config, tuning, model_config)
  return model


def _check_method(config, tuning, model_config):
  """Raises InputError for a setting that would have no effect here."""
  has_none = "the tuning method is %s, which has no %%s" % config.tune
  if not tuning.uses_adapters:
    inputs_lib.refuse_given(config, (
        "adapter_size", "adapter_init_scale", "adapter_act", "adapter_layers",
        "cross_adapters"), has_none % "adapters")
  if not tuning.uses_prefixes:
    inputs_lib.refuse_given(config, inputs_lib.OF_PREFIXES + ("prefix_in",),
                            has_none % "prefixes")
    return
  if not families.of_config(model_config).has_encoder:
    inputs_lib.refuse_given(config, ("prefix_in",),
                            "GPT-2 has one place for a prefix")
  elif model_config.MODEL_TYPE == "t5":
    inputs_lib.refuse_given(config, ("prefix_positions",), "T5 has no positions "
                            "but distances")
  elif "self" not in settings.prefix_places(config.prefix_in):
    inputs_lib.refuse_given(config, ("prefix_positions",), "it is of the prefix "
                            "in the decoder's self-attention, and prefix_in is "
                            "%s" % config.prefix_in)
  _check_prefix_init(config, model_config)


def _check_prefix_init(config, model_config):
  """Raises InputError if prefixes cannot start so."""
  if config.prefix_init == "random":
    return
  if config.prefix_init == "words":
    raise errors.InputError("prefix_init=words is for a BERT; a %s starts from "
                            "random or zero" % model_config.MODEL_TYPE)
  if not config.prefix_hidden_size and config.prefix_init_scale != 1.0:
    raise errors.InputError(
        "prefix_init_scale is %s, but prefix_init=%s has no random numbers; "
        "give one of the two" % (config.prefix_init_scale, config.prefix_init))


def _trains_something(tuning):
  return tuning.collections is None or bool(
      set(tuning.collections) - {"head"})


def _pads(model_config):
  """(int, int): the ids behind sources and targets."""
  pad = getattr(model_config, "pad_token_id", None)
  return (pad or 0,) * 2


def _check_lengths(config, task, model):
  """Raises InputError if the model has fewer positions than are needed."""
  limit = families.positions(model.config)
  if limit is None:
    return
  key, most = limit
  if families.of_config(model.config).has_encoder:
    for name, first in (("max_source_length", 0),
                        ("max_target_length", model.first_position)):
      if getattr(config, name) + first > most:
        raise errors.InputError(
            "%s is %d%s and the model has %d positions (%s); give at most %d" %
            (name, getattr(config, name),
             " behind a prefix of %d" % first if first else "", most, key,
             most - first))
    return
  source = 0 if task.is_plain_text else config.max_source_length
  if source + config.max_target_length + model.first_position > most:
    raise errors.InputError(
        "max_source_length %d, max_target_length %d%s are more than the model's "
        "%d positions (%s)" % (
            source, config.max_target_length,
            " and prefix_length %d" % model.first_position
            if model.first_position else "", most, key))


def check_generation(config, inputs, max_new_tokens):
  """Raises InputError if what is to be generated has no room in the model."""
  generates = (config.do_eval or config.do_predict or config.save_best)
  limit = families.positions(inputs.model.config)
  if limit is None or not generates or inputs.task.is_plain_text:
    return
  key, most = limit
  first = inputs.model.first_position
  if not families.of_config(inputs.model.config).has_encoder:
    first += config.max_source_length
  if first + max_new_tokens > most:
    raise errors.InputError(
        "max_new_tokens is %d, behind %d positions of %s, and the model has %d "
        "(%s); give less, or less of max_source_length or prefix_length" %
        (max_new_tokens, first, "sources and prefixes", most, key))


def _record(config, task, model, encoder):
  """What run.json holds: enough to evaluate, and to refuse another run."""
  return dict(
      model.describe(),
      task=seq2seq.task_to_dict(task), separator=config.separator,
      source_end=list(encoder.source_end),
      tokenizers=[encoder.source_tokenizer.describe(),
                  encoder.target_tokenizer.describe()],
      tokenizer_files={name: files.absolute(getattr(config, name))
                       for name in ("source_tokenizer", "target_tokenizer")
                       if getattr(config, name)},
      schedule={name: getattr(config, name)
                for name in settings.recorded("schedule", _PROGRAM)},
      versions={"tensorflow": tf.__version__, "numpy": np.__version__,
                "python": platform.python_version()},
      base=None)


def in_common(config, inputs):
  """What all processes of a run must agree in, a dict."""
  return dict(settings.agreed(config, _PROGRAM),
              adapter_code=inputs_lib.code_of(inputs.model),
              config=inputs.record["config"], task=inputs.record["task"],
              tokenizers=inputs.record["tokenizers"],
              code=inputs_lib.digest_of_code(), tensorflow=tf.__version__)


# -------------------------------------------------------------------- the plan


def make(config, inputs, group):
  """The plan.Plan of a run.

  Raises: InputError, one line, for what cannot be done.
  """
  plan_lib.check_batch(config, group)
  found, goes_on = group.decide("the run in output_dir",
                                lambda: plan_lib.run_in(config.output_dir))
  _check_same(config, inputs.record, found)
  plan_lib.check_goes_on(config, found, goes_on)
  base = weights_lib.Weights.of_tensors(inputs.base, inputs.directory.path)
  recorded = run_record.base_of(found)
  if recorded:
    weights_lib.check_base(base, recorded, "the run in %s started from" %
                           config.output_dir)
  record = dict(inputs.record, schedule=dict(
      inputs.record["schedule"], replicas=group.num_replicas))
  find_weights = functools.partial(_weights_to_evaluate, config, base, group)
  training = weights = None
  if config.do_train:
    record["base"] = run_record.describe_base(base, inputs.directory.path)
    group.same({"model_dir (its digest)": record["base"]["sha256"]})
    training = plan_lib.training_of(config, base)
  else:
    weights = find_weights()
  model = inputs.model
  if weights is base:
    logging.info("no run is in %s: the model is taken as it was published",
                 config.output_dir)
    model = dataclasses.replace(model, tune="full")
  return plan_lib.Plan(
      data=Data(inputs.task, config.data_dir, inputs.encoder, config.output_dir,
                config.tokenize_workers),
      task=inputs.task, model=model, output_dir=config.output_dir,
      group=group, record=record, found=found, init_shared_from=None,
      open_weights=base.with_top,
      training=training,
      evaluated=list(inputs.task.dev) if config.do_eval else [],
      predicted=list(inputs.task.test) if config.do_predict else [],
      export_prefix=None, weights=weights,
      find_weights=find_weights, eval_batch_size=config.eval_batch_size,
      predict_batch_size=config.predict_batch_size, seed=config.seed)


def _check_same(config, record, found):
  """Raises InputError if a run that is gone on with is another one."""
  fixed = ["config", "tokenizers"] + settings.recorded("run", _PROGRAM)
  for other, what, give in plan_lib.gone_on_with(config, found):
    run_record.check_same_run(other, record, fixed, what, give, config.do_train)


def _weights_to_evaluate(config, base, group):
  """The Weights to evaluate: the first there is of task_checkpoint, what is
  kept in output_dir, and the model as it was published."""
  if config.task_checkpoint:
    path = weights_lib.find(config.task_checkpoint)
    recorded = run_record.base_of(run_record.read(os.path.dirname(path)))
    if recorded:
      weights_lib.check_base(base, recorded, "%s was trained on" % path,
                             config.force_base)
  else:
    path = group.shared_path(config.output_dir,
                             lambda: plan_lib.kept_in(config), ".index")
  weights = base.with_top(path) if path else base
  if group.num_workers > 1:
    group.same({"the weights to evaluate (their digest)":
                    weights.full_digest()})
  return weights
