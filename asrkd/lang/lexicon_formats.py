"""Lexicons in formats of other programs, whose marks and columns would be read as phones.

Refused are HTK's output symbols that differ from the word, a second column of words (Kaldi's align_lexicon.txt), and
marks around, between or behind phones: `W | P`, `W = P`, `W /P P/`, `P . P`, `P, P`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from asrkd.errors import InputError, name_some
from asrkd.unicode import upper_case

# Sounds in ASCII alphabets of phones (X-SAMPA, the Machine Readable Phonetic Alphabet), and the apostrophe.
_SOUNDS = frozenset("@&{}?!$'")
_WORD_START, _INSIDE_WORD = "▁", "+"  # units of subwords, which can have any characters
# Marks at an end that no alphabet of phones has there. "a and e_" are X-SAMPA.
_MARKED = re.compile(r"[/\[(].*|.*[/,;\])]|.*(?<!_)\"")
_NOISE = re.compile(r"[<\[({!+].*")  # a word such as <NOISE>: its phone can be [NSN]
_OUTPUT_SYMBOL = re.compile(r"\[(.*)\]")


def without_output_symbol(where: str, fields: Sequence[str]) -> list[str]:
    """The fields of a line without HTK's output symbol, `[WORD]` behind the word. InputError if it is another word."""
    symbol = _OUTPUT_SYMBOL.fullmatch(fields[1]) if len(fields) > 2 else None
    if symbol is None:
        return list(fields)
    if symbol[1] and upper_case(symbol[1]) != upper_case(fields[0]):
        raise InputError(
            f"{where}: expected phones of word {fields[0]}, found {fields[1]}: HTK's output symbol must be the word, "
            f"[{fields[0]}], or be removed"
        )
    return [fields[0], *fields[2:]]


def require_phone(where: str, word: str, phone: str) -> None:
    """InputError for a phone that is a mark of another format, or has one at an end.

    A phone has a letter or a digit of any script, or one of @ & { } ? ! $ ', or characters that its word has too (a
    lexicon of letters may have `-`). Noises and units of subwords can have any name.
    """
    if _is_plain(phone) or phone == word or (phone[0] in (_WORD_START, _INSIDE_WORD) and len(phone) > 1):
        return
    if not any(_is_sound(letter) for letter in phone) and phone not in word:
        raise InputError(
            f"{where}: expected phones of word {word} and spaces between them, found {phone!r}, which has no letter: "
            "remove such marks, or give the phone a name of letters"
        )
    if _MARKED.fullmatch(phone) and not _NOISE.match(word):
        raise InputError(
            f"{where}: expected phones of word {word} and spaces between them, found {phone!r}: remove the marks at "
            "its ends, and write each pronunciation on a line of its own"
        )


class PhoneColumns:
    """What single lines of a lexicon do not show: words among the phones, phones in one, words that become one."""

    def __init__(self, path: object) -> None:
        self.path = path
        self.num_long = 0
        self.repeated: list[str] = []  # where the first phone is the word
        self.single: dict[str, str] = {}
        self.uses: Counter[str] = Counter()
        self.prons: dict[str, list[Sequence[str]]] = {}

    def add(self, where: str, word: str, pron: Sequence[str]) -> None:
        """Count a line."""
        self.prons.setdefault(word, []).append(pron)
        self.uses.update(set(pron))
        if len(pron) == 1:
            self.single[word] = pron[0]
        elif len(word) > 1 or not word.isascii():  # the letter B has the phones B IY
            self.num_long += 1
            if upper_case(pron[0]) == upper_case(word):
                self.repeated.append(where)

    def notes(self) -> list[str]:
        """Warnings of words that become one in upper case, and of phones that seem to be whole pronunciations.

        InputError where most first phones are words.
        """
        if 2 * len(self.repeated) > self.num_long:
            raise InputError(
                f"{self.repeated[0]}: expected phones behind the word, found the word again, on {len(self.repeated)} "
                f"of {self.num_long} lines of several phones (Kaldi's align_lexicon.txt?): give the lexicon.txt"
            )
        return [*self._merged_notes(), *self._glued_notes()]

    def _merged_notes(self) -> list[str]:
        spellings: dict[str, list[str]] = {}
        for word in self.prons:
            spellings.setdefault(upper_case(word), []).append(word)
        merged = [f"{' and '.join(words)} are {upper}" for upper, words in spellings.items() if self._differ(words)]
        if not merged:
            return []
        return [
            f"{self.path}: {len(merged)} groups of entries have no pronunciation in common and become one word in "
            f"upper case, with all of their pronunciations ({name_some(merged)}): if these are different words, spell "
            "them differently in upper case too"
        ]

    def _differ(self, words: Sequence[str]) -> bool:
        """Whether some of the words have no pronunciation that another one has."""
        uses = Counter(pron for word in words for pron in {tuple(one) for one in self.prons[word]})
        return len(words) > 1 and any(all(uses[tuple(pron)] == 1 for pron in self.prons[word]) for word in words)

    def _glued_notes(self) -> list[str]:
        private = [f"{word} {phone}" for word, phone in self.single.items() if self.uses[phone] == 1]
        if len(private) < 2 or 2 * len(private) <= len(self.prons):
            return []
        return [
            f"{self.path}: {len(private)} of {len(self.prons)} words have one phone that no other word has "
            f"({name_some(private)}): if these are several phones, put spaces between them"
        ]


@lru_cache(maxsize=1 << 12)  # lexicons have few phones, and millions of them in their lines
def _is_plain(phone: str) -> bool:
    return any(map(_is_sound, phone)) and not _MARKED.fullmatch(phone)


def _is_sound(letter: str) -> bool:
    category = unicodedata.category(letter)
    return category[0] in "LMN" or category == "Sk" or letter in _SOUNDS
