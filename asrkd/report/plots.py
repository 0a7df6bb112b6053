"""Plots as inline SVG whose colours are CSS variables, so that one picture serves light, dark and paper.

Matplotlib draws with stand-in colours that no colour map produces; `to_svg` replaces each by `var(--name)`.
Text stays text (small files), and ids get a prefix, since several pictures share one page.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

CSS_COLOURS = (
    "ink",
    "muted",
    "grid",
    "panel",
    "baseline",
    "distilled",
    "ensemble",
    "teacher",
    "other",
    "series-1",
    "series-2",
    "series-3",
    "series-4",
    "series-5",
    "series-6",
)
STAND_IN = {name: f"#0102{position + 16:02x}" for position, name in enumerate(CSS_COLOURS)}
SERIES = tuple(STAND_IN[f"series-{n}"] for n in range(1, 7))
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
# Measured by matplotlib, which brings it; Verdana has the same widths where a reader lacks it.
FONT, FONT_STACK = "DejaVu Sans", "'DejaVu Sans', Verdana, sans-serif"
# Stands out from both ends of the colour map, in light and dark.
FRAME = "#e0218a"
# More columns than this do not fit a panel legibly.
PANEL_COLUMNS = 7
PANEL_INCHES = (4.1, 3.0)

STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "asrkd",
    "text.parse_math": False,
    "font.family": [FONT],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": STAND_IN["muted"],
    "axes.labelcolor": STAND_IN["ink"],
    "axes.titlecolor": STAND_IN["ink"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": STAND_IN["grid"],
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "text.color": STAND_IN["ink"],
    "xtick.color": STAND_IN["muted"],
    "ytick.color": STAND_IN["muted"],
    "xtick.labelcolor": STAND_IN["ink"],
    "ytick.labelcolor": STAND_IN["ink"],
    "hatch.linewidth": 0.6,
}


def role_colour(role: str) -> str:
    """The stand-in colour of a system's role."""
    return STAND_IN.get(role, STAND_IN["other"])


@contextmanager
def panel(
    title: str, xlabel: str, ylabel: str, size: tuple[float, float] = PANEL_INCHES
) -> Iterator[tuple[MplFigure, Axes]]:
    """One pair of axes, labelled, in the report's style."""
    with mpl.rc_context(dict(STYLE)):
        figure = MplFigure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        yield figure, axes


def to_svg(figure: MplFigure, prefix: str) -> str:
    """The figure as an `<svg>` element for an HTML page; `prefix` makes its ids unique there."""
    with mpl.rc_context(dict(STYLE)):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", markup, flags=re.DOTALL)
    # Only tags are rewritten: words and numbers drawn as text stay as they are.
    return re.sub(r"<[^>]*>", lambda tag: _for_page(tag.group(), prefix), markup).strip()


def _for_page(tag: str, prefix: str) -> str:
    if tag.startswith("<svg"):
        view = re.search(r'viewBox="([^"]*)"', tag)
        width = float(view.group(1).split()[2]) if view else 0.0
        box = f'viewBox="{view.group(1)}" ' if view else ""
        return f'<svg {box}style="--natural-width:{width:.0f}px" aria-hidden="true" focusable="false">'
    if 'href="data:' not in tag:
        tag = re.sub(r"(\d+\.\d{2})\d+", r"\1", tag)
    tag = tag.replace(f"'{FONT}'", FONT_STACK)
    for name, colour in STAND_IN.items():
        tag = tag.replace(colour, f"var(--{name})")
    tag = re.sub(r'\bid="', f'id="{prefix}-', tag)
    tag = re.sub(r'href="#', f'href="#{prefix}-', tag)
    return tag.replace("url(#", f"url(#{prefix}-")


def line_styles(roles: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Colour by role; systems that share one differ by dashes."""
    seen: dict[str, Iterator[Any]] = {}
    styles = {}
    for name, role in roles.items():
        dashes = seen.setdefault(role, itertools.cycle(DASHES if role != "teacher" else DASHES[:1]))
        styles[name] = (role_colour(role), next(dashes))
    return styles


def curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    roles: Mapping[str, str],
    key: str,
    title: str,
    ylabel: str,
    scale: float = 1.0,
    log_y: bool = False,
    focus: bool = False,
) -> str | None:
    """One line a system over epochs, teachers in one thin grey; None when no history has the key.

    `focus` fits the y axis to what follows the first eighth of training.
    """
    styles = line_styles(roles)
    labelled = False
    with panel(title, "epoch", ylabel) as (figure, axes):
        for name, history in histories.items():
            points = [(i, epoch[key] * scale) for i, epoch in enumerate(history, 1) if epoch.get(key) is not None]
            if not points:
                continue
            teacher = roles[name] == "teacher"
            label = None if teacher and labelled else "teachers" if teacher else name
            labelled |= teacher
            colour, dashes = styles[name]
            width, order = (0.9, 2) if teacher else (1.8, 3)
            axes.plot(*zip(*points, strict=True), color=colour, ls=dashes, lw=width, zorder=order, label=label)
        if not axes.lines:
            return None
        if log_y:
            log_y_scale(axes)
        if focus:
            _focus_on_later_epochs(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(figure, axes)
        return to_svg(figure, f"curves-{key.replace('_', '-')}")


def _focus_on_later_epochs(axes: Axes) -> None:
    """Leave out the first eighth of training, whose fall or rise would flatten the rest."""
    heights = [np.asarray(line.get_ydata()) for line in axes.lines]
    longest = max(map(len, heights))
    later = np.concatenate([drawn[longest // 8 :] for drawn in heights])
    low, high = float(later.min()), float(later.max())
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def legend_below(figure: MplFigure, axes: Axes, title: str | None = None) -> None:
    """A legend under the plot, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(len(labels), 2 if max(map(len, labels)) > 14 else 3)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title, title_fontsize=8.5)


def sweep_lines(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    group: str,
    key: str,
    title: str,
    ylabel: str,
    scale: float = 1.0,
) -> str | None:
    """A metric against temperature or α, one line a value of the other; without a metric's values, None.

    α = 0 is hard labels alone, without a temperature: a level, or where every line starts.
    """
    found = [row for row in rows if row.get(key) is not None]
    hard = next((row[key] * scale for row in found if row.get("alpha") == 0), None)
    swept = [row for row in found if row.get("alpha") and row.get(x) is not None and row.get(group) is not None]
    if not swept:
        return None
    symbols = {"temperature": "T", "alpha": "α"}
    names = {"temperature": "temperature T", "alpha": "α, weight of the soft targets"}
    start = [(0.0, hard)] if x == "alpha" and hard is not None else []
    with panel(title, names[x], ylabel) as (figure, axes):
        for position, value in enumerate(sorted({row[group] for row in swept})):
            mine = sorted(start + [(row[x], row[key] * scale) for row in swept if row[group] == value])
            colour, marker = SERIES[position % len(SERIES)], MARKERS[position % len(MARKERS)]
            axes.plot(*zip(*mine, strict=True), color=colour, marker=marker, label=f"{symbols[group]} = {value:g}")
        if hard is not None and x == "temperature":
            axes.axhline(hard, color=STAND_IN["muted"], ls=DASHES[1], lw=1.4, label="hard labels (α = 0)")
        values = sorted({row[x] for row in swept} | {place for place, _ in start})
        if x == "temperature":
            axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        legend_below(figure, axes)
        return to_svg(figure, f"sweep-{x}-{key.replace('_', '-')}")


def log_y_scale(axes: Axes) -> None:
    """A logarithmic y axis labelled at 1, 2 and 5: powers of ten alone leave a short range bare."""
    axes.set_yscale("log")
    axis = axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def heat_map(
    matrix: np.ndarray,
    x_labels: Sequence[str],
    y_labels: Sequence[str],
    title: str,
    xlabel: str,
    ylabel: str,
    name: str,
    cell: Callable[[float], str],
    marked: tuple[int, int] | None = None,
    reverse: bool = False,
    shown: np.ndarray | None = None,
) -> str:
    """Cells with their values, or those of `shown`, written in; NaN cells stay empty, `marked` (row, column) gets a
    frame."""
    rows, columns = matrix.shape
    size = (max(PANEL_INCHES[0], 0.62 * columns + 1.4), max(2.2, 0.38 * rows + 1.3))
    colours = mpl.colormaps["cividis_r" if reverse else "cividis"]
    finite = matrix[np.isfinite(matrix)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    with panel(title, xlabel, ylabel, size) as (figure, axes):
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.pcolormesh(matrix, cmap=colours, vmin=low, vmax=high, edgecolors=STAND_IN["panel"], linewidth=1.5)
        scaled = colours((matrix - low) / (high - low) if high > low else np.full_like(matrix, 0.5))
        _write_cells(axes, matrix if shown is None else shown, cell, scaled)
        if marked is not None:
            axes.add_patch(mpl.patches.Rectangle((marked[1], marked[0]), 1, 1, fill=False, ec=FRAME, lw=2.5))
        axes.set_xticks(np.arange(columns) + 0.5, x_labels)
        axes.set_yticks(np.arange(rows) + 0.5, y_labels)
        axes.invert_yaxis()
        return to_svg(figure, name)


def _write_cells(
    axes: Axes,
    matrix: np.ndarray,
    cell: Callable[[float], str],
    colours: np.ndarray,
) -> None:
    """Values into the cells of a matrix whose colours, RGBA, are [rows, columns, 4]."""
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = colours[row, column]
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5  # luma, ITU-R BT.601
        ink = "#ffffff" if dark else "#101010"
        place = column + 0.5, row + 0.5
        axes.text(*place, cell(float(value)), ha="center", va="center", color=ink, fontsize=8.5)
