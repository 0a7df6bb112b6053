"""Random numbers of a batch's distortions, from the step's generator."""

from __future__ import annotations

import torch
from torch import Tensor


class Draw:
    """Random numbers for B examples."""

    def __init__(self, size: int, generator: torch.Generator, device: torch.device) -> None:
        self.size, self.generator, self.device = size, generator, device

    def uniform(self) -> Tensor:
        """[B] in [0, 1), float32."""
        return torch.rand(self.size, generator=self.generator, device=self.device)

    def chosen(self, fraction: float) -> Tensor:
        """Whether each example [B] is distorted."""
        return self.uniform() < fraction

    def symmetric(self, largest: float, chosen: Tensor) -> Tensor:
        """[B], uniform in [-largest, largest) where chosen, else 0."""
        return (2.0 * self.uniform() - 1.0) * largest * chosen

    def weights(self, fraction: float) -> Tensor:
        """Weight λ [B] of the example itself in its mixture; 1 where it is not mixed."""
        chosen = self.chosen(fraction)
        return torch.where(chosen, self.uniform(), torch.ones_like(chosen, dtype=torch.float32))

    def runs(self, size: int, longest: int, chosen: Tensor) -> Tensor:
        """Masks [B, size], true in a run whose length is uniform in 0 ... longest, and its start among those that
        fit."""
        longest = min(longest, size)
        lengths = (self.uniform() * (longest + 1)).floor().clamp(max=longest) * chosen
        starts = torch.minimum((self.uniform() * (size - lengths + 1)).floor(), size - lengths)
        position = torch.arange(size, device=self.device)
        begins, ends = starts.unsqueeze(1), (starts + lengths).unsqueeze(1)
        return (position >= begins) & (position < ends)
