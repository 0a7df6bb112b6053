"""RESULTS.md and the text for a terminal, from results.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asrkd.report.markdown import escape, fenced, inline_code, plain_table, table_parts
from asrkd.report.run_tables import environment_table, provenance_pairs, revisions_text, timing_table
from asrkd.report.tables import Row, present
from recipes.mnist import tables
from recipes.mnist.claim_tests import FAILS, HOLDS, PART, UNMEASURED

MARKS = {HOLDS: "+", PART: "~", FAILS: "-", UNMEASURED: "?"}


def results_markdown(results: Row) -> str:
    """RESULTS.md. It starts with the command that reproduces it."""
    parts = [fenced(str(results["command"])), f"# Results: {escape(str(results['recipe']))}"]
    parts.append(f"**{escape(results['label'])}** Errors on {escape(results['evaluated_on'])}.")
    parts.append(" · ".join(f"{key} `{inline_code(value)}`" for key, value in provenance_pairs(results).items()))
    for title, shown in tables.experiment_tables(results):
        parts += [f"## {escape(title)}", *table_parts(shown, title)]
    claims, systems, trainings = (
        make(results) for make in (tables.claims_table, tables.systems_table, tables.trainings_table)
    )
    parts += [f"## {claims.caption}", escape(tables.tally_text(results)), *table_parts([claims], claims.caption)]
    for table in (systems, trainings):
        parts += [f"## {table.caption}", *table_parts([table], table.caption)]
    parts += ["## Time and environment"]
    parts += [escape(one) for one in (tables.estimate_text(results), revisions_text(results)) if one is not None]
    return "\n\n".join([*parts, *table_parts(present(timing_table(results), environment_table(results)), "")]) + "\n"


def terminal_text(results: Mapping[str, Any]) -> str:
    """The text that a run prints at its end."""
    lines = [results["label"], plain_table(tables.headline_table(results))]
    for table in tables.transfer_tables(results):
        lines += [table.caption, plain_table(table)]
    lines += [f"{MARKS[claim['verdict']]} {claim['verdict']}: {claim['text']}" for claim in results["claims"]]
    estimate = tables.estimate_text(results)
    return "\n".join([*lines, *([estimate] if estimate else [])])
