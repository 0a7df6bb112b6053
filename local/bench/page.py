"""BENCHMARKS.md out of the JSON that the benchmarks of this folder print: `make bench` runs them all.

    .venv/bin/python local/bench/page.py exp/bench/*.json > BENCHMARKS.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tabulate import tabulate

HEAD = """# Benchmarks

Made by `make bench`: one section a file of `local/bench/`, every figure of one run of it. Rivals are timed in turns and
the quickest of each counts; ratios travel between machines better than times. Goals are judged where the figure is."""


def section(record: dict) -> str:
    """One benchmark."""
    name = Path(record["command"].split()[0]).stem
    table = tabulate(record["rows"], headers=record["columns"], disable_numparse=True, tablefmt="github")
    notes = "\n".join(f"* {note}" for note in record["notes"])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if name != "git_sha")
    where = f"{record['device']}; git {record['versions']['git_sha']}; {versions}"
    return f"## {name}\n\n{record['title']}\n\n{table}\n\n{notes}\n\n`{record['command']}` · {where}"


def main() -> None:
    """Print the page of the files named on the command line, in that order."""
    records = [json.loads(Path(path).read_text()) for path in sys.argv[1:]]
    print("\n\n".join([HEAD, *(section(record) for record in records)]))


if __name__ == "__main__":
    main()
