"""Questions of the senone tree: sets of phones that sound alike, from clustering (Kaldi's cluster-phones)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asrkd.hmm.statistics import TriphoneStats, log_likelihood
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID


def cluster_questions(stats: TriphoneStats, num_phones: int) -> NDArray[np.bool_]:
    """Phone sets [Q, P], each a question about the left or the right neighbour.

    Phones are merged bottom-up; each step merges the two sets that lose the least likelihood. This is done three
    times: with the frames of all states, of the first state and of the last one, because a neighbour affects the
    state next to it most. Every set that is passed through is a question, and so is every single phone, silence too.
    """
    sets = {frozenset([phone]) for phone in range(num_phones)}
    for states in (range(NUM_STATES), (0,), (NUM_STATES - 1,)):
        sets |= _merged_sets(stats, num_phones, tuple(states))
    everything = frozenset(range(num_phones))
    # A set and its complement ask the same question.
    sets = {min(s, everything - s, key=_size_then_ids) for s in sets}
    questions = np.zeros((len(sets), num_phones), dtype=bool)
    for row, members in enumerate(sorted(sets, key=_size_then_ids)):
        questions[row, sorted(members)] = True
    return questions[questions.any(1)]


def _size_then_ids(members: frozenset[int]) -> tuple[int, list[int]]:
    return len(members), sorted(members)


def _merged_sets(stats: TriphoneStats, num_phones: int, states: tuple[int, ...]) -> set[frozenset[int]]:
    """All sets that agglomerative clustering passes through, without silence and phones that were never seen."""
    used = np.isin(stats.keys[:, 3], states) & (stats.keys[:, 1] != SILENCE_ID)
    phone = stats.keys[used, 1]
    count, total, squares = (
        _sum_by(phone, values[used], num_phones) for values in (stats.count, stats.total, stats.squares)
    )
    seen = np.flatnonzero(count > 0)
    members = [frozenset([int(p)]) for p in seen]
    sums = _Sums(count[seen], total[seen], squares[seen], stats.floor)
    loss = np.full((len(members), len(members)), np.inf)
    for row in range(len(members) - 1):
        loss[row, row + 1 :] = sums.merging_loss(row)[row + 1 :]
    merged: set[frozenset[int]] = set()
    while len(members) > 2:
        first, second = (int(index) for index in np.unravel_index(int(loss.argmin()), loss.shape))
        members[first] |= members.pop(second)
        merged.add(members[first])
        sums = sums.merge(first, second)
        loss = np.delete(np.delete(loss, second, axis=0), second, axis=1)
        # Only the losses of the new set change.
        with_first = sums.merging_loss(first)
        loss[:first, first], loss[first, first + 1 :] = with_first[:first], with_first[first + 1 :]
    return merged


@dataclass(frozen=True)
class _Sums:
    """Counts [N], sums [N, D] and sums of squares [N, D] of the frames of N sets of phones; variance floor [D]."""

    count: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    floor: NDArray[np.float64]

    @cached_property
    def log_likelihood(self) -> NDArray[np.float64]:
        return log_likelihood(self.count, self.total, self.squares, self.floor)

    def merging_loss(self, row: int) -> NDArray[np.float64]:
        """Log-likelihood [N] that merging one set with each would lose."""
        together = log_likelihood(
            self.count[row] + self.count, self.total[row] + self.total, self.squares[row] + self.squares, self.floor
        )
        return self.log_likelihood[row] + self.log_likelihood - together

    def merge(self, first: int, second: int) -> _Sums:
        """The second set added to the first, and removed."""

        def added(values: NDArray[np.float64]) -> NDArray[np.float64]:
            result = np.delete(values, second, axis=0)
            result[first] = values[first] + values[second]
            return result

        return _Sums(added(self.count), added(self.total), added(self.squares), self.floor)


def _sum_by(index: NDArray[np.int64], values: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    out = np.zeros((num, *values.shape[1:]))
    np.add.at(out, index, values)
    return out
