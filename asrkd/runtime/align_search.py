"""The best path through the graph of a text, by Viterbi's recursion in numpy, in bounded memory.

It is exact up to EXACT_CELLS units times frames, some three minutes of speech. Beyond, only the units near the best one
are followed: those from the first to the last within BEAM of it. All paths that are still followed have the same begin,
which is final: where they came from in those frames, and the scores of these, are needed no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrkd.runtime.align_graph import NUM_STATES, GraphWeights, TextGraph

EXACT_CELLS = 100_000_000
"""Units times frames: three bytes each."""
EXACT_SCORES = 60_000_000
"""Frames times senones: four bytes each, which an exact search keeps."""
MOST_BYTES = 800_000_000
"""Of what is not final."""
BEAM = 200.0
"""Nats: what a path that is wrong for some minutes falls behind."""
SETTLE_FRAMES = 500
"""Between two looks for what is final; more where much is not."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Path(NamedTuple):
    """Where an alignment is in each frame."""

    units: Ints
    """[T]."""
    states: Ints
    """[T]: HMM state of the unit, from 0."""
    misfit: Floats
    """[T]: log p(frame | best senone) - log p(frame | its senone), nats."""


class _Step(NamedTuple):
    """How the paths came to the units `first`, ... in a frame."""

    first: int
    choice: NDArray[np.uint8]
    """[units, NUM_STATES]: 0: it stayed, n: it came from predecessor n - 1, or from the state before."""


def best_path(
    scores: Iterable[NDArray[np.float32]],
    num_frames: int,
    graph: TextGraph,
    weights: GraphWeights,
    acoustic_scale: float,
    beam: float | None = None,
) -> Path | None:
    """The path of the greatest weight. `scores`: parts [t, C] of `num_frames` frames, natural logarithms, up to a
    constant in each frame.

    None where the text needs more frames than there are, or with a beam where no path of the text ends with the audio.
    `beam`: nats; None: none up to EXACT_CELLS and EXACT_SCORES, BEAM beyond. MemoryError for more than MOST_BYTES.
    """
    if graph.min_frames > num_frames:
        return None
    search: _Search | None = None
    for part in scores:
        if search is None:
            is_exact = num_frames * len(graph.phone) <= EXACT_CELLS and num_frames * part.shape[1] <= EXACT_SCORES
            given = beam if beam is not None else math.inf if is_exact else BEAM
            search = _Search(graph, weights, acoustic_scale, given)
        search.advance(part)
    return None if search is None else search.path()


class _Search:
    def __init__(self, graph: TextGraph, weights: GraphWeights, acoustic_scale: float, beam: float) -> None:
        self._graph, self._scale, self._beam = graph, acoustic_scale, beam
        self._size = len(graph.phone)
        self._loop, self._entry = weights.loop[graph.pdfs], weights.entry[graph.pdfs]
        self._entry[:, 0] += graph.weight
        # One more row for predecessors that do not exist.
        self._total = np.full((self._size + 1, NUM_STATES), -np.inf)
        self._steps: list[_Step] = []
        """Of the frames that are not final."""
        self._scores: list[NDArray[np.float32]] = []
        """[C] of each of them."""
        self._final: list[Path] = []
        self._num_bytes = 0
        self._look_at = SETTLE_FRAMES
        """Frames that are not final when the next look for final ones is due."""
        self._first, self._last = 0, 0
        """Units that a path can be in: the first one, and the one after the last."""

    def advance(self, scores: NDArray[np.float32]) -> None:
        """More frames of scores [t, C]. MemoryError where too many frames are not final."""
        for row in scores:
            self._advance(row)
            if len(self._steps) >= self._look_at and self._beam < math.inf:
                self._settle()
            if self._num_bytes > MOST_BYTES:
                raise MemoryError

    def _advance(self, row: NDArray[np.float32]) -> None:
        graph, total = self._graph, self._total
        if not self._steps and not self._final:
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
        self._scores.append(row)
        self._num_bytes += choice.nbytes + row.nbytes
        self._first, self._last = self._limits(new, first, last)

    def _limits(self, new: Floats, first: int, last: int) -> tuple[int, int]:
        alive = np.flatnonzero(new.max(axis=1) > max(-self._beam, -np.finfo(np.float64).max))
        limits = first + int(alive[0]), first + int(alive[-1]) + 1
        self._total[first : limits[0]] = -np.inf
        self._total[limits[1] : last] = -np.inf
        return limits

    def _before(self, frame: int, units: Ints, states: Ints) -> tuple[Ints, Ints]:
        """Where paths [n] that are in `units` and `states` in a frame were in the frame before it."""
        step = self._steps[frame]
        choice = step.choice[units - step.first, states].astype(np.int64)
        is_new = (choice > 0) & (states == 0)
        column = np.maximum(choice - 1, 0)
        return (
            np.where(is_new, self._graph.predecessors[units, np.where(is_new, column, 0)], units),
            np.where(is_new, NUM_STATES - 1, states - (choice > 0)),
        )

    def _settle(self) -> None:
        """Make the frames final in which all paths are in one place."""
        units, states = np.nonzero(self._total[self._first : self._last] > -np.inf)
        units += self._first
        for frame in range(len(self._steps) - 1, 0, -1):
            if len(units) == 1:
                self._finish(frame, int(units[0]), int(states[0]))
                break
            places = np.unique(np.stack(self._before(frame, units, states)), axis=1)
            units, states = places[0], places[1]
        self._look_at = 2 * len(self._steps) + SETTLE_FRAMES

    def _finish(self, last: int, unit: int, state: int) -> None:
        """Make the frames to `last` final, in which the path is in this unit and state."""
        units, states = (np.empty(last + 1, dtype=np.int64) for _ in range(2))
        at, in_state = np.array([unit]), np.array([state])
        for frame in range(last, -1, -1):
            units[frame], states[frame] = at[0], in_state[0]
            if frame:
                at, in_state = self._before(frame, at, in_state)
        scores = np.stack(self._scores[: last + 1])
        own = scores[np.arange(last + 1), self._graph.pdfs[units, states]]
        self._final.append(Path(units, states, (scores.max(axis=1) - own).astype(np.float64)))
        self._num_bytes -= scores.nbytes + sum(step.choice.nbytes for step in self._steps[: last + 1])
        del self._steps[: last + 1], self._scores[: last + 1]

    def path(self) -> Path | None:
        """The path that ends in the last frame."""
        ends = np.where(self._graph.is_last, self._total[:-1, NUM_STATES - 1], -np.inf)
        unit = int(ends.argmax())
        if ends[unit] == -np.inf:
            return None
        self._finish(len(self._steps) - 1, unit, NUM_STATES - 1)
        return Path(*(np.concatenate(column) for column in zip(*self._final, strict=True)))
