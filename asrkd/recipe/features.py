"""Stage 2: the frame store of each split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.manifests import load_split
from asrkd.features.cmvn import Moments
from asrkd.features.fbank import FeatureOptions, compute_features, measure_prior
from asrkd.recipe.folders import PRIOR_FILE, STORE_FOLDER, RunFolders
from asrkd.recipe.options import SpeechOptions

PRIOR = "features/prior"


def split_features(name: str, options: FeatureOptions) -> FeatureOptions:
    """Only the training split has copies at other speeds."""
    return options if name == "train" else replace(options, speed_factors=(1.0,))


def make_prior(options: SpeechOptions, out_dir: Path) -> None:
    """Moments of the training split, which normalisation online begins with in every split."""
    split = load_split(RunFolders(options.exp_dir).manifests("train"))
    measure_prior(split, options.features, options.task_executor).write(out_dir / PRIOR_FILE)


def prior_steps(options: FeatureOptions) -> tuple[str, ...]:
    """Steps that features of any split read besides their manifests."""
    return (PRIOR,) if options.cmvn == "online" else ()


def read_prior(folders: RunFolders, options: FeatureOptions) -> Moments | None:
    """Moments of a run's training speech; None where its features need none."""
    return Moments.read(folders.features_prior) if options.cmvn == "online" else None


def make_features(name: str, options: SpeechOptions, out_dir: Path, *, run_dir: Path | None = None) -> None:
    """Features of one split's utterances, normalised as those of the run in `run_dir` (None: the same run)."""
    split = load_split(RunFolders(options.exp_dir).manifests(name))
    store = compute_features(
        split,
        split_features(name, options.features),
        out_dir / STORE_FOLDER,
        options.task_executor,
        read_prior(RunFolders(run_dir or options.exp_dir), options.features),
    )
    print(f"   {name}: {len(store.utt_ids)} utterances, {len(store)} frames", flush=True)
