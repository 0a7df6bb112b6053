"""Plots and images of the MNIST report, as SVG text."""

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

# Images are embedded unscaled (interpolation "none"). The browser enlarges them, which takes a third of the bytes.
TILE_INCHES = 0.62
CAPTION_PIXELS, GAP_PIXELS = 12, 2
TILES_PER_ROW = 12
FILTERS_SHOWN = 48


def error_dots(results: Row, names: Sequence[str], roles: Mapping[str, str]) -> str:
    """Errors of every seed, one row per variant, with the paper's figure marked."""
    with panel("Errors by seed", "errors", "", (6.2, 0.45 * len(names) + 1.3)) as (figure, axes):
        for row, name in enumerate(names):
            system = results["systems"][name]
            colour = role_colour(roles.get(name, "other"))
            axes.plot(system["errors"], [row] * len(system["errors"]), "o", color=colour, alpha=0.7)
            axes.plot([system["mean"]], [row], "|", color=colour, ms=16, mew=2, label="mean" if row == 0 else None)
            if system["paper_errors"] is not None:
                label = "paper" if row == 0 else None
                axes.plot([system["paper_errors"]], [row], "x", color=STAND_IN["ink"], ms=8, mew=2, label=label)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        legend_below(figure, axes)
        return to_svg(figure, "errors-by-seed")


def sweep_map(rows: Sequence[Row]) -> tuple[str, bool]:
    """Mean errors over temperature and width, coloured by the excess over the best of each width.

    The second value is whether the plot is too wide for a column of the page.
    """
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
            title="Mean errors; darker: further above the best of the width",
            xlabel="temperature T",
            ylabel="units per layer",
            colour_label="above the width's best, %",
            name="sweep-map",
            digits=0,
            reverse=True,
            values=matrix,
        )
    )
    return svg, len(temperatures) > PANEL_COLUMNS


def width_lines(rows: Sequence[Row]) -> str:
    """Errors against temperature, relative to the best of each width, one line per width."""
    widths, _ = axes_of(rows)
    with panel("Errors against temperature", "temperature T", "errors above the width's best, %") as (
        figure,
        axes,
    ):
        for index, width in enumerate(widths):
            means = sorted((row["temperature"], row["mean"]) for row in rows if row["width"] == width)
            best = max(1.0, min(mean for _, mean in means))
            points = [(temperature, 100 * (mean / best - 1)) for temperature, mean in means]
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=f"{width} units")
        axes.set_xscale("log")
        temperatures = sorted({row["temperature"] for row in rows})
        axes.set_xticks(temperatures, [number_plain(t) for t in temperatures])
        axes.minorticks_off()
        legend_below(figure, axes)
        return to_svg(figure, "sweep-lines")


def points_line(rows: Sequence[Row], key: str, title: str, xlabel: str) -> str:
    """Mean errors along one axis, with error bars of one standard deviation."""
    with panel(title, xlabel, "errors") as (figure, axes):
        points = [row[key] for row in rows]
        spreads = [row["deviation"] or 0.0 for row in rows]
        axes.errorbar(points, [row["mean"] for row in rows], yerr=spreads, color=SERIES[0], marker="o", capsize=3)
        axes.set_xticks(points, [number_plain(point) for point in points])
        return to_svg(figure, f"points-{key}")


def matching_line(rows: Sequence[Row]) -> str:
    """Digits classified differently from another seed of logit matching, against temperature."""
    students = [row for row in rows if row["temperature"] is not None]
    title, ylabel = "Temperature against logit matching", "digits classified differently, %"
    with panel(title, "temperature T", ylabel) as (figure, axes):
        temperatures = [row["temperature"] for row in students]
        means = [float(np.mean(row["differing_percent"])) for row in students]
        spreads = [float(np.std(row["differing_percent"], ddof=len(row["differing_percent"]) > 1)) for row in students]
        axes.errorbar(temperatures, means, yerr=spreads, color=SERIES[0], marker="o", capsize=3, label="two seeds")
        floor = [float(np.mean(row["differing_percent"])) for row in rows if row["temperature"] is None]
        if floor:
            axes.axhline(floor[0], color=SERIES[1], ls="--", label="two seeds, logit matching alone")
        axes.set_xscale("log")
        axes.set_xticks(temperatures, [number_plain(temperature) for temperature in temperatures])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        legend_below(figure, axes)
        return to_svg(figure, "matching")


def soft_target_bars(rows: Sequence[Row], images: Tensor, temperature: float) -> str:
    """One column per digit, with the teachers' probabilities below it, at T = 1 and at the students' temperature.

    Bars of one temperature share their scale, which starts at zero. images are uint8 [N, H, W].
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
    colours = [STAND_IN["distilled"] if digit == label else STAND_IN["baseline"] for digit in range(len(probs))]
    axes.bar(range(len(probs)), probs, color=colours)
    ticks = range(len(probs)) if numbered else ()
    axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=6)
    axes.set_ylim(0, top)
    axes.tick_params(axis="y", labelleft=scaled, labelsize=6)
    axes.locator_params(axis="y", nbins=3)
    axes.grid(False)


def show_image(axes: Axes, image: NDArray) -> None:
    """Draw a digit [H, W], dark on white, without axes."""
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=MAX_PIXEL, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def mosaic(images: NDArray, captions: Sequence[str], name: str, signed: bool = False) -> str:
    """Images [N, H, W] in rows of TILES_PER_ROW, each with its caption above. `signed` draws weights from blue to red.

    All images are one picture. With axes for each image the page would be ten times as large.
    """
    height, width = images.shape[1:]
    gap = (CAPTION_PIXELS if any(captions) else GAP_PIXELS), GAP_PIXELS
    columns = min(TILES_PER_ROW, len(images))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + gap[0]), columns * (width + gap[1])), np.nan)
    figure_size = TILE_INCHES * columns, TILE_INCHES * rows * (height + gap[0]) / (width + gap[1])
    with panel("", "", "", figure_size) as (figure, axes):
        for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
            down, right = index // columns * (height + gap[0]) + gap[0], index % columns * (width + gap[1])
            scale = (float(np.abs(image).max()) or 1.0) if signed else MAX_PIXEL
            canvas[down : down + height, right : right + width] = image / scale
            axes.text(right + width / 2, down - 1.5, caption, ha="center", va="bottom", fontsize=7)
        colours, lowest = ("RdBu_r", -1.0) if signed else ("gray_r", 0.0)
        axes.imshow(canvas, cmap=colours, vmin=lowest, vmax=1.0, interpolation="none")
        axes.set_axis_off()
        return to_svg(figure, name)


def filters(weights: Tensor, side: int) -> NDArray:
    """Weights [in, out] of a first layer as images [FILTERS_SHOWN, side, side], the longest weight vectors first."""
    strongest = weights.norm(dim=0).argsort(descending=True)[:FILTERS_SHOWN]
    return weights[:, strongest].t().reshape(-1, side, side).numpy()
