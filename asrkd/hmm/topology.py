"""The HMM of a phone: three emitting states from left to right without skips, and their transitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import tensor_digest

SILENCE_ID = 0  # silence is the first phone of every phone set
NUM_STATES = 3  # of every phone, silence included: 30 ms is the shortest phone at a 10 ms frame shift
PRIOR_MEAN_FRAMES = 2.0  # prior mean of the frames per visit to a state
PRIOR_VISITS = 2.0  # weight of that prior, in visits to a state


PdfIds = TypeVar("PdfIds", int, Tensor, NDArray[np.integer[Any]])


def pdf_to_label(pdf_id: PdfIds) -> PdfIds:
    """FSA label of a pdf_id: one more, because label 0 is epsilon. No other function makes labels."""
    return pdf_id + 1


@dataclass(frozen=True)
class TransitionModel:
    """Log-probabilities of staying in a state and of leaving it, one pair per pdf_id.

    ValueError for vectors of different lengths, or a pair that does not sum to one.
    """

    log_self_loop: Tensor
    """[S] float32, natural log."""
    log_forward: Tensor
    """[S] float32, natural log."""

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
        """S."""
        return self.log_self_loop.numel()

    @staticmethod
    def uniform(num_pdfs: int, mean_frames: float = PRIOR_MEAN_FRAMES) -> TransitionModel:
        """The same for every state: `mean_frames` expected frames per visit."""
        stay = 1.0 - 1.0 / mean_frames
        return TransitionModel(torch.full((num_pdfs,), math.log(stay)), torch.full((num_pdfs,), math.log(1.0 - stay)))

    @staticmethod
    def from_counts(frames: Tensor, visits: Tensor) -> TransitionModel:
        """From the frames and the visits of each state, [S] each, smoothed by a weak prior."""
        frames = frames.double() + PRIOR_VISITS * PRIOR_MEAN_FRAMES
        leave = (visits.double() + PRIOR_VISITS) / frames
        return TransitionModel((1.0 - leave).log().float(), leave.log().float())

    def digests(self) -> list[str]:
        """Change with any of the probabilities."""
        return [tensor_digest(part) for part in self.to_tensors().values()]

    def to_tensors(self) -> dict[str, Tensor]:
        """Both vectors by name, to be saved."""
        return {"log_self_loop": self.log_self_loop, "log_forward": self.log_forward}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> TransitionModel:
        """The model that `to_tensors` described. InputError when a tensor is missing."""
        try:
            return TransitionModel(tensors["log_self_loop"], tensors["log_forward"])
        except KeyError as missing:
            raise InputError(f"transition model: expected a tensor {missing}, found {sorted(tensors)}") from None
