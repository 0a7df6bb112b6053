"""Stage 2: the frame store of each split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.data.manifests import load_split
from asrkd.features.fbank import FeatureOptions, compute_features
from asrkd.recipe.folders import STORE_FOLDER, RunFolders
from asrkd.recipe.options import SpeechOptions


def split_features(name: str, options: FeatureOptions) -> FeatureOptions:
    """Only the training split has copies at other speeds."""
    return options if name == "train" else replace(options, speed_factors=(1.0,))


def make_features(name: str, options: SpeechOptions, out_dir: Path) -> None:
    """Features of one split's utterances."""
    split = load_split(RunFolders(options.exp_dir).manifests(name))
    store = compute_features(
        split, split_features(name, options.features), out_dir / STORE_FOLDER, options.task_executor
    )
    print(f"   {name}: {len(store.utt_ids)} utterances, {len(store)} frames", flush=True)
