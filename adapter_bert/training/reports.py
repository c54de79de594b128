"""What people see of a training run: progress, and scalars for TensorBoard."""

import sys
import time

from absl import logging
import tensorflow.compat.v1 as tf


class Report(object):
  """Progress for people and scalars for TensorBoard, after each step.

  To be made right before the first step: the speed is counted from that one's
  end on, since it also builds and warms up.

  Args:
    spec: loop.TrainSpec.
    output_dir: str, where the events go.
  """

  SUMMARY_STEPS = 20

  def __init__(self, spec, output_dir):
    self._spec = spec
    self._writer = summary_writer(output_dir)
    self._tty = sys.stderr.isatty()
    self._interval = 0.5 if self._tty else 10.0
    self._began = None
    self._last = self._last_summary = time.monotonic()

  def step(self, step, loss, rate):
    """Takes note of a step.

    Args:
      step: int, how many are done now.
      loss, rate: floats, the step's loss and its learning rate.
    """
    now = time.monotonic()
    if self._began is None:
      self._began, self._first, self._summary_step = now, step, step
    done = step >= self._spec.num_train_steps
    if step % self.SUMMARY_STEPS == 0 or done:
      self._summarize(step, loss, rate, now)
    if now - self._last >= self._interval or done:
      self._last = now
      self._show(step, loss, now, done)

  def _summarize(self, step, loss, rate, now):
    """Scalars: loss, learning_rate, and examples_per_second since the last."""
    scalars = {"loss": loss, "learning_rate": rate}
    if now > self._last_summary and step > self._summary_step:
      scalars["examples_per_second"] = (
          (step - self._summary_step) * self._spec.batch_size /
          (now - self._last_summary))
    self._last_summary, self._summary_step = now, step
    self._writer.add_summary(scalar_summary(scalars), step)

  def _show(self, step, loss, now, done):
    speed = (step - self._first) / max(now - self._began, 1e-6)
    left = (self._spec.num_train_steps - step) / speed if speed else 0
    text = "step %d/%d  loss %.4f  %.1f examples/s  %s left" % (
        step, self._spec.num_train_steps, loss, speed * self._spec.batch_size,
        duration(left))
    if self._tty:
      print("\r%-78s" % text, end="\n" if done else "", file=sys.stderr,
            flush=True)
    else:
      logging.info("%s", text)

  def flush(self):
    """Writes what TensorBoard is to see by now."""
    self._writer.flush()


def summary_writer(directory):
  """The process's tf.summary.FileWriter of a directory."""
  # It writes the default graph first, and the model's is 10 MB for six layers.
  with tf.Graph().as_default():
    return tf.summary.FileWriterCache.get(directory)


def scalar_summary(scalars):
  """tf.Summary of a dict of name -> float."""
  return tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=value)
                           for name, value in sorted(scalars.items())])


def duration(seconds):
  """"1:02:03" of a number of seconds."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return "%d:%02d:%02d" % (hours, minutes, seconds)
