"""Numbered stages, as in Kaldi's run.sh: --stage/--stop-stage, stamps, logs, whole outputs or none.

A stage is one or more steps (a teacher is a step of stage 6). A step fills one folder under the experiment; its stamp
is a hash of its options and of its inputs' stamps. A step whose folder carries the stamp is skipped; any other is run
into `<folder>.partial`, which takes the folder's place when the step ends well. Each step runs in a process of its
own, so that none inherits another's memory or threads.
"""

from __future__ import annotations

import difflib
import fcntl
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import canonical, fingerprint, publish_dir, read_json, sync_tree, write_json
from asrkd.workflow import provenance
from asrkd.workflow.child_process import run_in_subprocess
from asrkd.workflow.distributed import ProcessGroup

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
    trains: bool = False
    """Whether it makes an optimiser, and so needs what that imports."""
    shared: bool = False
    """Whether it is one training, which processes started by torchrun can share."""
    place: str = ""
    """Where it finds files that its output names by their paths. It is made anew, with the stamp it had, when they are
    elsewhere now."""


def run_steps(
    steps: Sequence[Step], exp_dir: Path, first: int = 0, last: int = LAST_STAGE, only: str | None = None
) -> None:
    """Run the steps of stages `first` to `last` that are not up to date; of these `only` one, where it is named.

    A step that is run alone holds itself, not the experiment: other machines may run other steps meanwhile. Call it
    from a process that has not computed with torch or k2 yet: steps are forked (`asrkd.workflow.child_process`).

    Raises:
        InputError: a needed earlier output is missing or was made by another configuration; another run holds the
            experiment or the step; or whatever a step says of its input.
    """
    ranks = ProcessGroup.from_environment()
    chosen = _chosen(steps, first, last, only, ranks)
    stamps = step_stamps(steps)
    by_name = {step.name: step for step in steps}
    with _locked_experiment(exp_dir, only) if ranks.is_main else nullcontext():
        for place, step in enumerate(chosen, start=1):
            label = f"stage {step.stage} of {LAST_STAGE} ({step.name}, step {place} of {len(chosen)})"
            if _is_up_to_date(step, stamps[step.name], exp_dir):
                _print(ranks, f"-- {label}: up to date")
                continue
            for name in step.inputs:
                _require(exp_dir, by_name[name], stamps[name], needed_by=step)
            _print(ranks, f"== {label}")
            run = _run_step if ranks.is_main else _help_with
            seconds = run(step, stamps, exp_dir)
            _print(ranks, f"   done in {seconds:.1f} s")


def _import_ahead() -> None:
    """Import once what torch 2 imports when it makes an optimiser: it would take each step's process 2 seconds anew."""
    if find_spec("torch._dynamo"):
        import_module("torch._dynamo")


def _chosen(steps: Sequence[Step], first: int, last: int, only: str | None, ranks: ProcessGroup) -> list[Step]:
    """The steps to run. InputError for a range or a name that has none, or one that torchrun cannot share out."""
    if first > last:
        raise InputError(f"--stage {first} comes after --stop-stage {last}")
    chosen = [step for step in steps if first <= step.stage <= last and only in (None, step.name)]
    if only is not None and not chosen:
        names = [step.name for step in steps]
        nearest = difflib.get_close_matches(only, names, n=1, cutoff=0.0)
        where = f"in stages {first} to {last}" if only in names else f"the nearest is {nearest[0]}"
        raise InputError(f"--only: expected the name of a step, found {only} ({where})")
    if ranks.size > 1 and (only is None or not chosen[0].shared):
        able = ", ".join(step.name for step in steps if step.shared) or "none in this recipe"
        raise InputError(f"torchrun: expected --only with a step that processes can share ({able}), found {only}")
    return chosen


def _print(ranks: ProcessGroup, line: str) -> None:
    if ranks.is_main:
        print(line, flush=True)


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


def _partial(step: Step, exp_dir: Path) -> Path:
    """The folder that a step fills; it takes its place when the step ends well."""
    folder = exp_dir / step.name
    return folder.with_name(f"{folder.name}.partial")


def _help_with(step: Step, stamps: dict[str, str], exp_dir: Path) -> float:
    """Compute a step that another process runs: what is written is that one's."""
    if stamps[step.name] in (_finished_stamp(_partial(step, exp_dir)), _finished_stamp(exp_dir / step.name)):
        return 0.0  # it was made, and is given its name meanwhile
    started = time.time()
    run_in_subprocess(lambda: step.run(_partial(step, exp_dir)))
    return time.time() - started


def _run_step(step: Step, stamps: dict[str, str], exp_dir: Path) -> float:
    beside = _partial(step, exp_dir)
    stamp = stamps[step.name]
    if _finished_stamp(beside) == stamp:  # killed between its end and its renaming
        publish_dir(beside, exp_dir / step.name)
        return 0.0
    spent = _open_partial(beside, stamp, keep=step.resumable)
    started = time.time()
    if step.trains:
        _import_ahead()
    with _log_file(exp_dir / "log" / f"{step.name.replace('/', '_')}.log"):
        try:
            run_in_subprocess(lambda: step.run(beside))
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(beside)  # a write knows no name: tell at least whose output it was
            if not step.resumable:
                shutil.rmtree(beside, ignore_errors=True)
            raise
    seconds = time.time() - started
    sync_tree(beside)  # the stamp says that all is there
    write_json(
        beside / STAMP_FILE,
        {
            "stamp": stamp,
            "name": step.name,
            "options": canonical(step.options),
            "inputs": {name: stamps[name] for name in step.inputs},
            "place": step.place,
            "seconds": round(spent + seconds, 2),
            **provenance.versions(),
        },
    )
    (beside / PENDING_FILE).unlink()
    publish_dir(beside, exp_dir / step.name)
    return seconds


def _open_partial(beside: Path, stamp: str, keep: bool) -> float:
    """Make the folder to fill; go on in the one that stands there only if the same configuration began it.

    Returns the seconds that went into what stands there, as far as the times of its files tell.
    """
    pending = beside / PENDING_FILE
    spent = 0.0
    if keep and pending.is_file() and (begun := read_json(pending))["stamp"] == stamp:
        last = max(path.stat().st_mtime for path in beside.rglob("*"))
        spent = begun.get("spent", 0.0) + max(0.0, last - begun.get("started", last))
    else:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    write_json(pending, {"stamp": stamp, "started": time.time(), "spent": spent})
    return spent


def _is_up_to_date(step: Step, stamp: str, exp_dir: Path) -> bool:
    folder = exp_dir / step.name
    return _finished_stamp(folder) == stamp and read_json(folder / STAMP_FILE).get("place", step.place) == step.place


def _finished_stamp(folder: Path) -> str | None:
    path = folder / STAMP_FILE
    return read_json(path)["stamp"] if path.is_file() else None


def _require(exp_dir: Path, step: Step, stamp: str, needed_by: Step) -> None:
    made = _finished_stamp(exp_dir / step.name)
    if made == stamp:
        return
    what = "is missing" if made is None else f"was made by another configuration (stamp {made}, expected {stamp})"
    raise InputError(
        f"stage {needed_by.stage} ({needed_by.name}) needs {exp_dir / step.name}, which {what}: "
        f"run from --stage {step.stage}"
    )


@contextmanager
def _locked_experiment(exp_dir: Path, only: str | None) -> Iterator[None]:
    """Hold the experiment, so that two runs cannot write over each other; the locks die with the process.

    A run of one step shares the experiment with others of its kind and holds its step alone.
    """
    exp_dir.mkdir(parents=True, exist_ok=True)
    with _locked(exp_dir / ".lock", shared=only is not None, what=f"{exp_dir}: another run is using this experiment"):
        if only is None:
            yield
            return
        path = exp_dir / ".locks" / only.replace("/", "_")
        path.parent.mkdir(exist_ok=True)
        with _locked(path, shared=False, what=f"{exp_dir}: another run is making {only}"):
            yield


@contextmanager
def _locked(path: Path, shared: bool, what: str) -> Iterator[None]:
    with open(path, "a+") as lock:  # both reading and writing, which a network file system wants of a shared lock
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(what) from None
        yield


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Collect the package's log messages of one step in a file of its own; warnings are shown too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("   warning: %(message)s"))
    console.addFilter(lambda record: record.levelno == logging.WARNING)  # errors are told by who called
    logger = logging.getLogger("asrkd")
    logger.addHandler(handler)
    logger.addHandler(console)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        logger.error("stopped: %s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(console)
        logger.removeHandler(handler)
        handler.close()
