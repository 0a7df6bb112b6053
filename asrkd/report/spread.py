"""The spread of a figure over seeds, as a table shows it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from asrkd.report.tables import number


def mean_and_deviation(values: Sequence[float], digits: int, scale: float = 1.0) -> str:
    """`mean ± standard deviation` of one value per seed, both times `scale`; the mean alone of a single seed."""
    mean = number(statistics.fmean(values), digits, scale)
    if len(values) == 1:
        return mean
    return f"{mean} ± {number(statistics.stdev(values), digits, scale)}"
