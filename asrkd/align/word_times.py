"""When each word of an utterance is spoken, from the alignment of its phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asrkd.data.transcripts import SILENCE
from asrkd.errors import InputError
from asrkd.hmm.alignment import Segment
from asrkd.lang.lexicon_lines import Pronunciation


class TimedWord(NamedTuple):
    """One word as spoken, with its times in seconds from the beginning of the utterance."""

    word: str
    start_sec: float
    end_sec: float


def word_times(
    words: Sequence[str], segments: Sequence[Segment], prons: Mapping[str, Sequence[Pronunciation]]
) -> list[TimedWord]:
    """The times of words whose pronunciations, with pauses before, between and after them, are the `segments`.

    No pause is within a word. Where two divisions of the phones fit, the first words have the shorter pronunciations.
    InputError if no pronunciations of the words fit.
    """
    spoken = [one for one in segments if one.phone != SILENCE]
    phones = [one.phone for one in spoken]
    after_pause = {n for n in range(1, len(spoken)) if spoken[n].start_sec > spoken[n - 1].end_sec}
    # After each word, the numbers of phones so far -> the number before that word.
    reached: list[dict[int, int]] = [{0: 0}]
    for word in words:
        ends: dict[int, int] = {}
        for begin in sorted(reached[-1], reverse=True):
            for pron in prons.get(word, ()):
                end = begin + len(pron)
                if phones[begin:end] == list(pron) and after_pause.isdisjoint(range(begin + 1, end)):
                    ends[end] = begin
        reached.append(ends)
    if len(phones) not in reached[-1]:
        raise InputError(f"alignment: expected phones of {' '.join(words)[:80]!r}, found {' '.join(phones)[:80]}")
    times: list[TimedWord] = []
    end = len(phones)
    for word, begins in zip(reversed(words), reversed(reached[1:]), strict=True):
        begin = begins[end]
        times.append(TimedWord(word, spoken[begin].start_sec, spoken[end - 1].end_sec))
        end = begin
    return times[::-1]


def spread_evenly(words: Sequence[str], duration_sec: float) -> list[TimedWord]:
    """Equal parts of an utterance for its words: where it has no alignment."""
    step = duration_sec / max(1, len(words))
    return [TimedWord(word, n * step, (n + 1) * step) for n, word in enumerate(words)]
