"""BERT with adapters.

BERT is Devlin et al. 2018 (arXiv 1810.04805); the adapters are Houlsby et al.,
ICML 2019 (arXiv 1902.00751), "Parameter-Efficient Transfer Learning for NLP";
layers that share their weights and factorised embeddings are ALBERT's (Lan et
al. 2019, arXiv 1909.11942), with the variable names of albert_zh.

    config = BertConfig.from_json_file("bert_config.json")
    model = BertModel(config, is_training=True, input_ids=ids,
                      input_mask=mask, token_type_ids=segments)
    logits = classifier_head(model.get_pooled_output(), num_labels=2,
                             is_training=True)

Everything is built with `tf.get_variable` in a tf.Graph, under
tf.compat.v1.wrap_function or in a replica of a tf.distribute strategy, works
with reference and with resource variables, and changes no global mode. One
object, `ops`, does the arithmetic of a layer; None: PlainOps, at the end.

Letters in the shapes below:
  B batch size            S sequence length       D hidden size
  F positions that look (from_seq)                T positions looked at (to_seq)
  N attention heads       H size of one head, D / N
  V vocabulary            E embedding size        m adapter, P prefix size
`initializer_range` is the standard deviation of initial kernels and tables, and
`..._prob` a probability of dropping.
"""

import collections
import copy
import functools
import json
import math
import re

import six
import tensorflow.compat.v1 as tf

# Graph collections. Each variable in them is in GLOBAL_VARIABLES too, and every
# variable of the model, trained or not, stays in TRAINABLE_VARIABLES: scripts
# map checkpoints over tf.trainable_variables().
ADAPTERS = "adapters"
PREFIXES = "prefixes"
LAYER_NORM = "layer_norm"
HEAD = "head"

LAYER_NORM_EPSILON = 1e-12
# Added to the attention score of a masked position before the softmax: BERT's,
# and one beside which no score counts.
MASKED_SCORE = -10000.0
LOWEST_SCORE = -1e30
HEAD_DROPOUT = 0.1


class BertConfig(object):
  """The sizes of a BERT, as in a `bert_config.json`.

  from_dict and from_json_file keep every other key as an attribute. These mean
  something here:
    embedding_size: E; below hidden_size the word embeddings are factorised.
    share_parameter_across_layers, layers_per_group, share_adapters: see
      `transformer_model`.
    ln_type: only "postln", BERT's own order, is built.

  Raises (from_dict, from_json_file and validate, which BertModel calls):
    ValueError, one line, for a missing key or a value of the wrong type or out
    of range.
  """

  embedding_size = None
  share_parameter_across_layers = False
  layers_per_group = None
  share_adapters = True
  ln_type = "postln"

  def __init__(self, vocab_size, hidden_size=768, num_hidden_layers=12,
               num_attention_heads=12, intermediate_size=3072,
               hidden_act="gelu", hidden_dropout_prob=0.1,
               attention_probs_dropout_prob=0.1, max_position_embeddings=512,
               type_vocab_size=16, initializer_range=0.02):
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
      # A method's name, or one of Python's own.
      if key.startswith("__") or callable(getattr(cls, key, None)):
        raise ValueError("config: %r is not a key of a model" % (key,))
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
    is_number = lambda value: (isinstance(value, (int, float)) and
                               not isinstance(value, bool))
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
      _check_config(key, getattr(self, key),
                    lambda p: p is None or is_number(p) and 0 <= p < 1,
                    "a number from 0 up to, not including, 1")
    _check_config("initializer_range", self.initializer_range,
                  lambda r: is_number(r) and r > 0, "a number above 0")
    if not callable(self.hidden_act):
      get_activation(self.hidden_act)
    if self.hidden_size % self.num_attention_heads:
      raise ValueError(
          "config: hidden_size (%d) is not a multiple of num_attention_heads "
          "(%d)" % (self.hidden_size, self.num_attention_heads))
    for key in ("share_parameter_across_layers", "share_adapters"):
      _check_config(key, getattr(self, key),
                    lambda value: isinstance(value, bool), "true or false")
    _check_sharing(self.share_parameter_across_layers, self.layers_per_group)
    _check_config("embedding_size", self.embedding_size, lambda e: (
        e is None or _is_integer(e) and e <= self.hidden_size),
        "a whole number from 1 to hidden_size (%d)" % self.hidden_size)
    if self.ln_type != "postln":
      raise ValueError(
          "config: ln_type is %r; only \"postln\" is built (the normalisation "
          "after each residual sum, as in BERT)" % (self.ln_type,))


def _is_integer(value):
  return (isinstance(value, six.integer_types) and not isinstance(value, bool)
          and value >= 1)


def _check_config(key, value, is_good, allowed):
  if not is_good(value):
    raise ValueError("config: %s is %r; it must be %s" % (key, value, allowed))


def _check_sharing(share_parameter_across_layers, layers_per_group):
  """Raises ValueError if the two cannot go together."""
  if layers_per_group is None:
    return
  if not _is_integer(layers_per_group):
    raise ValueError("layers_per_group is %r; it must be a whole number >= 1, "
                     "or absent: all share one's" % (layers_per_group,))
  if not share_parameter_across_layers:
    raise ValueError("layers_per_group is %d, but share_parameter_across_layers"
                     " is false; set it to true, or drop layers_per_group" %
                     layers_per_group)


class BertModel(object):
  """BERT's encoder with its pooler.

  Args:
    config: BertConfig; it is copied, never changed.
    is_training: bool; False switches every dropout off.
    input_ids: int32 [B, S].
    input_mask: int32 [B, S], 1 for a token and 0 for padding; None: all 1.
    token_type_ids: int32 [B, S], the segment of each token; None: all 0.
    use_one_hot_embeddings: bool; look words up by a matrix product.
    scope: str, the variable scope; None: "bert", then "bert_1" and so on.
    adapter_fn: what `get_adapter` takes: a name, a callable, or None for a
      plain BERT.
    adapter_layers: the indices of the layers that get adapters; None: all.
    skip_padding: bool; the layers work on the tokens alone. What comes out for
      them is the same; what comes out for padding has no meaning, and no
      gradient comes from it.
    prefix_fn: what `get_prefix` takes; None: no prefix.
    prefix_positions: tokens have the positions P, P + 1, ... as in PEFT
      ("after"), or 0, 1, ... as in AdapterHub ("unshifted").
    adapter_order: see `transformer_model`.

  Raises: ValueError for a config that cannot be built, more positions than it
    has, a name that is unknown, or if called eagerly.
  """

  def __init__(self, config, is_training, input_ids, input_mask=None,
               token_type_ids=None, use_one_hot_embeddings=False, scope=None,
               adapter_fn="feedforward_adapter", adapter_layers=None,
               skip_padding=False, *, prefix_fn=None, prefix_positions="after",
               adapter_order="houlsby", ops=None):
    config = copy.deepcopy(config)
    config.validate()
    ops = ops or PlainOps()
    if prefix_positions not in ("after", "unshifted"):
      raise ValueError("prefix_positions is %r; known are after and unshifted" %
                       (prefix_positions,))
    if not is_training:
      config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0

    batch_size, seq_length = get_shape_list(input_ids, expected_rank=2)
    if input_mask is None:
      input_mask = tf.ones([batch_size, seq_length], tf.int32)
    if token_type_ids is None:
      token_type_ids = tf.zeros([batch_size, seq_length], tf.int32)

    with tf.variable_scope(scope, default_name="bert"):
      prefixes = call_prefix(
          prefix_fn, config.num_hidden_layers, config.num_attention_heads,
          config.hidden_size // config.num_attention_heads, ops=ops)
      shift = prefix_length(prefixes) if prefix_positions == "after" else 0
      with tf.variable_scope("embeddings"):
        self.embedding_output = self._embed(
            config, input_ids, token_type_ids, use_one_hot_embeddings, shift,
            ops)
      with tf.variable_scope("encoder"):
        self.all_encoder_layers = transformer_model(
            self.embedding_output,
            # [B, 1, T]: the same for each position that looks.
            tf.expand_dims(input_mask, 1), config.hidden_size,
            config.num_hidden_layers, config.num_attention_heads,
            config.intermediate_size, get_activation(config.hidden_act),
            config.hidden_dropout_prob, config.attention_probs_dropout_prob,
            config.initializer_range, do_return_all_layers=True,
            adapter_fn=adapter_fn,
            share_parameter_across_layers=config.share_parameter_across_layers,
            layers_per_group=config.layers_per_group,
            share_adapters=config.share_adapters, adapter_layers=adapter_layers,
            tokens=TokenRows(input_mask) if skip_padding else None,
            prefix_fn=prefixes, adapter_order=adapter_order, ops=ops)
      self.sequence_output = self.all_encoder_layers[-1]
      with tf.variable_scope("pooler"):
        self.pooled_output = dense(  # of the first token's, [B, D]
            self.sequence_output[:, 0, :], config.hidden_size, tf.tanh,
            config.initializer_range, ops=ops)

  def _embed(self, config, input_ids, token_type_ids, use_one_hot_embeddings,
             first_position, ops):
    """Word, token type and position embeddings, normalised: [B, S, D]."""
    words, self.embedding_table = embedding_lookup(
        input_ids, config.vocab_size,
        config.embedding_size or config.hidden_size, config.initializer_range,
        use_one_hot_embeddings=use_one_hot_embeddings)
    if config.embedding_size not in (None, config.hidden_size):
      projection = _get_variable(
          "word_embeddings_2", [config.embedding_size, config.hidden_size],
          create_initializer(config.initializer_range))
      words = reshape_from_matrix(  # [B, S, E] -> [B, S, D]
          ops.dense(None, reshape_to_matrix(words), projection, None),
          get_shape_list(words))
    return embedding_postprocessor(
        words, True, token_type_ids, config.type_vocab_size,
        initializer_range=config.initializer_range,
        max_position_embeddings=config.max_position_embeddings,
        dropout_prob=config.hidden_dropout_prob, first_position=first_position,
        ops=ops)

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
                    hidden_dropout_prob=HEAD_DROPOUT, *, ops=None):
  """The task's own layer over the pooled output, float [B, D].

  Returns: float [B, num_labels], logits (the scores of a regression, which has
    one label). Its variables are in the collection "head".
  """
  hidden_size = get_shape_list(pooled_output, expected_rank=2)[-1]
  weights = _get_variable("output_weights", [num_labels, hidden_size],
                          create_initializer(), HEAD)
  bias = _get_variable("output_bias", [num_labels], tf.zeros_initializer(), HEAD)
  pooled_output = at_least_float32(pooled_output)
  if is_training:
    pooled_output = dropout(pooled_output, hidden_dropout_prob, ops=ops)
  return tf.nn.bias_add(tf.matmul(pooled_output, weights, transpose_b=True),
                        bias)


def gelu(x):
  """Gaussian error linear unit (Hendrycks and Gimpel 2016), as BERT's: tanh."""
  tanh = tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x))
  # TensorFlow sums x's gradients by the ops' names: this one's comes first.
  return tf.multiply(x, 0.5, name="half") * (1.0 + tanh)


def gelu_erf(x):
  """Gaussian error linear unit, exactly: x times the normal's CDF."""
  return x * (0.5 * (1.0 + tf.math.erf(x / math.sqrt(2.0))))


def transformer_model(input_tensor, attention_mask=None, hidden_size=768,
                      num_hidden_layers=12, num_attention_heads=12,
                      intermediate_size=3072, intermediate_act_fn=gelu,
                      hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
                      initializer_range=0.02, do_return_all_layers=False,
                      adapter_fn=None, share_parameter_across_layers=False,
                      layers_per_group=None, share_adapters=True,
                      adapter_layers=None, tokens=None, *, prefix_fn=None,
                      adapter_order="houlsby", ops=None):
  """A stack of post-LN Transformer layers (Vaswani et al. 2017) with adapters.

  Two halves a layer, attention and feed-forward, and each ends in
  LayerNorm(input + adapter(dropout(projection))) (Houlsby et al., figure 2). In
  the order of Pfeiffer et al. 2021 (arXiv 2005.00247) the first half has no
  adapter; the second has the same LayerNorm twice: LayerNorm(input + z), where
  z = projection + (adapter(y) - y) and y = LayerNorm(input + projection).

  Layers share variables by running in the same variable scope (AUTO_REUSE):
    not shared               layer i in scope `layer_<i>`
    shared, no group size    every layer in scope `layer_shared`
    shared, groups of n      layer i in scope `layer_<i // n>`; the number of
                             layers need not be a multiple of n

  Args:
    input_tensor: float [B, S, D].
    attention_mask: see `attention_layer`.
    hidden_size, num_hidden_layers, num_attention_heads: ints, D, layers, N.
    intermediate_size: int, the width of the feed-forward half.
    intermediate_act_fn: its activation, of one tensor; None: linear.
    do_return_all_layers: bool.
    adapter_fn: what `get_adapter` takes. It is called with float [rows, D]
      twice a layer and returns the same shape, each row made from that row
      alone: which rows there are and their order is not its business. Each
      variable it creates goes into the collection "adapters".
    share_parameter_across_layers, layers_per_group: see above.
    share_adapters: bool; False gives each layer adapters of its own over shared
      layers, in the scopes `adapters_<i>`. Without sharing it changes nothing.
    adapter_layers: the indices of the layers that get adapters; None: all.
    adapter_order: "houlsby" or "pfeiffer".
    tokens: TokenRows, to work on them alone; None: on every position. The
      attention_mask must hide what they leave out.
    prefix_fn: what `get_prefix` takes, or what `call_prefix` returned. Layers
      that share their weights have a prefix each all the same.
    ops: a named adapter or prefix gets it too; a callable by functools.partial.

  Returns: float [B, S, D], or a list with one for each layer.

  Raises: ValueError for sizes, sharing, adapters or prefixes that do not fit.
  """
  if hidden_size % num_attention_heads:
    raise ValueError("hidden_size (%d) is not a multiple of num_attention_heads"
                     " (%d)" % (hidden_size, num_attention_heads))
  input_shape = get_shape_list(input_tensor, expected_rank=3)  # B, S, D
  if input_shape[2] != hidden_size:
    raise ValueError("the input is %s wide and hidden_size is %d; the residual "
                     "sum needs them equal" % (input_shape[2], hidden_size))
  if adapter_order not in ("houlsby", "pfeiffer"):
    raise ValueError("adapter_order is %r; known are houlsby and pfeiffer" %
                     (adapter_order,))
  _check_sharing(share_parameter_across_layers, layers_per_group)
  ops = ops or PlainOps()
  adapter_fn = _look_up(adapter_fn, ADAPTER_FNS, "adapter", ops)
  if adapter_layers is None:
    adapter_layers = range(num_hidden_layers)
  outside = sorted(set(adapter_layers) - set(range(num_hidden_layers)))
  if outside:
    raise ValueError("adapter_layers names layer %s; the model has layers 0 to "
                     "%d" % (outside[0], num_hidden_layers - 1))
  own_adapters = share_parameter_across_layers and not share_adapters
  prefixes = prefix_fn if isinstance(prefix_fn, list) else call_prefix(
      prefix_fn, num_hidden_layers, num_attention_heads,
      hidden_size // num_attention_heads, ops=ops)

  # [B * S, D]: reshapes at the ends cost less than at every matrix product.
  layer_output = reshape_to_matrix(input_tensor)
  if tokens is not None:
    layer_output = tokens.pack(layer_output)
  outputs = []
  for layer in range(num_hidden_layers):
    scope = layer_scope(layer, share_parameter_across_layers, layers_per_group)
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
      layer_output = _transformer_layer(
          layer_output, attention_mask, input_shape, num_attention_heads,
          intermediate_size, intermediate_act_fn, hidden_dropout_prob,
          attention_probs_dropout_prob, initializer_range,
          adapter_fn=adapter_fn if layer in adapter_layers else None,
          adapter_suffix="_%d" % layer if own_adapters else "",
          adapter_order=adapter_order, tokens=tokens, prefix=prefixes[layer],
          ops=ops)
    outputs.append(layer_output if tokens is None else
                   tokens.unpack(layer_output))

  if do_return_all_layers:
    return [reshape_from_matrix(output, input_shape) for output in outputs]
  return reshape_from_matrix(outputs[-1], input_shape)


def layer_scope(layer, share_parameter_across_layers, layers_per_group):
  """The name of the variable scope that layer number `layer` runs in."""
  if not share_parameter_across_layers:
    return "layer_%d" % layer
  if layers_per_group is None:
    return "layer_shared"
  return "layer_%d" % (layer // layers_per_group)


def _transformer_layer(layer_input, attention_mask, shape, num_attention_heads,
                       intermediate_size, intermediate_act_fn,
                       hidden_dropout_prob, attention_probs_dropout_prob,
                       initializer_range, adapter_fn, adapter_suffix,
                       adapter_order, tokens, prefix, ops):
  """One layer: [rows, D] -> [rows, D]. `shape` is [B, S, D]."""
  batch_size, seq_length, hidden_size = shape
  pfeiffer = adapter_order == "pfeiffer"

  def project(tensor, residual, has_adapter):
    """LN(residual + adapter(dropout(dense(tensor)))), in the scope `output`."""
    tensor, bias = product(tensor, hidden_size, initializer_range, ops=ops)
    tensor = ops.dropout(tensor, hidden_dropout_prob, bias)
    if has_adapter:
      inputs = (layer_norm(tensor, residual=residual, ops=ops) if pfeiffer else
                tensor)
      output = call_adapter(adapter_fn, inputs, adapter_suffix, ops=ops)
      tensor = tensor + (output - inputs) if pfeiffer else output
    return layer_norm(tensor, residual=residual, ops=ops)

  with tf.variable_scope("attention"):
    with tf.variable_scope("self"):
      heads = attention_layer(
          layer_input, layer_input, attention_mask, num_attention_heads,
          hidden_size // num_attention_heads,
          attention_probs_dropout_prob=attention_probs_dropout_prob,
          initializer_range=initializer_range, do_return_2d_tensor=True,
          batch_size=batch_size, from_seq_length=seq_length,
          to_seq_length=seq_length, tokens=tokens, prefix=prefix, ops=ops)
    with tf.variable_scope("output"):
      attention_output = project(heads, layer_input,
                                 adapter_fn is not None and not pfeiffer)

  with tf.variable_scope("intermediate"):
    intermediate = dense(attention_output, intermediate_size,
                         activation=intermediate_act_fn,
                         initializer_range=initializer_range, ops=ops)
  with tf.variable_scope("output"):
    return project(intermediate, attention_output, adapter_fn is not None)


def call_adapter(adapter_fn, tensor, suffix="", *, ops=None):
  """adapter_fn(tensor), [rows, D]; the variables it makes are "adapters".

  `suffix` tells this layer's adapters from those of the layers that share its
  scope: the variables' scope becomes `adapters<suffix>`.
  """
  # An adapter opens the scope `adapters` itself; one that does not gets it.
  outer = tf.get_variable_scope().name + "/"

  def renamed(name):
    inner = name[len(outer):]
    if not name.startswith(outer):
      return name
    if suffix:
      inner = re.sub("^%s/" % ADAPTERS, "", inner)
      return "%s%s%s/%s" % (outer, ADAPTERS, suffix, inner)
    if inner.split("/")[0] in ("dense", "LayerNorm"):
      # With AUTO_REUSE the two would silently work on the same variable.
      raise ValueError("adapter_fn asks for %s, which is the layer's own; open "
                       "a variable scope in it, such as \"adapters\"" % name)
    return name

  return _call_hook(functools.partial(adapter_fn, tensor), ADAPTERS, renamed,
                    ops or PlainOps())


def _call_hook(function, collection, renamed, ops):
  """function(), with what it makes in `collection`, named renamed(name)."""
  def get_variable(getter, name, **kwargs):
    members = set(kwargs.get("collections") or [tf.GraphKeys.GLOBAL_VARIABLES])
    return getter(renamed(name), **dict(
        kwargs, collections=sorted(members | {collection})))

  ops.trained_from_here()  # Whatever it makes.
  before = set(v.name for v in tf.global_variables())
  # No name scope: a tf.Variable's name would hold this scope's twice.
  with tf.variable_scope(tf.get_variable_scope(), auxiliary_name_scope=False,
                         custom_getter=get_variable):
    output = function()
  # A tf.Variable comes by no getter.
  known = set(v.name for v in tf.get_collection(collection))
  for variable in tf.global_variables():
    if variable.name not in before and variable.name not in known:
      tf.add_to_collection(collection, variable)
  return output


# What an attention looks at: two floats [B, N, T, H].
KeysAndValues = collections.namedtuple("KeysAndValues", ["key", "value"])
# Keys and values of up to T positions, of which the first `index` (int32
# scalar tensor) are there already.
Cache = collections.namedtuple("Cache", ["key", "value", "index"])


def attention_layer(from_tensor, to_tensor, attention_mask=None,
                    num_attention_heads=1, size_per_head=512, query_act=None,
                    key_act=None, value_act=None,
                    attention_probs_dropout_prob=0.0, initializer_range=0.02,
                    do_return_2d_tensor=False, batch_size=None,
                    from_seq_length=None, to_seq_length=None, tokens=None, *,
                    prefix=None, causal=False, cache=None, position_bias=None,
                    scale=None, use_bias=True, ops=None):
  """Multi-headed scaled dot-product attention (Vaswani et al. 2017, 3.2).

  Args:
    from_tensor: float [B, F, width], or [B * F, width] with the sizes below.
    to_tensor: float [B, T, width], or [B * T, width]; the rank of from_tensor.
      Or the KeysAndValues that `keys_and_values` made of such a tensor, which
      cross-attention needs to do only once.
    attention_mask: int32 or float [B, F, T], or [B, 1, T] if it is the same
      for every F; 1 where a position may look and 0 where it may not; None:
      everywhere. T are the cache's positions if there is one.
    num_attention_heads, size_per_head: ints, N and H.
    query_act, key_act, value_act: activations of the three projections.
    batch_size, from_seq_length, to_seq_length: B, F and T as ints or scalar
      tensors, needed when the inputs are matrices.
    tokens: TokenRows; the inputs and the output are then matrices of its rows,
      and attention_mask must hide what it leaves out.
    prefix: (key, value), each float [1 or B, N, P, H]; they come first on the
      axis of the keys, and every position sees them, whatever the mask says.
    causal: bool; position i looks at the keys up to i, where the last F of T
      positions look, or those from cache.index on.
    cache: Cache, in which the keys and values of to_tensor are written from
      its index on. What is behind them is not seen.
    position_bias: float [1 or B, N, F, P + T], added to the scaled scores.
    scale: float, of the scores; None: 1 / sqrt(H).
    use_bias: bool; False: the projections have no bias.

  Returns: float [B, F, N * H], or [B * F, N * H] with do_return_2d_tensor. With
    a cache: (that, the Cache that the next positions need).

  Raises: ValueError for ranks that differ, or matrices without the sizes.
  """
  from_shape = get_shape_list(from_tensor, expected_rank=[2, 3])
  is_made = isinstance(to_tensor, KeysAndValues)
  to_shape = (from_shape if is_made else
              get_shape_list(to_tensor, expected_rank=[2, 3]))
  if len(from_shape) != len(to_shape):
    raise ValueError("from_tensor has rank %d and to_tensor rank %d; they must "
                     "be equal" % (len(from_shape), len(to_shape)))
  if len(from_shape) == 3:
    batch_size, from_seq_length = from_shape[:2]
    to_seq_length = to_shape[1]
  elif None in (batch_size, from_seq_length) or (
      to_seq_length is None and not is_made):
    raise ValueError("attention over matrices needs batch_size, "
                     "from_seq_length and to_seq_length")
  if tokens is not None and (len(from_shape) == 3 or attention_mask is None):
    raise ValueError("attention over tokens needs their rows and a mask")
  ops = ops or PlainOps()
  width = num_attention_heads * size_per_head
  shape = [batch_size, from_seq_length, num_attention_heads, size_per_head]
  query = _heads(from_tensor, "query", query_act, shape, initializer_range,
                 tokens, use_bias, ops)
  if not is_made:
    to_tensor = keys_and_values(
        to_tensor, num_attention_heads, size_per_head, key_act, value_act,
        initializer_range, batch_size, to_seq_length, tokens, use_bias=use_bias,
        ops=ops)
  key, value = to_tensor
  if cache is not None:
    key, value = [_written(*pair, cache.index)
                  for pair in zip(cache[:2], to_tensor)]
    new_cache = Cache(key, value, cache.index + from_seq_length)
  mask = _visible(attention_mask, causal, from_seq_length,
                  get_shape_list(key)[2], cache)
  if prefix is not None and prefix[0].shape[-2] == 0:
    prefix = None
  if prefix is not None:
    key, value, mask = _behind_prefix(prefix, key, value, mask)
  if mask is None:
    mask = tf.ones([1, 1, 1, 1], tf.int32)

  scores = tf.matmul(query, key, transpose_b=True)       # [B, N, F, P + T]
  is_plain = not (prefix or causal or cache or scale) and position_bias is None
  probabilities = ops.masked_softmax(
      scores, mask, 1.0 / math.sqrt(size_per_head) if scale is None else scale,
      attention_probs_dropout_prob, position_bias,
      MASKED_SCORE if is_plain else LOWEST_SCORE)

  context = tf.matmul(probabilities, value)              # [B, N, F, H]
  context = tf.transpose(context, [0, 2, 1, 3])          # [B, F, N, H]
  is_matrix = do_return_2d_tensor or tokens is not None
  output = tf.reshape(context, ([batch_size * from_seq_length] if is_matrix else
                                [batch_size, from_seq_length]) + [width])
  if tokens is not None:
    output = tokens.pack(output)
  return output if cache is None else (output, new_cache)


def keys_and_values(to_tensor, num_attention_heads, size_per_head, key_act=None,
                    value_act=None, initializer_range=0.02, batch_size=None,
                    seq_length=None, tokens=None, *, use_bias=True, ops=None):
  """The KeysAndValues of a tensor; arguments as `attention_layer`'s."""
  if to_tensor.shape.ndims == 3:
    batch_size, seq_length = get_shape_list(to_tensor)[:2]
  shape = [batch_size, seq_length, num_attention_heads, size_per_head]
  return KeysAndValues(*[
      _heads(to_tensor, name, activation, shape, initializer_range, tokens,
             use_bias, ops or PlainOps())
      for name, activation in (("key", key_act), ("value", value_act))])


def _heads(tensor, name, activation, shape, initializer_range, tokens, use_bias,
           ops):
  """Projects [B * seq, width] to [B, N, seq, H]; `shape` is [B, seq, N, H]."""
  tensor, bias = product(reshape_to_matrix(tensor), shape[2] * shape[3],
                         initializer_range, name, use_bias, ops=ops)
  if activation is not None:
    tensor, bias = ops.activation(activation, tensor, bias), None
  if tokens is not None:
    tensor = tokens.unpack(tensor)
  return ops.split_heads(tensor, bias, shape)


def _written(cached, new, index):
  """`cached` [B, N, T, H] with `new` [B, N, F, H] from position index on."""
  shape = get_shape_list(new)
  # In a loop it writes in place, where tf.tensor_scatter_nd_update copies all.
  written = tf.raw_ops.TensorStridedSliceUpdate(
      input=cached, begin=tf.stack([0, 0, index, 0]),
      end=tf.stack(shape[:2] + [index + shape[2], shape[3]]),
      strides=[1, 1, 1, 1], value=tf.cast(new, cached.dtype))
  written.set_shape(cached.shape)
  return written


def _visible(attention_mask, causal, from_seq_length, to_seq_length, cache):
  """The mask of the T positions: int32 [B or 1, 1, F or 1, T], or None."""
  seen = mask = None
  if attention_mask is not None:
    # Whole numbers have no gradient, so that none is computed for the mask.
    mask = tf.cast(tf.expand_dims(attention_mask, 1), tf.int32)
  if causal or cache is not None:
    first = to_seq_length - from_seq_length if cache is None else cache.index
    last = first + (tf.range(from_seq_length) if causal else
                    from_seq_length - 1)
    seen = tf.cast(tf.range(to_seq_length) <= tf.reshape(last, [-1, 1]),
                   tf.int32)[tf.newaxis, tf.newaxis]
  if mask is None or seen is None:
    return seen if mask is None else mask
  return mask * seen


def _behind_prefix(prefix, key, value, mask):
  """(key, value, mask) with the prefix before them, for `attention_layer`."""
  batch_size = get_shape_list(key)[0]
  rows = prefix[0].shape.as_list()[1:]  # N, P, H
  key, value = [
      tf.concat([tf.broadcast_to(tf.cast(part, tensor.dtype),
                                 [batch_size] + rows), tensor], axis=2)
      for part, tensor in zip(prefix, (key, value))]
  if mask is not None:
    mask = tf.pad(mask, [[0, 0], [0, 0], [0, 0], [rows[1], 0]],
                  constant_values=1)
  return key, value, mask


def feedforward_adapter(input_tensor, hidden_size=64, init_scale=1e-3, *,
                        activation=gelu, ops=None):
  """The bottleneck adapter of Houlsby et al., section 2.1.

  x + (activation(x W1 + b1) W2 + b2), which starts near the identity.

  Args:
    input_tensor: float [rows, D], as what is returned.
    hidden_size: int, m, the size of the bottleneck.
    init_scale: float, the standard deviation of the initial weights. (The paper
      says 1e-2, the released code uses 1e-3; figure 6 shows both work.)
  """
  width = get_shape_list(input_tensor, expected_rank=2)[-1]
  initializer, zeros = create_initializer(init_scale), tf.zeros_initializer()
  ops = ops or PlainOps()
  with tf.variable_scope("adapters"):
    weights1 = _get_variable("weights1", [width, hidden_size], initializer,
                             ADAPTERS)
    biases1 = _get_variable("biases1", [1, hidden_size], zeros, ADAPTERS)
    weights2 = _get_variable("weights2", [hidden_size, width], initializer,
                             ADAPTERS)
    biases2 = _get_variable("biases2", [1, width], zeros, ADAPTERS)
    bottleneck = ops.dense(activation, input_tensor, weights1, biases1)
    output = ops.dense(None, bottleneck, weights2, None)      # [rows, D]
    return ops.add(input_tensor, output, biases2)


def prefix_encoder(num_hidden_layers, num_attention_heads, size_per_head,
                   prefix_length=20, hidden_size=None, embedding_size=None,
                   dropout_prob=0.0, init_scale=1.0, *, ops=None):
  """Keys and values that are learned (Li and Liang 2021), for a stack.

  A table [P, layers * 2 * N * H]: the key of layer 0, its value, the key of
  layer 1 and so on; or with `hidden_size` what two dense layers make of a
  narrower one, which trains more easily and is not needed afterwards (4.3).

  Args:
    prefix_length: int, P.
    hidden_size: int, the width between the two layers; None: no layers.
    embedding_size: int, the width of their table; None: N * H.
    dropout_prob, init_scale: floats; 0 but in training; the table's deviation.

  Returns: a list, (key, value) for each layer, float32 [N, P, H] each.
  """
  width = num_attention_heads * size_per_head
  outputs = num_hidden_layers * 2 * width
  columns = outputs if hidden_size is None else embedding_size or width
  with tf.variable_scope("prefix"):
    prefix = tf.convert_to_tensor(_get_variable(
        "embeddings", [prefix_length, columns],
        tf.random_normal_initializer(stddev=init_scale), PREFIXES))
    if hidden_size is not None:
      # The deviation of the uniform distribution that PyTorch starts from.
      prefix = dense(prefix, hidden_size, tf.tanh, (3.0 * columns)**-0.5,
                     "dense_0", ops=ops)
      prefix = dense(prefix, outputs, None, (3.0 * hidden_size)**-0.5,
                     "dense_1", ops=ops)
    prefix = dropout(prefix, dropout_prob, ops=ops)
  prefix = tf.reshape(prefix, [prefix_length, num_hidden_layers, 2,
                               num_attention_heads, size_per_head])
  return [tuple(tf.unstack(layer)) for layer in tf.unstack(
      tf.transpose(prefix, [1, 2, 3, 0, 4]))]


def call_prefix(prefix_fn, num_hidden_layers, num_attention_heads,
                size_per_head, *, ops=None):
  """What prefix_fn gives a stack; its variables are "prefixes".

  Returns: a list, for each layer None or [key, value], float [1, N, P, H] each.
  """
  ops = ops or PlainOps()
  prefix_fn = _look_up(prefix_fn, PREFIX_FNS, "prefix", ops)
  if prefix_fn is None:
    return [None] * num_hidden_layers
  prefixes = _call_hook(
      lambda: prefix_fn(num_hidden_layers, num_attention_heads, size_per_head),
      PREFIXES, lambda name: name, ops)
  shapes = [pair and [part.shape.as_list() for part in pair]
            for pair in prefixes]
  length = max([0] + [pair[0][-2] for pair in shapes if pair])
  wanted = [[num_attention_heads, length, size_per_head]] * 2
  if len(shapes) != num_hidden_layers or any(
      pair not in (None, wanted) for pair in shapes):
    raise ValueError(
        "prefix_fn gave the shapes %s; the model needs a list of %d (key, "
        "value), each %s with one P for all, or None for a layer without" %
        (shapes, num_hidden_layers, [num_attention_heads, "P", size_per_head]))
  return [pair and [tf.expand_dims(part, 0) for part in pair]
          for pair in prefixes]


def prefix_length(prefixes):
  """P of what `call_prefix` returned; 0 if no layer has a prefix."""
  return max(int(pair[0].shape[2]) if pair else 0 for pair in prefixes)


ADAPTER_FNS = {"feedforward_adapter": feedforward_adapter}
PREFIX_FNS = {"prefix_encoder": prefix_encoder}
ACTIVATIONS = {"linear": None, "relu": tf.nn.relu, "gelu": gelu,
               "gelu_erf": gelu_erf, "tanh": tf.tanh, "swish": tf.nn.silu}


def get_adapter(function_or_name):
  """What has that name, or the callable, or None; else ValueError."""
  return _look_up(function_or_name, ADAPTER_FNS, "adapter")


def get_prefix(function_or_name):
  return _look_up(function_or_name, PREFIX_FNS, "prefix")


def get_activation(function_or_name):
  return _look_up(function_or_name, ACTIVATIONS, "activation")


def _look_up(name, table, kind, ops=None):
  """For those above, and for what is to be given `ops` if it was named."""
  if callable(name):
    return name
  if name is None or name == "":
    return None
  if not isinstance(name, six.string_types) or name.lower() not in table:
    raise ValueError("unknown %s %r; known are %s, or a callable" %
                     (kind, name, ", ".join(sorted(table))))
  function = table[name.lower()]
  return functools.partial(function, ops=ops) if ops else function


class TokenRows(object):
  """Which positions of a batch are tokens: the rows of a shorter matrix.

  The matrix has some rows more than there are tokens, so that there are few
  different sizes and at least one row that is not a token's, if there is padding.

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


def embedding_lookup(input_ids, vocab_size, embedding_size=128,
                     initializer_range=0.02,
                     word_embedding_name="word_embeddings",
                     use_one_hot_embeddings=False):
  """Looks words up in a table of its own, called `word_embedding_name`.

  Args:
    input_ids: int32 [B, S], or [B, S, inputs] for several ids at a position,
      whose vectors are concatenated.
    vocab_size, embedding_size: ints, V and E.
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
  return tf.reshape(output, shape[:-1] + [shape[-1] * embedding_size]), table


def embedding_postprocessor(input_tensor, use_token_type=False,
                            token_type_ids=None, token_type_vocab_size=16,
                            token_type_embedding_name="token_type_embeddings",
                            use_position_embeddings=True,
                            position_embedding_name="position_embeddings",
                            initializer_range=0.02, max_position_embeddings=512,
                            dropout_prob=0.1, *, first_position=0, ops=None):
  """Adds token type and position embeddings, normalises, drops.

  Args:
    input_tensor: float [B, S, D].
    use_token_type: bool; needs token_type_ids, int32 [B, S].
    token_type_vocab_size: int, the number of token types.
    use_position_embeddings: bool; learned positions.
    max_position_embeddings: int, the longest sequence.
    first_position: int, the position of the first token: the length of a
      prefix that stands before it.

  Returns: float [B, S, D].

  Raises: ValueError if token_type_ids are missing or S is too long. An S that
    is only known at run time is checked then (tf.errors.InvalidArgumentError).
  """
  _, seq_length, width = get_shape_list(input_tensor, expected_rank=3)
  output, initializer = input_tensor, create_initializer(initializer_range)
  if use_token_type:
    if token_type_ids is None:
      raise ValueError("use_token_type needs token_type_ids")
    table = _get_variable(token_type_embedding_name,
                          [token_type_vocab_size, width], initializer)
    # A product with one-hot rows is faster than a gather from a tiny table.
    one_hot = tf.one_hot(tf.reshape(token_type_ids, [-1]),
                         token_type_vocab_size, dtype=table.dtype.base_dtype)
    output += tf.cast(tf.reshape(tf.matmul(one_hot, table), tf.shape(output)),
                      output.dtype)
  if use_position_embeddings:
    table = _get_variable(position_embedding_name,
                          [max_position_embeddings, width], initializer)
    too_long = "the %ssequence is longer than max_position_embeddings (%d)" % (
        "prefix (%d) and the " % first_position if first_position else "",
        max_position_embeddings)
    room, checks = max_position_embeddings - first_position, []
    if not isinstance(seq_length, six.integer_types):
      checks.append(tf.debugging.assert_less_equal(seq_length, room,
                                                   message=too_long))
    elif seq_length > room:
      raise ValueError("%s: %d positions" % (too_long, seq_length))
    with tf.control_dependencies(checks):
      positions = tf.slice(table, [first_position, 0], [seq_length, width])
    output += tf.cast(tf.expand_dims(positions, 0), output.dtype)
  return layer_norm_and_dropout(output, dropout_prob, ops=ops)


def create_attention_mask_from_input_mask(from_tensor, to_mask):
  """Each position may look at each token: float [B, F, T].

  from_tensor is [B, F] or [B, F, width]; to_mask int32 [B, T].
  """
  from_shape = get_shape_list(from_tensor, expected_rank=[2, 3])
  to_seq_length = get_shape_list(to_mask, expected_rank=2)[1]
  mask = tf.cast(tf.expand_dims(to_mask, 1), tf.float32)  # [B, 1, T]
  return tf.broadcast_to(mask, from_shape[:2] + [to_seq_length])


def dense(input_tensor, units, activation=None, initializer_range=0.02,
          name="dense", *, ops=None):
  """activation(input_tensor kernel + bias), float [rows, units].

  The variables `kernel` [in, units] and `bias` [units] are in the scope `name`;
  activation is a function of one tensor, or None.
  """
  with tf.variable_scope(name):
    kernel, bias = _weights(input_tensor, units, initializer_range)
    return (ops or PlainOps()).dense(activation, input_tensor, kernel, bias)


def product(input_tensor, units, initializer_range=0.02, name="dense",
            use_bias=True, *, ops=None):
  """A `dense` layer's (product with the kernel, bias or None), not added."""
  with tf.variable_scope(name):
    kernel, bias = _weights(input_tensor, units, initializer_range, use_bias)
    return (ops or PlainOps()).dense(None, input_tensor, kernel, None), bias


def _weights(input_tensor, units, initializer_range, use_bias=True):
  width = get_shape_list(input_tensor, expected_rank=2)[-1]
  return (_get_variable("kernel", [width, units],
                        create_initializer(initializer_range)),
          _get_variable("bias", [units], tf.zeros_initializer()) if use_bias
          else None)


def layer_norm(input_tensor, name=None, *, residual=None,
               epsilon=LAYER_NORM_EPSILON, ops=None):
  """Normalises the last axis (Ba et al. 2016), then scales and shifts it.

  Its variables, `beta` and `gamma` in the scope `name` ("LayerNorm"), go into
  the collection "layer_norm". `residual`, of the same shape, is added first;
  epsilon is added to the variance.
  """
  width = get_shape_list(input_tensor)[-1]
  with tf.variable_scope(name or "LayerNorm"):
    beta = _get_variable("beta", [width], tf.zeros_initializer(), LAYER_NORM)
    gamma = _get_variable("gamma", [width], tf.ones_initializer(), LAYER_NORM)
    return (ops or PlainOps()).layer_norm(input_tensor, beta, gamma, residual,
                                          epsilon)


def rms_norm(input_tensor, name=None, *, epsilon=1e-6, ops=None):
  """x / sqrt(mean(x^2) + epsilon) times `gamma` (Zhang and Sennrich 2019)."""
  width = get_shape_list(input_tensor)[-1]
  with tf.variable_scope(name or "LayerNorm"):
    gamma = _get_variable("gamma", [width], tf.ones_initializer(), LAYER_NORM)
    return (ops or PlainOps()).rms_norm(input_tensor, gamma, epsilon)


def layer_norm_and_dropout(input_tensor, dropout_prob, name=None, *, ops=None):
  """`layer_norm`, then `dropout`."""
  return dropout(layer_norm(input_tensor, name, ops=ops), dropout_prob, ops=ops)


def dropout(input_tensor, dropout_prob, *, ops=None):
  """Zeroes elements at random and scales the others to keep the mean."""
  return (ops or PlainOps()).dropout(input_tensor, dropout_prob)


def create_initializer(initializer_range=0.02):
  """Truncated normal, at two standard deviations, of that deviation."""
  return tf.truncated_normal_initializer(stddev=initializer_range)


def _get_variable(name, shape, initializer, collection=None):
  """A float32 variable, in `collection` as well if one is given."""
  if tf.executing_eagerly():
    raise ValueError(
        "modeling builds graphs, and was called eagerly, where each call would "
        "make new random weights that nobody can load or train: call it inside "
        "a tf.Graph, or under tf.compat.v1.wrap_function in a TF2 program")
  return tf.get_variable(name, shape, tf.float32, initializer, collections=[
      tf.GraphKeys.GLOBAL_VARIABLES] + ([collection] if collection else []))


def get_assignment_map_from_checkpoint(tvars, init_checkpoint):
  """Which of the variables the checkpoint of that prefix has, by name.

  Returns: (an OrderedDict of name -> name, for tf.train.init_from_checkpoint;
    a dict of every name found, with and without ":0", to 1).
  """
  in_checkpoint = dict(tf.train.list_variables(init_checkpoint))
  assignment_map, initialized = collections.OrderedDict(), {}
  for variable in tvars:
    name = re.sub(r":\d+$", "", variable.name)
    if name in in_checkpoint:
      assignment_map[name] = name
      initialized[name] = initialized[name + ":0"] = 1
  return assignment_map, initialized


def get_shape_list(tensor, expected_rank=None, name=None):
  """The sizes of a tensor: an int where known, a scalar tensor where not."""
  if expected_rank is not None:
    assert_rank(tensor, expected_rank, name)
  static = tensor.shape.as_list()
  if None not in static:
    return static
  dynamic = tf.shape(tensor)
  return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def reshape_to_matrix(input_tensor):
  """[..., width] -> [rows, width]; a matrix is returned as it is."""
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


class PlainOps(object):
  """The arithmetic of a layer, in plain TensorFlow.

  Others have the same methods and differ by rounding (adapter_bert/ops). A chain
  is computed in float32 and handed on in the type of its first tensor. Bias,
  beta and gamma may be variables.
  """

  def trained_from_here(self):
    """Told before the first trained variable: gradients go down to here."""

  def random_zeros(self, x, rate):
    """x with elements dropped at random, and the others scaled."""
    return tf.nn.dropout(x, rate=rate)

  def dense(self, function, x, kernel, bias):
    """function(x kernel + bias), see `activation`; x is [rows, in]."""
    x = tf.matmul(x, tf.cast(kernel, x.dtype))
    return self.activation(function, x, bias)

  def activation(self, function, x, bias=None):
    """function(x + bias); except for the two gelu it is called in the type of x.

    x is [..., width], bias [width], [1, width] or None.
    """
    if function in (gelu, gelu_erf):
      return tf.cast(function(_sum(x, bias)), x.dtype)
    if bias is not None:
      bias = tf.cast(bias, x.dtype)
      x = tf.nn.bias_add(x, bias if bias.shape.ndims == 1 else bias[0])
    return x if function is None else function(x)

  def dropout(self, x, rate, bias=None):
    """x + bias, of which nothing is dropped if the rate is 0 or None."""
    if not rate:
      return self.activation(None, x, bias)
    return tf.cast(self.random_zeros(_sum(x, bias), rate), x.dtype)

  def layer_norm(self, x, beta, gamma, residual=None,
                 epsilon=LAYER_NORM_EPSILON):
    """(x + residual), normalised over the last axis, times gamma, plus beta."""
    total = _sum(x, residual)
    mean, variance = tf.nn.moments(total, axes=[-1], keepdims=True)
    normal = (total - mean) * tf.math.rsqrt(variance + epsilon)
    output = normal * at_least_float32(gamma) + at_least_float32(beta)
    return tf.cast(output, x.dtype)

  def rms_norm(self, x, gamma, epsilon):
    """x / sqrt(mean(x^2) + epsilon) over the last axis, times gamma."""
    total = _sum(x)
    mean = tf.reduce_mean(total * total, axis=-1, keepdims=True)
    output = total * tf.math.rsqrt(mean + epsilon) * at_least_float32(gamma)
    return tf.cast(output, x.dtype)

  def gated(self, function, x, gate):
    """function(x) * gate, of equal shapes (Shazeer 2020, T5 1.1)."""
    output = function(at_least_float32(x)) * at_least_float32(gate)
    return tf.cast(output, x.dtype)

  def masked_softmax(self, scores, mask, scale, rate, bias=None,
                     masked_score=MASKED_SCORE):
    """softmax(scale * scores + bias), masked, then dropped.

    Args:
      scores: float [B, N, F, T].
      mask: int32 [B or 1, 1, F or 1, T or 1]; 0 where nothing is to be seen.
      scale, rate: floats; a rate of 0 or None drops nothing.
      bias: float [B or 1, N, F, T], or None.
      masked_score: float, added to the scores where the mask is 0.
    """
    blocked = 1.0 - at_least_float32(mask)
    total = _sum(at_least_float32(scores) * scale, bias)
    probabilities = tf.nn.softmax(total + blocked * masked_score)
    if rate:
      probabilities = self.random_zeros(probabilities, rate)
    return tf.cast(probabilities, scores.dtype)

  def split_heads(self, x, bias, shape):
    """x + bias, [B * seq, N * H] -> [B, N, seq, H]; shape is [B, seq, N, H]."""
    x = tf.reshape(x, shape)
    if bias is not None:
      x = tf.cast(_sum(x, tf.reshape(bias, shape[2:])), x.dtype)
    return tf.transpose(x, [0, 2, 1, 3])

  def add(self, a, b, bias):
    """a + b + bias; a and b float [rows, width], bias [1, width]."""
    return tf.cast(_sum(_sum(a, b), bias), a.dtype)


def at_least_float32(tensor):
  """The tensor as float32; a float64 one stays what it is."""
  is_double = tensor.dtype.base_dtype == tf.float64
  return tensor if is_double else tf.cast(tensor, tf.float32)


def _sum(x, other=None):
  """x, plus the other tensor if there is one, in float32."""
  x = at_least_float32(x)
  return x if other is None else x + at_least_float32(other)
