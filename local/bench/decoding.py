"""Decoding: errors against real-time factor of k2's search and of Kaldi's FasterDecoder, on one graph and its scores.

    .venv/bin/python local/bench/decoding.py --exp-dirs exp/an4 exp/mini_librispeech

One process each on one core, and processor seconds, so that the second thread in which k2 prunes its lattices counts.
Scores are computed beforehand. The development speakers are decoded, in turns, and the quickest turn counts. Beside
ours stands what k2's search takes alone, without the lattices that are kept of it. Then one process on one core beside
two on two, by the clock, from the graph in memory to the words.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import kaldi_decoder
import kaldifst
import torch
from bench import Table, finished_run, main, one_core, verdict
from torch import Tensor

from asrkd.decode import DecodeOptions, Hypotheses, Searcher, decode
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.recipe.evaluate import DecodeTask, Run, open_graph, tuned
from asrkd.recipe.options import options_of_run
from asrkd.scoring.words import wer
from asrkd.workflow.executor import SERIAL, Executor

CORES_GOAL = 1.8
MS_PER_SEC = 1000.0
# A recipe whose graph is a hundred times that of the small ones, measured too where it was run.
LARGE = Path("exp/mini_librispeech")


class Point(NamedTuple):
    """What a decoder reaches at a beam, and at what cost."""

    percent: float
    """Word error rate."""
    rtf: float
    """Real-time factor."""


@dataclass(frozen=True)
class Options:
    """What is decoded."""

    exp_dirs: tuple[Path, ...] = ()
    """folders of finished runs; none: a small one, and exp/mini_librispeech where it is"""
    beams: tuple[float, ...] = (8.0, 10.0, 12.0, 14.0, 16.0, 20.0)
    """beams of both decoders"""
    minutes: float = 4.0
    """speech of each, from its first utterance on"""
    turns: int = 2
    """times that each decoder decodes them at each beam; the quickest counts"""
    jobs: int = 2
    """processes of the last comparison"""
    passes: int = 3
    """times that it decodes the utterances, as one test set: starting processes is then a small part of it"""


class SearchAlone(Searcher):
    """Processor seconds of an utterance's search."""

    def __call__(self, utt_id: str) -> float:
        start = time.process_time()
        self.search(self.k2_graph, self.acoustic[utt_id])
        return time.process_time() - start


@dataclass(frozen=True)
class Task:
    """One system on some utterances."""

    name: str
    graph: DecodingGraph
    scores: dict[str, Tensor]
    refs: dict[str, list[str]]
    options: DecodeOptions
    frame_shift_ms: float

    @staticmethod
    def of(exp: Path, minutes: float) -> Task:
        options = options_of_run(exp)
        run, search = Run("distilled", 0, ("students/distilled",)), tuned(exp / "decode" / "tuning", options)
        acoustics = DecodeTask(run, "dev", search, options).acoustics()
        store = acoustics.frames.store
        last = int(torch.searchsorted(store.offsets[1:], minutes * 60 * MS_PER_SEC / store.frame_shift_ms)) + 1
        utt_ids = store.utt_ids[:last]
        return Task(
            exp.name,
            open_graph(exp),
            {utt_id: acoustics[utt_id] for utt_id in utt_ids},
            {utt_id: store.texts[store.index(utt_id)].split() for utt_id in utt_ids},
            search,
            store.frame_shift_ms,
        )

    @cached_property
    def audio_sec(self) -> float:
        return sum(len(scores) for scores in self.scores.values()) * self.frame_shift_ms / MS_PER_SEC

    def repeated(self, times: int) -> Task:
        """The same utterances so many times, under names of their own."""
        names = [(utt_id, f"{utt_id}_{number}") for number in range(times) for utt_id in self.scores]
        return replace(
            self,
            scores={name: self.scores[utt_id] for utt_id, name in names},
            refs={name: self.refs[utt_id] for utt_id, name in names},
        )

    def by_k2(self, beam: float) -> Point:
        """Our search, in a process of its own."""
        hypotheses = self._decode(beam, SERIAL)
        return Point(wer(self.refs, hypotheses.words).percent, hypotheses.search_sec / self.audio_sec)

    def k2_alone(self, beam: float) -> float:
        """Real-time factor of k2's search, its lattices dropped as they come."""
        search = SearchAlone(self.graph, self.scores, self._options(beam))
        return sum(sec for _, sec in SERIAL.map(search, list(self.scores))) / self.audio_sec

    def seconds(self, beam: float, jobs: int) -> float:
        """Of our search in so many processes, by the clock."""
        start = time.perf_counter()
        self._decode(beam, Executor(jobs))
        return time.perf_counter() - start

    def _decode(self, beam: float, executor: Executor) -> Hypotheses:
        options = self._options(beam)
        searcher = Searcher(self.graph, self.scores, options)
        return decode(searcher, list(self.scores), self.graph, options.scales, self.frame_shift_ms, executor=executor)

    def _options(self, beam: float) -> DecodeOptions:
        return replace(self.options, beam=beam, insertion_score=0.0)

    @cached_property
    def kaldi_graph(self) -> kaldifst.StdVectorFst:
        return self.graph.to_kaldifst()

    def by_kaldi(self, beam: float) -> Point:
        """Word error rate and real-time factor."""
        torch.set_num_threads(1)
        max_active = self.options.max_active or 2**31 - 1
        words, seconds = {}, 0.0
        for utt_id, scores in self.scores.items():
            scaled = (self.options.acoustic_scale * scores).numpy()
            start = time.process_time()
            decoder = kaldi_decoder.FasterDecoder(
                self.kaldi_graph, kaldi_decoder.FasterDecoderOptions(beam=beam, max_active=max_active)
            )
            decoder.decode(kaldi_decoder.DecodableCtc(scaled, offset=0))
            _, path = decoder.get_best_path()
            _, _, rows, _ = kaldifst.get_linear_symbol_sequence(path)
            seconds += time.process_time() - start
            words[utt_id] = self.graph.text(torch.tensor(rows))
        return Point(wer(self.refs, words).percent, seconds / self.audio_sec)


def at_equal_errors(mine: Mapping[float, Point], its: Mapping[float, Point]) -> tuple[float, float, float]:
    """The lowest word error rate that both reach, and the real-time factor at which each is first there."""
    wer_both = max(min(points.values())[0] for points in (mine, its))
    first, other = (min(rtf for percent, rtf in points.values() if percent <= wer_both) for points in (mine, its))
    return wer_both, first, other


def curves(task: Task, options: Options) -> tuple[dict[float, Point], dict[float, Point], dict[float, float]]:
    """Points of our search and of Kaldi's by beam, and the real-time factors of k2's alone: in turns, the quickest."""
    mine: dict[float, Point] = {}
    kaldi: dict[float, Point] = {}
    alone: dict[float, float] = {}
    for beam in options.beams:
        with one_core():
            turns = [(task.by_kaldi(beam), task.by_k2(beam), task.k2_alone(beam)) for _ in range(options.turns)]
        kaldi[beam], mine[beam], alone[beam] = (min(found) for found in zip(*turns, strict=True))
    return mine, kaldi, alone


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp_dirs = options.exp_dirs or (finished_run(None), *([LARGE] if LARGE.is_dir() else []))
    rows, notes, figures = [], [], {}
    for exp_dir in exp_dirs:
        task = Task.of(finished_run(exp_dir), options.minutes)
        mine, kaldi, alone = curves(task, options)
        for beam in options.beams:
            (my_wer, my_rtf), (its_wer, its_rtf) = mine[beam], kaldi[beam]
            wers = f"{my_wer:.2f}", f"{its_wer:.2f}"
            rtfs = f"{my_rtf:.4f}", f"{alone[beam]:.4f}", f"{its_rtf:.4f}"
            speeds = f"{its_rtf / my_rtf:.2f}", f"{its_rtf / alone[beam]:.2f}"
            rows.append((task.name, f"{beam:g}", *wers, *rtfs, *speeds))
        wer_both, rtf, its_rtf = at_equal_errors(mine, kaldi)
        _, limit, _ = at_equal_errors({beam: Point(mine[beam].percent, alone[beam]) for beam in mine}, kaldi)
        notes.append(
            f"{task.name}: {len(task.scores)} utterances, {task.audio_sec / 60:.1f} minutes; {task.graph.num_arcs:,} "
            f"arcs. Goal: no slower than Kaldi's, which gives the best path alone and no lattice: {wer_both:.2f}% are "
            f"reached at {rtf:.4f} and {its_rtf:.4f}, {its_rtf / rtf:.2f} times its speed, "
            f"{verdict(its_rtf / rtf, 1.0)}. k2's search alone has {its_rtf / limit:.2f} times its speed there."
        )
        seconds, note = on_cores(task, options)
        notes.append(note)
        figures[task.name] = {"mine": mine, "kaldi": kaldi, "k2_alone": alone, **seconds}
    columns = (
        *("run", "beam", "our WER %", "Kaldi WER %", "our RTF", "k2 alone", "Kaldi RTF"),
        *("our speed in Kaldi's", "k2's alone"),
    )
    return Table("development speakers; max_active as in the run", columns, rows, tuple(notes), figures)


def on_cores(task: Task, options: Options) -> tuple[dict[str, float], str]:
    """Seconds of one process on one core, of one on all, and of several on all; what to say of them."""
    beam = task.options.beam
    whole_set = task.repeated(options.passes)
    turns = []
    for _ in range(options.turns):
        with one_core():
            alone = whole_set.seconds(beam, 1)
        turns.append((alone, whole_set.seconds(beam, 1), whole_set.seconds(beam, options.jobs)))
    alone, free, together = (min(seconds) for seconds in zip(*turns, strict=True))
    note = (
        f"Goal: {options.jobs} cores, {CORES_GOAL} times one: {alone / together:.2f} times (beam {beam:g}, "
        f"{whole_set.audio_sec / 60:.0f} minutes of speech in {together:.1f} s), "
        f"{verdict(alone / together, CORES_GOAL)}. One process that may use both cores is {alone / free:.2f} times as "
        "fast as on one: k2's second thread."
    )
    return {"one_core_sec": alone, "one_process_sec": free, "processes_sec": together}, note


if __name__ == "__main__":
    main(Options, measure, __doc__)
