"""Which rows go through the model together.

A row is a text with a task that it is asked about. Rows of one pass are padded
to one length, so those of like lengths go together; and in a pass the rows of a
task are neighbours, in groups of one size, so that a task's own weights are
gathered once for a group and not for each row.
"""

import collections

# What gathering a group's own weights costs, in tokens that could go through a
# model in that time: with BERT-BASE on two cores a token takes 0.17 GFLOP, or
# 2 ms, and the adapters of a task are 9 MB that are read, written and read.
GROUP_TOKENS = 2


def arrange(tasks, length):
  """Groups of one size, with as little as possible to fill them up.

  Args:
    tasks: list of int, the task of each row.
    length: int, the tokens of a row.

  Returns: (numbers, order): lists of int; the task of each group, and the rows
    (indices of `tasks`), group by group. A group that is not full has its last
    row several times.
  """
  members = collections.OrderedDict()
  for row, task in enumerate(tasks):
    members.setdefault(task, []).append(row)
  counts = [len(rows) for rows in members.values()]
  sizes = set(counts) | {1 << i for i in range(max(counts).bit_length())}

  def cost(size):
    groups = sum(-(-count // size) for count in counts)
    return groups * (size * length + GROUP_TOKENS)

  size = min(sorted(sizes), key=cost)
  numbers, order = [], []
  for task, rows in members.items():
    for start in range(0, len(rows), size):
      group = rows[start:start + size]
      numbers.append(task)
      order += group + group[-1:] * (size - len(group))
  return numbers, order
