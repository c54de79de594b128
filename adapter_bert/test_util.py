"""What the tests share: a tiny model, and numbers of the reference.

testdata/ lies beside this file and holds what the reference implementations
computed with small random models. What is too large, or not ours, to be carried
along is found through environment variables, and a test that needs it is
skipped where they are not set:

  ADAPTER_BERT_GOLDEN  further outputs of the reference
  BERT_BASE_DIR        BERT weights as a Google checkpoint
  GLUE_DIR             the GLUE tasks' .tsv files
  G2P_BART_DIR         two BARTs that pronounce words, and such words

ADAPTER_BERT_SEQUENCE_GOLDEN, if it is set, is read in place of
testdata/sequence_models: the same models and outputs in other sizes.
"""

import collections
import contextlib
import json
import os
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESTDATA = os.path.join(ROOT, "testdata")

# Programs that tests start, in whatever directory, find this checkout first.
os.environ["PYTHONPATH"] = ROOT

# A shell that runs the tests in the background has SIGINT ignored, for them and
# for the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# arrays: str -> numpy array, the inputs and what the reference made of them;
# facts: what its .json says; checkpoint: the prefix of its weights.
Golden = collections.namedtuple("Golden", ["arrays", "facts", "checkpoint"])


def golden(name):
  """The numbers of that name in testdata/, as a Golden."""
  prefix = os.path.join(TESTDATA, name)
  with open(prefix + ".json", encoding="utf-8") as reader:
    facts = json.load(reader)
  with np.load(prefix + ".npz") as arrays:
    return Golden(dict(arrays), facts, prefix + ".ckpt")


def sequence_golden(name, shipped=False):
  """The numbers of a model in testdata/sequence_models, as a Golden.

  Args:
    name: str, the model's directory.
    shipped: bool; testdata's, whatever ADAPTER_BERT_SEQUENCE_GOLDEN says.

  Its `checkpoint` is the directory, as Hugging Face's libraries write one:
  config.json and model.safetensors.
  """
  parent = os.path.join(TESTDATA, "sequence_models")
  if not shipped:
    parent = os.environ.get("ADAPTER_BERT_SEQUENCE_GOLDEN") or parent
  directory = os.path.join(parent, name)
  with open(os.path.join(directory, "golden.json"), encoding="utf-8") as reader:
    facts = json.load(reader)
  with np.load(os.path.join(directory, "golden.npz")) as arrays:
    return Golden(dict(arrays), facts, directory)


def external(variable, *parts):
  """A path below an environment variable's; skips the test if it is not set."""
  if not os.environ.get(variable):
    pytest.skip("%s is not set" % variable)
  path = os.path.join(os.environ[variable], *parts)
  assert tf.io.gfile.glob(path + "*"), "%s: nothing at %s" % (variable, path)
  return path


def tiny_config(**changes):
  """A BertConfig whose graph is built and run in a moment, without dropout.

  No two of its sizes, nor of tiny_batch's, are equal, so that a shape tells
  what it is.

  Args:
    **changes: keys of bert_config.json and their values.
  """
  keys = dict(vocab_size=31, hidden_size=16, num_hidden_layers=3,
              num_attention_heads=4, intermediate_size=20,
              max_position_embeddings=9, type_vocab_size=2,
              hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
  return modeling.BertConfig.from_dict(dict(keys, **changes))


def tiny_batch(batch_size=5, seq_length=7, num_labels=3):
  """Inputs for the tiny model, always the same: a dict of int32 arrays.

  input_ids, input_mask, token_type_ids [batch_size, seq_length]; label_ids
  [batch_size].
  """
  rng = np.random.RandomState(7)
  lengths = rng.randint(2, seq_length + 1, [batch_size, 1])
  shape = [batch_size, seq_length]
  batch = {
      "input_ids": rng.randint(0, 31, shape),
      "input_mask": np.arange(seq_length) < lengths,
      "token_type_ids": rng.randint(0, 2, shape),
      "label_ids": rng.randint(0, num_labels, [batch_size]),
  }
  return {key: value.astype(np.int32) for key, value in batch.items()}


def build(config, inputs, is_training=False, **arguments):
  """A BertModel over a dict such as tiny_batch's or a Golden's arrays."""
  return modeling.BertModel(
      config, is_training, tf.convert_to_tensor(inputs["input_ids"]),
      tf.convert_to_tensor(inputs["input_mask"]),
      tf.convert_to_tensor(inputs["token_type_ids"]), **arguments)


@contextlib.contextmanager
def graph(resource=True):
  """A new default graph, with resource or with reference variables."""
  with tf.Graph().as_default() as new:
    tf.set_random_seed(1)
    tf.get_variable_scope().set_use_resource(resource)
    yield new


@contextlib.contextmanager
def session(devices=1, scale=None):
  """A session on the default graph whose variables are initialised.

  Args:
    devices: int, the logical CPU devices.
    scale: float; noise of that standard deviation is then added to what is
      trainable, biases and the like too, so that none of them hides behind a 0
      or a 1.
  """
  config = tf.ConfigProto(device_count={"CPU": devices})
  with tf.Session(config=config) as new:
    new.run(tf.global_variables_initializer())
    if scale is not None:
      rng = np.random.RandomState(3)
      new.run([v.assign_add(scale * rng.normal(size=v.shape.as_list()))
               for v in tf.trainable_variables()])
    yield new


def init_from(checkpoint, variables):
  """Makes the variables' initial values those of a checkpoint that has all."""
  assignment_map, initialized = modeling.get_assignment_map_from_checkpoint(
      variables, checkpoint)
  missing = [v.name for v in variables if v.name not in initialized]
  assert not missing, missing
  tf.train.init_from_checkpoint(checkpoint, assignment_map)


def names(variables):
  """The variables' names without ":0", in their order."""
  return [v.name.partition(":")[0] for v in variables]


def words_looked_up_in_the_variable():
  """The ops of the graph after which each read of the table of words copies it.
  """
  return [op.name for op in tf.get_default_graph().get_operations()
          if op.type == "ResourceGather" and
          "word_embeddings" in op.inputs[0].name]
