"""Work that several processes share: examples -> TFRecord bytes, in order.

Imports no TensorFlow, which would cost each process seconds and hundreds of
megabytes. `python -m adapter_bert.data.workers` is what such a process runs.
"""

import collections
import concurrent.futures
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys

from adapter_bert.base import errors


def converted(chunks, convert, workers):
  """Yields (name, convert(first_index, examples)) of each chunk, in order.

  Args:
    chunks: iterator of (name, first index, examples); at most some 2 * workers
      chunks are in memory at a time.
    convert: a function of (first_index, examples) that can be pickled.
    workers: number of processes; 1: this one does it.
  """
  if workers < 1:
    raise errors.InputError(
        "%d processes cannot tokenize; at least 1 is needed" % workers)
  if workers == 1:
    for name, first_index, examples in chunks:
      yield name, convert(first_index, examples)
    return
  with contextlib.ExitStack() as stack:
    idle = queue.Queue()
    for _ in range(workers):
      idle.put(stack.enter_context(Worker(convert)))

    def convert_elsewhere(first_index, examples):
      worker = idle.get()
      try:
        return worker.convert(first_index, examples)
      finally:
        idle.put(worker)

    # One thread per process: it does nothing but wait for the pipe.
    threads = stack.enter_context(
        concurrent.futures.ThreadPoolExecutor(workers))
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    pending = collections.deque()
    for name, first_index, examples in chunks:
      pending.append((name, threads.submit(convert_elsewhere, first_index,
                                           examples)))
      if len(pending) > 2 * workers:
        name, future = pending.popleft()
        yield name, future.result()
    for name, future in pending:
      yield name, future.result()


class Worker(object):
  """A process that runs `convert`.

  It is a fresh interpreter with pipes: a fork of a process in which TensorFlow
  has started threads can hang, and multiprocessing's spawn would import the
  main program, TensorFlow included, in every process.
  """

  def __init__(self, convert):
    # What can be imported here can be imported there.
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path)
    self._process = subprocess.Popen(
        [sys.executable, "-m", "adapter_bert.data.workers"],
        env=dict(os.environ, PYTHONPATH=path),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    self._convert = convert

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self._process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()

  def convert(self, first_index, examples):
    """Returns what `convert` does, or raises its error."""
    try:
      pipe = self._process.stdin
      if self._convert is not None:
        pickle.dump(self._convert, pipe)
        self._convert = None
      pickle.dump((first_index, examples), pipe)
      pipe.flush()
      records, error = pickle.load(self._process.stdout)
    except (EOFError, BrokenPipeError) as broken:
      status = self._process.wait()
      raise errors.InputError(
          "a tokenizing process ended with status %d; if memory ran out, use "
          "fewer of them, otherwise its own message is above"
          % status) from broken
    if error is not None:
      raise error
    return records


def _serve():
  """What the process of a Worker runs, until its input ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Ends quietly after it.
  source = sys.stdin.buffer
  # Whatever prints must not print into the replies.
  replies = os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)
  convert = None
  while True:
    try:
      convert = convert or pickle.load(source)
      first_index, examples = pickle.load(source)
    except EOFError:
      return
    try:
      reply = convert(first_index, examples), None
    except ValueError as error:
      reply = None, error
    pickle.dump(reply, replies)
    replies.flush()


if __name__ == "__main__":
  _serve()
