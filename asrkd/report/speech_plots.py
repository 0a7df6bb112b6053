"""The plots of a speech run: intervals of the systems, seeds, alignment, posterior store, stage times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MplFigure

from asrkd.errors import InputError
from asrkd.report.plots import (
    MARKERS,
    PANEL_INCHES,
    SERIES,
    STAND_IN,
    STYLE,
    legend_below,
    log_y_scale,
    panel,
    role_colour,
    to_svg,
)
from asrkd.report.systems import Wer, finite

INCHES_PER_SECOND = 3.2  # a phone of 60 ms then has room for its name
ALIGNMENT_INCHES = (7.0, 22.0)


def wer_intervals(errors: Mapping[str, Wer], roles: Mapping[str, str], title: str, xlabel: str, name: str) -> str:
    """A dot and its 95% interval a system, from top to bottom."""
    size = (PANEL_INCHES[0], 1.1 + 0.28 * len(errors))
    with panel(title, xlabel, "", size) as (figure, axes):
        axes.grid(axis="y", visible=False)
        for position, (system, found) in enumerate(errors.items()):
            colour = role_colour(roles[system])
            if found.ci95:
                axes.plot(found.ci95, (position, position), color=colour, lw=2, solid_capstyle="round")
            axes.plot(found.percent, position, "o", color=colour, ms=6.5)
        named_rows(axes, list(errors))
        return to_svg(figure, name)


def metric_dots(values: Mapping[str, float], roles: Mapping[str, str], title: str, xlabel: str, name: str) -> str:
    """A dot a system for a metric that has no interval of its own."""
    size = (PANEL_INCHES[0], 1.1 + 0.28 * len(values))
    with panel(title, xlabel, "", size) as (figure, axes):
        for position, (system, value) in enumerate(values.items()):
            axes.plot(value, position, "o", color=role_colour(roles[system]), ms=6.5)
        named_rows(axes, list(values))
        axes.margins(x=0.1)
        return to_svg(figure, name)


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def seed_lines(
    rows: Sequence[Mapping[str, Any]],
    key: str,
    roles: Mapping[str, str],
    title: str,
    xlabel: str,
    scale: float,
) -> str | None:
    """A mark a seed and system; a line joins the systems of one seed, so that paired differences show."""
    found = [row for row in rows if finite(row.get(key)) is not None]
    systems = [name for name in roles if any(row["system"] == name for row in found)]
    seeds = sorted({row["seed"] for row in found})
    if len(systems) < 2 or len(seeds) < 2:
        return None
    with panel(title, xlabel, "", (PANEL_INCHES[0], 1.4 + 0.36 * len(systems))) as (figure, axes):
        axes.grid(axis="y", visible=False)
        for position, seed in enumerate(seeds):
            mine = {row["system"]: row[key] * scale for row in found if row["seed"] == seed}
            points = [(mine[name], place) for place, name in enumerate(systems) if name in mine]
            marker = MARKERS[position % len(MARKERS)]
            axes.plot(*zip(*points, strict=True), color=STAND_IN["teacher"], lw=0.8)
            for value, place in points:
                axes.plot(value, place, marker=marker, color=role_colour(roles[systems[place]]), ms=6)
            # The legend's marks are grey: a seed has a shape, colours are the systems'.
            axes.plot([], [], ls="", marker=marker, color=STAND_IN["muted"], label=f"seed {seed}")
        named_rows(axes, systems)
        legend_below(figure, axes)
        return to_svg(figure, f"seeds-{key.replace('_', '-')}")


def store_curve(rows: Sequence[Mapping[str, Any]]) -> str:
    """KL to the dense posterior against bytes a frame, one line a temperature; k at each point."""
    with panel("Size against loss", "bytes per frame", "KL to dense, nats/frame") as (
        figure,
        axes,
    ):
        temperatures = sorted({row.get("temperature") for row in rows}, key=lambda value: value or 0)
        for position, temperature in enumerate(temperatures):
            mine = sorted(
                (row["bytes_per_frame"], row["kl_to_dense"], row["top_k"])
                for row in rows
                if row.get("temperature") == temperature
            )
            sizes, losses, _ = zip(*mine, strict=True)
            label = f"T = {temperature:g}" if temperature is not None else None
            colour, marker = SERIES[position % len(SERIES)], MARKERS[position % len(MARKERS)]
            axes.plot(sizes, losses, color=colour, marker=marker, label=label)
            if position == len(temperatures) - 1:
                for size, loss, top in mine:
                    axes.annotate(f"k={top}", (size, loss), (3, 5), textcoords="offset points", fontsize=8)
        if all(row["kl_to_dense"] > 0 for row in rows):
            log_y_scale(axes)
        axes.margins(x=0.1, y=0.1)
        legend_below(figure, axes)
        return to_svg(figure, "store")


def likelihood_rounds(rows: Sequence[Mapping[str, Any]], kind: str, name: str) -> str:
    """Average log-likelihood a frame over rounds of realignment, in the order given."""
    title = f"Rounds of realignment, {kind}" if kind else "Rounds of realignment"
    with panel(title, "round", "log-likelihood per frame, nats") as (figure, axes):
        axes.plot([row["log_like_per_frame"] for row in rows], color=SERIES[0], marker="o")
        names = [str(row["round"]) for row in rows]
        slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(names)), names, **(slanted if max(map(len, names)) > 3 else {}))
        return to_svg(figure, name)


def stage_bars(timing: Mapping[str, float]) -> str:
    """Wall-clock time a stage, in the order run."""
    longest = max(timing.values())
    unit, size = ("minutes", 60.0) if longest > 120 else ("seconds", 1.0)
    with panel("Time a stage", unit, "", (PANEL_INCHES[0], 1.0 + 0.26 * len(timing))) as (figure, axes):
        axes.grid(axis="y", visible=False)
        for position, seconds in enumerate(timing.values()):
            axes.barh(position, seconds / size, height=0.62, color=STAND_IN["series-1"])
            axes.annotate(
                f"{seconds / size:.1f}",
                (seconds / size, position),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        named_rows(axes, list(timing))
        axes.margins(x=0.12)
        return to_svg(figure, "timing")


def alignment_picture(plot: Mapping[str, Any]) -> str:
    """Spectrogram, phones and senones of one utterance over a common time axis.

    InputError names the utterance when frames, phones and pdf_ids do not fit together.
    """
    feats = np.asarray(plot["feats"], dtype=np.float32)
    pdf_ids = np.asarray(plot["pdf_ids"]).reshape(-1)
    _check_alignment(plot, feats, pdf_ids)
    shift = float(plot["frame_shift_ms"]) / 1000
    seconds = len(feats) * shift
    words = plot.get("words") or ()
    heights = (3.0, 0.45, 0.45, 1.5) if words else (3.0, 0.45, 1.5)
    narrowest, widest = ALIGNMENT_INCHES
    width = min(max(narrowest, INCHES_PER_SECOND * seconds), widest)
    with mpl.rc_context(dict(STYLE)):
        figure = MplFigure(figsize=(width, 4.6 if words else 4.3), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        _spectrogram(axes[0], feats, seconds)
        if words:
            _segments(axes[1], words, shift, "words", 9.0)
        _segments(axes[-2], plot["phones"], shift, "phones", 7.5)
        _senones(axes[-1], pdf_ids, shift)
        axes[0].set_xlim(0, seconds)
        return to_svg(figure, "alignment")


def _check_alignment(plot: Mapping[str, Any], feats: np.ndarray, pdf_ids: np.ndarray) -> None:
    if feats.ndim != 2 or len(feats) != len(pdf_ids):
        raise InputError(
            f"{plot['utt_id']}: expected feats [T, F], pdf_ids [T], found {feats.shape} and {pdf_ids.shape}"
        )
    last = max((int(end) for _, _, end in plot["phones"]), default=0)
    if last > len(feats):
        raise InputError(f"{plot['utt_id']}: a phone ends at frame {last}, expected at most {len(feats)}")


def _spectrogram(axes: Axes, feats: np.ndarray, seconds: float) -> None:
    low, high = np.nanpercentile(feats, [2, 99.5])
    axes.grid(False)
    # One pixel a frame and bin: an image, since thousands of vector cells would weigh megabytes.
    axes.imshow(
        feats.T,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, feats.shape[1]),
        cmap="magma",
        vmin=low,
        vmax=high if high > low else low + 1,
        interpolation="none",
    )
    axes.set_ylabel("mel band")
    axes.spines[:].set_visible(False)


def _segments(axes: Axes, segments: Sequence[Any], shift: float, label: str, fontsize: float) -> None:
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.set_ylabel(label, rotation=0, ha="right", va="center")
    axes.tick_params(axis="x", length=0)
    for position, (name, start, end) in enumerate(segments):
        left, right = start * shift, end * shift
        silence = str(name) in ("SIL", "")
        colour = "none" if silence else STAND_IN["series-1"]
        axes.axvspan(left, right, color=colour, alpha=(0.30, 0.16)[position % 2], lw=0)
        axes.axvline(left, color=STAND_IN["muted"], lw=0.5)
        axes.text((left + right) / 2, 0.5, str(name), ha="center", va="center", fontsize=fontsize, clip_on=True)


def _senones(axes: Axes, pdf_ids: np.ndarray, shift: float) -> None:
    edges = np.flatnonzero(np.diff(pdf_ids)) + 1
    starts = np.concatenate(([0], edges))
    ends = np.concatenate((edges, [len(pdf_ids)]))
    axes.hlines(pdf_ids[starts], starts * shift, ends * shift, color=STAND_IN["distilled"], lw=2)
    axes.set_ylabel("senone (pdf_id)")
    axes.set_xlabel("time, s")
    axes.margins(y=0.08)
