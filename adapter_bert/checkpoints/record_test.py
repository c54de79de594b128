"""run.json is written and read whole."""

import pytest

from adapter_bert.base import errors
from adapter_bert.checkpoints import record as run_record


def test_run_records(tmp_path):
  assert run_record.read(str(tmp_path)) is None
  run_record.write(str(tmp_path / "a"), {"task": "x"})
  assert run_record.read(str(tmp_path / "a")) == {"task": "x"}
  (tmp_path / "a" / "run.json").write_text("{")
  with pytest.raises(errors.InputError, match="run.json"):
    run_record.read(str(tmp_path / "a"))
