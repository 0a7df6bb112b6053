"""Pictures of the digits report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from numpy.typing import NDArray
from torch import Tensor

from asrkd.report.plots import (
    MARKERS,
    PANEL_COLUMNS,
    SERIES,
    STAND_IN,
    STYLE,
    HeatMap,
    heat_map,
    legend_below,
    panel,
    role_colour,
    to_svg,
)
from asrkd.report.tables import Row, number_plain
from recipes.mnist.images import MAX_PIXEL
from recipes.mnist.tables import axes_of

# Images are embedded as they are (interpolation "none") and enlarged by the reader's browser: a third of the bytes.
TILE_INCHES = 0.62
CAPTION_PIXELS, GAP_PIXELS = 12, 2
TILES_A_ROW = 12
FILTERS_SHOWN = 48


def error_dots(results: Row, names: Sequence[str], roles: Mapping[str, str]) -> str:
    """Errors of every seed, a row a variant, with the paper's figure marked."""
    with panel("Errors by seed", "errors", "", (6.2, 0.45 * len(names) + 1.3)) as (figure, axes):
        for place, name in enumerate(names):
            system = results["systems"][name]
            colour = role_colour(roles.get(name, "other"))
            axes.plot(system["errors"], [place] * len(system["errors"]), "o", color=colour, alpha=0.7)
            axes.plot([system["mean"]], [place], "|", color=colour, ms=16, mew=2, label="mean" if place == 0 else None)
            if system["paper_errors"] is not None:
                label = "paper" if place == 0 else None
                axes.plot([system["paper_errors"]], [place], "x", color=STAND_IN["ink"], ms=8, mew=2, label=label)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        legend_below(figure, axes)
        return to_svg(figure, "errors-by-seed")


def sweep_map(rows: Sequence[Row]) -> tuple[str, bool]:
    """Mean errors over temperature and width, coloured by how far above the best of their width; whether it is wide."""
    widths, temperatures = axes_of(rows)
    matrix = np.full((len(widths), len(temperatures)), np.nan)
    for row in rows:
        matrix[widths.index(row["width"]), temperatures.index(row["temperature"])] = row["mean"]
    above_best = 100 * (matrix / np.maximum(1.0, np.nanmin(matrix, axis=1, keepdims=True)) - 1)
    svg = heat_map(
        HeatMap(
            above_best,
            x_labels=[number_plain(temperature) for temperature in temperatures],
            y_labels=[str(width) for width in widths],
            title="Mean errors; the darker, the further above the width's best",
            xlabel="temperature T",
            ylabel="units a layer",
            colour_label="above the width's best, %",
            name="sweep-map",
            digits=0,
            reverse=True,
            values=matrix,
        )
    )
    return svg, len(temperatures) > PANEL_COLUMNS


def width_lines(rows: Sequence[Row]) -> str:
    """Errors against temperature, relative to each width's best, a line a width."""
    widths, _ = axes_of(rows)
    with panel("Errors against temperature", "temperature T", "errors above the width's best, %") as (figure, axes):
        for place, width in enumerate(widths):
            mine = sorted((row["temperature"], row["mean"]) for row in rows if row["width"] == width)
            best = max(1.0, min(mean for _, mean in mine))
            points = [(temperature, 100 * (mean / best - 1)) for temperature, mean in mine]
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=f"{width} units")
        axes.set_xscale("log")
        temperatures = sorted({row["temperature"] for row in rows})
        axes.set_xticks(temperatures, [number_plain(t) for t in temperatures])
        axes.minorticks_off()
        legend_below(figure, axes)
        return to_svg(figure, "sweep-lines")


def points_line(rows: Sequence[Row], key: str, title: str, xlabel: str) -> str:
    """Mean errors along one axis, with a bar of one standard deviation each way."""
    with panel(title, xlabel, "errors") as (figure, axes):
        places = [row[key] for row in rows]
        spreads = [row["deviation"] or 0.0 for row in rows]
        axes.errorbar(places, [row["mean"] for row in rows], yerr=spreads, color=SERIES[0], marker="o", capsize=3)
        axes.set_xticks(places, [number_plain(place) for place in places])
        return to_svg(figure, f"points-{key}")


def matching_line(rows: Sequence[Row]) -> str:
    """Digits classed otherwise than by another seed of logit matching, against temperature and by its own seeds."""
    mine = [row for row in rows if row["temperature"] is not None]
    with panel("Temperature against logit matching", "temperature T", "digits classed otherwise, %") as (figure, axes):
        places = [row["temperature"] for row in mine]
        means = [float(np.mean(row["differing_percent"])) for row in mine]
        spreads = [float(np.std(row["differing_percent"], ddof=len(row["differing_percent"]) > 1)) for row in mine]
        axes.errorbar(places, means, yerr=spreads, color=SERIES[0], marker="o", capsize=3, label="two seeds")
        floor = [float(np.mean(row["differing_percent"])) for row in rows if row["temperature"] is None]
        if floor:
            axes.axhline(floor[0], color=SERIES[1], ls="--", label="two seeds, logit matching alone")
        axes.set_xscale("log")
        axes.set_xticks(places, [number_plain(place) for place in places])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        legend_below(figure, axes)
        return to_svg(figure, "matching")


def soft_target_bars(rows: Sequence[Row], images: Tensor, temperature: float) -> str:
    """A digit a column, and below it what the teachers say of it: at T = 1, and at the students' temperature.

    Bars of one temperature share their scale, from zero.
    """
    with mpl.rc_context(dict(STYLE)):
        figure = MplFigure(figsize=(1.15 * len(rows) + 0.4, 4.0), layout="constrained")
        axes = figure.subplots(3, len(rows), squeeze=False, gridspec_kw={"height_ratios": [1.1, 1.0, 1.0]})
        for column, (row, image) in enumerate(zip(rows, images, strict=True)):
            show_image(axes[0, column], image.numpy())
            axes[0, column].set_title(f"a {row['label']}")
        for line, key, name in ((1, "probs", "T=1"), (2, "softened", f"T={temperature:g}")):
            top = 1.05 * max(max(row[key]) for row in rows)
            for column, row in enumerate(rows):
                _bars(axes[line, column], row[key], row["label"], top, numbered=line == 2, scaled=column == 0)
            axes[line, 0].set_ylabel(name)
        return to_svg(figure, "soft-targets")


def _bars(axes: Axes, probs: Sequence[float], label: int, top: float, numbered: bool, scaled: bool) -> None:
    colours = [STAND_IN["distilled"] if place == label else STAND_IN["baseline"] for place in range(len(probs))]
    axes.bar(range(len(probs)), probs, color=colours)
    places = range(len(probs)) if numbered else ()
    axes.set_xticks(places, [str(place) for place in places], fontsize=6)
    axes.set_ylim(0, top)
    axes.tick_params(axis="y", labelleft=scaled, labelsize=6)
    axes.locator_params(axis="y", nbins=3)
    axes.grid(False)


def show_image(axes: Axes, image: NDArray) -> None:
    """Ink dark on white, without axes."""
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=MAX_PIXEL, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def mosaic(images: NDArray, captions: Sequence[str], name: str, signed: bool = False) -> str:
    """Images [N, H, W] in rows of TILES_A_ROW, a caption above each; `signed` draws weights from blue to red.

    One picture for all of them: an axes a tile would make the page ten times as large.
    """
    height, width = images.shape[1:]
    gap = (CAPTION_PIXELS if any(captions) else GAP_PIXELS), GAP_PIXELS
    columns = min(TILES_A_ROW, len(images))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + gap[0]), columns * (width + gap[1])), np.nan)
    figure_size = TILE_INCHES * columns, TILE_INCHES * rows * (height + gap[0]) / (width + gap[1])
    with panel("", "", "", figure_size) as (figure, axes):
        for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
            down, right = place // columns * (height + gap[0]) + gap[0], place % columns * (width + gap[1])
            scale = (float(np.abs(image).max()) or 1.0) if signed else MAX_PIXEL
            canvas[down : down + height, right : right + width] = image / scale
            axes.text(right + width / 2, down - 1.5, caption, ha="center", va="bottom", fontsize=7)
        colours, lowest = ("RdBu_r", -1.0) if signed else ("gray_r", 0.0)
        axes.imshow(canvas, cmap=colours, vmin=lowest, vmax=1.0, interpolation="none")
        axes.set_axis_off()
        return to_svg(figure, name)


def filters(weights: Tensor, side: int) -> NDArray:
    """Weights into the first hidden units [in, out] as images [FILTERS_SHOWN, side, side], the strongest first."""
    strongest = weights.norm(dim=0).argsort(descending=True)[:FILTERS_SHOWN]
    return weights[:, strongest].t().reshape(-1, side, side).numpy()
