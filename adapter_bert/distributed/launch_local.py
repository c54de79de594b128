"""Runs a program in several processes on this machine, as a cluster would.

    python -m adapter_bert.distributed.launch_local --workers=2 -- \\
      --task_name=MRPC --do_train --data_dir=$GLUE_DIR/MRPC ... \\
      --output_dir=/tmp/mrpc

What follows -- are flags of run_classifier.py. Each process gets its TF_CONFIG
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

from absl import flags

from adapter_bert.base import errors
from adapter_bert.distributed import local_processes

FLAGS = flags.FLAGS

PROGRAM = importlib.util.find_spec("run_classifier").origin


def define_flags():
  flags.DEFINE_integer("workers", 2, "How many processes.")
  flags.DEFINE_string("program", PROGRAM, "The Python program to run.")
  flags.DEFINE_boolean("split_cores", True,
                       "Give each process cores of its own, if there are "
                       "enough: processes that all use all cores are slower.")
  flags.DEFINE_float("grace", 60,
                     "After a failure or a signal, the seconds that the "
                     "processes get to stop by themselves.")


def main(argv):
  if FLAGS.workers < 1:
    raise errors.InputError("workers is %d; it must be at least 1" %
                            FLAGS.workers)
  if not os.path.isfile(FLAGS.program):
    raise errors.InputError("program is %s, which is not there" % FLAGS.program)
  command = [sys.executable, FLAGS.program] + argv[1:]
  if FLAGS.program == PROGRAM:
    # Last, so that it holds: with another one the processes would not know of
    # each other, and all write to one output_dir.
    command.append("--distribution=multi_worker")
  launcher = local_processes.Launcher(command, FLAGS.workers, FLAGS.split_cores,
                                FLAGS.grace)
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
