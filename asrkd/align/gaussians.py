"""Diagonal Gaussian mixtures, one per senone: the acoustic model before there is a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from asrkd.workflow.memory import spans

VARIANCE_FLOOR = 0.01  # share of the variance of all frames, in each dimension
# Share of the average variance of all components that each one's variance gets. Without it a state of wide variance
# takes its neighbours' frames: on speech with known phone times, 1 to 4 points fewer boundaries are within 30 ms.
POOLED_VARIANCE = 0.5
WEIGHT_FLOOR = 1e-3  # of a component in its mixture
SPLIT_STEP = 0.2  # standard deviations that the halves of a component part, as in HTK and Kaldi
CHUNK_FRAMES = 20000


@dataclass(frozen=True)
class DiagonalMixtures:
    """S mixtures of C diagonal Gaussians over D features.

    mean, variance: [S, C, D]; log_weight: [S, C], natural log.
    """

    mean: Tensor
    variance: Tensor
    log_weight: Tensor

    @staticmethod
    def estimate(feats: Tensor, pdf_ids: Tensor, num_pdfs: int) -> DiagonalMixtures:
        """One Gaussian per senone from frames [T, D] and labels [T]; unseen ones get that of all frames."""
        return _from_sums(feats, pdf_ids, lambda frames, pdf: torch.ones(len(frames), 1), num_pdfs, prior=None)

    def to_tensors(self) -> dict[str, Tensor]:
        """As `from_tensors` takes them."""
        return {"mean": self.mean, "variance": self.variance, "log_weight": self.log_weight}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> DiagonalMixtures:
        """The mixtures of `to_tensors`; other tensors are ignored."""
        return DiagonalMixtures(tensors["mean"], tensors["variance"], tensors["log_weight"])

    @property
    def num_components(self) -> int:
        return self.log_weight.shape[1]

    def split(self) -> DiagonalMixtures:
        """Twice the components: each parts along its standard deviations."""
        step = SPLIT_STEP * self.variance.sqrt()
        return DiagonalMixtures(
            torch.cat([self.mean + step, self.mean - step], dim=1),
            torch.cat([self.variance, self.variance], dim=1),
            torch.cat([self.log_weight, self.log_weight], dim=1) - math.log(2.0),
        )

    def reestimate(self, feats: Tensor, pdf_ids: Tensor) -> DiagonalMixtures:
        """One step of expectation-maximisation, each frame shared among its own senone's components only."""
        if self.num_components == 1:
            return DiagonalMixtures.estimate(feats, pdf_ids, self.mean.shape[0])
        return _from_sums(feats, pdf_ids, self._shares, self.mean.shape[0], prior=self)

    def _shares(self, frames: Tensor, pdf: Tensor) -> Tensor:
        """How frames [t, D] are shared among the components of their senones [t]: [t, C], each row of sum 1."""
        variance = self.variance[pdf]
        distance = ((frames[:, None] - self.mean[pdf]).square() / variance + variance.log()).sum(2)
        return torch.softmax(self.log_weight[pdf] - 0.5 * distance, dim=1)

    def log_likelihoods(self, feats: Tensor) -> Tensor:
        """Log-density of each frame under each senone: [T, D] -> [T, S] float32, natural log."""
        precision = 1.0 / self.variance
        constant = self.log_weight - 0.5 * (
            (self.mean.square() * precision + self.variance.log()).sum(2) + self.mean.shape[2] * math.log(2 * math.pi)
        )
        weights = torch.cat([-0.5 * precision, self.mean * precision], dim=2).flatten(0, 1)  # [S*C, 2D]
        inputs = torch.cat([feats.square(), feats], dim=1)
        components = torch.addmm(constant.flatten(), inputs, weights.t()).unflatten(1, self.log_weight.shape)
        return components.logsumexp(2) if self.num_components > 1 else components.squeeze(2)


def _from_sums(
    feats: Tensor,
    pdf_ids: Tensor,
    shares: Callable[[Tensor, Tensor], Tensor],
    num_pdfs: int,
    prior: DiagonalMixtures | None,
) -> DiagonalMixtures:
    """Maximum likelihood from frames [T, D] with labels [T]; components without frames are those of `prior`.

    `shares` gives frames [t, D] and their labels [t] to the components: [t, C].
    """
    overall_mean, overall_variance = feats.mean(0), feats.var(0, unbiased=False)
    dim, components = feats.shape[1], 1 if prior is None else prior.num_components
    count = torch.zeros(num_pdfs, components, dtype=torch.double)
    total = torch.zeros(num_pdfs, components, dim, dtype=torch.double)
    squares = torch.zeros_like(total)
    for chunk in spans(feats.shape[0], CHUNK_FRAMES):
        frames, pdf = feats[chunk], pdf_ids[chunk]
        share = shares(frames, pdf).double()
        # Around the mean of all, so that E[x²] - E[x]² loses nothing.
        centred = (frames - overall_mean).double()
        weighted = share[:, :, None] * centred[:, None]
        count.index_add_(0, pdf, share)
        total.index_add_(0, pdf, weighted)
        squares.index_add_(0, pdf, weighted * centred[:, None])
    seen = count > 1.0
    safe = count.clamp_min(1.0)[..., None]
    mean = total / safe
    variance = torch.maximum(squares / safe - mean.square(), VARIANCE_FLOOR * overall_variance.double())
    pooled = (count[..., None] * variance).sum((0, 1)) / count.sum()
    variance = ((1.0 - POOLED_VARIANCE) * variance + POOLED_VARIANCE * pooled).float()
    mean = mean.float() + overall_mean
    weight = (count / count.sum(1, keepdim=True).clamp_min(1.0)).clamp_min(WEIGHT_FLOOR)
    log_weight = (weight / weight.sum(1, keepdim=True)).log().float()
    shape = (num_pdfs, components, dim)
    old = prior or DiagonalMixtures(overall_mean.expand(shape), overall_variance.expand(shape), log_weight)
    return DiagonalMixtures(
        torch.where(seen[..., None], mean, old.mean),
        torch.where(seen[..., None], variance, old.variance),
        log_weight,
    )
