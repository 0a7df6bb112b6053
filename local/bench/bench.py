"""What the benchmarks share: a table, the machine it was measured on, timing of rivals side by side."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro
from tabulate import tabulate

from asrkd.errors import InputError, one_line_errors
from asrkd.terminal import require_utf8_mode
from asrkd.workflow import provenance


@dataclass(frozen=True)
class Table:
    """Rows of figures, what they are to be held against, and where they were measured."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    notes: tuple[str, ...]
    """One sentence each: the floor, the goal and whether it is met, what is left out."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The same by name, unrounded."""

    def as_text(self) -> str:
        body = tabulate(self.rows, headers=self.columns, disable_numparse=True, tablefmt="github")
        return "\n".join([self.title, "", body, "", *self.notes])


def main(options: type[Any], measure: Callable[[Any], Table], doc: str | None) -> None:
    """Run a benchmark as its command line says; a table, or with --json one JSON object."""
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--json"]
    require_utf8_mode()
    program = f"local/bench/{Path(sys.argv[0]).name}"
    with one_line_errors(program):
        chosen = tyro.cli(options, prog=program, args=arguments, description=f"{doc}\n\n--json: one JSON object.")
        table = measure(chosen)
    record = {
        **asdict(table),
        "command": shlex.join([program, *arguments]),
        "device": provenance.device_name(getattr(chosen, "device", "cpu")),
        "versions": provenance.versions(),
    }
    print(json.dumps(record) if as_json else table.as_text())


def quickest(rivals: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Seconds of each rival's quickest of `repeats` runs, taken in turns: what slows the machine slows all."""
    best = dict.fromkeys(rivals, float("inf"))
    for _ in range(repeats):
        for name, run in rivals.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, its threads and its children on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def verdict(value: float, goal: float, more_is_better: bool = True) -> str:
    """Whether a figure reaches its goal, in a word."""
    return "met" if (value >= goal if more_is_better else value <= goal) else "missed"


def finished_run(exp_dir: Path | None) -> Path:
    """The folder of a finished recipe to measure on. InputError if there is none."""
    for folder in [exp_dir] if exp_dir else [Path("exp/an4"), Path("exp/prompts")]:
        if (folder / "config.json").is_file():
            return folder
    raise InputError(f"{exp_dir or 'exp/an4, exp/prompts'}: expected a finished run; make one with `make demo`")
