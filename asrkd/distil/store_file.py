"""A posterior store's tensors on their way to the disk: written in place, a piece at a time, in any order."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.files import read_json, sync, write_json

TENSORS_NAME = "posteriors.safetensors"
INDEX_NAME = "store.json"
PROGRESS_NAME = "progress.json"
# Frames between two notes of how far the writing has come.
FLUSH_FRAMES = 1 << 17

# The parts of asrkd.distil.store.Compressed, of some frames, and their names in that order.
Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
ORDER = ("pdf_ids", "levels", "depth", "log_tail")
# First frame, and the one after the last.
Span = tuple[int, int]
# (name, safetensors type, numpy type, shape) of each tensor of a store, in the file's order.
Layout = list[tuple[str, str, np.dtype, tuple[int, int]]]


class StoreFile:
    """The file of one store, begun or gone on with; `done` frames from the first are in it already."""

    def __init__(self, path: Path, made_by: str, num_frames: int, top_k: int, num_temperatures: int) -> None:
        self.path = path
        self.made_by = made_by
        self._num_frames = num_frames
        self._partial = path / f"{TENSORS_NAME}.partial"
        self._layout = _layout(num_frames, top_k, num_temperatures)
        self.done = self._resume()
        self._arrays = self._map()

    def put(self, begin: int, rows: Rows) -> None:
        """Write the rows of the frames from `begin` on."""
        for array, part in zip(self._arrays, rows, strict=True):
            array[begin : begin + len(part)] = part

    def note(self, done: int) -> None:
        """Tell that all frames before `done` are written; it is noted on the disk from time to time."""
        if done - self.done >= FLUSH_FRAMES:
            self._flush()
            write_json(self.path / PROGRESS_NAME, {"fingerprint": self.made_by, "done": done})
            self.done = done

    def finish(self) -> None:
        """Sync the file and give it its name."""
        self._flush()
        self._arrays = []
        os.replace(self._partial, self.path / TENSORS_NAME)

    def clear_progress(self) -> None:
        (self.path / PROGRESS_NAME).unlink()

    def _flush(self) -> None:
        for array in self._arrays:
            array.flush()
        sync(self._partial)

    def _resume(self) -> int:
        """Frames already written by the same making; 0 after starting the file anew."""
        progress_path = self.path / PROGRESS_NAME
        progress = read_json(progress_path) if progress_path.is_file() else {}
        if progress.get("fingerprint") == self.made_by:
            if self._partial.is_file():
                return int(progress["done"])
            if (self.path / TENSORS_NAME).is_file():  # all is written, only the index is not
                os.replace(self.path / TENSORS_NAME, self._partial)
                return self._num_frames
        self.path.mkdir(parents=True, exist_ok=True)
        for stale in (progress_path, self.path / INDEX_NAME):
            stale.unlink(missing_ok=True)
        header, size = _header(self.made_by, self._layout)
        with open(self._partial, "wb") as file:
            file.write(header)
            # Taken now, so that a full disk is an error here and not a crash in a memory map later.
            os.posix_fallocate(file.fileno(), 0, len(header) + size)
        write_json(progress_path, {"fingerprint": self.made_by, "done": 0})
        return 0

    def _map(self) -> list[np.memmap]:
        """Writable maps of the tensors, in the order of Rows."""
        position = len(_header(self.made_by, self._layout)[0])
        maps = {}
        for name, _, dtype, shape in self._layout:
            maps[name] = np.memmap(self._partial, dtype=dtype, mode="r+", offset=position, shape=shape)
            position += math.prod(shape) * dtype.itemsize
        return [maps[name] for name in ORDER]


def _layout(num_frames: int, top_k: int, num_temperatures: int) -> Layout:
    """The tensors in the file's order: widest values first, so that each tensor is aligned."""
    return [
        ("log_tail", "F16", np.dtype(np.float16), (num_frames, num_temperatures)),
        ("depth", "F16", np.dtype(np.float16), (num_frames, 1)),
        ("pdf_ids", "I16", np.dtype(np.int16), (num_frames, top_k)),
        ("levels", "U8", np.dtype(np.uint8), (num_frames, top_k)),
    ]


def _header(made_by: str, layout: Layout) -> tuple[bytes, int]:
    """Header of a safetensors file of the layout, and the bytes that follow it.

    Written by hand because the library wants whole tensors in memory, and a store may exceed that.
    """
    entries: dict[str, Any] = {"__metadata__": {"fingerprint": made_by}}
    position = 0
    for name, type_name, dtype, shape in layout:
        end = position + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": type_name, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, position
