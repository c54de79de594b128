"""Prefixes as they are stored: keys and values alone, without their MLP.

Prefix tuning (Li and Liang 2021, arXiv 2101.00190, section 4.3) trains a small
table through an MLP, and keeps what the MLP makes of it. So a task checkpoint
has one array for each prefix, `<scope>/embeddings`, float32
[P, layers * 2 * N * H]: key of layer 0, value of layer 0, key of layer 1, ...
"""

import math

import numpy as np

from adapter_bert import names


def folded(arrays):
  """The arrays with each MLP replaced by the keys and values that it makes.

  Args:
    arrays: dict of variable name -> array.

  Returns: dict of the same kind. Folding changes outputs by float noise only.
  """
  kept = dict(arrays)
  for scope in sorted(set(filter(None, map(names.prefix_scope, arrays)))):
    if has_mlp(arrays, scope):
      part = lambda name: kept.pop("%s/%s" % (scope, name))  # pylint: disable=cell-var-from-loop
      table = part("embeddings")                                  # [P, E]
      table = np.tanh(np.matmul(table, part("dense_0/kernel")) +
                      part("dense_0/bias"))                       # [P, hidden]
      kept[scope + "/embeddings"] = (
          np.matmul(table, part("dense_1/kernel")) + part("dense_1/bias"))
  return kept


def has_mlp(arrays, scope=None):
  """Whether the prefix of that scope, or any prefix, is made by an MLP.

  Args:
    arrays: container of variable names.
    scope: str, as "bert/prefix", or None.
  """
  scopes = [scope] if scope else set(map(names.prefix_scope, arrays)) - {None}
  return any(s + "/dense_1/kernel" in arrays for s in scopes)


def not_stored(shapes):
  """How many numbers fewer there are when the prefixes are stored.

  Args:
    shapes: dict of variable name -> list of int.
  """
  size = sum(math.prod(shape) for name, shape in shapes.items()
             if names.is_prefix(name))
  return size - stored_size(shapes)


def stored_size(shapes):
  """How many numbers the prefixes have when they are stored.

  Args:
    shapes: dict of variable name -> list of int, an MLP's or a table's.
  """
  size = 0
  for scope in set(map(names.prefix_scope, shapes)) - {None}:
    length, width = shapes[scope + "/embeddings"]
    if has_mlp(shapes, scope):
      width = shapes[scope + "/dense_1/kernel"][1]
    size += length * width
  return size
