"""Messages of errors: the first few of many, and how many more."""

from __future__ import annotations

from asrkd.errors import name_some


def test_a_few_are_all_named() -> None:
    assert name_some([]) == ""
    assert name_some(["a", "b"]) == "a, b"
    assert name_some("abcde") == "a, b, c, d, e"


def test_the_others_of_many_are_counted() -> None:
    assert name_some("abcdef") == "a, b, c, d, e and 1 more"
    assert name_some(range(12), limit=2) == "0, 1 and 10 more"
    assert name_some(["u1: empty", "u2: short", "u3: empty"], limit=1, separator="; ") == "u1: empty; and 2 more"


def test_named_items_are_short_but_paths_whole() -> None:
    path = "/".join(["folder"] * 100)
    assert name_some(["A" * 20_000, f"{path}: bad"]) == "A" * 40 + f"..., {path}: bad"
    assert name_some([f"utt: no pronunciation: {'B' * 101} C"]) == f"utt: no pronunciation: {'B' * 40}... C"
