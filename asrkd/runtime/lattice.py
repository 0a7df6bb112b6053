"""What a lattice says of the words of the best path: how probable they are, and what else may have been said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asrkd.graph.arrays import LatticeArrays, lattice_arrays, sorted_by_source, to_kaldifst
from asrkd.runtime.package import Calibration

if TYPE_CHECKING:
    import kaldifst

# A path may emit a word a little earlier or later than the best one does: half a short word.
NEAR_FRAMES = 30
SURE = 1e-4
"""A posterior nearer to 0 or 1 than this counts as this."""
MOST_STATES = 20_000
"""Of the deterministic lattice that hypotheses are read from; more would take seconds."""


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

    def hypotheses(self, num: int) -> list[list[int]]:
        """The labels of the `num` best different hypotheses, the best first; fewer where the lattice has fewer."""
        import kaldifst

        arrays = self.arrays
        ending = np.isfinite(arrays.final).all(axis=1)
        final = np.where(ending, arrays.final.sum(axis=1), np.inf).astype(np.float32)
        columns = arrays.src, arrays.dst, arrays.olabel, arrays.olabel, self.cost.astype(np.float32)
        fst = to_kaldifst(sorted_by_source(columns, final))
        try:
            kaldifst.determinize_star(fst, max_states=MOST_STATES)
        except RuntimeError:  # more states than that: the best one is known anyway
            return []
        paths = kaldifst.convert_nbest_to_vector(kaldifst.shortest_path(fst, n=num))
        return [kaldifst.get_linear_symbol_sequence(path)[2] for path in paths]


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
