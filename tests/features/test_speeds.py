"""Ids of copies at other speeds."""

from __future__ import annotations

from asrkd.features.speeds import original_id, speed_id


def test_speed_ids() -> None:
    assert [speed_id("u", factor) for factor in (0.9, 1.0, 1.1)] == ["sp0.9-u", "u", "sp1.1-u"]


def test_copies_have_the_id_of_their_original() -> None:
    assert [original_id(speed_id("u-sp1-x", factor)) for factor in (0.9, 1.0, 1.25)] == ["u-sp1-x"] * 3
    assert original_id("spring-1") == "spring-1"
