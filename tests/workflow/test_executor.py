"""One task on every executor: the same bits, the caller's threads untouched, k2 in processes of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from cluster_work import ProcessIds, Products, Squares
from loopback_cluster import cluster
from optional_packages import skip_without

from asrkd.errors import InputError
from asrkd.files import save_tensors
from asrkd.workflow import local_pool
from asrkd.workflow.cache import Codec, ResultCache
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.task import in_order, one_thread

KINDS = ("serial", "two processes", "spawned processes", "dask")
NUMBERS = Codec(lambda number: {"number": np.asarray([number])}, lambda arrays: int(arrays["number"][0]))


@contextmanager
def started(kind: str, folder: Path) -> Iterator[Executor]:
    if kind == "serial":
        yield SERIAL
    elif kind == "two processes":
        yield Executor(2)
    elif kind == "spawned processes":
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            yield Executor(pool=pool)
    else:
        skip_without("distributed")
        with cluster(folder) as workers:
            yield Executor(kind="dask", scheduler=workers.address)


@pytest.fixture(scope="module")
def matrices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("matrices") / "matrices.safetensors"
    values = torch.randn(12, 120, 120, generator=torch.Generator().manual_seed(0))
    save_tensors(file, {"matrices": values}, {})
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_every_executor_gives_the_same_bits(kind: str, matrices: Path, tmp_path: Path) -> None:
    task = Products(matrices)
    with one_thread():
        expected = [task.open()(number) for number in range(12)]
    with started(kind, tmp_path) as executor:
        found = list(in_order(executor.map(task, range(12))))
    assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_the_callers_threads_are_its_own_while_it_takes_results(kind: str, tmp_path: Path) -> None:
    """`Squares` asserts that it is computed on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with started(kind, tmp_path) as executor:
            for _ in executor.map(Squares(tmp_path), range(4)):
                assert torch.get_num_threads() == 3
        with pytest.raises(InputError, match="utt_1: expected frames"):
            list(executor.map(Squares(tmp_path, refused=1), range(4)))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.needs("k2")
def test_k2_is_used_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(local_pool, "survives_a_fork", lambda function: True)
    (one,) = {pid for _, pid in SERIAL.map(ProcessIds(uses_k2=True), range(3))}
    assert one != os.getpid()
    assert {pid for _, pid in SERIAL.map(ProcessIds(uses_k2=False), range(3))} == {os.getpid()}
    monkeypatch.setattr(local_pool, "survives_a_fork", lambda function: False)
    assert {pid for _, pid in Executor(2).map(ProcessIds(uses_k2=True), range(3))} == {os.getpid()}
    assert "rules out forking" in caplog.text


def test_cached_results_are_not_computed_again(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "results.sqlite", "squares", NUMBERS)
    expected = [number**2 for number in range(6)]
    with pytest.raises(InputError, match="utt_4"):
        list(SERIAL.map(Squares(tmp_path, refused=4), range(6), cache))
    for file in tmp_path.glob("done_*"):
        file.unlink()
    assert list(in_order(SERIAL.map(Squares(tmp_path), range(6), cache))) == expected
    assert sorted(file.name.split("_")[1] for file in tmp_path.glob("done_*")) == ["4", "5"]
    for file in tmp_path.glob("opened_*"):
        file.unlink()
    assert list(in_order(SERIAL.map(Squares(tmp_path), range(6), cache))) == expected
    assert not list(tmp_path.glob("opened_*")), "nothing is missing, so nothing is opened"


def test_no_items_open_nothing(tmp_path: Path) -> None:
    assert list(SERIAL.map(Squares(tmp_path), [])) == []
    assert not list(tmp_path.iterdir())
