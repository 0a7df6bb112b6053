"""Phone names: the ARPAbet of the CMU dictionary, and names that are reserved."""

from __future__ import annotations

import re

from asrkd.data.transcripts import SILENCE

# The 39 phones of the CMU pronouncing dictionary, without stress.
# fmt: off
ARPABET = frozenset((
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY",
    "F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY",
    "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
))
# fmt: on
STRESS_DIGITS = "012"

# "#0", "#1" ... are disambiguation symbols of the decoding graph, "<...>" its other special symbols.
_RESERVED = re.compile(r"#\d+|<.*>")


def remove_stress(phone: str) -> str:
    """`AH0` -> `AH`, for ARPAbet phones only: in other phone sets the digit is part of the name."""
    if phone[-1:] in STRESS_DIGITS and phone[:-1] in ARPABET:
        return phone[:-1]
    return phone


def is_reserved(symbol: str) -> bool:
    """Whether `symbol` cannot be a phone of a word: silence, a disambiguation symbol, or one such as `<eps>`."""
    return symbol == SILENCE or _RESERVED.fullmatch(symbol) is not None
