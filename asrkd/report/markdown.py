"""RESULTS.md and the table for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from asrkd.report.counts import (
    boundary_table,
    confusion_tables,
    corpus_table,
    environment_table,
    excluded_table,
    oov_text,
    provenance_pairs,
    rejected_table,
    timing_table,
    training_table,
)
from asrkd.report.systems import gaps, metrics, require_keys
from asrkd.report.tables import (
    NO_GAIN,
    Row,
    Table,
    compact_systems_table,
    comparisons_table,
    gap_table,
    number,
    seeds_table,
    span,
    store_table,
    sweep_table,
    systems_table,
    tuning_table,
)

ALIGNMENTS = {"l": "left", "r": "right"}
SHOWN_TUNING_ROWS = 10
SHOWN_CONFUSION_ROWS = 10


def terminal_text(results: Row) -> str:
    """The systems table, gap recovered and out-of-vocabulary rate as plain text."""
    require_keys(results)
    table = compact_systems_table(results)
    lines = [plain_table(table), *_gap_lines(results)]
    oov = oov_text(results)
    return "\n".join([*lines, *([oov] if oov else [])])


def _gap_lines(results: Row) -> list[str]:
    lines, shapes = [], metrics(results)
    for gap in gaps(results):
        label = shapes[gap.metric].label if gap.metric in shapes else gap.metric
        if gap.value is None:
            lines.append(f"Gap recovered, {label}: undefined ({gap.reason or NO_GAIN}).")
        else:
            bounds = f" {span(gap.ci95, 0, 100)}" if gap.ci95 else ""
            lines.append(f"Gap recovered, {label}: {number(gap.value, 0, 100)}%{bounds}.")
    return lines


def results_markdown(runs: Sequence[Row]) -> str:
    """RESULTS.md of one or several runs of a recipe, opened by the first's command; several get headings."""
    for results in runs:
        require_keys(results)
    parts = [fenced(str(runs[0]["command"])), f"# Results: {escape(str(runs[0]['recipe']))}"]
    for position, results in enumerate(runs):
        if len(runs) > 1:
            parts.append(f"## {escape(str(results.get('variant') or f'run {position + 1}'))}")
        if position > 0:
            parts.append(fenced(str(results["command"])))
        parts += _run_parts(results, "###" if len(runs) > 1 else "##")
    return "\n\n".join(parts) + "\n"


def _run_parts(results: Row, heading: str) -> list[str]:
    provenance = provenance_pairs(results)
    parts = [" · ".join(f"{key} `{inline_code(value)}`" for key, value in provenance.items())]
    parts += table_parts([systems_table(results)], "")
    oov = oov_text(results)
    parts += [oov] if oov else []
    tuning = tuning_table(results)
    groups: list[tuple[str, Iterable[Table | None]]] = [
        ("Comparisons", (comparisons_table(results), gap_table(results), seeds_table(results))),
        ("Temperature and α", (sweep_table(results),)),
        ("Posterior store", (store_table(results),)),
        ("Decoding scales", (_first_rows(tuning, SHOWN_TUNING_ROWS) if tuning else None,)),
        ("Training", (training_table(results),)),
        ("Alignment", (boundary_table(results),)),
        ("Confusions", [_first_rows(table, SHOWN_CONFUSION_ROWS) for table in confusion_tables(results)]),
        ("Corpus", (corpus_table(results), excluded_table(results), rejected_table(results))),
        ("Time and environment", (timing_table(results), environment_table(results))),
    ]
    for title, tables in groups:
        present = [table for table in tables if table is not None]
        if present:
            parts += [f"{heading} {title}", *table_parts(present, title)]
    return parts


def _first_rows(table: Table, shown: int) -> Table:
    """The table's best or first rows; what is left out is said."""
    if len(table.rows) <= shown:
        return table
    keep = [i for i in range(len(table.rows)) if i < shown or (table.strong and table.strong[i])]
    return Table(
        table.caption,
        table.headers,
        tuple(table.rows[i] for i in keep),
        table.align,
        strong=tuple(table.strong[i] for i in keep) if table.strong else (),
        note=f"{len(keep)} of {len(table.rows)} rows; all are in the HTML report.",
    )


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
