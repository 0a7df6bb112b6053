"""Errors of every variant on the evaluation digits, before and after its class biases are repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.data.corpora.mnist import Digits
from asrkd.distil.bias import match_prior, tune_shift
from asrkd.errors import InputError
from asrkd.nnet.stacked import StackedEnsemble
from recipes.mnist.claim_tests import Outcome
from recipes.mnist.data import DigitData
from recipes.mnist.images import JitteredImages, member_logits
from recipes.mnist.networks import load_stack
from recipes.mnist.variants import Variant

# Shifts of a bias in steps of a tenth, as the paper states them (3.5, 7.6). The range suits a 2-class transfer set.
SHIFTS = [step / 10 for step in range(-120, 121)]
# Methods of finding the shift.
TUNED_ON_EVAL = "tuned on the evaluation digits (the paper's method)"
TUNED_HELD_OUT = "tuned on held-out digits"
PRIOR_ONE_SHIFT = "class prior, one shift"
PRIOR_ALL = "class prior, every bias"


@dataclass(frozen=True)
class Scored:
    """A variant's answers for the evaluation digits."""

    variant: Variant
    predictions: Tensor
    """Classes int64 [M, N] that its M networks predict."""
    labels: Tensor
    """True classes int64 [N]."""

    @property
    def outcome(self) -> Outcome:
        """Which predictions are wrong."""
        return Outcome((self.predictions != self.labels).numpy())

    def errors_on(self, classes: Sequence[int]) -> list[int]:
        """Errors of each network on digits of these classes, [M]."""
        chosen = torch.isin(self.labels, torch.tensor(list(classes)))
        return (self.predictions[:, chosen] != self.labels[chosen]).sum(dim=1).tolist()


def logits_of(stack: StackedEnsemble, digits: Digits, device: torch.device) -> Tensor:
    """Logits [M, N, 10] (CPU) of a stack for digits without shifts."""
    return member_logits(stack, JitteredImages(digits.images.to(device), max_shift=0))


def score_variant(variant: Variant, step_dir: Path, data: DigitData, device: torch.device) -> tuple[Scored, Tensor]:
    """A variant's predictions for the evaluation digits, and its logits [M, N, 10]."""
    logits = logits_of(load_stack(step_dir, device), data.eval_set, device)
    return Scored(variant, logits.argmax(dim=2), data.eval_set.labels), logits


@dataclass(frozen=True)
class Repaired:
    """Predictions of a variant after a shift of its class biases (section 3 of the paper)."""

    method: str
    """How the shift was found."""
    scored: Scored
    shifts: list[float]
    """Shift of the repaired classes relative to the other classes, per network [M]."""


@dataclass(frozen=True)
class BiasRepair:
    """Repairs of one variant by each method, and why a method is missing."""

    repaired: list[Repaired]
    missing: str | None
    """Methods without a result and their reasons: no biases match the class prior."""


def repair_biases(
    scored: Scored, logits: Tensor, held_out_logits: Tensor, data: DigitData, classes: Sequence[int]
) -> BiasRepair:
    """Predictions after the biases of `classes` are shifted, by each method, separately for each network.

    The shift is tuned on the evaluation digits, as in the paper, or on the held-out digits. Two methods need no labels:
    they make the mean posterior of the held-out digits equal to the class prior, for `classes` as one group by one
    shift, or for every class by ten shifts. logits and held_out_logits are [M, N, 10].
    """
    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        TUNED_ON_EVAL: lambda on_eval, _: _tuned(on_eval, scored.labels, classes),
        TUNED_HELD_OUT: lambda _, held_out: _tuned(held_out, data.held_out.labels, classes),
        PRIOR_ONE_SHIFT: lambda _, held_out: _matched_as_group(held_out, data.class_prior, classes),
        PRIOR_ALL: lambda _, held_out: match_prior(held_out, data.class_prior).float(),
    }
    shifts: dict[str, list[Tensor]] = {}
    reasons = []
    for method, find in methods.items():
        try:
            shifts[method] = [find(*member) for member in zip(logits, held_out_logits, strict=True)]
        except InputError as error:
            reasons.append(f"{method}: {error}")
    return BiasRepair(_repaired(scored, logits, shifts, classes), "; ".join(reasons) or None)


def _repaired(
    scored: Scored, logits: Tensor, shifts: Mapping[str, list[Tensor]], classes: Sequence[int]
) -> list[Repaired]:
    repaired = []
    for method, member_shifts in shifts.items():
        predictions = (logits + torch.stack(member_shifts).unsqueeze(1)).argmax(dim=2)
        after = Scored(scored.variant, predictions, scored.labels)
        repaired.append(Repaired(method, after, [_relative(shift, classes) for shift in member_shifts]))
    return repaired


def _tuned(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    amount, _ = tune_shift(logits, labels, classes, SHIFTS)
    return torch.where(_chosen(classes, logits.shape[1]), amount, 0.0)


def _matched_as_group(logits: Tensor, prior: Tensor, classes: Sequence[int]) -> Tensor:
    """One shift of the biases of `classes`, after which their summed mean posterior is their summed prior.

    `classes` and the other classes count as two classes, whose logits are the log of each group's sum of exponentials.
    """
    chosen = _chosen(classes, logits.shape[1])
    groups = torch.stack([torch.logsumexp(logits[:, group], dim=1) for group in (chosen, ~chosen)], dim=1)
    shift = match_prior(groups, torch.stack([prior[chosen].sum(), prior[~chosen].sum()]))
    return torch.where(chosen, float(shift[0] - shift[1]), 0.0)


def _chosen(classes: Sequence[int], num_classes: int) -> Tensor:
    return torch.isin(torch.arange(num_classes), torch.tensor(list(classes)))


def _relative(shift: Tensor, classes: Sequence[int]) -> float:
    """Mean shift of `classes` minus the mean shift of the others: only differences change a decision."""
    chosen = _chosen(classes, len(shift))
    return float(shift[chosen].mean() - shift[~chosen].mean())


def disagreement_percent(a: Scored, b: Scored) -> NDArray[np.float64]:
    """Percentage of digits that network m of `a` and network m - 1 of `b` classify differently, [M].

    The two networks have different seeds, so that `b` against itself shows what seeds alone change.
    """
    return 100.0 * (a.predictions != b.predictions.roll(1, dims=0)).double().mean(dim=1).numpy()
