"""Rows in groups: each row is there, in a group of its own task."""

import random

from adapter_bert.serving import passes


def check(tasks, length):
  numbers, order = passes.arrange(tasks, length)
  size = len(order) // len(numbers)
  assert len(order) == size * len(numbers)
  assert set(order) == set(range(len(tasks)))
  for i, row in enumerate(order):
    assert tasks[row] == numbers[i // size]
  return size, len(numbers)


def test_equal_counts_are_one_group_a_task():
  assert check([3] * 64, 8) == (64, 1)
  assert check(list(range(64)), 8) == (1, 64)
  assert check(list(range(5)) * 7, 8) == (7, 5)
  assert check([4], 8) == (1, 1)


def test_few_rows_are_filled_up_where_that_is_less_than_a_group():
  # A row more of 8 tokens, for 7 groups instead of 15.
  assert check([0] * 8 + [1] * 7, 1) == (8, 2)
  # 31 rows of 100 tokens would be too many.
  assert check([0] * 32 + [1], 100) == (1, 33)


def test_any_rows():
  rng = random.Random(1)
  for _ in range(50):
    check([rng.randrange(6) for _ in range(rng.randint(1, 40))],
          rng.randint(1, 128))
