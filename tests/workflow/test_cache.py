"""Results of finished items outlive the process that computed them."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from asrkd.errors import InputError
from asrkd.workflow.cache import Codec, ResultCache

ITEMS = (3, 1, 4, 1, 5, 9)
SQUARES = Codec(lambda square: {"square": np.asarray([square])}, lambda arrays: int(arrays["square"][0]))


def square(items: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Backwards: results may come in any order."""
    for index in reversed(range(len(items))):
        yield index, items[index] ** 2


def cut_short(items: Sequence[int]) -> Iterator[tuple[int, int]]:
    results = square(items)
    yield next(results)
    yield next(results)
    raise KeyboardInterrupt


def unwanted(items: Sequence[int]) -> Iterable[tuple[int, int]]:
    pytest.fail(f"computed again: {items}")


def squares(path: Path) -> ResultCache[int]:
    return ResultCache(path, "squares", SQUARES)


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    cache = squares(tmp_path / "results.sqlite")
    with pytest.raises(KeyboardInterrupt):
        list(cache.map(ITEMS, cut_short))
    asked = []

    def rest(items: Sequence[int]) -> Iterator[tuple[int, int]]:
        asked.extend(items)
        return square(items)

    expected = {number: item**2 for number, item in enumerate(ITEMS)}
    assert dict(cache.map(ITEMS, rest)) == expected
    assert asked == [3, 1, 4, 1], "the last two were there"
    assert dict(cache.map(ITEMS, unwanted)) == expected


def test_results_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrkd.workflow.cache.READ_RESULTS", 4)
    cache = squares(tmp_path / "results.sqlite")
    list(cache.map(ITEMS[:5], square))
    original, read = ResultCache._read, []

    def listed(self: ResultCache[int], numbers: range) -> dict[int, bytes]:
        read.append(numbers)
        return original(self, numbers)

    monkeypatch.setattr(ResultCache, "_read", listed)
    assert [number for number, _ in cache.map(ITEMS, square)] == [0, 1, 2, 3, 4, 5]
    assert read == [range(4), range(4, 6)]


def test_other_work_in_the_same_file_is_other_work(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    list(squares(path).map(ITEMS, square))
    doubles = dict(ResultCache(path, "doubles", SQUARES).map(ITEMS, lambda items: enumerate(2 * i for i in items)))
    assert list(doubles.values()) == [6, 2, 8, 2, 10, 18]
    assert dict(squares(path).map(ITEMS, unwanted))[5] == 81


def test_a_damaged_file_costs_its_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "results.sqlite"
    path.write_bytes(b"no database" * 100)
    assert len(list(squares(path).map(ITEMS, square))) == len(ITEMS)
    assert f"{path}: file is not a database; its results are computed again" in caplog.text
    assert len(list(squares(path).map(ITEMS, unwanted))) == len(ITEMS)


def test_a_file_that_is_locked_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrkd.workflow.cache.sqlite3.connect", partial(sqlite3.connect, timeout=0.1))
    cache = squares(tmp_path / "results.sqlite")
    list(cache.map(ITEMS, square))
    with closing(sqlite3.connect(cache.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"results\.sqlite: database is locked"):
            list(cache.map(ITEMS, unwanted))
    assert len(list(cache.map(ITEMS, unwanted))) == len(ITEMS)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").mkdir()
    with pytest.raises(InputError, match=r"results\.sqlite: unable to open database file"):
        list(squares(tmp_path / "results.sqlite").map(ITEMS, square))


KILLED = """
import os, signal, sys
from pathlib import Path
from asrkd.workflow import cache
from test_cache import ITEMS, square, squares
cache.WRITE_SEC = 0.0
for count, _ in enumerate(squares(Path(sys.argv[1])).map(ITEMS, square), start=1):
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    here = Path(__file__)
    environment = {"PYTHONPATH": f"{here.parents[2]}:{here.parent}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    asked = []

    def rest(items: Sequence[int]) -> Iterator[tuple[int, int]]:
        asked.extend(items)
        return square(items)

    assert len(dict(squares(path).map(ITEMS, rest))) == len(ITEMS)
    assert asked == [3, 1]
