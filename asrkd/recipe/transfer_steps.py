"""The steps of untranscribed speech: its manifests, labels by another recogniser's words, and posteriors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from asrkd.distil.store import FORMAT
from asrkd.recipe import corpus as corpora
from asrkd.recipe import labels, lattice_targets, networks, transfer, transfer_labels
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import HELD_OUT, TRANSFER, TRANSFER_POSTERIORS
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.steps import Step

MANIFESTS, FEATURES, LABELS = (f"{kind}/{TRANSFER}" for kind in ("manifests", "features", "labels"))


def manifests_step(options: SpeechOptions) -> Step:
    """Stage 1; it reads what is held out to warn of the same audio in both. InputError if there is no such speech."""
    return Step(
        1,
        MANIFESTS,
        partial(transfer.make_transfer_manifests, options),
        {
            "max_bad": options.max_bad,
            "max_duration": options.max_duration,
            "features.sampling_rate": options.features.sampling_rate,
            **transfer.transfer_stamp(options),
        },
        (
            *(() if options.transfer.untranscribed is None else (corpora.CORPUS_STEP,)),
            *(f"manifests/{split}" for split in HELD_OUT),
        ),
        content=corpora.manifests_content,
    )


def labels_step(corpus: Corpus, options: SpeechOptions, lexicon_options: Mapping[str, Any]) -> Step:
    """Stage 5, where there are words of another recogniser."""
    return Step(
        5,
        LABELS,
        partial(transfer_labels.label_transfer, corpus, options),
        {"realign": options.realign, "context": options.context, **lexicon_options},
        (MANIFESTS, FEATURES, "lang/lexicon", "tree"),
        content=labels.labels_content,
        resumable=True,
    )


def posteriors_step(options: SpeechOptions) -> Step:
    """Stage 7, where targets are stored."""
    return Step(
        7,
        TRANSFER_POSTERIORS,
        partial(networks.make_transfer_posteriors, options),
        {"posteriors": options.posteriors, "format": FORMAT, "context": options.context},
        (FEATURES, "tree", *networks.teachers(options)),
        resumable=True,
        networks_only=options.executor == "processes",  # a cluster's workers have this environment
    )


def student_inputs(student: networks.Student, options: SpeechOptions) -> tuple[str, ...]:
    """Steps that a student reads to learn from the transfer set."""
    labelled = () if options.transfer.transcripts is None else (LABELS,)
    is_stored = student.distil is not None and student.distil.targets == "stored"
    stored = lattice_targets.TRANSFER_STEP if options.transfer.targets == "lattice" else TRANSFER_POSTERIORS
    return (FEATURES, *labelled, *((stored,) if is_stored else ()))
