"""What setup.py lists is what lies beside it and what that imports."""

import ast
import os
import re
import subprocess
import sys
import zipfile

import pytest

import setup

ROOT = os.path.dirname(os.path.abspath(setup.__file__))

# Where the name on the Python Package Index is not the name of the import.
IMPORT_NAMES = {"absl-py": "absl", "rouge-score": "rouge_score"}


def installed_files():
  """Every Python file that an installation has, by its path from the root."""
  found = [name + ".py" for name in setup.MODULES]
  for directory, _, names in os.walk(os.path.join(ROOT, "adapter_bert")):
    found += [os.path.relpath(os.path.join(directory, name), ROOT)
              for name in names
              if name.endswith(".py") and not setup.is_test(name[:-3])]
  return sorted(found)


def parsed(path):
  with open(os.path.join(ROOT, path), encoding="utf-8") as reader:
    return ast.parse(reader.read())


def imported(node):
  """Top-level names that a node of the syntax tree imports."""
  if isinstance(node, ast.Import):
    return {alias.name.split(".")[0] for alias in node.names}
  if isinstance(node, ast.ImportFrom):
    return {node.module.split(".")[0]}
  return set()


def import_names(requirements):
  names = [re.match(r"[A-Za-z0-9_.-]+", line).group() for line in requirements]
  return {IMPORT_NAMES.get(name, name) for name in names}


def test_the_root_holds_the_four_modules_and_their_tests_alone():
  names = {name for name in os.listdir(ROOT) if name.endswith(".py")}
  modules = {name + ".py" for name in setup.MODULES}
  assert names == modules | {"setup.py", "setup_test.py"} | {
      name[:-3] + "_test.py" for name in modules}


def test_every_requirement_is_imported_and_the_reverse():
  used = set().union(*(imported(node) for path in installed_files()
                       for node in ast.walk(parsed(path))))
  foreign = (used - set(sys.stdlib_module_names) - set(setup.MODULES) -
             {"adapter_bert"})
  extras = import_names(line for name, lines in setup.EXTRAS.items()
                        if name != "test" for line in lines)
  assert foreign == import_names(setup.REQUIREMENTS) | extras


def test_the_four_requirements_and_no_more():
  assert import_names(setup.REQUIREMENTS) == {"tensorflow", "numpy", "six",
                                              "absl"}


def test_an_extra_is_never_imported_at_the_top_of_a_module():
  extras = import_names(line for lines in setup.EXTRAS.values()
                        for line in lines)
  for path in installed_files():
    names = set().union(*(imported(node) for node in parsed(path).body))
    assert not names & extras, path


def test_every_program_has_a_console_command():
  programs = {path[:-3].replace(os.sep, ".") for path in installed_files()
              if any(isinstance(node, ast.FunctionDef) and
                     node.name == "entry_point" for node in parsed(path).body)}
  assert programs == {line.split(" = ")[1].split(":")[0]
                      for line in setup.CONSOLE_SCRIPTS}


@pytest.mark.slow
def test_an_installed_wheel_holds_the_project_and_nothing_else(tmp_path):
  pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
  source = tmp_path / "source"
  subprocess.run(["git", "clone", "--quiet", ROOT, str(source)], check=True)
  subprocess.run(pip + ["wheel", "--no-deps", "-w", str(tmp_path),
                        str(source)], check=True)
  wheel, = tmp_path.glob("*.whl")
  with zipfile.ZipFile(str(wheel)) as archive:
    names = [name for name in archive.namelist() if ".dist-info/" not in name]
  assert {name.split("/")[0] for name in names} == {
      name + ".py" for name in setup.MODULES} | {"adapter_bert"}
  assert not [name for name in names if setup.is_test(name[:-len(".py")])]

  # TensorFlow is borrowed from this environment: the wheel is what is tried.
  home = tmp_path / "venv"
  subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
  python = str(home / "bin" / "python")
  # In another folder and without PYTHONPATH: where this one is on the path, pip
  # takes the egg-info that an editable install has left, and installs nothing.
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "install",
                  "--quiet", "--no-deps", str(wheel)], cwd=str(tmp_path),
                 env=environment, check=True)
  borrowed = [path for path in sys.path if path.endswith("site-packages")]
  environment["PYTHONPATH"] = os.pathsep.join(borrowed)
  for line in setup.CONSOLE_SCRIPTS:
    command = str(home / "bin" / line.split(" = ")[0])
    done = subprocess.run([command, "--help"], cwd=str(tmp_path), check=False,
                          env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    # absl ends --help with status 1.
    assert done.returncode in (0, 1) and "flags:" in done.stdout, done.stdout
