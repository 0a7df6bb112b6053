"""Viterbi beam search over whole utterances by k2, one process a core."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from asrkd.align.viterbi import UNLIMITED_STATES, all_finite
from asrkd.decode.compact import UtteranceLattice, compact
from asrkd.decode.lattice import Lattices, Scales
from asrkd.errors import InputError, name_some
from asrkd.files import read_json, write_json
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.nnet.devices import keep_freed_memory
from asrkd.workflow.cache import Arrays, Codec, ResultCache
from asrkd.workflow.k2_threads import k2_jobs

if TYPE_CHECKING:
    import k2

log = logging.getLogger(__name__)

FRAME_SHIFT_MS = 10.0


@dataclass(frozen=True)
class DecodeOptions:
    """Pruning of the search and the scales that it works with."""

    beam: float = 16.0
    """Width of the search (nats of the scaled score): states further below the frame's best are dropped."""
    lattice_beam: float = 4.0
    """Paths further than this (nats) below the best are left out of the lattice."""
    whole_lattices: bool = False
    """Keep all of these paths, frame by frame, not of each word and place the best: a hundred times the
    size."""
    max_active: int | None = 10_000
    """States kept a frame, about; None for no limit."""
    min_active: int = 30
    """States kept a frame whatever the beam says."""
    acoustic_scale: float = 0.1
    """Weight of the acoustic scores."""
    lm_scale: float = 1.0
    """Weight of the graph's scores."""
    insertion_score: float = 0.0
    """Added for each word; negative against insertions."""
    allow_partial: bool = True
    """Where no path ends in a final state, take the best that ends anywhere; such utterances are listed."""
    num_jobs: int = 2
    """Processes; more than there are cores gain nothing."""

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
    """What was recognised, the lattices it was read from, and the time it took."""

    words: dict[str, list[str]]
    """Recognised words by utt_id; none where the search failed."""
    lattices: Lattices
    """Lattices of the same utterances."""
    failed: tuple[str, ...]
    """Utterances for which no path was found."""
    partial: tuple[str, ...]
    """Utterances for which no path ended in a final state and a partial one was taken."""
    audio_sec: float
    """Seconds of speech decoded."""
    score_sec: float
    """Processor seconds spent in getting acoustic scores: the network's, when `scores` computes on access."""
    search_sec: float
    """Processor seconds spent in the search and in making the lattices that are kept."""

    @property
    def rtf(self) -> float:
        """Real-time factor: processor seconds a second of speech, as long as a core of its own would take."""
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
class Found:
    """What a search found of one utterance."""

    lattice: UtteranceLattice
    partial: bool
    num_frames: int
    score_sec: float
    search_sec: float

    def pack(self) -> Arrays:
        """As `unpack` reads it."""
        numbers = [self.partial, self.num_frames, self.score_sec, self.search_sec]
        return {**self.lattice.arrays(), "numbers": np.asarray(numbers, dtype=np.float64)}

    @staticmethod
    def unpack(arrays: Arrays) -> Found:
        """Back from `pack`."""
        partial, num_frames, score_sec, search_sec = arrays.pop("numbers").tolist()
        return Found(UtteranceLattice(**arrays), bool(partial), int(num_frames), score_sec, search_sec)


def decode(
    graph: DecodingGraph,
    scores: Mapping[str, Tensor],
    options: DecodeOptions = DecodeOptions(),
    frame_shift_ms: float = FRAME_SHIFT_MS,
    name: str = "decode",
    elsewhere: Callable[[Sequence[str]], Iterable[tuple[int, Found]]] | None = None,
    kept: ResultCache | None = None,
) -> Hypotheses:
    """Recognise every utterance of `scores`, utt_id -> [T, S] log p(frame | senone) up to a constant
    (log_prob - log_prior).

    `scores` may compute on access: that happens in the worker, one utterance at a time, and counts into the
    real-time factor. InputError names an utterance whose scores have the wrong shape or hold NaN or infinity.
    Utterances without a path are listed in `failed` with no words. `elsewhere`, given utt_ids, yields (number, what a
    `Searcher` found) in place of processes of this machine; `kept` holds what an earlier call of the same arguments
    found before it was cut short.
    """
    if not scores:
        raise InputError("decoding: expected utterances, found none")
    utt_ids = list(scores)

    def search(utt_ids: Sequence[str]) -> Iterable[tuple[int, Found]]:
        if elsewhere is not None:
            return elsewhere(utt_ids)
        searcher = Searcher(graph, scores, options).open()  # before the fork: processes share the graph
        return k2_jobs(options.num_jobs, name).map(searcher, utt_ids)

    results = search(utt_ids) if kept is None else kept.map(utt_ids, search, Codec(Found.pack, Found.unpack))
    found = {utt_ids[n]: result for n, result in tqdm(results, desc=name, unit="utt", total=len(utt_ids))}
    lattices = Lattices.of(graph, {utt_id: found[utt_id].lattice for utt_id in utt_ids})
    hypotheses = Hypotheses(
        words=lattices.best_paths(options.scales),
        lattices=lattices,
        failed=tuple(utt_id for utt_id in utt_ids if not len(found[utt_id].lattice.arcs)),
        partial=tuple(utt_id for utt_id in utt_ids if found[utt_id].partial),
        audio_sec=sum(one.num_frames for one in found.values()) * frame_shift_ms / 1000,
        # Exact sums, the same in whatever order the utterances came back.
        score_sec=math.fsum(one.score_sec for one in found.values()),
        search_sec=math.fsum(one.search_sec for one in found.values()),
    )
    for utt_ids_, what in (
        (hypotheses.failed, "no path"),
        (hypotheses.partial, "no path to a final state, a partial one taken"),
    ):
        if utt_ids_:
            log.warning("%s: %s for %d utterances: %s", name, what, len(utt_ids_), name_some(utt_ids_))
    return hypotheses


@dataclass(frozen=True, eq=False)
class Searcher:
    """Decodes one utterance; everything it needs is in memory before the fork."""

    graph: DecodingGraph
    acoustic: Mapping[str, Tensor]
    options: DecodeOptions

    def open(self) -> Searcher:
        """Itself, with the graph made."""
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

    def __call__(self, utt_id: str) -> Found:
        start = time.process_time()
        scores = self._scores(utt_id)
        scored = time.process_time()
        lattice = self._kept(self.search(self.k2_graph, scores), scores)
        partial = not len(lattice.arcs) and self.options.allow_partial
        if partial:
            lattice = self._kept(self.search(self.k2_graph_without_ends, scores), scores)
        return Found(
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
        if len(scores) == 0 or not all_finite(scores):
            raise InputError(f"{utt_id}: expected finite acoustic scores of at least one frame")
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

    def _kept(self, lattice: k2.Fsa, scores: Tensor) -> UtteranceLattice:
        """What is kept of the search's lattice, in numpy arrays: a pipe carries their bytes.

        Tensors would be shared by way of a file of the process, which is gone when they are wanted.
        """
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
