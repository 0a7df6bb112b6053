"""Two systems on the same utterances: the matched-pairs test, and the words that became right or wrong.

The matched-pairs test on sentence segments is that of Gillick and Cox (Some statistical issues in the comparison of
speech recognition algorithms, ICASSP 1989), as sctk's `sc_stats` computes it (MAPSSWE). Segments end where both systems
have at least two words right: errors in different segments can be taken as independent, which errors of neighbouring
words cannot.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asrkd.scoring.words import UtteranceErrors, WordErrors

# Words that both systems have right between two segments (sctk's MAPSSWE has two).
MIN_GOOD_WORDS = 2
MAX_EXAMPLES = 3
INSERTED = ""
"""Stands for no reference word in changes."""


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs test of systems A and B on segments."""

    segments: int
    """Segments with an error of either system."""
    mean: float
    """Errors of B minus errors of A in a segment, on average."""
    deviation: float
    """Standard deviation of that difference over segments."""
    z: float | None
    """mean / (deviation / sqrt(segments)); None where the differences do not vary."""
    p: float
    """Two-sided, of a mean of 0, by the normal distribution; 1 without any difference."""

    def as_json(self) -> dict[str, Any]:
        """The values by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class Slot:
    """A word of the reference, or the place before it and after the last one, where words are inserted."""

    word: str | None
    """None: a place between words."""
    a: tuple[str, ...]
    """What A recognised there: the word itself where it is right, nothing where it is deleted."""
    b: tuple[str, ...]
    """What B recognised there."""

    def errors(self, recognised: tuple[str, ...], optional: frozenset[str]) -> int:
        """Errors of a system that recognised this here."""
        if self.word is None:
            return len(recognised)
        return 0 if recognised == (self.word,) or (not recognised and self.word in optional) else 1


@dataclass
class Change:
    """A reference word and what a system has instead of it, in the utterances where the other system has it right."""

    word: str
    """INSERTED: no word."""
    instead: str
    """INSERTED: nothing, the word is deleted."""
    times: int = 0
    utt_ids: list[str] = field(default_factory=list)
    """The first few utterances."""

    def add(self, utt_id: str) -> None:
        """Count one more."""
        self.times += 1
        if utt_id not in self.utt_ids and len(self.utt_ids) < MAX_EXAMPLES:
            self.utt_ids.append(utt_id)


@dataclass(frozen=True)
class WordChanges:
    """What became of the reference's words from system A to system B."""

    both_right: int
    both_wrong: int
    right_to_wrong: int
    """Words that A has right and B has wrong."""
    wrong_to_right: int
    """Words that A has wrong and B has right."""
    inserted: tuple[int, int]
    """Words that A and B insert."""
    lost: tuple[Change, ...]
    """What B has instead of words that A has right, and what B alone inserts; the most frequent first, words
    before insertions."""
    gained: tuple[Change, ...]
    """What A has instead of words that B has right, and what A alone inserts."""

    def as_json(self) -> dict[str, Any]:
        """The values by name; None for no word."""
        rows = {
            name: [
                {"ref": one.word or None, "hyp": one.instead or None, "times": one.times, "utt_ids": one.utt_ids}
                for one in changes
            ]
            for name, changes in (("lost", self.lost), ("gained", self.gained))
        }
        return {**vars(self), **rows, "inserted": {"a": self.inserted[0], "b": self.inserted[1]}}


def matched_pairs(
    refs: Mapping[str, Sequence[str]], a: WordErrors, b: WordErrors, optional: frozenset[str] = frozenset()
) -> MatchedPairs:
    """The matched-pairs test of two systems on the same utterances, over segments with errors."""
    differences = [
        errors_b - errors_a
        for _, slots in aligned_slots(refs, a, b)
        for errors_a, errors_b in segment_errors(slots, optional)
    ]
    number = len(differences)
    mean = sum(differences) / number if number else 0.0
    squares = sum((one - mean) ** 2 for one in differences)
    deviation = math.sqrt(squares / (number - 1)) if number > 1 else 0.0
    if deviation == 0.0:
        return MatchedPairs(number, mean, deviation, None, 1.0)
    z = mean / (deviation / math.sqrt(number))
    return MatchedPairs(number, mean, deviation, z, math.erfc(abs(z) / math.sqrt(2.0)))


def segment_errors(slots: Sequence[Slot], optional: frozenset[str] = frozenset()) -> list[tuple[int, int]]:
    """Errors of A and of B in each segment of an utterance that has any."""
    segments: list[tuple[int, int]] = []
    good = MIN_GOOD_WORDS  # the utterance's beginning ends a segment too
    for slot in slots:
        errors = slot.errors(slot.a, optional), slot.errors(slot.b, optional)
        if errors == (0, 0):
            good += slot.word is not None
            continue
        if good >= MIN_GOOD_WORDS:
            segments.append(errors)
        else:
            before = segments[-1]
            segments[-1] = (before[0] + errors[0], before[1] + errors[1])
        good = 0
    return segments


def word_changes(
    refs: Mapping[str, Sequence[str]], a: WordErrors, b: WordErrors, optional: frozenset[str] = frozenset()
) -> WordChanges:
    """What became of every word of the reference from system A to system B, and the words that one of them inserts."""
    right = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    inserted = [0, 0]
    lost: dict[tuple[str, str], Change] = {}
    gained: dict[tuple[str, str], Change] = {}
    for utt_id, slots in aligned_slots(refs, a, b):
        for slot in slots:
            if slot.word is None:
                inserted[0] += len(slot.a)
                inserted[1] += len(slot.b)
                _count_insertions(slot.b, slot.a, lost, utt_id)
                _count_insertions(slot.a, slot.b, gained, utt_id)
                continue
            is_right = not slot.errors(slot.a, optional), not slot.errors(slot.b, optional)
            right[is_right] += 1
            if is_right == (True, False):
                _count(lost, slot.word, " ".join(slot.b), utt_id)
            elif is_right == (False, True):
                _count(gained, slot.word, " ".join(slot.a), utt_id)
    return WordChanges(
        both_right=right[True, True],
        both_wrong=right[False, False],
        right_to_wrong=right[True, False],
        wrong_to_right=right[False, True],
        inserted=(inserted[0], inserted[1]),
        lost=_ranked(lost),
        gained=_ranked(gained),
    )


def _count(changes: dict[tuple[str, str], Change], word: str, instead: str, utt_id: str) -> None:
    changes.setdefault((word, instead), Change(word, instead)).add(utt_id)


def _count_insertions(
    inserted: tuple[str, ...], by_other: tuple[str, ...], changes: dict[tuple[str, str], Change], utt_id: str
) -> None:
    """Count the words that one system inserts at a place and the other one does not."""
    others = list(by_other)
    for word in inserted:
        if word in others:
            others.remove(word)
        else:
            _count(changes, INSERTED, word, utt_id)


def _ranked(changes: Mapping[tuple[str, str], Change]) -> tuple[Change, ...]:
    return tuple(sorted(changes.values(), key=lambda one: (-one.times, one.word == INSERTED, one.word, one.instead)))


def aligned_slots(refs: Mapping[str, Sequence[str]], a: WordErrors, b: WordErrors) -> Iterator[tuple[str, list[Slot]]]:
    """utt_id and slots of each utterance: a place, a word, a place, ..., a word, a place."""
    of_b = {one.utt_id: one for one in b.utterances}
    for one in a.utterances:
        ref = refs[one.utt_id]
        left, right = _recognised(ref, one), _recognised(ref, of_b[one.utt_id])
        words = [ref[n // 2] if n % 2 else None for n in range(2 * len(ref) + 1)]
        yield one.utt_id, [Slot(word, left[n], right[n]) for n, word in enumerate(words)]


def _recognised(ref: Sequence[str], utterance: UtteranceErrors) -> dict[int, tuple[str, ...]]:
    """What a system recognised in each of the 2N + 1 slots of a reference of N words."""
    found: dict[int, list[str]] = defaultdict(list)
    position = 0
    for word, recognised in utterance.pairs:
        if word is not None:
            position = ref.index(word, position)  # words before it are optional ones that were omitted
            found[2 * position + 1] += [recognised] if recognised is not None else []
            position += 1
        elif recognised is not None:
            found[2 * position].append(recognised)
    return {slot: tuple(found[slot]) for slot in range(2 * len(ref) + 1)}
