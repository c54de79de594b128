"""Every process has cores of its own, if there are enough."""

import os

import pytest

from adapter_bert.distributed import cores


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_each_process_has_its_own_cores():
  available = os.sched_getaffinity(0)
  assert cores.shares(1) == [None]
  assert cores.shares(len(available) + 1) == [None] * (len(available) + 1)
  if len(available) > 1:
    one, other = cores.shares(2)
    assert one | other <= available and not one & other
    assert len(one) == len(other) == len(available) // 2
    cores.restrict(one)
    assert os.sched_getaffinity(0) == one
    cores.restrict(None)
    assert os.sched_getaffinity(0) == one
    cores.restrict(available)
