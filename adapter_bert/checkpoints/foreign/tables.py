"""Tables of names: another project's weights become ours, strict both ways.

A *table* says of each of our variables which tensors of theirs it is made of,
and how:

    OrderedDict([
        ("bert/pooler/dense/kernel", transposed("pooler.dense.weight")),
        ("bert/pooler/dense/bias", copied("pooler.dense.bias")),
    ])

`apply(table, tensors)` reads them. Each variable must be found and each tensor
must be used, so that nothing stays random and nothing is lost unseen. Names and
shapes are all compared before the first tensor is read.

One module for each format and family of models has its table; what is particular
to its files (prefixes, old names, one tensor under several names) it brings in
order before, with the functions at the end of this file.
"""

import collections
import re

import numpy as np

from adapter_bert.base import errors

# names: tuple of str, the names of their tensors.
# read: function of those tensors (numpy arrays, in that order) that returns our
#   array. It must not depend on the values: it is also called on arrays of
#   zeros, to know our shape before anything is read.
Entry = collections.namedtuple("Entry", ["names", "read"])


def copied(name):
  """The Entry of a variable that is their tensor as it is."""
  return Entry((name,), lambda tensor: tensor)


def transposed(name):
  """The Entry of a kernel [in, out] that they store as [out, in]."""
  return Entry((name,), lambda tensor: tensor.T)


def columns(name, index, count):
  """The Entry of one of `count` equal parts of their last axis."""
  return Entry((name,), lambda tensor: np.split(tensor, count, axis=-1)[index])


class Tensor(object):
  """A tensor that is read when it is asked for.

  Args:
    shape: sequence of int.
    load: function without arguments that returns the numpy array.
  """

  def __init__(self, shape, load):
    self.shape = tuple(shape)
    self.load = load


class Tensors(collections.abc.Mapping):
  """A mapping of name -> numpy array that reads an array when it is asked for.

  Args:
    tensors: dict of name -> Tensor. One Tensor under two names is one tensor
      of the file that has two names; either counts for both.
  """

  def __init__(self, tensors):
    self.tensors = collections.OrderedDict(tensors)

  def __getitem__(self, name):
    return self.tensors[name].load()

  def __contains__(self, name):
    return name in self.tensors

  def __iter__(self):
    return iter(self.tensors)

  def __len__(self):
    return len(self.tensors)

  def shape(self, name):
    """Tuple of int; nothing is read."""
    return self.tensors[name].shape


def as_tensors(tensors):
  """`tensors`, any mapping of name -> array, as Tensors."""
  if isinstance(tensors, Tensors):
    return tensors
  return Tensors(
      (name, Tensor(np.shape(array), lambda array=array: np.asarray(array)))
      for name, array in tensors.items())


def apply(table, tensors, ignored=(), where="", shapes=None):
  """Reads a model's variables; as `view`, but all at once.

  Returns: OrderedDict of our variable's name -> numpy array.
  """
  return collections.OrderedDict(
      view(table, tensors, ignored, where, shapes).items())


def view(table, tensors, ignored=(), where="", shapes=None):
  """Compares a table with a file.

  Args:
    table: OrderedDict of our variable's name -> Entry.
    tensors: mapping of their name -> array, or Tensors, which are not read.
    ignored: regular expressions (str); a tensor whose whole name one of them
      matches may be there and is not used.
    where: str, the file, for messages.
    shapes: None, or dict of our variable's name -> its shape in the model.

  Returns: Tensors, under our names; an array is read and made when it is asked
    for.

  Raises:
    errors.InputError: one line; a tensor lacks, or is left over, or has another
      shape.
  """
  tensors = as_tensors(tensors)
  _check_names(table, tensors, ignored, where)
  made = Tensors((name, _made(entry, tensors, where))
                 for name, entry in table.items())
  for name in made:
    if shapes is not None and made.shape(name) != tuple(shapes[name]):
      raise errors.InputError(
          "%s: %s has shape %s, which makes %s of %s; with the sizes in the "
          "config it is %s" %
          (where, ", ".join(table[name].names),
           " and ".join(str(list(tensors.shape(n))) for n in table[name].names),
           list(made.shape(name)), name, list(shapes[name])))
  return made


def _made(entry, tensors, where):
  """The Tensor that an Entry makes."""

  def load():
    return np.ascontiguousarray(entry.read(*[tensors[n] for n in entry.names]))

  # A view of one zero, however large the shape.
  zeros = [np.broadcast_to(np.float32(0), tensors.shape(name))
           for name in entry.names]
  try:
    return Tensor(entry.read(*zeros).shape, load)
  except ValueError as error:  # numpy's, say for a split that is not even
    raise errors.InputError("%s: %s has shape %s: %s" % (
        where, ", ".join(entry.names), [list(zero.shape) for zero in zeros],
        error)) from error


def _check_names(table, tensors, ignored, where):
  """Raises InputError unless each name has its counterpart."""
  wanted = [name for entry in table.values() for name in entry.names]
  used = set(id(tensors.tensors[name]) for name in wanted if name in tensors)
  lacking = [name for name in wanted if name not in tensors]
  extra = [name for name, tensor in tensors.tensors.items()
           if id(tensor) not in used and
           not any(re.fullmatch(pattern, name) for pattern in ignored)]
  if not used:
    raise errors.InputError(
        "%s: no tensor has a name that fits the config's model; its tensors are "
        "%s, and the model's would be %s" %
        (where, some(sorted(tensors)) or "none", some(sorted(set(wanted)))))
  if lacking:
    raise errors.InputError(
        "%s lacks %s, which the config's model has%s" %
        (where, some(sorted(set(lacking))),
         "; it holds %s, which the model does not have" % some(sorted(extra))
         if extra else ""))
  if extra:
    raise errors.InputError(
        "%s holds %s, for which the config's model has no variable" %
        (where, some(sorted(extra))))


def some(names, most=3):
  """Some of the names, and how many more there are."""
  names = list(names)
  more = len(names) - most
  return ", ".join(names[:most]) + (" and %d more" % more if more > 0 else "")


# ------------------------------------------------ bringing a file into order


def renamed(tensors, rename, where=""):
  """The tensors under other names.

  Args:
    tensors: mapping of name -> array.
    rename: function of a name that returns the new one.
    where: str, the file, for messages.

  Raises:
    errors.InputError: two tensors would have one name.
  """
  tensors = as_tensors(tensors).tensors
  new, old_name = collections.OrderedDict(), {}
  for old, tensor in tensors.items():
    name = rename(old)
    if new.setdefault(name, tensor) is not tensor:
      raise errors.InputError("%s has both %s and %s, two names of one tensor" %
                              (where, old_name[name], old))
    old_name[name] = old
  return Tensors(new)


def without_prefixes(tensors, prefixes, where=""):
  """The tensors without any of the prefixes, however many stand in a row.

  Args:
    tensors: mapping of name -> array.
    prefixes: tuple of str, say ("bert.", "_orig_mod.").
    where: str, the file, for messages.
  """
  pattern = re.compile("^(%s)+" % "|".join(map(re.escape, prefixes)))
  return renamed(tensors, lambda name: pattern.sub("", name), where)


def one_of(tensors, name, others, where=""):
  """The tensors with one under `name` that may be there under other names.

  Files of models with tied weights hold a tensor once, or once for each use.

  Args:
    tensors: mapping of name -> array.
    name: str, the name it gets.
    others: tuple of str, the names that it may have instead, or beside.
    where: str, the file, for messages.

  Raises:
    errors.InputError: they are there several times, with different values.
  """
  new = as_tensors(tensors).tensors.copy()
  found = [n for n in (name,) + tuple(others) if n in new]
  for other in found[1:]:
    if new[other] is not new[found[0]] and not np.array_equal(
        new[other].load(), new[found[0]].load()):
      raise errors.InputError(
          "%s: %s and %s differ, and the model has one variable for both" %
          (where, found[0], other))
  if found:
    tensor = new[found[0]]
    for other in found:
      del new[other]
    new[name] = tensor
  return Tensors(new)


def with_defaults(tensors, defaults):
  """The tensors with those of `defaults` (name -> array) that they lack."""
  return Tensors(dict(as_tensors(defaults).tensors,
                      **as_tensors(tensors).tensors))
