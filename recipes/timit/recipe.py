"""TIMIT: read sentences with hand-marked phones; phones are recognised, and scored as Kaldi's recipe scores them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.corpora.timit import (
    CORE_TEST_SPEAKERS,
    DEV_SPEAKERS,
    NUM_UTTERANCES,
    TO_39,
    WHERE_TO_GET,
    prepare_timit,
    reference_phones,
)
from asrkd.data.transcripts import SILENCE
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import main
from asrkd.recipe.scoring import Scoring

CORPUS = Corpus(
    name="timit",
    prepare=prepare_timit,
    dictionary=lambda corpus_dir: Path(__file__).with_name("lexicon.txt"),
    closed_vocabulary=True,
    where=WHERE_TO_GET,
    sizes=NUM_UTTERANCES,
    speakers={"dev": DEV_SPEAKERS, "test": CORE_TEST_SPEAKERS},
    # As egs/timit/s5/local/score_sclite.sh: 39 phones, silence among them, which the reference holds where there was a
    # pause or a closure, and which may be missing without an error. Here a decoded pause is no word, so an inserted
    # one, an error in Kaldi, cannot be; an inserted closure is one.
    scoring=Scoring("phone", reference_phones, TO_39, frozenset({SILENCE})),
)

_BASE = SpeechOptions(exp_dir=Path("exp/timit"))
PAUSE_PROB = 0.05  # words are phones, and few have a pause behind them
# The corpus was not at hand: nothing below was tuned on it.
DEFAULT = replace(
    _BASE,
    lang=replace(_BASE.lang, order=2),
    align=replace(_BASE.align, silence_prob=PAUSE_PROB),
    realign=replace(_BASE.realign, silence_prob=PAUSE_PROB),
    graph=replace(_BASE.graph, silence_prob=PAUSE_PROB),
    # Three hours, four times AN4.
    tree=replace(_BASE.tree, num_leaves=1000),
    train=replace(_BASE.train, epochs=12),
    teacher=replace(_BASE.teacher, dropout=0.2),
    distil=replace(_BASE.distil, alpha=1.0),
    students=replace(_BASE.students, soft_learning_rate=3e-3),
    decode=replace(_BASE.decode, acoustic_scale=0.3),
    # A bigram of phones and a score of leaving each: what words need against insertions, phones need for them.
    tune=replace(
        _BASE.tune,
        acoustic_scales=(0.1, 0.15, 0.2, 0.3, 0.4, 0.6),
        insertion_scores=(-1.5, 0.0, 1.5, 3.0, 4.5),
    ),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
