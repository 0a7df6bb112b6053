"""Doubtful transcripts: utterances whose frames fit their words far worse than others of their split.

A wrong transcript has a low log-likelihood per frame. With the texts of 5% of AN4's utterances exchanged, in training
too, 52 of 52 lay at least 6 robust standard deviations below their split's median, and none of the 1,026 others more
than 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAD_TO_DEVIATION = 1.4826  # of a normal distribution
# Nats per frame. The deviation is 0.3 to 0.5 on AN4 and the prompts. In a split of a few utterances it can be near 0.
MIN_DEVIATION = 0.25


@dataclass(frozen=True)
class TypicalFit:
    """Log-likelihoods per frame of a split's utterances, nats: the median, and a robust standard deviation."""

    median: float
    deviation: float

    @staticmethod
    def of(per_frame: NDArray[np.float64]) -> TypicalFit:
        """From the values [N] of at least one utterance. The deviation is at least MIN_DEVIATION."""
        median = float(np.median(per_frame))
        spread = MAD_TO_DEVIATION * float(np.median(np.abs(per_frame - median)))
        return TypicalFit(median, max(spread, MIN_DEVIATION))

    def deviations_below(self, per_frame: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many deviations each value [N] lies below the median."""
        return (self.median - per_frame) / self.deviation
