"""Labels of the frames of a frame store, from an alignment of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.tree import SenoneTree
from asrkd.workflow.memory import new_tensor

NO_LABEL = -1  # of the frames of utterances that could not be aligned


def require_store(alignment: Alignment, store: FrameStore) -> None:
    """InputError if another store was aligned."""
    if store.fingerprint != alignment.store_fingerprint:
        raise InputError(
            f"alignment: expected the frame store {alignment.store_fingerprint} that was aligned, "
            f"found {store.fingerprint}"
        )


def frame_ids(alignment: Alignment, store: FrameStore, folder: Path | None = None) -> Tensor:
    """The store's frame id [T] of each frame of the alignment, on the disk of a folder where one is given.

    InputError if another store was aligned.
    """
    require_store(alignment, store)
    ids = new_tensor((len(alignment),), torch.long, folder)
    for (begin, end), utt_id in zip(pairwise(alignment.offsets.tolist()), alignment.utt_ids, strict=True):
        torch.arange(*store.span(utt_id), out=ids[begin:end])
    return ids


def aligned_rows(rows: Tensor, alignment: Alignment, store: FrameStore, folder: Path | None = None) -> Tensor:
    """Those of rows [len(store), D] that the alignment has, [T, D]: all as they are, or a copy in a folder.

    InputError if another store was aligned.
    """
    require_store(alignment, store)
    if alignment.utt_ids == store.utt_ids:
        return rows
    chosen = new_tensor((len(alignment), *rows.shape[1:]), rows.dtype, folder)
    for (begin, end), utt_id in zip(pairwise(alignment.offsets.tolist()), alignment.utt_ids, strict=True):
        chosen[begin:end] = rows[slice(*store.span(utt_id))]
    return chosen


def store_labels(alignment: Alignment, store: FrameStore, tree: SenoneTree, folder: Path | None = None) -> Tensor:
    """pdf_id of every frame of the store, [len(store)] int64; NO_LABEL in utterances that could not be aligned.

    They are on the disk of a folder where one is given. InputError if another store was aligned, or if the tree has
    other phones.
    """
    require_store(alignment, store)
    return labels_of(alignment, store, tree, folder)


def labels_of(alignment: Alignment, part: FrameStore, tree: SenoneTree, folder: Path | None = None) -> Tensor:
    """As `store_labels`, of a store with some of the utterances of the one that was aligned."""
    labels = new_tensor((len(part),), torch.long, folder).fill_(NO_LABEL)
    utt_ids = set(part.utt_ids)
    for shard in alignment.shards():
        pdf_ids = shard.pdf_ids(tree).split(shard.offsets.diff().tolist())
        for utt_id, of_utterance in zip(shard.utt_ids, pdf_ids, strict=True):
            if utt_id in utt_ids:
                labels[slice(*part.span(utt_id))] = of_utterance
    return labels
