"""The weighted mean of task checkpoints, as a new one.

With weights w that sum to 1 it is the mean of what the tasks trained. With
others it is task arithmetic (Ilharco et al. 2023, arXiv 2212.04089): base +
sum of w (task - base), where the base of an adapter, a prefix and a head is 0,
so that with -1 a task is taken away.
"""

import numpy as np

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.checkpoints import prefixes
from adapter_bert.checkpoints import task as task_lib
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.training import specs


def merge(output_dir, tasks, factors, base):
  """Writes the merged task checkpoint.

  Args:
    output_dir: str, the directory to write.
    tasks: list of TaskCheckpoint.
    factors: list of float, the weight of each.
    base: weights.Weights that they were trained on.

  Returns: int, the bytes written.

  Raises: InputError if they do not fit each other, or the result is not finite.
  """
  if len(factors) != len(tasks):
    raise errors.InputError("merge has %d weights, and there are %d task "
                            "checkpoints" % (len(factors), len(tasks)))
  for task in tasks[1:]:
    _check_alike(task, tasks[0])
  arrays = [_arrays(task.prefix) for task in tasks]
  for mine, task in zip(arrays[1:], tasks[1:]):
    if _shapes(mine) != _shapes(arrays[0]):
      raise errors.InputError(
          "%s and %s do not have the same variables; only checkpoints of one "
          "method can be merged" % (task.prefix, tasks[0].prefix))
  rest = 1.0 - sum(factors)
  merged = {names.GLOBAL_STEP: np.asarray(0, np.int64)}
  for name in arrays[0]:
    total = sum(factor * mine[name].astype(np.float64)
                for factor, mine in zip(factors, arrays))
    if abs(rest) > 1e-6:
      total += rest * _base_value(name, base)
    merged[name] = np.asarray(total).astype(np.float32)
    if not np.isfinite(merged[name]).all():
      raise errors.InputError("%s would not be finite; are the weights %s "
                              "meant?" % (name, factors))
  record = {key: value for key, value in tasks[0].record.items()
            if key != "dev"}  # Scores that are no longer its.
  record["merged"] = [{"path": task.prefix, "weight": factor}
                      for task, factor in zip(tasks, factors)]
  return task_lib.write_arrays(output_dir, merged, record)


def _arrays(prefix):
  """name -> array of a task checkpoint, prefixes without their MLPs."""
  weights = weights_lib.Weights([prefix])
  return prefixes.folded({name: weights.value(name) for name in weights.shapes
                          if names.is_model_variable(name)})


def _shapes(arrays):
  return {name: array.shape for name, array in arrays.items()}


def _base_value(name, base):
  """What the values of a variable are counted from."""
  if names.is_adapter(name) or names.is_prefix(name) or names.is_head(name):
    return 0.0
  if name not in base.shapes:
    raise errors.InputError(
        "%s has no %s, which the merged checkpoint would be counted from; give "
        "weights that sum to 1" % (base, name))
  return base.value(name)


def _check_alike(task, first):
  """Raises InputError unless two TaskCheckpoints can be merged."""
  pairs = [("labels", [None if one.task.is_regression else
                       list(one.task.labels) for one in (task, first)])]
  described = [specs.describe_model(one.model) for one in (task, first)]
  pairs += [(key, [each[key] for each in described])
            for key in described[0] if key != "bert_config"]
  for key, (mine, its) in pairs:
    if mine != its:
      raise errors.InputError(
          "%s: its %s is %s, and %s of %s; checkpoints that are merged need "
          "the same" % (task.prefix, key, mine, its, first.prefix))
