"""Lists of different lengths, one after the other in flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranges(counts: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For counts c_0, c_1, …: which count (0 c_0 times, 1 c_1 times …) and the index within it."""
    which = np.repeat(np.arange(counts.size), counts)
    return which, np.arange(which.size) - np.repeat(np.cumsum(counts) - counts, counts)


def rows_of(first: NDArray[np.int64], keys: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(which of `keys`, row) of all rows that belong to each; those of key k are first[k] to first[k + 1] - 1."""
    which, within = ranges(first[keys + 1] - first[keys])
    return which, first[keys][which] + within
