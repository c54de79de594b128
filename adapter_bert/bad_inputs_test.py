"""What people bring: each kind of bad input, through the real programs.

A case is a row of a table: its kind, the program, the smallest files that show
it, the flags, and what the one line must say. Each must end with exactly that
line, a failure, and nothing written; and so in a locale without UTF-8, which
all of them run in.

TensorFlow is imported once, by a process that this file is as a script: it
forks for each case, and the child runs the program as `python -m` does.
"""

import collections
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import traceback

# The script is for a process of its own, without pytest.
if __name__ != "__main__":
  import pytest
  import numpy as np
  from adapter_bert import settings
  from adapter_bert import test_util
  from adapter_bert.checkpoints import weights as weights_lib

_MODULES = {
    "run_classifier": "run_classifier",
    "run_seq2seq": "adapter_bert.run_seq2seq",
    "predict_tasks": "adapter_bert.serving.predict_tasks",
    "export": "adapter_bert.serving.export",
    "export_generator": "adapter_bert.serving.export_generator",
    "exchange": "adapter_bert.serving.exchange",
    "generate": "adapter_bert.generation.generate",
    "convert": "adapter_bert.checkpoints.convert",
    "sweep": "adapter_bert.experiments.sweep",
    "figures": "adapter_bert.experiments.figures",
    "count_parameters": "adapter_bert.experiments.count_parameters",
    "launch_local": "adapter_bert.distributed.launch_local",
}
# What the programs import, and no program of ours.
_IMPORTED_ONCE = (
    "tensorflow.compat.v1", "safetensors.numpy", "tokenizers",
    "adapter_bert.training.evaluation", "adapter_bert.training.work",
    "adapter_bert.training.sequence_plan", "adapter_bert.serving.merging",
    "adapter_bert.serving.signatures", "adapter_bert.generation.generator",
    "adapter_bert.experiments.jobs", "adapter_bert.experiments.ablation",
    "adapter_bert.distributed.local_processes")
_SECONDS = 60  # Far above what any case takes.


# ------------------------------------------------- the process that forks


def serve():
  """Runs what is asked for on stdin, a JSON object a line; see `child`."""
  import importlib  # pylint: disable=import-outside-toplevel
  for name in _IMPORTED_ONCE:
    importlib.import_module(name)
  for line in sys.stdin:
    asked = json.loads(line)
    process = os.fork()
    if not process:
      child(**asked)
    _, status = os.waitpid(process, 0)
    os.write(asked["answers"], b"%d\n" % os.waitstatus_to_exitcode(status))


def child(module, arguments, directory, answers, stdin="/dev/null",
          stdout="stdout"):
  """Runs a program, never returns.

  Args:
    module: str.
    arguments: list of str.
    directory: str, the working directory; stdout and stderr are written there.
    answers: int, the file descriptor that the exit status is sent to.
    stdin, stdout: str, files.
  """
  signal.alarm(_SECONDS)
  os.close(answers)
  os.chdir(directory)
  for number, path, flags in (
      (0, stdin, os.O_RDONLY), (1, stdout, os.O_WRONLY | os.O_CREAT),
      (2, "stderr", os.O_WRONLY | os.O_CREAT)):
    os.dup2(os.open(path, flags), number)
  # As Python reads a command line.
  sys.argv = [module] + [os.fsdecode(argument.encode("utf-8"))
                         for argument in arguments]
  status = 1
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    status = 0
  except SystemExit as ended:
    status = ended.code or 0
    if isinstance(status, str):
      print(status, file=sys.stderr)
      status = 1
  except BaseException:  # pylint: disable=broad-exception-caught
    traceback.print_exc()
  finally:
    for stream in (sys.stdout, sys.stderr):
      try:
        stream.flush()
      except OSError:
        traceback.print_exc()
    os._exit(status)


Ended = collections.namedtuple("Ended", ["status", "stdout", "stderr"])


class Programs(object):
  """The process above, from outside."""

  def __init__(self):
    self._answers, theirs = os.pipe()
    self._theirs = theirs
    environment = dict(os.environ, LC_ALL="C", PYTHONUTF8="0",
                       PYTHONCOERCECLOCALE="0", TF_CPP_MIN_LOG_LEVEL="2")
    environment.pop("PYTHONIOENCODING", None)
    self._process = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE,
        pass_fds=[theirs], env=environment, text=True)
    os.close(theirs)

  def run(self, program, flags, directory, **streams):
    """Runs a program; returns Ended.

    Args:
      program: str, a key of _MODULES.
      flags: dict of flag -> value; None: not given. "": an argument.
      directory: str, to work in; stdout and stderr are left there.
      **streams: see `child`.
    """
    arguments = ["--%s=%s" % item for item in flags.items()
                 if item[0] and item[1] is not None]
    arguments += [flags[""]] if "" in flags else []
    self._process.stdin.write(json.dumps(dict(
        streams, module=_MODULES[program], arguments=arguments,
        directory=directory, answers=self._theirs)) + "\n")
    self._process.stdin.flush()
    answer = b""
    while not answer.endswith(b"\n"):
      data = os.read(self._answers, 100)
      assert data, "the process that runs the programs has ended"
      answer += data
    texts = []
    for name in ("stdout", "stderr"):
      path = os.path.join(directory, name)
      if os.path.exists(path):
        with open(path, encoding="utf-8", errors="surrogateescape") as source:
          texts.append(source.read())
        os.remove(path)
      else:
        texts.append("")
    return Ended(int(answer), *texts)

  def close(self):
    self._process.stdin.close()
    self._process.wait()
    os.close(self._answers)


if __name__ == "__main__":
  serve()
  sys.exit()


# -------------------------------------------------- what the cases start from


class CopyOf(str):
  """In place of a file's content: another file, below the world."""


class LinkTo(str):
  """In place of a file's content: what it is a link to."""


class Changed(collections.namedtuple("Changed", "path changes")):
  """In place of a file's content: a JSON file below the world, changed."""


def write(directory, contents, world=None):
  """Writes files: {name: str, bytes, one of these, or a value for JSON}."""
  for name, content in contents.items():
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if isinstance(content, LinkTo):
      os.symlink(content, path)
      continue
    if isinstance(content, CopyOf):
      shutil.copy(os.path.join(world, content), path)
      continue
    if isinstance(content, Changed):
      with open(os.path.join(world, content.path), encoding="utf-8") as source:
        content = dict(json.load(source), **content.changes)
    if not isinstance(content, (str, bytes)):
      content = json.dumps(content)
    with open(path, "wb") as output:
      output.write(content if isinstance(content, bytes) else
                   content.encode("utf-8"))


def good(world, at):
  """program -> the flags with which it does its work.

  Args:
    world: str, the directory of what all cases share.
    at: str, where output goes.
  """
  bert, gpt2 = world + "/bert", world + "/gpt2"
  task = world + "/run/task"
  return {
      "run_classifier": dict(
          task_name="SST-2", data_dir=world + "/glue/SST-2", model_dir=bert,
          max_seq_length=8, output_dir=at + "/out", do_train="true",
          num_train_epochs=1, train_batch_size=2, adapter_size=2,
          compile_chains="false"),
      "run_seq2seq": dict(
          task_spec=world + "/words.json", data_dir=world, model_dir=gpt2,
          max_source_length=8, max_target_length=8, output_dir=at + "/out",
          do_eval="true", max_new_tokens=2),
      "predict_tasks": dict(
          task_checkpoints=task, model_dir=bert, max_seq_length=8,
          input=world + "/lines.tsv", output=at + "/answers"),
      "export": dict(task_checkpoints=task, model_dir=bert,
                     output_dir=at + "/out"),
      "export_generator": dict(model_dir=gpt2, output_dir=at + "/out",
                               max_new_tokens=2),
      "exchange": dict(input_dir=task, to="adapterhub",
                       output_dir=at + "/out"),
      "generate": dict(model_dir=gpt2, input=world + "/prompts.jsonl",
                       output=at + "/answers", max_new_tokens=2),
      "convert": dict(hf_dir=world + "/hf", output_dir=at + "/out"),
      "sweep": dict(tasks="SST-2", tunes="head", set="max_seq_length=8",
                    glue_dir=world + "/glue", model_dir=bert,
                    output_dir=at + "/out"),
      "figures": dict(figure="parameters", output=at + "/out.png",
                      results=world + "/results.csv"),
      "count_parameters": dict(table="sizes",
                               bert_config_file=bert + "/bert_config.json"),
      "launch_local": {"workers": 1, "": "--"},
  }


@pytest.fixture(name="programs", scope="module")
def fixture_programs():
  programs = Programs()
  yield programs
  programs.close()


@pytest.fixture(name="world", scope="module")
def fixture_world(programs, tmp_path_factory):
  """A directory with a model of each kind, data, and a trained task."""
  world = str(tmp_path_factory.mktemp("world"))
  shutil.copytree(os.path.join(test_util.TESTDATA, "hf_bert"), world + "/hf")
  shutil.copytree(os.path.join(test_util.TESTDATA, "sequence_models", "gpt2"),
                  world + "/gpt2")
  shutil.copy(os.path.join(test_util.ROOT, "examples", "methods",
                           "results.csv"), world)
  write(world, {
      "glue/SST-2/train.tsv": "sentence\tlabel\na b\t0\nc d\t1\n",
      "glue/SST-2/dev.tsv": "sentence\tlabel\na b\t0\nc d\t1\n",
      "glue/SST-2/test.tsv": "index\tsentence\n0\ta b\n1\tc d\n",
      "lines.tsv": "the cat\n",
      "prompts.jsonl": '{"input_ids": [4, 5]}\n',
      "gpt2/tokenizer.json": {
          "version": "1.0", "truncation": None, "padding": None,
          "normalizer": None, "decoder": None, "added_tokens": [],
          "post_processor": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
          "model": {"type": "WordLevel", "unk_token": "w3",
                    "vocab": {"w%d" % i: i for i in range(97)}}},
      "words.json": {"name": "Words", "metrics": ["exact_match"],
                     "columns": {"source": "a", "target": "b"},
                     "train": "words.tsv", "dev": "words.tsv"},
      "words.tsv": "a\tb\nw7 w8\tw8\nw9\tw9 w9\n"})
  # As Keras names its tensors, and with a text among them.
  for name, arrays in (("keras", {"x/.ATTRIBUTES/VARIABLE_VALUE": [1.0]}),
                       ("texts", {"words": [b"a"]})):
    weights_lib.write("%s/%s.ckpt" % (world, name), {
        key: np.array(value) for key, value in arrays.items()})
  flags = good(world, world)
  for program, changes in (
      ("convert", dict(output_dir=world + "/bert")),
      ("run_classifier", dict(tune="adapters+head",
                              output_dir=world + "/run"))):
    ended = programs.run(program, dict(flags[program], **changes), world)
    assert ended.status == 0, ended.stderr
  return world


# ------------------------------------------------------------------ the cases

# kind: str. program: str. flags: what differs from `good`; {at} is the case's
# own directory, {world} that of all. words: list of str, what the line says.
# files: what `write` writes into {at}. streams: see Programs.run. left: list of
# str, what may be in {at} in the end, beside these files.
Case = collections.namedtuple(
    "Case", "kind program flags words files streams left",
    defaults=({}, {}, ()))

# Flags with paths that are not in the table of settings.
_OTHER_PATHS = {
    "convert": ["hf_dir", "output_dir"],
    "sweep": ["glue_dir", "sweep_file", "model_dir", "bert_config_file",
              "vocab_file", "init_checkpoint", "output_dir"],
    "figures": ["results", "output", "task_checkpoint"],
    "count_parameters": ["bert_config_file", "plot"],
    "launch_local": ["program"],
}
# Flags of files that are read, each of which needs others to be read.
_FILES = {
    "run_classifier": dict(bert_config_file={}, vocab_file={},
                           task_spec=dict(task_name=None)),
    "run_seq2seq": dict(task_spec={}, source_tokenizer={},
                        target_tokenizer={}),
    "predict_tasks": dict(bert_config_file={}, vocab_file={}),
    "export": dict(vocab_file={}),
    "exchange": dict(bert_config_file=dict(
        input_dir="{foreign}/peft_prefix", to=None, task_name="SST-2",
        model_dir="{world}/bert")),
    "sweep": dict(bert_config_file={}, vocab_file={},
                  sweep_file=dict(tasks=None, tunes=None)),
    "figures": dict(results={}),
    "count_parameters": dict(bert_config_file={}),
}


def path_flags():
  """Pairs of a program and the name of a flag that is a path."""
  pairs = [(program, setting.name) for program in settings.PROGRAMS
           for setting in settings.of_program(program) if setting.is_path]
  return pairs + [(program, name) for program, names in _OTHER_PATHS.items()
                  for name in names]


def cases_of_paths():
  for program, name in path_flags():
    is_list = name == "task_checkpoints"
    yield Case("a scheme that TensorFlow cannot open", program,
               {name: "{world}/run/task,no://x" if is_list else "no://x"},
               [name, "no://x"])
  for program, name in dict(path_flags()).items():
    yield Case("a name that the locale has no letters for", program,
               {name: "{at}/é"}, ["LC_ALL=C.UTF-8"])
  for program, names in _FILES.items():
    for name, others in names.items():
      for kind, path, words in (
          ("a file that is not there", "{at}/nowhere.json", ["nowhere.json"]),
          ("a directory in a file's place", "{world}/glue", ["glue"]),
          ("a file without an end", "/dev/zero", ["/dev/zero"]),
          ("bytes that are not text", "{at}/x.json", ["x.json"]),
          ("an empty file", "{at}/empty.json", ["empty.json"])):
        yield Case(kind, program, dict(others, **{name: path}), words,
                   {"x.json": b"\x80\xff\n", "empty.json": ""})


# The programs that build a BERT from a model_dir, and those for other models.
_BERTS = ("run_classifier", "predict_tasks", "export", "sweep")
_SEQUENCES = ("run_seq2seq", "generate", "export_generator")

_CONFIG = dict(
    vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=20, max_position_embeddings=16, type_vocab_size=2,
    hidden_act="gelu", hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1, initializer_range=0.02)


# What a run leaves that is refused when it has its output_dir for itself.
_TAKEN = ("out/lock",)


def cases_of_models():
  """Directories, configs, vocabularies and weights."""
  for program in _BERTS:
    yield Case("another family's model", program,
               {"model_dir": "{world}/gpt2"}, ["gpt2", "BERT"])
    yield Case("an empty directory as a model", program,
               {"model_dir": "{at}/new"}, ["{at}/new", "config"],
               {"new/readme": ""})
    yield Case("a pickle alone", program, {"model_dir": "{at}/hf"},
               ["a pickle, which is never unpickled"],
               {"hf/config.json": _CONFIG, "hf/pytorch_model.bin": b"\x80",
                "hf/vocab.txt": "a"})
    yield Case("a Hugging Face directory as init_checkpoint", program,
               dict(model_dir=None, init_checkpoint="{world}/hf",
                    vocab_file="{world}/bert/vocab.txt",
                    bert_config_file=None if program == "export" else
                    "{world}/bert/bert_config.json"), ["--model_dir="])
    yield Case("a vocabulary without [CLS]", program,
               {"vocab_file": "{at}/vocab.txt"}, ["vocab.txt", "[CLS]"],
               {"vocab.txt": "[PAD]\n[UNK]\na\n"})
  for program in ("predict_tasks", "export"):
    yield Case("another vocabulary", program,
               {"vocab_file": "{at}/vocab.txt"}, ["another tokenizer"],
               {"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n"})
  for program, flags in (("run_classifier", {"model_dir": "{at}/hf"}),
                         ("convert", {"hf_dir": "{at}/hf"})):
    yield Case("a damaged model.safetensors", program, flags,
               ["model.safetensors is not a whole"],
               {"hf/config.json": _CONFIG, "hf/model.safetensors": b"\x80" * 99,
                "hf/vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"}, left=_TAKEN)
  yield Case("a case that the model does not have", "run_classifier",
             {"do_lower_case": "true"}, ["--do_lower_case=", "says"])
  for program in _SEQUENCES:
    yield Case("a BERT where another family is needed", program,
               {"model_dir": "{world}/hf"}, ["BERT"])
    yield Case("an empty directory as a model", program,
               {"model_dir": "{at}/new"}, ["{at}/new", "config"],
               {"new/readme": ""})
    for config in ("[" * 10**5, '{"model_type": "gpt2", "n_embd": %s}' % (
        "9" * 400), '{"model_type": "gpt2", "vocab_size": "97"}', "[]",
        '{"model_type": "gpt2", "vocab_size": 97, "n_layer": -1}', "{"):
      yield Case("values in a model's config", program,
                 {"model_dir": "{at}/gpt2"}, ["config.json"],
                 {"gpt2/config.json": config, "gpt2/model.safetensors": ""})
  for program, name in (
      ("run_classifier", "bert_config_file"), ("predict_tasks", "bert_config_file"),
      ("sweep", "bert_config_file"), ("count_parameters", "bert_config_file")):
    for config, words in (
        ("[" * 10**5, "nested too deeply"),
        ('{"vocab_size": %s}' % ("9" * 400), "400 digits"),
        (dict(_CONFIG, hidden_size="16"), "hidden_size"),
        (dict(_CONFIG, num_hidden_groups=2), "num_hidden_groups"),
        (dict(_CONFIG, embedding_size=17), "embedding_size is 17"),
        (dict(_CONFIG, model_type="roberta"), "roberta"),
        (dict(_CONFIG, position_embedding_type="relative_key"),
         "position_embedding_type"),
        ([], "holds []")):
      yield Case("values in a model's config", program, {name: "{at}/c.json"},
                 ["c.json", words], {"c.json": config})
  yield Case("values in a model's config", "convert", {"hf_dir": "{at}/hf"},
             ["config.json", "nested too deeply"],
             {"hf/config.json": "[" * 10**5, "hf/vocab.txt": "a",
              "hf/model.safetensors": ""})
  for name in ("texts.ckpt", "keras.ckpt"):
    for program in ("run_classifier", "predict_tasks"):
      yield Case("a checkpoint of another kind", program,
                 {"init_checkpoint": "{world}/" + name}, [name], left=_TAKEN)


def cases_of_data():
  """The rows that are trained on and answered."""
  left = _TAKEN
  for kind, text, words in (
      ("columns of another layout", "sentence\tidx\na b\t0\n", ["idx"]),
      ("a header that is missing", "a b\t0\nc d\t1\n", ["header"]),
      ("a label that is unknown", "sentence\tlabel\na\t2\n", ["'2'"]),
      ("a row that is short", "sentence\tlabel\na\n", [":2"]),
      ("lines that end in CR alone", "sentence\tlabel\ra\t1\r", ["CR"]),
      ("bytes that are not text", b"sentence\tlabel\n\xff\t1\n", ["0xff"]),
      ("an empty file", "", ["no examples"]),
      ("control characters in data", "sentence\tlabel\na\t\x1b[2J\n",
       ["\\x1b[2J"])):
    yield Case(kind, "run_classifier", {"data_dir": "{at}/glue"},
               ["train.tsv"] + words, {"glue/train.tsv": text}, left=left)
  yield Case("a file without an end", "run_classifier",
             {"data_dir": "{at}/glue"}, ["train.tsv", "is a device"],
             {"glue/train.tsv": LinkTo("/dev/zero")}, left=left)
  for task in ("a/b", "\x1b[2J", "ü", "sst"):
    yield Case("a task that is unknown", "run_classifier", {"task_name": task},
               ["task"])
    yield Case("a task that is unknown", "run_seq2seq",
               {"task_name": task, "task_spec": None}, ["task"])
    yield Case("a task that is unknown", "sweep", {"tasks": task}, ["task"])
  for program, others in (("run_classifier", {"task_name": None}),
                          ("run_seq2seq", {})):
    for spec, words in (
        ("[" * 10**5, ["nested"]), ({"__class__": 1, "name": "a"}, []),
        ({"name": "\x1b[2J"}, ["name"]), ({"name": 3}, ["name"])):
      yield Case("values in a task's description", program,
                 dict(others, task_spec="{at}/task.json"),
                 ["task.json"] + words, {"task.json": spec})
  yield Case("a name that the locale has no letters for", "run_classifier",
             {"task_name": None, "task_spec": "{at}/task.json"},
             ["é.tsv".encode("unicode_escape").decode("ascii")],
             {"task.json": {
                 "name": "a", "labels": ["0", "1"], "metrics": ["accuracy"],
                 "columns": {"text_a": 0, "label": 1}, "header": True,
                 "train": "é.tsv"}}, left=_TAKEN)
  # The rest of its lines is in predict_tasks_test.
  for line, words in ((b"x" * 2**21, ["no end"]),
                      (b'{"text_a": "x", "\\u001b[2J": 1}\n', ["\\x1b[2J"])):
    yield Case("lines that cannot be answered", "predict_tasks",
               {"input": "{at}/in"}, ["{at}/in:1"] + words, {"in": line},
               left=["answers"])
  for line in (b"[" * 10**5 + b"\n", b'{"input_ids": [%s]}\n' % (b"9" * 5000),
               b"\xff\n", b"\n", b"x" * 2**21, b'{"text": "\x1b"}\n',
               b'{"input_ids": [1e400]}\n', b'{"text": "\\ud800"}\n'):
    yield Case("lines that cannot be answered", "generate",
               {"input": "{at}/in"}, ["{at}/in:1"], {"in": line},
               left=["answers"])


def cases_of_strangers():
  """Task checkpoints and adapters that others made."""
  for program, name in (("predict_tasks", "task_checkpoints"),
                        ("export", "task_checkpoints"),
                        ("exchange", "input_dir"),
                        ("figures", "task_checkpoint")):
    more = dict(figure="ablation", results=None, model_dir="{world}/bert",
                data_dir="{world}/glue/SST-2") if program == "figures" else {}
    whole = {"task/model.ckpt" + end: CopyOf("run/task/model.ckpt" + end)
             for end in (".index", ".data-00000-of-00001")}
    for change, words in (
        ({"base": {"path": "no://x", "sha256": "0" * 64}}, ["no://x"]),
        ({"base": {"path": "a\0é\x1b[2J", "sha256": "0" * 64}}, ["\\x1b[2J"]),
        ({"adapter_size": 10**9}, ["adapter_size"]),
        ({"adapter_size": "2"}, ["adapter_size"]),
        ({"tune": "\x1b[2J"}, ["tun"]),
        ({"task": {"__class__": 1}}, ["task"]),
        ({"bert_config": dict(_CONFIG, hidden_size=10**12)}, []),
        ({"bert_config": "[" * 10}, []),
        ({"__class__": 1, "num_labels": 10**9}, []),
        ({"adapter_fn": "os:system"}, ["os:system"])):
      flags = dict(more, **{name: "{at}/task"})
      if "base" in change:
        flags.update(model_dir=None, vocab_file="{world}/bert/vocab.txt")
        if program == "exchange":
          continue
      yield Case("a record that a stranger wrote", program, flags,
                 ["{at}/task"] + words,
                 dict(whole, **{"task/run.json": Changed("run/task/run.json",
                                                         change)}))
    yield Case("a task checkpoint that is not there", program,
               dict(more, **{name: "{at}/task"}), ["{at}/task"])
  yield Case("a directory of another library, damaged", "exchange",
             dict(input_dir="{at}/a", to=None, task_name="SST-2",
                  model_dir="{world}/bert"), ["adapter_config.json"],
             {"a/adapter_config.json": "[" * 10**5})


def cases_of_output():
  """Places that cannot be written to."""
  for program, name in (
      ("run_classifier", "output_dir"), ("run_seq2seq", "output_dir"),
      ("export", "output_dir"), ("export_generator", "output_dir"),
      ("exchange", "output_dir"), ("convert", "output_dir"),
      ("sweep", "output_dir")):
    yield Case("a file in a directory's place", program, {name: "{at}/file"},
               ["{at}/file"], {"file": ""})
    yield Case("a place below a file", program, {name: "{at}/file/out"},
               ["{at}/file"], {"file": ""})
  for program in ("predict_tasks", "generate"):
    yield Case("an output that cannot be written", program,
               {"output": "{at}/no/x"}, ["{at}/no/x", "No such file"])
    yield Case("an output that cannot be written", program, {"output": None},
               ["stdout", "No space"], streams={"stdout": "/dev/full"})
  yield Case("an output that cannot be written", "count_parameters", {},
             ["No space"], streams={"stdout": "/dev/full"})
  for path in ("{at}", "{at}/no/x.png", "{at}/x.doc"):
    yield Case("an output that cannot be written", "figures",
               {"output": path}, ["--output=" + path])
    yield Case("an output that cannot be written", "count_parameters",
               {"plot": path}, ["--plot=" + path])
  for program, name in (("convert", "output_dir"), ("exchange", "output_dir")):
    yield Case("an output that holds something else", program,
               {name: "{at}/out"}, ["thesis.txt"], {"out/thesis.txt": "x"})


def cases_of_flags():
  """Values that a flag cannot have."""
  for program, flags, words in (
      ("sweep", {"sweep_file": "{at}/s.json", "tasks": None, "tunes": None},
       ["s.json", "nested"]),
      ("sweep", {"set": "seed=1,2"}, ["seed"]),
      ("sweep", {"seeds": ",".join(map(str, range(10**4))),
                 "learning_rates": ",".join(["1e-3"] * 10**4)}, ["runs"]),
      ("sweep", {"set": "__class__=1"}, ["__class__"]),
      ("launch_local", {"workers": 0}, ["workers"]),
      ("launch_local", {"program": "{at}/no.py"}, ["no.py"]),
      ("count_parameters", {"table": "x\x1b[2J"}, ["table"]),
      ("count_parameters", {"adapter_sizes": "9" * 400}, ["adapter_sizes"]),
      ("count_parameters", {"adapter_fn": "no.such:thing"}, ["no.such"]),
      ("figures", {"results": "{world}/lines.tsv"}, ["lines.tsv"]),
      ("run_classifier", {"": "more"}, ["more"]),
      ("run_classifier", {"use_tpu": "true"}, ["use_tpu=true, but"]),
      ("run_classifier", {"adapter_fn": "no.such:thing", "adapter_size": None},
       ["no.such"]),
      ("run_classifier", {"tune": "\x1b[2J"}, ["tuning"]),
      ("run_classifier", {"devices": "tpu:0"}, ["tpu"]),
      ("generate", {"num_beams": 10**9}, ["num_beams"]),
      ("generate", {"max_new_tokens": 10**9}, ["max_new_tokens"]),
      ("exchange", {"to": "task"}, ["--to"])):
    yield Case("a flag's value", program, flags, words,
               {"s.json": "[" * 10**5})


CASES = [case for cases in (
    cases_of_paths, cases_of_models, cases_of_data, cases_of_strangers,
    cases_of_output, cases_of_flags) for case in cases()]


def tree(directory):
  """{path: (size, time of change)} of all files below a directory."""
  found = {}
  for parent, _, names in os.walk(directory):
    for name in names:
      status = os.lstat(os.path.join(parent, name))
      found[os.path.join(parent, name)] = status.st_size, status.st_mtime_ns
  return found


def check(case, programs, world, at):
  """Runs a Case in the directory `at`."""
  write(at, case.files, world)
  filled = lambda text: text.format(
      at=at, world=world, foreign=os.path.join(test_util.TESTDATA, "foreign")
  ) if isinstance(text, str) else text
  flags = dict(good(world, at)[case.program], **case.flags)
  before = tree(at), tree(world)
  ended = programs.run(
      case.program, {name: filled(text) for name, text in flags.items()}, at,
      **{name: filled(text) for name, text in case.streams.items()})
  assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
  lines = [line for line in ended.stderr.splitlines()
           if line.startswith("error: ")]
  assert len(lines) == 1 and ended.status == 1, (ended.status, ended.stderr)
  for word in case.words:
    assert filled(word) in lines[0], lines[0]
  assert not re.search("[\x00-\x1f\x7f]", lines[0]), lines[0]
  assert not ended.stdout
  after = tree(at), tree(world)
  for path in case.left:
    after[0].pop(os.path.join(at, path), None)
  changed = set(item for kept in (0, 1)
                for item in set(after[kept].items()) ^ set(before[kept].items()))
  assert not changed, sorted(changed)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "%s-%s-%s" % (
    case.kind.replace(" ", "_"), case.program, "-".join(case.flags)))
def test_one_line_and_nothing_written(case, programs, world, tmp_path):
  check(case, programs, world, str(tmp_path))


# ------------------------------------------- good inputs in the same locale


def test_texts_are_right_without_utf_8(programs, world, tmp_path):
  """Lines in, lines out, to a file and to stdout."""
  at = str(tmp_path)
  write(at, {"in.tsv": "the café\n", "in.jsonl": '{"text": "w7 é"}\n'})
  for program, name in (("predict_tasks", "in.tsv"), ("generate", "in.jsonl")):
    flags = dict(good(world, at)[program], input="%s/%s" % (at, name))
    ended = programs.run(program, flags, at)
    assert ended.status == 0, ended.stderr
    with open(at + "/answers", encoding="utf-8") as source:
      expected = source.read()
    ended = programs.run(program, dict(flags, output=None), at)
    assert (ended.status, ended.stdout) == (0, expected), ended.stderr
    if program == "predict_tasks":
      assert json.loads(expected)["text_a"] == "the café"
