"""Viterbi beam search over whole utterances by k2."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from asrkd.align.search import UNLIMITED_STATES
from asrkd.decode.compact import UtteranceLattice, compact
from asrkd.decode.lattice import Lattices, Scales
from asrkd.errors import InputError, require_finite_scores
from asrkd.files import read_json, reading, write_json
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.workflow.cache import Arrays, Codec, ResultCache
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.memory import keep_freed_memory, named_memory_error
from asrkd.workflow.task import Task

if TYPE_CHECKING:
    import k2

log = logging.getLogger(__name__)

FRAME_SHIFT_MS = 10.0


@dataclass(frozen=True)
class DecodeOptions:
    """Pruning of the search and the scales that it works with."""

    beam: float = 16.0
    """Width of the search (nats of the scaled score): states further below the frame's best are pruned."""
    lattice_beam: float = 4.0
    """Paths further than this (nats) below the best are not in the lattice."""
    whole_lattices: bool = False
    """Keep all of these paths, frame by frame, not the best one of each word and time: a hundred times the size."""
    max_active: int | None = 10_000
    """States per frame, about; None for no limit."""
    min_active: int = 30
    """States per frame whatever the beam."""
    acoustic_scale: float = 0.1
    """Weight of the acoustic scores."""
    lm_scale: float = 1.0
    """Weight of the graph's scores."""
    insertion_score: float = 0.0
    """Added for each word; negative against insertions."""
    allow_partial: bool = True
    """Where no path ends in a final state, take the best that ends anywhere; such utterances are listed."""

    def __post_init__(self) -> None:
        if not (self.beam > 0 and self.lattice_beam > 0):
            raise InputError(f"decoding: expected positive beams, found {self.beam} and {self.lattice_beam}")
        if self.max_active is not None and self.max_active < 1:
            raise InputError(f"decoding: expected max_active of at least 1, found {self.max_active}")
        _ = self.scales

    @property
    def scales(self) -> Scales:
        """The three weights."""
        return Scales(self.acoustic_scale, self.lm_scale, self.insertion_score)


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Recognised words, the lattices that they were read from, and the time it took."""

    words: dict[str, list[str]]
    """Recognised words by utt_id; none where the search failed."""
    lattices: Lattices
    """Lattices of the same utterances."""
    failed: tuple[str, ...]
    """Utterances without a path."""
    partial: tuple[str, ...]
    """Utterances for which no path ended in a final state and a partial one was taken."""
    audio_sec: float
    """Seconds of speech decoded."""
    score_sec: float
    """Processor seconds of the acoustic scores: the network's, when they are computed on access."""
    search_sec: float
    """Processor seconds of the search and of its lattices."""

    @property
    def rtf(self) -> float:
        """Real-time factor: processor seconds per second of speech on one core."""
        return (self.score_sec + self.search_sec) / self.audio_sec

    def save(self, folder: Path | str) -> None:
        """Write lattices.safetensors and hypotheses.json into a folder that exists."""
        folder = Path(folder)
        self.lattices.save(folder / "lattices.safetensors")
        content = {
            "words": {utt_id: " ".join(words) for utt_id, words in self.words.items()},
            "failed": self.failed,
            "partial": self.partial,
            "audio_sec": self.audio_sec,
            "score_sec": self.score_sec,
            "search_sec": self.search_sec,
        }
        write_json(folder / "hypotheses.json", content)

    @staticmethod
    def load(folder: Path | str, graph_fingerprint: str | None = None) -> Hypotheses:
        """Read what `save` wrote."""
        folder = Path(folder)
        content = read_json(folder / "hypotheses.json")
        with reading(folder / "hypotheses.json", "hypotheses"):
            return Hypotheses(
                {utt_id: text.split() for utt_id, text in content["words"].items()},
                Lattices.load(folder / "lattices.safetensors", graph_fingerprint),
                tuple(content["failed"]),
                tuple(content["partial"]),
                content["audio_sec"],
                content["score_sec"],
                content["search_sec"],
            )


@dataclass(frozen=True)
class SearchResult:
    """What a search gives for one utterance."""

    lattice: UtteranceLattice
    """Without arcs where there is no path."""
    partial: bool
    """Whether no path ended in a final state and a partial one was taken."""
    num_frames: int
    score_sec: float
    """Processor seconds of the acoustic scores."""
    search_sec: float
    """Processor seconds of the search."""

    def pack(self) -> Arrays:
        """As `unpack` reads it."""
        numbers = [self.partial, self.num_frames, self.score_sec, self.search_sec]
        return {**self.lattice.arrays(), "numbers": np.asarray(numbers, dtype=np.float64)}

    @staticmethod
    def unpack(arrays: Arrays) -> SearchResult:
        """Back from `pack`."""
        partial, num_frames, score_sec, search_sec = arrays.pop("numbers").tolist()
        return SearchResult(UtteranceLattice(**arrays), bool(partial), int(num_frames), score_sec, search_sec)


SEARCH_RESULTS = Codec(SearchResult.pack, SearchResult.unpack)


def decode(
    task: Task[str, SearchResult],
    utt_ids: Sequence[str],
    graph: DecodingGraph,
    scales: Scales,
    frame_shift_ms: float = FRAME_SHIFT_MS,
    name: str = "decode",
    executor: Executor = SERIAL,
    cache: ResultCache[SearchResult] | None = None,
) -> Hypotheses:
    """Recognise every utterance. The task searches `graph`: a `Searcher`, or one that opens a `Searcher` from files.

    `scales` choose the best path of each lattice. Utterances without a path are in `failed` and have no words.
    InputError names an utterance whose scores have the wrong shape or hold NaN or infinity.
    """
    if not utt_ids:
        raise InputError("decoding: expected utterances, found none")
    numbered = executor.map(task, utt_ids, cache)
    results = {utt_ids[n]: result for n, result in tqdm(numbered, desc=name, unit="utt", total=len(utt_ids))}
    lattices = Lattices.of(graph, {utt_id: results[utt_id].lattice for utt_id in utt_ids})
    hypotheses = Hypotheses(
        words=lattices.best_paths(scales),
        lattices=lattices,
        failed=tuple(utt_id for utt_id in utt_ids if not len(results[utt_id].lattice.arcs)),
        partial=tuple(utt_id for utt_id in utt_ids if results[utt_id].partial),
        audio_sec=sum(result.num_frames for result in results.values()) * frame_shift_ms / 1000,
        # Exact sums, the same in whatever order the utterances came back.
        score_sec=math.fsum(result.score_sec for result in results.values()),
        search_sec=math.fsum(result.search_sec for result in results.values()),
    )
    _warn(name, hypotheses.failed, "no path")
    _warn(name, hypotheses.partial, "no path to a final state, a partial one taken")
    return hypotheses


def _warn(name: str, utt_ids: Sequence[str], what: str) -> None:
    if utt_ids:
        log.warning("%s: %s for %d utterances: %s", name, what, len(utt_ids), ", ".join(utt_ids[:5]))


class DecodingTask:
    """What all tasks that decode utterances have in common."""

    uses_k2: ClassVar[bool] = True

    def out_of_memory(self, utt_id: str) -> str:
        """Which utterance a process could not decode, and what may help."""
        return (
            f"{utt_id}: it needs more memory to decode than there is: try fewer jobs (--nj), a smaller beam "
            "(--decode.beam) or fewer active states (--decode.max-active), or refuse long utterances (--max-duration)"
        )


@dataclass(frozen=True, eq=False)
class Searcher(DecodingTask):
    """A task that decodes utterances with a graph and acoustic scores in memory."""

    graph: DecodingGraph
    acoustic: Mapping[str, Tensor]
    """utt_id -> [T, S] log p(frame | senone) up to a constant (log_prob - log_prior).

    It may compute on access: in the worker, one utterance at a time, counted into the real-time factor.
    """
    options: DecodeOptions = DecodeOptions()

    def open(self) -> Searcher:
        """The searcher itself, a function of an utt_id, with k2's graph in memory."""
        keep_freed_memory()  # k2 asks for large blocks at every frame
        _ = self.k2_graph
        return self

    @cached_property
    def k2_graph(self) -> k2.Fsa:
        return self._scaled(every_state_final=False)

    @cached_property
    def k2_graph_without_ends(self) -> k2.Fsa:
        return self._scaled(every_state_final=True)

    def _scaled(self, every_state_final: bool) -> k2.Fsa:
        fsa = self.graph.to_k2(every_state_final)
        num_words = self.graph.num_words[fsa.words_on_arc.long()]
        fsa.scores = self.options.lm_scale * fsa.graph_scores + self.options.insertion_score * num_words
        fsa.graph_arc = torch.arange(fsa.num_arcs, dtype=torch.int32)
        return fsa

    def __call__(self, utt_id: str) -> SearchResult:
        with named_memory_error(self.out_of_memory(utt_id)):
            return self._decode(utt_id)

    def _decode(self, utt_id: str) -> SearchResult:
        start = time.process_time()
        scores = self._scores(utt_id)
        scored = time.process_time()
        lattice = self._as_lattice(self.search(self.k2_graph, scores), scores)
        partial = not len(lattice.arcs) and self.options.allow_partial
        if partial:
            lattice = self._as_lattice(self.search(self.k2_graph_without_ends, scores), scores)
        return SearchResult(
            lattice,
            partial and len(lattice.arcs) > 0,
            len(scores),
            scored - start,
            time.process_time() - scored,
        )

    def _scores(self, utt_id: str) -> Tensor:
        scores = self.acoustic[utt_id].float()
        if scores.dim() != 2 or scores.shape[1] != self.graph.num_pdfs:
            raise InputError(
                f"{utt_id}: expected acoustic scores [frames, {self.graph.num_pdfs}], found {tuple(scores.shape)}"
            )
        require_finite_scores(utt_id, scores)
        return scores

    def search(self, graph: k2.Fsa, scores: Tensor) -> k2.Fsa:
        """k2's lattice of scores [T, S]: every path within the lattice beam, frame by frame."""
        import k2

        num_frames, num_pdfs = scores.shape
        # Column 0 belongs to label 0, which no arc of an epsilon-free graph has.
        scaled = torch.zeros(1, num_frames, 1 + num_pdfs)
        scaled[0, :, 1:] = self.options.acoustic_scale * scores
        dense = k2.DenseFsaVec(scaled, torch.tensor([[0, 0, num_frames]], dtype=torch.int32))
        options = self.options
        return k2.intersect_dense_pruned(
            graph,
            dense,
            search_beam=options.beam,
            output_beam=options.lattice_beam,
            min_active_states=options.min_active,
            max_active_states=options.max_active or UNLIMITED_STATES,
            frame_idx_name="frame",
        )

    def _as_lattice(self, lattice: k2.Fsa, scores: Tensor) -> UtteranceLattice:
        """The search's lattice in numpy arrays, compact unless the options ask for all of it."""
        source, target, label = lattice.arcs.values()[:, :3].T
        frame = lattice.frame
        emitting = label > 0
        am_scores = torch.zeros(len(label))
        am_scores[emitting] = scores[frame[emitting].long(), label[emitting].long() - 1]
        whole = UtteranceLattice(
            torch.stack([source, target, frame], dim=1).numpy(),
            lattice.words_on_arc.numpy(),
            am_scores.numpy(),
            lattice.graph_scores.numpy(),
        )
        if self.options.whole_lattices or not len(label):
            return whole
        return compact(
            whole,
            lattice.graph_arc.numpy(),
            lattice.scores.double().numpy(),
            lattice.get_forward_scores(use_double_scores=True, log_semiring=False).numpy(),
            lattice.get_backward_scores(use_double_scores=True, log_semiring=False).numpy(),
        )
