"""Results of pieces of work kept as they come, so that a step that is killed goes on with the rest."""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.workflow import provenance

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

Arrays = dict[str, NDArray[Any]]
# Between two writes, or a result's more where none came meanwhile: what a kill costs, besides the pieces being done.
WRITE_SEC = 5.0
_TABLE = "CREATE TABLE IF NOT EXISTS results (work TEXT, number INTEGER, result BLOB, PRIMARY KEY (work, number))"


@dataclass(frozen=True)
class Codec(Generic[Result]):
    """How a result becomes arrays, and comes back from them."""

    pack: Callable[[Result], Arrays]
    unpack: Callable[[Arrays], Result]


@dataclass(frozen=True)
class ResultCache:
    """Results of one piece of work after another in an SQLite file, whose writes are whole or absent."""

    path: Path
    work: str
    """Fingerprint of all that decides the results, but for the code, which is told by itself."""

    @property
    def _key(self) -> str:
        return f"{self.work} {provenance.code()['asrkd']}"

    def map(
        self,
        items: Sequence[Item],
        do: Callable[[Sequence[Item]], Iterable[tuple[int, Result]]],
        codec: Codec[Result],
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number of an item, its result): first those in the file, then what `do` makes of the others.

        `do` yields (number among the items it was given, result), in any order. InputError if the file cannot be
        written.
        """
        found = self._read()
        for number, packed in found.items():
            yield number, codec.unpack(safetensors.numpy.load(zlib.decompress(packed)))
        missing = [number for number in range(len(items)) if number not in found]
        if not missing:
            return
        fresh: dict[int, bytes] = {}
        written = time.monotonic()
        try:
            for place, result in do([items[number] for number in missing]):
                arrays = {name: np.ascontiguousarray(array) for name, array in codec.pack(result).items()}
                fresh[missing[place]] = zlib.compress(safetensors.numpy.save(arrays), level=1)
                if time.monotonic() - written >= WRITE_SEC:
                    self._write(fresh)
                    fresh, written = {}, time.monotonic()
                yield missing[place], result
        finally:
            self._write(fresh)

    def _read(self) -> dict[int, bytes]:
        if not self.path.is_file():
            return {}
        try:
            with closing(sqlite3.connect(self.path)) as connection:
                connection.execute(_TABLE)
                return dict(connection.execute("SELECT number, result FROM results WHERE work = ?", (self._key,)))
        except sqlite3.OperationalError as error:  # locked, unreadable: what is in it may be good
            raise InputError(f"{self.path}: {error}") from None
        except sqlite3.DatabaseError as error:
            logger.warning("%s: %s; its work is done again", self.path, error)
            self.path.unlink()
            return {}

    def _write(self, results: dict[int, bytes]) -> None:
        """A connection each time: none is open where workers are forked."""
        if not results:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(self._key, number, packed) for number, packed in results.items()]
        try:
            with closing(sqlite3.connect(self.path)) as connection, connection:
                connection.execute(_TABLE)
                connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: {error}") from None
