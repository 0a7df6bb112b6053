"""One task applied to many items: in this process, in forked processes, on a Dask cluster, on any other executor.

Results do not depend on the executor: the items are the same everywhere, and each is computed on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Literal, TypeVar

from asrkd.errors import InputError
from asrkd.workflow.cache import ResultCache
from asrkd.workflow.futures_pool import map_on
from asrkd.workflow.task import Task

Item = TypeVar("Item")
Result = TypeVar("Result")

ExecutorKind = Literal["processes", "dask"]


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
            from asrkd.workflow.cluster import connected  # here: it needs distributed

            with connected(self.scheduler) as pool:
                yield from map_on(pool, task, items)
        else:
            from asrkd.workflow.local_pool import map_here  # here: it needs k2 for some tasks

            yield from map_here(task, items, self.num_jobs)


SERIAL = Executor()
"""One job on this machine."""
