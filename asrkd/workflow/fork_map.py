"""A function of many items on forked processes, which share the memory of what was loaded before.

It needs neither torch nor k2. `asrkd.workflow.local_pool` says what both need of processes that are forked.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from asrkd.errors import InputError
from asrkd.workflow.child_process import end_with
from asrkd.workflow.task import IN_FLIGHT

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
# Items that a process has: the one that it computes, and the next one, so that it need not wait for it.
DISPATCHED = 2
# Processes that may die while they compute an item before the item is given up: as many as Dask allows.
MAX_DEATHS = 3
END_SEC = 2.0
"""How long processes have to remove their temporary files when they are ended."""
_RESULT, _BAD_INPUT, _OS_ERROR, _DEFECT = "result", "bad input", "os error", "defect"


def default_advice(_: object) -> str:
    """The advice where a task has none of its own."""
    return "try fewer jobs (--nj)"


def fork_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_jobs: int,
    out_of_memory: Callable[[Item], str] = default_advice,
) -> Iterator[tuple[int, Result]]:
    """Yield (number of an item, function(item)) as they are finished, in no order, from `num_jobs` forked processes.

    The processes compute on one thread each. They see this process's memory as it was at the fork, so neither the
    function nor the items are sent to them; results come back through a pipe. When a process dies, another one
    computes its items again.

    Raises:
        InputError: an item ended MAX_DEATHS processes, or the function raised InputError. `out_of_memory` gives the
            item's name and what may help.
        OSError: the function raised it.
        RuntimeError: the function raised another exception; the message has its traceback.
    """
    workers = _WorkerPool(function, items, out_of_memory)
    try:
        for _ in range(min(num_jobs, len(items))):
            workers.spawn()
        workers.dispatch()
        while workers.is_busy:
            for pipe in wait(list(workers.assigned)):
                assert isinstance(pipe, Connection)
                message = _receive(pipe)
                if message is None:
                    workers.replace(pipe)
                    continue
                kind, number, value = message
                if kind == _BAD_INPUT:
                    raise InputError(value)
                if kind == _OS_ERROR:
                    raise OSError(*value)
                if kind == _DEFECT:
                    raise RuntimeError(f"in a worker process:\n{value}")
                workers.finished(pipe, number)
                yield number, value
    finally:
        workers.terminate()


class _WorkerPool:
    """The processes, and the numbers of the items that each has not finished."""

    def __init__(
        self, function: Callable[[Any], Any], items: Sequence[Any], out_of_memory: Callable[[Any], str]
    ) -> None:
        self.function, self.items, self.out_of_memory = function, items, out_of_memory
        self.todo = deque(range(len(items)))
        self.assigned: dict[Connection, list[int]] = {}
        self.processes: dict[Connection, Any] = {}
        self.deaths: Counter[int] = Counter()

    @property
    def is_busy(self) -> bool:
        return bool(self.todo) or any(self.assigned.values())

    def spawn(self) -> None:
        """Fork a process."""
        context = multiprocessing.get_context("fork")
        ours, its = context.Pipe()
        # The child closes its copies of our ends. With a copy open, no child would see that this process is gone.
        inherited = [*self.assigned, ours]
        arguments = (self.function, self.items, its, inherited, os.getpid())
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        its.close()
        self.assigned[ours], self.processes[ours] = [], process

    def finished(self, pipe: Connection, number: int) -> None:
        """Note that a process has finished an item, and give it another."""
        self.assigned[pipe].remove(number)
        self.dispatch()

    def replace(self, pipe: Connection) -> None:
        """Fork a new process for one that died. InputError when its first item has ended too many."""
        process, assigned = self.processes.pop(pipe), self.assigned.pop(pipe)
        pipe.close()
        process.join()
        ended = f"a worker process ended with status {process.exitcode} (out of memory?)"
        if assigned:
            self.deaths[assigned[0]] += 1
            if self.deaths[assigned[0]] == MAX_DEATHS:
                raise InputError(f"{ended}: {self.out_of_memory(self.items[assigned[0]])}")
        logger.warning("%s; its items are computed again", ended)
        self.todo.extendleft(reversed(assigned))
        self.spawn()
        self.dispatch()

    def terminate(self) -> None:
        """End the processes: with SIGTERM, and those that do not end because they compute in C++, with SIGKILL."""
        for pipe, process in self.processes.items():
            pipe.close()
            process.terminate()
        deadline = time.monotonic() + END_SEC
        for process in self.processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def dispatch(self) -> None:
        """Send an item to each process that has none, then a second one to each that would have to wait for it.

        The last items are not sent ahead: the process that is free first gets them. Nothing is sent while results
        would pile up.
        """
        for depth in range(DISPATCHED):
            for pipe, assigned in self.assigned.items():
                is_wanted = len(assigned) == depth and len(self.todo) > depth * len(self.assigned)
                if is_wanted and self.todo[0] - self._oldest() < IN_FLIGHT:
                    assigned.append(self.todo.popleft())
                    with suppress(OSError):  # the process died: `fork_map` sees it when it waits for the result
                        pipe.send(assigned[-1])

    def _oldest(self) -> int:
        """The first item that is not finished."""
        return min([self.todo[0], *(assigned[0] for assigned in self.assigned.values() if assigned)])


def _receive(pipe: Connection) -> tuple[str, int, Any] | None:
    """A process's message; None from one that died."""
    try:
        message: tuple[str, int, Any] = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _work(
    function: Callable[[Any], Any], items: Sequence[Any], pipe: Connection, inherited: list[Connection], parent: int
) -> None:
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C: it ends its workers
    for other in inherited:
        other.close()
    # Threads of the parent's pools do not exist in a fork, so a second thread here would wait for them for ever.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    with suppress(EOFError, OSError):  # the parent is gone, or has stopped listening
        while True:
            number = pipe.recv()
            pipe.send(_message(function, number, items[number]))


def _message(function: Callable[[Any], Any], number: int, item: Any) -> tuple[str, int, Any]:
    try:
        return _RESULT, number, function(item)
    except InputError as error:
        return _BAD_INPUT, number, str(error)
    except OSError as error:
        if error.errno is None:  # a library raised it: all it has is the message
            return _BAD_INPUT, number, str(error)
        return _OS_ERROR, number, (error.errno, error.strerror, error.filename)
    except Exception:  # noqa: BLE001 - raised again in the parent, with this traceback
        return _DEFECT, number, traceback.format_exc()
