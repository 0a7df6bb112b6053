"""G: an n-gram model as an acceptor of words with back-off arcs, as Kaldi's `arpa2fst` makes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from asrkd.errors import InputError
from asrkd.graph.arrays import NO_FINAL, ArcList, FstArrays
from asrkd.lang.ngram import BOS, EOS, NEVER_LOG10, NgramModel

LN10 = math.log(10.0)
NO_HISTORY = ""  # of a unigram


@dataclass(frozen=True)
class Grammar:
    """G, and the words of the model without a pronunciation."""

    fst: FstArrays
    """Input labels are word labels. Output labels are the same, but epsilon on back-off arcs."""
    excluded: tuple[str, ...]
    """Words of the model that have no label, sorted; their n-grams are not in G."""


def grammar_fst(model: NgramModel, word_labels: Mapping[str, int], backoff_label: int) -> Grammar:
    """G of the words in `word_labels`; back-off arcs have the input label `backoff_label` and the output epsilon.

    G has a state for each history that some n-gram extends. A history without such an n-gram has no state. Its
    back-off weight is part of the arcs that would enter it; that is exact, because every word that follows backs
    off. InputError if the model has none of the words, if no sentence can end, or if a number is not finite.
    """
    states = _states(model, word_labels)
    if NO_HISTORY not in states or word_labels.keys().isdisjoint(model.possible_words):
        raise InputError("language model: expected words of the lexicon with a probability above 0, found none of them")
    arcs = ArcList()
    final = np.full(len(states), NO_FINAL)

    def enter(history: str) -> tuple[int, float]:
        """The state of a history, or of the longest shorter history that has one, and the cost of backing off to it."""
        cost = 0.0
        while history not in states:
            cost += _backoff_cost(model, history)
            history = _shorter(history)
        return states[history], cost

    for history, word, log10_prob in _known_ngrams(model, word_labels):
        if word == EOS:
            final[states[history]] = -log10_prob * LN10
            continue
        target, cost = enter(f"{history} {word}" if history else word)
        label = word_labels[word]
        arcs.add(states[history], target, label, label, cost - log10_prob * LN10)
    if not math.isfinite(final[states[NO_HISTORY]]):
        raise InputError(f"language model: expected a unigram {EOS} with a probability above 0, found none")
    for history, state in states.items():
        if history:
            target, cost = enter(_shorter(history))
            arcs.add(state, target, backoff_label, 0, cost + _backoff_cost(model, history))
    start, cost = enter(BOS)
    if cost:  # No n-gram extends <s>, and no arc enters it that could carry the cost of backing off.
        arcs.add(len(final), start, backoff_label, 0, cost)
        start, final = len(final), np.append(final, NO_FINAL)
    fst = arcs.fst(final, start)
    if not np.isfinite(fst.cost).all() or np.isnan(final).any() or (final == -NO_FINAL).any():
        raise InputError("language model: expected finite probabilities and back-off weights, found NaN or infinity")
    excluded = tuple(sorted(model.vocabulary - word_labels.keys()))
    return Grammar(fst, excluded)


def _states(model: NgramModel, word_labels: Mapping[str, int]) -> dict[str, int]:
    """Every history that an n-gram extends; the empty one first, the others by length."""
    extended = {history for history, _, _ in _known_ngrams(model, word_labels)}
    ordered = sorted(extended, key=lambda history: (history.count(" ") + bool(history), history))
    return {history: state for state, history in enumerate(ordered)}


def _known_ngrams(model: NgramModel, word_labels: Mapping[str, int]) -> Iterator[tuple[str, str, float]]:
    """(history, word, log10 probability) of the n-grams of labelled words with a probability above zero."""
    known = {*word_labels, BOS}
    knows_all = word_labels.keys() >= model.vocabulary
    for table in model.tables:
        for ngram, (log10_prob, _) in table.items():
            history, _, word = ngram.rpartition(" ")
            if log10_prob <= NEVER_LOG10 or (word != EOS and word not in word_labels):
                continue
            if knows_all or not history or known.issuperset(history.split(" ")):
                yield history, word, log10_prob


def _shorter(history: str) -> str:
    """The history without its oldest word."""
    return history.partition(" ")[2]


def _backoff_cost(model: NgramModel, history: str) -> float:
    entry = model.tables[history.count(" ")].get(history)
    return 0.0 if entry is None else -entry.log10_backoff * LN10
