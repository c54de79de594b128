"""The process that holds one of the models that are measured.

train_speed.py starts `python -m benchmarks.serve` for each, tells it what to
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

from benchmarks import batches as batches_lib


def main():
  replies = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Whatever prints must not print into the replies.
  setup = json.loads(sys.stdin.readline())
  # subject: {"module", "arguments"}; vocab_size: int.
  module = importlib.import_module("benchmarks." + setup["module"])
  subject = module.Subject(*setup["arguments"])
  _reply(replies, {})
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
      which batches.
      "warm": one step of each shape and number of tokens among them, before
        any is measured.
      "profile": one step on the first, profiled.

  Returns: dict, with the seconds that the steps took, the same of all threads'
    processor time, the peak memory in bytes during them, and the examples.
  """
  made = _batches(subject, vocab_size, request)
  if request.get("warm"):
    # Kernels are compiled for the number of tokens, too.
    made = list({(b["input_ids"].shape, b["input_mask"].sum()): b
                 for b in made}.values())
  if request.get("profile"):
    return {"profile": subject.profile(made[0]),
            "shape": made[0]["input_ids"].shape}
  _forget_peak_memory()
  began, began_cpu = time.perf_counter(), time.process_time()
  subject.steps(made)
  return {"seconds": time.perf_counter() - began,
          "cpu_seconds": time.process_time() - began_cpu,
          "peak_bytes": _peak_memory(),
          "examples": sum(len(b["label_ids"]) for b in made)}


def _batches(subject, vocab_size, request):
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
  try:
    with open("/proc/self/status", encoding="ascii") as status:
      for line in status:
        if line.startswith("VmHWM:"):
          return int(line.split()[1]) * 1024
  except OSError:
    pass
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
  main()
