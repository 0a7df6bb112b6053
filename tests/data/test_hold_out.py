"""Copies of an utterance and the speakers that they join, and the folds of a cross-validation."""

from __future__ import annotations

import random

import pytest

from asrkd.data.hold_out import Copies, fold_splits, speaker_folds
from asrkd.errors import InputError


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


@pytest.mark.parametrize("number", [2, 3, 5, 24])
def test_folds_have_every_speaker_once_and_nearly_equal_weights(number: int) -> None:
    weights = {f"s{n}": float(random.Random(n).randint(50, 2500)) for n in range(24)}
    groups = speaker_folds(weights, number)
    assert len(groups) == number and sorted(name for group in groups for name in group) == sorted(weights)
    sizes = [len(group) for group in groups]
    sums = [sum(weights[name] for name in group) for group in groups]
    assert max(sizes) - min(sizes) <= 1 and max(sums) - min(sums) <= max(weights.values())
    if number < 6:
        assert max(sums) < 1.3 * min(sums)


def test_folds_are_the_same_in_any_order_and_others_with_another_seed() -> None:
    weights = {f"s{n}": float(100 + n % 7) for n in range(20)}
    shuffled = dict(sorted(weights.items(), key=lambda item: item[0][::-1]))
    assert speaker_folds(weights, 4) == speaker_folds(shuffled, 4)
    assert speaker_folds(weights, 4) != speaker_folds(weights, 4, seed=1)


@pytest.mark.parametrize("number", [2, 3, 6])
def test_every_speaker_is_tested_once_and_develops_in_one_fold_at_most(number: int) -> None:
    groups = speaker_folds({f"s{n}": 1.0 + n for n in range(24)}, number)
    splits = [fold_splits(groups, fold) for fold in range(number)]
    everybody = set().union(*groups)
    for split in splits:
        assert set().union(*split.values()) == everybody and sum(map(len, split.values())) == 24
        assert len(split["dev"]) == 2
    assert sorted(name for split in splits for name in split["test"]) == sorted(everybody)
    developing = [name for split in splits for name in split["dev"]]
    assert len(set(developing)) == len(developing)


def test_too_few_speakers_for_the_folds_are_an_error() -> None:
    with pytest.raises(InputError, match=r"--folds 4: expected at least 4 speakers, found 3 \(a, b, c\)"):
        speaker_folds(dict.fromkeys("abc", 1.0), 4)
    with pytest.raises(InputError, match=r"--folds 2: expected at least 2 speakers, found 1 \(allison\)"):
        speaker_folds({"allison": 1.0}, 2)
    with pytest.raises(InputError, match="--folds 2: expected speakers to train on"):
        fold_splits([{"a"}, {"b"}], 0)
    assert fold_splits([{"a"}, {"b"}, {"c"}], 2) == {"test": {"c"}, "dev": {"a"}, "train": {"b"}}
