"""One process a core, forked with everything the work needs already in memory."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from asrkd.errors import InputError
from asrkd.workflow.executor import IN_FLIGHT

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
PROBE_SEC = 10.0  # far more than a search of one frame takes on a busy machine
# Items that a process has: one that it does, and one so that it need not wait for the next.
DISPATCHED = 2
# Processes that may die at an item before it is not tried again: as many as Dask allows.
MAX_DEATHS = 3
_RESULT, _BAD_INPUT, _DEFECT = "result", "bad input", "defect"


def survives_a_fork(function: Callable[[], object], timeout_sec: float = PROBE_SEC) -> bool:
    """Whether `function` ends in a forked process, tried out there.

    Not so when it waits for threads that a library started in this process earlier: a fork does not copy
    them.
    """
    process = multiprocessing.get_context("fork").Process(target=_probe, args=(function,), daemon=True)
    process.start()
    process.join(timeout_sec)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode == 0


def _probe(function: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    function()


def fork_map(function: Callable[[Item], Result], items: list[Item], num_jobs: int) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) as they are finished, in no order, from `num_jobs` forked processes.

    Each process has the item that it does and the next one, and computes on one thread. What the work needs is not
    sent to them: they see the parent's memory as it was at the fork. Results come back through a pipe. What a process
    that dies had not finished is done again by another one; an item that ends MAX_DEATHS of them is an InputError,
    never a wait without end, and so is an InputError in a process.
    """
    workers = _WorkerPool(function, items)
    try:
        for _ in range(min(num_jobs, len(items))):
            workers.spawn()
        workers.dispatch()
        while workers.is_busy:
            for pipe in wait(list(workers.held)):
                assert isinstance(pipe, Connection)
                message = _receive(pipe)
                if message is None:
                    workers.replace(pipe)
                    continue
                kind, index, value = message
                if kind == _BAD_INPUT:
                    raise InputError(value)
                if kind == _DEFECT:
                    raise RuntimeError(f"in a worker process:\n{value}")
                workers.finished(pipe, index)
                yield items[index], value
    finally:
        workers.dismiss()


class _WorkerPool:
    """The processes, and which items each has not finished."""

    def __init__(self, function: Callable[[Any], Any], items: list[Any]) -> None:
        self.function, self.items = function, items
        self.todo = deque(range(len(items)))
        self.held: dict[Connection, list[int]] = {}
        self.processes: dict[Connection, Any] = {}
        self.deaths: Counter[int] = Counter()

    @property
    def is_busy(self) -> bool:
        return bool(self.todo) or any(self.held.values())

    def spawn(self) -> None:
        """Fork a process."""
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        # Its copies of this process' ends are closed in it, or no process would learn that this one is gone.
        inherited = [*self.held, here]
        process = context.Process(target=_work, args=(self.function, self.items, there, inherited), daemon=True)
        process.start()
        there.close()
        self.held[here], self.processes[here] = [], process

    def finished(self, pipe: Connection, index: int) -> None:
        """A process has done an item, and gets another."""
        self.held[pipe].remove(index)
        self.dispatch()

    def replace(self, pipe: Connection) -> None:
        """A process died: a new one does what it had. InputError where that item has ended too many."""
        process, held = self.processes.pop(pipe), self.held.pop(pipe)
        pipe.close()
        process.join()
        ended = f"a worker process ended with status {process.exitcode} (out of memory?)"
        if held:
            self.deaths[held[0]] += 1
            if self.deaths[held[0]] == MAX_DEATHS:
                raise InputError(f"{ended}: try fewer jobs, a smaller beam or fewer active states")
        logger.warning("%s; what it had is done again", ended)
        self.todo.extendleft(reversed(held))
        self.spawn()
        self.dispatch()

    def dismiss(self) -> None:
        for pipe, process in self.processes.items():
            pipe.close()
            process.terminate()
            process.join()

    def dispatch(self) -> None:
        """An item to each process that has none, then one to each that would have to wait for it.

        Not the last ones, which whoever is free first should do, and none while results would pile up.
        """
        for depth in range(DISPATCHED):
            for pipe, held in self.held.items():
                is_wanted = len(held) == depth and len(self.todo) > depth * len(self.held)
                if is_wanted and self.todo[0] - self._oldest() < IN_FLIGHT:
                    held.append(self.todo.popleft())
                    with suppress(OSError):  # it died: that is told when its result is waited for
                        pipe.send(held[-1])

    def _oldest(self) -> int:
        """The first item that is not finished."""
        return min([self.todo[0], *(held[0] for held in self.held.values() if held)])


def _receive(pipe: Connection) -> tuple[str, int, Any] | None:
    """A process' message; None from one that died."""
    try:
        message: tuple[str, int, Any] = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _work(function: Callable[[Any], Any], items: list[Any], pipe: Connection, inherited: Sequence[Connection]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer: it ends its workers
    for other in inherited:
        other.close()
    # Threads of the parent's pools do not live on in a fork, so a second thread here would be waited for in
    # vain.
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):  # the parent is gone, or has stopped listening
        while True:
            index = pipe.recv()
            pipe.send(_message(function, index, items[index]))


def _message(function: Callable[[Any], Any], index: int, item: Any) -> tuple[str, int, Any]:
    try:
        return _RESULT, index, function(item)
    except InputError as error:
        return _BAD_INPUT, index, str(error)
    except Exception:  # noqa: BLE001 - raised again in the parent, with this traceback
        return _DEFECT, index, traceback.format_exc()
