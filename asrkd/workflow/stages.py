"""Run numbered stages, as in Kaldi's run.sh: --stage and --stop-stage, stamps, logs, whole outputs or none.

A stage is one or more steps (a teacher is a step of stage 6); `asrkd.workflow.steps` says what a step is and when it is
up to date. Any other step runs into `<folder>.partial`, which takes the folder's place when the step ends well. Each
step runs in a process of its own, so that none inherits another's memory or threads. Steps that only train or score
networks can run in another interpreter (`asrkd.workflow.interpreter`), and several trainings side by side.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import canonical, folder_fingerprint, publish_dir, read_json, sync_tree, write_json
from asrkd.terminal import show_bars_on_line, tidy_end
from asrkd.workflow import provenance
from asrkd.workflow.child_process import run_in_subprocess, run_side_by_side
from asrkd.workflow.distributed import ProcessGroup
from asrkd.workflow.interpreter import Interpreter
from asrkd.workflow.step_log import step_log
from asrkd.workflow.step_server import import_optimisers
from asrkd.workflow.steps import LAST_STAGE, PENDING_FILE, STAMP_FILE, Record, Stamps, Step
from asrkd.workflow.task import with_share_of_threads


@dataclass(frozen=True)
class StageRange:
    """Which steps of a run to look at."""

    first: int = 0
    """First stage."""
    last: int = LAST_STAGE
    """Last stage."""
    only: str | None = None
    """The one step to run, or the folder of the steps to run (a fold); None: all of these stages."""

    def includes(self, step: Step) -> bool:
        """Whether a step is in the range."""
        named = self.only is None or step.name == self.only or step.name.startswith(f"{self.only}/")
        return named and self.first <= step.stage <= self.last


def run_steps(
    steps: Sequence[Step],
    exp_dir: Path,
    stages: StageRange = StageRange(),
    on_start: Callable[[], None] = lambda: None,
    interpreter: Interpreter | None = None,
    network_jobs: int = 1,
) -> None:
    """Run the steps of `stages` that are not up to date.

    Steps that are run alone lock themselves, not the experiment: other machines may run others meanwhile. Call this
    from a process that has not computed with torch or k2 yet: steps are forked (`asrkd.workflow.child_process`).
    `on_start` is called once the experiment is locked, before the first step. `interpreter` runs the steps that need
    networks alone. So many trainings as `network_jobs` run side by side, where none reads another's output.

    Raises:
        InputError: a needed earlier output is missing or was made by another configuration; another run has locked the
            experiment or the step; or whatever a step reports about its input.
    """
    ranks = ProcessGroup.from_environment()
    chosen = _chosen(steps, stages, ranks)
    stamps = Stamps(steps, exp_dir)
    by_name = {step.name: step for step in steps}
    with _locked_experiment(exp_dir, stages.only) if ranks.is_main else nullcontext():
        if ranks.is_main:
            with _locked(exp_dir / ".locks" / "start", wait=True):  # several runs of one step can start together
                on_start()
        run = _Run(by_name, stamps, exp_dir, stages, interpreter, ranks, len(chosen))
        for group in _groups(chosen, together=network_jobs > 1 and ranks.size == 1):
            run.group(group, network_jobs)


Numbered = tuple[int, Step]
"""A step and its number among those of a run, from 1."""


def _groups(steps: Sequence[Step], together: bool) -> Iterator[list[Numbered]]:
    """The steps in order, each alone; if `together`, trainings that follow and do not read one another in one group."""
    group: list[Numbered] = []
    for number, step in enumerate(steps, start=1):
        if group and not (together and _can_join(step, group)):
            yield group
            group = []
        group.append((number, step))
    if group:
        yield group


def _can_join(step: Step, group: Sequence[Numbered]) -> bool:
    """Whether a step can run beside those of a group."""
    names = {one.name for _, one in group}
    trainings = all(one.trains and one.networks_only for one in (step, group[-1][1]))
    return trainings and names.isdisjoint(step.inputs)


@dataclass(frozen=True)
class _Run:
    """One call of `run_steps`."""

    by_name: Mapping[str, Step]
    stamps: Stamps
    exp_dir: Path
    stages: StageRange
    interpreter: Interpreter | None
    ranks: ProcessGroup
    num_steps: int

    def group(self, group: Sequence[Numbered], jobs: int) -> None:
        """Run the steps of a group that are not up to date, `jobs` at a time, each with its share of the threads."""
        steps = [step for number, step in group if self._must_run(number, step)]
        lanes = min(jobs, len(steps))
        if lanes > 1:
            steps.sort(key=lambda step: -step.work)
            calls = [partial(self._run_in_lane, step, lanes) for step in steps]
            for number, seconds in run_side_by_side(calls, lanes):
                self._print(f"   {steps[number].name}: done in {seconds:.1f} s")
        elif steps:
            self._print(f"   done in {self._run_locked(steps[0], self.interpreter):.1f} s")
        self.stamps.forget()

    def _must_run(self, number: int, step: Step) -> bool:
        """Whether a step is not up to date; says so. InputError where what it reads is missing."""
        label = f"stage {step.stage} of {LAST_STAGE} ({step.name}, step {number} of {self.num_steps})"
        reason = self.stamps.stale(step.name)
        if reason is None:
            self._print(f"-- {label}: up to date")
            return False
        for name in step.inputs:
            _require_input(self.stamps, self.by_name, name, needed_by=step, exp_dir=self.exp_dir)
        self._print(f"== {label}: {reason}")
        return True

    def _run_locked(self, step: Step, interpreter: Interpreter | None, lanes: int = 1) -> float:
        """Run a step; the seconds that it took."""
        interpreter = interpreter if step.networks_only else None
        if not self.ranks.is_main:
            return _compute_with_main(step, self.stamps, self.exp_dir, interpreter)
        # A run of a folder of steps has locked the folder, and locks each step while it makes it.
        in_folder = self.stages.only not in (None, step.name)
        with _locked_step(self.exp_dir, step.name) if in_folder else nullcontext():
            return _run_step(step, self.stamps, self.exp_dir, interpreter, lanes)

    def _run_in_lane(self, step: Step, lanes: int, lane: int) -> float:
        """Run a step in this process, one of `lanes`. An interpreter runs one step at a time, so it has its own."""
        show_bars_on_line(lane)
        python = None if self.interpreter is None else self.interpreter.python
        # Ended because another lane failed, it ends the step's process first, and with it what the locks hold.
        with tidy_end(), nullcontext() if python is None else Interpreter(python) as interpreter:
            return self._run_locked(step, interpreter, lanes)

    def _print(self, line: str) -> None:
        if self.ranks.is_main:
            print(line, flush=True)


def list_steps(
    steps: Sequence[Step],
    exp_dir: Path,
    stages: StageRange = StageRange(),
    stale_only: bool = False,
    python: Path | None = None,
) -> list[str]:
    """What `run_steps` would do: a line for each step, or for those that would run alone, with the reason.

    `python` is the interpreter of steps that need networks alone; their lines name it.

    A step that reads one that would run is listed too. It may turn out up to date, where only the content of what it
    reads counts.
    """
    stamps = Stamps(steps, exp_dir)
    follows: dict[str, str] = {}
    lines = []
    width = max(28, *(len(step.name) for step in steps))
    for step in _chosen(steps, stages, ProcessGroup()):
        reason = stamps.stale(step.name)
        before = next((name for name in step.inputs if name in follows), None)
        if before is not None and (reason is None or reason.startswith("input changed")):
            reason = f"reads {before}, which runs"
        if reason is not None:
            follows[step.name] = reason
        if reason is not None or not stale_only:
            where = f"  [{python}]" if python is not None and step.networks_only else ""
            lines.append(f"{step.stage:>2}  {step.name:<{width}} {reason or 'up to date'}{where}")
    return lines or ["every step is up to date"]


def _chosen(steps: Sequence[Step], stages: StageRange, ranks: ProcessGroup) -> list[Step]:
    """The steps to run. InputError for a range or a name that has none, or one that torchrun cannot share out."""
    first, last, only = stages.first, stages.last, stages.only
    if first > last:
        raise InputError(f"--stage {first} comes after --stop-stage {last}")
    chosen = [step for step in steps if stages.includes(step)]
    if only is not None and not chosen:
        names = [step.name for step in steps]
        nearest = difflib.get_close_matches(only, names, n=1, cutoff=0.0)
        exists = any(StageRange(only=only).includes(step) for step in steps)
        where = f"in stages {first} to {last}" if exists else f"the nearest is {nearest[0]}"
        raise InputError(f"--only: expected the name of a step, found {only} ({where})")
    if ranks.size > 1 and (only != chosen[0].name or not chosen[0].torchrun):
        able = ", ".join(step.name for step in steps if step.torchrun) or "none in this recipe"
        raise InputError(f"torchrun: expected --only with a step that processes can share ({able}), found {only}")
    return chosen


def _partial(step: Step, exp_dir: Path) -> Path:
    """The folder that a step fills; it takes the step's name when the step ends well."""
    folder = exp_dir / step.name
    return folder.with_name(f"{folder.name}.partial")


def _compute(step: Step, partial_dir: Path, interpreter: Interpreter | None, lanes: int = 1) -> None:
    """Fill a step's folder, in a process of its own, beside those of other lanes."""
    function = partial(step.run, partial_dir)
    if lanes > 1:
        function = partial(with_share_of_threads, lanes, function)
    if interpreter is not None:
        interpreter.run(function, trains=step.trains)
        return
    if step.trains:
        import_optimisers()
    run_in_subprocess(function)


def _compute_with_main(step: Step, stamps: Stamps, exp_dir: Path, interpreter: Interpreter | None) -> float:
    """Compute a step that the main process of torchrun runs, which alone writes."""
    expected = stamps.stamp(step.name)
    records = (Record.read(_partial(step, exp_dir)), Record.read(exp_dir / step.name))
    if any(record is not None and record.stamp == expected for record in records):
        return 0.0  # it is finished and is being renamed
    started = time.time()
    _compute(step, _partial(step, exp_dir), interpreter)
    return time.time() - started


def _run_step(step: Step, stamps: Stamps, exp_dir: Path, interpreter: Interpreter | None, lanes: int = 1) -> float:
    folder = _partial(step, exp_dir)
    stamp = stamps.stamp(step.name)
    finished = Record.read(folder)
    if finished is not None and finished.stamp == stamp:  # killed between its end and its renaming
        publish_dir(folder, exp_dir / step.name)
        return 0.0
    spent = _open_partial(folder, stamp, resume=step.resumable)
    started = time.time()
    with step_log(exp_dir / "log" / f"{step.name.replace('/', '_')}.log"):
        try:
            _compute(step, folder, interpreter, lanes)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                error.filename = str(folder)  # a failed write has no file name: name the step's output at least
            if not step.resumable:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    seconds = time.time() - started
    sync_tree(folder)  # the stamp says that everything is on the disk
    record = Record(
        stamp=stamp,
        content=_content(step, folder),
        options=canonical(step.options),
        inputs=stamps.inputs(step.name),
        seconds=round(spent + seconds, 2),
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        code=provenance.code_record() if interpreter is None else interpreter.code,
    )
    write_json(folder / STAMP_FILE, record)
    (folder / PENDING_FILE).unlink()
    publish_dir(folder, exp_dir / step.name)
    return seconds


def _content(step: Step, folder: Path) -> str:
    return step.content(folder) if step.content else folder_fingerprint(folder, excluded=(PENDING_FILE,))


def _begun(pending: Path) -> dict[str, Any]:
    """What an interrupted attempt wrote of itself; nothing if that is damaged or of another version."""
    try:
        content = read_json(pending) if pending.is_file() else {}
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def _open_partial(partial: Path, stamp: str, resume: bool) -> float:
    """Make the folder to fill, or resume in the one that is there if the same configuration began it.

    Returns the seconds that earlier attempts took, as far as the times of the files in the folder show.
    """
    pending = partial / PENDING_FILE
    spent = 0.0
    begun = _begun(pending)
    if resume and begun.get("stamp") == stamp:
        last = max(path.stat().st_mtime for path in partial.rglob("*"))
        earlier, started = begun.get("spent"), begun.get("started")
        if isinstance(earlier, (int, float)) and isinstance(started, (int, float)):
            spent = earlier + max(0.0, last - started)
    else:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    write_json(pending, {"stamp": stamp, "started": time.time(), "spent": spent})
    return spent


def _require_input(stamps: Stamps, by_name: Mapping[str, Step], name: str, needed_by: Step, exp_dir: Path) -> None:
    """InputError, naming the first step that must run, if an input is missing or out of date."""
    if stamps.stale(name) is None:
        return
    what = "is missing"
    if stamps.record(name) is not None:
        what = f"was made by another configuration ({stamps.stale(name)})"
    raise InputError(
        f"stage {needed_by.stage} ({needed_by.name}) needs {exp_dir / name}, which {what}: "
        f"run from --stage {_first_stale_stage(stamps, by_name, name)}"
    )


def _first_stale_stage(stamps: Stamps, by_name: Mapping[str, Step], name: str) -> int:
    """The first stage that must run for a stale step: its own, or that of a stale step that it depends on."""
    stale, waiting = {name}, [name]
    while waiting:
        inputs = by_name[waiting.pop()].inputs
        found = [before for before in inputs if before not in stale and stamps.stale(before) is not None]
        stale.update(found)
        waiting += found
    return min(by_name[one].stage for one in stale)


@contextmanager
def _locked_experiment(exp_dir: Path, only: str | None) -> Iterator[None]:
    """Lock the experiment, so that two runs cannot write over each other; the locks end with the process.

    A run of one step, or of a folder of steps, shares the experiment with others of its kind, and locks what it makes.
    """
    (exp_dir / ".locks").mkdir(parents=True, exist_ok=True)
    whole = _locked(exp_dir / ".lock", shared=only is not None, what=f"{exp_dir}: another run is using this experiment")
    with whole, nullcontext() if only is None else _locked_step(exp_dir, only):
        yield


@contextmanager
def _locked_step(exp_dir: Path, name: str) -> Iterator[None]:
    """Lock a step, or a folder of steps. InputError if another process has locked it."""
    with _locked(exp_dir / ".locks" / name.replace("/", "_"), what=f"{exp_dir}: another run is making {name}"):
        yield


@contextmanager
def _locked(path: Path, what: str = "", shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Lock a file. InputError, with the text `what`, if another process has locked it and this one does not wait."""
    # Both reading and writing, which a network file system wants of a shared lock.
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(what) from None
        yield
    finally:
        os.close(lock)
