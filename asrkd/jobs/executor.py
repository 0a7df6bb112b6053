"""Work on any `concurrent.futures` executor, opened once in each of its processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from asrkd.errors import InputError

if TYPE_CHECKING:
    from asrkd.jobs import Work

Item = TypeVar("Item")
Result = TypeVar("Result")

# Pieces that are handed over but not yet done: enough that no worker waits, few enough that results do not pile up.
IN_FLIGHT = 256

_opening = Lock()
_opened: dict[str, Callable[[Any], Any]] = {}


def map_on(
    executor: Executor, work: Work[Item, Result], items: Sequence[Item], in_flight: int = IN_FLIGHT
) -> Iterator[tuple[int, Result]]:
    """Yield (number of an item, its result) as they are finished. InputError where the workers are lost for good."""
    # Another call may send equal work whose files have changed meanwhile: what is open is told by the call.
    call = uuid.uuid4().hex
    pending: dict[Future[Result], int] = {}
    following = 0
    try:
        while pending or following < len(items):
            while following < len(items) and len(pending) < in_flight:
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


def _apply(call: str, work: Work[Item, Result], item: Item) -> Result:
    """In a worker: open the work when its first piece comes, and do the piece on one thread."""
    with _opening:
        if call not in _opened:
            torch.set_num_threads(1)
            _opened.clear()
            _opened[call] = work.open()
        function = _opened[call]
    return function(item)
