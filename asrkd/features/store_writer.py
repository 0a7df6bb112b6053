"""A frame store on its way to the disk: utterances are appended, and a writing that was cut short goes on."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import publish_dir, sync, write_json

TENSOR_FILE = "feats.safetensors"
INDEX_FILE = "frames.json"
JOURNAL_FILE = "journal.jsonl"
# safetensors opens with 8 bytes of header length and a JSON header that may end in spaces. Keeping room for
# it lets the frames be written as they come, so that a corpus larger than the memory can be stored.
HEADER_BYTES = 512
FLOAT_BYTES = 4
# Written between two notes of how far the writing has come: half an hour of speech with 40 features.
NOTE_BYTES = 1 << 25

Utterance = tuple[str, str, str, Tensor]
"""utt_id, speaker, text, feats [T, F] float32."""


class FrameFile:
    """The folder beside `path` in which a store grows; `finish` puts it in its place.

    The journal opens with the store's fingerprint and has a line an utterance, written once its frames are on the disk.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any], fingerprint: str) -> None:
        """Begin a store, or go on with one of the same fingerprint."""
        if "frame_shift_ms" not in metadata:
            raise ValueError("metadata of a frame store needs frame_shift_ms")
        self.path, self.metadata, self.fingerprint = path, metadata, fingerprint
        self._beside = partial_folder(path)
        self._rows = self._resume()
        self._noted = len(self._rows)
        self._names = {row[0] for row in self._rows}
        self._file = (self._beside / TENSOR_FILE).open("r+b")
        self._file.seek(0, os.SEEK_END)
        self._journal = (self._beside / JOURNAL_FILE).open("a", encoding="utf-8")
        self._noted_bytes = self._file.tell()

    def __len__(self) -> int:
        """Utterances written so far."""
        return len(self._rows)

    def append(self, utterance: Utterance) -> None:
        """Write one more. InputError, by utt_id, for an empty, odd-sized or non-finite one, or one that comes twice."""
        utt_id, speaker, text, feats = utterance
        if utt_id in self._names:
            raise InputError(f"{utt_id}: expected one utterance of this id, found two")
        _check_frames(utt_id, feats, self._num_features)
        self._file.write(memoryview(feats.to(torch.float32).contiguous().numpy()).cast("B"))
        self._names.add(utt_id)
        self._rows.append([utt_id, speaker, text, *feats.shape])
        if self._file.tell() - self._noted_bytes >= NOTE_BYTES:
            self._note()

    def finish(self) -> None:
        """Give the store its header and index and put it in its place. InputError if it has no utterance."""
        if not self._rows:
            raise InputError(f"{self.path}: expected at least one utterance, found none")
        names = ("utt_ids", "speakers", "texts", "num_frames")
        columns = dict(zip(names, zip(*(row[:4] for row in self._rows), strict=True), strict=True))
        self._write_header(sum(columns["num_frames"]))
        self.close()
        write_json(self._beside / INDEX_FILE, {"fingerprint": self.fingerprint, "metadata": self.metadata, **columns})
        publish_dir(self._beside, self.path)
        (self.path / JOURNAL_FILE).unlink()  # of use up to the renaming

    def close(self) -> None:
        self._file.close()
        self._journal.close()

    @property
    def _num_features(self) -> int | None:
        return self._rows[0][4] if self._rows else None

    def _note(self) -> None:
        """Frames first, then the lines that tell of them: whatever the journal has is there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._journal.writelines(json.dumps(row) + "\n" for row in self._rows[self._noted :])
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._noted, self._noted_bytes = len(self._rows), self._file.tell()

    def _resume(self) -> list[list[Any]]:
        """Rows [utt_id, speaker, text, T, F] of an earlier writing of the same store, both files cut to them."""
        rows, journal_bytes = _read_journal(self._beside / JOURNAL_FILE, self.fingerprint)
        frames = self._beside / TENSOR_FILE
        size = HEADER_BYTES + FLOAT_BYTES * sum(row[3] * row[4] for row in rows)
        if not rows or not frames.is_file() or frames.stat().st_size < size:
            self._begin()
            return []
        os.truncate(frames, size)
        os.truncate(self._beside / JOURNAL_FILE, journal_bytes)
        return rows

    def _begin(self) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)
        self._beside.mkdir(parents=True)
        (self._beside / TENSOR_FILE).write_bytes(b" " * HEADER_BYTES)
        (self._beside / JOURNAL_FILE).write_text(json.dumps(self.fingerprint) + "\n", encoding="utf-8")
        sync(self._beside)

    def _write_header(self, num_frames: int) -> None:
        """Fill the room kept at the front of a safetensors file that holds one tensor, `feats`."""
        assert self._num_features is not None
        num_bytes = num_frames * self._num_features * FLOAT_BYTES
        shape = [num_frames, self._num_features]
        header = {
            "__metadata__": {"fingerprint": self.fingerprint},
            "feats": {"dtype": "F32", "shape": shape, "data_offsets": [0, num_bytes]},
        }
        room = HEADER_BYTES - 8
        text = json.dumps(header).encode().ljust(room)
        if len(text) > room:
            raise ValueError(f"expected a fingerprint that fits a header of {room} bytes, found {self.fingerprint!r}")
        self._file.seek(0)
        self._file.write(struct.pack("<Q", room) + text)


def partial_folder(path: Path) -> Path:
    """Where the store that will be `path` grows."""
    return path.with_name(f".{path.name}.partial")


def _read_journal(path: Path, fingerprint: str) -> tuple[list[list[Any]], int]:
    """The rows of a journal of this fingerprint, and the bytes that they and the first line take: whole lines only."""
    if not path.is_file():
        return [], 0
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n")
    if json.loads(lines[0] or b"null") != fingerprint:
        return [], 0
    return [json.loads(line) for line in lines[1:]], len(whole) + 1


def _check_frames(utt_id: str, feats: Tensor, num_features: int | None) -> None:
    expected = feats.shape[-1] if num_features is None else num_features
    if feats.dim() != 2 or feats.shape[0] == 0 or feats.shape[1] != expected:
        raise InputError(f"{utt_id}: expected frames [T > 0, {expected}], found {list(feats.shape)}")
    if not bool(torch.isfinite(feats).all()):
        raise InputError(f"{utt_id}: expected finite features, found NaN or infinity")
