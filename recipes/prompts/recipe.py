"""Prompts: Asterisk's English sound prompts, 25 minutes of one speaker at 8 kHz, from Debian's packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.corpora.prompts import prepare_prompts
from asrkd.speech.data import Corpus
from asrkd.speech.options import SpeechOptions
from asrkd.speech.plan import main

CORPUS = Corpus(
    name="prompts",
    prepare=prepare_prompts,
    dictionary=lambda corpus_dir: "cmudict",
    closed_vocabulary=False,
    where="local/fetch_prompts.sh DIR gets it from Debian's asterisk-core-sounds-en and asterisk-core-sounds-en-wav",
)

_BASE = SpeechOptions(exp_dir=Path("exp/prompts"))
DEFAULT = replace(_BASE, features=replace(_BASE.features, sampling_rate=8000))

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
