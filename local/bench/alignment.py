"""Alignment: frames per second on one core, from features to pdf_ids, and where the time goes.

.venv/bin/python local/bench/alignment.py --exp-dir exp/an4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from bench import Table, finished_run, main, one_core, quickest, verdict

from asrkd.align import Aligner, TrainingCorpus, TrainingGraphs, ViterbiOptions, viterbi
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.lang.lexicon import Lexicon
from asrkd.nnet.dnn import AcousticDnn
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.labels import load_hmm, scorer
from asrkd.recipe.networks import MODEL_FILE
from asrkd.recipe.options import options_of_run
from asrkd.recipe.trained import trained_precision

GOAL = 40_000.0


@dataclass(frozen=True)
class Options:
    """What is aligned."""

    exp_dir: Path | None = None
    """folder of a finished run"""
    utterances: int = 1000
    """utterances, from the first"""


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir)
    chosen = options_of_run(exp)
    folders = RunFolders(exp)
    store, lexicon = FrameStore.open(folders.features("train")), Lexicon.load(folders.lexicon)
    inputs = SplicedFrames(store, chosen.context.left, chosen.context.right, utt_ids=())
    tree, transitions, log_prior = load_hmm(folders.tree)
    model = AcousticDnn.load(exp / "teachers" / "0" / MODEL_FILE)
    texts = {utt_id: store.texts[store.index(utt_id)] for utt_id in store.utt_ids[: options.utterances]}
    frames = len(store.frame_ids(texts))
    torch.set_num_threads(1)
    precision = trained_precision([exp / "teachers" / "0"])
    score = scorer(model, inputs, log_prior, precision)
    corpus = TrainingCorpus.build(store, lexicon, tree.phones, texts)
    scores = {transcript.utt_id: torch.cat(list(score(transcript.utt_id))) for transcript in corpus.transcripts}
    aligner = Aligner(lexicon, tree, transitions, scores.__getitem__)
    batches = corpus.batches(ViterbiOptions(), tree.num_pdfs)

    def align() -> object:
        return viterbi(corpus, aligner, tree.num_pdfs).pdf_ids(tree)

    def graphs() -> None:
        for batch in batches:
            texts_of_batch = [transcript.text for transcript in batch]
            TrainingGraphs.build(texts_of_batch, lexicon, tree.phones).compile(tree, transitions)

    with one_core():  # k2's search has a second thread
        seconds = quickest(
            {
                "network": lambda: [list(score(utt_id)) for utt_id in scores],
                "graphs, Viterbi by k2, pdf_ids": align,
                "of which graphs": graphs,
            },
            repeats=3,
        )
    total = sum(seconds.values()) - seconds["of which graphs"]
    rows = [(part, f"{taken:.2f}", f"{frames / taken:,.0f}", f"{taken / total:.0%}") for part, taken in seconds.items()]
    rows.append(("features to pdf_ids", f"{total:.2f}", f"{frames / total:,.0f}", "100%"))
    return Table(
        f"{len(texts)} utterances, {frames:,} frames, {tree.num_pdfs} senones, network of "
        f"{model.num_parameters / 1e6:.2f} M parameters in {precision}, one core",
        ("part", "s", "frames/s", "of the time"),
        rows,
        (
            f"Floor: {2e-6 * model.macs_per_frame:.1f} MFLOP a frame in the network.",
            f"Goal: {GOAL:,.0f} frames/s: {verdict(frames / total, GOAL)}.",
        ),
        {**seconds, "frames": frames},
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
