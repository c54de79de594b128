"""The devices and the processes of a run, on tf.distribute.

  one_device     one process, TensorFlow's own choice of device
  mirrored       one process, all its GPUs, or the devices that are named
  multi_worker   several processes that TF_CONFIG names, each with its devices

The training step is the same for all three. A `Group` is what the loop and the
programs are given: the strategy, and the questions that processes ask each
other (meeting.py), which one process alone answers itself.
"""

import contextlib
import dataclasses
import os
import re
import socket
from typing import Any, Optional, Tuple

from absl import logging
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.distributed import meeting as meeting_lib
from adapter_bert.distributed import tf_config

ONE_DEVICE, MIRRORED, MULTI_WORKER = "one_device", "mirrored", "multi_worker"
DISTRIBUTIONS = (ONE_DEVICE, MIRRORED, MULTI_WORKER)

# So many logical devices can a CPU be cut into.
_MOST_CPUS = 64


@dataclasses.dataclass(frozen=True)
class Group(object):
  """What a run is computed on.

  strategy: tf.distribute.Strategy for training, over all processes.
  local: tf.distribute.Strategy over this process's own devices.
  num_cpus: int, logical CPU devices.
  gpus: the numbers of the GPUs that may be used; None: all.
  meeting: meeting.Meeting of the processes, or None.
  target: str, what training sessions connect to.
  """
  strategy: Any
  local: Any
  num_cpus: int = 1
  gpus: Optional[Tuple[int, ...]] = None
  meeting: Any = None
  target: str = ""

  @property
  def num_workers(self):
    return self.meeting.size if self.meeting else 1

  @property
  def rank(self):
    return self.meeting.place.rank if self.meeting else 0

  @property
  def is_chief(self):
    """Whether this process writes what the run leaves."""
    return self.rank == 0

  @property
  def num_replicas(self):
    """Devices over all processes."""
    return self.strategy.num_replicas_in_sync

  def alone(self):
    """The Group of this process's own devices, without the other processes."""
    return dataclasses.replace(self, strategy=self.local, meeting=None,
                               target="")

  def configured(self, config):
    """A tf.ConfigProto for a session, from one without devices."""
    result = tf.ConfigProto()
    result.CopyFrom(config)
    if self.num_cpus > 1:
      result.device_count["CPU"] = self.num_cpus
    if self.gpus is not None:
      result.gpu_options.visible_device_list = ",".join(map(str, self.gpus))
      if not self.gpus:
        result.device_count["GPU"] = 0
    if self.meeting and self.target:
      result = self.strategy.update_config_proto(result)
    return result

  # The questions; see meeting.Meeting.

  def decide(self, what, value_fn):
    return self.meeting.decide(what, value_fn) if self.meeting else value_fn()

  def barrier(self, what):
    if self.meeting:
      self.meeting.barrier(what)

  def same(self, values):
    if self.meeting:
      self.meeting.same(values)

  def gather(self, arrays):
    return self.meeting.gather(arrays) if self.meeting else [arrays]

  def shared_path(self, directory, path_fn, suffix=""):
    """The chief's `path_fn()`, a path in `directory`, as it is called here.

    Processes may see the directory that they share under different names.

    Args:
      directory: str, the shared directory.
      path_fn: function that gives a path in it, or None.
      suffix: str; the path and this is a file that the chief has: waits until
        it is seen here, which may take seconds on a network file system.

    Returns: str or None.
    """
    def relative():
      path = path_fn()
      return path and os.path.relpath(path, directory)

    name = self.decide("path", relative)
    path = name and os.path.join(directory, name)
    if path and not self.is_chief:
      self.meeting.wait_for_file(path + suffix)
    return path

  @contextlib.contextmanager
  def connected(self):
    """Inside, an error that another process's end causes ends this one."""
    try:
      yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError,
            tf.errors.CancelledError, tf.errors.InternalError,
            tf.errors.FailedPreconditionError) as error:
      if not self.meeting:
        raise
      self.meeting.signs.stop_for(error)


# ---------------------------------------------------------------- the devices


def one_device(devices=None):
  """The Group of one device; None: TensorFlow chooses for each op."""
  devices = _checked(devices)
  if len(devices) > 1:
    raise errors.InputError(
        "distribution=one_device, but devices names %d (%s); give one, or "
        "distribution=mirrored" % (len(devices), ", ".join(devices)))
  if not devices:
    return Group(tf.distribute.get_strategy(), tf.distribute.get_strategy())
  strategy = tf.distribute.OneDeviceStrategy("/" + devices[0])
  return Group(strategy, strategy, num_cpus=_num_cpus(devices))


def mirrored(devices=None):
  """The Group of several devices of this process.

  Args:
    devices: str as in "gpu:0,gpu:1"; or "cpu:0,cpu:1", which are logical
      devices, made for it; None: all GPUs, or else the CPU.

  Raises: InputError if there is no such device.
  """
  devices = _checked(devices) or _gpus() or ["cpu:0"]
  strategy = tf.distribute.MirroredStrategy(["/" + name for name in devices])
  return Group(strategy, strategy, num_cpus=_num_cpus(devices))


def multi_worker(meeting, devices=None):
  """The Group of several processes, each with its GPUs or else its CPU.

  The processes must have met: this starts TensorFlow's server and returns when
  all of them have one.

  Args:
    meeting: meeting.Meeting.
    devices: str; as for `mirrored`, but one CPU device at most.

  Raises: InputError if there is no such device, or the port is taken.
  """
  named = _checked(devices)
  devices = named or _gpus() or ["cpu:0"]
  if devices[1:] and devices[0].startswith("cpu"):
    raise errors.InputError(
        "devices is %s, but with multi_worker each process has one CPU device; "
        "start more processes" % ",".join(devices))
  gpus = [int(name[4:]) for name in devices if name.startswith("gpu")]
  meeting.same({"devices of each process": len(devices),
                "kind of devices": devices[0][:3]})
  strategy = strategy_of(meeting.place, len(gpus))
  # Their numbers count among those that are visible.
  local = (tf.distribute.MirroredStrategy(
      ["/gpu:%d" % i for i in range(len(gpus))]) if len(gpus) > 1 else
           tf.distribute.get_strategy())
  group = Group(strategy, local, gpus=tuple(gpus) if named else None,
                meeting=meeting, target="-")
  return dataclasses.replace(
      group, target=_server(meeting.place, group.configured(tf.ConfigProto())))


def strategy_of(place, num_gpus=0):
  """The tf.distribute.Strategy over all processes.

  Args:
    place: tf_config.Place.
    num_gpus: int, those that each process uses; 0: its CPU.
  """
  return tf.distribute.experimental.MultiWorkerMirroredStrategy(
      cluster_resolver=tf.distribute.cluster_resolver.SimpleClusterResolver(
          _spec(place), task_type=place.kind, task_id=place.index,
          num_accelerators={"GPU": num_gpus}, rpc_layer="grpc"))


def _spec(place):
  return tf.train.ClusterSpec({k: list(a) for k, a in place.addresses.items()})


def _avoid_proxy(place):
  """Lets gRPC reach the cluster's hosts: it would obey http_proxy, and hang."""
  if os.environ.get("grpc_proxy"):
    return  # Meant for just this.
  hosts = set(address.rpartition(":")[0].strip("[]")
              for addresses in place.addresses.values()
              for address in addresses)
  known = os.environ.get("no_grpc_proxy", os.environ.get("no_proxy"))
  os.environ["no_grpc_proxy"] = ",".join(
      ([known] if known else []) + sorted(hosts))


def _server(place, config):
  """Starts this process's tf.distribute.Server; returns its target."""
  port = int(place.address.rpartition(":")[2])
  _avoid_proxy(place)
  if place.is_chief:
    # TensorFlow has no setting for it: it binds the port of the address, and
    # never its host (2.21: "localhost:12345" listens on *:12345).
    logging.warning(
        "the ports of this run (%s) are open on every network interface of "
        "their machines, and ask for no password: whoever reaches one reads and "
        "writes files as the user of its process. Let nobody but the run's "
        "processes reach them; docs/distributed.md says how",
        ", ".join(place.address_of(name) for name in place.names))
  try:
    with socket.socket() as probe:
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind(("", port))
    return tf.distribute.Server(_spec(place), job_name=place.kind,
                                task_index=place.index, config=config).target
  except (OSError, tf.errors.OpError) as error:
    raise errors.InputError(
        "%s cannot listen on port %d (%s in TF_CONFIG): %s; end what uses it, "
        "or give another port to all processes" % (
            place.name, port, place.address,
            getattr(error, "strerror", None) or errors.op_reason(error))
    ) from error


def _gpus():
  """["gpu:0", ...] of this machine."""
  return ["gpu:%d" % i
          for i in range(len(tf.config.list_physical_devices("GPU")))]


def _checked(text):
  """["gpu:0", ...] of the flag's "gpu:0,gpu:1"; [] for None."""
  if text is None:
    return []
  here = _gpus()
  devices = []
  for part in text.split(","):
    found = re.fullmatch(r"\s*/?(?:device:)?(cpu|gpu):(\d+)\s*", part,
                         re.IGNORECASE)
    name = found and "%s:%d" % (found.group(1).lower(), int(found.group(2)))
    if not found or (name.startswith("gpu") and name not in here) or (
        name.startswith("cpu") and int(name[4:]) >= _MOST_CPUS):
      raise errors.InputError(
          "devices has %r; this machine has %scpu:0 to cpu:%d (parts of its "
          "CPU)" % (part, "".join(name + ", " for name in here),
                    _MOST_CPUS - 1))
    devices.append(name)
  if len(set(devices)) < len(devices):
    raise errors.InputError("devices has one twice: %s" % text)
  if len(set(name[:3] for name in devices)) > 1:
    raise errors.InputError("devices mixes kinds: %s; give GPUs or CPUs" % text)
  return devices


def _num_cpus(devices):
  return 1 + max([int(name[4:]) for name in devices
                  if name.startswith("cpu")] or [0])


# ------------------------------------------------------------------- the start


def check(distribution, start_timeout, heartbeat_timeout):
  """Raises InputError unless the flags of these names can be used."""
  if distribution not in DISTRIBUTIONS:
    raise errors.InputError("distribution is %r; it can be %s" %
                            (distribution, " or ".join(DISTRIBUTIONS)))
  for name, seconds in (("start_timeout", start_timeout),
                        ("heartbeat_timeout", heartbeat_timeout)):
    if not seconds >= 1:
      raise errors.InputError("%s is %g; it must be at least 1 second" %
                              (name, seconds))
  size = tf_config.count_processes(os.environ.get("TF_CONFIG"))
  if distribution != MULTI_WORKER and size > 1:
    raise errors.InputError(
        "TF_CONFIG names %d processes, and with distribution=%s each of them "
        "would do all of the work, in one output_dir; give "
        "--distribution=multi_worker, or unset TF_CONFIG" %
        (size, distribution))


def joined(distribution, output_dir, start_timeout=600, lost_after=30):
  """A context with the run's meeting.Meeting; with None for a single process.

  In it the other processes see what this one fails with.

  Args:
    distribution: one of DISTRIBUTIONS.
    output_dir: str, which the processes of multi_worker share.
    start_timeout: seconds to wait for the other processes.
    lost_after: seconds without a sign after which a process is lost.

  Raises: InputError.
  """
  check(distribution, start_timeout, lost_after)
  if distribution == MULTI_WORKER:
    if files.has_scheme(output_dir):
      raise errors.InputError(
          "output_dir is %s, and distribution=multi_worker needs a directory "
          "that all processes share as a file system" % output_dir)
    return meeting_lib.Meeting(
        tf_config.parse(os.environ.get("TF_CONFIG")), output_dir,
        start_timeout, lost_after)
  if os.environ.get("TF_CONFIG"):
    logging.warning("TF_CONFIG is set, but distribution=%s does not use it; "
                    "multi_worker does", distribution)
  return contextlib.nullcontext()


def group_of(distribution, meeting=None, devices=None, facts=None):
  """The Group of a run, once all of its processes are there.

  Args:
    distribution: one of DISTRIBUTIONS.
    meeting: what `joined` gave.
    devices: str or None, see `mirrored`.
    facts: dict, what all processes must have in common.

  Raises: InputError.
  """
  if meeting is None:
    return {ONE_DEVICE: one_device, MIRRORED: mirrored}[distribution](devices)
  meeting.meet()
  meeting.same(dict(facts or {}, **{
      "the cluster in TF_CONFIG": meeting.place.addresses}))
  group = multi_worker(meeting, devices)
  group.barrier("all have a server")
  meeting.reach_all()
  return group
