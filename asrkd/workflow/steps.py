"""A step: one folder of output, what fills it, and how a run knows that it is up to date.

The stamp of a step is a hash of its name, its options and its inputs. An input that is up to date counts by the
fingerprint of its content, any other by its own stamp. So an output that is made again with the same content leaves
everything that reads it up to date; with other content (by other code, say), all of that runs again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import canonical, fingerprint, read_json

STAGE_NAMES = (
    "corpus",
    "manifests",
    "features",
    "lang",
    "align",
    "tree",
    "teachers",
    "posteriors",
    "students",
    "graph",
    "decode",
    "score",
    "report",
)
LAST_STAGE = len(STAGE_NAMES) - 1

STAMP_FILE = "stamp.json"
# Of a long value that changed: what is shown, and how much of that comes before the change.
SHOWN_CHARACTERS, CONTEXT_CHARACTERS = 60, 20
# In a folder that a step is filling.
PENDING_FILE = "pending.json"


@dataclass(frozen=True)
class Step:
    """One folder of output and what fills it."""

    stage: int
    """Number of its stage (see STAGE_NAMES)."""
    name: str
    """Folder under the experiment, e.g. `teachers/0`."""
    run: Callable[[Path], None]
    """Fills the folder that it is given."""
    options: Any = None
    """Everything that decides the output, apart from the inputs: a dataclass, dict or list of them."""
    inputs: tuple[str, ...] = ()
    """Names of the steps whose folders it reads."""
    content: Callable[[Path], str] | None = None
    """Fingerprint of what the filled folder contains for steps that read it. None: all of its files."""
    resumable: bool = False
    """Whether an interrupted run continues in its own `.partial` folder (training does, from its checkpoint)."""
    trains: bool = False
    """Whether it makes an optimiser, and so needs what that imports."""
    networks_only: bool = False
    """Whether it only trains or scores networks, and so runs where there is neither k2 nor Lhotse. `run` is then
    pickled."""
    torchrun: bool = False
    """Whether it is one training that the processes of torchrun can do together."""
    work: float = 0.0
    """How much it computes, in any unit: of trainings side by side the longest start first."""


@dataclass(frozen=True)
class Record:
    """What the stamp file of a finished folder says."""

    stamp: str
    content: str | None
    """Fingerprint of the output; None in records of earlier versions, in which the stamp stands for it."""
    options: Any
    inputs: Mapping[str, str]
    seconds: float
    finished: str
    """UTC date and time, ISO 8601."""
    code: Mapping[str, str]
    """Revision, digest of the sources, and versions that made it (`provenance.versions`)."""

    @staticmethod
    def read(folder: Path) -> Record | None:
        """The record of a folder; None without finished output, or if the record is damaged or of another version."""
        path = folder / STAMP_FILE
        try:
            content = read_json(path) if path.is_file() else {}
        except InputError:
            return None
        if not isinstance(content, dict) or content.keys() != {field.name for field in fields(Record)}:
            return None
        record = Record(**content)
        return record if record.is_sound else None

    @property
    def is_sound(self) -> bool:
        """Whether every value has its type."""
        tables = (self.inputs, self.code)
        texts = (
            self.stamp,
            self.finished,
            *(text for table in tables if isinstance(table, dict) for text in table.values()),
        )
        return (
            all(isinstance(table, dict) for table in tables)
            and all(isinstance(text, str) for text in texts)
            and (self.content is None or isinstance(self.content, str))
            and isinstance(self.seconds, (int, float))
            and _is_date(self.finished)
        )


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


class Stamps:
    """Stamps of the steps of one experiment, as the folders on the disk are now."""

    def __init__(self, steps: Sequence[Step], exp_dir: Path) -> None:
        self._steps = {step.name: step for step in steps}
        self._exp_dir = exp_dir
        self._records: dict[str, Record | None] = {}
        self._stamps: dict[str, str] = {}

    def forget(self) -> None:
        """Read the disk again: a step has run."""
        self._records.clear()
        self._stamps.clear()

    def record(self, name: str) -> Record | None:
        """Record of a step's folder; None where no finished output is."""
        if name not in self._records:
            self._records[name] = Record.read(self._exp_dir / name)
        return self._records[name]

    def stamp(self, name: str) -> str:
        """Stamp that the step's output must carry to be up to date."""
        if name not in self._stamps:
            step = self._steps[name]
            inputs = self.inputs(name)
            self._stamps[name] = fingerprint({"name": name, "options": step.options, "inputs": inputs})
        return self._stamps[name]

    def inputs(self, name: str) -> dict[str, str]:
        """What stands for each input of a step."""
        return {before: self._identity(before) for before in self._steps[name].inputs}

    def _identity(self, name: str) -> str:
        stamp, record = self.stamp(name), self.record(name)
        if record is None or record.stamp != stamp or record.content is None:
            return stamp
        return record.content

    def stale(self, name: str) -> str | None:
        """Why the step must run; None where its output is up to date."""
        record = self.record(name)
        if record is None:
            damaged = (self._exp_dir / name / STAMP_FILE).exists()
            return f"its {STAMP_FILE} is damaged or of another version" if damaged else "no output yet"
        return None if record.stamp == self.stamp(name) else self._difference(name, record)

    def _difference(self, name: str, record: Record) -> str:
        step = self._steps[name]
        changed = first_difference(record.options, canonical(step.options))
        if changed is not None:
            return f"options changed: {changed}"
        inputs = self.inputs(name)
        others = [before for before in inputs if record.inputs.get(before) != inputs[before]]
        return f"input changed: {others[0]}" if others else "inputs changed"


def step_stamps(steps: Sequence[Step], exp_dir: Path = Path()) -> dict[str, str]:
    """Stamp of each step. Inputs must come before the steps that read them."""
    stamps = Stamps(steps, exp_dir)
    return {step.name: stamps.stamp(step.name) for step in steps}


def first_difference(before: Any, now: Any, path: str = "") -> str | None:
    """The first value that differs between two JSON values, as `name: before -> now`; None where they are equal."""
    if before == now:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            found = first_difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
            if found is not None:
                return found
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for left, right in zip(before, now, strict=True):
            found = first_difference(left, right, path)
            if found is not None:
                return found
    left, right = str(before), str(now)
    same = next((n for n, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), 0)
    start = max(0, same - CONTEXT_CHARACTERS) if len(left) > SHOWN_CHARACTERS else 0
    return f"{path or 'value'} {_short(left, start)} -> {_short(right, start)}"


def _short(text: str, start: int) -> str:
    end = start + SHOWN_CHARACTERS
    return f"{'...' if start else ''}{text[start:end]}{'...' if len(text) > end else ''}"


def stage_seconds(exp_dir: Path, steps: Sequence[Step]) -> dict[str, float]:
    """Seconds that each stage's finished steps took; those that ran side by side count once."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for step in steps:
        record = Record.read(exp_dir / step.name)
        if record is not None:
            end = datetime.fromisoformat(record.finished).timestamp()
            spans.setdefault(STAGE_NAMES[step.stage], []).append((end - record.seconds, end))
    return {stage: round(_covered(found), 2) for stage, found in spans.items()}


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of what the intervals cover."""
    total, covered_to = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, covered_to))
        covered_to = max(covered_to, end)
    return total
