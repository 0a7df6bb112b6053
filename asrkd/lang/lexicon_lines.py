"""The lines of a pronunciation lexicon: a word, the probability of its pronunciation where there is one, and phones."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from asrkd.errors import InputError, name_some
from asrkd.files import read_lines
from asrkd.lang.lexicon_formats import PhoneColumns, require_phone, without_output_symbol
from asrkd.lang.phones import SILENCE, is_reserved
from asrkd.unicode import upper_case

Pronunciation = tuple[str, ...]
_VARIANT = re.compile(r"(.+)\(\d+\)")  # WORD(2), the CMU dictionary's second pronunciation of WORD
# "... # place, danish": cmudict 0.7c and later; "#1" would be a symbol
_COMMENT = re.compile(r"\s#(?!\d).*")
# Lines of ";;;" and "## ": the CMU dictionary's comments of two ages; "# " is other people's.
_COMMENT_LINE = re.compile(r";;;|#+\s")
# "1", "1.0", "1e-05", and what stands for a number in other tables: "0,5", "50%", "1/2". Not "+1", a unit of subwords.
_NUMBER = re.compile(r"-?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?%?|\d+/\d+", re.IGNORECASE)
# Numbers behind the word: none; the probability; and that with the probability of silence behind the word and two
# corrections for silence before it (Chen et al. 2015; Kaldi's lexiconp_silprob.txt and the Montreal Forced Aligner).
_COLUMNS = (0, 1, 4)


class LexiconLine(NamedTuple):
    """One pronunciation."""

    word: str
    """Upper-case."""
    pron: Pronunciation
    prob: float
    """1.0 where the file has no probabilities."""


def read_lexicon_lines(
    path: Path | str,
    inventory: Collection[str] | None = None,
    notes: list[str] | None = None,
    any_format: bool = False,
) -> Iterator[LexiconLine]:
    """The entries of a lexicon.txt, lexiconp.txt, lexiconp_silprob.txt or a dictionary in the CMU's or MFA's format.

    All lines have the same number of numbers behind the word. Entries of silence alone are skipped, and so are the
    probabilities of silence: `notes` gets a line about these. InputError, naming file and line, as by `Lexicon.load`.

    With `any_format`, a person has the file from another program: marks of other formats are refused as phones, and
    HTK's output symbol behind the word is skipped (`asrkd.lang.lexicon_formats`).
    """
    columns, first, ignored = -1, 0, []
    shape = PhoneColumns(path)
    for number, line in enumerate(read_lines(path), start=1):
        fields = _COMMENT.sub("", line).split()
        if not fields or _COMMENT_LINE.match(line):
            continue
        where = f"{path}:{number}"
        if any_format:
            _require_one_word(where, line)
            fields = without_output_symbol(where, fields)
        count = _num_numbers(fields)
        if columns < 0:
            columns, first = count, number
        if count != columns or columns not in _COLUMNS:
            raise InputError(f"{where}: {_why_not(fields, count, columns, first)}")
        prob = _probability(where, fields[0], fields[1 : 1 + count])
        pron = _phones(where, fields[0], fields[1 + count :], inventory)
        if pron == (SILENCE,):
            continue
        if count > 1:
            ignored.append(fields[0])
        variant = _VARIANT.fullmatch(fields[0])
        word = variant[1] if variant else fields[0]
        if any_format:
            for phone in pron:
                require_phone(where, word, phone)
            shape.add(where, word, pron)
        yield LexiconLine(upper_case(word), pron, prob)
    of_all = shape.notes()
    if notes is not None:
        notes += of_all
    if ignored and notes is not None:
        notes.append(
            f"{path}: the probabilities of silence of {len(ignored)} entries ({name_some(ignored)}) are not used; "
            "silence is as probable behind every word (--graph.silence-prob)"
        )


def is_number(text: str) -> bool:
    """Whether a field of a line is a number, or was meant to be one: 1, 1e-05, 0,5, 50%, 1/2."""
    return _NUMBER.fullmatch(text) is not None


def as_first_field(word: str) -> str:
    """A word at the beginning of a line, so that `read_lexicon_lines` reads it again.

    `#` would begin a comment, and `A(2)` would be a second pronunciation of A: they are written as first ones, `#(1)`
    and `A(2)(1)`.
    """
    return f"{word}(1)" if not word.strip("#") or _VARIANT.fullmatch(word) else word


def _require_one_word(where: str, line: str) -> None:
    """InputError for several words before a tab. Kaldi's lexiconp.txt has the probability there."""
    before, tab, _ = line.strip().partition("\t")
    inner = without_output_symbol(where, [*before.split(), ""])[1:-1] if tab else []
    if not all(map(is_number, inner)):
        raise InputError(
            f"{where}: expected one word before the tab, found {before.strip()!r}: entries of several words cannot be "
            "looked up; write each word on a line of its own"
        )


def _num_numbers(fields: list[str]) -> int:
    """How many numbers follow the word."""
    count = 0
    while count + 1 < len(fields) and is_number(fields[count + 1]):
        count += 1
    return count


def _why_not(fields: list[str], count: int, columns: int, first: int) -> str:
    if columns not in _COLUMNS:
        return (
            f"expected phones behind word {fields[0]}, or one probability, or four numbers (probability, and three of "
            f"silence), found {count} numbers"
        )
    if count + 1 == len(fields) and count > columns:
        return f"expected phones of word {fields[0]}, found the number {fields[columns + 1]}"
    behind = " ".join(fields[1 : max(count, columns) + 1]) or "nothing"
    return (
        f"expected {columns or 'no'} number{'s' * (columns != 1)} behind word {fields[0]}, as on line {first}, found "
        f"{behind!r}; every line has a probability or none has (a phone cannot be a number)"
    )


def _probability(where: str, word: str, numbers: list[str]) -> float:
    """The first number, which must be a probability; 1.0 without numbers."""
    values = []
    for text in numbers:
        try:
            values.append(float(text))
        except ValueError:
            raise InputError(f"{where}: expected a number such as 0.5 behind word {word}, found {text}") from None
    if values and not 0.0 < values[0] <= 1.0:
        raise InputError(
            f"{where}: expected a probability above 0 and of at most 1 for word {word}, found {numbers[0]}"
            f"{' (a logarithm?)' if values[0] < 0 else ''}"
        )
    if min(values, default=0.0) < 0.0:
        raise InputError(f"{where}: expected numbers of at least 0 behind word {word}, found {' '.join(numbers)}")
    return values[0] if values else 1.0


def _phones(where: str, word: str, phones: list[str], inventory: Collection[str] | None) -> Pronunciation:
    pron = tuple(map(sys.intern, phones))
    if not pron:
        raise InputError(f"{where}: word {word} has no pronunciation")
    for phone in pron:
        if pron != (SILENCE,) and is_reserved(phone):
            raise InputError(f"{where}: {phone} is reserved and cannot be a phone of word {word}")
        if is_number(phone):
            raise InputError(
                f"{where}: expected phones of word {word}, found the number {phone}: probabilities stand before all "
                "phones (lexiconp.txt), and a phone with such a name needs another one"
            )
        if pron != (SILENCE,) and inventory is not None and phone not in inventory:
            raise InputError(f"{where}: unknown phone {phone} in word {word}")
    return pron
