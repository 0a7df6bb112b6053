"""The frame store: every utterance's frames end to end, memory-mapped, and spliced on the fly by index.

A store's row order numbers its frames from 0; labels, posteriors and batches all speak of these frame ids.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.store_writer import INDEX_FILE, TENSOR_FILE, FrameFile, Utterance, partial_folder
from asrkd.files import fingerprint, load_tensors, read_json

LEFT_CONTEXT_FRAMES = 20  # the paper's 26 frames, of which the 21st is predicted (section 3.1)
RIGHT_CONTEXT_FRAMES = 5


@dataclass(frozen=True)
class FrameStore:
    """Features of a set of utterances, one after the other.

    feats [T_total, F] float32 (memory-mapped when opened from a folder); offsets [N+1] int64: utterance n is
    `feats[offsets[n]:offsets[n+1]]`; `utt_ids`, `speakers` and `texts` have N entries each.
    """

    feats: Tensor
    utt_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    texts: tuple[str, ...]
    offsets: Tensor
    metadata: Mapping[str, Any]
    fingerprint: str

    def __post_init__(self) -> None:
        lengths = {len(self.utt_ids), len(self.speakers), len(self.texts), self.offsets.numel() - 1}
        if len(lengths) != 1 or int(self.offsets[-1]) != self.feats.shape[0]:
            raise InputError(
                f"frame store {self.fingerprint}: expected {self.feats.shape[0]} frames in "
                f"{len(self.utt_ids)} utterances, found offsets to {int(self.offsets[-1])} and lists of "
                f"{sorted(lengths)} entries"
            )
        index = {utt_id: position for position, utt_id in enumerate(self.utt_ids)}
        if len(index) != len(self.utt_ids):
            twice = next(utt_id for n, utt_id in enumerate(self.utt_ids) if index[utt_id] != n)
            raise InputError(f"{twice}: expected one utterance of this id, found two")
        object.__setattr__(self, "_index", index)

    def __len__(self) -> int:
        """Number of frames."""
        return self.feats.shape[0]

    @property
    def num_features(self) -> int:
        """F: features a frame."""
        return self.feats.shape[1]

    @property
    def frame_shift_ms(self) -> float:
        """Milliseconds from one frame to the next."""
        return float(self.metadata["frame_shift_ms"])

    def index(self, utt_id: str) -> int:
        """Position of an utterance in the store. InputError for one that is not in it."""
        try:
            return self._index[utt_id]  # type: ignore[attr-defined,no-any-return]
        except KeyError:
            raise InputError(f"{utt_id}: expected in frame store {self.fingerprint}, found none") from None

    def span(self, utt_id: str) -> tuple[int, int]:
        """First frame id of an utterance and the one after its last."""
        position = self.index(utt_id)
        return int(self.offsets[position]), int(self.offsets[position + 1])

    def utt(self, utt_id: str) -> Tensor:
        """Frames [T, F] of one utterance, a view."""
        begin, end = self.span(utt_id)
        return self.feats[begin:end]

    def frame_ids(self, utt_ids: Iterable[str]) -> Tensor:
        """Frame ids [sum of T] of these utterances, in the order given."""
        spans = [torch.arange(*self.span(utt_id)) for utt_id in utt_ids]
        return torch.cat(spans) if spans else torch.empty(0, dtype=torch.long)

    def subset(self, utt_ids: Sequence[str]) -> FrameStore:
        """A store (in memory) of these utterances alone, with frame ids, and so a fingerprint, of its own."""
        positions = [self.index(utt_id) for utt_id in utt_ids]
        lengths = [int(self.offsets[n + 1] - self.offsets[n]) for n in positions]
        return FrameStore(
            feats=self.feats[self.frame_ids(utt_ids)],
            utt_ids=tuple(utt_ids),
            speakers=tuple(self.speakers[n] for n in positions),
            texts=tuple(self.texts[n] for n in positions),
            offsets=_offsets(lengths),
            metadata=self.metadata,
            fingerprint=fingerprint([self.fingerprint, list(utt_ids)]),
        )

    @classmethod
    def open(cls, path: Path | str) -> FrameStore:
        """The store in a folder. InputError if a part is missing, damaged or does not fit the others."""
        path = Path(path)
        index = read_json(path / INDEX_FILE)
        tensors, found = load_tensors(path / TENSOR_FILE)
        try:
            expected = index["fingerprint"]
            store_parts = {
                "feats": tensors["feats"],
                "utt_ids": tuple(index["utt_ids"]),
                "speakers": tuple(index["speakers"]),
                "texts": tuple(index["texts"]),
                "offsets": _offsets(index["num_frames"]),
                "metadata": index["metadata"],
                "fingerprint": expected,
            }
        except (KeyError, TypeError) as error:
            raise InputError(f"{path / INDEX_FILE}: expected a frame store's index, found no {error}") from None
        if found.get("fingerprint") != expected:
            raise InputError(f"{path / TENSOR_FILE}: expected fingerprint {expected}, found {found.get('fingerprint')}")
        return cls(**store_parts)

    @classmethod
    def write(
        cls, path: Path | str, utterances: Iterable[Utterance], metadata: Mapping[str, Any], fingerprint: str
    ) -> FrameStore:
        """Write (utt_id, speaker, text, feats [T, F]) as they come, whole or not at all, and open the result.

        `metadata` is JSON and holds `frame_shift_ms`. InputError, by utt_id, for an empty, odd-sized or
        non-finite utterance and for an utt_id that comes twice.
        """
        shutil.rmtree(partial_folder(Path(path)), ignore_errors=True)
        return cls._write(FrameFile(Path(path), metadata, fingerprint), lambda _: utterances)

    @classmethod
    def resume_write(
        cls,
        path: Path | str,
        utterances_from: Callable[[int], Iterable[Utterance]],
        metadata: Mapping[str, Any],
        fingerprint: str,
    ) -> FrameStore:
        """As `write`, but a writing of the same fingerprint that was cut short goes on, and a whole one stays.

        utterances_from(n) -> all utterances from number n on.
        """
        index = Path(path) / INDEX_FILE
        if index.is_file() and read_json(index).get("fingerprint") == fingerprint:
            return cls.open(path)
        return cls._write(FrameFile(Path(path), metadata, fingerprint), utterances_from)

    @classmethod
    def _write(cls, file: FrameFile, utterances_from: Callable[[int], Iterable[Utterance]]) -> FrameStore:
        with closing(file):
            for utterance in utterances_from(len(file)):
                file.append(utterance)
            file.finish()
        return cls.open(file.path)


def _offsets(num_frames: Sequence[int]) -> Tensor:
    offsets = torch.zeros(len(num_frames) + 1, dtype=torch.long)
    offsets[1:] = torch.tensor(num_frames, dtype=torch.long).cumsum(0)
    return offsets


class Windows:
    """Spliced frames in memory, example n being the n-th window listed.

    Utterances lie end to end with copies of their edge frames between, so that every spliced frame is one contiguous
    run of values; an overlapping strided view makes a batch one row gather.
    """

    def __init__(self, padded: Tensor, first_rows: Tensor, width: int) -> None:
        """Of padded frames [rows, F], the windows of `width` frames from first_rows [n] on (-1: not held)."""
        num_features = padded.shape[1]
        self.dim = width * num_features
        self.device = padded.device
        self.first_rows = first_rows
        self._windows = padded.as_strided((max(padded.shape[0] - width + 1, 0), self.dim), (num_features, 1))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.first_rows)

    def batch(self, ids: Tensor, generator: torch.Generator | None = None, out: Tensor | None = None) -> Tensor:
        """Spliced frames [B, dim], of the frames' type, of examples ids [B] on their device; into `out` where given."""
        rows = self.first_rows.index_select(0, ids)
        if out is not None:
            return torch.index_select(self._windows, 0, rows, out=out)
        return self._windows.index_select(0, rows)

    def run(self, first: int, length: int, dtype: torch.dtype | None = None) -> Tensor:
        """Spliced frames [length, dim] of examples that follow each other in one utterance; of `dtype` where given."""
        row = int(self.first_rows[first])
        found = torch.empty(length, self.dim, dtype=dtype or self._windows.dtype, device=self.device)
        return found.copy_(self._windows[row : row + length])


class SplicedFrames:
    """Frames with their neighbours as a network's input: frame t is rows t-left … t+right of its utterance.

    Rows before the first and after the last frame repeat the edge frame. Frame ids are the store's, whole or not: give
    `utt_ids` to hold only those utterances in memory (`frame_ids` lists the ids held; the others cannot be asked for).
    `sample` and `part` read what they need from the store, held or not.
    """

    def __init__(
        self,
        store: FrameStore,
        left: int = LEFT_CONTEXT_FRAMES,
        right: int = RIGHT_CONTEXT_FRAMES,
        device: str | torch.device = "cpu",
        utt_ids: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if left < 0 or right < 0:
            raise InputError(f"context: expected at least 0 frames on either side, found {left} and {right}")
        self.store = store
        self.left, self.right = left, right
        self.dim = (left + 1 + right) * store.num_features
        self.device = torch.device(device)
        self.dtype = dtype
        self._utt_ids = None if utt_ids is None else tuple(utt_ids)
        self.frame_ids = store.frame_ids(store.utt_ids if utt_ids is None else utt_ids)
        self._windows = self._load()

    def to(self, device: torch.device, dtype: torch.dtype) -> SplicedFrames:
        """The same frames on another device or of another type."""
        return SplicedFrames(self.store, self.left, self.right, device, self._utt_ids, dtype)

    def partition(self, frame_ids: Tensor, num_parts: int, generator: torch.Generator) -> list[Tensor]:
        """frame_ids [n] in at most num_parts parts of about equal size, each of whole utterances drawn at random."""
        utterance = self._utterance(frame_ids)
        place = torch.randperm(len(self.store.utt_ids), generator=generator)
        counts = torch.zeros_like(place)
        counts[place] = torch.bincount(utterance, minlength=len(place))
        middle = counts.cumsum(0) - counts / 2
        part_of_place = (middle * num_parts / len(frame_ids)).long().clamp(max=num_parts - 1)
        part = part_of_place[place[utterance]]
        parts = (frame_ids[part == number] for number in range(num_parts))
        return [ids for ids in parts if len(ids)]  # an utterance longer than a part leaves the next one empty

    def part(self, frame_ids: Tensor, device: torch.device, dtype: torch.dtype) -> Windows:
        """The examples of frame_ids [n] (CPU) alone, in memory on `device` and numbered from 0."""
        positions = self._utterance(frame_ids).unique()
        return self._read(positions, frame_ids, device, dtype)

    def _utterance(self, frame_ids: Tensor) -> Tensor:
        """Position of the utterance of each frame."""
        return torch.searchsorted(self.store.offsets, frame_ids, right=True) - 1

    def _read(self, positions: Tensor, frame_ids: Tensor, device: torch.device, dtype: torch.dtype) -> Windows:
        """Windows of frame_ids, all of which are in the utterances at `positions` [N], ascending."""
        context = self.left + self.right
        begins = self.store.offsets[positions]
        lengths = self.store.offsets[positions + 1] - begins
        starts = (lengths + context).cumsum(0) - (lengths + context)
        padded = torch.empty(int((lengths + context).sum()), self.store.num_features, dtype=dtype)
        for row, begin, length in zip(starts.tolist(), begins.tolist(), lengths.tolist(), strict=True):
            body = padded[row + self.left : row + self.left + length]
            body.copy_(self.store.feats[begin : begin + length])
            padded[row : row + self.left] = body[0]
            padded[row + self.left + length : row + context + length] = body[-1]
        slots = torch.searchsorted(begins, frame_ids, right=True) - 1
        first_rows = frame_ids - begins[slots] + starts[slots]
        return Windows(padded.to(device), first_rows.to(device), context + 1)

    def _load(self) -> Windows:
        """Windows of the frames held, by the store's frame ids."""
        everything = self._utt_ids is None
        positions = torch.arange(len(self.store.utt_ids)) if everything else self._utterance(self.frame_ids).unique()
        held = self._read(positions, self.frame_ids, self.device, self.dtype)
        if not everything:
            # Of the whole store; where none is held, one number seen from everywhere.
            first_rows = held.first_rows.new_full((1,), -1).expand(len(self.store))
            if len(self.frame_ids):
                first_rows = first_rows.contiguous()
                first_rows[self.frame_ids.to(self.device)] = held.first_rows
            held.first_rows = first_rows
        return held

    def __len__(self) -> int:
        """Number of frame ids of the store; labels [len] are indexed by the same ids."""
        return len(self.store)

    @property
    def held(self) -> Tensor | None:
        """Whether each frame id is held in memory, [len]; None where all are."""
        if self._utt_ids is None:
            return None
        held = torch.zeros(len(self.store), dtype=torch.bool)
        held[self.frame_ids] = True
        return held.to(self.device)

    def sample(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A few spliced frames [B, dim] float32, held or not: their utterances are read for them."""
        return self.part(ids.cpu(), self.device, torch.float32).batch(torch.arange(len(ids), device=self.device))

    def batch(self, ids: Tensor, generator: torch.Generator | None = None, out: Tensor | None = None) -> Tensor:
        """Spliced frames [B, dim] of frame ids [B]; written into `out` where given.

        `generator` is for sources that draw a random distortion; this one draws none.
        """
        ids = ids.to(self.device)
        if self._utt_ids is not None and self.device.type == "cpu":  # a GPU would be waited for
            missing = ids[self._windows.first_rows.index_select(0, ids) < 0]
            if len(missing):
                raise InputError(f"frame {int(missing[0])} of store {self.store.fingerprint}: not held in memory")
        return self._windows.batch(ids, generator, out)

    def utt_batch(self, utt_id: str, dtype: torch.dtype | None = None) -> Tensor:
        """Spliced frames [T, dim] of one utterance; of `dtype` where given, the frames' own otherwise."""
        begin, end = self.store.span(utt_id)
        if end == begin or int(self._windows.first_rows[begin]) < 0:
            raise InputError(f"{utt_id}: its frames are not held in memory")
        return self._windows.run(begin, end - begin, dtype)
