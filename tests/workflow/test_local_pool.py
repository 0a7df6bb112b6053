"""Forked processes: none is waited for in vain, none outlives its parent, and what one loses another one computes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import is_running

from asrkd.errors import InputError
from asrkd.workflow import fork_map as fork_map_module
from asrkd.workflow.fork_map import fork_map
from asrkd.workflow.local_pool import map_here


def test_a_worker_that_dies_is_an_error_not_a_wait() -> None:
    def work(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(InputError, match=r"ended with status -9 \(out of memory\?\): try fewer jobs"):
        list(fork_map(work, [1, 2, 3], 2))
    with pytest.raises(InputError, match=r"ended with status -9 \(out of memory\?\): 2 is too large"):
        list(fork_map(work, [1, 2, 3], 2, lambda item: f"{item} is too large"))


def test_the_advice_is_that_of_the_task() -> None:
    class Task:
        def open(self) -> Callable[[int], None]:
            return lambda _: os.kill(os.getpid(), signal.SIGKILL)

        def out_of_memory(self, item: int) -> str:
            return f"u{item}: give it less"

    with pytest.raises(InputError, match=r"out of memory\?\): u7: give it less"):
        list(map_here(Task(), [7], 2))


@pytest.mark.parametrize("num_jobs", [1, 3])
def test_a_worker_killed_half_way_loses_nothing(tmp_path: Path, num_jobs: int) -> None:
    """Two of the items end their process once each, half-way; the second time they are done."""

    def work(item: int) -> int:
        mark = tmp_path / f"{item}"
        if item in (3, 11) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item**2

    items = list(range(20))
    assert sorted(fork_map(work, items, num_jobs)) == [(item, item**2) for item in items]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["11", "3"]


def test_workers_end_with_the_process_that_forked_them(tmp_path: Path) -> None:
    """Killed, it cannot end them: each learns it from its pipe, though all were forked with the others' pipes open."""
    forked = """
import os, sys, time
from asrkd.workflow.fork_map import fork_map

def work(item):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    time.sleep(0.05)
    return item

for number, _ in enumerate(fork_map(work, list(range(1000)), 3)):
    if number == 20:
        os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", forked, str(tmp_path)], check=False)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 3
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def test_a_long_item_ends_with_the_process_that_forked_it(tmp_path: Path) -> None:
    """Its worker hears nothing of its pipe before the item is done."""
    forked = """
import os, sys, time
from asrkd.workflow.fork_map import fork_map

def work(item):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    if item:
        while len(os.listdir(sys.argv[1])) < 2:
            time.sleep(0.05)
        os.kill(os.getppid(), 9)
    time.sleep(300)

list(fork_map(work, [0, 1], 2))
"""
    subprocess.run([sys.executable, "-c", forked, str(tmp_path)], check=False)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def test_workers_that_do_not_hear_a_signal_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a search in C++, which takes no notice of a handler of Python's."""

    def work(item: int) -> int:
        if item:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (tmp_path / str(os.getpid())).touch()
            time.sleep(300)
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        return item

    monkeypatch.setattr(fork_map_module, "END_SEC", 0.2)
    results = fork_map(work, [0, 1], 2)
    assert next(results) == (0, 0)
    results.close()
    (path,) = tmp_path.iterdir()
    assert not is_running(int(path.name))


def test_a_workers_defect_keeps_its_traceback() -> None:
    def work(item: int) -> float:
        return 1 / item

    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(fork_map(work, [1, 0], 1))
    assert sorted(fork_map(work, [1, 2, 4], 2)) == [(0, 1.0), (1, 0.5), (2, 0.25)]
