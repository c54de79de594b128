"""One, two and four devices and processes through the real main program, and
what happens when one of them dies."""

import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.distributed import cores
from adapter_bert.distributed import tf_config
from adapter_bert.distributed import devices as distribution
from adapter_bert.base import errors
from adapter_bert.distributed import local_processes
import run_classifier_test
from adapter_bert import test_util
from adapter_bert.training import graphs

graphs.enable_graph_mode()

ROOT = test_util.ROOT
PROGRAM = os.path.join(ROOT, "run_classifier.py")
LAUNCHER = os.path.join(os.path.dirname(local_processes.__file__),
                        "launch_local.py")

# The main program without the head's dropout, which has no flag.
NO_DROPOUT = """
import sys
sys.path.insert(0, %r)
import modeling
modeling.HEAD_DROPOUT = 0.0
import run_classifier
run_classifier.entry_point()
""" % ROOT

# Seconds without a sign: enough for a busy machine, and short for a test.
HEARTBEAT = 10


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  files = run_classifier_test.Files(str(tmp_path_factory.mktemp("files")))
  config = test_util.tiny_config(**dict(
      files.config.to_dict(), hidden_dropout_prob=0.0,
      attention_probs_dropout_prob=0.0))
  files.write("still.json", [config.to_json_string()])
  files.write("no_dropout.py", [NO_DROPOUT])
  return files


def flags_of(files, output_dir, **changes):
  settings = dict(files.settings("MRPC", output_dir), do_train=True,
                  heartbeat_timeout=HEARTBEAT, **changes)
  return ["--%s=%s" % item for item in settings.items()]


def finished(process, status=0):
  """A process's stderr, once it has ended with that status."""
  try:
    _, stderr = process.communicate(timeout=600)
  finally:
    process.kill()
  assert process.returncode == status, stderr[-3000:]
  assert "Traceback" not in stderr, stderr[-3000:]
  return stderr


def run_program(*command):
  return finished(subprocess.Popen(
      [sys.executable] + list(command), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, text=True))


def values_in(output_dir):
  return run_classifier_test.values_in(
      weights_lib.newest_readable(str(output_dir)))


# ------------------------------------------------------------ as one device


# 20 examples in batches of 5: two and four devices do not divide them.
STILL = dict(do_eval=True, do_predict=True, num_train_epochs=6,
             train_batch_size=5, eval_batch_size=3, learning_rate=1e-3)


def still(files, output_dir, **changes):
  return flags_of(files, output_dir, **dict(dict(
      STILL, bert_config_file=files.path("still.json")), **changes))


@pytest.fixture(scope="module", name="one")
def fixture_one(files):
  """The output_dir of a run on one device without dropout."""
  run_program(files.path("no_dropout.py"), *still(files, files.path("one")))
  return files.path("one")


def assert_like_one_device(output_dir, one):
  losses = run_classifier_test.events_of(one, "loss")
  found = run_classifier_test.events_of(output_dir, "loss")
  assert sorted(found) == sorted(losses) == [20, 24]
  for step, loss in found.items():
    assert loss == pytest.approx(losses[step], abs=1e-5)
  expected, found = values_in(one), values_in(output_dir)
  assert sorted(found) == sorted(expected)
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4,
                               err_msg=name)
  np.testing.assert_allclose(
      np.loadtxt(os.path.join(output_dir, "test_results.tsv")),
      np.loadtxt(os.path.join(one, "test_results.tsv")), atol=1e-4)
  found, expected = [
      [line.split(" = ")
       for line in run_classifier_test.lines_of(where, "eval_results.txt")]
      for where in (output_dir, one)]
  assert [key for key, _ in found] == [key for key, _ in expected]
  np.testing.assert_allclose([float(value) for _, value in found],
                             [float(value) for _, value in expected], atol=1e-4)
  assert (run_classifier_test.lines_of(output_dir, "MRPC.tsv") ==
          run_classifier_test.lines_of(one, "MRPC.tsv"))


# With the chains compiled, as by default, and not. The loop's own test has two
# devices, too, and is not slow.
@pytest.mark.slow
@pytest.mark.parametrize("count,compiled", [(2, True), (2, False), (4, False)])
def test_mirrored_is_like_one_device(files, one, tmp_path, count, compiled):
  devices = ",".join("cpu:%d" % i for i in range(count))
  stderr = run_program(files.path("no_dropout.py"), *still(
      files, tmp_path, distribution="mirrored", devices=devices,
      compile_chains=compiled))
  assert "24 steps of 5 on %d device(s)" % count in stderr
  assert_like_one_device(str(tmp_path), one)


@pytest.mark.slow
@pytest.mark.parametrize("count,compiled", [(2, True), (2, False), (4, False)])
def test_workers_are_like_one_device(files, one, tmp_path, count, compiled):
  stderr = run_program(
      LAUNCHER, "--workers=%d" % count,
      "--program=%s" % files.path("no_dropout.py"), "--",
      "--distribution=multi_worker",
      *still(files, tmp_path, compile_chains=compiled))
  for index in range(count):
    assert "[worker %d] " % index in stderr
  assert stderr.count("are open on every network interface") == 1
  assert "24 steps of 5 on %d device(s)" % count in stderr
  assert_like_one_device(str(tmp_path), one)
  # The chief alone has written, and nothing is left of what was exchanged.
  assert len(glob.glob(str(tmp_path / "events*"))) == 1
  assert sorted(os.listdir(str(tmp_path / "cluster"))) == [
      "worker-%d.json" % i for i in range(count)]


# ----------------------------------------------------------------- bad input


@pytest.mark.parametrize("make,text,words", [
    (distribution.mirrored, "gpu:99", ["gpu:99", "cpu:0"]),
    (distribution.mirrored, "tpu:0", ["tpu:0", "cpu:0"]),
    (distribution.mirrored, "cpu:0,", ["''", "cpu:0"]),
    (distribution.mirrored, "cpu:0,cpu:64", ["cpu:64", "cpu:63"]),
    (distribution.mirrored, "cpu:0,/CPU:0", ["twice"]),
    (distribution.one_device, "cpu:0,cpu:1", ["one_device", "mirrored"]),
])
def test_unknown_devices(make, text, words):
  with pytest.raises(errors.InputError) as caught:
    make(text)
  assert "\n" not in str(caught.value)
  for word in words:
    assert word in str(caught.value)


@pytest.mark.parametrize("changes,words", [
    (dict(distribution="mirror"), ["mirror", "multi_worker"]),
    (dict(distribution="mirrored", devices="cpu:0,cpu:1,cpu:2,cpu:3,cpu:4"),
     ["train_batch_size is 4", "5 devices"]),
    (dict(distribution="multi_worker"), ["TF_CONFIG is not set"]),
    (dict(heartbeat_timeout=0), ["heartbeat_timeout is 0"]),
])
def test_what_is_refused(files, tmp_path, changes, words):
  with pytest.MonkeyPatch.context() as patch:
    patch.delenv("TF_CONFIG", raising=False)
    line = run_classifier_test.refused(files, tmp_path, **changes)
  for word in words:
    assert word in line, line


@pytest.mark.parametrize("size,processes", [
    (1, {"worker": ["a:1"]}),
    (2, {"worker": ["a:1", "b:2"]}),
    # Of types that multi_worker does not take.
    (3, {"chief": ["a:1"], "worker": ["b:2"], "ps": ["c:3"]})])
def test_the_others_of_a_cluster_would_do_the_same(files, tmp_path, monkeypatch,
                                                   caplog, size, processes):
  monkeypatch.setenv("TF_CONFIG", json.dumps({
      "cluster": processes, "task": {"type": "worker", "index": 0}}))
  if size > 1:
    line = run_classifier_test.refused(files, tmp_path)
    assert "names %d processes" % size in line and "multi_worker" in line
  else:
    with distribution.joined("one_device", str(tmp_path)):
      assert "one_device does not use it" in caplog.text


def test_grpc_goes_past_the_proxy_of_the_web(monkeypatch):
  place = tf_config.Place({"chief": ("a:1",), "worker": ("[::1]:2", "a:3")},
                        "worker", 0)
  monkeypatch.setenv("no_grpc_proxy", "")  # so that it is put back
  monkeypatch.delenv("grpc_proxy", raising=False)
  for before, after in ((None, "::1,a"), ("b,c", "b,c,::1,a")):
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    if before:
      monkeypatch.setenv("no_proxy", before)
    distribution._avoid_proxy(place)  # pylint: disable=protected-access
    assert os.environ["no_grpc_proxy"] == after
  monkeypatch.setenv("grpc_proxy", "http://proxy")
  monkeypatch.delenv("no_grpc_proxy")
  distribution._avoid_proxy(place)  # pylint: disable=protected-access
  assert "no_grpc_proxy" not in os.environ


def test_one_named_device(files, tmp_path):
  files.run("CoLA", tmp_path, do_train=True, num_train_epochs=.4,
            devices="cpu:1")
  assert values_in(tmp_path)["global_step"] == 2


@pytest.mark.slow
def test_another_number_of_devices_may_go_on(files, tmp_path, caplog):
  files.run("CoLA", tmp_path, do_train=True, num_train_epochs=.4)
  files.run("CoLA", tmp_path, do_train=True, num_train_epochs=.8,
            distribution="mirrored", devices="cpu:0,cpu:1")
  assert "goes on with replicas=2; so far it was 1" in caplog.text
  assert values_in(tmp_path)["global_step"] == 4


# ---------------------------------------------------------------- the launcher


def launch(code, workers, *flags):
  """Starts launch_local.py on a program that is given as text."""
  path = os.path.join(os.environ["PYTEST_TMP"], "program.py")
  with open(path, "w", encoding="utf-8") as output:
    output.write("import json, os, signal, sys, time\n"
                 "task = json.loads(os.environ['TF_CONFIG'])['task']\n"
                 "index = task['index']\n" + code)
  return subprocess.Popen(
      [sys.executable, LAUNCHER, "--workers=%d" % workers,
       "--program=%s" % path] + list(flags),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(autouse=True)
def fixture_tmp(tmp_path, monkeypatch):
  monkeypatch.setenv("PYTEST_TMP", str(tmp_path))


def test_launcher_prefixes_and_passes_arguments_on():
  process = launch("print('hello', sys.argv[1:], flush=True)\n"
                   "sys.stderr.write('no line end')", 2, "--", "--a=1", "b")
  stdout, stderr = process.communicate(timeout=60)
  assert process.returncode == 0
  assert sorted(stdout.splitlines()) == [
      "[worker %d] hello ['--a=1', 'b']" % i for i in range(2)]
  assert sorted(stderr.splitlines()) == [
      "[worker %d] no line end" % i for i in range(2)]


def test_launcher_gives_each_its_place_and_its_cores():
  process = launch("time.sleep(.5)\n"
                   "print(os.environ['TF_CONFIG'])\n"
                   "print(sorted(os.sched_getaffinity(0)))", 2)
  stdout, _ = process.communicate(timeout=60)
  lines = {i: [line[11:] for line in stdout.splitlines()
               if line.startswith("[worker %d] " % i)] for i in range(2)}
  configs = [json.loads(lines[i][0]) for i in range(2)]
  assert configs[0]["cluster"] == configs[1]["cluster"]
  addresses = configs[0]["cluster"]["worker"]
  assert len(set(addresses)) == 2
  assert [c["task"]["index"] for c in configs] == [0, 1]
  shares = cores.shares(2)
  if shares != [None, None]:
    assert not shares[0] & shares[1]
    assert [json.loads(lines[i][1]) for i in range(2)] == [
        sorted(share) for share in shares]


@pytest.mark.parametrize("code,status", [
    ("sys.exit(3 * index)", 3),
    ("os.kill(os.getpid(), signal.SIGKILL) if index else time.sleep(.5)", 137),
    # The first failure counts, not what follows from it.
    ("time.sleep(0 if index else 2); sys.exit(4 + index)", 5),
    # One that does not stop by itself is ended.
    ("time.sleep(0 if index else 100); sys.exit(6)", 6),
])
def test_launcher_ends_with_the_first_failure(code, status):
  began = time.monotonic()
  stderr = finished(launch(code, 2, "--grace=3"), status)
  assert "worker 1 ended with" in stderr
  assert time.monotonic() - began < 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_launcher_passes_signals_on(tmp_path, number):
  process = launch(
      "signal.signal(signal.%s, lambda *_: sys.exit(9))\n"
      "open(%r %% index, 'w').close()\n"
      "time.sleep(100)" % (number.name, str(tmp_path / "up-%d")), 2)
  for index in range(2):
    wait_for(lambda i=index: (tmp_path / ("up-%d" % i)).exists())
  process.send_signal(number)
  finished(process, 128 + number)


def test_workers_end_with_a_launcher_that_is_killed(tmp_path):
  with socket.create_server(("localhost", 0)) as server:
    server.settimeout(60)
    process = launch(
        "sys.path.insert(0, %r)\nimport socket\n"
        "from adapter_bert.distributed import meeting, tf_config\n"
        "place = tf_config.parse(os.environ['TF_CONFIG'])\n"
        "line = socket.create_connection(('localhost', %d))\n"
        "with meeting.Meeting(place, %r, 60, 15) as c:\n"
        "  c.meet()\n"
        "  line.sendall(b'.')\n"
        "  time.sleep(1000)\n" % (ROOT, server.getsockname()[1],
                                  str(tmp_path)), 2)
    lines = [server.accept()[0] for _ in range(2)]
    for line in lines:
      line.settimeout(60)
      assert line.recv(1) == b"."
    process.kill()
    process.communicate()
    for line in lines:  # Closed: the process is no more.
      assert line.recv(1) == b""
      line.close()


def test_launcher_goes_on_when_nobody_reads(tmp_path):
  process = launch("for _ in range(10000): print('x' * 100)\n"
                   "open(%r %% index, 'w').close()" % str(tmp_path / "end-%d"),
                   2)
  process.stdout.close()
  process.communicate(timeout=60)
  assert (tmp_path / "end-0").exists() and (tmp_path / "end-1").exists()


def test_launcher_bad_input():
  done = subprocess.run([sys.executable, LAUNCHER, "--workers=0"], check=False,
                        stderr=subprocess.PIPE, text=True)
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith("error: workers is 0")


# ------------------------------------------------------------------ the faults


def wait_for(condition, seconds=600):
  until = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < until, "it did not happen"
    time.sleep(0.01)


class Pair(object):
  """Two workers of one run, as a cluster's scheduler starts them."""

  # A checkpoint after each second step, so that one is often being written.
  SETTINGS = dict(num_train_epochs=20, save_checkpoints_steps=2,
                  keep_checkpoint_max=100)
  # Clusters have such a proxy; nothing must go through it.
  PROXY = {"http_proxy": "http://localhost:9", "https_proxy":
           "http://localhost:9", "no_proxy": ""}

  def __init__(self, files, output_dir):
    self.files = files
    self.output_dir = str(output_dir)
    self.ports = local_processes.free_ports(2)
    self.processes = []

  def start(self, index, program=PROGRAM, ports=None, with_chief=False,
            **changes):
    addresses = ["localhost:%d" % port for port in ports or self.ports]
    config = {"cluster": {"worker": addresses},
              "task": {"type": "worker", "index": index}}
    if with_chief:
      config = {"cluster": {"chief": addresses[:1], "worker": addresses[1:]},
                "task": {"type": "worker" if index else "chief", "index": 0}}
    process = subprocess.Popen(
        [sys.executable, program] + flags_of(
            self.files, self.output_dir, distribution="multi_worker",
            **dict(self.SETTINGS, **changes)),
        env=dict(os.environ, TF_CONFIG=json.dumps(config), **self.PROXY),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    self.processes.append(process)
    return process

  def start_both(self, **changes):
    return [self.start(index, **changes) for index in range(2)]

  def has_step(self, step):
    return any(checkpoint_step(path) >= step for path in glob.glob(
        os.path.join(self.output_dir, "model.ckpt-*.index")))

  def is_saving(self):
    return any("tempstate" in name for name in os.listdir(self.output_dir))


def checkpoint_step(path):
  return int(re.search(r"ckpt-(\d+)", path).group(1))


@pytest.fixture(name="pair")
def fixture_pair(files, tmp_path):
  pair = Pair(files, tmp_path / "out")
  yield pair
  for process in pair.processes:
    process.kill()
    process.wait()


@pytest.fixture(scope="module", name="undisturbed")
def fixture_undisturbed(files):
  """What two workers end with, dropout on."""
  pair = Pair(files, files.path("undisturbed"))
  for process in pair.start_both():
    finished(process)
  return values_in(pair.output_dir)


def assert_goes_on_to_the_same_end(pair, undisturbed, **changes):
  for process in pair.start_both(**changes):
    finished(process)
  found = values_in(pair.output_dir)
  assert sorted(found) == sorted(undisturbed) and found["global_step"] == 100
  for name, value in undisturbed.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)


def error_of(process):
  """The one line that a process ended with, within a minute."""
  began = time.monotonic()
  stderr = finished(process, 1)
  assert time.monotonic() - began < 60
  lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1, stderr[-3000:]
  return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("while_saving", [False, True])
def test_one_is_killed(pair, undisturbed, victim, while_saving):
  both = pair.start_both()
  wait_for(lambda: pair.has_step(20))
  if while_saving:
    wait_for(pair.is_saving)
  both[victim].send_signal(signal.SIGKILL)
  # The line says that TensorFlow reported it, before the signs of life did.
  line = error_of(both[1 - victim])
  assert line.startswith(
      "error: worker %d: worker %d (process %d on %s) is lost: the connection to "
      "it broke, and at localhost:%d it cannot be reached (Connection refused); "
      "start all" % (1 - victim, victim, both[victim].pid, socket.gethostname(),
                     pair.ports[victim])), line
  assert not pair.has_step(100)
  assert_goes_on_to_the_same_end(pair, undisturbed)


@pytest.mark.slow
def test_one_that_is_frozen_is_missed(pair):
  """TensorFlow sees nothing of it: the signs of life do."""
  both = pair.start_both()
  wait_for(lambda: pair.has_step(20))
  both[1].send_signal(signal.SIGSTOP)
  line = error_of(both[0])
  assert "worker 1 (process %d" % both[1].pid in line
  assert "is lost: no sign of it for %d s" % HEARTBEAT in line


@pytest.mark.slow
@pytest.mark.parametrize("signalled,number", [(0, signal.SIGINT),
                                              (1, signal.SIGTERM)])
def test_a_signal_to_one_stops_all_after_the_same_step(
    pair, undisturbed, signalled, number):
  # Between two checkpoints of the schedule, as far as that can be hit.
  both = pair.start_both(save_checkpoints_steps=50)
  wait_for(lambda: pair.has_step(50))
  both[signalled].send_signal(number)
  ends = [finished(process, 128 + number).splitlines()[-1] for process in both]
  assert ends[0] == ends[1]
  step = int(re.fullmatch(
      r"stopped by %s after step (\d+) of 100, which is saved; the same command "
      r"goes on from there" % number.name, ends[0]).group(1))
  assert max(checkpoint_step(path) for path in glob.glob(os.path.join(
      pair.output_dir, "model.ckpt-*.index"))) == step
  assert_goes_on_to_the_same_end(pair, undisturbed)


@pytest.mark.slow
def test_with_dropout_a_run_is_reproducible(pair, undisturbed):
  assert_goes_on_to_the_same_end(pair, undisturbed)


@pytest.mark.slow
def test_a_chief_and_a_worker(pair, undisturbed):
  assert_goes_on_to_the_same_end(pair, undisturbed, with_chief=True)


@pytest.mark.slow
def test_one_starts_late(pair, undisturbed):
  chief = pair.start(0)
  time.sleep(HEARTBEAT + 5)
  worker = pair.start(1)
  finished(chief), finished(worker)
  assert values_in(pair.output_dir)["global_step"] == undisturbed["global_step"]


@pytest.mark.slow
@pytest.mark.parametrize("there", [0, 1])
def test_one_never_starts(pair, there):
  line = error_of(pair.start(there, start_timeout=5))
  assert "worker %d did not start within 5 s" % (1 - there) in line
  assert not glob.glob(os.path.join(pair.output_dir, "model.ckpt*"))


@pytest.mark.slow
def test_the_same_index_twice(pair):
  """All stop; or, if the others had met before, the late one alone."""
  processes = [pair.start(0), pair.start(1), pair.start(1)]
  stopped = []
  for process in processes:
    _, stderr = process.communicate(timeout=600)
    if process.returncode:
      stopped.append(process)
      lines = [l for l in stderr.splitlines() if l.startswith("error: ")]
      assert len(lines) == 1 and "two processes run as worker 1" in lines[0]
  assert stopped == processes or (len(stopped) == 1 and
                                  stopped[0] is not processes[0])


@pytest.mark.slow
@pytest.mark.parametrize("changes,words", [
    (dict(learning_rate=0.5), ["learning_rate is 0.01 on worker 0", "0.5"]),
    (dict(seed=4), ["seed is 0", "4"]),
    (dict(export_full_checkpoint="/nowhere/all"),
     ["export_full_checkpoint is given is false on worker 0 and true"]),
    (dict(ports=[1, 2]), ["the cluster in TF_CONFIG.worker", "localhost:2"]),
])
def test_other_flags(pair, changes, words):
  lines = [error_of(p) for p in [pair.start(0), pair.start(1, **changes)]]
  for line in lines:
    for word in words:
      assert word in line
  assert not os.path.exists(os.path.join(pair.output_dir, "run.json"))


@pytest.mark.slow
def test_other_data(pair, files, tmp_path):
  shutil.copytree(files.path("MRPC"), str(tmp_path / "MRPC"))
  with open(str(tmp_path / "MRPC" / "train.tsv"), "a", encoding="utf-8") as out:
    out.write("1\t1\t2\tthe cat\tthe dog\n")
  lines = [error_of(p) for p in [
      pair.start(0), pair.start(1, data_dir=str(tmp_path / "MRPC"))]]
  for line in lines:
    assert "train.tsv" in line and "data_sha256" in line


@pytest.mark.slow
def test_other_weights(pair, files, tmp_path):
  prefix = str(tmp_path / "bert_model.ckpt")
  weights_lib.write(prefix, {
      name: value + 1 for name, value in run_classifier_test.values_in(
          files.path("bert/bert_model.ckpt")).items()})
  lines = [error_of(p) for p in [
      pair.start(0), pair.start(1, init_checkpoint=prefix)]]
  for line in lines:
    assert "init_checkpoint (its digest)" in line


@pytest.mark.slow
def test_a_worker_without_the_data_takes_the_shards(pair, undisturbed):
  both = [pair.start(0), pair.start(1, data_dir="/nowhere")]
  for process in both:
    finished(process)
  np.testing.assert_array_equal(values_in(pair.output_dir)["output_weights"],
                                undisturbed["output_weights"])


@pytest.mark.slow
def test_a_port_in_use(pair):
  with socket.socket() as taken:
    taken.bind(("", pair.ports[1]))
    taken.listen()
    lines = [error_of(p) for p in pair.start_both()]
  for line in lines:
    assert "worker 1 cannot listen on port %d" % pair.ports[1] in line


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_stops_all(pair):
  os.makedirs(os.path.join(
      pair.output_dir, "model.ckpt-20.data-00000-of-00001", "in the way"))
  lines = [error_of(process) for process in pair.start_both()]
  for line in lines:
    assert re.search("error: .*checkpoint of step 20 cannot be written: .*; Is "
                     "a directory; that of step 18 is still there", line)


@pytest.mark.slow
def test_the_best_is_kept_and_stops_all_early(files, tmp_path):
  changes = dict(do_eval=True, num_train_epochs=8, save_checkpoints_steps=2,
                 save_best=True, early_stopping=2)
  one = str(tmp_path / "one")
  run_program(files.path("no_dropout.py"), *still(files, one, **changes))
  two = str(tmp_path / "two")
  run_program(LAUNCHER, "--program=%s" % files.path("no_dropout.py"), "--",
              "--distribution=multi_worker", *still(files, two, **changes))
  scores = []
  for output_dir in (one, two):
    with open(os.path.join(output_dir, "dev_scores.json"),
              encoding="utf-8") as source:
      scores.append(json.load(source))
  assert [step for step, _ in scores[0]] == [step for step, _ in scores[1]]
  np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
  assert scores[0][-1][0] < 32
  assert values_in(one)["global_step"] == values_in(two)["global_step"]
