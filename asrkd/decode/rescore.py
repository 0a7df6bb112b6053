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
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from asrkd.decode.compact import UtteranceLattice
from asrkd.decode.lattice import Scales
from asrkd.decode.search import Hypotheses
from asrkd.decode.workers import fork_map
from asrkd.files import fingerprint
from asrkd.graph.on_demand import GrammarWalk, Subset

_Pair = tuple[Subset, Subset]
"""States of the old and the new grammar."""


@dataclass(frozen=True)
class Rescorer:
    """The two grammars, over the same word labels."""

    old: GrammarWalk
    """What the decoding graph was made of."""
    new: GrammarWalk
    """What has the last word. It must know all words of the old one."""

    def __call__(self, hypotheses: Hypotheses, scales: Scales, num_jobs: int = 1, name: str = "rescore") -> Hypotheses:
        """The same utterances with rescored lattices and the best words in them; the time it took counts as search."""
        lattices = hypotheses.lattices
        partial = set(hypotheses.partial)

        def one(utt_id: str) -> tuple[UtteranceLattice, float]:
            start = time.process_time()
            rescored = self.rescore(lattices.utt(utt_id), lattices.word_sequences, utt_id not in partial)
            return rescored, time.process_time() - start

        found: dict[str, tuple[UtteranceLattice, float]] = {}
        utt_ids = list(lattices.utt_ids)
        for utt_id, result in tqdm(fork_map(one, utt_ids, num_jobs), desc=name, unit="utt", total=len(utt_ids)):
            found[utt_id] = result
        made_from = [lattices.graph_fingerprint, self.old.fst.digest(), self.new.fst.digest()]
        rescored = lattices.replaced({utt_id: found[utt_id][0] for utt_id in utt_ids}, fingerprint(made_from))
        return replace(
            hypotheses,
            words=rescored.best_paths(scales),
            lattices=rescored,
            search_sec=hypotheses.search_sec + sum(seconds for _, seconds in found.values()),
        )

    def rescore(
        self, lattice: UtteranceLattice, word_sequences: tuple[tuple[int, ...], ...], with_ends: bool = True
    ) -> UtteranceLattice:
        """One utterance's lattice. Without `with_ends` no model says how likely the sentence ends: a partial path
        was not charged for that either."""
        if not len(lattice.arcs):
            return lattice
        last = int(lattice.arcs[:, 1].max())
        old_start, new_start = self.old.start(), self.new.start()
        # The start's own cost is a constant of all sentences, there in both models but for rounding.
        there: dict[int, dict[_Pair, int]] = defaultdict(dict)
        there[0][old_start[1], new_start[1]] = 0
        offset = old_start[0] - new_start[0]
        rows: list[tuple[int, int, int, float]] = []  # arc, number of source and of target, change of the score
        places = [(0, 0)]  # lattice state and number of each new state
        for arc, (source, target, _) in enumerate(lattice.arcs.tolist()):
            labels = [word + 1 for word in word_sequences[lattice.words_on_arc[arc]]]
            for pair, number in there[source].items():
                change, reached = self._step(pair, labels)
                if target == last:
                    change, reached = change + (self._end(reached) if with_ends else 0.0), ((), ())
                if not math.isfinite(change):
                    continue
                if reached not in there[target]:
                    there[target][reached] = len(places)
                    places.append((target, len(places)))
                rows.append((arc, number, there[target][reached], change + (offset if source == 0 else 0.0)))
        return _renumbered(lattice, rows, places)

    def _step(self, pair: _Pair, labels: list[int]) -> tuple[float, _Pair]:
        """What words change of the score, and the pair of grammar states after them."""
        old, new = pair
        change = 0.0
        for label in labels:
            old_cost, old = self.old.step(old, label)
            new_cost, new = self.new.step(new, label)
            change += old_cost - new_cost
        return change, (old, new)

    def _end(self, pair: _Pair) -> float:
        return self.old.end(pair[0]) - self.new.end(pair[1])


def _renumbered(
    lattice: UtteranceLattice, rows: list[tuple[int, int, int, float]], places: list[tuple[int, int]]
) -> UtteranceLattice:
    """Arcs in the order of their sources, states numbered in the order of the lattice's own, the end last."""
    order = sorted(range(len(places)), key=places.__getitem__)
    number = np.empty(len(places), dtype=np.int32)
    number[order] = np.arange(len(places))
    arc, source, target, change = (np.array(column) for column in zip(*rows, strict=True))
    by_source = np.argsort(number[source], kind="stable")
    arc = arc[by_source]
    ends = (number[source][by_source], number[target][by_source], lattice.arcs[arc, 2])
    return UtteranceLattice(
        np.stack(ends, axis=1).astype(np.int32),
        lattice.words_on_arc[arc],
        lattice.am_scores[arc],
        (lattice.graph_scores[arc] + change[by_source]).astype(np.float32),
    )
