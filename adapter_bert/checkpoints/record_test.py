"""run.json is written and read whole."""

import json

import pytest

from adapter_bert.base import errors
from adapter_bert.checkpoints import record as run_record


def test_run_records(tmp_path):
  assert run_record.read(str(tmp_path)) is None
  run_record.write(str(tmp_path / "a"), {"tune": "x"})
  assert run_record.read(str(tmp_path / "a")) == {"tune": "x"}
  (tmp_path / "a" / "run.json").write_text("{")
  with pytest.raises(errors.InputError, match="run.json"):
    run_record.read(str(tmp_path / "a"))


GOOD = {"task": {"name": "mrpc"}, "bert_config": {}, "num_labels": 2,
        "tune": "adapters", "top_n_layers": None, "adapter_size": 8,
        "adapter_layers": [0, 1], "init_shared_from": None,
        "do_lower_case": True, "schedule": {"precision": "float32"},
        "base": {"path": "x", "sha256": "y"}}


def test_each_value_is_of_its_type(tmp_path):
  """Another type anywhere is one line that names the place."""
  path = tmp_path / "run.json"
  path.write_text(json.dumps(GOOD))
  assert run_record.read(str(tmp_path)) == GOOD
  for key, good in GOOD.items():
    for bad in (7, "x", True, [], {}, ["x"], 1.5):
      if type(bad) is type(good) and bad != ["x"] and key != "base" or (
          good is None):
        continue
      path.write_text(json.dumps(dict(GOOD, **{key: bad})))
      with pytest.raises(errors.InputError) as caught:
        run_record.read(str(tmp_path))
      assert key in str(caught.value) and "run.json" in str(caught.value)
      assert "\n" not in str(caught.value)


def test_null_is_as_if_a_key_were_not_there(tmp_path):
  (tmp_path / "run.json").write_text(json.dumps(
      {"task": None, "schedule": None, "base": None, "adapter_size": None}))
  assert run_record.read(str(tmp_path)) == {"base": None, "adapter_size": None}


@pytest.mark.parametrize("text", [
    "[" * 100000, '{"a":' * 100000, '{"num_labels": 1%s}' % ("0" * 400),
    '{"num_labels": 1%s}' % ("0" * 9000), '{"num_labels": 1e999}', "7", "null",
    '{"tune": "a", "tune": "b"}', "\xff"])
def test_what_is_no_record_is_one_line(tmp_path, text):
  (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(errors.InputError) as caught:
    run_record.read(str(tmp_path))
  assert "run.json" in str(caught.value) and len(str(caught.value)) < 300
