"""The program count_parameters: the paper's tables, its flags, its plot."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys

from absl import flags
import pytest

from adapter_bert.base import errors
from adapter_bert.experiments import count_parameters
from adapter_bert.experiments import parameters
from adapter_bert import test_util
import modeling

TINY = dict(vocab_size=50, hidden_size=8, num_hidden_layers=3,
            num_attention_heads=2, intermediate_size=12,
            max_position_embeddings=16, type_vocab_size=2)
# D = 8, I = 12: four square projections, the feed-forward half, two LayerNorms.
TINY_LAYER = 4 * (8 * 8 + 8) + (8 * 12 + 12) + (12 * 8 + 8) + 2 * 16


def adapters_by_hand(layers, d, m):
  return layers * 2 * (2 * m * d + d + m)


def layer_by_hand(d, intermediate):
  return (4 * (d * d + d) + (d * intermediate + intermediate) +
          (intermediate * d + d) + 2 * 2 * d)


def tiny_config(**changes):
  return modeling.BertConfig.from_dict(dict(TINY, **changes))


def run_main(*args):
  """Parses the flags and runs main, apart from absl's one set of flags."""
  flag_values = flags.FlagValues()
  count_parameters.define_flags(flag_values)
  rest = flag_values(["count_parameters"] + list(args))
  return count_parameters.main(rest, flag_values)


def output_of(*args):
  """What main prints."""
  with contextlib.redirect_stdout(io.StringIO()) as output:
    run_main(*args)
  return output.getvalue()


def rows_of(*args):
  """What main prints as CSV: a list of dicts."""
  return list(csv.DictReader(io.StringIO(output_of("--format=csv", *args))))


def pick(rows, **wanted):
  """The one row with these values."""
  found = [row for row in rows
           if all(row[key] == value for key, value in wanted.items())]
  assert len(found) == 1, "%d rows have %s" % (len(found), wanted)
  return found[0]


def test_totals():
  rows = {row.label: row for row in count_parameters.methods([64])}
  full, shared = rows["full fine-tuning"], rows["adapters, 64"]
  assert parameters.total_times(full, 1.0, 9) == 9
  assert parameters.total_times(shared, 0.021, 9) == pytest.approx(1.189)


@pytest.fixture(name="default_rows", scope="module")
def _default_rows():
  return rows_of()


def test_table_1_of_the_paper(default_rows):
  rows = default_rows
  large = dict(table="table1", model="bert-large")
  row = pick(rows, method="adapters, 64", **large)
  assert "%.1f" % float(row["% of encoder layers"]) == row["paper %"] == "2.1"
  assert "%.2f" % float(row["% of whole model"]) == "1.92"
  assert "%.1f" % float(row["total x (encoder layers)"]) == "1.2"
  assert row["paper total x"] == "1.2"
  assert "%.2f" % float(row["total x from paper %"]) == "1.19"

  row = pick(rows, method="adapters, equal mix of 8, 64, 256", **large)
  assert "%.1f" % float(row["% of encoder layers"]) == row["paper %"] == "3.6"
  assert "%.1f" % float(row["total x (encoder layers)"]) == "1.3"
  assert row["paper total x"] == "1.3"
  assert "%.2f" % float(row["total x from paper %"]) == "1.32"

  row = pick(rows, method="full fine-tuning", **large)
  assert float(row["% of encoder layers"]) == float(row["paper %"]) == 100
  assert float(row["total x (whole model)"]) == 9
  assert row["paper total x"] == "9.0"

  by_size = [pick(rows, method="adapters, %d" % m, **large)
             ["% of encoder layers"][:4] for m in (8, 64, 256)]
  assert by_size == ["0.30", "2.13", "8.37"]  # cut, not rounded
  assert not any(row["paper %"] for row in rows if row["table"] == "table1" and
                 row["model"] == "bert-base")


def test_table_2_of_the_paper(default_rows):
  rows = default_rows
  base = dict(table="table2", model="bert-base")
  row = pick(rows, method="full fine-tuning", **base)
  assert float(row["total x (encoder layers)"]) == 17
  assert row["paper total x"] == "17"

  row = pick(rows, method="top-n, equal mix of 1, 2, 3, 5, 7, 9, 11, 12",
             **base)
  assert float(row["% of encoder layers"]) == pytest.approx(50 / 8 / 12 * 100)
  assert (row["paper %"], row["paper total x"]) == ("52.9", "9.9")
  assert "%.2f" % float(row["total x from paper %"]) == "9.99"

  row = pick(rows, method="adapters, equal mix of 2, 4, 8, 16, 32, 64", **base)
  assert "%.2f" % float(row["% of encoder layers"]) == "0.98"
  assert (row["paper %"], row["paper total x"]) == ("1.14", "1.19")
  assert "%.2f" % float(row["total x from paper %"]) == "1.19"
  assert not any(row["paper %"] for row in rows if row["table"] == "table2" and
                 row["model"] == "bert-large")


def test_the_papers_figures_stand_beside_the_papers_tasks_only():
  rows = rows_of("--table=table1,sizes", "--config=bert-large",
                 "--num_tasks=20")
  assert "paper %" not in rows[0]
  row = pick(rows, method="adapters, 64")
  assert "%.2f" % float(row["total x (encoder layers)"]) == "1.43"


def test_a_config_file_of_bert_base_is_bert_base(tmp_path):
  path = tmp_path / "bert_config.json"
  path.write_text(json.dumps(dict(parameters.CONFIGS["bert-base"],
                                  hidden_act="gelu_erf", directionality="bidi")))
  rows = rows_of("--table=table2", "--mix=2,4,8,16,32,64",
                 "--adapter_sizes=64", "--bert_config_file=%s" % path)
  assert {row["model"] for row in rows} == {str(path)}
  assert pick(rows, method="adapters, equal mix of 2, 4, 8, 16, 32, 64"
             )["paper %"] == "1.14"


@pytest.fixture(name="tiny_file")
def _tiny_file(tmp_path):
  path = tmp_path / "tiny.json"
  path.write_text(json.dumps(TINY))
  return "--bert_config_file=%s" % path


def test_sizes_of_adapters_mixes_and_top_n(tiny_file):
  rows = rows_of(tiny_file, "--table=table1", "--adapter_sizes=4,2,4",
                 "--mix=2:1,6:3", "--top_n=2", "--num_labels=3")
  assert [row["method"] for row in rows] == [
      "full fine-tuning", "top 2 layers", "LayerNorm only", "head only",
      "adapters, 4", "adapters, 2", "adapters, mix of 1 x 2, 3 x 6"]
  norms = 7 * 16
  by_size = {m: adapters_by_hand(3, 8, m) + norms for m in (2, 4, 6)}
  assert [int(row["trained"]) for row in rows[-3:]] == [
      by_size[4], by_size[2], round((by_size[2] + 3 * by_size[6]) / 4)]
  assert {row["head"] for row in rows} == {"27"}
  fraction = by_size[4] / (3 * TINY_LAYER)
  assert float(rows[4]["% of encoder layers"]) == pytest.approx(
      100 * fraction, abs=1e-6)
  assert float(rows[4]["total x (encoder layers)"]) == pytest.approx(
      1 + 9 * fraction, abs=1e-6)


def test_top_n_by_default_ends_with_the_models_layers(tiny_file):
  methods = [row["method"] for row in rows_of(tiny_file, "--table=table2")]
  assert [m for m in methods if m.startswith("top")] == [
      "top 1 layer", "top 2 layers", "top 3 layers",
      "top-n, equal mix of 1, 2, 3"]


def test_parts_and_layers(tiny_file):
  rows = rows_of(tiny_file, "--table=parts,layers",
                 "--adapter_sizes=4", "--share_parameter_across_layers",
                 "--layers_per_group=2")
  parts = {row["part"]: int(row["parameters"]) for row in rows if row["part"]}
  embeddings, adapter = (50 + 16 + 2 + 2) * 8, adapters_by_hand(1, 8, 4)
  assert parts == {
      "embeddings": embeddings, "encoder layers": 2 * TINY_LAYER, "pooler": 72,
      "whole model (the sum)": embeddings + 2 * TINY_LAYER + 72,
      "LayerNorm (of the above)": 5 * 16, "adapters, 4": 2 * adapter,
      "head, 2 labels": 18}
  layers = [(row["scope"], row["layers"], int(row["parameters"]),
             int(row["LayerNorm (of these)"]), int(row["adapters, 4"]))
            for row in rows if row["table"] == "layers"]
  assert layers == [
      ("embeddings", "", embeddings, 16, 0),
      ("layer_0", "0-1", TINY_LAYER, 32, adapter),
      ("layer_1", "2", TINY_LAYER, 32, adapter),
      ("pooler", "", 72, 0, 0), ("head", "", 18, 0, 0),
      ("all", "", embeddings + 2 * TINY_LAYER + 90, 80, 2 * adapter)]


def test_sizes_table(tiny_file):
  rows = rows_of(tiny_file, "--table=sizes", "--adapter_sizes=3")
  assert [int(row["adapter size"]) for row in rows] == [
      1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
  for row in rows:
    adapters = adapters_by_hand(3, 8, int(row["adapter size"]))
    assert int(row["adapters"]) == adapters
    assert int(row["trained"]) == adapters + 7 * 16


def test_prefixes_table(tiny_file):
  rows = rows_of(tiny_file, "--table=prefixes", "--num_tasks=2",
                 "--adapter_sizes=4")
  assert [row["method"] for row in rows] == [
      "full fine-tuning", "adapters, 4", "prefix, 5", "prefix, 20",
      "prefix, 100", "prefix, 5, MLP of 512", "prefix, 20, MLP of 512",
      "prefix, 100, MLP of 512"]
  whole = int(rows[0]["trained"])
  # 20 positions, 3 layers, a key and a value of 8; the MLP is 8 -> 512 -> 48.
  plain, with_mlp = rows[3], rows[6]
  assert (plain["trained"], plain["stored"]) == ("960", "960")
  assert with_mlp["trained"] == str(20 * 8 + 9 * 512 + 513 * 48)
  assert with_mlp["stored"] == "960"
  assert float(plain["total x (whole model)"]) == pytest.approx(
      1 + 2 * 960 / whole, abs=1e-6)
  assert with_mlp["total x (whole model)"] == plain["total x (whole model)"]


def test_sharing_table(tiny_file):
  rows = rows_of(tiny_file, "--table=sharing", "--adapter_sizes=4",
                 "--num_tasks=5", "--share_parameter_across_layers",
                 "--layers_per_group=3")
  ways = {  # label: (layers' weights, adapters)
      "not shared": (3, 3),
      "pairs, adapters shared": (2, 2),
      "pairs, adapters per layer": (2, 3),
      "groups of 3, adapters shared": (1, 1),
      "groups of 3, adapters per layer": (1, 3),
      "all, adapters shared": (1, 1),
      "all, adapters per layer": (1, 3),
  }
  assert [row["sharing"] for row in rows if not row["method"]] == list(ways)
  for label, (layers, adapters) in ways.items():
    parts = pick(rows, sharing=label, method="")
    assert int(parts["encoder layers"]) == layers * TINY_LAYER
    assert int(parts["adapters, 4"]) == adapters_by_hand(adapters, 8, 4)
    row = pick(rows, sharing=label, method="adapters, 4")
    trained = adapters_by_hand(adapters, 8, 4) + (2 * layers + 1) * 16
    assert int(row["trained"]) == trained
    assert float(row["total x (encoder layers)"]) == pytest.approx(
        1 + 5 * trained / (layers * TINY_LAYER), abs=1e-6)
    assert float(row["total x (whole model)"]) == pytest.approx(
        1 + 5 * trained / int(parts["whole model"]), abs=1e-6)


def test_shared_models_have_no_top_layers(tiny_file):
  rows = rows_of(tiny_file, "--table=table2",
                 "--share_parameter_across_layers")
  assert not [row for row in rows if row["method"].startswith("top")]


def test_all_tables_are_the_tables(tiny_file):
  rows = rows_of(tiny_file, "--table=all")
  assert {row["table"] for row in rows} == {
      "parts", "layers", "table1", "table2", "sizes", "prefixes",
      "sharing"}


@pytest.mark.parametrize("share, changes", [
    ("--share_parameter_across_layers", {"share_parameter_across_layers": True}),
    ("--noshare_parameter_across_layers", {}),
])
def test_sharing_flags_are_over_the_config(tiny_file, share, changes):
  rows = rows_of(tiny_file, "--table=parts", share)
  expected = parameters.count(tiny_config(**changes)).encoder
  assert int(pick(rows, part="encoder layers")["parameters"]) == expected


def test_the_formats_hold_the_same_rows(tiny_file):
  def cells(line, separator):
    return [cell.strip() for cell in re.split(separator, line.strip("| "))]

  args = [tiny_file, "--table=sizes"]
  rows = rows_of(*args)
  text = output_of(*args).split("\n\n")[0].split("\n")[2:]
  markdown = [line for line in output_of("--format=markdown", *args).split("\n")
              if line.startswith("|")][2:]
  assert len(rows) == len(text) == len(markdown) == 10
  for row, line, marked in zip(rows, text, markdown):
    assert cells(line, "  +") == cells(marked, r"\|")
    assert cells(line, "  +")[1].replace(",", "") == row["adapters"]


@pytest.mark.parametrize("args, message", [
    (["--table=table3"], "--table=table3 is unknown; known are parts, layers, "
     "table1, table2, sizes, prefixes, sharing, and all"),
    (["--table=parts,"], "--table= is unknown"),
    (["--format=html"], "format is html; it can be text or markdown"),
    (["--config=bert-huge"], "--config=bert-huge is unknown; known are "
     "bert-base, bert-large"),
    (["--bert_config_file=no/such.json"],
     "no/such.json: cannot be read: No such file"),
    (["--adapter_sizes=8,x"], "--adapter_sizes=8,x: 'x' is not a whole number "
     "from 1"),
    (["--adapter_sizes=0"], "'0' is not a whole number from 1"),
    (["--adapter_sizes=9999999"], "whole number from 1 to 1048576"),
    (["--adapter_sizes=8,-1"], "'-1' is not a whole number"),
    (["--adapter_sizes="], "'' is not a whole number"),
    (["--mix="], "--mix=: '' is not a whole number"),
    (["--mix=8:3,64"], "--mix=8:3,64: give sizes alone"),
    (["--mix=8:3:1"], "--mix=8:3:1: give sizes alone"),
    (["--mix=8:0"], "--mix=8:0: '0' is not a whole number"),
    (["--top_n=1.5"], "--top_n=1.5: '1.5' is not a whole number"),
    (["--top_n=13", "--config=bert-base"], "from 1 to the model's layers (12)"),
    (["--top_n=1", "--config=albert-base"], "share their weights"),
    (["--num_tasks=0"], "num_tasks is 0; it must be a whole number from 1 to "
     "1048576"),
    (["--num_labels=0"], "num_labels is 0; it must be a whole number from 1"),
    (["--layers_per_group=2"], "share_parameter_across_layers is false"),
    (["--share_parameter_across_layers", "--layers_per_group=0"],
     "layers_per_group is 0; it must be a whole number of at least 1"),
    (["surplus"], "unexpected argument surplus"),
])
def test_errors_are_one_line(args, message):
  with pytest.raises(errors.InputError) as error:
    run_main(*args)
  assert message in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("text, message", [
    (json.dumps(dict(TINY, embedding_size=9)),
     "embedding_size is 9; it must be a whole number from 1 to hidden_size (8)"),
    (json.dumps(dict(TINY, layers_per_group=2)),
     "share_parameter_across_layers is false"),
    (json.dumps(dict(TINY, share_parameter_across_layers=True,
                     layers_per_group=0)), "layers_per_group is 0"),
    ("[1]", "must be an object"),
    ("{", "bad.json"),
    ("{}", "no vocab_size"),
    ("[" * 10**5, "nested too deeply"),
    ("", "is empty"),
])
def test_errors_in_a_config_file_name_it(tmp_path, text, message):
  path = tmp_path / "bad.json"
  path.write_text(text)
  with pytest.raises(errors.InputError) as error:
    run_main("--bert_config_file=%s" % path)
  assert message in str(error.value)
  assert str(error.value).count(str(path)) == 1
  assert "\n" not in str(error.value)


def test_a_directory_is_no_config(tmp_path):
  with pytest.raises(errors.InputError, match="is a directory"):
    run_main("--bert_config_file=%s" % tmp_path)


def test_plot_without_matplotlib(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.setitem(sys.modules, "matplotlib.backends", None)
  with pytest.raises(errors.InputError, match="pip install matplotlib"):
    run_main("--plot=sizes.png")
  assert not capsys.readouterr().out


def test_plot(tmp_path, tiny_file):
  pytest.importorskip("matplotlib")
  path = tmp_path / "sizes.png"
  assert "embeddings" in output_of(tiny_file, "--table=parts",
                                   "--plot=%s" % path)
  assert path.read_bytes().startswith(b"\x89PNG")


def test_plot_draws_both_conventions_on_a_log_axis(tmp_path, monkeypatch):
  pytest.importorskip("matplotlib")
  from matplotlib import figure
  drawn = []
  monkeypatch.setattr(figure.Figure, "savefig",
                      lambda self, path, **_: drawn.append(self))
  config = tiny_config()
  options = count_parameters.Options(
      ["sizes"], [("one", config), ("two", config)], None, None, None, None, 2)
  count_parameters.plot_sizes(count_parameters.make_tables(options), "x.png")
  axes, = drawn[0].axes
  assert axes.get_xscale() == "log"
  assert [line.get_label() for line in axes.get_lines()] == [
      "one, % of encoder layers", "one, % of whole model",
      "two, % of encoder layers", "two, % of whole model"]
  line = axes.get_lines()[0]
  assert list(line.get_xdata()) == list(parameters.FIGURE_SIZES)
  assert line.get_ydata()[2] == pytest.approx(
      100 * (adapters_by_hand(3, 8, 4) + 7 * 16) / (3 * TINY_LAYER))


def test_plot_paths_that_cannot_be_written(tmp_path, tiny_file, monkeypatch):
  pytest.importorskip("matplotlib")
  for path, message in (("%s/none/a.png", "there is no directory"),
                        ("%s", "is a directory"),
                        ("%s/sizes.xyz", "must be one of"),
                        ("%s/sizes", "must be one of")):
    with pytest.raises(errors.InputError, match=message):
      run_main(tiny_file, "--plot=" + path % tmp_path)
  from matplotlib import figure

  def full_disk(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(figure.Figure, "savefig", full_disk)
  with pytest.raises(errors.InputError, match="cannot be written: No space"):
    run_main(tiny_file, "--table=parts", "--plot=%s/a.png" % tmp_path)


def test_without_arguments():
  """The paper's two tables for BASE and LARGE, and the sizes."""
  output = output_of()
  titles = [line for line in output.split("\n") if ": bert-" in line]
  assert titles == [
      "Table 1 (GLUE, 9 tasks): bert-base",
      "Table 1 (GLUE, 9 tasks): bert-large",
      "Table 2 (further tasks, 17 tasks): bert-base",
      "Table 2 (further tasks, 17 tasks): bert-large",
      "Adapter sizes: bert-base", "Adapter sizes: bert-large"]
  for figure in ("2.1%", "3.6%", "52.9%", "1.14%", "9.0x", "1.3x", "1.2x",
                 "17x", "9.9x", "9.99x", "1.19x", "6,444,032"):
    assert " %s" % figure in output, figure


def test_the_page_in_docs_is_this_programs():
  with open(os.path.join(test_util.ROOT, "docs", "parameters.md"),
            encoding="utf-8") as page:
    assert page.read() == output_of(
        "--format=page", "--table=" + ",".join(count_parameters.PAGE_TABLES))


def run_program(*args):
  program = [sys.executable, "-m", "adapter_bert.experiments.count_parameters"]
  return subprocess.run(program + list(args),
                        capture_output=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_as_a_program(tiny_file):
  run = run_program(tiny_file)
  assert run.returncode == 0, run.stderr
  assert run.stdout == output_of(tiny_file)
