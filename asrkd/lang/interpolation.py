"""Interpolation of two n-gram models, such as a large one of other text and a small one of the training text."""

from __future__ import annotations

import numpy as np

from asrkd.lang.closed_ngrams import ClosedModel, ClosedNgrams
from asrkd.lang.kneser_ney import Floats, NgramArrays
from asrkd.lang.ngram import BOS, NgramModel
from asrkd.lang.ngram_counts import Ints
from asrkd.lang.pruning import MIN_LEFT


def interpolate(first: NgramModel, second: NgramModel, weight: float) -> NgramArrays:
    """A back-off model of (1 - weight) · p_first(w | h) + weight · p_second(w | h).

    It has the n-grams of both models and their parts, each with the interpolated probability. Back-off weights make
    every history sum to one. An n-gram that neither model has gets its probability by backing off, which is nearly the
    interpolated one (SRILM's static interpolation, `ngram -mix-lm`). A word that one model does not have has
    probability 0 there.
    """
    models = ClosedModel.of(first), ClosedModel.of(second)
    words = tuple(sorted({*models[0].words, *models[1].words}))
    ngrams = _union(models, words)
    mixed = [
        (1.0 - weight) * one + weight * other
        for one, other in zip(*(model.probs_of(ngrams, words) for model in models), strict=True)
    ]
    mixed[0][words.index(BOS)] = 0.0
    # At most 1: rounding, or a model that does not sum to one, may give more.
    probs = [np.minimum(prob, 1.0) for prob in mixed]
    return ngrams.arrays(words, probs, _weights(ngrams, probs))


def _union(models: tuple[ClosedModel, ClosedModel], words: tuple[str, ...]) -> ClosedNgrams:
    """The n-grams of both models by the numbers of all words."""
    number = {word: position for position, word in enumerate(words)}
    tables: list[list[Ints]] = [[] for _ in range(max(len(model.probs) for model in models))]
    for model in models:
        renumbered = np.array([number[word] for word in model.words], dtype=np.int64)
        for n, table in enumerate(model.ngrams.tables):
            tables[n].append(renumbered[table])
    return ClosedNgrams.of([np.concatenate(parts) for parts in tables], len(words))


def _weights(ngrams: ClosedNgrams, probs: list[Floats]) -> list[Floats]:
    """Back-off weights: the probability that the n-grams of a history leave to all other words, divided by the
    probability that the shorter history gives to those words."""
    weights = [np.ones(len(table)) for table in ngrams.tables]
    for n in range(1, len(ngrams.tables)):
        row, size = ngrams.histories[n], len(ngrams.tables[n - 1])
        sums = np.bincount(row, probs[n], size), np.bincount(row, probs[n - 1][ngrams.suffixes[n]], size)
        left, left_lower = (np.maximum(1.0 - one, MIN_LEFT) for one in sums)
        has_ngrams = np.bincount(row, minlength=size) > 0
        weights[n - 1][has_ngrams] = (left / left_lower)[has_ngrams]
    return weights
