"""Sequence-to-sequence tasks: a source text and a target text, or plain text.

One row of a table each, and tasks of one's own as JSON (--task_spec):

    {
      "name": "G2P",
      "metrics": ["exact_match", "character_error_rate"],
      "columns": {"source": "source", "target": "target"},
      "train": "train.tsv",
      "dev": "dev.tsv",
      "test": "test.tsv"
    }

name     letters, digits, ".", "_" and "-".
metrics  Some of text_metrics.py's; the first one decides which of several runs
         is the best.
columns  The names of the columns in the header of .tsv files, and the keys in
         .jsonl files. Left out: source and target. Without "source": plain
         text, which has no source.
train, dev, test
         A file under --data_dir:
         .tsv     a header and tab-separated columns, no quoting
         .jsonl   an object a line
         .source  one text a line, and the targets in the .target file of the
                  same name
         .txt     "source||target" a line (E2E); for plain text a text a line
         A split without a file is left out; test may lack the targets.

Several references of a source are rows with the same source (`grouped`).
GLUE's tasks are text too, as T5 (Raffel et al. 2020, appendix D) writes them:
`glue_as_text`.
"""

import dataclasses
import functools
import os
import re
import struct
from typing import Optional, Tuple

from absl import logging

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.data import reading
from adapter_bert.data import scoring
from adapter_bert.data import task_specs
from adapter_bert.data import tasks
from adapter_bert.data import text_metrics
from adapter_bert.data import tfrecords

# Part of every digest: raise it whenever the same inputs give other records.
_RECORD_VERSION = 1
_SEPARATOR = "||"
_SUFFIXES = (".tsv", ".jsonl", ".source", ".txt")


@dataclasses.dataclass(frozen=True)
class TextExample(object):
  """One row. guid is "<split>-<line>", the line counted from 0.

  source is None for plain text; target is None where a test file has none.
  """
  guid: str
  source: Optional[str]
  target: Optional[str]


@dataclasses.dataclass(frozen=True)
class TextSplit(object):
  """One file of a task; `stems` are its possible names without the suffix, or
  the one name with it."""
  set_type: str  # "train", "dev" or "test"
  stems: Tuple[str, ...]
  suffix: str = ""  # tells several files of one set_type apart: "_mm"
  glue: Optional[tasks.Split] = None  # GLUE's, of which the text is made

  @property
  def name(self):
    return self.set_type + self.suffix


@dataclasses.dataclass(frozen=True)
class TextTask(object):
  """A row of the table."""
  name: str  # lower case
  metrics: Tuple[str, ...]  # the first one selects the best of several runs
  train: Optional[TextSplit] = None
  dev: Tuple[TextSplit, ...] = ()
  test: Tuple[TextSplit, ...] = ()
  # Possible names of the two columns; without any, source: plain text.
  source_names: Tuple[str, ...] = ("source",)
  target_names: Tuple[str, ...] = ("target",)
  display: str = ""
  glue: Optional[tasks.Task] = None
  files_anywhere: bool = False

  @property
  def display_name(self):
    return self.display or self.name

  @property
  def main_metric(self):
    return self.metrics[0]

  @property
  def is_plain_text(self):
    return not self.source_names


def _row(display, metrics, source_names, target_names,
         train=("train",), dev=("val", "dev", "validation", "valid"),
         test=("test",)):
  return TextTask(
      name=display.lower(), display=display, metrics=metrics,
      train=TextSplit("train", train), dev=(TextSplit("dev", dev),),
      test=(TextSplit("test", test),),
      source_names=("source",) + source_names,
      target_names=("target",) + target_names)


_ROUGE = ("rouge2", "rouge1", "rouge_l")
# Column names: the published files', then the Hugging Face hub's.
_ROWS = (
    _row("XSum", _ROUGE, ("document",), ("summary",)),
    _row("CNN-DM", _ROUGE, ("article",), ("highlights",)),
    _row("E2E", ("bleu", "rouge_l"), ("mr", "meaning_representation"),
         ("ref", "human_reference"), ("train", "src1_train", "trainset"),
         ("dev", "valid", "src1_valid", "devset"),
         ("test", "src1_test", "testset_w_refs")),
    _row("WebNLG", ("bleu", "chrf"), ("input",), ("text",)),
)

TASKS = {task.name: task for task in _ROWS}


def get_task(name):
  """The TextTask of that name; a GLUE task's name gives it as T5's text.

  Raises: errors.InputError: there is no such task.
  """
  bare = lambda text: re.sub(r"[-_ ]", "", text).lower()
  for task in TASKS.values():
    if bare(task.name) == bare(name):
      return task
  for task in tasks.TASKS.values():
    if bare(task.name) == bare(name):
      return glue_as_text(task)
  raise errors.InputError(
      "unknown task %s; known are %s; for a task of your own give --task_spec"
      % (errors.shown(name), ", ".join(list(TASKS) + list(tasks.TASKS))))


# -------------------------------------------------------------- GLUE as text


def glue_as_text(task):
  """The TextTask of a GLUE task (tasks.Task)."""
  split = lambda glue: TextSplit(glue.set_type, (glue.filename,), glue.suffix,
                                 glue)
  return TextTask(
      name=task.name, display=task.display_name, metrics=("exact_match",),
      train=task.train and split(task.train),
      dev=tuple(map(split, task.dev)), test=tuple(map(split, task.test)),
      glue=task)


def glue_source(task, example):
  """T5's source text of a reading.InputExample of a GLUE task.

  "mrpc sentence1: ... sentence2: ...", the names of the texts sorted: "mnli
  hypothesis: ... premise: ...".
  """
  texts = {task.hub.text_a: example.text_a}
  if example.text_b is not None:
    texts[task.hub.text_b] = example.text_b
  return " ".join([re.sub(r"[-_ ]", "", task.name)] + [
      "%s: %s" % (name, texts[name]) for name in sorted(texts)])


def glue_target(task, label):
  """T5's word for a label of a GLUE task; a score is rounded to 0.2, as text.

  Halves go to the even multiple, as tf.round in T5 has it.
  """
  if label is None:
    return None
  if task.is_regression:
    return "%.1f" % (round(float(label) * 5) / 5)
  return task.hub.words[task.hub.labels.index(label)]


def glue_prediction(task, text):
  """The label id (int) or score (float) that a generated text says, or None."""
  text = text.strip()
  if task.is_regression:
    return None if tasks.label_problem(task, text) else float(text)
  if text not in task.hub.words:
    return None
  return task.labels.index(task.hub.labels[task.hub.words.index(text)])


def glue_metrics(task, split, data_dir, texts):
  """GLUE's own metrics of texts that were generated.

  A text that is not a label counts as -1, as in T5: wrong.

  Args:
    task: TextTask, of glue_as_text.
    split: TextSplit with labels.
    data_dir: str.
    texts: list of str, for each row of the split's file.

  Returns: dict of "eval_<metric>" -> float.
  """
  labels = [tasks.label_id(task.glue, example.label) for example in
            reading.read_examples(task.glue, split.glue, data_dir)]
  predictions = [glue_prediction(task.glue, text) for text in texts]
  unknown = predictions.count(None)
  if unknown:
    logging.warning("%s %s: %d of %d texts are not a label of the task",
                    task.display_name, split.name, unknown, len(texts))
  return scoring.score_predictions(
      task.glue, labels, [-1 if p is None else p for p in predictions])


# ------------------------------------------------------------- tasks as JSON


def task_from_dict(value, where="the task"):
  """The TextTask that a JSON object describes; see the module's docstring.

  Raises: errors.InputError.
  """
  reader = task_specs.Reader(value, where, "the task",
                             "at the top of seq2seq.py")
  display = reader.take("name", task_specs.is_task_name, task_specs.TASK_NAME)
  metrics = reader.take(
      "metrics", lambda names: isinstance(names, list) and names and all(
          isinstance(name, str) and name in text_metrics.METRICS
          for name in names),
      "a list of some of %s" % ", ".join(text_metrics.METRICS),
      default=["exact_match"])
  columns = task_specs.Reader(
      reader.take("columns", lambda value: True, "",
                  default={"source": "source", "target": "target"}),
      where, '"columns"', "at the top of seq2seq.py")
  source = columns.take("source", task_specs.is_text, "a column's name",
                        default=None)
  target = columns.take("target", task_specs.is_text, "a column's name")
  columns.finish()
  if source == target:
    reader.fail('has "columns" that name one column twice')
  splits = {}
  for set_type in ("train", "dev", "test"):
    name = reader.take(
        set_type, lambda name: name is None or task_specs.is_text(name) and
        name.endswith(_SUFFIXES), "a file name that ends in %s" %
        ", ".join(_SUFFIXES), default=None)
    splits[set_type] = name and TextSplit(set_type, (name,))
  reader.finish()
  if not any(splits.values()):
    reader.fail('has no file; give "train", "dev" or "test"')
  return TextTask(
      name=display.lower(), display=display, metrics=tuple(metrics),
      train=splits["train"], dev=(splits["dev"],) * bool(splits["dev"]),
      test=(splits["test"],) * bool(splits["test"]),
      source_names=(source,) if source else (), target_names=(target,))


def task_to_dict(task):
  """The JSON object from which task_from_dict makes the same task, for tasks of
  one's own; of a task of the tables only its name."""
  if task.glue or task.name in TASKS and TASKS[task.name] == task:
    return {"name": task.display_name}
  columns = {"target": task.target_names[0]}
  if task.source_names:
    columns["source"] = task.source_names[0]
  value = {"name": task.display_name, "metrics": list(task.metrics),
           "columns": columns}
  for set_type, splits in (("train", (task.train,)), ("dev", task.dev),
                           ("test", task.test)):
    if splits and splits[0]:
      value[set_type] = splits[0].stems[0]
  return value


def load_task_spec(path, files_anywhere=False):
  """Reads a task of one's own (--task_spec). Raises: errors.InputError."""
  return dataclasses.replace(task_from_dict(files.read_json(path), where=path),
                             files_anywhere=files_anywhere)


# -------------------------------------------------------------------- reading


def data_paths(task, split, data_dir):
  """The file or, for .source, the two files of a split, a tuple.

  Raises: errors.InputError if none or more than one of the possible ones is
    there.
  """
  if split.glue:
    return (reading.data_path(task.glue, split.glue, data_dir),)
  names = [stem if stem.endswith(_SUFFIXES) else stem + suffix
           for stem in split.stems
           for suffix in (("",) if stem.endswith(_SUFFIXES) else _SUFFIXES)]
  paths = [reading.path_under(name, data_dir, task.files_anywhere,
                              "%s's %s" % (task.display_name, split.name))
           for name in names]
  found = [path for path in paths if files.is_file(path)]
  if not found:
    for path in paths:
      files.check_regular(path)
    raise errors.InputError(
        "%s: no such file; %s's %s examples are read from %s under --data_dir"
        % (paths[0], task.display_name, split.name, " or ".join(names[:6])))
  if len(found) > 1:
    raise errors.InputError(
        "%s are all there, and each could be %s's %s file; move all but one "
        "away" % (", ".join(found), task.display_name, split.name))
  path, = found
  targets = path[:-len(".source")] + ".target"
  if path.endswith(".source") and (
      files.is_file(targets) or split.set_type != "test"):
    return path, targets
  return (path,)


def read_examples(task, split, data_dir):
  """An iterator over the TextExamples of one file, in its order.

  Raises: errors.InputError, in one line with file and line number: a file that
    is missing, one without the columns, an empty source or target, files of
    sources and targets that differ in number; at once or from the iterator.
  """
  if split.glue:
    return _glue_examples(task.glue, split.glue, data_dir)
  return _examples(task, split, data_paths(task, split, data_dir))


def _glue_examples(task, split, data_dir):
  for example in reading.read_examples(task, split, data_dir):
    yield TextExample(example.guid, glue_source(task, example),
                      glue_target(task, example.label))


def _examples(task, split, paths):
  """The generator behind read_examples."""
  count = 0
  for line, source, target in _rows(task, split, paths):
    where = "%s:%d" % (paths[0], line + 1)
    for what, text in (("source", source), ("target", target)):
      if text is not None and not text.strip():
        raise errors.InputError("%s: the %s is empty; correct or remove the "
                                "line" % (where, what))
    if target is None and split.set_type != "test":
      raise errors.InputError("%s: has no target; the %s file needs one in each "
                              "row" % (where, split.name))
    count += 1
    yield TextExample("%s-%d" % (split.name, line), source, target)
  if not count:
    raise errors.InputError("%s: has no examples; is the download complete?"
                            % paths[0])


def _rows(task, split, paths):
  """Yields (line from 0, source or None, target or None)."""
  suffix = os.path.splitext(paths[0])[1]
  if suffix == ".source":
    yield from _two_files(paths)
  elif suffix == ".txt" and task.is_plain_text:
    for line, text in enumerate(reading.lines_of(paths[0])):
      if text.strip():
        yield line, None, text
  elif suffix == ".txt":
    for line, text in enumerate(reading.lines_of(paths[0])):
      source, separator, target = text.partition(_SEPARATOR)
      if not separator and split.set_type != "test":
        raise errors.InputError('%s:%d: has no "%s" between source and target'
                                % (paths[0], line + 1, _SEPARATOR))
      yield line, source.strip(), target.strip() if separator else None
  else:
    yield from _named_rows(task, split, paths[0])


def _two_files(paths):
  sources = reading.lines_of(paths[0])
  if len(paths) == 1:
    for line, source in enumerate(sources):
      yield line, source, None
    return
  targets = reading.lines_of(paths[1])
  line = 0
  while True:
    source, target = next(sources, None), next(targets, None)
    if source is None and target is None:
      return
    if source is None or target is None:
      raise errors.InputError(
          "%s ends behind line %d and %s goes on; each source has its target in "
          "the same line" % (paths[source is not None], line,
                             paths[source is None]))
    yield line, source, target
    line += 1


def _named_rows(task, split, path):
  """_rows of a .tsv or .jsonl file, by the columns' names."""
  source_name = target_name = header = None
  for line, row in enumerate(reading.rows_of(path)):
    if target_name is None:
      names = list(row)
      source_name = None if task.is_plain_text else _column(
          task.source_names, names, path, "source")
      if split.set_type != "test" or any(n in names for n in task.target_names):
        target_name = _column(task.target_names, names, path, "target")
      else:
        target_name = ""  # There is none.
      if isinstance(row, list):
        header = row
        continue
    if header is not None:
      if len(row) != len(header):
        raise errors.InputError(
            "%s:%d: found %d tab-separated columns, the header has %d; correct "
            "or remove the line" % (path, line + 1, len(row), len(header)))
      row = dict(zip(header, row))
    texts = []
    for name in (source_name, target_name):
      text = row.get(name) if name else None
      if name and not isinstance(text, str):
        raise errors.InputError(
            "%s:%d: %s is %s; it must be a text"
            % (path, line + 1, errors.shown(name), errors.shown(text)))
      texts.append(text)
    yield (line,) + tuple(texts)


def _column(possible, names, path, role):
  """Which of the possible names a file has, exactly once."""
  found = [name for name in names if name in possible]
  if len(found) != 1:
    raise errors.InputError(
        "%s:1: %s column is called %s, for the %s; the columns are %s; correct "
        'the header, or "columns" of the task'
        % (path, "no" if not found else "more than one", " or ".join(possible),
           role, errors.shown(", ".join(names))))
  return found[0]


def grouped(examples):
  """The sources once each, in their order, with all their references.

  Args:
    examples: iterable of TextExample with targets.

  Returns: dict of source -> list of the targets.
  """
  references = {}
  for example in examples:
    references.setdefault(example.source, []).append(example.target)
  return references


# ------------------------------------------------------------------- features


@dataclasses.dataclass(frozen=True)
class Encoder(object):
  """Texts to ids, and to records.

  source_tokenizer, target_tokenizer: as in text_tokenizers.py.
  max_source_length, max_target_length: ints, special tokens counted; what is
    longer loses tokens before its last special ones.
  source_end, target_end: ids that stand behind every source and target beside
    the tokenizer's own: GPT-2's end of text.
  """
  source_tokenizer: object
  target_tokenizer: object
  max_source_length: int
  max_target_length: int
  source_end: Tuple[int, ...] = ()
  target_end: Tuple[int, ...] = ()

  def encode(self, example):
    """(source ids, target ids, whether each was truncated) of a TextExample.

    ([], ...) without a source, (..., []) without a target.
    """
    source, long_source = _encoded(example.source, self.source_tokenizer,
                                   self.max_source_length, self.source_end)
    target, long_target = _encoded(example.target, self.target_tokenizer,
                                   self.max_target_length, self.target_end)
    return source, target, (long_source, long_target)

  def __call__(self, first_index, examples):
    """The records (list of bytes) of consecutive examples.

    As features.serialized's: the first part is the source, and the label says
    what was truncated: 1 the source, 2 the target.
    """
    records = []
    for index, example in enumerate(examples, first_index):
      source, target, (long_source, long_target) = self.encode(example)
      words = [index, len(source), long_source + 2 * long_target]
      words += source + target
      records.append(struct.pack("<%di" % len(words), *words))
    return records


def _encoded(text, tokenizer, limit, end):
  """(ids, truncated) of a text, ([], False) of None."""
  if text is None:
    return [], False
  ids = tokenizer.encode(text)
  # What an empty text gets is what stands around every text.
  empty = tokenizer.encode("")
  last = list(end)
  if empty and ids[-1:] == empty[-1:]:
    ids, last = ids[:-1], empty[-1:] + last
  room = limit - len(last)
  if room < 1:
    raise errors.InputError(
        "a length of %d leaves no room for text beside %d special tokens"
        % (limit, len(last)))
  return ids[:room] + last, len(ids) > room


def source_of(task, split, data_dir, encoder):
  """The tfrecords.Source of a split of a TextTask."""

  def show(example):
    source, target, _ = encoder.encode(example)
    logging.info("example %s: %s -> %s (%d and %d tokens: %s -> %s)",
                 example.guid, example.source, example.target, len(source),
                 len(target), source[:40], target[:40])

  same = encoder.source_tokenizer.describe() == (
      encoder.target_tokenizer.describe())
  return tfrecords.Source(
      name="%s %s" % (task.display_name, split.name),
      key="%s-%s" % (task.name, split.name),
      paths=data_paths(task, split, data_dir),
      read=functools.partial(read_examples, task, split, data_dir),
      convert=encoder, show=show,
      shaped_by={
          "record_version": "seq2seq %d" % _RECORD_VERSION,
          "task": task_to_dict(task), "split": split.name,
          "source_tokenizer": encoder.source_tokenizer.describe(),
          "target_tokenizer": None if same else (
              encoder.target_tokenizer.describe()),
          "source_end": list(encoder.source_end),
          "target_end": list(encoder.target_end),
          "max_source_length": encoder.max_source_length,
          "max_target_length": encoder.max_target_length,
      },
      # The ends are the model's, and need not be the tokenizer's.
      vocab_size=max(encoder.source_tokenizer.vocab_size,
                     encoder.target_tokenizer.vocab_size,
                     1 + max(encoder.source_end + encoder.target_end,
                             default=0)),
      num_labels=4, truncation_flags=True)


def prepare(task, split, data_dir, encoder, output_dir, workers=1,
            examples_per_shard=16384):
  """tfrecords.prepare_source for a split of a TextTask; a line says how long the
  texts are and how many were truncated."""
  records = tfrecords.prepare_source(
      source_of(task, split, data_dir, encoder), output_dir, workers,
      examples_per_shard)
  logging.info(
      "%s %s: %d examples, the longest source %d tokens (%d truncated to %d), "
      "the longest target %d (%d truncated to %d)", task.display_name,
      split.name, records.num_examples, records.longest_parts[0],
      records.truncated[0], encoder.max_source_length,
      records.longest_parts[1], records.truncated[1],
      encoder.max_target_length)
  return records
