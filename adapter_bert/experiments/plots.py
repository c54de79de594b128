"""Pictures with matplotlib, which is imported only where one is drawn."""

import os

import numpy as np

from adapter_bert.base import errors


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


def new_figure(width, height):
  from matplotlib import figure
  # A figure of its own, without pyplot, needs no display and leaves no state.
  return figure.Figure(figsize=(width, height), layout="constrained")


def panels_of(names, x_label):
  """A Figure with a panel for each name.

  Returns: (Figure, {name: Axes}).
  """
  n = len(names)
  across = {1: 1, 2: 2, 4: 2}.get(n, 3)
  down = -(-n // across)
  width = 6.4 if n == 1 else 4.4 * across
  drawing = new_figure(width, 0.7 + (3.8 if n == 1 else 3.2) * down)
  panels = {}
  for i, name in enumerate(names):
    panels[name] = drawing.add_subplot(down, across, i + 1)
    panels[name].set_title(name)
    panels[name].set_xscale("log")
    panels[name].grid(alpha=0.3)
    if i + across >= n:
      panels[name].set_xlabel(x_label)
  return drawing, panels


def legend_below(drawing, panels, most_across=4):
  """One legend for all panels, where it covers none of them."""
  entries = {}
  for axes in panels:
    for handle, label in zip(*axes.get_legend_handles_labels()):
      entries.setdefault(label, handle)
  drawing.legend(entries.values(), entries.keys(), loc="outside lower center",
                 ncols=min(most_across, len(entries)), frameon=False)


def curve_with_errors(axes, rows, x_name, **style):
  """A curve of scores with their standard errors, where there are some."""
  bars = [np.nan if row["standard_error"] is None else row["standard_error"]
          for row in rows]
  axes.errorbar([row[x_name] for row in rows], [row["score"] for row in rows],
                yerr=bars, capsize=2.5, markersize=4, linewidth=1.4, **style)
