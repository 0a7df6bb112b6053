"""AN4: CMU's census data, 42 minutes of training speech, read by 74 speakers; ten others are the test set."""

from __future__ import annotations

from pathlib import Path

from asrkd.corpora.an4 import prepare_an4
from asrkd.speech.data import Corpus
from asrkd.speech.options import SpeechOptions
from asrkd.speech.plan import main

CORPUS = Corpus(
    name="an4",
    prepare=prepare_an4,
    dictionary=lambda corpus_dir: corpus_dir / "etc" / "an4.dic",
    closed_vocabulary=True,
    where="get AN4 from https://github.com/cmusphinx/an4 (or CMU's speech pages) and give its folder",
)

DEFAULT = SpeechOptions(exp_dir=Path("exp/an4"))

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
