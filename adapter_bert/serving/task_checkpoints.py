"""Task checkpoints over one BERT, found and compared, not loaded.

They may differ in task, labels, tuning method, adapter size and adapter layers;
they must have been trained on the same BERT.
"""

import dataclasses
import os
from typing import Sequence

from adapter_bert.base import errors
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import tasks
import modeling
from adapter_bert.training import specs

# Keys of the config that only training looks at.
_TRAINING_KEYS = ("hidden_dropout_prob", "attention_probs_dropout_prob",
                  "initializer_range")


@dataclasses.dataclass
class TaskCheckpoint(object):
  """A task checkpoint and what its run.json says.

  name: str, in the output; no two are equal.
  prefix: str, where it is. record: dict, its run.json.
  task: tasks.Task.
  model: specs.ClassifierSpec, as it was trained.
  dropped: the layers whose adapters are left out (AdapterDrop, Rücklé et al.
    2021, arXiv 2010.11918).
  """
  name: str
  prefix: str
  record: dict
  task: tasks.Task
  model: specs.ClassifierSpec
  dropped: Sequence[int] = ()

  @property
  def built_model(self):
    """specs.ClassifierSpec: without the adapters that are dropped."""
    model = self.model
    if not self.dropped or not model.tuning.uses_adapters:
      return model
    layers = model.adapter_layers
    if layers is None:
      layers = range(model.bert_config.num_hidden_layers)
    return dataclasses.replace(model, adapter_layers=[
        layer for layer in layers if layer not in self.dropped])


def read_checkpoints(paths, precision, dropped=(), adapter_fn=None):
  """The TaskCheckpoints at some paths, not loaded; they fit each other.

  Args:
    paths: list of str, what weights.find takes.
    precision: a key of specs.PRECISIONS.
    dropped: list of int, the layers whose adapters are left out.
    adapter_fn: the flag, see own_adapters.load_recorded.

  Raises: InputError naming the checkpoint that cannot be used.
  """
  found = []
  for path in paths:
    if not path:
      raise errors.InputError("task_checkpoints has an empty entry; give "
                              "directories with a comma between them")
    prefix = weights_lib.find(path)
    record = run_record.read(os.path.dirname(prefix))
    task, model = specs.model_from_record(record, prefix, precision,
                                          adapter_fn)
    _check_record(record, prefix)
    _check_dropped(dropped, model, prefix)
    # A prefix is stored without the MLP that it was trained with.
    model = model.stored_in(weights_lib.Weights([prefix]).shapes)
    same = sum(other.task.display_name == task.display_name for other in found)
    name = task.display_name + ("#%d" % (same + 1) if same else "")
    found.append(TaskCheckpoint(name, prefix, record, task, model, dropped))
  if not found:
    raise errors.InputError("task_checkpoints is empty; give at least one")
  for other in found[1:]:
    _check_fits(other, found[0])
  return found


def _check_dropped(dropped, model, prefix):
  """Raises InputError for layers that the model does not have."""
  layers = model.bert_config.num_hidden_layers
  if any(layer >= layers for layer in dropped):
    raise errors.InputError(
        "drop_adapters names layer %d, and %s has layers 0 to %d" %
        (max(dropped), prefix, layers - 1))


def _check_record(record, prefix):
  """Raises InputError if run.json does not say what was trained on what."""
  for key in ("base", "do_lower_case"):
    if key not in record:
      raise errors.InputError("%s: its %s has no '%s'" %
                              (prefix, run_record.FILE, key))
  if not run_record.base_of(record):
    raise errors.InputError(
        "%s: was trained without init_checkpoint, so there is no BERT that it "
        "shares with other tasks; predict with run_classifier.py" % prefix)


def _check_fits(checkpoint, first):
  """Raises InputError if two checkpoints cannot share what is frozen."""
  key = _differing_key(checkpoint.model.bert_config, first.model.bert_config)
  values = [(key, getattr(one.model.bert_config, key, None))
            for one in (checkpoint, first) if key]
  if not values and not checkpoint.model.tuning.trains("", [modeling.HEAD]):
    # Its head is the base's, of which the digest says nothing.
    bases = [("base", one.record["base"]["path"])
             for one in (checkpoint, first)]
    values = bases if bases[0] != bases[1] else []
  for key in ("init_shared_from", "do_lower_case"):
    if not values and checkpoint.record.get(key) != first.record.get(key):
      values = [(key, one.record.get(key)) for one in (checkpoint, first)]
  if values:
    raise errors.InputError(
        "%s: its %s is %s, and %s of %s; task checkpoints that are predicted "
        "together need one and the same BERT" %
        (checkpoint.prefix, *values[0], values[1][1], first.prefix))


def _differing_key(config, other, keys=None):
  """The first key in which two configs give another model, or None."""
  for key in sorted(keys or set(vars(config)) | set(vars(other))):
    if key not in _TRAINING_KEYS and (
        getattr(config, key, None) != getattr(other, key, None)):
      return key
  return None


def check_config(path, checkpoint):
  """Raises InputError if a bert_config.json is not the checkpoint's.

  Only keys that are in the file are compared: the run may have had flags.
  """
  config = bert_config.read(path)
  recorded = checkpoint.model.bert_config
  key = _differing_key(config, recorded, vars(config))
  if key:
    raise errors.InputError(
        "%s: its %s is %s, and %s was trained with %s; drop bert_config_file, "
        "the checkpoint's own is used" % (path, key, getattr(config, key),
                                          checkpoint.prefix,
                                          getattr(recorded, key, None)))


def open_base(tasks, init_checkpoint, force_base):
  """The weights.Weights that all the task checkpoints were trained on.

  Args:
    tasks: list of TaskCheckpoint.
    init_checkpoint: str; None: where the first one's run.json says.
    force_base: bool, take another one with a warning.

  Raises: InputError naming the checkpoint that was trained on another.
  """
  base = None
  for task in tasks:
    what, recorded = "%s was trained on" % task.prefix, task.record["base"]
    if base is None:
      base = weights_lib.find_base(recorded, init_checkpoint, what, force_base)
    else:
      weights_lib.check_base(base, recorded, what, force_base)
  return base
