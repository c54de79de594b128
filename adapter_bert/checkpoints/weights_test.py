"""Finding checkpoints, reading and writing them, a run's over its base."""

import os

import numpy as np
import pytest

from adapter_bert.base import errors
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib

ARRAYS = {
    "bert/embeddings/word_embeddings": np.arange(12, dtype=np.float32).reshape(
        3, 4),
    "bert/embeddings/LayerNorm/beta": np.arange(4, dtype=np.float32),
    "bert/pooler/dense/bias": np.ones(4, np.float32),
}


@pytest.fixture(name="base")
def fixture_base(tmp_path):
  """The prefix of a checkpoint and its arrays."""
  prefix = str(tmp_path / "base" / "bert_model.ckpt")
  os.makedirs(os.path.dirname(prefix))
  weights_lib.write(prefix, ARRAYS)
  return prefix, ARRAYS


# ----------------------------------------------------------------- finding


def test_write_and_read_back(base):
  prefix, arrays = base
  weights = weights_lib.Weights([prefix])
  assert weights.shapes == {n: list(a.shape) for n, a in arrays.items()}
  for name, array in arrays.items():
    np.testing.assert_array_equal(weights.value(name), array)


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_find_takes_prefix_file_or_directory(base, suffix):
  prefix, _ = base
  assert weights_lib.find(prefix + suffix) == prefix
  assert weights_lib.find(os.path.dirname(prefix)) == prefix


def test_find_says_what_is_missing(tmp_path):
  for path in (str(tmp_path), str(tmp_path / "no.ckpt")):
    with pytest.raises(errors.InputError, match="no (such )?checkpoint"):
      weights_lib.find(path)


def test_newest_is_the_highest_step_that_is_complete(tmp_path):
  assert weights_lib.newest_readable(str(tmp_path)) is None
  for step in (9, 10):
    weights_lib.write(str(tmp_path / ("model.ckpt-%d" % step)),
                      {"global_step": np.int64(step)})
  newest = weights_lib.newest_readable(str(tmp_path))
  assert newest.endswith("model.ckpt-10")  # by number, not by letters
  assert weights_lib.step_of(newest) == 10
  # Half-written: data without its index, as a kill leaves it.
  (tmp_path / "model.ckpt-11.data-00000-of-00001").write_bytes(b"half")
  (tmp_path / "model.ckpt-12.index.tempstate123").write_bytes(b"half")
  # And a state file that names a checkpoint that is gone.
  (tmp_path / "checkpoint").write_text(
      'model_checkpoint_path: "model.ckpt-11"\n')
  assert weights_lib.newest_readable(str(tmp_path)) == newest


@pytest.mark.parametrize("damage", ["half index", "half data", "no data"])
@pytest.mark.parametrize("named", [True, False])
def test_newest_passes_over_what_is_incomplete(tmp_path, caplog, damage, named):
  for step in (3, 4):
    weights_lib.write(str(tmp_path / ("model.ckpt-%d" % step)), {
        "global_step": np.int64(step), "x": np.ones([99], np.float32)})
  part = tmp_path / ("model.ckpt-4.index" if damage == "half index" else
                     "model.ckpt-4.data-00000-of-00001")
  if damage == "no data":
    part.unlink()
  else:
    part.write_bytes(part.read_bytes()[:part.stat().st_size // 2])
  if named:
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-4"\n')
  assert weights_lib.newest_readable(str(tmp_path)) == str(
      tmp_path / "model.ckpt-3")
  assert "incomplete" in caplog.text and "model.ckpt-4" in caplog.text
  with pytest.raises(errors.InputError, match="model.ckpt-4.*complete"):
    weights_lib.Weights([str(tmp_path / "model.ckpt-4")]).check()


def test_the_checkpoint_file_decides_which_is_the_newest(tmp_path):
  for step in (3, 4, 10):
    weights_lib.write(str(tmp_path / ("model.ckpt-%d" % step)),
                      {"global_step": np.int64(step)})
  (tmp_path / "checkpoint").write_text(
      'model_checkpoint_path: "model.ckpt-4"\n')
  assert weights_lib.newest_readable(str(tmp_path)) == str(
      tmp_path / "model.ckpt-4")
  (tmp_path / "copy").mkdir()
  (tmp_path / "copy" / "checkpoint").write_text(
      'model_checkpoint_path: "%s/model.ckpt-4"\n' % tmp_path)
  assert weights_lib.newest_readable(str(tmp_path / "copy")) is None
  assert [os.path.basename(p) for p in weights_lib.numbered(str(tmp_path))] == [
      "model.ckpt-3", "model.ckpt-4", "model.ckpt-10"]


def test_a_file_that_is_no_checkpoint(tmp_path):
  (tmp_path / "x.ckpt.index").write_text("not an index")
  with pytest.raises(errors.InputError, match="cannot be read"):
    weights_lib.Weights([str(tmp_path / "x.ckpt")])


# ------------------------------------------------------- digests and records


def test_the_digest_is_of_berts_own_values(base, tmp_path):
  prefix, arrays = base
  digest = weights_lib.Weights([prefix]).digest()
  same = str(tmp_path / "same.ckpt")
  weights_lib.write(same, dict(arrays, global_step=np.int64(7),
                               output_bias=np.zeros(2, np.float32)))
  assert weights_lib.Weights([same]).digest() == digest
  other = str(tmp_path / "other.ckpt")
  name = "bert/pooler/dense/bias"
  weights_lib.write(other, dict(arrays, **{name: arrays[name] + 1e-6}))
  assert weights_lib.Weights([other]).digest() != digest


def run_on(base, directory, record=None):
  """A run's output_dir: one trained variable, over the base."""
  os.makedirs(directory)
  name = "bert/embeddings/LayerNorm/beta"
  value = base[1][name] + 1
  weights_lib.write(os.path.join(directory, "model.ckpt-4"), {
      name: value, name + "/adam_m": value, name + "/adam_v": value,
      "global_step": np.int64(4)})
  run_record.write(directory, record or {
      "base": run_record.describe_base(weights_lib.Weights([base[0]]),
                                        base[0])})
  return name, value


def test_what_was_trained_lies_over_its_base(base, tmp_path):
  directory = str(tmp_path / "run")
  name, value = run_on(base, directory)
  weights = weights_lib.Weights.open(directory)
  np.testing.assert_array_equal(weights.value(name), value)
  other = "bert/pooler/dense/bias"
  np.testing.assert_array_equal(weights.value(other), base[1][other])
  assert weights.is_overlaid(name) and not weights.is_overlaid(other)


def test_a_base_that_moved_or_changed(base, tmp_path):
  directory = str(tmp_path / "run")
  run_on(base, directory)
  moved = str(tmp_path / "moved")
  os.rename(os.path.dirname(base[0]), moved)
  with pytest.raises(errors.InputError, match="--init_checkpoint"):
    weights_lib.Weights.open(directory)
  assert weights_lib.Weights.open(directory, base=moved)
  changed = str(tmp_path / "changed.ckpt")
  weights_lib.write(changed, {n: a + 1 for n, a in base[1].items()})
  with pytest.raises(errors.InputError, match="digest"):
    weights_lib.Weights.open(directory, base=changed)
  assert weights_lib.Weights.open(directory, base=changed, force_base=True)


# --------------------------------------------- files that are not a model's


def test_an_object_based_checkpoint_is_one_line(tmp_path):
  prefix = str(tmp_path / "keras.ckpt")
  weights_lib.write(prefix, {
      "model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(2, np.float32)})
  with pytest.raises(errors.InputError) as raised:
    weights_lib.Weights([prefix])
  assert "tf.train.Checkpoint or Keras" in str(raised.value)
  assert "\n" not in str(raised.value)


def test_tensors_that_are_no_numbers(base, tmp_path):
  prefix = str(tmp_path / "text.ckpt")
  weights_lib.write(prefix, dict(ARRAYS, note=np.array(b"hello", object)))
  with pytest.raises(errors.InputError, match="note is of type string; the"):
    weights_lib.Weights([prefix])
  weights_lib.write(prefix, dict(ARRAYS, count=np.int32(3)))
  assert not weights_lib.Weights([prefix]).is_float("count")
  assert weights_lib.Weights([base[0]]).is_float("bert/pooler/dense/bias")


def test_any_one_checkpoint_in_a_directory(tmp_path):
  prefix = str(tmp_path / "albert_model.ckpt")
  weights_lib.write(prefix, ARRAYS)
  assert weights_lib.find(str(tmp_path)) == prefix
  weights_lib.write(str(tmp_path / "b.ckpt"), ARRAYS)
  with pytest.raises(errors.InputError) as raised:
    weights_lib.find(str(tmp_path))
  assert "there are albert_model.ckpt.index, b.ckpt.index" in str(raised.value)


def test_no_network_path_is_opened_because_a_file_says_so(base, tmp_path):
  directory = str(tmp_path / "run")
  run_on(base, directory, {"base": {"path": "gs://evil/base", "sha256": "0"}})
  with pytest.raises(errors.InputError, match="no network path is opened"):
    weights_lib.Weights.open(directory)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"model {", b"}{"])
def test_a_damaged_checkpoint_file_hides_no_checkpoint(tmp_path, content):
  weights_lib.write(str(tmp_path / "model.ckpt-4"), {"global_step": np.int64(4)})
  (tmp_path / "checkpoint").write_bytes(content)
  assert weights_lib.newest_readable(str(tmp_path)) == str(
      tmp_path / "model.ckpt-4")


def test_names_that_are_hidden(base):
  weights = weights_lib.Weights([base[0]])
  rest = weights.without(lambda name: "pooler" in name)
  assert set(weights.shapes) - set(rest.shapes) == {"bert/pooler/dense/bias"}
  assert rest.digest() == weights.digest()


def test_a_bias_of_zeros_is_an_untrained_pooler(base, tmp_path):
  assert not weights_lib.Weights([base[0]]).has_untrained_pooler()
  prefix = str(tmp_path / "zero.ckpt")
  weights_lib.write(prefix, dict(ARRAYS, **{
      "bert/pooler/dense/bias": np.zeros(4, np.float32)}))
  assert weights_lib.Weights([prefix]).has_untrained_pooler()
