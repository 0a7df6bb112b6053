"""Copies of an utterance, and the speakers that they join."""

from __future__ import annotations

from asrkd.data.hold_out import Copies


def test_without_a_table_everyone_is_alone() -> None:
    copies = Copies({"a-1": "a", "sp0.9-a-1": "sp0.9-a", "tape": ""}, {})
    assert [copies.speaker(name) for name in ("a", "sp0.9-a")] == ["a", "sp0.9-a"]
    assert copies.is_original("sp0.9-a-1") and copies.root("a-1") != copies.root("sp0.9-a-1")


def test_copies_of_copies_join_the_speaker_of_the_original() -> None:
    speakers = {"b-1": "b", "a-b-1": "a-b", "c-a-b-1": "c-a-b", "d-1": "d", "x-d-1": "x-d"}
    copies = Copies(speakers, {"b-1": "b-1", "a-b-1": "b-1", "c-a-b-1": "a-b-1", "x-d-1": "d-1"})
    assert {copies.speaker(name) for name in ("b", "a-b", "c-a-b")} == {"b"}
    assert {copies.speaker(name) for name in ("d", "x-d")} == {"d"}
    assert [utt_id for utt_id in speakers if copies.is_original(utt_id)] == ["b-1", "d-1"]


def test_the_first_of_the_copies_stands_for_an_original_that_is_not_there() -> None:
    speakers = {"mic2-u": "mic2-a", "mic1-u": "mic1-a", "mic2-v": "mic2-a"}
    copies = Copies(speakers, {"mic1-u": "u", "mic2-u": "u", "mic2-v": "v"})
    assert [utt_id for utt_id in sorted(speakers) if copies.is_original(utt_id)] == ["mic1-u", "mic2-v"]
    assert copies.speaker("mic2-a") == copies.speaker("mic1-a")
