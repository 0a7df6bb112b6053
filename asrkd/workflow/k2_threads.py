"""How many processes can share the work with k2."""

from __future__ import annotations

import logging

import torch

from asrkd.workflow.local_pool import survives_a_fork
from asrkd.workflow.map import Jobs

log = logging.getLogger(__name__)


def k2_jobs(num_jobs: int, name: str) -> Jobs:
    """`num_jobs` forked processes, or this process where k2's thread pool was started in it.

    A fork does not copy those threads, and k2 would wait for them in the children. A search starts them, so even a
    single job has a process of its own, and this one can fork again.
    """
    import k2  # noqa: F401 - here, once, and not in every process that is forked

    if not survives_a_fork(search_one_frame):
        log.warning("%s: k2 has been used in this process in a way that rules out forking; one job", name)
        return Jobs(1)
    return Jobs(num_jobs, forks_alone=True)


def search_one_frame() -> None:
    """The smallest search: it needs k2's thread pool, which does not survive a fork once started."""
    import k2

    dense = k2.DenseFsaVec(torch.zeros(1, 1, 2), torch.tensor([[0, 0, 1]], dtype=torch.int32))
    k2.intersect_dense_pruned(k2.create_fsa_vec([k2.linear_fsa([1])]), dense, 1.0, 1.0, 1, 10)
