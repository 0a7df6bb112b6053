"""Options of a speech recipe that another option leaves without effect: refused where a person gives them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from asrkd.nnet.augment_options import SOURCES, STRENGTHS
from asrkd.nnet.devices import is_cpu
from asrkd.options import NoEffect

# For every recipe: of its options, and of each of its trainings.
LISTINGS = NoEffect(
    ("--dry-run",),
    lambda options: options.dry_run and options.list_steps,
    "with --list-steps, which lists every step: give one of the two",
)


def of_training(section: str) -> tuple[NoEffect, ...]:
    """The rules for the TrainOptions of a section, such as `train` or `student.hard`."""

    def train(options: Any) -> Any:
        for name in section.split("."):
            options = getattr(options, name)
        return options

    name = f"--{section}"
    return (
        NoEffect(
            (f"{name}.beta2",),
            lambda options: train(options).optimizer != "adamw",
            f"with {name}.optimizer=sgd: give {name}.optimizer=adamw, or {name}.momentum",
        ),
        NoEffect(
            (f"{name}.cuda-graph",),
            lambda options: train(options).cuda_graph and is_cpu(options.device),
            "on the CPU: it needs --device=cuda and a GPU",
        ),
    )


def _estimates_no_model(options: Any) -> bool:
    """Whether no language model is estimated from the training text: one is given, and nothing interpolated with it."""
    return options.lang.arpa is not None and not options.lang.interpolation_weight


def _has_filters(kinds: Sequence[str]) -> bool:
    """Whether one of these architectures reads `filters`; a model that a recipe adds may."""
    return any(kind not in ("dnn", "tdnn") for kind in kinds)


def of_augmentation(section: str) -> tuple[NoEffect, ...]:
    """The rules for the AugmentOptions of a section, such as `students.augment`."""
    decided: dict[str, tuple[str, ...]] = dict(STRENGTHS)
    for name, source in SOURCES.items():
        decided[name] = (source, *decided.get(name, ()))

    def fraction(options: Any, name: str) -> float:
        for part in (*section.split("."), name):
            options = getattr(options, part)
        return float(options)

    return tuple(
        NoEffect(
            tuple(f"--{section}.{one.replace('_', '-')}" for one in names),
            partial(lambda name, options: fraction(options, name) == 0.0, name),
            f"with --{section}.{name}=0, which distorts nothing: give --{section}.{name}=0.5",
        )
        for name, names in decided.items()
    )


NO_EFFECT = (
    LISTINGS,
    *of_training("train"),
    *of_augmentation("students.augment"),
    NoEffect(
        ("--fold-seed",),
        lambda options: options.folds is None,
        "without --folds: give --folds, or no --fold-seed",
    ),
    NoEffect(
        ("--students.beta2",),
        lambda options: options.train.optimizer != "adamw",
        "with --train.optimizer=sgd: give --train.optimizer=adamw",
    ),
    NoEffect(
        ("--posteriors.top-k", "--posteriors.temperatures"),
        lambda options: options.distil.targets == "online" and options.posteriors.mean == "geometric",
        "with --distil.targets=online, which stores no posteriors: give --distil.targets=stored",
    ),
    NoEffect(
        ("--distil.online-teachers",),
        lambda options: options.distil.targets == "stored",
        "without --distil.targets=online: give --distil.targets=online, or no --distil.online-teachers",
    ),
    NoEffect(
        ("--lang.vocab-size", "--lang.samples", "--lang.seed"),
        lambda options: options.lang.units == "phones",
        "with --lang.units=phones: give --lang.units=subword",
    ),
    NoEffect(
        ("--lang.seed",),
        lambda options: options.lang.samples == 1,
        "with --lang.samples=1, which draws nothing: give --lang.samples=2 or more",
    ),
    NoEffect(
        ("--lang.prune", "--lang.max-words", "--lang.max-unpronounced"),
        lambda options: options.lang.model_file is None,
        "without --lang.arpa and --lang.text: give the model, or its text",
    ),
    NoEffect(
        ("--lang.interpolation-weight",),
        lambda options: options.lang.model_file is None and options.lang.rescore_arpa is None,
        "without --lang.arpa, --lang.text and --lang.rescore-arpa: give a model to interpolate with",
    ),
    NoEffect(
        ("--lang.order",),
        _estimates_no_model,
        "with --lang.arpa, which has an order of its own: give --lang.interpolation-weight too, or no --lang.arpa",
    ),
    NoEffect(
        ("--decode.max-active", "--decode.min-active"),
        lambda options: options.decode.search == "kaldi",
        "on lattices with --decode.search=kaldi, which prunes them by the beam alone: give --decode.search=auto or k2",
    ),
    NoEffect(
        ("--ensemble.size",),
        lambda options: options.posteriors_from is not None,
        "with --posteriors-from, with which no teachers are trained: give one of the two",
    ),
    NoEffect(
        ("--transfer.share", "--transfer.transcripts"),
        lambda options: not options.transfer.has_speech,
        "without --transfer.recordings: give it",
    ),
    NoEffect(
        ("--transfer.untranscribed-seed",),
        lambda options: options.transfer.untranscribed is None,
        "without --transfer.untranscribed: give it",
    ),
    NoEffect(
        ("--students.subset-seed", "--students.subset-epochs"),
        lambda options: options.students.subset is None,
        "without --students.subset: give it",
    ),
    NoEffect(
        ("--align.", "--labels.", "--tree."),
        lambda options: options.labels_from is not None,
        "with --labels-from, which brings an aligner and its tree: give one of the two",
    ),
    NoEffect(
        ("--transfer.confidences", "--transfer.min-confidence"),
        lambda options: options.transfer.transcripts is None,
        "without --transfer.transcripts: give it",
    ),
    NoEffect(
        ("--transfer.transcripts",),
        lambda options: options.distil.alpha == 1.0 and not options.students.sweep_alphas,
        "with --distil.alpha=1, which learns soft targets alone: give a smaller --distil.alpha",
    ),
    NoEffect(
        tuple(f"--transfer.{name}" for name in ("lattices", "lattice-weight", "lattice-beam", "acoustic-scale")),
        lambda options: options.transfer.targets != "lattice",
        "with --transfer.targets=frame, which makes no lattices: give --transfer.targets=lattice",
    ),
    NoEffect(
        ("--transfer.targets",),
        lambda options: options.distil.alpha == 0.0 and not options.students.sweep_alphas,
        "with --distil.alpha=0, which learns hard labels alone: give a larger --distil.alpha",
    ),
    NoEffect(
        ("--transfer.recordings", "--transfer.untranscribed"),
        lambda options: options.distil.alpha == 0.0 and not options.students.sweep_alphas,
        "with --distil.alpha=0, which learns hard labels alone: give a larger --distil.alpha",
    ),
    NoEffect(
        ("--posteriors.mean",),
        lambda options: options.ensemble.size == 1 and options.posteriors_from is None,
        "with --ensemble.size=1, where there is one teacher to take the mean of: give a larger --ensemble.size",
    ),
    NoEffect(
        ("--ensemble.kinds",),
        lambda options: options.posteriors_from is not None,
        "with --posteriors-from, with which no teachers are trained: give one of the two",
    ),
    NoEffect(
        ("--teacher.kind",),
        lambda options: bool(options.ensemble.kinds),
        "with --ensemble.kinds, the kinds of all teachers: give one of the two",
    ),
    NoEffect(
        ("--teacher.filters",),
        lambda options: not _has_filters(options.ensemble.kinds or (options.teacher.kind,)),
        "without a cnn among the teachers: give --teacher.kind=cnn",
    ),
    NoEffect(
        ("--student.filters",),
        lambda options: not _has_filters((options.student.kind,)),
        "without a cnn: give --student.kind=cnn",
    ),
    NoEffect(
        ("--distil.temperature", "--distil.t-squared"),
        lambda options: options.distil.alpha == 0.0 and not options.students.sweep_alphas,
        "with --distil.alpha=0, which learns hard labels alone: give a larger --distil.alpha",
    ),
)
