"""Lattices with the scores of another language model than they were decoded with.

A large model makes too large a graph. So a pruned model decodes, and the large one rescores (as Kaldi's
`lattice-lmrescore`): the cost of a path's words under the old G is taken off, and that under the new G is added. Both
are exact (`GrammarWalk`): a state of the lattice becomes one state for each pair of grammar states that paths bring
there. With the old model as the new one nothing changes. What the first pass pruned does not come back.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asrkd.decode.compact import UtteranceLattice, compact, path_scores
from asrkd.decode.lattice import Scales
from asrkd.decode.search import Hypotheses
from asrkd.files import fingerprint
from asrkd.graph.on_demand import GrammarWalk, Subset
from asrkd.workflow.cache import Arrays, Codec, ResultCache
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.task import Task

_Pair = tuple[Subset, Subset]
"""States of the old and the new grammar."""

WordSequences = tuple[tuple[int, ...], ...]
"""Word ids by row, as in `Lattices`."""


class DecodedUtterance(NamedTuple):
    """One utterance to rescore."""

    lattice: UtteranceLattice
    complete: bool
    """Whether its paths end in final states of the graph; a partial lattice's do not."""


class RescoredUtterance(NamedTuple):
    """The same utterance, rescored."""

    lattice: UtteranceLattice
    search_sec: float
    """Processor seconds of the rescoring."""

    def pack(self) -> Arrays:
        """As `unpack` reads it."""
        return {**self.lattice.arrays(), "search_sec": np.asarray([self.search_sec])}

    @staticmethod
    def unpack(arrays: Arrays) -> RescoredUtterance:
        """Back from `pack`."""
        search_sec = float(arrays.pop("search_sec")[0])
        return RescoredUtterance(UtteranceLattice(**arrays), search_sec)


RESCORED_UTTERANCES = Codec(RescoredUtterance.pack, RescoredUtterance.unpack)


@dataclass(frozen=True)
class Grammars:
    """The grammar that the decoding graph was made of, and the one to rescore with, over the same word labels."""

    old: GrammarWalk
    new: GrammarWalk
    """It must have all words of the old one."""

    @cached_property
    def digests(self) -> list[str]:
        """Of the old grammar and of the new one."""
        return [self.old.fst.digest(), self.new.fst.digest()]

    def start(self) -> tuple[float, _Pair]:
        """Gain of a sentence before its first word, and the pair of grammar states there."""
        (old_cost, old), (new_cost, new) = self.old.start(), self.new.start()
        return old_cost - new_cost, (old, new)

    def step(self, pair: _Pair, labels: list[int]) -> tuple[float, _Pair]:
        """Gain of a path by these words, and the pair of grammar states after them."""
        old, new = pair
        gain = 0.0
        for label in labels:
            old_cost, old = self.old.step(old, label)
            new_cost, new = self.new.step(new, label)
            gain += old_cost - new_cost
        return gain, (old, new)

    def end(self, pair: _Pair) -> float:
        """Gain of a path by ending."""
        return self.old.end(pair[0]) - self.new.end(pair[1])


@dataclass(frozen=True)
class Rescorer:
    """A task that rescores utterances with grammars in memory.

    With a `beam`, histories further than this (nats of the scaled score) below the best one at the same state of the
    lattice are pruned, and the best path of each word and time stays; without one everything stays.
    """

    grammars: Grammars
    word_sequences: WordSequences
    """Those of the lattices."""
    scales: Scales
    beam: float | None = None

    def open(self) -> Rescorer:
        """The rescorer itself, a function of a decoded utterance."""
        return self

    def __call__(self, utterance: DecodedUtterance) -> RescoredUtterance:
        start = time.process_time()
        expansion = _Expansion(self, utterance)
        return RescoredUtterance(expansion.rescored(self.beam), time.process_time() - start)


def rescore(
    hypotheses: Hypotheses,
    task: Task[DecodedUtterance, RescoredUtterance],
    grammar_digests: Sequence[str],
    scales: Scales,
    name: str = "rescore",
    executor: Executor = SERIAL,
    cache: ResultCache[RescoredUtterance] | None = None,
) -> Hypotheses:
    """The same utterances with rescored lattices and the best words in them; the time it took counts as search.

    The task is a `Rescorer`, or one that opens a `Rescorer` from files, with these scales and grammars
    (`Grammars.digests`).
    """
    lattices = hypotheses.lattices
    partial = set(hypotheses.partial)
    utterances = [DecodedUtterance(lattices.utt(utt_id), utt_id not in partial) for utt_id in lattices.utt_ids]
    numbered = executor.map(task, utterances, cache)
    results = dict(tqdm(numbered, desc=name, unit="utt", total=len(utterances)))
    by_utt = {utt_id: results[number].lattice for number, utt_id in enumerate(lattices.utt_ids)}
    rescored = lattices.replaced(by_utt, fingerprint([lattices.graph_fingerprint, *grammar_digests]))
    return replace(
        hypotheses,
        words=rescored.best_paths(scales),
        lattices=rescored,
        search_sec=hypotheses.search_sec + math.fsum(result.search_sec for result in results.values()),
    )


class _Expansion:
    """One lattice with a state for each lattice state and pair of grammar states that paths bring there.

    A partial path was not charged for the end of its sentence, so rescoring does not charge it either.
    """

    def __init__(self, rescorer: Rescorer, utterance: DecodedUtterance) -> None:
        self.grammars, self.lattice, self.with_ends = rescorer.grammars, utterance.lattice, utterance.complete
        scales, lattice = rescorer.scales, utterance.lattice
        self.labels = [[word + 1 for word in rescorer.word_sequences[row]] for row in lattice.words_on_arc.tolist()]
        self.lm_scale = scales.lm_scale
        num_words = np.array([len(labels) for labels in self.labels])
        self.scores: NDArray[np.float64] = (
            scales.acoustic_scale * lattice.am_scores.astype(np.float64)
            + scales.lm_scale * lattice.graph_scores
            + scales.insertion_score * num_words
        )
        # By new state: the lattice's state, and the best score of a path to the new state.
        self.states: list[int] = []
        self.forward: list[float] = []
        self.numbers: dict[int, dict[_Pair, int]] = defaultdict(dict)
        # By new arc: the lattice's arc, source and target, and the arc's gain.
        self.rows: list[tuple[int, int, int, float]] = []

    def rescored(self, beam: float | None) -> UtteranceLattice:
        """The lattice with new graph scores, arcs in the order of their sources."""
        if not len(self.lattice.arcs):
            return self.lattice
        source, target = self.lattice.arcs[:, 0].tolist(), self.lattice.arcs[:, 1].tolist()
        last = max(target)
        gain, pair = self.grammars.start()
        self._enter(0, pair, gain * self.lm_scale)
        before = -1
        for arc, (here, there) in enumerate(zip(source, target, strict=True)):
            if here != before and beam is not None:
                self._prune(here, beam)
            before = here
            for pair, number in self.numbers[here].items():
                self._extend(arc, pair, number, there, there == last, gain if here == 0 else 0.0)
        whole, arcs = self._renumbered()
        return whole if beam is None else self._compact(whole, arcs)

    def _extend(self, arc: int, pair: _Pair, number: int, there: int, is_last: bool, first_gain: float) -> None:
        gain, reached = self.grammars.step(pair, self.labels[arc])
        if is_last:
            gain, reached = gain + (self.grammars.end(reached) if self.with_ends else 0.0), ((), ())
        if math.isfinite(gain):
            score = self.forward[number] + self.scores[arc] + self.lm_scale * gain
            self.rows.append((arc, number, self._enter(there, reached, score), gain + first_gain))

    def _enter(self, state: int, pair: _Pair, score: float) -> int:
        number = self.numbers[state].setdefault(pair, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self.forward.append(score)
        self.forward[number] = max(self.forward[number], score)
        return number

    def _prune(self, state: int, beam: float) -> None:
        """Remove the pairs too far below the best one. Arcs that lead to them alone become dead ends."""
        pairs = self.numbers[state]
        least = max((self.forward[number] for number in pairs.values()), default=0.0) - beam
        self.numbers[state] = {pair: number for pair, number in pairs.items() if self.forward[number] >= least}

    def _renumbered(self) -> tuple[UtteranceLattice, NDArray[np.int64]]:
        """The new lattice, its states in the order of the old one's, and the old arc behind each of its arcs."""
        order = np.argsort(self.states, kind="stable")
        number = np.empty(len(order), dtype=np.int32)
        number[order] = np.arange(len(order))
        arc, source, target, gain = (np.array(column) for column in zip(*self.rows, strict=True))
        by_source = np.argsort(number[source], kind="stable")
        arc = arc[by_source]
        ends = (number[source][by_source], number[target][by_source], self.lattice.arcs[arc, 2])
        lattice = UtteranceLattice(
            np.stack(ends, axis=1).astype(np.int32),
            self.lattice.words_on_arc[arc],
            self.lattice.am_scores[arc],
            (self.lattice.graph_scores[arc] + gain[by_source]).astype(np.float32),
        )
        return lattice, arc

    def _compact(self, whole: UtteranceLattice, arcs: NDArray[np.int64]) -> UtteranceLattice:
        """The best path of each word and time of the old lattice, as the first pass keeps them."""
        source, target, _ = whole.arcs.T
        gained = whole.graph_scores.astype(np.float64) - self.lattice.graph_scores[arcs]
        total = self.scores[arcs] + self.lm_scale * gained
        forward, backward = path_scores(whole, total)
        alive = np.isfinite(forward[source] + backward[target])  # the pruning left dead ends
        pruned = UtteranceLattice(*(column[alive] for column in astuple(whole)))
        return compact(pruned, arcs[alive].astype(np.int32), total[alive], forward, backward)
