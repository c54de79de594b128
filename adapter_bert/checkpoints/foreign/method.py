"""What a directory of another library holds: a method of tuning, trained.

adapterhub.py and peft.py read such directories as a `Method`, and write them.
Both go by the same list of `Pair`, so that what is written is what is read.
"""

import collections
import dataclasses
import json
import os
from typing import Any, Dict, List, Optional

import numpy as np

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables

CONFIG = "adapter_config.json"
POOLER_KERNEL, POOLER_BIAS = ("bert/pooler/dense/kernel",
                              "bert/pooler/dense/bias")
PREFIX = "bert/prefix/embeddings"

# A variable of ours and a tensor of theirs. read, write: functions of an array,
# from theirs to ours and back.
Pair = collections.namedtuple("Pair", ["ours", "theirs", "read", "write"])


@dataclasses.dataclass
class Method(object):
  """A method of tuning and what it trained.

  path: str, the directory.
  library: str, its name for messages.
  model_name: str, the model that it was trained on, as the library has it.
  settings: dict, the settings that say the same here: tune, adapter_size, ...
  num_labels: int, the rows of the head.
  row_names: list of str, the labels of the rows; None where nothing says them.
  table: OrderedDict of our variable's name -> tables.Entry, of all it trained.
  tensors: tables.Tensors.
  notes: list of str, what a user must know of the outputs.
  """
  path: str
  library: str
  model_name: str
  settings: Dict[str, Any]
  num_labels: int
  row_names: Optional[List[str]]
  table: Dict[str, tables.Entry]
  tensors: tables.Tensors
  notes: List[str] = dataclasses.field(default_factory=list)

  def arrays(self, rows, shapes):
    """Our variables: an OrderedDict of name -> float32 array.

    Args:
      rows: list of int, the head's row of each label of the task.
      shapes: dict of name -> shape, of the variables that the method trains.

    Raises: errors.InputError unless names and shapes are the same, both ways.
    """
    found = tables.apply(
        self.table, self.tensors, where=self.path, shapes={
            name: shapes.get(name, ()) for name in self.table})
    lacking = sorted(set(shapes) - set(found))
    if lacking:
      raise errors.InputError("%s has nothing for %s" % (
          self.path, tables.some(lacking)))
    for name in (hf_bert.HEAD_WEIGHTS, hf_bert.HEAD_BIAS):
      found[name] = found[name][rows]
    return found


def copied(ours, theirs):
  """The Pair of a tensor that is the same in both."""
  return Pair(ours, theirs, lambda array: array, lambda array: array)


def transposed(ours, theirs):
  """The Pair of a kernel [in, out] that they store as [out, in]."""
  return Pair(ours, theirs, lambda array: array.T, lambda array: array.T)


def reshaped(ours, theirs, ours_shape, theirs_shape):
  """The Pair of the same numbers in two shapes."""
  return Pair(ours, theirs, lambda array: array.reshape(ours_shape),
              lambda array: array.reshape(theirs_shape))


def table_of(pairs):
  """The table (tables.py) of a list of Pair."""
  return collections.OrderedDict(
      (pair.ours, tables.Entry((pair.theirs,), pair.read)) for pair in pairs)


def tensors_of(pairs, arrays):
  """{their name: array} of ours.

  Args:
    pairs: list of Pair.
    arrays: dict of our variable's name -> array; exactly those of the pairs.

  Raises: errors.InputError for a variable that they have no tensor for.
  """
  extra = sorted(set(arrays) - set(pair.ours for pair in pairs))
  if extra:
    raise errors.InputError(
        "there is no tensor in the other library's format for %s" %
        tables.some(extra))
  # The library writes an array's memory, whatever its strides are.
  return {pair.theirs: np.ascontiguousarray(pair.write(arrays[pair.ours]))
          for pair in pairs}


# ------------------------------------------------------------------- the files


def read_config(directory, name=CONFIG):
  """The dict in one of a directory's JSON files."""
  return files.read_json(os.path.join(directory, name), dict)


def open_tensors(directory, name, pickle):
  """The tables.Tensors in a file; `pickle` is what is there without it.

  Raises: errors.InputError also where only the pickle is there; it is never
    opened, and the line says how to save it again.
  """
  path = os.path.join(directory, name)
  if not os.path.isfile(path) and os.path.isfile(os.path.join(directory,
                                                              pickle)):
    raise errors.InputError(
        "%s holds only %s, a pickle, which is never unpickled here because "
        "that can run any code; if you trust it, save it again with PyTorch: "
        "%s" % (directory, pickle,
                safetensors_dir.advice(directory, pickle, name)))
  return safetensors_dir.open_dir(directory, (name,))


def write_files(directory, configs, tensors):
  """Writes JSON files and safetensors files into a new directory.

  Args:
    directory: str.
    configs: dict of file name -> dict.
    tensors: dict of file name -> {name: array}.
  """
  try:
    import safetensors.numpy  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise errors.InputError(
        "writing %s needs the package safetensors: pip install safetensors" %
        directory) from error
  for name, values in configs.items():
    files.write_atomically(
        os.path.join(directory, name),
        json.dumps(values, indent=2, sort_keys=True) + "\n")
  for name, arrays in tensors.items():
    safetensors.numpy.save_file(
        arrays, os.path.join(directory, name), metadata={"format": "pt"})


# ----------------------------------------------------------------- the configs


def check_values(values, built, harmless, where):
  """Refuses a config that means something that is not built.

  Args:
    values: dict, from a file.
    built: dict of key -> tuple of the values that are built; the first one is
      what a missing key means.
    harmless: container of keys that change no output.
    where: str, the file, for messages.

  Raises: errors.InputError naming the key.
  """
  for key, allowed in built.items():
    value = values.get(key, allowed[0])
    if not any(value == a and isinstance(value, bool) == isinstance(a, bool)
               for a in allowed):
      raise errors.InputError(
          "%s: %s is %s, which cannot be expressed here; it can be %s" %
          (where, key, json.dumps(value),
           " or ".join(json.dumps(a) for a in allowed)))
  unknown = sorted(set(values) - set(built) - set(harmless))
  if unknown:
    raise errors.InputError(
        "%s: %s is %s, and what it means is not known here" %
        (where, unknown[0], json.dumps(values[unknown[0]])))


def check_model(found, wanted, where):
  """Refuses what was trained on a model of another shape.

  Args:
    found: dict of a size's name -> its value in the file; None: not said.
    wanted: dict of the same names -> those of the model here.
  """
  for key, value in found.items():
    if value is not None and value != wanted[key]:
      raise errors.InputError(
          "%s: %s is %s, and that of the model is %s; give the model that it "
          "was trained on" % (where, key, json.dumps(value), wanted[key]))
