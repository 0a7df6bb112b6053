"""Repairing class biases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asrkd.distil.bias import match_prior, tune_shift
from asrkd.errors import InputError


def calibrated(num_examples: int, num_classes: int, seed: int, spread: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels drawn from their softmax, and the class frequencies that follow."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_examples, num_classes, dtype=torch.float64, generator=generator) * spread
    probs = torch.softmax(logits, dim=1)
    labels = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    return logits, labels, probs.mean(dim=0)


@given(seed=st.integers(0, 1000), shift=st.floats(-8.0, 8.0), which=st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_matching_the_prior_recovers_a_known_shift_without_labels(seed, shift, which):
    logits, _, prior = calibrated(500, 5, seed)
    wrong = logits.clone()
    wrong[:, which] += shift
    expected = torch.zeros(5, dtype=torch.float64)
    expected[which] = -shift
    torch.testing.assert_close(match_prior(wrong, prior), expected - expected.mean(), atol=1e-3, rtol=0)


def test_matched_posteriors_have_the_prior():
    logits, _, _ = calibrated(800, 10, 3, spread=6.0)
    prior = torch.arange(1.0, 11.0).double() / 55
    moved = torch.softmax(logits + match_prior(logits, prior), dim=1)
    torch.testing.assert_close(moved.mean(dim=0), prior, atol=1e-6, rtol=0)


def test_two_classes_starved_as_in_the_papers_transfer_set():
    """Biases of 7 and 8 raised by 7.6: matching the prior lowers them again, and the errors with them."""
    logits, labels, prior = calibrated(3000, 10, 4, spread=5.0)
    wrong = logits.clone()
    wrong[:, [7, 8]] += 7.6
    shift = match_prior(wrong, prior)
    others = [0, 1, 2, 3, 4, 5, 6, 9]
    assert (shift[[7, 8]] - shift[others].mean()).tolist() == pytest.approx([-7.6, -7.6], abs=0.01)
    errors_before = (wrong.argmax(dim=1) != labels).sum()
    assert (((wrong + shift).argmax(dim=1) != labels).sum()) < 0.6 * errors_before


def test_tuning_finds_a_known_shift():
    logits, _, _ = calibrated(2000, 6, 5, spread=5.0)
    labels = logits.argmax(dim=1)
    wrong = logits.clone()
    wrong[:, 3] -= 3.5
    shifts = [step / 2 for step in range(13)]
    best, errors = tune_shift(wrong, labels, [3], shifts)
    assert best == 3.5
    assert errors[shifts.index(3.5)] == 0
    assert errors[0] > 0


def test_tuning_takes_the_middle_of_a_plateau():
    logits = torch.tensor([[0.0, 3.0], [9.0, 0.0]])
    best, errors = tune_shift(logits, torch.tensor([0, 0]), [0], [0.0, 4.0, 5.0, 6.0])
    assert errors == [1, 0, 0, 0]
    assert best == 5.0


def test_bad_calls_are_named():
    with pytest.raises(InputError, match="expected 3 positive values"):
        match_prior(torch.zeros(2, 3), torch.tensor([0.5, 0.5, 0.0]))
