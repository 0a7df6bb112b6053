"""Files that are early or late, or whose classes are counted in another way, by their agreement with the labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from asrkd.distil.label_agreement import LabelAgreement
from asrkd.errors import InputError

NUM_CLASSES = 20


def speech(
    num_utterances: int = 30, length: int = 8, correct: float = 0.6, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Labels that last about `length` frames, and top classes of which a share is right, in runs as real ones are."""
    rng = torch.Generator().manual_seed(seed)
    utterances = []
    for _ in range(num_utterances):
        runs = torch.randint(NUM_CLASSES, (12,), generator=rng)
        lengths = torch.randint(1, 2 * length, (12,), generator=rng)
        answers = torch.where(torch.rand(12, generator=rng) < correct, runs, (runs + 7) % NUM_CLASSES)
        utterances.append((runs.repeat_interleave(lengths), answers.repeat_interleave(lengths)))
    return utterances


def agreement(utterances: list[tuple[Tensor, Tensor]], shift: int = 0) -> LabelAgreement:
    result = LabelAgreement(Path("dump"), NUM_CLASSES)
    for labels, top_classes in utterances:
        frames = (torch.arange(len(labels)) - shift).clamp(0, len(labels) - 1)
        result.add(labels, top_classes[frames])
    return result


def test_frames_in_time_are_accepted() -> None:
    utterances = speech()
    right = sum(int((labels == tops).sum()) for labels, tops in utterances)
    assert agreement(utterances).require() == right / sum(len(labels) for labels, _ in utterances)


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (3, "if the file is 3 frames late: of each matrix, remove the first 3 frames and repeat the last as often"),
        (-1, "if the file is 1 frame early: of each matrix, remove the last 1 frame and repeat the first as often"),
        (5, "if the file is at least 5 frames late"),
        (-7, "if the file is at least 5 frames early"),
    ],
)
def test_early_and_late_files_are_named_with_both_accuracies(shift: int, message: str) -> None:
    with pytest.raises(InputError, match=rf"dump: .* a frame accuracy of \d\d\.\d%, and of \d\d\.\d% {message}"):
        agreement(speech(), shift).require()


def test_following_the_advice_makes_the_file_acceptable() -> None:
    late = [(labels, torch.cat([tops[:1].repeat(3), tops[:-3]])) for labels, tops in speech()]
    agreement([(labels, torch.cat([tops[3:], tops[-1:].repeat(3)])) for labels, tops in late]).require()


def test_a_difference_that_may_be_chance_is_no_shift() -> None:
    """Top classes of which half are early and half are late by a frame: neither shift is better."""
    utterances = speech()
    mixed = agreement(utterances[::2], 1)
    mixed.update(agreement(utterances[1::2], -1))
    assert mixed.require() > 0.4


def test_a_label_that_most_frames_have_does_not_hide_a_shift_nor_make_one() -> None:
    quiet = [
        (torch.cat([labels, torch.zeros(60).long()]), torch.cat([tops, torch.zeros(60).long()]))
        for labels, tops in speech()
    ]
    agreement(quiet).require()
    with pytest.raises(InputError, match="2 frames late"):
        agreement(quiet, 2).require()


def test_frames_without_a_label_and_short_utterances_do_not_count() -> None:
    utterances = speech()
    expected = agreement(utterances)
    more = agreement([*utterances, (torch.full((30,), -1), torch.zeros(30).long())])
    assert more.num_inner == expected.num_inner and more.require() == expected.require()
    short = agreement([(labels[:10], tops[:10]) for labels, tops in utterances], 3)
    assert short.num_inner == 0


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            lambda tops: (tops + 1) % NUM_CLASSES,
            r"with the numbers of the classes less 1 \(counted from 1\?\), \d+.\d%",
        ),
        (lambda tops: (tops - 1) % NUM_CLASSES, "with the numbers of the classes plus 1, "),
        (lambda tops: NUM_CLASSES - 1 - tops, "with the classes in reverse order, "),
        (lambda tops: (tops * 3 + 5) % NUM_CLASSES, "of their own frames$"),
    ],
)
def test_another_way_of_counting_the_classes_is_named(number, message: str) -> None:
    with pytest.raises(InputError, match=rf"expected classes in the order of the senones .*{message}"):
        agreement([(labels, number(tops)) for labels, tops in speech(correct=0.8)]).require()
