"""Words from phones: variants, pauses, divisions that are ambiguous, phones that are not those of the words."""

from __future__ import annotations

import pytest

from asrkd.align.word_times import TimedWord, spread_evenly, word_times
from asrkd.errors import InputError
from asrkd.hmm.alignment import Segment

PRONS = {
    "A": (("AH",), ("EY",)),
    "TAN": (("T", "AE", "N"),),
    "AT": (("AH", "T"), ("AE", "T")),
    "AN": (("AE", "N"),),
}


def spoken(phones: str) -> list[Segment]:
    """Phones of 0.1 s each."""
    return [Segment(phone, round(0.1 * n, 1), round(0.1 * (n + 1), 1)) for n, phone in enumerate(phones.split())]


def test_words_begin_and_end_with_their_phones_and_pauses_are_between_them() -> None:
    times = word_times(["A", "TAN"], spoken("SIL EY SIL SIL T AE N SIL"), PRONS)
    assert times == [TimedWord("A", 0.1, 0.2), TimedWord("TAN", 0.4, 0.7)]


def test_a_pause_decides_between_two_divisions_and_else_the_first_word_is_short() -> None:
    prons = {"X": (("P",), ("P", "T")), "Y": (("T", "N"), ("N",))}
    assert word_times(["X", "Y"], spoken("P T SIL N"), prons)[0] == TimedWord("X", 0.0, 0.2)
    assert word_times(["X", "Y"], spoken("P SIL T N"), prons)[0] == TimedWord("X", 0.0, 0.1)
    assert word_times(["X", "Y"], spoken("P T N"), prons)[0] == TimedWord("X", 0.0, 0.1)


@pytest.mark.parametrize(("words", "phones"), [("A TAN", "EY T AE"), ("A", "EY T"), ("TAN", "T SIL AE N"), ("", "T")])
def test_phones_of_other_words_are_refused(words: str, phones: str) -> None:
    with pytest.raises(InputError, match="expected phones of"):
        word_times(words.split(), spoken(phones), PRONS)


def test_no_words_have_no_times() -> None:
    assert word_times([], spoken("SIL"), PRONS) == []
    assert spread_evenly([], 1.0) == []


def test_words_without_an_alignment_share_the_utterance() -> None:
    assert spread_evenly(["A", "AT"], 1.0) == [TimedWord("A", 0.0, 0.5), TimedWord("AT", 0.5, 1.0)]
