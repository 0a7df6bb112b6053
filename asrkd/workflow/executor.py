"""One task applied to many items: in this process, in forked processes, on a Dask cluster, on any other executor.

Results do not depend on the executor: the items are the same everywhere, and each is computed on one thread.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch

from asrkd.errors import InputError
from asrkd.workflow import provenance
from asrkd.workflow.cache import ResultCache

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

ExecutorKind = Literal["processes", "dask"]

# Items from the first unfinished one to the last dispatched one. Enough that no worker waits; few enough that results
# do not pile up behind a slow item where a caller wants them in order.
IN_FLIGHT = 1024


class Task(Protocol[Item_contra, Result_co]):
    """What is done to each item.

    A task is pickled for processes that share no memory with this one, so it has paths, options and small values. A
    task with large objects is for this process and its forks alone. Results are plain values and numpy arrays: torch
    would send a tensor as a file that may be gone when the tensor is read.

    A task that calls k2 has a class attribute `uses_k2 = True`: see `asrkd.workflow.local_pool`.
    """

    def open(self) -> Callable[[Item_contra], Result_co]:
        """Load what the task needs, once per process. Returns the function of one item."""
        ...


@dataclass(frozen=True)
class Executor:
    """Where tasks are computed."""

    num_jobs: int = 1
    """Processes on this machine; 1 computes in the calling process. A cluster has its own number of workers."""
    kind: ExecutorKind = "processes"
    """processes: forked on this machine. dask: the workers of a Dask cluster, which see the same files."""
    scheduler: str | None = None
    """Address of the cluster's scheduler, e.g. tcp://10.0.0.1:8786."""
    pool: futures.Executor | None = None
    """Any other executor, for callers in Python. Its processes see the same files. It replaces the three above."""

    def __post_init__(self) -> None:
        if self.num_jobs < 1:
            raise InputError(f"--num-jobs: expected at least 1, found {self.num_jobs}")
        if self.kind == "dask" and not self.scheduler:
            raise InputError("--executor dask: expected an address (--scheduler tcp://HOST:8786), found none")
        if self.kind != "dask" and self.scheduler:
            raise InputError(f"--scheduler {self.scheduler}: expected with --executor dask, found {self.kind}")

    @property
    def shares_memory(self) -> bool:
        """Whether the workers are this process or forks of it, so that they see its memory."""
        return self.kind == "processes" and self.pool is None

    def map(
        self, task: Task[Item, Result], items: Sequence[Item], cache: ResultCache[Result] | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number of an item, its result) as they are finished, in no order.

        Results that `cache` has are not computed again, and new ones are added to it. When a worker is lost, another
        one computes its items again. InputError: a task raised it, an item ended several workers, or all workers are
        lost.
        """
        if cache is None:
            yield from self._compute(task, items)
        else:
            yield from cache.map(items, lambda missing: self._compute(task, missing))

    def _compute(self, task: Task[Item, Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        if not items:
            return
        if self.pool is not None:
            yield from map_on(self.pool, task, items)
        elif self.scheduler is not None:
            from asrkd.workflow.cluster import connected

            with connected(self.scheduler) as pool:
                yield from map_on(pool, task, items)
        else:
            from asrkd.workflow.local_pool import map_here

            yield from map_here(task, items, self.num_jobs)


SERIAL = Executor()
"""One job on this machine."""


def in_order(results: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """The results by number, each as soon as all before it are there."""
    waiting: dict[int, Result] = {}
    following = 0
    for number, result in results:
        waiting[number] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute the block as a worker process does: another number of threads rounds otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
