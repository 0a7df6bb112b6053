"""Words that look alike but differ: Latin letters among Cyrillic or Greek ones, and other letters of one shape.

Texts are in upper case here, so the table has capitals (Unicode Technical Standard 39 lists all confusable letters).
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable

_SAME_SHAPE = {
    "АВЕЅІЈКМНОРСТУХԚԜҮҺ": "ABESIJKMHOPCTYXQWYH",  # Cyrillic
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ": "ABEZHIKMNOPTYX",  # Greek
    "ՕՏՍԼ": "OSUL",  # Armenian
    "ĐƉ": "ÐÐ",
    "\u064a\u0649\u0643": "\u06cc\u06cc\u06a9",  # Arabic YEH, ALEF MAKSURA and KAF; Persian YEH and KEHEH
    "`´ʹʼ′": "'''''",
    "‒–—−": "----",
}
_TABLE = str.maketrans({one: other for pair in _SAME_SHAPE.items() for one, other in zip(*pair, strict=True)})
# The comma and the cedilla below S and T (Romanian); a joiner shows nothing.
_MARKS = str.maketrans({"\u0326": "\u0327", "\u200c": None, "\u200d": None, "\u0640": None})
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")


def shape(word: str) -> str:
    """The same text for words that look alike."""
    if word.isascii():
        return word.translate(_TABLE)
    decomposed = unicodedata.normalize("NFKD", word.translate(_TABLE)).translate(_MARKS).translate(_TABLE)
    return unicodedata.normalize("NFC", decomposed)


def look_alikes(words: Iterable[str], dictionary: Collection[str] = ()) -> list[tuple[str, str]]:
    """Pairs of a word of the texts and another word that looks the same, which the texts or the dictionary have."""
    spoken, known = set(words), set(dictionary)
    by_shape: dict[str, set[str]] = defaultdict(set)
    for word in spoken | known:
        by_shape[shape(word)].add(word)
    pairs = []
    for group in by_shape.values():
        # Words of the dictionary that look alike are its own matter, and so is a text's word that it has.
        odd = sorted(group & spoken - known) if group & known else sorted(group & spoken)
        expected = min(group & known or group & spoken, key=lambda word: (not word.isascii(), word), default="")
        pairs += [(word, expected) for word in odd if word != expected]
    return sorted(pairs)


def mixed_letters(word: str) -> list[str]:
    """The letters of the rarer scripts in a word of more than one of Latin, Cyrillic and Greek; else none."""
    if word.isascii():
        return []
    scripts: dict[str, list[str]] = defaultdict(list)
    for letter in word:
        script = unicodedata.name(letter, "").partition(" ")[0]
        if letter.isalpha() and script in _SCRIPTS:
            scripts[script].append(letter)
    most = max(scripts.values(), key=len, default=[])
    return [letter for letters in scripts.values() if letters is not most for letter in letters]
