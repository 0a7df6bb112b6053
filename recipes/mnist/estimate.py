"""Time of the full profile on this machine, extrapolated from the measured rates of a shorter run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from asrkd.data.corpora.mnist import NUM_CLASSES, SIDE
from asrkd.recipe.network_cost import Network
from recipes.mnist.data import DigitData
from recipes.mnist.options import DigitsOptions
from recipes.mnist.variants import Variant, students, teacher

# A training step costs about as much as three forward passes: the forward pass, the gradients of the weights, and the
# gradients of the inputs.
PASSES_PER_TRAINING_STEP = 3


class TrainingKind(NamedTuple):
    """What decides a training's time apart from its matrix products, the most important first."""

    is_jittered: bool
    """Whether digits are shifted and units dropped."""
    optimizer: str
    has_teachers: bool


@dataclass(frozen=True)
class MeasuredTraining:
    """One training of the shorter run."""

    macs: int
    """Multiply-adds of a forward pass of one digit through one network."""
    flop: float
    seconds: float
    kind: TrainingKind


@dataclass(frozen=True)
class MeasuredRun:
    """A shorter run."""

    options: DigitsOptions
    trainings: Sequence[MeasuredTraining]
    posteriors_seconds: float


def network_of(variant: Variant) -> Network:
    """The shape of a variant's networks."""
    return Network(SIDE * SIDE, NUM_CLASSES, variant.model)


def training_flop(network: Network, digits: int, epochs: int, num_seeds: int) -> float:
    """Floating-point operations of a stack's training."""
    return float(PASSES_PER_TRAINING_STEP * network.forward_flop * digits * epochs * num_seeds)


def kind_of(variant: Variant) -> TrainingKind:
    """The kind of a variant's training."""
    return TrainingKind(variant.jitter > 0, variant.train.optimizer, variant.needs_teachers)


def nearest(trainings: Sequence[MeasuredTraining], macs: int, kind: TrainingKind) -> MeasuredTraining:
    """The training of the most similar kind, and of these the one of the nearest size."""

    def distance(one: MeasuredTraining) -> tuple[list[bool], float]:
        return [a != b for a, b in zip(one.kind, kind, strict=True)], abs(math.log(one.macs / macs))

    return min(trainings, key=distance)


def extrapolate(full: DigitsOptions, data: DigitData, measured: MeasuredRun) -> dict[str, Any]:
    """Seconds and floating-point operations of the full profile at the measured rates, without its evaluation."""
    flop, seconds = 0.0, 0.0
    for variant in [teacher(full), *students(full)]:
        network, num_digits = network_of(variant), len(data.train_ids(variant, full.seed))
        cost = training_flop(network, num_digits, variant.train.epochs, variant.num_seeds)
        rate = nearest(measured.trainings, network.macs, kind_of(variant))
        flop += cost
        seconds += cost * rate.seconds / rate.flop
    posteriors_seconds = measured.posteriors_seconds * (_teacher_passes(full) / _teacher_passes(measured.options))
    return {
        "training_flop": flop,
        "training_seconds": seconds,
        "posteriors_seconds": posteriors_seconds,
        "seconds": seconds + posteriors_seconds,
    }


def _teacher_passes(options: DigitsOptions) -> int:
    """Passes of the training digits through one teacher."""
    return options.teacher.size * options.teacher.num_shifts
