"""The frame store: every utterance's frames end to end, memory-mapped.

The rows number the frames from 0; labels, posteriors and batches refer to these frame ids.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import fingerprint, map_tensors, read_object, reading
from asrkd.workflow.append_store import AppendStore, column_file, is_finished, partial_folder
from asrkd.workflow.memory import SHARD_FRAMES, utterance_shards

COLUMN = "feats"
TENSOR_FILE = column_file(COLUMN)
INDEX_FILE = "frames.json"

Utterance = tuple[str, str, str, Tensor]
"""utt_id, speaker, text, feats [T, F] float32."""


@dataclass(frozen=True)
class FrameStore:
    """Features of a set of utterances, numbered one after the other.

    feats [T_total, F] float32 (memory-mapped when opened from a folder); offsets [N+1] int64: utterance n has the frame
    ids offsets[n] to offsets[n+1] - 1; `utt_ids`, `speakers` and `texts` have N entries each. The frames of a whole
    store lie in `feats` as they are numbered. Those of a `subset` are some of its rows: `first_rows` [N] int64 is where
    each utterance begins.
    """

    feats: Tensor
    utt_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    texts: tuple[str, ...]
    offsets: Tensor
    metadata: Mapping[str, Any]
    fingerprint: str
    first_rows: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.utt_ids), len(self.speakers), len(self.texts), self.offsets.numel() - 1}
        is_whole = self.first_rows is None
        if len(lengths) != 1 or (is_whole and int(self.offsets[-1]) != self.feats.shape[0]):
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
        return int(self.offsets[-1])

    @property
    def num_features(self) -> int:
        """F: features per frame."""
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
        return self.frames(self.index(utt_id))

    def frames(self, position: int) -> Tensor:
        """Frames [T, F] of the utterance at a position in the store, a view."""
        begin, end = self.offsets[position : position + 2].tolist()
        row = begin if self.first_rows is None else int(self.first_rows[position])
        return self.feats[row : row + end - begin]

    def read(self) -> Tensor:
        """All frames [T, F]: as they lie, or a copy where they lie apart."""
        if self.first_rows is None:
            return self.feats
        return torch.cat([self.frames(position) for position in range(len(self.utt_ids))])

    def shards(self, max_frames: int = SHARD_FRAMES) -> Iterator[FrameStore]:
        """The store in subsets of utterances that follow each other, of at most so many frames unless one has more."""
        for first, after in utterance_shards(self.offsets, max_frames):
            yield self.subset(self.utt_ids[first:after])

    def frame_ids(self, utt_ids: Iterable[str]) -> Tensor:
        """Frame ids [sum of T] of these utterances, in the order given."""
        spans = [torch.arange(*self.span(utt_id)) for utt_id in utt_ids]
        return torch.cat(spans) if spans else torch.empty(0, dtype=torch.long)

    def subset(self, utt_ids: Sequence[str]) -> FrameStore:
        """A store of these utterances alone, with new frame ids and so a new fingerprint. No frame is read."""
        positions = [self.index(utt_id) for utt_id in utt_ids]
        chosen = torch.tensor(positions, dtype=torch.long)
        return replace(
            self,
            utt_ids=tuple(utt_ids),
            speakers=tuple(self.speakers[n] for n in positions),
            texts=tuple(self.texts[n] for n in positions),
            offsets=_offsets(self.offsets[chosen + 1] - self.offsets[chosen]),
            fingerprint=fingerprint([self.fingerprint, list(utt_ids)]),
            first_rows=(self.offsets if self.first_rows is None else self.first_rows)[chosen],
        )

    @classmethod
    def open(cls, path: Path | str) -> FrameStore:
        """The store in a folder. InputError if a part is missing, damaged or does not fit the others."""
        path = Path(path)
        index = read_object(path / INDEX_FILE)
        tensors, found = map_tensors(path / TENSOR_FILE)
        with reading(path / INDEX_FILE, "a frame store's index"):
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
            _check_index(store_parts)
        if found.get("fingerprint") != expected:
            raise InputError(f"{path / TENSOR_FILE}: expected fingerprint {expected}, found {found.get('fingerprint')}")
        return cls(**store_parts)

    @classmethod
    def write(
        cls, path: Path | str, utterances: Iterable[Utterance], metadata: Mapping[str, Any], fingerprint: str
    ) -> FrameStore:
        """Write (utt_id, speaker, text, feats [T, F]) as they come, whole or not at all, and open the result.

        `metadata` is JSON with `frame_shift_ms`. InputError, by utt_id, for an empty, odd-sized or
        non-finite utterance and for an utt_id that comes twice.
        """
        shutil.rmtree(partial_folder(Path(path)), ignore_errors=True)
        return cls._write(Path(path), lambda _: utterances, metadata, fingerprint)

    @classmethod
    def resume_write(
        cls,
        path: Path | str,
        utterances_from: Callable[[int], Iterable[Utterance]],
        metadata: Mapping[str, Any],
        fingerprint: str,
    ) -> FrameStore:
        """As `write`, but a writing of the same fingerprint that was killed is resumed, and a whole store stays.

        utterances_from(n) -> all utterances from number n on.
        """
        if is_finished(Path(path) / INDEX_FILE, fingerprint):
            return cls.open(path)
        return cls._write(Path(path), utterances_from, metadata, fingerprint)

    @classmethod
    def _write(
        cls,
        path: Path,
        utterances_from: Callable[[int], Iterable[Utterance]],
        metadata: Mapping[str, Any],
        fingerprint: str,
    ) -> FrameStore:
        if "frame_shift_ms" not in metadata:
            raise ValueError("metadata of a frame store needs frame_shift_ms")
        with closing(AppendStore(path, fingerprint, {COLUMN: "float32"})) as store:
            utt_ids = {entry.label[0] for entry in store.entries}
            for utt_id, speaker, text, feats in utterances_from(len(store.entries)):
                if utt_id in utt_ids:
                    raise InputError(f"{utt_id}: expected one utterance of this id, found two")
                utt_ids.add(utt_id)
                _check_frames(utt_id, feats, store.widths)
                store.append([feats.float().numpy()], [utt_id, speaker, text])
            if not store.entries:
                raise InputError(f"{path}: expected at least one utterance, found none")
            num_frames = [entry.num_rows for entry in store.entries]
            names = ("utt_ids", "speakers", "texts")
            lists = dict(zip(names, zip(*(entry.label for entry in store.entries), strict=True), strict=True))
            store.finish(INDEX_FILE, {"metadata": metadata, **lists, "num_frames": num_frames})
        return cls.open(path)


def _check_index(parts: Mapping[str, Any]) -> None:
    """ValueError for parts of a store that are of another type or have impossible values."""
    texts = (text for name in ("utt_ids", "speakers", "texts") for text in parts[name])
    if not all(isinstance(text, str) for text in (*texts, parts["fingerprint"])):
        raise ValueError("names and texts that are no strings")
    if not float(parts["metadata"]["frame_shift_ms"]) > 0:
        raise ValueError(f"a frame shift of {parts['metadata']['frame_shift_ms']} ms")
    if bool((parts["offsets"].diff() < 0).any()):
        raise ValueError("utterances of less than no frames")
    feats = parts["feats"]
    if feats.dim() != 2 or feats.dtype != torch.float32:
        raise ValueError(f"frames {feats.dtype} {list(feats.shape)}")


def _check_frames(utt_id: str, feats: Tensor, widths: list[int] | None) -> None:
    expected = widths[0] if widths else feats.shape[-1]
    if feats.dim() != 2 or feats.shape[0] == 0 or feats.shape[1] != expected:
        raise InputError(f"{utt_id}: expected frames [T > 0, {expected}], found {list(feats.shape)}")
    if not bool(torch.isfinite(feats).all()):
        raise InputError(f"{utt_id}: expected finite features, found NaN or infinity")


def _offsets(num_frames: Sequence[int] | Tensor) -> Tensor:
    offsets = torch.zeros(len(num_frames) + 1, dtype=torch.long)
    offsets[1:] = torch.as_tensor(num_frames, dtype=torch.long).cumsum(0)
    return offsets
