"""Converts a Hugging Face BERT directory to a Google BERT checkpoint directory.

    python -m adapter_bert.checkpoints.convert \
        --hf_dir=bert-base-uncased --output_dir=uncased_L-12_H-768_A-12

Every program also reads such a directory as it is, with --model_dir=DIR; this
is for those who want Google's format, for other tools. `--hf_dir` holds
config.json, model.safetensors (or its shards) and vocab.txt or tokenizer.json;
`--output_dir` gets bert_config.json, vocab.txt and bert_model.ckpt.*, and a
tokenizer_config.json if the tokenizer has settings, which belongs beside the
vocabulary.

Every variable of BERT must be found in the file and every tensor of the file
must be used (position_ids, a constant, and heads excepted), so that nothing is
left random and nothing is lost unseen. Only safetensors files are read: a
pickle can run any code, so none is ever opened.

Which gelu: Hugging Face's "gelu" is x * Phi(x), exactly, and is written as
gelu_erf. Google's own code knows only its tanh approximation: for that,
`--hidden_act=gelu`, which moves MiniLM's outputs by up to 6e-3.
"""

import filecmp
import os
import shutil

# TensorFlow's C++ side greets at every start; its errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# pylint: disable=g-import-not-at-top
from absl import flags
from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.base import flags as flags_lib
from adapter_bert.base.flags import Setting
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints import model_dir
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints.foreign import hf_tokenizer
from adapter_bert.checkpoints.foreign import tables
import modeling

FLAGS = flags.FLAGS

CHECKPOINT = weights_lib.BASE_CHECKPOINT_NAME
OUTPUT_FILES = (model_dir.GOOGLE_CONFIG, hf_tokenizer.VOCAB,
                hf_tokenizer.CONFIG, CHECKPOINT + ".index",
                CHECKPOINT + ".data-00000-of-00001")


SETTINGS = (
    Setting("hf_dir", str, flags_lib.REQUIRED,
            "Directory as Hugging Face saves a BERT: config.json, "
            "model.safetensors and vocab.txt or tokenizer.json.", is_path=True,
            local="its weights are mapped into memory"),
    Setting("output_dir", str, flags_lib.REQUIRED,
            "Directory for the Google checkpoint; made if need be.",
            is_path=True, local="it is compared with what is there"),
    Setting("hidden_act", str, None,
            "The activation to write; default: the model's own. gelu is "
            "Google's tanh form, gelu_erf the exact one.",
            allowed=bert_config.HIDDEN_ACTS),
    Setting("overwrite", bool, False,
            "Replace another checkpoint in output_dir."),
)
Options = flags_lib.config_class("Options", SETTINGS)


def define_flags():
  """Flags of this program, defined only where it is one.

  A second executable imported into the same process has an --output_dir too.
  """
  flags_lib.define(SETTINGS, ("hf_dir", "output_dir"))


def convert(hf_dir, output_dir, hidden_act=None, overwrite=False):
  """Reads `hf_dir`, writes `output_dir`, which is complete or not there.

  Args:
    hf_dir: directory, as Hugging Face saves a BERT.
    output_dir: directory to write. If it holds the very same files nothing
      happens; if it holds another conversion, `overwrite` decides.
    hidden_act: None for the model's own, or one of bert_config.HIDDEN_ACTS.
    overwrite: bool.

  Raises:
    errors.InputError: something in hf_dir is not BERT as this project builds
      it, or output_dir holds something else.
  """
  output_dir = os.path.abspath(output_dir)
  _check_output_dir(output_dir)
  files.remove_litter(os.path.dirname(output_dir),
                      only=os.path.basename(output_dir))
  found = model_dir.open_bert_dir(hf_dir)
  if found.kind != model_dir.HUGGING_FACE:
    raise errors.InputError("--hf_dir=%s holds a checkpoint of Google's "
                            "already; there is nothing to convert" % hf_dir)
  config = bert_config.read(found.config_file, hidden_act)
  tokenizer = hf_tokenizer.read(found.vocab_file)
  _check_vocab(tokenizer, config)
  arrays = read_weights(found.weights, config)

  temporary = files.temporary_name(output_dir)
  with errors.reported():
    os.makedirs(temporary)
    try:
      files.write_atomically(os.path.join(temporary, model_dir.GOOGLE_CONFIG),
                             config.to_json_string())
      tokenizer.write(temporary)
      weights_lib.write(os.path.join(temporary, CHECKPOINT), arrays)
      _move_into_place(temporary, output_dir, overwrite)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  logging.info("%s holds %d variables with %s numbers, hidden_act %s.",
               output_dir, len(arrays),
               "{:,}".format(sum(a.size for a in arrays.values())),
               config.hidden_act)


def bert_variables(config):
  """{variable name: shape} of a plain BERT, asked of the model's own graph."""
  with tf.Graph().as_default():
    modeling.BertModel(config, is_training=False,
                       input_ids=tf.placeholder(tf.int32, [1, 1]),
                       adapter_fn=None)
    return {variable.op.name: tuple(variable.shape.as_list())
            for variable in tf.trainable_variables()}


def read_weights(hf_dir, config):
  """The directory's BERT as {Google variable name: float32 array}.

  Args:
    hf_dir: str, a directory as Hugging Face saves a BERT.
    config: modeling.BertConfig.

  Raises:
    errors.InputError: safetensors is not installed, or the directory does not
      have this config's BERT, whole and nothing else.
  """
  weights = weights_lib.Weights([hf_dir])
  variables = bert_variables(config)
  if not any(map(names.is_pooler, weights.shapes)):
    raise errors.InputError(
        "%s has no pooler, and a Google checkpoint has one, which classifiers "
        "read; take a model saved with its pooler, or train a new one without "
        "a conversion: --model_dir=%s --fresh_pooler" % (hf_dir, hf_dir))
  for name, shape in sorted(variables.items()):
    if tuple(weights.shapes[name]) != shape:
      raise errors.InputError(
          "%s: %s has shape %s here; with the sizes in the config it is %s" %
          (hf_dir, name, weights.shapes[name], list(shape)))
  if weights.has_untrained_pooler():
    logging.warning("%s", weights_lib.UNTRAINED_POOLER % hf_dir)
  return {name: weights.value(name) for name in sorted(variables)}


def _check_vocab(tokenizer, config):
  """Compares a hf_tokenizer.TokenizerFiles with the model that reads its ids.
  """
  words, path = max(tokenizer.vocab.values()) + 1, tokenizer.vocab_file
  if words > config.vocab_size:
    raise errors.InputError(
        "%s has %d words, but config.json's vocab_size is %d: the last words "
        "would have no embedding" % (path, words, config.vocab_size))
  if words < config.vocab_size:
    logging.info("%s has %d words, vocab_size is %d: the last %d embeddings "
                 "are never used.", path, words, config.vocab_size,
                 config.vocab_size - words)


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
    there = sorted(os.listdir(output_dir))
    same, _, _ = filecmp.cmpfiles(temporary, output_dir, there, shallow=False)
    if sorted(same) == there == sorted(os.listdir(temporary)):
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
  options = Options(**flags_lib.values(SETTINGS))
  convert(options.hf_dir, options.output_dir, options.hidden_act,
          options.overwrite)


def entry_point():
  """The console command `adapter-bert-convert`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
