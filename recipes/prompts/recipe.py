"""Prompts: Asterisk's English sound prompts from Debian's packages, 25 minutes of one speaker at 8 kHz."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.corpora.prompts import prepare_prompts
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
)

_BASE = SpeechOptions(exp_dir=Path("exp/prompts"))
DEFAULT = replace(
    _BASE,
    features=replace(_BASE.features, sampling_rate=8000),
    # One speaker and 16 minutes of training speech: with these sizes the recipe takes ten minutes on two cores.
    labels=replace(_BASE.labels, epochs=3),
    train=replace(_BASE.train, epochs=10, batch_size=256),
    teacher=replace(_BASE.teacher, dropout=0.1),
    ensemble=replace(_BASE.ensemble, size=4),
    students=replace(_BASE.students, sweep_temperatures=(5.0, 10.0)),  # besides 2; a minute each
    decode=replace(_BASE.decode, acoustic_scale=0.2),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
