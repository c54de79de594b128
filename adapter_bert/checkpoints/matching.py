"""Which variable of a model starts from what in a checkpoint, and loading it.

What a checkpoint may lack and what it may have left over is decided in `match`,
and nothing is loaded before every variable of the model is accounted for.
"""

import collections
import dataclasses
import os
from typing import Dict, List, Tuple

from absl import logging
import numpy as np
import tensorflow.compat.v1 as tf

from adapter_bert import names
from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import weights as weights_lib
import modeling


# What a method adds to a pre-trained model: the graph's collections.
MAY_BE_NEW = (modeling.ADAPTERS, modeling.PREFIXES, modeling.HEAD)


@dataclasses.dataclass
class Match(object):
  """Which variable starts from what.

  loaded: variable name -> names in the checkpoint; several are averaged.
  new: names of the variables that the checkpoint lacks and that may be new.
  leftover: names in the checkpoint that the model does not use.
  """
  loaded: Dict[str, Tuple[str, ...]]
  new: List[str]
  leftover: List[str]


def match(variables, weights, config, init_shared_from=None):
  """Accounts for every variable of a model.

  What is in one of the collections MAY_BE_NEW may be missing from the
  checkpoint, and a head of another size counts as another task's; any other
  variable must be there with its shape. The checkpoint may have more, but no
  layer that the model does not use.

  Args:
    variables: the model's variables (no slots, no step).
    weights: Weights.
    config: modeling.BertConfig.
    init_shared_from: None; or "first" or "mean", to start layers that share
      their variables from the first, or the mean, of the layers of a plain
      BERT that each of them stands for.

  Returns: Match.

  Raises: InputError, one line, saying what is missing, left over or of another
    shape.
  """
  return match_shapes(
      collections.OrderedDict((v.op.name, v.shape.as_list())
                              for v in variables),
      set(v.op.name for collection in MAY_BE_NEW
          for v in tf.get_collection(collection)),
      weights, config, init_shared_from)


def match_shapes(shapes, may_be_new, weights, config, init_shared_from=None):
  """`match` without a graph.

  Args:
    shapes: dict of name -> list of ints, the model's variables.
    may_be_new: the names of those in one of the collections MAY_BE_NEW.
    weights, config, init_shared_from: as for `match`.
  """
  _refuse_google_albert(weights)
  sources = _sources(shapes, may_be_new, weights, config, init_shared_from)
  _check_layers(sources, weights, config, init_shared_from)
  loaded, new, missing = collections.OrderedDict(), [], []
  for name, shape in shapes.items():
    wanted = sources[name]
    present = [n for n in wanted if n in weights.shapes]
    differing = [n for n in present if weights.shapes[n] != shape]
    if names.is_head(name) and (not present or differing):
      new.append(name)
    elif differing:
      raise errors.InputError(
          "%s: %s has shape %s, and the model's has %s; the model's sizes come "
          "from bert_config_file and adapter_size" %
          (weights, differing[0], weights.shapes[differing[0]], shape))
    elif len(present) == len(wanted):
      _check_floats(present, weights)
      loaded[name] = wanted
    elif name in may_be_new or names.is_adapter(name):
      new.append(name)
    else:
      missing.append(name)
  if missing and all(map(names.is_pooler, missing)) and not any(
      map(names.is_pooler, weights.shapes)):
    raise errors.InputError(
        "%s: has no pooler (%s), and the classifier reads what it gives; train "
        "a new one with --fresh_pooler" % (weights, ", ".join(missing)))
  if missing:
    raise errors.InputError(
        "%s: lacks %d of the model's variables, the first of them %s; is it a "
        "BERT checkpoint, and bert_config_file its own?" %
        (weights, len(missing), missing[0]))
  used = set(n for starts in loaded.values() for n in starts)
  return Match(loaded, new, sorted(set(weights.shapes) - used))


def _check_floats(present, weights):
  for name in present:
    if not weights.is_float(name):
      raise errors.InputError(
          "%s: its %s has whole numbers, and the model's has floating point "
          "numbers; the checkpoint is of something else" % (weights, name))


def _refuse_google_albert(weights):
  for name in sorted(weights.shapes):
    if names.is_google_albert(name):
      raise errors.InputError(
          "%s: has the variable names of Google's own ALBERT (%s), which are "
          "not supported; albert_zh's checkpoints are" % (weights, name))


def _layer_ids(variables):
  """The set of what stands after `layer_` in the names, slots left out."""
  layers = (names.layer_of(n) for n in variables if not names.is_slot(n))
  return set(layer.id for layer in layers if layer)


def _sources(variables, may_be_new, weights, config, init_shared_from):
  """variable name -> the names in the checkpoint that it starts from."""
  sources = {name: (name,) for name in variables}
  if not init_shared_from:
    return sources
  if init_shared_from not in ("first", "mean"):
    raise errors.InputError("init_shared_from is %r; it can be first or mean" %
                            init_shared_from)
  if not config.share_parameter_across_layers:
    raise errors.InputError(
        "init_shared_from=%s, but the model's layers are not shared; set "
        "share_parameter_across_layers, or drop it" % init_shared_from)
  size = config.layers_per_group or config.num_hidden_layers
  layers = config.num_hidden_layers
  for name in sources:
    layer = names.layer_of(name)
    if not layer or name in may_be_new:
      continue
    if name in weights.shapes and weights.is_overlaid(name):
      continue  # Trained since: it has a value of its own by now.
    group = 0 if layer.id == names.SHARED else int(layer.id)
    members = range(group * size, min((group + 1) * size, layers))
    if init_shared_from == "first":
      members = members[:1]
    sources[name] = tuple(names.in_layer(name, i) for i in members)
  return sources


def _check_layers(sources, weights, config, init_shared_from):
  """Compares the checkpoint's layers with the model's."""
  wanted = _layer_ids(sources)
  if init_shared_from:
    # Shared layers made from a plain BERT: all of its layers take part.
    wanted = set(str(i) for i in range(config.num_hidden_layers))
  # What a run trained on top says nothing about the base's layers.
  present = _layer_ids(weights.bottom_names())
  if wanted == present or not present:
    return
  shared = config.share_parameter_across_layers
  if present == {names.SHARED} and shared:
    raise errors.InputError(
        "%s: its layers share one set of variables (scope layer_shared) "
        "already; drop init_shared_from and layers_per_group" % weights)
  if present == {names.SHARED}:
    raise errors.InputError(
        "%s: its layers share one set of variables (scope layer_shared), and "
        "the model's do not; give --share_parameter_across_layers and no "
        "--layers_per_group, or set the key in the config" % weights)
  if shared and present == set(str(i) for i in range(config.num_hidden_layers)):
    raise errors.InputError(
        "%s: a plain BERT of %d layers, and the model's layers are shared; "
        "give --init_shared_from=mean or first to start from its layers, or "
        "drop share_parameter_across_layers" % (weights, len(present)))
  unused = sorted(present - wanted)
  raise errors.InputError(
      "%s: has %d layers (scopes layer_*), and the model uses %d%s; "
      "bert_config_file must be the checkpoint's own, and layers that are "
      "shared in groups need share_parameter_across_layers and "
      "layers_per_group" %
      (weights, len(present), len(wanted),
       ", so layer_%s would be left over" % unused[0] if unused else ""))


def report(match_, weights):
  """Logs which variables come from the checkpoint and which are new."""
  logging.info("from %s: %d variables", weights, len(match_.loaded))
  same = [n for n, starts in match_.loaded.items() if starts == (n,)]
  for line in _by_layer(same):
    logging.info("  %s", line)
  for name, starts in match_.loaded.items():
    if starts != (name,):
      logging.info("  %s from %s%s", name, "the mean of " * (len(starts) > 1),
                   ", ".join(starts))
  if match_.new:
    logging.info("new, not in the checkpoint: %d variables (%s)",
                 len(match_.new), _abbreviated(match_.new))
  rest = [n for n in match_.leftover if not names.is_slot(n)]
  if rest:
    logging.info("in the checkpoint and not used: %d variables (%s)",
                 len(rest), _abbreviated(rest))


def _by_layer(variables):
  """Names, those that differ only in the layer's number on one line."""
  lines = collections.OrderedDict()
  for name in variables:
    layer = names.layer_of(name)
    line = names.in_layer(name, "*") if layer else name
    lines.setdefault(line, []).append(layer and layer.id)
  return [line if found == [None] else
          "%s (* = %s)" % (line, ", ".join(found))
          for line, found in lines.items()]


def _abbreviated(variables, most=4):
  return ", ".join(variables[:most]) + (
      ", ..." if len(variables) > most else "")


def load_ops(variables, match_, weights):
  """Ops that assign what `match` found.

  Args:
    variables: those to assign; the ones that are new are passed over.
    match_: Match.
    weights: Weights.

  Returns: list of ops.
  """
  ops = []
  for variable in variables:
    starts = match_.loaded.get(variable.op.name)
    if starts:
      values = [tf.cast(weights.tensor(name), variable.dtype.base_dtype)
                for name in starts]
      value = values[0] if len(values) == 1 else tf.add_n(values) / len(values)
      ops.append(variable.assign(value, read_value=False))
  return [op for op in ops if op is not None]


def export_full(prefix, match_, weights):
  """Writes a whole model as one fp32 checkpoint, under the reference's names.

  Args:
    prefix: str, the checkpoint to write.
    match_: Match, of the model with the weights.
    weights: Weights.
  """
  arrays = {
      name: np.mean([weights.value(n) for n in starts], axis=0,
                    dtype=np.float32)
      for name, starts in match_.loaded.items()
  }
  arrays[names.GLOBAL_STEP] = np.asarray(
      weights.value(names.GLOBAL_STEP) if names.GLOBAL_STEP in weights.shapes else 0,
      np.int64)
  files.make_directory(os.path.dirname(prefix) or ".")
  weights_lib.write(prefix, arrays)
