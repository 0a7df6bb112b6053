"""The speech report: its sections, each made from its part of the results, or None without that part."""

from __future__ import annotations

from collections.abc import Callable

from asrkd.report.decoding_sections import confusions_section, scales_section, utterances_section
from asrkd.report.fold_tables import folds_table, speakers_table
from asrkd.report.glossary import glossary_table
from asrkd.report.lost_sections import doubtful_section
from asrkd.report.lost_tables import unaligned_table
from asrkd.report.page import Figure, Page, Section, Tile, render_page
from asrkd.report.run_tables import (
    corpus_table,
    environment_table,
    excluded_table,
    oov_text,
    provenance_pairs,
    provenance_table,
    rejected_table,
    timing_table,
    transfer_table,
)
from asrkd.report.score_plots import Estimate, interval_dots, seed_lines, stage_bars
from asrkd.report.score_tables import comparisons_table, gap_table, seeds_table, systems_table
from asrkd.report.systems import (
    called,
    error_unit,
    finite,
    frame_interval,
    gaps,
    main_system,
    main_teacher,
    metrics,
    require_keys,
    resampled,
    role,
    strongest_gaps,
    test_sets,
    wer,
)
from asrkd.report.tables import Row, number, present, span
from asrkd.report.training_sections import (
    alignment_section,
    ensemble_section,
    store_section,
    subset_section,
    sweep_section,
    training_section,
)
from asrkd.report.verdict import caveats, verdict


def speech_page(results: Row) -> str:
    """The HTML report of a speech run. Raises InputError for results without the keys that are required."""
    require_keys(results)
    makers: tuple[Callable[[Row], Section | None], ...] = (
        summary,
        systems_section,
        comparisons_section,
        folds_section,
        sweep_section,
        subset_section,
        training_section,
        ensemble_section,
        store_section,
        alignment_section,
        scales_section,
        confusions_section,
        utterances_section,
        doubtful_section,
        corpus_section,
        run_section,
        glossary_section,
    )
    variant = results.get("variant")
    page = Page(
        title=f"{results['recipe']}: distilling an ensemble of acoustic models",
        sections=[section for make in makers if (section := make(results)) is not None],
        provenance=provenance_pairs(results),
        command=str(results["command"]),
        subtitle=f"Variant: {variant}." if variant else "",
        verdict=verdict(results),
        caveats=caveats(results),
    )
    return render_page(page)


def summary(results: Row) -> Section | None:
    """Headline figures: error rates of baseline, ensemble and student, and the gap recovered."""
    tiles = [*_system_tiles(results), *_gap_tiles(results)]
    return Section("summary", "Summary", tiles=tuple(tiles)) if tiles else None


def _system_tiles(results: Row) -> list[Tile]:
    test_set, rate = test_sets(results)[0], metrics(results)["wer"].label
    of_several = {row["system"] for row in results.get("seeds") or ()}
    tiles = []
    for wanted in ("baseline", "ensemble", "distilled"):
        entry = main_teacher(results) if wanted == "ensemble" else main_system(results, wanted)
        if entry is None:
            continue
        name, system = entry
        errors, accuracy = wer(system, test_set), finite(system.get("frame_accuracy"))
        first_seed = ", first seed" if name in of_several else ""
        if errors is not None:
            interval = f", 95% {span(errors.ci95, 1)}" if errors.ci95 else ""
            tiles.append(Tile(name, f"{number(errors.percent, 2)}%", f"{rate}{first_seed}{interval}", wanted))
        elif accuracy is not None:
            tiles.append(Tile(name, f"{number(accuracy, 1, 100)}%", f"frame accuracy{first_seed}", wanted))
    return tiles


def _gap_tiles(results: Row) -> list[Tile]:
    shapes = metrics(results)
    return [
        Tile(
            "gap recovered",
            f"{number(gap.value, 0, 100)}%",
            f"of the {gap.teacher}’s gain over {called(gap.baseline)} in "
            f"{shapes[gap.metric].label if gap.metric in shapes else gap.metric}, 95% {span(gap.ci95, 0, 100)}",
        )
        for gap in (*gaps(results), *strongest_gaps(results))
        if gap.determined
    ]


def systems_section(results: Row) -> Section:
    """The main table and its pictures."""
    oov = oov_text(results)
    text = (oov,) if oov else ()
    figures = (*_error_rate_figures(results), *_frame_figures(results))
    return Section("systems", "Systems", text=text, figures=figures, tables=(systems_table(results),))


def _roles(results: Row) -> dict[str, str]:
    return {name: role(name, system) for name, system in results["systems"].items()}


def _error_rate_figures(results: Row) -> list[Figure]:
    """One picture per test set."""
    rate, sets = f"{error_unit(results)} error rate", test_sets(results)
    bars = f"Bars are 95% intervals over {resampled(results)}."
    figures = []
    for position, test_set in enumerate(sets):
        errors = {name: one for name, system in results["systems"].items() if (one := wer(system, test_set))}
        if errors:
            title = rate.capitalize() if len(sets) == 1 else f"{rate.capitalize()}, {test_set}"
            estimates = {name: Estimate(one.percent, one.ci95) for name, one in errors.items()}
            svg = interval_dots(estimates, _roles(results), title, f"{rate}, %", f"wer-{position}")
            shown = "; ".join(f"{name} {number(one.percent, 2)}%" for name, one in errors.items())
            figures.append(Figure(svg, f"{title} by system: {shown}.", bars))
    return figures


def _frame_figures(results: Row) -> list[Figure]:
    """Frame accuracy and cross-entropy."""
    figures = []
    for key in ("frame_accuracy", "cross_entropy"):
        shape = metrics(results)[key]
        estimates = {}
        for name, system in results["systems"].items():
            value, ends = finite(system.get(key)), frame_interval(system, key)
            if value is not None:
                scaled = (ends[0] * shape.scale, ends[1] * shape.scale) if ends else None
                estimates[name] = Estimate(value * shape.scale, scaled)
        if len(estimates) > 1:
            prefix = f"dots-{key.replace('_', '-')}"
            svg = interval_dots(estimates, _roles(results), shape.title, shape.axis_label, prefix)
            shown = "; ".join(f"{name} {number(one.value, shape.digits)}" for name, one in estimates.items())
            better = "higher" if shape.higher_is_better else "lower"
            bars = " Bars are 95% intervals." if any(one.ci95 for one in estimates.values()) else ""
            caption = f"On the test set; {better} is better.{bars}"
            figures.append(Figure(svg, f"{shape.axis_label} by system: {shown}.", caption))
    return figures


def comparisons_section(results: Row) -> Section | None:
    """Paired differences, gap recovered, seeds."""
    tables = present(comparisons_table(results), gap_table(results), seeds_table(results))
    if not tables:
        return None
    rows = results.get("seeds") or ()
    names = dict.fromkeys(row["system"] for row in rows)
    roles = {name: role(name, results["systems"].get(name, {})) for name in names}
    figures = []
    for key, shape in metrics(results).items():
        svg = seed_lines(rows, key, roles, shape)
        if svg:
            alt = f"{shape.title} by seed; the values are in the table over seeds."
            figures.append(Figure(svg, alt, "A line joins the systems trained from one seed."))
    return Section("comparisons", "Comparisons", figures=tuple(figures), tables=tables)


def folds_section(results: Row) -> Section | None:
    """The folds of a cross-validation, and each speaker."""
    tables = present(folds_table(results))
    return Section("folds", "Folds", tables=tables, folded=present(speakers_table(results))) if tables else None


def corpus_section(results: Row) -> Section | None:
    """What went in, and what was excluded or rejected."""
    tables = present(corpus_table(results), transfer_table(results), excluded_table(results))
    folded = present(rejected_table(results), unaligned_table(results))
    return Section("corpus", "Corpus", tables=tables, folded=folded) if tables or folded else None


def run_section(results: Row) -> Section | None:
    """Provenance, time and environment."""
    time_table = timing_table(results)
    tables = present(provenance_table(results), time_table, environment_table(results))
    if not tables:
        return None
    figures: tuple[Figure, ...] = ()
    if time_table is not None:
        timing = {str(stage): float(seconds) for stage, seconds in results["timing"].items()}
        alt = "Time by stage: " + "; ".join(f"{stage} {shown}" for stage, shown in time_table.rows) + "."
        figures = (Figure(stage_bars(timing), alt),)
    return Section("run", "Provenance, time and environment", figures=figures, tables=tables)


def glossary_section(results: Row) -> Section:
    """What the terms mean."""
    return Section("glossary", "Glossary", tables=(glossary_table(results),))
