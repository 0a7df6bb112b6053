"""Results of finished items in a file, so that a step that was killed computes only the other ones."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from asrkd.errors import InputError
from asrkd.files import DAMAGED
from asrkd.workflow import provenance

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

Arrays = dict[str, NDArray[Any]]
# Seconds between two writes. A kill costs the results since the last write and the items that were being computed.
WRITE_SEC = 5.0
# Results that are read at once.
READ_RESULTS = 1000
_SELECT = "SELECT number, result FROM results WHERE work = ? AND number >= ? AND number < ?"
_TABLE = "CREATE TABLE IF NOT EXISTS results (work TEXT, number INTEGER, result BLOB, PRIMARY KEY (work, number))"


@dataclass(frozen=True)
class Codec(Generic[Result]):
    """Converts a result to arrays and back."""

    pack: Callable[[Result], Arrays]
    unpack: Callable[[Arrays], Result]


@dataclass(frozen=True)
class ResultCache(Generic[Result]):
    """Results of one call in an SQLite file. Several calls may share the file; its writes are whole or absent."""

    path: Path
    key: str
    """Fingerprint of everything that decides the results. The code is added to it here."""
    codec: Codec[Result]

    @property
    def _full_key(self) -> str:
        return f"{self.key} {provenance.code()['asrkd']}"

    def map(
        self, items: Sequence[Item], compute: Callable[[Sequence[Item]], Iterable[tuple[int, Result]]]
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number of an item, its result): first those in the file, then those that are missing.

        `compute` gets the missing items and yields (number among them, result) in any order. InputError if the file
        cannot be written.
        """
        missing: list[int] = []
        for first in range(0, len(items), READ_RESULTS):  # all of them might not fit into memory
            numbers = range(first, min(first + READ_RESULTS, len(items)))
            cached = self._read(numbers)
            missing += [number for number in numbers if number not in cached]
            for number, packed in cached.items():
                try:
                    result = self.codec.unpack(safetensors.numpy.load(zlib.decompress(packed)))
                except (SafetensorError, zlib.error, *DAMAGED) as error:
                    logger.warning("%s: result %s is damaged (%s); it is computed again", self.path, number, error)
                    missing.append(number)
                    continue
                yield number, result
        missing.sort()
        if not missing:
            return
        fresh: dict[int, bytes] = {}
        written = time.monotonic()
        try:
            for index, result in compute([items[number] for number in missing]):
                arrays = {name: np.ascontiguousarray(array) for name, array in self.codec.pack(result).items()}
                fresh[missing[index]] = zlib.compress(safetensors.numpy.save(arrays), level=1)
                if time.monotonic() - written >= WRITE_SEC:
                    self._write(fresh)
                    fresh, written = {}, time.monotonic()
                yield missing[index], result
        except BaseException:
            with suppress(InputError, OSError):  # an error here would replace the first one
                self._write(fresh)
            raise
        self._write(fresh)

    def _read(self, numbers: range) -> dict[int, bytes]:
        """Packed results of these items, by number, of those that the file has."""
        if not self.path.is_file():
            return {}
        try:
            with closing(sqlite3.connect(self.path)) as connection:
                connection.execute(_TABLE)
                chosen = (self._full_key, numbers.start, numbers.stop)
                return dict(connection.execute(_SELECT, chosen))
        except sqlite3.OperationalError as error:  # locked or unreadable: the file's contents may be good
            raise InputError(f"{self.path}: {error}") from None
        except sqlite3.DatabaseError as error:
            logger.warning("%s: %s; its results are computed again", self.path, error)
            self.path.unlink()
            return {}

    def _write(self, results: dict[int, bytes]) -> None:
        """Opens a connection for each write, so that no process is forked while one is open."""
        if not results:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(self._full_key, number, packed) for number, packed in results.items()]
        try:
            with closing(sqlite3.connect(self.path)) as connection, connection:
                connection.execute(_TABLE)
                connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            if "disk is full" in str(error):  # Python 3.10 has no code of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from None
            raise InputError(f"{self.path}: {error}") from None
