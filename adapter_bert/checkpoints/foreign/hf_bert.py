"""Hugging Face's BERT: its names for our variables, its classifier's labels."""

import collections
import os
import re

from absl import logging
import numpy as np

from adapter_bert.base import errors
from adapter_bert.base import files
from adapter_bert.checkpoints import bert_config
from adapter_bert.checkpoints.foreign import safetensors_dir
from adapter_bert.checkpoints.foreign import tables

# What may stand before a name: the model's attribute in a class with a head, and
# what wrappers of PyTorch (compile, data parallel) put in front.
PREFIXES = ("bert.", "model.", "_orig_mod.", "module.")

# May be in a file though the model has no variable for it: a constant, and the
# heads of pre-training and of fine-tuned models.
IGNORED = (r"embeddings\.position_ids", r"cls\..*", r"classifier\..*",
           r"qa_outputs\..*")
_FINE_TUNED_HEADS = ("classifier.", "qa_outputs.")
_POOLER = ("pooler.dense.weight", "pooler.dense.bias")

# Our names of the head that a classifier has.
HEAD_WEIGHTS, HEAD_BIAS = "output_weights", "output_bias"

_DENSE = ("attention/self/query", "attention/self/key", "attention/self/value",
          "attention/output/dense", "intermediate/dense", "output/dense")
_LAYER_NORMS = ("attention/output/LayerNorm", "output/LayerNorm")


def is_dir(path):
  """Whether a path is a directory as Hugging Face saves a model."""
  return os.path.isfile(os.path.join(path, bert_config.HF_NAME)) and any(
      os.path.isfile(os.path.join(path, name))
      for name in (safetensors_dir.WEIGHTS, safetensors_dir.INDEX,
                   safetensors_dir.PICKLE))


def open_dir(directory):
  """The variables of the BERT in a directory.

  Returns: tables.Tensors under our names; without the pooler's if the file has
    none.

  Raises:
    errors.InputError: the directory does not have its config's BERT, whole and
      nothing else.
  """
  config = bert_config.read(os.path.join(directory, bert_config.HF_NAME))
  tensors = in_order(safetensors_dir.open_dir(directory), directory)
  entries = table(config)
  if not any(name in tensors for name in _POOLER):
    for name in [n for n in entries if n.startswith("bert/pooler/")]:
      del entries[name]
  return tables.view(entries, tensors, IGNORED, directory)


def table(config):
  """OrderedDict of variable name -> tables.Entry.

  Args:
    config: modeling.BertConfig of a plain BERT (no sharing, no factorisation).
  """
  entries = collections.OrderedDict()
  for name in ("word_embeddings", "position_embeddings",
               "token_type_embeddings"):
    entries["bert/embeddings/" + name] = tables.copied(
        "embeddings.%s.weight" % name)
  _add_layer_norm(entries, "embeddings/LayerNorm", "embeddings.LayerNorm")
  for layer in range(config.num_hidden_layers):
    ours, theirs = "encoder/layer_%d/" % layer, "encoder.layer.%d." % layer
    for name in _DENSE:
      _add_dense(entries, ours + name, theirs + name.replace("/", "."))
    for name in _LAYER_NORMS:
      _add_layer_norm(entries, ours + name, theirs + name.replace("/", "."))
  _add_dense(entries, "pooler/dense", "pooler.dense")
  return entries


def _add_dense(entries, ours, theirs):
  entries["bert/%s/kernel" % ours] = tables.transposed(theirs + ".weight")
  entries["bert/%s/bias" % ours] = tables.copied(theirs + ".bias")


def _add_layer_norm(entries, ours, theirs):
  entries["bert/%s/gamma" % ours] = tables.copied(theirs + ".weight")
  entries["bert/%s/beta" % ours] = tables.copied(theirs + ".bias")


def in_order(tensors, where=""):
  """The tensors under the names that `table` has.

  Without the prefixes, and with today's names of LayerNorm's variables in
  place of those of 2019 (gamma and beta).
  """
  new = {"LayerNorm.gamma": "LayerNorm.weight",
         "LayerNorm.beta": "LayerNorm.bias"}
  return tables.renamed(
      tables.without_prefixes(tensors, PREFIXES, where),
      lambda name: re.sub(r"LayerNorm\.(gamma|beta)$",
                          lambda match: new[match.group(0)], name), where)


# -------------------------------------------------- the head of a classifier


def head_rows(directory, labels, head_labels=None):
  """Which rows of a fine-tuned classifier are a task's labels.

  Args:
    directory: str, as Hugging Face saves a model.
    labels: list of str, the task's labels in its order; None for a regression.
    head_labels: list of str, the names of the classifier's rows in their order,
      in place of the config's id2label.

  Returns: list of int, the row of each label; None if there is no such head, or
    it is another task's, about which a line is logged.

  Raises:
    errors.InputError: head_labels do not fit the head or the task.
  """
  tensors = in_order(safetensors_dir.open_dir(directory), directory)
  found = sorted(set(name.split(".")[0] for name in tensors
                     if name.startswith(_FINE_TUNED_HEADS)))
  if "classifier.weight" not in tensors or "classifier.bias" not in tensors:
    if head_labels:
      raise errors.InputError(
          "head_labels is given, but %s has no classifier; its head is %s" %
          (directory, ", ".join(found) or "none"))
    if found:
      logging.info("%s: its head (%s) is of another task and not used",
                   directory, ", ".join(found))
    return None
  rows = tensors.shape("classifier.weight")[0]
  if labels is None:
    names, is_theirs = ["a score"] * rows, rows == 1
    order = [0]
  else:
    names = head_labels or _id2label(directory, rows)
    order = row_order(names, labels)
    is_theirs = order is not None
  if head_labels and (len(head_labels) != rows or not is_theirs):
    raise errors.InputError(
        "head_labels is %s; the classifier in %s has %d rows, and the task's "
        "labels are %s" % (",".join(head_labels), directory, rows,
                           ", ".join(labels or ["one score"])))
  if is_theirs:
    logging.info("%s: its classifier is taken over; its rows are %s", directory,
                 ", ".join(names))
    return order
  logging.warning(
      "%s: its classifier (%s) is not used, because the task's labels are %s; if "
      "they are the same, say which is which with --head_labels=%s in the order "
      "of its rows", directory, ", ".join(names),
      ", ".join(labels or ["one score"]), ",".join(labels or []))
  return None


def read_head(directory, rows):
  """{name: float32 array} of a classifier's head, from `head_rows`' rows."""
  tensors = in_order(safetensors_dir.open_dir(directory), directory)
  if not rows or max(rows) >= tensors.shape("classifier.weight")[0]:
    raise errors.InputError("%s: its classifier has no rows %s" %
                            (directory, rows))
  return {HEAD_WEIGHTS: np.ascontiguousarray(tensors["classifier.weight"][rows]),
          HEAD_BIAS: np.ascontiguousarray(tensors["classifier.bias"][rows])}


def row_order(names, labels):
  """The place of each label among the names of rows; None if they differ."""
  names, labels = [list(map(_plain, some)) for some in (names, labels)]
  if sorted(names) != sorted(labels):
    return None
  return [names.index(label) for label in labels]


def _plain(label):
  """A label for comparisons: "Not Entailment" is "not_entailment"."""
  return re.sub(r"[-_ ]+", "_", label.strip().lower())


def _id2label(directory, rows):
  """The names of a classifier's rows, as its config has them."""
  path = os.path.join(directory, bert_config.HF_NAME)
  names = files.read_json(path, {"id2label": files.Optional(dict)}).get(
      "id2label") or {}
  return [str(names.get(str(row), "LABEL_%d" % row)) for row in range(rows)]
