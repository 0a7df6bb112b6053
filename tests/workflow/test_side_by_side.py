"""Trainings side by side: which of them, on how many threads, and what is left when one fails or the run is ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import BrokenBarrierError

import pytest
import torch
from processes import DEADLINE_SEC, is_running, wait_until

from asrkd.errors import InputError
from asrkd.files import write_json
from asrkd.workflow.child_process import run_side_by_side
from asrkd.workflow.stages import StageRange, list_steps, run_steps
from asrkd.workflow.steps import Record, Step, stage_seconds

ROOT = Path(__file__).resolve().parents[2]
# How long one process waits for another that never comes.
ALONE_SEC = 1.0


def meeting(processes: int, wait_sec: float = DEADLINE_SEC) -> Callable[[int], str]:
    """A function that says whether so many processes were in it at once."""
    barrier = multiprocessing.get_context("fork").Barrier(processes)

    def meet(lane: int) -> str:
        try:
            barrier.wait(wait_sec)
        except BrokenBarrierError:
            return "alone"
        return f"met in lane {lane}"

    return meet


class TestFunctions:
    def test_run_at_once_in_lanes_of_their_own(self) -> None:
        assert sorted(run_side_by_side([meeting(2)] * 2, limit=2)) == [(0, "met in lane 0"), (1, "met in lane 1")]

    def test_are_as_many_as_the_limit(self) -> None:
        assert dict(run_side_by_side([meeting(3, ALONE_SEC)] * 3, limit=2)) == dict.fromkeys(range(3), "alone")

    def test_take_the_lane_that_is_free(self) -> None:
        def slow(lane: int) -> int:
            time.sleep(ALONE_SEC)
            return lane

        functions = [slow, *[lambda lane: lane] * 3]
        assert list(run_side_by_side(functions, limit=2)) == [(1, 1), (2, 1), (3, 1), (0, 0)]

    def test_that_fail_end_the_others(self, tmp_path: Path) -> None:
        def fail(lane: int) -> None:
            wait_until((tmp_path / "0").exists)
            raise InputError("no such thing")

        def stay(lane: int) -> None:
            (tmp_path / str(lane)).write_text(str(os.getpid()))
            time.sleep(600)

        with pytest.raises(InputError, match="no such thing"):
            list(run_side_by_side([stay, fail, stay], limit=2))
        assert not is_running(int((tmp_path / "0").read_text()))
        assert not multiprocessing.active_children()

    def test_that_are_killed_are_told_of(self) -> None:
        def end(lane: int) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(InputError, match=r"ended by SIGKILL .out of memory"):
            list(run_side_by_side([end, meeting(1)], limit=2))


def training(name: str, body: Callable[[Path], None], *inputs: str) -> Step:
    return Step(6, name, body, name, inputs, resumable=True, trains=True, networks_only=True)


def writing(said: Callable[[int], object]) -> Callable[[Path], None]:
    """The body of a step that writes what a function of a lane says; the lane is not known here."""

    def body(out_dir: Path) -> None:
        (out_dir / "said").write_text(str(said(0)))

    return body


def said(exp_dir: Path, *names: str) -> list[str]:
    return [(exp_dir / name / "said").read_text() for name in names]


class TestTrainings:
    NAMES = ("teachers/0", "teachers/1")

    def test_run_together(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        both = meeting(2)
        steps = [training(name, writing(both)) for name in self.NAMES]
        run_steps(steps, tmp_path, network_jobs=2)
        assert said(tmp_path, *self.NAMES) == ["met in lane 0"] * 2
        assert list_steps(steps, tmp_path, stale_only=True) == ["every step is up to date"]
        printed = capsys.readouterr().out
        assert "(teachers/1, step 2 of 2): no output yet" in printed and "   teachers/1: done in " in printed

    @pytest.mark.parametrize("network_jobs", [1, 2])
    def test_that_read_each_other_do_not(self, tmp_path: Path, network_jobs: int) -> None:
        alone = writing(meeting(2, ALONE_SEC))
        steps = [training("students/first", alone), training("students/second", alone, "students/first")]
        run_steps(steps, tmp_path, network_jobs=network_jobs)
        assert said(tmp_path, "students/first", "students/second") == ["alone"] * 2

    def test_do_not_pass_other_steps(self, tmp_path: Path) -> None:
        alone = writing(meeting(2, ALONE_SEC))
        between = Step(7, "posteriors", writing(len_of_none), None)
        run_steps([training("teachers/0", alone), between, training("students/a", alone)], tmp_path, network_jobs=2)
        assert said(tmp_path, "teachers/0", "students/a") == ["alone"] * 2

    def test_that_compute_most_start_first(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        both = meeting(2)
        steps = [training(f"students/{name}", writing(meeting(1))) for name in "ab"]
        steps += [replace(training(f"students/{name}", writing(both)), work=5.0) for name in "cd"]
        run_steps(steps, tmp_path, network_jobs=2)
        assert said(tmp_path, "students/c", "students/d") == ["met in lane 0"] * 2
        ended = [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines() if "done in" in line]
        assert sorted(ended[:2]) == ["students/c", "students/d"]

    def test_share_the_threads(self, tmp_path: Path) -> None:
        def threads(_: int) -> int:
            return torch.get_num_threads()

        def steps() -> list[Step]:
            return [training(name, writing(threads)) for name in self.NAMES]

        before = torch.get_num_threads()
        torch.set_num_threads(4)
        try:
            run_steps(steps(), tmp_path / "two", network_jobs=2)
            run_steps(steps()[:1], tmp_path / "one", network_jobs=2)
            run_steps(steps(), tmp_path / "many", network_jobs=9)
        finally:
            torch.set_num_threads(before)
        assert said(tmp_path / "two", *self.NAMES) == ["2", "2"]
        assert said(tmp_path / "one", "teachers/0") == ["4"]
        assert said(tmp_path / "many", *self.NAMES) == ["2", "2"], "lanes are no more than steps"

    def test_that_are_ended_by_the_failure_of_another_continue(self, tmp_path: Path) -> None:
        def resuming(out_dir: Path) -> None:
            if not (out_dir / "epoch0").exists():
                (out_dir / "epoch0").touch()
                time.sleep(600)

        def failing(out_dir: Path) -> None:
            wait_until((tmp_path / "teachers" / "0.partial" / "epoch0").exists)
            raise InputError("teachers/1: no frames")

        steps = [training("teachers/0", resuming), training("teachers/1", failing)]
        with pytest.raises(InputError, match="no frames"):
            run_steps(steps, tmp_path, network_jobs=2)
        assert not (tmp_path / "teachers" / "0").exists()
        run_steps(steps[:1], tmp_path, network_jobs=2)
        assert (tmp_path / "teachers" / "0" / "epoch0").exists()

    def test_of_a_folder_are_locked(self, tmp_path: Path) -> None:
        def locked(_: int) -> str:
            with pytest.raises(InputError, match="another run is making teachers/1"):
                run_steps(steps, tmp_path, StageRange(only="teachers/1"))
            return "locked"

        both = meeting(2)

        def meet_locked(lane: int) -> str:
            return f"{both(lane)}, {locked(lane)}, {both(lane)}"

        def meet(lane: int) -> str:
            return f"{both(lane)}, {both(lane)}"

        steps = [training("teachers/0", writing(meet_locked)), training("teachers/1", writing(meet))]
        run_steps(steps, tmp_path, StageRange(only="teachers"), network_jobs=2)
        assert "locked" in said(tmp_path, "teachers/0")[0]


def len_of_none(_: int) -> int:
    return 0


# A test that runs in the background of a shell starts with SIGINT ignored.
RUN_AND_WAIT = """
import os, signal, sys, time
from pathlib import Path
from asrkd.terminal import tidy_end
from asrkd.workflow.stages import run_steps
from asrkd.files import write_json
from asrkd.workflow.steps import Record, Step, stage_seconds
signal.signal(signal.SIGINT, signal.default_int_handler)
def stay(out_dir):
    (out_dir / "pid").write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(600)
steps = [Step(6, f"teachers/{n}", stay, n, resumable=True, trains=True, networks_only=True) for n in range(2)]
with tidy_end():
    run_steps(steps, Path(sys.argv[1]), network_jobs=2)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_is_left_when_the_run_ends(tmp_path: Path, number: signal.Signals) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_WAIT, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    files = [tmp_path / "teachers" / f"{n}.partial" / "pid" for n in range(2)]
    wait_until(lambda: all(file.is_file() and len(file.read_text().split()) == 2 for file in files))
    processes = [int(pid) for file in files for pid in file.read_text().split()]
    run.send_signal(number)
    assert run.wait(DEADLINE_SEC) != 0
    wait_until(lambda: not any(map(is_running, processes)))


def test_the_time_of_a_stage_counts_what_ran_side_by_side_once(tmp_path: Path) -> None:
    spans = {"teachers/0": (10, 30), "teachers/1": (10, 25), "teachers/2": (30, 40), "students/a": (41, 45)}
    steps = []
    for name, (begin, end) in spans.items():
        steps.append(Step(6 if name.startswith("teachers") else 8, name, len_of_none))
        finished = f"2026-11-30T10:00:{end}+00:00"
        (tmp_path / name).mkdir(parents=True)
        write_json(tmp_path / name / "stamp.json", Record("s", None, None, {}, end - begin, finished, {}))
    assert stage_seconds(tmp_path, steps) == {"teachers": 30.0, "students": 4.0}
