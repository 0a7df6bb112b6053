"""Labelled and unlabelled examples in one training: which of them an epoch has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asrkd.nnet.rng import UNLABELLED, epoch_generator
from asrkd.workflow.memory import SHARD_FRAMES, new_tensor


@dataclass(frozen=True)
class Mixture:
    """The examples of a training, or of a shard of it: an epoch has all labelled ones, and some of the others.

    The unlabelled examples are dealt out in a random order, as many an epoch as `share` asks for, and in a new order
    when all have been used.
    """

    labelled: Tensor
    """Ids [n], int64, on the CPU."""
    unlabelled: Tensor
    """Ids [m], int64, on the CPU."""
    share: float
    """Fraction of an epoch that is unlabelled."""

    @classmethod
    def of(cls, ids: Tensor, labels: Tensor, share: float, folder: Path | None = None) -> Mixture:
        """The examples ids [n] of those with labels [N]: a negative label is none.

        The ids are on the disk of a folder where one is given.
        """
        chunks = ids.split(SHARD_FRAMES)
        num_labelled = sum(int((labels[part.to(labels.device)] >= 0).sum()) for part in chunks)
        lists = new_tensor((len(ids),), torch.long, folder).split([num_labelled, len(ids) - num_labelled])
        filled = [0, 0]
        for part in chunks:
            has_label = (labels[part.to(labels.device)] >= 0).cpu()
            for number, chosen in enumerate((part[has_label], part[~has_label])):
                lists[number][filled[number] : filled[number] + len(chosen)] = chosen
                filled[number] += len(chosen)
        return cls(lists[0], lists[1], share)

    def __len__(self) -> int:
        """Examples of an epoch."""
        return len(self.labelled) + self.num_unlabelled

    @property
    def num_unlabelled(self) -> int:
        """Unlabelled examples of an epoch."""
        if len(self.unlabelled) == 0:
            return 0
        return max(1, round(len(self.labelled) * self.share / (1.0 - self.share)))

    def epoch(self, epoch: int) -> Tensor:
        """Ids of the examples of an epoch, counted from 0: a function of its arguments alone."""
        return torch.cat([self.labelled, self._dealt(epoch * self.num_unlabelled, self.num_unlabelled)])

    def _dealt(self, first: int, number: int) -> Tensor:
        """Numbers `first` to `first + number` of the unlabelled examples, dealt out round after round."""
        size, parts = len(self.unlabelled), []
        while number > 0:
            cycle, begin = divmod(first, size)
            order = torch.randperm(size, generator=epoch_generator(0, cycle, UNLABELLED, torch.device("cpu")))
            chosen = order[begin : begin + number]
            parts.append(self.unlabelled[chosen])
            first, number = first + len(chosen), number - len(chosen)
        return torch.cat(parts) if parts else self.unlabelled[:0]
