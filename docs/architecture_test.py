"""Who imports whom: down the list of rooms, and never a program."""

import ast
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# From the bottom up. What stands in one line knows nothing of each other.
# settings.py stands beside training: its values name what is trained, and a
# run's plan is made from it.
ROOMS = [
    {"base", "modeling", "tokenization"},
    {"ops", "names"},
    {"tuning"},
    {"optimization", "models", "data"},
    {"checkpoints"},
    {"distributed"},
    {"training", "settings"},
    {"generation"},
    {"serving", "experiments"},
]
TOGETHER = {"training", "settings"}


def python_files():
  """Module name -> path, of all of ours."""
  found = {}
  for directory, inner, names in os.walk(ROOT):
    if directory == ROOT:
      inner[:] = ["adapter_bert", "benchmarks", "docs", "examples"]
    for name in names:
      if name.endswith(".py"):
        path = os.path.relpath(os.path.join(directory, name), ROOT)
        found[path[:-len(".py")].replace(os.sep, ".")] = path
  return found


@pytest.fixture(name="imports", scope="module")
def fixture_imports():
  """Module name -> the names of those of our modules that it imports."""
  files = python_files()
  found = {}
  for module, path in files.items():
    with open(os.path.join(ROOT, path), encoding="utf-8") as reader:
      tree = ast.parse(reader.read())
    names = set()
    for node in ast.walk(tree):
      if isinstance(node, ast.Import):
        names.update(alias.name for alias in node.names)
      elif isinstance(node, ast.ImportFrom):
        assert not node.level, "%s imports by a relative path" % path
        names.add(node.module)
        names.update(node.module + "." + alias.name for alias in node.names)
    found[module] = names & set(files)
  return found


@pytest.fixture(name="programs", scope="module")
def fixture_programs():
  """The modules that are started: they have an `entry_point`."""
  found = set()
  for module, path in python_files().items():
    with open(os.path.join(ROOT, path), encoding="utf-8") as reader:
      if any(isinstance(node, ast.FunctionDef) and node.name == "entry_point"
             for node in ast.parse(reader.read()).body):
        found.add(module)
  return found


def room_of(module):
  parts = module.split(".")
  return parts[1] if parts[0] == "adapter_bert" else parts[0]


def level_of(module):
  levels = [i for i, rooms in enumerate(ROOMS) if room_of(module) in rooms]
  assert levels, ("%s is in no room that this test knows: give it its place in "
                  "ROOMS" % module)
  return levels[0]


def test_imports_go_down_the_list_of_rooms(imports, programs):
  up = []
  for module, names in imports.items():
    is_outside = module.split(".")[0] in ("benchmarks", "docs", "examples",
                                          "setup", "setup_test")
    if (is_outside or module in programs or
        module.endswith(("_test", "test_util"))):
      continue
    for other in names:
      rooms = {room_of(module), room_of(other)}
      if len(rooms) > 1 and rooms != TOGETHER and (
          level_of(other) >= level_of(module)):
        up.append("%s imports %s" % (module, other))
  assert not up


def test_no_module_imports_itself_by_way_of_others(imports):
  left = dict(imports)
  while left:
    # Those that import nothing which is still there, or that nothing imports.
    imported = set().union(*left.values())
    free = {module for module, names in left.items()
            if not names & set(left) or module not in imported}
    assert free, "a circle among %s" % ", ".join(sorted(left))
    left = {module: names for module, names in left.items()
            if module not in free}


def test_a_program_is_imported_by_its_own_test_alone(imports, programs):
  assert "run_classifier" in programs
  found = ["%s imports %s" % (module, other)
           for module, names in imports.items()
           for other in names & programs if module != other + "_test"]
  assert not found


def test_modeling_and_tokenization_import_nothing_of_ours(imports):
  assert not imports["modeling"] and not imports["tokenization"]
