"""An adapter of one's own, found by its name."""

import sys

import pytest

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.experiments import parameters
from adapter_bert.models import gpt2
from adapter_bert.training import own_adapters
from adapter_bert.training import sequence_specs
from adapter_bert.training import specs
from adapter_bert.tuning import Tuning

MODULE = """
import tensorflow.compat.v1 as tf

def scaled(tensor):
  with tf.variable_scope("adapters"):
    scale = tf.get_variable("scale", [tensor.shape[-1]], tf.float32,
                            tf.zeros_initializer())
  return tensor * (1 + scale)

size = 3
"""


@pytest.fixture(name="module")
def fixture_module(tmp_path, monkeypatch):
  """The directory of a module `mine` that can be imported, and of another."""
  (tmp_path / "mine.py").write_text(MODULE)
  (tmp_path / "unfinished.py").write_text("def f(:\n")
  (tmp_path / "needs_more.py").write_text("import no_such_library\n")
  monkeypatch.syspath_prepend(str(tmp_path))
  yield tmp_path
  for name in ("mine", "unfinished", "needs_more"):
    sys.modules.pop(name, None)


@pytest.mark.parametrize("name, message", [
    ("mine", "must be package.module:function"),
    ("mine:scaled:x", "must be package.module:function"),
    ("../mine:scaled", "must be package.module:function"),
    ("\x1b[2J:f", r"adapter_fn is '\\x1b"),
    ("mine:scaled,mine:scaled", "a model has one"),
    ("no_such_module:f", "no_such_module cannot be imported"),
    ("mine.inner:f", "mine.inner cannot be imported"),
    ("unfinished:f", "unfinished cannot be imported"),
    ("needs_more:f", "No module named 'no_such_library'"),
    ("mine:no_such", "mine.py. has no no_such"),
    ("mine:size", "it is a int"),
])
def test_a_name_that_is_none(module, name, message):
  del module
  with pytest.raises(ValueError, match=message):
    own_adapters.load(name)


def test_a_recorded_name_is_imported_only_if_it_is_given(module):
  del module
  for given in (None, "other:f", "mine"):
    with pytest.raises(errors.InputError, match="--adapter_fn=mine:scaled if"):
      own_adapters.load_recorded("mine:scaled", given, "run.json")
  assert "mine" not in sys.modules
  found = own_adapters.load_recorded("mine:scaled", "other:f,mine:scaled", "")
  assert (found.name, str(found)) == ("mine:scaled",) * 2
  assert len(found.code()) == 12
  assert own_adapters.load_recorded(None, "mine:scaled", "run.json") is None


def test_what_is_recorded_and_read_again(module):
  del module
  own = own_adapters.load("mine:scaled")
  spec = specs.ClassifierSpec(test_util.tiny_config(), 2, adapter_fn=own)
  described = specs.describe_model(spec)
  assert (described["adapter_fn"], described["adapter_size"]) == (
      "mine:scaled", None)
  of_sequences = sequence_specs.SequenceSpec(
      gpt2.GPT2Config.from_dict(dict(
          vocab_size=11, n_positions=9, n_embd=8, n_layer=1, n_head=2)),
      tune="adapters", adapter_fn=own)
  described = of_sequences.describe()
  assert (described["adapter_fn"], described["adapter_size"]) == (
      "mine:scaled", None)
  again = sequence_specs.from_record(described, "here",
                                     adapter_fn="mine:scaled")
  assert again.adapter_fn.name == "mine:scaled"
  with pytest.raises(errors.InputError, match="if you trust it"):
    sequence_specs.from_record(described, "here")


def test_it_is_counted(module):
  del module
  own = own_adapters.load("mine:scaled")
  counts = parameters.count(test_util.tiny_config(), [3, own])
  # Two in each of three layers, one number for each of 16 columns.
  assert counts.adapters(own) == 2 * 3 * 16
  assert counts.adapters(3) == 2 * 3 * (2 * 3 * 16 + 3 + 16)
  assert counts.trained(Tuning("adapters"), own).parameters == (
      2 * 3 * 16 + counts.layer_norm)
  assert parameters.method_of("adapters", own).label == "adapters, mine:scaled"
