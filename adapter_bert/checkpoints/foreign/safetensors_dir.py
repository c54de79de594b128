"""The tensors in a directory as Hugging Face saves it, read when asked for.

`model.safetensors`, or its shards with their index. The safetensors library
maps the files into memory; no tensor is read before it is asked for. Pickles
(pytorch_model.bin) can run any code, so none is ever opened.
"""

import json
import os
import shlex

import numpy as np

from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import tables

WEIGHTS = "model.safetensors"
INDEX = WEIGHTS + ".index.json"
PICKLE = "pytorch_model.bin"

# Stored types that float32 holds without loss.
WIDENED_DTYPES = ("F32", "F16", "BF16")


def open_dir(directory, names=(WEIGHTS,)):
  """The tensors of the directory's weights.

  Args:
    directory: str.
    names: file names, the first that is there is taken; each may be in shards,
      which `<name>.index.json` lists.

  Returns: tables.Tensors of name -> float32 array, with the aliases that the
    files' metadata names.

  Raises:
    errors.InputError: the package is not installed, or there is no such file,
      or one is damaged. Reading a tensor raises it for a type that float32
      does not hold, and for values that are not finite.
  """
  for name in names:
    path = os.path.join(directory, name)
    if os.path.isfile(path):
      return open_file(path)
    if os.path.isfile(path + ".index.json"):
      return _open_shards(directory, path + ".index.json")
  raise errors.InputError(_absence(directory, names))


def open_file(path):
  """The tensors of one safetensors file; as `open_dir`."""
  # An extra: who has Google's checkpoints never needs it.
  try:
    import safetensors  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise errors.InputError(
        "reading %s needs the package safetensors: pip install safetensors" %
        path) from error
  try:
    # Kept open by the tensors below, and closed with the last of them.
    reader = safetensors.safe_open(path, framework="np")
    names = list(reader.keys())
    stored = {name: reader.get_slice(name) for name in names}
    found = {name: _tensor(path, reader, name, stored[name]) for name in names}
  except (safetensors.SafetensorError, OSError) as error:
    raise errors.InputError("%s is not a whole safetensors file: %s" %
                            (path, error)) from error
  # Of tied weights one is stored; {its other name: its name} is in the metadata.
  for alias, name in (reader.metadata() or {}).items():
    if name in found and alias not in found:
      found[alias] = found[name]
  return tables.Tensors(found)


def _tensor(path, reader, name, stored):
  """The tables.Tensor of one tensor in a file."""

  def load():
    dtype = stored.get_dtype()
    if dtype not in WIDENED_DTYPES:
      raise errors.InputError("%s: %s is stored as %s; only %s are read" %
                              (path, name, dtype, ", ".join(WIDENED_DTYPES)))
    # numpy knows bfloat16 only because importing tensorflow taught it.
    array = reader.get_tensor(name).astype(np.float32)
    if not np.all(np.isfinite(array)):
      raise errors.InputError("%s: %s holds values that are not finite" %
                              (path, name))
    return array

  return tables.Tensor(stored.get_shape(), load)


def _open_shards(directory, index):
  """The tensors of all the files that an index lists."""
  with errors.reported():
    with open(index, encoding="utf-8") as reader:
      try:
        content = json.load(reader)
      except (ValueError, RecursionError) as error:
        raise errors.InputError("%s is not JSON: %s" % (index, error)) from error
  places = content.get("weight_map") if isinstance(content, dict) else None
  if not isinstance(places, dict) or not places:
    raise errors.InputError("%s has no weight_map; it must say which tensor is "
                            "in which file" % index)
  found = {}
  for name in sorted(set(map(str, places.values()))):
    # An index is a stranger's: it does not get to name files elsewhere.
    if os.path.basename(name) != name:
      raise errors.InputError("%s: the file %r is not one in its directory" %
                              (index, name))
    path = os.path.join(directory, name)
    if not os.path.isfile(path):
      raise errors.InputError("%s is not there, and %s lists it; the model is "
                              "not whole" % (path, index))
    found.update(open_file(path).tensors)
  lacking = sorted(set(places) - set(found))
  if lacking:
    raise errors.InputError("%s lists %s, which none of its files has" %
                            (index, tables.some(lacking)))
  return tables.Tensors(found)


def _absence(directory, names):
  """The line for a directory without such a file."""
  if os.path.isfile(os.path.join(directory, PICKLE)):
    return ("%s holds only %s, a pickle, which is never unpickled here because "
            "that can run any code; get the model's %s, or, if you trust the "
            "file, write one with PyTorch: %s" %
            (directory, PICKLE, WEIGHTS, advice(directory)))
  return "%s is not there; a directory as Hugging Face saves it has it" % (
      os.path.join(directory, names[0]))


# The tensors as they are, into the same directory, beside its vocabulary: loading
# them into one of transformers' classes first would drop the pooler, or make a
# new one, depending on the class.
def advice(directory, pickle=PICKLE, name=WEIGHTS):
  """The command that saves a directory's pickle again as safetensors."""
  code = (
      "import sys, torch; from safetensors.torch import save_file; "
      "save_file({n: t.clone().contiguous() for n, t in "
      "torch.load(sys.argv[1] + '/%s', map_location='cpu', "
      "weights_only=True).items()}, sys.argv[1] + '/%s')" % (pickle, name))
  return 'python -c "%s" %s' % (code, shlex.quote(directory))
