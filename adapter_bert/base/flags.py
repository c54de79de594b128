"""A setting is defined once, by a `Setting`: flags and configs are made of it.

    RATE = Setting("learning_rate", float, 5e-5, "Adam's rate.", least=0)
    Config = config_class("Config", [RATE])
    define([RATE])                        # --learning_rate
    config = Config(**values([RATE]))     # checked by its row

adapter_bert/settings.py is the table of all of them.
"""

import dataclasses
import math
import os
import sys
from typing import Any, Callable, Optional, Tuple

from absl import flags as absl_flags

from adapter_bert.base import errors
from adapter_bert.base import files

# A flag belongs to the program that calls `define`, whose --help shows it.
absl_flags.disclaim_key_flags()

# The default of what has to be given.
REQUIRED = dataclasses.MISSING

_KINDS = {bool: "true or false", int: "a whole number", float: "a number",
          str: "a string", list: "a list"}
_DEFINE = {bool: absl_flags.DEFINE_boolean, int: absl_flags.DEFINE_integer,
           float: absl_flags.DEFINE_float, str: absl_flags.DEFINE_string,
           list: absl_flags.DEFINE_list}
_LONGEST_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class Setting(object):
  """One setting: all that any part of the project has to know of it.

  name: str, of the flag and of the config's field.
  kind: bool, int, float, str, or list (of str).
  default: its value if it is not given; None: it need not be given; REQUIRED.
  help: str, a line for --help and docs/flags.md.
  allowed: the values that it can have; None: others are checked below.
  least, most: the smallest and the largest number.
  check: function that raises a ValueError for a value that cannot be.
  is_path: whether it names a file or a directory (or a list of them): a config
    has it with `~` expanded, and a scheme must be one that TensorFlow can open.
  local: str, why a path cannot have a scheme; None: it can.
  reference: whether the reference implementation had this flag.
  decides_result: whether weights or scores can depend on it.
  recorded: what run.json says of it. "run": a run that goes on must have the
    same; "schedule": it may have another, and says so; None: nothing.
  agreed: what the processes of a run must agree in. "value"; "given": whether
    it is given (each may have a path of its own); None: nothing.
  swept: whether a sweep may vary it.
  programs: the names of the programs that have this flag.
  """
  name: str
  kind: type
  default: Any
  help: str
  allowed: Optional[Tuple[Any, ...]] = None
  least: Optional[float] = None
  most: Optional[float] = None
  check: Optional[Callable[[Any], Any]] = None
  is_path: bool = False
  local: Optional[str] = None
  reference: bool = False
  decides_result: bool = True
  recorded: Optional[str] = None
  agreed: Optional[str] = "value"
  swept: bool = True
  programs: Tuple[str, ...] = ("run_classifier",)

  @property
  def plain_default(self):
    """The default of its flag: None where it has to be given."""
    return None if self.default is REQUIRED else self.default

  @property
  def wanted(self):
    """What it must be, in words: "a number from 0 to 1"."""
    words = _KINDS[self.kind]
    if self.most is not None:
      number = "%d" if self.kind is int else "%g"
      return words + (" from %s to %s" % (number, number)) % (
          self.least, self.most)
    if self.least is not None:
      return "%s of at least %d" % (words, self.least)
    return words

  def check_value(self, value, text_of=repr):
    """Raises InputError, one line, unless this setting can have the value.

    Args:
      value: anything.
      text_of: function that gives its text for the message: json.dumps for one
        that stood in a JSON file.
    """
    if value is None and self.plain_default is None:
      return
    if not self._is_of_kind(value) or not self._is_in_range(value):
      raise errors.InputError("%s is %s; it must be %s" %
                              (self.name, _short(text_of(value)), self.wanted))
    if self.allowed is not None and value not in self.allowed:
      raise errors.InputError("%s is %s; it can be %s" % (
          self.name, _short(value), " or ".join(self.allowed)))
    if self.check is not None:
      with errors.reported():
        self.check(value)

  def usable(self, value):
    """The value, a path as files are opened by it.

    Raises: InputError for a path that cannot be opened whatever is there.
    """
    if not self.is_path or not value:
      return value
    if self.kind is list:
      return [self._usable_path(path) for path in value]
    return self._usable_path(value)

  def _usable_path(self, path):
    if self.local:
      files.check_local(path, self.name, self.local)
    files.check_name(path, self.name)
    files.check_scheme(path, self.name)
    return os.path.expanduser(path)

  def _is_of_kind(self, value):
    if self.kind is float:
      return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is self.kind  # True is an int, too.

  def _is_in_range(self, value):
    if self.kind not in (int, float):
      return True
    # Also no whole number that is too large for a float.
    if self.kind is float and not (
        math.isfinite(value) if isinstance(value, float) else
        abs(value) <= sys.float_info.max):
      return False
    return ((self.least is None or value >= self.least) and
            (self.most is None or value <= self.most))


def _short(text):
  """A text that fits into a message, however long it is."""
  if len(text) <= _LONGEST_SHOWN:
    return text
  return text[:_LONGEST_SHOWN] + "..."


def config_class(name, settings, required=()):
  """A dataclass with a field for each setting; making one checks all values.

  Args:
    name: str, the class's.
    settings: list of Setting.
    required: the names of those that must be given, REQUIRED or not.
  """

  def is_required(setting):
    return setting.default is REQUIRED or setting.name in required

  def check(self):
    for setting in settings:
      value = getattr(self, setting.name)
      if value is None and is_required(setting):
        raise errors.InputError("%s is not given" % setting.name)
      setting.check_value(value)
      # Past the class's own __setattr__: it is frozen.
      object.__setattr__(self, setting.name, setting.usable(value))

  fields = [(s.name, s.kind) for s in settings if is_required(s)] + [
      (s.name, s.kind, dataclasses.field(default=s.default))
      for s in settings if not is_required(s)]
  return dataclasses.make_dataclass(
      name, fields, frozen=True, namespace={"__post_init__": check})


def define(settings, required=(), flag_values=absl_flags.FLAGS):
  """Defines a flag for each setting.

  Args:
    settings: list of Setting.
    required: the names of those without which the program does not start.
    flag_values: absl_flags.FlagValues.
  """
  for setting in settings:
    _DEFINE[setting.kind](setting.name, setting.plain_default, setting.help,
                          flag_values=flag_values)
  absl_flags.mark_flags_as_required(list(required), flag_values=flag_values)


def values(settings, flag_values=absl_flags.FLAGS):
  """name -> the value that the command line gives, for each setting."""
  return {setting.name: flag_values[setting.name].value
          for setting in settings}
