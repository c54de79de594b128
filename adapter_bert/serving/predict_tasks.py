"""Predicts several tasks with one loaded BERT.

    python -m adapter_bert.serving.predict_tasks --task_checkpoints=/tmp/mrpc/task,/tmp/sst/task \\
      --vocab_file=$BERT_BASE_DIR/vocab.txt \\
      --init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt \\
      --input=sentences.tsv --output=predictions.jsonl

Task checkpoints are what run_classifier.py leaves in output_dir/task and
output_dir/best. They may differ in task, labels, tuning method, adapter size
and adapter layers; they must have been trained on the same BERT. What none of
them trained is in memory once, and each one adds what it trained.

A line of the input is one sentence, or two with a tab between them; without
--input it is read from stdin, and each line is answered when it comes. One
sentence goes to the single-sentence tasks and a pair to the pair tasks; a line
that is for none of them is an error. So is an empty one.

A line of the output is a JSON object, in the order of the input:

    {"line": 1, "text_a": "He ran.", "text_b": "She ran.", "tasks": {
        "MRPC": {"label": "0", "probabilities": {"0": 0.9, "1": 0.1}},
        "STS-B": {"score": 2.5}}}

A second checkpoint of the task MRPC is "MRPC#2". The speed of each task and the
memory that it takes are logged to stderr at the end.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from typing import Any, Dict, List, Optional, Set

_BEGAN = time.monotonic()  # TensorFlow's import is a good part of the start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import checkpoints
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import record as run_record
from adapter_bert.base import errors
from adapter_bert.base import flags as flags_lib
from adapter_bert.data import datasets
from adapter_bert.data import features
from adapter_bert.data import lines as lines_lib
from adapter_bert.data import reading
from adapter_bert.data import tasks
import modeling
from adapter_bert import settings
from adapter_bert.training import inputs as inputs_lib
from adapter_bert.training import graphs
from adapter_bert.training import specs

FLAGS = flags.FLAGS

# Keys of the config that only training looks at.
_TRAINING_KEYS = ("hidden_dropout_prob", "attention_probs_dropout_prob",
                  "initializer_range")

# Everything that the program is told; one field for each flag.
Options = settings.options_class("predict_tasks")


def define_flags():
  """A flag for each field of Options."""
  _, required = settings.PROGRAMS["predict_tasks"]
  flags_lib.define(settings.of_program("predict_tasks"), required)


# ----------------------------------------------- the checkpoints, unloaded


@dataclasses.dataclass
class TaskCheckpoint(object):
  """A task checkpoint and what its run.json says."""
  name: str  # in the output; no two are equal
  prefix: str
  record: dict
  task: tasks.Task
  model: specs.ClassifierSpec


def read_checkpoints(paths, precision):
  """The TaskCheckpoints at some paths, not loaded; they fit each other.

  Args:
    paths: list of str, what checkpoints.find takes.
    precision: a key of specs.PRECISIONS.

  Raises: InputError naming the checkpoint that cannot be used.
  """
  found = []
  for path in paths:
    if not path:
      raise errors.InputError("task_checkpoints has an empty entry; give "
                              "directories with a comma between them")
    prefix = checkpoints.find(path)
    record = run_record.read(os.path.dirname(prefix))
    task, model = specs.model_from_record(record, prefix, precision)
    _check_record(record, prefix)
    same = sum(other.task.display_name == task.display_name for other in found)
    name = task.display_name + ("#%d" % (same + 1) if same else "")
    found.append(TaskCheckpoint(name, prefix, record, task, model))
  if not found:
    raise errors.InputError("task_checkpoints is empty; give at least one")
  for other in found[1:]:
    _check_fits(other, found[0])
  return found


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
  """The checkpoints.Weights that all the task checkpoints were trained on.

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
      base = checkpoints.find_base(recorded, init_checkpoint, what, force_base)
    else:
      checkpoints.check_base(base, recorded, what, force_base)
  return base


# ----------------------------------------------------------- the one graph


class SharedModel(object):
  """The models of several tasks in one session; what is frozen is there once.

  Tasks whose models are alike have one model in the graph, too: what they
  trained is stacked, and the number of a task picks its own. A graph of twelve
  layers takes more memory than its adapters.

  Args:
    tasks: list of TaskCheckpoint.
    base: checkpoints.Weights.
    max_seq_length: int, of the records that will come.

  Attributes:
    tasks: as given.
    shared: the variables that not every task trained, from the base.
    own_bytes: for each task, the bytes of what it trained.

  Raises: InputError if a checkpoint is damaged, lacks a variable or has one of
    another shape.
  """

  def __init__(self, tasks, base, max_seq_length):
    self.tasks = tasks
    self.own_bytes = [None] * len(tasks)
    self._runs = [None] * len(tasks)  # (probabilities, number in its group)
    shared, load = {}, []
    with tf.Graph().as_default() as graph:
      self._records = tf.placeholder(tf.string, [None])
      self._number = tf.placeholder(tf.int32, [])
      batch = datasets.batch_of(self._records, max_seq_length)
      for scope, places in _alike(tasks).items():
        group = [tasks[place] for place in places]
        built = _build(scope, group, batch, self._number)
        load += _load_ops(group, built, set(shared), base)
        shared.update(built.shared)
        for number, place in enumerate(places):
          self._runs[place] = built.probabilities, number
          self.own_bytes[place] = _bytes(built.own.values()) // len(group)
      self._session = tf.Session(graph=graph, config=graphs.session_config())
    self.shared = list(shared.values())
    self._load(load, base)

  def _load(self, load, base):
    try:
      self._session.run(load)
    except tf.errors.OpError:
      # One line if a file is at fault.
      for prefix in base.prefixes + [task.prefix for task in self.tasks]:
        checkpoints.Weights([prefix]).check()
      raise

  def run(self, place, records):
    """float32 [n, num_labels]: one task's probabilities, or scores.

    Args:
      place: int, the task's place in the list.
      records: list of n serialized examples (features.serialized).
    """
    probabilities, number = self._runs[place]
    return self._session.run(
        probabilities, {self._records: records, self._number: number})


def _alike(tasks):
  """scope -> the places of the tasks whose models differ in values only."""
  groups = {}
  for place, task in enumerate(tasks):
    model = dict(specs.describe_model(task.model), bert_config=None,
                 is_regression=task.model.is_regression)
    groups.setdefault(json.dumps(model, sort_keys=True), []).append(place)
  return {"tasks_%d" % number: places
          for number, places in enumerate(groups.values())}


@dataclasses.dataclass
class _Built(object):
  """One model in the graph; the keys are names in checkpoints."""
  probabilities: Any
  shapes: Dict[str, List[int]]  # of all variables, of one task
  adapters: Set[str]  # those in adapters
  own: Dict[str, Any]  # name -> variable; [n] + shape for n > 1 tasks
  shared: Dict[str, Any]


def _build(scope, group, batch, number):
  """Builds the model of some tasks that are alike.

  Args:
    scope: str, a variable scope for what they trained.
    group: list of TaskCheckpoint.
    batch: dict of tensors, from datasets.py.
    number: int32 scalar tensor, which of the group it is to be.

  Returns: _Built.
  """
  model = group[0].model
  built = _Built(None, {}, set(), {}, {})

  def own_or_shared(getter, name, shape=None, **kwargs):
    plain = name[len(scope) + 1:]
    collections = kwargs.get("collections") or ()
    built.shapes[plain] = [int(size) for size in shape]
    if modeling.ADAPTERS in collections:
      built.adapters.add(plain)
    if not model.tuning.trains(plain, collections):
      kwargs["reuse"] = tf.AUTO_REUSE
      built.shared[plain] = getter(plain, shape=shape, **kwargs)
      return built.shared[plain]
    kwargs["initializer"] = tf.zeros_initializer()  # never run, and small
    if len(group) == 1:
      built.own[plain] = getter(name, shape=shape, **kwargs)
      return built.own[plain]
    built.own[plain] = getter(name, shape=[len(group)] + built.shapes[plain],
                              **kwargs)
    return tf.gather(built.own[plain], number)

  # The loss is not asked for, but the graph of a regression's is built.
  labels = tf.cast(batch["label_ids"],
                   tf.float32 if model.is_regression else tf.int32)
  with tf.variable_scope(scope, custom_getter=own_or_shared):
    built.probabilities = model.build(
        False, dict(batch, label_ids=labels)).predictions["outputs"]
  return built


def _load_ops(group, built, loaded, base):
  """Ops that load each variable from where it must come from.

  Args:
    group: list of TaskCheckpoint, as for `_build`.
    built: _Built.
    loaded: the names of shared variables that are taken care of.
    base: checkpoints.Weights.

  Raises: InputError.
  """
  weights = [base.with_top(task.prefix) for task in group]
  for task, mine in zip(group, weights):
    found = checkpoints.match_shapes(
        built.shapes, built.adapters, mine, task.model.bert_config,
        task.record.get("init_shared_from"))
    _check_trained(task, mine, {name: built.shapes[name] for name in built.own})
    for name in found.new:
      raise errors.InputError(
          "%s: %s is not in it (tune=%s), nor in its base %s; leave out "
          "init_checkpoint, so that the base is the one in its %s" %
          (task.prefix, name, task.model.tune, base, run_record.FILE))
  # All of them have the same base, and it is what the shared ones come from.
  ops = checkpoints.load_ops(
      [v for name, v in built.shared.items() if name not in loaded], found,
      mine)
  for name, variable in built.own.items():
    values = [mine.tensor(name) for mine in weights]
    value = values[0] if len(values) == 1 else tf.stack(values)
    ops.append(variable.assign(value, read_value=False))
  return ops


def _check_trained(task, weights, trained):
  """Raises InputError unless a checkpoint has just what its task trained.

  Args:
    task: TaskCheckpoint.
    weights: checkpoints.Weights, it over the base.
    trained: dict of name -> shape.
  """
  held = set(name for name in weights.shapes if weights.is_on_top(name) and
             checkpoints.is_model_variable(name))
  for name in sorted(held ^ set(trained)):
    raise errors.InputError(
        "%s: %s %s, and the model in its %s (tune=%s) %s it; the two are not "
        "of one run" % (task.prefix, "has" if name in held else "lacks", name,
                        run_record.FILE, task.model.tune,
                        "trains" if name in trained else "does not train"))
  for name, shape in trained.items():
    if weights.shapes[name] != shape:
      raise errors.InputError(
          "%s: %s has shape %s, and the task %s with %d outputs needs %s" %
          (task.prefix, name, weights.shapes[name], task.task.display_name,
           task.model.num_labels, shape))


def _bytes(variables):
  return sum(v.shape.num_elements() * v.dtype.base_dtype.size
             for v in variables)


# ------------------------------------------------------------------ input


def read_example(line, number, where, tasks):
  """The reading.InputExample of a line.

  Args:
    line: bytes.
    number: int, the line counted from 1.
    where: str, the file.
    tasks: list of TaskCheckpoint.

  Raises: InputError if it is empty, has more than two columns or is for none of
    the tasks.
  """
  text = reading.decoded_line(line, number - 1, where)
  columns = text.split("\t")
  if not text.strip():
    raise errors.InputError("%s:%d: is empty; a line is a sentence, or two "
                            "with a tab between them" % (where, number))
  if len(columns) > 2:
    raise errors.InputError(
        "%s:%d: found %d tab-separated columns; a line is a sentence, or two "
        "with a tab between them" % (where, number, len(columns)))
  is_pair = len(columns) == 2
  if all(task.task.is_pair != is_pair for task in tasks):
    raise errors.InputError(
        "%s:%d: %s; give %s, or the checkpoint of a task for it" %
        (where, number,
         ("a pair of sentences, and %s for one sentence" if is_pair else
          "one sentence, and %s for a pair of them") % _listed(tasks),
         "one column" if is_pair else "two, with a tab between them"))
  return reading.InputExample("%s:%d" % (where, number), *columns)


def _listed(tasks):
  names = ", ".join(task.name for task in tasks)
  return names + (" is" if len(tasks) == 1 else " are")


# ---------------------------------------------------------------- the work


@dataclasses.dataclass
class Speed(object):
  """What was done so far, for the report."""
  lines: int = 0
  seconds: float = 0.0  # of work; waiting for input is not counted
  task_lines: Optional[List[int]] = None
  task_seconds: Optional[List[float]] = None


class Predictor(object):
  """Sentences to JSON lines.

  Args:
    model: SharedModel.
    tokenizer: tokenization.FullTokenizer.
    options: Options.
    where: str, the input's name, for messages.
  """

  def __init__(self, model, tokenizer, options, where):
    self._model = model
    self._tokenizer = tokenizer
    self._options = options
    self._where = where
    self.speed = Speed(task_lines=[0] * len(model.tasks),
                       task_seconds=[0.0] * len(model.tasks))

  def answer(self, lines):
    """Predicts one chunk.

    Args:
      lines: list of (number, bytes), from lines.chunks_of.

    Returns: (bytes, the answers; None, or the InputError of a bad line, in
      which case the answers are those of the lines before it).
    """
    began = time.monotonic()
    examples, failure = {}, None
    for number, line in lines:
      if number == 1 and self._options.header:
        continue
      try:
        examples[number] = read_example(line, number, self._where,
                                        self._model.tasks)
      except errors.InputError as error:
        failure = error
        break
    results = {number: {} for number in examples}
    for is_pair in (False, True):
      self._predict({number: example for number, example in examples.items()
                     if (example.text_b is not None) == is_pair},
                    is_pair, results)
    answers = b"".join(_json_line(number, examples[number], results[number])
                       for number in examples)
    self.speed.lines += len(examples)
    self.speed.seconds += time.monotonic() - began
    return answers, failure

  def _predict(self, examples, is_pair, results):
    """Puts the results of single sentences, or of pairs, into `results`."""
    tasks = [(i, task) for i, task in enumerate(self._model.tasks)
             if task.task.is_pair == is_pair]
    if not examples:
      return
    # All tasks read the same records: the labels, which differ, are all 0.
    records = features.serialized(
        0, examples.values(), tasks[0][1].task, self._options.max_seq_length,
        self._tokenizer)
    # Batches of like lengths, so that little is padding.
    ordered = sorted(zip(examples, records), key=lambda pair: len(pair[1]))
    size = self._options.batch_size
    for start in range(0, len(ordered), size):
      numbers, batch = zip(*ordered[start:start + size])
      # One by one: the memory of a task's activations is the next one's too.
      for i, task in tasks:
        began = time.monotonic()
        outputs = self._model.run(i, list(batch))
        self.speed.task_seconds[i] += time.monotonic() - began
        self.speed.task_lines[i] += len(batch)
        for number, row in zip(numbers, outputs):
          results[number][task.name] = self._result(task, row, number)

  def _result(self, task, row, number):
    """One task's answer to one line, from float32 [num_labels]."""
    if not np.isfinite(row).all():
      raise errors.InputError(
          "%s:%d: the output of %s is not a finite number; its run diverged: "
          "train again with a smaller --learning_rate" %
          (self._where, number, task.prefix))
    # The shortest text that reads back as the same float32.
    values = [float(str(value)) for value in row]
    if task.task.is_regression:
      return {"score": values[0]}
    return {"label": task.task.labels[int(np.argmax(row))],
            "probabilities": dict(zip(task.task.labels, values))}


def _json_line(number, example, results):
  value = {"line": number, "text_a": example.text_a}
  if example.text_b is not None:
    value["text_b"] = example.text_b
  value["tasks"] = results
  return json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n"


def report(model, speed, start_seconds):
  """Logs the speed of each task and the memory that it takes."""
  logging.info("%d lines in %.2f s: %.1f lines/s; %.1f s to start",
               speed.lines, speed.seconds,
               speed.lines / max(speed.seconds, 1e-9), start_seconds)
  shared = _bytes(model.shared) / 1e6
  own = [size / 1e6 for size in model.own_bytes]
  for i, task in enumerate(model.tasks):
    logging.info("  %s: %d %s in %.2f s: %.1f/s; %.2f MB of its own (%s)",
                 task.name, speed.task_lines[i],
                 "pairs" if task.task.is_pair else "sentences",
                 speed.task_seconds[i],
                 speed.task_lines[i] / max(speed.task_seconds[i], 1e-9),
                 own[i], task.prefix)
    if speed.lines and not speed.task_lines[i]:
      logging.warning("%s is for %s, and no line was one", task.name,
                      "pairs" if task.task.is_pair else "single sentences")
  logging.info("weights in memory: %.2f MB shared + %.2f MB of %d task%s = "
               "%.2f MB", shared, sum(own), len(own),
               "" if len(own) == 1 else "s", shared + sum(own))


def set_up(options):
  """Reads, checks and loads what the options name.

  Returns: (SharedModel, tokenization.FullTokenizer).

  Raises: InputError.
  """
  _, vocab_file, init_checkpoint = model_dir.files_of(
      options.model_dir, options.bert_config_file, options.vocab_file,
      options.init_checkpoint, needs_config=False)
  tasks = read_checkpoints(options.task_checkpoints, options.precision)
  first = tasks[0]
  if options.bert_config_file:
    check_config(options.bert_config_file, first)
  config = first.model.bert_config
  where = os.path.join(os.path.dirname(first.prefix), run_record.FILE)
  inputs_lib.check_length(options.max_seq_length, config, where)
  tokenizer = model_dir.load_tokenizer(
      vocab_file, first.record["do_lower_case"], init_checkpoint, config, where)
  base = open_base(tasks, init_checkpoint, options.force_base)
  for task in tasks:
    model_dir.check_tokenizer(task.record.get("tokenizer"), tokenizer,
                              vocab_file, task.prefix)
    length = task.record.get("schedule", {}).get("max_seq_length")
    if length not in (None, options.max_seq_length):
      logging.warning("%s was trained with max_seq_length=%s, and here it is "
                      "%d", task.prefix, length, options.max_seq_length)
    if task.model.tune == "full":
      logging.warning("%s was tuned in full: it shares nothing, and takes the "
                      "memory of a whole model", task.prefix)
  return SharedModel(tasks, base, options.max_seq_length), tokenizer


def run(options, start=None):
  """Does what the options say.

  Args:
    options: Options.
    start: float, time.monotonic() at the start; None: now.

  Raises: InputError; the answers to the lines before a bad one are written.
  """
  start = time.monotonic() if start is None else start
  with contextlib.ExitStack() as files:
    source, where = sys.stdin.buffer, "stdin"
    if options.input is not None:
      with errors.reported():
        source, where = files.enter_context(open(options.input, "rb")), (
            options.input)
    model, tokenizer = set_up(options)
    predictor = Predictor(model, tokenizer, options, where)
    # Opened last: what is wrong with a flag must not cost an older file.
    output = files.enter_context(
        lines_lib.output_file(options.output, options.input))
    start_seconds = time.monotonic() - start
    logging.info("%s loaded; reading %s", ", ".join(
        task.name for task in model.tasks), where)
    try:
      for lines in lines_lib.chunks_of(source, where):
        answers, failure = predictor.answer(lines)
        with errors.reported():
          output.write(answers)
          output.flush()
        if failure:
          raise failure
    finally:
      report(model, predictor.speed, start_seconds)


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  # Ends quietly when the reader of the output has enough, as `head` does.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  try:
    run(Options(**flags_lib.values(settings.of_program("predict_tasks"))),
        _BEGAN)
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


def entry_point():
  """The console command `adapter-bert-predict`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
