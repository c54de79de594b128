"""Grids of settings: what a sweep file or a preset asks for, as runs.

The settings are those of adapter_bert/settings.py that a sweep may vary.
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
from typing import Optional

from adapter_bert import settings as settings_lib
from adapter_bert.base import errors
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.experiments import parameters
from adapter_bert.tuning import Tuning

# More runs than any sweep has; a grid that asks for more is a mistake.
MOST_RUNS = 10000

# The tasks of Table 1.
GLUE_TASKS = ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE"]
_FIVE_SEEDS = list(range(5))
_THREE_SEEDS = list(range(3))
_FURTHER = {"learning_rate": [1e-5, 3e-5, 1e-4, 3e-3],
            "num_train_epochs": [20, 50, 100], "seed": _FIVE_SEEDS}

# What figures 3 and 4 were tuned over is not published: here it is the rates
# and epochs of Table 1, and lower rates for what is pre-trained.
_FIGURE = {"num_train_epochs": [3, 20], "seed": _THREE_SEEDS}
_FIGURE_GRIDS = [
    {"adapter_size": list(parameters.FIGURE_SIZES),
     "learning_rate": [3e-5, 3e-4, 3e-3]},
    {"tune": "layer_norm", "learning_rate": [3e-5, 3e-4, 3e-3]},
    {"tune": "top_n", "top_n_layers": list(range(1, 13)),
     "learning_rate": [1e-5, 3e-5, 1e-4]},
    {"tune": "full", "learning_rate": [1e-5, 3e-5, 1e-4]},
]

# The sweeps of Houlsby et al. 2019, in the form of a sweep file.
PRESETS = {
    # Table 1, BERT-LARGE.
    "glue_adapters": [{
        "task_name": GLUE_TASKS, "learning_rate": [3e-5, 3e-4, 3e-3],
        "num_train_epochs": [3, 20],
        "adapter_size": list(parameters.GLUE_SIZES),
        "seed": _FIVE_SEEDS}],
    # Table 2, BERT-BASE; its tasks are not GLUE's: give --task_specs.
    "further_adapters": {"common": _FURTHER, "grids": [
        {"adapter_size": list(parameters.FURTHER_SIZES)}]},
    "further_top_n": {"common": _FURTHER, "grids": [
        {"tune": "top_n",
         "top_n_layers": list(parameters.FURTHER_TOP_N)}]},
    # Figures 3 and 4, BERT-BASE: score against trained parameters.
    "figure3": {"common": dict(_FIGURE, task_name=GLUE_TASKS),
                "grids": _FIGURE_GRIDS},
    "figure4": {"common": dict(_FIGURE, task_name=["MNLI", "CoLA"]),
                "grids": _FIGURE_GRIDS},
    # Figure 6 right, BERT-BASE: the adapters' initial standard deviation.
    "figure6_right": [{
        "task_name": ["MNLI", "CoLA"], "adapter_size": 64,
        "adapter_init_scale": [10.0**i for i in range(-7, 1)],
        "learning_rate": 3e-4, "num_train_epochs": 3, "seed": _THREE_SEEDS}],
}


# ----------------------------------------------------------- from grids to runs

# name -> its row in the table.
SETTINGS = settings_lib.swept()

# What a run does unless its settings say something else. Runs are minutes long,
# so it takes a checkpoint each minute to resume them.
OF_A_SWEEP = {"keep_checkpoint_max": 1, "save_checkpoints_secs": 60}

# Settings that a method's name, or the task's, says already.
IN_A_LABEL = ("task_name", "task_spec", "data_dir", "tune", "adapter_size",
              "top_n_layers", "adapter_layers", "adapter_fn", "prefix_length",
              "fresh_pooler")

# And those that are said of every run.
ALWAYS_SHOWN = ("learning_rate", "num_train_epochs")
_SHORT = {"learning_rate": "lr", "num_train_epochs": "epochs",
          "adapter_init_scale": "init scale", "prefix_hidden_size": "MLP",
          "prefix_init": "prefix from", "prefix_init_scale": "prefix scale",
          "prefix_positions": "positions"}

_OF_ADAPTERS = ("adapter_size", "adapter_init_scale", "adapter_layers",
                "adapter_order", "adapter_act", "adapter_fn")
# Those of the bottleneck, and not of an adapter of one's own.
_OF_BOTTLENECKS = ("adapter_size", "adapter_init_scale", "adapter_act")
_OF_PREFIXES = ("prefix_length", "prefix_hidden_size", "prefix_positions",
                "prefix_init", "prefix_init_scale", "prefix_dropout")


def decides_result(name):
  """Whether a result depends on a setting; a finished run has the others."""
  return SETTINGS[name].decides_result


class Run(object):
  """One run of a sweep.

  Args:
    settings: dict of names in SETTINGS to values.

  Attributes:
    settings: dict, without what has no meaning for the method (the size of
      adapters where there are none) and what is as by default, so that equal
      runs have equal settings.
    task: tasks.Task.
    slug: str, the name of the run's directory. It depends on nothing but the
      settings, so that another sweep finds the run again.

  Raises: errors.InputError for a task or a method that is unknown.
  """

  def __init__(self, settings):
    settings = {name: plain_number(value) for name, value in settings.items()}
    if settings.get("task_spec"):
      self.task = task_specs.load_task_spec(settings["task_spec"])
    elif settings.get("task_name"):
      self.task = tasks.get_task(settings["task_name"])
      settings["task_name"] = self.task.display_name
    else:
      raise errors.InputError("there is no task; give task_name (--tasks) or "
                              "task_spec (--task_specs)")
    method = Method.of(settings)
    self.settings = {
        name: settings[name] for name in SETTINGS
        if name in settings and name not in method.meaningless and
        (settings[name] != SETTINGS[name].plain_default or name in OF_A_SWEEP)}
    known = {name: value for name, value in self.settings.items()
             if decides_result(name)}
    digest = hashlib.sha256(
        json.dumps(known, sort_keys=True).encode("utf-8")).hexdigest()
    self.slug = "-".join([
        self.task.display_name, method.tune + "%s" % (method.choice or ""),
        "lr%g" % self["learning_rate"], "ep%g" % self["num_train_epochs"],
        "seed%d" % self["seed"], digest[:8]])

  def __getitem__(self, name):
    """The value of a setting, its default if need be."""
    return setting(self.settings, name)

  @property
  def label(self):
    """It in a line: "RTE, adapters, 64: lr 0.001, epochs 5, seed 0"."""
    return "%s, %s: %s, seed %d" % (
        self.task.display_name, Method.of(self.settings).label,
        described(self.settings, hidden=("seed",)), self["seed"])


@dataclasses.dataclass(frozen=True)
class Method(object):
  """What a run trains.

  tune: see Tuning. choice: int, the adapter size, for top_n the number
  of layers, for prefixes alone their length; None where there is none of these.
  adapter_layers, prefix_length, fresh_pooler, adapter_fn: see settings.py;
  prefix_length is None without prefixes. has_mlp: bool, whether an MLP makes
  the prefixes.
  """
  tune: str
  choice: Optional[int]
  adapter_layers: Optional[str] = None
  prefix_length: Optional[int] = None
  has_mlp: bool = False
  fresh_pooler: bool = False
  adapter_fn: Optional[str] = None

  @classmethod
  def of(cls, settings):
    """The Method of a dict of settings.

    Raises: errors.InputError for an unknown one.
    """
    get = lambda name: setting(settings, name)
    tune, fresh_pooler = get("tune"), get("fresh_pooler")
    if tune == "top_n":
      if get("top_n_layers") is None:
        raise errors.InputError("tune is top_n; give top_n_layers with it")
      return cls(tune, get("top_n_layers"), fresh_pooler=fresh_pooler)
    with errors.reported():
      tuning = Tuning(tune)
    method = cls(tune, None, fresh_pooler=fresh_pooler)
    if tuning.uses_prefixes:
      method = dataclasses.replace(
          method, choice=get("prefix_length"),
          prefix_length=get("prefix_length"),
          has_mlp=bool(get("prefix_hidden_size")))
    if tuning.uses_adapters:
      own = get("adapter_fn")
      method = dataclasses.replace(
          method, choice=None if own else get("adapter_size"),
          adapter_layers=get("adapter_layers"), adapter_fn=own)
    return method

  @property
  def meaningless(self):
    """The names of settings that mean nothing for this method."""
    is_top_n = self.tune == "top_n"
    return ((() if is_top_n else ("top_n_layers",)) +
            (() if self._has_adapters else _OF_ADAPTERS) +
            (_OF_BOTTLENECKS if self.adapter_fn else ()) +
            (() if self.prefix_length else _OF_PREFIXES))

  @property
  def label(self):
    """Its name in tables: "adapters, 64", "top 3 layers", "prefix, 20, MLP"."""
    return (parameters.method_of(self.tune, self.choice).label +
            self._details + self.of_family)

  @property
  def variant(self):
    """What tells it from others of its family: "64"."""
    return "%s" % self.choice + self._details

  @property
  def family(self):
    """The Method without its sizes: what a curve over these is of."""
    return Method(self.tune, None, has_mlp=self.has_mlp,
                  fresh_pooler=self.fresh_pooler, adapter_fn=self.adapter_fn)

  @property
  def of_family(self):
    """What its `tune` does not say of its family: ", MLP"."""
    return ((", " + self.adapter_fn if self.adapter_fn else "") +
            ", MLP" * self.has_mlp + ", fresh pooler" * self.fresh_pooler)

  @property
  def _has_adapters(self):
    return self.tune != "top_n" and bool(self.choice or self.adapter_fn) and (
        Tuning(self.tune).uses_adapters)

  @property
  def _details(self):
    text = self._in_layers
    if self.prefix_length and self._has_adapters:
      text += " and prefix of %d" % self.prefix_length
    return text

  @property
  def _in_layers(self):
    return " in layers %s" % self.adapter_layers if self.adapter_layers else ""


def setting(settings, name):
  """The value that a dict of settings has for a name, or the default."""
  return settings.get(name, SETTINGS[name].plain_default)


def plain_number(value):
  """5.0 -> 5: the same value is to be written in the same way."""
  if isinstance(value, float) and value.is_integer():
    return int(value)
  return value


def short_name(name):
  """A setting's name in tables."""
  return _SHORT.get(name, name)


def described(settings, hidden=()):
  """The settings that no label says: "lr 0.001, epochs 5, seed 0"."""
  names = list(ALWAYS_SHOWN) + [
      name for name in settings
      if name not in ALWAYS_SHOWN + IN_A_LABEL and name not in hidden]
  return ", ".join("%s %s" % (short_name(name), shown(value))
                   for name, value in ((name, setting(settings, name))
                                       for name in names))


def shown(value):
  return "%g" % value if isinstance(value, float) else str(value)


def runs_of(sweep, where, changes=None):
  """The runs that a preset or a sweep file asks for, equal ones once.

  Args:
    sweep: a list of grids, or {"common": {...}, "grids": [...]}.
    where: str, for messages.
    changes: dict of settings over those of every grid.

  Returns: list of Run.

  Raises: errors.InputError in one line for anything that cannot be used.
  """
  common = {}
  if isinstance(sweep, dict):
    _check_keys(sweep, ["common", "grids"], where)
    common, sweep = sweep.get("common", {}), sweep.get("grids")
    _check_grid(common, "%s: common" % where)
  if not isinstance(sweep, list) or not sweep:
    raise errors.InputError(
        "%s: there must be a list of grids, [{...}, ...], or an object with "
        "\"grids\", found %s" % (where, json.dumps(sweep)[:40]))
  grids = {}
  for i, grid in enumerate(sweep):
    name = "%s: grid %d" % (where, i + 1)
    _check_grid(grid, name)
    grids[name] = _completed(grid, common, changes or {})
  _check_number(grids, where)
  runs = {}
  for name, grid in grids.items():
    for combination in itertools.product(*grid.values()):
      try:
        run = Run(dict(zip(grid, combination)))
      except errors.InputError as error:
        raise errors.InputError("%s: %s" % (name, error)) from error
      runs.setdefault(run.slug, run)
  return list(runs.values())


def _completed(grid, common, changes):
  """A grid with the settings of all grids: name -> list of values."""
  grid = dict(common, **grid)
  for one, other in (("task_name", "task_spec"), ("task_spec", "task_name")):
    if one in changes:
      grid.pop(other, None)
  grid.update(changes)
  return {name: value if isinstance(value, list) else [value]
          for name, value in grid.items()}


def _check_number(grids, where):
  """Raises InputError for more runs than MOST_RUNS, before they are made."""
  count = sum(math.prod(len(values) for values in grid.values())
              for grid in grids.values())
  if count > MOST_RUNS:
    raise errors.InputError("%s: asks for %d runs; a sweep has at most %d" %
                            (where, count, MOST_RUNS))


def _check_keys(keys, known, where):
  for key in keys:
    if key in known:
      continue
    if key in settings_lib.RunConfig.__dataclass_fields__:
      raise errors.InputError(
          "%s: %r is not part of a grid: a sweep sets it itself, the same for "
          "all of its runs" % (where, key))
    close = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
    raise errors.InputError("%s: unknown key %r; %s" % (
        where, key, "did you mean %s?" % " or ".join(close) if close else
        "known are %s" % ", ".join(known)))


def _check_grid(grid, where):
  """Raises InputError for something that is not a grid."""
  if not isinstance(grid, dict):
    raise errors.InputError("%s: must be an object of settings, found %s" %
                            (where, json.dumps(grid)[:40]))
  for key, value in grid.items():
    check_key(key, where)
    if value == []:
      raise errors.InputError("%s: %s is an empty list; give a value" %
                              (where, key))
    for item in value if isinstance(value, list) else [value]:
      check_value(key, item, where)


def check_key(name, where):
  """Raises InputError if a sweep cannot vary a setting of that name."""
  _check_keys([name], SETTINGS, where)


def check_value(name, value, where):
  """Raises InputError if a setting cannot have a value."""
  try:
    SETTINGS[name].check_value(value, json.dumps)
  except errors.InputError as error:
    raise errors.InputError("%s: %s" % (where, error)) from error
