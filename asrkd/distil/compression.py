"""Compressed posteriors: for each frame the top-k classes with one-byte logits, and the mass of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.distil.ensemble import Mean, combine
from asrkd.distil.loss import SoftTargets
from asrkd.errors import InputError

MAX_CLASSES = 1 << 16
LEVELS = 255  # of a logit, in a byte
# Nats below the greatest logit at which a class counts as impossible, whatever the temperature: a dump may hold log 0.
DEEPEST = 1000.0

Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""The parts of `Compressed` as numpy arrays, which a pipe carries as bytes."""


@dataclass(frozen=True)
class StoreOptions:
    """How the ensemble's posteriors are stored."""

    top_k: int = 28
    """Classes stored for each frame (3 bytes each)."""
    mean: Mean = "geometric"
    """How members are averaged. geometric (of logits) serves every temperature; arithmetic serves one."""
    temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """Temperatures students can learn at (2 bytes per frame each); only one with the arithmetic mean."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"posteriors.top_k: expected at least 1, found {self.top_k}")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise InputError(f"posteriors.temperatures: expected positive temperatures, found {self.temperatures}")
        if self.mean == "arithmetic" and len(self.temperatures) != 1:
            # Softmax at T of a mean of probabilities is not the mean of softmaxes at T.
            raise InputError(
                f"posteriors.temperatures: expected one temperature with the arithmetic mean, found {self.temperatures}"
            )


class Compressed(NamedTuple):
    """Rows of a store.

    The logit of a stored class, less the row's greatest, is -depth * (level / 255)^2. Squares make the steps between
    levels finest where most of the mass is.
    """

    pdf_ids: Tensor
    """int16 [N, k]: bits of an unsigned 16-bit class number, most probable first."""
    levels: Tensor
    """uint8 [N, k]: 0 is the logit of the first class, 255 that of the last one stored."""
    depth: Tensor
    """float16 [N, 1]: from the greatest logit down to the last one stored, nats."""
    log_tail: Tensor
    """float16 [N, temperatures]: log of the other classes' sum of exp(logit / T), logits less the row's greatest."""

    @property
    def logits(self) -> Tensor:
        """float32 [N, k], less the row's greatest, so at most 0."""
        return -self.depth.float() * (self.levels.float() / LEVELS).square()

    def as_rows(self) -> Rows:
        """The same as numpy arrays."""
        pdf_ids, levels, depth, log_tail = (part.cpu().numpy() for part in self)
        return pdf_ids, levels, depth, log_tail


def bytes_of_row(top_k: int, num_temperatures: int) -> int:
    """Bytes per frame in a store."""
    return 3 * top_k + 2 + 2 * num_temperatures


def compress(combined: Tensor, options: StoreOptions) -> Compressed:
    """Rows of the store for the ensemble's combined logits [N, S] (see `combined_logits`)."""
    num_classes = combined.shape[1]
    if num_classes > MAX_CLASSES:
        raise InputError(f"posteriors: expected at most {MAX_CLASSES} classes, found {num_classes}")
    relative = (combined - combined.amax(dim=1, keepdim=True)).clamp_(min=-DEEPEST)
    top = relative.topk(min(options.top_k, num_classes), dim=1)
    rest = relative.scatter(1, top.indices, -math.inf)
    log_tail = torch.stack([(rest / t).exp_().sum(dim=1).log() for t in options.temperatures], dim=1)
    depth = (-top.values[:, -1:]).half()
    # Against the depth as it is stored, so that its rounding is not added to that of the levels.
    share = -top.values / depth.float().clamp(min=torch.finfo(torch.float32).tiny)
    levels = share.sqrt_().mul_(LEVELS).round_().clamp_(max=LEVELS).to(torch.uint8)
    return Compressed(top.indices.to(torch.int16), levels, depth, log_tail.half())


def combined_logits(logits: Tensor, options: StoreOptions) -> Tensor:
    """Logits [N, S] of the mean of members' logits [M, N, S]: at a stored temperature, their softmax is that mean."""
    if options.mean == "geometric":
        return logits.mean(dim=0)
    (temperature,) = options.temperatures
    return combine(logits, temperature, "arithmetic") * temperature


def expand(rows: Compressed, column: int, temperature: float) -> SoftTargets:
    """Targets at `temperature`; its tails are in `column` of log_tail.

    The rounded logits and the tail have one normaliser, so that the probabilities and the tail sum to one.
    """
    scaled = rows.logits / temperature
    log_tail = rows.log_tail[:, column].float()
    normaliser = torch.logaddexp(torch.logsumexp(scaled, dim=1), log_tail)
    probs = (scaled - normaliser.unsqueeze(1)).exp_()
    pdf_ids = rows.pdf_ids.long() & (MAX_CLASSES - 1)
    return SoftTargets(pdf_ids, probs, (log_tail - normaliser).exp_())
