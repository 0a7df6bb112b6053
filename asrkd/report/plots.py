"""Plots as inline SVG whose colours are CSS variables, so that one picture serves light, dark and paper.

Matplotlib draws with stand-in colours that no colour map produces; `to_svg` replaces each by `var(--name)`.
Text stays text (small files), and ids get a prefix, since several pictures share one page.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

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
# Matplotlib brings it and measures text with it; Verdana has the same widths, for readers without it.
FONT, FONT_STACK = "DejaVu Sans", "'DejaVu Sans', Verdana, sans-serif"
# Stands out from both ends of the colour map, in light and dark.
FRAME = "#e0218a"
# More columns than this do not fit a panel legibly.
PANEL_COLUMNS = 7
PANEL_INCHES = (4.1, 3.0)
# A log axis over more decades than these is labelled at powers of ten alone.
LABELLED_DECADES = 2.5

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


def legend_below(figure: MplFigure, axes: Axes, title: str | None = None) -> None:
    """A legend below the plot, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(len(labels), 2 if max(map(len, labels)) > 14 else 3)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title, title_fontsize=8.5)


def log_y_scale(axes: Axes) -> None:
    """A logarithmic y axis labelled at 1, 2 and 5 within a few decades, at powers of ten beyond.

    Powers of ten alone leave a short range bare; 1, 2 and 5 over many decades are too many for matplotlib's locator,
    which then draws none.
    """
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axis = axes.yaxis
    few = math.log10(high / low) <= LABELLED_DECADES
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def widen(axes: Axes, span: float) -> None:
    """Widen the y axis around its centre to at least `span`, so that small differences look small."""
    low, high = axes.get_ylim()
    if high - low < span:
        centre = (low + high) / 2
        axes.set_ylim(centre - span / 2, centre + span / 2)


@dataclass(frozen=True)
class HeatMap:
    """A matrix to draw, with its labels."""

    matrix: np.ndarray
    """[rows, columns]; what is coloured. NaN cells stay empty."""
    x_labels: Sequence[str]
    y_labels: Sequence[str]
    title: str
    xlabel: str
    ylabel: str
    colour_label: str
    """What the colour bar measures, with its unit."""
    name: str
    """Prefix of the picture's ids."""
    digits: int = 1
    """Decimal places of the values in the cells."""
    marked: tuple[int, int] | None = None
    """(row, column) of a cell that gets a frame."""
    reverse: bool = False
    """Dark for high values, where low ones are better."""
    values: np.ndarray | None = None
    """What is written into the cells, if not `matrix`."""


def heat_map(drawn: HeatMap) -> str:
    """Coloured cells with their values written in, and a colour bar."""
    rows, columns = drawn.matrix.shape
    size = (max(PANEL_INCHES[0], 0.5 * columns + 1.7), max(2.2, 0.38 * rows + 1.3))
    colours = mpl.colormaps["cividis_r" if drawn.reverse else "cividis"]
    finite = drawn.matrix[np.isfinite(drawn.matrix)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    with panel(drawn.title, drawn.xlabel, drawn.ylabel, size) as (figure, axes):
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        mesh = axes.pcolormesh(
            drawn.matrix, cmap=colours, vmin=low, vmax=high, edgecolors=STAND_IN["panel"], linewidth=1.5
        )
        even = np.full_like(drawn.matrix, 0.5)
        scaled = colours((drawn.matrix - low) / (high - low) if high > low else even)
        _write_cells(axes, drawn, scaled)
        if drawn.marked is not None:
            row, column = drawn.marked
            axes.add_patch(mpl.patches.Rectangle((column, row), 1, 1, fill=False, ec=FRAME, lw=2.5))
        axes.set_xticks(np.arange(columns) + 0.5, drawn.x_labels)
        axes.set_yticks(np.arange(rows) + 0.5, drawn.y_labels)
        axes.invert_yaxis()
        if high > low:
            _colour_bar(figure, axes, mesh, drawn.colour_label)
        return to_svg(figure, drawn.name)


def _colour_bar(figure: MplFigure, axes: Axes, mesh: QuadMesh, label: str) -> None:
    bar = figure.colorbar(mesh, ax=axes, fraction=0.06, pad=0.03, label=label)
    bar.ax.spines[:].set_visible(False)
    bar.ax.tick_params(length=2)
    for cells in bar.ax.collections:
        # One image: 256 vector cells would be most of the picture's bytes.
        cells.set(rasterized=True, edgecolor="face")


def _write_cells(axes: Axes, drawn: HeatMap, colours: np.ndarray) -> None:
    """Values into cells whose colours, RGBA, are [rows, columns, 4]."""
    values = drawn.matrix if drawn.values is None else drawn.values
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = colours[row, column]
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5  # luma, ITU-R BT.601
        ink = "#ffffff" if dark else "#101010"
        centre = column + 0.5, row + 0.5
        axes.text(*centre, f"{value:.{drawn.digits}f}", ha="center", va="center", color=ink, fontsize=8.5)
