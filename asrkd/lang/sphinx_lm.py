"""N-gram models in the binary format of CMU Sphinx, such as the English model of Debian's pocketsphinx-en-us.

Sphinx's own converter to ARPA fails on that file (sphinxbase 0.8+5prealpha: an assertion on the number of bigrams).
The format is that of sphinxbase's lm_trie.c, a trie after KenLM's (Heafield 2011). It is little-endian. N-grams are
stored from the last word to the first, with fields packed bit by bit. Probabilities of bigrams and longer n-grams are
indices into 65,536 bins. Logs have base 1.0001.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.lang.ngram import BOS, EOS, MAX_LOG10_BACKOFF, NEVER_LOG10, Entry, NgramModel
from asrkd.unicode import clean, upper_case

MAGIC = b"Trie Language Model"
LOG10_BASE = math.log10(1.0001)
BIN_BITS = 16
_BINS = 1 << BIN_BITS
_UNIGRAM = np.dtype([("prob", "<f4"), ("backoff", "<f4"), ("next", "<u4")])
# sphinxbase adds these after each packed array, so that eight bytes can be read at any index of the array.
_PADDING_BYTES = 8

Ints = NDArray[np.int64]


def is_sphinx_lm(path: Path | str) -> bool:
    """Whether the file begins like Sphinx's binary models. InputError if it is missing."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None


def read_sphinx_lm(path: Path | str) -> NgramModel:
    """Read a model. Its words, lower-case in Sphinx, become upper-case as in all lexica of asrkd.

    InputError if the file is something else, damaged or cut short, or if two words differ only in case.
    """
    if not is_sphinx_lm(path):
        raise InputError(f"{path}: expected a binary language model of Sphinx, found something else")
    reader = _Reader(path, Path(path).read_bytes())
    (order,) = reader.take(np.dtype("u1"), 1)
    counts = [int(count) for count in reader.take(np.dtype("<u4"), int(order))]
    if not counts or not 0 < counts[0] < 1 << 25:
        raise InputError(f"{path}: expected an order and counts of n-grams, found {order} and {counts}")
    reader.take(np.dtype("<u4"), 1)  # formerly the kind of bins
    bins = [reader.bins() for _ in range(2 * len(counts) - 3)] if len(counts) > 1 else []
    unigrams = reader.take(_UNIGRAM, counts[0] + 1)
    levels = [_Level.unigrams(unigrams)]
    for n in range(2, len(counts) + 1):
        levels.append(reader.level(counts, n, bins[2 * (n - 2) :], levels[-1]))
    return _model(path, levels, reader.words(counts[0]))


class _Level:
    """The n-grams of one order, in the order of the trie.

    words: [count, n] word ids, first word first. prob, backoff: [count] log10. next: [count + 1], where the longer
    n-grams of each begin.
    """

    def __init__(self, words: Ints, prob: NDArray[np.float64], backoff: NDArray[np.float64], next_: Ints) -> None:
        self.words, self.prob, self.backoff, self.next = words, prob, backoff, next_

    @staticmethod
    def unigrams(table: NDArray[np.void]) -> _Level:
        prob, backoff = (table[name][:-1].astype(np.float64) * LOG10_BASE for name in ("prob", "backoff"))
        return _Level(np.arange(len(prob))[:, None], prob, backoff, table["next"].astype(np.int64))


class _Reader:
    """Reads one field after the other from the bytes of the file."""

    def __init__(self, path: Path | str, content: bytes) -> None:
        self.path, self.content, self.position = path, content, len(MAGIC)

    def take(self, kind: np.dtype, count: int) -> NDArray:
        end = self.position + kind.itemsize * count
        if end > len(self.content):
            raise InputError(f"{self.path}: expected at least {end} bytes, found {len(self.content)}")
        values = np.frombuffer(self.content, kind, count, self.position)
        self.position = end
        return values

    def bins(self) -> NDArray[np.float64]:
        return self.take(np.dtype("<f4"), _BINS).astype(np.float64) * LOG10_BASE

    def level(self, counts: Sequence[int], n: int, bins: Sequence[NDArray[np.float64]], shorter: _Level) -> _Level:
        """The n-grams below those of `shorter`. Fields: word, bins of back-off and probability, first longer n-gram."""
        longest = n == len(counts)
        word_bits = counts[0].bit_length()
        widths = [word_bits, BIN_BITS] if longest else [word_bits, BIN_BITS, BIN_BITS, counts[n].bit_length()]
        entry_bits = sum(widths)
        num_bytes = ((1 + counts[n - 1]) * entry_bits + 7) // 8 + _PADDING_BYTES
        packed = self.take(np.dtype("u1"), num_bytes)
        # The header's count may be too large: sphinxbase counts blanks twice.
        used = int(shorter.next[-1])
        if used > counts[n - 1]:
            raise InputError(f"{self.path}: expected {counts[n - 1]} {n}-grams, found {used}")
        starts = np.cumsum([0, *widths])
        fields = [
            _unpack(packed, np.arange(used + (not longest)) * entry_bits + start, width)
            for start, width in zip(starts, widths, strict=False)
        ]
        children = np.diff(shorter.next)
        if shorter.next[0] != 0 or children.min(initial=0) < 0 or fields[0][:used].max(initial=0) >= counts[0]:
            raise InputError(f"{self.path}: expected a trie of {n}-grams, found a damaged one")
        parents = np.repeat(np.arange(len(shorter.words)), children)
        words = np.concatenate([fields[0][:used, None], shorter.words[parents]], axis=1)
        if longest:
            return _Level(words, bins[0][fields[1]], np.zeros(used), np.zeros(0, dtype=np.int64))
        return _Level(words, bins[0][fields[2][:used]], bins[1][fields[1][:used]], fields[3])

    def words(self, count: int) -> list[str]:
        """Upper-case words by id, from a block of zero-terminated strings."""
        (num_bytes,) = self.take(np.dtype("<u4"), 1)
        block = self.take(np.dtype("u1"), int(num_bytes)).tobytes()
        try:
            words = block.decode("utf-8").split("\0")[:-1]
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: expected words in UTF-8, found byte 0x{block[error.start]:02x}") from None
        if len(words) != count:
            raise InputError(f"{self.path}: expected {count} words, found {len(words)}")
        words = list(map(clean, words))
        bad = next((word for word in words if word.split() != [word]), None)
        if bad is not None:
            raise InputError(f"{self.path}: expected words without spaces, found {bad!r}")
        upper = [word if word.startswith("<") else upper_case(word) for word in words]
        if len(set(upper)) != count:
            twice = next(word for word, number in Counter(upper).items() if number > 1)
            raise InputError(f"{self.path}: expected every word once, found {twice} twice (case aside)")
        return upper


def _unpack(packed: NDArray[np.uint8], bit: Ints, width: int) -> Ints:
    """Numbers of `width` bits (at most 57), each beginning at the given bit of the packed bytes."""
    byte = bit >> 3
    value = np.zeros(len(bit), dtype=np.uint64)
    for offset in range(8):
        value |= packed[byte + offset].astype(np.uint64) << np.uint64(8 * offset)
    value = (value >> (bit & 7).astype(np.uint64)) & np.uint64((1 << width) - 1)
    return value.astype(np.int64)


def _model(path: Path | str, levels: Sequence[_Level], words: Sequence[str]) -> NgramModel:
    tables = []
    for n, level in enumerate(levels, start=1):
        keys = (" ".join([words[word] for word in ngram]) for ngram in level.words.tolist())
        prob = _at_most(level.prob, 0.0, f"{path}: expected log10 probabilities of {n}-grams")
        backoff = _at_most(level.backoff, MAX_LOG10_BACKOFF, f"{path}: expected log10 back-off weights of {n}-grams")
        table = dict(zip(keys, map(Entry, prob.tolist(), backoff.tolist()), strict=True))
        if len(table) != len(prob):
            raise InputError(f"{path}: expected every {n}-gram once, found {len(prob) - len(table)} twice")
        tables.append(table)
    for word in (BOS, EOS):
        if word not in tables[0]:
            raise InputError(f"{path}: expected a unigram {word}, found none")
    return NgramModel(tuple(tables))


def _at_most(values: NDArray[np.float64], most: float, expected: str) -> NDArray[np.float64]:
    """The values, with -99 for smaller ones, as in ARPA files; InputError if one is larger than `most` or NaN."""
    bad = values[~(values <= most)]
    if bad.size:
        raise InputError(f"{expected} of at most {most:g}, found {bad[0]:g}")
    return np.maximum(values, NEVER_LOG10)
