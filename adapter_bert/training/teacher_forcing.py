"""How a sequence model is trained on pairs: it reads the right tokens and is
asked for the next one.

A batch is a dict of what data/datasets.py's sequences are: source_ids,
source_mask int32 [B, S] and target_ids, target_mask int32 [B, T], padding on
the right. An encoder-decoder reads the source in its encoder; GPT-2 reads source
and target one behind the other, without padding between them. Plain text has no
source: its first token is read, and not asked for.

Letters in the shapes below:
  B batch size   S source length   T target length   V vocabulary   D model width
"""

import tensorflow.compat.v1 as tf


def encoder_decoder_inputs(batch, start_token):
  """The dict of what an encoder-decoder reads.

  Args:
    batch: dict, see above.
    start_token: int, what stands before each target.
  """
  targets = batch["target_ids"]
  start = tf.fill([tf.shape(targets)[0], 1], start_token)
  return {"input_ids": batch["source_ids"], "input_mask": batch["source_mask"],
          "decoder_input_ids": tf.concat([start, targets[:, :-1]], 1),
          "decoder_input_mask": batch["target_mask"]}


def joined_inputs(batch):
  """The dict of what GPT-2 reads: int32 [B, S + T] each, padding at the end."""
  sources = tf.reduce_sum(batch["source_mask"], 1)[:, tf.newaxis]  # [B, 1]
  targets = tf.reduce_sum(batch["target_mask"], 1)[:, tf.newaxis]
  both = tf.concat([batch["source_ids"], batch["target_ids"]], 1)
  place = tf.range(tf.shape(both)[1])[tf.newaxis, :]               # [1, S + T]
  # Where in `both` the token is that belongs here.
  from_target = tf.shape(batch["source_ids"])[1] + place - sources
  index = tf.where(place < sources, tf.broadcast_to(place, tf.shape(both)),
                   tf.minimum(from_target, tf.shape(both)[1] - 1))
  mask = tf.cast(place < sources + targets, tf.int32)
  return {"input_ids": tf.gather(both, index, batch_dims=1) * mask,
          "input_mask": mask}


def before_targets(hidden, batch):
  """The rows of GPT-2's output from which the target's tokens are predicted.

  Args:
    hidden: float [B, S + T, D], over `joined_inputs`.
    batch: dict, see above.

  Returns: float [B, T, D]. Without a source there is nothing before the first
    token; its row is the first token's own and must not count.
  """
  sources = tf.reduce_sum(batch["source_mask"], 1)[:, tf.newaxis]
  steps = tf.range(tf.shape(batch["target_ids"])[1])[tf.newaxis, :]
  return tf.gather(hidden, tf.maximum(sources + steps - 1, 0), batch_dims=1)


def losses(logits, batch, label_smoothing=0.0):
  """Each example's loss.

  Args:
    logits: float32 [B, T, V].
    batch: dict, see above.
    label_smoothing: float; so much of the probability is spread evenly over the
      vocabulary (Szegedy et al. 2016, arXiv 1512.00567, section 7).

  Returns: (float32 [B], the mean over the tokens that are asked for; float32
    [B], their number).
  """
  asked = tf.cast(batch["target_mask"], tf.float32)
  first_has_source = tf.minimum(tf.reduce_sum(batch["source_mask"], 1), 1)
  asked *= tf.concat([tf.cast(first_has_source, tf.float32)[:, tf.newaxis],
                      tf.ones_like(asked[:, 1:])], 1)
  of_token = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=batch["target_ids"], logits=logits)  # [B, T]
  if label_smoothing:
    even = (tf.reduce_logsumexp(logits, axis=-1) -
            tf.reduce_mean(logits, axis=-1))
    of_token += label_smoothing * (even - of_token)
  count = tf.reduce_sum(asked, 1)
  return tf.reduce_sum(of_token * asked, 1) / tf.maximum(count, 1.0), count
