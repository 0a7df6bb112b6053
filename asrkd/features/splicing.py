"""Frames with their neighbours as a network's input, spliced on the fly from a frame store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.joined import JoinedFrames
from asrkd.features.store import FrameStore
from asrkd.workflow.memory import SHARD_FRAMES, large_tensor, new_tensor, spans

LEFT_CONTEXT_FRAMES = 20  # the paper's 26 frames, of which the 21st is predicted (section 3.1)
RIGHT_CONTEXT_FRAMES = 5


class Windows:
    """Spliced frames in memory; example n is the n-th window listed.

    Utterances lie end to end with copies of their edge frames between, so that every spliced frame is one contiguous
    run of values. An overlapping strided view makes a batch one row gather.
    """

    def __init__(self, padded: Tensor, first_rows: Tensor, width: int) -> None:
        """Windows of `width` rows of padded frames [rows, F], from first_rows [n] on (-1: not in memory)."""
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
        """Spliced frames [length, dim] of consecutive examples of one utterance; of `dtype` where given."""
        row = int(self.first_rows[first])
        spliced = torch.empty(length, self.dim, dtype=dtype or self._windows.dtype, device=self.device)
        return spliced.copy_(self._windows[row : row + length])


class SplicedFrames:
    """Frames with their neighbours as a network's input: frame t is rows t-left … t+right of its utterance.

    The edge frames are repeated for rows before the first and after the last frame. Frame ids are those of the whole
    store. With `utt_ids`, only the frames of these utterances are in memory, and `frame_ids` lists their ids; `batch`
    and `utt_batch` refuse the others. `sample`, `part` and `read_chunks` read what they need from the store.
    """

    def __init__(
        self,
        store: FrameStore | JoinedFrames,
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

    def __len__(self) -> int:
        """Number of frame ids of the store; labels [len] are indexed by the same ids."""
        return len(self.store)

    @property
    def in_memory(self) -> Tensor | None:
        """Whether each frame id is in memory, [len]; None where all are."""
        if self._utt_ids is None:
            return None
        in_memory = torch.zeros(len(self.store), dtype=torch.bool)
        in_memory[self.frame_ids] = True
        return in_memory.to(self.device)

    def to(self, device: torch.device, dtype: torch.dtype) -> SplicedFrames:
        """The same frames on another device or of another type."""
        return SplicedFrames(self.store, self.left, self.right, device, self._utt_ids, dtype)

    def batch(self, ids: Tensor, generator: torch.Generator | None = None, out: Tensor | None = None) -> Tensor:
        """Spliced frames [B, dim] of frame ids [B]; written into `out` where given.

        `generator` is for sources that draw a random distortion; this one draws none.
        """
        ids = ids.to(self.device)
        if self._utt_ids is not None and self.device.type == "cpu":  # the check would make a GPU wait
            missing = ids[self._windows.first_rows.index_select(0, ids) < 0]
            if len(missing):
                raise InputError(f"frame {int(missing[0])} of store {self.store.fingerprint}: not in memory")
        return self._windows.batch(ids, generator, out)

    def utt_batch(self, utt_id: str, dtype: torch.dtype | None = None) -> Tensor:
        """Spliced frames [T, dim] of one utterance; of `dtype` where given, the frames' own otherwise."""
        begin, end = self.store.span(utt_id)
        if end == begin or int(self._windows.first_rows[begin]) < 0:
            raise InputError(f"{utt_id}: its frames are not in memory")
        return self._windows.run(begin, end - begin, dtype)

    def read_chunks(self, utt_id: str, chunk: int, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
        """Spliced frames [at most chunk, dim] of one utterance, in order, read from the store.

        Spliced, a frame takes as much memory as its window has frames.
        """
        begin, end = self.store.span(utt_id)
        windows = self.subset(torch.arange(begin, end), self.device, torch.float32)
        for first in range(0, end - begin, chunk):
            yield windows.run(first, min(chunk, end - begin - first), dtype)

    def sample(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A few spliced frames [B, dim] float32, read from the store."""
        return self.subset(ids.cpu(), self.device, torch.float32).batch(torch.arange(len(ids), device=self.device))

    def subset(self, frame_ids: Tensor, device: torch.device, dtype: torch.dtype) -> Windows:
        """The examples of frame_ids [n] (CPU) alone, read into memory on `device` and numbered from 0."""
        return self._read(self._utterances(frame_ids), frame_ids, device, dtype)

    def partition(
        self, frame_ids: Tensor, num_parts: int, generator: torch.Generator, folder: Path | None = None
    ) -> list[Tensor]:
        """frame_ids [n] in at most num_parts parts of about equal size, each of whole utterances drawn at random.

        They are on the disk of a folder where one is given.
        """
        order = torch.randperm(len(self.store.utt_ids), generator=generator)  # index of each utterance in the draw
        of_utterance = torch.zeros_like(order)
        for ids in frame_ids.split(SHARD_FRAMES):
            of_utterance += torch.bincount(self._utterance(ids), minlength=len(order))
        counts = torch.zeros_like(order)
        counts[order] = of_utterance
        middle = counts.cumsum(0) - counts / 2
        part_by_index = (middle * num_parts / len(frame_ids)).long().clamp(max=num_parts - 1)
        part = part_by_index[order]
        sizes = torch.zeros(num_parts, dtype=torch.long).index_add_(0, part, of_utterance).tolist()
        parts = new_tensor((len(frame_ids),), torch.long, folder).split(sizes)
        filled = [0] * num_parts
        for ids in frame_ids.split(SHARD_FRAMES):
            part_of_ids = part[self._utterance(ids)]
            for number in part_of_ids.unique().tolist():
                chosen = ids[part_of_ids == number]
                parts[number][filled[number] : filled[number] + len(chosen)] = chosen
                filled[number] += len(chosen)
        return [ids for ids in parts if len(ids)]  # an utterance longer than a part leaves the next one empty

    def _utterance(self, frame_ids: Tensor) -> Tensor:
        """Position of the utterance of each frame."""
        return torch.searchsorted(self.store.offsets, frame_ids, right=True) - 1

    def _utterances(self, frame_ids: Tensor) -> Tensor:
        """Positions of the utterances of these frames, ascending."""
        of_shards = [self._utterance(ids).unique() for ids in frame_ids.split(SHARD_FRAMES)]
        return torch.cat(of_shards).unique()

    def _read(self, positions: Tensor, frame_ids: Tensor, device: torch.device, dtype: torch.dtype) -> Windows:
        """Windows of frame_ids, all of them in the utterances at `positions` [N], ascending."""
        context = self.left + self.right
        begins = self.store.offsets[positions]
        lengths = self.store.offsets[positions + 1] - begins
        starts = (lengths + context).cumsum(0) - (lengths + context)
        padded = large_tensor((int((lengths + context).sum()), self.store.num_features), dtype)
        for row, position, length in zip(starts.tolist(), positions.tolist(), lengths.tolist(), strict=True):
            body = padded[row + self.left : row + self.left + length]
            body.copy_(self.store.frames(position))
            padded[row : row + self.left] = body[0]
            padded[row + self.left + length : row + context + length] = body[-1]
        first_rows = large_tensor((len(frame_ids),), torch.long)
        for part in spans(len(frame_ids)):
            slots = torch.searchsorted(begins, frame_ids[part], right=True) - 1
            first_rows[part] = frame_ids[part] - begins[slots] + starts[slots]
        return Windows(padded.to(device), first_rows.to(device), context + 1)

    def _load(self) -> Windows:
        """Windows of the frames in memory, by the store's frame ids."""
        everything = self._utt_ids is None
        positions = torch.arange(len(self.store.utt_ids)) if everything else self._utterances(self.frame_ids)
        windows = self._read(positions, self.frame_ids, self.device, self.dtype)
        if not everything:
            # One entry for each frame id of the store; where no frame is in memory, one number seen as all of them.
            first_rows = windows.first_rows.new_full((1,), -1).expand(len(self.store))
            if len(self.frame_ids):
                first_rows = first_rows.contiguous()
                first_rows[self.frame_ids.to(self.device)] = windows.first_rows
            windows.first_rows = first_rows
        return windows
