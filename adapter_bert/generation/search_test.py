"""Searches over a toy whose probabilities depend on the whole past.

The toy's cache holds tokens, and it finds a hypothesis's past through `visible`
alone: a wrong mask gives other numbers.
"""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.generation import search
from adapter_bert.models import decoding

V, T = 7, 6
EOS, PAD = 6, 0
PROMPTS = np.array([[0, 1, 2], [3, 4, 1], [0, 0, 5]], np.int32)
MASK = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1]], np.int32)
WEIGHTS = np.random.RandomState(0).normal(size=[2, V]) * 3


def options(**changes):
  values = dict(max_new_tokens=T, eos_token_ids=(EOS,), pad_token_id=PAD)
  return search.Options(**dict(values, **changes))


def toy_logits(past):
  """float64 [V]: the toy's logits after a list of tokens."""
  total = sum((t + 1) * (token + 1) for t, token in enumerate(past))
  return np.sin(WEIGHTS[0] * total) * 2 + np.cos(WEIGHTS[1] * past[-1])


def toy_start(prompts, mask, options_):
  """The toy as a Start."""
  lengths = mask.sum(1)
  before = np.array([sum((t + 1) * (token + 1) for t, token in enumerate(
      row[-length:])) for row, length in zip(prompts, lengths)], np.float32)
  rows = len(prompts)
  count = options_.hypotheses
  weights = tf.constant(WEIGHTS, tf.float32)

  def logits_of(total, last):
    return (tf.sin(weights[0] * total[..., None]) * 2 +
            tf.cos(weights[1] * tf.cast(last, tf.float32)[..., None]))

  def step(tokens, time, visible, cache):
    slots = tf.range(options_.slots)
    new = tf.gather(tokens, slots % count, axis=1)
    cache = tf.where_v2(tf.equal(slots // count, time), new, cache)
    number = tf.cast(slots // count + 1, tf.float32) + lengths[:, None]
    value = tf.cast(number, tf.float32) * tf.cast(cache + 1, tf.float32)
    total = tf.reduce_sum(value[:, None] * tf.cast(visible, tf.float32), -1)
    return logits_of(total + before[:, None], tokens), cache

  return decoding.Start(
      ids=tf.constant(prompts), mask=tf.constant(mask),
      logits=logits_of(tf.constant(before), tf.constant(prompts[:, -1])),
      cache=tf.zeros([rows, options_.slots], tf.int32), step=step)


def run(options_, prompts=PROMPTS, mask=MASK, seeds=None):
  """What a search over the toy finds, as numpy."""
  options_.validate(V)
  with test_util.graph():
    found = search.search(toy_start(prompts, mask, options_), options_,
                          None if seeds is None else tf.constant(seeds))
    with tf.Session() as session:
      return search.Found(*session.run(list(found)))


def log_softmax(logits):
  return logits - np.log(np.sum(np.exp(logits)))


def padded(tokens):
  return list(tokens) + [PAD] * (T - len(tokens))


def plain_greedy(prompt):
  """(tokens, sum of log-probabilities) by a plain loop."""
  tokens, total = [], 0.0
  while len(tokens) < T and EOS not in tokens:
    scores = log_softmax(toy_logits(prompt + tokens))
    tokens.append(int(np.argmax(scores)))
    total += scores[tokens[-1]]
  return tokens, total


def plain_beam(prompt, beams, penalty, early_stopping):
  """[(score, tokens)], best first: the rules one by one, over lists."""
  live, finished = [(0.0, [])], []
  for length in range(1, T + 1):
    candidates = sorted(
        ((total + score, past + [token]) for total, past in live
         for token, score in enumerate(log_softmax(toy_logits(prompt + past)))),
        reverse=True)[:2 * beams]
    ends = [tokens[-1] == EOS or length == T for _, tokens in candidates]
    finished += [(total / length ** penalty, tokens) for (total, tokens), end
                 in list(zip(candidates, ends))[:beams] if end]
    finished = sorted(finished, reverse=True)[:beams]
    live = [c for c, end in zip(candidates, ends) if not end][:beams]
    if length == T or len(finished) < beams:
      continue
    best_length = T if early_stopping == "never" and penalty > 0 else length
    if early_stopping is True or (
        live[0][0] / best_length ** penalty <= finished[-1][0]):
      break
  return finished


def prompt_of(row):
  return [int(token) for token in PROMPTS[row][MASK[row] == 1]]


def test_greedy_is_the_plain_loop():
  found = run(options())
  for row in range(3):
    tokens, total = plain_greedy(prompt_of(row))
    assert found.ids[row, 0].tolist() == padded(tokens)
    assert found.lengths[row, 0] == len(tokens)
    assert found.scores[row, 0] == pytest.approx(total / len(tokens), abs=1e-4)


@pytest.mark.parametrize("beams,results,penalty,early_stopping", [
    (2, 1, 1.0, False), (3, 3, 2.0, True), (3, 3, 0.0, False),
    (3, 3, -1.0, "never"), (4, 2, 1.0, "never"), (7, 7, 0.5, False)])
def test_beam_search_is_the_plain_one(beams, results, penalty, early_stopping):
  found = run(options(num_beams=beams, num_return_sequences=results,
                      length_penalty=penalty, early_stopping=early_stopping))
  for row in range(3):
    expected = plain_beam(prompt_of(row), beams, penalty,
                          early_stopping)[:results]
    assert found.ids[row].tolist() == [padded(t) for _, t in expected]
    np.testing.assert_allclose(found.scores[row], [s for s, _ in expected],
                               atol=1e-4)


def test_one_beam_is_greedy(monkeypatch):
  greedy = run(options())
  monkeypatch.setattr(search, "_Walks",
                      lambda start, options_, _: search._Beams(start, options_))
  for mine, theirs in zip(run(options()), greedy):
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("changes", [
    dict(), dict(num_beams=3, num_return_sequences=2),
    dict(do_sample=True, num_return_sequences=2, top_k=5, top_p=0.9)])
def test_a_row_alone_is_the_row_in_the_batch(changes):
  seeds = np.array([[7, row] for row in range(3)], np.int32)
  together = run(options(no_repeat_ngram_size=2, **changes), seeds=seeds)
  again = run(options(no_repeat_ngram_size=2, **changes), seeds=seeds)
  for row in range(3):
    cut = PROMPTS[row:row + 1, MASK[row] == 1]
    alone = run(options(no_repeat_ngram_size=2, **changes), cut,
                np.ones_like(cut), seeds[row:row + 1])
    for mine, theirs, same in zip(alone, together, again):
      np.testing.assert_allclose(mine[0], theirs[row], rtol=1e-5)
      np.testing.assert_array_equal(theirs[row], same[row])


def test_another_seed_gives_other_samples():
  found = [run(options(do_sample=True, num_return_sequences=4),
               seeds=np.array([[seed, row] for row in range(3)], np.int32))
           for seed in (0, 1)]
  assert (found[0].ids != found[1].ids).any()
  # And the samples of a row differ.
  assert len({tuple(ids) for ids in found[0].ids[0]}) > 1


def sampled(uniform, **changes):
  """Tokens for logits of probabilities .5, .25, .125, .125 (of 2, 0, 3, 1)."""
  logits = np.log(np.array([[[0.25, 0.125, 0.5, 0.125 - 1e-6]]], np.float32))
  with test_util.graph():
    tokens = search._sampled(
        tf.tile(tf.constant(logits), [1, len(uniform), 1]),
        tf.constant([uniform], tf.float32), options(do_sample=True, **changes))
    with tf.Session() as session:
      return session.run(tokens)[0].tolist()


@pytest.mark.parametrize("changes,uniform,expected", [
    (dict(), [0.0, 0.49, 0.51, 0.74, 0.76, 0.99], [2, 2, 0, 0, 1, 3]),
    # Two thirds and one third are left.
    (dict(top_k=2), [0.0, 0.66, 0.67, 0.9999999], [2, 2, 0, 0]),
    (dict(top_k=1), [0.0, 0.9999999], [2, 2]),
    # The token that crosses p is kept: .5 + .25 for .51 and for .75, not .76.
    (dict(top_p=0.4), [0.0, 0.9999999], [2, 2]),
    (dict(top_p=0.51), [0.66, 0.67], [2, 0]),
    (dict(top_p=0.76), [0.56, 0.58, 0.86, 0.99], [2, 0, 1, 1]),
    # Of the two that top_k leaves, the first has 2/3 already.
    (dict(top_k=2, top_p=0.6), [0.0, 0.9999999], [2, 2]),
    # Square roots, .7071 and .5 and twice .3536.
    (dict(temperature=2.0), [0.36, 0.38, 0.62, 0.64], [2, 0, 0, 1]),
])
def test_sampling_hand_worked(changes, uniform, expected):
  # The order of the two equal ones is not ours to say.
  swapped = [{1: 3, 3: 1}.get(token, token) for token in expected]
  assert sampled(uniform, **changes) in (expected, swapped)


def constrained(scores, time, generated, **changes):
  """float32 [V]: scores after the prompt 1 2 1 (padded) and some tokens."""
  options_ = options(**changes)
  prompt = np.array([[5, 5, 1, 2, 1]], np.int32)
  mask = np.array([[0, 0, 1, 1, 1]], np.int32)
  with test_util.graph():
    start = decoding.Start(tf.constant(prompt), tf.constant(mask), None, None,
                         None)
    state = search._begin(start, options_, None, None)._replace(
        time=tf.constant(time),
        ids=tf.constant([[padded(generated)]], tf.int32))
    output = search._constrained(tf.constant([[scores]], tf.float32), start,
                                 state, options_)
    with tf.Session() as session:
      return session.run(output)[0, 0].tolist()


NONE = -math.inf
SCORES = [1.0, 2.0, -2.0, 3.0, 4.0, 5.0, -6.0]


@pytest.mark.parametrize("time,generated,changes,expected", [
    # 1, 2 and 3 are there; 5 is padding, and 0 what is not generated yet.
    (1, [3], dict(repetition_penalty=2.0), [1, 1, -4, 1.5, 4, 5, -6]),
    (0, [], dict(no_repeat_ngram_size=1), [1, NONE, NONE, 3, 4, 5, -6]),
    # 1 2 1: after 1 came 2.
    (0, [], dict(no_repeat_ngram_size=2), [1, 2, NONE, 3, 4, 5, -6]),
    # 1 2 1 2: after 1 2 came 1; after 1 2 1 2 nothing did.
    (1, [2], dict(no_repeat_ngram_size=3), [1, NONE, -2, 3, 4, 5, -6]),
    (1, [2], dict(no_repeat_ngram_size=5), SCORES),
    (0, [], dict(no_repeat_ngram_size=6), SCORES),
    (1, [2], dict(min_new_tokens=2), SCORES[:6] + [NONE]),
    (2, [2, 3], dict(min_new_tokens=2), SCORES),
    (0, [], dict(forced_bos_token_id=4), [NONE] * 4 + [0, NONE, NONE]),
    (1, [4], dict(forced_bos_token_id=4), SCORES),
    (T - 2, [4] * (T - 2), dict(forced_eos_token_id=6), SCORES),
    (T - 1, [4] * (T - 1), dict(forced_eos_token_id=6), [NONE] * 6 + [0]),
])
def test_constraints_hand_worked(time, generated, changes, expected):
  assert constrained(SCORES, time, generated, **changes) == expected


def test_where_nothing_is_allowed_there_is_no_score():
  found = run(options(no_repeat_ngram_size=1, eos_token_ids=(),
                      max_new_tokens=T), PROMPTS[1:2], MASK[1:2])
  # 3, 4 and 1 are taken, four are left.
  assert len(set(found.ids[0, 0, :4])) == 4
  assert found.scores[0, 0] == NONE


@pytest.mark.parametrize("changes,message", [
    (dict(num_beams=8), "num_beams is 8; it must be from 1 to the size of the "
                        "vocabulary"),
    (dict(max_new_tokens=0), "max_new_tokens is 0"),
    (dict(min_new_tokens=7), "min_new_tokens is 7; .* max_new_tokens .6."),
    (dict(do_sample=True, num_beams=2), "drop one of them"),
    (dict(do_sample=True, temperature=0.0), "temperature is 0.0"),
    (dict(temperature=0.5), "do_sample is off"),
    (dict(top_k=3), "do_sample is off"),
    (dict(top_p=0.5), "do_sample is off"),
    (dict(do_sample=True, top_p=1.5), "top_p is 1.5"),
    (dict(do_sample=True, top_k=8), "top_k is 8"),
    (dict(num_return_sequences=2), "num_return_sequences is 2 and num_beams 1"),
    (dict(repetition_penalty=0.0), "repetition_penalty is 0.0"),
    (dict(early_stopping="soon"), "early_stopping is soon"),
    (dict(eos_token_ids=(7,)), "eos_token_id is 7, and the model's tokens are "
                               "0 to 6"),
])
def test_options_that_cannot_be_followed(changes, message):
  with pytest.raises(errors.InputError, match=message):
    options(**changes).validate(V)
