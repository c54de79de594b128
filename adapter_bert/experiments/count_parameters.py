"""Counts parameters, and prints the paper's parameter columns.

    python -m adapter_bert.experiments.count_parameters                     # the paper's two tables
    python -m adapter_bert.experiments.count_parameters --table=all --config=albert-base
    python -m adapter_bert.experiments.count_parameters --table=parts,layers --format=csv \
        --bert_config_file=uncased_L-12_H-768_A-12/bert_config.json
    python -m adapter_bert.experiments.count_parameters --table=table1 --adapter_sizes=4,32,128 \
        --mix=4:2,32:5,128:2 --format=markdown
    python -m adapter_bert.experiments.count_parameters --table=sizes --plot=sizes.png

Every number is read off a graph that modeling.py built (its variables' shapes
and collections), and Tuning says what a method trains. Nothing runs
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
import re
import sys

from absl import flags

from adapter_bert import settings as settings_lib
from adapter_bert.base import errors
from adapter_bert.base import flags as flags_lib
from adapter_bert.base.flags import Setting
from adapter_bert.experiments import parameters
from adapter_bert.experiments import plots
from adapter_bert.experiments import tables
from adapter_bert.experiments.tables import COUNT
from adapter_bert.experiments.tables import PERCENT
from adapter_bert.experiments.tables import PRINTED
from adapter_bert.experiments.tables import TEXT
from adapter_bert.experiments.tables import TIMES
from adapter_bert.training import own_adapters
from adapter_bert.tuning import Tuning
import modeling

FLAGS = flags.FLAGS

# The settings that go over a config's keys of the same names.
SHARING = ("share_parameter_across_layers", "layers_per_group",
           "share_adapters")
# The keys of a config that its parameter counts depend on, embedding_size
# apart, which may be absent.
_COUNTED = ("vocab_size", "hidden_size", "num_hidden_layers",
            "intermediate_size", "max_position_embeddings",
            "type_vocab_size") + SHARING

# 2^20: far above any use, far below where a graph's 32-bit shapes end.
MAX_SIZE = 1 << 20
PREFIX_LENGTHS = (5, 20, 100)
PREFIX_HIDDEN_SIZE = 512

# The tables of docs/parameters.md.
PAGE_TABLES = ("table1", "table2", "prefixes", "sizes")
PAPER_TASKS = {"table1": 9, "table2": 17}
PAPER_TITLES = {"table1": "Table 1 (GLUE", "table2": "Table 2 (further tasks"}

# (table, config) -> {(method, what it chose from): (trained per task, total)},
# as printed in the paper. The choice made for each task was not published.
PAPER = {
    ("table1", "bert-large"): {
        ("full", frozenset([None])): ("100%", "9.0x"),
        ("adapters", frozenset([64])): ("2.1%", "1.2x"),
        ("adapters", frozenset(parameters.GLUE_SIZES)): ("3.6%", "1.3x"),
    },
    ("table2", "bert-base"): {
        ("full", frozenset([None])): ("100%", "17x"),
        ("top_n", frozenset(parameters.FURTHER_TOP_N)): ("52.9%", "9.9x"),
        ("adapters", frozenset(parameters.FURTHER_SIZES)): ("1.14%", "1.19x"),
    },
}
FORMATS = ("text", "markdown", "csv", "page")
PAGE_HEAD = """\
# Parameters

This page is made by

    python -m adapter_bert.experiments.count_parameters --table=%s --format=page

(a test compares) from the collections of built graphs; no weight is allocated.
Both ways to count are printed, because the paper does not say which it means:
over the parameters of the encoder's layers, which gives its figures, and over
the whole model. `--config` (ALBERT's sizes too) and `--bert_config_file` give
other models, `--adapter_sizes`, `--mix` and `--top_n` other rows, `--table`
other tables (`parts`, `layers`, `sharing`), `--plot=FILE.png` a picture.""" % (
    ",".join(PAGE_TABLES))

LEGEND = [
    "trained: parameters trained per task, without the head (a column of its "
    "own).",
    "% of encoder layers: (adapters + LayerNorms + layers tuned) / (parameters "
    "of the encoder's layers).",
    "% of whole model: trained / (parameters of the model without adapters and "
    "head).",
    "total x for N tasks, in models of the table's kind: 1 + N * trained per "
    "task; N for full fine-tuning.",
    "stored: what a task keeps of what it trained; the MLP that makes a prefix "
    "in training is not needed afterwards.",
    "Layers that share their weights are counted once; such a model has no top "
    "layers to tune.",
    "paper: Houlsby et al. 2019, as printed there; the choices that its mixes "
    "made per task are unpublished, so the mixes here are equal unless --mix "
    "says otherwise.",
]

# tables: names in TABLES. models: list of (name, modeling.BertConfig).
# adapter_sizes, top_n: list of int or None for each table's own. mix: list of
# (size, tasks) or None. num_tasks: int or None for the paper's. own:
# own_adapters.OwnAdapter or None, one size more.
Options = collections.namedtuple(
    "Options", "tables models adapter_sizes mix top_n num_tasks num_labels own",
    defaults=[None])


def methods(adapter_sizes, mix=None, top_n=()):
  """The rows of a table of methods: a list of Method.

  Args:
    adapter_sizes: ints, or own_adapters.OwnAdapter; a row each.
    mix: list of (size, tasks); None for an equal mix of `adapter_sizes`.
    top_n: ints, a row each, then their equal mix.
  """
  found = [parameters.method_of("full")]
  found += [parameters.method_of("top_n", n) for n in top_n]
  if len(top_n) > 1:
    mixed = [(n, 1) for n in top_n]
    found.append(parameters.Method("top-n, %s" % _mix_label(mixed), "top_n",
                                   mixed))
  found += [parameters.method_of("layer_norm"), parameters.method_of("head")]
  found += [parameters.method_of("adapters", size) for size in adapter_sizes]
  mix = mix or [(size, 1) for size in adapter_sizes if isinstance(size, int)]
  if len(mix) > 1:
    found.append(parameters.Method("adapters, %s" % _mix_label(mix), "adapters",
                                   mix))
  return found


def _mix_label(mix):
  if len(set(weight for _, weight in mix)) == 1:
    return "equal mix of " + ", ".join(str(value) for value, _ in mix)
  return "mix of " + ", ".join("%d x %d" % (w, value) for value, w in mix)


def _table(name, model, title, columns, rows):
  """A tables.Table that CSV gives with its name (a key of TABLES) and model."""
  return tables.Table(title, columns, rows,
                      labels={"table": name, "title": title, "model": model})


def _paper_tables(table, name, config, options):
  """table1 or table2 for one model: a list of one Table."""
  num_tasks = options.num_tasks or PAPER_TASKS[table]
  paper = {}
  if num_tasks == PAPER_TASKS[table]:
    paper = PAPER.get((table, _built_in_name(config)), {})
  columns, rows = _method_rows(
      parameters.count(config, _all_sizes(options), options.num_labels),
      methods(_sizes_of(table, options), options.mix, _top_n(config, options)),
      num_tasks, paper)
  title = "%s, %d tasks): %s" % (PAPER_TITLES[table], num_tasks, name)
  return [_table(table, name, title, columns, rows)]


def _method_rows(counts, rows_of, num_tasks, paper=None):
  """(columns, rows) with a row for each parameters.Method in `rows_of`."""
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
      row += [fraction, parameters.total_times(method, fraction, num_tasks)]
    if paper:
      chosen_from = frozenset(value for value, _ in method.choices)
      percent, total = paper.get((method.tune, chosen_from), (None, None))
      row += [percent, total, percent and parameters.total_times(
          method, float(percent.rstrip("%")) / 100, num_tasks)]
    rows.append(row)
  return columns, rows


def _parts_tables(table, name, config, options):
  """Parameters by part for one model."""
  counts = parameters.count(config, _all_sizes(options), options.num_labels)
  parts = [("embeddings", counts.embeddings),
           ("encoder layers", counts.encoder),
           ("pooler", counts.pooler),
           ("whole model (the sum)", counts.whole),
           ("LayerNorm (of the above)", counts.layer_norm)]
  parts += [("adapters, %s" % size, counts.adapters(size))
            for size in _sizes_of(table, options)]
  parts.append(("head, %d labels" % options.num_labels, counts.head))
  columns = [("part", TEXT), ("parameters", COUNT),
             ("part / encoder layers", PERCENT),
             ("part / whole model", PERCENT)]
  rows = [[part, parameters, parameters / counts.encoder,
           parameters / counts.whole] for part, parameters in parts]
  return [_table(table, name, "Parameters by part: %s" % name, columns, rows)]


def _layers_tables(table, name, config, options):
  """Parameters by layer, that is by variable scope, for one model."""
  counts = parameters.count(config, _all_sizes(options), options.num_labels)
  sizes = _sizes_of(table, options)
  columns = [("scope", TEXT), ("layers", TEXT), ("parameters", COUNT),
             ("LayerNorm (of these)", COUNT)]
  columns += [("adapters, %s" % size, COUNT) for size in sizes]
  rows = []
  for scope in ["embeddings"] + list(counts.layers) + ["pooler", "head"]:
    layers = counts.layers.get(scope)
    rows.append([scope, layers and _span(layers), counts.scope(scope),
                 counts.scope(scope, modeling.LAYER_NORM)] +
                [counts.adapters(size, scope) for size in sizes])
  rows.append(["all"] + [None] +
              [sum(row[i] for row in rows) for i in range(2, len(columns))])
  return [_table(table, name, "Parameters by layer: %s" % name, columns, rows)]


def _span(layers):
  if len(layers) == 1:
    return str(layers[0])
  return "%d-%d" % (layers[0], layers[-1])


def _sizes_tables(table, name, config, options):
  """What adapters train, by size, for one model."""
  counts = parameters.count(config, _all_sizes(options), options.num_labels)
  columns = [("adapter size", COUNT), ("adapters", COUNT),
             ("LayerNorm", COUNT), ("trained", COUNT),
             ("% of encoder layers", PERCENT), ("% of whole model", PERCENT)]
  rows = []
  for size in parameters.FIGURE_SIZES:
    trained = counts.trained(Tuning("adapters"), size)
    rows.append([size, counts.adapters(size), counts.layer_norm,
                 trained.parameters, trained.of_encoder, trained.of_whole])
  return [_table(table, name, "Adapter sizes: %s" % name, columns, rows)]


def _prefixes_tables(table, name, config, options):
  """What prefixes train and what a task then keeps, beside other methods."""
  num_tasks = options.num_tasks or PAPER_TASKS["table1"]
  counts = parameters.count(config, _all_sizes(options), options.num_labels)
  found = [(method, counts.trained_by(method).parameters) for method in (
      parameters.method_of(tune, size) for tune, size in
      [("full", None)] + [("adapters", s) for s in _sizes_of(table, options)])]
  rows = [(method.label, trained, trained,
           parameters.total_times(method, trained / counts.whole, num_tasks))
          for method, trained in found]
  for hidden_size in (None, PREFIX_HIDDEN_SIZE):
    for length in PREFIX_LENGTHS:
      label = "prefix, %d" % length
      if hidden_size:
        label += ", MLP of %d" % hidden_size
      stored = parameters.prefix_stored(config, length)
      trained = parameters.prefix_trained(config, length, hidden_size)
      rows.append((label, trained, stored,
                   1 + num_tasks * stored / counts.whole))
  columns = [("method", TEXT), ("trained", COUNT), ("stored", COUNT),
             ("% of whole model trained", PERCENT),
             ("% of whole model stored", PERCENT),
             ("total x (whole model)", TIMES)]
  rows = [[label, trained, stored, trained / counts.whole,
           stored / counts.whole, total]
          for label, trained, stored, total in rows]
  return [_table(table, name, "Prefixes, %d tasks: %s" % (num_tasks, name),
                 columns, rows)]


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
  variants = [(label, parameters.count(variant, built, options.num_labels))
              for label, variant in sharing_variants(config)]
  columns = [("sharing", TEXT), ("embeddings", COUNT),
             ("encoder layers", COUNT), ("pooler", COUNT),
             ("whole model", COUNT),
             ("LayerNorm", COUNT)]
  columns += [("adapters, %s" % size, COUNT) for size in sizes]
  rows = [[label, c.embeddings, c.encoder, c.pooler, c.whole, c.layer_norm] +
          [c.adapters(size) for size in sizes] for label, c in variants]
  made = [_table(table, name, "Layer sharing, parts: %s" % name, columns, rows)]
  task_counts = [options.num_tasks] if options.num_tasks else sorted(
      PAPER_TASKS.values())
  for num_tasks in task_counts:
    rows = []
    for label, counts in variants:
      columns, variant_rows = _method_rows(
          counts, methods(sizes, options.mix), num_tasks)
      rows += [[label] + row for row in variant_rows]
    made.append(_table(
        table, name, "Layer sharing, %d tasks: %s" % (num_tasks, name),
        [("sharing", TEXT)] + columns, rows))
  return made


# Name -> (what makes its tables, the adapter sizes it has by default).
TABLES = collections.OrderedDict([
    ("parts", (_parts_tables, parameters.GLUE_SIZES)),
    ("layers", (_layers_tables, (64,))),
    ("table1", (_paper_tables, parameters.GLUE_SIZES)),
    ("table2", (_paper_tables, parameters.FURTHER_SIZES)),
    ("sizes", (_sizes_tables, parameters.FIGURE_SIZES)),
    ("prefixes", (_prefixes_tables, parameters.GLUE_SIZES)),
    ("sharing", (_sharing_tables, parameters.GLUE_SIZES)),
])


def make_tables(options):
  """The tables that `options` (Options) asks for, in order: a list of Table."""
  return [made for table in options.tables
          for name, config in options.models
          for made in TABLES[table][0](table, name, config, options)]


def _sizes_of(table, options):
  """The adapter sizes that a table has a row or column for."""
  sizes = tuple(options.adapter_sizes or TABLES[table][1])
  return sizes + ((options.own,) if options.own else ())


def _all_sizes(options):
  """Every size of every table, so that a model is built once for all of them.

  Not those of "sharing", whose further models would only be slower to build.
  """
  sizes = set(size for size, _ in options.mix or ())
  for table in options.tables:
    if table == "sizes":
      sizes.update(parameters.FIGURE_SIZES)
    elif table != "sharing":
      sizes.update(_sizes_of(table, options))
  return sizes


def _top_n(config, options):
  """The top-n rows; a model whose layers share weights has no top layers."""
  if config.share_parameter_across_layers:
    return ()
  return options.top_n or [n for n in parameters.FURTHER_TOP_N
                           if n <= config.num_hidden_layers]


def _built_in_name(config):
  """The built-in config with the same parameters, or None."""

  def counted(some_config):
    return ([getattr(some_config, key) for key in _COUNTED],
            some_config.embedding_size or some_config.hidden_size)

  for name, keys in parameters.CONFIGS.items():
    if counted(modeling.BertConfig.from_dict(keys)) == counted(config):
      return name
  return None


def format_tables(made, table_format):
  """The tables as one string.

  Args:
    made: list of tables.Table.
    table_format: one of FORMATS. "csv" is one table for all, with "table",
      "title" and "model" in front; "page" is docs/parameters.md.
  """
  if table_format == "csv":
    return tables.csv_text(made)
  if table_format == "text":
    return "\n".join([tables.text(table) for table in made] + LEGEND) + "\n"
  blocks = [tables.markdown(table) for table in made]
  if table_format == "page":
    blocks.insert(0, PAGE_HEAD)
  blocks.append("\n".join("- " + line for line in LEGEND))
  return "\n\n".join(blocks) + "\n"


def plot_sizes(made, path):
  """Plots trained % against adapter size, by both conventions.

  Args:
    made: list of the "sizes" tables, one for each model.
    path: str, the file to write; its ending says the format.

  Raises: errors.InputError if the file cannot be written.
  """
  from matplotlib import ticker
  drawing = plots.new_figure(6.4, 4.4)
  axes = drawing.add_subplot()
  for i, table in enumerate(made):
    rows = tables.select(table)
    sizes = [row["adapter size"] for row in rows]
    for column, style in (("% of encoder layers", "-o"),
                          ("% of whole model", "--o")):
      axes.plot(sizes, [100 * row[column] for row in rows],
                style, color="C%d" % i, markersize=3,
                label="%s, %s" % (table.labels["model"], column))
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_xticks(parameters.FIGURE_SIZES, map(str, parameters.FIGURE_SIZES))
  axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g%%"))
  axes.set_xlabel("adapter size")
  axes.set_ylabel("trained per task (adapters + LayerNorms)")
  axes.grid(alpha=0.3)
  axes.legend()
  plots.save_plot(drawing, path)


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


SETTINGS = [
    Setting("table", str, "table1,table2,sizes",
            "Comma-separated: %s; or all." % ", ".join(TABLES)),
    Setting("config", str, None,
            "Comma-separated built-in models: %s. Default: %s, where there is "
            "no --bert_config_file." % (", ".join(parameters.CONFIGS),
                                        ",".join(parameters.DEFAULT_CONFIGS))),
    Setting("bert_config_file", str, None, "A model's bert_config.json.",
            is_path=True),
    Setting("format", str, "text", "How the tables are written.",
            allowed=FORMATS),
    Setting("adapter_sizes", str, None,
            "Comma-separated; default: the paper's, by table. The table "
            "\"sizes\" always has 2^0 .. 2^9."),
    Setting("adapter_fn", str, None,
            "An adapter of your own, package.module:function, beside those of "
            "these sizes."),
    Setting("mix", str, None,
            "Sizes that differ from task to task: 8,64,256 for an equal mix, "
            "or 8:3,64:5,256:1 with the number of tasks of each, of which only "
            "the proportions matter. Default: an equal mix of the sizes."),
    Setting("top_n", str, None,
            "Comma-separated numbers of top layers; default: those of the "
            "paper that the model has."),
    Setting("plot", str, None,
            "A file, as sizes.png, to plot trained % against adapter size in "
            "(needs matplotlib).", is_path=True, local="matplotlib writes it"),
    Setting("num_tasks", int, None,
            "N of \"total x\"; default: the paper's, 9 and 17.", least=1,
            most=MAX_SIZE),
    Setting("num_labels", int, 2, "The head's labels.", least=1,
            most=MAX_SIZE),
] + [settings_lib.named(name) for name in SHARING]
Flags = flags_lib.config_class("Flags", SETTINGS)


def define_flags(flag_values=FLAGS):
  """Flags of this program, defined only where it is one."""
  flags_lib.define(SETTINGS, flag_values=flag_values)


def options_of(given):
  """Options of what the flags say.

  Args:
    given: Flags.

  Raises: errors.InputError.
  """
  tables = given.table.split(",")
  if tables == ["all"]:
    tables = list(TABLES)
  for table in tables:
    if table not in TABLES:
      raise errors.InputError("--table=%s is unknown; known are %s, and all" %
                              (table, ", ".join(TABLES)))

  def parsed(flag, parse):
    text = getattr(given, flag)
    return None if text is None else parse(text)

  options = Options(
      tables=tables,
      models=_models(given),
      adapter_sizes=parsed("adapter_sizes",
                           lambda text: parse_sizes(text, "adapter_sizes")),
      mix=parsed("mix", parse_mix),
      top_n=parsed("top_n", lambda text: parse_sizes(text, "top_n")),
      num_tasks=given.num_tasks,
      num_labels=given.num_labels,
      own=parsed("adapter_fn", own_adapters.load))
  _check_top_n(options)
  return options


def _models(given):
  """The models asked for: a list of (name, modeling.BertConfig)."""
  changes = {key: getattr(given, key) for key in SHARING
             if getattr(given, key) is not None}
  names = []
  if given.config is not None:
    names = given.config.split(",")
  elif given.bert_config_file is None:
    names = parameters.DEFAULT_CONFIGS
  models = [(name, parameters.load_config(name, changes=changes))
            for name in names]
  if given.bert_config_file is not None:
    models.append((given.bert_config_file, parameters.load_config(
        config_file=given.bert_config_file, changes=changes)))
  return models


def _check_top_n(options):
  for n in options.top_n or ():
    for name, config in options.models:
      if config.share_parameter_across_layers:
        raise errors.InputError(
            "--top_n: the layers of %s share their weights, so none of them "
            "are the top ones; drop --top_n" % name)
      try:
        Tuning("top_n", n, config.num_hidden_layers)
      except ValueError as error:
        raise errors.InputError("--top_n, %s: %s" % (name, error))


def main(argv, flag_values=FLAGS):
  errors.refuse_arguments(argv)
  given = Flags(**flags_lib.values(SETTINGS, flag_values))
  options = options_of(given)
  if given.plot is not None:
    plots.check_plot(given.plot)
  errors.say(format_tables(make_tables(options), given.format))
  if given.plot is not None:
    plot_sizes(make_tables(options._replace(tables=["sizes"])), given.plot)


def entry_point():
  """The console command `adapter-bert-count`."""
  define_flags()
  errors.run(main)


if __name__ == "__main__":
  entry_point()
