"""Runs a program in several processes on this machine, as a cluster would.

    python -m adapter_bert.distributed.launch_local --workers=2 -- \\
      --task_name=MRPC --do_train --data_dir=$GLUE_DIR/MRPC ... \\
      --output_dir=/tmp/mrpc

What follows -- are flags of run_classifier.py; with
--program=adapter_bert.run_seq2seq, of that. Each process gets its TF_CONFIG
and --distribution=multi_worker; worker 0 is in charge. Every line that a
process prints is prefixed with its name. SIGINT and SIGTERM are passed on, and
the processes save what they have done. When one fails, or a signal came, the
others are given --grace seconds to stop by themselves, which they do, and the
exit status is that of the first to fail. Should this program be killed, they
stop as well.

The processes' ports are open to other machines, too: TensorFlow listens on
every network interface whatever the address (docs/distributed.md).
"""

import importlib.util
import os
import signal
import sys

from adapter_bert.base import errors
from adapter_bert.base import flags as flags_lib
from adapter_bert.base.flags import Setting
from adapter_bert.distributed import local_processes

PROGRAM = importlib.util.find_spec("run_classifier").origin
# A module of a package, which Python does not run as a file.
SEQUENCES = "adapter_bert.run_seq2seq"

SETTINGS = (
    Setting("workers", int, 2, "How many processes.", least=1),
    Setting("program", str, PROGRAM, "The Python program to run: a file, or "
            "%s." % SEQUENCES, is_path=True, local="Python starts it"),
    Setting("split_cores", bool, True,
            "Give each process cores of its own, if there are enough: "
            "processes that all use all cores are slower."),
    Setting("grace", float, 60.0,
            "After a failure or a signal, the seconds that the processes get "
            "to stop by themselves.", least=0),
)
Options = flags_lib.config_class("Options", SETTINGS)


def define_flags():
  flags_lib.define(SETTINGS)


def main(argv):
  options = Options(**flags_lib.values(SETTINGS))
  command = [sys.executable] + ["-m"] * (options.program == SEQUENCES) + [
      options.program] + argv[1:]
  if options.program in (PROGRAM, SEQUENCES):
    # Last, so that it holds: with another one the processes would not know of
    # each other, and all write to one output_dir.
    command.append("--distribution=multi_worker")
  elif not os.path.isfile(options.program):
    raise errors.InputError("program is %s, which is not there" %
                            options.program)
  launcher = local_processes.Launcher(
      command, options.workers, options.split_cores, options.grace)
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: launcher.pass_on(number))
  launcher.start()
  return launcher.wait()


def entry_point():
  """The console command `adapter-bert-local`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
