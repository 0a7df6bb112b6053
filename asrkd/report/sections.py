"""The sections of a speech report, each made from its part of the results, or None without that part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asrkd.report import speech_plots
from asrkd.report.counts import (
    best_epoch,
    boundary_table,
    corpus_table,
    disagreement_table,
    environment_table,
    excluded_table,
    oov_text,
    provenance_pairs,
    rejected_table,
    timing_table,
    training_table,
)
from asrkd.report.error_sections import confusions_section, utterances_section
from asrkd.report.page import Figure, Section, Tile, render_page
from asrkd.report.plots import PANEL_COLUMNS, curves, heat_map, sweep_lines
from asrkd.report.systems import (
    comparison_verdict,
    error_unit,
    finite,
    gaps,
    main_system,
    metrics,
    require_keys,
    role,
    test_sets,
    wer,
)
from asrkd.report.tables import (
    Row,
    Table,
    comparisons_table,
    gap_table,
    number,
    number_plain,
    seeds_table,
    span,
    store_table,
    sweep_table,
    systems_table,
    tuning_table,
)

SCALES = "acoustic_scale", "insertion_score"


def speech_page(results: Row) -> str:
    """The HTML report of a speech run. Raises InputError where results lack what DESIGN §5 requires."""
    require_keys(results)
    makers: tuple[Callable[[Row], Section | None], ...] = (
        summary,
        systems_section,
        comparisons_section,
        sweep_section,
        training_section,
        ensemble_section,
        store_section,
        alignment_section,
        scales_section,
        confusions_section,
        utterances_section,
        corpus_section,
        run_section,
    )
    sections = [section for make in makers if (section := make(results)) is not None]
    variant = results.get("variant")
    title = f"{results['recipe']}: distilling an ensemble of acoustic models"
    subtitle = f"Variant: {variant}." if variant else ""
    return render_page(title, subtitle, sections, provenance_pairs(results), str(results["command"]))


def summary(results: Row) -> Section | None:
    """Headline figures: WER of baseline, ensemble and student, and the gap recovered."""
    test_set = test_sets(results)[0]
    shapes = metrics(results)
    tiles = []
    for wanted in ("baseline", "ensemble", "distilled"):
        found = main_system(results, wanted)
        if found is None:
            continue
        name, system = found
        errors, accuracy = wer(system, test_set), finite(system.get("frame_accuracy"))
        if errors is not None:
            rate = shapes["wer"].label
            note = f"{rate}, 95% {span(errors.ci95, 1)}" if errors.ci95 else f"{error_unit(results)} error rate"
            tiles.append(Tile(name, f"{number(errors.percent, 2)}%", note, wanted))
        elif accuracy is not None:
            tiles.append(Tile(name, f"{number(accuracy, 1, 100)}%", "frame accuracy", wanted))
    for gap in gaps(results):
        if gap.value is not None:
            label = shapes[gap.metric].label if gap.metric in shapes else gap.metric
            note = f"of the ensemble’s gain in {label}"
            note += f", 95% {span(gap.ci95, 0, 100)}" if gap.ci95 else ""
            tiles.append(Tile("gap recovered", f"{number(gap.value, 0, 100)}%", note))
    reading = _reading(results)
    return Section("summary", "Summary", tiles=tuple(tiles), text=(reading,) if reading else ()) if tiles else None


def _reading(results: Row) -> str | None:
    """The student against the baseline in one sentence, from the paired comparisons."""
    found = []
    for row in results.get("comparisons") or ():
        metric = metrics(results).get(row["metric"])
        if (row["a"], row["b"]) == ("distilled", "baseline") and metric:
            shown = number(row["delta"], metric.digits, metric.scale, signed=True)
            bounds = span(row.get("ci95"), metric.digits, metric.scale, signed=True)
            found.append(f"{metric.label} {shown} {metric.unit} {bounds}, {comparison_verdict(row) or 'no interval'}")
    return f"Distilled against baseline, paired, 95% intervals: {'; '.join(found)}." if found else None


def systems_section(results: Row) -> Section:
    """The main table and its picture."""
    systems, rate = results["systems"], f"{error_unit(results)} error rate"
    roles = {name: role(name, system) for name, system in systems.items()}
    sets = test_sets(results)
    figures = []
    for position, test_set in enumerate(sets):
        errors = {name: found for name, system in systems.items() if (found := wer(system, test_set))}
        if errors:
            title = rate.capitalize() if len(sets) == 1 else f"{rate.capitalize()}, {test_set}"
            svg = speech_plots.wer_intervals(errors, roles, title, f"{rate}, %", f"wer-{position}")
            shown = "; ".join(f"{name} {number(found.percent, 2)}%" for name, found in errors.items())
            figures.append(Figure(svg, f"{title} by system: {shown}.", "Bars are 95% intervals over utterances."))
    for key, xlabel in (
        ("frame_accuracy", "frame accuracy, %"),
        ("cross_entropy", "cross-entropy, nats/frame"),
    ):
        shape = metrics(results)[key]
        values = {
            name: v * shape.scale for name, system in systems.items() if (v := finite(system.get(key))) is not None
        }
        if len(values) > 1:
            svg = speech_plots.metric_dots(
                values, roles, shape.label.capitalize(), xlabel, f"dots-{key.replace('_', '-')}"
            )
            shown = "; ".join(f"{name} {number(value, shape.digits)}" for name, value in values.items())
            better = "higher" if shape.higher_is_better else "lower"
            figures.append(Figure(svg, f"{xlabel} by system: {shown}.", f"On the test set; {better} is better."))
    oov = oov_text(results)
    text = (oov,) if oov else ()
    return Section("systems", "Systems", text=text, figures=tuple(figures), tables=(systems_table(results),))


def comparisons_section(results: Row) -> Section | None:
    """Paired differences, gap recovered, seeds."""
    tables = _present(comparisons_table(results), gap_table(results), seeds_table(results))
    if not tables:
        return None
    rows = results.get("seeds") or ()
    roles = {
        name: role(name, results["systems"].get(name, {})) for name in dict.fromkeys(row["system"] for row in rows)
    }
    figures = []
    for key, shape in metrics(results).items():
        unit = "%" if shape.unit == "points" else shape.unit
        title = f"{shape.label[0].upper()}{shape.label[1:]} by seed"
        svg = speech_plots.seed_lines(rows, key, roles, title, f"{shape.label}, {unit}", shape.scale)
        if svg:
            alt = f"{title}; the values are in the table over seeds."
            figures.append(Figure(svg, alt, "A line joins the systems trained from one seed."))
    return Section("comparisons", "Is the difference real?", figures=tuple(figures), tables=tables)


def sweep_section(results: Row) -> Section | None:
    """Temperature and α, as in the paper's sweep."""
    table = sweep_table(results)
    if table is None:
        return None
    rows = results["sweep"]
    measures = (
        ("dev_frame_accuracy", "frame accuracy, %", 100.0),
        ("dev_cross_entropy", "cross-entropy, nats/frame", 1.0),
        ("dev_wer", f"{metrics(results)['wer'].label}, %", 1.0),
    )
    axes = [("temperature", "alpha")] if len({row.get("temperature") for row in rows}) > 1 else []
    axes += [("alpha", "temperature")] if len({row.get("alpha") for row in rows}) > 2 else []
    figures = []
    for x, group in axes:
        for key, ylabel, scale in measures:
            name = ylabel.split(",")[0]
            against = "temperature" if x == "temperature" else "α"
            svg = sweep_lines(rows, x, group, key, f"Dev {name} against {against}", ylabel, scale)
            if svg:
                alt = f"Development {name} against {against}; the values are in the sweep table."
                figures.append(Figure(svg, alt))
    text = ("Every point is a student trained alike but for T and α, scored on the development set.",)
    return Section("sweep", "Temperature and α", text=text, figures=tuple(figures), folded=(table,))


def training_section(results: Row) -> Section | None:
    """Training curves."""
    table = training_table(results)
    if table is None:
        return None
    trained = {name: system for name, system in results["systems"].items() if system.get("history")}
    histories = {name: system["history"] for name, system in trained.items()}
    roles = {name: role(name, system) for name, system in trained.items()}
    best = "; ".join(f"{name} best at epoch {best_epoch(system)}" for name, system in trained.items())
    wanted = (
        ("dev_accuracy", "Development frame accuracy", "frame accuracy, %", 100.0, False, True),
        ("dev_loss", "Development loss", "cross-entropy, nats/frame", 1.0, False, True),
        ("train_loss", "Training loss", "objective, nats/frame", 1.0, False, True),
        ("lr", "Learning rate", "learning rate", 1.0, True, False),
    )
    figures = []
    for key, title, ylabel, scale, log_y, focus in wanted:
        svg = curves(histories, roles, key, title, ylabel, scale, log_y, focus)
        if svg:
            figures.append(Figure(svg, f"{title} over epochs; {best}."))
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
    found = results["disagreement"]
    figures: tuple[Figure, ...] = ()
    if found.get("pairwise") is not None:
        matrix = np.asarray(found["pairwise"], dtype=float) * 100
        names = list(found.get("members") or [f"teacher_{n}" for n in range(len(matrix))])
        off_diagonal = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
        svg = heat_map(
            off_diagonal,
            [name.removeprefix("teacher_") for name in names],
            names,
            "Frames on which two members differ, %",
            "member",
            "",
            "disagreement",
            lambda value: f"{value:.1f}",
        )
        alt = "Pairwise disagreement of ensemble members, in percent of frames: from "
        alt += f"{np.nanmin(off_diagonal):.1f} to {np.nanmax(off_diagonal):.1f}." if len(names) > 1 else "one member."
        figures = (Figure(svg, alt, wide=len(names) > PANEL_COLUMNS),)
    text = ("An ensemble gains only where its members err differently.",)
    return Section("ensemble", "Ensemble disagreement", text=text, figures=figures, tables=(table,))


def store_section(results: Row) -> Section | None:
    """What the posterior store costs and loses."""
    table = store_table(results)
    if table is None:
        return None
    alt = "KL divergence to the dense posterior against bytes a frame; the values are in the table."
    figure = Figure(speech_plots.store_curve(results["store"]), alt, "Points are top-k sizes; down and left is better.")
    return Section("store", "Posterior store", figures=(figure,), folded=(table,))


def alignment_section(results: Row) -> Section | None:
    """Log-likelihood by round and one aligned utterance."""
    figures = []
    by_kind: dict[str, list[Row]] = {}
    for row in results.get("alignment_rounds") or ():
        by_kind.setdefault(str(row.get("kind") or ""), []).append(row)
    for position, (kind, rows) in enumerate(by_kind.items()):
        values = ", ".join(number(row["log_like_per_frame"], 2) for row in rows)
        svg = speech_plots.likelihood_rounds(rows, kind, f"rounds-{position}")
        figures.append(Figure(svg, f"Log-likelihood a frame by round{' of ' + kind if kind else ''}: {values}."))
    plot = results.get("alignment_plot")
    if plot is not None:
        phones = " ".join(str(phone) for phone, _, _ in plot["phones"])
        alt = f"Spectrogram of {plot['utt_id']}, its aligned phones ({phones}) and the senone of each frame."
        figures.append(Figure(speech_plots.alignment_picture(plot), alt, f"Utterance {plot['utt_id']}.", wide=True))
    text = ("Log-likelihoods are comparable within one model family only.",) if len(by_kind) > 1 else ()
    tables = _present(boundary_table(results))
    if not figures and not tables:
        return None
    return Section("alignment", "Alignment", text=text, figures=tuple(figures), tables=tables)


def scales_section(results: Row) -> Section | None:
    """Decoding scales tuned on the development set."""
    table = tuning_table(results)
    if table is None:
        return None
    figures = []
    rows = results["tuning"]
    by_rest: dict[tuple[Any, Any], list[Row]] = {}
    for row in rows:
        by_rest.setdefault((row.get("system"), row.get("lm_scale")), []).append(row)
    for position, ((system, lm_scale), mine) in enumerate(by_rest.items()):
        named = [str(system)] if system else []
        named += (
            [f"LM scale {lm_scale:g}"]
            if lm_scale is not None and len({row.get("lm_scale") for row in rows}) > 1
            else []
        )
        figure = _scales_map(mine, ", ".join([f"Dev {metrics(results)['wer'].label}, %", *named]), f"scales-{position}")
        figures += [figure] if figure else []
    text = ("Tuned on the development set, never on the test set.",)
    return Section("scales", "Decoding scales", text=text, figures=tuple(figures), folded=(table,))


def _scales_map(rows: Sequence[Row], title: str, name: str) -> Figure | None:
    acoustic, insertion = (sorted({float(row[key]) for row in rows}) for key in SCALES)
    if len(acoustic) < 2 or len(insertion) < 2:
        return None
    matrix = np.full((len(acoustic), len(insertion)), np.nan)
    marked = None
    for row in rows:
        place = acoustic.index(float(row["acoustic_scale"])), insertion.index(float(row["insertion_score"]))
        matrix[place] = float(row["wer"])
        marked = place if row.get("chosen") else marked
    svg = heat_map(
        matrix,
        list(map(number_plain, insertion)),
        list(map(number_plain, acoustic)),
        title,
        "insertion score",
        "acoustic scale",
        name,
        lambda value: f"{value:.1f}",
        marked,
        reverse=True,
    )
    caption = "The framed cell was chosen." if marked else ""
    alt = f"{title} over acoustic scale and insertion score; the values are in the table."
    return Figure(svg, alt, caption, wide=len(insertion) > PANEL_COLUMNS)


def corpus_section(results: Row) -> Section | None:
    """What went in, and what was left out or dropped."""
    tables = _present(corpus_table(results), excluded_table(results))
    folded = _present(rejected_table(results))
    return Section("corpus", "Corpus", tables=tables, folded=folded) if tables or folded else None


def run_section(results: Row) -> Section | None:
    """Time and environment."""
    time_table, environment = timing_table(results), environment_table(results)
    if time_table is None and environment is None:
        return None
    figures: tuple[Figure, ...] = ()
    if time_table is not None:
        timing = {str(stage): float(seconds) for stage, seconds in results["timing"].items()}
        alt = "Time by stage: " + "; ".join(f"{stage} {shown}" for stage, shown in time_table.rows) + "."
        figures = (Figure(speech_plots.stage_bars(timing), alt),)
    return Section("run", "Time and environment", figures=figures, tables=_present(time_table, environment))


def _present(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
