"""The sections of report.html, made from the results and the digits themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asrkd.data.corpora.mnist import SIDE
from asrkd.report.page import Figure, Page, Section, Tile, render_page
from asrkd.report.run_tables import environment_table, provenance_pairs, timing_table
from asrkd.report.tables import Row
from recipes.mnist import figures, tables
from recipes.mnist.data import DigitData
from recipes.mnist.report import experiment_tables, share_text

TITLE = "mnist: distilling the knowledge in a neural network"


def digits_page(results: Row, data: DigitData, first_layers: Mapping[str, Tensor]) -> str:
    """The page as HTML text: headline, scorecard, experiments, soft targets, filters, errors that remain."""
    sections = [
        _summary(results),
        _scorecard(results),
        *_experiments(results),
        _dark_knowledge(results, data),
        _filters(first_layers),
        _remaining(results, data),
        _run(results),
    ]
    subtitle = f"{results['label']} Errors on {results['evaluated_on']}."
    present = [section for section in sections if section is not None]
    return render_page(Page(TITLE, present, provenance_pairs(results), str(results["command"]), subtitle))


def _summary(results: Row) -> Section:
    tiles = []
    for name in tables.HEADLINE:
        system = results["systems"][name]
        of_paper = f"; the paper: {system['paper_errors']}" if system["paper_errors"] else ""
        note = f"errors, {len(system['seeds'])} seeds{of_paper}"
        tiles.append(Tile(name, share_text(system), note, tables.ROLES[name]))
    return Section("summary", "Summary", text=(tables.tally_text(results),), tiles=tuple(tiles))


def _scorecard(results: Row) -> Section:
    return Section("scorecard", "Scorecard of the paper's claims", tables=(tables.claims_table(results),))


def _experiments(results: Row) -> list[Section]:
    found = []
    for title, made in experiment_tables(results):
        key = title.partition(":")[0].lower().replace(" ", "-")
        found.append(Section(key, title, figures=_figures_of(key, results), tables=tuple(made)))
    return found


def _figures_of(key: str, results: Row) -> tuple[Figure, ...]:
    if key == "experiment-1":
        svg = figures.error_dots(results, tables.HEADLINE, tables.ROLES)
        return (Figure(svg, "Errors of every seed of teacher, baseline and distilled; the values are in the table."),)
    if key == "experiment-2":
        svg, wide = figures.sweep_map(results["sweep"])
        alt = "Mean errors over temperature and width; the values are in the table."
        lines = figures.width_lines(results["sweep"])
        epochs = tables.epochs_text(results, results["sweep"])
        beside = "Errors against temperature, a line a width."
        return (Figure(svg, alt, epochs, wide=wide), Figure(lines, beside, epochs))
    if key == "experiment-5":
        alt = "Digits classed otherwise than by logit matching, against temperature; the values are in the table."
        return (Figure(figures.matching_line(results["matching"]), alt),)
    if key == "experiment-6":
        alphas = figures.points_line(results["alphas"], "alpha", "Errors against α", "α, weight of the soft targets")
        counts = figures.points_line(results["teachers"], "teachers", "Errors against teachers", "number of teachers")
        return (
            Figure(alphas, "Errors against the weight of the soft targets; the values are in the table."),
            Figure(counts, "Errors against the number of teachers; the values are in the table."),
        )
    return ()


def _dark_knowledge(results: Row, data: DigitData) -> Section | None:
    rows = results["dark_knowledge"]
    if not rows:
        return None
    images = data.train.images[[row["digit"] for row in rows]]
    svg = figures.soft_target_bars(rows, images, float(results["temperature"]))
    told = "; ".join(f"a {row['label']} that is also a {_second(row)}" for row in rows)
    caption = (
        "Of each class the training digit, surely of it (0.9 at T=1), whose soft targets tell the most beside its "
        "label: the furthest from the mean of its class at the students' temperature, in KL divergence."
    )
    text = ("What a teacher knows beside the label: which wrong classes are more likely, and by how much.",)
    return Section("dark", "Dark knowledge", text=text, figures=(Figure(svg, f"{told}.", caption, wide=True),))


def _second(row: Mapping[str, Any]) -> int:
    """The likeliest wrong class."""
    ranked = sorted(range(len(row["probs"])), key=lambda label: -row["probs"][label])
    return next(label for label in ranked if label != row["label"])


def _filters(first_layers: Mapping[str, Tensor]) -> Section:
    drawn = []
    for name, weights in first_layers.items():
        images = figures.filters(weights, SIDE)
        svg = figures.mosaic(images, [""] * len(images), f"filters-{name}", signed=True)
        alt = f"Weights into {len(images)} first-layer units of {name}, red positive and blue negative."
        drawn.append(Figure(svg, alt, f"{name}: the units of the longest weight vectors, first seed.", wide=True))
    return Section("filters", "First-layer filters", figures=tuple(drawn))


def _remaining(results: Row, data: DigitData) -> Section | None:
    found = results["remaining_errors"]
    rows = found["digits"]
    if not rows:
        return None
    images = data.eval_set.images[[row["digit"] for row in rows]].numpy()
    captions = [f"{row['label']} → {'/'.join(map(str, _wrong_answers(row)))}" for row in rows]
    svg = figures.mosaic(images, captions, "remaining-errors")
    alt = "Digits that distilled students get wrong, label and answers: " + "; ".join(captions) + "."
    text = (
        f"Every seed of the distilled student gets {found['by_every_seed']} digits wrong, some seed "
        f"{found['by_some_seed']}. Here are {len(rows)} of them, those that most seeds get wrong first: "
        "label → answers.",
    )
    return Section("errors", "The errors that remain", text=text, figures=(Figure(svg, alt, wide=True),))


def _wrong_answers(row: Mapping[str, Any]) -> list[int]:
    return sorted(set(row["predicted"]) - {row["label"]})


def _run(results: Row) -> Section:
    estimate = tables.estimate_text(results)
    made = [table for table in (timing_table(results), environment_table(results)) if table is not None]
    text = (estimate,) if estimate else ()
    folded = (tables.systems_table(results), tables.trainings_table(results))
    return Section("run", "Time, environment and all networks", text=text, tables=tuple(made), folded=folded)
