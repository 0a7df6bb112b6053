"""Several frame stores as one, without a copy: frame ids of the second follow those of the first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint


@dataclass(frozen=True)
class JoinedFrames:
    """Frame stores end to end. Utterances of all but the first are named by their store too: `transfer:utt_id`.

    InputError unless all have features of one size.
    """

    first: FrameStore
    others: tuple[tuple[str, FrameStore], ...]
    """(name, store)."""

    def __post_init__(self) -> None:
        for name, store in self.others:
            if store.num_features != self.first.num_features:
                raise InputError(
                    f"frames of {name}: expected {self.first.num_features} features, found {store.num_features}"
                )

    @cached_property
    def stores(self) -> tuple[FrameStore, ...]:
        return (self.first, *(store for _, store in self.others))

    def __len__(self) -> int:
        """Number of frames."""
        return sum(map(len, self.stores))

    @property
    def num_features(self) -> int:
        """F: features per frame."""
        return self.first.num_features

    @cached_property
    def utt_ids(self) -> tuple[str, ...]:
        """utt_ids of all stores, N in all."""
        named = (f"{name}:{utt_id}" for name, store in self.others for utt_id in store.utt_ids)
        return (*self.first.utt_ids, *named)

    @cached_property
    def offsets(self) -> Tensor:
        """First frame of each utterance, and the number of all frames, [N+1]."""
        lengths = torch.cat([store.offsets.diff() for store in self.stores])
        return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])

    @property
    def fingerprint(self) -> str:
        """A hash of the stores' fingerprints and names."""
        return fingerprint([self.first.fingerprint, *([name, store.fingerprint] for name, store in self.others)])

    def frames(self, position: int) -> Tensor:
        """Frames [T, F] of the utterance at a position among all, a view."""
        for store in self.stores:
            if position < len(store.utt_ids):
                return store.frames(position)
            position -= len(store.utt_ids)
        raise IndexError(position)

    def span(self, utt_id: str) -> tuple[int, int]:
        """First frame id of an utterance and the one after its last. InputError for one that is in no store."""
        if utt_id not in self._index:
            raise InputError(f"{utt_id}: expected in frame store {self.fingerprint}, found none")
        position = self._index[utt_id]
        return int(self.offsets[position]), int(self.offsets[position + 1])

    def frame_ids(self, utt_ids: Iterable[str]) -> Tensor:
        """Frame ids [sum of T] of these utterances, in the order given."""
        spans = [torch.arange(*self.span(utt_id)) for utt_id in utt_ids]
        return torch.cat(spans) if spans else torch.empty(0, dtype=torch.long)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {utt_id: position for position, utt_id in enumerate(self.utt_ids)}
