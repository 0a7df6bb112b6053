"""Labels of the frames of a frame store, from an alignment of it."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.tree import SenoneTree

NO_LABEL = -1  # of the frames of utterances that could not be aligned


def frame_ids(alignment: Alignment, store: FrameStore) -> Tensor:
    """The store's frame id [T] of each frame of the alignment. InputError if another store was aligned."""
    if store.fingerprint != alignment.store_fingerprint:
        raise InputError(
            f"alignment: expected the frame store {alignment.store_fingerprint} that was aligned, "
            f"found {store.fingerprint}"
        )
    return store.frame_ids(alignment.utt_ids)


def store_labels(alignment: Alignment, store: FrameStore, tree: SenoneTree) -> Tensor:
    """pdf_id of every frame of the store, [len(store)] int64; NO_LABEL in utterances that could not be aligned.

    InputError if another store was aligned, or if the tree has other phones.
    """
    labels = torch.full((len(store),), NO_LABEL)
    labels[frame_ids(alignment, store)] = alignment.pdf_ids(tree)
    return labels
