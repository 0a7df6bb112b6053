"""Counts of the n-grams of a text, in bounded memory: blocks of the text are sorted, and sorted blocks are merged.

A text is a row of word numbers with `<s>` before and `</s>` after each sentence. The key of an n-gram is one whole
number: the index of its history among the shorter n-grams, times the number of words, plus its last word. So the order
of the keys is that of the words. What is larger than a block lies in files. (Heafield et al., Scalable Modified
Kneser-Ney Language Model Estimation, 2013, sort and merge on disk too.)
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.lang.ngram import BOS, EOS, UNK

BLOCK = 1 << 22
"""Words of a text, or n-grams, that are in memory at once: a block takes some hundred MB while it is sorted."""
MOST_WORDS = 2**31 - 2  # positions and indices have 32 bits

_RESERVED = (BOS, EOS, UNK)  # they have the first numbers, and are no words of a text

Ints = NDArray[np.integer[Any]]
Rows = NDArray[Any]

ROW = np.dtype([("key", "<i8"), ("count", "<i4"), ("first", "<i4")])
"""An n-gram: its key, how often it occurs, and the position of its last word where it occurs first."""


class Scratch:
    """Arrays that are written block by block: in memory as long as all of them are one block, otherwise in files."""

    def __init__(self, folder: Path, block: int = BLOCK) -> None:
        self.block = block
        self._folder, self._numbers, self._in_memory = folder, count(), 0

    def write(self, blocks: Iterable[Rows], dtype: Any) -> Rows:
        """All blocks in a row."""
        waiting: list[Rows] = []
        size, path = 0, None
        for block in blocks:
            waiting.append(block)
            size += len(block)
            if self._in_memory + size > self.block or path is not None:
                path = path or self._folder / f"{next(self._numbers)}.bin"
                with path.open("ab") as file:
                    for one in waiting:
                        one.astype(dtype, copy=False).tofile(file)
                waiting.clear()
        if path is None:
            self._in_memory += size
            return np.concatenate([np.empty(0, dtype), *waiting])
        return np.memmap(path, dtype, "r")


@dataclass(frozen=True)
class Text:
    """A text as numbers."""

    words: list[str]
    """All words in the order of their characters, with `<s>`, `</s>` and `<unk>`: a word's number is its index."""
    tokens: Ints
    """[tokens]: numbers of the running words by first occurrence, with `<s>` and `</s>` around each sentence."""
    numbers: Ints
    """Number by first occurrence -> number of the word."""

    def token(self, word: str) -> int:
        """The number of one of the words."""
        return bisect_left(self.words, word)

    def block(self, start: int, stop: int) -> Ints:
        """The words' numbers of some tokens."""
        return np.asarray(self.numbers[self.tokens[start:stop]])


class _Numbers(dict[str, int]):
    """Word -> its number by first occurrence; words outside the vocabulary count as `<unk>`."""

    def __init__(self, vocabulary: frozenset[str] | None) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.names = list(_RESERVED)

    def __missing__(self, word: str) -> int:
        if word in _RESERVED or word.split() != [word]:
            raise ValueError(word)
        if self.vocabulary is not None and word not in self.vocabulary:
            number = _RESERVED.index(UNK)
        else:
            number = len(self.names)
            self.names.append(word)
        self[word] = number
        return number


def number_words(sentences: Iterable[Sequence[str]], vocabulary: frozenset[str] | None, scratch: Scratch) -> Text:
    """A text as numbers. InputError if there is no sentence, or if one has something that is no word."""
    numbers = _Numbers(vocabulary)
    tokens = scratch.write(_token_blocks(sentences, numbers, scratch.block), "<i4")
    if len(tokens) > MOST_WORDS:
        raise InputError(f"language model: expected a text of at most {MOST_WORDS} words, found {len(tokens)}")
    names = sorted({*numbers.names, *(vocabulary or ())})
    index = {word: number for number, word in enumerate(names)}
    return Text(names, tokens, np.array([index[word] for word in numbers.names], dtype=np.int32))


def _token_blocks(sentences: Iterable[Sequence[str]], numbers: _Numbers, block: int) -> Iterator[Ints]:
    begin, end = _RESERVED.index(BOS), _RESERVED.index(EOS)
    tokens, number = array("i"), 0
    for number, sentence in enumerate(sentences, start=1):
        tokens.append(begin)
        try:
            tokens.extend(map(numbers.__getitem__, sentence))
        except ValueError as error:
            raise InputError(f"language model: sentence {number}: expected a word, found {error.args[0]!r}") from None
        tokens.append(end)
        if len(tokens) >= block:
            yield np.asarray(tokens)
            tokens = array("i")
    if number == 0:
        raise InputError("language model: expected training sentences, found none")
    yield np.asarray(tokens)


def count_ngrams(text: Text, order: int, scratch: Scratch) -> list[Rows]:
    """The n-grams of each order from 1, as rows (ROW) by their keys. Those of order 1 are all words, `<s>` too."""
    tables = [_unigrams(text, scratch.block)]
    ranks: Ints | None = None
    for n in range(2, order + 1):
        tables.append(_merged(list(_runs(text, ranks, scratch)), scratch))
        if n < order:
            ranks = scratch.write(_rank_blocks(text, ranks, tables[-1]["key"].copy(), scratch.block), "<i4")
    return tables


def _unigrams(text: Text, block: int) -> Rows:
    rows = np.zeros(len(text.words), dtype=ROW)
    rows["key"], rows["first"] = np.arange(len(rows)), MOST_WORDS
    for start in range(0, len(text.tokens), block):
        found, first, counts = np.unique(text.block(start, start + block), return_index=True, return_counts=True)
        rows["count"][found] += counts.astype(np.int32)
        rows["first"][found] = np.minimum(rows["first"][found], start + first)
    return rows


def _key_blocks(text: Text, ranks: Ints | None, block: int) -> Iterator[tuple[Ints, Ints]]:
    """Keys of the n-grams of a text, and the position of the last word of each, block by block.

    `ranks`: index of the history that ends at each token, negative where there is none; None: it is a word.
    """
    bos = text.token(BOS)
    for start in range(0, len(text.tokens), block):
        stop = min(start + block, len(text.tokens))
        words = text.block(start, stop)
        begin = max(0, start - 1)
        history = text.block(begin, stop - 1) if ranks is None else np.asarray(ranks[begin : stop - 1])
        if start == 0:
            history = np.concatenate([np.full(1, -1, history.dtype), history])
        inside = np.flatnonzero((history >= 0) & (words != bos))
        yield history[inside].astype(np.int64) * len(text.words) + words[inside], inside + start


def _runs(text: Text, ranks: Ints | None, scratch: Scratch) -> Iterator[Rows]:
    """Sorted rows of the distinct n-grams of each block."""
    for keys, positions in _key_blocks(text, ranks, scratch.block):
        rows = np.empty(len(keys), dtype=ROW)
        rows["key"], rows["count"], rows["first"] = keys, 1, positions
        yield scratch.write([_distinct(rows)], ROW)


def _distinct(rows: Rows) -> Rows:
    """One row for each key, sorted: the sum of its counts and its first position."""
    rows = rows[np.argsort(rows["key"], kind="stable")]
    begin = np.flatnonzero(np.diff(rows["key"], prepend=-1))
    found = rows[begin]
    if len(found) < len(rows):
        found["count"] = np.add.reduceat(rows["count"], begin)
        found["first"] = np.minimum.reduceat(rows["first"], begin)
    return found


def _merged(runs: Sequence[Rows], scratch: Scratch) -> Rows:
    """One sorted table of several."""
    if len(runs) == 1:
        return runs[0]
    return scratch.write((_distinct(np.concatenate(parts)) for parts in _aligned(runs, scratch.block)), ROW)


def _aligned(runs: Sequence[Rows], block: int) -> Iterator[list[Rows]]:
    """Parts of sorted runs that have the same range of keys, about a block of them together."""
    step = max(1, block // (2 * len(runs)))
    bounds = np.unique(np.concatenate([run["key"][step::step] for run in runs]))[:: max(1, len(runs))]
    starts = [0] * len(runs)
    keys = [run["key"] for run in runs]
    for bound in [*bounds.tolist(), None]:
        stops = [len(run) if bound is None else _lower_bound(key, bound) for run, key in zip(runs, keys, strict=True)]
        yield [np.asarray(run[start:stop]) for run, start, stop in zip(runs, starts, stops, strict=True)]
        starts = stops


def _lower_bound(keys: Ints, bound: int) -> int:
    """The index of the first key that is not below a bound. numpy's search copies a column of a file as a whole."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < bound:
            low = middle + 1
        else:
            high = middle
    return low


def _rank_blocks(text: Text, ranks: Ints | None, keys: Ints, block: int) -> Iterator[Ints]:
    """For each token the index of the n-gram that ends there; -1 where there is none."""
    for number, (wanted, positions) in enumerate(_key_blocks(text, ranks, block)):
        start = number * block
        found = np.full(min(block, len(text.tokens) - start), -1, dtype=np.int32)
        found[positions - start] = find(keys, wanted)
        yield found


def find(keys: Ints, wanted: Ints) -> Ints:
    """Indices of keys that are all in a sorted array. Sorted questions find their answers near each other."""
    order = np.argsort(wanted)
    found = np.empty(len(wanted), dtype=np.int32)
    found[order] = np.searchsorted(keys, wanted[order])
    return found
