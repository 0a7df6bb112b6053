"""A part of the training utterances, chosen by a fixed rule, for students that learn from little.

Hinton, Vinyals and Dean (2015), section 6: with 3% of the data hard labels overfit, and soft targets do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from asrkd.features.speeds import original_id
from asrkd.features.store import FrameStore
from asrkd.recipe.options import StudentsOptions


def subset_utterances(utt_ids: Iterable[str], fraction: float, seed: int) -> list[str]:
    """That fraction of the utterances, at least one, with all of their copies at other speeds; in the order given.

    They are those with the smallest SHA-256 of seed and id, so that a smaller fraction has some of a larger one's.
    """
    given = list(utt_ids)
    digests = {one: hashlib.sha256(f"{seed} {one}".encode()).hexdigest() for one in set(map(original_id, given))}
    ranked = sorted(digests, key=digests.__getitem__)
    chosen = set(ranked[: max(1, round(fraction * len(ranked)))])
    return [one for one in given if original_id(one) in chosen]


def subset_frames(store: FrameStore, options: StudentsOptions, among: Tensor | None = None) -> Tensor:
    """Frame ids [n] of the subset of a store's utterances, in the store's order; those `among` others where given."""
    assert options.subset is not None
    chosen = store.frame_ids(subset_utterances(store.utt_ids, options.subset, options.subset_seed))
    return chosen if among is None else chosen[torch.isin(chosen, among)]
