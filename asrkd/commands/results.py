"""`asrkd results`: one RESULTS.md of several finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asrkd.commands.command import Command
from asrkd.errors import InputError


@dataclass(frozen=True)
class ResultsOptions:
    """Runs to read and the page to write."""

    runs: tuple[Path, ...]
    """results.json files, or folders of runs that hold one. The page opens with the first run's command."""
    out: Path
    """Markdown file to write."""


def run(options: ResultsOptions) -> int:
    from asrkd.files import read_object, reading
    from asrkd.report import write_results_md

    if not options.runs:
        raise InputError("--runs: expected at least one results.json or folder that holds one, found none")
    files = [path / "results.json" if path.is_dir() else path for path in options.runs]
    runs = [read_object(file) for file in files]
    with reading(" ".join(map(str, files)), "results of runs"):
        write_results_md(runs, options.out)
    print(f"wrote {options.out}")
    return 0


COMMAND = Command(
    name="results",
    summary="Write one RESULTS.md of several finished runs.",
    description="Each run gets a section with its systems, comparisons and settings.",
    examples=("asrkd results --runs exp/an4 exp/an4_subword --out RESULTS.md",),
    options=lambda: ResultsOptions,
    run=run,
)
