"""Scripts that are written without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Han with its radicals, iteration marks and numerals; kana, also half-width; Bopomofo.
_EAST_ASIAN = (
    "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
# Thai, Lao, Burmese, Khmer, and the Tai scripts: without digits, which are numbers and no letters.
_SOUTH_EAST_ASIAN = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109f\u1780-\u17d3\u17dc\u17dd"
    "\u1950-\u19cf\u1a20-\u1a7f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaadf"
)
_LETTER = re.compile(f"[{_EAST_ASIAN}{_SOUTH_EAST_ASIAN}]")
_EAST_ASIAN_LETTER = re.compile(f"[{_EAST_ASIAN}]")
# Letters that Unicode joins to the letter before them: SARA AM of Thai and Lao, half-width voicing marks, joiners.
_JOINED = "\u0e33\u0eb3\uff9e\uff9f\u200c\u200d"
_STACKERS = "\u1039\u17d2"  # of Burmese and Khmer: the next consonant is written below

# Longest mean length, in letters, of words between spaces. Chinese words have 1.6 characters in the mean and Thai words
# about 4 letters; sentences and clauses have many more.
LONGEST_MEAN_EAST_ASIAN = 3.0
LONGEST_MEAN_SOUTH_EAST_ASIAN = 8.0
LEAST_SHARE = 0.2  # of the running words in such a script, for it to be the language of the texts


def split_characters(word: str) -> list[str]:
    """The characters of scripts without spaces as single words, with their marks; other letters stay together.

    `今天OK` has the words 今, 天 and OK.
    """
    if not _LETTER.search(word):
        return [word]
    units: list[str] = []
    is_character = False
    for letter in word:
        if units and (letter in _JOINED or unicodedata.category(letter).startswith("M")):
            units[-1] += letter
        elif _LETTER.match(letter):
            if units and is_character and units[-1][-1] in _STACKERS:
                units[-1] += letter
            else:
                units.append(letter)
            is_character = True
        elif units and not is_character:
            units[-1] += letter
        else:
            units.append(letter)
            is_character = False
    return units


def is_unspaced(words: Iterable[str]) -> bool:
    """Whether most letters of the words are of scripts without spaces.

    Such words are characters, sentences, or what a program made of them, so that people count errors in characters.
    """
    letters = [letter for word in words for letter in word if letter.isalpha()]
    return 2 * sum(_LETTER.match(letter) is not None for letter in letters) > len(letters)


def sentence_like(words: Iterable[str]) -> list[str]:
    """Words that are so long, in scripts without spaces, that they must be sentences; empty if the text has words.

    `words` are the running words. The mean counts, because a text has long words too.
    """
    lengths: dict[float, list[int]] = {LONGEST_MEAN_EAST_ASIAN: [], LONGEST_MEAN_SOUTH_EAST_ASIAN: []}
    long: dict[float, list[str]] = {limit: [] for limit in lengths}
    num_words = 0
    for word in words:
        num_words += 1
        length = sum(not unicodedata.category(letter).startswith("M") for letter in _LETTER.findall(word))
        if length:
            is_eastern = _EAST_ASIAN_LETTER.search(word) is not None
            limit = LONGEST_MEAN_EAST_ASIAN if is_eastern else LONGEST_MEAN_SOUTH_EAST_ASIAN
            lengths[limit].append(length)
            long[limit].append(word)
    too_long = [limit for limit, several in lengths.items() if sum(several) > limit * len(several)]
    return [word for limit in too_long if len(long[limit]) >= LEAST_SHARE * num_words for word in long[limit]]
