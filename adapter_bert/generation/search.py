"""Greedy, beam and sampled search over a model's step, in one graph.

The model runs over the prompt once and hands over a Start (models/decoding.py);
then a loop chooses tokens and calls its step, over a cache of keys and values of
fixed size. BART, GPT-2 and T5 are searched alike.

Letters in the shapes below:
  B rows of the batch     S length of the prompt   V vocabulary
  K hypotheses of a row   T max_new_tokens         n results of a row
"""

import collections
import dataclasses
from typing import Optional, Tuple, Union

import tensorflow.compat.v1 as tf

from adapter_bert.base import errors

_NONE = -float("inf")  # the score of what cannot be

# What is found, best first (sampled ones in no order).
#   ids: int32 [B, n, T], the generated tokens, padding behind the end.
#   lengths: int32 [B, n], with the end and without padding.
#   scores: float32 [B, n], the sum of the log-probabilities of these tokens,
#     divided by length ** length_penalty. -inf where there is no such result.
Found = collections.namedtuple("Found", ["ids", "lengths", "scores"])


@dataclasses.dataclass(frozen=True)
class Options(object):
  """How to search; the names and meanings are those of transformers.

  Attributes:
    max_new_tokens, min_new_tokens: int; before the minimum no end is chosen.
    num_beams: int, K; 1 is greedy, or sampled with do_sample.
    num_return_sequences: int, n; at most num_beams unless sampled.
    length_penalty: float, the exponent of the length in the scores.
    early_stopping: False: a row of a beam search goes on while its best
      hypothesis, at its present length, beats one of the K finished ones; True:
      until K are finished; "never": as False with the length max_new_tokens.
    do_sample: bool.
    temperature: float; the logits are divided by it.
    top_k: int, sample among the k likeliest; 0: all.
    top_p: float, among the likeliest that have this probability together: the
      token that crosses it is kept.
    repetition_penalty: float; the logit of a token that is there already is
      divided by it if positive, else multiplied.
    no_repeat_ngram_size: int, no n tokens come twice; 0: they may.
    forced_bos_token_id, forced_eos_token_id: int, the first token, and the last
      one when max_new_tokens is reached; None: not forced.
    eos_token_ids: tuple of int, each ends a row.
    pad_token_id: int, what follows the end.
  """
  max_new_tokens: int = 20
  min_new_tokens: int = 0
  num_beams: int = 1
  num_return_sequences: int = 1
  length_penalty: float = 1.0
  early_stopping: Union[bool, str] = False
  do_sample: bool = False
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  repetition_penalty: float = 1.0
  no_repeat_ngram_size: int = 0
  forced_bos_token_id: Optional[int] = None
  forced_eos_token_id: Optional[int] = None
  eos_token_ids: Tuple[int, ...] = ()
  pad_token_id: int = 0

  @property
  def hypotheses(self):
    """int, K: the hypotheses of a row."""
    return self.num_return_sequences if self.do_sample else self.num_beams

  @property
  def slots(self):
    """int: the keys that generated tokens take in the cache of a row."""
    return self.hypotheses * self.max_new_tokens

  def validate(self, vocab_size):
    """Raises InputError, one line, for options that no search can follow."""
    for name, is_good, allowed in (
        ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
        ("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens,
         "from 0 to max_new_tokens (%d)" % self.max_new_tokens),
        ("num_beams", 1 <= self.num_beams <= vocab_size,
         "from 1 to the size of the vocabulary (%d)" % vocab_size),
        ("num_return_sequences", self.num_return_sequences >= 1, "at least 1"),
        ("early_stopping", self.early_stopping in (True, False, "never"),
         "true, false or never"),
        ("temperature", self.temperature > 0, "above 0 (without do_sample the "
         "likeliest token is taken)"),
        ("top_k", 0 <= self.top_k <= vocab_size,
         "from 0 to the size of the vocabulary (%d)" % vocab_size),
        ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
        ("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0,
         "at least 0")):
      if not is_good:
        raise errors.InputError("%s is %s; it must be %s" %
                                (name, getattr(self, name), allowed))
    self._validate_together()
    self._validate_ids(vocab_size)

  def _validate_together(self):
    """Raises InputError for options that contradict each other."""
    if self.do_sample and self.num_beams > 1:
      raise errors.InputError(
          "do_sample is on and num_beams is %d; sampling in a beam search is "
          "not built: drop one of them" % self.num_beams)
    for name, neutral in (("temperature", 1.0), ("top_k", 0), ("top_p", 1.0)):
      if not self.do_sample and getattr(self, name) != neutral:
        raise errors.InputError(
            "%s is %s, but do_sample is off: it would change nothing; add "
            "do_sample, or drop it" % (name, getattr(self, name)))
    if not self.do_sample and self.num_return_sequences > self.num_beams:
      raise errors.InputError(
          "num_return_sequences is %d and num_beams %d; a search finds as many "
          "results as it has beams: give more beams, or do_sample" %
          (self.num_return_sequences, self.num_beams))

  def _validate_ids(self, vocab_size):
    named = [("eos_token_id", token) for token in self.eos_token_ids]
    named += [(name, getattr(self, name)) for name in (
        "pad_token_id", "forced_bos_token_id", "forced_eos_token_id")]
    for name, token in named:
      if token is not None and not 0 <= token < vocab_size:
        raise errors.InputError(
            "%s is %s, and the model's tokens are 0 to %d" %
            (name, token, vocab_size - 1))


def search(start, options, seeds=None):
  """Goes on from a prompt.

  Args:
    start: models.decoding.Start.
    options: Options, validated.
    seeds: int32 [B, 2], what a row's random numbers are made from; needed with
      do_sample. A row with the same seed and prompt gets the same tokens in
      whatever batch.

  Returns: Found.
  """
  method = (_Beams(start, options) if options.num_beams > 1 else
            _Walks(start, options, seeds))
  state = method.advance(method.begin(), tf.expand_dims(start.logits, 1))

  def body(state, cache):
    logits, cache = start.step(state.tokens, state.time - 1, state.visible,
                               cache)
    return method.advance(state, logits), cache

  def body_of_same_shapes(*before):
    after = body(*before)
    for old, new in zip(tf.nest.flatten(before), tf.nest.flatten(after)):
      new.set_shape(old.shape)
    return after

  state, _ = tf.while_loop(
      lambda state, _: tf.logical_and(state.time < options.max_new_tokens,
                                      method.is_open(state)),
      body_of_same_shapes, (state, start.cache), back_prop=False,
      parallel_iterations=1)
  return method.result(state)


# The hypotheses that live.
#   time: int32 scalar, how many tokens are generated.
#   tokens: int32 [B, K], the last of them.
#   ids: int32 [B, K, T], all of them, then padding.
#   sums: float32 [B, K], their log-probabilities.
#   visible: int32 [B, K, K * T], see models/decoding.py.
#   more: what one method has beside this.
_State = collections.namedtuple(
    "_State", ["time", "tokens", "ids", "sums", "visible", "more"])


def _begin(start, options, sums, more):
  """The _State before the first token."""
  rows, hypotheses = tf.shape(start.ids)[0], options.hypotheses
  return _State(
      time=tf.constant(0),
      tokens=tf.zeros([rows, hypotheses], tf.int32),
      ids=tf.fill([rows, hypotheses, options.max_new_tokens],
                  options.pad_token_id),
      sums=sums,
      visible=tf.zeros([rows, hypotheses, options.slots], tf.int32),
      more=more)


def _with_token(ids, tokens, time):
  """ids [B, ., T] with tokens [B, .] at position `time`."""
  here = tf.equal(tf.range(tf.shape(ids)[2]), time)
  return tf.where_v2(here, tokens[:, :, tf.newaxis], ids)


def _with_slots(visible, time, options):
  """The mask, with each hypothesis's own slot for token number `time`."""
  count = options.hypotheses
  return visible + tf.one_hot(time * count + tf.range(count), options.slots,
                              dtype=tf.int32)


def _is_end(tokens, options):
  """bool, the shape of tokens: which of them are an end."""
  found = tf.zeros_like(tokens, tf.bool)
  for token in options.eos_token_ids:
    found = tf.logical_or(found, tf.equal(tokens, token))
  return found


def _chosen(values, tokens):
  """values [B, K, V] at tokens [B, K]."""
  return tf.gather(values, tokens, batch_dims=2)


def _per_length(sums, length, options):
  """sums / length ** length_penalty, all float32."""
  return sums / tf.pow(tf.cast(length, tf.float32), options.length_penalty)


class _Walks(object):
  """Hypotheses that know nothing of each other: greedy, or n samples a row.

  Their _State's `more` is bool [B, K], which go on.
  """

  def __init__(self, start, options, seeds):
    self._start, self._options = start, options
    if options.do_sample:
      self._uniform = _uniform(seeds, options)  # [B, K, T]

  def begin(self):
    shape = [tf.shape(self._start.ids)[0], self._options.hypotheses]
    return _begin(self._start, self._options, sums=tf.zeros(shape),
                  more=tf.ones(shape, tf.bool))

  def advance(self, state, logits):
    """The next _State; logits are float32 [B, K or 1, V]."""
    options, alive = self._options, state.more
    logits = tf.broadcast_to(logits, tf.concat(
        [tf.shape(alive), tf.shape(logits)[2:]], 0))
    scores = _constrained(logits, self._start, state, options)
    if options.do_sample:
      tokens = _sampled(scores, self._uniform[:, :, state.time], options)
    else:
      tokens = tf.argmax(scores, -1, output_type=tf.int32)
    # A token that nothing allows has no probability, whatever the model says.
    gained = tf.where_v2(_chosen(scores, tokens) > _NONE,
                         _chosen(tf.nn.log_softmax(logits), tokens), _NONE)
    tokens = tf.where_v2(alive, tokens, options.pad_token_id)
    return _State(
        time=state.time + 1, tokens=tokens,
        ids=_with_token(state.ids, tokens, state.time),
        sums=state.sums + tf.where_v2(alive, gained, 0.0),
        visible=_with_slots(state.visible, state.time, options),
        more=tf.logical_and(alive, tf.logical_not(_is_end(tokens, options))))

  def is_open(self, state):
    return tf.reduce_any(state.more)

  def result(self, state):
    lengths = _lengths(state.ids, state.time, self._options)
    return Found(state.ids, lengths,
                 _per_length(state.sums, lengths, self._options))


def _lengths(ids, time, options):
  """int32 [B, .]: tokens up to the first end, or `time` of them."""
  ends = tf.cast(_is_end(ids, options), tf.int32)
  before = tf.equal(tf.cumsum(ends, axis=-1, exclusive=True), 0)
  before = tf.logical_and(before, tf.range(tf.shape(ids)[-1]) < time)
  return tf.reduce_sum(tf.cast(before, tf.int32), -1)


# The finished hypotheses of a beam search, and which rows still look for more:
# ids int32 [B, K, T], scores float32 [B, K], is_open bool [B].
_Finished = collections.namedtuple("_Finished", ["ids", "scores", "is_open"])


class _Beams(object):
  """Beam search, with the rules of transformers 4.57.

  Their _State's `more` is _Finished. A score of -inf means that there is none.
  """

  def __init__(self, start, options):
    self._start, self._options = start, options
    # Enough that K of them do not end, even if all others do.
    self._candidates = options.num_beams * max(
        2, 1 + len(options.eos_token_ids))

  def begin(self):
    rows, beams = tf.shape(self._start.ids)[0], self._options.num_beams
    nothing = tf.fill([rows, beams], _NONE)
    finished = _Finished(
        tf.fill([rows, beams, self._options.max_new_tokens],
                self._options.pad_token_id),
        nothing, tf.ones([rows], tf.bool))
    # One live hypothesis.
    return _begin(self._start, self._options, more=finished, sums=tf.concat(
        [tf.zeros([rows, 1]), nothing[:, 1:]], 1))

  def advance(self, state, logits):
    """The next _State; logits are float32 [B, K or 1, V]."""
    scores = _constrained(tf.nn.log_softmax(logits), self._start, state,
                          self._options)
    scores += state.sums[:, :, tf.newaxis]                # [B, K, V]
    vocab_size = tf.shape(scores)[2]
    scores, flat = tf.math.top_k(
        tf.reshape(scores, [tf.shape(scores)[0], -1]), self._candidates)
    beams, tokens = flat // vocab_size, flat % vocab_size  # [B, candidates]
    ids = _with_token(tf.gather(state.ids, beams, batch_dims=1), tokens,
                      state.time)
    ends = _is_end(tokens, self._options)
    sums, kept = tf.math.top_k(tf.where_v2(ends, _NONE, scores),
                               self._options.num_beams)
    keep = lambda tensor: tf.gather(tensor, kept, batch_dims=1)
    return _State(
        time=state.time + 1, tokens=keep(tokens), ids=keep(ids), sums=sums,
        visible=_with_slots(
            tf.gather(state.visible, keep(beams), batch_dims=1), state.time,
            self._options),
        more=self._finish(state, ids, scores, ends, sums[:, 0]))

  def _finish(self, state, ids, scores, ends, best_live):
    """The next _Finished.

    Args:
      state: _State, before this token.
      ids, scores, ends: of the candidates, best first, with this token.
      best_live: float32 [B], the best sum of those that go on.
    """
    options, before = self._options, state.more
    length = state.time + 1
    ends = tf.logical_or(ends, tf.equal(length, options.max_new_tokens))
    ends = tf.logical_and(ends[:, :options.num_beams],
                          before.is_open[:, tf.newaxis])
    # Those that end but rank behind the first K are dropped.
    scores = scores[:, :options.num_beams]
    scores = tf.where_v2(ends, _per_length(scores, length, options), _NONE)
    scores, kept = tf.math.top_k(tf.concat([before.scores, scores], 1),
                                 options.num_beams)
    ids = tf.gather(tf.concat([before.ids, ids[:, :options.num_beams]], 1),
                    kept, batch_dims=1)
    is_open = tf.logical_not(tf.reduce_all(scores > _NONE, 1))
    if options.early_stopping is not True:
      if options.early_stopping == "never" and options.length_penalty > 0:
        length = options.max_new_tokens
      is_open = tf.logical_or(
          is_open, _per_length(best_live, length, options) > scores[:, -1])
    return _Finished(ids, scores, tf.logical_and(before.is_open, is_open))

  def is_open(self, state):
    return tf.reduce_any(state.more.is_open)

  def result(self, state):
    count = self._options.num_return_sequences
    ids = state.more.ids[:, :count]
    return Found(ids, _lengths(ids, state.time, self._options),
                 state.more.scores[:, :count])


# ------------------------------------------------- what may be chosen, by whom


def _constrained(scores, start, state, options):
  """scores [B, K or 1, V], -inf for what the options forbid here."""
  if options.repetition_penalty != 1 or options.no_repeat_ngram_size:
    ids, known = _history(start, state, options)
    scores = tf.broadcast_to(scores, tf.concat(
        [tf.shape(ids)[:2], tf.shape(scores)[2:]], 0))
    if options.repetition_penalty != 1:
      seen = _among(ids, known, scores)
      scores = tf.where_v2(
          seen, _penalized(scores, options.repetition_penalty), scores)
    if options.no_repeat_ngram_size:
      would_repeat = _repeats(ids, known, tf.shape(start.ids)[1] + state.time,
                              options.no_repeat_ngram_size)
      scores = tf.where_v2(_among(ids, would_repeat, scores), _NONE, scores)
  vocab_size = tf.shape(scores)[2]
  if options.min_new_tokens and options.eos_token_ids:
    too_early = state.time < options.min_new_tokens
    scores = tf.where_v2(
        tf.logical_and(too_early, _is_end(tf.range(vocab_size), options)),
        _NONE, scores)
  for token, time in ((options.forced_bos_token_id, 0),
                      (options.forced_eos_token_id,
                       options.max_new_tokens - 1)):
    if token is not None:
      forced = tf.where_v2(tf.equal(tf.range(vocab_size), token), 0.0, _NONE)
      scores = tf.where_v2(tf.equal(state.time, time), forced, scores)
  return scores


def _penalized(scores, penalty):
  return tf.where_v2(scores > 0, scores / penalty, scores * penalty)


def _history(start, state, options):
  """(prompt and generated tokens int32 [B, K, S + T], bool: which are tokens)."""
  shape = tf.concat([tf.shape(state.tokens), tf.shape(start.ids)[1:]], 0)
  of_all = lambda tensor: tf.broadcast_to(tensor[:, tf.newaxis], shape)
  new = tf.broadcast_to(tf.range(options.max_new_tokens) < state.time,
                        tf.shape(state.ids))
  return (tf.concat([of_all(start.ids), state.ids], 2),
          tf.concat([of_all(start.mask > 0), new], 2))


def _among(ids, wanted, scores):
  """bool, the shape of scores [B, K, V]: the ids [B, K, L] that are wanted."""
  rows, length = tf.size(ids[:, :, 0]), tf.shape(ids)[2]
  row = tf.repeat(tf.range(rows), length)
  counts = tf.scatter_nd(
      tf.stack([row, tf.reshape(ids, [-1])], 1),
      tf.reshape(tf.cast(wanted, tf.int32), [-1]),
      [rows, tf.shape(scores)[2]])
  return tf.reshape(counts > 0, tf.shape(scores))


def _repeats(ids, known, end, size):
  """Which tokens followed, once before, what the sequence ends with now.

  Args:
    ids: int32 [B, K, L]; known: bool, which of them are tokens.
    end: int32 scalar, the sequence's length up to now.
    size: int, n: the last n - 1 tokens count.

  Returns: bool [B, K, L].
  """
  past = size - 1
  margin = [[0, 0], [0, 0], [past, 0]]
  ids, found = tf.pad(ids, margin), known
  known = tf.pad(known, margin)
  length = tf.shape(found)[2]
  for i in range(past):
    token = ids[:, :, end + i, tf.newaxis]
    is_token = known[:, :, end + i, tf.newaxis]
    same = tf.equal(ids[:, :, i:i + length], token)
    same = tf.logical_and(same, known[:, :, i:i + length])
    found = tf.logical_and(found, tf.logical_and(same, is_token))
  return found


def _uniform(seeds, options):
  """float32 [B, K, T] from 0 up to, not including, 1, from int32 [B, 2]."""
  shape = [options.hypotheses, options.max_new_tokens]
  numbers = tf.map_fn(lambda seed: tf.random.stateless_uniform(shape, seed),
                      seeds, dtype=tf.float32)
  return tf.ensure_shape(numbers, [None] + shape)


def _sampled(scores, uniform, options):
  """int32 [B, K]: a token each.

  Args:
    scores: float32 [B, K, V], logits.
    uniform: float32 [B, K], random numbers.
    options: Options, of which temperature, top_k and top_p count, in this order.
  """
  count = options.top_k or tf.shape(scores)[2]
  logits, tokens = tf.math.top_k(scores / options.temperature, count)
  p = tf.nn.softmax(logits)
  # The first is always there, and so is the one that crosses top_p.
  p = tf.where_v2(tf.cumsum(p, axis=-1, exclusive=True) < options.top_p, p, 0.0)
  total = tf.cumsum(p, axis=-1)
  below = total <= uniform[:, :, tf.newaxis] * total[:, :, -1:]
  # Rounding must not lead to one that has no probability.
  place = tf.minimum(tf.reduce_sum(tf.cast(below, tf.int32), -1),
                     tf.reduce_sum(tf.cast(p > 0, tf.int32), -1) - 1)
  return _chosen(tokens, place)
