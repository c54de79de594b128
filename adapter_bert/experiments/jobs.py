"""Runs the runs of a sweep, some at a time, each in a process of its own.

A run's directory has what run_classifier.py writes, and log.txt (what it said),
result.json (once it is finished) and sweep_state.json (how long it has worked).
"""

import concurrent.futures
import contextlib
import dataclasses
import glob
import importlib.util
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Optional

from adapter_bert import settings as settings_lib
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.data import tasks
from adapter_bert.distributed import cores
from adapter_bert.experiments import grid
from adapter_bert.experiments import parameters
from adapter_bert.experiments import report
from adapter_bert.training import inputs as inputs_lib
from adapter_bert.training import plan
from adapter_bert.training import specs

# Under a run's directory.
STATE, LOG = "sweep_state.json", "log.txt"

# Under that and under the sweep's, where all runs share what is tokenized.
RECORDS = "records"

# How often to look whether another process is still at work, in seconds.
_POLL_SECONDS = 0.5


# What a run does unless its settings say something else. Runs are minutes long,
# so it takes a checkpoint each minute to resume them.


@dataclasses.dataclass
class Options(object):
  """What is the same for all runs of a sweep."""
  output_dir: str
  vocab_file: str
  bert_config_file: str
  init_checkpoint: str
  glue_dir: str
  model_dir: Optional[str] = None
  jobs: int = 1
  keep_checkpoints: bool = False

  def run_dir(self, run):
    return os.path.join(self.output_dir, report.RUNS, run.slug)

  def config(self, run):
    """The RunConfig of a run.

    Raises: errors.InputError if there is no data for it.
    """
    data_dir = run["data_dir"]
    if not data_dir and not self.glue_dir:
      raise errors.InputError(
          "glue_dir is not given; it must be the directory that has %s/%s" %
          (run.task.display_name, run.task.train.filename))
    own = dict(grid.OF_A_SWEEP)
    if run["save_best"]:
      del own["save_checkpoints_secs"]  # Each checkpoint is an evaluation.
    return settings_lib.RunConfig(**dict(
        dict(own, **run.settings),
        task_name=run["task_name"], do_train=True, do_eval=True,
        data_dir=data_dir or os.path.join(self.glue_dir, run.task.display_name),
        model_dir=self.model_dir, vocab_file=self.vocab_file,
        bert_config_file=self.bert_config_file,
        init_checkpoint=self.init_checkpoint, output_dir=self.run_dir(run)))


def check_runs(runs, options):
  """Raises InputError for a run that cannot start, before any does."""
  checked = set()
  for run in runs:
    # Each value and each method only once: this reads the vocabulary.
    pairs = set((name, json.dumps(value))
                for name, value in run.settings.items())
    pairs.add(("method", grid.Method.of(run.settings).label))
    pairs.add(("task", run.task.display_name))
    # What goes with which start of a prefix is a matter of all its settings.
    pairs.add(("prefix", json.dumps([pair for pair in run.settings.items()
                                     if pair[0].startswith("prefix_")])))
    try:
      _check_run(run, options)
      if not pairs <= checked:
        checked |= pairs
        inputs_lib.read(options.config(run))
    except errors.InputError as error:
      raise errors.InputError("%s: %s" % (run.label, error)) from error
  if options.init_checkpoint:
    weights_lib.find(options.init_checkpoint)
  else:
    say("warning: init_checkpoint is not given, so every run starts from "
         "random weights")


def _check_run(run, options):
  for what, splits in (("train", [run.task.train]), ("dev", run.task.dev)):
    if not splits or None in splits:
      raise errors.InputError("the task has no %s file, and a sweep needs one" %
                              what)
    config = options.config(run)
    for split in splits:
      path = os.path.join(config.data_dir, split.filename)
      if not files.is_file(path):
        raise errors.InputError("there is no file %s; give the glue_dir that "
                                "has it, or data_dir in the grid" % path)
  inputs_lib.check_actions(config, run.task)


def check_base(results, options):
  """Raises InputError if finished runs started from other weights than these.

  Args:
    results: dict as finished_results returns it.
    options: Options.
  """
  digest = None
  for slug in results:
    base = (read_record(os.path.join(options.output_dir, report.RUNS, slug)) or
            {}).get("base")
    if digest is None and options.init_checkpoint:
      digest = weights_lib.Weights.open(options.init_checkpoint).digest()
    if (base or {}).get("sha256") != digest:
      raise errors.InputError(
          "output_dir %s has finished runs that started from %s, other weights "
          "than init_checkpoint %s; give another output_dir" %
          (options.output_dir, base["path"] if base else "random weights",
           options.init_checkpoint))


def read_record(run_dir):
  """A run's run.json; if that is damaged, the one with its task checkpoint.

  Raises: errors.InputError if both are.
  """
  try:
    return run_record.read(run_dir)
  except errors.InputError as error:
    say("warning: %s; taking that of its task checkpoint" % error)
    return run_record.read(os.path.join(run_dir, plan.TASK))


def command(config):
  """The command line of a run: a list of str."""
  given = []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if value is not None and value != field.default:
      if isinstance(value, bool):
        value = str(value).lower()
      given.append("--%s=%s" % (field.name, value))
  program = importlib.util.find_spec("run_classifier").origin
  return [sys.executable, program] + given


def say(line):
  # With its end in one piece: several threads say something.
  errors.say(line + "\n")


def share_records(run_dir):
  """Lets a run find what another one of the sweep has tokenized already."""
  link = os.path.join(run_dir, RECORDS)
  shared = os.path.join(os.path.dirname(os.path.dirname(run_dir)), RECORDS)
  # Also where the link is: another sweep's end has removed what it leads to.
  os.makedirs(shared, exist_ok=True)
  if not os.path.lexists(link):
    with contextlib.suppress(OSError):  # A disk that knows no links.
      os.symlink(os.path.relpath(shared, run_dir), link)


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
  if "eval_" + main_metric not in metrics:
    raise errors.InputError("%s: its evaluation has no %s" %
                            (run_dir, main_metric))
  return {
      "settings": run.settings,
      "task": run.task.display_name,
      "metric": main_metric,
      "score": tasks.points_of(main_metric) * metrics["eval_" + main_metric],
      "metrics": metrics,
      "trained": counts_of(run_dir, run["adapter_fn"]),
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


def counts_of(run_dir, adapter_fn=None):
  """What a run trains, by parameters.count: a dict.

  Args:
    run_dir: str, with its run.json.
    adapter_fn: the setting of that name.

  Returns: parameters: int, without the head, but with a new pooler; stored: int,
    those of them that a task keeps; head: int; of_encoder, of_whole: float,
    parameters as a fraction by either convention; whole: int, the model's
    without adapters, prefixes and head.
  """
  _, model = specs.model_from_record(read_record(run_dir), run_dir,
                                     adapter_fn=adapter_fn)
  tuning, config = model.tuning, model.bert_config
  size = None
  if tuning.uses_adapters:
    size = model.adapter_fn or model.adapter_size
  counts = parameters.count(config, [size] if size else [], model.num_labels,
                            model.adapter_layers, model.adapter_order)
  trained = counts.trained(tuning, size)
  prefix = kept = pooler = 0
  if tuning.uses_prefixes:
    prefix = parameters.prefix_trained(config, model.prefix_length,
                                       model.prefix_hidden_size)
    kept = parameters.prefix_stored(config, model.prefix_length)
  if model.fresh_pooler and not tuning.trains("bert/pooler/dense/kernel", []):
    pooler = counts.pooler
  return {
      "parameters": trained.parameters + prefix + pooler,
      "stored": trained.parameters + kept + pooler,
      "head": trained.head,
      "of_encoder": trained.of_encoder + prefix / counts.encoder,
      "of_whole": trained.of_whole + (prefix + pooler) / counts.whole,
      "whole": counts.whole,
  }


def clean(run_dir):
  """Deletes what only a run that goes on needs: Adam's slots and records."""
  for prefix in weights_lib.numbered(run_dir):
    for path in glob.glob(glob.escape(prefix) + ".*"):
      os.remove(path)
  with contextlib.suppress(FileNotFoundError):
    os.remove(os.path.join(run_dir, "checkpoint"))
  records = os.path.join(run_dir, RECORDS)
  if os.path.islink(records):
    os.remove(records)
  else:
    shutil.rmtree(records, ignore_errors=True)


def worked_before(run_dir):
  """float: the seconds that earlier starts of a run worked, as far as noted.

  The work of a start that ended with the sweep's own kill -9 is not counted.
  """
  try:
    return (files.read_json(os.path.join(run_dir, STATE), {"seconds": float},
                            missing_ok=True) or {"seconds": 0.0})["seconds"]
  except errors.InputError as error:
    say("warning: %s; counting this run's time from now on" % error)
    return 0.0


class Sweep(object):
  """Runs what is not finished, and keeps the results on disk.

  Args:
    runs: list of grid.Run.
    options: Options.

  Raises: errors.InputError if output_dir has results of other weights.
  """

  def __init__(self, runs, options):
    self._options = options
    self._results = report.finished_results(options.output_dir)
    check_base(self._results, options)
    for run in runs:
      if run.slug not in self._results:
        self._recover_result(run)
    self._num_runs = len(runs)
    self._to_do = [run for run in runs if run.slug not in self._results]
    self._failed = []
    self._cores = queue.SimpleQueue()
    self._processes = set()
    self._starting = threading.Lock()
    self._is_stopping = False

  def _recover_result(self, run):
    """Works out again the result.json of a run that is finished."""
    run_dir = self._options.run_dir(run)
    path = os.path.join(run_dir, report.RESULT)
    if os.path.exists(path):
      with contextlib.suppress(errors.InputError):  # It is not finished.
        result = result_of(run, run_dir, worked_before(run_dir))
        files.write_json(path, result)
        self._results[run.slug] = result
        say("warning: %s was damaged, and is worked out again" % path)

  def work(self):
    """Runs everything.

    Returns: list of (grid.Run, the reason in a line, its log's path) of the
      runs that failed.
    """
    say("%d runs, %d of them finished before" %
        (self._num_runs, self._num_runs - len(self._to_do)))
    for slug in self._results:
      self._clean(os.path.join(self._options.output_dir, report.RUNS, slug))
    for share in cores.shares(self._options.jobs):
      self._cores.put(share)
    # A thread waits for its run, with cores of its own which the run inherits.
    threads = concurrent.futures.ThreadPoolExecutor(
        self._options.jobs,
        initializer=lambda: cores.restrict(self._cores.get()))
    try:
      runs = {threads.submit(self._work_on, run): run for run in self._to_do}
      for done in concurrent.futures.as_completed(runs):
        self._end(runs[done], done)
    finally:
      self._stop()
      threads.shutdown(cancel_futures=True)
    if not self._to_do and not self._options.keep_checkpoints:
      shutil.rmtree(os.path.join(self._options.output_dir, RECORDS),
                    ignore_errors=True)
    return self._failed

  def _work_on(self, run):
    """Runs one run to its end, in a thread.

    Returns: what is in its result.json.

    Raises: errors.InputError with the reason if the run failed.
    """
    run_dir = self._options.run_dir(run)
    self._wait_for_another(run_dir)
    before, began = worked_before(run_dir), time.monotonic()
    share_records(run_dir)
    with open(self._log(run), "a", encoding="utf-8") as log:
      start = log.tell()
      process = self._start(run, log)
    status = process.wait()
    seconds = before + time.monotonic() - began
    files.write_json(os.path.join(run_dir, STATE), {"seconds": seconds})
    if status < 0:
      raise errors.InputError("ended by signal %d (%s)" %
                              (-status, signal.strsignal(-status)))
    if status > 0:
      raise errors.InputError(_last_error(self._log(run), start))
    result = result_of(run, run_dir, seconds)
    files.write_json(os.path.join(run_dir, report.RESULT), result)
    return result

  def _wait_for_another(self, run_dir):
    """Until the process that an earlier, killed sweep left there has ended."""
    has_said = False
    while not self._is_stopping:
      try:
        with files.locked(run_dir):
          return
      except errors.InputError as error:
        if not has_said:
          say("waiting for an earlier sweep's run: %s" % error)
        has_said = True
        time.sleep(_POLL_SECONDS)

  def _start(self, run, log):
    """Starts the process of a run."""
    arguments = command(self._options.config(run))
    with self._starting:
      if self._is_stopping:
        raise errors.InputError("the sweep was stopped")
      log.write("%s %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"),
                             shlex.join(arguments)))
      log.flush()
      # A session of its own: Ctrl-C reaches the sweep alone, which ends its
      # runs and what they started.
      process = subprocess.Popen(
          arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
          start_new_session=True)
      self._processes.add(process)
    say("%s started: %s" % (self._position(), run.label))
    return process

  def _end(self, run, done):
    try:
      result = done.result()
    except errors.InputError as error:
      self._failed.append((run, str(error), self._log(run)))
      say("%s FAILED: %s: %s" % (self._position(), run.label, error))
      return
    self._results[run.slug] = result
    self._to_do.remove(run)
    self._clean(self._options.run_dir(run))
    report.write_report(self._options.output_dir, self._results)
    say("%s finished: %s: %s %.2f, %.0f s" % (
        self._position(), run.label, result["metric"], result["score"],
        result["seconds"]))

  def _stop(self):
    """Ends what is still under way, however often Ctrl-C is pressed."""
    with self._starting:
      self._is_stopping = True
    running = [one for one in self._processes if one.poll() is None]
    for number in _STOPPING if running else ():
      signal.signal(number, signal.SIG_IGN)
    for process in running:
      _end_group(process, signal.SIGTERM)
    until = time.monotonic() + 10
    for process in running:
      try:
        process.wait(max(0, until - time.monotonic()))
      except subprocess.TimeoutExpired:
        _end_group(process, signal.SIGKILL)

  def _clean(self, directory):
    if not self._options.keep_checkpoints:
      clean(directory)

  def _log(self, run):
    return os.path.join(self._options.run_dir(run), LOG)

  def _position(self):
    ended = self._num_runs - len(self._to_do) + len(self._failed)
    return "[%d/%d]" % (ended, self._num_runs)


def _end_group(process, number):
  """Sends a signal to a process and what it has started."""
  with contextlib.suppress(ProcessLookupError):  # It has ended by itself.
    os.killpg(process.pid, number)


def _last_error(path, start):
  """The line of a log, from `start` on, that says why the run failed."""
  with open(path, encoding="utf-8", errors="replace") as source:
    source.seek(start)
    lines = [line.strip() for line in source if line.strip()]
  said = [line for line in lines if line.startswith("error: ")]
  return (said or lines or ["it said nothing"])[-1]


# All of these mean: stop, to go on later.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stopped_by_signals():
  """Inside they raise KeyboardInterrupt, except those that nohup ignores."""
  before = {number: signal.getsignal(number) for number in _STOPPING}
  for number, handler in before.items():
    if number != signal.SIGHUP or handler != signal.SIG_IGN:
      signal.signal(number, signal.default_int_handler)
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
