"""Results of pieces of work outlive the process that was making them."""

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
    for place in reversed(range(len(items))):
        yield place, items[place] ** 2


def cut_short(items: Sequence[int]) -> Iterator[tuple[int, int]]:
    results = square(items)
    yield next(results)
    yield next(results)
    raise KeyboardInterrupt


def unwanted(items: Sequence[int]) -> Iterable[tuple[int, int]]:
    pytest.fail(f"done again: {items}")


def test_only_what_is_missing_is_done(tmp_path: Path) -> None:
    kept = ResultCache(tmp_path / "kept.sqlite", "squares")
    with pytest.raises(KeyboardInterrupt):
        list(kept.map(ITEMS, cut_short, SQUARES))
    asked = []

    def rest(items: Sequence[int]) -> Iterator[tuple[int, int]]:
        asked.extend(items)
        return square(items)

    expected = {number: item**2 for number, item in enumerate(ITEMS)}
    assert dict(kept.map(ITEMS, rest, SQUARES)) == expected
    assert asked == [3, 1, 4, 1], "the last two were there"
    assert dict(kept.map(ITEMS, unwanted, SQUARES)) == expected


def test_other_work_in_the_same_file_is_other_work(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    list(ResultCache(path, "squares").map(ITEMS, square, SQUARES))
    doubles = dict(ResultCache(path, "doubles").map(ITEMS, lambda items: enumerate(2 * i for i in items), SQUARES))
    assert list(doubles.values()) == [6, 2, 8, 2, 10, 18]
    assert dict(ResultCache(path, "squares").map(ITEMS, unwanted, SQUARES))[5] == 81


def test_a_damaged_file_costs_its_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "kept.sqlite"
    path.write_bytes(b"no database" * 100)
    assert len(list(ResultCache(path, "squares").map(ITEMS, square, SQUARES))) == len(ITEMS)
    assert f"{path}: file is not a database; its work is done again" in caplog.text
    assert len(list(ResultCache(path, "squares").map(ITEMS, unwanted, SQUARES))) == len(ITEMS)


def test_a_file_that_is_locked_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrkd.workflow.cache.sqlite3.connect", partial(sqlite3.connect, timeout=0.1))
    kept = ResultCache(tmp_path / "kept.sqlite", "squares")
    list(kept.map(ITEMS, square, SQUARES))
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"kept\.sqlite: database is locked"):
            list(kept.map(ITEMS, unwanted, SQUARES))
    assert len(list(kept.map(ITEMS, unwanted, SQUARES))) == len(ITEMS)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "kept.sqlite").mkdir()
    with pytest.raises(InputError, match=r"kept\.sqlite: unable to open database file"):
        list(ResultCache(tmp_path / "kept.sqlite", "squares").map(ITEMS, square, SQUARES))


KILLED = """
import os, signal, sys
from pathlib import Path
import asrkd.workflow.cache as kept
from test_kept import ITEMS, SQUARES, square
kept.WRITE_SEC = 0.0
for count, _ in enumerate(kept.KeptResults(Path(sys.argv[1]), "squares").map(ITEMS, square, SQUARES), start=1):
    if count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    here = Path(__file__)
    environment = {"PYTHONPATH": f"{here.parents[2]}:{here.parent}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    asked = []

    def rest(items: Sequence[int]) -> Iterator[tuple[int, int]]:
        asked.extend(items)
        return square(items)

    assert len(dict(ResultCache(path, "squares").map(ITEMS, rest, SQUARES))) == len(ITEMS)
    assert asked == [3, 1]
