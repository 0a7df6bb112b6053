"""One process a core, forked with everything the work needs already in memory."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

import torch

from asrkd.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
PROBE_SEC = 10.0  # far more than a search of one frame takes on a busy machine
_DONE, _RESULT, _BAD_INPUT, _DEFECT = "done", "result", "bad input", "defect"


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

    Each process takes the next item when it is free, and computes on one thread. Nothing is sent to them:
    they see the parent's memory as it was at the fork. Results come back through a pipe. InputError in a
    process is raised here; a process that dies (killed for memory, say) is an InputError too, never a wait
    without end.
    """
    context = multiprocessing.get_context("fork")
    next_index = context.Value("l", 0)
    workers: dict[Connection, Any] = {}
    try:
        for _ in range(max(1, min(num_jobs, len(items)))):
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(function, items, next_index, send), daemon=True)
            process.start()
            send.close()
            workers[receive] = process
        while workers:
            for pipe in wait(list(workers)):
                assert isinstance(pipe, Connection)
                kind, index, value = _receive(pipe, workers[pipe])
                if kind == _DONE:
                    workers.pop(pipe).join()
                elif kind == _RESULT:
                    yield items[index], value
                elif kind == _BAD_INPUT:
                    raise InputError(value)
                else:
                    raise RuntimeError(f"in a worker process:\n{value}")
    finally:
        for process in workers.values():
            process.terminate()


def _receive(pipe: Connection, process: Any) -> tuple[str, int, Any]:
    try:
        message: tuple[str, int, Any] = pipe.recv()
    except EOFError:
        process.join()
        raise InputError(
            f"a worker process ended with status {process.exitcode} (out of memory?): "
            "try fewer jobs, a smaller beam or fewer active states"
        ) from None
    return message


def _work(function: Callable[[Any], Any], items: list[Any], next_index: Synchronized[int], send: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer: it ends its workers
    # Threads of the parent's pools do not live on in a fork, so a second thread here would be waited for in
    # vain.
    torch.set_num_threads(1)
    try:
        while True:
            with next_index.get_lock():
                index = next_index.value
                next_index.value += 1
            if index >= len(items):
                break
            send.send((_RESULT, index, function(items[index])))
        send.send((_DONE, 0, None))
    except InputError as error:
        send.send((_BAD_INPUT, 0, str(error)))
    except BrokenPipeError:
        pass  # the parent has stopped listening
    except Exception:  # noqa: BLE001 - raised again in the parent, with this traceback
        send.send((_DEFECT, 0, traceback.format_exc()))
