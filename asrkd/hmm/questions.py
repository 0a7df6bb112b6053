"""Questions of the senone tree: phones that sound alike, found by clustering (Kaldi's cluster-phones)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asrkd.hmm.statistics import TriphoneStats, log_likelihood
from asrkd.hmm.topology import NUM_STATES

SILENCE_ID = 0


def cluster_questions(stats: TriphoneStats, num_phones: int) -> NDArray[np.bool_]:
    """Phone sets [Q, P] asked of the left and the right neighbour.

    Phones are merged bottom-up, each time the pair that loses least likelihood, by the frames of their first
    state, of their last and of all of them (a neighbour leans on the state that it touches); every set on the
    way is a question, and every phone by itself, silence too.
    """
    sets = {frozenset([phone]) for phone in range(num_phones)}
    for states in (range(NUM_STATES), (0,), (NUM_STATES - 1,)):
        sets |= _merged_sets(stats, num_phones, tuple(states))
    sets = {
        min(s, frozenset(range(num_phones)) - s, key=_size_then_ids) for s in sets
    }  # a set's complement asks the same
    questions = np.zeros((len(sets), num_phones), dtype=bool)
    for row, members in enumerate(sorted(sets, key=_size_then_ids)):
        questions[row, sorted(members)] = True
    return questions[questions.any(1)]


def _size_then_ids(members: frozenset[int]) -> tuple[int, list[int]]:
    return len(members), sorted(members)


def _merged_sets(stats: TriphoneStats, num_phones: int, states: tuple[int, ...]) -> set[frozenset[int]]:
    """All sets that agglomerative clustering passes through; silence and unseen phones take no part."""
    keep = np.isin(stats.keys[:, 3], states) & (stats.keys[:, 1] != SILENCE_ID)
    phone = stats.keys[keep, 1]
    count, total, squares = (
        _sum_by(phone, values[keep], num_phones) for values in (stats.count, stats.total, stats.squares)
    )
    seen = np.flatnonzero(count > 0)
    members = [frozenset([int(p)]) for p in seen]
    count, total, squares = count[seen], total[seen], squares[seen]
    own = log_likelihood(count, total, squares, stats.floor)
    found: set[frozenset[int]] = set()
    while len(members) > 2:
        merged = log_likelihood(count[:, None] + count, total[:, None] + total, squares[:, None] + squares, stats.floor)
        loss = own[:, None] + own - merged
        loss[np.tril_indices(len(members))] = np.inf
        first, second = np.unravel_index(int(loss.argmin()), loss.shape)
        members[first] = members[first] | members.pop(int(second))
        found.add(members[first])
        for values in (count, total, squares):
            values[first] += values[second]
        count, total, squares = (np.delete(values, second, axis=0) for values in (count, total, squares))
        own = log_likelihood(count, total, squares, stats.floor)
    return found


def _sum_by(index: NDArray[np.int64], values: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    out = np.zeros((num, *values.shape[1:]))
    np.add.at(out, index, values)
    return out
