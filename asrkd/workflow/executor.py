"""Work on any `concurrent.futures` executor, opened once in each of its processes."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from asrkd.errors import InputError
from asrkd.workflow import provenance

if TYPE_CHECKING:
    from asrkd.workflow.map import Work

Item = TypeVar("Item")
Result = TypeVar("Result")

# Pieces from the first that is not yet done to the last that is handed over: enough that no worker waits, few enough
# that results do not pile up behind a slow one where they are wanted in order.
IN_FLIGHT = 1024

_opening = Lock()
_opened: dict[str, Callable[[Any], Any]] = {}


class Call(NamedTuple):
    """What tells a call from others, and what its workers must run."""

    name: str
    code: Mapping[str, str]
    """Versions, as `provenance.code` has them where the call was made."""


def map_on(
    executor: Executor, work: Work[Item, Result], items: Sequence[Item], in_flight: int = IN_FLIGHT
) -> Iterator[tuple[int, Result]]:
    """Yield (number of an item, its result) as they are finished. InputError where the workers are lost for good."""
    # Another call may send equal work whose files have changed meanwhile: what is open is told by the call.
    call = Call(uuid.uuid4().hex, provenance.code())
    pending: dict[Future[Result], int] = {}  # by number, as they are handed over
    following = 0
    try:
        while pending or following < len(items):
            while following < len(items) and following - next(iter(pending.values()), following) < in_flight:
                pending[executor.submit(_apply, call, work, items[following])] = following
                following += 1
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise InputError(
            f"the executor lost its workers ({type(error).__name__}); run the same command again to go on"
        ) from None
    finally:
        for future in pending:
            future.cancel()


def _apply(call: Call, work: Work[Item, Result], item: Item) -> Result:
    """In a worker: open the work when its first piece comes, and do the piece on one thread.

    InputError where the worker would compute something else: workers may join while others work.
    """
    with _opening:
        if call.name not in _opened:
            require_same_code(call.code, {f"{socket.gethostname()}, process {os.getpid()}": provenance.code()})
            torch.set_num_threads(1)
            _opened.clear()
            _opened[call.name] = work.open()
        function = _opened[call.name]
    return function(item)


def require_same_code(here: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]) -> None:
    """InputError for a worker whose code or libraries are not those of this process."""
    for name, there in workers.items():
        wrong = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
        if wrong:
            key = wrong[0]
            raise InputError(f"worker {name}: expected {key} {here.get(key)}, as here, found {there.get(key)}")
