"""Interpolation of two n-gram models, such as a large one of other text and a small one of the training text."""

from __future__ import annotations

import math

from asrkd.lang.ngram import BOS, NEVER_LOG10, Entry, NgramModel, power_of_ten
from asrkd.lang.pruning import MIN_LEFT, by_history, explicit_and_lower


def interpolate(first: NgramModel, second: NgramModel, weight: float) -> NgramModel:
    """A back-off model of (1 - weight) · p_first(w | h) + weight · p_second(w | h).

    It has the n-grams of both models, each with the interpolated probability. Back-off weights make every history
    sum to one. An n-gram that neither model has gets its probability by backing off, which is nearly the interpolated
    one (SRILM's static interpolation, `ngram -mix-lm`). A word that one model does not have has probability 0 there.
    """
    tables: list[dict[str, Entry]] = []
    for keys in _keys(first, second):
        tables.append({key: Entry(_log10_prob(first, second, weight, key), 0.0) for key in keys})
        _set_backoffs(NgramModel(tuple(tables)))
    return NgramModel(tuple(tables))


def _keys(first: NgramModel, second: NgramModel) -> list[dict[str, None]]:
    """The n-grams of both by their length, and every history of a longer n-gram: ARPA files need not have it."""
    tables: list[dict[str, None]] = []
    for n in range(max(first.order, second.order), 0, -1):
        keys = {key: None for model in (first, second) if n <= model.order for key in model.tables[n - 1]}
        tables.insert(0, keys | dict.fromkeys(by_history(tables[0]) if tables else ()))
    return tables


def _log10_prob(first: NgramModel, second: NgramModel, weight: float, key: str) -> float:
    if key == BOS:
        return NEVER_LOG10
    *history, word = key.split(" ")
    probs = [
        power_of_ten(model.log10_prob(history, word)) if word in model.tables[0] else 0.0 for model in (first, second)
    ]
    total = (1.0 - weight) * probs[0] + weight * probs[1]
    # At most 0: rounding, or a model that does not sum to one, may give more.
    return min(max(math.log10(total), NEVER_LOG10), 0.0) if total > 0.0 else NEVER_LOG10


def _set_backoffs(model: NgramModel) -> None:
    """Back-off weights of the histories of the longest n-grams.

    A weight is the probability that the n-grams of the history leave to all other words, divided by the probability
    that the shorter history gives to those words.
    """
    if model.order < 2:
        return
    shorter = model.tables[-2]
    for history, ngrams in by_history(model.tables[-1]).items():
        explicit, lower = explicit_and_lower(model, history, ngrams)
        left, left_lower = (max(1.0 - sum(probs), MIN_LEFT) for probs in (explicit, lower))
        shorter[history] = Entry(shorter[history].log10_prob, math.log10(left / left_lower))
