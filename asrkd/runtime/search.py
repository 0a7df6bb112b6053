"""Viterbi beam search of exported models by kaldi-decoder, whole or as scores come, with times and confidences.

The best path comes from FasterDecoder, with the run's beam. Confidences and other hypotheses come from a lattice of
LatticeSimpleDecoder. It has no limit of active states, so that its beam decides the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asrkd.graph.arrays import lattice_arrays
from asrkd.runtime.graph import WordGraph
from asrkd.runtime.lattice import FrameLattice, calibrated
from asrkd.runtime.package import UNCALIBRATED, Calibration, SearchSettings
from asrkd.runtime.word_times import Span

if TYPE_CHECKING:
    import kaldi_decoder

Scores = NDArray[np.float32]
UNLIMITED_STATES = 2**31 - 1
# Nats. Wider beams take longer and are hardly better (docs/how_to/export.md).
LATTICE_SEARCH_BEAM = 9.0
LATTICE_BEAM = 8.0  # nats below the best path; what is further has no weight in a posterior


@dataclass(frozen=True)
class FoundWord:
    """One word of a path."""

    text: str
    begin: int
    """Frame."""
    end: int
    """The frame after its last."""
    confidence: float | None = None
    """Probability that the word is right, 0 to 1, from its lattice posterior; None where it was not asked for."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    words: tuple[FoundWord, ...]
    num_frames: int
    reached_final: bool
    """Whether the path ends in a final state of the graph; otherwise the last word may be cut."""
    alternatives: tuple[str, ...] = ()
    """Other hypotheses, the most probable first."""

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class _Path:
    """The best path: its senones [T], output labels, and whether it is complete."""

    pdf_ids: NDArray[np.int64]
    labels: list[int]
    emitted: list[int]
    """The frame in which each label is emitted."""
    reached_final: bool


@dataclass(frozen=True, eq=False)
class Search:
    """A search in a graph. Threads can share it: each search has its own state."""

    graph: WordGraph
    settings: SearchSettings
    calibration: Calibration = UNCALIBRATED
    """Of the confidences."""

    def decode(self, scores: Scores, *, confidences: bool = True, nbest: int = 1, beam: float | None = None) -> Found:
        """The words of scores [T, C] of a whole segment.

        `nbest` hypotheses at most, the best one and `nbest` - 1 alternatives. `beam`: nats; the run's without it.
        """
        stream = self.stream(beam=beam, confidences=confidences or nbest > 1)
        stream.advance(scores)
        return stream.final(confidences=confidences, nbest=nbest)

    def stream(self, *, beam: float | None = None, confidences: bool = True) -> SearchStream:
        """A search for scores that come in parts. Without `confidences` it does not keep the scores."""
        return SearchStream(self, beam or self.settings.beam, confidences)

    def _decoder(self, beam: float) -> kaldi_decoder.FasterDecoder:
        import kaldi_decoder

        limits = {"max_active": self.settings.max_active or UNLIMITED_STATES, "min_active": self.settings.min_active}
        return kaldi_decoder.FasterDecoder(self.graph.fst, kaldi_decoder.FasterDecoderOptions(beam=beam, **limits))

    def _lattice(self, scaled: Scores, beam: float, lattice_beam: float = LATTICE_BEAM) -> FrameLattice | None:
        """The lattice of scaled scores; None where there is no path."""
        import kaldi_decoder

        config = kaldi_decoder.LatticeSimpleDecoderConfig(beam=beam, lattice_beam=min(lattice_beam, beam))
        decoder = kaldi_decoder.LatticeSimpleDecoder(self.graph.fst, config)
        decoder.decode(kaldi_decoder.DecodableCtc(scaled, offset=0))
        has_path, raw = decoder.get_raw_lattice()
        return FrameLattice.of(raw) if has_path and raw.num_states > 1 else None


@dataclass
class SearchStream:
    """A search as scores come."""

    search: Search
    beam: float
    keeps_scores: bool
    num_frames: int = 0
    _decoder: Any = field(init=False, repr=False)
    _scaled: list[Scores] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._decoder = self.search._decoder(self.beam)
        self._decoder.init_decoding()

    def advance(self, scores: Scores) -> None:
        """Search on with the scores [t, C] of the next frames; t may be 0."""
        import kaldi_decoder

        if not len(scores):
            return
        scaled = np.ascontiguousarray(self.search.settings.acoustic_scale * scores, dtype=np.float32)
        self._decoder.advance_decoding(kaldi_decoder.DecodableCtc(scaled, offset=self.num_frames))
        self.num_frames += len(scores)
        if self.keeps_scores:
            self._scaled.append(scaled)

    def partial(self) -> tuple[FoundWord, ...]:
        """The words of the best path so far, wherever it ends. The last ones can still change."""
        path = self._best_path(use_final_probs=False)
        return () if path is None else tuple(FoundWord(*span) for span in self._word_spans(path))

    def final(self, *, confidences: bool = True, nbest: int = 1) -> Found:
        """The words of all frames: of the best path to a final state, or of the best one where none gets there."""
        path = self._best_path(use_final_probs=True)
        if path is None:
            return Found((), self.num_frames, False)
        spans = self._word_spans(path)
        words = tuple(FoundWord(*span) for span in spans)
        lattice = None
        if spans and self.keeps_scores and (confidences or nbest > 1):
            beam = min(self.beam, LATTICE_SEARCH_BEAM)
            lattice = self.search._lattice(np.concatenate(self._scaled), beam)
        if confidences and lattice is not None:
            words = self._with_confidences(words, path, lattice)
        alternatives = self._alternatives(path, lattice, nbest) if nbest > 1 and lattice is not None else ()
        return Found(words, self.num_frames, path.reached_final, alternatives)

    def _best_path(self, use_final_probs: bool) -> _Path | None:
        if not self.num_frames:
            return None
        has_path, path = self._decoder.get_best_path(use_final_probs)
        if not has_path:
            return None
        arcs = lattice_arrays(path)
        # One arc out of each state, in no order. Lists, because a path is followed five times a second.
        arc_of = np.empty(len(arcs.final), dtype=np.int64)
        arc_of[arcs.src] = np.arange(len(arcs.src))
        arc_of_state, dst = arc_of.tolist(), arcs.dst.tolist()
        order, state = [], path.start
        for _ in range(len(dst)):
            order.append(arc_of_state[state])
            state = dst[order[-1]]
        olabels = arcs.olabel[order]
        emitted = np.flatnonzero(olabels)
        pdf_ids = arcs.ilabel[order].astype(np.int64) - 1
        return _Path(pdf_ids, olabels[emitted].tolist(), emitted.tolist(), self._decoder.reached_final())

    def _word_spans(self, path: _Path) -> list[Span]:
        graph = self.search.graph
        return graph.word_spans(graph.text(path.labels), path.pdf_ids)

    def _with_confidences(
        self, words: Sequence[FoundWord], path: _Path, lattice: FrameLattice
    ) -> tuple[FoundWord, ...]:
        """The words with the calibrated posteriors of their labels. Words of one label have the same."""
        values = lattice.confidences(list(zip(path.labels, path.emitted, strict=True)))
        of_label = zip(path.labels, (calibrated(value, self.search.calibration) for value in values), strict=True)
        values = [value for label, value in of_label for _ in self.search.graph.words[label]]
        pairs = zip(words, values, strict=True)
        return tuple(FoundWord(word.text, word.begin, word.end, value) for word, value in pairs)

    def _alternatives(self, path: _Path, lattice: FrameLattice, nbest: int) -> tuple[str, ...]:
        """`nbest` - 1 other texts: of the lattice, or of one as wide as the search where that has fewer."""
        found = self._others(path, lattice, nbest - 1)
        if len(found) < nbest - 1:
            wider = self.search._lattice(np.concatenate(self._scaled), self.beam, self.beam)
            found = found if wider is None else self._others(path, wider, nbest - 1)
        return found

    def _others(self, path: _Path, lattice: FrameLattice, most: int) -> tuple[str, ...]:
        """The best texts of a lattice, without that of the best path."""
        graph = self.search.graph
        best = " ".join(graph.text(path.labels))
        others: dict[str, None] = {}  # labels can differ where words do not
        for labels in lattice.hypotheses():
            text = " ".join(graph.text(labels))
            if text != best:
                others[text] = None
            if len(others) == most:
                break
        return tuple(others)
