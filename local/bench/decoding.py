"""Decoding: errors against real-time factor of our searches and of Kaldi's FasterDecoder, on one graph and its scores.

    .venv/bin/python local/bench/decoding.py --exp-dirs exp/an4 exp/mini_librispeech

One process each on one core, and processor seconds, so that the second thread in which k2 prunes its lattices counts.
Scores are computed beforehand. The development speakers are decoded, in turns, and the quickest turn counts. The peer
is FasterDecoder as kaldi-decoder's documentation calls it. Ours are k2's lattices, and the best paths alone by k2 and
by Kaldi's search. Then one process on one core against two on two, by the clock, from the graph in memory to the words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import kaldi_decoder
import kaldifst
import torch
from bench import Table, finished_run, main, one_core, verdict
from torch import Tensor

from asrkd.decode import DecodeOptions, Hypotheses, Searcher, decode
from asrkd.decode.options import KALDI_MAX_ARCS, SearchName
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.recipe.evaluate import DecodeTask, Run, open_graph, tuned
from asrkd.recipe.options import options_of_run
from asrkd.scoring.words import wer
from asrkd.workflow.executor import SERIAL, Executor

CORES_GOAL = 1.8
MS_PER_SEC = 1000.0
# A recipe whose graph is a hundred times that of the small ones, measured too where it was run.
LARGE = Path("exp/mini_librispeech")


PATHS: dict[SearchName, str] = {"k2": "k2's best paths", "kaldi": "Kaldi's best paths"}
LATTICES, PEER = "k2's lattices", "FasterDecoder"


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
    lattices_beam: float = 14.0
    """beam at which Kaldi's lattices are timed"""
    jobs: int = 2
    """processes of the last comparison"""
    passes: int = 3
    """times that it decodes the utterances, as one test set: starting processes is then a small part of it"""


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

    def by_ours(self, beam: float, search: SearchName, lattices: bool) -> Point:
        """A search of ours, in this process."""
        hypotheses = self._decode(beam, search, lattices, SERIAL)
        return Point(wer(self.refs, hypotheses.words).percent, hypotheses.search_sec / self.audio_sec)

    def seconds(self, beam: float, jobs: int) -> float:
        """Of our best paths in so many processes, by the clock."""
        start = time.perf_counter()
        self._decode(beam, "auto", False, Executor(jobs))
        return time.perf_counter() - start

    def _decode(
        self, beam: float, search: Literal["auto", SearchName], lattices: bool, executor: Executor
    ) -> Hypotheses:
        options = replace(self.options, beam=beam, insertion_score=0.0, search=search)
        searcher = Searcher(self.graph, self.scores, options, lattices)
        return decode(searcher, list(self.scores), self.graph, options.scales, self.frame_shift_ms, executor=executor)

    def default(self, beam: float) -> str:
        """Which of our ways to best paths is the default with this graph and beam."""
        return PATHS[replace(self.options, beam=beam).choose_search(self.graph.num_arcs, lattices=False)]

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


def curves(task: Task, options: Options) -> dict[str, dict[float, Point]]:
    """Points of each decoder by beam: in turns, the quickest."""
    ways: dict[str, Callable[[float], Point]] = {
        PEER: task.by_kaldi,
        PATHS["kaldi"]: lambda beam: task.by_ours(beam, "kaldi", False),
        PATHS["k2"]: lambda beam: task.by_ours(beam, "k2", False),
        LATTICES: lambda beam: task.by_ours(beam, "k2", True),
    }
    points: dict[str, dict[float, Point]] = {name: {} for name in ways}
    for beam in options.beams:
        with one_core():
            for _ in range(options.turns):
                for name, recognise in ways.items():
                    one = recognise(beam)
                    points[name][beam] = min(one, points[name].get(beam, one))
    return points


def kaldis_lattices(task: Task, beam: float) -> str:
    """What Kaldi's lattices cost at this beam; nothing of a large graph, for LatticeSimpleDecoder has no max_active."""
    if task.graph.num_arcs > KALDI_MAX_ARCS:
        return ""
    with one_core():
        theirs, ours = (task.by_ours(beam, search, True).rtf for search in ("kaldi", "k2"))
    return f" Lattices at beam {beam:g}: {theirs:.4f} by Kaldi's LatticeSimpleDecoder, {ours:.4f} by k2."


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp_dirs = options.exp_dirs or (finished_run(None), *([LARGE] if LARGE.is_dir() else []))
    rows, notes, figures = [], [], {}
    for exp_dir in exp_dirs:
        task = Task.of(finished_run(exp_dir), options.minutes)
        points = curves(task, options)
        peer = points[PEER]
        default = {beam: points[task.default(beam)][beam] for beam in options.beams}
        for beam in options.beams:
            wers = (f"{points[name][beam].percent:.2f}" for name in (PATHS["k2"], PATHS["kaldi"], PEER))
            rtfs = (f"{points[name][beam].rtf:.4f}" for name in (LATTICES, *PATHS.values(), PEER))
            rows.append((task.name, f"{beam:g}", *wers, *rtfs, f"{peer[beam].rtf / default[beam].rtf:.2f}"))
        wer_both, rtf, its_rtf = at_equal_errors(default, peer)
        others = {name: at_equal_errors(points[name], peer) for name in (LATTICES, *PATHS.values())}
        speeds = ", ".join(f"{name} {its / mine:.2f}" for name, (_, mine, its) in others.items())
        notes.append(
            f"{task.name}: {len(task.scores)} utterances, {task.audio_sec / 60:.1f} minutes; {task.graph.num_arcs:,} "
            f"arcs. Goal: best paths no slower than FasterDecoder: {wer_both:.2f}% are reached at {rtf:.4f} by the "
            f"default and at {its_rtf:.4f}, {its_rtf / rtf:.2f} times its speed, "
            f"{verdict(its_rtf / rtf, 1.0)}. Speeds at equal errors, in FasterDecoder's: {speeds}."
            + kaldis_lattices(task, options.lattices_beam)
        )
        seconds, note = on_cores(task, options)
        notes.append(note)
        figures[task.name] = {**points, **seconds}
    columns = (
        *("run", "beam", "k2 WER %", "Kaldi WER %", "FasterDecoder WER %"),
        *(f"{name} RTF" for name in (LATTICES, *PATHS.values())),
        *("FasterDecoder RTF", "default's speed in FasterDecoder's"),
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
    k2s_thread = ": k2's second thread" if task.default(beam) == PATHS["k2"] else ""
    note = (
        f"Goal: {options.jobs} cores, {CORES_GOAL} times one: {alone / together:.2f} times (beam {beam:g}, "
        f"{whole_set.audio_sec / 60:.0f} minutes of speech in {together:.1f} s), "
        f"{verdict(alone / together, CORES_GOAL)}. One process that may use both cores is {alone / free:.2f} times as "
        f"fast as on one{k2s_thread}."
    )
    return {"one_core_sec": alone, "one_process_sec": free, "processes_sec": together}, note


if __name__ == "__main__":
    main(Options, measure, __doc__)
