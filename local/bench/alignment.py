"""Alignment: frames a second on one core, from features to pdf_ids, and where the time goes.

.venv/bin/python local/bench/alignment.py --exp-dir exp/an4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from bench import Table, finished_run, main, one_core, quickest, verdict

from asrkd.align.graphs import TrainingGraphs
from asrkd.align.viterbi import TrainingCorpus, ViterbiOptions
from asrkd.nnet.models import AcousticDnn
from asrkd.recipe.labels import LabelMaker, load_hmm, scorer
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
    maker = LabelMaker.open(exp / "features", exp / "lang", chosen)
    tree, transitions, log_prior = load_hmm(exp / "tree")
    model = AcousticDnn.load(exp / "teachers" / "0" / MODEL_FILE)
    store = maker.store
    texts = {utt_id: store.texts[store.index(utt_id)] for utt_id in store.utt_ids[: options.utterances]}
    frames = len(store.frame_ids(texts))
    torch.set_num_threads(1)
    precision = trained_precision([exp / "teachers" / "0"])
    score = scorer(model, maker.inputs, log_prior, precision)
    corpus = TrainingCorpus.build(store, maker.lexicon, tree.phones, texts=texts)
    scores = {utt_id: score(utt_id) for utt_id in corpus.utt_ids}

    def align() -> object:
        return corpus.align(tree, scores.__getitem__, transitions, ViterbiOptions()).pdf_ids(tree)

    def graphs() -> object:
        return TrainingGraphs.build(corpus.texts, maker.lexicon, tree.phones).compile(tree, transitions)

    with one_core():  # k2's search has a second thread
        seconds = quickest(
            {
                "graphs": graphs,
                "network": lambda: [score(utt_id) for utt_id in corpus.utt_ids],
                "Viterbi by k2, pdf_ids": align,
            },
            repeats=3,
        )
    total = sum(seconds.values())
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
