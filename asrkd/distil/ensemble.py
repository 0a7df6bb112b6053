"""The average of several teachers, and how much they disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.nnet.ensembles import Ensemble
from asrkd.nnet.evaluate import CHUNK, iter_logits
from asrkd.nnet.inputs import InputSource

Mean = Literal["arithmetic", "geometric"]


def combine(logits: Tensor, temperature: float = 1.0, mean: Mean = "arithmetic") -> Tensor:
    """Log-posteriors [N, S] of an ensemble with logits [M, N, S], at `temperature` T (Hinton et al. 2015, section 2).

        arithmetic:  log (1/M sum_m softmax(z_m / T))
        geometric:   log of the normalised geometric mean of softmax(z_m / T), which is log softmax(1/M sum_m z_m / T)

    The geometric mean at any temperature follows from the mean logits. The arithmetic mean must be computed for each
    temperature. InputError for logits of another shape or another mean.
    """
    if logits.dim() != 3:
        raise InputError(f"ensemble: expected logits [M, N, S], found {list(logits.shape)}")
    if mean == "geometric":
        return F.log_softmax(logits.mean(dim=0) / temperature, dim=1)
    if mean == "arithmetic":
        members = F.log_softmax(logits / temperature, dim=2)
        return torch.logsumexp(members, dim=0) - math.log(len(logits))
    raise InputError(f"ensemble mean: expected arithmetic or geometric, found {mean!r}")


class AveragedEnsemble(nn.Module):
    """An ensemble as one model: inputs [N, D] -> log-posteriors [N, S], which can be used as logits."""

    def __init__(self, ensemble: Ensemble, mean: Mean = "arithmetic", temperature: float = 1.0) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.mean: Mean = mean
        self.temperature = temperature

    @property
    def num_parameters(self) -> int:
        return self.ensemble.num_parameters

    @property
    def macs_per_frame(self) -> int:
        """Multiply-accumulate operations of a forward pass through every member, per frame."""
        return self.ensemble.macs_per_frame

    def forward(self, x: Tensor) -> Tensor:
        return combine(self.ensemble(x), self.temperature, self.mean)


@dataclass(frozen=True)
class Disagreement:
    """How much the members of an ensemble differ, on average over `num_frames` frames."""

    pairwise: list[list[float]]
    """[M, M]: fraction of frames in which the top class of two members differs."""
    mean_kl: list[float]
    """[M]: KL(member || arithmetic mean of the members), nats per frame."""
    accuracy: list[float] | None
    """[M]: frame accuracy of each member; None without labels."""
    ensemble_accuracy: float | None
    """Frame accuracy of the arithmetic mean; None without labels."""
    num_frames: int
    """Number of frames."""


def disagreement(logits: Tensor, labels: Tensor | None = None) -> Disagreement:
    """How much the members of logits [M, N, S] differ, at temperature 1; with labels [N] their accuracies too."""
    members = F.log_softmax(logits.float(), dim=2)
    ensemble = combine(logits.float())
    best = members.argmax(dim=2)
    pairwise = (best.unsqueeze(0) != best.unsqueeze(1)).double().mean(dim=2)
    kl = (members.exp() * (members - ensemble)).sum(dim=2).double().mean(dim=1)
    accuracy, ensemble_accuracy = None, None
    if labels is not None:
        accuracy = (best == labels).double().mean(dim=1).tolist()
        ensemble_accuracy = float((ensemble.argmax(dim=1) == labels).double().mean())
    return Disagreement(pairwise.tolist(), kl.tolist(), accuracy, ensemble_accuracy, logits.shape[1])


def measure_disagreement(
    ensemble: Ensemble,
    inputs: InputSource,
    labels: Tensor | None = None,
    ids: Tensor | None = None,
    chunk: int = CHUNK,
) -> Disagreement:
    """`disagreement` over all examples or `ids`, computed in chunks; labels [len(inputs)] are indexed by id too."""
    parts = []
    for part_ids, logits in iter_logits(ensemble, inputs, ids, chunk):
        part_labels = None if labels is None else labels[part_ids].to(logits.device)
        parts.append(disagreement(logits, part_labels))
    return _pool(parts)


def _pool(parts: list[Disagreement]) -> Disagreement:
    """The average over all parts, weighted by their numbers of frames."""
    total = sum(part.num_frames for part in parts)
    weights = torch.tensor([part.num_frames / total for part in parts], dtype=torch.float64)

    def mean_of(values: list[list[list[float]]] | list[list[float]] | list[float]) -> Tensor:
        return torch.tensordot(weights, torch.tensor(values, dtype=torch.float64), dims=1)

    accuracy = [part.accuracy for part in parts if part.accuracy is not None]
    ensemble_accuracy = [part.ensemble_accuracy for part in parts if part.ensemble_accuracy is not None]
    return Disagreement(
        pairwise=mean_of([part.pairwise for part in parts]).tolist(),
        mean_kl=mean_of([part.mean_kl for part in parts]).tolist(),
        accuracy=mean_of(accuracy).tolist() if accuracy else None,
        ensemble_accuracy=float(mean_of(ensemble_accuracy)) if ensemble_accuracy else None,
        num_frames=total,
    )
