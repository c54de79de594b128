"""Cores of its own for each of several processes on one machine.

Processes that all use all cores are slower than ones that share them out.
"""

import os


def shares(count):
  """The cores for each of a number of processes: a list of sets.

  Each is None where cores cannot be shared out: there is only one process, the
  system is not Linux, or there are fewer cores than processes.
  """
  if count == 1 or not hasattr(os, "sched_setaffinity"):
    return [None] * count
  available = sorted(os.sched_getaffinity(0))
  size = len(available) // count
  if not size:
    return [None] * count
  # Neighbours together: they may be the two threads of one core.
  return [set(available[i * size:(i + 1) * size]) for i in range(count)]


def restrict(cores, process=0):
  """Lets a process run on these cores only; None: on any.

  Args:
    cores: set of int, or None.
    process: int, its id; 0: the calling thread and what it will start.
  """
  if cores is not None:
    os.sched_setaffinity(process, cores)
