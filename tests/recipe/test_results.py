"""What results.json says of errors: kinds of confusions, and the words that no system can recognise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from asrkd.lang.lexicon import Lexicon
from asrkd.recipe import results
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.scoring import Scoring
from asrkd.scoring.words import WordErrors, wer


def test_rare_kinds_of_confusions_are_not_crowded_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "NUM_CONFUSIONS", 1)
    errors = wer({"a": list("BBBCC"), "b": list("EF")}, {"a": list("DDDHH"), "b": list("EXFZ")[:1]})
    assert results.top_confusions(errors) == [("B", "D", 3), ("F", None, 1)]


class Scored:
    """As much of a scored run as is looked at."""

    def __init__(self, errors: WordErrors) -> None:
        self.errors = errors


def worst_rows(recognisable: frozenset[str]) -> list[dict[str, Any]]:
    refs = {"a": ["GO", "1984"], "b": ["STOP"]}
    first = {"distilled": {"a": ["GO", "NINE"], "b": ["STOP"]}, "baseline": {"a": ["GO"], "b": []}}
    return results._worst(cast(Any, {name: Scored(wer(refs, hyps)) for name, hyps in first.items()}), recognisable)


def test_worst_utterances_list_words_outside_the_vocabulary() -> None:
    rows = worst_rows(frozenset({"GO", "STOP"}))
    assert [(row["utt_id"], row["system"], row["oov"]) for row in rows] == [
        ("a", "distilled", ["1984"]),
        ("a", "baseline", ["1984"]),
    ]
    assert [row["oov"] for row in worst_rows(frozenset({"GO", "STOP", "1984"}))] == [[], []]


def test_vocabulary_is_compared_as_it_is_scored(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    folders.decode_lexicon.parent.mkdir(parents=True)
    Lexicon({"AX": (("AX",),), "B": (("B",),)}).save(folders.decode_lexicon)
    assert results._recognisable(folders, Scoring(folds={"AX": "AH"})) == {"AH", "B"}
