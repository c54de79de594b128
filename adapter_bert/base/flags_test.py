"""One row makes the flag, the field and the check."""

import dataclasses

from absl import flags as absl_flags
import pytest

from adapter_bert.base import errors
from adapter_bert.base import flags


def _layers(text):
  if text == "none":
    raise ValueError("layers is none; give some")


ROWS = [
    flags.Setting("where", str, flags.REQUIRED, "A path."),
    flags.Setting("rate", float, 0.5, "A rate.", least=0, most=1),
    flags.Setting("size", int, 8, "A size.", least=1),
    flags.Setting("kind", str, "a", "A kind.", allowed=("a", "b")),
    flags.Setting("layers", str, None, "Some layers.", check=_layers),
    flags.Setting("loud", bool, False, "Whether to be."),
    flags.Setting("names", list, None, "Some names."),
]
Config = flags.config_class("Config", ROWS)


def test_a_command_line_becomes_a_config():
  holder = absl_flags.FlagValues()
  flags.define(ROWS, ["where"], holder)
  holder(["program", "--where=here", "--rate=1", "--loud", "--names=x,y"])
  config = Config(**flags.values(ROWS, holder))
  assert dataclasses.asdict(config) == {
      "where": "here", "rate": 1.0, "size": 8, "kind": "a", "layers": None,
      "loud": True, "names": ["x", "y"]}
  assert dataclasses.replace(config, size=9).size == 9
  with pytest.raises(absl_flags.IllegalFlagValueError):
    holder(["program", "--rate=1"])  # `where` is required
    holder["where"].unparse()
    holder.validate_all_flags()


def test_a_flag_is_that_of_the_module_that_defines_it():
  """Or else --help of a program would not show it."""
  holder = absl_flags.FlagValues()
  flags.define(ROWS, [], holder)
  assert holder.find_module_defining_flag("rate") == __name__


@pytest.mark.parametrize("changes,line", [
    (dict(where=None), "where is not given"),
    (dict(where=3), "where is 3; it must be a string"),
    (dict(rate=1.5), "rate is 1.5; it must be a number from 0 to 1"),
    (dict(rate=float("nan")), "rate is nan; it must be a number from 0 to 1"),
    (dict(rate=True), "rate is True; it must be a number from 0 to 1"),
    (dict(rate="0.5"), "rate is '0.5'; it must be a number from 0 to 1"),
    (dict(size=0), "size is 0; it must be a whole number of at least 1"),
    (dict(size=2.0), "size is 2.0; it must be a whole number of at least 1"),
    (dict(size=True), "size is True; it must be a whole number of at least 1"),
    (dict(size=None), "size is None; it must be a whole number of at least 1"),
    (dict(kind="c"), "kind is c; it can be a or b"),
    (dict(layers="none"), "layers is none; give some"),
    (dict(loud=1), "loud is 1; it must be true or false"),
    (dict(rate=10**400), "rate is 1" + "0" * 39 + "...; it must be a number "
     "from 0 to 1"),
])
def test_each_value_is_checked_by_its_row(changes, line):
  Config(where="here")
  with pytest.raises(errors.InputError) as caught:
    Config(**dict(dict(where="here"), **changes))
  assert str(caught.value) == line


def test_what_is_required_of_a_program():
  other = flags.config_class("Other", ROWS, required=["layers"])
  with pytest.raises(errors.InputError, match="layers is not given"):
    other(where="here", layers=None)


def test_paths_can_be_opened_by_what_the_config_has(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  rows = [flags.Setting("where", str, None, "A path.", is_path=True),
          flags.Setting("many", list, None, "Paths.", is_path=True),
          flags.Setting("text", str, "~", "No path.")]
  config = flags.config_class("Paths", rows)
  found = config(where="~/a", many=["~/b", "/c~", "ram://d"])
  assert (found.where, found.many, found.text) == (
      "/home/me/a", ["/home/me/b", "/c~", "ram://d"], "~")
  assert config().where is None
  for changes in (dict(where="nowhere://a/b"), dict(many=["x", "nowhere://a"])):
    with pytest.raises(errors.InputError, match="nowhere://a.* cannot open"):
      config(**changes)


def test_help_shows_the_flags():
  values = absl_flags.FlagValues()
  flags.define(ROWS[1:2], flag_values=values)
  assert "--rate" in values.module_help(__name__)
