"""Plots of training and distillation: curves over epochs, temperature and α, the posterior store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from asrkd.report.plots import (
    DASHES,
    MARKERS,
    SERIES,
    STAND_IN,
    legend_below,
    line_styles,
    log_y_scale,
    panel,
    to_svg,
    widen,
)
from asrkd.report.tables import Row
from asrkd.report.training_tables import DevMeasure, in_use

# The y axis of a sweep spans at least this much, in the unit shown: differences of students on a small development set
# are within noise, and an axis that just fits them would make them look like effects.
MIN_SPANS = {"dev_frame_accuracy": 5.0, "dev_cross_entropy": 0.2, "dev_wer": 5.0}
SYMBOLS = {"temperature": "T", "alpha": "α"}
X_LABELS = {"temperature": "temperature T", "alpha": "α, weight of the soft targets"}


@dataclass(frozen=True)
class Curve:
    """A quantity of every epoch that is drawn over training."""

    key: str
    """In a row of a history."""
    title: str
    ylabel: str
    scale: float = 1.0
    focus: bool = False
    """The y axis fits what follows the first eighth of training."""


def curves(histories: Mapping[str, Sequence[Row]], roles: Mapping[str, str], curve: Curve) -> str | None:
    """One line per system over epochs, teachers in one thin grey; None when no history has the key."""
    styles = line_styles(roles)
    labelled = False
    teachers = "teachers" if list(roles.values()).count("teacher") > 1 else "teacher"
    with panel(curve.title, "epoch", curve.ylabel) as (figure, axes):
        for name, history in histories.items():
            points = [
                (i, epoch[curve.key] * curve.scale)
                for i, epoch in enumerate(history, 1)
                if epoch.get(curve.key) is not None
            ]
            if not points:
                continue
            teacher = roles[name] == "teacher"
            label = None if teacher and labelled else teachers if teacher else name
            labelled |= teacher
            colour, dashes = styles[name]
            width, order = (0.9, 2) if teacher else (1.8, 3)
            axes.plot(*zip(*points, strict=True), color=colour, ls=dashes, lw=width, zorder=order, label=label)
        if not axes.lines:
            return None
        if curve.focus:
            _focus_on_later_epochs(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(figure, axes)
        return to_svg(figure, f"curves-{curve.key.replace('_', '-')}")


def _focus_on_later_epochs(axes: Axes) -> None:
    """Hide the first eighth of training, whose fall or rise would flatten the rest."""
    heights = [np.asarray(line.get_ydata()) for line in axes.lines]
    longest = max(map(len, heights))
    later = np.concatenate([drawn[longest // 8 :] for drawn in heights])
    low, high = float(later.min()), float(later.max())
    margin = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def sweep_lines(rows: Sequence[Row], x: str, measure: DevMeasure, hard: float | None) -> str | None:
    """A measure against temperature or α (`x`), one line per value of the other; None without values.

    `hard`, the value of hard labels alone, is the level to beat. A ring marks the student that is the system.
    """
    group = "alpha" if x == "temperature" else "temperature"
    scale = measure.metric.scale
    swept = [row for row in rows if row.get("alpha") and None not in (row.get(measure.key), row.get(x), row.get(group))]
    if not swept:
        return None
    title = f"Dev {measure.name} against {'temperature' if x == 'temperature' else 'α'}"
    with panel(title, X_LABELS[x], measure.metric.axis_label) as (figure, axes):
        for position, value in enumerate(sorted({row[group] for row in swept})):
            points = sorted((row[x], row[measure.key] * scale) for row in swept if row[group] == value)
            colour, marker = SERIES[position % len(SERIES)], MARKERS[position % len(MARKERS)]
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=f"{SYMBOLS[group]} = {value:g}")
        if hard is not None:
            axes.axhline(hard * scale, color=STAND_IN["muted"], ls=DASHES[1], lw=1.4, label="hard labels")
        used = in_use(swept)
        if used is not None:
            label = "chosen" if used.get("chosen") else "configured"
            _ring(axes, (used[x], used[measure.key] * scale), label)
        values = sorted({row[x] for row in swept})
        if x == "temperature":
            axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        widen(axes, MIN_SPANS[measure.key])
        legend_below(figure, axes)
        return to_svg(figure, f"sweep-{x}-{measure.key.replace('_', '-')}")


def _ring(axes: Axes, point: tuple[float, float], label: str) -> None:
    """A ring around a point."""
    ring: dict[str, Any] = {"marker": "o", "ms": 12, "mfc": "none", "mec": STAND_IN["ink"], "mew": 1.2}
    axes.plot(*point, ls="", label=label, **ring)


def store_curve(rows: Sequence[Row]) -> str:
    """KL to the dense posterior against bytes per frame, one line per temperature; k above the highest points."""
    with panel("Size against loss", "bytes per frame", "KL to dense, nats/frame") as (figure, axes):
        temperatures = sorted({row.get("temperature") for row in rows}, key=lambda value: value or 0)
        for position, temperature in enumerate(temperatures):
            points = sorted(
                (row["bytes_per_frame"], row["kl_to_dense"]) for row in rows if row.get("temperature") == temperature
            )
            sizes, losses = zip(*points, strict=True)
            label = f"T = {temperature:g}" if temperature is not None else None
            colour, marker = SERIES[position % len(SERIES)], MARKERS[position % len(MARKERS)]
            axes.plot(sizes, losses, color=colour, marker=marker, label=label)
        highest = {row["top_k"]: row for row in sorted(rows, key=lambda row: float(row["kl_to_dense"]))}
        for top_k, row in highest.items():
            at = row["bytes_per_frame"], row["kl_to_dense"]
            axes.annotate(f"k={top_k}", at, (0, 5), textcoords="offset points", ha="center", fontsize=8)
        axes.margins(x=0.1, y=0.15)
        if all(row["kl_to_dense"] > 0 for row in rows):
            log_y_scale(axes)
        legend_below(figure, axes)
        return to_svg(figure, "store")
