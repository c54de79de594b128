"""Other libraries' adapters: the same outputs, and the same files again."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
import tensorflow.compat.v1 as tf

from adapter_bert import test_util
from adapter_bert.base import errors
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints import record as run_record
from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints.foreign import adapterhub
from adapter_bert.checkpoints.foreign import peft
from adapter_bert.serving import exchange
from adapter_bert.training import specs
import modeling

# Made by the libraries themselves, with make.py, which is there too.
FOREIGN = os.path.join(test_util.TESTDATA, "foreign")
BERT = os.path.join(test_util.TESTDATA, "hf_bert")
CONFIG = bert_config.read(os.path.join(BERT, "config.json"))

with open(os.path.join(FOREIGN, "golden.json"), encoding="utf-8") as _reader:
  GOLDEN = json.load(_reader)
ROWS = {name: np.array(GOLDEN[name], np.int32)
        for name in ("input_ids", "input_mask", "segment_ids")}

# Not the order of the heads' rows, which is cold, mild, hot.
LABELS, ORDER = ["hot", "cold", "mild"], [2, 0, 1]
WEATHER = {"name": "Weather", "labels": LABELS, "metrics": ["accuracy"],
           "columns": {"text_a": 0, "label": 1}, "header": True,
           "train": "train.tsv", "dev": "dev.tsv"}


@pytest.fixture(scope="module")
def weather(tmp_path_factory):
  path = tmp_path_factory.mktemp("spec") / "weather.json"
  path.write_text(json.dumps(WEATHER))
  return str(path)


def options_of(input_dir, output_dir, **more):
  return exchange.Options(input_dir=str(input_dir), output_dir=str(output_dir),
                          **more)


def imported(name, output_dir, weather, **more):
  """Imports a directory of FOREIGN, or of any other path."""
  path = os.path.join(FOREIGN, name)
  is_score = name == "adapterhub_pfeiffer_pooler"
  task = dict(task_name="STS-B") if is_score else dict(task_spec=weather)
  if "peft" in name:
    task.update(head_labels=["cold", "mild", "hot"])
  exchange.run(options_of(path, output_dir, model_dir=BERT, max_seq_length=20,
                          **dict(task, **more)))


def logits_of(task_dir, rows, monkeypatch):
  """What a task checkpoint computes."""
  record = run_record.read(task_dir)
  _, model = specs.model_from_record(record, task_dir)
  weights = weights_lib.Weights.open(task_dir)
  found, head = [], modeling.classifier_head
  monkeypatch.setattr(modeling, "classifier_head", lambda *args, **keywords: (
      found.append(head(*args, **keywords)), found[-1])[1])
  with test_util.graph():
    labels = np.zeros([len(rows["input_ids"])],
                      np.float32 if model.is_regression else np.int32)
    model.build(False, {name: tf.constant(array) for name, array in dict(
        rows, label_ids=labels).items()})
    with test_util.session() as session:
      for variable in tf.trainable_variables():
        variable.load(weights.value(variable.op.name), session)
      return session.run(found[0])


def tensors_of(directory):
  """{name: array} of all safetensors files in a directory."""
  found = {}
  for name in sorted(os.listdir(directory)):
    if name.endswith(".safetensors"):
      found.update(safetensors.numpy.load_file(os.path.join(directory, name)))
  return found


@pytest.mark.parametrize("name", sorted(GOLDEN["logits"]))
def test_import_gives_the_librarys_outputs_and_export_its_files(
    name, weather, tmp_path, monkeypatch):
  task_dir, again = str(tmp_path / "task"), str(tmp_path / "again")
  imported(name, task_dir, weather)
  rows = dict(ROWS)
  if "peft" in name:
    rows["segment_ids"] = np.zeros_like(rows["segment_ids"])
  expected = np.array(GOLDEN["logits"][name])
  order = ORDER if expected.shape[1] == 3 else [0]
  actual = logits_of(task_dir, rows, monkeypatch)
  np.testing.assert_allclose(actual, expected[:, order],
                             atol=1e-5 * np.abs(expected).max())

  library = name.split("_")[0]
  exchange.run(options_of(task_dir, again, to=library, adapter_name="a",
                          model_name="testdata/hf_bert"))
  theirs, ours = [tensors_of(path) for path in (os.path.join(FOREIGN, name),
                                                again)]
  if name == "adapterhub_prefix_mlp":
    assert set(ours) - set(theirs) == {
        "bert.prefix_tuning.prefix_tunings.a.self_prefix.control_trans"}
    return  # It has an MLP, and ours what that makes.
  for tensor, array in ours.items():
    is_head = array.shape[0] == len(order) and ("heads.a." in tensor or
                                                "classifier" in tensor)
    np.testing.assert_array_equal(
        array, theirs[tensor][order] if is_head else theirs[tensor])
  # The layers' copies of a prefix are one tensor.
  assert set(theirs) - set(ours) == {n for n in theirs if ".pool." in n}
  _compare_configs(os.path.join(FOREIGN, name), again)


def _compare_configs(theirs, ours):
  for name in sorted(os.listdir(ours)):
    if name.endswith(".json"):
      one, other = [json.load(open(os.path.join(path, name), encoding="utf-8"))
                    for path in (theirs, ours)]
      assert set(other) <= set(one)
      for key in set(other) - {"config", "modules_to_save",
                               "encoder_hidden_size", "prefix_projection"}:
        assert one[key] == other[key], key
      inner, written = one.get("config", {}), other.get("config", {})
      for key in set(written) - {"label2id"}:
        assert inner[key] == written[key], key


# -------------------------------------------------------- what is refused


def changed(name, tmp_path, file="adapter_config.json", **changes):
  """A copy of a directory whose config, or its inner one, says otherwise."""
  directory = str(tmp_path / name)
  shutil.copytree(os.path.join(FOREIGN, name), directory)
  path = os.path.join(directory, file)
  with open(path, encoding="utf-8") as reader:
    values = json.load(reader)
  (values["config"] if "config" in values and
   not set(changes) & {"model_type", "hidden_size"} else values).update(changes)
  with open(path, "w", encoding="utf-8") as writer:
    json.dump(values, writer)
  return directory


@pytest.mark.parametrize("name, file, changes, words", [
    ("adapterhub_houlsby", "adapter_config.json", changes, words)
    for changes, words in (
        ({"phm_layer": True}, "phm_layer is true, which cannot be expressed"),
        ({"scaling": "learned"}, 'scaling is "learned"'),
        ({"inv_adapter": "nice"}, 'inv_adapter is "nice"'),
        ({"use_gating": True}, "use_gating is true"),
        ({"is_parallel": True}, "is_parallel is true"),
        ({"ln_after": True}, "ln_after is true"),
        ({"original_ln_before": True}, "original_ln_before is true"),
        ({"new_thing": 3}, "new_thing is 3, and what it means is not known"),
        ({"non_linearity": "mish"}, "non_linearity is 'mish'; known are gelu"),
        ({"architecture": "lora"}, "architecture is 'lora'"),
        ({"leave_out": [1]}, "holds encoder.layer.1"),
        ({"model_type": "roberta"}, 'model_type is "roberta"'),
        ({"hidden_size": 32}, "hidden_size is 32, and that of the model is 24"),
    )] + [
        ("adapterhub_pfeiffer", "adapter_config.json",
         {"residual_before_ln": "post_add"}, "residual_before_ln is"),
        ("adapterhub_pfeiffer", "adapter_config.json",
         {"output_adapter": False}, "output_adapter is false"),
        ("adapterhub_prefix", "adapter_config.json", {"leave_out": [0]},
         r"leave_out is \[0\]"),
        ("adapterhub_prefix_mlp", "adapter_config.json",
         {"non_linearity": "relu"}, 'non_linearity is "relu"'),
        ("adapterhub_houlsby", "head_config.json", {"head_type": "tagging"},
         'head_type is "tagging"'),
        ("adapterhub_houlsby", "head_config.json", {"layers": 1},
         "layers is 1 and use_pooler False"),
        ("adapterhub_houlsby", "head_config.json",
         {"activation_function": "relu"}, "a pooler's is tanh"),
        ("peft_prefix", "adapter_config.json", {"peft_type": "LORA"},
         'peft_type is "LORA"'),
        ("peft_prefix", "adapter_config.json",
         {"num_transformer_submodules": 2, "task_type": "SEQ_2_SEQ_LM"},
         "reads group 2 i modulo"),
        ("peft_prefix", "adapter_config.json", {"num_layers": 3},
         "num_layers is 3, and that of the model is 2"),
        ("peft_prefix", "adapter_config.json", {"num_virtual_tokens": 4},
         "num_virtual_tokens is 4, and prompt_embeddings"),
    ])
def test_what_cannot_be_expressed_is_refused_by_name(
    name, file, changes, words, tmp_path):
  directory = changed(name, tmp_path, file, **changes)
  with pytest.raises(errors.InputError, match=words) as caught:
    method = exchange.read_method(directory, CONFIG)
    method.arrays([0, 1, 2], {n: method_shape(method, n) for n in method.table})
  assert "\n" not in str(caught.value)


def method_shape(method, name):
  """The shape that a variable would have, taken from the file itself."""
  entry = method.table[name]
  return entry.read(*[np.zeros(method.tensors.shape(n)) if n in method.tensors
                      else np.zeros([24, 24]) for n in entry.names]).shape


def test_tensors_that_lack_or_are_left_over_are_named(tmp_path, weather):
  directory = changed("adapterhub_pfeiffer", tmp_path)
  path = os.path.join(directory, "adapter.safetensors")
  tensors = safetensors.numpy.load_file(path)
  one = "bert.encoder.layer.1.output.adapters.a.adapter_up.bias"
  for name, words in ((one, "lacks encoder.layer.1"), (
      "bert.encoder.layer.1.output.LayerNorm.weight", "LayerNorm.weight")):
    kept = {n: a for n, a in tensors.items() if n != name}
    if name not in tensors:
      kept[name] = np.ones([24], np.float32)
    safetensors.numpy.save_file(kept, path)
    with pytest.raises(errors.InputError, match=words):
      imported(directory, tmp_path / "task", weather)
  assert not os.path.exists(tmp_path / "task")


def test_a_pickle_is_never_opened(tmp_path):
  for name, weights, pickle, library in (
      ("adapterhub_houlsby", "adapter.safetensors", "pytorch_adapter.bin",
       adapterhub),
      ("peft_prefix", "adapter_model.safetensors", "adapter_model.bin", peft)):
    directory = changed(name, tmp_path)
    os.rename(os.path.join(directory, weights), os.path.join(directory, pickle))
    with pytest.raises(errors.InputError, match="never unpickled") as caught:
      library.read(directory, CONFIG)
    line = str(caught.value)
    assert "save_file" in line and pickle in line and weights in line
    os.remove(os.path.join(directory, pickle))
    with pytest.raises(errors.InputError, match=weights + " is not there"):
      library.read(directory, CONFIG)


def test_the_activation_is_the_one_that_the_file_names(tmp_path):
  for theirs, ours in (("gelu", "gelu_erf"), ("gelu_new", "gelu"),
                       ("Swish", "swish"), ("relu", "relu")):
    directory = changed("adapterhub_houlsby", tmp_path, non_linearity=theirs)
    method = adapterhub.read(directory, CONFIG)
    assert method.settings["adapter_act"] == ours
    shutil.rmtree(directory)


def test_which_row_is_which_label_must_be_said(tmp_path, weather):
  with pytest.raises(errors.InputError, match="--head_labels=hot,cold,mild"):
    imported("peft_prefix", tmp_path / "task", weather, head_labels=None)
  with pytest.raises(errors.InputError, match="of its head are cold, mild"):
    imported("adapterhub_prefix", tmp_path / "task", weather,
             head_labels=["cold", "mild", "warm"])
  with pytest.raises(errors.InputError, match="has 3 rows, and the task MRPC"):
    imported("adapterhub_prefix", tmp_path / "task", None, task_spec=None,
             task_name="MRPC")


def spec_of(**fields):
  return specs.ClassifierSpec(CONFIG, 3, **fields)


@pytest.mark.parametrize("model, words", [
    (spec_of(), "LayerNorms of its own"),
    (spec_of(tune="full"), "its method is full"),
    (spec_of(tune="adapters+prefixes+head"), "only adapters.head and prefix"),
    (dataclasses.replace(spec_of(tune="prefix"), bert_config=(
        test_util.tiny_config(share_parameter_across_layers=True))),
     "layers share weights"),
])
def test_methods_that_no_library_has_are_refused(model, words):
  with pytest.raises(errors.InputError, match=words):
    exchange.settings_of(model, "here")


def test_positions_and_methods_that_a_library_has_not(tmp_path):
  for library, fields, words in (
      (adapterhub, dict(tune="prefix"), "AdapterHub leaves tokens where"),
      (peft, dict(tune="prefix", prefix_positions="unshifted"),
       "PEFT puts tokens behind"),
      (peft, dict(tune="adapters+head"), "--to=adapterhub")):
    settings = exchange.settings_of(spec_of(**fields), "here")
    with pytest.raises(errors.InputError, match=words):
      library.write(str(tmp_path), {}, settings, CONFIG, LABELS, "a", "bert")
  assert not os.listdir(tmp_path)


def test_sizes_that_do_not_divide_the_width_come_back():
  for size in range(1, 25):
    settings = exchange.settings_of(
        spec_of(tune="adapters+head", adapter_size=size), "here")
    _, kind = adapterhub.written_bottleneck(settings, CONFIG)
    assert int(24 // kind["reduction_factor"]) == size


def test_what_is_in_the_way(tmp_path, weather):
  (tmp_path / "thesis.txt").write_text("mine")
  with pytest.raises(errors.InputError, match="other files .thesis.txt"):
    imported("peft_prefix", tmp_path, weather)
  with pytest.raises(errors.InputError, match="give --to=adapterhub or"):
    exchange.run(options_of(BERT, tmp_path / "new"))
  with pytest.raises(errors.InputError, match="give the model that it was"):
    exchange.run(options_of(os.path.join(FOREIGN, "peft_prefix"),
                            tmp_path / "new", task_spec=weather))
