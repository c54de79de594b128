"""BERT with adapters: the model, and which of its variables a method trains.

BERT is Devlin et al. 2018 (arXiv 1810.04805); the adapters are Houlsby et al.,
ICML 2019 (arXiv 1902.00751), "Parameter-Efficient Transfer Learning for NLP";
layers that share their weights and factorised embeddings are ALBERT's (Lan et
al. 2019, arXiv 1909.11942), with the variable names of albert_zh.

    config = BertConfig.from_json_file("bert_config.json")
    model = BertModel(config, is_training=True, input_ids=ids,
                      input_mask=mask, token_type_ids=segments)
    logits = classifier_head(model.get_pooled_output(), num_labels=2,
                             is_training=True)
    train_only = Tuning("adapters").variables()

Everything is built in a TensorFlow 1 graph with `tf.get_variable`, works with
reference and with resource variables, and changes no global mode.

Letters in the shapes below:
  B batch size            S sequence length       D hidden size
  F positions that look (from_seq)                T positions looked at (to_seq)
  N attention heads       H size of one head, D / N
  V vocabulary            E embedding size        m adapter size
"""

import collections
import contextlib
import copy
import functools
import json
import math
import re
import threading

import six
import tensorflow.compat.v1 as tf

# Graph collections. Each variable in them is in GLOBAL_VARIABLES too, and every
# variable of the model, trained or not, stays in TRAINABLE_VARIABLES: scripts
# map checkpoints over tf.trainable_variables().
ADAPTERS = "adapters"
LAYER_NORM = "layer_norm"
HEAD = "head"

LAYER_NORM_EPSILON = 1e-12
# Added to the attention score of a masked position before the softmax.
MASKED_SCORE = -10000.0
HEAD_DROPOUT = 0.1


class BertConfig(object):
  """The sizes of a BERT, as in a `bert_config.json`.

  Beyond the constructor's arguments, from_dict and from_json_file keep every
  other key as an attribute; these have a meaning here:

    embedding_size: E; below hidden_size the word embeddings are factorised.
    share_parameter_across_layers, layers_per_group, share_adapters: see
      `transformer_model`.
    ln_type: only "postln", BERT's own order, is built.

  Raises (all constructors): ValueError, one line, for a missing key or a value
    of the wrong type or out of range.
  """

  embedding_size = None
  share_parameter_across_layers = False
  layers_per_group = None
  share_adapters = True
  ln_type = "postln"

  def __init__(self,
               vocab_size,
               hidden_size=768,
               num_hidden_layers=12,
               num_attention_heads=12,
               intermediate_size=3072,
               hidden_act="gelu",
               hidden_dropout_prob=0.1,
               attention_probs_dropout_prob=0.1,
               max_position_embeddings=512,
               type_vocab_size=16,
               initializer_range=0.02):
    self.vocab_size = vocab_size
    self.hidden_size = hidden_size
    self.num_hidden_layers = num_hidden_layers
    self.num_attention_heads = num_attention_heads
    self.intermediate_size = intermediate_size
    self.hidden_act = hidden_act
    self.hidden_dropout_prob = hidden_dropout_prob
    self.attention_probs_dropout_prob = attention_probs_dropout_prob
    self.max_position_embeddings = max_position_embeddings
    self.type_vocab_size = type_vocab_size
    self.initializer_range = initializer_range
    self.validate()

  @classmethod
  def from_dict(cls, json_object):
    """A config from a dict; `vocab_size` is the one key that must be there."""
    if not isinstance(json_object, dict):
      raise ValueError("the config is a JSON %s, not an object of keys and "
                       "values" % type(json_object).__name__)
    if "vocab_size" not in json_object:
      raise ValueError("the config has no vocab_size; is it a bert_config.json?"
                       " (its keys: %s)" % ", ".join(sorted(json_object)))
    config = cls(vocab_size=json_object["vocab_size"])
    for key, value in six.iteritems(json_object):
      setattr(config, key, value)
    config.validate()
    return config

  @classmethod
  def from_json_file(cls, json_file):
    """A config from the path of a JSON file."""
    try:
      with open(json_file, encoding="utf-8") as reader:
        return cls.from_dict(json.loads(reader.read()))
    except ValueError as error:
      raise ValueError("%s: %s" % (json_file, error))

  def to_dict(self):
    return copy.deepcopy(self.__dict__)

  def to_json_string(self):
    return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

  def validate(self):
    """Raises ValueError, naming the key, if the config cannot be built."""
    for key in ("vocab_size", "hidden_size", "num_hidden_layers",
                "num_attention_heads", "intermediate_size",
                "max_position_embeddings", "type_vocab_size"):
      _check_config(key, getattr(self, key), _is_integer, "a whole number >= 1")
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
      _check_config(key, getattr(self, key),
                    lambda p: p is None or _is_number(p) and 0 <= p < 1,
                    "a number from 0 up to, not including, 1")
    _check_config("initializer_range", self.initializer_range,
                  lambda r: _is_number(r) and r > 0, "a number above 0")
    if not callable(self.hidden_act):
      get_activation(self.hidden_act)
    if self.hidden_size % self.num_attention_heads:
      raise ValueError(
          "config: hidden_size (%d) is not a multiple of num_attention_heads "
          "(%d)" % (self.hidden_size, self.num_attention_heads))
    self._validate_sharing()

  def _validate_sharing(self):
    for key in ("share_parameter_across_layers", "share_adapters"):
      _check_config(key, getattr(self, key),
                    lambda value: isinstance(value, bool), "true or false")
    _check_sharing(self.share_parameter_across_layers, self.layers_per_group)
    _check_config(
        "embedding_size", self.embedding_size,
        lambda e: e is None or _is_integer(e) and e <= self.hidden_size,
        "a whole number from 1 to hidden_size (%d)" % self.hidden_size)
    if self.ln_type != "postln":
      raise ValueError(
          "config: ln_type is %r; only \"postln\" is built (the normalisation "
          "after each residual sum, as in BERT)" % (self.ln_type,))


def _is_integer(value):
  return (isinstance(value, six.integer_types) and not isinstance(value, bool)
          and value >= 1)


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_config(key, value, is_good, allowed):
  if not is_good(value):
    raise ValueError("config: %s is %r; it must be %s" % (key, value, allowed))


def _check_sharing(share_parameter_across_layers, layers_per_group):
  """Raises ValueError if the two cannot go together."""
  if layers_per_group is None:
    return
  if not _is_integer(layers_per_group):
    raise ValueError("layers_per_group is %r; it must be a whole number >= 1, "
                     "or absent to share one layer's weights by all" %
                     (layers_per_group,))
  if not share_parameter_across_layers:
    raise ValueError("layers_per_group is %d, but share_parameter_across_layers"
                     " is false; set it to true, or drop layers_per_group" %
                     layers_per_group)


_TOP_N_OF_SHARED = ("top_n cannot tune the top layers of a model whose layers "
                    "share their weights (%s)")


class Tuning(object):
  """A tuning method: the one definition of which variables are trained.

  The methods (Houlsby et al. 2019, section 3):
    adapters    the collections adapters, layer_norm and head (the default)
    full        every variable of the model, which has no adapters
    top_n       the top `top_n_layers` layers, the pooler and the head, without
                adapters ("variable fine-tuning")
    layer_norm  the collections layer_norm and head, without adapters
    head        the collection head alone, without adapters
  Any of the three collections joined with "+", as in "adapters+head", trains
  just those.

  Args:
    tune: str, as above.
    top_n_layers: int >= 1, for top_n and only for it.
    num_hidden_layers: int, the model's layers; needed for top_n.

  Raises: ValueError for an unknown method or a number that does not fit it.
  """

  METHODS = collections.OrderedDict([
      ("adapters", (ADAPTERS, LAYER_NORM, HEAD)),
      ("full", None),
      ("top_n", (HEAD,)),
      ("layer_norm", (LAYER_NORM, HEAD)),
      ("head", (HEAD,)),
  ])
  COLLECTIONS = (ADAPTERS, LAYER_NORM, HEAD)

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
    if (not _is_integer(top_n_layers) or
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

  def trains(self, name, in_collections):
    """Whether a variable is trained.

    Args:
      name: str, the variable's name.
      in_collections: container of str, the collections the variable is in.
    """
    if self.collections is None:
      return True
    if any(collection in in_collections for collection in self.collections):
      return True
    if self.first_layer is None:
      return False
    if re.search("(^|/)encoder/layer_shared/", name):
      raise ValueError(_TOP_N_OF_SHARED % name)
    layer = re.search(r"(^|/)encoder/layer_(\d+)/", name)
    if layer:
      return int(layer.group(2)) >= self.first_layer
    return re.search("(^|/)pooler/", name) is not None

  def variables(self, graph=None):
    """The trained ones of the graph's trainable variables, in their order.

    Raises: ValueError for top_n if the model's layers share their weights.
    """
    graph = graph or tf.get_default_graph()
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


class BertModel(object):
  """BERT's encoder with its pooler.

  Args:
    config: BertConfig; it is copied, never changed.
    is_training: bool; False switches every dropout off.
    input_ids: int32 [B, S].
    input_mask: int32 [B, S], 1 for a token and 0 for padding; None: all 1.
    token_type_ids: int32 [B, S], the segment of each token; None: all 0.
    use_one_hot_embeddings: bool; look words up by a matrix product, which some
      accelerators do faster. The result is the same.
    scope: str or None; the variable scope. None is "bert" ("bert_1" for the
      second model of a graph, and so on).
    adapter_fn: what `get_adapter` takes: a name, a callable, or None for a
      plain BERT.
    adapter_layers: the indices of the layers that get adapters; None: all.
    skip_padding: bool; the layers work on the tokens alone. What comes out for
      them is the same; what comes out for padding has no meaning, and no
      gradient comes from it.

  Raises: ValueError if S is more than config.max_position_embeddings, or the
    adapter or a layer index is unknown.
  """

  def __init__(self,
               config,
               is_training,
               input_ids,
               input_mask=None,
               token_type_ids=None,
               use_one_hot_embeddings=False,
               scope=None,
               adapter_fn="feedforward_adapter",
               adapter_layers=None,
               skip_padding=False):
    config = copy.deepcopy(config)
    if not is_training:
      config.hidden_dropout_prob = 0.0
      config.attention_probs_dropout_prob = 0.0

    batch_size, seq_length = get_shape_list(input_ids, expected_rank=2)
    if input_mask is None:
      input_mask = tf.ones([batch_size, seq_length], tf.int32)
    if token_type_ids is None:
      token_type_ids = tf.zeros([batch_size, seq_length], tf.int32)

    with tf.variable_scope(scope, default_name="bert"):
      with tf.variable_scope("embeddings"):
        self.embedding_output = self._embed(
            config, input_ids, token_type_ids, use_one_hot_embeddings)
      with tf.variable_scope("encoder"):
        self.all_encoder_layers = transformer_model(
            input_tensor=self.embedding_output,
            # [B, 1, T]: the same for each position that looks.
            attention_mask=tf.expand_dims(input_mask, 1),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            intermediate_act_fn=get_activation(config.hidden_act),
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
            initializer_range=config.initializer_range,
            do_return_all_layers=True,
            adapter_fn=adapter_fn,
            share_parameter_across_layers=config.share_parameter_across_layers,
            layers_per_group=config.layers_per_group,
            share_adapters=config.share_adapters,
            adapter_layers=adapter_layers,
            tokens=TokenRows(input_mask) if skip_padding else None)
      self.sequence_output = self.all_encoder_layers[-1]
      with tf.variable_scope("pooler"):
        first_token = self.sequence_output[:, 0, :]  # [B, D]
        self.pooled_output = dense(
            first_token, config.hidden_size, activation=tf.tanh,
            initializer_range=config.initializer_range)

  def _embed(self, config, input_ids, token_type_ids, use_one_hot_embeddings):
    """Word, token type and position embeddings, normalised: [B, S, D]."""
    words, self.embedding_table = embedding_lookup(
        input_ids,
        vocab_size=config.vocab_size,
        embedding_size=config.embedding_size or config.hidden_size,
        initializer_range=config.initializer_range,
        use_one_hot_embeddings=use_one_hot_embeddings)
    if config.embedding_size not in (None, config.hidden_size):
      projection = _get_variable(
          "word_embeddings_2", [config.embedding_size, config.hidden_size],
          create_initializer(config.initializer_range))
      shape = get_shape_list(words)
      words = _matmul(reshape_to_matrix(words), projection)
      words = reshape_from_matrix(words, shape)  # [B, S, E] -> [B, S, D]
    return embedding_postprocessor(
        words,
        use_token_type=True,
        token_type_ids=token_type_ids,
        token_type_vocab_size=config.type_vocab_size,
        initializer_range=config.initializer_range,
        max_position_embeddings=config.max_position_embeddings,
        dropout_prob=config.hidden_dropout_prob)

  def get_pooled_output(self):
    """float [B, D]: tanh of a dense layer over the first token's output."""
    return self.pooled_output

  def get_sequence_output(self):
    """float [B, S, D]: the last layer's output."""
    return self.sequence_output

  def get_all_encoder_layers(self):
    """A list, one float [B, S, D] for each layer's output."""
    return self.all_encoder_layers

  def get_embedding_output(self):
    """float [B, S, D]: what goes into the first layer."""
    return self.embedding_output

  def get_embedding_table(self):
    """float [V, E]: the word embeddings."""
    return self.embedding_table


def classifier_head(pooled_output, num_labels, is_training,
                    hidden_dropout_prob=HEAD_DROPOUT):
  """The task's own layer over the pooled output.

  Args:
    pooled_output: float [B, D].
    num_labels: int; 1 for a regression.
    is_training: bool; dropout on the input while training.
    hidden_dropout_prob: float, the probability of dropping.

  Returns: float [B, num_labels], logits (scores for a regression).
  """
  hidden_size = get_shape_list(pooled_output, expected_rank=2)[-1]
  weights = _get_variable("output_weights", [num_labels, hidden_size],
                          create_initializer(0.02), HEAD)
  bias = _get_variable("output_bias", [num_labels], tf.zeros_initializer(),
                       HEAD)
  pooled_output = _float32(pooled_output)
  if is_training:
    pooled_output = dropout(pooled_output, hidden_dropout_prob)
  return tf.nn.bias_add(tf.matmul(pooled_output, weights, transpose_b=True),
                        bias)


def gelu(x, bias=None):
  """Gaussian error linear unit, the tanh form (Hendrycks and Gimpel 2016).

  0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): what BERT was trained with.

  Args:
    x: float [..., width].
    bias: None, or float [width], added to x first.
  """
  return _activate(_gelu_tanh, x, bias)


def _gelu_tanh(x):
  """(value, slope)."""
  scale, cubic = math.sqrt(2.0 / math.pi), 0.044715
  tanh = tf.tanh(scale * (x + cubic * x * x * x))
  slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * (
      scale * (1.0 + 3.0 * cubic * x * x))
  return 0.5 * x * (1.0 + tanh), slope


def gelu_erf(x, bias=None):
  """Gaussian error linear unit, the exact form: x times the normal's CDF.

  Args: as gelu's.
  """
  return _activate(_gelu_erf, x, bias)


def _gelu_erf(x):
  """(value, slope)."""
  below = 0.5 * (1.0 + tf.math.erf(x / math.sqrt(2.0)))
  density = tf.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
  return x * below, below + x * density


def _activate(function, x, bias):
  """The activation of x + bias; `function` gives its value and its slope.

  For the gradient, the slope is kept in the place of x: as large, and nothing
  is left to compute but one product.
  """
  def gradient(slope, output_gradient):
    return _and_of_bias(_compiled(_times)(slope, output_gradient), bias)

  return _kernel(_compiled(_activated, function), gradient,
                 [x] if bias is None else [x, bias])


def _activated(function, x, bias=None):
  total = _float32(x) if bias is None else _float32(x) + _float32(bias)
  value, slope = function(total)
  return tf.cast(value, x.dtype), tf.cast(slope, x.dtype)


def _times(a, b):
  return tf.cast(_float32(a) * _float32(b), a.dtype)


def transformer_model(input_tensor,
                      attention_mask=None,
                      hidden_size=768,
                      num_hidden_layers=12,
                      num_attention_heads=12,
                      intermediate_size=3072,
                      intermediate_act_fn=gelu,
                      hidden_dropout_prob=0.1,
                      attention_probs_dropout_prob=0.1,
                      initializer_range=0.02,
                      do_return_all_layers=False,
                      adapter_fn=None,
                      share_parameter_across_layers=False,
                      layers_per_group=None,
                      share_adapters=True,
                      adapter_layers=None,
                      tokens=None):
  """A stack of post-LN Transformer layers (Vaswani et al. 2017) with adapters.

  Two halves a layer, attention and feed-forward, and each ends in
  LayerNorm(input + adapter(dropout(projection))) (Houlsby et al., figure 2).

  Layers share variables by running in the same variable scope, which is opened
  with tf.AUTO_REUSE:
    not shared               layer i in scope `layer_<i>`
    shared, no group size    every layer in scope `layer_shared`
    shared, groups of n      layer i in scope `layer_<i // n>`; the number of
                             layers need not be a multiple of n

  Args:
    input_tensor: float [B, S, D].
    attention_mask: see `attention_layer`.
    hidden_size: int, D.
    num_hidden_layers: int.
    num_attention_heads: int, N.
    intermediate_size: int, the width of the feed-forward half.
    intermediate_act_fn: its activation, of one tensor; None: linear.
    hidden_dropout_prob: float, after each projection.
    attention_probs_dropout_prob: float, on the attention's probabilities.
    initializer_range: float, standard deviation of the initial kernels.
    do_return_all_layers: bool.
    adapter_fn: what `get_adapter` takes. It is called with float [rows, D]
      twice a layer and returns the same shape, each row made from that row
      alone: which rows there are (B * S, or those of `tokens`) and their order
      is not its business. Each variable it creates goes into the collection
      "adapters".
    share_parameter_across_layers, layers_per_group: see above.
    share_adapters: bool; False gives each layer adapters of its own over shared
      layers, in the scopes `adapters_<i>`. Without sharing it changes nothing.
    adapter_layers: the indices of the layers that get adapters; None: all.
    tokens: TokenRows, to work on them alone; None: on every position. The
      attention_mask must hide what they leave out.

  Returns: float [B, S, D], or a list with one for each layer.

  Raises: ValueError if D is not `hidden_size` or no multiple of N, or for
    sharing or adapter arguments that do not fit.
  """
  if hidden_size % num_attention_heads:
    raise ValueError("hidden_size (%d) is not a multiple of num_attention_heads "
                     "(%d)" % (hidden_size, num_attention_heads))
  input_shape = get_shape_list(input_tensor, expected_rank=3)  # B, S, D
  if input_shape[2] != hidden_size:
    raise ValueError("the input is %s wide and hidden_size is %d; the residual "
                     "sum needs them equal" % (input_shape[2], hidden_size))
  _check_sharing(share_parameter_across_layers, layers_per_group)
  adapter_fn = get_adapter(adapter_fn)
  with_adapter = _layers_with_adapter(adapter_layers, num_hidden_layers)
  own_adapters = share_parameter_across_layers and not share_adapters

  # The layers work on [B * S, D]: a reshape at the ends costs less than one at
  # every matrix product.
  layer_output = reshape_to_matrix(input_tensor)
  if tokens is not None:
    layer_output = tokens.pack(layer_output)
  outputs = []
  for layer in range(num_hidden_layers):
    scope = _layer_scope(layer, share_parameter_across_layers, layers_per_group)
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
      layer_output = _transformer_layer(
          layer_output,
          attention_mask,
          shape=input_shape,
          num_attention_heads=num_attention_heads,
          intermediate_size=intermediate_size,
          intermediate_act_fn=intermediate_act_fn,
          hidden_dropout_prob=hidden_dropout_prob,
          attention_probs_dropout_prob=attention_probs_dropout_prob,
          initializer_range=initializer_range,
          adapter_fn=adapter_fn if layer in with_adapter else None,
          adapter_suffix="_%d" % layer if own_adapters else "",
          tokens=tokens)
    outputs.append(layer_output if tokens is None else
                   tokens.unpack(layer_output))

  if do_return_all_layers:
    return [reshape_from_matrix(output, input_shape) for output in outputs]
  return reshape_from_matrix(outputs[-1], input_shape)


def _layer_scope(layer, share_parameter_across_layers, layers_per_group):
  """The name of the variable scope that layer number `layer` runs in."""
  if not share_parameter_across_layers:
    return "layer_%d" % layer
  if layers_per_group is None:
    return "layer_shared"
  return "layer_%d" % (layer // layers_per_group)


def _layers_with_adapter(adapter_layers, num_hidden_layers):
  """The set of the layers that get adapters."""
  if adapter_layers is None:
    return set(range(num_hidden_layers))
  outside = [i for i in adapter_layers if not 0 <= i < num_hidden_layers]
  if outside:
    raise ValueError("adapter_layers names layer %s; the model has layers 0 to "
                     "%d" % (outside[0], num_hidden_layers - 1))
  return set(adapter_layers)


def _transformer_layer(layer_input, attention_mask, shape, num_attention_heads,
                       intermediate_size, intermediate_act_fn,
                       hidden_dropout_prob, attention_probs_dropout_prob,
                       initializer_range, adapter_fn, adapter_suffix, tokens):
  """One layer: [rows, D] -> [rows, D]. `shape` is [B, S, D]."""
  batch_size, seq_length, hidden_size = shape

  def project(tensor, residual):
    """LN(residual + adapter(dropout(dense(tensor)))), in the scope `output`."""
    tensor, bias = _product(tensor, hidden_size, initializer_range, "dense")
    tensor = dropout(tensor, hidden_dropout_prob, bias)
    if adapter_fn is not None:
      tensor = _call_adapter(adapter_fn, tensor, adapter_suffix)
    return layer_norm(tensor, residual=residual)

  with tf.variable_scope("attention"):
    with tf.variable_scope("self"):
      heads = attention_layer(
          from_tensor=layer_input,
          to_tensor=layer_input,
          attention_mask=attention_mask,
          num_attention_heads=num_attention_heads,
          size_per_head=hidden_size // num_attention_heads,
          attention_probs_dropout_prob=attention_probs_dropout_prob,
          initializer_range=initializer_range,
          do_return_2d_tensor=True,
          batch_size=batch_size,
          from_seq_length=seq_length,
          to_seq_length=seq_length,
          tokens=tokens)
    with tf.variable_scope("output"):
      attention_output = project(heads, layer_input)

  with tf.variable_scope("intermediate"):
    intermediate = dense(attention_output, intermediate_size,
                         activation=intermediate_act_fn,
                         initializer_range=initializer_range)
  with tf.variable_scope("output"):
    return project(intermediate, attention_output)


def _call_adapter(adapter_fn, tensor, suffix):
  """Runs `adapter_fn`; whatever variables it makes are adapter variables.

  Args:
    adapter_fn: a function of one tensor.
    tensor: float [B * S, D].
    suffix: "", or what tells this layer's adapters from those of the layers
      that share its scope: the variables' scope becomes `adapters<suffix>`.

  Returns: float [B * S, D].
  """
  # Renaming in a getter, not by opening a scope here: an adapter opens the
  # scope `adapters` itself, and one that opens none is put into it.
  outer = tf.get_variable_scope().name + "/"

  def get_adapter_variable(getter, name, **kwargs):
    if name.startswith(outer):
      inner = name[len(outer):]
      if suffix:
        if inner.startswith(ADAPTERS + "/"):
          inner = inner[len(ADAPTERS) + 1:]
        name = "%s%s%s/%s" % (outer, ADAPTERS, suffix, inner)
      elif inner.split("/")[0] in ("dense", "LayerNorm"):
        # The scope is open with AUTO_REUSE: the layer and the adapter would
        # silently work on one and the same variable.
        raise ValueError("adapter_fn asks for %s, which is the layer's own; "
                         "open a variable scope in it, such as \"adapters\"" %
                         name)
    return getter(name, **kwargs)

  _local.frozen = False  # Whatever it makes is trained.
  before = set(v.name for v in tf.global_variables())
  # No name scope: a tf.Variable's name would hold this scope's twice.
  with tf.variable_scope(tf.get_variable_scope(), auxiliary_name_scope=False,
                         custom_getter=get_adapter_variable):
    output = adapter_fn(tensor)
  known = set(v.name for v in tf.get_collection(ADAPTERS))
  for variable in tf.global_variables():
    if variable.name not in before and variable.name not in known:
      tf.add_to_collection(ADAPTERS, variable)
  return output


def attention_layer(from_tensor,
                    to_tensor,
                    attention_mask=None,
                    num_attention_heads=1,
                    size_per_head=512,
                    query_act=None,
                    key_act=None,
                    value_act=None,
                    attention_probs_dropout_prob=0.0,
                    initializer_range=0.02,
                    do_return_2d_tensor=False,
                    batch_size=None,
                    from_seq_length=None,
                    to_seq_length=None,
                    tokens=None):
  """Multi-headed scaled dot-product attention (Vaswani et al. 2017, 3.2).

  Args:
    from_tensor: float [B, F, width], or [B * F, width] with the sizes below.
    to_tensor: float [B, T, width], or [B * T, width]; the rank of from_tensor.
    attention_mask: int32 or float [B, F, T], or [B, 1, T] if it is the same
      for every F; 1 where a position may look and 0 where it may not; None:
      everywhere.
    num_attention_heads: int, N.
    size_per_head: int, H.
    query_act, key_act, value_act: activations of the three projections.
    attention_probs_dropout_prob: float, the probability of dropping.
    initializer_range: float, standard deviation of the initial kernels.
    do_return_2d_tensor: bool.
    batch_size, from_seq_length, to_seq_length: B, F and T as ints or scalar
      tensors, needed when the inputs are matrices.
    tokens: TokenRows; the inputs and the output are then matrices of its rows,
      and attention_mask must hide what it leaves out.

  Returns: float [B, F, N * H], or [B * F, N * H] with do_return_2d_tensor.

  Raises: ValueError if the ranks differ, the sizes of matrices are missing, or
    there are `tokens` and no matrices, or no mask.
  """
  from_shape = get_shape_list(from_tensor, expected_rank=[2, 3])
  to_shape = get_shape_list(to_tensor, expected_rank=[2, 3])
  if len(from_shape) != len(to_shape):
    raise ValueError("from_tensor has rank %d and to_tensor rank %d; they must "
                     "be equal" % (len(from_shape), len(to_shape)))
  if len(from_shape) == 3:
    batch_size, from_seq_length = from_shape[:2]
    to_seq_length = to_shape[1]
  elif batch_size is None or from_seq_length is None or to_seq_length is None:
    raise ValueError("attention over matrices needs batch_size, "
                     "from_seq_length and to_seq_length")
  if tokens is not None and (len(from_shape) == 3 or attention_mask is None):
    raise ValueError("attention over tokens alone needs matrices of their rows, "
                     "and an attention_mask")
  from_tensor = reshape_to_matrix(from_tensor)  # [B * F, width]
  to_tensor = reshape_to_matrix(to_tensor)      # [B * T, width]
  width = num_attention_heads * size_per_head

  def heads_of(tensor, seq_length, activation, name):
    """[B * seq, width] -> [B, N, seq, H]."""
    tensor, bias = _product(tensor, width, initializer_range, name)
    if activation is not None:
      tensor, bias = _activate_product(activation, tensor, bias), None
    if tokens is not None:
      tensor = tokens.unpack(tensor)
    return _split_heads(tensor, bias, [batch_size, seq_length,
                                       num_attention_heads, size_per_head])

  query = heads_of(from_tensor, from_seq_length, query_act, "query")
  key = heads_of(to_tensor, to_seq_length, key_act, "key")
  value = heads_of(to_tensor, to_seq_length, value_act, "value")

  scores = _matmul(query, key, transpose_b=True)         # [B, N, F, T]
  probabilities = _attention_probabilities(
      scores, attention_mask, 1.0 / math.sqrt(size_per_head),
      attention_probs_dropout_prob)

  context = _matmul(probabilities, value)                # [B, N, F, H]
  context = tf.transpose(context, [0, 2, 1, 3])          # [B, F, N, H]
  if tokens is not None:
    return tokens.pack(tf.reshape(context, [-1, width]))
  if do_return_2d_tensor:
    return tf.reshape(context, [batch_size * from_seq_length, width])
  return tf.reshape(context, [batch_size, from_seq_length, width])


def _attention_probabilities(scores, attention_mask, scale, dropout_prob):
  """softmax(scale * scores), masked and dropped: float [B, N, F, T].

  Args:
    scores: float [B, N, F, T].
    attention_mask: int32 or float [B, F or 1, T], or None.
    scale: float.
    dropout_prob: float.
  """
  # Whole numbers have no gradient, so that none is computed for the mask.
  if attention_mask is None:
    mask = tf.ones([1, 1, 1, 1], tf.int32)
  else:
    mask = tf.cast(tf.expand_dims(attention_mask, 1), tf.int32)  # [B, 1, ., T]
  key = _dropout_key() if dropout_prob else None
  inputs = [scores, mask] + ([] if key is None else [key])

  def gradient(probabilities, output_gradient):
    found = _compiled(_masked_softmax_gradient, scale, dropout_prob)(
        probabilities, output_gradient, *inputs[2:])
    return [found] + [None] * len(inputs[1:])

  output = _kernel(_compiled(_masked_softmax, scale, dropout_prob), gradient,
                   inputs)
  return output if key is not None else dropout(output, dropout_prob)


def _masked_softmax(scale, dropout_prob, scores, mask, key=None):
  """(The probabilities with some of them dropped, the probabilities)."""
  blocked = 1.0 - _float32(mask)
  probabilities = tf.nn.softmax(
      _float32(scores) * scale + blocked * MASKED_SCORE)
  kept = probabilities
  if key is not None:
    kept = _dropped(dropout_prob, probabilities, key)
  return tf.cast(kept, scores.dtype), tf.cast(probabilities, scores.dtype)


def _masked_softmax_gradient(scale, dropout_prob, probabilities,
                             output_gradient, key=None):
  p, gradient = _float32(probabilities), _float32(output_gradient)
  if key is not None:
    gradient = _dropped(dropout_prob, gradient, key)
  mean = tf.reduce_sum(p * gradient, axis=-1, keepdims=True)
  return tf.cast(scale * p * (gradient - mean), probabilities.dtype)


def _split_heads(tensor, bias, shape):
  """tensor + bias, [B * seq, N * H] -> [B, N, seq, H].

  Args:
    tensor: float [B * seq, N * H].
    bias: float [N * H] or None.
    shape: [B, seq, N, H].
  """
  tensor = tf.reshape(tensor, shape)
  if bias is None:
    return tf.transpose(tensor, [0, 2, 1, 3])
  bias = tf.reshape(bias, shape[2:])

  def gradient(output_gradient):
    return _and_of_bias(tf.transpose(output_gradient, [0, 2, 1, 3]), bias)

  return _kernel(_compiled(_biased_heads), gradient, [tensor, bias])


def _biased_heads(tensor, bias):
  total = tf.cast(_float32(tensor) + _float32(bias), tensor.dtype)
  return (tf.transpose(total, [0, 2, 1, 3]),)


def feedforward_adapter(input_tensor, hidden_size=64, init_scale=1e-3):
  """The bottleneck adapter of Houlsby et al., section 2.1.

  x + (gelu(x W1 + b1) W2 + b2). The weights start near zero, so that the whole
  starts near the identity, and a frozen BERT near itself.

  Args:
    input_tensor: float [rows, D].
    hidden_size: int, m, the size of the bottleneck.
    init_scale: float, the standard deviation of the initial weights. (The paper
      says 1e-2, the released code uses 1e-3; figure 6 shows both work.)

  Returns: float [rows, D].
  """
  width = get_shape_list(input_tensor, expected_rank=2)[-1]
  initializer = create_initializer(init_scale)
  zeros = tf.zeros_initializer()
  with tf.variable_scope("adapters"):
    weights1 = _get_variable("weights1", [width, hidden_size], initializer,
                             ADAPTERS)
    biases1 = _get_variable("biases1", [1, hidden_size], zeros, ADAPTERS)
    weights2 = _get_variable("weights2", [hidden_size, width], initializer,
                             ADAPTERS)
    biases2 = _get_variable("biases2", [1, width], zeros, ADAPTERS)
    bottleneck = gelu(_matmul(input_tensor, weights1), biases1)  # [rows, m]
    return _add_with_bias(input_tensor, _matmul(bottleneck, weights2), biases2)


def _add_with_bias(a, b, bias):
  """a + b + bias, in one kernel."""
  def gradient(output_gradient):
    return [output_gradient] + _and_of_bias(output_gradient, bias)

  return _kernel(_compiled(_added_with_bias), gradient, [a, b, bias])


def _added_with_bias(a, b, bias):
  return (tf.cast(_float32(a) + _float32(b) + _float32(bias), a.dtype),)


ADAPTER_FNS = {"feedforward_adapter": feedforward_adapter}


def get_adapter(function_or_name):
  """The adapter of that name; a callable, or None, is returned as it is.

  Raises: ValueError naming the value and what is known.
  """
  return _look_up(function_or_name, ADAPTER_FNS, "adapter")


ACTIVATIONS = {
    "linear": None,
    "relu": tf.nn.relu,
    "gelu": gelu,
    "gelu_erf": gelu_erf,
    "tanh": tf.tanh,
}


def get_activation(function_or_name):
  """The activation of that name; None is the linear one.

  Raises: ValueError naming the value and what is known.
  """
  return _look_up(function_or_name, ACTIVATIONS, "activation")


def _look_up(function_or_name, table, kind):
  if function_or_name is None or function_or_name == "":
    return None
  if callable(function_or_name):
    return function_or_name
  name = function_or_name
  if not isinstance(name, six.string_types) or name.lower() not in table:
    raise ValueError("unknown %s %r; known are %s, or a callable" %
                     (kind, name, ", ".join(sorted(table))))
  return table[name.lower()]


class TokenRows(object):
  """Which positions of a batch are tokens: the rows of a shorter matrix.

  The matrix has some rows more than there are tokens, so that there are few
  different sizes and at least one row that is no token's, if there is padding.

  Args:
    input_mask: int32 [B, S], 1 for a token and 0 for padding.
  """

  def __init__(self, input_mask):
    is_token = tf.reshape(input_mask, [-1]) > 0
    size, count = tf.size(is_token), tf.reduce_sum(tf.cast(is_token, tf.int32))
    # A sixteenth of the power of two below, so few of the rows are surplus.
    power = tf.floor(tf.math.log(tf.cast(count, tf.float32)) / math.log(2.0))
    multiple = tf.maximum(tf.cast(tf.pow(2.0, power - 4.0), tf.int32), 16)
    rows = tf.minimum((count // multiple + 1) * multiple, size)
    self._surplus = [0, rows - count]
    # [count], the position of each token.
    self._positions = tf.cast(tf.where(is_token)[:, 0], tf.int32)
    # [B * S], the row of each position; padding has the last one.
    self._rows = tf.where(is_token, tf.cumsum(tf.cast(is_token, tf.int32)) - 1,
                          tf.fill([size], rows - 1))

  # Gradients gather rows as well, where tf.gather's own would sum scattered
  # ones. What makes that right: no gradient comes from padding, so `unpack`
  # gives 0 to surplus rows, what lies between works row by row and keeps the 0,
  # and `pack` hands the last row's, which is surplus, to padding.

  def pack(self, tensor):
    """[B * S, width] -> [rows, width]; a surplus row is a copy of the first."""
    positions = tf.pad(self._positions, [self._surplus])

    @tf.custom_gradient
    def gather(tensor):
      return (tf.gather(tensor, positions),
              lambda upstream: tf.gather(upstream, self._rows))

    return gather(tensor)

  def unpack(self, tensor):
    """[rows, width] -> [B * S, width]; padding gets the last row."""

    @tf.custom_gradient
    def gather(tensor):
      return (tf.gather(tensor, self._rows),
              lambda upstream: tf.pad(tf.gather(upstream, self._positions),
                                      [self._surplus, [0, 0]]))

    return gather(tensor)


def embedding_lookup(input_ids,
                     vocab_size,
                     embedding_size=128,
                     initializer_range=0.02,
                     word_embedding_name="word_embeddings",
                     use_one_hot_embeddings=False):
  """Looks words up in a table of its own.

  Args:
    input_ids: int32 [B, S], or [B, S, inputs] for several ids at a position,
      whose vectors are concatenated.
    vocab_size: int, V.
    embedding_size: int, E.
    initializer_range: float, standard deviation of the initial table.
    word_embedding_name: str, the table's name.
    use_one_hot_embeddings: bool; a matrix product in place of a gather.

  Returns: (float [B, S, inputs * E], the table, float [V, E]).
  """
  if input_ids.shape.ndims == 2:
    input_ids = tf.expand_dims(input_ids, -1)
  table = _get_variable(word_embedding_name, [vocab_size, embedding_size],
                        create_initializer(initializer_range))
  shape = get_shape_list(input_ids)
  flat = tf.reshape(input_ids, [-1])
  if use_one_hot_embeddings:
    output = tf.matmul(tf.one_hot(flat, vocab_size,
                                  dtype=table.dtype.base_dtype), table)
  else:
    output = tf.gather(table, flat)
  output = _computed(output)
  return tf.reshape(output, shape[:-1] + [shape[-1] * embedding_size]), table


def embedding_postprocessor(input_tensor,
                            use_token_type=False,
                            token_type_ids=None,
                            token_type_vocab_size=16,
                            token_type_embedding_name="token_type_embeddings",
                            use_position_embeddings=True,
                            position_embedding_name="position_embeddings",
                            initializer_range=0.02,
                            max_position_embeddings=512,
                            dropout_prob=0.1):
  """Adds token type and position embeddings, normalises, drops.

  Args:
    input_tensor: float [B, S, D].
    use_token_type: bool; needs token_type_ids.
    token_type_ids: int32 [B, S].
    token_type_vocab_size: int, the number of token types.
    token_type_embedding_name: str.
    use_position_embeddings: bool; learned positions, counted from 0.
    position_embedding_name: str.
    initializer_range: float, standard deviation of the initial tables.
    max_position_embeddings: int, the longest sequence.
    dropout_prob: float, the probability of dropping.

  Returns: float [B, S, D].

  Raises: ValueError if token_type_ids are missing or S is too long. An S that
    is only known at run time is checked then (tf.errors.InvalidArgumentError).
  """
  _, seq_length, width = get_shape_list(input_tensor, expected_rank=3)
  output = input_tensor
  if use_token_type:
    if token_type_ids is None:
      raise ValueError("use_token_type needs token_type_ids")
    table = _get_variable(token_type_embedding_name,
                          [token_type_vocab_size, width],
                          create_initializer(initializer_range))
    # A product with one-hot rows: the table is tiny, and faster so than by a
    # gather.
    one_hot = tf.one_hot(tf.reshape(token_type_ids, [-1]),
                         token_type_vocab_size, dtype=table.dtype.base_dtype)
    output += _computed(tf.reshape(tf.matmul(one_hot, table),
                                   tf.shape(output)))
  if use_position_embeddings:
    table = _get_variable(position_embedding_name,
                          [max_position_embeddings, width],
                          create_initializer(initializer_range))
    too_long = ("the sequence is longer than max_position_embeddings (%d)" %
                max_position_embeddings)
    if isinstance(seq_length, six.integer_types):
      if seq_length > max_position_embeddings:
        raise ValueError("%s: %d positions" % (too_long, seq_length))
      checks = []
    else:
      checks = [tf.debugging.assert_less_equal(
          seq_length, max_position_embeddings, message=too_long)]
    with tf.control_dependencies(checks):
      positions = tf.slice(table, [0, 0], [seq_length, width])  # [S, D]
    output += _computed(tf.expand_dims(positions, 0))
  return layer_norm_and_dropout(output, dropout_prob)


def create_attention_mask_from_input_mask(from_tensor, to_mask):
  """Every position may look at each position that is a token.

  Args:
    from_tensor: [B, F] or [B, F, width]; only its shape is used.
    to_mask: int32 [B, T], 1 for a token and 0 for padding.

  Returns: float32 [B, F, T].
  """
  batch_size, from_seq_length = get_shape_list(
      from_tensor, expected_rank=[2, 3])[:2]
  to_seq_length = get_shape_list(to_mask, expected_rank=2)[1]
  mask = tf.cast(tf.expand_dims(to_mask, 1), tf.float32)  # [B, 1, T]
  return tf.broadcast_to(mask, [batch_size, from_seq_length, to_seq_length])


def dense(input_tensor, units, activation=None, initializer_range=0.02,
          name="dense"):
  """A fully connected layer, variables `kernel` [in, units] and `bias` [units].

  Args:
    input_tensor: float [rows, in].
    units: int.
    activation: a function of one tensor, or None.
    initializer_range: float, standard deviation of the initial kernel.
    name: str, the variable scope.

  Returns: float [rows, units].
  """
  return _activate_product(activation, *_product(
      input_tensor, units, initializer_range, name))


def _product(input_tensor, units, initializer_range, name):
  """A `dense` layer's (product with the kernel, bias), not yet added."""
  width = get_shape_list(input_tensor, expected_rank=2)[-1]
  with tf.variable_scope(name):
    kernel = _get_variable("kernel", [width, units],
                           create_initializer(initializer_range))
    bias = _get_variable("bias", [units], tf.zeros_initializer())
    return _matmul(input_tensor, kernel), bias


def _activate_product(activation, product, bias):
  """activation(product + bias), or the sum if the activation is None."""
  if activation in (gelu, gelu_erf):
    return activation(product, bias)
  output = tf.nn.bias_add(product, _computed(bias))
  return output if activation is None else activation(output)


def layer_norm(input_tensor, name=None, residual=None):
  """Normalises the last axis (Ba et al. 2016), then scales and shifts it.

  Its variables, `beta` and `gamma` in the scope `name` ("LayerNorm"), go into
  the collection "layer_norm".

  Args:
    input_tensor: float [..., width].
    name: str or None, the variable scope.
    residual: None, or a tensor of the same shape that is added first.
  """
  width = get_shape_list(input_tensor)[-1]
  with tf.variable_scope(name or "LayerNorm"):
    beta = _get_variable("beta", [width], tf.zeros_initializer(), LAYER_NORM)
    # A tensor: tf.function takes one variable of a distribution strategy for
    # another, and would give each gradient the gamma of the first.
    gamma = tf.convert_to_tensor(_get_variable(
        "gamma", [width], tf.ones_initializer(), LAYER_NORM))

    def gradient(normal, scale, output_gradient):
      of_input = _compiled(_normalized_gradient)(normal, scale, gamma,
                                                 output_gradient)
      # A kernel of its own, which does not run where the two are frozen.
      of_beta, of_gamma = _compiled(_scale_gradients)(normal, output_gradient)
      return [of_input, tf.cast(of_beta, beta.dtype.base_dtype),
              tf.cast(of_gamma, gamma.dtype.base_dtype)] + (
                  [] if residual is None else [of_input])

    return _kernel(
        _compiled(_normalized), gradient,
        [input_tensor, beta, gamma] + ([] if residual is None else [residual]))


def _normalized(x, beta, gamma, residual=None):
  """(The output, and for the gradient: the input normalised, its 1 / sigma)."""
  total = _float32(x) if residual is None else _float32(x) + _float32(residual)
  mean, variance = tf.nn.moments(total, axes=[-1], keepdims=True)
  scale = tf.math.rsqrt(variance + LAYER_NORM_EPSILON)
  normal = (total - mean) * scale
  output = normal * _float32(gamma) + _float32(beta)
  return tf.cast(output, x.dtype), tf.cast(normal, x.dtype), scale


def _normalized_gradient(normal, scale, gamma, output_gradient):
  x, upstream = _float32(normal), _float32(output_gradient) * _float32(gamma)
  mean = functools.partial(tf.reduce_mean, axis=-1, keepdims=True)
  return tf.cast(scale * (upstream - mean(upstream) - x * mean(upstream * x)),
                 normal.dtype)


def _scale_gradients(normal, output_gradient):
  """(of beta, of gamma), each [width]."""
  gradient = _float32(output_gradient)
  axes = list(range(normal.shape.ndims - 1))
  return (tf.reduce_sum(gradient, axes),
          tf.reduce_sum(gradient * _float32(normal), axes))


def layer_norm_and_dropout(input_tensor, dropout_prob, name=None):
  """`layer_norm`, then `dropout`."""
  return dropout(layer_norm(input_tensor, name), dropout_prob)


# What a model is being built with. A thread's own and not the graph's: the
# replicas of a distribution strategy are built in threads.
_local = threading.local()


@contextlib.contextmanager
def stateless_dropout(seed, step, replica=0):
  """Inside, each `dropout` draws its mask from (seed, step, place) alone.

  The place is the number of the dropout within the context, so a model that is
  built the same way gets the same masks: a run that stops and goes on from its
  checkpoint draws what the undisturbed run would have drawn.

  Args:
    seed: int, from 0 to 2^31 - 1.
    step: int64 scalar tensor.
    replica: int or int32 scalar tensor, the number of the replica.
  """
  previous = getattr(_local, "dropout", None)
  _local.dropout = {"seed": seed, "place": 0,
                     "step": tf.cast(step, tf.int64) * 1024 +
                             tf.cast(replica, tf.int64)}
  try:
    yield
  finally:
    _local.dropout = previous


def dropout(input_tensor, dropout_prob, bias=None):
  """Zeroes elements at random and scales the others to keep the mean.

  Args:
    input_tensor: a float tensor.
    dropout_prob: float, the probability of dropping an element; None or 0 is
      the identity.
    bias: None, or float [width], added to the tensor first.

  Returns: a tensor of the same shape.
  """
  key = _dropout_key() if dropout_prob else None
  if key is None:
    if bias is not None:
      input_tensor = tf.nn.bias_add(input_tensor, _computed(bias))
    return (tf.nn.dropout(input_tensor, rate=dropout_prob) if dropout_prob else
            input_tensor)
  forward = _compiled(_biased_and_dropped, dropout_prob)

  def gradient(output_gradient):
    of_input, *of_bias = _and_of_bias(forward(output_gradient, key)[0], bias)
    return [of_input, None] + of_bias

  return _kernel(forward, gradient,
                 [input_tensor, key] + ([] if bias is None else [bias]))


def _biased_and_dropped(dropout_prob, x, key, bias=None):
  total = _float32(x) if bias is None else _float32(x) + _float32(bias)
  return (tf.cast(_dropped(dropout_prob, total, key), x.dtype),)


def _dropout_key():
  """The next place's random key, uint32 [2]; None outside of the context."""
  stream = getattr(_local, "dropout", None)
  if stream is None:
    return None
  place = (stream["seed"] << 32) + stream["place"]
  stream["place"] += 1
  return tf.random.stateless_uniform(
      [2], minval=None, maxval=None, dtype=tf.uint32,
      seed=tf.stack([tf.constant(place, tf.int64), stream["step"]]))


def _dropped(dropout_prob, x, key):
  """x where a hash of the element's number and the key says keep, scaled.

  A random generator's numbers would cost more than the model's own operations,
  and would have to be kept, or drawn again, for the gradient. The hash is
  Wellons' lowbias32 (github.com/skeeto/hash-prospector) with half of the key
  added before and the other half mixed in between. Its upper 31 bits decide,
  so the rate is the nearest multiple of 2^-31.
  """
  number = lambda value: tf.constant(value, tf.uint32)
  shifted = lambda bits, by: tf.bitwise.right_shift(bits, number(by))
  xor = tf.bitwise.bitwise_xor
  index = tf.cast(tf.range(tf.size(x)), tf.uint32)
  bits = index * number(0x9e3779b9) + key[0]
  bits = xor(bits, shifted(bits, 16)) * number(0x21f0aaad)
  bits = xor(bits, key[1])
  bits = xor(bits, shifted(bits, 15)) * number(0xd35a2d97)
  bits = xor(bits, shifted(bits, 15))
  threshold = min(int(round(dropout_prob * 2**31)), 2**31 - 1)
  # int32, because some devices do not compare uint32.
  keep = tf.reshape(tf.cast(shifted(bits, 1), tf.int32) >= threshold,
                    tf.shape(x))
  return tf.where(keep, x * (1.0 / (1.0 - threshold / 2.0**31)),
                  tf.zeros_like(x))


@contextlib.contextmanager
def compiled_chains(enabled=True):
  """Inside, the element-wise chains of a model that is built are compiled.

  Activations, dropout, the residual sum with LayerNorm, and the softmax of the
  attention become one XLA kernel each, with the bias that comes before, and
  another for the gradient, which finds what it needs kept and no more. A step
  is faster so; each new shape of a batch costs a compilation of some tenths of
  a second. The numbers differ by float rounding only.
  """
  previous = getattr(_local, "compiled", False)
  _local.compiled = enabled
  try:
    yield
  finally:
    _local.compiled = previous


def _kernel(forward, gradient, inputs):
  """The output of a chain of element-wise operations.

  The chains compute in float32 and hand on the type of their first input.

  Args:
    forward: a `_compiled` function of the inputs; returns a tuple, the output
      and what the gradient needs.
    gradient: a function of what forward returned behind the output and of the
      output's gradient; returns a list with the gradient of each input, or
      None for one that has none.
    inputs: list of tensors or variables.
  """
  if not getattr(_local, "compiled", False):
    return forward.python_function(*inputs)[0]
  if getattr(_local, "frozen", False):
    return _output_alone(forward)(*map(tf.convert_to_tensor, inputs))

  @tf.custom_gradient
  def kernel(*tensors):
    output, *kept = forward(*tensors)
    return output, lambda upstream: gradient(*kept, upstream)

  return kernel(*inputs)


@functools.lru_cache(maxsize=None)
def _compiled(function, *constants):
  """`function(*constants, ...)` of tensors, as one XLA kernel.

  One object for equal arguments, so that all layers share one compilation.
  """
  return tf.function(functools.partial(function, *constants), autograph=False,
                     jit_compile=True)


@functools.lru_cache(maxsize=None)
def _output_alone(forward):
  """A `_compiled` function without what only its gradient needs."""
  return _compiled(lambda *inputs: forward.python_function(*inputs)[0])


def _and_of_bias(gradient, bias):
  """A list: the gradient of a sum, and that of the bias in it if there is one.

  An op of its own, which does not run where the bias is frozen.
  """
  if bias is None:
    return [gradient]
  of_bias = tf.raw_ops.BiasAddGrad(
      out_backprop=tf.reshape(gradient, [-1, bias.shape.num_elements()]))
  return [gradient, tf.cast(tf.reshape(of_bias, bias.shape),
                            bias.dtype.base_dtype)]


def _float32(tensor):
  """The tensor as float32; a float64 one stays what it is."""
  if tensor.dtype.base_dtype == tf.float64:
    return tensor
  return tf.cast(tensor, tf.float32)


def create_initializer(initializer_range=0.02):
  """Truncated normal, at two standard deviations, of that deviation."""
  return tf.truncated_normal_initializer(stddev=initializer_range)


def _get_variable(name, shape, initializer, collection=None):
  """A variable, in `collection` as well if one is given.

  float32; a frozen one is of the type that `precision` says.
  """
  in_collections = [collection] if collection else []
  dtype = tf.float32
  computed = getattr(_local, "precision", None)
  if computed:
    full_name = "%s/%s" % (tf.get_variable_scope().name, name)
    if computed.tuning.trains(full_name, in_collections):
      _local.frozen = False
    else:
      dtype = computed.dtype
  return tf.get_variable(
      name, shape, dtype, initializer,
      collections=[tf.GraphKeys.GLOBAL_VARIABLES] + in_collections)


_Precision = collections.namedtuple("_Precision", ("dtype", "tuning"))


@contextlib.contextmanager
def precision(dtype, tuning):
  """Inside, a model is built that computes in `dtype`.

  The matrix products, and what flows between the layers, are of that type, and
  so are the variables that are not trained: half the memory with bfloat16, and
  no cast of a frozen weight at any step. What is trained stays float32, and so
  do LayerNorm's statistics, the softmax, the head and the loss.

  Up to the first variable that is trained nothing is kept for a gradient, since
  none gets there.

  Args:
    dtype: tf.float32 or tf.bfloat16.
    tuning: Tuning, which says what is trained.
  """
  previous = getattr(_local, "precision", None), getattr(_local, "frozen", False)
  # A model is built from its inputs upwards.
  _local.precision, _local.frozen = _Precision(dtype, tuning), True
  try:
    yield
  finally:
    _local.precision, _local.frozen = previous


def _computed(tensor):
  """The tensor, or variable, in the type that the model computes in."""
  computed = getattr(_local, "precision", None)
  if computed is None or computed.dtype == tf.float32:
    return tensor
  return tf.cast(tensor, computed.dtype)


def _matmul(a, b, transpose_b=False):
  return tf.matmul(_computed(a), _computed(b), transpose_b=transpose_b)


def get_assignment_map_from_checkpoint(tvars, init_checkpoint):
  """Which of the variables a checkpoint has, by name.

  Args:
    tvars: variables, say tf.trainable_variables().
    init_checkpoint: str, the checkpoint's prefix.

  Returns: (an OrderedDict of name -> name, for tf.train.init_from_checkpoint;
    a dict of every name found, with and without ":0", to 1).
  """
  in_checkpoint = dict(tf.train.list_variables(init_checkpoint))
  assignment_map = collections.OrderedDict()
  initialized = {}
  for variable in tvars:
    name = re.sub(r":\d+$", "", variable.name)
    if name in in_checkpoint:
      assignment_map[name] = name
      initialized[name] = initialized[name + ":0"] = 1
  return assignment_map, initialized


def get_shape_list(tensor, expected_rank=None, name=None):
  """The sizes of a tensor: an int where known, a scalar tensor where not.

  Args:
    tensor: a tensor.
    expected_rank: int or a list of ints, the ranks allowed; None: any.
    name: str, for the message.

  Raises: ValueError for another rank.
  """
  if expected_rank is not None:
    assert_rank(tensor, expected_rank, name)
  static = tensor.shape.as_list()
  if None not in static:
    return static
  dynamic = tf.shape(tensor)
  return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def reshape_to_matrix(input_tensor):
  """[..., width] -> [rows, width]; a matrix is returned as it is.

  Raises: ValueError for a rank below 2.
  """
  rank = input_tensor.shape.ndims
  if rank < 2:
    raise ValueError("a matrix needs at least rank 2; %s has shape %s" %
                     (input_tensor.name, input_tensor.shape))
  if rank == 2:
    return input_tensor
  return tf.reshape(input_tensor, [-1, get_shape_list(input_tensor)[-1]])


def reshape_from_matrix(output_tensor, orig_shape_list):
  """[rows, width] -> orig_shape_list with its last size replaced by width."""
  if len(orig_shape_list) == 2:
    return output_tensor
  width = get_shape_list(output_tensor, expected_rank=2)[-1]
  return tf.reshape(output_tensor, list(orig_shape_list[:-1]) + [width])


def assert_rank(tensor, expected_rank, name=None):
  """Raises ValueError if the tensor's rank is not (one of) expected_rank."""
  allowed = ([expected_rank] if isinstance(expected_rank, six.integer_types)
             else list(expected_rank))
  rank = tensor.shape.ndims
  if rank not in allowed:
    raise ValueError(
        "tensor %s in scope %s has rank %s (shape %s); expected %s" %
        (name or tensor.name, tf.get_variable_scope().name or "(root)", rank,
         tensor.shape, " or ".join(str(r) for r in allowed)))
