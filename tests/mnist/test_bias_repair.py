"""Biases that were moved by a known amount are repaired by each method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_digits import SMALL

from asrkd.data.corpora.mnist import Digits
from recipes.mnist.data import DigitData
from recipes.mnist.score import PRIOR_ALL, PRIOR_ONE_SHIFT, TUNED_HELD_OUT, TUNED_ON_EVAL, Scored, repair_biases
from recipes.mnist.variants import teacher


def made_up_data(num_digits: int, seed: int) -> tuple[DigitData, Tensor, Tensor]:
    """Evaluation and held-out digits, and logits [2, N, 10] of two networks for each.

    The logits are calibrated: labels are drawn from their softmax.
    """
    generator = torch.Generator().manual_seed(seed)
    sets = []
    for _ in range(2):
        logits = 4 * torch.randn(num_digits, 10, generator=generator)
        labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
        digits = Digits(torch.zeros(num_digits, 28, 28, dtype=torch.uint8), labels)
        sets.append((digits, torch.stack([logits, logits + 0.01 * torch.randn(logits.shape, generator=generator)])))
    (eval_digits, logits), (held_out, held_out_logits) = sets
    # The training digits without the held-out ones, which give the class prior, have the same classes.
    train = Digits(torch.cat([held_out.images] * 2), torch.cat([held_out.labels] * 2))
    return DigitData(train, eval_digits, "made-up", 2 * num_digits, num_digits), logits, held_out_logits


@pytest.mark.parametrize(("classes", "moved"), [((3,), -3.5), ((7, 8), 7.6)])
def test_each_method_of_repairing_biases_recovers_the_known_shift(classes: tuple[int, ...], moved: float) -> None:
    data, logits, held_out = made_up_data(4000, 1)
    perfect = int((logits[0].argmax(dim=1) != data.eval_set.labels).sum())
    for wrong in (logits, held_out):
        wrong[:, :, list(classes)] += moved
    before = Scored(teacher(SMALL), logits.argmax(dim=2), data.eval_set.labels)
    repair = repair_biases(before, logits, held_out, data, classes)
    assert repair.missing is None
    assert [one.method for one in repair.repaired] == [TUNED_ON_EVAL, TUNED_HELD_OUT, PRIOR_ONE_SHIFT, PRIOR_ALL]
    for one in repair.repaired:
        tolerance = 0.15 if "prior" in one.method else 1.0  # errors are flat about the best shift, posteriors are not
        assert one.shifts == pytest.approx([-moved, -moved], abs=tolerance)
        assert one.scored.outcome.errors.max() < 1.05 * perfect < 0.9 * before.outcome.errors.min()
