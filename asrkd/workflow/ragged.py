"""Lists of different lengths, one after the other in flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranges(counts: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The list number and the index within the list of each element, for lists of counts [N] elements.

    Counts 2, 0, 3 give 0 0 2 2 2 and 0 1 0 1 2.
    """
    which = np.repeat(np.arange(counts.size), counts)
    return which, np.arange(which.size) - np.repeat(np.cumsum(counts) - counts, counts)


def rows_of(first: NDArray[np.int64], keys: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(index in `keys`, row) of all rows that belong to each key; key k has the rows first[k] to first[k + 1] - 1."""
    which, within = ranges(first[keys + 1] - first[keys])
    return which, first[keys][which] + within
