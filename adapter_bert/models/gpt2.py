"""GPT-2 (Radford et al. 2019) with adapters and prefixes.

    config = GPT2Config.from_json_file("config.json")
    model = GPT2Model(config, is_training=True, input_ids=ids, input_mask=mask)
    logits = model.logits()

Letters in the shapes below:
  B batch size            S sequence length       D model width (n_embd)
  N attention heads       H size of one head      P prefix length
  V vocabulary            K hypotheses of a row   (generation/search.py)
"""

import collections
import copy
import functools

import tensorflow.compat.v1 as tf

from adapter_bert.models import config as config_lib
from adapter_bert.models import decoding
import modeling


class GPT2Config(config_lib.ModelConfig):
  """The sizes of a GPT-2, as in Hugging Face's config.json.

  Beside its keys, those of layers that share their weights, as in BertConfig:
  share_parameter_across_layers, layers_per_group, share_adapters.
  """

  MODEL_TYPE = "gpt2"
  KEYS = collections.OrderedDict([
      ("vocab_size", config_lib.Key(50257, config_lib.SIZE)),
      ("n_positions", config_lib.Key(1024, config_lib.SIZE)),
      ("n_embd", config_lib.Key(768, config_lib.SIZE)),
      ("n_layer", config_lib.Key(12, config_lib.SIZE)),
      ("n_head", config_lib.Key(12, config_lib.SIZE)),
      # null: 4 * n_embd.
      ("n_inner", config_lib.Key(None, config_lib.SIZE_OR_NONE)),
      ("activation_function", config_lib.Key("gelu_new", config_lib.TEXT)),
      ("embd_pdrop", config_lib.Key(0.1, config_lib.RATE)),
      ("attn_pdrop", config_lib.Key(0.1, config_lib.RATE)),
      ("resid_pdrop", config_lib.Key(0.1, config_lib.RATE)),
      ("layer_norm_epsilon", config_lib.Key(1e-5, config_lib.POSITIVE)),
      ("initializer_range", config_lib.Key(0.02, config_lib.POSITIVE)),
      ("bos_token_id", config_lib.Key(50256, config_lib.TOKEN_OR_NONE)),
      ("eos_token_id", config_lib.Key(50256, config_lib.TOKEN_OR_NONE)),
  ] + config_lib.SHARING_KEYS)
  BUILT = {
      "scale_attn_weights": True,
      "scale_attn_by_inverse_layer_idx": False,
      "reorder_and_upcast_attn": False,
      "add_cross_attention": False,
      "tie_word_embeddings": True,
  }

  def validate(self):
    super().validate()
    self.activation_name()
    if self.n_embd % self.n_head:
      self.refuse("n_embd", "a multiple of n_head (%d)" % self.n_head)

  def activation_name(self):
    """str: the feed-forward half's, as modeling.get_activation takes it."""
    return self.activation("activation_function")


# What the layers look at, the same for each of them.
#   shape: [B, positions that look, D].
#   mask: int32, attention_layer's attention_mask.
#   tokens: modeling.TokenRows or None.
#   slot: int32 scalar, where in the caches the keys of these positions go; None:
#     there are no caches, the positions look at each other.
_View = collections.namedtuple("_View", ["shape", "mask", "tokens", "slot"])


class GPT2Model(object):
  """GPT-2's decoder.

  A layer is x + f(LN(x)), twice: f is attention, then feed-forward. An adapter
  stands behind f's last product, before the sum.

  Args:
    config: GPT2Config; it is copied, never changed.
    is_training: bool; False switches every dropout off.
    input_ids: int32 [B, S].
    input_mask: int32 [B, S], 1 for a token and 0 for padding, on whichever
      side; None: all 1. A row's positions count from its first token.
    scope: str or None; the variable scope. None is "gpt2".
    adapter_fn: what `modeling.get_adapter` takes: a name, a callable, or None
      for a model without adapters.
    adapter_layers: the indices of the layers that get adapters; None: all.
    prefix_fn: what `modeling.get_prefix` takes, or None.
    prefix_positions: "after": the tokens have the positions P, P + 1, ..., as
      the paper's GPT-2 and PEFT count; "unshifted": 0, 1, ..., as AdapterHub.
    skip_padding: bool; the layers work on the tokens alone. What comes out for
      them is the same; what comes out for padding has no meaning, and no
      gradient comes from it.
    ops: see modeling.BertModel.

  Attributes:
    all_layers: list of float [B, S, D], what goes into the first layer and what
      comes out of each; the last one is after the last norm.

  Raises: ValueError if there are more positions than config.n_positions, or an
    adapter, a prefix or a layer's index is unknown.
  """

  def __init__(self,
               config,
               is_training,
               input_ids,
               input_mask=None,
               scope=None,
               adapter_fn="feedforward_adapter",
               adapter_layers=None,
               prefix_fn=None,
               prefix_positions="after",
               skip_padding=False,
               *,
               ops=None):
    self._config = config = copy.deepcopy(config)
    config.validate()
    if prefix_positions not in ("after", "unshifted"):
      raise ValueError("prefix_positions is %r; known are after and unshifted" %
                       (prefix_positions,))
    if not is_training:
      config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = 0.0
    self._ops = ops or modeling.PlainOps()
    self._adapter_fn = modeling.get_adapter(adapter_fn)
    self._with_adapter = set(range(config.n_layer) if adapter_layers is None
                             else adapter_layers)
    if not self._with_adapter <= set(range(config.n_layer)):
      raise ValueError("adapter_layers is %s; the model has layers 0 to %d" %
                       (adapter_layers, config.n_layer - 1))
    shape = modeling.get_shape_list(input_ids, expected_rank=2)
    if input_mask is None:
      input_mask = tf.ones(shape, tf.int32)
    self._ids, self._mask = input_ids, input_mask

    with tf.variable_scope(scope, default_name="gpt2") as self._scope:
      with tf.variable_scope("embeddings"):
        # A tensor: where rows are looked up in a variable itself, TensorFlow
        # copies all of it each time that it is read, as logits do.
        self._table = tf.convert_to_tensor(tf.get_variable(
            "word_embeddings", [config.vocab_size, config.n_embd], tf.float32,
            modeling.create_initializer(config.initializer_range)))
      self._prefixes = modeling.call_prefix(
          prefix_fn, config.n_layer, config.n_head,
          config.n_embd // config.n_head, ops=self._ops)
      self._first_position = (modeling.prefix_length(self._prefixes)
                              if prefix_positions == "after" else 0)
      self._check_length(shape[1])
      # 0 for padding in front, as for the first token; behind, it goes on.
      begun = tf.minimum(tf.cumsum(input_mask, 1), 1)
      positions = tf.maximum(tf.cumsum(begun, 1) - 1, 0)
      view = _View(shape + [config.n_embd], input_mask[:, tf.newaxis], slot=None,
                   tokens=modeling.TokenRows(input_mask) if skip_padding else
                   None)
      self.all_layers, self._kept = self._decode(input_ids, positions, view,
                                                 self._prefixes)

  def _check_length(self, length):
    """Raises ValueError for more positions than there are.

    Where the length is only known at run time, tf.gather says it then.
    """
    if not isinstance(length, int):
      return
    if length + self._first_position > self._config.n_positions:
      raise ValueError(
          "%d positions (%d of the prefix, %d tokens) are more than n_positions "
          "(%d)" % (length + self._first_position, self._first_position, length,
                    self._config.n_positions))

  def get_sequence_output(self):
    """float [B, S, D]: the last layer's output after the last norm."""
    return self.all_layers[-1]

  def get_embedding_table(self):
    """float [V, D]: the word embeddings, which are the output layer too."""
    return self._table

  def logits(self, hidden=None):
    """float32 [..., V]: the scores of the next token.

    Args:
      hidden: float [..., D], rows of the sequence output; None: all of it.
    """
    hidden = self.get_sequence_output() if hidden is None else hidden
    shape = modeling.get_shape_list(hidden)
    scores = tf.matmul(modeling.reshape_to_matrix(hidden), self._table,
                       transpose_b=True)
    return tf.reshape(tf.cast(scores, tf.float32), shape[:-1] + [-1])

  # ------------------------------------------------------------ the layers

  def _decode(self, ids, positions, view, memories):
    """(all_layers, [(keys, values)] of each layer) for ids and positions.

    Args:
      ids, positions: int32 [B, positions that look].
      view: _View.
      memories: for each layer (key, value), what stands in front of the tokens:
        its prefix or None; with view.slot, its cache.
    """
    config = self._config
    x = self._embed(ids, positions)
    outputs, kept = [x], []
    x = modeling.reshape_to_matrix(x)
    if view.tokens is not None:
      x = view.tokens.pack(x)
    with tf.variable_scope("decoder", reuse=tf.AUTO_REUSE):
      for layer, memory in enumerate(memories):
        x, keys_and_values = self._layer(layer, x, view, memory)
        kept.append(keys_and_values)
        if layer == config.n_layer - 1:
          x = self._norm(x)
        outputs.append(x if view.tokens is None else view.tokens.unpack(x))
    return [outputs[0]] + [modeling.reshape_from_matrix(x, view.shape)
                           for x in outputs[1:]], kept

  def _embed(self, ids, positions):
    """Word and position embeddings: float [B, positions that look, D]."""
    config = self._config
    with tf.variable_scope("embeddings", reuse=tf.AUTO_REUSE):
      words = tf.gather(self._table, ids)
      places, _ = modeling.embedding_lookup(
          positions + self._first_position, config.n_positions, config.n_embd,
          config.initializer_range, "position_embeddings")
    return self._ops.dropout(words + tf.cast(places, words.dtype),
                             config.embd_pdrop)

  def _layer(self, number, x, view, memory):
    """x, float [rows, D], after a layer, and the keys and values in it."""
    config = self._config
    scope = modeling.layer_scope(number, config.share_parameter_across_layers,
                                 config.layers_per_group)
    with tf.variable_scope(scope):
      with tf.variable_scope("attention"):
        heads, keys_and_values = self._attention(
            number, self._norm(x), view, memory)
        with tf.variable_scope("output"):
          x += self._project(heads, number)
      with tf.variable_scope("intermediate"):
        hidden = modeling.dense(
            self._norm(x), config.n_inner or 4 * config.n_embd,
            activation=modeling.get_activation(config.activation_name()),
            initializer_range=config.initializer_range, ops=self._ops)
      with tf.variable_scope("output"):
        return x + self._project(hidden, number), keys_and_values

  def _attention(self, layer, x, view, memory):
    """(float [rows, D], (key, value)) of a layer's attention, before `output`.

    Args:
      layer: int.
      x: float [rows, D], normalised.
      view, memory: see _decode.
    """
    config = self._config
    batch_size, length, _ = view.shape
    skipped = modeling.prefix_length(self._prefixes)
    if view.slot is not None and self._prefixes[layer] is None and skipped:
      # Its cache begins with the prompt, whatever those of the others do.
      view = view._replace(mask=view.mask[:, :, skipped:],
                           slot=view.slot - skipped)
    sizes = (config.n_head, config.n_embd // config.n_head)
    with tf.variable_scope("self"):
      new = modeling.keys_and_values(
          x, *sizes, initializer_range=config.initializer_range,
          batch_size=batch_size, seq_length=length, tokens=view.tokens,
          ops=self._ops)
      attend = functools.partial(
          modeling.attention_layer, x, new, view.mask, *sizes,
          attention_probs_dropout_prob=config.attn_pdrop,
          initializer_range=config.initializer_range, do_return_2d_tensor=True,
          batch_size=batch_size, from_seq_length=length, tokens=view.tokens,
          ops=self._ops)
      if view.slot is None:
        return attend(prefix=memory, causal=True), new
      heads, cache = attend(cache=modeling.Cache(*memory, view.slot))
      return heads, (cache.key, cache.value)

  def _project(self, x, layer):
    """adapter(dropout(dense(x))): float [rows, D]."""
    config = self._config
    x, bias = modeling.product(x, config.n_embd, config.initializer_range,
                               ops=self._ops)
    x = self._ops.dropout(x, config.resid_pdrop, bias)
    if self._adapter_fn is None or layer not in self._with_adapter:
      return x
    own = config.share_parameter_across_layers and not config.share_adapters
    return modeling.call_adapter(self._adapter_fn, x,
                                 "_%d" % layer if own else "", ops=self._ops)

  def _norm(self, x):
    return modeling.layer_norm(x, epsilon=self._config.layer_norm_epsilon,
                               ops=self._ops)

  # ------------------------------------------------------------- generation

  def start(self, slots):
    """What generation/search.py goes on from: its Start.

    Each cache holds prefix, prompt and `slots` keys more, so that nothing is
    put together at a step.

    Args:
      slots: int, see there.
    """
    length = modeling.prefix_length(self._prefixes)
    front = tf.pad(self._mask, [[0, 0], [length, 0]],
                   constant_values=1)[:, tf.newaxis]  # [B, 1, P + S]
    first = tf.reduce_sum(self._mask, 1, keepdims=True)

    def step(tokens, time, visible, cache):
      shape = modeling.get_shape_list(tokens)  # B, K
      mask = tf.broadcast_to(front, shape + [tf.shape(front)[2]])
      view = _View(shape + [self._config.n_embd],
                   tf.concat([mask, visible], 2), None,
                   tf.shape(front)[2] + time * shape[1])
      with tf.variable_scope(self._scope, reuse=True):
        layers, cache = self._decode(
            tokens, tf.broadcast_to(first + time, shape), view, cache)
      return self.logits(layers[-1]), cache

    caches = [self._with_room(new, prefix, slots)
              for new, prefix in zip(self._kept, self._prefixes)]
    return decoding.Start(self._ids, self._mask,
                          self.logits(self.all_layers[-1][:, -1]), caches, step)

  def _with_room(self, new, prefix, slots):
    """(key, value), each float [B, N, P + S + slots, H]: a layer's cache."""
    cache = []
    for place, tensor in enumerate(new):
      if prefix is not None:
        front = tf.cast(prefix[place], tensor.dtype)  # [1, N, P, H]
        front = tf.tile(front, [tf.shape(tensor)[0], 1, 1, 1])
        tensor = tf.concat([front, tensor], 2)
      cache.append(tf.pad(tensor, [[0, 0], [0, 0], [0, slots], [0, 0]]))
    return tuple(cache)
