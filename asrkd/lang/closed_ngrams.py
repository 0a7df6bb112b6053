"""N-gram models as arrays that have every part of their n-grams, which ARPA files need not have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from asrkd.lang.kneser_ney import Floats, NgramArrays, NgramTable
from asrkd.lang.ngram import BOS, UNK, Entry, NgramModel
from asrkd.lang.ngram_counts import Ints


@dataclass(frozen=True)
class ClosedNgrams:
    """N-grams of each length, in order of their words' numbers, with every n-gram that is a part of another one."""

    num_words: int
    tables: tuple[Ints, ...]
    """`tables[n - 1]` [N, n]: numbers of the words."""
    histories: tuple[Ints, ...]
    """Index of each n-gram without its last word in the table before; 0 of unigrams."""
    suffixes: tuple[Ints, ...]
    """Index of each n-gram without its first word there; 0 of unigrams."""

    @classmethod
    def of(cls, tables: Sequence[Ints], num_words: int) -> ClosedNgrams:
        """The n-grams [N, n] of each length, those that they are made of, and all words."""
        closed = [*tables[1:]]
        for n in range(len(closed) - 1, 0, -1):
            longer = closed[n]
            closed[n - 1] = np.concatenate([closed[n - 1], longer[:, :-1], longer[:, 1:]])
        closed = [np.arange(num_words, dtype=np.int64)[:, None], *map(_unique, closed)]
        none = np.zeros(num_words, dtype=np.int64)
        found = cls(num_words, tuple(closed[:1]), (none,), (none,))
        for table in closed[1:]:
            histories, suffixes = found.rows(table[:, :-1]), found.rows(table[:, 1:])
            found = cls(num_words, (*found.tables, table), (*found.histories, histories), (*found.suffixes, suffixes))
        return found

    def rows(self, ngrams: Ints) -> Ints:
        """[M] the indices of n-grams [M, n] in the table of their length; -1 where they are not there.

        A word of number -1 is none of ours.
        """
        found = ngrams[:, 0]
        for n in range(1, ngrams.shape[1]):
            keys = self.histories[n] * self.num_words + self.tables[n][:, -1]
            wanted = found * self.num_words + ngrams[:, n]
            at = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
            is_there = (found >= 0) & (ngrams[:, n] >= 0) & (len(keys) > 0)
            is_there[is_there] = keys[at[is_there]] == wanted[is_there]
            found = np.where(is_there, at, -1)
        return found

    def arrays(self, words: Sequence[str], probs: Sequence[Floats], weights: Sequence[Floats]) -> NgramArrays:
        """The model with these probabilities of the n-grams and these back-off weights of them as histories."""
        first_of_all = words.index(BOS)
        tables = tuple(
            NgramTable(histories, suffixes, ids[:, -1], ids[:, 0] == first_of_all, np.arange(len(ids)), prob)
            for ids, histories, suffixes, prob in zip(self.tables, self.histories, self.suffixes, probs, strict=True)
        )
        return NgramArrays(words, tables, (np.ones(1), *weights))


def _unique(ngrams: Ints) -> Ints:
    """Different n-grams [N, n], in order of their first, second ... words."""
    ordered = ngrams[np.lexsort(ngrams.T[::-1])]
    is_new = np.ones(len(ordered), dtype=np.bool_)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[is_new]


@dataclass(frozen=True)
class ClosedModel:
    """A back-off model on arrays. An n-gram that the model did not have has the probability of backing off, and the
    weight 1 as a history, so that no probability changes."""

    words: tuple[str, ...]
    """Number -> word, in alphabetical order."""
    ngrams: ClosedNgrams
    probs: tuple[Floats, ...]
    weights: tuple[Floats, ...]

    @classmethod
    def of(cls, model: NgramModel) -> ClosedModel:
        """The same model as arrays."""
        words = tuple(sorted(model.tables[0]))
        number = {word: position for position, word in enumerate(words)}
        given = [_numbered(table, n, number) for n, table in enumerate(model.tables, start=1)]
        ngrams = ClosedNgrams.of(given, len(words))
        rows = [ngrams.rows(ids) for ids in given]
        entries = [_powers(table.values()) for table in model.tables]
        probs: list[Floats] = []
        weights: list[Floats] = []
        for n, (row, (prob, weight)) in enumerate(zip(rows, entries, strict=True)):
            probs.append(_backed_off(ngrams, n, probs, weights))
            weights.append(np.ones(len(ngrams.tables[n])))
            probs[n][row], weights[n][row] = prob, weight
        return cls(words, ngrams, tuple(probs), tuple(weights))

    def arrays(self) -> NgramArrays:
        """The model in the form that is pruned."""
        return self.ngrams.arrays(self.words, self.probs, self.weights)

    def probs_of(self, ngrams: ClosedNgrams, words: Sequence[str]) -> list[Floats]:
        """p(last word | words before it) of n-grams of other `words`, by length.

        Words that the model does not have count as `<unk>` in a history, and have probability 0 after one.
        """
        position = {word: number for number, word in enumerate(self.words)}
        number = np.array([position.get(word, -1) for word in words], dtype=np.int64)
        in_history = np.where(number < 0, position.get(UNK, -1), number)
        probs: list[Floats] = []
        weights: list[Floats] = []
        for n, table in enumerate(ngrams.tables):
            prob, weight = _backed_off(ngrams, n, probs, weights), np.ones(len(table))
            if n < len(self.probs):
                row = self.ngrams.rows(in_history[table])
                is_there = row >= 0
                prob[is_there], weight[is_there] = (values[n][row[is_there]] for values in (self.probs, self.weights))
            prob[number[table[:, -1]] < 0] = 0.0
            probs.append(prob)
            weights.append(weight)
        return probs


def _numbered(table: Iterable[str], n: int, number: dict[str, int]) -> Ints:
    """[N, n] the numbers of the words of n-grams; -1 for words that have none."""
    words = chain.from_iterable(key.split(" ") for key in table)
    return np.fromiter((number.get(word, -1) for word in words), dtype=np.int64).reshape(-1, n)


def _powers(entries: Iterable[Entry]) -> Floats:
    """[2, N] probabilities and back-off weights."""
    logs: Floats = np.array(list(entries)).reshape(-1, 2).T
    return np.power(10.0, logs)


def _backed_off(ngrams: ClosedNgrams, n: int, probs: Sequence[Floats], weights: Sequence[Floats]) -> Floats:
    """Probabilities of the n-grams of n + 1 words by those of n words; of unigrams, 0."""
    if n == 0:
        return np.zeros(ngrams.num_words)
    return np.asarray(weights[n - 1][ngrams.histories[n]] * probs[n - 1][ngrams.suffixes[n]])
