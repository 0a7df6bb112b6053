"""Many like pieces of work: on processes of this machine, or on a Dask cluster's workers.

What comes out does not depend on where or on how many: the pieces are the same, and each is computed on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch

from asrkd.errors import InputError
from asrkd.workflow.executor import map_on
from asrkd.workflow.local_pool import fork_map

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

Executor = Literal["processes", "dask"]


class Work(Protocol[Item_contra, Result_co]):
    """What is done to each item.

    On a cluster it is sent to the workers, so there it holds paths and options alone. Results are plain values and
    numpy arrays: tensors would go through a pipe by way of a file that is gone when they are wanted.
    """

    def open(self) -> Callable[[Item_contra], Result_co]:
        """The function itself, once all it reads is in memory: once a process, shared by processes forked later."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Work whose parts are in this process already: for processes forked from it."""

    function: Callable

    def open(self) -> Callable:
        return self.function


@dataclass(frozen=True)
class Jobs:
    """Where pieces of work are done."""

    num_jobs: int = 1
    """Processes on this machine; with 1 the work is done in the calling process. A cluster has as many as it has."""
    executor: Executor = "processes"
    """processes: forked on this machine. dask: the workers of a Dask cluster, which see the same files."""
    scheduler: str | None = None
    """Address of the cluster's scheduler, e.g. tcp://10.0.0.1:8786."""

    pool: futures.Executor | None = None
    """Any other executor, for callers in Python, whose processes see the same files: it is used in place of these."""

    forks_alone: bool = False
    """Whether a single job has a process of its own too, so that the threads its work starts stay out of this one."""

    def __post_init__(self) -> None:
        if self.num_jobs < 1:
            raise InputError(f"--num-jobs: expected at least 1, found {self.num_jobs}")
        if self.executor == "dask" and not self.scheduler:
            raise InputError("--executor dask: expected an address (--scheduler tcp://HOST:8786), found none")
        if self.executor != "dask" and self.scheduler:
            raise InputError(f"--scheduler {self.scheduler}: expected with --executor dask, found {self.executor}")

    @property
    def on_cluster(self) -> bool:
        """Whether work goes to processes that have nothing of this one's memory."""
        return self.executor == "dask" or self.pool is not None

    def map(self, work: Work[Item, Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        """Yield (number of an item, its result) as they are finished, in no order.

        InputError of a piece is raised here. The pieces of a worker that is lost are done again by another; one that
        ends several workers is an InputError.
        """
        if self.pool is not None:
            yield from map_on(self.pool, work, items)
        elif self.scheduler is not None:
            from asrkd.workflow.cluster import connected

            with connected(self.scheduler) as executor:
                yield from map_on(executor, work, items)
        elif self.num_jobs == 1 and not self.forks_alone:
            with one_thread():
                function = work.open()
                for number, item in enumerate(items):
                    yield number, function(item)
        else:
            function = work.open()
            yield from fork_map(lambda number: function(items[number]), list(range(len(items))), self.num_jobs)


SERIAL = Jobs()
"""The calling process itself."""


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
