"""TF_CONFIG: which processes train together, and which of them this one is.

It is as TensorFlow documents it:

    TF_CONFIG='{"cluster": {"worker": ["host1:12345", "host2:12345"]},
                "task": {"type": "worker", "index": 0}}'

The first of the processes, `chief` or else worker 0, writes checkpoints and
results.
"""

import dataclasses
import json
import re
from typing import Dict, Tuple

from adapter_bert.base import errors
from adapter_bert.base import files


# What TF_CONFIG holds; "index" may be written as a string.
SHAPE = {
    "cluster": {"chief": files.Optional([str]), "worker": files.Optional([str])},
    "task": {"type": str, "index": None},
}


@dataclasses.dataclass(frozen=True)
class Place(object):
  """Which process of a cluster this one is.

  addresses: "chief" and "worker" -> host:port of each.
  kind, index: this process's; "chief" or "worker", and int.
  """
  addresses: Dict[str, Tuple[str, ...]]
  kind: str
  index: int

  @property
  def names(self):
    """All processes, the first one in charge: "chief", "worker 0", ..."""
    return tuple(_name(kind, index) for kind in ("chief", "worker")
                 for index in range(len(self.addresses.get(kind, ()))))

  @property
  def name(self):
    return _name(self.kind, self.index)

  @property
  def rank(self):
    return self.names.index(self.name)

  @property
  def is_chief(self):
    return self.rank == 0

  @property
  def address(self):
    return self.address_of(self.name)

  def address_of(self, name):
    """host:port of one of `names`."""
    every = self.addresses.get("chief", ()) + self.addresses.get("worker", ())
    return every[self.names.index(name)]


def _name(kind, index):
  return kind if kind == "chief" else "%s %d" % (kind, index)


def parse(text):
  """Place from the text of TF_CONFIG (None if the variable is not set).

  Raises: InputError that says what is wrong in it.
  """
  if not text or not text.strip():
    raise errors.InputError(
        "TF_CONFIG is not set; distribution=multi_worker needs it in every "
        'process, as in TF_CONFIG={"cluster": {"worker": ["host1:12345", '
        '"host2:12345"]}, "task": {"type": "worker", "index": 0}}; '
        "launch_local.py sets it on one machine")
  try:
    value = files.parse_json(text, "TF_CONFIG", SHAPE)
  except errors.InputError as error:
    raise errors.InputError(
        '%s; it is as in {"cluster": {"worker": ["host1:12345"]}, "task": '
        '{"type": "worker", "index": 0}}' % error) from error
  addresses = _addresses(value["cluster"])
  kind, index = value["task"]["type"], value["task"]["index"]
  _check_config(kind in addresses,
                "task.type must be one of its cluster (%s)" %
                " or ".join(addresses), kind)
  if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
    index = int(index)  # TensorFlow takes it, and job templates write it.
  _check_config(isinstance(index, int) and not isinstance(index, bool) and
                0 <= index < len(addresses[kind]),
                "task.index must be from 0 to %d, since the cluster has %d "
                "%s process(es)" % (len(addresses[kind]) - 1,
                                    len(addresses[kind]), kind), index)
  return Place(addresses, kind, index)


def _addresses(cluster):
  """The checked `cluster` of a TF_CONFIG."""
  _check_config(bool(cluster),
                'needs "cluster": {"worker": ["host1:12345", ...]}', cluster)
  addresses = {}
  for kind, listed in cluster.items():
    _check_config(kind in ("chief", "worker"),
                  "cluster has a type that is not supported; there is chief "
                  "(at most one) and worker", kind)
    _check_config(bool(listed),
                  "cluster.%s must be a list of host:port" % kind, listed)
    for address in listed:
      found = re.fullmatch(
          r"[^\s/:]+:(\d{1,5})|\[[0-9a-fA-F:]+\]:(\d{1,5})", address)
      _check_config(found and 0 < int(found.group(1) or found.group(2)) < 65536,
                    "cluster.%s must hold host:port, with a port from 1 to "
                    "65535" % kind, address)
    addresses[kind] = tuple(listed)
  _check_config(len(addresses.get("chief", ())) <= 1,
                "cluster.chief must have one process", addresses.get("chief"))
  every = [a for listed in addresses.values() for a in listed]
  twice = sorted(set(a for a in every if every.count(a) > 1))
  _check_config(not twice, "cluster has an address twice", ", ".join(twice))
  return addresses


def _check_config(is_good, what, found):
  if not is_good:
    raise errors.InputError("TF_CONFIG: %s; found %s" %
                            (what, short(json.dumps(found))))


def short(text):
  """A text for a message, cut off if it is long."""
  return text if len(text) <= 100 else text[:100] + "..."


def count_processes(text):
  """How many processes the text of a TF_CONFIG names, whatever else it is."""
  try:
    value = files.parse_json(text or "", "TF_CONFIG", {"cluster": dict})
  except errors.InputError:
    return 0
  return sum(len(listed) for listed in value["cluster"].values()
             if isinstance(listed, list))
