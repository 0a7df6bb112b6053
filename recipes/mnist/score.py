"""Errors of every variant on the judged digits, and what repairing biases makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.data.corpora.mnist import Digits
from asrkd.distil.bias import match_prior, tune_shift
from asrkd.errors import InputError
from asrkd.nnet.models import StackedEnsemble
from recipes.mnist.claim_tests import Outcome
from recipes.mnist.data import DigitData
from recipes.mnist.images import JitteredImages, member_logits
from recipes.mnist.networks import load_stack
from recipes.mnist.variants import Variant

# Biases are tried in steps of a tenth, as the paper states them (3.5, 7.6), and far enough for a 2-class transfer set.
SHIFTS = [step / 10 for step in range(-120, 121)]
TUNED_ON_JUDGED = "tuned on the judged digits (the paper's way)"
TUNED_HELD_OUT = "tuned on held-out digits"
PRIOR_ONE_SHIFT = "class prior, one shift"
PRIOR_ALL = "class prior, every bias"


@dataclass(frozen=True)
class Scored:
    """What a variant's networks say of the judged digits."""

    variant: Variant
    predictions: Tensor
    """Classes [M, N]."""
    labels: Tensor
    """Classes [N]."""

    @property
    def outcome(self) -> Outcome:
        return Outcome((self.predictions != self.labels).numpy())

    def errors_on(self, classes: Sequence[int]) -> list[int]:
        """Errors of each seed on digits of these classes."""
        chosen = torch.isin(self.labels, torch.tensor(list(classes)))
        return (self.predictions[:, chosen] != self.labels[chosen]).sum(dim=1).tolist()


def logits_of(stack: StackedEnsemble, digits: Digits, device: torch.device) -> Tensor:
    """Logits [M, N, 10] (CPU) of a stack for digits as they are."""
    return member_logits(stack, JitteredImages(digits.images.to(device), max_shift=0))


def score_variant(variant: Variant, folder: Path, data: DigitData, device: torch.device) -> tuple[Scored, Tensor]:
    """Predictions for the judged digits, and the logits they come from."""
    logits = logits_of(load_stack(folder, device), data.eval_set, device)
    return Scored(variant, logits.argmax(dim=2), data.eval_set.labels), logits


@dataclass(frozen=True)
class Repaired:
    """Predictions of a variant's networks after their biases were moved."""

    way: str
    """How the shift was found."""
    scored: Scored
    shifts: list[float]
    """Of each seed, the shift of the repaired classes against the others."""


def repair_biases(
    scored: Scored, logits: Tensor, held_out_logits: Tensor, data: DigitData, classes: Sequence[int]
) -> tuple[list[Repaired], str | None]:
    """Predictions after the biases of `classes` are moved by a shift found in each of these ways, member by member.

    Tuned on the judged digits themselves, as the paper did; on held-out training digits; and without the label of any
    digit it is found on, so that the mean posterior of the held-out digits is the class prior: of `classes` together,
    by one shift, or of every class, by ten. The second value says which way is missing, and why: no biases match.
    """
    finders: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        TUNED_ON_JUDGED: lambda mine, _: _tuned(mine, scored.labels, classes),
        TUNED_HELD_OUT: lambda _, held_out: _tuned(held_out, data.tuning.labels, classes),
        PRIOR_ONE_SHIFT: lambda _, held_out: _matched_together(held_out, data.class_prior, classes),
        PRIOR_ALL: lambda _, held_out: match_prior(held_out, data.class_prior).float(),
    }
    shifts: dict[str, list[Tensor]] = {}
    reasons = []
    for way, find in finders.items():
        try:
            shifts[way] = [find(mine, held_out) for mine, held_out in zip(logits, held_out_logits, strict=True)]
        except InputError as error:
            reasons.append(f"{way}: {error}")
    found = []
    for way, moves in shifts.items():
        predictions = (logits + torch.stack(moves).unsqueeze(1)).argmax(dim=2)
        after = Scored(scored.variant, predictions, scored.labels)
        found.append(Repaired(way, after, [_relative(move, classes) for move in moves]))
    return found, "; ".join(reasons) or None


def _tuned(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    amount, _ = tune_shift(logits, labels, classes, SHIFTS)
    return torch.where(_chosen(classes, logits.shape[1]), amount, 0.0)


def _matched_together(logits: Tensor, prior: Tensor, classes: Sequence[int]) -> Tensor:
    """One shift of the biases of `classes`, after which their mean posterior together is their prior.

    The classes and the others count as two, whose logits are the log of each side's sum of exponentials.
    """
    chosen = _chosen(classes, logits.shape[1])
    sides = torch.stack([torch.logsumexp(logits[:, side], dim=1) for side in (chosen, ~chosen)], dim=1)
    shift = match_prior(sides, torch.stack([prior[chosen].sum(), prior[~chosen].sum()]))
    return torch.where(chosen, float(shift[0] - shift[1]), 0.0)


def _chosen(classes: Sequence[int], num_classes: int) -> Tensor:
    return torch.isin(torch.arange(num_classes), torch.tensor(list(classes)))


def _relative(shift: Tensor, classes: Sequence[int]) -> float:
    """Mean shift of `classes` less the mean shift of the others, for only differences move a decision."""
    chosen = _chosen(classes, len(shift))
    return float(shift[chosen].mean() - shift[~chosen].mean())


def disagreement_percent(a: Scored, b: Scored) -> NDArray[np.float64]:
    """Of each member of a and the next one of b, the percentage of judged digits that they class differently, [M].

    Networks of two seeds, so that b against itself is what seeds alone make.
    """
    return 100.0 * (a.predictions != b.predictions.roll(1, dims=0)).double().mean(dim=1).numpy()
