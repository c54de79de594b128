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
that is for none of them is an error. So is an empty one. A line that starts
with {" is JSON, and may say which tasks it is for:

    {"task": "MRPC", "text_a": "He ran.", "text_b": "She ran."}
    {"task": ["CoLA", "SST-2"], "text_a": "He ran."}

Lines of many tasks go through the model together: see stacks.py. The first line
that is wrong ends the run; with --keep_going its answer is {"line": 3, "error":
"..."}.

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
import re
import signal
import time
from typing import List, Optional

_BEGAN = time.monotonic()  # TensorFlow's import is a good part of the start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import record as run_record
from adapter_bert.base import errors
from adapter_bert.base import files as files_lib
from adapter_bert.base import flags as flags_lib
from adapter_bert.data import features
from adapter_bert.data import lines as lines_lib
from adapter_bert.data import reading
from adapter_bert import settings
from adapter_bert.serving import passes
from adapter_bert.serving import shared_model
from adapter_bert.serving import task_checkpoints
from adapter_bert.training import graphs
from adapter_bert.training import inputs as inputs_lib

FLAGS = flags.FLAGS

# Everything that the program is told; one field for each flag.
Options = settings.options_class("predict_tasks")


def define_flags():
  """A flag for each field of Options."""
  _, required = settings.PROGRAMS["predict_tasks"]
  flags_lib.define(settings.of_program("predict_tasks"), required)


# ------------------------------------------------------------------ input


@dataclasses.dataclass
class Question(object):
  """A line of the input.

  example: reading.InputExample.
  places: list of int, the tasks that it is for, by their places.
  """
  example: reading.InputExample
  places: List[int]


def read_question(line, number, where, tasks):
  """The Question of a line.

  Args:
    line: bytes.
    number: int, the line counted from 1.
    where: str, the file.
    tasks: list of TaskCheckpoint.

  Raises: InputError if it is empty, has more than two columns or is for none of
    the tasks.
  """
  text = reading.decoded_line(line, number - 1, where)
  where = "%s:%d" % (where, number)
  named = None
  if text.startswith('{"'):
    named, columns = _from_json(text, where, tasks)
  else:
    columns = text.split("\t")
    if not text.strip():
      raise errors.InputError("%s: is empty; a line is a sentence, or two "
                              "with a tab between them" % where)
    if len(columns) > 2:
      raise errors.InputError(
          "%s: found %d tab-separated columns; a line is a sentence, or two "
          "with a tab between them" % (where, len(columns)))
  is_pair = len(columns) == 2
  asked = range(len(tasks)) if named is None else named
  places = [place for place in asked if tasks[place].task.is_pair == is_pair]
  if not places or named and len(places) < len(named):
    wrong = [tasks[place] for place in asked if place not in places]
    raise errors.InputError(
        "%s: %s; give %s, or the checkpoint of a task for it" %
        (where,
         ("a pair of sentences, and %s for one sentence" if is_pair else
          "one sentence, and %s for a pair of them") % _listed(wrong),
         "one column" if is_pair else "two, with a tab between them"))
  return Question(reading.InputExample(where, *columns), places)


# The keys of a line of JSON; the list is of str.
_JSON_KEYS = {"task": (str, list), "text_a": str, "text_b": str}


def _from_json(text, where, tasks):
  """(The places of the tasks that a line of JSON names, or None; its texts).

  Raises: InputError.
  """
  value = files_lib.parse_json(text, where, dict)
  for key in list(value) + ["text_a"]:
    if not isinstance(value.get(key), _JSON_KEYS.get(key, ())):
      raise errors.InputError(
          "%s: its %s is %s; a line has the keys text_a and, for a pair, text_b,"
          " which are texts, and task, a name or a list of them" %
          (where, key, errors.shown(value.get(key))))
    if key != "task" and not value[key].strip():
      raise errors.InputError("%s: its %s is empty" % (where, key))
    if key != "task" and re.search("[\ud800-\udfff]", value[key]):
      raise errors.InputError("%s: its %s has half a character, of two \\u "
                              "codes one" % (where, key))
  columns = [value[key] for key in ("text_a", "text_b") if key in value]
  if "task" not in value:
    return None, columns
  names = value["task"] if isinstance(value["task"], list) else [value["task"]]
  known = {task.name.lower(): place for place, task in enumerate(tasks)}
  places = []
  for name in names or [None]:
    if not isinstance(name, str) or name.lower() not in known:
      raise errors.InputError(
          "%s: there is no task %s here; there are %s" %
          (where, errors.shown(name), ", ".join(task.name for task in tasks)))
    places.append(known[name.lower()])
  return sorted(set(places)), columns


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


@dataclasses.dataclass
class Row(object):
  """A line that is asked about a task.

  number: int, the line's. place: int, the task's in the list.
  record: bytes, from features.serialized.
  """
  number: int
  place: int
  record: bytes


class Predictor(object):
  """Sentences to JSON lines.

  Args:
    model: SharedModel.
    tokenizer: tokenization.FullTokenizer.
    options: Options.
    where: str, the input's name, for messages.
  """

  def __init__(self, model, tokenizer, options, where):
    self._tasks = model.tasks
    self._members = model.members
    self._runner = shared_model.RecordModel(model, options.max_seq_length)
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
    questions, failure = {}, None
    for number, line in lines:
      if number == 1 and self._options.header:
        continue
      try:
        questions[number] = read_question(line, number, self._where,
                                          self._tasks)
      except errors.InputError as error:
        if not self._options.keep_going:
          failure = error
          break
        questions[number] = error
    good = {number: question for number, question in questions.items()
            if isinstance(question, Question)}
    results = self._predict(good)
    answers = b"".join(
        _json_line(number, question, results.get(number))
        for number, question in questions.items())
    self.speed.lines += len(questions)
    self.speed.seconds += time.monotonic() - began
    return answers, failure

  def _predict(self, questions):
    """The results, {number: {task's name: result}}, of {number: Question}."""
    rows = []
    for number, question in questions.items():
      # All tasks read the same record: the labels, which differ, are all 0.
      record, = features.serialized(
          0, [question.example], self._tasks[question.places[0]].task,
          self._options.max_seq_length, self._tokenizer)
      rows += [Row(number, place, record) for place in question.places]
    # Of like lengths, so that little is padding; and a text's rows together.
    rows.sort(key=lambda row: (len(row.record), row.number))
    results = {number: {} for number in questions}
    size = self._options.batch_size
    for group, members in enumerate(self._members):
      mine = [row for row in rows if row.place in members]
      for start in range(0, len(mine), size):
        self._run(group, members, mine[start:start + size], results)
    # The order of the tasks, whatever group they are in.
    return {number: {self._tasks[place].name: found[place]
                     for place in sorted(found)}
            for number, found in results.items()}

  def _run(self, group, members, rows, results):
    """Puts what a pass over some Rows gives into results[number][place]."""
    began = time.monotonic()
    texts = {row.number: row.record for row in rows}
    text_of = {number: i for i, number in enumerate(texts)}
    length = len(rows[-1].record) // features.WORD_BYTES
    numbers, order = passes.arrange(
        [members.index(row.place) for row in rows], length)
    outputs = self._runner.run(
        group, list(texts.values()), numbers,
        [text_of[rows[i].number] for i in order])
    seconds = (time.monotonic() - began) / len(rows)
    of_row = dict(zip(order, outputs))
    for i, row in enumerate(rows):
      results[row.number][row.place] = self._result(
          self._tasks[row.place], of_row[i], row.number)
      self.speed.task_seconds[row.place] += seconds
      self.speed.task_lines[row.place] += 1

  def _result(self, task, row, number):
    """One task's answer to one line, from float32 [L]."""
    row = row[:task.model.num_labels]
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


def _json_line(number, question, results):
  """The bytes of an answer to a Question, or to the InputError of a line."""
  value = {"line": number}
  if isinstance(question, Question):
    example = question.example
    value["text_a"] = example.text_a
    if example.text_b is not None:
      value["text_b"] = example.text_b
    value["tasks"] = results
  else:
    value["error"] = " ".join(str(question).split())
  return json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n"


def report(model, speed, start_seconds):
  """Logs the speed of each task and the memory that it takes."""
  logging.info("%d lines in %.2f s: %.1f lines/s; %.1f s to start",
               speed.lines, speed.seconds,
               speed.lines / max(speed.seconds, 1e-9), start_seconds)
  shared = model.shared_bytes / 1e6
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
  padding = model.padding_bytes / 1e6
  logging.info("weights in memory: %.2f MB shared + %.2f MB of %d task%s%s = "
               "%.2f MB", shared, sum(own), len(own),
               "" if len(own) == 1 else "s",
               " + %.2f MB to pad them to one size" % padding if padding else
               "", shared + sum(own) + padding)


def set_up(options):
  """Reads, checks and loads what the options name.

  Returns: (SharedModel, tokenization.FullTokenizer).

  Raises: InputError.
  """
  _, vocab_file, init_checkpoint = model_dir.files_of(
      options.model_dir, options.bert_config_file, options.vocab_file,
      options.init_checkpoint, needs_config=False)
  dropped = options.drop_adapters and settings.layers_of(options.drop_adapters)
  tasks = task_checkpoints.read_checkpoints(
      options.task_checkpoints, options.precision, dropped or (),
      options.adapter_fn)
  first = tasks[0]
  if options.bert_config_file:
    task_checkpoints.check_config(options.bert_config_file, first)
  config = first.model.bert_config
  where = os.path.join(os.path.dirname(first.prefix), run_record.FILE)
  inputs_lib.check_length(options.max_seq_length, config, where)
  tokenizer = model_dir.load_tokenizer(
      vocab_file, first.record["do_lower_case"], init_checkpoint, config, where)
  base = task_checkpoints.open_base(tasks, init_checkpoint, options.force_base)
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
  return shared_model.SharedModel(tasks, base), tokenizer


def run(options, start=None):
  """Does what the options say.

  Args:
    options: Options.
    start: float, time.monotonic() at the start; None: now.

  Raises: InputError; the answers to the lines before a bad one are written.
  """
  start = time.monotonic() if start is None else start
  with contextlib.ExitStack() as opened:
    source, where = opened.enter_context(lines_lib.input_file(options.input))
    model, tokenizer = set_up(options)
    predictor = Predictor(model, tokenizer, options, where)
    # Opened last: what is wrong with a flag must not cost an older file.
    output = opened.enter_context(
        lines_lib.output_file(options.output, options.input))
    start_seconds = time.monotonic() - start
    logging.info("%s loaded; reading %s", ", ".join(
        task.name for task in model.tasks), where)
    try:
      for lines in lines_lib.chunks_of(source, where):
        answers, failure = predictor.answer(lines)
        lines_lib.write(output, answers, options.output)
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
