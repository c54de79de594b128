"""What setup.py lists is what lies beside it and what that imports."""

import ast
import os
import re
import sys

import setup

ROOT = os.path.dirname(os.path.abspath(setup.__file__))

# Where the name on the Python Package Index is not the name of the import.
IMPORT_NAMES = {"absl-py": "absl"}

# No program or test of ours, but Python files all the same.
NOT_INSTALLED = {"setup", "conftest", "test_util"}


def modules_on_disk():
  names = {name[:-3] for name in os.listdir(ROOT) if name.endswith(".py")}
  return sorted(name for name in names - NOT_INSTALLED
                if not name.endswith("_test"))


def imported_packages(module):
  """Top-level names that a module imports, inside its functions too."""
  with open(os.path.join(ROOT, module + ".py"), encoding="utf-8") as reader:
    tree = ast.parse(reader.read())
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names.update(alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      names.add(node.module.split(".")[0])
  return names


def import_names(requirements):
  names = [re.match(r"[A-Za-z0-9_.-]+", line).group() for line in requirements]
  return {IMPORT_NAMES.get(name, name) for name in names}


def test_every_module_is_listed():
  assert setup.MODULES == modules_on_disk()


def test_every_requirement_is_imported_and_the_reverse():
  used = set().union(*(imported_packages(name) for name in setup.MODULES))
  foreign = used - set(sys.stdlib_module_names) - set(setup.MODULES)
  extras = import_names(line for name, lines in setup.EXTRAS.items()
                        if name != "test" for line in lines)
  assert foreign == import_names(setup.REQUIREMENTS) | extras


def test_the_four_requirements_and_no_more():
  assert import_names(setup.REQUIREMENTS) == {"tensorflow", "numpy", "six",
                                              "absl"}


def test_an_extra_is_never_imported_at_the_top_of_a_module():
  extras = import_names(line for lines in setup.EXTRAS.values()
                        for line in lines)
  for module in setup.MODULES:
    with open(os.path.join(ROOT, module + ".py"), encoding="utf-8") as reader:
      top = ast.Module([node for node in ast.parse(reader.read()).body
                        if isinstance(node, (ast.Import, ast.ImportFrom))], [])
    names = {alias.name.split(".")[0] for node in top.body
             for alias in node.names}
    assert not names & extras, module


def test_the_console_commands_exist():
  for line in setup.CONSOLE_SCRIPTS:
    module, name = line.split(" = ")[1].split(":")
    with open(os.path.join(ROOT, module + ".py"), encoding="utf-8") as reader:
      functions = {node.name: node for node in ast.parse(reader.read()).body
                   if isinstance(node, ast.FunctionDef)}
    assert name in functions, line
    assert not functions[name].args.args, "it is called without any"
