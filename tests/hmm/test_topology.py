"""Topology, transitions and priors."""

from __future__ import annotations

import math

import pytest
import torch

from asrkd.errors import InputError
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.estimate import estimate_transitions
from asrkd.hmm.priors import log_priors
from asrkd.hmm.topology import PRIOR_MEAN_FRAMES, PRIOR_VISITS, TransitionModel, pdf_to_label
from asrkd.hmm.tree import SenoneTree

PHONES = ("SIL", "A", "B")


def test_labels_count_from_one_because_zero_is_epsilon() -> None:
    assert pdf_to_label(0) == 1
    assert torch.equal(pdf_to_label(torch.tensor([0, 7])), torch.tensor([1, 8]))


def test_uniform_transitions_expect_the_frames_asked_for() -> None:
    transitions = TransitionModel.uniform(4, mean_frames=5.0)
    expected_frames = 1.0 / transitions.log_forward.exp()
    assert torch.allclose(expected_frames, torch.full((4,), 5.0))


def test_transitions_are_counted_on_the_alignment() -> None:
    # A in states 0 0 0 | 1 | 2 2, twice (two utterances): state 0 is visited twice, for 6 frames.
    state = torch.tensor([0, 0, 0, 1, 2, 2] * 2, dtype=torch.int8)
    alignment = Alignment(
        ("u", "v"), torch.tensor([0, 6, 12]), torch.ones(12, dtype=torch.int16), state,
        torch.zeros(12, dtype=torch.int32), PHONES, "store", torch.zeros(2, dtype=torch.double),
    )  # fmt: skip
    transitions = estimate_transitions(alignment, SenoneTree.monophone(PHONES))
    leave = (2 + PRIOR_VISITS) / (6 + PRIOR_VISITS * PRIOR_MEAN_FRAMES)
    assert transitions.log_forward[3].item() == pytest.approx(math.log(leave), abs=1e-6)
    assert transitions.log_self_loop[3].item() == pytest.approx(math.log(1 - leave), abs=1e-6)
    # What was never visited keeps the prior belief.
    assert 1.0 / transitions.log_forward[6].exp().item() == pytest.approx(PRIOR_MEAN_FRAMES)


def test_transitions_travel_as_tensors() -> None:
    transitions = TransitionModel.uniform(3, 4.0)
    again = TransitionModel.from_tensors(transitions.to_tensors())
    assert torch.equal(again.log_self_loop, transitions.log_self_loop)
    with pytest.raises(InputError, match="log_forward"):
        TransitionModel.from_tensors({"log_self_loop": transitions.log_self_loop})


def test_pairs_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to one"):
        TransitionModel(torch.zeros(2), torch.zeros(2))


def test_priors_are_the_labels_frequencies() -> None:
    priors = log_priors(torch.tensor([0, 0, 0, 2]), 3, floor=1e-3).exp()
    assert priors.sum().item() == pytest.approx(1.0)
    assert torch.allclose(priors, torch.tensor([0.75, 0.001, 0.25]) / 1.001, atol=1e-6)


def test_priors_refuse_labels_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        log_priors(torch.tensor([0, -1]), 3)
