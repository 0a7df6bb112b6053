"""Decoding: every utterance of a set searched, the words, and the time it took."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor
from tqdm import tqdm

from asrkd.decode.compact import UtteranceLattice
from asrkd.decode.k2_search import K2Search
from asrkd.decode.kaldi_search import KaldiSearch
from asrkd.decode.lattice import Lattices, Scales
from asrkd.decode.options import DecodeOptions
from asrkd.errors import InputError, require_finite_scores
from asrkd.files import read_json, reading, write_json
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.workflow.cache import Arrays, Codec, ResultCache
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.memory import keep_freed_memory, named_memory_error
from asrkd.workflow.task import Task

log = logging.getLogger(__name__)

FRAME_SHIFT_MS = 10.0


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

    def after(self, first: SearchResult) -> SearchResult:
        """The same result with the time of a first pass added."""
        return replace(self, score_sec=first.score_sec + self.score_sec, search_sec=first.search_sec + self.search_sec)

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


class UtteranceTask(Task[str, SearchResult], Protocol):
    """A task that decodes utterances."""

    def ending_anywhere(self) -> UtteranceTask | None:
        """The task of a second pass, in which paths may end anywhere; None where the first pass has tried that."""
        ...


def decode(
    task: UtteranceTask,
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
    results = _search(task, utt_ids, name, executor, cache)
    second = task.ending_anywhere()
    pathless = [utt_id for utt_id in utt_ids if not len(results[utt_id].lattice.arcs)]
    if second is not None and pathless:
        # All of them in a pass of its own: each process would make a copy of the graph with other ends.
        again = cache and replace(cache, key=f"{cache.key} ends anywhere")
        for utt_id, result in _search(second, pathless, f"{name}, any end", executor, again).items():
            results[utt_id] = result.after(results[utt_id])
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


def _search(
    task: UtteranceTask,
    utt_ids: Sequence[str],
    name: str,
    executor: Executor,
    cache: ResultCache[SearchResult] | None,
) -> dict[str, SearchResult]:
    numbered = executor.map(task, utt_ids, cache)
    return {utt_ids[n]: result for n, result in tqdm(numbered, desc=name, unit="utt", total=len(utt_ids))}


def _warn(name: str, utt_ids: Sequence[str], what: str) -> None:
    if utt_ids:
        log.warning("%s: %s for %d utterances: %s", name, what, len(utt_ids), ", ".join(utt_ids[:5]))


class Search(Protocol):
    """What finds the lattice of acoustic scores."""

    def open(self) -> Search:
        """The search itself, with its graph in memory."""
        ...

    def __call__(self, scores: Tensor) -> tuple[UtteranceLattice, bool]:
        """The lattice of scores [T, S], without arcs where there is no path, and whether it is a partial one."""
        ...


class DecodingTask:
    """What all tasks that decode utterances have in common."""

    @property
    def uses_k2(self) -> bool:
        """Whether k2 searches (`asrkd.workflow.local_pool`)."""
        return True

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
    options: DecodeOptions = field(default_factory=DecodeOptions)
    lattices: bool = True
    """Whether all paths near the best one are wanted, or the best one alone."""
    ends_anywhere: bool = False
    """Whether k2's paths may end in any state."""

    @property
    def uses_k2(self) -> bool:
        """Whether k2 searches."""
        return self.options.choose_search(self.graph.num_arcs, self.lattices) == "k2"

    def ending_anywhere(self) -> Searcher | None:
        """The same, with paths that end anywhere; None where there shall be none. Kaldi's search has them at once."""
        return replace(self, ends_anywhere=True) if self.uses_k2 and self.options.allow_partial else None

    def open(self) -> Searcher:
        """The searcher itself, a function of an utt_id, with the graph of its search in memory."""
        keep_freed_memory()  # k2 asks for large blocks at every frame
        _ = self.search
        return self

    @cached_property
    def search(self) -> Search:
        """The search that the options choose."""
        if self.uses_k2:
            return K2Search(self.graph, self.options, self.lattices, self.ends_anywhere).open()
        return KaldiSearch(self.graph, self.options, self.lattices).open()

    def __call__(self, utt_id: str) -> SearchResult:
        with named_memory_error(self.out_of_memory(utt_id)):
            return self._decode(utt_id)

    def _decode(self, utt_id: str) -> SearchResult:
        start = time.process_time()
        scores = self._scores(utt_id)
        scored = time.process_time()
        lattice, partial = self.search(scores)
        return SearchResult(lattice, partial, len(scores), scored - start, time.process_time() - scored)

    def _scores(self, utt_id: str) -> Tensor:
        scores = self.acoustic[utt_id].float()
        if scores.dim() != 2 or scores.shape[1] != self.graph.num_pdfs:
            raise InputError(
                f"{utt_id}: expected acoustic scores [frames, {self.graph.num_pdfs}], found {tuple(scores.shape)}"
            )
        require_finite_scores(utt_id, scores)
        return scores
