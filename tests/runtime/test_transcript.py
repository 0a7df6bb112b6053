"""Transcripts refuse what no format can write: times out of order, words with blanks."""

from __future__ import annotations

import math

import pytest

from asrkd.errors import InputError
from asrkd.runtime.transcript import Segment, Transcript, Word


def test_texts_are_the_words_of_all_segments() -> None:
    first = Segment(0.0, 1.0, (Word("to", 0.1, 0.2), Word("be", 0.2, 0.4)))
    second = Segment(2.0, 3.0, (Word("or", 2.0, 2.5, 0.5),))
    transcript = Transcript("hamlet", 4.0, (first, Segment(1.0, 2.0), second))
    assert first.text == "to be"
    assert transcript.text == "to be or"
    assert [word.text for word in transcript.words] == ["to", "be", "or"]


@pytest.mark.parametrize(
    ("start", "words", "end"),
    [
        (2.0, (), 1.0),
        (-0.1, (), 1.0),
        (0.0, (Word("a", 0.5, 0.4),), 1.0),
        (0.0, (Word("a", 0.1, 0.4), Word("b", 0.3, 0.6)), 1.0),
        (0.0, (Word("a", 0.1, 1.1),), 1.0),
        (0.0, (Word("a", 0.1, math.nan),), 1.0),
        (0.0, (), math.inf),
    ],
)
def test_times_that_are_not_in_order(start: float, words: tuple[Word, ...], end: float) -> None:
    with pytest.raises(InputError, match="expected times in order"):
        Segment(start, end, words)


@pytest.mark.parametrize("text", ["", " ", "a b", "a\n", "a\u2028b", "\u00a0"])
def test_words_with_blanks(text: str) -> None:
    with pytest.raises(InputError, match="without blanks"):
        Word(text, 0.0, 1.0)
