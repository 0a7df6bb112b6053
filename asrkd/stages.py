"""Numbered stages, as in Kaldi's run.sh: --stage/--stop-stage, stamps, logs, whole outputs or none.

A stage is one or more steps (a teacher is a step of stage 6). A step fills one folder under the experiment; its stamp
is a hash of its options and of its inputs' stamps. A step whose folder carries the stamp is skipped; any other is run
into `<folder>.partial`, which takes the folder's place when the step ends well. Each step runs in a process of its
own, so that none inherits another's memory or threads.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrkd import provenance
from asrkd.errors import InputError
from asrkd.files import canonical, fingerprint, publish_dir, read_json, write_json
from asrkd.own_process import call_in_own_process

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
PENDING_FILE = "pending.json"


@dataclass(frozen=True)
class Step:
    """One folder of output and what makes it."""

    stage: int
    """Number of the stage it belongs to (see STAGE_NAMES)."""
    name: str
    """Folder under the experiment, e.g. `teachers/0`."""
    run: Callable[[Path], None]
    """Fills the folder it is given."""
    options: Any = None
    """Everything that decides the output, apart from the inputs: a dataclass, dict or list of them."""
    inputs: tuple[str, ...] = ()
    """Names of the steps whose folders it reads."""
    resumable: bool = False
    """Whether an interrupted run goes on from its own `.partial` folder (training does, from its checkpoint)."""


def run_steps(steps: Sequence[Step], exp_dir: Path, first: int = 0, last: int = LAST_STAGE) -> None:
    """Run the steps of stages `first` to `last` that are not up to date.

    Call it from a process that has not computed with torch or k2 yet: steps are forked (`asrkd.own_process`).

    Raises:
        InputError: a needed earlier output is missing or was made by another configuration; another run holds the
            experiment; or whatever a step says of its input.
    """
    if first > last:
        raise InputError(f"--stage {first} comes after --stop-stage {last}")
    stamps = step_stamps(steps)
    by_name = {step.name: step for step in steps}
    chosen = [step for step in steps if first <= step.stage <= last]
    with _sole_run(exp_dir):
        for place, step in enumerate(chosen, start=1):
            label = f"stage {step.stage} of {LAST_STAGE} ({step.name}, step {place} of {len(chosen)})"
            if _made_stamp(exp_dir / step.name) == stamps[step.name]:
                print(f"-- {label}: up to date", flush=True)
                continue
            for name in step.inputs:
                _require(exp_dir, by_name[name], stamps[name], needed_by=step)
            print(f"== {label}", flush=True)
            seconds = _run_step(step, stamps, exp_dir)
            print(f"   done in {seconds:.1f} s", flush=True)


def step_stamps(steps: Sequence[Step]) -> dict[str, str]:
    """Stamp of each step: a hash of its name, its options and its inputs' stamps. Inputs must come first."""
    stamps: dict[str, str] = {}
    for step in steps:
        inputs = {name: stamps[name] for name in step.inputs}
        stamps[step.name] = fingerprint({"name": step.name, "options": step.options, "inputs": inputs})
    return stamps


def stage_seconds(exp_dir: Path, steps: Sequence[str]) -> dict[str, float]:
    """Seconds of each stage's steps, added up by the folder's first part."""
    seconds: dict[str, float] = defaultdict(float)
    for name in steps:
        path = exp_dir / name / STAMP_FILE
        if path.is_file():
            seconds[name.split("/")[0]] += read_json(path)["seconds"]
    return dict(seconds)


def _run_step(step: Step, stamps: dict[str, str], exp_dir: Path) -> float:
    folder = exp_dir / step.name
    beside = folder.with_name(f"{folder.name}.partial")
    stamp = stamps[step.name]
    _open_partial(beside, stamp, keep=step.resumable)
    started = time.time()
    with _log_file(exp_dir / "log" / f"{step.name.replace('/', '_')}.log"):
        try:
            call_in_own_process(lambda: step.run(beside))
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(beside)  # a write knows no name: tell at least whose output it was
            if not step.resumable:
                shutil.rmtree(beside, ignore_errors=True)
            raise
    seconds = time.time() - started
    (beside / PENDING_FILE).unlink()
    write_json(
        beside / STAMP_FILE,
        {
            "stamp": stamp,
            "name": step.name,
            "options": canonical(step.options),
            "inputs": {name: stamps[name] for name in step.inputs},
            "seconds": round(seconds, 2),
            **provenance.versions(),
        },
    )
    publish_dir(beside, folder)
    return seconds


def _open_partial(beside: Path, stamp: str, keep: bool) -> None:
    """Make the folder to fill; go on in the one that stands there only if the same configuration began it."""
    pending = beside / PENDING_FILE
    if not (keep and pending.is_file() and read_json(pending)["stamp"] == stamp):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_json(pending, {"stamp": stamp})


def _made_stamp(folder: Path) -> str | None:
    path = folder / STAMP_FILE
    return read_json(path)["stamp"] if path.is_file() else None


def _require(exp_dir: Path, step: Step, stamp: str, needed_by: Step) -> None:
    made = _made_stamp(exp_dir / step.name)
    if made == stamp:
        return
    what = "is missing" if made is None else f"was made by another configuration (stamp {made}, expected {stamp})"
    raise InputError(
        f"stage {needed_by.stage} ({needed_by.name}) needs {exp_dir / step.name}, which {what}: "
        f"run from --stage {step.stage}"
    )


@contextmanager
def _sole_run(exp_dir: Path) -> Iterator[None]:
    """Hold the experiment, so that two runs cannot write over each other; the lock dies with the process."""
    exp_dir.mkdir(parents=True, exist_ok=True)
    with open(exp_dir / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{exp_dir}: another run is using this experiment") from None
        yield


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Collect the package's log messages of one step in a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("asrkd")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        logger.error("stopped: %s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
