"""The pre-trained weights of a sequence model, out of a directory.

Read as they were published, under our names; nothing is converted.
"""

import hashlib

import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import model_dir as model_dirs
from adapter_bert.checkpoints.foreign import hf_bart
from adapter_bert.checkpoints.foreign import hf_gpt2
from adapter_bert.checkpoints.foreign import hf_t5
from adapter_bert.checkpoints.foreign import mesh_t5
from adapter_bert.checkpoints.foreign import openai_gpt2
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
from adapter_bert.models import families

_HUGGING_FACE = {"bart": hf_bart, "gpt2": hf_gpt2, "t5": hf_t5}


def read_config(directory):
  """The config of the model in a directory, one of models/config.py's.

  Args:
    directory: model_dir.ModelDir.

  Raises:
    errors.InputError: it is a BERT, or another model that does not generate, or
      not built.
  """
  if directory.kind == model_dirs.GOOGLE:
    raise errors.InputError(
        "model_dir %s holds a BERT, which does not generate (it is for "
        "run_classifier.py); give the directory of one of %s" %
        (directory.path, ", ".join(sorted(families.FAMILIES))))
  values = files.read_json(directory.config_file, dict)
  if directory.kind == model_dirs.OPENAI:
    values = openai_gpt2.config_dict(values, directory.config_file)
  return families.config_from_dict(values, directory.config_file)


def open_weights(directory, config):
  """The pre-trained weights in a directory.

  Args:
    directory: model_dir.ModelDir.
    config: what `read_config` gave.

  Returns: tables.Tensors, of our variables' names; an array is read when it is
    asked for.

  Raises:
    errors.InputError: a tensor lacks, is left over, or cannot be read.
  """
  where = directory.weights
  if config.share_parameter_across_layers:
    raise errors.InputError(
        "%s: share_parameter_across_layers is true; published weights are of "
        "layers that do not share" % directory.config_file)
  if directory.kind == model_dirs.OPENAI:
    names, tensors = openai_gpt2, _of_checkpoint(where)
  elif directory.kind == model_dirs.MESH:
    names, tensors = mesh_t5, _of_checkpoint(where)
  else:
    names = _HUGGING_FACE[config.MODEL_TYPE]
    tensors = safetensors_dir.open_dir(where)
  if names is hf_t5:  # Its files mean what the config says.
    tensors = names.in_order(tensors, where, config)
  else:
    tensors = names.in_order(tensors, where)
  return tables.view(names.table(config), tensors, names.IGNORED, where)


def _of_checkpoint(prefix):
  """The tensors of a TensorFlow checkpoint."""
  try:
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
  # A reader raises some of its errors as Python's own.
  except (tf.errors.OpError, ValueError, IndexError) as error:
    raise errors.InputError("%s cannot be read as a checkpoint: %s" % (
        prefix, str(error).strip().split("\n")[0])) from error
  return tables.Tensors(
      (name, tables.Tensor(shape, lambda name=name: reader.get_tensor(name)))
      for name, shape in shapes.items())


def digest(tensors):
  """str: SHA-256 over names, types, shapes and values, as of a BERT's weights.

  Args:
    tensors: mapping of name -> numpy array.
  """
  found = hashlib.sha256()
  for name in sorted(tensors):
    value = np.ascontiguousarray(tensors[name])
    found.update(("%s %s %s\n" % (name, value.dtype.name, list(value.shape)))
                 .encode("utf-8"))
    found.update(value.tobytes())
  return found.hexdigest()
