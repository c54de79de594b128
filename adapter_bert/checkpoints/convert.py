"""Converts a Hugging Face BERT directory to a Google BERT checkpoint directory.

    python -m adapter_bert.checkpoints.convert \
        --hf_dir=bert-base-uncased --output_dir=uncased_L-12_H-768_A-12

`--hf_dir` holds config.json, model.safetensors (or its shards) and vocab.txt; `--output_dir`
gets bert_config.json, vocab.txt and bert_model.ckpt.*, which run_classifier.py
takes as --bert_config_file, --vocab_file and --init_checkpoint.

Every variable of BERT must be found in the file and every tensor of the file
must be used (position_ids, a constant, and cls.*, the pre-training heads,
excepted), so that nothing is left random and nothing is lost unseen. Only
safetensors files are read: a pickle can run any code, so none is ever opened.

Which gelu: Hugging Face's "gelu" is x * Phi(x), exactly; Google's is its tanh
approximation. By default the config gets Google's form, which every program
that reads such checkpoints has; MiniLM's outputs then move by up to 6e-3.
`--hidden_act=gelu_erf` keeps the exact form, which this project also has.
"""

import filecmp
import json
import os
import shutil

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import checkpoints
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables
import modeling

FLAGS = flags.FLAGS

CHECKPOINT = checkpoints.BASE_CHECKPOINT_NAME
OUTPUT_FILES = ("bert_config.json", "vocab.txt", CHECKPOINT + ".index",
                CHECKPOINT + ".data-00000-of-00001")

# The name of each activation in a Hugging Face config -> its name here.
ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
    "tanh": "tanh",
}


def define_flags():
  """Flags of this program, defined only where it is one.

  A second executable imported into the same process has an --output_dir too.
  """
  flags.DEFINE_string("hf_dir", None,
                      "Directory with config.json, model.safetensors and "
                      "vocab.txt.")
  flags.DEFINE_string("output_dir", None,
                      "Directory for the Google checkpoint; made if need be.")
  flags.DEFINE_enum("hidden_act", "gelu", ["gelu", "gelu_erf"],
                    "What to write where the config says \"gelu\" (the exact "
                    "form): Google's tanh form, or the exact one.")
  flags.DEFINE_bool("overwrite", False,
                    "Replace another checkpoint in output_dir.")
  flags.mark_flags_as_required(["hf_dir", "output_dir"])


def convert(hf_dir, output_dir, hidden_act="gelu", overwrite=False):
  """Reads `hf_dir`, writes `output_dir`, which is complete or not there.

  Args:
    hf_dir: directory with config.json, model.safetensors, vocab.txt.
    output_dir: directory to write. If it holds the very same files nothing
      happens; if it holds another conversion, `overwrite` decides.
    hidden_act: "gelu" or "gelu_erf", see the module's docstring.
    overwrite: bool.

  Raises:
    errors.InputError: something in hf_dir is not BERT as this project builds
      it, or output_dir holds something else.
  """
  output_dir = os.path.abspath(output_dir)
  files.recover_directory(output_dir)
  _check_output_dir(output_dir)
  config = read_config(os.path.join(hf_dir, "config.json"), hidden_act)
  vocab_file = _existing_file(os.path.join(hf_dir, "vocab.txt"))
  _check_vocab(vocab_file, config)
  arrays = read_weights(hf_dir, config)

  files.remove_litter(os.path.dirname(output_dir),
                      only=os.path.basename(output_dir))
  temporary = files.temporary_name(output_dir)
  files.make_directory(temporary)
  try:
    with open(os.path.join(temporary, "bert_config.json"), "w",
              encoding="utf-8") as writer:
      writer.write(config.to_json_string())
    shutil.copyfile(vocab_file, os.path.join(temporary, "vocab.txt"))
    checkpoints.write(os.path.join(temporary, CHECKPOINT), arrays)
    _move_into_place(temporary, output_dir, overwrite)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  logging.info("%s holds %d variables with %s numbers, hidden_act %s.",
               output_dir, len(arrays),
               "{:,}".format(sum(a.size for a in arrays.values())),
               config.hidden_act)


def read_config(config_file, hidden_act="gelu"):
  """The modeling.BertConfig that a Hugging Face config.json describes.

  Raises:
    errors.InputError: the file is missing or damaged, lacks a size, or
      describes a model whose outputs this project's BERT cannot give.
  """
  with open(_existing_file(config_file), encoding="utf-8") as reader:
    try:
      hf_config = json.load(reader)
    except ValueError as error:
      raise errors.InputError("%s is not JSON: %s" %
                              (config_file, error)) from error
  if not isinstance(hf_config, dict):
    raise errors.InputError("%s is a JSON %s, not a model's config" %
                            (config_file, type(hf_config).__name__))
  _check_architecture(config_file, hf_config)

  keys = sorted(modeling.BertConfig(vocab_size=1).to_dict())
  missing = [key for key in keys if key not in hf_config]
  if missing:
    raise errors.InputError(
        "%s has no %s; every size must be stated, none is guessed" %
        (config_file, ", ".join(missing)))
  values = {key: hf_config[key] for key in keys}
  values["hidden_act"] = _choose_activation(config_file, values["hidden_act"],
                                            hidden_act)
  try:
    return modeling.BertConfig(**values)
  except ValueError as error:
    raise errors.InputError("%s: %s" % (config_file, error)) from error


def _check_architecture(config_file, hf_config):
  """Refuses what changes the outputs but neither a name nor a shape."""
  # A key that is absent has the value that Hugging Face gives BERT without it.
  required = (("model_type", "bert"),
              ("layer_norm_eps", modeling.LAYER_NORM_EPSILON),
              ("position_embedding_type", "absolute"),
              ("is_decoder", False))
  for key, value in required:
    found = hf_config.get(key, value)
    if found != value:
      raise errors.InputError(
          "%s: %s is %s; only %s is BERT as it is built here, with another its "
          "outputs would differ, so this model cannot be converted" %
          (config_file, key, json.dumps(found), json.dumps(value)))


def _choose_activation(config_file, hf_activation, hidden_act):
  """The name for bert_config.json, logged where there is a choice."""
  activation = ACTIVATIONS.get(str(hf_activation))
  if activation is None:
    raise errors.InputError(
        "%s: hidden_act is %s; known are %s" %
        (config_file, json.dumps(hf_activation), ", ".join(ACTIVATIONS)))
  if activation != "gelu_erf":
    if hidden_act == "gelu_erf":
      raise errors.InputError(
          "%s: hidden_act is %s, not the exact gelu; leave out "
          "--hidden_act=gelu_erf" % (config_file, json.dumps(hf_activation)))
    return activation
  if hidden_act == "gelu_erf":
    logging.info("hidden_act: the exact gelu, kept as gelu_erf.")
  else:
    logging.info("hidden_act: the exact gelu becomes Google's tanh form, which "
                 "moves the outputs slightly; --hidden_act=gelu_erf keeps it.")
  return hidden_act


def bert_variables(config):
  """{variable name: shape} of a plain BERT, asked of the model's own graph."""
  with tf.Graph().as_default():
    modeling.BertModel(config, is_training=False,
                       input_ids=tf.placeholder(tf.int32, [1, 1]),
                       adapter_fn=None)
    return {variable.op.name: tuple(variable.shape.as_list())
            for variable in tf.trainable_variables()}


def read_weights(hf_dir, config):
  """The directory's tensors as {Google variable name: float32 array}.

  Names and shapes are checked before the first tensor is read.

  Args:
    hf_dir: str, a directory with model.safetensors or its shards.
    config: modeling.BertConfig.

  Raises:
    errors.InputError: safetensors is not installed, or the directory does not
      have this config's BERT, whole and nothing else.
  """
  tensors = hf_bert.in_order(safetensors_dir.open_dir(hf_dir), hf_dir)
  pooler = [name for name in ("pooler.dense.bias", "pooler.dense.weight")
            if name not in tensors]
  table = hf_bert.table(config)
  if pooler and any(name in tensors for entry in table.values()
                    for name in entry.names):
    raise errors.InputError(
        "%s has no pooler (%s); the classifier reads the pooled output, so "
        "this model cannot be used: take one saved with its pooler" %
        (hf_dir, ", ".join(pooler)))
  return tables.apply(table, tensors, hf_bert.IGNORED, hf_dir,
                      bert_variables(config))


def _existing_file(path):
  if not os.path.isfile(path):
    raise errors.InputError(
        "%s is not there; --hf_dir must hold config.json, model.safetensors "
        "and vocab.txt" % path)
  return path


def _check_vocab(vocab_file, config):
  with open(vocab_file, "rb") as reader:
    lines = sum(1 for _ in reader)
  if lines > config.vocab_size:
    raise errors.InputError(
        "%s has %d lines, but config.json's vocab_size is %d: the last words "
        "would have no embedding" % (vocab_file, lines, config.vocab_size))
  if lines < config.vocab_size:
    logging.info("%s has %d lines, vocab_size is %d: the last %d embeddings "
                 "are never used.", vocab_file, lines, config.vocab_size,
                 config.vocab_size - lines)


def _check_output_dir(output_dir):
  """Refuses a directory whose replacement would lose something else."""
  if not os.path.exists(output_dir):
    return
  if not os.path.isdir(output_dir):
    raise errors.InputError("--output_dir=%s is a file" % output_dir)
  others = sorted(set(os.listdir(output_dir)) - set(OUTPUT_FILES))
  if others:
    raise errors.InputError(
        "--output_dir=%s already holds other files (%s); choose a new or empty "
        "directory" % (output_dir, tables.some(others)))


def _move_into_place(temporary, output_dir, overwrite):
  """Renames the finished directory, so that no half-written one is seen."""
  if os.path.isdir(output_dir) and os.listdir(output_dir):
    same, _, _ = filecmp.cmpfiles(temporary, output_dir, OUTPUT_FILES,
                                  shallow=False)
    if len(same) == len(OUTPUT_FILES):
      logging.info("%s was already there and is identical.", output_dir)
      return
    if not overwrite:
      raise errors.InputError(
          "--output_dir=%s already holds another checkpoint; choose another "
          "directory, or replace it with --overwrite" % output_dir)
  files.replace_directory(temporary, output_dir)


def main(argv):
  errors.refuse_arguments(argv)
  if FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.INFO)
  convert(FLAGS.hf_dir, FLAGS.output_dir, FLAGS.hidden_act, FLAGS.overwrite)


def entry_point():
  """The console command `adapter-bert-convert`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
