"""Processes of this machine, forked after the task was opened, so that they share the memory of what it loaded.

k2's first search starts a thread pool. A fork does not copy those threads, and k2 in the child would wait for them for
ever. So a task that calls k2 (`uses_k2 = True`) is computed in a forked process even with one job, and this process
stays without k2's threads. If they have been started here already, the task is computed here, with one job.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from asrkd.workflow.fork_map import default_advice, fork_map
from asrkd.workflow.k2_library import import_k2
from asrkd.workflow.task import Task, one_thread

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
PROBE_SEC = 10.0  # far more than a search of one frame takes on a busy machine


def map_here(task: Task[Item, Result], items: Sequence[Item], num_jobs: int) -> Iterator[tuple[int, Result]]:
    """Yield (number of an item, its result) as they are finished, from forked processes or from this one."""
    forks = num_jobs > 1
    if getattr(task, "uses_k2", False):
        import_k2()  # once here, and not again in every process that is forked

        forks = survives_a_fork(search_one_frame)
        if not forks:
            logger.warning("k2 has been used in this process in a way that rules out forking; one job")
    with one_thread():
        function = task.open()
    if forks:
        yield from fork_map(function, items, num_jobs, getattr(task, "out_of_memory", default_advice))
        return
    for number, item in enumerate(items):
        with one_thread():
            result = function(item)
        yield number, result


def survives_a_fork(function: Callable[[], object], timeout_sec: float = PROBE_SEC) -> bool:
    """Whether `function` ends in a forked process. It does not when it waits for threads of a library's pool."""
    process = multiprocessing.get_context("fork").Process(target=_probe, args=(function,), daemon=True)
    process.start()
    process.join(timeout_sec)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode == 0


def search_one_frame() -> None:
    """The smallest search of k2. It needs k2's thread pool."""
    k2 = import_k2()
    dense = k2.DenseFsaVec(torch.zeros(1, 1, 2), torch.tensor([[0, 0, 1]], dtype=torch.int32))
    k2.intersect_dense_pruned(k2.create_fsa_vec([k2.linear_fsa([1])]), dense, 1.0, 1.0, 1, 10)


def _probe(function: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    function()
