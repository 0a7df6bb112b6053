"""The best path through the graph of a text, by Viterbi's recursion in numpy.

It is exact up to EXACT_CELLS units times frames, some three minutes of speech. Beyond, only the units near the best one
are followed: those from the first to the last within BEAM of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrkd.runtime.align_graph import NUM_STATES, GraphWeights, TextGraph

EXACT_CELLS = 100_000_000
"""Units times frames: three bytes each."""
MOST_CELLS = 400_000_000
"""Those that are followed."""
BEAM = 200.0
"""Nats: what a path that is wrong for some minutes falls behind."""


class Path(NamedTuple):
    """Where an alignment is in each frame."""

    units: NDArray[np.int64]
    """[T]."""
    states: NDArray[np.int64]
    """[T]: HMM state of the unit, from 0."""


class _Step(NamedTuple):
    """How the paths came to the units `first`, ... in a frame."""

    first: int
    choice: NDArray[np.uint8]
    """[units, NUM_STATES]: 0: it stayed, n: it came from predecessor n - 1, or from the state before."""


def best_path(
    scores: NDArray[np.float32],
    graph: TextGraph,
    weights: GraphWeights,
    acoustic_scale: float,
    beam: float | None = None,
) -> Path | None:
    """The path of the greatest weight; `scores` [T, C] are natural logarithms, up to a constant in each frame.

    None where the text needs more frames than there are, or with a beam where no path of the text ends with the audio.
    `beam`: nats; None: none up to EXACT_CELLS, BEAM beyond. MemoryError for more than MOST_CELLS even with a beam.
    """
    if graph.min_frames > len(scores):
        return None
    if beam is None:
        beam = math.inf if len(scores) * len(graph.phone) <= EXACT_CELLS else BEAM
    search = _Search(graph, weights, acoustic_scale, beam)
    for row in scores:
        search.advance(row)
    return search.path()


class _Search:
    def __init__(self, graph: TextGraph, weights: GraphWeights, acoustic_scale: float, beam: float) -> None:
        self._graph, self._scale, self._beam = graph, acoustic_scale, beam
        self._size = len(graph.phone)
        self._loop, self._entry = weights.loop[graph.pdfs], weights.entry[graph.pdfs]
        self._entry[:, 0] += graph.weight
        # One more row for predecessors that do not exist.
        self._total = np.full((self._size + 1, NUM_STATES), -np.inf)
        self._steps: list[_Step] = []
        self._cells = 0
        self._first, self._last = 0, 0
        """Units that a path can be in: the first one, and the one after the last."""

    def advance(self, row: NDArray[np.float32]) -> None:
        """One more frame of scores [C]."""
        graph, total = self._graph, self._total
        if not self._steps:
            first, last = 0, int(np.flatnonzero(graph.is_first)[-1]) + 1
            came = np.where(graph.is_first[:last], 0.0, -np.inf)[:, None]
        else:
            first, last = self._first, int(graph.reach[self._last - 1]) + 1
            came = total[graph.predecessors[first:last], NUM_STATES - 1]
        window = total[first:last]
        stayed = window + self._loop[first:last]
        entered = np.empty_like(window)
        source = came.argmax(axis=1)
        entered[:, 0] = np.take_along_axis(came, source[:, None], axis=1)[:, 0]
        entered[:, 1:] = window[:, :-1]
        entered += self._entry[first:last]
        choice = np.ones(window.shape, dtype=np.uint8)
        choice[:, 0] += source.astype(np.uint8)
        choice[stayed >= entered] = 0
        new = np.maximum(stayed, entered)
        new += self._scale * row[graph.pdfs[first:last]].astype(np.float64)
        best = new.max()
        new -= best  # so that sums over hours lose no digits
        total[first:last] = new
        self._steps.append(_Step(first, choice))
        self._cells += len(choice)
        if self._cells > MOST_CELLS:
            raise MemoryError
        self._first, self._last = self._limits(new, first, last)

    def _limits(self, new: NDArray[np.float64], first: int, last: int) -> tuple[int, int]:
        alive = np.flatnonzero(new.max(axis=1) > max(-self._beam, -np.finfo(np.float64).max))
        limits = first + int(alive[0]), first + int(alive[-1]) + 1
        self._total[first : limits[0]] = -np.inf
        self._total[limits[1] : last] = -np.inf
        return limits

    def path(self) -> Path | None:
        """The path that ends in the last frame."""
        ends = np.where(self._graph.is_last, self._total[:-1, NUM_STATES - 1], -np.inf)
        unit, state = int(ends.argmax()), NUM_STATES - 1
        if ends[unit] == -np.inf:
            return None
        units, states = (np.empty(len(self._steps), dtype=np.int64) for _ in range(2))
        for frame in range(len(self._steps) - 1, -1, -1):
            units[frame], states[frame] = unit, state
            step = self._steps[frame]
            choice = int(step.choice[unit - step.first, state])
            if choice and state:
                state -= 1
            elif choice and frame:
                unit, state = int(self._graph.predecessors[unit, choice - 1]), NUM_STATES - 1
        return Path(units, states)
