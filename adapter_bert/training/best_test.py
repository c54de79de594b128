"""What is left of the scores when their file is damaged."""

import pytest

from adapter_bert.checkpoints import record as run_record
from adapter_bert.training import best


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"[[2, null]]"])
def test_damaged_scores_are_replaced_by_the_best_ones(tmp_path, caplog, content):
  (tmp_path / best.DEV_SCORES).write_bytes(content)
  keep = best.KeepBest(str(tmp_path), None, "eval_f1", max, patience=1)
  assert not keep.has_stopped()
  line, = caplog.messages
  assert line.startswith(str(tmp_path / best.DEV_SCORES))
  run_record.write(str(tmp_path / best.BEST),
                   {"dev": {"eval_f1": 0.5, "global_step": 4}})
  assert keep._read() == [(4, 0.5)]
