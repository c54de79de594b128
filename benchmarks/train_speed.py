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

The columns: examples/s, the median of the rounds and their range; ratio, how
many times faster the first row is (the median over the rounds); the same two in
seconds of processor time, which say more on a machine with other work; the peak
of memory; and how long the first step of every length took together, which is
where kernels are compiled.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from adapter_bert.base import errors
from benchmarks import batches

FLAGS = flags.FLAGS

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

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
}
# Like --bucket_window=20 of run_classifier.py.
_BUCKET_WINDOW = {"ours-bf16-sorted": 20}
_LEFT_OUT = ("ours-upper-fp32", "ours-full-fp32", "peer-full-bf16")

BERT_BASE = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512, "type_vocab_size": 2,
    "initializer_range": 0.02,
}


class Process(object):
  """A subject in a process of its own.

  Args:
    name: str, a key of SUBJECTS.
    config: dict, as a bert_config.json.
    batch_size: int.

  Attributes:
    start_seconds: float, from nothing to before the first step.
    lacking: str or None, why it cannot be measured.
  """

  def __init__(self, name, config, batch_size):
    self.name = name
    module, adapters, precision, *pad_to = SUBJECTS[name]
    self.pad_to = pad_to[0] if pad_to else 0
    self.bucket_window = _BUCKET_WINDOW.get(name, 0)
    self.lacking = None
    began = time.monotonic()
    self._log = tempfile.TemporaryFile("w+")
    self._process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve"], cwd=_ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
    try:
      self.ask({"module": module, "vocab_size": config["vocab_size"],
                "arguments": [config, adapters, precision,
                              batch_size] + pad_to})
    except errors.InputError as error:
      # Ours must start; the peer is an extra.
      if module == "ours":
        raise
      self.lacking = str(error)
    self.start_seconds = time.monotonic() - began

  def ask(self, request):
    """Sends a request of serve.py and returns the reply.

    Raises: InputError if the process has died.
    """
    try:
      self._process.stdin.write(json.dumps(request) + "\n")
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ""
    if line:
      return json.loads(line)
    status = self._process.wait()
    self._log.seek(0)
    last = self._log.read().strip().rpartition("\n")[2]
    raise errors.InputError("it ended with status %s%s" % (
        status, ": " + last if last else "; did memory run out?"))

  def close(self):
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()


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
    requests[process.name] = {
        "data": data, "batch_size": batch_size,
        "bucket_window": process.bucket_window,
        "steps": _steps(data, batch_size, process.bucket_window,
                        process.pad_to, tokens)}
  replies = {process.name: [] for process in processes}
  for number in range(rounds + 1):
    for process in processes:
      replies[process.name].append(
          process.ask(dict(requests[process.name], warm=number == 0)))
  return replies


def _steps(data, batch_size, bucket_window, pad_to, tokens):
  """How many batches have that many padded tokens; at least one."""
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
                     max(speed), _ratio(speeds[first], speed),
                     statistics.median(cpu), _ratio(per_cpu[first], cpu),
                     max(r["peak_bytes"] for r in rounds) / 1e9,
                     warm["seconds"]))
  return lines


def _ratio(ours, others):
  """The median over the rounds of how many times faster ours is."""
  return statistics.median(a / b for a, b in zip(ours, others))


def profile(process, data, batch_size):
  """The lines of a table of where one step's time goes."""
  request = {"data": data, "batch_size": batch_size, "steps": 1,
             "bucket_window": process.bucket_window}
  process.ask(dict(request, warm=True))
  reply = process.ask(dict(request, profile=True))
  ops = sorted(reply["profile"].items(), key=lambda item: -item[1][0])
  total = sum(seconds for _, (seconds, _) in ops)
  lines = ["%s: a step on %s, %.3f s in all threads" % (
      process.name, " x ".join(map(str, reply["shape"])), total)]
  for kind, (seconds, count) in ops[:25]:
    lines.append("  %8.4f s  %5.1f %%  %5d x  %s" % (
        seconds, 100 * seconds / total, count, kind))
  return lines


def _config():
  if not FLAGS.bert_config_file:
    return BERT_BASE
  with errors.reported(), open(FLAGS.bert_config_file,
                               encoding="utf-8") as source:
    return json.load(source)


def _check_flags():
  for name in FLAGS.subjects:
    if name not in SUBJECTS:
      raise errors.InputError("unknown subject %r; known are %s" %
                              (name, ", ".join(SUBJECTS)))
    if FLAGS.profile and SUBJECTS[name][0] != "ours":
      raise errors.InputError(
          "--profile is of our own steps, and %s is not; give --subjects=%s" %
          (name, next(iter(SUBJECTS))))
  with errors.reported():
    for data in FLAGS.data:
      batches.Lengths(data)


def _describe(data, batch_size):
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
        processes.append(Process(name, config, batch_size))
        print("%-17s %s in %.1f s" % (
            name, "failed" if processes[-1].lacking else "started",
            processes[-1].start_seconds), flush=True)
      there = [process for process in processes if not process.lacking]
      for data in FLAGS.data:
        if FLAGS.profile:
          lines = [line for process in there
                   for line in profile(process, data, batch_size)]
        else:
          replies = measure(there, data, batch_size, FLAGS.rounds,
                            FLAGS.tokens)
          lines = [_describe(data, batch_size)] + table(processes, replies)
        print("\n" + "\n".join(lines), flush=True)
    finally:
      for process in processes:
        process.close()


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
  flags.DEFINE_string("bert_config_file", None,
                      "Another model's bert_config.json.")
  flags.DEFINE_boolean("profile", False, "Profile a step instead.")
  errors.run(main)
