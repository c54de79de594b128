"""Several tasks over one base: equal to separate runs, once in memory."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from adapter_bert.checkpoints import weights as weights_lib
from adapter_bert.checkpoints import record as run_record
from adapter_bert.base import errors
from adapter_bert.data import datasets
from adapter_bert.data import features
from adapter_bert.data import reading
from adapter_bert.data import tasks
from adapter_bert.data import tfrecords
from adapter_bert.ops import fused
from adapter_bert.serving import predict_tasks
from adapter_bert.serving import shared_model
from adapter_bert.serving import task_checkpoints
import run_classifier_test
from adapter_bert import test_util
import tokenization
from adapter_bert.training import graphs

graphs.enable_graph_mode()

PROGRAM = [sys.executable, "-m", "adapter_bert.serving.predict_tasks"]

# Runs that differ in all that they may: the task, what each is trained with.
RUNS = {
    "MRPC": {},
    "WNLI": {},  # as MRPC, with other values
    "STS-B": dict(adapter_size=5, adapter_layers="1"),
    "MNLI": dict(tune="top_n", top_n_layers=1),
    "CoLA": dict(tune="head"),
}


@pytest.fixture(scope="module", name="files")
def fixture_files(tmp_path_factory):
  """A tiny base, data, and an output_dir for each of RUNS, with predictions."""
  files = run_classifier_test.Files(str(tmp_path_factory.mktemp("files")))
  for name in ("train", "test"):
    files.table("WNLI/%s.tsv" % name, "i sentence1 sentence2 label", [
        [str(i), run_classifier_test.SENTENCES[i % 6],
         run_classifier_test.SENTENCES[i % 5], str(i % 2)]
        for i in range(9)])
  for task, changes in RUNS.items():
    files.run(task, files.path("out/" + task), do_train=True, do_predict=True,
              **changes)
  return files


def task_of(files, name):
  return files.path("out/%s/task" % name)


def options(files, *tasks, **changes):
  return predict_tasks.Options(**dict(dict(
      task_checkpoints=[task_of(files, task) for task in tasks],
      vocab_file=files.path("bert/vocab.txt"), max_seq_length=24,
      init_checkpoint=files.path("bert/bert_model.ckpt")), **changes))


def predicted(files, lines, *tasks, **changes):
  """The JSON objects that the lines of a file give."""
  changes.setdefault("input", files.write("in.tsv", lines))
  output = files.path("out.jsonl")
  predict_tasks.run(options(files, *tasks, output=output, **changes))
  return [json.loads(line)
          for line in run_classifier_test.lines_of(output)]


def test_lines_of(files, name):
  """A task's test file as lines for predict_tasks, by way of reading.py."""
  task = tasks.get_task(name)
  return ["\t".join(text for text in (row.text_a, row.text_b) if text)
          for row in reading.read_examples(task, task.test[0], files.path(name))]


test_lines_of.__test__ = False


def outputs_of(rows, name):
  """[n, labels] of the lines that a task answered."""
  answers = [row["tasks"][name] for row in rows if name in row["tasks"]]
  return np.array([[answer["score"]] if "score" in answer else
                   list(answer["probabilities"].values())
                   for answer in answers])


def model_of(files, *tasks, **changes):
  return predict_tasks.set_up(options(files, *tasks, **changes))[0]


def refused(files, *tasks, lines=("the cat",), **changes):
  """The line that a run is refused with."""
  with pytest.raises(errors.InputError) as caught:
    predicted(files, lines, *tasks, **changes)
  line = str(caught.value)
  assert "\n" not in line
  return line


# ------------------------------------------------------------------ results


def test_all_at_once_are_equal_to_separate_runs(files):
  lines = {name: test_lines_of(files, name) for name in RUNS}
  rows = predicted(files, sum(lines.values(), []), *RUNS, batch_size=3)
  assert [row["line"] for row in rows] == list(range(1, len(rows) + 1))
  start = 0
  for name in RUNS:
    mine = rows[start:start + len(lines[name])]
    start += len(mine)
    expected = np.loadtxt(files.path("out/%s/test_results.tsv" % name))
    found = outputs_of(mine, name)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-6)
    assert np.ptp(expected.reshape(found.shape)[:, 0]) > 1e-4
    assert [(row["text_a"] + ("\t" + row["text_b"] if "text_b" in row else ""))
            for row in mine] == lines[name]


def test_labels_and_their_probabilities(files):
  row, = predicted(files, ["the cat\ta dog ran"], "MNLI", "STS-B")
  assert sorted(row["tasks"]) == ["MNLI", "STS-B"]
  answer = row["tasks"]["MNLI"]
  assert list(answer["probabilities"]) == list(tasks.get_task("mnli").labels)
  assert answer["label"] == max(answer["probabilities"],
                                key=answer["probabilities"].get)
  assert list(row["tasks"]["STS-B"]) == ["score"]


def test_a_line_goes_to_the_tasks_of_its_kind(files, caplog):
  rows = predicted(files, ["sentence", "the cat\ta dog", "they ran"], "MRPC",
                   "CoLA", header=True)
  assert [(row["line"], list(row["tasks"])) for row in rows] == [
      (2, ["MRPC"]), (3, ["CoLA"])]
  predicted(files, ["the cat\ta dog"], "MRPC", "CoLA")
  assert "CoLA is for single sentences, and no line was one" in caplog.text


def test_tasks_that_can_be_in_one_pass_are_in_the_graph_once(files):
  def size(*tasks):
    model = model_of(files, *tasks)
    shared_model.RecordModel(model, 24)
    return len(model.graph.get_operations())

  alone = size("MRPC")
  assert size("MRPC", "WNLI", "STS-B", "CoLA") < 1.5 * alone
  assert size("MRPC", "MNLI") > 1.5 * alone


def test_two_checkpoints_of_one_task_have_two_names(files):
  row, = predicted(files, ["the cat"], "CoLA", "CoLA")
  assert list(row["tasks"]) == ["CoLA", "CoLA#2"]
  assert row["tasks"]["CoLA"] == row["tasks"]["CoLA#2"]


def test_features_are_those_of_training(files):
  task = tasks.get_task("mrpc")
  tokenizer = tokenization.FullTokenizer(files.path("bert/vocab.txt"))
  records = tfrecords.prepare(task, task.test[0], files.path("MRPC"),
                                   tokenizer, 10, files.path("features"))
  examples = list(reading.read_examples(task, task.test[0], files.path("MRPC")))
  with tf.Graph().as_default(), tf.Session() as session:
    batch = tf.data.make_one_shot_iterator(datasets.eval_dataset(
        records, len(examples), 10, sort_by_length=False)).get_next()
    ours = datasets.batch_of(
        tf.constant(features.serialized(0, examples, task, 10,
                                              tokenizer)), 10)
    expected, found = session.run([batch, ours])
  assert sorted(expected) == sorted(found)
  for key in ("input_ids", "input_mask", "segment_ids", "example_index"):
    np.testing.assert_array_equal(found[key], expected[key])


@pytest.mark.slow
def test_shared_layers(files):
  shared = dict(share_parameter_across_layers=True, init_shared_from="mean",
                do_train=True, do_predict=True)
  files.run("CoLA", files.path("out/shared"), **shared)
  paths = [files.path("out/shared/task")] * 2
  rows = predicted(files, test_lines_of(files, "CoLA"), task_checkpoints=paths)
  expected = np.loadtxt(files.path("out/shared/test_results.tsv"))
  for name in ("CoLA", "CoLA#2"):
    np.testing.assert_allclose(outputs_of(rows, name), expected, atol=1e-6)
  shutil.copytree(files.path("out/shared/task"), files.path("out/first/task"))
  change_record(files.path("out/first/task"), init_shared_from="first")
  line = refused(files, task_checkpoints=[
      paths[0], files.path("out/first/task")])
  assert "init_shared_from is first, and mean" in line


@pytest.mark.slow
@pytest.mark.parametrize("large", [fused.LARGE_KERNEL, 1])
def test_bfloat16_is_close(files, monkeypatch, large):
  """Also with all kernels stored as their transposes."""
  monkeypatch.setattr(fused, "LARGE_KERNEL", large)
  lines = test_lines_of(files, "MRPC")
  exact, close = [outputs_of(predicted(files, lines, "MRPC", "MNLI",
                                       precision=precision), "MRPC")
                  for precision in ("float32", "bfloat16")]
  np.testing.assert_allclose(close, exact, atol=3e-2)
  assert (close != exact).any()


# ------------------------------------------------------------------- memory


def stored(prefix):
  """name -> shape, without slots and the step."""
  return {name: tuple(shape)
          for name, shape in weights_lib.Weights([prefix]).shapes.items()
          if name != "global_step"}


def test_memory_grows_by_what_was_trained(files):
  base = stored(files.path("bert/bert_model.ckpt"))
  trained = {task: stored(weights_lib.find(task_of(files, task)))
             for task in RUNS}
  count = lambda shapes: sum(int(np.prod(shape)) for shape in shapes)
  for tasks in (["MRPC"], ["CoLA"] + ["MRPC"] * 2 + ["MNLI", "STS-B"]):
    model = model_of(files, *tasks)
    # Shared is what a task takes as it is in the base; but tasks in one pass
    # have a table for what one of them trained.
    in_tables = [name for name in base if name in trained["MRPC"]]
    taken = [set(base) - set(trained["MNLI"] if task == "MNLI" else in_tables)
             for task in tasks]
    frozen = set().union(*taken)
    assert model.shared == sorted(frozen)
    assert model.own_bytes == [4 * count(trained[t].values()) for t in tasks]
    everything = model.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    assert 4 * sum(v.shape.num_elements() for v in everything) == (
        4 * count(base[name] for name in frozen) + sum(model.own_bytes) +
        model.padding_bytes)
    assert (model.padding_bytes > 0) == (len(tasks) > 1)


@pytest.mark.slow
def test_a_task_tuned_in_full_shares_nothing_and_says_so(files, caplog):
  files.run("CoLA", files.path("out/full"), do_train=True, do_predict=True,
            tune="full")
  paths = [files.path("out/full/task"), task_of(files, "CoLA")]
  rows = predicted(files, test_lines_of(files, "CoLA"), task_checkpoints=paths)
  for name, where in (("CoLA", "full"), ("CoLA#2", "CoLA")):
    np.testing.assert_allclose(
        outputs_of(rows, name),
        np.loadtxt(files.path("out/%s/test_results.tsv" % where)), atol=1e-6)
  assert "out/full/task/model.ckpt was tuned in full" in caplog.text


# ------------------------------------------------------------------- stream


def start(files, *tasks, **changes):
  settings = dict(vars(options(files, *tasks)), **changes)
  settings["task_checkpoints"] = ",".join(settings["task_checkpoints"])
  return subprocess.Popen(
      PROGRAM + [
          "--%s=%s" % item for item in settings.items() if item[1] is not None],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_base_that_is_a_task_checkpoint_itself(files, tmp_path):
  """Trained on from MRPC's adapters: of them the task has none of its own."""
  files.run("MRPC", tmp_path, do_train=True, do_predict=True,
            tune="layer_norm", init_checkpoint=task_of(files, "MRPC"))
  rows = predicted(files, test_lines_of(files, "MRPC"), init_checkpoint=None,
                   task_checkpoints=[str(tmp_path / "task")])
  np.testing.assert_allclose(
      outputs_of(rows, "MRPC"),
      np.loadtxt(str(tmp_path / "test_results.tsv")), atol=1e-6)


def test_a_head_that_is_the_bases(files, tmp_path):
  tasks, lines = [], ["the cat"]
  for name in ("a", "b"):
    # It has a head, and BERT as it was.
    base = shutil.copytree(task_of(files, "CoLA"), str(tmp_path / name))
    files.run("CoLA", tmp_path / name / "out", do_train=True,
              num_train_epochs=.2, tune="adapters+layer_norm",
              init_checkpoint=base)
    tasks.append(str(tmp_path / name / "out" / "task"))
  assert len(predicted(files, lines, init_checkpoint=None,
                       task_checkpoints=tasks[:1])) == 1
  assert "output_" in refused(files, lines=lines, task_checkpoints=tasks[:1])
  line = refused(files, lines=lines, init_checkpoint=None,
                 task_checkpoints=tasks)
  assert "its base is" in line and "one and the same BERT" in line


def test_a_stream_is_answered_line_by_line(files):
  process = start(files, "CoLA", "MRPC")
  for number, text in enumerate(("the cat sat", "h\u00e9 ran"), 1):
    process.stdin.write((text + "\n").encode("utf-8"))
    process.stdin.flush()
    # Nothing follows: it must not wait for more than this line.
    row = json.loads(process.stdout.readline())
    assert (row["line"], row["text_a"]) == (number, text)
  # The last line has no end, and the one before it is for no task.
  rest, log = process.communicate(b"a dog\r\nthey\tran\nshe\twas\tbad\nwe ran")
  assert [json.loads(line)["line"] for line in rest.splitlines()] == [3, 4]
  assert process.returncode == 1
  last = log.decode("utf-8").splitlines()
  assert last[-1].startswith("error: stdin:5: found 3 tab-separated columns")
  log = "\n".join(last)
  assert "4 lines in" in log and "lines/s" in log and "s to start" in log
  assert "CoLA: 3 sentences in" in log and "MRPC: 1 pairs in" in log
  assert "MB shared" in log and "Traceback" not in log


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("lines,words", [
    (["the cat\ta dog", "the cat"], ["in.tsv:2", "one sentence", "MRPC is"]),
    (["a\tb\tc"], ["in.tsv:1", "3 tab-separated columns"]),
    (["a\tb", "", "c\td"], ["in.tsv:2", "is empty"]),
])
def test_bad_lines(files, lines, words):
  line = refused(files, "MRPC", lines=lines)
  for word in words:
    assert word in line, line
  # What came before was answered.
  assert len(run_classifier_test.lines_of(files.path("out.jsonl"))) == (
      int(line.split(":")[1]) - 1)


def test_a_pair_for_single_sentences_and_bad_bytes(files):
  line = refused(files, "CoLA", "CoLA", lines=["a\tb"])
  assert "in.tsv:1: a pair of sentences" in line
  assert "CoLA, CoLA#2 are for one" in line
  with open(files.path("latin.tsv"), "wb") as output:
    output.write(b"fine\ncaf\xe9\n")
  line = refused(files, "CoLA", input=files.path("latin.tsv"))
  assert "latin.tsv:2: byte 0xe9" in line


@pytest.mark.parametrize("changes,words", [
    (dict(task_checkpoints=[]), ["task_checkpoints is empty"]),
    (dict(task_checkpoints=[""]), ["task_checkpoints has an empty entry"]),
    (dict(task_checkpoints=["/nowhere"]), ["/nowhere"]),
    (dict(vocab_file="/nowhere.txt"), ["/nowhere.txt"]),
    (dict(init_checkpoint="/nowhere.ckpt"), ["/nowhere.ckpt"]),
    (dict(bert_config_file="/nowhere.json"), ["/nowhere.json"]),
    (dict(input="/nowhere.tsv"), ["/nowhere.tsv"]),
    (dict(max_seq_length=33), ["max_seq_length is 33", "32 positions"]),
    (dict(max_seq_length=2), ["max_seq_length=2"]),
    (dict(batch_size=0), ["batch_size is 0"]),
    (dict(precision="float16"), ["float16", "bfloat16"]),
])
def test_what_is_refused(files, changes, words):
  line = refused(files, "CoLA", **changes)
  for word in words:
    assert word in line, line


def test_the_output_is_not_the_input(files):
  path = files.write("same.tsv", ["the cat"])
  with pytest.raises(errors.InputError, match="is the input"):
    predict_tasks.run(options(files, "CoLA", input=path, output=path))
  assert run_classifier_test.lines_of(path) == ["the cat"]


def change_record(directory, **changes):
  record = run_record.read(directory)
  record.update(changes)
  for key, value in changes.items():
    if value is KeyError:
      del record[key]
  run_record.write(directory, record)


@pytest.fixture(name="copy")
def fixture_copy(files, tmp_path):
  """A copy of MRPC's task checkpoint, to be spoilt."""
  return shutil.copytree(task_of(files, "MRPC"), str(tmp_path / "task"))


def with_copy(files, copy, others=("STS-B",)):
  """The line that good checkpoints and the spoilt one are refused with."""
  line = refused(files, lines=["a\tb"], task_checkpoints=[
      task_of(files, other) for other in others] + [copy])
  assert copy in line, line
  return line


@pytest.mark.parametrize("changes,words", [
    (dict(base=None), ["without init_checkpoint"]),
    (dict(base=KeyError), ["no 'base'"]),
    (dict(base={"path": "x"}), ["no 'sha256'"]),
    (dict(task=KeyError), ["no 'task'"]),
    (dict(num_labels=3), ["3 outputs"]),
    (dict(do_lower_case=False), ["do_lower_case is False, and True"]),
    (dict(adapter_size=4), ["[16, 3]", "[16, 4]", "adapter_size"]),
    (dict(adapter_layers=[0]), ["has bert/encoder/layer_1", "not train it"]),
    (dict(tune="head"), ["has bert/", "tune=head"]),
    (dict(tune="full"), ["lacks bert/", "tune=full"]),
])
def test_a_record_that_does_not_fit(files, copy, changes, words):
  change_record(copy, **changes)
  # Beside another only where it has to differ from one: graphs take time.
  line = with_copy(files, copy,
                   ["STS-B"] if "do_lower_case" in changes else [])
  for word in words:
    assert word in line, line


def test_another_base_is_refused_unless_forced(files, copy):
  base = run_record.read(copy)["base"]
  change_record(copy, base=dict(base, sha256="0" * 64))
  assert "digest 000000000000" in with_copy(files, copy)
  row, = predicted(files, ["a\tb"], force_base=True,
                   task_checkpoints=[task_of(files, "STS-B"), copy])
  assert list(row["tasks"]) == ["STS-B", "MRPC"]


def test_code_that_a_record_names_is_not_run(files, copy):
  change_record(copy, adapter_fn="os:system", adapter_size=None)
  for changes in ({}, {"adapter_fn": "other:function"}):
    line = refused(files, task_checkpoints=[copy], **changes)
    assert "give --adapter_fn=os:system if you trust it" in line


def test_another_label_set_and_a_record_without_labels(files, copy):
  record = run_record.read(copy)
  three = dict(record["task"], labels=["a", "b", "c"], metrics=["accuracy"])
  change_record(copy, task=three, num_labels=3)
  line = with_copy(files, copy)
  assert "output_" in line and "3 outputs" in line
  none = {k: v for k, v in record["task"].items() if k != "labels"}
  change_record(copy, task=none)
  assert '"labels"' in with_copy(files, copy)


def test_another_config(files, copy):
  record = run_record.read(copy)
  config = dict(record["bert_config"], hidden_act="relu")
  change_record(copy, bert_config=config)
  assert "hidden_act is relu, and gelu" in with_copy(files, copy)
  # Dropout is nothing to a prediction.
  change_record(copy, bert_config=dict(record["bert_config"],
                                       hidden_dropout_prob=0.5))
  assert len(model_of(files, task_checkpoints=[
      copy, task_of(files, "MRPC")]).own_bytes) == 2
  other = test_util.tiny_config(**dict(files.config.to_dict(),
                                       intermediate_size=21))
  path = files.write("other.json", [other.to_json_string()])
  line = refused(files, "MRPC", bert_config_file=path)
  assert path in line and "intermediate_size is 21" in line
  predicted(files, ["a\tb"], "MRPC",
            bert_config_file=files.path("bert/bert_config.json"))


@pytest.mark.parametrize("damage", ["data", "index", "record", "no record"])
def test_a_damaged_task_checkpoint(files, copy, damage):
  name = {"data": "model.ckpt.data-00000-of-00001",
          "index": "model.ckpt.index"}.get(damage, "run.json")
  path = os.path.join(copy, name)
  if damage == "no record":
    os.remove(path)
  else:
    os.truncate(path, os.path.getsize(path) // 2)
  line = with_copy(files, copy)
  assert {"no record": "has no run.json", "record": "is not JSON"}.get(
      damage, "complete?") in line


# ------------------------------------------- lines that each name their task


def json_lines(*lines):
  return [json.dumps(line) for line in lines]


def test_lines_that_name_their_tasks(files):
  pair = dict(text_a="the cat", text_b="a dog ran")
  rows = predicted(files, json_lines(
      dict(pair, task="mrpc"), dict(pair, task=["STS-B", "WNLI"]), pair,
      dict(text_a="they\tran", task="CoLA")) + ["the cat\ta dog ran"],
                   "MRPC", "WNLI", "STS-B", "CoLA", "MNLI", batch_size=4)
  assert [list(row["tasks"]) for row in rows] == [
      ["MRPC"], ["WNLI", "STS-B"], ["MRPC", "WNLI", "STS-B", "MNLI"], ["CoLA"],
      ["MRPC", "WNLI", "STS-B", "MNLI"]]
  assert rows[3]["text_a"] == "they\tran"
  everything = dict(rows[2], line=5)
  assert same(rows[4], everything)
  assert same(rows[0]["tasks"]["MRPC"], everything["tasks"]["MRPC"])
  assert same(rows[1]["tasks"]["WNLI"], everything["tasks"]["WNLI"])
  assert same(rows[1]["tasks"]["STS-B"], everything["tasks"]["STS-B"])


def same(found, expected):
  """Whether two values of JSON are equal, numbers up to float noise."""
  if isinstance(expected, dict):
    return list(found) == list(expected) and all(
        same(found[key], expected[key]) for key in expected)
  if isinstance(expected, float):
    return abs(found - expected) < 1e-6
  return found == expected


@pytest.mark.parametrize("line,words", [
    ('{"text_a": "x"', ["is not JSON"]),
    ('{"text_b": "x"}', ["text_a is null"]),
    ('{"text_a": 3}', ["text_a is 3"]),
    ('{"text_a": " "}', ["text_a is empty"]),
    ('{"text_a": "\\ud800"}', ["half a character"]),
    ('{"text_a": "x", "label": "1"}', ["label is '1'"]),
    ('{"text_a": "x", "task": "MRPC"}', ["no task 'MRPC'", "CoLA"]),
    ('{"text_a": "x", "task": [[]]}', ["no task []"]),
    ('{"text_a": "x", "task": []}', ["no task null"]),
    ('{"text_a": "x", "text_b": "y", "task": "CoLA"}', ["a pair", "CoLA is"]),
])
def test_bad_lines_of_json(line, words):
  tasks_of = [task_checkpoints.TaskCheckpoint(
      "CoLA", "", {}, tasks.get_task("cola"), None)]
  with pytest.raises(errors.InputError) as caught:
    predict_tasks.read_question(line.encode("utf-8"), 3, "in", tasks_of)
  for word in ["in:3"] + words:
    assert word in str(caught.value)


def test_one_bad_line_is_one_answer_with_keep_going(files):
  lines = ["the cat", "a\tb", "", json.dumps({"text_a": "he", "task": "X"}),
           "a dog"]
  rows = predicted(files, lines, "CoLA", keep_going=True)
  assert [row["line"] for row in rows] == [1, 2, 3, 4, 5]
  assert ["error" in row for row in rows] == [False, True, True, True, False]
  assert "in.tsv:3: is empty" in rows[2]["error"]
  assert list(rows[1]) == ["line", "error"]


def test_a_pipe_that_is_closed_ends_it_quietly(files):
  process = start(files, "CoLA")
  process.stdin.write(b"the cat\n")
  process.stdin.flush()
  process.stdout.readline()
  process.stdout.close()
  with contextlib.suppress(BrokenPipeError):
    process.stdin.write(b"the cat\n" * 100)
    process.stdin.close()
  log = process.stderr.read().decode("utf-8")
  process.stderr.close()
  assert process.wait() == -signal.SIGPIPE
  assert "Traceback" not in log and "\nerror:" not in log


# ------------------------------------------------------- adapters left out


def test_dropped_adapters(files, tmp_path):
  """As if they were zero; LayerNorms of those layers stay the task's."""
  lines = test_lines_of(files, "MRPC")
  found = outputs_of(predicted(files, lines, "MRPC", "CoLA",
                               drop_adapters="0"), "MRPC")
  copy = shutil.copytree(task_of(files, "MRPC"), str(tmp_path / "task"))
  weights = weights_lib.Weights([weights_lib.find(copy)])
  arrays = {name: weights.value(name) for name in weights.shapes}
  for name in arrays:
    if "layer_0/" in name and "adapters/" in name:
      arrays[name] = np.zeros_like(arrays[name])
  weights_lib.write(weights_lib.find(copy), arrays)
  expected = outputs_of(predicted(files, lines, task_checkpoints=[copy]),
                        "MRPC")
  np.testing.assert_allclose(found, expected, atol=1e-6)
  whole = outputs_of(predicted(files, lines, "MRPC"), "MRPC")
  assert np.abs(whole - expected).max() > 1e-5
  assert "layer 7" in refused(files, "MRPC", drop_adapters="0,7")


def test_layers_below_the_lowest_adapter_are_computed_once(files, tmp_path):
  runs = {}
  for task in ("MRPC", "WNLI"):
    runs[task] = str(tmp_path / task)
    files.run(task, runs[task], do_train=True, tune="adapters+head",
              num_train_epochs=2.0)
  paths = [os.path.join(run, "task") for run in runs.values()]
  lines = test_lines_of(files, "MRPC")
  model = model_of(files, task_checkpoints=paths, drop_adapters="0")
  assert [group.lower for group in model.groups] == [1]
  assert model_of(files, task_checkpoints=paths).groups[0].lower == 0
  assert model_of(files, "MRPC").groups[0].lower == -1
  whole = outputs_of(predicted(files, lines, task_checkpoints=paths), "WNLI")
  both = predicted(files, lines, task_checkpoints=paths, drop_adapters="0")
  for path, task in zip(paths, runs):
    # A single task's rows are its texts: nothing is gathered.
    alone = predicted(files, lines, task_checkpoints=[path], drop_adapters="0")
    np.testing.assert_allclose(outputs_of(both, task), outputs_of(alone, task),
                               atol=1e-6)
  assert np.abs(outputs_of(both, "WNLI") - whole).max() > 1e-5
  # Each product of the layer below is made with as many rows as there are
  # texts: nothing between it and the records asks for rows.
  shared_model.RecordModel(model, 24)
  rows = [op for op in model.graph.get_operations()
          if op.type == "Placeholder"][-1]
  above = {"layer_0": [], "layer_1": []}
  for op in model.graph.get_operations():
    for layer, found in above.items():
      if op.type == "MatMul" and "bert/encoder" in op.name:
        variable = op.inputs[1].op.inputs[0].op.name
        if layer in variable:
          found.append(depends_on(op, rows))
  assert above["layer_0"] and not any(above["layer_0"])
  assert above["layer_1"] and all(above["layer_1"])


def depends_on(op, source):
  """Whether an op of the graph is computed from another one."""
  seen, waiting = set(), [op]
  while waiting:
    op = waiting.pop()
    if op is source:
      return True
    if op.name not in seen:
      seen.add(op.name)
      waiting += [tensor.op for tensor in op.inputs]
  return False
