"""Tasks on executors: a real Dask cluster of two workers does what processes do, and loses nothing with a worker."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster_work import Deadly, Squares
from distributed.comm import CommClosedError
from loopback_cluster import Cluster, cluster

from asrkd.errors import InputError
from asrkd.workflow.cluster import require_workers
from asrkd.workflow.executor import Executor
from asrkd.workflow.futures_pool import map_on, require_same_code
from asrkd.workflow.task import in_order

pytestmark = pytest.mark.needs("distributed")

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = [number**2 for number in range(40)]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("dask")) as started:
        yield started


def results(executor: Executor, task: Any, count: int = 40) -> list[int]:
    return list(in_order(executor.map(task, range(count))))


def test_every_executor_gives_the_same(two_workers: Cluster, tmp_path: Path) -> None:
    task = Squares(tmp_path, sleep_sec=0.02)
    assert results(Executor(1), task) == EXPECTED
    assert results(Executor(2), task) == EXPECTED
    with ThreadPoolExecutor(2) as pool:
        assert list(in_order(map_on(pool, task, range(40), in_flight=3))) == EXPECTED
        assert results(Executor(pool=pool), task) == EXPECTED
    here = len(list(tmp_path.glob("opened_*")))
    assert results(Executor(1, "dask", two_workers.address), task) == EXPECTED
    assert len(list(tmp_path.glob("opened_*"))) == here + 2, "each worker opens the task once"


@dataclass(frozen=True)
class InMemory:
    """A task for threads of this process."""

    function: Callable[[int], int]

    def open(self) -> Callable[[int], int]:
        return self.function


def test_results_do_not_pile_up_behind_a_slow_item() -> None:
    """The first item ends when no other one is dispatched any more: those are then as many as may be in flight."""
    others = threading.Semaphore(0)

    def square(number: int) -> int:
        if number > 0:
            others.release()
            return number
        for _ in range(9):
            assert others.acquire(timeout=20)
        assert not others.acquire(timeout=0.2), "a tenth was dispatched"
        return number

    with ThreadPoolExecutor(2) as pool:
        found = map_on(pool, InMemory(square), range(200), in_flight=10)
        assert list(in_order(found)) == list(range(200))


def test_files_that_changed_between_two_calls_are_opened_anew(two_workers: Cluster, tmp_path: Path) -> None:
    executor = Executor(1, "dask", two_workers.address)
    for _ in range(2):
        for file in tmp_path.glob("opened_*"):
            file.unlink()
        assert results(executor, Squares(tmp_path, sleep_sec=0.02), 10) == EXPECTED[:10]
        assert list(tmp_path.glob("opened_*"))


def test_bad_input_and_defects_come_back(two_workers: Cluster, tmp_path: Path) -> None:
    executor = Executor(1, "dask", two_workers.address)
    with pytest.raises(InputError, match="utt_7: expected frames, found none"):
        results(executor, Squares(tmp_path, refused=7))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        results(executor, Squares(tmp_path, broken=7))
    assert results(executor, Squares(tmp_path)) == EXPECTED


def test_a_worker_killed_half_way_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "dask").mkdir()
    with cluster(tmp_path / "dask") as started:
        lost = started.processes[1].pid
        killed = False
        found: dict[int, int] = {}
        task = Squares(tmp_path, sleep_sec=0.05)
        for number, result in Executor(1, "dask", started.address).map(task, range(40)):
            found[number] = result
            if not killed and list(tmp_path.glob(f"done_*_{lost}")):
                started.kill(lost)
                killed = True
        assert killed, "it never worked"
        assert [found[number] for number in range(40)] == EXPECTED


@pytest.mark.slow
def test_a_lost_scheduler_is_an_error_not_a_wait(tmp_path: Path) -> None:
    (tmp_path / "dask").mkdir()
    with cluster(tmp_path / "dask") as started:
        found = Executor(1, "dask", started.address).map(Squares(tmp_path, sleep_sec=0.05), range(400))
        next(found)
        started.stop_scheduler()
        with pytest.raises(InputError, match="run the same command again"):
            list(found)


class LosingClient:
    """A client whose second worker is lost while it is asked."""

    def wait_for_workers(self, count: int, timeout: int) -> None:
        pass

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {"a": {"nthreads": 1}, "b": {"nthreads": 1}}}

    def run(self, function: Callable[[], Any], on_error: str) -> dict[str, Any]:
        assert on_error == "return"
        return {"a": function(), "b": CommClosedError("in <TCP (closed)>")}


def test_a_worker_lost_while_it_is_asked_is_passed_over() -> None:
    require_workers(LosingClient(), "tcp://127.0.0.1:1")


@pytest.mark.slow
def test_an_item_that_ends_its_workers_is_an_error_not_a_wait(tmp_path: Path) -> None:
    with cluster(tmp_path, num_workers=4) as started, pytest.raises(InputError, match="ended several workers"):
        list(Executor(1, "dask", started.address).map(Deadly(), range(1)))


def test_workers_of_several_threads_are_refused(tmp_path: Path) -> None:
    with cluster(tmp_path, num_workers=0) as started:
        started.add_worker("threads", num_threads=2)
        with pytest.raises(InputError, match="expected one thread, found 2; start it as dask worker"):
            results(Executor(1, "dask", started.address), Squares(tmp_path))


def test_workers_of_other_versions_are_refused() -> None:
    require_same_code({"torch": "1.13.1"}, {"a": {"torch": "1.13.1"}})
    with pytest.raises(InputError, match=r"worker b: expected torch 1\.13\.1, as here, found 2\.13\.0"):
        require_same_code({"torch": "1.13.1"}, {"a": {"torch": "1.13.1"}, "b": {"torch": "2.13.0"}})
    with pytest.raises(InputError, match=r"worker a: expected k2 None, as here, found 1\.23"):
        require_same_code({}, {"a": {"k2": "1.23"}})


def test_a_worker_that_joins_late_with_other_code_is_refused(
    two_workers: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked before the first item, both were as this process; opening the task asks again."""
    executor = Executor(1, "dask", two_workers.address)
    monkeypatch.setattr("asrkd.workflow.futures_pool.provenance.code", lambda: {"asrkd": "another"})
    monkeypatch.setattr("asrkd.workflow.cluster.require_workers", lambda client, address: None)
    with pytest.raises(InputError, match=r"worker .*, process \d+: expected asrkd another, as here, found"):
        results(executor, Squares(tmp_path))


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr("asrkd.workflow.cluster.CONNECT_SEC", 1)
        with pytest.raises(InputError, match=f"{address}: no Dask scheduler answers there"):
            results(Executor(1, "dask", address), Squares(tmp_path))
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        results(Executor(1, "dask", "nonsense"), Squares(tmp_path))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="distributed is not installed: `make setup` installs it"):
        results(Executor(1, "dask", "tcp://127.0.0.1:1"), Squares(tmp_path))
    with pytest.raises(InputError, match="--executor dask: expected an address"):
        Executor(1, "dask")
    with pytest.raises(InputError, match="expected with --executor dask, found processes"):
        Executor(1, scheduler="tcp://127.0.0.1:1")
