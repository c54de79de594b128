"""Runs run_classifier.py over a grid of settings, and tabulates the scores.

    python sweep.py --tasks=MRPC,RTE --tunes=adapters,full --adapter_sizes=8,64 \\
      --learning_rates=3e-4,1e-3 --epochs=5 --seeds=0,1,2 \\
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
A grid with "task_spec" and "data_dir" has a task of your own.
"""

import contextlib
import csv
import dataclasses
import difflib
import fcntl
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags

import checkpoints
import count_parameters
import errors
import glue
import modeling
import run_classifier

FLAGS = flags.FLAGS

# Under output_dir.
RUNS, LOCK, CSV_FILE, TABLE_FILE = "runs", "lock", "results.csv", "table.md"
# Under a run's directory.
RESULT, STATE, LOG = "result.json", "sweep_state.json", "log.txt"

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
    # Table 2, BERT-BASE; the tasks are not GLUE's: give --task_specs.
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
                   "predict_batch_size")
# Flag -> the setting it gives a list of values for.
GRID_FLAGS = {
    "tasks": "task_name", "tunes": "tune", "learning_rates": "learning_rate",
    "epochs": "num_train_epochs", "adapter_sizes": "adapter_size",
    "top_n_layers": "top_n_layers", "seeds": "seed",
    "init_scales": "adapter_init_scale",
}


def _default(name):
  default = _FIELDS[name].default
  return None if default is dataclasses.MISSING else default


class Run(object):
  """One run of a sweep.

  Args:
    settings: dict of names in SETTINGS to values. What has no meaning for the
      method (an adapter's size without adapters) is left out of it, and so is
      what is as by default, so that equal runs have equal settings.

  Attributes:
    settings: dict, as above.
    task: glue.Task.
    slug: str, the name of the run's directory.

  Raises: errors.InputError for a task or a method that is unknown.
  """

  def __init__(self, settings):
    if settings.get("task_spec"):
      self.task = glue.load_task_spec(settings["task_spec"])
      if not settings.get("data_dir"):
        raise errors.InputError("a grid with task_spec %s needs data_dir, the "
                                "directory of its files" %
                                settings["task_spec"])
    elif settings.get("task_name"):
      self.task = glue.get_task(settings["task_name"])
      settings = dict(settings, task_name=self.task.display_name)
    else:
      raise errors.InputError("a grid has no task: give task_name (--tasks), or "
                              "task_spec and data_dir")
    dropped = []
    if settings.get("tune", "adapters") != "top_n":
      dropped += ["top_n_layers"]
    if not self._uses_adapters(settings):
      dropped += ["adapter_size", "adapter_init_scale", "adapter_layers"]
    self.settings = {
        name: settings[name] for name in SETTINGS
        if name in settings and name not in dropped and
        settings[name] != _default(name)}
    known = {name: value for name, value in self.settings.items()
             if name not in _WITHOUT_EFFECT}
    digest = hashlib.sha256(
        json.dumps(known, sort_keys=True).encode("utf-8")).hexdigest()
    self.slug = "-".join([
        self.task.display_name, self["tune"] + "%s" % (self.choice or ""),
        "lr%g" % self["learning_rate"], "ep%g" % self["num_train_epochs"],
        "seed%d" % self["seed"], digest[:8]])

  @staticmethod
  def _uses_adapters(settings):
    tune = settings.get("tune", "adapters")
    # A number of layers that fits any model: the real one is checked later.
    n = 1 if tune == "top_n" else None
    with errors.reported():
      return modeling.Tuning(tune, n, n).uses_adapters

  def __getitem__(self, name):
    """The value of a setting, its default if need be."""
    return self.settings.get(name, _default(name))

  @property
  def choice(self):
    """The adapter size, for top_n the number of layers, else None."""
    if self["tune"] == "top_n":
      return self["top_n_layers"]
    return self["adapter_size"] if self._uses_adapters(self.settings) else None

  def label(self):
    """The settings that tell runs of a sweep apart, for a line of text."""
    parts = [self.task.display_name, method_label(self.settings)]
    for name, value in self.settings.items():
      if name not in ("task_name", "task_spec", "data_dir", "tune",
                      "adapter_size", "top_n_layers", "adapter_layers"):
        parts.append("%s=%s" % (name, _shown(value)))
    return " ".join(parts)


def _shown(value):
  return "%g" % value if isinstance(value, float) else str(value)


def method_label(settings):
  """The name of a run's method: "adapters, 64", "top 3 layers"."""
  tune = settings.get("tune", _default("tune"))
  choice = None
  if tune == "top_n":
    choice = settings["top_n_layers"]
  elif modeling.Tuning(tune).uses_adapters:
    choice = settings.get("adapter_size", _default("adapter_size"))
  label = count_parameters.method_of(tune, choice).label
  if settings.get("adapter_layers"):
    label += " in layers %s" % settings["adapter_layers"]
  return label


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
    grid.update(changes or {})
    values = [value if isinstance(value, list) else [value]
              for value in grid.values()]
    for combination in itertools.product(*values):
      try:
        run = Run(dict(zip(grid, combination)))
      except errors.InputError as error:
        raise errors.InputError("%s: %s" % (name, error))
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
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
  else:
    good = type(value).__name__ == kind
  if not good:
    raise errors.InputError("%s: %s is %s; it must be %s" % (
        where, key, json.dumps(value),
        {"float": "a number", "int": "a whole number", "str": "a string",
         "bool": "true or false"}[kind]))


def read_sweep_file(path):
  """The JSON in a sweep file.

  Raises: errors.InputError.
  """
  try:
    with open(path, encoding="utf-8") as source:
      return json.load(source, object_pairs_hook=_no_key_twice)
  except OSError as error:
    raise errors.InputError("sweep_file %s: %s" % (path, error.strerror))
  except ValueError as error:
    raise errors.InputError("sweep_file %s is not JSON: %s" % (path, error))


def _no_key_twice(pairs):
  names = [name for name, _ in pairs]
  for name in names:
    if names.count(name) > 1:
      raise ValueError("the key %r is there twice" % name)
  return dict(pairs)


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
      raise errors.InputError("glue_dir is not given; it must be the directory "
                              "that has %s/%s" % (run.task.display_name,
                                                  run.task.train.filename))
    return run_classifier.RunConfig(**dict(
        dict(run.settings, keep_checkpoint_max=run.settings.get(
            "keep_checkpoint_max", 1)),
        task_name=run["task_name"], do_train=True, do_eval=True,
        data_dir=data_dir or os.path.join(self.glue_dir, run.task.display_name),
        vocab_file=self.vocab_file, bert_config_file=self.bert_config_file,
        init_checkpoint=self.init_checkpoint, output_dir=self.run_dir(run)))


def check_runs(runs, options):
  """Raises InputError for a run that cannot start, before any does."""
  checked = set()
  for run in runs:
    for split in (run.task.train,) + run.task.dev[:1]:
      if split is None:
        raise errors.InputError("the task %s has no train file or no dev file: "
                                "a sweep needs both" % run.task.display_name)
    config = options.config(run)
    for split in (run.task.train,) + run.task.dev:
      path = os.path.join(config.data_dir, split.filename)
      if not os.path.isfile(path):
        raise errors.InputError("%s: there is no file %s" %
                                (run.task.display_name, path))
    # Seeds apart, and each but once: a check reads the vocabulary.
    settings = dict(run.settings, seed=None)
    key = json.dumps(settings, sort_keys=True)
    if key not in checked:
      checked.add(key)
      try:
        run_classifier.set_up(config)
      except errors.InputError as error:
        raise errors.InputError("%s: %s" % (run.label(), error))
  if options.init_checkpoint:
    checkpoints.find(options.init_checkpoint)


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
  try:
    with open(path, encoding="utf-8") as source:
      return json.load(source)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise errors.InputError("%s: cannot be read: %s" % (path, error))


def _write_json(path, value):
  glue.write_text_atomically(path, [json.dumps(value, indent=1) + "\n"])


@contextlib.contextmanager
def locked(output_dir):
  """Inside, no other sweep can work on this output_dir.

  Yields: int, the lock's file descriptor. Processes that inherit it hold the
    lock as well.

  Raises: errors.InputError if one does.
  """
  try:
    os.makedirs(os.path.join(output_dir, RUNS), exist_ok=True)
    lock = open(os.path.join(output_dir, LOCK), "a", encoding="utf-8")
  except OSError as error:
    raise errors.InputError("output_dir %s cannot be written: %s" %
                            (output_dir, error.strerror))
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.InputError(
          "another sweep is at work in %s, or runs that one left behind; wait "
          "for it, end it, or give another output_dir" % output_dir)
    yield lock.fileno()


class _Job(object):
  """A run under way in a process of its own."""

  def __init__(self, run, options, cores, lock):
    self.run = run
    self.cores = cores
    self._options = options
    self._dir = options.run_dir(run)
    os.makedirs(self._dir, exist_ok=True)
    self.log = os.path.join(self._dir, LOG)
    self._state = os.path.join(self._dir, STATE)
    self._before = (read_json(self._state) or {}).get("seconds", 0.0)
    self._began = time.monotonic()
    arguments = command(options.config(run))
    with open(self.log, "a", encoding="utf-8") as log, _only_on(cores):
      log.write("\n%s %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"),
                               " ".join(arguments)))
      log.flush()
      # A session of its own: Ctrl-C reaches the sweep alone, which ends its
      # runs and what they started.
      self._process = subprocess.Popen(
          arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
          start_new_session=True, pass_fds=[lock])

  def poll(self):
    """The exit status, or None."""
    return self._process.poll()

  def seconds(self):
    """float: the work so far, that of earlier starts included."""
    return self._before + time.monotonic() - self._began

  def note_seconds(self):
    _write_json(self._state, {"seconds": self.seconds()})

  def end(self):
    """Ends the process and what it started; the run can go on later."""
    for sent, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
      if self._process.poll() is None:
        os.killpg(self._process.pid, sent)
        try:
          self._process.wait(patience)
        except subprocess.TimeoutExpired:
          pass
    self.note_seconds()

  def finish(self):
    """After status 0: writes result.json.

    Returns: dict, what is in it.
    """
    result = result_of(self.run, self._dir, self.seconds())
    _write_json(os.path.join(self._dir, RESULT), result)
    return result

  def last_error(self):
    """The line of the log that says why the run failed."""
    with open(self.log, encoding="utf-8", errors="replace") as source:
      lines = [line.strip() for line in source if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    return (said or lines)[-1]


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


def result_of(run, run_dir, seconds):
  """What result.json holds of a finished run: a dict.

  settings: the run's. metrics: of dev, by their names in eval_results.txt, and
  of further dev splits with the split's suffix. score: the main metric in
  percent points. trained: what counts_of says. seconds: of work.
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
      "score": 100 * metrics["eval_" + main_metric],
      "metrics": metrics,
      "trained": counts_of(run, checkpoints.read_run_record(run_dir)),
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


def counts_of(run, record):
  """What a run trains, by count_parameters: a dict.

  Args:
    run: Run.
    record: dict, its run.json.

  Returns: parameters: int, without the head; head: int; of_encoder, of_whole:
    float, the fraction by either convention; whole: int, the model's without
    adapters and head.
  """
  config = modeling.BertConfig.from_dict(record["bert_config"])
  size = record["adapter_size"]
  counts = count_parameters.count(
      config, [size] if size else [], record["num_labels"])
  tuning = modeling.Tuning(run["tune"], run["top_n_layers"],
                           config.num_hidden_layers)
  return dict(counts.trained(tuning, size)._asdict(), whole=counts.whole)


def clean(run_dir):
  """Deletes what only a run that goes on needs: Adam's slots and records."""
  for prefix in checkpoints.numbered(run_dir):
    for suffix in (".index", ".data-00000-of-00001", ".meta"):
      with contextlib.suppress(FileNotFoundError):
        os.remove(prefix + suffix)
  with contextlib.suppress(FileNotFoundError):
    os.remove(os.path.join(run_dir, "checkpoint"))
  shutil.rmtree(os.path.join(run_dir, "records"), ignore_errors=True)


class Sweep(object):
  """Runs what is not finished, and keeps the results on disk.

  Args:
    runs: list of Run.
    options: Options.
  """

  def __init__(self, runs, options):
    self._options = options
    self._results = finished_results(options.output_dir)
    self._to_do = [run for run in runs if run.slug not in self._results]
    self._num_runs = len(runs)
    self._jobs = []
    self._failed = []

  def work(self, lock):
    """Runs everything.

    Args:
      lock: int, the file descriptor of the lock that the runs hold too.

    Returns: list of (Run, the last line of its log, its log's path) of the
      runs that failed.
    """
    _say("%d runs, %d of them finished before" %
         (self._num_runs, self._num_runs - len(self._to_do)))
    if not self._options.keep_checkpoints:
      for slug in self._results:
        clean(os.path.join(self._options.output_dir, RUNS, slug))
    free = shares_of_cores(self._options.jobs)
    queue = list(self._to_do)
    try:
      while queue or self._jobs:
        while queue and free:
          run = queue.pop(0)
          self._jobs.append(_Job(run, self._options, free.pop(0), lock))
          _say("%s started: %s" % (self._position(), run.label()))
        for job in [job for job in self._jobs if job.poll() is not None]:
          self._jobs.remove(job)
          free.append(job.cores)
          self._ended(job)
        time.sleep(0.2)
    finally:
      for job in self._jobs:
        job.end()
    return self._failed

  def _position(self):
    done = self._num_runs - len(self._to_do) + len(self._failed)
    return "[%d/%d]" % (done, self._num_runs)

  def _ended(self, job):
    job.note_seconds()
    run_dir = self._options.run_dir(job.run)
    try:
      if job.poll() != 0:
        raise errors.InputError(job.last_error())
      result = job.finish()
    except errors.InputError as error:
      self._failed.append((job.run, str(error), job.log))
      _say("%s FAILED: %s: %s" % (self._position(), job.run.label(), error))
      return
    self._results[job.run.slug] = result
    self._to_do.remove(job.run)
    if not self._options.keep_checkpoints:
      clean(run_dir)
    write_report(self._options.output_dir, self._results)
    _say("%s finished: %s: %s %.2f, %.0f s%s" % (
        self._position(), job.run.label(), result["metric"], result["score"],
        result["seconds"], self._time_left()))

  def _time_left(self):
    """"; about 12 minutes left", judged by the finished runs' epochs."""
    left = [run for run in self._to_do
            if run not in [failed for failed, _, _ in self._failed]]
    seconds = 0.0
    for run in left:
      same = [r for r in self._results.values()
              if r["task"] == run.task.display_name] or list(
                  self._results.values())
      per_epoch = sum(r["seconds"] for r in same) / sum(
          r["settings"].get("num_train_epochs", _default("num_train_epochs"))
          for r in same)
      seconds += per_epoch * run["num_train_epochs"]
    if not left:
      return ""
    return "; about %.0f minutes left" % math.ceil(
        seconds / self._options.jobs / 60)


def _say(line):
  print(line, flush=True)


# ----------------------------------------------------------------- the report


def finished_results(output_dir):
  """{slug: what is in its result.json} of the finished runs."""
  runs = os.path.join(output_dir, RUNS)
  results = {}
  for slug in sorted(os.listdir(runs)) if os.path.isdir(runs) else ():
    result = read_json(os.path.join(runs, slug, RESULT))
    if result is not None:
      results[slug] = result
  return results


def write_report(output_dir, results):
  """Writes results.csv and table.md.

  Args:
    output_dir: str.
    results: dict as finished_results returns it.
  """
  glue.write_text_atomically(os.path.join(output_dir, CSV_FILE),
                             [results_csv(results)])
  glue.write_text_atomically(os.path.join(output_dir, TABLE_FILE),
                             [results_tables(results.values())])


def _sort_key(result):
  settings = result["settings"]
  tune = settings.get("tune", _default("tune"))
  return (result["task"], tune, settings.get("top_n_layers", 0),
          settings.get("adapter_size", _default("adapter_size")),
          json.dumps(dict(settings, seed=0), sort_keys=True),
          settings.get("seed", 0))


def results_csv(results):
  """A row for each finished run: str."""
  always = ["tune", "adapter_size", "top_n_layers", "learning_rate",
            "num_train_epochs", "adapter_init_scale", "seed"]
  given = set(name for r in results.values() for name in r["settings"])
  names = always + [n for n in SETTINGS
                    if n in given and n not in always + ["task_name"]]
  metrics = sorted(set(name for r in results.values() for name in r["metrics"]))
  header = (["task", "method"] + names + ["metric", "score"] + metrics + [
      "trained_parameters", "trained_percent", "trained_percent_of_encoder",
      "head_parameters", "model_parameters", "seconds", "run"])
  output = io.StringIO()
  writer = csv.DictWriter(output, header, restval="", lineterminator="\n")
  writer.writeheader()
  for slug, r in sorted(results.items(), key=lambda item: _sort_key(item[1])):
    trained, settings = r["trained"], r["settings"]
    row = dict({name: settings.get(name, _default(name)) for name in names},
               **r["metrics"])
    tune = row["tune"]
    if tune == "top_n" or not modeling.Tuning(tune).uses_adapters:
      row.update(adapter_size="", adapter_init_scale="")
    writer.writerow(dict(
        row, task=r["task"], method=method_label(settings), metric=r["metric"],
        score="%.4f" % r["score"], trained_parameters=trained["parameters"],
        trained_percent="%.6f" % (100 * trained["of_whole"]),
        trained_percent_of_encoder="%.6f" % (100 * trained["of_encoder"]),
        head_parameters=trained["head"], model_parameters=trained["whole"],
        seconds=r["seconds"], run=slug))
  return output.getvalue()


@dataclasses.dataclass
class Chosen(object):
  """The best setting of a method on a task, by the mean over its seeds.

  settings: without the seed. scores: floats, one for each seed. fraction:
  float, trained of the whole model. seconds: float, the mean of a run.
  """
  task: str
  metric: str
  settings: dict
  scores: list
  fraction: float
  seconds: float

  @property
  def method(self):
    return method_label(self.settings)

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
  """The results by setting, seeds put together: a list of Chosen."""
  groups = {}
  for result in sorted(results, key=_sort_key):
    settings = {name: value for name, value in result["settings"].items()
                if name != "seed" and name not in _WITHOUT_EFFECT}
    key = result["task"] + json.dumps(settings, sort_keys=True)
    groups.setdefault(key, (settings, []))[1].append(result)
  return [
      Chosen(task=rs[0]["task"], metric=rs[0]["metric"], settings=settings,
             scores=[r["score"] for r in rs],
             fraction=rs[0]["trained"]["of_whole"],
             seconds=sum(r["seconds"] for r in rs) / len(rs))
      for settings, rs in groups.values()]


def choose(candidates):
  """The best by mean of those with the most seeds, the first if equal."""
  most = max(len(candidate.scores) for candidate in candidates)
  return max((candidate for candidate in candidates
              if len(candidate.scores) == most), key=lambda c: c.mean)


def methods_of(candidates):
  """{label: its Chosen by task}, each method's best on each task.

  A method of several sizes, as adapters, gets a further row in which the size
  too is chosen for each task.
  """
  rows = {}
  tunes = {}
  for candidate in candidates:
    rows.setdefault(candidate.method, {}).setdefault(
        candidate.task, []).append(candidate)
    tune = candidate.settings.get("tune", _default("tune"))
    tunes.setdefault(tune, []).append(candidate)
  for tune, members in tunes.items():
    if len(set(member.method for member in members)) > 1:
      of_all = rows.setdefault("%s, best of its sizes" % tune, {})
      for member in members:
        of_all.setdefault(member.task, []).append(member)
  return {label: {task: choose(found) for task, found in tasks.items()}
          for label, tasks in rows.items()}


NOTE = """\
Scores are of the dev set, in percent points of the task's main metric. Of the \
settings of a method, those with the best mean over the seeds on dev are \
shown; settings with fewer finished seeds than others are passed over. ± and \
"s.e." is the standard error of that mean, "best" the best seed.

trained: what a task trains without its head, of the whole model (without \
adapters and head); count_parameters.py explains this and the other \
convention, which results.csv has too. total x, for %d task%s: what all tasks \
need together, in models; 1 + N x trained, and N for full fine-tuning. \
minutes: of a run, on average.
"""


def results_tables(results):
  """The tables of table.md: str."""
  settings = settings_of(results)
  if not settings:
    return "No run has finished yet.\n"
  tasks = sorted(set(chosen.task for chosen in settings))
  methods = methods_of(settings)
  blocks = [count_parameters.markdown(table) for table in (
      _summary_table(methods, tasks), _chosen_table(methods, tasks),
      _settings_table(settings))]
  blocks.append(NOTE % (len(tasks), "" if len(tasks) == 1 else "s"))
  return "\n\n".join(blocks)


_TEXT, _NUMBER = count_parameters.TEXT, count_parameters.PRINTED
_PERCENT, _TIMES = count_parameters.PERCENT, count_parameters.TIMES


def _with_error(chosen):
  if chosen is None:
    return ""
  if chosen.standard_error is None:
    return "%.1f" % chosen.mean
  return "%.1f ± %.1f" % (chosen.mean, chosen.standard_error)


def _total_times(found, num_tasks):
  """total x of a method, from its Chosen of each task that it has."""
  fraction = sum(chosen.fraction for chosen in found) / len(found)
  tune = found[0].settings.get("tune", _default("tune"))
  return count_parameters.total_times(
      count_parameters.Method("", tune, []), fraction, num_tasks)


def _summary_table(methods, tasks):
  columns = [("method", _TEXT)] + [(task, _NUMBER) for task in tasks] + [
      ("average", _NUMBER), ("trained", _PERCENT), ("total x", _TIMES),
      ("minutes", _NUMBER)]
  rows = []
  for label, by_task in methods.items():
    found = list(by_task.values())
    n = len(found)
    average = ""
    if n == len(tasks):
      average = "%.1f" % (sum(chosen.mean for chosen in found) / n)
    rows.append(
        [label] + [_with_error(by_task.get(task)) for task in tasks] +
        [average, sum(chosen.fraction for chosen in found) / n,
         _total_times(found, len(tasks)),
         "%.1f" % (sum(chosen.seconds for chosen in found) / n / 60)])
  return count_parameters.Table("summary", "", "Methods, mean ± standard error",
                                columns, rows)


def _statistics(chosen):
  error = chosen.standard_error
  return ["%.2f" % chosen.mean, "" if error is None else "%.2f" % error,
          "%.2f" % max(chosen.scores), str(len(chosen.scores))]


_STATISTICS = [("mean", _NUMBER), ("s.e.", _NUMBER), ("best", _NUMBER),
               ("seeds", _NUMBER)]


def _chosen_table(methods, tasks):
  columns = [("task", _TEXT), ("metric", _TEXT), ("method", _TEXT),
             ("chosen", _TEXT)] + _STATISTICS + [
                 ("trained", _PERCENT), ("total x", _TIMES)]
  rows = []
  for task in tasks:
    for label, by_task in methods.items():
      if task in by_task:
        chosen = by_task[task]
        rows.append([task, chosen.metric, label, _hyper_parameters(chosen)] +
                    _statistics(chosen) +
                    [chosen.fraction, _total_times([chosen], len(tasks))])
  return count_parameters.Table("chosen", "", "Best settings of each method",
                                columns, rows)


def _hyper_parameters(chosen):
  hidden = ("task_name", "task_spec", "data_dir", "tune", "adapter_size",
            "top_n_layers", "adapter_layers")
  shown = [("learning_rate", chosen.settings.get(
      "learning_rate", _default("learning_rate"))),
           ("num_train_epochs", chosen.settings.get(
               "num_train_epochs", _default("num_train_epochs")))]
  shown += [(name, value) for name, value in chosen.settings.items()
            if name not in hidden and name not in dict(shown)]
  names = {"learning_rate": "lr", "num_train_epochs": "epochs",
           "adapter_init_scale": "init scale"}
  return ", ".join("%s %s" % (names.get(name, name), _shown(value))
                   for name, value in shown)


def _settings_table(settings):
  columns = [("task", _TEXT), ("method", _TEXT), ("settings", _TEXT)
            ] + _STATISTICS
  rows = [[chosen.task, chosen.method, _hyper_parameters(chosen)] +
          _statistics(chosen) for chosen in settings]
  return count_parameters.Table("settings", "", "All settings", columns, rows)


# --------------------------------------------------------------------- flags


def define_flags():
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
    flags.DEFINE_string(name, None, description)
  flags.DEFINE_string("output_dir", "sweep", "Where runs and results are "
                      "written.")
  for name, setting in GRID_FLAGS.items():
    flags.DEFINE_string(name, None, "Comma-separated values of %s." % setting)
  flags.DEFINE_multi_string("set", [], "NAME=VALUE for any further setting of "
                            "run_classifier.py, in every run.")
  flags.DEFINE_integer("jobs", 1, "How many runs at a time. On Linux each gets "
                       "its share of the cores.", lower_bound=1)
  flags.DEFINE_boolean("keep_checkpoints", False, "Keep the training "
                       "checkpoints and the tokenized data of finished runs.")
  flags.DEFINE_boolean("report_only", False, "Run nothing; write results.csv "
                       "and table.md from what is there.")


def grid_from_flags():
  """The settings that the grid's flags and --set give, as one grid."""
  grid = {}
  for flag, setting in GRID_FLAGS.items():
    text = FLAGS[flag].value
    if text is not None:
      grid[setting] = [_parsed(setting, item.strip(), "--%s" % flag)
                       for item in text.split(",")]
  for text in FLAGS["set"].value:
    name, equals, value = text.partition("=")
    if not equals:
      raise errors.InputError("--set=%s: give NAME=VALUE" % text)
    _check_keys({name: value}, SETTINGS, "--set")
    grid[name] = _parsed(name, value, "--set")
  return grid


def _parsed(name, text, where):
  """A setting's value from the text of a flag."""
  value = text
  if run_classifier.plain_type(_FIELDS[name].type) != "str":
    try:
      value = json.loads(text)
    except ValueError:
      pass  # the check below says what it must be
  check_value(name, value, where)
  return value


def runs_from_flags():
  """The runs that the command line asks for.

  Raises: errors.InputError.
  """
  grid = grid_from_flags()
  if FLAGS.preset and FLAGS.sweep_file:
    raise errors.InputError("preset and sweep_file are both given; give one")
  if FLAGS.preset:
    if FLAGS.preset not in PRESETS:
      raise errors.InputError("preset %s is unknown; known are %s" %
                              (FLAGS.preset, ", ".join(PRESETS)))
    return runs_of(PRESETS[FLAGS.preset], "preset %s" % FLAGS.preset, grid)
  if FLAGS.sweep_file:
    return runs_of(read_sweep_file(FLAGS.sweep_file),
                   "sweep_file %s" % FLAGS.sweep_file, grid)
  if not grid:
    raise errors.InputError("nothing to sweep over: give preset, sweep_file or "
                            "a grid's flags, as --tasks and --learning_rates")
  return runs_of([grid], "the flags")


def options_from_flags():
  """Options.

  Raises: errors.InputError for a flag that is missing.
  """
  for name in ("vocab_file", "bert_config_file"):
    if not FLAGS[name].value:
      raise errors.InputError("%s is not given" % name)
  return Options(**{field.name: FLAGS[field.name].value
                    for field in dataclasses.fields(Options)})


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS.report_only:
    write_report(FLAGS.output_dir, finished_results(FLAGS.output_dir))
    return 0
  runs, options = runs_from_flags(), options_from_flags()
  check_runs(runs, options)
  # All three mean: stop, to go on later.
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)
  with locked(options.output_dir) as lock:
    try:
      failed = Sweep(runs, options).work(lock)
    except KeyboardInterrupt:
      _say("stopped; the same command goes on from here")
      return 130
    write_report(options.output_dir, finished_results(options.output_dir))
  _say("results: %s and %s" % tuple(os.path.join(options.output_dir, name)
                                    for name in (CSV_FILE, TABLE_FILE)))
  if failed:
    _say("%d of %d runs failed:" % (len(failed), len(runs)))
    for run, line, log in failed:
      _say("  %s: %s (log: %s)" % (run.label(), line, log))
    return 1
  return 0


if __name__ == "__main__":
  define_flags()
  errors.run(main)
