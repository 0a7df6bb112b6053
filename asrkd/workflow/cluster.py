"""A Dask cluster as a `concurrent.futures` executor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from asrkd.errors import InputError
from asrkd.workflow import provenance
from asrkd.workflow.futures_pool import require_same_code

CONNECT_SEC = 10
WORKERS_SEC = 60
# No memory limit: Dask would count the pages of memory-mapped frames, which the system takes back when it needs them.
ADVICE = "dask worker ADDRESS --nworkers CORES --nthreads 1 --memory-limit 0"


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """The workers of the scheduler at `address`, while the block runs.

    Dask gives the items of a lost worker to another one.

    Raises:
        InputError: `distributed` is not installed, nobody answers, no worker comes, or a worker has several threads or
            other versions and so would compute something else.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.comm import CommClosedError
    except ImportError:
        raise InputError("--executor dask: distributed is not installed: `make setup` installs it") from None
    try:
        client = Client(address, timeout=CONNECT_SEC, set_as_default=False)
    except (OSError, ValueError) as error:  # ValueError: it is no address
        raise InputError(f"--scheduler {address}: no Dask scheduler answers there ({_first_line(error)})") from None
    with client:
        try:
            require_workers(client, address)
            yield client.get_executor(pure=False)
        except CommClosedError as error:
            raise InputError(
                f"--scheduler {address}: lost the scheduler ({_first_line(error)}); "
                "run the same command again to continue"
            ) from None
        except KilledWorker as error:
            raise InputError(
                f"--scheduler {address}: one item ended several workers (out of memory?): {_first_line(error)}"
            ) from None


def require_workers(client: Any, address: str) -> None:
    """InputError unless there are workers, each with one thread and with the versions that are installed here."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_SEC)
    except TimeoutError:
        raise InputError(f"--scheduler {address}: no worker came in {WORKERS_SEC} s; start some: {ADVICE}") from None
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for name, worker in workers.items():
        if worker["nthreads"] != 1:
            raise InputError(f"worker {name}: expected one thread, found {worker['nthreads']}; start it as {ADVICE}")
    answers = client.run(provenance.code, on_error="return")
    # A worker that was lost meanwhile answers with an OSError; it will compute nothing either.
    require_same_code(
        provenance.code(), {name: answer for name, answer in answers.items() if not isinstance(answer, OSError)}
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
