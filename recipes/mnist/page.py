"""The sections of report.html, from the results, the digits and the first layers of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asrkd.data.corpora.mnist import SIDE
from asrkd.report.page import Figure, Page, Section, Tile, render_page
from asrkd.report.run_tables import (
    environment_table,
    provenance_pairs,
    provenance_table,
    revisions_text,
    timing_table,
)
from asrkd.report.spread import mean_and_deviation
from asrkd.report.tables import Row, present
from recipes.mnist import figures, tables
from recipes.mnist.data import DigitData

TITLE = "mnist: distilling the knowledge in a neural network"


def digits_page(results: Row, data: DigitData, first_layers: Mapping[str, Tensor]) -> str:
    """The page as HTML text.

    `first_layers` are weights [784, H] of the first hidden layer of some variants, by name.
    """
    sections = [
        _summary(results),
        _claims(results),
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
        in_paper = f"; the paper: {system['paper_errors']}" if system["paper_errors"] else ""
        note = f"errors, {len(system['seeds'])} seeds{in_paper}"
        tiles.append(Tile(name, mean_and_deviation(system["errors"], 1), note, tables.ROLES[name]))
    return Section("summary", "Summary", text=(tables.tally_text(results),), tiles=tuple(tiles))


def _claims(results: Row) -> Section:
    table = tables.claims_table(results)
    return Section("claims", table.caption, tables=(table,))


def _experiments(results: Row) -> list[Section]:
    sections = []
    for title, shown in tables.experiment_tables(results):
        key = title.partition(":")[0].lower().replace(" ", "-")
        sections.append(Section(key, title, figures=_figures_of(key, results), tables=shown))
    return sections


def _figures_of(key: str, results: Row) -> tuple[Figure, ...]:
    if key == "experiment-1":
        svg = figures.error_dots(results, tables.HEADLINE, tables.ROLES)
        return (Figure(svg, "Errors of every seed of teacher, baseline and distilled; the values are in the table."),)
    if key == "experiment-2":
        svg, wide = figures.sweep_map(results["sweep"])
        alt = "Mean errors over temperature and width; the values are in the table."
        lines = figures.width_lines(results["sweep"])
        epochs = tables.epochs_text(results, results["sweep"])
        lines_alt = "Errors against temperature, one line per width."
        return (Figure(svg, alt, epochs, wide=wide), Figure(lines, lines_alt, epochs))
    if key == "experiment-5":
        alt = "Digits classified differently from logit matching, against temperature; the values are in the table."
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
    alt = "; ".join(f"a {row['label']} that is also a {_second(row)}" for row in rows)
    caption = (
        "The training digit of each class with the most information in its soft targets beyond the label: the largest "
        "KL divergence from the mean of its class at the students' temperature. Its label has a probability of at "
        "least 0.9 at T=1."
    )
    text = ("Soft targets show which wrong classes are more probable, and by how much.",)
    return Section("dark", "Dark knowledge", text=text, figures=(Figure(svg, f"{alt}.", caption, wide=True),))


def _second(row: Mapping[str, Any]) -> int:
    """The most probable wrong class."""
    ranked = sorted(range(len(row["probs"])), key=lambda label: -row["probs"][label])
    return next(label for label in ranked if label != row["label"])


def _filters(first_layers: Mapping[str, Tensor]) -> Section:
    shown = []
    for name, weights in first_layers.items():
        images = figures.filters(weights, SIDE)
        svg = figures.mosaic(images, [""] * len(images), f"filters-{name}", signed=True)
        alt = f"Weights into {len(images)} first-layer units of {name}, red positive and blue negative."
        caption = f"{name}: the units with the longest weight vectors, first seed."
        shown.append(Figure(svg, alt, caption, wide=True))
    return Section("filters", "First-layer filters", figures=tuple(shown))


def _remaining(results: Row, data: DigitData) -> Section | None:
    remaining = results["remaining_errors"]
    rows = remaining["digits"]
    if not rows:
        return None
    images = data.eval_set.images[[row["digit"] for row in rows]].numpy()
    captions = [f"{row['label']} → {'/'.join(map(str, _wrong_answers(row)))}" for row in rows]
    svg = figures.mosaic(images, captions, "remaining-errors")
    alt = "Digits that distilled students have wrong, label and answers: " + "; ".join(captions) + "."
    text = (
        f"{remaining['by_every_seed']} digits are wrong in every seed of the distilled student, "
        f"{remaining['by_some_seed']} in at least one. {len(rows)} of them are shown, as label → answers. Digits that "
        "are wrong in the most seeds come first.",
    )
    return Section("errors", "The errors that remain", text=text, figures=(Figure(svg, alt, wide=True),))


def _wrong_answers(row: Mapping[str, Any]) -> list[int]:
    return sorted(set(row["predicted"]) - {row["label"]})


def _run(results: Row) -> Section:
    text = tuple(one for one in (tables.estimate_text(results), revisions_text(results)) if one is not None)
    shown = present(timing_table(results), environment_table(results))
    folded = (tables.systems_table(results), tables.trainings_table(results), *present(provenance_table(results)))
    return Section("run", "Time, environment and all networks", text=text, tables=shown, folded=folded)
