"""Prompts: Asterisk's English sound prompts from Debian's packages, 25 minutes of one speaker at 8 kHz."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.corpora.prompts import prepare_prompts
from asrkd.nnet import AugmentOptions
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import main

CORPUS = Corpus(
    name="prompts",
    prepare=prepare_prompts,
    dictionary=lambda corpus_dir: "cmudict",
    closed_vocabulary=False,
    plain_words=True,
    where="local/fetch_prompts.sh DIR extracts it from Debian's packages asterisk-core-sounds-en and -en-wav",
    where_model="local/fetch_prompts.sh fetches it from Debian's package pocketsphinx-en-us",
)
# A trigram of general English. Without it a tenth of the test words are in no sentence of the training prompts.
GENERAL_MODEL = Path("data/prompts/usr/share/pocketsphinx/model/en-us/en-us.lm.bin")

_BASE = SpeechOptions(exp_dir=Path("exp/prompts"), network_jobs=2)
DEFAULT = replace(
    _BASE,
    features=replace(_BASE.features, sampling_rate=8000),
    lang=replace(_BASE.lang, arpa=GENERAL_MODEL, interpolation_weight=0.3, max_words=20_000, prune=1e-6),
    # One speaker and 16 minutes of training speech: with these sizes the recipe takes thirteen minutes on two cores.
    labels=replace(_BASE.labels, epochs=3),
    train=replace(_BASE.train, epochs=10, batch_size=512, learning_rate=1.5e-3),
    teacher=replace(_BASE.teacher, dropout=0.1),
    ensemble=replace(_BASE.ensemble, size=4),
    # A third of a teacher's weights.
    student=replace(_BASE.student, num_layers=3, hidden_dim=256),
    distil=replace(_BASE.distil, alpha=1.0, targets="online", online_teachers="one"),
    students=replace(
        _BASE.students,
        epochs=30,
        soft_learning_rate=4e-3,
        sweep_temperatures=(),
        augment=AugmentOptions(mix=0.5),
        baseline_dropouts=(),
        teacher_size=True,
    ),
    decode=replace(_BASE.decode, acoustic_scale=0.1, beam=12.0),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
