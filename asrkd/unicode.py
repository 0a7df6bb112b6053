"""One spelling of every text that is read: NFC, without invisible characters, with one apostrophe and one hyphen.

Texts, dictionaries, language models and ids come from different programs. Python compares strings by code points, so
the same word in two Unicode forms would be two words (Unicode Standard Annex 15).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

# Soft hyphen, zero-width space, byte-order mark, word joiner, and marks of the direction of writing.
_INVISIBLE = "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
# Zero-width joiners and non-joiners belong to the spelling of Arabic and Indian scripts; after other letters they show
# nothing.
_NO_SPELLING = re.compile(f"[{_INVISIBLE}]|(?<![\u0600-\u1cff])[\u200c\u200d]")
# Typographic apostrophes, and hyphens that look like the usual one.
_ALIKE = str.maketrans(dict.fromkeys("\u2018\u2019\u201b\u02bc\uff07", "'") | dict.fromkeys("\u2010\u2011", "-"))


def clean(text: str) -> str:
    """`text` in NFC, without invisible characters, with plain apostrophes and hyphens."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _NO_SPELLING.sub("", text).translate(_ALIKE))


def upper_case(text: str) -> str:
    """`text` in upper case and NFC. Python's capitals of a letter in NFC may be in another form (\u1fb7)."""
    return text.upper() if text.isascii() else unicodedata.normalize("NFC", text.upper())


def dotted_note(texts: Iterable[str]) -> str:
    """What `upper_case` does to the Turkish letters \u0131 and \u0130 of texts, as one line; empty without them."""
    words = Counter(word for text in texts if not text.isascii() for word in text.split())
    small = sorted((word for word in words if "\u0131" in word), key=lambda word: (-words[word], word))
    capital = sorted((word for word in words if "\u0130" in word), key=lambda word: (-words[word], word))
    parts = []
    if small:
        parts.append(
            f"{len(small)} words have \u0131 ({small[0]}), which becomes I as i does, so words that differ in it "
            f"become one ({upper_case(small[0])})"
        )
    if capital:
        parts.append(f"{len(capital)} words have \u0130 ({capital[0]}), which stays another letter than I, made of i")
    advice = ": give texts and lexicon in Turkish capitals (\u0130 of i, I of \u0131) to tell them apart"
    return f"{'; '.join(parts)}{advice}" if parts else ""


def code_points(letters: Iterable[str]) -> str:
    """The numbers of characters, each once: `U+0410, U+0421`."""
    return ", ".join(dict.fromkeys(f"U+{ord(letter):04X}" for letter in letters))
