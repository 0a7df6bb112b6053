"""N-gram language models: the ARPA format, probabilities and perplexity.

Logs of probabilities have base 10 here, as in ARPA files. All other logs in asrkd are natural.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from asrkd.errors import InputError
from asrkd.files import atomic_file, read_lines

BOS = "<s>"
EOS = "</s>"
UNK = "<unk>"

# ARPA has no minus infinity; -99 is used for events that never happen (`<s>` is never predicted). Files with -inf, or
# with less than -99, are read as -99: sums and products of such numbers stay finite.
NEVER_LOG10 = -99.0
# Larger back-off weights are damage: the largest that `asrkd.lang.pruning` computes are about 6.
MAX_LOG10_BACKOFF = 99.0
# Powers of ten below and above are 0 and an error in double precision.
_MAX_EXPONENT = 300.0
_DIGITS = 9  # enough for a reader in single precision
_OTHER_FORMAT = re.compile(r"\s*[iq]ARPA\b", re.IGNORECASE)  # IRSTLM's intermediate and quantised formats
_MAX_COUNT_DIGITS = 18  # Python refuses to read integers of thousands of digits


class Entry(NamedTuple):
    """The numbers of an n-gram in an ARPA file, log10."""

    log10_prob: float
    log10_backoff: float


def power_of_ten(log10: float) -> float:
    """10 to the power of `log10`: never 0, infinite or an error, even for a sum of several numbers of -99 or 99."""
    return float(10.0 ** min(max(log10, -_MAX_EXPONENT), _MAX_EXPONENT))


@dataclass(frozen=True)
class NgramModel:
    """A back-off n-gram model (Katz 1987), as in an ARPA file."""

    tables: tuple[dict[str, Entry], ...]
    """`tables[n - 1]` maps an n-gram, as words joined by single spaces, to its log10 probability, and to the log10
    back-off weight of this n-gram as a history (0.0 if the file has none)."""

    @property
    def order(self) -> int:
        """Length of the longest n-gram, in words."""
        return len(self.tables)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The words that it predicts, without `<s>`, `</s>` and `<unk>`."""
        return frozenset(self.tables[0]) - {BOS, EOS, UNK}

    @cached_property
    def possible_words(self) -> frozenset[str]:
        """The words of the vocabulary with a probability above zero."""
        return frozenset(word for word in self.vocabulary if self.tables[0][word].log10_prob > NEVER_LOG10)

    def log10_prob(self, history: Sequence[str], word: str) -> float:
        """log10 p(word | history), by back-off. A word outside the model counts as `<unk>`.

        `history` begins with the oldest word, or with `<s>` at the start of a sentence; words beyond the order of the
        model are ignored. Minus infinity for an unknown word if the model has no `<unk>`.
        """
        word = self._known(word)
        context = [self._known(old) for old in history[max(0, len(history) - self.order + 1) :]]
        backoff = 0.0
        while True:
            entry = self.tables[len(context)].get(" ".join([*context, word]))
            if entry is not None:
                return backoff + entry.log10_prob
            if not context:
                return -math.inf
            seen = self.tables[len(context) - 1].get(" ".join(context))
            backoff += seen.log10_backoff if seen is not None else 0.0
            del context[0]

    def _known(self, word: str) -> str:
        return word if word in self.tables[0] else UNK

    def _predictions(self, sentence: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Each word of a sentence and `</s>`, with its log10 probability."""
        padded = [BOS, *sentence, EOS]
        for i in range(1, len(padded)):
            yield padded[i], self.log10_prob(padded[max(0, i - self.order + 1) : i], padded[i])

    def perplexity(self, sentences: Iterable[Sequence[str]], include_oov: bool = False) -> float:
        """10 to the mean negative log10 probability of the words and sentence ends.

        Words outside the vocabulary do not count unless `include_oov`, so report `oov_rate` too. InputError if there
        is nothing to predict.
        """
        total, count = 0.0, 0
        for sentence in sentences:
            for word, score in self._predictions(sentence):
                if include_oov or word == EOS or word in self.vocabulary:
                    total += score
                    count += 1
        if count == 0:
            raise InputError("perplexity: expected at least one sentence, found none")
        return power_of_ten(-total / count) if math.isfinite(total) else math.inf

    def oov_rate(self, sentences: Iterable[Sequence[str]]) -> float:
        """Fraction of the running words that are outside the vocabulary; 0.0 if there are no words."""
        words = [word for sentence in sentences for word in sentence]
        return sum(word not in self.vocabulary for word in words) / len(words) if words else 0.0

    def write_arpa(self, path: Path | str) -> None:
        """Write an ARPA file, with gzip if its name ends in .gz. Equal models give equal bytes."""
        path = Path(path)
        with atomic_file(path) as tmp_path:
            if path.suffix == ".gz":
                # Without a time stamp and a name in the header, equal models give equal bytes.
                with tmp_path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                    file.writelines(line.encode() for line in self._arpa_lines())
            else:
                with tmp_path.open("w", encoding="utf-8", newline="\n") as file:
                    file.writelines(self._arpa_lines())

    def _arpa_lines(self) -> Iterator[str]:
        yield "\\data\\\n"
        for n, table in enumerate(self.tables, start=1):
            yield f"ngram {n}={len(table)}\n"
        for n, table in enumerate(self.tables, start=1):
            yield f"\n\\{n}-grams:\n"
            for key in sorted(table):
                prob, backoff = table[key]
                # The longest n-grams are no histories, so they have no back-off weight.
                has_weight = n < self.order and backoff != 0.0
                weight = f"\t{_arpa_number(min(backoff, MAX_LOG10_BACKOFF))}" if has_weight else ""
                # A sum of probabilities may exceed one by a rounding error.
                yield f"{_arpa_number(min(prob, 0.0))}\t{key}{weight}\n"
        yield "\n\\end\\\n"


def _arpa_number(log10: float) -> str:
    return f"{max(log10, NEVER_LOG10):.{_DIGITS}g}"


# ------------------------------------------------------------------------------------------- reading


def read_arpa(path: Path | str) -> NgramModel:
    """Read an ARPA file, plain or gzip.

    A number below -99, such as -inf, is read as -99. InputError, naming file and line, for a wrong count, a line that
    is not an n-gram, NaN, a probability above 1, a back-off weight above MAX_LOG10_BACKOFF, a word that is not a
    unigram, a missing `<s>` or `</s>`, a bad encoding, a file that ends early, or a format of another tool (iARPA of
    IRSTLM). `<UNK>` in any case is `<unk>`.
    """
    lines = read_lines(path)
    position, counts = _read_header(path, lines)
    tables: list[dict[str, Entry]] = []
    for n, count in enumerate(counts, start=1):
        position = _expect_line(path, lines, position, f"\\{n}-grams:")
        unigrams = tables[0] if tables else None
        position, table = _read_section(path, lines, position, n, unigrams, last=n == len(counts))
        if len(table) != count:
            where = f"{path}:{position + 1}" if position < len(lines) else f"{path}"
            raise InputError(f"{where}: expected {count} {n}-grams, as \\data\\ says, found {len(table)}")
        tables.append(table)
    _expect_line(path, lines, position, "\\end\\")
    for word in (BOS, EOS):
        if word not in tables[0]:
            raise InputError(f"{path}: expected a unigram {word}, found none")
    return NgramModel(tuple(_with_unk(tables)))


def _with_unk(tables: list[dict[str, Entry]]) -> list[dict[str, Entry]]:
    """The tables with the unknown word in lower case: tools write <UNK> as well."""
    other = next((word for word in tables[0] if word.lower() == UNK), UNK)
    if UNK in tables[0] or other == UNK:
        return tables

    def renamed(key: str) -> str:
        return " ".join(UNK if word == other else word for word in key.split(" ")) if other in key else key

    return [{renamed(key): entry for key, entry in table.items()} for table in tables]


def _read_header(path: Path | str, lines: list[str]) -> tuple[int, list[int]]:
    position = 0
    # The format allows any text before \data\.
    while position < len(lines) and lines[position].strip() != "\\data\\":
        if _OTHER_FORMAT.match(lines[position]):
            raise InputError(
                f"{path}:{position + 1}: expected an ARPA language model, found {lines[position].strip()[:30]!r}: "
                "convert it (compile-lm --text=yes of IRSTLM)"
            )
        position += 1
    if position == len(lines):
        raise InputError(f"{path}: expected an ARPA language model, found no line \\data\\")
    counts: list[int] = []
    position += 1
    while position < len(lines):
        line = lines[position].strip()
        position += 1
        if not line:
            continue
        if not line.startswith("ngram "):
            position -= 1
            break
        order, _, count = line[len("ngram ") :].partition("=")
        well_formed = count.strip().isdecimal() and len(count.strip()) <= _MAX_COUNT_DIGITS
        if order.strip() != str(len(counts) + 1) or not well_formed:
            raise InputError(f"{path}:{position}: expected ngram {len(counts) + 1}=COUNT, found {line!r}")
        counts.append(int(count))
    if not counts:
        raise InputError(f"{path}:{position}: expected ngram 1=COUNT below \\data\\, found none")
    return position, counts


def _expect_line(path: Path | str, lines: list[str], position: int, expected: str) -> int:
    """The position after the next line that is not blank, which must be `expected`."""
    while position < len(lines) and not lines[position].strip():
        position += 1
    if position == len(lines):
        raise InputError(f"{path}: expected {expected}, found the end of the file")
    if lines[position].strip() != expected:
        raise InputError(f"{path}:{position + 1}: expected {expected}, found {lines[position].strip()!r}")
    return position + 1


def _read_section(
    path: Path | str, lines: list[str], position: int, n: int, unigrams: dict[str, Entry] | None, last: bool
) -> tuple[int, dict[str, Entry]]:
    """The n-grams from `position` up to the next line that begins with a backslash."""
    table: dict[str, Entry] = {}
    for number in range(position, len(lines)):
        fields = lines[number].split()
        if not fields:
            continue
        # A word may begin with a backslash; the first field of an n-gram, a number, does not.
        if fields[0].startswith("\\"):
            return number, table
        try:
            prob = float(fields[0])
            backoff = float(fields[n + 1]) if len(fields) == n + 2 else 0.0
        except ValueError:
            prob = math.nan
        words = fields[1 : n + 1]
        # Comparisons with NaN are false.
        well_formed = len(words) == n and len(fields) <= n + 2 and prob <= 0.0 and backoff <= MAX_LOG10_BACKOFF
        well_formed = well_formed and not (backoff > 0.0 and _is_one_column(lines[number]))
        if not well_formed or (unigrams is not None and any(word not in unigrams for word in words)):
            raise InputError(f"{path}:{number + 1}: {_why_refused(lines[number], n, unigrams)}")
        key = " ".join(words)
        if key in table:
            raise InputError(f"{path}:{number + 1}: {n}-gram {key!r} is there twice")
        table[key] = Entry(max(prob, NEVER_LOG10), 0.0 if last else max(backoff, NEVER_LOG10))
    return len(lines), table


def _is_one_column(line: str) -> bool:
    """Whether all that follows the probability is between tabs: words, and the last one is a number."""
    return line.count("\t") == 1 and not line.partition("\t")[0].strip().count(" ")


def _why_refused(line: str, n: int, unigrams: dict[str, Entry] | None) -> str:
    """Why the line of an n-gram is refused. Not part of the reading loop, which runs a million times."""
    fields = line.split()
    shape = f"expected log10 probability, {n} words and at most a back-off weight"
    if not n + 1 <= len(fields) <= n + 2:
        return f"{shape}, found {' '.join(fields)!r}"
    numbers = (("probability", fields[0], 0.0), ("back-off weight", [*fields, "0"][n + 1], MAX_LOG10_BACKOFF))
    for name, field, most in numbers:
        try:
            value = float(field)
        except ValueError:
            return f"{shape}, found {field!r} for the {name}"
        if not value <= most:
            return f"expected a log10 {name} of at most {most:g}, found {field}"
    if len(fields) == n + 2 and _is_one_column(line):
        return f"expected {n} words between tabs, found {' '.join(fields[1:])!r}"
    unknown = next(word for word in fields[1 : n + 1] if unigrams is not None and word not in unigrams)
    return f"word {unknown} is no unigram"
