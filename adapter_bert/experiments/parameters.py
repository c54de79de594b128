"""Counts a model's parameters, and what each method trains of them.

Every number is read off a graph that modeling.py built (its variables' shapes
and collections), and Tuning says what a method trains. Nothing runs
the graph, so no weight is ever allocated. Prefixes alone are counted by their
formula.
"""

import collections
import functools
import json
import re

import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.checkpoints import bert_config
from adapter_bert.tuning import Tuning
import modeling

# The sizes of the models of Devlin et al. 2018 (uncased English), and of Lan et
# al. 2019 (version 2) in albert_zh's variables: token type and position
# embeddings are as wide as the layers.
CONFIGS = collections.OrderedDict([
    ("bert-base", dict(
        vocab_size=30522, hidden_size=768, num_hidden_layers=12,
        num_attention_heads=12, intermediate_size=3072, type_vocab_size=2)),
    ("bert-large", dict(
        vocab_size=30522, hidden_size=1024, num_hidden_layers=24,
        num_attention_heads=16, intermediate_size=4096, type_vocab_size=2)),
    ("albert-base", dict(
        vocab_size=30000, embedding_size=128, hidden_size=768,
        num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        type_vocab_size=2, share_parameter_across_layers=True)),
    ("albert-large", dict(
        vocab_size=30000, embedding_size=128, hidden_size=1024,
        num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        type_vocab_size=2, share_parameter_across_layers=True)),
    ("albert-xlarge", dict(
        vocab_size=30000, embedding_size=128, hidden_size=2048,
        num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192,
        type_vocab_size=2, share_parameter_across_layers=True)),
    ("albert-xxlarge", dict(
        vocab_size=30000, embedding_size=128, hidden_size=4096,
        num_hidden_layers=12, num_attention_heads=64, intermediate_size=16384,
        type_vocab_size=2, share_parameter_across_layers=True)),
])

# What the paper's tables and figures vary.
FIGURE_SIZES = tuple(2**i for i in range(10))  # figures 3 and 4
GLUE_SIZES = (8, 64, 256)
FURTHER_SIZES = (2, 4, 8, 16, 32, 64)          # the tasks of Table 2
FURTHER_TOP_N = (1, 2, 3, 5, 7, 9, 11, 12)

DEFAULT_CONFIGS = ["bert-base", "bert-large"]

# scope: "embeddings", "pooler", "head", or the layer's, as "layer_0".
# adapter_size: for a variable of an adapter its size, see `count`; else None.
Variable = collections.namedtuple(
    "Variable", "name parameters scope collections adapter_size")

# What training one task takes. parameters, head: int (float for a mix);
# of_encoder, of_whole: the fraction by each convention.
Trained = collections.namedtuple(
    "Trained", "parameters head of_encoder of_whole")

# tune: a method of Tuning. choices: list of (value, weight), where a
# value is an adapter size, a number of layers, or None.
Method = collections.namedtuple("Method", "label tune choices")


def count(config, adapter_sizes=(), num_labels=2, adapter_layers=None,
          adapter_order="houlsby"):
  """Builds a model's graph and counts.

  Args:
    config: modeling.BertConfig.
    adapter_sizes: ints >= 1, the sizes that can be asked for afterwards; or
      own_adapters.OwnAdapter, which stands for its size.
    num_labels: int, the head's.
    adapter_layers: the indices of the layers with adapters; None: all.
    adapter_order: see modeling.transformer_model.

  Returns: Counts. The same arguments build only once in a process.
  """
  return _count(config.to_json_string(),
                tuple(sorted(set(adapter_sizes), key=str)), num_labels,
                None if adapter_layers is None else tuple(adapter_layers),
                adapter_order)


@functools.lru_cache(maxsize=None)
def _count(config_json, adapter_sizes, num_labels, adapter_layers,
           adapter_order):
  config = modeling.BertConfig.from_dict(json.loads(config_json))
  scopes, calls = [], 1 if adapter_order == "pfeiffer" else 2

  def adapters_of_every_size(tensor):
    # All sizes in one graph, side by side: a layer is slow to build and an
    # adapter is not. A second call in a layer is its feed-forward half.
    layer = len(scopes) // calls
    scopes.append(tf.get_variable_scope().name.split("/")[2])
    if adapter_layers is not None and layer not in adapter_layers:
      return tensor
    for place, size in enumerate(adapter_sizes):
      with tf.variable_scope("size_%d" % place):
        if isinstance(size, int):
          modeling.feedforward_adapter(tensor, hidden_size=size)
        else:
          size(tensor)
    return tensor

  with tf.Graph().as_default() as graph:
    # One token is enough: no shape of a variable depends on the input's.
    model = modeling.BertModel(
        config, is_training=False, input_ids=tf.placeholder(tf.int32, [1, 1]),
        scope="bert", adapter_fn=adapters_of_every_size,
        adapter_order=adapter_order)
    modeling.classifier_head(model.get_pooled_output(), num_labels,
                             is_training=False)
  layers = collections.OrderedDict()
  for layer, scope in enumerate(scopes[::calls]):
    layers.setdefault(scope, []).append(layer)
  return Counts(_variables(graph, adapter_sizes), layers)


def _variables(graph, adapter_sizes):
  """The graph's variables, as a list of Variable."""
  members = {
      collection: set(v.name for v in graph.get_collection(collection))
      for collection in Tuning.COLLECTIONS
  }
  variables = []
  for v in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES):
    size = re.search(r"/size_(\d+)/", v.name)
    variables.append(Variable(
        name=v.name,
        parameters=v.shape.num_elements(),
        scope=names.part_of(v.op.name),
        collections=[c for c in members if v.name in members[c]],
        adapter_size=adapter_sizes[int(size.group(1))] if size else None))
  return variables


class Counts(object):
  """The parameters of one model.

  Attributes:
    layers: OrderedDict, scope -> the list of the layers that run in it.
    embeddings, encoder, pooler, head: int, parameters by part, without
      adapters. The LayerNorms are in the first two.
    whole: int, the model's parameters without adapters and head.
    layer_norm: int, those of the LayerNorms.
  """

  def __init__(self, variables, layers):
    self.layers = layers
    self._variables = variables
    self.embeddings = self.scope("embeddings")
    self.encoder = sum(self.scope(scope) for scope in layers)
    self.pooler = self.scope("pooler")
    self.head = self.scope("head")
    self.whole = self.embeddings + self.encoder + self.pooler
    self.layer_norm = _sum(v for v in self.model()
                           if modeling.LAYER_NORM in v.collections)

  def model(self, adapter_size=None):
    """The variables of the model with adapters of that size, or without."""
    return [v for v in self._variables
            if v.adapter_size in (None, adapter_size)]

  def scope(self, scope, collection=None):
    """Parameters in a scope, without adapters; of a collection, or all."""
    return _sum(v for v in self.model() if v.scope == scope and
                (collection is None or collection in v.collections))

  def adapters(self, adapter_size, scope=None):
    """Parameters of the adapters of that size; in one scope, or in all."""
    return _sum(v for v in self._variables if v.adapter_size == adapter_size and
                (scope is None or v.scope == scope))

  def trained(self, tuning, adapter_size=None):
    """What a method trains per task.

    Args:
      tuning: Tuning.
      adapter_size: int, for a method with adapters and only for those.

    Returns: Trained.
    """
    model = self.model(adapter_size)
    trained = [v for v in model if tuning.trains(v.name, v.collections)]
    body = [v for v in trained if v.scope != "head"]
    parameters = _sum(body)
    if len(trained) == len(model):
      # The embeddings' LayerNorm would make it a little more than 100%.
      of_encoder = 1.0
    else:
      of_encoder = _sum(
          v for v in body if v.scope in self.layers or
          modeling.LAYER_NORM in v.collections) / self.encoder
    return Trained(parameters, _sum(trained) - parameters, of_encoder,
                   parameters / self.whole)

  def trained_by(self, method):
    """`trained` for a Method: over its choices, the weighted mean."""
    results, weights = [], []
    for value, weight in method.choices:
      top_n = value if method.tune == "top_n" else None
      tuning = Tuning(method.tune, top_n,
                               sum(len(i) for i in self.layers.values()))
      results.append(self.trained(
          tuning, value if tuning.uses_adapters else None))
      weights.append(weight)
    return Trained(*[
        sum(w * x for w, x in zip(weights, field)) / sum(weights)
        for field in zip(*results)])


def _sum(variables):
  return sum(v.parameters for v in variables)


def total_times(method, fraction, num_tasks):
  """What `num_tasks` tasks need in all, in models; see the module's docstring.

  Args:
    method: Method.
    fraction: float, trained per task.
    num_tasks: int.
  """
  shared = 0 if method.tune == "full" else 1
  return shared + num_tasks * fraction


def method_of(tune, choice=None):
  """A Method with one choice, under the name it has in every table.

  Args:
    tune: str, a method of Tuning.
    choice: int; the adapter size (or own_adapters.OwnAdapter), for top_n the
      number of layers, else None.
  """
  if tune == "top_n":
    label = "top %d layer%s" % (choice, "s" if choice > 1 else "")
  else:
    label = {"full": "full fine-tuning", "layer_norm": "LayerNorm only",
             "head": "head only"}.get(tune, tune)
    if choice is not None:
      label += ", %s" % choice
  return Method(label, tune, [(choice, 1)])


def load_config(name=None, config_file=None, changes=None):
  """A model's config.

  Args:
    name: a key of CONFIGS; or None, and
    config_file: path of a bert_config.json.
    changes: dict of config keys to set over it.

  Returns: modeling.BertConfig.

  Raises: errors.InputError if it cannot be read or built.
  """
  if config_file is None and name not in CONFIGS:
    raise errors.InputError(
        "--config=%s is unknown; known are %s (for any other model, give "
        "--bert_config_file)" % (name, ", ".join(CONFIGS)))
  if config_file is not None:
    return bert_config.read(config_file, **(changes or {}))
  with errors.reported():
    config = modeling.BertConfig.from_dict(dict(CONFIGS[name],
                                                **(changes or {})))
    config.validate()
  return config


def prefix_stored(config, length):
  """int: the keys and values that a prefix adds to all layers; no head.

  Args:
    config: modeling.BertConfig. Layers that share their weights have prefixes
      of their own.
    length: int, the prefix's positions (Li and Liang 2021, arXiv 2101.00190).
  """
  return length * config.num_hidden_layers * 2 * config.hidden_size


def prefix_trained(config, length, hidden_size=None):
  """int: what training a prefix trains, without the head.

  Args:
    config, length: as for prefix_stored.
    hidden_size: int, of the MLP that makes the prefix from an embedding
      [length, D] while it is trained; None: the prefix itself is trained.
  """
  if not hidden_size:
    return prefix_stored(config, length)
  width = config.hidden_size
  return (length * width + (width + 1) * hidden_size +
          (hidden_size + 1) * prefix_stored(config, 1))
