"""A task on the processes of any `concurrent.futures` executor, which share no memory with this one."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import torch

from asrkd.errors import InputError
from asrkd.workflow import provenance
from asrkd.workflow.task import IN_FLIGHT, Task

Item = TypeVar("Item")
Result = TypeVar("Result")


class Call(NamedTuple):
    """One call of `map_on`, as its workers know it."""

    name: str
    """Unique. Another call may send an equal task after its files have changed, so workers must open it again."""
    code: Mapping[str, str]
    """Versions that the workers must have, from `provenance.code` of the calling process."""


_opening = Lock()
# The function of the last call that this process worked for, by the call's name.
_opened: dict[str, Callable[[Any], Any]] = {}


def map_on(
    pool: futures.Executor, task: Task[Item, Result], items: Sequence[Item], in_flight: int = IN_FLIGHT
) -> Iterator[tuple[int, Result]]:
    """Yield (number of an item, its result) as they are finished. InputError when all workers are lost."""
    call = Call(uuid.uuid4().hex, provenance.code())
    pending: dict[futures.Future[Result], int] = {}  # number of each item, in the order of dispatch
    following = 0
    try:
        while pending or following < len(items):
            while following < len(items) and following - next(iter(pending.values()), following) < in_flight:
                pending[pool.submit(_apply, call, task, items[following])] = following
                following += 1
            done, _ = futures.wait(pending, return_when=futures.FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()
    except (futures.BrokenExecutor, futures.CancelledError) as error:
        raise InputError(
            f"the executor lost its workers ({type(error).__name__}); run the same command again to continue"
        ) from None
    finally:
        for future in pending:
            future.cancel()


def _apply(call: Call, task: Task[Item, Result], item: Item) -> Result:
    """In a worker: open the task at the call's first item, and compute the item on one thread.

    InputError when the worker would compute something else. Each worker checks, for one may join during the call.
    """
    with _opening:
        if call.name not in _opened:
            require_same_code(call.code, {f"{socket.gethostname()}, process {os.getpid()}": provenance.code()})
            torch.set_num_threads(1)
            _opened.clear()
            _opened[call.name] = task.open()
        function = _opened[call.name]
    return function(item)


def require_same_code(expected: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]) -> None:
    """InputError for a worker whose code or libraries are not those of this process."""
    for name, found in workers.items():
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        if wrong:
            key = wrong[0]
            raise InputError(f"worker {name}: expected {key} {expected.get(key)}, as here, found {found.get(key)}")
