"""Tags of transcripts: [NOISE], <UNK>, {BREATH}, ++COUGH++, (LAUGHS). They are no words, however they are spelled.

A tag is a noise, with a phone of its own; a pause; or nothing. Only the person who has the corpus knows which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from asrkd.errors import InputError
from asrkd.lang.phones import SILENCE, is_reserved
from asrkd.unicode import clean, upper_case

# Pairs of brackets, and their full-width forms, in which Chinese and Japanese texts have tags.
_PAIRS = ("[]", "{}", "<>", "()", "［］", "｛｝", "＜＞", "（）", "【】", "〔〕")
BRACKETS = frozenset("".join(_PAIRS))
_SYMBOLS = "*#_~@%=|+/^"
_FORMS = (
    # Of a run of opening brackets the first alone begins a tag: a line of thousands would take minutes otherwise.
    *(f"(?<!{re.escape(one[0])}){re.escape(one[0])}+[^{re.escape(one)}]*{re.escape(one[1])}+" for one in _PAIRS),
    r"\+\+[^\s+]+\+\+",  # ++NOISE++ of CMU Sphinx
    rf"(?<!\S)(?P<mark>[{re.escape(_SYMBOLS)}])(?=\S*[^\W_])\S*(?P=mark)(?!\S)",  # *NOISE*, _NOISE_, #NOISE#
    r"(?<!\S)!(?=[^\W\d_])\w+(?!\S)",  # !SIL of HTK
)
TAG = re.compile("|".join(_FORMS))
"""A tag. It can have several words: [BACKGROUND NOISE]."""
# A mapped tag, with the punctuation of the sentence behind it.
_TAG_AND_PUNCTUATION = re.compile(f"(?P<tag>{'|'.join(_FORMS)})(?:[.,;:!?…。，、]+(?!\\S))?")
REMOVED = ""


def is_tag(word: str) -> bool:
    """Whether a word is a tag: it is never scored, whichever dictionary has it."""
    return TAG.fullmatch(word) is not None


def tag_name(tag: str) -> str:
    """`NOISE` of `[NOISE]` and of `++NOISE++`; `BACKGROUND_NOISE` of `[BACKGROUND NOISE]`."""
    inner = tag.strip("".join(BRACKETS) + " \t")
    if inner == tag and is_tag(tag):
        inner = tag.strip(_SYMBOLS + "!")
    return re.sub(r"[\s,=]+", "_", inner) or re.sub(r"\s+", "", tag)


def tag_word(name: str) -> str:
    """The word that stands for a noise in the texts of a run: `[NOISE]`, however the corpus writes it."""
    return f"[{name}]"


def parse_tags(items: Sequence[str]) -> dict[str, str]:
    """Name -> phone of `NOISE=SPN`; SIL is a pause, and an empty phone removes the tag. InputError for other forms."""
    phones: dict[str, str] = {}
    for item in (one.strip() for several in items for one in several.split(",")):
        if not item:
            continue
        written, equals, phone = (part.strip() for part in item.rpartition("="))
        name = tag_name(upper_case(clean(written)))
        if not equals or not name:
            raise InputError(f"--lang.tags: expected TAG=PHONE, TAG=SIL or TAG= such as NOISE=SPN, found {item!r}")
        if phone.upper() == SILENCE:
            phone = SILENCE
        elif phone and (is_reserved(phone) or len(phone.split()) > 1 or not any(one.isalpha() for one in phone)):
            raise InputError(f"--lang.tags: expected a phone of the noise {written}, such as SPN, found {phone!r}")
        if phones.setdefault(name, phone) != phone:
            raise InputError(f"--lang.tags: expected one phone of {name}, found {phones[name]!r} and {phone!r}")
    return phones


def noise_phones(tags: Mapping[str, str]) -> dict[str, str]:
    """Word -> phone of the tags that are noises; pauses and removed tags are no words."""
    return {tag_word(name): phone for name, phone in tags.items() if phone not in (REMOVED, SILENCE)}


def map_tags(text: str, tags: Mapping[str, str]) -> str:
    """`text` with the words of noises, and without pauses and removed tags. Tags that `tags` lacks stay as they are.

    The aligner finds pauses: silence may occur before, between and after words.
    """
    noises = noise_phones(tags)

    def replacement(name: str) -> str:
        return tag_word(name) if tag_word(name) in noises else ""

    def mapped(match: re.Match[str]) -> str:
        name = tag_name(match["tag"])
        return f" {replacement(name)} " if name in tags else match[0]

    def mapped_word(word: str) -> str:
        # A key can also be a word that is no tag and no plain word: `--`, `%HESITATION`, half a bracket in `[NOISE`.
        name = tag_name(word) if BRACKETS.intersection(word) else word
        return word if is_tag(word) or word.isalpha() or name not in tags else replacement(name)

    words = map(mapped_word, _TAG_AND_PUNCTUATION.sub(mapped, text).split())
    return " ".join(word for word in words if word)
