"""Writing a graph as a SavedModel, in the layout of TensorFlow Serving."""

import os
import re

from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.base import files


def version_directory(output_dir, version):
  """The directory to write: of that version, or of the next one.

  Raises: InputError if it is there.
  """
  there = []
  if files.is_directory(output_dir):
    there = [int(name) for name in files.names_in(output_dir)
             if re.fullmatch("[0-9]{1,18}", name)]
  elif files.is_file(output_dir):
    raise errors.InputError("output_dir %s is a file; give a directory" %
                            output_dir)
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
      size = files.size_below(temporary)
      files.rename_directory(temporary, directory)
    except tf.errors.OpError as error:
      raise errors.InputError("%s: cannot be written: %s" % (
          directory, errors.op_reason(error))) from error
    finally:
      files.remove_directory(temporary)
  logging.info("signatures: %s", ", ".join(sorted(signatures)))
  return size
