"""Viterbi beam search over whole utterances by k2."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asrkd.align.search import UNLIMITED_STATES
from asrkd.decode.compact import NO_PATH, UtteranceLattice, compact, linear_lattice
from asrkd.decode.options import DecodeOptions
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.workflow.k2_library import import_k2

if TYPE_CHECKING:
    import k2

# Nats. The best path is in a lattice of any width, and k2 makes a narrow one sooner.
BEST_PATH_BEAM = 0.5


@dataclass(frozen=True, eq=False)
class K2Search:
    """A search of k2 (`intersect_dense_pruned`): a function of an utterance's acoustic scores."""

    graph: DecodingGraph
    options: DecodeOptions
    lattices: bool = True
    """Whether all paths near the best one are wanted, or the best one alone."""
    ends_anywhere: bool = False
    """Whether a path may end in any state: for utterances that reach no final state, in a second pass."""

    def open(self) -> K2Search:
        """The search itself, with k2's graph in memory."""
        _ = self.k2_graph
        return self

    @cached_property
    def k2_graph(self) -> k2.Fsa:
        """The graph with the scores of the search."""
        fsa = self.graph.to_k2(self.ends_anywhere)
        num_words = self.graph.num_words.index_select(0, fsa.words_on_arc)
        fsa.scores = self.options.lm_scale * fsa.graph_scores + self.options.insertion_score * num_words
        if self.lattices and not self.options.whole_lattices:
            fsa.graph_arc = torch.arange(fsa.num_arcs, dtype=torch.int32)
        return fsa

    def __call__(self, scores: Tensor) -> tuple[UtteranceLattice, bool]:
        """The lattice of scores [T, S], without arcs where there is no path, and whether it is a partial one."""
        lattice = self.intersect(self.k2_graph, scores)
        found = self._as_lattice(lattice, scores) if self.lattices else self._best_path(lattice, scores)
        return found, self.ends_anywhere and len(found.arcs) > 0

    def intersect(self, graph: k2.Fsa, scores: Tensor) -> k2.Fsa:
        """k2's lattice of scores [T, S]: every path within the lattice beam, frame by frame."""
        beam = self.options.lattice_beam
        return frame_lattice(graph, scores, self.options, beam if self.lattices else min(beam, BEST_PATH_BEAM))

    def _best_path(self, lattice: k2.Fsa, scores: Tensor) -> UtteranceLattice:
        k2 = import_k2()

        if not lattice.num_arcs:
            return NO_PATH
        path = k2.shortest_path(lattice, use_double_scores=True)
        return linear_lattice(path.words_on_arc.numpy(), am_scores(path, scores).numpy(), path.graph_scores.numpy())

    def _as_lattice(self, lattice: k2.Fsa, scores: Tensor) -> UtteranceLattice:
        """The search's lattice in numpy arrays, compact unless the options ask for all of it."""
        source, target, _ = lattice.arcs.values()[:, :3].T
        whole = UtteranceLattice(
            torch.stack([source, target, lattice.frame], dim=1).numpy(),
            lattice.words_on_arc.numpy(),
            am_scores(lattice, scores).numpy(),
            lattice.graph_scores.numpy(),
        )
        if self.options.whole_lattices or not len(whole.arcs):
            return whole
        return compact(
            whole,
            lattice.graph_arc.numpy(),
            lattice.scores.double().numpy(),
            lattice.get_forward_scores(use_double_scores=True, log_semiring=False).numpy(),
            lattice.get_backward_scores(use_double_scores=True, log_semiring=False).numpy(),
        )


def frame_lattice(graph: k2.Fsa, scores: Tensor, options: DecodeOptions, output_beam: float) -> k2.Fsa:
    """k2's lattice of scores [T, S] in a graph with scaled scores and labels pdf_id + 1, without arcs where no path is.

    Each arc is one frame, whose number is in the attribute `frame`. Its paths are those within `output_beam` (nats) of
    the best one.
    """
    k2 = import_k2()

    num_frames, num_pdfs = scores.shape
    # Column 0 belongs to label 0, which no arc of an epsilon-free graph has.
    scaled = torch.zeros(1, num_frames, 1 + num_pdfs)
    scaled[0, :, 1:] = options.acoustic_scale * scores
    dense = k2.DenseFsaVec(scaled, torch.tensor([[0, 0, num_frames]], dtype=torch.int32))
    return k2.intersect_dense_pruned(
        graph,
        dense,
        search_beam=options.beam,
        output_beam=output_beam,
        min_active_states=options.min_active,
        max_active_states=options.max_active or UNLIMITED_STATES,
        frame_idx_name="frame",
    )


def am_scores(lattice: k2.Fsa, scores: Tensor) -> Tensor:
    """[arcs] the acoustic score that each arc of a lattice has in scores [T, S]; 0 for final arcs."""
    label = lattice.arcs.values()[:, 2]
    emitting = label > 0
    on_arc = torch.zeros(len(label))
    on_arc[emitting] = scores[lattice.frame[emitting].long(), label[emitting].long() - 1]
    return on_arc
