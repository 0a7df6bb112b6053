"""Single-Gaussian statistics of triphone states, on which a senone tree is grown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.workflow.memory import spans

VARIANCE_FLOOR = 0.01  # share of the variance of all frames, per dimension: a small cluster's likelihood stays finite
CHUNK_FRAMES = 20000  # converted to float64 at once
BASE = 1 << 15  # of a triphone state as one number: phones are int16
LOG_TWO_PI_E = float(np.log(2.0 * np.pi) + 1.0)


@dataclass(frozen=True)
class TriphoneStats:
    """Counts, sums and sums of squares of the frames of K triphone states. ValueError for other shapes."""

    keys: NDArray[np.int64]
    """[K, 4]: (left, phone, right, state) of the triphone states that were seen, sorted, each once."""
    count: NDArray[np.float64]
    """[K] frames."""
    total: NDArray[np.float64]
    """[K, D] sums of the frames."""
    squares: NDArray[np.float64]
    """[K, D] sums of the squares."""
    floor: NDArray[np.float64]
    """[D] variance floor."""

    def __post_init__(self) -> None:
        num, dim = self.keys.shape[0], self.total.shape[1]
        shapes = (self.keys.shape, self.count.shape, self.total.shape, self.squares.shape, self.floor.shape)
        if shapes != ((num, 4), (num,), (num, dim), (num, dim), (dim,)):
            raise ValueError(f"triphone statistics: expected [K,4], [K], [K,D], [K,D], [D], found {shapes}")


def log_likelihood(
    count: NDArray[np.float64],
    total: NDArray[np.float64],
    squares: NDArray[np.float64],
    floor: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Log-likelihood of pooled frames under their own maximum-likelihood diagonal Gaussian (natural log).

    -n/2 · Σ_d (log 2πe + log var_d); count [...], total and squares [..., D] -> [...]. No frames have 0. The formula
    ignores what a floored variance costs, as tree building usually does.
    """
    safe = np.maximum(count, 1e-10)[..., None]
    variance = np.maximum(squares / safe - (total / safe) ** 2, floor)
    return -0.5 * count * (LOG_TWO_PI_E + np.log(variance)).sum(-1)


def accumulate_frames(left: Tensor, phone: Tensor, right: Tensor, state: Tensor, feats: Tensor) -> TriphoneStats:
    """Statistics of frames [T, D]; left, phone, right and state are integer vectors [T]."""
    return accumulate(lambda: [triphone_states(left, phone, right, state)], feats)


def triphone_states(left: Tensor, phone: Tensor, right: Tensor, state: Tensor) -> Tensor:
    """Integers [T, 4], one row per frame, from integer vectors [T]."""
    return torch.stack([x.long() for x in (left, phone, right, state)], dim=1)


def accumulate(parts: Callable[[], Iterable[Tensor]], feats: Tensor) -> TriphoneStats:
    """Statistics of frames [T, D].

    `parts`, which is called twice, gives their triphone states: [t, 4] of the first t frames, of the next ones, ...
    """
    codes = torch.unique(torch.cat([torch.unique(_codes(part)) for part in parts()]))
    count = torch.zeros(codes.numel(), dtype=torch.long)
    total = torch.zeros(codes.numel(), feats.shape[1], dtype=torch.double)
    squares = torch.zeros_like(total)
    done = 0
    for part in parts():
        index = torch.searchsorted(codes, _codes(part))
        count += torch.bincount(index, minlength=codes.numel())
        of_part = feats[done : done + len(part)]
        done += len(part)
        for chunk in spans(len(part), CHUNK_FRAMES):
            values = of_part[chunk].double()
            total.index_add_(0, index[chunk], values)
            squares.index_add_(0, index[chunk], values.square())
    keys = torch.stack([codes // BASE**3, codes // BASE**2 % BASE, codes // BASE % BASE, codes % BASE], dim=1)
    return TriphoneStats(
        keys.numpy(),
        count.double().numpy(),
        total.numpy(),
        squares.numpy(),
        VARIANCE_FLOOR * feats.var(0, unbiased=False).double().numpy(),
    )


def _codes(keys: Tensor) -> Tensor:
    """Triphone states [t, 4] as numbers [t], in the same order."""
    left, phone, right, state = keys.unbind(1)
    return ((left * BASE + phone) * BASE + right) * BASE + state
