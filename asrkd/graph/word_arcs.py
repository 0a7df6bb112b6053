"""Words belong on arcs that a frame is spent on.

`k2.remove_epsilon` sees labels and scores alone: of two epsilon paths between the same states it keeps the
better, even where they put out different words (homophones, told apart only by a disambiguation symbol that
has become epsilon). So words leave the epsilon arcs first, and what is removed then puts out nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asrkd.graph.arrays import FstArrays, sorted_by_source

WordSequences = dict[tuple[int, ...], int]


def words_on_emitting_arcs(fst: FstArrays, num_words: int) -> tuple[FstArrays, tuple[tuple[int, ...], ...]]:
    """Move the output of every epsilon arc to the arcs before it (after it, for those that leave the start).

    The output labels of the result are rows of the table returned with it: sequences of word ids, row 0 none
    and row i the word i - 1 for each of `num_words`, longer sequences after them. Paths, their words and
    their costs stay the same, but for those without any emitting arc.
    """
    table: WordSequences = {(): 0, **{(word,): word + 1 for word in range(num_words)}}
    while (moving := np.flatnonzero((fst.ilabel == 0) & (fst.olabel > 0))).size:
        at_start = fst.src[moving] == fst.start
        forward, backward = moving[at_start], moving[~at_start]
        after, before = _pairs(fst.dst[forward], fst.src), _pairs(fst.src[backward], fst.dst)
        first = np.concatenate([forward[after[0]], before[1]])
        second = np.concatenate([after[1], backward[before[0]]])
        kept = np.delete(np.arange(fst.num_arcs), moving)
        fst = sorted_by_source(
            np.concatenate([fst.src[kept], fst.src[first]]),
            np.concatenate([fst.dst[kept], fst.dst[second]]),
            np.concatenate([fst.ilabel[kept], np.maximum(fst.ilabel[first], fst.ilabel[second])]),
            np.concatenate([fst.olabel[kept], _joined(fst.olabel[first], fst.olabel[second], table)]),
            np.concatenate([fst.cost[kept], fst.cost[first] + fst.cost[second]]),
            fst.final,
            fst.start,
        )
    return fst, tuple(table)


def _pairs(states: NDArray[np.int32], column: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All (i, arc) such that column[arc] == states[i]."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    start = np.searchsorted(ordered, states, side="left")
    count = np.searchsorted(ordered, states, side="right") - start
    rows = np.repeat(np.arange(len(states)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return rows, order[np.repeat(start, count) + within]


def _joined(first: NDArray[np.int32], second: NDArray[np.int32], table: WordSequences) -> NDArray[np.int32]:
    """Rows of the concatenated sequences, new ones added to the table."""
    sequences = list(table)
    pairs, where = np.unique(np.stack([first, second]), axis=1, return_inverse=True)
    rows = [table.setdefault(sequences[a] + sequences[b], len(table)) for a, b in zip(*pairs.tolist(), strict=True)]
    return np.array(rows, dtype=np.int32)[where.ravel()]
