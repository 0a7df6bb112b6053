"""Several posterior stores as one: the rows of the second follow those of the first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asrkd.distil.compression import Compressed, expand
from asrkd.distil.loss import SoftTargets
from asrkd.distil.store import StoredTargets
from asrkd.errors import InputError
from asrkd.files import fingerprint


class JoinedTargets:
    """Stores end to end as a `TargetSource`, without a copy.

    InputError unless all have the same options and number of classes.
    """

    def __init__(self, stores: Sequence[StoredTargets]) -> None:
        expected = stores[0].layout
        for store in stores:
            if store.layout != expected:
                raise InputError(f"posterior store {store.fingerprint}: expected {expected}, found {store.layout}")
        self.stores = tuple(stores)
        self.options = stores[0].options
        self.fingerprint = fingerprint([store.fingerprint for store in stores])

    def __len__(self) -> int:
        """Number of frames."""
        return sum(map(len, self.stores))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.stores[0].device

    def has_targets(self) -> Tensor:
        """Whether each frame [T] has a target; see `StoredTargets.has_targets`."""
        return torch.cat([store.has_targets() for store in self.stores])

    def targets(self, frame_ids: Tensor, temperature: float) -> SoftTargets:
        """Targets of frame_ids [B]; see `StoredTargets.targets`."""
        tail = self.stores[0].tail_index(temperature)
        return expand(self._rows(frame_ids, self.device), tail, temperature)

    def subset(self, ids: Tensor, device: torch.device) -> StoredTargets:
        """The rows of frames ids [n] alone, then numbered from 0, in the memory of `device`."""
        return StoredTargets(self._rows(ids, device), self.options, self.fingerprint)

    def _rows(self, ids: Tensor, device: torch.device) -> Compressed:
        """Rows [n] of these ids: each store's where they belong."""
        ids = ids.to(self.device)
        first = self.stores[0].rows(ids[:0], device)
        rows = Compressed(*(part.new_empty((len(ids), *part.shape[1:])) for part in first))
        begin = 0
        for store in self.stores:
            chosen = ((ids >= begin) & (ids < begin + len(store))).nonzero().squeeze(1)
            for part, found in zip(rows, store.rows(ids[chosen] - begin, device), strict=True):
                part[chosen.to(device)] = found
            begin += len(store)
        return rows
