"""What a run makes of the corpus' texts, once, before lexicon, language model, alignment and scoring read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from asrkd.lang.options import LangOptions
from asrkd.lang.scripts import split_characters
from asrkd.lang.tags import BRACKETS, is_tag, map_tags, parse_tags, tag_name
from asrkd.unicode import clean

# Punctuation that is read aloud, or that can be: without it the text would lack a word.
_SPOKEN = frozenset("&%@#/\\*§‰٪＆％＠＃／＊＼")
# Backtick and acute accent are no punctuation for Unicode; people type quotes and apostrophes with them.
_QUOTES = frozenset("`´")
# Between letters these belong to the word: DON'T, RE-DO, COL·LEGI, Hebrew abbreviations.
_JOINERS = frozenset("'-·׳״")
_NUMBER_MARKS = frozenset(".,:'")  # between digits: 3.5, 1,000


@dataclass(frozen=True)
class TextRules:
    """The options of LangOptions that change texts."""

    tags: Mapping[str, str]
    """Name of a tag -> its phone, SIL for a pause, empty to remove it."""
    strip_punctuation: bool = False
    split_characters: bool = False

    @classmethod
    def of(cls, lang: LangOptions) -> TextRules:
        """The rules of a run."""
        return cls(parse_tags(lang.tags), lang.strip_punctuation, lang.split_characters)

    @property
    def options(self) -> dict[str, Any]:
        """As plain values, for a stamp."""
        return {
            "tags": dict(sorted(self.tags.items())),
            "strip_punctuation": self.strip_punctuation,
            "split_characters": self.split_characters,
        }

    def is_noise(self, word: str) -> bool:
        """Whether a word of a text after `apply` is a tag that the rules name."""
        return is_tag(word) and tag_name(word) in self.tags

    def apply(self, text: str) -> str:
        """A text, whose words are in upper case, by the rules. A dash between spaces is a pause: it goes always."""
        cleaned = clean(text)
        words = (map_tags(cleaned, self.tags) if self.tags else cleaned).split()
        words = [word for word in words if not is_dash(word)]
        if self.strip_punctuation:
            words = [part for word in words for part in strip_punctuation(word).split()]
        if self.split_characters:
            words = [part for word in words for part in ([word] if is_tag(word) else split_characters(word))]
        return " ".join(words)


def is_dash(word: str) -> bool:
    """Whether a word is a single dash of any kind."""
    return len(word) == 1 and unicodedata.category(word) == "Pd"


@lru_cache(maxsize=1 << 16)
def strip_punctuation(word: str) -> str:
    """A word without its punctuation: `YES` of `"YES!"`; two words of `YES,NO`.

    Apostrophes and hyphens between letters stay, and so do tags, decimal points and what is read aloud (&, %, @).
    """
    if BRACKETS.intersection(word) or is_tag(word):
        return word
    letters = list(word)
    for position, letter in enumerate(letters):
        if is_punctuation(letter) and not _joins(word, position):
            letters[position] = " "
        elif letter in _QUOTES:
            letters[position] = "'"
    return "".join(letters)


def is_punctuation(letter: str) -> bool:
    """Whether a character is punctuation that is not read aloud."""
    return (unicodedata.category(letter).startswith("P") and letter not in _SPOKEN) or letter in _QUOTES


def is_word_character(letter: str) -> bool:
    """Whether a character belongs to words: a letter, a combining mark, a digit, a joiner of letters."""
    return unicodedata.category(letter)[0] in "LMN" or letter in "\u200c\u200d"


def _joins(word: str, position: int) -> bool:
    """Whether a punctuation mark joins the characters before and after it."""
    around = word[position - 1 : position] + word[position + 1 : position + 2] if position else ""
    if len(around) < 2 or not all(map(is_word_character, around)):
        return False
    return word[position] in _JOINERS | _QUOTES or (word[position] in _NUMBER_MARKS and around.isdecimal())
