"""Decoding: errors against real-time factor of k2's search and of Kaldi's FasterDecoder, on one graph and its scores.

    .venv/bin/python local/bench/decoding.py --exp-dir exp/an4

One process and one thread each; scores are computed beforehand. The development speakers are decoded. Then one process
beside two, by the clock, from the graph in memory to the words.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import kaldi_decoder
import kaldifst
import torch
from bench import Table, finished_run, main, verdict
from torch import Tensor

from asrkd.decode import DecodeOptions, decode
from asrkd.decode.search import Hypotheses
from asrkd.graph import DecodingGraph, build_hclg
from asrkd.lang.lexicon import Lexicon
from asrkd.score.words import wer
from asrkd.speech.data import ARPA_FILE, LEXICON_FILE
from asrkd.speech.evaluate import Decoder, Run, tuned
from asrkd.speech.labels import load_hmm
from asrkd.speech.options import options_of_run

CORES_GOAL = 1.8
MS_PER_SEC = 1000.0


@dataclass(frozen=True)
class Options:
    """What is decoded."""

    exp_dir: Path | None = None
    """folder of a finished run"""
    beams: tuple[float, ...] = (8.0, 10.0, 12.0, 14.0, 16.0, 20.0)
    """beams of both decoders"""
    utterances: int = 200
    """utterances, from the first"""
    jobs: int = 2
    """processes of the last comparison"""
    passes: int = 5
    """times that it decodes the utterances, as one test set: starting processes is then a small part of it"""


@dataclass(frozen=True)
class Task:
    """One system on some utterances."""

    graph: DecodingGraph
    scores: dict[str, Tensor]
    refs: dict[str, list[str]]
    options: DecodeOptions
    frame_shift_ms: float

    @staticmethod
    def of(exp: Path, limit: int) -> Task:
        options = options_of_run(exp)
        decoder = Decoder.open(exp, "dev", options)
        acoustics = decoder.acoustics(Run("distilled", 0, ("students/distilled",)))
        store = decoder.frames.store
        utt_ids = store.utt_ids[:limit]
        tree, transitions, _ = load_hmm(exp / "tree")
        lexicon = Lexicon.load(exp / "lang" / LEXICON_FILE)
        graph = build_hclg(lexicon, exp / "lang" / ARPA_FILE, tree, transitions, options.graph)
        return Task(
            graph,
            {utt_id: acoustics[utt_id] for utt_id in utt_ids},
            {utt_id: store.texts[store.index(utt_id)].split() for utt_id in utt_ids},
            tuned(exp / "decode" / "tuning", options),
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

    def by_k2(self, beam: float, jobs: int = 1) -> tuple[float, float, float]:
        """Word error rate, real-time factor and seconds by the clock."""
        options = replace(self.options, beam=beam, insertion_score=0.0, num_jobs=jobs)
        start = time.perf_counter()
        found: Hypotheses = decode(self.graph, self.scores, options, self.frame_shift_ms)
        seconds = time.perf_counter() - start
        return wer(self.refs, found.words).percent, found.search_sec / self.audio_sec, seconds

    def by_kaldi(self, beam: float) -> tuple[float, float]:
        """Word error rate and real-time factor."""
        torch.set_num_threads(1)
        fst = self.graph.to_kaldifst()
        max_active = self.options.max_active or 2**31 - 1
        words, seconds = {}, 0.0
        for utt_id, scores in self.scores.items():
            scaled = (self.options.acoustic_scale * scores).numpy()
            start = time.process_time()
            decoder = kaldi_decoder.FasterDecoder(
                fst, kaldi_decoder.FasterDecoderOptions(beam=beam, max_active=max_active)
            )
            decoder.decode(kaldi_decoder.DecodableCtc(scaled, offset=0))
            _, path = decoder.get_best_path()
            _, _, rows, _ = kaldifst.get_linear_symbol_sequence(path)
            seconds += time.process_time() - start
            words[utt_id] = self.graph.text(torch.tensor(rows))
        return wer(self.refs, words).percent, seconds / self.audio_sec


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    task = Task.of(finished_run(options.exp_dir), options.utterances)
    rows = []
    kaldi = {beam: task.by_kaldi(beam) for beam in options.beams}
    mine = {beam: task.by_k2(beam) for beam in options.beams}
    for beam in options.beams:
        (my_wer, my_rtf, _), (its_wer, its_rtf) = mine[beam], kaldi[beam]
        figures = f"{my_wer:.2f}", f"{my_rtf:.4f}", f"{its_wer:.2f}", f"{its_rtf:.4f}", f"{its_rtf / my_rtf:.2f}"
        rows.append((f"{beam:g}", *figures))
    widest = options.beams[-1]
    goal = verdict(mine[widest][1], kaldi[widest][1], more_is_better=False)
    whole_set = task.repeated(options.passes)
    _, _, alone = whole_set.by_k2(widest, 1)
    _, _, together = whole_set.by_k2(widest, options.jobs)
    return Table(
        f"{len(task.scores)} utterances, {task.audio_sec / 60:.1f} minutes; graph of {task.graph.num_arcs:,} arcs",
        ("beam", "k2 WER %", "k2 RTF", "Kaldi WER %", "Kaldi RTF", "k2 is faster by"),
        rows,
        (
            f"Goal: no slower than Kaldi's, which gives the best path alone and no lattice: {goal}.",
            f"Goal: {options.jobs} processes, {CORES_GOAL} times one (beam {widest:g}, {whole_set.audio_sec / 60:.0f} "
            f"minutes of speech in {together:.1f} s): {alone / together:.2f} times, "
            f"{verdict(alone / together, CORES_GOAL)}.",
        ),
        {"k2": mine, "kaldi": kaldi, "one_process_sec": alone, "processes_sec": together},
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
