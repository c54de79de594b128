"""What BART and T5 have in common: two stacks, what is between them, prefixes.

The layers of both have the same parts, in the same scopes. Where their norms
stand, what a position is and how words come out, bart.py and t5.py say.

Prefixes (Li and Liang 2021, arXiv 2101.00190) stand in front of the keys and
values in three places, and each has variables of its own:

  encoder   the encoder's self-attention     in the scope encoder
  self      the decoder's self-attention     in the scope decoder
  cross     the decoder's attention to the   in the scope decoder/crossattention
            source, all of which is still seen

Letters in the shapes below:
  B batch size            S source length         T target length
  D model width           N attention heads       H size of one head
  P prefix length         V vocabulary            K hypotheses of a source
  F decoder positions that look: T, or K at a step of a search
"""

import collections
import contextlib
import copy
import functools

import tensorflow.compat.v1 as tf

from adapter_bert.models import decoding
import modeling

PREFIX_PLACES = ("encoder", "self", "cross")

# The sizes of a stack, int each.
Stack = collections.namedtuple(
    "Stack", ["layers", "heads", "head_size", "intermediate_size"])

# What the self-attention of every layer of a stack looks at.
#   shape: [B, positions that look, D].
#   mask: its attention_mask.
#   causal: bool.
#   position_bias: its position_bias.
#   tokens: modeling.TokenRows or None.
#   index: int32 scalar, where in the caches the keys of these positions go;
#     None: there are no caches.
_View = collections.namedtuple(
    "_View", ["shape", "mask", "causal", "position_bias", "tokens", "index"])


class EncoderDecoder(object):
  """A model with an encoder of a source and a decoder of a target.

  The source is encoded once, and what each layer of the decoder sees of it is
  computed once. The decoder then runs over a whole target, or over one token
  after the other (`start`).

  Args:
    config: the model's config; it is copied, never changed.
    is_training: bool; False switches every dropout off.
    input_ids: int32 [B, S], the source.
    input_mask: int32 [B, S], 1 for a token and 0 for padding; None: all 1.
    decoder_input_ids: int32 [B, T], the decoder's start and the target without
      its last token; None: the decoder is run by `start` alone.
    decoder_input_mask: int32 [B, T], as input_mask. Padding on the right is
      seen by no token; the mask is for skip_padding.
    scope: str or None; the variable scope. None is the model's name.
    adapter_fn: what `modeling.get_adapter` takes: a name, a callable, or None
      for a model without adapters. They come after self-attention and after the
      feed-forward half of every layer.
    cross_adapters: bool; after cross-attention as well.
    prefix_fn: what `modeling.get_prefix` takes, or None. It is called once for
      each place.
    prefix_in: the places that have a prefix, of PREFIX_PLACES.
    skip_padding: bool; the layers work on the tokens alone. What comes out for
      them is the same; what comes out for padding has no meaning, and no
      gradient comes from it.
    ops: see modeling.BertModel.

  Attributes:
    embedding_table: float [V, D].
    encoder_output: float [B, S, D], after the last norm.
    all_decoder_layers: list of float [B, T, D], what goes into the first layer
      and what comes out of each, of the last one after the last norm; None
      without decoder_input_ids.

  Raises: ValueError for an unknown adapter, prefix or place.
  """

  NAME = None  # str, the scope.

  def __init__(self,
               config,
               is_training,
               input_ids,
               input_mask=None,
               decoder_input_ids=None,
               decoder_input_mask=None,
               scope=None,
               adapter_fn="feedforward_adapter",
               cross_adapters=False,
               prefix_fn=None,
               prefix_in=PREFIX_PLACES,
               skip_padding=False,
               *,
               ops=None):
    unknown = [place for place in prefix_in if place not in PREFIX_PLACES]
    if unknown:
      raise ValueError("prefix_in names %r; a prefix stands in %s" %
                       (unknown[0], ", ".join(PREFIX_PLACES)))
    self._config = copy.deepcopy(config)
    self._config.validate()
    if not is_training:
      self._drop_nothing()
    self._ops = ops or modeling.PlainOps()
    self._adapter_fn = modeling.get_adapter(adapter_fn)
    if self._adapter_fn is not adapter_fn:  # One of modeling's: it takes ops.
      self._adapter_fn = self._adapter_fn and functools.partial(
          self._adapter_fn, ops=self._ops)
    self._cross_adapters = cross_adapters
    self._prefix_fns = {place: prefix_fn for place in prefix_in}
    self._skip_padding = skip_padding
    if input_mask is None:
      input_mask = tf.ones(modeling.get_shape_list(input_ids, 2), tf.int32)

    with tf.variable_scope(scope, default_name=self.NAME) as self._scope:
      with tf.variable_scope("embeddings"):
        # A tensor: where rows are looked up in a variable itself, TensorFlow
        # copies all of it each time that it is read, as logits do.
        self.embedding_table = tf.convert_to_tensor(tf.get_variable(
            "word_embeddings", [config.vocab_size, config.d_model], tf.float32,
            modeling.create_initializer(self._initial_words())))
      with tf.variable_scope("encoder"):
        source, view = self._encode(input_ids, input_mask)
        self.encoder_output = _grid(source, view)
      with tf.variable_scope("decoder"):
        self._look_at_source(source, view)
        self.all_decoder_layers = None
        if decoder_input_ids is not None:
          self.all_decoder_layers = self._decode_all(decoder_input_ids,
                                                     decoder_input_mask)

  def get_encoder_output(self):
    """float [B, S, D]: the encoder's output."""
    return self.encoder_output

  def get_sequence_output(self):
    """float [B, T, D]: the decoder's output."""
    return self.all_decoder_layers[-1]

  def get_embedding_table(self):
    """float [V, D]: the word embeddings."""
    return self.embedding_table

  # ---------------------------------------- what BART and T5 do, each its way

  def _drop_nothing(self):
    """Sets every rate of dropout in the config to 0."""
    raise NotImplementedError

  def _initial_words(self):
    """float: the standard deviation of the initial table of words."""
    raise NotImplementedError

  def _stack(self, name):
    """The Stack "encoder" or "decoder"."""
    raise NotImplementedError

  def _attention_options(self):
    """dict: arguments of modeling.attention_layer, the same in every layer."""
    raise NotImplementedError

  def _embed(self, ids, positions, shift):
    """What goes into the first layer of the stack whose scope is open.

    Args:
      ids: int32 [B, F].
      positions: int32 [F], or [1] for all, without a prefix's.
      shift: int, the positions that the prefix has taken.

    Returns: float [B, F, D].
    """
    raise NotImplementedError

  def _first_position(self, length):
    """int: the position of the decoder's first token behind `length` keys."""
    del length
    return 0

  def _position_bias(self, positions, key_positions, is_causal):
    """The self-attention's position_bias in that stack, [1, N, F, T], or None.

    Args:
      positions: int32 [F], or [1] for all.
      key_positions: int32 [T], with those of a prefix.
      is_causal: bool.
    """
    raise NotImplementedError

  def _before(self, x):
    """x, float [rows, D], as it goes into a half of a layer."""
    raise NotImplementedError

  def _intermediate(self, x, stack):
    """The hidden layer of the feed-forward half, [rows, D] -> [rows, width]."""
    raise NotImplementedError

  def _behind(self, x, output, adapter):
    """What a half of a layer makes of x.

    Args:
      x: float [rows, D], what went into it.
      output: float [rows, width], its output before the last product.
      adapter: function of float [rows, D] and back, called before the sum.

    Returns: float [rows, D].
    """
    raise NotImplementedError

  def _last(self, x):
    """x, float [rows, D], as it leaves the last layer of a stack."""
    raise NotImplementedError

  def logits(self, hidden=None):
    """float32 [..., V]: the scores of the next token.

    Args:
      hidden: float [..., D], rows of the decoder's output; None: all of it.
    """
    raise NotImplementedError

  # ---------------------------------------------------------------- the stacks

  def _encode(self, ids, mask):
    """(The encoder's output, float [rows, D], its _View)."""
    stack = self._stack("encoder")
    prefixes = self._prefixes("encoder", stack)
    shape = modeling.get_shape_list(ids, expected_rank=2)
    positions = tf.range(shape[1])
    view = _View(
        shape=shape + [self._config.d_model], mask=tf.expand_dims(mask, 1),
        causal=False, index=None,
        position_bias=self._position_bias(
            positions, _with_prefix(prefixes, positions), is_causal=False),
        tokens=modeling.TokenRows(mask) if self._skip_padding else None)
    x = _rows(self._embed(ids, positions, 0), view)
    for layer in range(stack.layers):
      with self._layer(layer) as adapter:
        x, _ = self._self_attention(x, stack, view, prefixes[layer], None,
                                    adapter)
        x = self._feed_forward(x, stack, adapter)
    return self._last(x), view

  def _look_at_source(self, source, view):
    """Computes what each layer of the decoder sees of the source.

    Args:
      source: float [rows, D], the encoder's output.
      view: the encoder's _View.
    """
    stack = self._stack("decoder")
    options = self._attention_options()
    self._self_prefixes = self._prefixes("self", stack)
    with tf.variable_scope("crossattention"):
      self._cross_prefixes = self._prefixes("cross", stack)
    self._source_mask = view.mask
    self._sources = []
    for layer in range(stack.layers):
      with self._layer(layer), tf.variable_scope("crossattention/self"):
        self._sources.append(modeling.keys_and_values(
            source, stack.heads, stack.head_size,
            initializer_range=options["initializer_range"],
            batch_size=view.shape[0], seq_length=view.shape[1],
            tokens=view.tokens, use_bias=options["use_bias"], ops=self._ops))

  def _decode_all(self, ids, mask):
    """The outputs of all layers over a whole target, list of [B, T, D]."""
    shape = modeling.get_shape_list(ids, expected_rank=2)
    positions = tf.range(shape[1])
    tokens = None
    if self._skip_padding and mask is not None:
      tokens = modeling.TokenRows(mask)
    view = _View(
        shape=shape + [self._config.d_model],
        mask=None if mask is None else tf.expand_dims(mask, 1), causal=True,
        position_bias=self._position_bias(
            positions, _with_prefix(self._self_prefixes, positions),
            is_causal=True),
        tokens=tokens, index=None)
    return self._decode(ids, positions, view, None)[0]

  def _decode(self, ids, positions, view, caches):
    """The decoder's layers; its scope is open.

    Args:
      ids: int32 [B, F].
      positions: int32 [F], or [1] for all.
      view: _View.
      caches: for each layer (key, value), float [B, N, T, H]; or None.

    Returns: (list of float [B, F, D] as all_decoder_layers, the new caches).
    """
    stack = self._stack("decoder")
    x = self._embed(ids, positions, self._first_position(
        modeling.prefix_length(self._self_prefixes)))
    outputs, new_caches = [x], []
    x = _rows(x, view)
    for layer in range(stack.layers):
      with self._layer(layer) as adapter:
        x, cache = self._self_attention(
            x, stack, view, self._self_prefixes[layer],
            None if caches is None else caches[layer], adapter)
        x = self._cross_attention(x, stack, view, layer, adapter)
        x = self._feed_forward(x, stack, adapter)
      new_caches.append(cache)
      outputs.append(x)
    outputs[-1] = self._last(x)
    return outputs[:1] + [_grid(x, view) for x in outputs[1:]], new_caches

  def _prefixes(self, place, stack):
    """For each layer of a stack its prefix in that place, or None."""
    return modeling.call_prefix(self._prefix_fns.get(place), stack.layers,
                                stack.heads, stack.head_size, ops=self._ops)

  # ---------------------------------------------------------------- the layers

  @contextlib.contextmanager
  def _layer(self, number):
    """In the scope of a layer; gives its adapter, a function of [rows, D]."""
    config = self._config
    scope = modeling.layer_scope(number, config.share_parameter_across_layers,
                                 config.layers_per_group)
    own = config.share_parameter_across_layers and not config.share_adapters

    def adapter(x):
      if self._adapter_fn is None:
        return x
      return modeling.call_adapter(self._adapter_fn, x,
                                   "_%d" % number if own else "", ops=self._ops)

    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
      yield adapter

  def _self_attention(self, x, stack, view, prefix, cache, adapter):
    """(float [rows, D], the layer's new cache, (key, value), or None)."""
    if cache is not None:
      cache = modeling.Cache(cache[0], cache[1], view.index)
    with tf.variable_scope("attention"):
      y = self._before(x)
      heads = self._attention(
          y, y, stack, view, view.mask, to_seq_length=view.shape[1],
          prefix=prefix, causal=view.causal, cache=cache,
          position_bias=view.position_bias)
      if cache is not None:
        heads, cache = heads
      return self._behind(x, heads, adapter), cache and tuple(cache[:2])

  def _cross_attention(self, x, stack, view, layer, adapter):
    """float [rows, D]: x with what the decoder sees of the source."""
    with tf.variable_scope("crossattention"):
      heads = self._attention(
          self._before(x), self._sources[layer], stack, view, self._source_mask,
          prefix=self._cross_prefixes[layer])
      return self._behind(x, heads,
                          adapter if self._cross_adapters else lambda y: y)

  def _attention(self, x, to, stack, view, mask, **more):
    """modeling.attention_layer's result: float [rows, N * H]."""
    with tf.variable_scope("self"):
      return modeling.attention_layer(
          x, to, mask, num_attention_heads=stack.heads,
          size_per_head=stack.head_size, do_return_2d_tensor=True,
          batch_size=view.shape[0], from_seq_length=view.shape[1],
          tokens=view.tokens, ops=self._ops,
          **dict(self._attention_options(), **more))

  def _feed_forward(self, x, stack, adapter):
    """float [rows, D]: x after the feed-forward half."""
    with tf.variable_scope("intermediate"):
      hidden = self._intermediate(self._before(x), stack)
    # BERT's names: the second product and the norm lie in `output`.
    return self._behind(x, hidden, adapter)

  # -------------------------------------------------------------- for a search

  def start(self, slots):
    """The decoder's start token, from where a search goes on.

    Args:
      slots: int, see decoding.

    Returns: decoding.Start.
    """
    shape = modeling.get_shape_list(self.encoder_output)[:1] + [1]
    ids = tf.fill(shape, self._config.decoder_start_token_id)
    nothing = tf.zeros(shape + [slots], tf.int32)
    logits, cache = self._step(ids, 0, 0, nothing, self._empty_caches(slots))

    def step(tokens, time, visible, cache):
      return self._step(tokens, time + 1, 1 + time * tokens.shape[1], visible,
                        cache)

    return decoding.Start(ids, tf.ones_like(ids), logits[:, 0], cache, step)

  def _empty_caches(self, slots):
    """For each layer (key, value), float [B, N, 1 + slots, H], of nothing yet.
    """
    stack = self._stack("decoder")
    zeros = tf.zeros(
        [modeling.get_shape_list(self.encoder_output)[0], stack.heads,
         1 + slots, stack.head_size], self.embedding_table.dtype)
    return [(zeros, zeros)] * stack.layers

  def _step(self, tokens, position, index, visible, caches):
    """One token more for each hypothesis.

    Args:
      tokens: int32 [B, K].
      position: int or int32 scalar; 0 is the start token's.
      index: int or int32 scalar, where in the caches their keys go.
      visible: int32 [B, K, slots], the generated tokens that each one sees.
      caches: for each layer (key, value), [B, N, 1 + slots, H]: the start
        token's and those of generated tokens.

    Returns: (float32 [B, K, V], the new caches).
    """
    shape = modeling.get_shape_list(visible)
    hypotheses = shape[1]
    start_is_seen = tf.ones(shape[:2] + [1], tf.int32)
    # Slot t * K + j is of the token at position 1 + t.
    key_positions = tf.concat(
        [[0], 1 + tf.range(shape[2]) // hypotheses], 0)
    with tf.variable_scope(self._scope, reuse=tf.AUTO_REUSE):
      with tf.variable_scope("decoder"):
        positions = tf.reshape(position, [1])
        view = _View(
            shape=shape[:2] + [self._config.d_model],
            mask=tf.concat([start_is_seen, visible], 2), causal=False,
            position_bias=self._position_bias(
                positions, _with_prefix(self._self_prefixes, key_positions),
                is_causal=True),
            tokens=None, index=index)
        outputs, caches = self._decode(tokens, positions, view, caches)
        return self.logits(outputs[-1]), caches


def _with_prefix(prefixes, positions):
  """int32 [P + T]: the positions of the keys; P of the prefix end before 0."""
  length = modeling.prefix_length(prefixes)
  return tf.concat([tf.range(-length, 0), positions], 0)


def _rows(x, view):
  """[B, F, D] -> [rows, D], on which the layers work."""
  x = modeling.reshape_to_matrix(x)
  return x if view.tokens is None else view.tokens.pack(x)


def _grid(x, view):
  """[rows, D] -> [B, F, D]."""
  if view.tokens is not None:
    x = view.tokens.unpack(x)
  return tf.reshape(x, view.shape)
