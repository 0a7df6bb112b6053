"""How long the full profile would take on this machine, extrapolated from what a shorter run measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from recipes.mnist.data import DigitData
from recipes.mnist.options import DigitsOptions
from recipes.mnist.variants import Variant, students, teacher

# A training step costs about three forward passes: one forward, one for the weights' gradients, one for the inputs'.
FLOP_A_MAC_TRAINED = 6


@dataclass(frozen=True)
class Measured:
    """The rate of one training that was run."""

    macs: int
    """Multiply-adds of one digit through one network."""
    flop: float
    seconds: float
    kind: tuple[bool, str, bool]
    """What it spends its time on beside products (`kind_of`)."""


def macs_of(variant: Variant, input_dim: int, num_outputs: int) -> int:
    dims = [input_dim] + [variant.model.hidden_dim] * variant.model.num_layers + [num_outputs]
    return sum(before * after for before, after in pairwise(dims))


def training_flop(macs: int, digits: int, epochs: int, seeds: int) -> float:
    return float(FLOP_A_MAC_TRAINED * macs * digits * epochs * seeds)


def kind_of(variant: Variant) -> tuple[bool, str, bool]:
    """Whether its digits are jittered (and units dropped), its optimiser, whether it has teachers."""
    return variant.jitter > 0, variant.train.optimizer, variant.needs_teachers


def nearest(measured: Sequence[Measured], macs: int, kind: tuple[bool, str, bool]) -> Measured:
    """The measured training most like another: in what its kind names, the first the most, then nearest in size."""

    def unlike(one: Measured) -> tuple[list[bool], float]:
        return [mine != its for mine, its in zip(one.kind, kind, strict=True)], abs(math.log(one.macs / macs))

    return min(measured, key=unlike)


def extrapolate(
    full: DigitsOptions,
    short: DigitsOptions,
    data: DigitData,
    measured: Sequence[Measured],
    posteriors_seconds: float,
    input_dim: int,
    num_outputs: int,
) -> dict[str, Any]:
    """Seconds and floating-point operations of the full profile at the measured rates; evaluation is not counted."""
    flop, seconds = 0.0, 0.0
    for variant in [teacher(full), *students(full)]:
        macs = macs_of(variant, input_dim, num_outputs)
        cost = training_flop(macs, len(data.ids_for(variant, full.seed)), variant.train.epochs, variant.seeds)
        like = nearest(measured, macs, kind_of(variant))
        flop += cost
        seconds += cost * like.seconds / like.flop
    # Passes of the training digits through one teacher.
    passes = (full.teacher.size * full.teacher.views) / (short.teacher.size * short.teacher.views)
    return {
        "training_flop": flop,
        "training_seconds": seconds,
        "posteriors_seconds": posteriors_seconds * passes,
        "seconds": seconds + posteriors_seconds * passes,
    }
