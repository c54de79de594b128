"""Measures training: examples/s and peak memory, side by side with others.

    pip install -r benchmarks/requirements.txt    # for the peer; without it
                                                  # its rows say that it lacks
    python -m benchmarks.train_speed

BERT-BASE with random weights, dropout 0.1, adapters of size 64, batches of 32
with the lengths of real tasks (lengths.json) and of 128 tokens. Everything that
is measured is a process of its own; they take turns, so that whatever else the
machine does falls on all of them.

    --data=cola,128 --batch_sizes=8,32 --subjects=ours-bf16,peer-bf16
                          some of it; every combination is a table: this is
                          also how speed scales
    --subjects=ours-bf16 --data=128 --profile
                          where a step's time goes, by type of op
    --subjects=ours-bf16,ours-bf16@before --before=DIR
                          the code in another checkout beside this one's
    --model=bart-base --data=512/64 --batch_sizes=4
                          a sequence model; lengths of source and target

The columns: examples/s, the median of the rounds and their range; ratio, how
many times faster the first row is (the median over the rounds); the same two in
seconds of processor time, which say more on a machine with other work; the peak
of memory; and how long the first step of every length took together, which is
where kernels are compiled.
"""

import json
import math
import os
import statistics
import sys

from absl import flags

from adapter_bert.base import errors
from benchmarks import batches
from benchmarks import models
from benchmarks import processes as processes_lib

FLAGS = flags.FLAGS

# Name -> the module of benchmarks/ and the first arguments of its Subject:
# which adapters, which precision; for the peer, what batches are padded to.
SUBJECTS = {
    "ours-bf16": ("ours", "all", "bfloat16"),
    "ours-bf16-sorted": ("ours", "all", "bfloat16"),
    "ours-fp32": ("ours", "all", "float32"),
    "ours-upper-bf16": ("ours", "upper", "bfloat16"),
    "ours-upper-fp32": ("ours", "upper", "float32"),
    "ours-full-bf16": ("ours", "none", "bfloat16"),
    "ours-full-fp32": ("ours", "none", "float32"),
    "peer-bf16": ("adapters_library", "all", "bfloat16"),
    "peer-fp32": ("adapters_library", "all", "float32"),
    "peer-bf16-pad128": ("adapters_library", "all", "bfloat16", 128),
    "peer-fp32-pad128": ("adapters_library", "all", "float32", 128),
    "peer-full-bf16": ("adapters_library", "none", "bfloat16"),
    "ours-prefix-bf16": ("ours", "prefix", "bfloat16"),
    "ours-prefix-mlp-bf16": ("ours", "prefix-mlp", "bfloat16"),
    "peer-prefix-bf16": ("adapters_library", "prefix", "bfloat16"),
    "peer-prefix-mlp-bf16": ("adapters_library", "prefix-mlp", "bfloat16"),
}
# Behind a subject's name: that of the code in the checkout --before.
_BEFORE = "@before"
# Like --bucket_window=20 of run_classifier.py.
_BUCKET_WINDOW = {"ours-bf16-sorted": 20}
_LEFT_OUT = ("ours-upper-fp32", "ours-full-fp32", "peer-full-bf16",
             "ours-prefix-bf16", "ours-prefix-mlp-bf16", "peer-prefix-bf16",
             "peer-prefix-mlp-bf16")


def start(name, config, batch_size, before=None, peer_python=None, cores=None):
  """The processes.Process of a subject.

  Args:
    name: str, a key of SUBJECTS, or one with _BEFORE behind it.
    config: dict, as a bert_config.json, or a config.json with a model_type.
    batch_size: int.
    before: str, the checkout of the subjects with _BEFORE.
    peer_python: str, the Python that the peers are installed in; None: this.
    cores: see processes.Process.
  """
  module, adapters, precision, *pad_to = SUBJECTS[_without_before(name)]
  setup = {"module": module, "vocab_size": config["vocab_size"],
           "arguments": [config, adapters, precision, batch_size] + pad_to}
  return processes_lib.Process(
      name, setup,
      root=before if name.endswith(_BEFORE) else processes_lib.ROOT,
      python=sys.executable if module == "ours" or not peer_python else
      peer_python, cores=cores)


def _without_before(name):
  return name[:-len(_BEFORE)] if name.endswith(_BEFORE) else name


def measure(processes, data, batch_size, rounds, tokens):
  """Lets the processes take turns.

  Args:
    processes: list of Process.
    data: str, see batches.Lengths.
    batch_size: int.
    rounds: int.
    tokens: int, about so many padded ones does each process in a round.

  Returns: dict of the process's name -> one reply of serve.py for each round;
    a further one, the first, is of the warming up.
  """
  requests = {}
  for process in processes:
    name = _without_before(process.name)
    window, pad_to = _BUCKET_WINDOW.get(name, 0), (SUBJECTS[name][3:] or (0,))[0]
    requests[process.name] = {
        "data": data, "batch_size": batch_size, "bucket_window": window,
        "steps": _steps(data, batch_size, window, pad_to, tokens)}
  return processes_lib.take_turns(processes, requests, rounds)


def _steps(data, batch_size, bucket_window, pad_to, tokens):
  """How many batches have that many padded tokens; at least one."""
  if "/" in data:
    lengths = batches.PairLengths(data)
    return math.ceil(tokens / batch_size /
                     (lengths.source[1] + lengths.target[1]))
  longest = [lengths.max() for lengths in batches.Lengths(data).batches(
      batch_size, 20, bucket_window)]
  padded = batch_size * sum(max(pad_to, length) for length in longest) / 20
  return math.ceil(tokens / padded)


def table(processes, replies):
  """The lines of a table of measure's result."""
  lines = ["%-17s %22s  %7s  %9s  %7s  %7s  %7s" % (
      "", "examples/s (range)", "ratio", "per cpu s", "cpu", "peak GB",
      "warm s")]
  speeds, per_cpu = {}, {}
  for process in processes:
    if process.lacking:
      lines.append("%-17s not measured: %s" % (process.name, process.lacking))
      continue
    warm, *rounds = replies[process.name]
    speed = [r["examples"] / r["seconds"] for r in rounds]
    cpu = [r["examples"] / r["cpu_seconds"] for r in rounds]
    speeds[process.name], per_cpu[process.name] = speed, cpu
    first = next(iter(speeds))
    lines.append("%-17s %8.2f (%.2f to %.2f)  %6.2fx  %9.2f  %6.2fx  %7.2f  "
                 "%7.1f" % (
                     process.name, statistics.median(speed), min(speed),
                     max(speed), processes_lib.ratio(speeds[first], speed),
                     statistics.median(cpu),
                     processes_lib.ratio(per_cpu[first], cpu),
                     max(r["peak_bytes"] for r in rounds) / 1e9,
                     warm["seconds"]))
  return lines


def profile(process, data, batch_size):
  """The lines of a table of where one step's time goes."""
  request = {"data": data, "batch_size": batch_size, "steps": 1,
             "bucket_window": _BUCKET_WINDOW.get(process.name, 0)}
  process.ask(dict(request, warm=True))
  reply = process.ask(dict(request, profile=True))
  ops = sorted(reply["profile"].items(), key=lambda item: -item[1][0])
  total = sum(seconds for _, (seconds, _) in ops)
  lines = ["%s: a step on %s, %.3f s in all threads" % (
      process.name, " and ".join(" x ".join(map(str, shape))
                                 for shape in reply["shape"]), total)]
  for kind, (seconds, count) in ops[:25]:
    lines.append("  %8.4f s  %5.1f %%  %5d x  %s" % (
        seconds, 100 * seconds / total, count, kind))
  return lines


def _config():
  if not FLAGS.bert_config_file:
    return models.MODELS[FLAGS.model]
  with errors.reported(), open(FLAGS.bert_config_file,
                               encoding="utf-8") as source:
    return json.load(source)


def _check_flags():
  for name in FLAGS.subjects:
    if _without_before(name) not in SUBJECTS:
      raise errors.InputError("unknown subject %r; known are %s" %
                              (name, ", ".join(SUBJECTS)))
    if name.endswith(_BEFORE) and not (FLAGS.before and os.path.isdir(
        os.path.join(FLAGS.before, "benchmarks"))):
      raise errors.InputError(
          "%s needs --before, another checkout of this project; it is %s" %
          (name, FLAGS.before))
    if FLAGS.profile and SUBJECTS[_without_before(name)][0] != "ours":
      raise errors.InputError(
          "--profile is of our own steps, and %s is not; give --subjects=%s" %
          (name, next(iter(SUBJECTS))))
  is_sequence = "model_type" in models.MODELS[FLAGS.model]
  with errors.reported():
    for data in FLAGS.data:
      if is_sequence:
        batches.PairLengths(data)
      else:
        batches.Lengths(data)


def _describe(data, batch_size):
  if "/" in data:
    return "%s tokens, batch %d, %d rounds" % (data, batch_size, FLAGS.rounds)
  lengths = batches.Lengths(data)
  return "%s (mean %.1f tokens, longest %d), batch %d, %d rounds" % (
      data, lengths.mean, lengths.longest, batch_size, FLAGS.rounds)


def main(argv):
  errors.refuse_arguments(argv)
  _check_flags()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  config = _config()
  for batch_size in map(int, FLAGS.batch_sizes):
    processes = []
    try:
      for name in FLAGS.subjects:
        processes.append(start(name, config, batch_size, FLAGS.before,
                               FLAGS.peer_python, FLAGS.cores))
        print("%-17s %s in %.1f s" % (
            name, "failed" if processes[-1].lacking else "started",
            processes[-1].start_seconds), flush=True)
      _measure_all(processes, batch_size)
    finally:
      for process in processes:
        process.close()


def _measure_all(processes, batch_size):
  """Prints a table for each kind of data."""
  there = [process for process in processes if not process.lacking]
  for data in FLAGS.data:
    if FLAGS.profile:
      lines = [line for process in there
               for line in profile(process, data, batch_size)]
    else:
      replies = measure(there, data, batch_size, FLAGS.rounds, FLAGS.tokens)
      lines = [_describe(data, batch_size)] + table(processes, replies)
    print("\n" + "\n".join(lines), flush=True)


if __name__ == "__main__":
  # In rising order of length: a process keeps some memory of longer batches.
  flags.DEFINE_list("data", ["cola", "sst-2", "mrpc", "128"],
                    "What is as long as the examples of: tasks in lengths.json,"
                    " or numbers of tokens; shorter ones first.")
  flags.DEFINE_list("batch_sizes", ["32"], "Examples in a batch.")
  flags.DEFINE_list("subjects", [name for name in SUBJECTS
                                 if name not in _LEFT_OUT],
                    "What is measured; ratios are the first's speed over the "
                    "others'. Known: %s." % ", ".join(SUBJECTS))
  flags.DEFINE_integer("rounds", 5, "How often each has its turn.",
                       lower_bound=1)
  flags.DEFINE_integer("tokens", 8192, "About so many tokens each has in a "
                       "turn, padding counted.", lower_bound=1)
  flags.DEFINE_enum("model", "bert-base", list(models.MODELS),
                    "The model's shape. A sequence model needs --data of its "
                    "sources and targets, as in 512/64; GPT-2's may be 0/256.")
  flags.DEFINE_string("bert_config_file", None,
                      "Another model's bert_config.json.")
  flags.DEFINE_string("before", None, "Another checkout of this project, for "
                      "subjects such as ours-bf16%s." % _BEFORE)
  flags.DEFINE_integer("cores", None, "Each process has so many cores; by "
                       "default all.", lower_bound=1)
  flags.DEFINE_string("peer_python", None, "The Python that the peers are "
                      "installed in; by default the one that runs this.")
  flags.DEFINE_boolean("profile", False, "Profile a step instead.")
  errors.run(main)
