"""Samples at another sampling rate.

Lhotse ships torchaudio's resampler, so that torchaudio need not be installed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from lhotse.augmentation.resample import Resample

# torchaudio's values for the quality of resampy's "kaiser_best": -0.02 dB at 0.9 of half the lower rate, aliases below
# -150 dB.
FILTER_WIDTH = 64
ROLLOFF = 0.9475937167399596
BETA = 14.769656459379492
MOST_KERNEL_VALUES = 1 << 24  # 64 MB; 44.1 to 16 kHz has 145,000, a pair of rates without a common divisor 10^8


def can_resample(sampling_rate: int, new_rate: int) -> bool:
    """Whether the filters of this pair of rates (Hz) fit into memory: the rates have a large common divisor."""
    divisor = math.gcd(sampling_rate, new_rate)
    before, after = sampling_rate // divisor, new_rate // divisor
    width = FILTER_WIDTH * before / (min(before, after) * ROLLOFF)
    return after * (before + 2 * width) <= MOST_KERNEL_VALUES


def resample(samples: np.ndarray, sampling_rate: int, new_rate: int) -> np.ndarray:
    """Samples [channels, N] float32 at `sampling_rate` as [channels, ceil(N · new_rate / sampling_rate)] at `new_rate`.

    Sample t stays at the time t / rate: the filters are symmetric.
    """
    if sampling_rate == new_rate:
        return samples
    with torch.inference_mode():
        resampled = _resampler(sampling_rate, new_rate)(torch.from_numpy(np.ascontiguousarray(samples)))
    return np.asarray(resampled)


@lru_cache(maxsize=16)
def _resampler(sampling_rate: int, new_rate: int) -> Resample:
    return Resample(sampling_rate, new_rate, "sinc_interp_kaiser", FILTER_WIDTH, ROLLOFF, BETA)
