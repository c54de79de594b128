"""What the name of a variable says: its layer, and what kind it is.

Every model here names its variables alike: what a layer has lies in a scope
`layer_<number>` ("bert/encoder/layer_3/output/dense/kernel"; BART and T5 have
those of encoder and decoder), or in `layer_shared` where the layers share their
weights. In it, the scopes `adapters` hold the adapters. The keys and values of
prefix tuning are in one scope `prefix` for each kind of attention of the model
("bert/prefix/embeddings"; BART and T5 have three). This is the one place that
knows; who wants to know what a *method* trains asks tuning.py, which goes by
the graph's collections.
"""

import collections
import re

SHARED = "shared"
GLOBAL_STEP = "global_step"

# Adam's moments, as optimization.py names their slots.
SLOTS = ("adam_m", "adam_v")

# What weight decay leaves out: regular expressions that occur in the name.
NO_WEIGHT_DECAY = ("LayerNorm", "layer_norm", "bias")

_SLOT = re.compile("/(%s)$" % "|".join(SLOTS))
_ADAPTER = re.compile("(^|/)adapters(_[0-9]+)?/")
_PREFIX = re.compile(r"((?:^|.*/)(?:\w+_)?prefix)/(embeddings|dense_\d/)")
_LAYER_NORM = re.compile("(^|/)(LayerNorm|layer_norm)(_[0-9]+)?/")
_POOLER = re.compile("(^|/)pooler/")
_EMBEDDINGS = re.compile("(^|/)embeddings/")
_HEAD = re.compile("^output_(weights|bias)(:0)?$")
_PRETRAINING_HEAD = re.compile("^cls/")
# What a model has and no training changes: BART's bias of the words, a buffer in
# Hugging Face.
_CONSTANT = re.compile("(^|/)final_logits_bias(:0)?$")
_LAYER = re.compile("(^|/)layer_([0-9]+|%s)(?=/)" % SHARED)
# Google's own ALBERT: one scope for a group in place of the layers.
_GOOGLE_ALBERT = re.compile("(^|/)encoder/(transformer/group_|embedding_hidden)")
# A tf.train.Checkpoint names its tensors by the objects that they belong to.
_OBJECT_BASED = re.compile(r"/\.ATTRIBUTES/|^_CHECKPOINTABLE_OBJECT_GRAPH$")

# stack: str, the scope that the layer is in, as "bert/encoder".
# id: str, its number or SHARED.
Layer = collections.namedtuple("Layer", ["stack", "id"])


def is_slot(name):
  """Whether it is an optimizer's, of the variable whose name comes before."""
  return _SLOT.search(name) is not None


def slots_of(name):
  """The names of a variable's slots."""
  return ["%s/%s" % (name, slot) for slot in SLOTS]


def is_model_variable(name):
  """Whether a name in a checkpoint is the model's: no slot, no step."""
  return not is_slot(name) and name != GLOBAL_STEP


def is_adapter(name):
  return _ADAPTER.search(name) is not None


def is_prefix(name):
  return prefix_scope(name) is not None


def prefix_scope(name):
  """The scope of the prefix that a variable is of, as "bert/prefix", or None."""
  found = _PREFIX.match(name)
  return found and found.group(1)


def is_layer_norm(name):
  return _LAYER_NORM.search(name) is not None


def is_pooler(name):
  return _POOLER.search(name) is not None


def is_constant(name):
  """Whether it stays as it was published, whatever is trained."""
  return _CONSTANT.search(name) is not None


def is_head(name):
  """Whether it is the head's of a task."""
  return _HEAD.search(name) is not None


def is_pretrained(name):
  """Whether it is what pre-training left: no adapter, prefix, head, slot, step.
  """
  return is_model_variable(name) and not (
      is_adapter(name) or is_prefix(name) or is_head(name) or
      _PRETRAINING_HEAD.search(name))


def is_decayed(name):
  """Whether weight decay takes part in its update."""
  return not any(re.search(pattern, name) for pattern in NO_WEIGHT_DECAY)


def layer_of(name):
  """The Layer that a variable is in, or None."""
  found = _LAYER.search(name)
  return found and Layer(name[:found.start()], found.group(2))


def in_layer(name, layer):
  """The name of the variable that is in another layer what this is in its own.

  Args:
    name: str, of a variable in a layer.
    layer: int or str, the number of the other layer, SHARED, or say "*".
  """
  return _LAYER.sub(lambda found: "%slayer_%s" % (found.group(1), layer), name,
                    count=1)


def part_of(name):
  """str: "embeddings", "pooler", "head", "layer_<...>", or "other"."""
  layer = layer_of(name)
  if layer:
    return "layer_%s" % layer.id
  for part, is_part in (("embeddings", _EMBEDDINGS.search),
                        ("pooler", is_pooler), ("head", is_head)):
    if is_part(name):
      return part
  return "other"


def is_google_albert(name):
  """Whether it is a name of Google's own ALBERT, which is not built here."""
  return _GOOGLE_ALBERT.search(name) is not None


def is_object_based(name):
  """Whether it is a name that a tf.train.Checkpoint of TF2 gave."""
  return _OBJECT_BASED.search(name) is not None
