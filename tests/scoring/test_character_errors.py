"""Character error rates: by hand, the same however words are cut, and shown where words mean little."""

from __future__ import annotations

import pytest

from asrkd.errors import InputError
from asrkd.lang.scripts import is_unspaced
from asrkd.recipe.scoring import Scoring
from asrkd.scoring.characters import cer


def test_counts_by_hand() -> None:
    """THE CAT -> THE CART inserts a character; 今天 -> 昨天天 substitutes one and inserts one; IS -> nothing."""
    refs = {"a": ["THE", "CAT"], "b": ["今天"], "c": ["IS"]}
    hyps = {"a": ["THE", "CART"], "b": ["昨天", "天"], "c": []}
    errors = cer(refs, hyps).as_json()
    assert {key: errors[key] for key in ("ins", "del", "sub", "characters")} == {
        "ins": 2, "del": 2, "sub": 1, "characters": 10,
    }  # fmt: skip
    assert errors["percent"] == pytest.approx(50.0)
    assert errors["ci95"][0] <= 50.0 <= errors["ci95"][1]
    assert cer(refs, hyps).of_utterances({"c", "a"}).percent == pytest.approx(100 * 3 / 8)


def test_the_rate_does_not_depend_on_where_words_end() -> None:
    refs, hyps = {"u": "你好今天天气"}, {"u": "你今天的天气"}
    whole = cer({"u": [refs["u"]]}, {"u": [hyps["u"]]})
    assert cer({"u": list(refs["u"])}, {"u": list(hyps["u"])}).as_json() == whole.as_json()
    assert cer({"u": ["你好", "今天", "天气"]}, {"u": [hyps["u"]]}).as_json() == whole.as_json()
    assert whole.percent == pytest.approx(100 * 2 / 6)


def test_utterances_must_be_the_same() -> None:
    with pytest.raises(InputError, match="u: expected a hypothesis, found none"):
        cer({"u": ["A"]}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天天气 OK", True),
        ("きょうは いい 天気", True),
        ("สวัสดี", True),
        ("THE CAT", False),
        ("ПРИВЕТ МИР", False),
        ("안녕하세요 여러분", False),
        ("HE SAID 你好", False),
        ("12 !", False),
        ("", False),
    ],
)
def test_scripts_without_spaces(text: str, expected: bool) -> None:
    assert is_unspaced(text.split()) == expected


def test_phones_have_no_characters() -> None:
    refs, hyps = {"u": ["AX", "B"]}, {"u": ["AX"]}
    assert Scoring("phone").character_errors(refs, hyps) is None
    counted = Scoring(folds={"AX": "AH"}).character_errors({"u": ["AH", "B"]}, hyps)
    assert counted is not None and counted.percent == pytest.approx(100 / 3)
