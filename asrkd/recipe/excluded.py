"""Utterances that stage 5 excludes from training, as later stages read them. They need no Lhotse."""

from __future__ import annotations

from asrkd.files import read_object
from asrkd.recipe.folders import RunFolders


def excluded_utterances(folders: RunFolders, split: str) -> dict[str, str]:
    """The aligned utterances of a split, copies too, that are excluded from training and tuning: utt_id -> reason."""
    excluded: dict[str, str] = read_object(folders.losses(split), excluded=dict)["excluded"]
    return excluded
