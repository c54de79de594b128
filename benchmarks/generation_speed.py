"""Measures generation: tokens/s and memory, side by side with transformers.

    pip install -r benchmarks/requirements.txt    # for the peer
    python -m benchmarks.generation_speed --model=gpt2

Random weights, prompts of --lengths tokens, --new_tokens new ones, no end before
them. Each model is a process of its own, for each precision and number of beams;
ours and the peer's take turns.

    --model=bart-base --lengths=512
    --precisions=bf16 --beams=1 --batch_sizes=1 --lengths=32      one cell
    --cores=1                     one thread each, for a machine with other work
    --subjects=ours,peer-compiled         torch.compile, with a cache of fixed size
    --subjects=ours,ours@before --before=DIR      the code in another checkout
    --subjects=ours --profile             where the time goes, by type of op

The columns: tokens/s, the median of the rounds and their range; ratio, how many
times faster the first row is (the median over the rounds); the same two in
seconds of processor time; the peak of memory beyond what the process held after
its imports; and the first run, in which kernels are compiled. Above them: how
long each took to start, of which how much processor time. Below: the geometric
means of the cells' ratios.
"""

import itertools
import math
import os
import statistics
import sys

from absl import flags

from adapter_bert.base import errors
from benchmarks import models
from benchmarks import processes as processes_lib

FLAGS = flags.FLAGS

# Name -> the module of benchmarks/ and further arguments of its Subject.
SUBJECTS = {
    "ours": ("ours_generation",),
    "ours@before": ("ours_generation",),
    "peer": ("transformers_library",),
    "peer-compiled": ("transformers_library", True),
}
_PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}


def start(name, config, precision, options):
  """The processes.Process of a subject."""
  module, *more = SUBJECTS[name]
  is_ours = module.startswith("ours")
  return processes_lib.Process(
      name, {"module": module, "vocab_size": config["vocab_size"],
             "arguments": [config, precision, options] + more},
      root=FLAGS.before if name.endswith("@before") else processes_lib.ROOT,
      python=sys.executable if is_ours or not FLAGS.peer_python else
      FLAGS.peer_python, cores=FLAGS.cores)


def rows(processes, replies, tokens):
  """What a cell's table says.

  Args:
    processes: list of Process that were measured, the first is compared with.
    replies: what processes.take_turns gave.
    tokens: int, generated in a round.

  Returns: list of dict, for each process: speed and per_cpu, lists of tokens/s,
    and how many times as much of them (ratio, cpu_ratio) and of its memory
    (memory_ratio) the first one has; memory, bytes; first, seconds.
  """
  found = []
  for process in processes:
    first, *rounds = replies[process.name]
    row = {"name": process.name, "first": first["seconds"],
           "speed": [tokens / r["seconds"] for r in rounds],
           "per_cpu": [tokens / r["cpu_seconds"] for r in rounds],
           "memory": max(r["peak_bytes"] for r in rounds) -
                     (process.imported_bytes or 0)}
    found.append(row)
    row["ratio"] = processes_lib.ratio(found[0]["speed"], row["speed"])
    row["cpu_ratio"] = processes_lib.ratio(found[0]["per_cpu"], row["per_cpu"])
    row["memory_ratio"] = found[0]["memory"] / row["memory"]
  return found


def table(cell):
  """The lines of a table of what `rows` returned."""
  lines = ["%-14s %23s  %7s  %9s  %7s  %9s  %7s  %7s" % (
      "", "tokens/s (range)", "ratio", "per cpu s", "cpu", "memory GB", "of it",
      "first s")]
  for row in cell:
    lines.append(
        "%-14s %9.1f (%.1f to %.1f)  %6.2fx  %9.1f  %6.2fx  %9.2f  %6.2fx  %7.1f"
        % (row["name"], statistics.median(row["speed"]), min(row["speed"]),
           max(row["speed"]), row["ratio"], statistics.median(row["per_cpu"]),
           row["cpu_ratio"], row["memory"] / 1e9, row["memory_ratio"],
           row["first"]))
  return lines


def summary(cells):
  """The lines about all cells together: geometric means and the worst."""
  lines = []
  for place, row in enumerate(cells[0][1:], 1):
    values = {key: [cell[place][key] for cell in cells]
              for key in ("ratio", "cpu_ratio", "memory_ratio")}
    lines.append(
        "ours over %s, %d cells: speed %.2fx (least %.2fx), per processor second "
        "%.2fx (least %.2fx), memory %.2fx (most %.2fx)" % (
            row["name"], len(cells),
            statistics.geometric_mean(values["ratio"]), min(values["ratio"]),
            statistics.geometric_mean(values["cpu_ratio"]),
            min(values["cpu_ratio"]),
            statistics.geometric_mean(values["memory_ratio"]),
            max(values["memory_ratio"])))
  return lines


def profile(process, request):
  """The lines of a table of where one generation's time goes."""
  process.ask(dict(request, warm=True))
  ops = sorted(process.ask(dict(request, profile=True))["profile"].items(),
               key=lambda item: -item[1][0])
  total = sum(seconds for _, (seconds, _) in ops)
  return ["%s: %.3f s in all threads" % (process.name, total)] + [
      "  %8.4f s  %5.1f %%  %6d x  %s" % (
          seconds, 100 * seconds / total, count, kind)
      for kind, (seconds, count) in ops[:25]]


def _measure(precision, beams):
  """Prints the cells of a precision and a number of beams; returns them."""
  config = models.MODELS[FLAGS.model]
  options = {"max_new_tokens": FLAGS.new_tokens, "num_beams": beams}
  processes, cells = [], []
  try:
    for name in FLAGS.subjects:
      process = start(name, config, _PRECISIONS[precision], options)
      processes.append(process)
      print("%-14s %s in %.1f s (%s of processor time)%s" % (
          name, "failed" if process.lacking else "started",
          process.start_seconds, "%.1f s" % process.start_cpu_seconds
          if process.start_cpu_seconds else "?",
          ": " + process.lacking if process.lacking else ""), flush=True)
    there = [process for process in processes if not process.lacking]
    # The smallest first: TensorFlow keeps memory that a larger one needed.
    for length, batch_size in sorted(
        itertools.product(map(int, FLAGS.lengths), map(int, FLAGS.batch_sizes)),
        key=math.prod):
      request = {"prompt": length, "batch_size": batch_size, "steps": 1}
      title = "%s, %s, %s, %d tokens + %d, batch %d" % (
          FLAGS.model, precision, "%d beams" % beams if beams > 1 else
          "greedy", length, FLAGS.new_tokens, batch_size)
      if FLAGS.profile:
        lines = [line for process in there for line in profile(process, request)]
      else:
        replies = processes_lib.take_turns(
            there, {process.name: request for process in there}, FLAGS.rounds)
        cells.append(rows(there, replies, batch_size * FLAGS.new_tokens))
        lines = table(cells[-1])
      print("\n%s\n%s" % (title, "\n".join(lines)), flush=True)
  finally:
    for process in processes:
      process.close()
  return cells


def _check_flags():
  for name in FLAGS.subjects:
    if name not in SUBJECTS:
      raise errors.InputError("unknown subject %r; known are %s" %
                              (name, ", ".join(SUBJECTS)))
    if name.endswith("@before") and not os.path.isdir(
        os.path.join(FLAGS.before or "", "benchmarks")):
      raise errors.InputError("%s needs --before, another checkout of this "
                              "project; it is %s" % (name, FLAGS.before))
    if FLAGS.profile and not name.startswith("ours"):
      raise errors.InputError("--profile is of our own steps, and %s is not; "
                              "give --subjects=ours" % name)
  for name in FLAGS.precisions:
    if name not in _PRECISIONS:
      raise errors.InputError("unknown precision %r; known are %s" %
                              (name, ", ".join(_PRECISIONS)))


def main(argv):
  errors.refuse_arguments(argv)
  _check_flags()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  cells = []
  for precision in FLAGS.precisions:
    for beams in map(int, FLAGS.beams):
      cells += _measure(precision, beams)
  if cells:
    print("\n" + "\n".join(summary(cells)))


if __name__ == "__main__":
  flags.DEFINE_enum("model", "gpt2", [name for name, config in
                                      models.MODELS.items()
                                      if "model_type" in config],
                    "The model's shape.")
  flags.DEFINE_list("lengths", ["32", "256"], "Tokens of a prompt or source.")
  flags.DEFINE_list("batch_sizes", ["1", "8", "32"], "Prompts in a batch.")
  flags.DEFINE_list("beams", ["1", "4"], "1 is greedy.")
  flags.DEFINE_list("precisions", ["fp32", "bf16"], "fp32 or bf16.")
  flags.DEFINE_list("subjects", ["ours", "peer"],
                    "What is measured; ratios are the first's over the others'."
                    " Known: %s." % ", ".join(SUBJECTS))
  flags.DEFINE_integer("new_tokens", 64, "Generated tokens.", lower_bound=1)
  flags.DEFINE_integer("rounds", 3, "How often each has its turn.",
                       lower_bound=1)
  flags.DEFINE_integer("cores", None, "Each process has so many cores; by "
                       "default all.", lower_bound=1)
  flags.DEFINE_string("before", None, "Another checkout of this project, for "
                      "ours@before.")
  flags.DEFINE_string("peer_python", None, "The Python that the peer is "
                      "installed in; by default the one that runs this.")
  flags.DEFINE_boolean("profile", False, "Profile a generation instead.")
  errors.run(main)
