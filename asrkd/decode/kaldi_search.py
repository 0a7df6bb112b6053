"""Viterbi beam search over whole utterances by Kaldi's decoders, from kaldi-decoder (no torch, no k2).

Best paths come from FasterDecoder, lattices from LatticeSimpleDecoder. `beam`, `lattice_beam` and `allow_partial` mean
what they mean to k2. FasterDecoder has `max_active` and `min_active` too, LatticeSimpleDecoder has the beam alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asrkd.align.search import UNLIMITED_STATES
from asrkd.decode.compact import NO_PATH, UtteranceLattice, compact, linear_lattice, path_scores
from asrkd.decode.options import DecodeOptions
from asrkd.errors import InputError
from asrkd.graph.arrays import NO_FINAL, FstArrays, arcs_of_lattice, to_const_kaldifst
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.hmm_states import FINAL_LABEL

if TYPE_CHECKING:
    import kaldi_decoder
    import kaldifst

NO_ARC = -1


@dataclass(frozen=True, eq=False)
class KaldiSearch:
    """A search of Kaldi's: a function of an utterance's acoustic scores."""

    graph: DecodingGraph
    options: DecodeOptions
    lattices: bool = False
    """Whether all paths near the best one are wanted, or the best one alone."""

    def open(self) -> KaldiSearch:
        """The search itself, with Kaldi's graph in memory. InputError where kaldi-decoder is not installed."""
        try:
            import kaldi_decoder  # noqa: F401
        except ImportError:
            message = "--decode.search=kaldi: the Python package kaldi-decoder is not installed"
            raise InputError(f"{message} (pip install kaldi-decoder, or give --decode.search=k2)") from None
        _ = self.fst, self.final_arc
        return self

    @cached_property
    def fst(self) -> kaldifst.StdConstFst:
        """The graph with costs of the scaled scores. An arc's output label is its number + 1, which has all the rest.

        The decoders keep no reference to it.
        """
        graph, options = self.graph, self.options
        num_words = graph.num_words[graph.words_on_arc.long()]
        cost = -(options.lm_scale * graph.scores + options.insertion_score * num_words).numpy()
        source, target, label = (column.numpy() for column in graph.arcs.T)
        ends = label == FINAL_LABEL
        final = np.full(graph.num_states, NO_FINAL, dtype=np.float32)
        final[source[ends]] = cost[ends]
        number = np.arange(1, graph.num_arcs + 1, dtype=np.int32)
        source, target, label, number, cost = (column[~ends] for column in (source, target, label, number, cost))
        return to_const_kaldifst(FstArrays(source, target, label, number, cost, final))

    @cached_property
    def final_arc(self) -> NDArray[np.int64]:
        """[states] the graph's arc from each state to the final one; NO_ARC where there is none."""
        arcs = np.full(self.graph.num_states, NO_ARC)
        ends = np.flatnonzero(self.graph.arcs[:, 2].numpy() == FINAL_LABEL)
        arcs[self.graph.arcs[:, 0].numpy()[ends]] = ends
        return arcs

    def __call__(self, scores: Tensor) -> tuple[UtteranceLattice, bool]:
        """The lattice of scores [T, S], without arcs where there is no path, and whether it is a partial one."""
        import kaldi_decoder

        decodable = kaldi_decoder.DecodableCtc((self.options.acoustic_scale * scores).numpy(), offset=0)
        return self._lattice(decodable, scores.numpy()) if self.lattices else self._best_path(decodable, scores.numpy())

    def _best_path(
        self, decodable: kaldi_decoder.DecodableCtc, scores: NDArray[np.float32]
    ) -> tuple[UtteranceLattice, bool]:
        import kaldi_decoder
        import kaldifst

        options = self.options
        limits = {"max_active": options.max_active or UNLIMITED_STATES, "min_active": options.min_active}
        decoder = kaldi_decoder.FasterDecoder(self.fst, kaldi_decoder.FasterDecoderOptions(beam=options.beam, **limits))
        decoder.decode(decodable)
        partial = not decoder.reached_final()
        has_path, path = decoder.get_best_path()
        if not has_path or (partial and not options.allow_partial):
            return NO_PATH, False
        numbers = kaldifst.get_linear_symbol_sequence(path)[2]
        arcs = np.array(numbers) - 1
        final = NO_ARC if partial else self.final_arc[int(self.graph.arcs[arcs[-1], 1])]
        am = np.append(scores[np.arange(len(arcs)), self._pdf_id(arcs)], np.float32(0))
        return linear_lattice(*self._on_arcs(np.append(arcs, final), am)), partial

    def _pdf_id(self, arcs: NDArray[np.int64]) -> NDArray[np.int32]:
        return self.graph.arcs[:, 2].numpy()[arcs] - 1

    def _on_arcs(
        self, arcs: NDArray[np.int64], am: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Words, acoustic scores and graph scores on arcs of the graph; an end without an arc has none of these."""
        exists = arcs != NO_ARC
        words = np.where(exists, self.graph.words_on_arc.numpy()[arcs], 0)
        return words, am, np.where(exists, self.graph.scores.numpy()[arcs], np.float32(0))

    def _lattice(
        self, decodable: kaldi_decoder.DecodableCtc, scores: NDArray[np.float32]
    ) -> tuple[UtteranceLattice, bool]:
        import kaldi_decoder

        options = self.options
        decoder = kaldi_decoder.LatticeSimpleDecoder(
            self.fst, kaldi_decoder.LatticeSimpleDecoderConfig(beam=options.beam, lattice_beam=options.lattice_beam)
        )
        partial = not decoder.decode(decodable)
        has_path, raw = decoder.get_raw_lattice()
        if not has_path or (partial and not options.allow_partial):
            return NO_PATH, False
        whole, graph_arc = self._whole_lattice(raw, scores, partial)
        if options.whole_lattices:
            return whole, partial
        num_words = self.graph.num_words.numpy()[whole.words_on_arc]
        total = (
            options.acoustic_scale * whole.am_scores.astype(np.float64)
            + options.lm_scale * whole.graph_scores
            + options.insertion_score * num_words
        )
        return compact(whole, graph_arc.astype(np.int32), total, *path_scores(whole, total)), partial

    def _whole_lattice(
        self, raw: kaldifst.Lattice, scores: NDArray[np.float32], partial: bool
    ) -> tuple[UtteranceLattice, NDArray[np.int64]]:
        """Kaldi's lattice in arrays, and the graph's arc behind each of its arcs. Its states come frame by frame."""
        source, target, numbers = arcs_of_lattice(raw)
        arcs = numbers.astype(np.int64) - 1
        frame = np.zeros(raw.num_states, dtype=np.int32)
        for here, there in zip(source.tolist(), target.tolist(), strict=True):
            frame[there] = frame[here] + 1
        ends = np.flatnonzero(frame == len(scores))
        graph_state = np.zeros(raw.num_states, dtype=np.int64)
        graph_state[target] = self.graph.arcs[:, 1].numpy()[arcs]
        final = np.full(len(ends), NO_ARC) if partial else self.final_arc[graph_state[ends]]
        am = scores[frame[source], self._pdf_id(arcs)]
        arcs, am = np.append(arcs, final), np.append(am, np.zeros(len(ends), dtype=np.float32))
        source = np.append(source, ends)
        columns = source, np.append(target, np.full(len(ends), raw.num_states)), frame[source]
        words, am, graph_scores = self._on_arcs(arcs, am)
        return UtteranceLattice(np.stack(columns, axis=1).astype(np.int32), words, am, graph_scores), arcs
