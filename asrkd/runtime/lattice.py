"""What a lattice says of the words of the best path: how probable they are, and what else may have been said."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asrkd.graph.arrays import LatticeArrays, lattice_arrays
from asrkd.runtime.package import Calibration

if TYPE_CHECKING:
    import kaldifst

# A path may emit a word a little earlier or later than the best one does: half a short word.
NEAR_FRAMES = 30
SURE = 1e-4
"""A posterior nearer to 0 or 1 than this counts as this."""
MOST_VISITS = 500_000
"""Of states, in the search for hypotheses: some seconds."""
_END = -1
"""Where a hypothesis is after its last arc."""


@dataclass(frozen=True, eq=False)
class FrameLattice:
    """A lattice without epsilons: each arc reads one frame. `of` makes it of Kaldi's."""

    arrays: LatticeArrays
    frame: NDArray[np.int32]
    """[arcs] the frame that each reads."""

    @staticmethod
    def of(lattice: kaldifst.Lattice) -> FrameLattice:
        """The lattice that a search of Kaldi's gives: its states come frame by frame."""
        arrays = lattice_arrays(lattice)
        frame_of_state = np.zeros(len(arrays.final), dtype=np.int32)
        starts = np.searchsorted(arrays.src, np.arange(len(arrays.final) + 1))
        first, last = 0, 1  # states of one frame
        while first < last:
            targets = arrays.dst[starts[first] : starts[last]]
            if not len(targets):
                break
            frame_of_state[targets] = frame_of_state[first] + 1
            first, last = last, int(targets.max()) + 1
        return FrameLattice(arrays, frame_of_state[arrays.src])

    @cached_property
    def cost(self) -> NDArray[np.float64]:
        """[arcs] of the graph and of the scaled scores together."""
        return self.arrays.costs.sum(axis=1, dtype=np.float64)

    @cached_property
    def posteriors(self) -> NDArray[np.float64]:
        """[arcs] share of all paths' probability that goes through each arc (Wessel et al. 2001, forward-backward)."""
        arrays, log_prob = self.arrays, -self.cost
        num_states = len(arrays.final)
        bounds = np.searchsorted(self.frame, np.arange(int(self.frame[-1]) + 2))
        forward = np.full(num_states, -np.inf)
        forward[0] = 0.0
        backward = -arrays.final.sum(axis=1, dtype=np.float64)
        for begin, end in pairwise(bounds):
            arcs = slice(begin, end)
            _log_add(forward, arrays.dst[arcs], forward[arrays.src[arcs]] + log_prob[arcs])
        for end, begin in pairwise(bounds[::-1]):
            arcs = slice(begin, end)
            _log_add(backward, arrays.src[arcs], log_prob[arcs] + backward[arrays.dst[arcs]])
        return np.exp(forward[arrays.src] + log_prob + backward[arrays.dst] - backward[0])

    def confidences(self, emitted: Sequence[tuple[int, int]]) -> list[float]:
        """The posterior of each word of a path, (label, frame) each: of all paths that emit it at about that time."""
        spoken = np.flatnonzero(self.arrays.olabel)
        labels, frames, posteriors = (column[spoken] for column in (self.arrays.olabel, self.frame, self.posteriors))
        values = []
        for number, (label, frame) in enumerate(emitted):
            same = [abs(other - frame) for n, (name, other) in enumerate(emitted) if name == label and n != number]
            # Twice the same word in a row: each arc counts for the nearer one.
            reach = min([NEAR_FRAMES, *((distance - 1) // 2 for distance in same)])
            near = (labels == label) & (np.abs(frames - frame) <= reach)
            values.append(float(np.clip(posteriors[near].sum(), 0.0, 1.0)))
        return values

    @cached_property
    def cost_to_end(self) -> NDArray[np.float64]:
        """[states] of the best path to the end."""
        arrays = self.arrays
        ending = np.isfinite(arrays.final).all(axis=1)
        costs = np.where(ending, arrays.final.sum(axis=1, dtype=np.float64), np.inf)
        bounds = np.searchsorted(self.frame, np.arange(int(self.frame[-1]) + 2))
        for end, begin in pairwise(bounds[::-1]):
            arcs = slice(begin, end)
            np.minimum.at(costs, arrays.src[arcs], self.cost[arcs] + costs[arrays.dst[arcs]])
        return costs

    def hypotheses(self) -> Iterator[tuple[int, ...]]:
        """The different sequences of labels, the best one first, until there are no more or MOST_VISITS are over.

        A* search (Hart, Nilsson and Raphael 1968) over pairs of a state and the labels so far. The cost to the end is
        known, so the first path to a pair is its best one, and no path is followed that is worse than those asked for.
        """
        starts, rows = self._arc_rows()
        cost_to_end = self.cost_to_end.tolist()
        final = np.where(np.isfinite(self.arrays.final).all(axis=1), self.arrays.final.sum(axis=1), np.inf).tolist()
        order = count()  # of equal costs, the one that came first
        heap: list[tuple[float, int, float, int, tuple[int, ...]]] = [(cost_to_end[0], next(order), 0.0, 0, ())]
        visited: set[tuple[int, tuple[int, ...]]] = set()
        while heap and len(visited) < MOST_VISITS:
            _, _, cost, state, labels = heapq.heappop(heap)
            if (state, labels) in visited:
                continue
            visited.add((state, labels))
            if state == _END:
                yield labels
                continue
            if final[state] < math.inf:
                total = cost + final[state]
                heapq.heappush(heap, (total, next(order), total, _END, labels))
            for dst, label, arc_cost in rows[starts[state] : starts[state + 1]]:
                if cost_to_end[dst] < math.inf:
                    total = cost + arc_cost
                    following = (*labels, label) if label else labels
                    heapq.heappush(heap, (total + cost_to_end[dst], next(order), total, dst, following))

    def _arc_rows(self) -> tuple[list[int], list[tuple[int, int, float]]]:
        """Of each state the index of its first arc; of each arc its destination, label and cost."""
        arrays = self.arrays
        starts = np.searchsorted(arrays.src, np.arange(len(arrays.final) + 1)).tolist()
        rows = list(zip(arrays.dst.tolist(), arrays.olabel.tolist(), self.cost.tolist(), strict=True))
        return starts, rows


def calibrated(posterior: float, calibration: Calibration) -> float:
    """The probability that a word with this posterior is right."""
    odds = calibration.slope * log_odds(posterior) + calibration.intercept
    return 1.0 / (1.0 + math.exp(-odds))


def log_odds(posterior: float) -> float:
    """log(p / (1 - p)), of a posterior that is neither 0 nor 1 for certain."""
    clipped = min(max(posterior, SURE), 1.0 - SURE)
    return math.log(clipped / (1.0 - clipped))


def _log_add(total: NDArray[np.float64], states: NDArray[np.int32], values: NDArray[np.float64]) -> None:
    """Add values [arcs], logarithms of probabilities, to the states that they belong to."""
    order = np.argsort(states, kind="stable")
    states, values = states[order], values[order]
    first = np.flatnonzero(np.append(True, states[1:] != states[:-1]))
    total[states[first]] = np.logaddexp(total[states[first]], np.logaddexp.reduceat(values, first))
