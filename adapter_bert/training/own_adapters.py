"""An adapter of one's own, by its name: --adapter_fn=package.module:function.

    # my_adapters.py, in a directory of PYTHONPATH
    def gated(tensor):
      '''float [rows, D] -> the same; see adapter_fn of modeling.BertModel.'''
      with tf.variable_scope("adapters"):
        ...

    python run_classifier.py --adapter_fn=my_adapters:gated ...

run.json records the name. To import a module is to run its code, so a name that
stands in a checkpoint's run.json is imported only if the command line has it,
too.
"""

import hashlib
import importlib
import inspect
import re

from adapter_bert.base import errors

_NAME = re.compile(r"(\w+(?:\.\w+)*):(\w+)")


class OwnAdapter(object):
  """An adapter_fn that knows its name.

  Args:
    name: str, "package.module:function".
    function: the callable.
  """

  def __init__(self, name, function):
    self.name = name
    self._function = function

  def __call__(self, tensor):
    return self._function(tensor)

  def __str__(self):
    return self.name

  def code(self):
    """str: a digest of the file that it is in; "" if it is in none."""
    try:
      path = inspect.getsourcefile(self._function)
      with open(path, "rb") as source:
        return hashlib.sha256(source.read()).hexdigest()[:12]
    except (OSError, TypeError):  # Of a builtin, or a compiled module.
      return ""


def check_names(text):
  """Raises ValueError unless a text is names with commas between them."""
  for name in text.split(","):
    if not _NAME.fullmatch(name):
      raise ValueError(
          "adapter_fn is %s; it must be package.module:function" %
          errors.shown(name))


def load(name):
  """The OwnAdapter of that name.

  Raises: InputError if it cannot be imported, or cannot be called.
  """
  check_names(name)
  if "," in name:
    raise errors.InputError("adapter_fn is %s; a model has one" %
                            errors.shown(name))
  module_name, function_name = name.split(":")
  try:
    module = importlib.import_module(module_name)
  except (ImportError, SyntaxError) as error:
    raise errors.InputError(
        "adapter_fn=%s: %s cannot be imported: %s; its directory must be in "
        "PYTHONPATH" % (name, module_name, error)) from error
  if not hasattr(module, function_name):
    raise errors.InputError("adapter_fn=%s: %s (%s) has no %s" % (
        name, module_name, getattr(module, "__file__", "built in"),
        function_name))
  function = getattr(module, function_name)
  if not callable(function):
    raise errors.InputError(
        "adapter_fn=%s: it is a %s, and must be a function of a tensor" %
        (name, type(function).__name__))
  return OwnAdapter(name, function)


def load_recorded(name, given, where):
  """The OwnAdapter that a run.json names, if the command line has it too.

  Args:
    name: str or None, from run.json.
    given: str or None, the flag adapter_fn: names with commas between them.
    where: str, the file, for messages.

  Returns: OwnAdapter; None for None.

  Raises: InputError.
  """
  if name is None:
    return None
  if name not in (given or "").split(","):
    raise errors.InputError(
        "%s names the adapter_fn %s, and no code is run because a file says "
        "so; give --adapter_fn=%s if you trust it" %
        (where, errors.shown(name), name))
  return load(name)
