"""run.json: what a run records of itself, beside its checkpoints.

It says with what the weights there were trained: enough to evaluate them, and
to refuse to go on with something else. Imported as `run_record`; `record` is
the dict in it.
"""

import os

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files

FILE = "run.json"

# What its values are. The keys are optional: older versions had fewer of them,
# and a message says what is missing where it is needed. `bert_config` and
# `task` are described where they are read: bert_config.py, task_specs.py.
_OPTIONAL = files.Optional
SHAPE = {
    "task": _OPTIONAL(dict),
    "bert_config": _OPTIONAL(dict),
    "num_labels": _OPTIONAL(int),
    "tune": _OPTIONAL(str),
    "top_n_layers": _OPTIONAL(int),
    "adapter_size": _OPTIONAL(int),
    "adapter_fn": _OPTIONAL(str),
    "adapter_layers": _OPTIONAL([int]),
    "adapter_order": _OPTIONAL(str),
    "adapter_act": _OPTIONAL(str),
    "init_shared_from": _OPTIONAL(str),
    "do_lower_case": _OPTIONAL(bool),
    "schedule": _OPTIONAL({
        "precision": _OPTIONAL(str),
        "max_seq_length": _OPTIONAL(int),
        "replicas": _OPTIONAL(int),
    }),
    # What tokenization.FullTokenizer.describe says.
    "tokenizer": _OPTIONAL(dict),
    # head: the rows of a Hugging Face classifier that the head started from.
    "base": _OPTIONAL({"path": str, "sha256": str, "head": _OPTIONAL([int])}),
    # Of what was trained, and what a task checkpoint has of it; both with the
    # head. What makes the difference is the MLP of a prefix.
    "parameters": _OPTIONAL({"trained": int, "stored": int}),
    # The scores of the best checkpoint.
    "dev": _OPTIONAL(dict),
    "fresh_pooler": _OPTIONAL(bool),
    "prefix_length": _OPTIONAL(int),
    "prefix_hidden_size": _OPTIONAL(int),
    "prefix_positions": _OPTIONAL(str),
    # Of runs on sequence models.
    "config": _OPTIONAL(dict),
    "cross_adapters": _OPTIONAL(bool),
    "prefix_in": _OPTIONAL([str]),
    "separator": _OPTIONAL(str),
    # What decides the ids of sources and of targets, and the files that were
    # named in place of the model's.
    "tokenizers": _OPTIONAL([dict]),
    "tokenizer_files": _OPTIONAL({"source_tokenizer": _OPTIONAL(str),
                                  "target_tokenizer": _OPTIONAL(str)}),
}
# Where null says something; elsewhere it is as if the key were not there.
_NULLABLE = ("top_n_layers", "adapter_size", "adapter_layers",
             "init_shared_from", "base")


def write(output_dir, record):
  """Writes the dict that describes a run, atomically.

  Raises: InputError if the directory cannot be written.
  """
  files.make_directory(output_dir)
  files.write_json(os.path.join(output_dir, FILE), record)


def read(output_dir):
  """The dict that `write` wrote there, or None.

  Raises: InputError if the file is not a run.json, or has a value that no run
    writes.
  """
  record = files.read_json(os.path.join(output_dir, FILE), SHAPE,
                           missing_ok=True)
  return record and {key: value for key, value in record.items()
                     if value is not None or key in _NULLABLE}


# ------------------------------------------------------------------- the base


def describe_base(weights, path):
  """What a record says of the checkpoints.Weights that a run starts from."""
  return {"path": files.absolute(path), "sha256": weights.digest()}


def base_of(record):
  """What a record says of the base: as from `describe_base`, or None.

  Args:
    record: dict or None, from `read`.
  """
  return (record or {}).get("base")


# ----------------------------------------------- which run a record belongs to


def check_same_run(found, record, fixed, what, give, trains=True):
  """Refuses an output_dir, or a task checkpoint, of another run.

  Args:
    found: dict or None, the record there.
    record: dict, this run's.
    fixed: the keys that must be equal, besides the task.
    what, give: str, for the message: what was found, and what to give instead.
    trains: bool; otherwise the task's files may be others.

  Raises: InputError naming what differs.
  """
  if not found:
    return
  if not isinstance(found.get("task"), dict) or "name" not in found["task"]:
    raise errors.InputError("%s: its %s does not say of which task; give %s" %
                            (what, FILE, give))
  keys = ["task"] + list(fixed)
  if "tokenizer" in found and "tokenizer" in record:
    keys.append("tokenizer")
  for key in keys:
    there, here = found.get(key), record[key]
    if key == "task":
      there, here = _compared_tasks(there, here, trains)
    if there == here:
      continue
    if isinstance(there, dict) and isinstance(here, dict):
      names = sorted(k for k in set(there) | set(here)
                     if there.get(k) != here.get(k))
      key, there, here = ("%s.%s" % (key, names[0]), there.get(names[0]),
                          here.get(names[0]))
    raise errors.InputError("%s: its %s is %s, and here it is %s; give %s" % (
        what, key, there, here, give))


def _compared_tasks(there, here, trains):
  """What has to be equal of two tasks: (of `there`, of `here`)."""
  if (there["name"].lower(), here["name"].lower()) == ("mnli", "ax"):
    return None, None  # AX is predicted with MNLI's model.
  if there["name"] != here["name"]:
    return there["name"], here["name"]
  kept = lambda task: {key: value for key, value in task.items()
                       if trains or key not in ("train", "dev", "test")}
  return kept(there), kept(here)


def log_changes(found, record, is_finished):
  """Says which settings are not those that a run had so far."""
  before = (found or {}).get("schedule", {})
  for key, value in record["schedule"].items():
    if key in before and before[key] != value:
      logging.warning(
          "the run there is finished: %s=%s is not used; it was %s"
          if is_finished else "this run goes on with %s=%s; so far it was %s",
          key, value, before[key])
