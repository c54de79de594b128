"""Generates text with GPT-2, BART or T5, as it was published or tuned here.

    python -m adapter_bert.generation.generate --model_dir=/path/to/gpt2 \\
      --num_beams=5 --max_new_tokens=40 --input=prompts.jsonl \\
      --output=texts.jsonl

model_dir is a directory as Hugging Face saves a model, or OpenAI published
GPT-2. A line of the input is a JSON object with the prompt (a source, for BART
and T5), as text or as token ids:

    {"text": "The Eagle is a"}
    {"input_ids": [464, 18456, 318, 257]}

Without --input it is stdin, and a line is answered when it comes. A line of the
output is what follows the prompt, in the order of the input:

    {"text": " pub by the river.", "output_ids": [2240, ...], "score": -1.4}

The score is the sum of the log-probabilities of these tokens, divided by their
number to the power of length_penalty. "text" needs the directory's tokenizer;
without one, prompts and answers are token ids. With --num_return_sequences above
1 a line is {"results": [...]} of such objects, best first. A --task_checkpoint
is asked as its run was trained: with its tokenizers, and with what it put behind
a text, GPT-2's separator. With several
--task_checkpoints of runs on this model, which share it in memory, it is
{"tasks": {name: ...}}.
"""

import contextlib
import json
import math
import os
import re
import signal
import time

_BEGAN = time.monotonic()  # TensorFlow's import is a good part of the start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert import settings
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.base import flags as flags_lib
from adapter_bert.checkpoints import model_dir as model_dirs
from adapter_bert.checkpoints import sequence_weights
from adapter_bert.data import lines as lines_lib
from adapter_bert.data import reading
from adapter_bert.data import text_tokenizers
from adapter_bert.generation import defaults
from adapter_bert.generation import generator as generator_lib
from adapter_bert.training import graphs

FLAGS = flags.FLAGS

Options = settings.options_class("generate")


def define_flags():
  """A flag for each field of Options."""
  _, required = settings.PROGRAMS["generate"]
  flags_lib.define(settings.of_program("generate"), required)


# ------------------------------------------------------------------ prompts


def read_prompt(line, number, where, tokenizer, config, source_end=()):
  """The token ids of a line.

  Args:
    line: bytes.
    number: int, the line counted from 1.
    where: str, the file.
    tokenizer: with `encode(text)`; None: there is none.
    config: the model's.
    source_end: the ids that belong behind a text; prompts of ids are taken as
      they are.

  Returns: non-empty list of int.

  Raises: InputError.
  """
  here = "%s:%d" % (where, number)
  value = files.parse_json(reading.decoded_line(line, number - 1, where), here)
  if not isinstance(value, dict) or ("text" in value) == ("input_ids" in value):
    raise errors.InputError("%s: must be a JSON object with the prompt as "
                            "\"text\" or as \"input_ids\"" % here)
  if "text" in value:
    if not isinstance(value["text"], str):
      raise errors.InputError("%s: \"text\" is not a string" % here)
    if tokenizer is None:
      raise errors.InputError(
          "%s: has \"text\", but the model's directory has no tokenizer; give "
          "\"input_ids\"" % here)
    if re.search("[\ud800-\udfff]", value["text"]):
      raise errors.InputError("%s: \"text\" has half a character, of two \\u "
                              "codes one" % here)
    if not value["text"].strip():
      raise errors.InputError("%s: the prompt is empty" % here)
    ids = tokenizer.encode(value["text"]) + list(source_end)
  else:
    ids = value["input_ids"]
    if not isinstance(ids, list) or not all(
        type(token) is int and 0 <= token < config.vocab_size for token in ids):
      raise errors.InputError(
          "%s: \"input_ids\" is not a list of whole numbers from 0 to %d, the "
          "model's tokens" % (here, config.vocab_size - 1))
  if not ids:
    raise errors.InputError("%s: the prompt is empty" % here)
  return ids


# ------------------------------------------------------------------ the work


class Answerer(object):
  """Prompts to JSON lines.

  Args:
    generator: generator.Generator.
    tokenizer: with `encode` and `decode`, or None.
    options: Options.
    where: str, the input's name, for messages.
  """

  def __init__(self, generator, tokenizer, options, where):
    self._generator = generator
    self._tokenizer = tokenizer
    self._options = options
    self._where = where
    self.lines = self.tokens = 0
    self.seconds = 0.0  # Waiting for input is not counted.

  def answer(self, lines):
    """Answers what has been read.

    Args:
      lines: list of (number, bytes), from lines.chunks_of.

    Returns: (bytes, the answers; None, or the InputError of a bad line, in
      which case the answers are those of the lines before it).
    """
    began = time.monotonic()
    prompts, failure = {}, None
    for number, line in lines:
      try:
        prompts[number] = read_prompt(line, number, self._where,
                                      self._tokenizer, self._generator.config,
                                      self._generator.source_end)
        self._generator.check_length(
            prompts[number], "%s:%d" % (self._where, number))
      except errors.InputError as error:
        failure = error
        prompts.pop(number, None)
        break
    results = {}
    # Batches of like lengths, so that little is padding.
    ordered = sorted(prompts, key=lambda number: len(prompts[number]))
    size = self._options.batch_size
    for start in range(0, len(ordered), size):
      self._generate(ordered[start:start + size], prompts, results)
    answers = b"".join(self._json_line(results[number]) for number in prompts)
    self.lines += len(prompts)
    self.seconds += time.monotonic() - began
    return answers, failure

  def _generate(self, numbers, prompts, results):
    """Puts a list of the tasks' results for each of the lines into `results`."""
    seeds = [(self._options.seed, number) for number in numbers]
    found = [self._generator.run(task, [prompts[n] for n in numbers], seeds)
             for task in range(len(self._generator.names))]
    for place, number in enumerate(numbers):
      results[number] = [of_task[place] for of_task in found]
      for result in sum(results[number], []):
        self.tokens += len(result.ids)
        self._check(result, number)

  def _check(self, result, number):
    """Raises InputError for a result that says nothing."""
    if math.isnan(result.score) or result.score == math.inf:
      raise errors.InputError(
          "%s:%d: the model's output is not a finite number; are its weights "
          "whole?" % (self._where, number))
    if result.score == -math.inf:
      raise errors.InputError(
          "%s:%d: the options leave no token to go on with (of the vocabulary "
          "all are forbidden by no_repeat_ngram_size or forced otherwise)" %
          (self._where, number))

  def _json_line(self, of_tasks):
    described = [self._described(results) for results in of_tasks]
    names = self._generator.names
    value = described[0] if len(names) == 1 else {
        "tasks": dict(zip(names, described))}
    return json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n"

  def _described(self, results):
    """What the output says of one task's results for a prompt."""
    values = []
    for result in results:
      # The shortest text that reads back as the same float32.
      value = {"output_ids": result.ids, "score": float("%.9g" % result.score)}
      if self._tokenizer is not None:
        value = dict(text=self._tokenizer.decode(result.ids), **value)
      values.append(value)
    return values[0] if len(values) == 1 else {"results": values}


def set_up(options):
  """Reads, checks and loads what the options name.

  Returns: (generator.Generator, a tokenizer or None).

  Raises: InputError.
  """
  directory = model_dirs.open_model_dir(options.model_dir)
  config = sequence_weights.read_config(directory)
  how = defaults.from_settings(options, directory, config)
  weights = sequence_weights.open_weights(directory, config)
  tasks = generator_lib.read_tasks(options.task_checkpoints, config, weights,
                                   options.precision, options.force_base,
                                   options.adapter_fn)
  tokenizer = open_tokenizer(options, directory, config, tasks)
  return generator_lib.Generator(tasks, weights, how), tokenizer


def open_tokenizer(options, directory, config, tasks):
  """What encodes prompts and decodes answers, or None where there is no file.

  Args:
    options: Options; its tokenizers go over those of the tasks' runs, and these
      over the model's.
    directory: model_dir.ModelDir. config: the model's config.
    tasks: list of generator.Task.

  Raises: InputError if there is one that has more tokens than the model, cannot
    be read, or is not what a task was trained with.
  """
  names = ("source_tokenizer", "target_tokenizer")
  paths = [options.source_tokenizer, options.target_tokenizer]
  for task in tasks:
    recorded = task.record.get("tokenizer_files", {})
    paths = [path or _recorded_file(recorded.get(name), name, task.where)
             for name, path in zip(names, paths)]
  if directory.vocab_file is None and not paths[0]:
    return None
  pair = text_tokenizers.open_pair(*paths, directory, config.vocab_size)
  for task in tasks:
    described = task.record.get("tokenizers", pair.describe())
    for name, there, here in zip(names, described, pair.describe()):
      if there != here:
        raise errors.InputError(
            "%s was trained with another %s (it is %s, and here %s); give that "
            "one with --%s" % (task.where, name, errors.shown(there),
                               errors.shown(here), name))
  return pair


def _recorded_file(path, name, where):
  """A tokenizer's file that a run.json names, or None.

  Raises: InputError for one that is elsewhere: run.json may be a stranger's, who
    would have this machine call him.
  """
  if path and files.has_scheme(path):
    raise errors.InputError(
        "%s was trained with %s=%s, and no network path is opened because a file "
        "says so; give --%s=%s if you trust it" % (where, name, path, name, path))
  return path


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
    generator, tokenizer = set_up(options)
    generator.check_length([0], "max_new_tokens")
    answerer = Answerer(generator, tokenizer, options, where)
    # Opened last: what is wrong with a flag must not cost an older file.
    output = opened.enter_context(
        lines_lib.output_file(options.output, options.input))
    logging.info("%s loaded in %.1f s; reading %s", options.model_dir,
                 time.monotonic() - start, where)
    for lines in lines_lib.chunks_of(source, where, "a JSON object"):
      answers, failure = answerer.answer(lines)
      lines_lib.write(output, answers, options.output)
      if failure:
        raise failure
    logging.info("%d prompts, %d tokens in %.2f s: %.1f tokens/s",
                 answerer.lines, answerer.tokens, answerer.seconds,
                 answerer.tokens / max(answerer.seconds, 1e-9))


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  tf.logging.set_verbosity(tf.logging.ERROR)
  graphs.enable_graph_mode()
  # Ends quietly when the reader of the output has enough, as `head` does.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  run(Options(**flags_lib.values(settings.of_program("generate"))), _BEGAN)


def entry_point():
  """The console command `adapter-bert-generate`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
