"""Weights: finding checkpoints, reading and writing them.

A model's weights can lie in several files. A run that starts from a pre-trained
BERT keeps only what it trains in its own checkpoints; the rest stays in the
pre-trained file, the *base*, whose path and digest `run.json` in the output
directory records. `Weights` puts the layers together again.

A file is a TensorFlow checkpoint, named by its prefix, or a directory as
Hugging Face saves a BERT, which is read under our names.
"""

import contextlib
import hashlib
import os
import re

from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import tables

CHECKPOINT_NAME = "model.ckpt"
# What a Google checkpoint directory calls its checkpoint.
BASE_CHECKPOINT_NAME = "bert_model.ckpt"
# A warning about a model, see Weights.has_untrained_pooler.
UNTRAINED_POOLER = (
    "%s: the pooler's bias is exactly 0: it was never trained, and the outputs "
    "that a classifier reads go through it; --fresh_pooler trains a new one "
    "with the head")


# ------------------------------------------------------- files and directories


def newest_readable(directory):
  """The prefix of the newest complete checkpoint in a directory, or None.

  That is the one which the `checkpoint` file names or, if it is not there (in
  this directory: the file may have been copied), the one of the highest step.
  All of it is read to see that it is complete: a kill leaves data without an
  index or half an index, a full disk half the data.
  """
  prefixes = numbered(directory)[::-1]
  try:
    named = tf.train.latest_checkpoint(directory)
  except ValueError as error:  # Bytes that are not text.
    logging.warning("passing over %s: %s", os.path.join(directory, "checkpoint"),
                    error)
    named = None
  if named and files.absolute(os.path.dirname(named)) == files.absolute(
      directory).rstrip("/"):
    prefixes = [named] + [prefix for prefix in prefixes if prefix != named]
  for prefix in prefixes:
    try:
      Weights([prefix]).check()
      return prefix
    except errors.InputError as error:
      logging.warning("passing over an incomplete checkpoint: %s", error)
  return None


def numbered(directory):
  """The prefixes `model.ckpt-<step>` in a directory, by ascending step."""
  steps = []
  for path in tf.io.gfile.glob(
      os.path.join(directory, CHECKPOINT_NAME + "-*.index")):
    match_ = re.search(r"-(\d+)\.index$", path)
    if match_:
      steps.append((int(match_.group(1)), path[:-len(".index")]))
  return [prefix for _, prefix in sorted(steps)]


def step_of(prefix):
  """int: the global step in a checkpoint; 0 if it has none."""
  if hf_bert.is_dir(prefix):
    return 0
  reader = _reader(prefix)
  if not reader.has_tensor(names.GLOBAL_STEP):
    return 0
  return int(reader.get_tensor(names.GLOBAL_STEP))


def find(path):
  """The prefix of the checkpoint that `path` means.

  Args:
    path: str; a prefix, one of a checkpoint's files, or a directory with
      `bert_model.ckpt`, with a run's checkpoints or with any one *.ckpt.index
      in it; or one as Hugging Face saves it, which is its own "prefix".

  Raises: InputError if there is none, or several.
  """
  for prefix in (path, re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path),
                 os.path.join(path, BASE_CHECKPOINT_NAME),
                 os.path.join(path, CHECKPOINT_NAME)):
    if tf.io.gfile.exists(prefix + ".index"):
      return prefix
  if hf_bert.is_dir(path):
    return path
  if tf.io.gfile.isdir(path):
    found = newest_readable(path)
    if found:
      return found
    others = sorted(tf.io.gfile.glob(os.path.join(path, "*.ckpt.index")))
    if len(others) == 1:
      return others[0][:-len(".index")]
    raise errors.InputError(
        "%s: no checkpoint in this directory; looked for %s.index, "
        "%s-<step>.index and one *.ckpt.index%s" %
        (path, BASE_CHECKPOINT_NAME, CHECKPOINT_NAME,
         "; there are %s" % ", ".join(map(os.path.basename, others))
         if others else ""))
  raise errors.InputError(
      "%s: no such checkpoint (there is no %s.index); give the prefix of its "
      "files, for example DIR/%s" % (path, path, BASE_CHECKPOINT_NAME))


def _reader(prefix):
  """A checkpoint's reader, with a line for a file that cannot be read."""
  with _readable(prefix):
    # Not load_checkpoint: it asks first whether that is a directory, and under
    # ram:// every beginning of a name is one.
    return tf.train.NewCheckpointReader(prefix)


@contextlib.contextmanager
def _readable(path):
  """Inside, TensorFlow's errors about a damaged file become an InputError."""
  try:
    yield
  # A checkpoint reader raises some of its errors as Python's own.
  except (tf.errors.OpError, ValueError, IndexError) as error:
    raise errors.InputError(
        "%s: cannot be read as a checkpoint: %s; is the file complete?" %
        (path, str(error).strip().split("\n")[0])) from error


def write(prefix, arrays):
  """Writes {variable name: array} as a checkpoint.

  The arrays are fed straight to the op that a Saver runs, so that no second
  copy of the weights is made in variables.
  """
  ordered = sorted(arrays)
  with tf.Graph().as_default():
    tensors = [tf.placeholder(arrays[name].dtype, arrays[name].shape)
               for name in ordered]
    save = tf.raw_ops.SaveV2(prefix=prefix, tensor_names=ordered,
                             shape_and_slices=[""] * len(ordered),
                             tensors=tensors)
    with tf.Session() as session:
      try:
        session.run(save, dict(zip(tensors, (arrays[n] for n in ordered))))
      except tf.errors.OpError as error:
        raise errors.InputError("%s: cannot be written: %s" % (
            prefix, errors.op_reason(error))) from error


# ------------------------------------------------------------------- weights


class _Checkpoint(object):
  """The tensors of a TensorFlow checkpoint.

  Args:
    prefix: str.

  Raises: InputError if it cannot be read, or is not a model's.
  """

  def __init__(self, prefix):
    self.prefix = prefix
    self._reader = _reader(prefix)
    self.shapes = self._reader.get_variable_to_shape_map()
    self._dtypes = self._reader.get_variable_to_dtype_map()
    for name in sorted(self.shapes):
      if names.is_object_based(name):
        raise errors.InputError(
            "%s: was written by tf.train.Checkpoint or Keras, which names its "
            "tensors by objects (%s); here a checkpoint has the names of "
            "variables, as tf.compat.v1.train.Saver writes it" % (prefix, name))
    for name, dtype in sorted(self._dtypes.items()):
      if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
        raise errors.InputError(
            "%s: its tensor %s is of type %s; the checkpoint of a model has "
            "numbers only" % (prefix, name, dtype.name))

  def is_float(self, name):
    return self._dtypes[name].is_floating

  def value(self, name):
    with _readable(self.prefix):
      return self._reader.get_tensor(name)

  def tensor(self, name):
    value, = tf.raw_ops.RestoreV2(
        prefix=self.prefix, tensor_names=[name], shape_and_slices=[""],
        dtypes=[self._dtypes[name]])
    return value


class _Tensors(object):
  """Tensors of other files, under our names.

  Args:
    prefix: str, where they are from, for messages.
    tensors: foreign.tables.Tensors, read as float32.
  """

  def __init__(self, prefix, tensors):
    self.prefix = prefix
    self._tensors = tensors
    self.shapes = {name: list(tensors.shape(name)) for name in tensors}

  def is_float(self, name):
    del name  # They are read as float32.
    return True

  def value(self, name):
    return self._tensors[name]

  def tensor(self, name):
    # Read when the op runs, by this process: in a graph the arrays would be
    # constants, in memory for as long as it lives.
    return tf.numpy_function(lambda: self._tensors[name], [], tf.float32)


def _hugging_face(directory, head_rows=None):
  """The _Tensors of a BERT in a Hugging Face directory.

  Args:
    directory: str.
    head_rows: None, or list of int, the rows of its classifier that are the
      head; see hf_bert.head_rows.

  Raises: InputError if it cannot be read.
  """
  tensors = hf_bert.open_dir(directory)
  if head_rows is not None:
    head = tables.as_tensors(hf_bert.read_head(directory, head_rows))
    tensors.tensors.update(head.tensors)
  return _Tensors(directory, tensors)


class Weights(object):
  """Named tensors in one or more files; a later file wins.

  Args:
    prefixes: list of str, checkpoint prefixes or Hugging Face directories.
    head_rows: see _hugging_face.

  Attributes:
    prefixes: as given.
    shapes: dict of name -> list of ints.

  Raises: InputError if one cannot be read.
  """

  def __init__(self, prefixes, head_rows=None):
    self._files = []
    self._digest = None
    self._set([_hugging_face(prefix, head_rows) if hf_bert.is_dir(prefix) else
               _Checkpoint(prefix) for prefix in prefixes])

  def _set(self, opened):
    self._files = opened
    self.prefixes = [file.prefix for file in opened]
    self._file_of = {name: file for file in opened for name in file.shapes}
    self.shapes = {name: list(file.shapes[name])
                   for name, file in self._file_of.items()}

  @classmethod
  def of_tensors(cls, tensors, where):
    """Weights of foreign.tables.Tensors; `where` is their file, for messages."""
    weights = cls([])
    weights._set([_Tensors(where, tensors)])  # pylint: disable=protected-access
    return weights

  @classmethod
  def open(cls, path, base=None, force_base=False, head_rows=None):
    """The weights at `path`, on top of the base that they were trained on.

    Args:
      path: str, what `find` takes.
      base: str, where the base is; None: where run.json beside the checkpoint
        says. Ignored for a checkpoint that is complete in itself.
      force_base: bool; take a base with another digest all the same.
      head_rows: see _hugging_face.

    Raises: InputError if a file is missing, or the base is another one.
    """
    prefix = find(path)
    if hf_bert.is_dir(prefix):
      return cls([prefix], head_rows)
    record = run_record.read(os.path.dirname(prefix)) or {}
    recorded = run_record.base_of(record)
    alone = cls([prefix])
    if not recorded or (alone.is_whole() and
                        not record.get("init_shared_from")):
      return alone
    return find_base(recorded, base, "%s was trained on" % prefix,
                     force_base).with_top(prefix)

  def with_top(self, prefix):
    """These Weights with one more checkpoint on top of them."""
    both = Weights([prefix])
    both._set(self._files + both._files)  # pylint: disable=protected-access
    return both

  def without(self, is_hidden):
    """These Weights without the names of which `is_hidden(name)` is true.

    The digest is still that of all of them.
    """
    rest = Weights([])
    rest._set(self._files)  # pylint: disable=protected-access
    rest._digest = self.digest()  # pylint: disable=protected-access
    rest.shapes = {name: shape for name, shape in self.shapes.items()
                   if not is_hidden(name)}
    return rest

  def __str__(self):
    return " + ".join(self.prefixes)

  def value(self, name):
    """numpy array: the tensor of that name."""
    return self._file_of[name].value(name)

  def check(self):
    """Reads all there is.

    Raises: InputError if a file is damaged or incomplete.
    """
    for name in self.shapes:
      self.value(name)

  def tensor(self, name):
    """The op that reads it when it runs; a tensor of the stored type."""
    value = self._file_of[name].tensor(name)
    value.set_shape(self.shapes[name])
    return value

  def is_float(self, name):
    """Whether the tensor of that name has floating point numbers."""
    return self._file_of[name].is_float(name)

  def is_on_top(self, name):
    """Whether a name comes from the last file."""
    return self._file_of[name] is self._files[-1]

  def is_overlaid(self, name):
    """Whether a name comes from a file on top of the bottom one."""
    return self._file_of[name] is not self._files[0]

  def bottom_names(self):
    """The names in the bottom file, whatever the files on top of it have."""
    return list(self._files[0].shapes)

  def has_untrained_pooler(self):
    """Whether the pooler looks as if it had never been trained.

    A new one starts with a bias of 0, which no training leaves exactly there;
    saving the encoder of an MLM model gives it such a pooler.
    """
    return any(names.is_pooler(name) and name.endswith("/bias") and
               not self.value(name).any() for name in self.shapes)

  def is_whole(self):
    """Whether these are all of a BERT's variables: the table is among them."""
    return any(n.endswith("embeddings/word_embeddings") for n in self.shapes)

  def digest(self):
    """str: SHA-256 over BERT's own variables, names, shapes and values.

    The same for every file that holds the same weights, whatever else is in it.
    Read once.
    """
    if not self._digest:
      self._digest = self._digest_of(filter(names.is_pretrained, self.shapes))
    return self._digest

  def full_digest(self):
    """str: the same over all there is."""
    return self._digest_of(self.shapes)

  def _digest_of(self, variables):
    digest = hashlib.sha256()
    for name in sorted(variables):
      value = self.value(name)
      digest.update(("%s %s %s\n" % (name, value.dtype.name,
                                     list(value.shape))).encode("utf-8"))
      digest.update(value.tobytes())
    return digest.hexdigest()


def find_base(recorded, given, what, force=False):
  """Weights of the base that was recorded.

  Args:
    recorded: dict, from `run_record.describe_base`.
    given: str or None; where to look instead of in the recorded place.
    what: str, who needs it, for the message.
    force: bool; another one is taken, with a warning.

  Raises: InputError if it is not there, or it is not the one recorded.
  """
  path = given or recorded["path"]
  if not given and files.has_scheme(path):
    # run.json may be a stranger's, who would have this machine call him.
    raise errors.InputError(
        "%s the weights in %s, and no network path is opened because a file "
        "says so; give --init_checkpoint=%s if you trust it" %
        (what, path, path))
  try:
    weights = Weights.open(path, head_rows=recorded.get("head"))
  except errors.InputError as error:
    raise errors.InputError(
        "%s the weights in %s, which cannot be used: %s; if they have moved, "
        "give --init_checkpoint" % (what, recorded["path"], error))
  check_base(weights, recorded, what, force)
  return weights


def check_base(weights, recorded, what, force=False):
  """Compares weights with the base that was recorded.

  Args:
    weights: Weights.
    recorded, what, force: as for `find_base`.

  Raises: InputError if they are others, unless forced.
  """
  digest = weights.digest()
  if digest == recorded["sha256"]:
    return
  if not force:
    raise errors.InputError(
        "%s other weights than those in %s (digest %s..., here %s...); give "
        "--init_checkpoint=%s" % (what, weights, recorded["sha256"][:12],
                                  digest[:12], recorded["path"]))
  logging.warning("%s other weights than those in %s; taken all the same",
                  what, weights)
