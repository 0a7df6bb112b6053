"""Lattices with the scores of another language model than they were decoded with.

A large model makes too large a graph, so a pruned one decodes and the large one has the last word (as Kaldi's
`lattice-lmrescore`): of every path the cost of its words under the old G is taken off and that under the new G put
on. Both are exact (`GrammarWalk`): states of the lattice become one for each pair of grammar states that paths bring
there. With the old model for the new one nothing changes; what the first pass pruned does not come back.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asrkd.decode.compact import UtteranceLattice, compact
from asrkd.decode.lattice import Scales
from asrkd.decode.search import Hypotheses
from asrkd.files import fingerprint
from asrkd.graph.on_demand import GrammarWalk, Subset
from asrkd.workflow.cache import Arrays, Codec, ResultCache
from asrkd.workflow.local_pool import fork_map

_Pair = tuple[Subset, Subset]
"""States of the old and the new grammar."""


class Piece(NamedTuple):
    """One utterance to rescore."""

    lattice: UtteranceLattice
    complete: bool
    """Whether its paths end in final states of the graph; a partial one's do not."""


class Rescored(NamedTuple):
    """What became of it."""

    lattice: UtteranceLattice
    search_sec: float
    """Processor seconds that took."""

    def pack(self) -> Arrays:
        """As `unpack` reads it."""
        return {**self.lattice.arrays(), "search_sec": np.asarray([self.search_sec])}

    @staticmethod
    def unpack(arrays: Arrays) -> Rescored:
        """Back from `pack`."""
        search_sec = float(arrays.pop("search_sec")[0])
        return Rescored(UtteranceLattice(**arrays), search_sec)


@dataclass(frozen=True)
class Rescorer:
    """The two grammars, over the same word labels."""

    old: GrammarWalk
    """What the decoding graph was made of."""
    new: GrammarWalk
    """What has the last word. It must know all words of the old one."""

    def __call__(
        self,
        hypotheses: Hypotheses,
        scales: Scales,
        beam: float | None = None,
        num_jobs: int = 1,
        name: str = "rescore",
        elsewhere: Callable[[Sequence[Piece]], Iterable[tuple[int, Rescored]]] | None = None,
        kept: ResultCache | None = None,
    ) -> Hypotheses:
        """The same utterances with rescored lattices and the best words in them; the time it took counts as search.

        With a `beam`, histories further than this (nats of the scaled score) below the best one at the same state
        of the lattice are dropped, and of each word and place the best path is kept; else everything is. `elsewhere`,
        given pieces, yields (number, what `piece` makes of it) in place of processes of this machine; `kept` holds what
        an earlier call of the same arguments made before it was cut short.
        """
        lattices = hypotheses.lattices
        partial = set(hypotheses.partial)
        pieces = [Piece(lattices.utt(utt_id), utt_id not in partial) for utt_id in lattices.utt_ids]

        def rescore(pieces: Sequence[Piece]) -> Iterable[tuple[int, Rescored]]:
            if elsewhere is not None:
                return elsewhere(pieces)
            return fork_map(
                lambda number: self.piece(pieces[number], lattices.word_sequences, scales, beam),
                list(range(len(pieces))),
                num_jobs,
            )

        codec = Codec(Rescored.pack, Rescored.unpack)
        results = rescore(pieces) if kept is None else kept.map(pieces, rescore, codec)
        found = dict(tqdm(results, desc=name, unit="utt", total=len(pieces)))
        made_from = [lattices.graph_fingerprint, self.old.fst.digest(), self.new.fst.digest()]
        by_utt = {utt_id: found[number].lattice for number, utt_id in enumerate(lattices.utt_ids)}
        rescored = lattices.replaced(by_utt, fingerprint(made_from))
        return replace(
            hypotheses,
            words=rescored.best_paths(scales),
            lattices=rescored,
            search_sec=hypotheses.search_sec + math.fsum(one.search_sec for one in found.values()),
        )

    def piece(
        self, piece: Piece, word_sequences: tuple[tuple[int, ...], ...], scales: Scales, beam: float | None
    ) -> Rescored:
        """One utterance; `word_sequences` are those that its arcs speak of."""
        start = time.process_time()
        expansion = _Expansion(self, piece.lattice, word_sequences, scales, piece.complete)
        return Rescored(expansion.rescored(beam), time.process_time() - start)

    def start(self) -> tuple[float, _Pair]:
        """What sentences gain before their first word, and the pair of grammar states there."""
        (old_cost, old), (new_cost, new) = self.old.start(), self.new.start()
        return old_cost - new_cost, (old, new)

    def step(self, pair: _Pair, labels: list[int]) -> tuple[float, _Pair]:
        """What a path gains by these words, and the pair of grammar states after them."""
        old, new = pair
        gain = 0.0
        for label in labels:
            old_cost, old = self.old.step(old, label)
            new_cost, new = self.new.step(new, label)
            gain += old_cost - new_cost
        return gain, (old, new)

    def end(self, pair: _Pair) -> float:
        """What a path gains by ending."""
        return self.old.end(pair[0]) - self.new.end(pair[1])


class _Expansion:
    """One lattice with a state for each lattice state and pair of grammar states that paths bring there."""

    def __init__(
        self,
        rescorer: Rescorer,
        lattice: UtteranceLattice,
        word_sequences: tuple[tuple[int, ...], ...],
        scales: Scales,
        with_ends: bool,
    ) -> None:
        """Without `with_ends` no grammar says how likely the sentence ends: a partial path was not charged for that
        either."""
        self.rescorer, self.lattice, self.with_ends = rescorer, lattice, with_ends
        self.labels = [[word + 1 for word in word_sequences[row]] for row in lattice.words_on_arc.tolist()]
        self.lm_scale = scales.lm_scale
        num_words = np.array([len(labels) for labels in self.labels])
        self.scores: NDArray[np.float64] = (
            scales.acoustic_scale * lattice.am_scores.astype(np.float64)
            + scales.lm_scale * lattice.graph_scores
            + scales.insertion_score * num_words
        )
        # Of each new state: the lattice's state and the best score of a path to it.
        self.places: list[int] = []
        self.forward: list[float] = []
        self.numbers: dict[int, dict[_Pair, int]] = defaultdict(dict)
        # Of each new arc: the lattice's arc, source and target, what it gains.
        self.rows: list[tuple[int, int, int, float]] = []

    def rescored(self, beam: float | None) -> UtteranceLattice:
        """The lattice with new graph scores, arcs in the order of their sources."""
        if not len(self.lattice.arcs):
            return self.lattice
        source, target = self.lattice.arcs[:, 0].tolist(), self.lattice.arcs[:, 1].tolist()
        last = max(target)
        gain, pair = self.rescorer.start()
        self._enter(0, pair, gain * self.lm_scale)
        before = -1
        for arc, (here, there) in enumerate(zip(source, target, strict=True)):
            if here != before and beam is not None:
                self._drop(here, beam)
            before = here
            for pair, number in self.numbers[here].items():
                self._extend(arc, pair, number, there, there == last, gain if here == 0 else 0.0)
        whole, arcs = self._renumbered()
        return whole if beam is None else self._compact(whole, arcs)

    def _extend(self, arc: int, pair: _Pair, number: int, there: int, is_last: bool, first_gain: float) -> None:
        gain, reached = self.rescorer.step(pair, self.labels[arc])
        if is_last:
            gain, reached = gain + (self.rescorer.end(reached) if self.with_ends else 0.0), ((), ())
        if math.isfinite(gain):
            score = self.forward[number] + self.scores[arc] + self.lm_scale * gain
            self.rows.append((arc, number, self._enter(there, reached, score), gain + first_gain))

    def _enter(self, state: int, pair: _Pair, score: float) -> int:
        number = self.numbers[state].setdefault(pair, len(self.places))
        if number == len(self.places):
            self.places.append(state)
            self.forward.append(score)
        self.forward[number] = max(self.forward[number], score)
        return number

    def _drop(self, state: int, beam: float) -> None:
        """Forget the pairs too far below the best one; what led to them alone is left without a way on."""
        pairs = self.numbers[state]
        least = max((self.forward[number] for number in pairs.values()), default=0.0) - beam
        self.numbers[state] = {pair: number for pair, number in pairs.items() if self.forward[number] >= least}

    def _renumbered(self) -> tuple[UtteranceLattice, NDArray[np.int64]]:
        """The new lattice, its states in the order of the old one's, and the old arc behind each of its arcs."""
        order = np.argsort(self.places, kind="stable")
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
        """Of each word and place of the old lattice the best path, as the first pass keeps them."""
        source, target, _ = whole.arcs.T
        gained = whole.graph_scores.astype(np.float64) - self.lattice.graph_scores[arcs]
        total = self.scores[arcs] + self.lm_scale * gained
        forward, backward = np.full((2, len(self.places)), -np.inf)
        forward[0] = backward[-1] = 0.0
        ends, scores = list(zip(source.tolist(), target.tolist(), strict=True)), total.tolist()
        for (here, there), score in zip(ends, scores, strict=True):
            forward[there] = max(forward[there], forward[here] + score)
        for (here, there), score in zip(reversed(ends), reversed(scores), strict=True):
            backward[here] = max(backward[here], backward[there] + score)
        alive = np.isfinite(forward[source] + backward[target])  # states whose every way on was dropped lead nowhere
        kept = UtteranceLattice(*(column[alive] for column in astuple(whole)))
        return compact(kept, arcs[alive].astype(np.int32), total[alive], forward, backward)
