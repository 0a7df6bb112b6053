"""What is said in a recording: words with times and confidences, in segments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from asrkd.errors import InputError

Seconds = float


@dataclass(frozen=True)
class Word:
    """One word of a recording."""

    text: str
    start: Seconds
    """From the begin of the recording."""
    end: Seconds
    confidence: float | None = None
    """Estimated probability that the word is right, 0 to 1; None where it was not estimated."""

    def __post_init__(self) -> None:
        """InputError for a text that is empty or has blanks, which no format could write."""
        if self.text.split() != [self.text]:
            raise InputError(f"word {self.text!r}: expected a text without blanks")


@dataclass(frozen=True)
class Segment:
    """A part of a recording that was decoded at once, from one pause to another."""

    start: Seconds
    end: Seconds
    words: tuple[Word, ...] = ()
    alternatives: tuple[str, ...] = ()
    """Other hypotheses of the whole segment, the most probable first."""
    speaker: str | None = None
    channel: int = 0
    """Of the recording, from 0."""

    def __post_init__(self) -> None:
        """InputError unless times are finite, not negative and in order; they may touch, and not overlap."""
        times = [self.start, *(time for word in self.words for time in (word.start, word.end)), self.end]
        if not all(map(math.isfinite, times)) or times != sorted(times) or self.start < 0.0:
            raise InputError(f"segment {self.start} to {self.end} s: expected times in order, found {times[:8]}")

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class Transcript:
    """The words of a recording."""

    name: str
    """Of the recording: its file's path without suffix, or its id in a manifest."""
    duration: Seconds
    segments: tuple[Segment, ...] = field(default=())
    """By start, then by channel."""

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.words)

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)
