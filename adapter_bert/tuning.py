"""What a tuning method trains: the one definition.

    trained = Tuning("adapters").variables()

Training, counting, checkpoints and exports ask it; nothing else decides.
"""

import collections
import re

import tensorflow.compat.v1 as tf

from adapter_bert import names
from modeling import ADAPTERS, HEAD, LAYER_NORM, PREFIXES

# The table whose type the rest of a model follows.
_WORDS = re.compile("(^|/)word_embeddings$")

_TOP_N_OF_SHARED = ("top_n cannot tune the top layers of a model whose layers "
                    "share their weights (%s)")


class Tuning(object):
  """A tuning method: the one definition of which variables are trained.

  The methods (Houlsby et al. 2019, section 3):
    adapters    the collections adapters, layer_norm and head (the default)
    prefix      the collections prefixes and head, without adapters (Li and
                Liang 2021)
    full        every variable of the model, which has no adapters; but none
                that is a constant (names.is_constant)
    top_n       the top `top_n_layers` layers, the pooler and the head, without
                adapters ("variable fine-tuning")
    layer_norm  the collections layer_norm and head, without adapters
    head        the collection head alone, without adapters
  Any of the four collections joined with "+", as in "adapters+head", trains
  just those.

  Args:
    tune: str, as above.
    top_n_layers: int >= 1, for top_n and only for it.
    num_hidden_layers: int, the model's layers; needed for top_n.

  Raises: ValueError for an unknown method or a number that does not fit it.
  """

  METHODS = collections.OrderedDict([
      ("adapters", (ADAPTERS, LAYER_NORM, HEAD)),
      ("prefix", (PREFIXES, HEAD)),
      ("full", None),
      ("top_n", (HEAD,)),
      ("layer_norm", (LAYER_NORM, HEAD)),
      ("head", (HEAD,)),
  ])
  COLLECTIONS = (ADAPTERS, PREFIXES, LAYER_NORM, HEAD)

  def __init__(self, tune="adapters", top_n_layers=None, num_hidden_layers=None):
    self.name = tune
    parts = str(tune).split("+")
    if tune in self.METHODS:
      self.collections = self.METHODS[tune]
    elif len(parts) > 1 and all(part in self.COLLECTIONS for part in parts):
      self.collections = tuple(parts)
    else:
      raise ValueError(
          "unknown tuning method %r; known are %s, and %s joined with \"+\"" %
          (tune, ", ".join(self.METHODS), ", ".join(self.COLLECTIONS)))
    self.first_layer = self.last_layer = None
    if tune == "top_n":
      self.first_layer = self._first_layer(top_n_layers, num_hidden_layers)
      self.last_layer = num_hidden_layers - 1
    elif top_n_layers is not None:
      raise ValueError("top_n_layers is %r, but the tuning method is %s; it "
                       "belongs to top_n" % (top_n_layers, tune))

  @staticmethod
  def _first_layer(top_n_layers, num_hidden_layers):
    if (not isinstance(top_n_layers, int) or isinstance(top_n_layers, bool) or
        top_n_layers < 1 or
        num_hidden_layers is not None and top_n_layers > num_hidden_layers):
      raise ValueError("top_n needs top_n_layers from 1 to the model's layers "
                       "(%s), and got %r" % (num_hidden_layers, top_n_layers))
    if num_hidden_layers is None:
      raise ValueError("top_n needs num_hidden_layers, the model's layers")
    return num_hidden_layers - top_n_layers

  @property
  def uses_adapters(self):
    """Whether the model that this method tunes has adapters."""
    return self.collections is not None and ADAPTERS in self.collections

  @property
  def uses_prefixes(self):
    """Whether the model that this method tunes has prefixes."""
    return self.collections is not None and PREFIXES in self.collections

  def trains(self, name, in_collections):
    """Whether a variable is trained.

    Args:
      name: str, the variable's name.
      in_collections: container of str, the collections the variable is in.
    """
    if self.collections is None:
      return not names.is_constant(name)
    if any(collection in in_collections for collection in self.collections):
      return True
    if self.first_layer is None:
      return False
    layer = names.layer_of(name)
    if layer is None:
      return names.is_pooler(name)
    if layer.id == names.SHARED:
      raise ValueError(_TOP_N_OF_SHARED % name)
    return int(layer.id) >= self.first_layer

  def variables(self, graph=None):
    """The trained ones of the graph's trainable variables, in their order.

    Raises: ValueError for top_n if the model's layers share their weights, and
      if prefixes are to be trained and the model has none.
    """
    graph = graph or tf.get_default_graph()
    if self.uses_prefixes and not graph.get_collection(PREFIXES):
      raise ValueError("the tuning method is %s, and the model was built without"
                       " prefixes; give it a prefix_fn" % self.name)
    trainable = graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)
    if self.last_layer is not None:
      # Layers in groups have fewer scopes than layers: those above the groups'
      # numbers would be nobody's, and nothing but the pooler trained.
      last = "encoder/layer_%d/" % self.last_layer
      if not any(last in v.name for v in trainable):
        raise ValueError(_TOP_N_OF_SHARED % ("no variable in %s" % last))
    members = {
        collection: set(v.name for v in graph.get_collection(collection))
        for collection in self.COLLECTIONS
    }
    return [
        v for v in trainable
        if self.trains(v.name, [c for c in members if v.name in members[c]])
    ]

  def variable_getter(self, dtype, ops=None):
    """A custom getter for the variable scope that a model is built in.

    A model computes in the type of its word embeddings, so this decides it:
      - frozen variables are of the type `dtype`: half the memory with bfloat16,
        and no cast of a frozen weight at any step;
      - a table of words that is trained is stored in float32, and handed out
        cast to `dtype`; other kernels and tables the model casts to the type of
        what they are multiplied with or added to;
      - LayerNorms, adapters, prefixes and heads (what is in a collection) are
        float32, and so is all that is trained.
    The first trained variable is reported to `ops`: below it no gradient is
    computed, so nothing needs to be kept for one.

    Args:
      dtype: tf.float32 or tf.bfloat16.
      ops: modeling.PlainOps or None.
    """

    def get_variable(getter, name, **kwargs):
      in_collections = kwargs.get("collections") or ()
      trained = self.trains(name, in_collections)
      if trained and ops is not None:
        ops.trained_from_here()
      if any(collection in in_collections for collection in self.COLLECTIONS):
        return getter(name, **kwargs)
      if not trained:
        return getter(name, **dict(kwargs, dtype=dtype))
      variable = getter(name, **kwargs)
      if dtype == variable.dtype.base_dtype or not _WORDS.search(name):
        return variable
      return tf.cast(variable, dtype)

    return get_variable
