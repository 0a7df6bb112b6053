"""Single-Gaussian statistics of triphone states: what a senone tree is grown on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from asrkd.hmm.alignment import Alignment

VARIANCE_FLOOR = 0.01  # of the variance of all frames, a dimension: keeps the likelihood of a small cluster finite
CHUNK_FRAMES = 20000  # in float64 at once
LOG_TWO_PI_E = float(np.log(2.0 * np.pi) + 1.0)


@dataclass(frozen=True)
class TriphoneStats:
    """Counts, sums and sums of squares of the frames of each triphone state seen.

    keys: [K, 4] int64, (left, phone, right, state), rows unique and sorted.
    count: [K], total: [K, D], squares: [K, D] float64. floor: [D] float64, the variance floor.
    """

    keys: NDArray[np.int64]
    count: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    floor: NDArray[np.float64]

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

    -n/2 · Σ_d (log 2πe + log var_d); count [...], total and squares [..., D] -> [...]. An empty pool has 0.
    Where a variance stands at the floor this leaves out the little that floor costs, as tree growers do.
    """
    safe = np.maximum(count, 1e-10)[..., None]
    variance = np.maximum(squares / safe - (total / safe) ** 2, floor)
    return -0.5 * count * (LOG_TWO_PI_E + np.log(variance)).sum(-1)


def accumulate(alignment: Alignment, feats: Tensor) -> TriphoneStats:
    """Statistics of each triphone state in an alignment; feats [T, D] are its frames, row for row."""
    left, phone, right = alignment.triphones()
    if feats.shape[0] != phone.numel():
        raise ValueError(f"statistics: expected {phone.numel()} frames as aligned, found {feats.shape[0]}")
    return accumulate_frames(left, phone, right, alignment.state, feats)


def accumulate_frames(left: Tensor, phone: Tensor, right: Tensor, state: Tensor, feats: Tensor) -> TriphoneStats:
    """Statistics of frames [T, D] by (left, phone, right, state), four integer vectors [T]."""
    columns = torch.stack([x.long() for x in (left, phone, right, state)], dim=1)
    base = int(columns.max()) + 1 if columns.numel() else 1
    code = ((columns[:, 0] * base + columns[:, 1]) * base + columns[:, 2]) * base + columns[:, 3]
    codes, index = torch.unique(code, return_inverse=True)
    count = torch.bincount(index, minlength=codes.numel()).double()
    total = torch.zeros(codes.numel(), feats.shape[1], dtype=torch.double)
    squares = torch.zeros_like(total)
    for begin in range(0, feats.shape[0], CHUNK_FRAMES):
        chunk = slice(begin, begin + CHUNK_FRAMES)
        values = feats[chunk].double()
        total.index_add_(0, index[chunk], values)
        squares.index_add_(0, index[chunk], values.square())
    keys = torch.stack([codes // base**3, codes // base**2 % base, codes // base % base, codes % base], dim=1)
    return TriphoneStats(
        keys.numpy(),
        count.numpy(),
        total.numpy(),
        squares.numpy(),
        VARIANCE_FLOOR * feats.var(0, unbiased=False).double().numpy(),
    )
