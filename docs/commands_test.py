"""Every command in README.md and docs/ can be typed: its flags are known."""

import glob
import importlib
import multiprocessing
import os
import re
import shlex
import subprocess
import sys

from absl import flags
import pytest

from adapter_bert import test_util
import run_classifier_test
import setup

ROOT = os.path.dirname(os.path.abspath(setup.__file__))
PAGES = [os.path.join(ROOT, "README.md")] + sorted(
    glob.glob(os.path.join(ROOT, "docs", "*.md")))

CONSOLE = dict(line.split(" = ") for line in setup.CONSOLE_SCRIPTS)


def commands_of(page):
  """The commands of a page's sh blocks: lists of words, variables as they are."""
  with open(page, encoding="utf-8") as reader:
    blocks = re.findall(r"^```sh\n(.*?)^```", reader.read(), re.M | re.S)
  lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
  return [shlex.split(line, comments=True) for line in lines]


def program_of(words):
  """(A command's module, its arguments); None if the program is not ours."""
  words = [word for i, word in enumerate(words)
           if not (re.match(r"[A-Z_0-9]+=", word) and
                   all("=" in before for before in words[:i]))]
  if not words:
    return None
  if words[0] in CONSOLE:
    return CONSOLE[words[0]].split(":")[0], words[1:]
  if words[0] != "python":
    return None
  if words[1] == "-m":
    module, arguments = words[2], words[3:]
  else:
    module, arguments = words[1].replace(".py", "").replace("/", "."), words[2:]
  if module.split(".")[0] not in ("run_classifier", "adapter_bert"):
    return None
  return module, arguments


def our_commands():
  """A pytest parameter (page, module, arguments) for each command."""
  found = []
  for page in PAGES:
    name = os.path.relpath(page, ROOT)
    for words in commands_of(page):
      program = program_of(words)
      if program and "..." not in program[1]:
        found.append(pytest.param(
            *program, id="%s: %s" % (name, " ".join(words)[:60])))
  return found


def parse(module, arguments, errors):
  """In a process of its own, for flags are defined once in a process."""
  importlib.import_module(module).define_flags()
  try:
    flags.FLAGS([module] + arguments)
  except flags.Error as error:
    errors.put(str(error))
  else:
    errors.put(None)


@pytest.mark.parametrize("module, arguments", our_commands())
def test_the_program_takes_the_flags(module, arguments):
  importlib.import_module(module)  # Once, for all processes that are forked.
  context = multiprocessing.get_context("fork")
  errors = context.SimpleQueue()
  process = context.Process(target=parse, args=(module, arguments, errors))
  process.start()
  process.join()
  assert process.exitcode == 0
  assert errors.get() is None


def test_the_pages_have_commands():
  assert len(our_commands()) >= 8


def test_readme_is_one_page():
  with open(PAGES[0], encoding="utf-8") as reader:
    assert len(reader.readlines()) <= 150


def test_every_link_leads_somewhere():
  for page in PAGES:
    with open(page, encoding="utf-8") as reader:
      targets = re.findall(r"\]\(([^)#]+)[^)]*\)", reader.read())
    for target in targets:
      if "://" not in target:
        path = os.path.join(os.path.dirname(page), target)
        assert os.path.exists(path), (page, target)


# What README.md says for data and models that can be made here: all but what
# needs somebody's directory (/path/to/...), and the sweep, whose 24 runs take
# too long; sweep_test.py runs sweeps.
RUN_AS_WRITTEN = ("run_classifier", "adapter_bert.serving.predict_tasks",
                  "adapter_bert.serving.export")


@pytest.mark.slow
def test_commands_of_the_readme_run_as_written(tmp_path):
  files = run_classifier_test.Files(str(tmp_path / "glue"))
  config = test_util.tiny_config(**dict(files.config.to_dict(),
                                        max_position_embeddings=128))
  files.write("bert/bert_config.json", [config.to_json_string()])
  run_classifier_test.write_base(files.path("bert/bert_model.ckpt"), config)
  (tmp_path / "in.tsv").write_text("the cat sat\n" * 3)
  environment = dict(os.environ, GLUE_DIR=files.root,
                     BERT_BASE_DIR=files.path("bert"))
  variables = {"$" + name: environment[name]
               for name in ("GLUE_DIR", "BERT_BASE_DIR")}

  def run(module, arguments):
    # First the places of results, for the others may be in /tmp themselves.
    for old, new in [("=/tmp/", "=%s/" % tmp_path),
                     (",/tmp/", ",%s/" % tmp_path)] + list(variables.items()):
      arguments = [word.replace(old, new) for word in arguments]
    done = subprocess.run([sys.executable, "-m", module] + arguments,
                          cwd=str(tmp_path), env=environment, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout[-2000:]

  commands = [program_of(words) for words in commands_of(PAGES[0])]
  commands = [c for c in commands if c and c[0] in RUN_AS_WRITTEN and
              "/path/to/" not in " ".join(c[1])]
  assert [c[0] for c in commands] == list(RUN_AS_WRITTEN)
  run(*commands[0])  # MRPC; the next command has a second task, of sentences.
  run("run_classifier", [
      "--task_name=CoLA", "--do_train", "--data_dir=$GLUE_DIR/CoLA",
      "--vocab_file=$BERT_BASE_DIR/vocab.txt",
      "--bert_config_file=$BERT_BASE_DIR/bert_config.json",
      "--init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt",
      "--output_dir=/tmp/sst"])
  for command in commands[1:]:
    run(*command)
