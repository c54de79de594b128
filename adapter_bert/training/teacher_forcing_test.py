"""Inputs, rows and losses of pairs, against hand-made ones."""

import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert.training import teacher_forcing

BATCH = {
    "source_ids": [[5, 6, 9], [7, 9, 9]], "source_mask": [[1, 1, 1], [1, 0, 0]],
    "target_ids": [[1, 2], [3, 0]], "target_mask": [[1, 1], [1, 0]],
}
PLAIN = {"source_ids": np.zeros([2, 0], np.int32),
         "source_mask": np.zeros([2, 0], np.int32),
         "target_ids": [[1, 2], [3, 0]], "target_mask": [[1, 1], [1, 0]]}


def computed(function, *arguments):
  with tf.Graph().as_default(), tf.Session() as session:
    tensors = [{k: tf.constant(v, tf.int32) for k, v in a.items()}
               if isinstance(a, dict) else a for a in arguments]
    return session.run(function(*tensors))


def test_a_decoder_reads_its_start_and_the_target_without_its_last_token():
  found = computed(teacher_forcing.encoder_decoder_inputs, BATCH, 8)
  np.testing.assert_array_equal(found["decoder_input_ids"], [[8, 1], [8, 3]])
  np.testing.assert_array_equal(found["decoder_input_mask"], [[1, 1], [1, 0]])
  np.testing.assert_array_equal(found["input_ids"], BATCH["source_ids"])


def test_source_and_target_are_joined_without_padding_between_them():
  found = computed(teacher_forcing.joined_inputs, BATCH)
  np.testing.assert_array_equal(found["input_ids"],
                                [[5, 6, 9, 1, 2], [7, 3, 0, 0, 0]])
  np.testing.assert_array_equal(found["input_mask"],
                                [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])


def test_each_target_is_predicted_from_the_token_before_it():
  with tf.Graph().as_default(), tf.Session() as session:
    hidden = tf.constant(np.arange(10).reshape(2, 5, 1), tf.float32)
    batch = {k: tf.constant(v, tf.int32) for k, v in BATCH.items()}
    found = session.run(teacher_forcing.before_targets(hidden, batch))
  np.testing.assert_array_equal(found[:, :, 0], [[2, 3], [5, 6]])


def logits_of(probabilities):
  return tf.constant(np.log(probabilities), tf.float32)


def test_losses_are_means_over_the_target():
  # Probabilities of the tokens 0 to 3.
  p = [[[.1, .2, .3, .4], [.4, .3, .2, .1]], [[.25, .25, .25, .25]] * 2]
  with tf.Graph().as_default(), tf.Session() as session:
    batch = {k: tf.constant(v, tf.int32) for k, v in BATCH.items()}
    mean, count = session.run(
        teacher_forcing.losses(logits_of(p), batch))
  np.testing.assert_allclose(
      mean, [-(np.log(.2) + np.log(.2)) / 2, -np.log(.25)], rtol=1e-5)
  np.testing.assert_array_equal(count, [2, 1])


def test_smoothed_losses():
  p = [[[.1, .2, .3, .4], [.4, .3, .2, .1]], [[.25, .25, .25, .25]] * 2]
  with tf.Graph().as_default(), tf.Session() as session:
    batch = {k: tf.constant(v, tf.int32) for k, v in BATCH.items()}
    mean, _ = session.run(
        teacher_forcing.losses(logits_of(p), batch, label_smoothing=.1))
  even = -np.mean(np.log([.1, .2, .3, .4]))
  np.testing.assert_allclose(
      mean, [.9 * -np.log(.2) + .1 * even, -np.log(.25)], rtol=1e-5)


def test_the_first_token_of_plain_text_is_not_asked_for():
  p = [[[.1, .2, .3, .4], [.4, .3, .2, .1]], [[.25, .25, .25, .25]] * 2]
  with tf.Graph().as_default(), tf.Session() as session:
    batch = {k: tf.constant(v, tf.int32) for k, v in PLAIN.items()}
    mean, count = session.run(teacher_forcing.losses(logits_of(p), batch))
  np.testing.assert_allclose(mean, [-np.log(.2), 0], rtol=1e-5)
  np.testing.assert_array_equal(count, [1, 0])
