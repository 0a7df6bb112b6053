"""Counted on an alignment: transition probabilities, and the statistics that a senone tree is grown on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from asrkd.hmm.alignment import Alignment
from asrkd.hmm.statistics import TriphoneStats, accumulate, triphone_states
from asrkd.hmm.topology import TransitionModel
from asrkd.hmm.tree import SenoneTree


def estimate_transitions(alignment: Alignment, tree: SenoneTree) -> TransitionModel:
    """Transition probabilities of each pdf: a visit of d frames to a state is d - 1 self-loops and one way out.

    InputError if the tree has other phones than the alignment.
    """
    frames = torch.zeros(tree.num_pdfs, dtype=torch.long)
    visits = torch.zeros_like(frames)
    for shard in alignment.shards():
        pdf_ids = shard.pdf_ids(tree)
        frames += torch.bincount(pdf_ids, minlength=tree.num_pdfs)
        visits += torch.bincount(pdf_ids[shard.visit_starts()], minlength=tree.num_pdfs)
    return TransitionModel.from_counts(frames, visits)


def accumulate_stats(alignment: Alignment, feats: Tensor) -> TriphoneStats:
    """Statistics of each triphone state; feats [T, D] are the frames of the alignment, row for row.

    ValueError for another number of frames.
    """
    if feats.shape[0] != len(alignment):
        raise ValueError(f"statistics: expected {len(alignment)} frames as aligned, found {feats.shape[0]}")

    def keys() -> Iterator[Tensor]:
        for shard in alignment.shards():
            yield triphone_states(*shard.triphones(), shard.state)

    return accumulate(keys, feats)
