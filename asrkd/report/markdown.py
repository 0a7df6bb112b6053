"""RESULTS.md and the table for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from asrkd.report.decoding_tables import confusion_tables, tuning_table
from asrkd.report.fold_tables import folds_table, speakers_table
from asrkd.report.glossary import glossary_table
from asrkd.report.lost_tables import doubtful_table, unaligned_table
from asrkd.report.run_tables import (
    boundary_table,
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
from asrkd.report.score_tables import (
    NOT_DETERMINED,
    compact_systems_table,
    comparisons_table,
    gap_table,
    seeds_table,
    systems_table,
)
from asrkd.report.systems import gaps, metrics, require_keys, strongest_gaps
from asrkd.report.tables import Row, Table, number, present, span
from asrkd.report.training_tables import (
    baselines_table,
    store_table,
    subset_table,
    sweep_table,
    sweep_text,
    training_table,
)
from asrkd.report.verdict import caveats, verdict

ALIGNMENTS = {"l": "left", "r": "right"}
SHOWN_TUNING_ROWS = 10
SHOWN_CONFUSION_ROWS = 10
SHOWN_DOUBTFUL_ROWS = 20
SWEEP_TITLE = "Choice on the development set"
TERMINAL_WIDTH = 110


def terminal_text(results: Row) -> str:
    """The systems table, gap recovered, out-of-vocabulary rate, caveats and verdict as plain text."""
    require_keys(results)
    table = compact_systems_table(results)
    lines = [plain_table(table), *_gap_lines(results)]
    oov = oov_text(results)
    lines += [oov] if oov else []
    lines += [f"Caution: {text}" for text in caveats(results)]
    lines += verdict(results)[:1]
    return "\n".join(part for line in lines for part in wrapped(line))


def wrapped(line: str) -> list[str]:
    """A sentence in lines that fit a terminal; tables stay as they are."""
    return (
        [line] if "\n" in line else textwrap.wrap(line, TERMINAL_WIDTH, break_long_words=False, break_on_hyphens=False)
    )


def _gap_lines(results: Row) -> list[str]:
    lines, shapes = [], metrics(results)
    for gap in (*gaps(results), *strongest_gaps(results)):
        label = shapes[gap.metric].label if gap.metric in shapes else gap.metric
        label += "" if gap.baseline == "baseline" else f", against {gap.baseline}"
        if gap.determined:
            lines.append(f"Gap recovered, {label}: {number(gap.value, 0, 100)}% {span(gap.ci95, 0, 100)}.")
        else:
            lines.append(f"Gap recovered, {label}: {NOT_DETERMINED} ({gap.obstacle}).")
    return lines


def results_markdown(runs: Sequence[Row]) -> str:
    """RESULTS.md of one or several runs of a recipe: the first's command, then each run's verdict and tables."""
    for results in runs:
        require_keys(results)
    parts = [fenced(str(runs[0]["command"])), f"# Results: {escape(str(runs[0]['recipe']))}"]
    heading = "###" if len(runs) > 1 else "##"
    for position, results in enumerate(runs):
        if len(runs) > 1:
            parts.append(f"## {escape(str(results.get('variant') or f'run {position + 1}'))}")
        if position > 0:
            parts.append(fenced(str(results["command"])))
        parts += _run_parts(results, heading)
    parts += ["## Glossary", *table_parts([glossary_table(runs[0])], "Glossary")]
    return "\n\n".join(parts) + "\n"


def _run_parts(results: Row, heading: str) -> list[str]:
    first, *others = verdict(results) or ("",)
    parts = [f"**{escape(first)}** {' '.join(map(escape, others))}".strip()] if first else []
    parts += [f"Caution: {escape(text)}" for text in caveats(results)]
    parts.append(" · ".join(f"{key} `{inline_code(value)}`" for key, value in provenance_pairs(results).items()))
    parts += table_parts([systems_table(results)], "")
    oov = oov_text(results)
    parts += [oov] if oov else []
    for title, tables in _groups(results):
        if tables:
            parts += [f"{heading} {title}", *table_parts(tables, title)]
            compared = sweep_text(results) if title == SWEEP_TITLE else None
            parts += [escape(compared)] if compared else []
    return parts


def _groups(results: Row) -> list[tuple[str, tuple[Table, ...]]]:
    """Headings and the tables below them."""
    tuning = tuning_table(results)
    confusions = [table.first_rows(SHOWN_CONFUSION_ROWS) for table in confusion_tables(results)]
    doubtful = doubtful_table(results)
    lost = rejected_table(results), unaligned_table(results), doubtful and doubtful.first_rows(SHOWN_DOUBTFUL_ROWS)
    run_tables = provenance_table(results), timing_table(results), environment_table(results)
    return [
        ("Comparisons", present(comparisons_table(results), gap_table(results), seeds_table(results))),
        ("Folds", present(folds_table(results), speakers_table(results))),
        (SWEEP_TITLE, present(sweep_table(results), baselines_table(results))),
        ("Part of the training speech", present(subset_table(results))),
        ("Posterior store", present(store_table(results))),
        ("Decoding scales", present(tuning.first_rows(SHOWN_TUNING_ROWS) if tuning else None)),
        ("Training", present(training_table(results))),
        ("Alignment", present(boundary_table(results))),
        ("Confusions", tuple(confusions)),
        ("Corpus", present(corpus_table(results), transfer_table(results), excluded_table(results), *lost)),
        ("Provenance, time and environment", present(*run_tables)),
    ]


def table_parts(tables: Sequence[Table], title: str) -> list[str]:
    """Paragraphs of Markdown: each table with its note, and its caption unless that is the title above."""
    parts = []
    for table in tables:
        if title and table.caption != title:
            parts.append(f"**{escape(table.caption)}**")
        parts.append(_tabulate(_escaped(table), "github"))
        parts += [escape(table.note)] if table.note else []
    return parts


def plain_table(table: Table) -> str:
    """A table as text for a terminal."""
    return _tabulate(table, "simple")


def _tabulate(table: Table, style: str) -> str:
    return tabulate(
        table.rows,
        headers=table.headers,
        tablefmt=style,
        colalign=[ALIGNMENTS[side] for side in table.align] if table.rows else None,
        disable_numparse=True,
    )


def _escaped(table: Table) -> Table:
    bold = table.strong or (False,) * len(table.rows)
    rows = tuple(
        tuple(f"**{escape(cell)}**" if strong and cell else escape(cell) for cell in row)
        for row, strong in zip(table.rows, bold, strict=True)
    )
    return Table(table.caption, tuple(map(escape, table.headers)), rows, table.align)


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no markup of words, file names or reasons gets through."""
    one_line = " ".join(text.split())
    entities = re.sub(r"&(?=[\w#])", "&amp;", one_line)
    entities = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", entities)
    # An underscore inside a word (teacher_0) is no markup, and stays readable in the raw file.
    return re.sub(r"([\\`*|]|(?<!\w)_|_(?!\w)|(?<=\])\()", r"\\\1", entities)


def inline_code(text: str) -> str:
    """Text that fits between two backticks."""
    return " ".join(text.split()).replace("`", "'")


def fenced(command: str) -> str:
    """A code block that the command's own backticks cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{command.strip()}\n{fence}"
