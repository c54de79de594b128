"""What an exported model can be asked: signatures over a SharedModel's graph.

For each task, by its name in small letters (`mrpc`, `sst-2`):

  mrpc       input_ids, input_mask, segment_ids: int32 [B, S]
  mrpc_ids   input_ids alone, padded with 0: the mask is where they are not 0,
             and segment 1 begins behind the first [SEP]

and `serving_default`, which is the first task's. They give

  probabilities  float32 [B, labels]     label_ids  int32 [B]
  labels         string [B]

or, for a regression, `scores` alone, float32 [B]. If several tasks are in one
stack there is `tasks`, whose `task_ids`, int32 [B], says for each row which
task it is asked about, by the number in assets/tasks.json. Then a task's
probabilities are followed by zeros; a row of a classification has a score of 0,
and one of a regression the label "", number -1.
"""

import tensorflow.compat.v1 as tf

from adapter_bert.serving import saved_model

MIXED = "tasks"
DEFAULT = "serving_default"
_KEYS = ("input_ids", "input_mask", "segment_ids")


def build(model, sep_id):
  """Builds all signatures in the graph of a SharedModel.

  Args:
    model: shared_model.SharedModel.
    sep_id: int, [SEP].

  Returns: (dict of signature name -> SignatureDef; the places of the tasks that
    `tasks` knows by the numbers 0, 1, ..., empty without such a signature).
  """
  found = {}
  with model.graph.as_default():
    batch = {key: tf.placeholder(tf.int32, [None, None], key) for key in _KEYS}
    ids = batch["input_ids"]
    ids_alone = {"input_ids": ids}
    from_ids = _from_ids(ids, sep_id)
    functions = [_function(model, group) for group in range(len(model.groups))]
    for place, task in enumerate(model.tasks):
      group, number = model.group_of(place)
      for suffix, inputs, used in (("", batch, batch),
                                   ("_ids", ids_alone, from_ids)):
        outputs = functions[group](*[used[key] for key in _KEYS], [number])
        found[task.name.lower() + suffix] = saved_model.signature(
            inputs, _of_one_task(task.task, outputs))
    found[DEFAULT] = found[model.tasks[0].name.lower()]
    members = max(model.members, key=len)
    if len(members) == 1:
      return found, []
    task_ids = tf.placeholder(tf.int32, [None], "task_ids")
    with tf.control_dependencies(_checks(task_ids, ids, len(members))):
      numbers = tf.identity(task_ids)
    outputs = functions[model.members.index(members)](
        *[batch[key] for key in _KEYS], numbers)
    found[MIXED] = saved_model.signature(
        dict(batch, task_ids=task_ids),
        _of_many_tasks([model.tasks[place].task for place in members], numbers,
                       outputs))
    return found, members


def _from_ids(ids, sep_id):
  """The batch that only padded ids are given of."""
  mask = tf.cast(tf.not_equal(ids, 0), tf.int32)
  is_sep = tf.cast(tf.equal(ids, sep_id), tf.int32)
  behind = tf.cumsum(is_sep, axis=1, exclusive=True)
  return {"input_ids": ids, "input_mask": mask,
          "segment_ids": tf.minimum(behind, 1) * mask}


def _function(model, group):
  """The model of a group as a function of the graph, there once for all tasks.
  """

  @tf.function(autograph=False, input_signature=[
      tf.TensorSpec([None, None], tf.int32)] * 3 + [
          tf.TensorSpec([None], tf.int32)])
  def call(input_ids, input_mask, segment_ids, numbers):
    batch = dict(zip(_KEYS, (input_ids, input_mask, segment_ids)))
    return model.outputs(group, batch, numbers)

  return call


def _of_one_task(task, outputs):
  """name -> tensor: what a task says, of float32 [B, L]."""
  if task.is_regression:
    return {"scores": outputs[:, 0]}
  probabilities = outputs[:, :task.num_labels]
  label_ids = tf.argmax(probabilities, axis=1, output_type=tf.int32)
  return {"probabilities": probabilities, "label_ids": label_ids,
          "labels": tf.gather(tf.constant(list(task.labels)), label_ids)}


def _of_many_tasks(tasks, numbers, outputs):
  """The same of rows of several tasks; numbers: int32 [B], the task of each."""
  is_score = tf.gather(tf.constant([t.is_regression for t in tasks]), numbers)
  width = max(task.num_labels for task in tasks)
  table = tf.constant([
      ([] if task.is_regression else list(task.labels)) + [""] * (
          width - (0 if task.is_regression else task.num_labels))
      for task in tasks])
  label_ids = tf.argmax(outputs, axis=1, output_type=tf.int32)
  labels = tf.gather_nd(table, tf.stack([numbers, label_ids], axis=1))
  zeros = tf.zeros_like(outputs)
  found = {}
  if not all(task.is_regression for task in tasks):
    found["probabilities"] = tf.where(
        tf.broadcast_to(is_score[:, tf.newaxis], tf.shape(outputs)), zeros,
        outputs)
    found["label_ids"] = tf.where(is_score, -tf.ones_like(label_ids), label_ids)
    found["labels"] = tf.where(is_score, tf.fill(tf.shape(labels), ""), labels)
  if any(task.is_regression for task in tasks):
    found["scores"] = tf.where(is_score, outputs[:, 0], zeros[:, 0])
  return found


def _checks(task_ids, ids, count):
  """Ops that refuse numbers of no task; on a GPU a gather would give zeros."""
  message = "task_ids must be a number from 0 to %d for each row" % (count - 1)
  return [tf.debugging.assert_non_negative(task_ids, message=message),
          tf.debugging.assert_less(task_ids, count, message=message),
          tf.debugging.assert_equal(tf.shape(task_ids)[0], tf.shape(ids)[0],
                                    message=message)]
