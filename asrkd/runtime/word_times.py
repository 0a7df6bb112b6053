"""When each word of a path was said: from its HMM states, frame by frame.

A graph's arc can emit a word before its phones are read or after. A senone belongs to one phone and one of its states,
so the path's states say where phones begin. The words' pronunciations then divide the phones between the words.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError

Pronunciations = Mapping[str, Sequence[tuple[str, ...]]]
"""Word -> its pronunciations."""


class Span(NamedTuple):
    """A phone or a word, with the frames from `begin` to before `end`."""

    name: str
    begin: int
    end: int


def phone_spans(pdf_ids: NDArray[np.integer], phone_of: Sequence[str], state_of: Sequence[int]) -> list[Span]:
    """The phones of a path: pdf_ids [T]. `phone_of` and `state_of` have the phone and HMM state of each pdf_id."""
    spans: list[Span] = []
    begin, previous = 0, None
    for frame, pdf_id in enumerate(pdf_ids.tolist()):
        phone, state = phone_of[pdf_id], state_of[pdf_id]
        # States go from left to right without skips: an earlier state is that of a new phone.
        if previous is not None and (phone != previous[0] or state < previous[1]):
            spans.append(Span(previous[0], begin, frame))
            begin = frame
        previous = phone, state
    if previous is not None:
        spans.append(Span(previous[0], begin, len(pdf_ids)))
    return spans


def word_spans(
    words: Sequence[str], phones: Sequence[Span], prons: Pronunciations, silence: Collection[str]
) -> list[Span]:
    """The words of a path, in order, of its phones. Silence is between words alone.

    A path that does not end in a final state may have only the first phones of its last words, or none. InputError
    for a word whose phones are not those of one of its pronunciations.
    """
    names = [phone.name for phone in phones]
    reached: list[dict[int, tuple[int, int]]] = []
    positions: Collection[int] = (0,)
    for word in words:
        ends: dict[int, tuple[int, int]] = {}
        for begin in positions:
            first = begin
            while first < len(names) and names[first] in silence:
                first += 1
            for pron in prons.get(word, ()):
                heard = tuple(names[first : first + len(pron)])
                # Shorter than the pronunciation only where the path ends.
                if heard == pron[: len(heard)] and (len(heard) == len(pron) or first + len(heard) == len(names)):
                    ends.setdefault(first + len(heard), (begin, first))
        if not ends:
            raise InputError(f"lexicon: expected the pronunciation of {word} that the decoding graph has, found none")
        reached.append(ends)
        positions = ends
    # Of several ways the one with the most phones in words: only a path that was cut has phones left.
    end = max(positions)
    found = []
    for word, ends in zip(reversed(words), reversed(reached), strict=True):
        begin, first = ends[end]
        frames = (phones[first].begin, phones[end - 1].end) if end > first else (_end(phones), _end(phones))
        found.append(Span(word, *frames))
        end = begin
    return found[::-1]


def _end(phones: Sequence[Span]) -> int:
    return phones[-1].end if phones else 0
