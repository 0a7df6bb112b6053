"""Variants and their trainings in words, for results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from asrkd.nnet import TrainOptions
from recipes.mnist.variants import ALL_CLASSES, HardLabels, OnlineSoftLabels, SoftLabels, TeacherLogits, Variant

TRAINING_KEYS = (
    "optimizer", "learning_rate", "schedule", "warmup_fraction", "batch_size", "momentum", "beta2", "weight_decay"
)  # fmt: skip


def describe(variant: Variant) -> str:
    """A variant in a few words."""
    model = variant.model
    parts = [f"{model.num_layers}×{model.hidden_dim}"]
    if model.dropout or model.input_dropout:
        parts.append(f"dropout {model.input_dropout:g}/{model.dropout:g}")
    parts += [f"max-norm {model.max_norm:g}"] if model.max_norm else []
    parts += [f"initial weights times {model.init_scale:g}"] if model.init_scale != 1.0 else []
    parts += [f"weight decay {variant.train.weight_decay:g}"] if variant.train.weight_decay else []
    parts += [f"±{variant.jitter} px"] if variant.jitter else []
    parts.append(_targets(variant.targets))
    parts += [f"{100 * variant.mix:g}% of the digits mixed"] if variant.mix else []
    if variant.classes != ALL_CLASSES:
        parts.append("classes " + "".join(map(str, variant.classes)))
    parts += [f"{100 * variant.fraction:g}% of the digits"] if variant.fraction < 1.0 else []
    return ", ".join(parts)


def _targets(targets: HardLabels | SoftLabels | OnlineSoftLabels | TeacherLogits) -> str:
    if isinstance(targets, HardLabels):
        return "hard labels" + (f", smoothed {targets.label_smoothing:g}" if targets.label_smoothing else "")
    teachers = f"{targets.teachers} teacher" + ("" if targets.teachers == 1 else "s")
    if isinstance(targets, SoftLabels | OnlineSoftLabels):
        online = ", online" if isinstance(targets, OnlineSoftLabels) else ""
        return f"T={targets.distil.temperature:g}, α={targets.distil.alpha:g}, {teachers}{online}"
    return f"squared logit differences, {teachers}"


def trainings(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Each distinct training with the names of its networks. Their numbers of epochs may differ."""
    by_training: dict[TrainOptions, list[str]] = {}
    for variant in variants:
        by_training.setdefault(replace(variant.train.without_runtime_options(), epochs=1), []).append(variant.name)
    return [
        {"networks": names, **{key: getattr(train, key) for key in TRAINING_KEYS}}
        for train, names in by_training.items()
    ]
