"""The exact score of the best path: Viterbi's recursion over all states of training graphs, without a beam.

k2's pruned search gives a path and cannot tell whether a better one was pruned. This recursion gives the best score
and no path. Where the two agree, the path is proven. It takes less time than the search, for it stores no path and an
utterance's graph has few states.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asrkd.align.graphs import FINAL_LABEL, OUTSIDE, CompiledGraphs, Floats, Ints
from asrkd.hmm.topology import NUM_STATES

CHUNK_VALUES = 2**17  # acoustic scores gathered at a time: one megabyte of doubles


@dataclass(frozen=True, eq=False)
class AcousticScores:
    """Acoustic scores of N utterances, longest first.

    rows: [R, C] float32, those of an utterance together. first_row, num_frames: [N].
    """

    rows: NDArray[np.float32]
    first_row: Ints
    num_frames: Ints


def best_scores(graphs: CompiledGraphs, column: NDArray[np.int32], acoustic: AcousticScores) -> Floats:
    """[N] log-likelihood of the best path through each graph, float64; -inf where there is no path.

    column: [A] the column of `acoustic` that each arc reads; any number for final arcs, which read none.
    """
    arcs = _StateArcs.of(graphs, column)
    offsets = graphs.graphs.instance_offsets
    best = np.full(acoustic.num_frames.size, -np.inf)
    values = np.full(arcs.stay.shape, -np.inf)
    for begin, end, num_utterances in _spans(acoustic.num_frames):
        instances = offsets[: num_utterances + 1]
        arcs = arcs.of_first(instances[-1])
        values = values[:, : instances[-1]]
        chunk = max(1, CHUNK_VALUES // values.size)
        for first in range(begin, end, chunk):
            emitted = arcs.emitted(acoustic, first, min(first + chunk, end), instances)
            if first == 0:
                values[0] = arcs.enter + emitted[0, 0]
            for scores in emitted[1:] if first == 0 else emitted:
                arcs.advance(values)
                values += scores
        for utt in np.flatnonzero(acoustic.num_frames == end):
            best[utt] = arcs.finish(values, utt)
    return best


@dataclass(frozen=True, eq=False)
class _StateArcs:
    """Arcs of training graphs by the instance, or by the state of an instance, that they enter.

    An instance may have several arcs from other instances' last states. Most have one: the others lie apart, for
    numpy's `reduceat` takes its time.
    """

    stay: Floats
    """[NUM_STATES, I] score of the self-loop."""
    step: Floats
    """[NUM_STATES - 1, I] score of the arc to the instance's next state."""
    column: Ints
    """[NUM_STATES, I] column of the acoustic scores."""
    enter: Floats
    """[I] score of the arc from the start; -inf where there is none."""
    source: Ints
    """[I] instance that the first of the arcs from other instances leaves."""
    score: Floats
    """[I] score of that arc; -inf where there is none."""
    target: Ints
    """[J] instances with several arcs from other instances."""
    target_begin: Ints
    """[J + 1] where the arcs to each begin, without the first."""
    other_source: Ints
    """[B] instance that such an arc leaves."""
    other_score: Floats
    """[B] score of the arc."""
    final_source: Ints
    """[E] instances that may be the last one, utterance after utterance."""
    final_score: Floats
    """[E] score of the arc to the end."""
    final_begin: Ints
    """[N + 1] where the final arcs of each utterance begin."""

    @staticmethod
    def of(compiled: CompiledGraphs, column: NDArray[np.int32]) -> _StateArcs:
        """All arcs of these graphs; column: [A] as in `best_scores`."""
        graphs = compiled.graphs
        utt = np.repeat(np.arange(graphs.num_utterances), np.diff(graphs.arc_offsets))
        first_state = NUM_STATES * graphs.instance_offsets[utt]
        source = np.where(compiled.arcs[:, 0] == 0, OUTSIDE, compiled.arcs[:, 0] - 1 + first_state)
        target = np.where(compiled.hmm_state == OUTSIDE, OUTSIDE, compiled.hmm_state + first_state)
        score = compiled.arcs[:, 3].copy().view(np.float32).astype(np.float64)
        final = compiled.arcs[:, 2] == FINAL_LABEL
        enter = source == OUTSIDE
        loop = (source == target) & ~enter
        step = (target == source + 1) & (target % NUM_STATES != 0) & ~enter
        between = ~(final | enter | loop | step)

        shape = (graphs.phone.size, NUM_STATES)
        by_state = {name: np.full(shape, -np.inf) for name in ("stay", "step", "enter")}
        by_state["stay"].flat[source[loop]] = score[loop]
        by_state["step"].flat[source[step]] = score[step]
        by_state["enter"].flat[target[enter]] = score[enter]
        columns = np.zeros(shape, dtype=np.int64)
        columns.flat[source[loop]] = column[loop]
        num_final = np.bincount(utt[final], minlength=graphs.num_utterances)
        return _StateArcs(
            by_state["stay"].T.copy(),
            by_state["step"].T[:-1].copy(),
            columns.T.copy(),
            by_state["enter"][:, 0].copy(),
            *_by_target(source[between] // NUM_STATES, target[between] // NUM_STATES, score[between], shape[0]),
            source[final] // NUM_STATES,
            score[final],
            np.append(0, np.cumsum(num_final)),
        )

    def of_first(self, num_instances: int) -> _StateArcs:
        """The arcs of the first instances, which are those of whole utterances."""
        targets = np.searchsorted(self.target, num_instances)
        others = self.target_begin[targets]
        return replace(
            self,
            stay=self.stay[:, :num_instances],
            step=self.step[:, :num_instances],
            column=self.column[:, :num_instances],
            enter=self.enter[:num_instances],
            source=self.source[:num_instances],
            score=self.score[:num_instances],
            target=self.target[:targets],
            target_begin=self.target_begin[: targets + 1],
            other_source=self.other_source[:others],
            other_score=self.other_score[:others],
        )

    def emitted(self, acoustic: AcousticScores, first: int, last: int, instances: Ints) -> Floats:
        """Acoustic scores [last - first, NUM_STATES, I] of these frames, in double.

        instances: [N + 1] where the instances of each utterance begin.
        """
        scores = np.empty((last - first, NUM_STATES, instances[-1]))
        for utt, (begin, end) in enumerate(itertools.pairwise(instances.tolist())):
            row = acoustic.first_row[utt]
            rows = acoustic.rows[row + first : row + last]
            scores[:, :, begin:end] = rows.take(self.column[:, begin:end], axis=1, mode="clip")  # clip: the fastest
        return scores

    def advance(self, values: Floats) -> None:
        """From the best score of each state [NUM_STATES, I] at one frame to the next, without its acoustic score."""
        entered = values[-1].take(self.source)
        entered += self.score
        if self.target.size:
            others = values[-1].take(self.other_source)
            others += self.other_score
            best = np.maximum.reduceat(others, self.target_begin[: self.target.size])
            entered[self.target] = np.maximum(entered[self.target], best)
        stepped = values[:-1] + self.step
        values += self.stay
        np.maximum(values[1:], stepped, out=values[1:])
        np.maximum(values[0], entered, out=values[0])

    def finish(self, values: Floats, utt: int) -> float:
        """Best score of an utterance whose last frame this is."""
        arcs = slice(self.final_begin[utt], self.final_begin[utt + 1])
        return float((values[-1, self.final_source[arcs]] + self.final_score[arcs]).max())


def _by_target(
    source: Ints, target: Ints, score: Floats, num_instances: int
) -> tuple[Ints, Floats, Ints, Ints, Ints, Floats]:
    """Arcs between instances as `_StateArcs` has them: the first to each instance, then the others."""
    order = np.argsort(target, kind="stable")
    source, target, score = source[order], target[order], score[order]
    first = np.diff(target, prepend=-1) != 0
    first_source, first_score = np.zeros(num_instances, dtype=np.int64), np.full(num_instances, -np.inf)
    first_source[target[first]] = source[first]
    first_score[target[first]] = score[first]
    targets, counts = np.unique(target[~first], return_counts=True)
    return first_source, first_score, targets, np.append(0, np.cumsum(counts)), source[~first], score[~first]


def _spans(num_frames: Ints) -> Iterator[tuple[int, int, int]]:
    """(first frame, one past the last, utterances that have these frames), for utterances longest first."""
    begin = 0
    for end in np.unique(num_frames).tolist():
        yield begin, end, int((num_frames >= end).sum())
        begin = end
