"""Counts parameters, and prints the paper's parameter columns.

    python -m adapter_bert.experiments.count_parameters                     # the paper's two tables
    python -m adapter_bert.experiments.count_parameters --table=all --config=albert-base
    python -m adapter_bert.experiments.count_parameters --table=parts,layers --format=csv \
        --bert_config_file=uncased_L-12_H-768_A-12/bert_config.json
    python -m adapter_bert.experiments.count_parameters --table=table1 --adapter_sizes=4,32,128 \
        --mix=4:2,32:5,128:2 --format=markdown
    python -m adapter_bert.experiments.count_parameters --table=sizes --plot=sizes.png

Every number is read off a graph that modeling.py built (its variables' shapes
and collections), and modeling.Tuning says what a method trains. Nothing runs
the graph, so no weight is ever allocated.

The paper (Houlsby et al. 2019) does not say over what its percentages are
taken. Two conventions are printed, each under its name:

  encoder layers  (adapters + LayerNorms + layers tuned) / (parameters of the
                  encoder's layers). This one gives the paper's percentages.
  whole model     (everything trained but the head) / (parameters of the model)

Both leave the head out above the line, as every method trains it, and adapters
and head below it. "total x" is what N tasks need, in models: 1 + N * trained
per task where the base is kept once, N for full fine-tuning, which shares none.
"""

import collections
import csv
import functools
import io
import json
import os
import re
import sys

from absl import flags
import tensorflow.compat.v1 as tf

from adapter_bert.base import errors
import modeling

FLAGS = flags.FLAGS

# The sizes of the models of Devlin et al. 2018 (uncased English), and of Lan et
# al. 2019 (version 2) in albert_zh's variables: token type and position
# embeddings are as wide as the layers.
CONFIGS = collections.OrderedDict([
    ("bert-base", dict(
        vocab_size=30522, hidden_size=768, num_hidden_layers=12,
        num_attention_heads=12, intermediate_size=3072, type_vocab_size=2)),
    ("bert-large", dict(
        vocab_size=30522, hidden_size=1024, num_hidden_layers=24,
        num_attention_heads=16, intermediate_size=4096, type_vocab_size=2)),
    ("albert-base", dict(
        vocab_size=30000, embedding_size=128, hidden_size=768,
        num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        type_vocab_size=2, share_parameter_across_layers=True)),
    ("albert-large", dict(
        vocab_size=30000, embedding_size=128, hidden_size=1024,
        num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        type_vocab_size=2, share_parameter_across_layers=True)),
    ("albert-xlarge", dict(
        vocab_size=30000, embedding_size=128, hidden_size=2048,
        num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192,
        type_vocab_size=2, share_parameter_across_layers=True)),
    ("albert-xxlarge", dict(
        vocab_size=30000, embedding_size=128, hidden_size=4096,
        num_hidden_layers=12, num_attention_heads=64, intermediate_size=16384,
        type_vocab_size=2, share_parameter_across_layers=True)),
])
DEFAULT_CONFIGS = ["bert-base", "bert-large"]

# The keys of a config that its parameter counts depend on, embedding_size
# apart, which may be absent.
_COUNTED = ("vocab_size", "hidden_size", "num_hidden_layers",
            "intermediate_size", "max_position_embeddings", "type_vocab_size",
            "share_parameter_across_layers", "layers_per_group",
            "share_adapters")

FIGURE_SIZES = tuple(2**i for i in range(10))  # figures 3 and 4
GLUE_SIZES = (8, 64, 256)
FURTHER_SIZES = (2, 4, 8, 16, 32, 64)          # the tasks of Table 2
FURTHER_TOP_N = (1, 2, 3, 5, 7, 9, 11, 12)
# 2^20: far above any use, far below where a graph's 32-bit shapes end.
MAX_SIZE = 1 << 20

PAPER_TASKS = {"table1": 9, "table2": 17}
PAPER_TITLES = {"table1": "Table 1 (GLUE", "table2": "Table 2 (further tasks"}
# (table, config) -> {(method, what it chose from): (trained per task, total)},
# as printed in the paper. The choice made for each task was not published.
PAPER = {
    ("table1", "bert-large"): {
        ("full", frozenset([None])): ("100%", "9.0x"),
        ("adapters", frozenset([64])): ("2.1%", "1.2x"),
        ("adapters", frozenset(GLUE_SIZES)): ("3.6%", "1.3x"),
    },
    ("table2", "bert-base"): {
        ("full", frozenset([None])): ("100%", "17x"),
        ("top_n", frozenset(FURTHER_TOP_N)): ("52.9%", "9.9x"),
        ("adapters", frozenset(FURTHER_SIZES)): ("1.14%", "1.19x"),
    },
}

FORMATS = ("text", "markdown", "csv")
# How a column's values are written: a name, a count of parameters, a fraction
# as a percentage, a multiple of a model, or a figure as the paper printed it.
TEXT, COUNT, PERCENT, TIMES, PRINTED = (
    "text", "count", "percent", "times", "printed")

LEGEND = [
    "trained: parameters trained per task, without the head (a column of its "
    "own).",
    "% of encoder layers: (adapters + LayerNorms + layers tuned) / (parameters "
    "of the encoder's layers).",
    "% of whole model: trained / (parameters of the model without adapters and "
    "head).",
    "total x for N tasks, in models of the table's kind: 1 + N * trained per "
    "task; N for full fine-tuning.",
    "Layers that share their weights are counted once; such a model has no top "
    "layers to tune.",
    "paper: Houlsby et al. 2019, as printed there; the choices that its mixes "
    "made per task are unpublished, so the mixes here are equal unless --mix "
    "says otherwise.",
]

# name: str, the key in TABLES; model: str; title: str; columns: list of (name,
# kind); rows: list of lists of values, None where there is nothing to print.
Table = collections.namedtuple("Table", "name model title columns rows")

# tables: names in TABLES. models: list of (name, modeling.BertConfig).
# adapter_sizes, top_n: list of int or None for each table's own. mix: list of
# (size, tasks) or None. num_tasks: int or None for the paper's.
Options = collections.namedtuple(
    "Options", "tables models adapter_sizes mix top_n num_tasks num_labels")

# scope: "embeddings", "pooler", "head", or the layer's, as "layer_0".
# adapter_size: int for a variable of an adapter of that size, else None.
Variable = collections.namedtuple(
    "Variable", "name parameters scope collections adapter_size")

# What training one task takes. parameters, head: int (float for a mix);
# of_encoder, of_whole: the fraction by each convention.
Trained = collections.namedtuple(
    "Trained", "parameters head of_encoder of_whole")

# tune: a method of modeling.Tuning. choices: list of (value, weight), where a
# value is an adapter size, a number of layers, or None.
Method = collections.namedtuple("Method", "label tune choices")


def count(config, adapter_sizes=(), num_labels=2, adapter_layers=None):
  """Builds a model's graph and counts.

  Args:
    config: modeling.BertConfig.
    adapter_sizes: ints >= 1, the sizes that can be asked for afterwards.
    num_labels: int, the head's.
    adapter_layers: the indices of the layers with adapters; None: all.

  Returns: Counts. The same arguments build only once in a process.
  """
  return _count(config.to_json_string(), tuple(sorted(set(adapter_sizes))),
                num_labels,
                None if adapter_layers is None else tuple(adapter_layers))


@functools.lru_cache(maxsize=None)
def _count(config_json, adapter_sizes, num_labels, adapter_layers):
  config = modeling.BertConfig.from_dict(json.loads(config_json))
  scopes = []

  def adapters_of_every_size(tensor):
    # All sizes in one graph, side by side: a layer is slow to build and an
    # adapter is not. The second call in each layer is its feed-forward half.
    layer = len(scopes) // 2
    scopes.append(tf.get_variable_scope().name.split("/")[2])
    if adapter_layers is not None and layer not in adapter_layers:
      return tensor
    for size in adapter_sizes:
      with tf.variable_scope("size_%d" % size):
        modeling.feedforward_adapter(tensor, hidden_size=size)
    return tensor

  with tf.Graph().as_default() as graph:
    # One token is enough: no shape of a variable depends on the input's.
    model = modeling.BertModel(
        config, is_training=False, input_ids=tf.placeholder(tf.int32, [1, 1]),
        scope="bert", adapter_fn=adapters_of_every_size)
    modeling.classifier_head(model.get_pooled_output(), num_labels,
                             is_training=False)
  layers = collections.OrderedDict()
  for layer, scope in enumerate(scopes[::2]):
    layers.setdefault(scope, []).append(layer)
  return Counts(_variables(graph), layers)


def _variables(graph):
  """The graph's variables, as a list of Variable."""
  members = {
      collection: set(v.name for v in graph.get_collection(collection))
      for collection in modeling.Tuning.COLLECTIONS
  }
  variables = []
  for v in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES):
    scope = re.match("bert/(?:encoder/)?([^/]+)/", v.name)
    size = re.search(r"/size_(\d+)/", v.name)
    variables.append(Variable(
        name=v.name,
        parameters=v.shape.num_elements(),
        scope=scope.group(1) if scope else "head",
        collections=[c for c in members if v.name in members[c]],
        adapter_size=int(size.group(1)) if size else None))
  return variables


class Counts(object):
  """The parameters of one model.

  Attributes:
    layers: OrderedDict, scope -> the list of the layers that run in it.
    embeddings, encoder, pooler, head: int, parameters by part, without
      adapters. The LayerNorms are in the first two.
    whole: int, the model's parameters without adapters and head.
    layer_norm: int, those of the LayerNorms.
  """

  def __init__(self, variables, layers):
    self.layers = layers
    self._variables = variables
    self.embeddings = self.scope("embeddings")
    self.encoder = sum(self.scope(scope) for scope in layers)
    self.pooler = self.scope("pooler")
    self.head = self.scope("head")
    self.whole = self.embeddings + self.encoder + self.pooler
    self.layer_norm = _sum(v for v in self.model()
                           if modeling.LAYER_NORM in v.collections)

  def model(self, adapter_size=None):
    """The variables of the model with adapters of that size, or without."""
    return [v for v in self._variables
            if v.adapter_size in (None, adapter_size)]

  def scope(self, scope, collection=None):
    """Parameters in a scope, without adapters; of a collection, or all."""
    return _sum(v for v in self.model() if v.scope == scope and
                (collection is None or collection in v.collections))

  def adapters(self, adapter_size, scope=None):
    """Parameters of the adapters of that size; in one scope, or in all."""
    return _sum(v for v in self._variables if v.adapter_size == adapter_size and
                (scope is None or v.scope == scope))

  def trained(self, tuning, adapter_size=None):
    """What a method trains per task.

    Args:
      tuning: modeling.Tuning.
      adapter_size: int, for a method with adapters and only for those.

    Returns: Trained.
    """
    model = self.model(adapter_size)
    trained = [v for v in model if tuning.trains(v.name, v.collections)]
    body = [v for v in trained if v.scope != "head"]
    parameters = _sum(body)
    if len(trained) == len(model):
      # The embeddings' LayerNorm would make it a little more than 100%.
      of_encoder = 1.0
    else:
      of_encoder = _sum(
          v for v in body if v.scope in self.layers or
          modeling.LAYER_NORM in v.collections) / self.encoder
    return Trained(parameters, _sum(trained) - parameters, of_encoder,
                   parameters / self.whole)

  def trained_by(self, method):
    """`trained` for a Method: over its choices, the weighted mean."""
    results, weights = [], []
    for value, weight in method.choices:
      top_n = value if method.tune == "top_n" else None
      tuning = modeling.Tuning(method.tune, top_n,
                               sum(len(i) for i in self.layers.values()))
      results.append(self.trained(
          tuning, value if tuning.uses_adapters else None))
      weights.append(weight)
    return Trained(*[
        sum(w * x for w, x in zip(weights, field)) / sum(weights)
        for field in zip(*results)])


def _sum(variables):
  return sum(v.parameters for v in variables)


def total_times(method, fraction, num_tasks):
  """What `num_tasks` tasks need in all, in models; see the module's docstring.

  Args:
    method: Method.
    fraction: float, trained per task.
    num_tasks: int.
  """
  shared = 0 if method.tune == "full" else 1
  return shared + num_tasks * fraction


def method_of(tune, choice=None):
  """A Method with one choice, under the name it has in every table.

  Args:
    tune: str, a method of modeling.Tuning.
    choice: int; the adapter size, for top_n the number of layers, else None.
  """
  if tune == "top_n":
    label = "top %d layer%s" % (choice, "s" if choice > 1 else "")
  else:
    label = {"full": "full fine-tuning", "layer_norm": "LayerNorm only",
             "head": "head only"}.get(tune, tune)
    if choice is not None:
      label += ", %d" % choice
  return Method(label, tune, [(choice, 1)])


def methods(adapter_sizes, mix=None, top_n=()):
  """The rows of a table of methods: a list of Method.

  Args:
    adapter_sizes: ints, a row each.
    mix: list of (size, tasks); None for an equal mix of `adapter_sizes`.
    top_n: ints, a row each, then their equal mix.
  """
  found = [method_of("full")]
  found += [method_of("top_n", n) for n in top_n]
  if len(top_n) > 1:
    found.append(Method("top-n, %s" % _mix_label([(n, 1) for n in top_n]),
                        "top_n", [(n, 1) for n in top_n]))
  found += [method_of("layer_norm"), method_of("head")]
  found += [method_of("adapters", size) for size in adapter_sizes]
  mix = mix or [(size, 1) for size in adapter_sizes]
  if len(mix) > 1:
    found.append(Method("adapters, %s" % _mix_label(mix), "adapters", mix))
  return found


def _mix_label(mix):
  if len(set(weight for _, weight in mix)) == 1:
    return "equal mix of " + ", ".join(str(value) for value, _ in mix)
  return "mix of " + ", ".join("%d x %d" % (w, value) for value, w in mix)


def _paper_tables(table, name, config, options):
  """table1 or table2 for one model: a list of one Table."""
  num_tasks = options.num_tasks or PAPER_TASKS[table]
  paper = {}
  if num_tasks == PAPER_TASKS[table]:
    paper = PAPER.get((table, _built_in_name(config)), {})
  columns, rows = _method_rows(
      count(config, _all_sizes(options), options.num_labels),
      methods(_sizes_of(table, options), options.mix, _top_n(config, options)),
      num_tasks, paper)
  title = "%s, %d tasks): %s" % (PAPER_TITLES[table], num_tasks, name)
  return [Table(table, name, title, columns, rows)]


def _method_rows(counts, rows_of, num_tasks, paper=None):
  """(columns, rows) with a row for each Method in `rows_of`."""
  columns = [("method", TEXT), ("trained", COUNT), ("head", COUNT),
             ("% of encoder layers", PERCENT),
             ("total x (encoder layers)", TIMES),
             ("% of whole model", PERCENT), ("total x (whole model)", TIMES)]
  if paper:
    columns += [("paper %", PRINTED), ("paper total x", PRINTED),
                ("total x from paper %", TIMES)]
  rows = []
  for method in rows_of:
    trained = counts.trained_by(method)
    row = [method.label, trained.parameters, trained.head]
    for fraction in (trained.of_encoder, trained.of_whole):
      row += [fraction, total_times(method, fraction, num_tasks)]
    if paper:
      chosen_from = frozenset(value for value, _ in method.choices)
      percent, total = paper.get((method.tune, chosen_from), (None, None))
      row += [percent, total, percent and total_times(
          method, float(percent.rstrip("%")) / 100, num_tasks)]
    rows.append(row)
  return columns, rows


def _parts_tables(table, name, config, options):
  """Parameters by part for one model."""
  counts = count(config, _all_sizes(options), options.num_labels)
  parts = [("embeddings", counts.embeddings),
           ("encoder layers", counts.encoder),
           ("pooler", counts.pooler),
           ("whole model (the sum)", counts.whole),
           ("LayerNorm (of the above)", counts.layer_norm)]
  parts += [("adapters, %d" % size, counts.adapters(size))
            for size in _sizes_of(table, options)]
  parts.append(("head, %d labels" % options.num_labels, counts.head))
  columns = [("part", TEXT), ("parameters", COUNT),
             ("part / encoder layers", PERCENT),
             ("part / whole model", PERCENT)]
  rows = [[part, parameters, parameters / counts.encoder,
           parameters / counts.whole] for part, parameters in parts]
  return [Table(table, name, "Parameters by part: %s" % name, columns, rows)]


def _layers_tables(table, name, config, options):
  """Parameters by layer, that is by variable scope, for one model."""
  counts = count(config, _all_sizes(options), options.num_labels)
  sizes = _sizes_of(table, options)
  columns = [("scope", TEXT), ("layers", TEXT), ("parameters", COUNT),
             ("LayerNorm (of these)", COUNT)]
  columns += [("adapters, %d" % size, COUNT) for size in sizes]
  rows = []
  for scope in ["embeddings"] + list(counts.layers) + ["pooler", "head"]:
    layers = counts.layers.get(scope)
    rows.append([scope, layers and _span(layers), counts.scope(scope),
                 counts.scope(scope, modeling.LAYER_NORM)] +
                [counts.adapters(size, scope) for size in sizes])
  rows.append(["all"] + [None] +
              [sum(row[i] for row in rows) for i in range(2, len(columns))])
  return [Table(table, name, "Parameters by layer: %s" % name, columns, rows)]


def _span(layers):
  if len(layers) == 1:
    return str(layers[0])
  return "%d-%d" % (layers[0], layers[-1])


def _sizes_tables(table, name, config, options):
  """What adapters train, by size, for one model."""
  counts = count(config, _all_sizes(options), options.num_labels)
  columns = [("adapter size", COUNT), ("adapters", COUNT),
             ("LayerNorm", COUNT), ("trained", COUNT),
             ("% of encoder layers", PERCENT), ("% of whole model", PERCENT)]
  rows = []
  for size in FIGURE_SIZES:
    trained = counts.trained(modeling.Tuning("adapters"), size)
    rows.append([size, counts.adapters(size), counts.layer_norm,
                 trained.parameters, trained.of_encoder, trained.of_whole])
  return [Table(table, name, "Adapter sizes: %s" % name, columns, rows)]


def sharing_variants(config):
  """The config with its layers shared in each way.

  Args:
    config: modeling.BertConfig; its own group size, if any, is one more way.

  Returns: list of (label, modeling.BertConfig).
  """
  groups = [2, None]
  if config.layers_per_group not in groups:
    groups.insert(1, config.layers_per_group)
  variants = [("not shared", False, None, True)]
  for group in groups:
    label = {2: "pairs", None: "all"}.get(group, "groups of %s" % group)
    variants.append((label + ", adapters shared", True, group, True))
    variants.append((label + ", adapters per layer", True, group, False))
  found = []
  for label, share, group, share_adapters in variants:
    keys = config.to_dict()
    keys.update(share_parameter_across_layers=share, layers_per_group=group,
                share_adapters=share_adapters)
    found.append((label, modeling.BertConfig.from_dict(keys)))
  return found


def _sharing_tables(table, name, config, options):
  """How sharing changes the parts, then the methods: a list of Tables."""
  sizes = _sizes_of(table, options)
  built = sizes + tuple(size for size, _ in options.mix or ())
  variants = [(label, count(variant, built, options.num_labels))
              for label, variant in sharing_variants(config)]
  columns = [("sharing", TEXT), ("embeddings", COUNT),
             ("encoder layers", COUNT), ("pooler", COUNT), ("whole model", COUNT),
             ("LayerNorm", COUNT)]
  columns += [("adapters, %d" % size, COUNT) for size in sizes]
  rows = [[label, c.embeddings, c.encoder, c.pooler, c.whole, c.layer_norm] +
          [c.adapters(size) for size in sizes] for label, c in variants]
  tables = [Table(table, name, "Layer sharing, parts: %s" % name, columns,
                  rows)]
  task_counts = [options.num_tasks] if options.num_tasks else sorted(
      PAPER_TASKS.values())
  for num_tasks in task_counts:
    rows = []
    for label, counts in variants:
      columns, variant_rows = _method_rows(
          counts, methods(sizes, options.mix), num_tasks)
      rows += [[label] + row for row in variant_rows]
    tables.append(Table(
        table, name, "Layer sharing, %d tasks: %s" % (num_tasks, name),
        [("sharing", TEXT)] + columns, rows))
  return tables


# Name -> (what makes its tables, the adapter sizes it has by default).
TABLES = collections.OrderedDict([
    ("parts", (_parts_tables, GLUE_SIZES)),
    ("layers", (_layers_tables, (64,))),
    ("table1", (_paper_tables, GLUE_SIZES)),
    ("table2", (_paper_tables, FURTHER_SIZES)),
    ("sizes", (_sizes_tables, FIGURE_SIZES)),
    ("sharing", (_sharing_tables, GLUE_SIZES)),
])


def make_tables(options):
  """The tables that `options` (Options) asks for, in order: a list of Table."""
  return [made for table in options.tables
          for name, config in options.models
          for made in TABLES[table][0](table, name, config, options)]


def _sizes_of(table, options):
  """The adapter sizes that a table has a row or column for."""
  return tuple(options.adapter_sizes or TABLES[table][1])


def _all_sizes(options):
  """Every size of every table, so that a model is built once for all of them.

  Not those of "sharing", whose further models would only be slower to build.
  """
  sizes = set(size for size, _ in options.mix or ())
  for table in options.tables:
    if table == "sizes":
      sizes.update(FIGURE_SIZES)
    elif table != "sharing":
      sizes.update(_sizes_of(table, options))
  return sizes


def _top_n(config, options):
  """The top-n rows; a model whose layers share weights has no top layers."""
  if config.share_parameter_across_layers:
    return ()
  return options.top_n or [n for n in FURTHER_TOP_N
                           if n <= config.num_hidden_layers]


def _built_in_name(config):
  """The built-in config with the same parameters, or None."""

  def counted(some_config):
    return ([getattr(some_config, key) for key in _COUNTED],
            some_config.embedding_size or some_config.hidden_size)

  for name, keys in CONFIGS.items():
    if counted(modeling.BertConfig.from_dict(keys)) == counted(config):
      return name
  return None


def format_tables(tables, table_format):
  """The tables as one string.

  Args:
    tables: list of Table.
    table_format: "text", "markdown" or "csv". CSV is one rectangular table for
      all: columns "table", "title" and "model", then every column of any of
      them, empty where a row has none; percentages and multiples are plain
      numbers in full precision.
  """
  if table_format == "csv":
    return _csv(tables)
  if table_format == "markdown":
    blocks = [markdown(table) for table in tables]
    blocks.append("\n".join("- " + line for line in LEGEND))
  else:
    blocks = [text(table) for table in tables]
    blocks.append("\n".join(LEGEND))
  return "\n\n".join(blocks) + "\n"


def text(table):
  """A Table as text, under its title and without a line end."""
  return "%s\n%s" % (table.title, _aligned(table, "", "  ", ""))


def markdown(table):
  """A Table in markdown, under its title and without a line end."""
  return "**%s**\n\n%s" % (table.title, _aligned(table, "| ", " | ", " |"))


def _csv(tables):
  header = ["table", "title", "model"]
  for table in tables:
    header += [name for name, _ in table.columns if name not in header]
  output = io.StringIO()
  writer = csv.DictWriter(output, header, restval="", lineterminator="\n")
  writer.writeheader()
  for table in tables:
    for row in table.rows:
      cells = {name: _plain(value, kind)
               for (name, kind), value in zip(table.columns, row)}
      writer.writerow(dict(cells, table=table.name, title=table.title,
                           model=table.model))
  return output.getvalue()


def _plain(value, kind):
  """A cell for a program."""
  if value is None:
    return ""
  if kind == COUNT:
    return "%d" % round(value)
  if kind == PERCENT:
    return "%.6f" % (100 * value)
  if kind == TIMES:
    return "%.6f" % value
  return value.rstrip("%x") if kind == PRINTED else value


def _pretty(value, kind):
  """A cell for a reader."""
  if value is None:
    return ""
  if kind == COUNT:
    return "{:,d}".format(int(round(value)))
  if kind == PERCENT:
    return "%.2f%%" % (100 * value)
  if kind == TIMES:
    return "%.2fx" % value
  return value


def _aligned(table, left, between, right):
  """The table with its columns padded; a markdown rule if there are edges."""
  lines = [[name for name, _ in table.columns]]
  lines += [[_pretty(value, kind)
             for (_, kind), value in zip(table.columns, row)]
            for row in table.rows]
  widths = [max(len(cell) for cell in column) for column in zip(*lines)]
  is_text = [kind == TEXT for _, kind in table.columns]
  if left:
    lines.insert(1, ["-" * w if text else "-" * (w - 1) + ":"
                     for w, text in zip(widths, is_text)])
  padded = [[cell.ljust(w) if text else cell.rjust(w)
             for cell, w, text in zip(line, widths, is_text)] for line in lines]
  return "\n".join((left + between.join(line) + right).rstrip()
                   for line in padded)


def check_plot(path, flag="plot"):
  """Raises errors.InputError if `path`, of that flag, cannot become a plot."""
  try:
    from matplotlib.backends import backend_agg
  except ImportError:
    raise errors.InputError("--%s needs matplotlib, which is not installed; "
                            "install it with: pip install matplotlib (the "
                            "extra \"plot\" of this package)" % flag)
  directory = os.path.dirname(path) or "."
  if not os.path.isdir(directory):
    raise errors.InputError("--%s=%s: there is no directory %s" %
                            (flag, path, directory))
  if os.path.isdir(path):
    raise errors.InputError("--%s=%s is a directory; give a file, as "
                            "sizes.png" % (flag, path))
  known = sorted(backend_agg.FigureCanvasAgg.get_supported_filetypes())
  if os.path.splitext(path)[1][1:].lower() not in known:
    raise errors.InputError("--%s=%s: the file's ending says its format, and "
                            "must be one of %s" %
                            (flag, path, ", ".join(known)))


def save_plot(drawing, path, flag="plot"):
  """Writes a matplotlib Figure.

  Raises: errors.InputError if the file cannot be written.
  """
  try:
    drawing.savefig(path, dpi=150)
  except OSError as error:
    raise errors.InputError("--%s=%s cannot be written: %s" %
                            (flag, path, error.strerror or error))


def plot_sizes(tables, path):
  """Plots trained % against adapter size, by both conventions.

  Args:
    tables: list of the "sizes" Tables, one for each model.
    path: str, the file to write; its ending says the format.

  Raises: errors.InputError if the file cannot be written.
  """
  from matplotlib import figure
  from matplotlib import ticker
  # A figure of its own, without pyplot, needs no display and leaves no state.
  drawing = figure.Figure(figsize=(6.4, 4.4), layout="constrained")
  axes = drawing.add_subplot()
  for i, table in enumerate(tables):
    names = [name for name, _ in table.columns]
    sizes = [row[names.index("adapter size")] for row in table.rows]
    for column, style in (("% of encoder layers", "-o"),
                          ("% of whole model", "--o")):
      axes.plot(sizes, [100 * row[names.index(column)] for row in table.rows],
                style, color="C%d" % i, markersize=3,
                label="%s, %s" % (table.model, column))
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_xticks(FIGURE_SIZES, [str(size) for size in FIGURE_SIZES])
  axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g%%"))
  axes.set_xlabel("adapter size")
  axes.set_ylabel("trained per task (adapters + LayerNorms)")
  axes.grid(alpha=0.3)
  axes.legend()
  save_plot(drawing, path)


def parse_sizes(text, flag):
  """The ints of a comma-separated list, each once, in order.

  Raises: errors.InputError naming the flag.
  """
  return list(collections.OrderedDict.fromkeys(
      _whole_number(item, text, flag) for item in text.split(",")))


def parse_mix(text):
  """"8,64" -> [(8, 1), (64, 1)]; "8:5,64:4" -> [(8, 5), (64, 4)].

  Raises: errors.InputError.
  """
  items = [item.split(":") for item in text.split(",")]
  if len(set(len(item) for item in items)) != 1 or len(items[0]) > 2:
    raise errors.InputError(
        "--mix=%s: give sizes alone for an equal mix (8,64,256), or every size "
        "with its number of tasks (8:3,64:5,256:1)" % text)
  weights = collections.OrderedDict()
  for item in items:
    numbers = [_whole_number(number, text, "mix") for number in item]
    weights[numbers[0]] = weights.get(numbers[0], 0) + (numbers + [1])[1]
  return list(weights.items())


def _whole_number(item, text, flag):
  if not re.match("[0-9]+$", item.strip()) or not 1 <= int(item) <= MAX_SIZE:
    raise errors.InputError(
        "--%s=%s: %r is not a whole number from 1 to %d" %
        (flag, text, item, MAX_SIZE))
  return int(item)


def load_config(name=None, config_file=None, changes=None):
  """A model's config.

  Args:
    name: a key of CONFIGS; or None, and
    config_file: path of a bert_config.json.
    changes: dict of config keys to set over it.

  Returns: modeling.BertConfig.

  Raises: errors.InputError if it cannot be read or built.
  """
  if config_file is None and name not in CONFIGS:
    raise errors.InputError(
        "--config=%s is unknown; known are %s (for any other model, give "
        "--bert_config_file)" % (name, ", ".join(CONFIGS)))
  try:
    if config_file is None:
      config = modeling.BertConfig.from_dict(CONFIGS[name])
    elif not tf.io.gfile.exists(config_file):
      raise errors.InputError("--bert_config_file=%s is not there" % config_file)
    elif tf.io.gfile.isdir(config_file):
      raise errors.InputError("--bert_config_file=%s is a directory; give the "
                              "bert_config.json in it" % config_file)
    else:
      config = modeling.BertConfig.from_json_file(config_file)
    return modeling.BertConfig.from_dict(dict(config.to_dict(),
                                              **(changes or {})))
  except errors.InputError:
    raise
  except (ValueError, tf.errors.OpError) as error:
    raise errors.InputError(
        str(error) if config_file is None or config_file in str(error)
        else "%s: %s" % (config_file, error))


def define_flags(flag_values=FLAGS):
  """Flags of this program, defined only where it is one."""
  for name, default, description in (
      ("table", "table1,table2,sizes",
       "Comma-separated: %s; or all." % ", ".join(TABLES)),
      ("config", None, "Comma-separated built-in models: %s. Default: %s, "
       "where there is no --bert_config_file." %
       (", ".join(CONFIGS), ",".join(DEFAULT_CONFIGS))),
      ("bert_config_file", None, "A model's bert_config.json."),
      ("format", "text", "One of %s." % ", ".join(FORMATS)),
      ("adapter_sizes", None, "Comma-separated; default: the paper's, by "
       "table. The table \"sizes\" always has 2^0 .. 2^9."),
      ("mix", None, "Sizes that differ from task to task: 8,64,256 for an equal "
       "mix, or 8:3,64:5,256:1 with the number of tasks of each, of which only "
       "the proportions matter. Default: an equal mix of the sizes."),
      ("top_n", None, "Comma-separated numbers of top layers; default: those "
       "of the paper that the model has."),
      ("plot", None, "A file, as sizes.png, to plot trained % against adapter "
       "size in (needs matplotlib).")):
    flags.DEFINE_string(name, default, description, flag_values=flag_values)
  flags.DEFINE_integer("num_tasks", None, "N of \"total x\"; default: the "
                       "paper's, 9 and 17.", flag_values=flag_values)
  flags.DEFINE_integer("num_labels", 2, "The head's labels.",
                       flag_values=flag_values)
  flags.DEFINE_bool("share_parameter_across_layers", None,
                    "Over the config's key of this name.",
                    flag_values=flag_values)
  flags.DEFINE_integer("layers_per_group", None,
                       "Over the config's key of this name.",
                       flag_values=flag_values)
  flags.DEFINE_bool("share_adapters", None,
                    "Over the config's key of this name.",
                    flag_values=flag_values)


def options_from_flags(flag_values):
  """Options, checked.

  Raises: errors.InputError.
  """
  tables = flag_values.table.split(",")
  if tables == ["all"]:
    tables = list(TABLES)
  for table in tables:
    if table not in TABLES:
      raise errors.InputError("--table=%s is unknown; known are %s, and all" %
                              (table, ", ".join(TABLES)))
  if flag_values.format not in FORMATS:
    raise errors.InputError("--format=%s is unknown; known are %s" %
                            (flag_values.format, ", ".join(FORMATS)))
  for flag in ("num_tasks", "num_labels"):
    if flag_values[flag].value is not None:
      _whole_number(str(flag_values[flag].value), flag_values[flag].value, flag)

  def parsed(flag, parse):
    text = flag_values[flag].value
    return None if text is None else parse(text)

  options = Options(
      tables=tables,
      models=_models(flag_values),
      adapter_sizes=parsed("adapter_sizes",
                           lambda text: parse_sizes(text, "adapter_sizes")),
      mix=parsed("mix", parse_mix),
      top_n=parsed("top_n", lambda text: parse_sizes(text, "top_n")),
      num_tasks=flag_values.num_tasks,
      num_labels=flag_values.num_labels)
  _check_top_n(options)
  return options


def _models(flag_values):
  """The models asked for: a list of (name, modeling.BertConfig)."""
  changes = {}
  for key in ("share_parameter_across_layers", "layers_per_group",
              "share_adapters"):
    if flag_values[key].value is not None:
      changes[key] = flag_values[key].value
  names = []
  if flag_values.config is not None:
    names = flag_values.config.split(",")
  elif flag_values.bert_config_file is None:
    names = DEFAULT_CONFIGS
  models = [(name, load_config(name, changes=changes)) for name in names]
  if flag_values.bert_config_file is not None:
    models.append((flag_values.bert_config_file, load_config(
        config_file=flag_values.bert_config_file, changes=changes)))
  return models


def _check_top_n(options):
  for n in options.top_n or ():
    for name, config in options.models:
      if config.share_parameter_across_layers:
        raise errors.InputError(
            "--top_n: the layers of %s share their weights, so none of them "
            "are the top ones; drop --top_n" % name)
      try:
        modeling.Tuning("top_n", n, config.num_hidden_layers)
      except ValueError as error:
        raise errors.InputError("--top_n, %s: %s" % (name, error))


def main(argv, flag_values=FLAGS):
  errors.refuse_arguments(argv)
  options = options_from_flags(flag_values)
  if flag_values.plot is not None:
    check_plot(flag_values.plot)
  sys.stdout.write(format_tables(make_tables(options), flag_values.format))
  if flag_values.plot is not None:
    plot_sizes(make_tables(options._replace(tables=["sizes"])),
               flag_values.plot)


def entry_point():
  """The console command `adapter-bert-count`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
