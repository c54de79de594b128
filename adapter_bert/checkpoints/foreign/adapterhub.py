"""AdapterHub's directories (the library `adapters`) of a BERT classifier.

Written after adapters 1.3.0. A directory holds adapter_config.json and
adapter.safetensors (an adapter, or a prefix), head_config.json and
model_head.safetensors. What it has and what it is here:

    double_seq_bn, "houlsby"   adapters in the order houlsby
    seq_bn, "pfeiffer"         adapters in the order pfeiffer
    prefix_tuning              prefixes, with unshifted positions; an MLP is
                               folded into them
    a head of two layers       a pooler of the task's own, and the output layer
    a head of one, use_pooler  the base's pooler, and the output layer

LayerNorms of a task's own it has none.
"""

import collections
import re

import numpy as np

from adapter_bert.base import errors
from adapter_bert.checkpoints.foreign import hf_bert
from adapter_bert.checkpoints.foreign import method as method_lib
from adapter_bert.checkpoints.foreign import tables

NAME = "AdapterHub"
WEIGHTS, PICKLE = "adapter.safetensors", "pytorch_adapter.bin"
HEAD_CONFIG = "head_config.json"
HEAD_WEIGHTS, HEAD_PICKLE = "model_head.safetensors", "pytorch_model_head.bin"
VERSION = "adapters.1.3.0"

# Their name of an activation -> ours (modeling.ACTIVATIONS).
ACTIVATIONS = {"relu": "relu", "gelu": "gelu_erf", "gelu_new": "gelu",
               "gelu_pytorch_tanh": "gelu", "tanh": "tanh", "swish": "swish",
               "silu": "swish", "linear": "linear"}
_WRITTEN_ACTIVATIONS = {"relu": "relu", "gelu_erf": "gelu", "gelu": "gelu_new",
                        "tanh": "tanh", "swish": "swish", "linear": "linear"}
# Files without a version are of 2020, when "gelu" was the tanh form.
_OLD_ACTIVATIONS = dict(ACTIVATIONS, gelu="gelu", gelu_orig="gelu_erf")

# Keys of an adapter_config.json's config -> the values that are built.
_BOTTLENECK = {
    "output_adapter": (True,), "original_ln_after": (True,),
    "ln_before": (False,), "ln_after": (False,), "is_parallel": (False,),
    "use_gating": (False,), "phm_layer": (False,), "cross_adapter": (False,),
    "inv_adapter": (None,), "invertible_adapter": (None,), "scaling": (1.0,),
    "stochastic_depth": (0.0,), "adapter_residual_before_ln": (False,),
}
_ORDERS = {
    "houlsby": {"mh_adapter": (True,), "original_ln_before": (False,),
                "residual_before_ln": (True, False)},
    "pfeiffer": {"mh_adapter": (False,), "original_ln_before": (True,),
                 "residual_before_ln": (True,)},
}
# How it is trained and initialised, and what others of these keys switch on.
_NO_OUTPUT = frozenset("""
    architecture dropout factorized_phm_W factorized_phm_rule
    hypercomplex_nonlinearity init_weights init_weights_seed
    inv_adapter_reduction_factor learn_phm leave_out non_linearity phm_bias
    phm_c_init phm_dim phm_init_range phm_rank reduction_factor shared_W_phm
    shared_phm_rule
    """.split())
_PREFIX = {"leave_out": ([],), "use_gating": (False,), "non_linearity": (
    "tanh",), "flat": (False, True)}
_NO_OUTPUT_OF_PREFIX = frozenset("""
    architecture bottleneck_size cross_prefix dropout encoder_prefix
    init_weights_seed prefix_length shared_gating
    """.split())
_HEAD = {"head_type": ("classification",), "bias": (True,),
         "layers": (2, 1), "use_pooler": (False, True)}
_NO_OUTPUT_OF_HEAD = frozenset(
    "activation_function dropout_prob id2label label2id num_labels".split())

# Where adapters of 2020 were in the names.
_OLD_NAMES = re.compile(r"\b(attention|layer)_text_(task|lang)_adapters\b")


def is_dir(values):
  """Whether an adapter_config.json with these values is AdapterHub's."""
  return "config" in values and "peft_type" not in values


# -------------------------------------------------------------------- reading


def read(directory, config):
  """The method_lib.Method in a directory.

  Args:
    directory: str.
    config: modeling.BertConfig of the model that it was trained on.

  Raises: errors.InputError for what is not there or cannot be expressed.
  """
  where = "%s/%s" % (directory, method_lib.CONFIG)
  values = method_lib.read_config(directory)
  kind, name = values.get("config"), values.get("name")
  if not isinstance(kind, dict) or not isinstance(name, str):
    raise errors.InputError("%s: its config is not an object of keys and "
                            "values, or its name not a string" % where)
  method_lib.check_model({"model_type": values.get("model_type"),
                          "hidden_size": values.get("hidden_size")},
                         {"model_type": "bert",
                          "hidden_size": config.hidden_size}, where)
  tensors = _in_order(method_lib.open_tensors(directory, WEIGHTS, PICKLE), name,
                      directory)
  architecture = kind.get("architecture")
  if architecture == "prefix_tuning":
    settings, table = _prefix(kind, name, tensors, config, where)
  elif architecture is None:
    settings, table = _bottleneck(kind, name, tensors, config,
                                  "version" in values, where)
  else:
    raise errors.InputError(
        "%s: architecture is %s; bottleneck adapters and prefix_tuning can be "
        "expressed here" % (where, errors.shown(architecture)))
  head = _head(directory, config)
  return method_lib.Method(
      path=directory, library=NAME, model_name=str(values.get("model_name")),
      settings=dict(settings, fresh_pooler=head.has_pooler),
      num_labels=head.num_labels, row_names=head.row_names,
      table=collections.OrderedDict(table, **head.table),
      tensors=tables.Tensors(dict(tensors.tensors, **head.tensors.tensors)))


def _in_order(tensors, name, where):
  """The tensors under the names that the tables here have."""
  tensors = tables.renamed(
      tables.without_prefixes(tensors, ("bert.",), where),
      lambda old: _OLD_NAMES.sub("adapters", old), where)
  # A prefix is in the file once for the model, and once for each layer.
  of_layer = re.compile(r"encoder\.layer\.\d+\.attention\.self\.prefix_tuning\."
                        r"pool\.(prefix_tunings\.%s\..*)" % re.escape(name))
  others = collections.OrderedDict()
  for old in tensors:
    found = of_layer.fullmatch(old)
    if found:
      others.setdefault("prefix_tuning." + found.group(1), []).append(old)
  for new, aliases in others.items():
    tensors = tables.one_of(tensors, new, tuple(aliases), where)
  return tensors


def _bottleneck(kind, name, tensors, config, has_version, where):
  """(settings, table) of an adapter."""
  order = "houlsby" if kind.get("mh_adapter") else "pfeiffer"
  method_lib.check_values(kind, dict(_BOTTLENECK, **_ORDERS[order]), _NO_OUTPUT,
                          where)
  known = ACTIVATIONS if has_version else _OLD_ACTIVATIONS
  activation = str(kind.get("non_linearity")).lower()
  if activation not in known:
    raise errors.InputError("%s: non_linearity is %s; known are %s" % (
        where, errors.shown(activation), ", ".join(sorted(known))))
  left_out = kind.get("leave_out") or []
  layers = [layer for layer in range(config.num_hidden_layers)
            if layer not in left_out]
  pairs = _adapter_pairs(name, layers, order)
  sizes = sorted(set(tensors.shape(pair.theirs)[0] for pair in pairs
                     if pair.ours.endswith("/biases1") and
                     pair.theirs in tensors))
  if len(sizes) > 1:
    raise errors.InputError(
        "%s: reduction_factor is %s, which makes bottlenecks of %s; all "
        "adapters of a task have one size here" % (
            where, kind.get("reduction_factor"),
            " and ".join(map(str, sizes))))
  return dict(tune="adapters+head", adapter_size=sizes[0] if sizes else 1,
              adapter_layers=layers if left_out else None, adapter_order=order,
              adapter_act=known[activation]), method_lib.table_of(pairs)


def _adapter_pairs(name, layers, order):
  """A list of method_lib.Pair; the names of theirs without "bert."."""
  pairs = []
  halves = (("attention/output", "output") if order == "houlsby" else
            ("output",))
  for layer in layers:
    for half in halves:
      ours = "bert/encoder/layer_%d/%s/adapters/" % (layer, half)
      theirs = "encoder.layer.%d.%s.adapters.%s." % (
          layer, half.replace("/", "."), name)
      for number, module in ((1, "adapter_down.0"), (2, "adapter_up")):
        pairs += [
            method_lib.transposed("%sweights%d" % (ours, number),
                                  "%s%s.weight" % (theirs, module)),
            method_lib.reshaped("%sbiases%d" % (ours, number),
                                "%s%s.bias" % (theirs, module), [1, -1], [-1])]
  return pairs


def _prefix(kind, name, tensors, config, where):
  """(settings, table) of a prefix; an MLP is folded."""
  method_lib.check_values(kind, _PREFIX, _NO_OUTPUT_OF_PREFIX, where)
  width = config.num_hidden_layers * 2 * config.hidden_size
  scope = "prefix_tuning.prefix_tunings.%s.self_prefix." % name
  if kind.get("flat"):
    pair = _prefix_pair(name, width)
    table, rows = method_lib.table_of([pair]), pair.theirs
    length = (int(np.prod(tensors.shape(rows))) // width if rows in tensors
              else 0)
  else:
    rows = scope + "wte.weight"
    length = tensors.shape(rows)[0] if rows in tensors else 0
    table = collections.OrderedDict([(method_lib.PREFIX, tables.Entry(
        (rows,) + tuple(scope + "control_trans." + part for part in (
            "0.weight", "0.bias", "2.weight", "2.bias")), _folded))])
  return dict(tune="prefix", prefix_length=length, prefix_hidden_size=0,
              prefix_positions="unshifted"), table


def _folded(embedding, kernel0, bias0, kernel1, bias1):
  """The keys and values that an MLP makes: [P, layers * 2 * D]."""
  hidden = np.tanh(np.matmul(embedding, kernel0.T) + bias0)
  return np.matmul(hidden, kernel1.T) + bias1


def _prefix_pair(name, width):
  return method_lib.reshaped(
      method_lib.PREFIX,
      "prefix_tuning.prefix_tunings.%s.self_prefix.control_trans" % name,
      [-1, width], [-1])


_Head = collections.namedtuple(
    "_Head", "has_pooler num_labels row_names table tensors")


def _head(directory, config):
  """The _Head in a directory."""
  where = "%s/%s" % (directory, HEAD_CONFIG)
  values = method_lib.read_config(directory, HEAD_CONFIG)
  head = values.get("config")
  if not isinstance(head, dict):
    raise errors.InputError(
        "%s: its config is not an object of keys and values, as one of "
        "AdapterHub's own heads has it (add_classification_head)" % where)
  method_lib.check_values(head, _HEAD, _NO_OUTPUT_OF_HEAD, where)
  has_pooler = head.get("layers", 2) == 2
  if has_pooler == head.get("use_pooler", False):
    raise errors.InputError(
        "%s: layers is %d and use_pooler %s; here a head has one pooler: two "
        "layers without use_pooler, or one with it" %
        (where, head.get("layers", 2), head.get("use_pooler", False)))
  if has_pooler and head.get("activation_function", "tanh") != "tanh":
    raise errors.InputError(
        "%s: activation_function is %s; a pooler's is tanh" %
        (where, errors.shown(head.get("activation_function"))))
  pairs = _head_pairs(values.get("name"), has_pooler)
  tensors = method_lib.open_tensors(directory, HEAD_WEIGHTS, HEAD_PICKLE)
  num_labels = head.get("num_labels")
  return _Head(has_pooler, num_labels, _row_names(head, num_labels, where),
               method_lib.table_of(pairs), tensors)


def _row_names(head, num_labels, where):
  """The labels of a head's rows in their order, or None."""
  rows = head.get("label2id")
  if not rows:
    return None
  if not isinstance(rows, dict) or sorted(rows.values()) != list(
      range(num_labels)):
    raise errors.InputError(
        "%s: label2id does not name the %s rows of the head" %
        (where, num_labels))
  names = sorted(rows, key=rows.get)
  return None if names == ["LABEL_%d" % i for i in range(num_labels)] else names


def _head_pairs(name, has_pooler):
  """A list of method_lib.Pair. Their layers are numbered with the dropouts."""
  scope = "heads.%s." % name
  pairs = []
  if has_pooler:
    pairs = [
        method_lib.transposed(method_lib.POOLER_KERNEL, scope + "1.weight"),
        method_lib.copied(method_lib.POOLER_BIAS, scope + "1.bias")]
  output = scope + ("4" if has_pooler else "1")
  return pairs + [method_lib.copied(hf_bert.HEAD_WEIGHTS, output + ".weight"),
                  method_lib.copied(hf_bert.HEAD_BIAS, output + ".bias")]


# -------------------------------------------------------------------- writing


def write(directory, arrays, settings, config, labels, name, model_name):
  """Writes a task checkpoint's variables into a new directory.

  Args:
    directory: str; it is there and empty.
    arrays: dict of variable name -> array: what the task trained.
    settings: dict, as a Method's; with other values it is refused.
    config: modeling.BertConfig.
    labels: list of str, of the head's rows; None for a regression.
    name: str, what the adapter is called there.
    model_name: str, what the model is called there.

  Raises: errors.InputError for what AdapterHub cannot express.
  """
  is_prefix = settings["tune"] != "adapters+head"
  if is_prefix:
    if settings["prefix_positions"] != "unshifted":
      raise errors.InputError(
          "its prefix_positions are %s; AdapterHub leaves tokens where they "
          "are (--prefix_positions=unshifted), so that its outputs would be "
          "others" % settings["prefix_positions"])
    width = config.num_hidden_layers * 2 * config.hidden_size
    pairs = [_prefix_pair(name, width)]
    kind = dict({key: values[0] for key, values in _PREFIX.items()},
                architecture="prefix_tuning", flat=True,
                prefix_length=settings["prefix_length"])
  else:
    layers, kind = written_bottleneck(settings, config)
    pairs = _adapter_pairs(name, layers, settings["adapter_order"])
  has_pooler = settings["fresh_pooler"]
  head_pairs = _head_pairs(name, has_pooler)
  of_head = set(pair.ours for pair in head_pairs)
  parts = [{n: a for n, a in arrays.items() if (n in of_head) == is_head}
           for is_head in (False, True)]
  with_bert = [pair._replace(theirs="bert." + pair.theirs) for pair in pairs]
  about = {"hidden_size": config.hidden_size, "model_class": "BertAdapterModel",
           "model_name": model_name, "model_type": "bert", "name": name,
           "version": VERSION}
  names = labels or ["LABEL_0"]
  head = {"head_type": "classification", "num_labels": len(names),
          "layers": 2 if has_pooler else 1, "activation_function": "tanh",
          "label2id": {label: row for row, label in enumerate(names)},
          "use_pooler": not has_pooler, "bias": True, "dropout_prob": None}
  method_lib.write_files(
      directory,
      {method_lib.CONFIG: dict(about, config=kind),
       HEAD_CONFIG: dict(about, config=head)},
      {WEIGHTS: method_lib.tensors_of(with_bert, parts[0]),
       HEAD_WEIGHTS: method_lib.tensors_of(head_pairs, parts[1])})


def written_bottleneck(settings, config):
  """(the layers with adapters, the config of an adapter_config.json)."""
  everywhere = range(config.num_hidden_layers)
  layers = settings["adapter_layers"]
  layers = list(everywhere) if layers is None else layers
  width, size = config.hidden_size, settings["adapter_size"]
  # They divide and round down.
  factor = width // size if width % size == 0 else width / (size + 0.5)
  built = dict(_BOTTLENECK, **_ORDERS[settings["adapter_order"]])
  kind = {key: values[0] for key, values in built.items()
          if key != "invertible_adapter"}
  return layers, dict(
      kind, reduction_factor=factor, leave_out=sorted(set(everywhere) -
                                                      set(layers)),
      non_linearity=_WRITTEN_ACTIVATIONS[settings["adapter_act"]])
