"""Columns that grow row by row: what is committed outlives a kill, and the whole is what one writing makes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from asrkd.files import load_tensors, read_json
from asrkd.workflow import append_store
from asrkd.workflow.append_store import AppendStore, Entry, is_finished, partial_folder

TYPES = {"ids": "int16", "halves": "float16"}
INDEX = {"of": "tests"}
ROOT = Path(__file__).resolve().parents[2]


def rows(number: int) -> list[np.ndarray]:
    """The rows of append `number`, number + 1 of them."""
    generator = np.random.default_rng(number)
    return [
        generator.integers(-9, 9, (number + 1, 3)).astype(np.int16),
        generator.random((number + 1, 1)).astype(np.float16),
    ]


def write(path: Path, last: int, finish: bool = True) -> int:
    """Append until `last` appends are there; the number that were there before."""
    with closing(AppendStore(path, "abc", TYPES)) as store:
        before = len(store.entries)
        for number in range(before, last):
            store.append(rows(number), f"append {number}")
        if finish:
            store.finish("index.json", INDEX)
    return before


def require_whole(path: Path, last: int) -> None:
    expected = [np.concatenate(column) for column in zip(*(rows(number) for number in range(last)), strict=True)]
    for name, column in zip(TYPES, expected, strict=True):
        tensors, metadata = load_tensors(path / f"{name}.safetensors")
        assert list(tensors) == [name] and metadata == {"fingerprint": "abc"}
        assert torch.equal(tensors[name], torch.from_numpy(column))
    assert sorted(file.name for file in path.iterdir()) == ["halves.safetensors", "ids.safetensors", "index.json"]
    assert read_json(path / "index.json") == {"fingerprint": "abc", **INDEX}
    assert not partial_folder(path).exists()


def test_what_is_appended_is_read_back_and_a_whole_store_is_known(tmp_path: Path) -> None:
    assert write(tmp_path / "store", 5) == 0
    require_whole(tmp_path / "store", 5)
    assert is_finished(tmp_path / "store" / "index.json", "abc")
    assert not is_finished(tmp_path / "store" / "index.json", "abd")
    assert not is_finished(tmp_path / "other" / "index.json", "abc")


def test_entries_say_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 1)
    write(tmp_path / "store", 2, finish=False)
    with closing(AppendStore(tmp_path / "store", "abc", TYPES)) as store:
        ends = [[512 + 6, 512 + 2], [512 + 6 + 12, 512 + 2 + 4]]
        assert store.entries == [Entry(1, "append 0", ends[0]), Entry(2, "append 1", ends[1])]
        assert (store.num_rows, store.widths) == (3, [3, 1])


@pytest.mark.parametrize("torn", ["nothing", "rows", "journal", "both"])
def test_a_kill_costs_what_was_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str) -> None:
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 40)  # of the third append, and of none after it up to the fifth
    assert write(tmp_path / "store", 4, finish=False) == 0
    folder = partial_folder(tmp_path / "store")
    if torn in ("rows", "both"):
        with (folder / "ids.safetensors").open("ab") as file:
            file.write(b"abc")
    if torn in ("journal", "both"):
        with (folder / "journal.jsonl").open("a") as file:
            file.write('[9, "app')
    assert write(tmp_path / "store", 6) == 3
    require_whole(tmp_path / "store", 6)


def test_rows_that_the_journal_lists_and_the_disk_has_not_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 1)
    write(tmp_path / "store", 3, finish=False)
    os.truncate(partial_folder(tmp_path / "store") / "halves.safetensors", 513)
    assert write(tmp_path / "store", 4) == 0
    require_whole(tmp_path / "store", 4)


def test_another_fingerprint_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_store, "COMMIT_BYTES", 1)
    write(tmp_path / "store", 3, finish=False)
    with closing(AppendStore(tmp_path / "store", "abd", TYPES)) as store:
        assert (store.entries, store.num_rows, store.widths) == ([], 0, None)


def test_a_finished_store_replaces_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").touch()
    write(tmp_path / "store", 2)
    require_whole(tmp_path / "store", 2)


def test_values_of_another_type_are_refused(tmp_path: Path) -> None:
    with closing(AppendStore(tmp_path / "store", "abc", TYPES)) as store:
        ids, halves = rows(2)
        with pytest.raises(ValueError, match="expected values of type float16, found float32"):
            store.append([ids, halves.astype(np.float32)])


KILLED = """
import os, signal, sys
from pathlib import Path
from asrkd.workflow import append_store
from test_append_store import write

append_store.COMMIT_BYTES = 100
append = append_store.AppendStore.append

def append_or_die(self, columns, label):
    append(self, columns, label)
    if len(self.entries) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

append_store.AppendStore.append = append_or_die
write(Path(sys.argv[1]), 20)
"""


@pytest.mark.parametrize("appends", [1, 7, 20])
def test_kill_9_loses_nothing_that_was_committed(tmp_path: Path, appends: int) -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(appends)]
    assert subprocess.run(command, env=environment, timeout=60).returncode == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    row_bytes, committed, since = 3 * 2 + 2, 0, 0
    for number in range(appends):
        since += (number + 1) * row_bytes
        if since >= 100:
            committed, since = number + 1, 0
    assert write(tmp_path / "store", 20) == committed
    require_whole(tmp_path / "store", 20)
