"""BENCHMARKS.md out of the JSON that the benchmarks of this folder print, one object a line.

`make bench` runs those of a CPU and adds local/bench/gpu.jsonl, which gpu.sh makes where there is a GPU.

    .venv/bin/python local/bench/page.py exp/bench/*.json local/bench/gpu.jsonl > BENCHMARKS.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tabulate import tabulate

HEAD = """# Benchmarks

`make bench` writes this page; `local/bench/gpu.sh` measures the parts for a GPU. A section is one file of
`local/bench/`, and each of its figures is from one run. Peers are timed in turns, and the fastest of several runs
counts. Ratios carry over to other machines better than times. Whether a goal is met is written next to the figure."""


def subject(record: dict) -> tuple[str, str, tuple[str, ...], str]:
    """What can stand in one table: a benchmark on a machine, by the same code, with the same columns."""
    name = Path(record["command"].split()[0]).stem
    return name, record["device"], tuple(record["columns"]), json.dumps(record["versions"])


def section(name: str, records: Sequence[dict]) -> str:
    """The runs of one benchmark on one machine."""
    where = ", on a GPU" if "--device cuda" in records[0]["command"] else ""
    words = records[0]["command"].split()
    part = f": {words[words.index('--part') + 1]}" if "--part" in words else ""
    parts = [f"## {name}{part}{where}", *_table(records), _notes(records)]
    commands = "\n".join(f"* `{record['command']}`" for record in records)
    versions = records[0]["versions"]
    made_by = ", ".join(f"{package} {version}" for package, version in versions.items() if package != "git_sha")
    return "\n\n".join([*parts, f"{commands}\n\n{records[0]['device']}; git {versions['git_sha']}; {made_by}"])


def _table(records: Sequence[dict]) -> list[str]:
    """One run has its title above the table, several have theirs in the first column."""
    if len(records) == 1:
        (record,) = records
        return [record["title"], _rows(record["columns"], record["rows"])]
    rows = []
    for record in records:
        titles = [record["title"], *[""] * (len(record["rows"]) - 1)]
        rows += [[title, *row] for title, row in zip(titles, record["rows"], strict=True)]
    return [_rows(["run", *records[0]["columns"]], rows)]


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, headers=columns, disable_numparse=True, tablefmt="github")


def _notes(records: Sequence[dict]) -> str:
    """Each note once, with the runs it is of where it is not all runs'."""
    runs: dict[str, list[str]] = {}
    for record in records:
        for note in record["notes"]:
            runs.setdefault(note, []).append(record["title"])
    return "\n".join(
        f"* {note}" if len(titles) == len(records) else f"* {note} ({'; '.join(titles)})"
        for note, titles in runs.items()
    )


def main() -> None:
    """Print the page of the files named on the command line, in that order."""
    texts = [Path(path).read_text(encoding="utf-8") for path in sys.argv[1:]]
    records = [json.loads(line) for text in texts for line in text.splitlines()]
    sections = [section(key[0], list(group)) for key, group in groupby(records, key=subject)]
    print("\n\n".join([HEAD, *sections]))


if __name__ == "__main__":
    main()
