"""The first stages of a speech recipe, run in this process."""

from __future__ import annotations

from pathlib import Path

from asrkd.recipe.corpus import Corpus, make_manifests, prepare_corpus
from asrkd.recipe.features import make_features
from asrkd.recipe.folders import SPLITS
from asrkd.recipe.options import SpeechOptions


def step_folder(options: SpeechOptions, name: str) -> Path:
    """The folder of a step, there and empty or as it is."""
    folder = options.exp_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_manifests(corpus: Corpus, options: SpeechOptions) -> None:
    """Stages 0 and 1."""
    prepare_corpus(corpus, {}, options, step_folder(options, "corpus"))
    for split in SPLITS:
        make_manifests(corpus, split, options, step_folder(options, f"manifests/{split}"))


def run_features(options: SpeechOptions) -> None:
    """Stage 2."""
    for split in SPLITS:
        make_features(split, options, step_folder(options, f"features/{split}"))
