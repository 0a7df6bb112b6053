"""Hidden Markov topology of a phone (three emitting states, left to right, no skips) and its transitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import tensor_digest

if TYPE_CHECKING:
    from asrkd.hmm.alignment import Alignment
    from asrkd.hmm.tree import SenoneTree

NUM_STATES = 3  # of every phone, silence included: 30 ms is the shortest phone at a 10 ms frame shift
EPSILON_LABEL = 0
PRIOR_MEAN_FRAMES = 2.0  # frames in one state before anything is counted
PRIOR_VISITS = 2.0  # weight of that belief, in visits to a state


PdfIds = TypeVar("PdfIds", int, Tensor, NDArray[np.integer[Any]])


def pdf_to_label(pdf_id: PdfIds) -> PdfIds:
    """FSA label of a pdf_id: one more, because label 0 is epsilon. The only place where labels are made."""
    return pdf_id + 1


@dataclass(frozen=True)
class TransitionModel:
    """Log-probabilities of staying in a state and of leaving it, one pair a pdf_id.

    log_self_loop: [S] float32, natural log.
    log_forward: [S] float32, natural log; the two exponentials sum to one.
    """

    log_self_loop: Tensor
    log_forward: Tensor

    def __post_init__(self) -> None:
        if self.log_self_loop.dim() != 1 or self.log_self_loop.shape != self.log_forward.shape:
            raise ValueError(
                "transitions: expected two vectors of one length, found "
                f"{tuple(self.log_self_loop.shape)} and {tuple(self.log_forward.shape)}"
            )
        total = self.log_self_loop.exp() + self.log_forward.exp()
        if not torch.allclose(total, torch.ones_like(total), atol=1e-4):
            raise ValueError(f"transitions: expected pairs that sum to one, found sums down to {total.min():.4f}")

    @property
    def num_pdfs(self) -> int:
        return self.log_self_loop.numel()

    @staticmethod
    def uniform(num_pdfs: int, mean_frames: float = PRIOR_MEAN_FRAMES) -> TransitionModel:
        """The same for every state: `mean_frames` expected frames a visit."""
        stay = 1.0 - 1.0 / mean_frames
        return TransitionModel(torch.full((num_pdfs,), math.log(stay)), torch.full((num_pdfs,), math.log(1.0 - stay)))

    @staticmethod
    def from_counts(frames: Tensor, visits: Tensor) -> TransitionModel:
        """From frames spent in and visits made to each state [S], smoothed by a weak common belief."""
        frames = frames.double() + PRIOR_VISITS * PRIOR_MEAN_FRAMES
        leave = (visits.double() + PRIOR_VISITS) / frames
        return TransitionModel((1.0 - leave).log().float(), leave.log().float())

    @staticmethod
    def estimate(alignment: Alignment, tree: SenoneTree) -> TransitionModel:
        """Counted on an alignment: a visit of d frames to a state is d-1 self-loops and one way out."""
        pdf_ids = alignment.pdf_ids(tree)
        frames = torch.bincount(pdf_ids, minlength=tree.num_pdfs)
        visits = torch.bincount(pdf_ids[alignment.visit_starts()], minlength=tree.num_pdfs)
        return TransitionModel.from_counts(frames, visits)

    def digests(self) -> list[str]:
        """What tells these transitions from others."""
        return [tensor_digest(part) for part in self.to_tensors().values()]

    def to_tensors(self) -> dict[str, Tensor]:
        return {"log_self_loop": self.log_self_loop, "log_forward": self.log_forward}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> TransitionModel:
        """Back from `to_tensors`; InputError when a tensor is missing."""
        try:
            return TransitionModel(tensors["log_self_loop"], tensors["log_forward"])
        except KeyError as missing:
            raise InputError(f"transition model: expected a tensor {missing}, found {sorted(tensors)}") from None
