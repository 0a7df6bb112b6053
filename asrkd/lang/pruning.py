"""Smaller n-gram models: fewer words, and without the n-grams that matter least.

A decoding graph has every n-gram of a model many times, so it is built from a pruned model. Its lattices may then be
rescored with the whole model (`asrkd.decode.rescore`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from asrkd.lang.ngram import BOS, EOS, UNK, Entry, NgramModel, power_of_ten

LN10 = math.log(10.0)
# Histories whose n-grams leave less probability than this to all other words are not pruned: it is rounding error.
MIN_LEFT = 1e-6


def top_words(model: NgramModel, number: int | None) -> frozenset[str]:
    """The words of highest unigram probability, ties in alphabetical order; None: all words."""
    ranked = sorted(model.vocabulary, key=lambda word: (-model.tables[0][word].log10_prob, word))
    return frozenset(ranked[:number])


def restrict(model: NgramModel, words: Collection[str]) -> NgramModel:
    """Only the n-grams of `words`, `<s>`, `</s>` and `<unk>`, with unchanged probabilities."""
    known = {BOS, EOS, UNK, *words}
    return NgramModel(
        tuple(
            {key: entry for key, entry in table.items() if known.issuperset(key.split(" "))} for table in model.tables
        )
    )


def prune_by_entropy(model: NgramModel, threshold: float) -> NgramModel:
    """Remove each n-gram whose removal raises the perplexity by a smaller fraction than `threshold`.

    Source: Stolcke, Entropy-based Pruning of Backoff Language Models, 1998, as in SRILM's `ngram -prune`. LibriSpeech's
    pruned trigrams have thresholds of 1e-7 and 3e-7. The histories of longer n-grams are not removed. New back-off
    weights make all probabilities of a history sum to one.
    """
    remaining: list[dict[str, Entry]] = [dict(table) for table in model.tables]
    for n in range(model.order, 1, -1):
        needed = {_history(key) for key in remaining[n]} if n < model.order else set()
        for history, ngrams in by_history(remaining[n - 1]).items():
            for key in _prunable(model, history, ngrams, threshold):
                if key not in needed:
                    del remaining[n - 1][key]
    return _with_backoffs(model, remaining)


def _history(key: str) -> str:
    return key.rpartition(" ")[0]


def by_history(table: Iterable[str]) -> dict[str, list[str]]:
    """The n-grams of each history."""
    ngrams: dict[str, list[str]] = defaultdict(list)
    for key in table:
        ngrams[_history(key)].append(key)
    return ngrams


def _prunable(model: NgramModel, history: str, ngrams: Sequence[str], threshold: float) -> Iterator[str]:
    """The n-grams of one history that may be removed. With p = p(w | h), p' = p(w | h') and the back-off weight a,

        D = p(h) (p (log p - log p' - log a') + (log a - log a') left),   a' = (left + p) / (left' + p')

    where left and left' are the probabilities of all words without an n-gram here, given h and h'; a = left / left'.
    """
    explicit, lower = explicit_and_lower(model, history, ngrams)
    left_lower = 1.0 - sum(lower)
    if left_lower < MIN_LEFT:
        return
    left = power_of_ten(_backoff(model, history)) * left_lower
    log_weight = math.log(left / left_lower)
    p_history = _history_prob(model, history.split(" "))
    bound = math.log1p(threshold)
    for key, p, p_lower in zip(ngrams, explicit, lower, strict=True):
        log_new = math.log((left + p) / (left_lower + p_lower))
        divergence = p * (math.log(p) - math.log(p_lower) - log_new) + (log_weight - log_new) * left
        if p_history * divergence < bound:
            yield key


def explicit_and_lower(model: NgramModel, history: str, ngrams: Sequence[str]) -> tuple[list[float], list[float]]:
    """p(w | h), as stored, and p(w | h without its oldest word), by backing off, of each n-gram of a history."""
    shorter = history.split(" ")[1:]
    table = model.tables[len(shorter) + 1]
    explicit = [power_of_ten(table[key].log10_prob) for key in ngrams]
    return explicit, [power_of_ten(model.log10_prob(shorter, key.rpartition(" ")[2])) for key in ngrams]


def _backoff(model: NgramModel, history: str) -> float:
    entry = model.tables[history.count(" ")].get(history)
    return entry.log10_backoff if entry is not None else 0.0


def _history_prob(model: NgramModel, words: Sequence[str]) -> float:
    """The probability of a history. Sentences begin as often as they end, so `<s>` has that of `</s>`."""
    total = model.log10_prob([], EOS if words[0] == BOS else words[0])
    for i in range(1, len(words)):
        total += model.log10_prob(words[:i], words[i])
    return power_of_ten(total)


def _with_backoffs(model: NgramModel, remaining: Sequence[dict[str, Entry]]) -> NgramModel:
    """A model of the remaining n-grams, with back-off weights that make the probabilities of a history sum to one."""
    tables: list[dict[str, Entry]] = [dict(table) for table in remaining]
    pruned = NgramModel(tuple(tables))
    for n in range(2, model.order + 1):
        for history, ngrams in by_history(model.tables[n - 1]).items():
            entry = tables[n - 2].get(history)
            if entry is None:
                continue
            explicit, lower = explicit_and_lower(model, history, ngrams)
            left = power_of_ten(entry.log10_backoff) * max(1.0 - sum(lower), MIN_LEFT)
            left += sum(p for key, p in zip(ngrams, explicit, strict=True) if key not in remaining[n - 1])
            shorter = history.split(" ")[1:]
            words = [key.rpartition(" ")[2] for key in ngrams if key in remaining[n - 1]]
            left_lower = 1.0 - sum(power_of_ten(pruned.log10_prob(shorter, word)) for word in words)
            if left_lower >= MIN_LEFT:
                tables[n - 2][history] = Entry(entry.log10_prob, math.log10(left / left_lower))
    return pruned
