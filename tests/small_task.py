"""A small recogniser, utterances made up for it, and their decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import decoding_peer as peer
import numpy as np
import torch
from decoding_peer import LEXICON, TEXT
from torch import Tensor

from asrkd.decode import DecodeOptions, Hypotheses, Lattices, Scales, Searcher, decode
from asrkd.graph.build import GraphOptions, build_hclg
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.lang.ngram import NgramModel
from asrkd.workflow.executor import Executor

OPTIONS = GraphOptions(self_loop_scale=0.5)
TWO_JOBS = Executor(2)


class Task:
    """A small recogniser and utterances made up for it."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.tree: SenoneTree = peer.random_tree(LEXICON.phones, seed)
        self.transitions: TransitionModel = peer.random_transitions(self.tree.num_pdfs, seed)
        self.model: NgramModel = estimate_kneser_ney([line.split() for line in TEXT], 3, vocabulary=LEXICON.words)
        self.graph: DecodingGraph = build_hclg(LEXICON, self.model, self.tree, self.transitions, OPTIONS)

    def noise(self, num_frames: int, spread: float = 2.0) -> Tensor:
        return torch.from_numpy(self.generator.normal(0, spread, (num_frames, self.tree.num_pdfs))).float()

    def speech(self, words: list[str], spread: float = 2.0, gain: float = 6.0) -> Tensor:
        """Scores that favour the states of some pronunciation of the words, one to four frames each."""
        ways = [phones for phones, _ in peer.pronunciations(words, LEXICON, 0.5)]
        pdfs = peer.state_pdfs(ways[self.generator.integers(len(ways))], self.tree)
        pdfs = np.repeat(pdfs, self.generator.integers(1, 5, len(pdfs)))
        scores = self.noise(len(pdfs), spread)
        scores[torch.arange(len(pdfs)), torch.from_numpy(pdfs)] += gain
        return scores

    def utterances(self, **kwargs: float) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
        refs = {f"utt{n}": line.split() for n, line in enumerate(TEXT)}
        return {utt_id: self.speech(words, **kwargs) for utt_id, words in refs.items()}, refs


def decoded(
    graph: DecodingGraph,
    scores: Mapping[str, Tensor],
    options: DecodeOptions = DecodeOptions(),  # noqa: B008
    executor: Executor = TWO_JOBS,
    lattices: bool = True,
    **how: Any,
) -> Hypotheses:
    """What the graph recognises of scores in memory."""
    return decode(
        Searcher(graph, scores, options, lattices), list(scores), graph, options.scales, executor=executor, **how
    )


def best_total(lattices: Lattices, utt_id: str, scales: Scales) -> float:
    """Score of the best path, by a pass over the arcs: they come in the order of their sources."""
    lattice = lattices.utt(utt_id)
    total = scales.acoustic_scale * lattice.am_scores.astype(np.float64) + scales.lm_scale * lattice.graph_scores
    best = np.full(int(lattice.arcs[:, 1].max()) + 1, -np.inf)
    best[0] = 0.0
    for (source, target, *_), score in zip(lattice.arcs.tolist(), total.tolist(), strict=True):
        best[target] = max(best[target], best[source] + score)
    return float(best[-1])
