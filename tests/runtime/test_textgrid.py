"""TextGrids, read by the grammar of Praat's manual: free-standing numbers, quoted texts and flags count, no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrkd.runtime.textgrid import Labelled, textgrid

# "Praat ignores everything that is not a free-standing number, text in quotes, or flag" (TextGrid file formats).
TOKEN = re.compile(r'(?<!\S)(?:"((?:[^"]|"")*)"|<(\w+)>|(-?\d+(?:\.\d+)?))(?!\S)')


def read(text: str) -> tuple[float, dict[str, list[Labelled]]]:
    """Duration and tiers of a TextGrid."""
    tokens = iter(TOKEN.finditer(text))

    def string() -> str:
        match = next(tokens)
        assert match[1] is not None, match
        return match[1].replace('""', '"')

    def number() -> float:
        match = next(tokens)
        assert match[3] is not None, match
        return float(match[3])

    assert (string(), string()) == ("ooTextFile", "TextGrid")
    assert number() == 0.0
    duration = number()
    assert next(tokens)[2] == "exists"
    tiers = {}
    for _ in range(int(number())):
        assert string() == "IntervalTier"
        name = string()
        assert (number(), number()) == (0.0, duration)
        intervals = []
        for _ in range(int(number())):
            start, end = number(), number()
            intervals.append(Labelled(start, end, string()))
        # Praat wants no gaps.
        assert [one.start for one in intervals] == [0.0, *(one.end for one in intervals[:-1])]
        assert intervals[-1].end == duration
        tiers[name] = intervals
    assert next(tokens, None) is None
    return duration, tiers


def test_gaps_are_intervals_without_text() -> None:
    tiers = {"words": [Labelled(0.5, 1.0, "a"), Labelled(1.0, 1.25, 'say "b"')], "phones": []}
    duration, found = read(textgrid(2.0, tiers))
    assert duration == 2.0
    assert found["words"] == [(0.0, 0.5, ""), (0.5, 1.0, "a"), (1.0, 1.25, 'say "b"'), (1.25, 2.0, "")]
    assert found["phones"] == [(0.0, 2.0, "")]


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1), min_size=1, max_size=6))
def test_any_label_is_read_back(labels: list[str]) -> None:
    tier = [Labelled(float(n), float(n + 1), label) for n, label in enumerate(labels)]
    assert read(textgrid(float(len(labels)), {"words": tier}))[1]["words"] == tier


@pytest.mark.needs("praatio")
def test_another_program_reads_it(tmp_path: Path) -> None:
    from praatio.textgrid import openTextgrid

    words = [Labelled(0.5, 1.0, "été"), Labelled(1.0, 1.25, 'say "b"')]
    (tmp_path / "a.TextGrid").write_text(textgrid(2.0, {"words": words, "phones": []}), encoding="utf-8")
    found = openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert found.tierNames == ("words", "phones") and found.maxTimestamp == 2.0
    assert [tuple(one) for one in found.getTier("words").entries] == words


@pytest.mark.parametrize("tier", [[(0.0, 1.0, "a"), (0.5, 2.0, "b")], [(0.0, 3.0, "a")], [(1.0, 1.0, "a")]])
def test_intervals_that_overlap(tier: list[tuple[float, float, str]]) -> None:
    with pytest.raises(ValueError, match=r"expected intervals in order within 2\.0 s"):
        textgrid(2.0, {"words": [Labelled(*one) for one in tier]})
