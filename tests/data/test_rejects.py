"""The one rule on lost utterances: its limit, its message, and what counts as a kind of reason."""

from __future__ import annotations

import pytest

from asrkd.data.rejects import (
    NO_PATH,
    NO_PRONUNCIATION,
    TOO_FEW_FRAMES,
    UNHEARD,
    missing_words,
    require_few_rejected,
    unpronounced,
)
from asrkd.data.splits import Rejected
from asrkd.errors import InputError


def lost(*reasons: str) -> list[Rejected]:
    return [Rejected(f"u{number}", reason) for number, reason in enumerate(reasons)]


def test_reasons_are_counted_by_kind_and_the_first_utterances_are_named() -> None:
    rejected = lost(
        "no pronunciation: 5", "missing audio: expected a.wav", "no pronunciation: 3, 5", f"{NO_PATH}: none"
    )
    with pytest.raises(InputError) as caught:
        require_few_rejected(rejected, 32, "train", 0.01, "1 words are missing (5)")
    assert str(caught.value) == (
        "corpus: expected at most 1.0% bad utterances in train (--max-bad), found 4 of 32: 2 no pronunciation, "
        "1 missing audio, 1 no path: u0: no pronunciation: 5; u1: missing audio: expected a.wav; "
        "u2: no pronunciation: 3, 5; u3: no path: none; 1 words are missing (5)"
    )


def test_the_limit_itself_is_allowed_and_a_split_without_utterances_is_not() -> None:
    rejected = lost(f"{TOO_FEW_FRAMES}: 8 for 3 words")
    require_few_rejected(rejected, 100, "dev", 0.01)
    with pytest.raises(InputError, match=r"in dev \(--max-bad\), found 1 of 99: u0: too few frames: 8 for 3 words$"):
        require_few_rejected(rejected, 99, "dev", 0.01)
    with pytest.raises(InputError, match="found 1 of 1"):
        require_few_rejected(rejected, 1, "dev", 1.0)
    with pytest.raises(InputError, match="expected at least one utterance in test, found none"):
        require_few_rejected([], 0, "test", 1.0)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("expected one channel, found 2", "expected one channel"),
        ("truncated audio: expected 9 bytes", "truncated audio"),
        ("empty transcript", "empty transcript"),
    ],
)
def test_a_kind_is_the_reason_without_its_details(reason: str, kind: str) -> None:
    assert Rejected("u", reason).kind == kind


def test_words_that_cost_most_utterances_come_first() -> None:
    texts = {"a": ["GO", "5"], "b": ["5", "3", "5"], "c": ["GO"], "d": ["3"], "e": ["5"]}
    assert missing_words(list(texts.values()), {"GO"}) == ["5", "3"]
    assert unpronounced(texts, {"GO"}) == [
        Rejected("a", "no pronunciation: 5"),
        Rejected("b", "no pronunciation: 5, 3"),
        Rejected("d", "no pronunciation: 3"),
        Rejected("e", "no pronunciation: 5"),
    ]


def test_units_that_training_never_heard_do_not_count_against_the_limit() -> None:
    texts = {"a": ["GO", "ZOO"], "b": ["7"], "c": ["ZOO", "7"], "d": ["GO"]}
    rejected = unpronounced(texts, {"GO"}, {"ZOO"})
    assert [(one.utt_id, one.kind) for one in rejected] == [
        ("a", UNHEARD),
        ("b", NO_PRONUNCIATION),
        ("c", NO_PRONUNCIATION),
    ]
    require_few_rejected(rejected, 4, "test", max_bad=0.5)
    with pytest.raises(InputError, match="2 no pronunciation, 1 units that training never heard"):
        require_few_rejected(rejected, 4, "test", max_bad=0.25)
    with pytest.raises(InputError, match="found 3 of 3"):  # nothing is left to measure
        require_few_rejected(rejected, 3, "test", max_bad=1.0)
