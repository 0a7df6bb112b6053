"""AN4: CMU's census data. 74 speakers read 42 minutes of training speech; ten other speakers are the test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.corpora.an4 import prepare_an4
from asrkd.nnet import AugmentOptions
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.pipeline import main

CORPUS = Corpus(
    name="an4",
    prepare=prepare_an4,
    dictionary=lambda corpus_dir: corpus_dir / "etc" / "an4.dic",
    closed_vocabulary=True,
    plain_words=True,
    where="get AN4 from https://github.com/cmusphinx/an4 (or from CMU's speech pages), and give its folder",
)

_BASE = SpeechOptions(exp_dir=Path("exp/an4"), network_jobs=2)
DEFAULT = replace(
    _BASE,
    # 67 training speakers are few. Copies at other speeds act as other voices.
    features=replace(_BASE.features, speed_factors=(0.9, 1.0, 1.1)),
    # The development perplexity is 15.1 with four words, 15.8 with three and 19.3 with two.
    lang=replace(_BASE.lang, order=4),
    # One epoch passes over three speeds, so few epochs are enough.
    labels=replace(_BASE.labels, mono_rounds=1, epochs=1),
    train=replace(_BASE.train, epochs=6),
    # Chosen on the development speakers (LOG.md): layer normalisation, and teachers with little dropout.
    teacher=replace(_BASE.teacher, norm="layer", dropout=0.1),
    student=replace(_BASE.student, norm="layer"),
    # Students learn soft targets alone, for long, half of them of mixtures that no epoch repeats, at a rate three times
    # that of hard labels. One teacher a frame scores them, so that an epoch takes a third longer than on hard labels.
    distil=replace(_BASE.distil, alpha=1.0, targets="online", online_teachers="one"),
    students=replace(
        _BASE.students,
        epochs=16,
        augment=AugmentOptions(mix=0.5),
        soft_learning_rate=3e-3,
        sweep_temperatures=(),
        baseline_dropouts=(),
        narrow_dims=(256,),
    ),
    # The scale of the development lattices, before scales are tuned.
    decode=replace(_BASE.decode, acoustic_scale=0.2),
)

if __name__ == "__main__":
    main(CORPUS, DEFAULT)
