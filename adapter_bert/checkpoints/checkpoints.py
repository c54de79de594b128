"""Checkpoints: finding them, matching them with a model, loading, recording.

A model's weights can lie in several files. A run that starts from a pre-trained
BERT keeps only what it trains in its own checkpoints; the rest stays in the
pre-trained file, the *base*, whose path and digest `run.json` in the output
directory records. `Weights` puts the layers together again.

What a checkpoint may lack and what it may have left over is decided in `match`,
and nothing is loaded before every variable of the model is accounted for.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
from typing import Dict, List, Tuple

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import record as run_record
import modeling

CHECKPOINT_NAME = "model.ckpt"
# What a Google checkpoint directory calls its checkpoint.
BASE_CHECKPOINT_NAME = "bert_model.ckpt"

_SLOT = re.compile("/adam_[mv]$")
_ADAPTER = re.compile("(^|/)adapters(_[0-9]+)?/")
_HEAD = re.compile("^output_(weights|bias)$")
_LAYER = re.compile("(^|/)encoder/layer_([^/]+)/")
# Google's own ALBERT: one group scope in the place of the layers.
_GOOGLE_ALBERT = re.compile("(^|/)encoder/(transformer/group_|embedding_hidden)")


def is_model_variable(name):
  """Whether a name in a checkpoint is the model's: no slot, no step."""
  return not _SLOT.search(name) and name != "global_step"


# ------------------------------------------------------- files and directories


def newest(directory):
  """The prefix of the newest complete checkpoint in a directory, or None.

  That is the one which the `checkpoint` file names or, if it is not there (in
  this directory: the file may have been copied), the one of the highest step.
  All of it is read to see that it is complete: a kill leaves data without an
  index or half an index, a full disk half the data.
  """
  prefixes = numbered(directory)[::-1]
  named = tf.train.latest_checkpoint(directory)
  if named and os.path.dirname(os.path.abspath(named)) == os.path.abspath(
      directory):
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
  reader = _reader(prefix)
  if not reader.has_tensor("global_step"):
    return 0
  return int(reader.get_tensor("global_step"))


def find(path):
  """The prefix of the checkpoint that `path` means.

  Args:
    path: str; a prefix, one of a checkpoint's files, or a directory with
      `bert_model.ckpt` or with a run's checkpoints in it.

  Raises: InputError if there is none.
  """
  for prefix in (path, re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path),
                 os.path.join(path, BASE_CHECKPOINT_NAME),
                 os.path.join(path, CHECKPOINT_NAME)):
    if tf.io.gfile.exists(prefix + ".index"):
      return prefix
  if tf.io.gfile.isdir(path):
    found = newest(path)
    if found:
      return found
    raise errors.InputError(
        "%s: no checkpoint in this directory; looked for %s.index and "
        "%s-<step>.index" % (path, BASE_CHECKPOINT_NAME, CHECKPOINT_NAME))
  raise errors.InputError(
      "%s: no such checkpoint (there is no %s.index); give the prefix of its "
      "files, for example DIR/%s" % (path, path, BASE_CHECKPOINT_NAME))


def _reader(prefix):
  """tf.train.load_checkpoint, with a line for a file that cannot be read."""
  with _readable(prefix):
    return tf.train.load_checkpoint(prefix)


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
  names = sorted(arrays)
  with tf.Graph().as_default():
    tensors = [tf.placeholder(arrays[name].dtype, arrays[name].shape)
               for name in names]
    save = tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names,
                             shape_and_slices=[""] * len(names),
                             tensors=tensors)
    with tf.Session() as session:
      try:
        session.run(save, dict(zip(tensors, (arrays[name] for name in names))))
      except tf.errors.OpError as error:
        raise errors.InputError("%s: cannot be written: %s" % (
            prefix, errors.op_reason(error))) from error


# ------------------------------------------------------------------- weights


class Weights(object):
  """Named tensors in one or more checkpoint files; a later file wins.

  Args:
    prefixes: list of str, checkpoint prefixes.

  Raises: InputError if one cannot be read.
  """

  def __init__(self, prefixes):
    self.prefixes = list(prefixes)
    self._readers = {prefix: _reader(prefix) for prefix in self.prefixes}
    self._file_of = {}
    self._digest = None
    self.shapes = {}  # name -> list of ints
    for prefix, reader in self._readers.items():
      for name, shape in reader.get_variable_to_shape_map().items():
        self._file_of[name] = prefix
        self.shapes[name] = shape

  @classmethod
  def open(cls, path, base=None, force_base=False):
    """The weights at `path`, on top of the base that they were trained on.

    Args:
      path: str, what `find` takes.
      base: str, where the base is; None: where run.json beside the checkpoint
        says. Ignored for a checkpoint that is complete in itself.
      force_base: bool; take a base with another digest all the same.

    Raises: InputError if a file is missing, or the base is another one.
    """
    prefix = find(path)
    record = run_record.read(os.path.dirname(prefix)) or {}
    recorded = run_record.base_of(record, prefix)
    alone = cls([prefix])
    if not recorded or (alone.is_whole() and
                        not record.get("init_shared_from")):
      return alone
    base = find_base(recorded, base, "%s was trained on" % prefix, force_base)
    return cls(base.prefixes + [prefix])

  def __str__(self):
    return " + ".join(self.prefixes)

  def value(self, name):
    """numpy array: the tensor of that name."""
    prefix = self._file_of[name]
    with _readable(prefix):
      return self._readers[prefix].get_tensor(name)

  def check(self):
    """Reads all there is.

    Raises: InputError if a file is damaged or incomplete.
    """
    for name in self.shapes:
      self.value(name)

  def tensor(self, name):
    """The op that reads it when it runs; a tensor of the stored type."""
    prefix = self._file_of[name]
    dtype = self._readers[prefix].get_variable_to_dtype_map()[name]
    value, = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=[name], shape_and_slices=[""],
        dtypes=[dtype])
    value.set_shape(self.shapes[name])
    return value

  def is_on_top(self, name):
    """Whether a name comes from the last file."""
    return self._file_of[name] == self.prefixes[-1]

  def is_overlaid(self, name):
    """Whether a name comes from a file on top of the bottom one."""
    return self._file_of[name] != self.prefixes[0]

  def bottom_names(self):
    """The names in the bottom file, whatever the files on top of it have."""
    return list(self._readers[self.prefixes[0]].get_variable_to_shape_map())

  def is_whole(self):
    """Whether these are all of a BERT's variables: the table is among them."""
    return any(n.endswith("embeddings/word_embeddings") for n in self.shapes)

  def is_pretrained(self, name):
    """Whether a name is BERT's own: no adapter, head, slot or step."""
    return is_model_variable(name) and not (
        _ADAPTER.search(name) or _HEAD.search(name) or name.startswith("cls/"))

  def digest(self):
    """str: SHA-256 over BERT's own variables, names, shapes and values.

    The same for every file that holds the same weights, whatever else is in it.
    Read once.
    """
    if not self._digest:
      self._digest = self._digest_of(filter(self.is_pretrained, self.shapes))
    return self._digest

  def full_digest(self):
    """str: the same over all there is."""
    return self._digest_of(self.shapes)

  def _digest_of(self, names):
    digest = hashlib.sha256()
    for name in sorted(names):
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
  try:
    weights = Weights.open(path)
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


# --------------------------------------------------------- task checkpoints


def write_task(output_dir, run_dir, facts=None):
  """Writes a run's task checkpoint: what it trained, without Adam's slots.

  With the base that the run started from it makes the whole model. The
  directory has `model.ckpt.*` and the run's `run.json`; it is there whole or
  not at all.

  Args:
    output_dir: str, the directory to write; a task checkpoint there is
      replaced.
    run_dir: str, a run's output directory with a checkpoint and run.json.
    facts: dict, what run.json is to say beyond that.

  Returns: int, the bytes written.
  """
  weights = Weights([newest(run_dir)])
  record = dict(run_record.read(run_dir), **facts or {})
  # Without a base to go on top of, the frozen variables are needed too.
  kept = [n for n in weights.shapes if not _SLOT.search(n) and
          (n + "/adam_m" in weights.shapes or not record["base"])]
  temporary = files.temporary_name(output_dir)
  files.remove_litter(os.path.dirname(output_dir),
                      only=os.path.basename(output_dir))
  files.recover_directory(output_dir)
  files.make_directory(temporary)
  with errors.reported():
    try:
      arrays = {name: weights.value(name)
                for name in set(kept) | {"global_step"}}
      write(os.path.join(temporary, CHECKPOINT_NAME), arrays)
      run_record.write(temporary, record)
      size = sum(entry.stat().st_size for entry in os.scandir(temporary))
      files.replace_directory(temporary, output_dir)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  return size


def export_full(prefix, match_, weights):
  """Writes a whole model as one fp32 checkpoint, under the reference's names.

  Args:
    prefix: str, the checkpoint to write.
    match_: Match, of the model with the weights.
    weights: Weights.
  """
  arrays = {
      name: np.mean([weights.value(n) for n in names], axis=0, dtype=np.float32)
      for name, names in match_.loaded.items()
  }
  arrays["global_step"] = np.asarray(
      weights.value("global_step") if "global_step" in weights.shapes else 0,
      np.int64)
  with errors.reported():
    os.makedirs(os.path.dirname(prefix) or ".", exist_ok=True)
  write(prefix, arrays)


# ------------------------------------------------------------------ matching


@dataclasses.dataclass
class Match(object):
  """Which variable starts from what.

  loaded: variable name -> names in the checkpoint; several are averaged.
  new: names of the variables that the checkpoint lacks and that may be new.
  leftover: names in the checkpoint that the model does not use.
  """
  loaded: Dict[str, Tuple[str, ...]]
  new: List[str]
  leftover: List[str]


def match(variables, weights, config, init_shared_from=None):
  """Accounts for every variable of a model.

  Adapters and the head may be missing from the checkpoint, and a head of
  another size counts as another task's; any other variable must be there with
  its shape. The checkpoint may have more, but no layer that the model does not
  use.

  Args:
    variables: the model's variables (no slots, no step).
    weights: Weights.
    config: modeling.BertConfig.
    init_shared_from: None; or "first" or "mean", to start layers that share
      their variables from the first, or the mean, of the layers of a plain
      BERT that each of them stands for.

  Returns: Match.

  Raises: InputError, one line, saying what is missing, left over or of another
    shape.
  """
  return match_shapes(
      collections.OrderedDict((v.op.name, v.shape.as_list())
                              for v in variables),
      set(v.op.name for v in tf.get_collection(modeling.ADAPTERS)),
      weights, config, init_shared_from)


def match_shapes(shapes, adapters, weights, config, init_shared_from=None):
  """`match` without a graph.

  Args:
    shapes: dict of name -> list of ints, the model's variables.
    adapters: the names of those in adapters.
    weights, config, init_shared_from: as for `match`.
  """
  _refuse_google_albert(weights)
  sources = _sources(shapes, adapters, weights, config, init_shared_from)
  _check_layers(sources, weights, config, init_shared_from)
  loaded, new, missing = collections.OrderedDict(), [], []
  for name, shape in shapes.items():
    names = sources[name]
    present = [n for n in names if n in weights.shapes]
    differing = [n for n in present if weights.shapes[n] != shape]
    if _HEAD.search(name) and (not present or differing):
      new.append(name)
    elif differing:
      raise errors.InputError(
          "%s: %s has shape %s, and the model's has %s; the model's sizes come "
          "from bert_config_file and adapter_size" %
          (weights, differing[0], weights.shapes[differing[0]], shape))
    elif len(present) == len(names):
      loaded[name] = names
    elif _ADAPTER.search(name) or name in adapters:
      new.append(name)
    else:
      missing.append(name)
  if missing:
    raise errors.InputError(
        "%s: lacks %d of the model's variables, the first of them %s; is it a "
        "BERT checkpoint, and bert_config_file its own?" %
        (weights, len(missing), missing[0]))
  used = set(n for names in loaded.values() for n in names)
  return Match(loaded, new, sorted(set(weights.shapes) - used))


def _refuse_google_albert(weights):
  for name in sorted(weights.shapes):
    if _GOOGLE_ALBERT.search(name):
      raise errors.InputError(
          "%s: has the variable names of Google's own ALBERT (%s), which are "
          "not supported; albert_zh's checkpoints are" % (weights, name))


def _layer_ids(names):
  """The set of what stands after `layer_` in the names, slots left out."""
  found = (_LAYER.search(n) for n in names if not _SLOT.search(n))
  return set(m.group(2) for m in found if m)


def _sources(names, adapters, weights, config, init_shared_from):
  """variable name -> the names in the checkpoint that it starts from.

  `adapters` are those of the names that are in adapters.
  """
  sources = {name: (name,) for name in names}
  if not init_shared_from:
    return sources
  if init_shared_from not in ("first", "mean"):
    raise errors.InputError("init_shared_from is %r; it can be first or mean" %
                            init_shared_from)
  if not config.share_parameter_across_layers:
    raise errors.InputError(
        "init_shared_from=%s, but the model's layers are not shared; set "
        "share_parameter_across_layers, or drop it" % init_shared_from)
  size = config.layers_per_group or config.num_hidden_layers
  layers = config.num_hidden_layers
  for name in sources:
    layer = _LAYER.search(name)
    if not layer or name in adapters:
      continue
    if name in weights.shapes and weights.is_overlaid(name):
      continue  # Trained since: it has a value of its own by now.
    group = 0 if layer.group(2) == "shared" else int(layer.group(2))
    members = range(group * size, min((group + 1) * size, layers))
    if init_shared_from == "first":
      members = members[:1]
    sources[name] = tuple(
        "%slayer_%d%s" % (name[:layer.start(2) - len("layer_")], i,
                          name[layer.end(2):]) for i in members)
  return sources


def _check_layers(sources, weights, config, init_shared_from):
  """Compares the checkpoint's layers with the model's."""
  wanted = _layer_ids(sources)
  if init_shared_from:
    # Shared layers made from a plain BERT: all of its layers take part.
    wanted = set(str(i) for i in range(config.num_hidden_layers))
  # What a run trained on top says nothing about the base's layers.
  present = _layer_ids(weights.bottom_names())
  if wanted == present or not present:
    return
  shared = config.share_parameter_across_layers
  if present == {"shared"} and shared:
    raise errors.InputError(
        "%s: its layers share one set of variables (scope layer_shared) "
        "already; drop init_shared_from and layers_per_group" % weights)
  if present == {"shared"}:
    raise errors.InputError(
        "%s: its layers share one set of variables (scope layer_shared), and "
        "the model's do not; give --share_parameter_across_layers and no "
        "--layers_per_group, or set the key in the config" % weights)
  if shared and present == set(str(i) for i in range(config.num_hidden_layers)):
    raise errors.InputError(
        "%s: a plain BERT of %d layers, and the model's layers are shared; "
        "give --init_shared_from=mean or first to start from its layers, or "
        "drop share_parameter_across_layers" % (weights, len(present)))
  unused = sorted(present - wanted)
  raise errors.InputError(
      "%s: has %d layers (scopes layer_*), and the model uses %d%s; "
      "bert_config_file must be the checkpoint's own, and layers that are "
      "shared in groups need share_parameter_across_layers and "
      "layers_per_group" %
      (weights, len(present), len(wanted),
       ", so layer_%s would be left over" % unused[0] if unused else ""))


def report(match_, weights):
  """Logs which variables come from the checkpoint and which are new."""
  logging.info("from %s: %d variables", weights, len(match_.loaded))
  same = [n for n, names in match_.loaded.items() if names == (n,)]
  for line in _by_layer(same):
    logging.info("  %s", line)
  for name, names in match_.loaded.items():
    if names != (name,):
      logging.info("  %s from %s%s", name, "the mean of " * (len(names) > 1),
                   ", ".join(names))
  if match_.new:
    logging.info("new, not in the checkpoint: %d variables (%s)",
                 len(match_.new), _abbreviated(match_.new))
  rest = [n for n in match_.leftover if not _SLOT.search(n)]
  if rest:
    logging.info("in the checkpoint and not used: %d variables (%s)",
                 len(rest), _abbreviated(rest))


def _by_layer(names):
  """Names, those that differ only in the layer's number on one line."""
  layers = collections.OrderedDict()
  for name in names:
    line = _LAYER.sub(lambda m: "%sencoder/layer_*/" % m.group(1), name)
    layer = _LAYER.search(name)
    layers.setdefault(line, []).append(layer.group(2) if layer else None)
  return [line if found == [None] else
          "%s (* = %s)" % (line, ", ".join(found))
          for line, found in layers.items()]


def _abbreviated(names, most=4):
  return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def load_ops(variables, match_, weights):
  """Ops that assign what `match` found.

  Args:
    variables: those to assign; the ones that are new are passed over.
    match_: Match.
    weights: Weights.

  Returns: list of ops.
  """
  ops = []
  for variable in variables:
    names = match_.loaded.get(variable.op.name)
    if names:
      values = [tf.cast(weights.tensor(name), variable.dtype.base_dtype)
                for name in names]
      value = values[0] if len(values) == 1 else tf.add_n(values) / len(values)
      ops.append(variable.assign(value, read_value=False))
  return [op for op in ops if op is not None]
