"""TIMIT: read sentences with hand-marked phones. Phones are recognised, and scored as in Kaldi's recipe."""

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
    plain_words=True,
    where=WHERE_TO_GET,
    sizes=NUM_UTTERANCES,
    speakers={"dev": DEV_SPEAKERS, "test": CORE_TEST_SPEAKERS},
    # As egs/timit/s5/local/score_sclite.sh: 39 phones, one of them silence. The reference has silence for pauses and
    # closures, and a missing silence is no error. An inserted closure is an error. There is one difference: an inserted
    # pause is an error in Kaldi but not here, because a decoded pause is not a word.
    scoring=Scoring("phone", reference_phones, TO_39, frozenset({SILENCE})),
)

_BASE = SpeechOptions(exp_dir=Path("exp/timit"))
PAUSE_PROB = 0.05  # a word is one phone here, and a pause follows few phones
# No value below was tuned: the corpus was not available.
DEFAULT = replace(
    _BASE,
    lang=replace(_BASE.lang, order=2),
    align=replace(_BASE.align, silence_prob=PAUSE_PROB),
    realign=replace(_BASE.realign, silence_prob=PAUSE_PROB),
    graph=replace(_BASE.graph, silence_prob=PAUSE_PROB),
    # Three hours of training speech, four times AN4.
    tree=replace(_BASE.tree, num_leaves=1000),
    train=replace(_BASE.train, epochs=12),
    teacher=replace(_BASE.teacher, dropout=0.2),
    distil=replace(_BASE.distil, alpha=1.0),
    students=replace(_BASE.students, soft_learning_rate=3e-3),
    decode=replace(_BASE.decode, acoustic_scale=0.3),
    # The language model is a bigram of phones, and each phone's end has a score too. Words need scores against
    # insertions; phones need scores for them.
    tune=replace(
        _BASE.tune,
        acoustic_scales=(0.1, 0.15, 0.2, 0.3, 0.4, 0.6),
        insertion_scores=(-1.5, 0.0, 1.5, 3.0, 4.5),
    ),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
