"""A training set and more examples behind it: which of them an epoch has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.rng import EXTRA, epoch_generator
from asrkd.workflow.memory import SHARD_FRAMES, new_tensor


@dataclass(frozen=True)
class ExtraExamples:
    """Examples beyond the training set, which need no labels. A share of each epoch is from them."""

    first_id: int
    """Examples from this id on are extra ones."""
    share: float
    """Fraction of an epoch."""

    def __post_init__(self) -> None:
        if self.first_id < 1 or not 0.0 < self.share < 1.0:
            raise InputError(
                f"extra examples: expected a share above 0 and below 1 from an id above 0 on, "
                f"found {self.share:g} from {self.first_id} on"
            )


@dataclass(frozen=True)
class Mixture:
    """The examples of a training, or of a shard of it: an epoch has the training set, and some of the extra ones.

    The extra examples are dealt out in a random order, as many an epoch as `share` asks for, and in a new order when
    all have been used.
    """

    training: Tensor
    """Ids [n] of the training set, int64, on the CPU."""
    extra: Tensor
    """Ids [m] of the others, int64, on the CPU."""
    share: float
    """Fraction of an epoch that is extra."""

    @classmethod
    def of(cls, ids: Tensor, extra: ExtraExamples, folder: Path | None = None) -> Mixture:
        """The examples ids [n]; they are on the disk of a folder where one is given."""
        chunks = ids.split(SHARD_FRAMES)
        num_extra = sum(int((part >= extra.first_id).sum()) for part in chunks)
        lists = new_tensor((len(ids),), torch.long, folder).split([len(ids) - num_extra, num_extra])
        filled = [0, 0]
        for part in chunks:
            is_extra = part >= extra.first_id
            for number, chosen in enumerate((part[~is_extra], part[is_extra])):
                lists[number][filled[number] : filled[number] + len(chosen)] = chosen
                filled[number] += len(chosen)
        return cls(lists[0], lists[1], extra.share)

    def renumbered(self) -> Mixture:
        """The same for examples that are numbered from 0: the training set first."""
        size = len(self.training)
        return Mixture(torch.arange(size), torch.arange(size, size + len(self.extra)), self.share)

    def __len__(self) -> int:
        """Examples of an epoch."""
        return len(self.training) + self.num_extra

    @property
    def num_extra(self) -> int:
        """Extra examples of an epoch."""
        if len(self.extra) == 0:
            return 0
        return max(1, round(len(self.training) * self.share / (1.0 - self.share)))

    def epoch(self, epoch: int) -> Tensor:
        """Ids of the examples of an epoch, counted from 0: a function of its arguments alone."""
        return torch.cat([self.training, self._dealt(epoch * self.num_extra, self.num_extra)])

    def _dealt(self, first: int, number: int) -> Tensor:
        """Numbers `first` to `first + number` of the extra examples, dealt out round after round."""
        size, parts = len(self.extra), []
        while number > 0:
            cycle, begin = divmod(first, size)
            order = torch.randperm(size, generator=epoch_generator(0, cycle, EXTRA, torch.device("cpu")))
            chosen = order[begin : begin + number]
            parts.append(self.extra[chosen])
            first, number = first + len(chosen), number - len(chosen)
        return torch.cat(parts) if parts else self.extra[:0]
