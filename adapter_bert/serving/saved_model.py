"""Writing a graph as a SavedModel, in the layout of TensorFlow Serving."""

import os
import re
import shutil

from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.base import files


def version_directory(output_dir, version):
  """The directory to write: of that version, or of the next one.

  Raises: InputError if it is there.
  """
  files.make_directory(output_dir)
  there = [int(name) for name in tf.io.gfile.listdir(output_dir)
           if re.fullmatch("[0-9]{1,18}", name.rstrip("/"))]
  if version is None:
    version = max(there + [0]) + 1
  directory = os.path.join(output_dir, str(version))
  if version in there:
    raise errors.InputError("%s is there already; give another model_version, "
                            "or none for the next" % directory)
  return directory


def signature(inputs, outputs):
  """A SignatureDef of dicts of name -> tensor."""
  info = tf.saved_model.build_tensor_info
  return tf.saved_model.build_signature_def(
      {name: info(tensor) for name, tensor in inputs.items()},
      {name: info(tensor) for name, tensor in outputs.items()},
      tf.saved_model.PREDICT_METHOD_NAME)


def write(directory, graph, session, signatures, assets):
  """Writes a SavedModel; the directory is there whole or not at all.

  Args:
    directory: str.
    graph, session: with the variables, loaded.
    signatures: dict of name -> SignatureDef.
    assets: dict of file name -> str, the text that it is to hold.

  Returns: int, its bytes.

  Raises: InputError if it cannot be written.
  """
  # No number, so that a server that looks takes it for no version.
  temporary = files.temporary_name(directory)
  with errors.reported():
    try:
      with graph.as_default():
        builder = tf.saved_model.Builder(temporary)
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING], signature_def_map=signatures,
            clear_devices=True, strip_default_attrs=True)
        builder.save()
      # Not as assets of the graph: it would hold this machine's paths.
      files.make_directory(os.path.join(temporary, "assets"))
      for name, text in assets.items():
        files.write_atomically(os.path.join(temporary, "assets", name), text)
      size = sum(os.path.getsize(os.path.join(parent, name))
                 for parent, _, names in os.walk(temporary) for name in names)
      os.rename(temporary, directory)
    except tf.errors.OpError as error:
      raise errors.InputError("%s: cannot be written: %s" % (
          directory, errors.op_reason(error))) from error
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  logging.info("signatures: %s", ", ".join(sorted(signatures)))
  return size
