"""Stages 7 and 8 of the transfer set: its frames and posteriors behind those of the training split."""

from __future__ import annotations

import torch
from torch import Tensor

from asrkd.align import Alignment
from asrkd.align.labels import NO_LABEL, store_labels
from asrkd.distil.joined import JoinedTargets
from asrkd.distil.store import PosteriorStore
from asrkd.features.joined import JoinedFrames
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.hmm.tree import SenoneTree
from asrkd.recipe.folders import TRANSFER, TREE_FILE, RunFolders
from asrkd.recipe.label_networks import copies_frames
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.distributed import ProcessGroup
from asrkd.workflow.memory import SHARD_FRAMES, new_tensor


def transfer_store(folders: RunFolders) -> FrameStore:
    """Frames of the transfer set."""
    return FrameStore.open(folders.features(TRANSFER))


def inputs_with_transfer(train: FrameStore, options: SpeechOptions) -> SplicedFrames:
    """Spliced frames of the training utterances, then those of the transfer set.

    In memory are all of them, those of every size-th utterance where several processes share a training, and none
    where the training reads them in parts, or to a GPU.
    """
    joined = JoinedFrames(train, ((TRANSFER, transfer_store(RunFolders(options.exp_dir))),))
    ranks = ProcessGroup.from_environment()
    utt_ids = None if ranks.size == 1 else joined.utt_ids[ranks.rank :: ranks.size]
    if ranks.size == 1 and copies_frames(options):
        utt_ids = ()
    return SplicedFrames(joined, options.context.left, options.context.right, utt_ids=utt_ids)


def labels_with_transfer(labels: Tensor, options: SpeechOptions) -> Tensor:
    """The labels [T] of the training frames, then those of the transfer set; on the disk.

    They are NO_LABEL but for utterances that were aligned with the words of another recogniser.
    """
    folders = RunFolders(options.exp_dir)
    store = transfer_store(folders)
    joined = new_tensor((len(labels) + len(store),), torch.long, options.exp_dir).fill_(NO_LABEL)
    _copy(labels, joined)
    if options.transfer.transcripts is not None:
        alignment, tree = Alignment.load(folders.alignment(TRANSFER)), SenoneTree.load(folders.tree / TREE_FILE)
        _copy(store_labels(alignment, store, tree, options.exp_dir), joined[len(labels) :])
    return joined


def _copy(source: Tensor, destination: Tensor) -> None:
    """Copy a tensor [n] to the first n values of another, some at a time."""
    for part, found in zip(destination.split(SHARD_FRAMES), source.split(SHARD_FRAMES), strict=False):
        part[: len(found)] = found


def targets_with_transfer(train: PosteriorStore, tree_fingerprint: str, options: SpeechOptions) -> JoinedTargets:
    """The posteriors of the training frames, then those of the transfer set.

    InputError unless these were made of its frames and of this tree.
    """
    folders = RunFolders(options.exp_dir)
    has_lattices = options.transfer.targets == "lattice"
    store = PosteriorStore.open(folders.transfer_lattice_targets if has_lattices else folders.transfer_posteriors)
    store.require(transfer_store(folders).fingerprint, tree_fingerprint)
    return JoinedTargets([train, store])
