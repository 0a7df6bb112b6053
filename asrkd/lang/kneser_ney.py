"""Modified Kneser-Ney estimates of n-gram models, as arrays: of a text of any size, in bounded memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.lang.ngram import BOS, EOS, NEVER_LOG10, UNK, Entry, NgramModel
from asrkd.lang.ngram_counts import BLOCK, Ints, Rows, Scratch, count_ngrams, find, number_words

log = logging.getLogger(__name__)

# The defaults of KenLM's lmplz --discount_fallback: discounts of n-grams counted once, twice, three times or more.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of one order by their keys (`asrkd.lang.ngram_counts`), with a row each."""

    history: Ints
    """Index of the n-gram without its last word among those of the order below; 0 of unigrams."""
    suffix: Ints
    """Index of the n-gram without its first word there; 0 of unigrams."""
    word: Ints
    """Number of the last word."""
    begins: NDArray[np.bool_]
    """Whether the first word is `<s>`."""
    first: Ints
    """Position in the text of its last word where it occurs first."""
    prob: Floats
    """p(word | history); 0 of `<s>`, which is never predicted."""


@dataclass(frozen=True)
class NgramArrays:
    """A back-off model with every n-gram of a text. A hundred million n-grams are 4 GB in files."""

    words: Sequence[str]
    """Number -> word, in order of their characters."""
    tables: tuple[NgramTable, ...]
    gammas: tuple[Floats, ...]
    """`gammas[n]`: back-off weight of each n-gram of n words as a history; of none, 1."""

    def model(self, chosen: Sequence[NDArray[np.bool_]] | None = None, weights: Sequence[Floats] = ()) -> NgramModel:
        """The same as a model of dictionaries: of all n-grams, or of the `chosen` of each order with back-off
        `weights` in place of gamma. Its n-grams are in order of the text, the unigrams in order of the words.
        """
        tables: list[dict[str, Entry]] = []
        names = np.empty(0, dtype=object)
        index = np.zeros(1, dtype=np.int32)  # of an n-gram in `names`
        words = np.array([*self.words, ""], dtype=object)[:-1]
        for n, table in enumerate(self.tables, start=1):
            which = self._unigrams() if n == 1 else self._in_text_order(n, None if chosen is None else chosen[n - 1])
            last = words[table.word[which]]
            names = last if n == 1 else names[index[table.history[which]]] + " " + last
            index = np.full(len(table.word), -1, dtype=np.int32)
            index[which] = np.arange(len(which))
            logs = map(_log10, table.prob[which].tolist())
            gamma = (weights or self.gammas)[n][which].tolist() if n < len(self.tables) else [1.0] * len(which)
            tables.append(dict(zip(names.tolist(), map(Entry, logs, map(_log10, gamma)), strict=True)))
        return NgramModel(tuple(tables))

    def _unigrams(self) -> Ints:
        """Words, `</s>`, `<unk>`, `<s>`."""
        last = [self.words.index(word) for word in (EOS, UNK, BOS) if word in self.words]
        return np.concatenate([np.delete(np.arange(len(self.words)), last), last])

    def _in_text_order(self, n: int, chosen: NDArray[np.bool_] | None) -> Ints:
        """N-grams in the order of the text: the longest ones all, of the others first those after `<s>`."""
        table = self.tables[n - 1]
        which = np.arange(len(table.word)) if chosen is None else np.flatnonzero(chosen)
        first = table.first[which]
        return which[np.lexsort((first,) if n == len(self.tables) else (first, ~table.begins[which]))]


def _log10(value: float) -> float:
    return math.log10(value) if value > 0.0 else NEVER_LOG10


def estimate_kneser_ney(
    sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str] | None = None
) -> NgramModel:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999); the same estimates as KenLM's lmplz.

        p(w | h) = (a(hw) - D_n(a(hw))) / sum_v a(hv)  +  gamma(h) p(w | h minus its first word)
        gamma(h) = sum_v D_n(a(hv)) / sum_v a(hv)

    a() is the count of the longest n-grams and of those that begin with `<s>`. For the others it is the number of
    different words seen before them. Unigrams are interpolated with the uniform distribution over the vocabulary,
    `</s>` and `<unk>`. The weight of unseen words is gamma(h), so backing off in the ARPA model gives the
    interpolated probabilities.

    D_n(1), D_n(2), D_n(3 and more) follow from the numbers of n-grams with the counts 1 to 4 (equation 26). In small
    texts, such as a few hundred sentences over a hundred words, one of these numbers may be 0, or a discount may be
    outside 0 < D_n(k) <= k. That order then gets FALLBACK_DISCOUNTS, as with --discount_fallback of lmplz. (If only
    the count 4 does not occur, lmplz subtracts all of 3 instead.)

    `vocabulary` is the set of words that can be predicted, without `<s>`, `</s>` and `<unk>`. Its words that are not
    in the sentences get the uniform share; words of the sentences that are not in it count as `<unk>`. None: the
    words of the sentences. InputError if there is no sentence, or if one contains `<s>`, `</s>` or `<unk>`.
    """
    with TemporaryDirectory(prefix="asrkd-lm-") as folder:
        return estimate_arrays(sentences, order, vocabulary, Path(folder)).model()


def estimate_arrays(
    sentences: Iterable[Sequence[str]],
    order: int,
    vocabulary: Iterable[str] | None,
    folder: Path,
    block: int = BLOCK,
) -> NgramArrays:
    """The estimates of `estimate_kneser_ney`, for texts whose n-grams are too many for dictionaries.

    What is larger than a `block` (in words and in n-grams) is written to `folder`, which the arrays need: some
    65 bytes for each word of the text.
    """
    if order < 1:
        raise InputError(f"language model: expected an order of 1 or more, found {order}")
    words = None if vocabulary is None else frozenset(vocabulary) - {BOS, EOS, UNK}
    scratch = Scratch(folder, block)
    text = number_words(sentences, words, scratch)
    return _estimate(text.words, count_ngrams(text, order, scratch), scratch)


def _estimate(words: Sequence[str], counts: Sequence[Rows], scratch: Scratch) -> NgramArrays:
    tables = _linked(words, counts, scratch)
    estimated: list[NgramTable] = []
    gammas: list[Floats] = []
    lower = np.full(1, 1.0 / (len(words) - 1))  # a unigram backs off to the uniform distribution, without <s>
    for n, (table, rows) in enumerate(zip(tables, counts, strict=True), start=1):
        adjusted = _adjusted(table, rows, tables[n] if n < len(tables) else None, scratch.block)
        if n == 1:
            adjusted[words.index(BOS)] = 0  # it is never predicted
        discounts = _discounts(adjusted, n)
        gamma = np.ones(len(lower))
        prob = scratch.write(_prob_blocks(table, adjusted, discounts, lower, gamma, scratch.block), "<f8")
        if n == 1:
            prob = np.array(prob)
            prob[words.index(BOS)] = 0.0
        estimated.append(NgramTable(**{**vars(table), "prob": prob}))
        gammas.append(gamma)
        lower = prob
    return NgramArrays(words, tuple(estimated), tuple(gammas))


def _linked(words: Sequence[str], counts: Sequence[Rows], scratch: Scratch) -> list[NgramTable]:
    """Each n-gram with the rows of its history and of its suffix, without probabilities."""
    size, nothing = len(words), np.zeros(0)
    none = np.zeros(size, dtype=np.int32)
    begins = np.arange(size) == words.index(BOS)
    tables = [NgramTable(none, none, np.arange(size, dtype=np.int32), begins, counts[0]["first"], nothing)]
    for rows in counts[1:]:
        before, shorter = tables[-1], counts[len(tables) - 1]["key"].copy()

        def suffixes(rows: Rows = rows, before: NgramTable = before, shorter: Ints = shorter) -> Iterator[Ints]:
            for history, word in _parts(rows, size, scratch.block):
                if len(tables) == 1:
                    yield word
                else:
                    yield find(shorter, before.suffix[history].astype(np.int64) * size + word)

        history = scratch.write((one for one, _ in _parts(rows, size, scratch.block)), "<i4")
        word = scratch.write((one for _, one in _parts(rows, size, scratch.block)), "<i4")
        begins = scratch.write(
            (before.begins[one] for one, _ in _parts(rows, size, scratch.block)),
            np.bool_,
        )
        first = rows["first"]
        tables.append(NgramTable(history, scratch.write(suffixes(), "<i4"), word, begins, first, nothing))
    return tables


def _parts(rows: Rows, size: int, block: int) -> Iterator[tuple[Ints, Ints]]:
    """Histories and last words of n-grams, block by block."""
    for start in range(0, len(rows), block):
        history, word = np.divmod(np.asarray(rows["key"][start : start + block]), size)
        yield history.astype(np.int32), word.astype(np.int32)


def _adjusted(table: NgramTable, rows: Rows, longer: NgramTable | None, block: int) -> Ints:
    """Counts in the highest order and after `<s>`; otherwise the number of different left neighbours."""
    counts: Ints = np.array(rows["count"])
    if longer is not None:
        neighbours = np.zeros(len(rows), dtype=np.int32)
        for start in range(0, len(longer.suffix), block):
            found, number = np.unique(longer.suffix[start : start + block], return_counts=True)
            neighbours[found] += number.astype(np.int32)
        counts = np.where(table.begins, counts, neighbours)
    return counts


def _discounts(counts: Ints, order: int) -> tuple[float, float, float]:
    """D(1), D(2) and D(3 and more) of one order: Chen and Goodman 1999, equation 26, or the fallback."""
    t = [int(np.count_nonzero(counts == k)) for k in range(5)]
    if all(t[k] > 0 for k in (1, 2, 3, 4)):
        y = t[1] / (t[1] + 2.0 * t[2])
        estimated = (1 - 2 * y * t[2] / t[1], 2 - 3 * y * t[3] / t[2], 3 - 4 * y * t[4] / t[3])
        if all(0.0 < d <= k for k, d in enumerate(estimated, start=1)):
            return estimated
    log.info(
        "%d-grams: too few counts of 1 to 4 (%s) to estimate discounts; using %s",
        order,
        ", ".join(str(t[k]) for k in (1, 2, 3, 4)),
        FALLBACK_DISCOUNTS,
    )
    return FALLBACK_DISCOUNTS


def _prob_blocks(
    table: NgramTable,
    counts: Ints,
    discounts: tuple[float, float, float],
    lower: Floats,
    gamma: Floats,
    block: int,
) -> Iterator[Floats]:
    """Probabilities of the n-grams of one order, block by block; fills in `gamma` of their histories."""
    removed_of = np.array([0.0, *discounts])
    for start, stop in whole_histories(table.history, block):
        history, count = table.history[start:stop], counts[start:stop]
        begin = int(history[0])
        row = history - begin
        totals = np.bincount(row, count)
        removed = removed_of[np.minimum(count, 3)]
        # In the order of the text, whatever the order of the keys: rounding errors of a sum depend on it.
        order = np.argsort(table.first[start:stop], kind="stable")
        mass = np.bincount(row[order], removed[order])
        seen = totals > 0
        gamma[begin : begin + len(totals)][seen] = mass[seen] / totals[seen]
        yield (count - removed) / totals[row] + gamma[history] * lower[table.suffix[start:stop]]


def whole_histories(history: Ints, block: int) -> Iterator[tuple[int, int]]:
    """Ranges of about a block of n-grams, in order of their histories; no history is in two."""
    start = 0
    while start < len(history):
        stop = min(start + block, len(history))
        if stop < len(history):
            last = int(history[stop - 1])
            while stop < len(history) and int(history[stop]) == last:
                stop += 1
        yield start, stop
        start = stop
