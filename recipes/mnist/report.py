"""Stage 12: RESULTS.md and the self-contained report.html, both from results.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from asrkd.data.corpora.mnist import SIDE
from asrkd.errors import InputError
from asrkd.files import atomic_file, read_json
from asrkd.nnet.models import StackedEnsemble
from asrkd.report.markdown import escape, fenced, inline_code, plain_table, table_parts
from asrkd.report.run_tables import environment_table, provenance_pairs, timing_table
from asrkd.report.tables import Row, Table, number
from recipes.mnist import tables
from recipes.mnist.claim_tests import FAILS, HOLDS, PART, UNMEASURED
from recipes.mnist.data import DigitData
from recipes.mnist.networks import MODEL_FILE
from recipes.mnist.options import EXPERIMENTS, DigitsOptions
from recipes.mnist.results import RESULTS_FILE, step_name

RESULTS_MD, REPORT_HTML = "RESULTS.md", "report.html"


def report(exp_dir: Path, options: DigitsOptions, out_dir: Path) -> None:
    """Stage 12. InputError names the package of the extra `report` that is not installed."""
    results = read_json(exp_dir / "score" / RESULTS_FILE)
    _write(out_dir / RESULTS_MD, results_markdown(results))
    try:
        # Only the page needs matplotlib and jinja2; RESULTS.md is for every environment.
        from recipes.mnist.page import digits_page
    except ModuleNotFoundError as error:
        raise InputError(f"{REPORT_HTML}: expected the packages of asrkd[report], found no {error.name}") from None
    data = DigitData.open(exp_dir / "corpus", options)
    _write(out_dir / REPORT_HTML, digits_page(results, data, first_layers(exp_dir)))


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def first_layers(exp_dir: Path) -> dict[str, Tensor]:
    """Weights [784, H] into the first hidden layer of the first seed of each headline variant."""
    stacks = {name: StackedEnsemble.load_stack(exp_dir / step_name(name) / MODEL_FILE) for name in tables.HEADLINE}
    return {name: stack.weights[0][0].detach().reshape(SIDE * SIDE, -1) for name, stack in stacks.items()}


def experiment_tables(results: Row) -> list[tuple[str, list[Table]]]:
    """(Title, tables) of each experiment that was made."""
    transfer = {table.caption: table for table in tables.transfer_tables(results)}
    by_number: dict[int, Sequence[Table | None]] = {
        1: (tables.headline_table(results),),
        2: (tables.sweep_table(results),),
        3: (transfer.get("no_3"),),
        4: (transfer.get("only_7_8"),),
        5: (tables.matching_table(results),),
        6: (
            tables.points_table(results, "alphas", "alpha", "Weight of the soft targets"),
            tables.points_table(results, "teachers", "teachers", "Number of teachers"),
            tables.small_set_table(results),
        ),
        7: (tables.controls_table(results),),
    }
    found = []
    for number_, made in by_number.items():
        present = [table for table in made if table is not None]
        if present:
            found.append((f"Experiment {number_}: {EXPERIMENTS[number_]}", present))
    return found


def results_markdown(results: Row) -> str:
    """RESULTS.md, opening with the command that regenerates it."""
    provenance = provenance_pairs(results)
    parts = [fenced(str(results["command"])), f"# Results: {escape(str(results['recipe']))}"]
    parts.append(f"**{escape(results['label'])}** Errors on {escape(results['evaluated_on'])}.")
    parts.append(" · ".join(f"{key} `{inline_code(value)}`" for key, value in provenance.items()))
    for title, made in experiment_tables(results):
        parts += [f"## {escape(title)}", *table_parts(made, title)]
    parts += [
        "## Scorecard",
        escape(tables.tally_text(results)),
        *table_parts([tables.claims_table(results)], "Scorecard"),
    ]
    parts += ["## All networks", *table_parts([tables.systems_table(results)], "All networks")]
    parts += ["## How they were trained", *table_parts([tables.trainings_table(results)], "How they were trained")]
    parts += ["## Time and environment"]
    estimate = tables.estimate_text(results)
    parts += [escape(estimate)] if estimate else []
    made = [table for table in (timing_table(results), environment_table(results)) if table is not None]
    return "\n\n".join([*parts, *table_parts(made, "")]) + "\n"


def terminal_text(results: Row) -> str:
    """What a run ends with on the terminal."""
    lines = [results["label"], plain_table(tables.headline_table(results))]
    for table in tables.transfer_tables(results):
        lines += [table.caption, plain_table(table)]
    lines += [f"{_mark(claim)} {claim['verdict']}: {claim['text']}" for claim in results["claims"]]
    estimate = tables.estimate_text(results)
    return "\n".join([*lines, *([estimate] if estimate else [])])


def _mark(claim: dict[str, Any]) -> str:
    return {HOLDS: "+", PART: "~", FAILS: "-", UNMEASURED: "?"}[claim["verdict"]]


def share_text(system: Row) -> str:
    """Mean errors with their spread, in words."""
    deviation = f" ± {number(system['deviation'], 1)}" if system["deviation"] is not None else ""
    return f"{number(system['mean'], 1)}{deviation}"
