"""Smaller n-gram models: fewer words, and without the n-grams that matter least.

A decoding graph has every n-gram of a model many times, so it is built from a pruned model. Its lattices may then be
rescored with the whole model (`asrkd.decode.rescore`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.lang.closed_ngrams import ClosedModel
from asrkd.lang.kneser_ney import NgramArrays, NgramTable, whole_histories
from asrkd.lang.ngram import BOS, EOS, UNK, NgramModel
from asrkd.lang.ngram_counts import BLOCK, Ints

Floats = NDArray[np.floating[Any]]
Chosen = NDArray[np.bool_]
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
    return prune_arrays(ClosedModel.of(model).arrays(), threshold)


def prune_arrays(arrays: NgramArrays, threshold: float, block: int = BLOCK) -> NgramModel:
    """As `prune_by_entropy`, of models with more n-grams than dictionaries can hold; 0 removes nothing.

    Memory: some 20 bytes for each n-gram that is not of the longest ones, a byte for those, and the n-grams that remain
    as dictionaries.
    """
    if not threshold:
        return arrays.model()
    probs = _history_probs(arrays)
    chosen: list[Chosen] = [np.ones(len(table.word), dtype=np.bool_) for table in arrays.tables]
    for n in range(len(arrays.tables), 1, -1):
        histories = arrays.tables[n].history[chosen[n]] if n < len(arrays.tables) else np.empty(0, dtype=np.int32)
        for part in _parts(arrays, n, block):
            remaining = ~_prunable(part, probs[n - 2], threshold)
            chosen[n - 1][part.rows] = remaining
        chosen[n - 1][histories] = True  # of longer n-grams that remain
    return arrays.model(chosen, _weights(arrays, chosen, block))


@dataclass(frozen=True)
class _Part:
    """The n-grams of some histories: `row` counts from the first history, `begin`."""

    rows: slice
    begin: int
    row: Ints
    prob: Floats
    lower: Floats
    """p(w | h without its oldest word)."""
    gamma: Floats
    """Of the histories."""
    left_lower: Floats
    """What `lower` leaves to the other words, by histories."""

    @property
    def histories(self) -> slice:
        return slice(self.begin, self.begin + len(self.gamma))


def _parts(arrays: NgramArrays, n: int, block: int) -> Iterator[_Part]:
    table, shorter, gammas = arrays.tables[n - 1], arrays.tables[n - 2].prob, arrays.gammas[n - 1]
    for start, stop in whole_histories(table.history, block):
        history, lower = table.history[start:stop], shorter[table.suffix[start:stop]]
        begin, end = int(history[0]), int(history[-1]) + 1
        row = history - begin
        left_lower = 1.0 - np.bincount(row, lower)
        yield _Part(slice(start, stop), begin, row, table.prob[start:stop], lower, gammas[begin:end], left_lower)


def _history_probs(arrays: NgramArrays) -> list[Floats]:
    """The probability of each n-gram, of all but the longest. Sentences begin as often as they end."""
    first = np.array(arrays.tables[0].prob)
    first[arrays.words.index(BOS)] = first[arrays.words.index(EOS)]
    probs = [first]
    for table in arrays.tables[1:-1]:
        probs.append(probs[-1][table.history] * table.prob)
    return probs


def _prunable(part: _Part, history_probs: Floats, threshold: float) -> Chosen:
    """Which n-grams may be removed. With p = p(w | h), p' = p(w | h') and the back-off weight a of h,

        D = p(h) (p (log p - log p' - log a') + (log a - log a') left),   a' = (left + p) / (left' + p')

    where left and left' are the probabilities of all words without an n-gram here, given h and h'; a = left / left'.
    """
    usable = part.left_lower >= MIN_LEFT
    left_lower = np.where(usable, part.left_lower, 1.0)
    left = part.gamma * left_lower
    log_new = np.log((left[part.row] + part.prob) / (left_lower[part.row] + part.lower))
    divergence = part.prob * (np.log(part.prob) - np.log(part.lower) - log_new)
    divergence += (np.log(part.gamma)[part.row] - log_new) * left[part.row]
    prunable = history_probs[part.histories][part.row] * divergence < math.log1p(threshold)
    return np.asarray(prunable & usable[part.row])


def _weights(arrays: NgramArrays, chosen: list[Chosen], block: int) -> list[Floats]:
    """Back-off weights with which the probabilities of a history sum to one again."""
    weights: list[Floats] = [arrays.gammas[0]]
    pruned = np.array(arrays.tables[0].prob)  # of the n-grams of the order below, backing off where one is removed
    for n in range(2, len(arrays.tables) + 1):
        table, new = arrays.tables[n - 1], np.array(arrays.gammas[n - 1])
        for part in _parts(arrays, n, block):
            remains = chosen[n - 1][part.rows]
            left = part.gamma * np.maximum(part.left_lower, MIN_LEFT) + np.bincount(part.row, part.prob * ~remains)
            others = pruned[table.suffix[part.rows]] * remains
            left_lower = 1.0 - np.bincount(part.row, others)
            usable = (left_lower >= MIN_LEFT) & chosen[n - 2][part.histories]
            new[part.histories][usable] = left[usable] / left_lower[usable]
        weights.append(new)
        if n < len(arrays.tables):
            pruned = _pruned_probs(table, chosen[n - 1], np.where(chosen[n - 2], new, 1.0), pruned)
    return weights


def _pruned_probs(table: NgramTable, chosen: Chosen, weights: Floats, lower: Floats) -> Floats:
    backed_off = weights[table.history] * lower[table.suffix]
    return np.where(chosen, table.prob, backed_off)
