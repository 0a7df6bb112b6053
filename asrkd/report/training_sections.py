"""The sections on training and distillation: sweep, curves, ensemble, posterior store, alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asrkd.report.alignment_plots import alignment_picture, likelihood_rounds
from asrkd.report.page import Figure, Section
from asrkd.report.plots import PANEL_COLUMNS, HeatMap, heat_map
from asrkd.report.run_tables import boundary_table
from asrkd.report.systems import role
from asrkd.report.tables import Row, number, present
from asrkd.report.training_plots import Curve, curves, store_curve, sweep_lines
from asrkd.report.training_tables import (
    baselines_table,
    best_epoch,
    dev_measures,
    disagreement_table,
    hard_label_level,
    store_table,
    subset_table,
    sweep_table,
    sweep_text,
    training_table,
)

CURVES = (
    Curve("dev_accuracy", "Development frame accuracy", "frame accuracy, %", scale=100.0, focus=True),
    Curve("dev_loss", "Development cross-entropy", "cross-entropy, nats/frame", focus=True),
    Curve("train_loss", "Training loss", "objective, nats/frame", focus=True),
    Curve("lr", "Learning rate", "learning rate"),
)


def sweep_section(results: Row) -> Section | None:
    """Temperature and α, as in the paper's sweep, and the baselines: what was tried and chosen."""
    tables = present(sweep_table(results), baselines_table(results))
    if not tables:
        return None
    rows = _of_one_dropout(results.get("sweep") or ())
    axes = ["temperature"] if len({row.get("temperature") for row in rows}) > 1 else []
    axes += ["alpha"] if len({row.get("alpha") for row in rows}) > 2 else []
    figures = []
    for x in axes:
        for measure in dev_measures(results):
            svg = sweep_lines(rows, x, measure, hard_label_level(results, measure))
            if svg:
                against = "temperature" if x == "temperature" else "α"
                alt = f"Development {measure.name} against {against}; the values are in the sweep table."
                figures.append(Figure(svg, alt))
    text = ["Every point is a student trained with one T and α, all else equal, and scored on the development set."]
    compared = sweep_text(results)
    text = [*(text if figures else []), *([compared] if compared else [])]
    return Section("sweep", "Choice on the development set", text=tuple(text), figures=tuple(figures), folded=tables)


def subset_section(results: Row) -> Section | None:
    """Students that learn from a part of the training speech, on hard labels and on soft targets."""
    table = subset_table(results)
    if table is None:
        return None
    text = "Soft targets are regularisers: with little speech, hard labels are learned by heart."
    return Section("subset", table.caption, text=(text,), tables=(table,))


def _of_one_dropout(rows: Sequence[Row]) -> list[Row]:
    """The students that differ from the configured one in temperature or α: a point of a plot has no third value."""
    configured: Row = next((row for row in rows if row.get("configured")), {})
    return [row for row in rows if not configured or row.get("dropout") == configured.get("dropout")]


def training_section(results: Row) -> Section | None:
    """Training curves."""
    table = training_table(results)
    if table is None:
        return None
    trained = {name: system for name, system in results["systems"].items() if system.get("history")}
    histories = {name: system["history"] for name, system in trained.items()}
    roles = {name: role(name, system) for name, system in trained.items()}
    best = "; ".join(f"{name} best at epoch {best_epoch(system)}" for name, system in trained.items())
    figures = []
    for curve in CURVES:
        svg = curves(histories, roles, curve)
        if svg:
            figures.append(Figure(svg, f"{curve.title} over epochs; {best}."))
    text = (
        "Training losses of different objectives (hard, soft, with dropout) are not comparable. "
        "The axes fit what follows the first eighth of training.",
    )
    return Section("training", "Training", text=text, figures=tuple(figures), tables=(table,))


def ensemble_section(results: Row) -> Section | None:
    """How much the members disagree."""
    table = disagreement_table(results)
    if table is None:
        return None
    measured = results["disagreement"]
    figures: tuple[Figure, ...] = ()
    if measured.get("pairwise") is not None:
        matrix = np.asarray(measured["pairwise"], dtype=float) * 100
        names = list(measured.get("members") or [f"teacher_{n}" for n in range(len(matrix))])
        figures = (_disagreement_map(matrix, names),)
    text = ("An ensemble gains only where its members err differently.",)
    return Section("ensemble", "Ensemble disagreement", text=text, figures=figures, tables=(table,))


def _disagreement_map(matrix: np.ndarray, names: list[str]) -> Figure:
    off_diagonal = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    svg = heat_map(
        HeatMap(
            off_diagonal,
            x_labels=[name.removeprefix("teacher_") for name in names],
            y_labels=names,
            title="Frames on which two members differ, %",
            xlabel="member",
            ylabel="",
            colour_label="frames, %",
            name="disagreement",
        )
    )
    alt = "Pairwise disagreement of ensemble members, in percent of frames: from "
    alt += f"{np.nanmin(off_diagonal):.1f} to {np.nanmax(off_diagonal):.1f}." if len(names) > 1 else "one member."
    return Figure(svg, alt, wide=len(names) > PANEL_COLUMNS)


def store_section(results: Row) -> Section | None:
    """What the posterior store costs and loses."""
    table = store_table(results)
    if table is None:
        return None
    alt = "KL divergence to the dense posterior against bytes per frame; the values are in the table."
    figure = Figure(store_curve(results["store"]), alt, "Points are top-k sizes; down and left is better.")
    return Section("store", "Posterior store", figures=(figure,), folded=(table,))


def alignment_section(results: Row) -> Section | None:
    """Log-likelihood by round and one aligned utterance."""
    figures = []
    by_kind: dict[str, list[Row]] = {}
    for row in results.get("alignment_rounds") or ():
        by_kind.setdefault(str(row.get("kind") or ""), []).append(row)
    for position, (kind, rows) in enumerate(by_kind.items()):
        values = ", ".join(number(row["log_like_per_frame"], 2) for row in rows)
        svg = likelihood_rounds(rows, kind, f"rounds-{position}")
        figures.append(Figure(svg, f"Log-likelihood per frame by round{' of ' + kind if kind else ''}: {values}."))
    plot = results.get("alignment_plot")
    if plot is not None:
        phones = " ".join(str(phone) for phone, _, _ in plot["phones"])
        alt = f"Spectrogram of {plot['utt_id']}, its aligned phones ({phones}) and the senone of each frame."
        figures.append(Figure(alignment_picture(plot), alt, f"Utterance {plot['utt_id']}.", wide=True))
    text = ["Log-likelihoods are comparable within one model family only."] if len(by_kind) > 1 else []
    wider = [
        f"{row['wider_beam']} in {row['round']}" for rows in by_kind.values() for row in rows if row.get("wider_beam")
    ]
    if wider:
        text.append(f"Utterances whose best path needed a wider beam than the first search: {', '.join(wider)}.")
    tables = present(boundary_table(results))
    if not figures and not tables:
        return None
    return Section("alignment", "Alignment", text=tuple(text), figures=tuple(figures), tables=tables)
