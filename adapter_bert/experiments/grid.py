"""Runs run_classifier.py over a grid of settings, and tabulates the scores.

    python -m adapter_bert.experiments.sweep --tasks=MRPC,RTE --tunes=adapters,full \\
      --adapter_sizes=8,64 --learning_rates=3e-4,1e-3 --seeds=0,1,2 \\
      --glue_dir=$GLUE_DIR --vocab_file=$BERT_BASE_DIR/vocab.txt \\
      --bert_config_file=$BERT_BASE_DIR/bert_config.json \\
      --init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt --output_dir=/tmp/sweep

Every combination is a run of its own in output_dir/runs/. Stopped and started
again, finished runs are not repeated and half-finished ones go on. After each
run output_dir/results.csv has a row for every finished run, and
output_dir/table.md the best settings by dev score.

In the place of the grid's flags: --preset=NAME for one of the paper's sweeps
(see PRESETS), or --sweep_file=FILE for a JSON list of grids, whose keys are
the settings of run_classifier.py and whose values are one value or a list:

    [{"task_name": ["MRPC", "RTE"], "adapter_size": [8, 64],
      "learning_rate": [3e-4, 1e-3], "num_train_epochs": 5,
      "seed": [0, 1, 2]},
     {"task_name": ["MRPC", "RTE"], "tune": "full", "learning_rate": 3e-5}]

A file may also be {"common": {...}, "grids": [...]}, the common settings being
those of every grid. A grid's flag given beside a preset or a file takes the
place of that setting in every grid, and --set=NAME=VALUE does so for any
setting: --preset=figure4 --tasks=CoLA --set=precision=bfloat16.
A task of your own is a "task_spec" (--task_specs); its files are looked for in
glue_dir/NAME, as every task's, unless "data_dir" says where they are.

The paper's protocol: the settings of a method are those with the best mean over
the seeds on dev, for each task.
"""

import contextlib
import csv
import dataclasses
import difflib
import fcntl
import glob
import hashlib
import io
import itertools
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import Optional

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags

from adapter_bert.checkpoints import checkpoints
from adapter_bert.experiments import count_parameters
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import glue
import modeling
import run_classifier
from adapter_bert.training import loop as training

FLAGS = flags.FLAGS

# Under output_dir.
RUNS, CSV_FILE, TABLE_FILE = "runs", "results.csv", "table.md"
# Under a run's directory.
RESULT, STATE, LOG = "result.json", "sweep_state.json", "log.txt"
# Under both; in output_dir all runs share what is tokenized.
LOCK, RECORDS = "lock", "records"

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
    {"adapter_size": list(count_parameters.FIGURE_SIZES),
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
        "adapter_size": list(count_parameters.GLUE_SIZES),
        "seed": _FIVE_SEEDS}],
    # Table 2, BERT-BASE; its tasks are not GLUE's: give --task_specs.
    "further_adapters": {"common": _FURTHER, "grids": [
        {"adapter_size": list(count_parameters.FURTHER_SIZES)}]},
    "further_top_n": {"common": _FURTHER, "grids": [
        {"tune": "top_n",
         "top_n_layers": list(count_parameters.FURTHER_TOP_N)}]},
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


# ------------------------------------------------------- from grids to runs

_FIELDS = {field.name: field
           for field in dataclasses.fields(run_classifier.RunConfig)}
# A sweep says these itself, the same for all of its runs.
_NOT_IN_A_GRID = (
    "output_dir", "vocab_file", "bert_config_file", "init_checkpoint",
    "do_train", "do_eval", "do_predict", "task_checkpoint", "force_base",
    "export_full_checkpoint")
SETTINGS = [name for name in _FIELDS if name not in _NOT_IN_A_GRID]
# Settings that no result depends on: a finished run stays finished.
_WITHOUT_EFFECT = ("tokenize_workers", "keep_checkpoint_max", "eval_batch_size",
                   "predict_batch_size", "start_timeout", "heartbeat_timeout")
# What a run does unless its settings say something else. Runs are minutes long,
# so it takes a checkpoint each minute to resume them.
_OF_A_SWEEP = {"keep_checkpoint_max": 1, "save_checkpoints_secs": 60}
# Flag -> the setting it gives a list of values for.
GRID_FLAGS = {
    "tasks": "task_name", "task_specs": "task_spec", "tunes": "tune",
    "learning_rates": "learning_rate", "epochs": "num_train_epochs",
    "adapter_sizes": "adapter_size", "top_n_layers": "top_n_layers",
    "seeds": "seed", "init_scales": "adapter_init_scale",
}
# Settings that a method's name, or the task's, says already.
_IN_A_LABEL = ("task_name", "task_spec", "data_dir", "tune", "adapter_size",
               "top_n_layers", "adapter_layers")
# And those that are said of every run.
_ALWAYS_SHOWN = ("learning_rate", "num_train_epochs")
_SHORT = {"learning_rate": "lr", "num_train_epochs": "epochs",
          "adapter_init_scale": "init scale"}


def _default(name):
  default = _FIELDS[name].default
  return None if default is dataclasses.MISSING else default


class Run(object):
  """One run of a sweep.

  Args:
    settings: dict of names in SETTINGS to values.

  Attributes:
    settings: dict, without what has no meaning for the method (the size of
      adapters where there are none) and what is as by default, so that equal
      runs have equal settings.
    task: glue.Task.
    slug: str, the name of the run's directory. It depends on nothing but the
      settings, so that another sweep finds the run again.

  Raises: errors.InputError for a task or a method that is unknown.
  """

  def __init__(self, settings):
    settings = {name: _plain_number(value) for name, value in settings.items()}
    if settings.get("task_spec"):
      self.task = glue.load_task_spec(settings["task_spec"])
    elif settings.get("task_name"):
      self.task = glue.get_task(settings["task_name"])
      settings["task_name"] = self.task.display_name
    else:
      raise errors.InputError("there is no task; give task_name (--tasks) or "
                              "task_spec (--task_specs)")
    method = Method.of(settings)
    self.settings = {
        name: settings[name] for name in SETTINGS
        if name in settings and name not in method.meaningless and
        (settings[name] != _default(name) or name in _OF_A_SWEEP)}
    known = {name: value for name, value in self.settings.items()
             if name not in _WITHOUT_EFFECT}
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

  tune: see modeling.Tuning. choice: int, the adapter size, for top_n the number
  of layers; None where there is neither. adapter_layers: see RunConfig.
  """
  tune: str
  choice: Optional[int]
  adapter_layers: Optional[str]

  @classmethod
  def of(cls, settings):
    """The Method of a dict of settings.

    Raises: errors.InputError for an unknown one.
    """
    tune = setting(settings, "tune")
    if tune == "top_n":
      choice = setting(settings, "top_n_layers")
      if choice is None:
        raise errors.InputError("tune is top_n; give top_n_layers with it")
      return cls(tune, choice, None)
    with errors.reported():
      uses_adapters = modeling.Tuning(tune).uses_adapters
    return cls(tune, setting(settings, "adapter_size") if uses_adapters else
               None, setting(settings, "adapter_layers") if uses_adapters else
               None)

  @property
  def meaningless(self):
    """The names of settings that mean nothing for this method."""
    names = () if self.tune == "top_n" else ("top_n_layers",)
    if self.tune == "top_n" or self.choice is None:
      names += ("adapter_size", "adapter_init_scale", "adapter_layers")
    return names

  @property
  def label(self):
    """Its name in tables: "adapters, 64", "top 3 layers"."""
    return (count_parameters.method_of(self.tune, self.choice).label +
            self._in_layers)

  @property
  def variant(self):
    """What tells it from others of its `tune`: "64"."""
    return "%s" % self.choice + self._in_layers

  @property
  def _in_layers(self):
    return " in layers %s" % self.adapter_layers if self.adapter_layers else ""


def setting(settings, name):
  """The value that a dict of settings has for a name, or the default."""
  return settings.get(name, _default(name))


def _plain_number(value):
  """5.0 -> 5: the same value is to be written in the same way."""
  if isinstance(value, float) and value.is_integer():
    return int(value)
  return value


def described(settings, hidden=()):
  """The settings that no label says: "lr 0.001, epochs 5, seed 0"."""
  names = list(_ALWAYS_SHOWN) + [
      name for name in settings
      if name not in _ALWAYS_SHOWN + _IN_A_LABEL and name not in hidden]
  return ", ".join("%s %s" % (_SHORT.get(name, name), _shown(value))
                   for name, value in ((name, setting(settings, name))
                                       for name in names))


def _shown(value):
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
  runs = {}
  for i, grid in enumerate(sweep):
    name = "%s: grid %d" % (where, i + 1)
    _check_grid(grid, name)
    grid = dict(common, **grid)
    for one, other in (("task_name", "task_spec"), ("task_spec", "task_name")):
      if one in (changes or {}):
        grid.pop(other, None)
    grid.update(changes or {})
    values = [value if isinstance(value, list) else [value]
              for value in grid.values()]
    for combination in itertools.product(*values):
      try:
        run = Run(dict(zip(grid, combination)))
      except errors.InputError as error:
        raise errors.InputError("%s: %s" % (name, error)) from error
      runs.setdefault(run.slug, run)
  return list(runs.values())


def _check_keys(value, known, where):
  for key in value:
    if key in known:
      continue
    if key in _FIELDS:
      raise errors.InputError(
          "%s: %r is not part of a grid: a sweep sets it itself, the same for "
          "all of its runs" % (where, key))
    close = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
    raise errors.InputError("%s: unknown key %r; %s" % (
        where, key, "did you mean %s?" % " or ".join(close) if close else
        "known are %s" % ", ".join(known)))


def _check_grid(grid, where):
  """Raises InputError for what is no grid."""
  if not isinstance(grid, dict):
    raise errors.InputError("%s: must be an object of settings, found %s" %
                            (where, json.dumps(grid)[:40]))
  _check_keys(grid, SETTINGS, where)
  for key, value in grid.items():
    if value == []:
      raise errors.InputError("%s: %s is an empty list; give a value" %
                              (where, key))
    for item in value if isinstance(value, list) else [value]:
      check_value(key, item, where)


def check_value(key, value, where):
  """Raises InputError if a value is not of the setting's type."""
  kind = run_classifier.plain_type(_FIELDS[key].type)
  if value is None and _default(key) is None:
    return
  if kind == "float":
    good = (isinstance(value, (int, float)) and
            abs(value) <= sys.float_info.max and not isinstance(value, bool))
  else:
    good = type(value).__name__ == kind
  if not good:
    raise errors.InputError("%s: %s is %s; it must be %s" % (
        where, key, json.dumps(value)[:40],
        {"float": "a number", "int": "a whole number", "str": "a string",
         "bool": "true or false"}[kind]))


def read_sweep_file(path):
  """The JSON in a sweep file.

  Raises: errors.InputError.
  """
  return files.read_json(path)


# ----------------------------------------------------------- running the runs



@dataclasses.dataclass
class Options(object):
  """What is the same for all runs of a sweep."""
  output_dir: str
  vocab_file: str
  bert_config_file: str
  init_checkpoint: str
  glue_dir: str
  jobs: int = 1
  keep_checkpoints: bool = False

  def run_dir(self, run):
    return os.path.join(self.output_dir, RUNS, run.slug)

  def config(self, run):
    """The RunConfig of a run.

    Raises: errors.InputError if there is no data for it.
    """
    data_dir = run["data_dir"]
    if not data_dir and not self.glue_dir:
      raise errors.InputError(
          "glue_dir is not given; it must be the directory that has %s/%s" %
          (run.task.display_name, run.task.train.filename))
    own = dict(_OF_A_SWEEP)
    if run["save_best"]:
      del own["save_checkpoints_secs"]  # Each checkpoint is an evaluation.
    return run_classifier.RunConfig(**dict(
        dict(own, **run.settings),
        task_name=run["task_name"], do_train=True, do_eval=True,
        data_dir=data_dir or os.path.join(self.glue_dir, run.task.display_name),
        vocab_file=self.vocab_file, bert_config_file=self.bert_config_file,
        init_checkpoint=self.init_checkpoint, output_dir=self.run_dir(run)))


def check_runs(runs, options):
  """Raises InputError for a run that cannot start, before any does."""
  checked = set()
  for run in runs:
    # Each value and each method but once: this one reads the vocabulary.
    pairs = set((name, json.dumps(value))
                for name, value in run.settings.items())
    pairs.add(("method", Method.of(run.settings).label))
    pairs.add(("task", run.task.display_name))
    try:
      _check_run(run, options)
      if not pairs <= checked:
        checked |= pairs
        run_classifier.set_up(options.config(run))
    except errors.InputError as error:
      raise errors.InputError("%s: %s" % (run.label, error)) from error
  if options.init_checkpoint:
    checkpoints.find(options.init_checkpoint)
  else:
    _say("warning: init_checkpoint is not given, so every run starts from "
         "random weights")


def _check_run(run, options):
  for what, splits in (("train", [run.task.train]), ("dev", run.task.dev)):
    if not splits or None in splits:
      raise errors.InputError("the task has no %s file, and a sweep needs one" %
                              what)
    config = options.config(run)
    for split in splits:
      path = os.path.join(config.data_dir, split.filename)
      if not os.path.isfile(path):
        raise errors.InputError("there is no file %s; give the glue_dir that "
                                "has it, or data_dir in the grid" % path)
  run_classifier.check_actions(config, run.task)


def check_base(results, options):
  """Raises InputError if finished runs started from other weights than these.

  Args:
    results: dict as finished_results returns it.
    options: Options.
  """
  digest = None
  for slug in results:
    base = (checkpoints.read_run_record(os.path.join(
        options.output_dir, RUNS, slug)) or {}).get("base")
    if digest is None and options.init_checkpoint:
      digest = checkpoints.Weights.open(options.init_checkpoint).digest()
    if (base or {}).get("sha256") != digest:
      raise errors.InputError(
          "output_dir %s has finished runs that started from %s, other weights "
          "than init_checkpoint %s; give another output_dir" %
          (options.output_dir, base["path"] if base else "random weights",
           options.init_checkpoint))


def command(config):
  """The command line of a run: a list of str."""
  given = []
  for name, field in _FIELDS.items():
    value = getattr(config, name)
    if field.default is dataclasses.MISSING or value != field.default:
      if isinstance(value, bool):
        value = str(value).lower()
      if value is not None:
        given.append("--%s=%s" % (name, value))
  return [sys.executable, os.path.abspath(run_classifier.__file__)] + given


def read_json(path):
  """The JSON in a file, or None if there is no file.

  Raises: errors.InputError if it cannot be read.
  """
  return files.read_json(path, dict, missing_ok=True)


def _say(line):
  print(line, flush=True)


def _write_json(path, value):
  files.write_json(path, value)


def _locked(directory):
  """An open file that holds the directory's lock, or None if another does.

  Processes that inherit it hold the lock as well, until the last one ends.
  """
  try:
    os.makedirs(directory, exist_ok=True)
    lock = open(os.path.join(directory, LOCK), "a", encoding="utf-8")
  except OSError as error:
    raise errors.InputError("%s cannot be written: %s" %
                            (directory, error.strerror)) from error
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    lock.close()
    return None
  return lock


def lock_sweep(output_dir):
  """The lock without which no sweep may work on output_dir: an open file.

  Raises: errors.InputError if another sweep does.
  """
  lock = _locked(output_dir)
  if lock is None:
    raise errors.InputError("another sweep is at work in %s; wait for it, end "
                            "it, or give another output_dir" % output_dir)
  return lock


class _Job(object):
  """A run under way in a process of its own.

  A sweep that was killed outright leaves its processes at work. They hold their
  runs' locks, and a job waits for that before it starts its own.
  """

  def __init__(self, run, options, cores):
    self.run = run
    self.cores = cores
    self._options = options
    self._dir = options.run_dir(run)
    self.log = os.path.join(self._dir, LOG)
    self._log_start = 0
    self._state = os.path.join(self._dir, STATE)
    self._before = 0.0
    self._began = time.monotonic()
    self._process = None

  @property
  def waits(self):
    """Whether a process of an earlier sweep is still at work on the run."""
    return self._process is None

  def start(self):
    """Starts the process, unless an earlier one has to end first."""
    lock = _locked(self._dir)
    if lock is None:
      return
    self._before = self._seconds_before()
    self._began = time.monotonic()
    _write_json(self._state, {"seconds": self._before, "since": time.time()})
    _share_records(self._dir)
    arguments = command(self._options.config(self.run))
    with lock, _only_on(self.cores), open(
        self.log, "a", encoding="utf-8") as log:
      self._log_start = log.tell()
      log.write("%s %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"),
                             shlex.join(arguments)))
      log.flush()
      # A session of its own: Ctrl-C reaches the sweep alone, which ends its
      # runs and what they started.
      self._process = subprocess.Popen(
          arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
          start_new_session=True, pass_fds=[lock.fileno()])

  def _seconds_before(self):
    """Of earlier starts; one that was killed worked until its last log line."""
    state = read_json(self._state) or {}
    seconds = state.get("seconds", 0.0)
    if "since" in state and os.path.exists(self.log):
      seconds += max(0.0, os.path.getmtime(self.log) - state["since"])
    return seconds

  def poll(self):
    """The exit status, or None."""
    if self._process is None:
      self.start()
      return None
    return self._process.poll()

  def seconds(self):
    """float: the work so far, that of earlier starts included."""
    return self._before + time.monotonic() - self._began

  def note_seconds(self):
    _write_json(self._state, {"seconds": self.seconds()})

  def terminate(self):
    """Ends the process and what it started; the run can go on later."""
    if self._process is not None and self._process.poll() is None:
      os.killpg(self._process.pid, signal.SIGTERM)

  def wait(self):
    """After `terminate`: until the end has come."""
    if self._process is None:
      return
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      os.killpg(self._process.pid, signal.SIGKILL)
      self._process.wait()
    self.note_seconds()

  def finish(self):
    """After the process has ended: writes result.json.

    Returns: dict, what is in it.

    Raises: errors.InputError with the reason if the run failed.
    """
    self.note_seconds()
    status = self._process.poll()
    if status < 0:
      raise errors.InputError("ended by signal %d (%s)" %
                              (-status, signal.strsignal(-status)))
    if status > 0:
      raise errors.InputError(self._last_error())
    result = result_of(self.run, self._dir, self.seconds())
    _write_json(os.path.join(self._dir, RESULT), result)
    return result

  def _last_error(self):
    """The line of this start's log that says why the run failed."""
    with open(self.log, encoding="utf-8", errors="replace") as source:
      source.seek(self._log_start)
      lines = [line.strip() for line in source if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    return (said or lines)[-1]


def _share_records(run_dir):
  """Lets a run find what another one of the sweep has tokenized already."""
  link = os.path.join(run_dir, RECORDS)
  shared = os.path.join(os.path.dirname(os.path.dirname(run_dir)), RECORDS)
  # Also where the link is: another sweep's end has removed what it leads to.
  os.makedirs(shared, exist_ok=True)
  if not os.path.lexists(link):
    with contextlib.suppress(OSError):  # A disk that knows no links.
      os.symlink(os.path.relpath(shared, run_dir), link)


@contextlib.contextmanager
def _only_on(cores):
  """Inside, a process that is started runs on these cores; None: on any."""
  if cores is None:
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, cores)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


def shares_of_cores(jobs):
  """The cores of each of so many jobs: a list of sets, or of None."""
  if jobs == 1 or not hasattr(os, "sched_getaffinity"):
    return [None] * jobs
  cores = sorted(os.sched_getaffinity(0))
  if jobs > len(cores):
    return [None] * jobs
  return [set(cores[i::jobs]) for i in range(jobs)]


_IN_A_RESULT = {"settings", "task", "metric", "score", "metrics", "trained",
                "seconds"}


def result_of(run, run_dir, seconds):
  """What result.json holds of a finished run: a dict.

  settings: the run's. metrics: of dev, by their names in eval_results.txt, and
  of further dev splits with the split's suffix. score: the main metric in
  percent points, an error as it is. trained: what counts_of says. seconds: of
  work.
  """
  metrics = {}
  for split in run.task.dev:
    for name, value in read_metrics(os.path.join(
        run_dir, "eval_results%s.txt" % split.suffix)).items():
      metrics[name + split.suffix] = value
  main_metric = run.task.main_metric
  return {
      "settings": run.settings,
      "task": run.task.display_name,
      "metric": main_metric,
      "score": glue.points_of(main_metric) * metrics["eval_" + main_metric],
      "metrics": metrics,
      "trained": counts_of(run_dir),
      "seconds": round(seconds, 1),
  }


def read_metrics(path):
  """{name: float} of an eval_results.txt.

  Raises: errors.InputError if it cannot be read.
  """
  try:
    with open(path, encoding="utf-8") as source:
      pairs = [line.split(" = ") for line in source]
    return {name: float(value) for name, value in pairs}
  except (OSError, ValueError) as error:
    raise errors.InputError("%s: cannot be read: %s" % (path, error))


def counts_of(run_dir):
  """What a run trains, by count_parameters: a dict.

  Args:
    run_dir: str, with its run.json.

  Returns: parameters: int, without the head; head: int; of_encoder, of_whole:
    float, the fraction by either convention; whole: int, the model's without
    adapters and head.
  """
  _, model = training.model_from_record(checkpoints.read_run_record(run_dir),
                                        run_dir)
  size = model.adapter_size if model.tuning.uses_adapters else None
  counts = count_parameters.count(
      model.bert_config, [size] if size else [], model.num_labels,
      model.adapter_layers)
  return dict(counts.trained(model.tuning, size)._asdict(), whole=counts.whole)


def clean(run_dir):
  """Deletes what only a run that goes on needs: Adam's slots and records."""
  for prefix in checkpoints.numbered(run_dir):
    for path in glob.glob(glob.escape(prefix) + ".*"):
      os.remove(path)
  with contextlib.suppress(FileNotFoundError):
    os.remove(os.path.join(run_dir, "checkpoint"))
  records = os.path.join(run_dir, RECORDS)
  if os.path.islink(records):
    os.remove(records)
  else:
    shutil.rmtree(records, ignore_errors=True)


class Sweep(object):
  """Runs what is not finished, and keeps the results on disk.

  Args:
    runs: list of Run.
    options: Options.

  Raises: errors.InputError if output_dir has results of other weights.
  """

  def __init__(self, runs, options):
    self._options = options
    self._results = finished_results(options.output_dir)
    check_base(self._results, options)
    self._num_runs = len(runs)
    self._to_do = [run for run in runs if run.slug not in self._results]
    self._jobs = []
    self._failed = []

  def work(self):
    """Runs everything.

    Returns: list of (Run, the reason in a line, its log's path) of the runs
      that failed.
    """
    _say("%d runs, %d of them finished before" %
         (self._num_runs, self._num_runs - len(self._to_do)))
    for slug in self._results:
      self._clean(os.path.join(self._options.output_dir, RUNS, slug))
    free = shares_of_cores(self._options.jobs)
    queue = list(self._to_do)
    try:
      while queue or self._jobs:
        while queue and free:
          self._begin(queue.pop(0), free.pop(0))
        for job in [job for job in self._jobs if job.poll() is not None]:
          self._jobs.remove(job)
          free.append(job.cores)
          self._end(job)
        time.sleep(0.2)
    finally:
      self._stop()
    if not self._to_do and not self._options.keep_checkpoints:
      shutil.rmtree(os.path.join(self._options.output_dir, RECORDS),
                    ignore_errors=True)
    return self._failed

  def _begin(self, run, cores):
    job = _Job(run, self._options, cores)
    self._jobs.append(job)  # before it starts: Ctrl-C can come at any time
    job.start()
    _say("%s started: %s%s" % (
        self._position(), run.label, ", after the process that an earlier "
        "sweep left at work on it" if job.waits else ""))

  def _end(self, job):
    try:
      result = job.finish()
    except errors.InputError as error:
      self._failed.append((job.run, str(error), job.log))
      _say("%s FAILED: %s: %s" % (self._position(), job.run.label, error))
      return
    self._results[job.run.slug] = result
    self._to_do.remove(job.run)
    self._clean(self._options.run_dir(job.run))
    write_report(self._options.output_dir, self._results)
    _say("%s finished: %s: %s %.2f, %.0f s%s" % (
        self._position(), job.run.label, result["metric"], result["score"],
        result["seconds"], self._time_left()))

  def _stop(self):
    """Ends what is still under way, however often Ctrl-C is pressed."""
    for number in _STOPPING if self._jobs else ():
      signal.signal(number, signal.SIG_IGN)
    for job in self._jobs:
      job.terminate()
    for job in self._jobs:
      job.wait()

  def _clean(self, directory):
    if not self._options.keep_checkpoints:
      clean(directory)

  def _position(self):
    ended = self._num_runs - len(self._to_do) + len(self._failed)
    return "[%d/%d]" % (ended, self._num_runs)

  def _time_left(self):
    """"; about 12 min left", judged by the epochs of finished runs."""
    failed = [run for run, _, _ in self._failed]
    left = [run for run in self._to_do if run not in failed]
    if not left:
      return ""
    seconds = sum(self._seconds_per_epoch(run) * run["num_train_epochs"]
                  for run in left) - sum(job.seconds() for job in self._jobs)
    return "; about %.0f min left" % math.ceil(
        max(0, seconds) / self._options.jobs / 60)

  def _seconds_per_epoch(self, run):
    """Of finished runs as like this one as there are."""
    method, task = Method.of(run.settings), run.task.display_name
    results = self._results.values()
    same_task = [r for r in results if r["task"] == task]
    like = [r for r in same_task if Method.of(r["settings"]) == method]
    like = like or same_task or list(results)
    return sum(r["seconds"] for r in like) / sum(
        setting(r["settings"], "num_train_epochs") for r in like)


# All of these mean: stop, to go on later.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _stopped_by_signals():
  """Inside they raise KeyboardInterrupt, but for what nohup has ignored."""
  before = {number: signal.getsignal(number) for number in _STOPPING}
  for number, handler in before.items():
    if number != signal.SIGHUP or handler != signal.SIG_IGN:
      signal.signal(number, signal.default_int_handler)
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


# ----------------------------------------------------------------- the report


def finished_results(output_dir):
  """{slug: what is in its result.json} of the finished runs.

  Raises: errors.InputError for a result.json that is none.
  """
  runs = os.path.join(output_dir, RUNS)
  results = {}
  for slug in sorted(os.listdir(runs)) if os.path.isdir(runs) else ():
    path = os.path.join(runs, slug, RESULT)
    result = read_json(path)
    if result is None:
      continue
    if not isinstance(result, dict) or not _IN_A_RESULT <= set(result):
      raise errors.InputError("%s: is not a run's result; delete its "
                              "directory, and a sweep makes it again" % path)
    results[slug] = result
  return results


def write_report(output_dir, results):
  """Writes results.csv and table.md.

  Args:
    output_dir: str.
    results: dict as finished_results returns it.
  """
  files.write_atomically(os.path.join(output_dir, CSV_FILE),
                         results_csv(results))
  files.write_atomically(os.path.join(output_dir, TABLE_FILE),
                         results_tables(results.values()))


def _sort_key(result):
  """Tasks, methods and settings together, seeds in order."""
  settings = result["settings"]
  method = Method.of(settings)
  tunes = list(modeling.Tuning.METHODS)
  return (result["task"],
          tunes.index(method.tune) if method.tune in tunes else len(tunes),
          method.tune, method.choice or 0, method.adapter_layers or "",
          [setting(settings, name) for name in _ALWAYS_SHOWN],
          json.dumps(dict(settings, seed=0), sort_keys=True),
          setting(settings, "seed"))


_FIRST_COLUMNS = ("tune", "adapter_size", "top_n_layers", "learning_rate",
                  "num_train_epochs", "adapter_init_scale", "seed")


def results_csv(results):
  """A row for each finished run: str."""
  given = set(name for r in results.values() for name in r["settings"])
  names = list(_FIRST_COLUMNS) + [
      name for name in SETTINGS
      if name in given and name not in _FIRST_COLUMNS + ("task_name",)]
  metrics = sorted(set(name for r in results.values() for name in r["metrics"]
                       if name.startswith("eval_")))
  output = io.StringIO()
  writer = csv.DictWriter(
      output, ["task", "method"] + names + ["metric", "score"] + metrics +
      ["trained_parameters", "trained_percent", "trained_percent_of_encoder",
       "head_parameters", "total_parameters", "seconds", "run"],
      restval="", extrasaction="ignore", lineterminator="\n")
  writer.writeheader()
  for slug, r in sorted(results.items(), key=lambda item: _sort_key(item[1])):
    method = Method.of(r["settings"])
    trained = r["trained"]
    row = {name: setting(r["settings"], name) for name in names
           if name not in method.meaningless}
    writer.writerow(dict(
        row, **r["metrics"], task=r["task"], method=method.label,
        metric=r["metric"], score="%.4f" % r["score"],
        trained_parameters=trained["parameters"],
        trained_percent="%.6f" % (100 * trained["of_whole"]),
        trained_percent_of_encoder="%.6f" % (100 * trained["of_encoder"]),
        head_parameters=trained["head"], total_parameters=trained["whole"],
        seconds=r["seconds"], run=slug))
  return output.getvalue()


def read_results(path):
  """The finished runs in a results.csv: a list of what settings_of takes.

  Raises: errors.InputError if it cannot be read, or is another file.
  """
  try:
    with open(path, encoding="utf-8", newline="") as source:
      rows = list(csv.DictReader(source))
    return [_result_from(row) for row in rows]
  except OSError as error:
    raise errors.InputError("%s: cannot be read: %s" %
                            (path, error.strerror)) from error
  except KeyError as error:
    raise errors.InputError("%s: has no column %s; give a sweep's %s" %
                            (path, error, CSV_FILE)) from error
  except (ValueError, TypeError) as error:
    raise errors.InputError("%s: cannot be read as a sweep's %s: %s" %
                            (path, CSV_FILE, error)) from error


def _result_from(row):
  """What settings_of needs of a result.json, from a row of results.csv.

  Raises: KeyError, ValueError or TypeError for a row that is none.
  """
  parse = {"int": int, "float": float, "str": str,
           "bool": lambda text: bool(("False", "True").index(text))}
  settings = {}
  for name in SETTINGS:
    if row.get(name):  # An empty cell is a setting that means nothing there.
      kind = run_classifier.plain_type(_FIELDS[name].type)
      settings[name] = _plain_number(parse[kind](row[name]))
  score = float(row["score"])
  if not math.isfinite(score):
    raise ValueError("the score of a run is %s" % row["score"])
  Method.of(settings)  # Raises if there is none.
  return {
      "settings": settings, "task": row["task"], "metric": row["metric"],
      "score": score,
      "trained": {"parameters": int(row["trained_parameters"]),
                  "of_whole": float(row["trained_percent"]) / 100},
      "seconds": float(row["seconds"]),
  }


@dataclasses.dataclass
class Setting(object):
  """The runs of one setting, which differ in the seed alone.

  settings: dict without the seed. scores: floats, one for each seed. trained:
  float, the fraction of the whole model. parameters: int, those trained,
  without the head. seconds: float, the mean of a run.
  """
  task: str
  metric: str
  settings: dict
  scores: list
  trained: float
  parameters: int
  seconds: float

  @property
  def method(self):
    return Method.of(self.settings)

  @property
  def best(self):
    return glue.best_of(self.metric)(self.scores)

  @property
  def mean(self):
    return sum(self.scores) / len(self.scores)

  @property
  def standard_error(self):
    """Of the mean, from the sample's standard deviation; None for one seed."""
    n = len(self.scores)
    if n < 2:
      return None
    return math.sqrt(sum((score - self.mean)**2 for score in self.scores) /
                     (n - 1) / n)


def settings_of(results):
  """The results put together by setting: a list of Setting."""
  groups = {}
  for result in sorted(results, key=_sort_key):
    settings = {name: value for name, value in result["settings"].items()
                if name != "seed" and name not in _WITHOUT_EFFECT}
    key = result["task"] + json.dumps(settings, sort_keys=True)
    groups.setdefault(key, (settings, []))[1].append(result)
  return [
      Setting(task=rs[0]["task"], metric=rs[0]["metric"], settings=settings,
              scores=[r["score"] for r in rs],
              trained=rs[0]["trained"]["of_whole"],
              parameters=rs[0]["trained"]["parameters"],
              seconds=sum(r["seconds"] for r in rs) / len(rs))
      for settings, rs in groups.values()]


def choose(candidates):
  """The best Setting by mean of those with the most seeds; the first of equals.

  One good seed of a setting that is not done yet is no reason to choose it.
  """
  most = max(len(candidate.scores) for candidate in candidates)
  return glue.best_of(candidates[0].metric)(
      (candidate for candidate in candidates if len(candidate.scores) == most),
      key=lambda candidate: candidate.mean)


def methods_of(settings):
  """{label: {task: the Setting chosen}} of each method, in order.

  Several sizes of adapters, or numbers of layers, get a row more, in which the
  size too is chosen for each task, as in the paper's tables.
  """
  by_tune = {}
  for candidate in settings:
    by_tune.setdefault(candidate.method.tune, []).append(candidate)
  rows = {}
  for tune, members in by_tune.items():
    variants = {}
    for member in sorted(members, key=lambda m: m.method.choice or 0):
      variants.setdefault(member.method, []).append(member)
    for method, found in variants.items():
      rows[method.label] = _best_by_task(found)
    if len(variants) > 1:
      label = "%s, best of %s" % ("top-n" if tune == "top_n" else tune,
                                  ", ".join(m.variant for m in variants))
      rows[label] = _best_by_task(members)
  return rows


def _best_by_task(candidates):
  tasks = {}
  for candidate in candidates:
    tasks.setdefault(candidate.task, []).append(candidate)
  return {task: choose(found) for task, found in tasks.items()}


NOTE = """\
Scores are those of the dev set, in percent points of the task's main metric. \
Of a method's settings, those with the best mean over the seeds are chosen for \
each task; settings with fewer finished seeds than others are passed over. ± \
and "s.e." are the standard error of that mean, "best" is the best seed.

trained: the parameters trained for a task, without its head, over those of \
the whole model; results.csv has the other convention too, count_parameters.py \
explains both. total x: what N tasks need (N = %d), in models, if trained like \
the row: 1 + N x trained, and N for full fine-tuning. minutes: of a run, the \
mean.
"""


def results_tables(results):
  """What is in table.md: str."""
  settings = settings_of(results)
  if not settings:
    return "No run has finished yet.\n"
  tasks = sorted(set(one.task for one in settings))
  methods = methods_of(settings)
  same = _same_in_all(settings)
  blocks = [count_parameters.markdown(table) for table in (
      _summary_table(methods, tasks), _chosen_table(methods, tasks, same),
      _settings_table(settings, same))]
  if same:
    blocks.append("In all runs: %s." % ", ".join(
        "%s %s" % (_SHORT.get(name, name), _shown(value))
        for name, value in same.items()))
  blocks.append(NOTE % len(tasks))
  return "\n\n".join(blocks)


def _same_in_all(settings):
  """The settings that need not be said in every row."""
  return {name: value for name, value in settings[0].settings.items()
          if name not in _ALWAYS_SHOWN + _IN_A_LABEL and
          all(one.settings.get(name) == value for one in settings)}


_TEXT, _NUMBER = count_parameters.TEXT, count_parameters.PRINTED
_PERCENT, _TIMES = count_parameters.PERCENT, count_parameters.TIMES


def _total_times(chosen, num_tasks):
  """What `num_tasks` tasks need, in models, if trained like these Settings."""
  method = chosen[0].method
  return count_parameters.total_times(
      count_parameters.method_of(method.tune, method.choice),
      _mean(one.trained for one in chosen), num_tasks)


def _mean(values):
  values = list(values)
  return sum(values) / len(values)


def _summary_table(methods, tasks):
  columns = [("method", _TEXT)] + [(task, _NUMBER) for task in tasks] + [
      ("average", _NUMBER), ("trained", _PERCENT), ("total x", _TIMES),
      ("minutes", _NUMBER)]
  rows = []
  for label, by_task in methods.items():
    chosen = list(by_task.values())
    average = ""
    if len(chosen) == len(tasks):
      average = "%.1f" % _mean(one.mean for one in chosen)
    rows.append([label] + [_with_error(by_task.get(task)) for task in tasks] +
                [average, _mean(one.trained for one in chosen),
                 _total_times(chosen, len(tasks)),
                 "%.1f" % (_mean(one.seconds for one in chosen) / 60)])
  return count_parameters.Table(
      "summary", "", "Methods: mean ± standard error", columns, rows)


def _with_error(chosen):
  if chosen is None:
    return ""
  if chosen.standard_error is None:
    return "%.1f" % chosen.mean
  return "%.1f ± %.1f" % (chosen.mean, chosen.standard_error)


_STATISTICS = [("mean", _NUMBER), ("s.e.", _NUMBER), ("best", _NUMBER),
               ("seeds", _NUMBER)]


def _statistics(one):
  error = one.standard_error
  return ["%.2f" % one.mean, "" if error is None else "%.2f" % error,
          "%.2f" % one.best, "%d" % len(one.scores)]


def _chosen_table(methods, tasks, same):
  columns = [("task", _TEXT), ("metric", _TEXT), ("method", _TEXT),
             ("chosen", _TEXT)] + _STATISTICS + [
                 ("trained", _PERCENT), ("total x", _TIMES)]
  rows = []
  for task in tasks:
    for label, by_task in methods.items():
      if task not in by_task:
        continue
      one = by_task[task]
      chosen = described(one.settings, same)
      if label != one.method.label:
        chosen = "%s: %s" % (one.method.label, chosen)
      rows.append([task, one.metric, label, chosen] + _statistics(one) +
                  [one.trained, _total_times([one], len(tasks))])
  return count_parameters.Table(
      "chosen", "", "The settings chosen for each task", columns, rows)


def _settings_table(settings, same):
  columns = ([("task", _TEXT), ("method", _TEXT), ("settings", _TEXT)] +
             _STATISTICS)
  rows = [[one.task, one.method.label, described(one.settings, same)] +
          _statistics(one) for one in settings]
  return count_parameters.Table("settings", "", "All settings", columns, rows)


# --------------------------------------------------------------------- flags


def define_flags(flag_values=FLAGS):
  """Flags of this program, defined only where it is one."""
  for name, description in (
      ("preset", "One of the paper's sweeps: %s." % ", ".join(PRESETS)),
      ("sweep_file", "A JSON file of grids; see the top of sweep.py."),
      ("glue_dir", "The directory with a directory of .tsv files for each GLUE "
       "task, as glue_dir/MRPC."),
      ("vocab_file", "The vocabulary that BERT was trained with."),
      ("bert_config_file", "The bert_config.json of the pre-trained BERT."),
      ("init_checkpoint", "The pre-trained BERT: a checkpoint's prefix or its "
       "directory.")):
    flags.DEFINE_string(name, None, description, flag_values=flag_values)
  flags.DEFINE_string("output_dir", "sweep", "Where runs and results are "
                      "written.", flag_values=flag_values)
  for flag, name in GRID_FLAGS.items():
    flags.DEFINE_string(flag, None, "Comma-separated values of %s." % name,
                        flag_values=flag_values)
  flags.DEFINE_multi_string("set", [], "NAME=VALUE for any further setting of "
                            "run_classifier.py, in every run.",
                            flag_values=flag_values)
  flags.DEFINE_integer("jobs", 1, "How many runs at a time. On Linux each gets "
                       "its share of the cores.", lower_bound=1,
                       flag_values=flag_values)
  flags.DEFINE_boolean("keep_checkpoints", False, "Keep the training "
                       "checkpoints and the tokenized data of finished runs.",
                       flag_values=flag_values)
  flags.DEFINE_boolean("report_only", False, "Run nothing; write results.csv "
                       "and table.md from what is there.",
                       flag_values=flag_values)


def grid_from_flags(flag_values):
  """The settings that the grid's flags and --set give, as one grid."""
  grid = {}
  for flag, name in GRID_FLAGS.items():
    text = flag_values[flag].value
    if text is not None:
      grid[name] = [_parsed(name, item.strip(), "--%s" % flag)
                    for item in text.split(",")]
  for text in flag_values["set"].value:
    name, equals, value = text.partition("=")
    if not equals:
      raise errors.InputError("--set=%s: give NAME=VALUE" % text)
    _check_keys({name: value}, SETTINGS, "--set")
    grid[name] = _parsed(name, value, "--set")
  return grid


def _parsed(name, text, where):
  """A setting's value from the text of a flag."""
  read = {"int": int, "float": float, "str": str, "bool": json.loads}[
      run_classifier.plain_type(_FIELDS[name].type)]
  try:
    value = read(text)
  except ValueError:
    value = text  # the check says what it must be
  check_value(name, value, where)
  return value


def runs_from_flags(flag_values):
  """The runs that the command line asks for.

  Raises: errors.InputError.
  """
  grid = grid_from_flags(flag_values)
  if flag_values.preset and flag_values.sweep_file:
    raise errors.InputError("preset and sweep_file are both given; give one")
  preset = flag_values.preset
  if preset:
    if preset not in PRESETS:
      raise errors.InputError("preset %s is unknown; known are %s" %
                              (preset, ", ".join(PRESETS)))
    return runs_of(PRESETS[preset], "preset %s" % preset, grid)
  if flag_values.sweep_file:
    return runs_of(read_sweep_file(flag_values.sweep_file),
                   "sweep_file %s" % flag_values.sweep_file, grid)
  if not grid:
    raise errors.InputError("nothing to sweep over: give preset, sweep_file or "
                            "a grid's flags, as --tasks and --learning_rates")
  return runs_of([grid], "the flags")


def options_from_flags(flag_values):
  """Options.

  Raises: errors.InputError for a flag that is missing.
  """
  for name in ("vocab_file", "bert_config_file"):
    if not flag_values[name].value:
      raise errors.InputError("%s is not given" % name)
  return Options(**{field.name: flag_values[field.name].value
                    for field in dataclasses.fields(Options)})


def main(argv, flag_values=FLAGS):
  errors.refuse_arguments(argv)
  output_dir = flag_values.output_dir
  if flag_values.report_only:
    if not os.path.isdir(os.path.join(output_dir, RUNS)):
      raise errors.InputError("output_dir %s is no sweep's: there is no %s/ in "
                              "it" % (output_dir, RUNS))
    write_report(output_dir, finished_results(output_dir))
    return 0
  try:
    runs = runs_from_flags(flag_values)
    options = options_from_flags(flag_values)
    check_runs(runs, options)
    with lock_sweep(output_dir), _stopped_by_signals():
      failed = Sweep(runs, options).work()
      write_report(output_dir, finished_results(output_dir))
  except KeyboardInterrupt:
    _say("stopped; the same command goes on from here")
    return 130
  _say("results: %s and %s" % tuple(os.path.join(output_dir, name)
                                    for name in (CSV_FILE, TABLE_FILE)))
  if failed:
    _say("%d of %d runs failed:" % (len(failed), len(runs)))
    for run, reason, log in failed:
      _say("  %s: %s (log: %s)" % (run.label, reason, log))
    return 1
  return 0


def entry_point():
  """The console command `adapter-bert-sweep`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
