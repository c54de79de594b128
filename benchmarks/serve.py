"""The process that holds one of the models that are measured.

processes.py starts `python -m benchmarks.serve` for each, tells it what to
build, and asks it in turn for some steps. Lines of JSON both ways.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import sys
import time

import numpy as np

from benchmarks import batches as batches_lib


def main():
  replies = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Whatever prints must not print into the replies.
  setup = json.loads(sys.stdin.readline())
  # {"module", "arguments"} of the Subject; vocab_size: int.
  module = importlib.import_module("benchmarks." + setup["module"])
  imported = _resident_memory()
  subject = module.Subject(*setup["arguments"])
  _reply(replies, {"imported_bytes": imported,
                   "cpu_seconds": time.process_time()})
  for line in sys.stdin:
    _reply(replies, _answer(subject, setup["vocab_size"], json.loads(line)))


def _reply(replies, value):
  replies.write(json.dumps(value) + "\n")
  replies.flush()


def _answer(subject, vocab_size, request):
  """Does some steps, or profiles one.

  Args:
    subject: a Subject.
    vocab_size: int.
    request: dict; "data", "batch_size", "steps" and "bucket_window" say on
      which batches; sources and targets are as long as batches.PairLengths says.
      Or "prompt", "batch_size" and "steps": prompts of so many tokens.
      "warm": one step of each shape and number of tokens among them, before
        any is measured.
      "profile": one step on the first, profiled.

  Returns: dict, with the seconds that the steps took, the same of all threads'
    processor time, the peak memory in bytes during them, and the examples.
  """
  made = _batches(subject, vocab_size, request)
  if request.get("warm") and "data" in request:
    # Kernels are compiled for the number of tokens, too.
    made = list({_sizes(batch): batch for batch in made}.values())
  if request.get("profile"):
    return {"profile": subject.profile(made[0]),
            "shape": "data" in request and
                     [shape for shape, _ in _sizes(made[0])]}
  _forget_peak_memory()
  began, began_cpu = time.perf_counter(), time.process_time()
  subject.steps(made)
  return {"seconds": time.perf_counter() - began,
          "cpu_seconds": time.process_time() - began_cpu,
          "peak_bytes": _peak_memory(),
          "examples": request["batch_size"] * len(made)}


def _sizes(batch):
  """What kernels are compiled for: the (shape, number of tokens) of its masks.
  """
  return tuple((mask.shape, int(mask.sum())) for name, mask in batch.items()
               if name.endswith("_mask"))


def _batches(subject, vocab_size, request):
  if "prompt" in request:
    shape = [request["batch_size"], request["prompt"]]
    return [np.random.RandomState(number).randint(1, vocab_size, shape)
            for number in range(request["steps"])]
  if "/" in request["data"]:
    lengths = batches_lib.PairLengths(request["data"])
    return [batches_lib.make_pairs(lengths.draw(request["batch_size"], number),
                                   number, subject.padded_length, vocab_size)
            for number in range(request["steps"])]
  lengths = batches_lib.Lengths(request["data"])
  made = []
  for number, drawn in enumerate(lengths.batches(
      request["batch_size"], request["steps"], request["bucket_window"])):
    made.append(batches_lib.make(
        drawn, number, subject.padded_length(int(drawn.max())), vocab_size))
  return made


def _forget_peak_memory():
  """Lets the peak count from here on, where the system (Linux) can do it."""
  gc.collect()
  try:
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
      control.write("5")
  except OSError:
    pass


def _peak_memory():
  """The most memory that the process held, in bytes."""
  return _memory("VmHWM")


def _resident_memory():
  """The memory that the process holds, in bytes (without Linux: its peak)."""
  return _memory("VmRSS")


def _memory(key):
  try:
    with open("/proc/self/status", encoding="ascii") as status:
      for line in status:
        if line.startswith(key + ":"):
          return int(line.split()[1]) * 1024
  except OSError:
    pass
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
  main()
