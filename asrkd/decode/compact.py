"""Small lattices: the best path of each word at each time.

The search's lattice has an arc per frame, and most of its paths say the same words with boundaries moved by a frame or
two: 60,000 arcs for a second of AN4. A later choice of scales needs other words, not other boundaries. So every word
arc keeps its best path, once in a stretch of time; the union of these paths is the lattice, with their recombinations.
(The arc is of a graph without epsilons, so it is one word after a certain other one: the word-pair approximation of
Schwartz and Austin, ICASSP 1991.) The best path is among them, and every path keeps its exact acoustic and graph
scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A word arc keeps one path in so many frames: 10 frames are 100 ms, half of a short word.
TIME_BIN_FRAMES = 10
_TIE = 1e-6  # relative; scores are float32


@dataclass(frozen=True)
class UtteranceLattice:
    """One utterance's lattice, arcs in the order of their sources; no arcs where there is no path."""

    arcs: NDArray[np.int32]
    """[arcs, 3]: source, destination, first frame. State 0 starts, the last state is final."""
    words_on_arc: NDArray[np.int32]
    """[arcs]: row of the graph's `word_sequences`."""
    am_scores: NDArray[np.float32]
    """[arcs]: sum of log p(frame | pdf) up to a constant, unscaled."""
    graph_scores: NDArray[np.float32]
    """[arcs]: sum of the graph's scores, unscaled."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The four by name."""
        return dict(vars(self))


NO_PATH = UtteranceLattice(
    np.zeros((0, 3), dtype=np.int32),
    np.zeros(0, dtype=np.int32),
    np.zeros(0, dtype=np.float32),
    np.zeros(0, dtype=np.float32),
)
"""The lattice of an utterance without a path."""


def linear_lattice(
    words: NDArray[np.int32], am_scores: NDArray[np.float32], graph_scores: NDArray[np.float32]
) -> UtteranceLattice:
    """A single path, as `compact` makes it: an arc from each word to the next. NO_PATH where there is none.

    words, am_scores, graph_scores: [T + 1] of its arcs, one of each frame and the one to the end.
    """
    if not len(words):
        return NO_PATH
    begin = np.union1d(0, np.flatnonzero(words))
    states = np.arange(len(begin))
    return UtteranceLattice(
        np.stack([states, states + 1, begin], axis=1).astype(np.int32),
        words[begin],
        np.add.reduceat(am_scores, begin, dtype=np.float64).astype(np.float32),
        np.add.reduceat(graph_scores, begin, dtype=np.float64).astype(np.float32),
    )


def path_scores(
    lattice: UtteranceLattice, total: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[states] best score from the start to each state, and from it to the end; total: [arcs] scores."""
    source, target = lattice.arcs[:, 0].tolist(), lattice.arcs[:, 1].tolist()
    forward, backward = np.full((2, max(target) + 1), -np.inf)
    forward[0] = backward[-1] = 0.0
    arcs = list(zip(source, target, total.tolist(), strict=True))
    for here, there, score in arcs:
        forward[there] = max(forward[there], forward[here] + score)
    for here, there, score in reversed(arcs):
        backward[here] = max(backward[here], backward[there] + score)
    return forward, backward


def compact(
    lattice: UtteranceLattice,
    graph_arc: NDArray[np.int32],
    total: NDArray[np.float64],
    forward: NDArray[np.float64],
    backward: NDArray[np.float64],
) -> UtteranceLattice:
    """The union of the best paths through each word arc in each time bin; runs of arcs without a choice become one.

    graph_arc: [arcs] the graph's arc behind each. total: [arcs] score in the search. forward, backward:
    [states] best score from the start and to the end.
    """
    source, target, frame = lattice.arcs.T
    through = forward[source] + total + backward[target]
    spoken = np.flatnonzero(lattice.words_on_arc > 0)
    time_bin = np.stack([graph_arc[spoken], frame[spoken] // TIME_BIN_FRAMES])
    order = np.lexsort((through[spoken], *time_bin))
    last_of_bin = np.append(np.any(np.diff(time_bin[:, order], axis=1) != 0, axis=0), True)[: len(order)]
    seeds = spoken[order[last_of_bin]]
    seeds = np.append(seeds, np.argmax(through))  # without words there is still a best path
    chosen = np.zeros(len(source), dtype=bool)
    chosen[seeds] = True
    _follow(source[seeds], _best_arcs(forward[target], forward[source] + total, target, len(forward)), source, chosen)
    _follow(target[seeds], _best_arcs(backward[source], total + backward[target], source, len(forward)), target, chosen)
    return _without_chains(lattice, np.flatnonzero(chosen))


def _best_arcs(
    best: NDArray[np.float64], scores: NDArray[np.float64], state: NDArray[np.int32], num_states: int
) -> NDArray[np.int64]:
    """[states] an arc that gives each state its best score, -1 at the ends of the lattice."""
    arcs = np.full(num_states, -1)
    attaining = np.flatnonzero(scores >= best - _TIE * (1.0 + np.abs(best)))
    arcs[state[attaining]] = attaining
    return arcs


def _follow(
    states: NDArray[Any], best_arcs: NDArray[np.int64], next_state: NDArray[np.int32], chosen: NDArray[np.bool_]
) -> None:
    """Mark the arcs of the best paths from all states at once, a step of each in a round, up to what is marked."""
    marked = np.zeros(len(best_arcs), dtype=bool)
    while states.size:
        marked[states] = True
        arcs = best_arcs[states]
        arcs = arcs[arcs >= 0]
        chosen[arcs] = True
        states = next_state[arcs]
        states = states[~marked[states]]


def _without_chains(lattice: UtteranceLattice, chosen: NDArray[np.int64]) -> UtteranceLattice:
    """Each run of chosen arcs with one way in and one way out becomes one arc. A word begins a new run."""
    source, target, frame = lattice.arcs[chosen].T
    words = lattice.words_on_arc[chosen]
    num_states = int(lattice.arcs[:, 1].max()) + 1
    inner = (np.bincount(source, minlength=num_states) == 1) & (np.bincount(target, minlength=num_states) == 1)
    inner[source[words > 0]] = False
    into = np.full(num_states, -1)
    into[target] = np.arange(len(chosen))
    head = np.where(inner[source], into[source], np.arange(len(chosen)))
    while not np.array_equal(head, head[head]):
        head = head[head]
    heads, run = np.unique(head, return_inverse=True)
    tail = np.flatnonzero(~inner[target])
    run_target = np.empty(len(heads), dtype=np.int32)
    run_target[run[tail]] = target[tail]
    states = np.unique(np.concatenate([source[heads], run_target]))
    ends = [np.searchsorted(states, column) for column in (source[heads], run_target)]
    return UtteranceLattice(
        np.stack([*ends, frame[heads]], axis=1).astype(np.int32),
        words[heads],
        np.bincount(run, lattice.am_scores[chosen]).astype(np.float32),
        np.bincount(run, lattice.graph_scores[chosen]).astype(np.float32),
    )
