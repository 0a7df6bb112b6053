"""Smaller n-gram models out of large ones: fewer words, and without the n-grams that matter least.

A decoding graph holds a model's every n-gram many times over, so it is made of a pruned one; lattices may be rescored
with the whole one afterwards (`asrkd.decode.rescore`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from asrkd.lang.ngram import BOS, EOS, UNK, Entry, NgramModel

LN10 = math.log(10.0)
# A history whose n-grams leave less than this to all other words is not touched: what is left is rounding.
MIN_LEFT = 1e-6


def top_words(model: NgramModel, number: int | None) -> frozenset[str]:
    """The model's words of the highest unigram probabilities, ties in alphabetical order; None: all of them."""
    ranked = sorted(model.vocabulary, key=lambda word: (-model.tables[0][word].log10_prob, word))
    return frozenset(ranked[:number])


def restrict(model: NgramModel, words: Collection[str]) -> NgramModel:
    """The n-grams of `words`, `<s>`, `</s>` and `<unk>` alone, with the probabilities that they had."""
    known = {BOS, EOS, UNK, *words}
    return NgramModel(
        tuple(
            {key: entry for key, entry in table.items() if known.issuperset(key.split(" "))} for table in model.tables
        )
    )


def prune_by_entropy(model: NgramModel, threshold: float) -> NgramModel:
    """Without each n-gram whose loss alone raises the perplexity by a smaller fraction than `threshold`.

    Stolcke, Entropy-based Pruning of Backoff Language Models, 1998, as SRILM's `ngram -prune` does it; LibriSpeech's
    pruned trigrams were made with thresholds of 1e-7 and 3e-7. An n-gram that a longer one needs as its history
    stays. Back-off weights are made anew, so that probabilities still add up.
    """
    kept: list[dict[str, Entry]] = [dict(table) for table in model.tables]
    for n in range(model.order, 1, -1):
        needed = {_history(key) for key in kept[n]} if n < model.order else set()
        for history, ngrams in by_history(kept[n - 1]).items():
            for key in _prunable(model, history, ngrams, threshold):
                if key not in needed:
                    del kept[n - 1][key]
    return _with_backoffs(model, kept)


def _history(key: str) -> str:
    return key.rpartition(" ")[0]


def by_history(table: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key in table:
        found[_history(key)].append(key)
    return found


def _prunable(model: NgramModel, history: str, ngrams: Sequence[str], threshold: float) -> Iterator[str]:
    """The n-grams of one history that may go: with p = p(w | h), p' = p(w | h'), backing off with weight a,

        D = p(h) (p (log p - log p' - log a') + (log a - log a') left),   a' = (left + p) / (left' + p')

    where left and left' are what p(. | h) and p(. | h') give to words without an n-gram here, and a = left / left'.
    """
    explicit, lower = explicit_and_lower(model, history, ngrams)
    left_lower = 1.0 - sum(lower)
    if left_lower < MIN_LEFT:
        return
    left = 10.0 ** _backoff(model, history) * left_lower
    log_weight = math.log(left / left_lower)
    p_history = _history_prob(model, history.split(" "))
    bound = math.log1p(threshold)
    for key, p, p_lower in zip(ngrams, explicit, lower, strict=True):
        log_new = math.log((left + p) / (left_lower + p_lower))
        divergence = p * (math.log(p) - math.log(p_lower) - log_new) + (log_weight - log_new) * left
        if p_history * divergence < bound:
            yield key


def explicit_and_lower(model: NgramModel, history: str, ngrams: Sequence[str]) -> tuple[list[float], list[float]]:
    """p(w | h), which the n-grams hold, and p(w | h without its oldest word), by back-off, of each n-gram."""
    shorter = history.split(" ")[1:]
    table = model.tables[len(shorter) + 1]
    explicit = [10.0 ** table[key].log10_prob for key in ngrams]
    return explicit, [10.0 ** model.log10_prob(shorter, key.rpartition(" ")[2]) for key in ngrams]


def _backoff(model: NgramModel, history: str) -> float:
    entry = model.tables[history.count(" ")].get(history)
    return entry.log10_backoff if entry is not None else 0.0


def _history_prob(model: NgramModel, words: Sequence[str]) -> float:
    """Of meeting the history; a sentence begins as often as one ends."""
    total = model.log10_prob([], EOS if words[0] == BOS else words[0])
    for i in range(1, len(words)):
        total += model.log10_prob(words[:i], words[i])
    return 10.0**total


def _with_backoffs(model: NgramModel, kept: Sequence[dict[str, Entry]]) -> NgramModel:
    """The kept n-grams, shorter ones first, with the weights that give the rest of each history to back-off."""
    tables: list[dict[str, Entry]] = [dict(table) for table in kept]
    pruned = NgramModel(tuple(tables))
    for n in range(2, model.order + 1):
        for history, ngrams in by_history(model.tables[n - 1]).items():
            entry = tables[n - 2].get(history)
            if entry is None:
                continue
            explicit, lower = explicit_and_lower(model, history, ngrams)
            left = 10.0**entry.log10_backoff * max(1.0 - sum(lower), MIN_LEFT)
            left += sum(p for key, p in zip(ngrams, explicit, strict=True) if key not in kept[n - 1])
            shorter = history.split(" ")[1:]
            words = [key.rpartition(" ")[2] for key in ngrams if key in kept[n - 1]]
            left_lower = 1.0 - sum(10.0 ** pruned.log10_prob(shorter, word) for word in words)
            if left_lower >= MIN_LEFT:
                tables[n - 2][history] = Entry(entry.log10_prob, math.log10(left / left_lower))
    return pruned
