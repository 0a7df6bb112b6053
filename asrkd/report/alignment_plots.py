"""Plots of the alignment: log-likelihood by round, and one aligned utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MplFigure

from asrkd.errors import InputError
from asrkd.report.plots import SERIES, STAND_IN, STYLE, panel, to_svg

INCHES_PER_SECOND = 3.2  # a phone of 60 ms then has room for its name
ALIGNMENT_INCHES = (7.0, 22.0)


def likelihood_rounds(rows: Sequence[Mapping[str, Any]], kind: str, name: str) -> str:
    """Average log-likelihood per frame over rounds of realignment, in the order given."""
    title = f"Realignment, {kind}" if kind else "Realignment"
    with panel(title, "round", "log-likelihood per frame, nats") as (figure, axes):
        axes.plot([row["log_like_per_frame"] for row in rows], color=SERIES[0], marker="o")
        names = [str(row["round"]) for row in rows]
        slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(names)), names, **(slanted if max(map(len, names)) > 3 else {}))
        return to_svg(figure, name)


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
    # One pixel per frame and band: an image, since thousands of vector cells would weigh megabytes.
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
