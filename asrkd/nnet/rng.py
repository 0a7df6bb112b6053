"""The random numbers of a training, as functions of (seed, epoch, purpose).

No generator's state is ever stored. A training seeds its generators anew at the start of each epoch, so that a resumed
one draws the same numbers, and one purpose (data order, augmentation, dropout) never shifts the numbers of another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

ORDER, AUGMENTATION, DROPOUT, SHARDS = "order", "augmentation", "dropout", "shards"
EXTRA = "extra"


def epoch_seed(seed: int, epoch: int, purpose: str) -> int:
    """The seed of the random numbers of one epoch for one purpose, 56 bits."""
    digest = hashlib.sha256(f"{seed} {epoch} {purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def epoch_generator(seed: int, epoch: int, purpose: str, device: torch.device) -> torch.Generator:
    """A generator on `device` that is seeded with `epoch_seed`."""
    return torch.Generator(device).manual_seed(epoch_seed(seed, epoch, purpose))


@dataclass(frozen=True)
class ModelGenerators:
    """The generators of one model's training: a stack of models has one set per member."""

    seed: int
    order: torch.Generator
    """Order of the examples, on the CPU."""
    augmentation: torch.Generator
    """Augmentation of the inputs, on their device."""
    dropout: torch.Generator
    """Dropout masks, on the model's device."""
    dropout_purpose: str = DROPOUT
    """Part of the seed of the masks: with several processes each has its own (see BatchShard)."""

    @classmethod
    def create(
        cls, seed: int, inputs_device: torch.device, device: torch.device, dropout_purpose: str
    ) -> ModelGenerators:
        """Generators that `start_epoch` must seed before their first use."""
        return cls(seed, torch.Generator(), torch.Generator(inputs_device), torch.Generator(device), dropout_purpose)

    def start_epoch(self, epoch: int) -> None:
        """Seed all generators for this epoch."""
        for purpose, generator in (
            (ORDER, self.order),
            (AUGMENTATION, self.augmentation),
            (self.dropout_purpose, self.dropout),
        ):
            generator.manual_seed(epoch_seed(self.seed, epoch, purpose))

    def dropout_seed(self, epoch: int) -> int:
        """The seed of this epoch's dropout masks, for modules that draw them from the global generator."""
        return epoch_seed(self.seed, epoch, self.dropout_purpose)

    def shuffle(self, ids: Tensor) -> Tensor:
        """ids [n] (CPU) in this epoch's order."""
        return ids[torch.randperm(len(ids), generator=self.order)]
