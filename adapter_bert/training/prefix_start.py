"""Where the prefix of a BERT starts from, when it is trained.

Li and Liang 2021 (arXiv 2101.00190), section 7.4: in low data the activations of
real words are a better start than random numbers.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.checkpoints import matching
from adapter_bert.training import graphs
import modeling

_SCOPE = "bert/prefix"


def _random(model, records, weights):
  """What modeling.prefix_encoder starts from."""
  del model, records, weights
  return {}


def _zero(model, records, weights):
  """Keys and values of 0: no token, but attention that goes nowhere."""
  del records, weights
  width = model.config.num_hidden_layers * 2 * model.config.hidden_size
  if not model.prefix_hidden_size:
    return {_SCOPE + "/embeddings": np.zeros([model.prefix_length, width],
                                             np.float32)}
  return {_SCOPE + "/dense_1/kernel":
              np.zeros([model.prefix_hidden_size, width], np.float32)}


def _words(model, records, weights):
  """Keys and values of the first P tokens of the training examples."""
  ids = _first_tokens(model, records)
  return {_SCOPE + "/embeddings": keys_and_values(model.config, ids, weights)}


# prefix_init -> function (model, records, weights) -> {variable: array}.
KINDS = {"random": _random, "zero": _zero, "words": _words}


def _first_tokens(model, records):
  """int32 [P]: the tokens of the examples, in the file's order, joined."""
  found = []
  with tf.Graph().as_default(), tf.Session() as session:
    dataset = model.eval_dataset(records, 8, sort_by_length=False)
    batch = tf.data.make_one_shot_iterator(dataset).get_next()
    while sum(map(len, found)) < model.prefix_length:
      try:
        rows = session.run(batch)
      except tf.errors.OutOfRangeError:
        raise errors.InputError(
            "prefix_init=words needs %d tokens, and the training examples have "
            "%d; give a smaller prefix_length" %
            (model.prefix_length, sum(map(len, found))))
      real = rows["input_mask"] * (rows["example_index"] >= 0)[:, np.newaxis]
      found += [ids[mask > 0] for ids, mask in zip(rows["input_ids"], real)]
  return np.concatenate(found)[:model.prefix_length]


def keys_and_values(config, ids, weights):
  """The keys and values that tokens have in a plain BERT.

  Args:
    config: modeling.BertConfig.
    ids: int [P].
    weights: weights_lib.Weights of the BERT.

  Returns: float32 [P, layers * 2 * N * H], the order of prefix_encoder's table.
  """
  with tf.Graph().as_default():
    bert = modeling.BertModel(
        config, False, tf.constant(np.asarray(ids)[np.newaxis], tf.int32),
        adapter_fn=None)
    inputs = [bert.embedding_output] + bert.all_encoder_layers[:-1]
    columns = []
    for layer, layer_input in enumerate(inputs):
      scope = "bert/encoder/%s/attention/self" % modeling.layer_scope(
          layer, config.share_parameter_across_layers, config.layers_per_group)
      with tf.variable_scope(scope, reuse=True, auxiliary_name_scope=False):
        columns += [modeling.dense(layer_input[0], config.hidden_size, name=name)
                    for name in ("key", "value")]  # each [P, N * H]
    variables = graphs.model_variables()
    found = matching.match(variables, weights, config)
    with tf.Session() as session:
      graphs.run_and_load(session, tf.variables_initializer(variables),
                          matching.load_ops(variables, found, weights),
                          weights)
      return session.run(tf.concat(columns, axis=1))
