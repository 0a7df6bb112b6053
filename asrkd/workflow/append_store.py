"""A folder of columns that grow row by row, are committed to the disk as they grow, and are published as a whole.

Frames and posteriors of a corpus larger than the memory are written this way. The store that will be at `path` grows in
the folder `.<name>.partial` next to it. A journal there lists what is on the disk, so a process that is killed costs
only the rows since the last commit. `AppendStore.finish` renames the folder to `path`.

A column is one matrix in a safetensors file of its own. Such a file begins with 8 bytes of header length and a JSON
header, which may end in spaces. The header has the number of rows, so room is reserved until that is known.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError, naming
from asrkd.files import publish_dir, read_object, sync, write_json

JOURNAL_FILE = "journal.jsonl"
HEADER_BYTES = 512
# Bytes between two commits: a quarter of an hour of speech as 40 features, half an hour as 28 posteriors.
COMMIT_BYTES = 1 << 24
SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "int16": "I16", "uint8": "U8"}


class Entry(NamedTuple):
    """One append, as the journal lists it."""

    num_rows: int
    label: Any
    """What the rows are: any JSON value."""
    ends: list[int]
    """Size of each column's file after it, bytes."""


class AppendStore:
    """A store that is being written: begun, or resumed where an earlier writing of the same fingerprint was killed."""

    def __init__(self, path: Path, fingerprint: str, types: Mapping[str, str]) -> None:
        """`types`: numpy's name of the type of each column, by the column's name."""
        self.path, self.fingerprint, self.types = path, fingerprint, dict(types)
        self._folder = partial_folder(path)
        self.entries = self._resume()
        """What has been appended, with what an earlier writing committed."""
        self.num_rows = sum(entry.num_rows for entry in self.entries)
        self._num_committed = len(self.entries)
        self._files = [file.open("r+b") for file in self._column_files()]
        for file in self._files:
            file.seek(0, os.SEEK_END)
        self._journal = (self._folder / JOURNAL_FILE).open("a", encoding="utf-8")
        self._committed_bytes = self._num_bytes

    @property
    def widths(self) -> list[int] | None:
        """Values per row in each column; None before the first row."""
        if not self.entries:
            return None
        first = self.entries[0]
        sizes = [first.num_rows * np.dtype(name).itemsize for name in self.types.values()]
        return [(end - HEADER_BYTES) // size for end, size in zip(first.ends, sizes, strict=True)]

    def append(self, columns: Sequence[NDArray[Any]], label: Any = None) -> None:
        """Write the next rows of every column, [N > 0, the column's width] each."""
        for file, type_name, values in zip(self._files, self.types.values(), columns, strict=True):
            if values.dtype != type_name:
                raise ValueError(f"expected values of type {type_name}, found {values.dtype}")
            with naming(file.name):
                file.write(np.ascontiguousarray(values).data.cast("B"))
        self.entries.append(Entry(len(columns[0]), label, [file.tell() for file in self._files]))
        self.num_rows += len(columns[0])
        if self._num_bytes - self._committed_bytes >= COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Flush the rows to the disk, then list them in the journal: whatever it lists is there."""
        for file in self._files:
            _flush(file)
        with naming(self._journal.name):
            self._journal.writelines(json.dumps(entry) + "\n" for entry in self.entries[self._num_committed :])
        _flush(self._journal)
        self._num_committed, self._committed_bytes = len(self.entries), self._num_bytes

    def finish(self, index_file: str, index: Mapping[str, Any]) -> None:
        """Write the headers and the index, which gets the fingerprint, and give the folder its name."""
        self.commit()
        widths = self.widths
        assert widths is not None, "a store needs a row"
        for file, (name, type_name), width in zip(self._files, self.types.items(), widths, strict=True):
            with naming(file.name):
                file.seek(0)
                file.write(_header(name, type_name, [self.num_rows, width], self.fingerprint))
            _flush(file)
        self.close()
        write_json(self._folder / index_file, {"fingerprint": self.fingerprint, **index})
        publish_dir(self._folder, self.path)
        _remove_journal(self.path)

    def close(self) -> None:
        """Close the files. Rows since the last commit are lost unless `finish` came first."""
        for file in (*self._files, self._journal):
            with suppress(OSError):  # an error here would replace the first one; `finish` has flushed the files before
                file.close()

    @property
    def _num_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(self.entries[-1].ends) - HEADER_BYTES * len(self.types) if self.entries else 0

    def _column_files(self) -> list[Path]:
        return [self._folder / column_file(name) for name in self.types]

    def _resume(self) -> list[Entry]:
        """Entries of an earlier writing, and the files cut to them. Begins a new store if there are none."""
        entries, journal_bytes = _read_journal(self._folder / JOURNAL_FILE, self.fingerprint)
        files = self._column_files()
        ends = entries[-1].ends if entries else []
        if not entries or not all(file.is_file() for file in files):
            self._begin()
            return []
        if any(file.stat().st_size < end for file, end in zip(files, ends, strict=True)):
            self._begin()
            return []
        for file, end in zip(files, ends, strict=True):
            os.truncate(file, end)
        os.truncate(self._folder / JOURNAL_FILE, journal_bytes)
        return entries

    def _begin(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        contents = dict.fromkeys(self._column_files(), b" " * HEADER_BYTES)
        contents[self._folder / JOURNAL_FILE] = json.dumps(self.fingerprint).encode() + b"\n"
        for file, content in contents.items():
            with naming(file):
                file.write_bytes(content)
        sync(self._folder)


def partial_folder(path: Path) -> Path:
    """Where the store that will be at `path` grows."""
    return path.with_name(f".{path.name}.partial")


def column_file(name: str) -> str:
    """Name of a column's file; its one tensor has the column's name."""
    return f"{name}.safetensors"


def is_finished(index_file: Path, fingerprint: str) -> bool:
    """Whether the store of this index file is whole and has this fingerprint."""
    if not index_file.is_file():
        return False
    try:
        index = read_object(index_file)
    except InputError:  # damaged: it is written again
        return False
    if index.get("fingerprint") != fingerprint:
        return False
    _remove_journal(index_file.parent)  # a process that was killed right after the renaming leaves it
    return True


def _remove_journal(folder: Path) -> None:
    """Remove the journal, which serves up to the renaming."""
    (folder / JOURNAL_FILE).unlink(missing_ok=True)


def _flush(file: IO[Any]) -> None:
    """Write to the disk what a file was given. OSError with the file's name."""
    with naming(file.name):
        file.flush()
        os.fsync(file.fileno())


def _read_journal(path: Path, fingerprint: str) -> tuple[list[Entry], int]:
    """Entries of a journal of this fingerprint, and the bytes of its whole lines. None of one that is damaged."""
    if not path.is_file():
        return [], 0
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n")
    try:
        if json.loads(lines[0] or b"null") != fingerprint:
            return [], 0
        return [_entry(json.loads(line)) for line in lines[1:]], len(whole) + 1
    except (ValueError, RecursionError):
        return [], 0


def _entry(value: Any) -> Entry:
    """An entry as the journal has it. ValueError for another value."""
    if not isinstance(value, list) or len(value) != len(Entry._fields):
        raise ValueError(f"expected an entry, found {value!r}")
    num_rows, label, ends = value
    numbers = [num_rows, *ends] if isinstance(ends, list) else [None]
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        raise ValueError(f"expected rows and file sizes, found {value!r}")
    return Entry(num_rows, label, ends)


def _header(name: str, type_name: str, shape: list[int], fingerprint: str) -> bytes:
    """The front of a safetensors file with one matrix, as long as the room reserved for it."""
    num_bytes = shape[0] * shape[1] * np.dtype(type_name).itemsize
    header = {
        "__metadata__": {"fingerprint": fingerprint},
        name: {"dtype": SAFETENSORS_TYPES[type_name], "shape": shape, "data_offsets": [0, num_bytes]},
    }
    room = HEADER_BYTES - 8
    text = json.dumps(header).encode().ljust(room)
    if len(text) > room:
        raise ValueError(f"expected a fingerprint that fits a header of {room} bytes, found {fingerprint!r}")
    return struct.pack("<Q", room) + text
