"""A task: what an executor does to each item. Also what all executors share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

# Items from the first unfinished one to the last dispatched one. Enough that no worker waits; few enough that results
# do not pile up behind a slow item where a caller wants them in order.
IN_FLIGHT = 1024


class Task(Protocol[Item_contra, Result_co]):
    """What is done to each item.

    A task is pickled for processes that share no memory with this one, so it has paths, options and small values. A
    task with large objects is for this process and its forks alone. Results are plain values and numpy arrays: torch
    would send a tensor as a file that may be gone when the tensor is read.

    A task may have a method `out_of_memory(item) -> str`: the item's name, and what may help where it ends processes.
    A task that calls k2 has an attribute `uses_k2 = True`: see `asrkd.workflow.local_pool`.
    """

    def open(self) -> Callable[[Item_contra], Result_co]:
        """Load what the task needs, once per process. Returns the function of one item."""
        ...


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
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def with_share_of_threads(processes: int, function: Callable[[], Result]) -> Result:
    """What `function()` returns on this process' share of the threads, of so many processes that compute at once."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    return function()
