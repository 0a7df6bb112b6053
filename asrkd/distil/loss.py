"""The distillation objective (Hinton, Vinyals and Dean 2015, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.distil.ensemble import Mean, combine
from asrkd.errors import InputError
from asrkd.files import fingerprint, tensor_digest
from asrkd.nnet.inputs import take
from asrkd.nnet.losses import accumulated, label_cross_entropy, top_k_cross_entropy

# How far the probabilities of a row may be from a sum of one (float32 softmax over thousands of senones).
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class DistilOptions:
    """What a student learns from: L = alpha * L_soft(temperature) + (1 - alpha) * L_hard."""

    alpha: float = 0.7
    """Weight of the soft targets, the hard labels getting the rest: 1 for soft alone, 0 for hard alone."""
    temperature: float = 2.0
    """Temperature of both teacher's and student's softmax in the soft term."""
    t_squared: bool = True
    """Multiply the soft term by temperature squared, so that alpha means the same at every temperature."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"distil.alpha: expected a weight in [0, 1], found {self.alpha}")
        if not self.temperature > 0.0:
            raise InputError(f"distil.temperature: expected a positive temperature, found {self.temperature}")


class SoftTargets(NamedTuple):
    """Teacher's distributions of B examples: the k likeliest classes and the others' mass, or all classes."""

    pdf_ids: Tensor | None
    """Classes [B, k], distinct in a row; None when probs has every class in order."""
    probs: Tensor
    """Their probabilities [B, k], or all [B, S]."""
    tail: Tensor | None
    """Mass [B] of the classes not in pdf_ids; None when there are none."""

    def to(self, device: torch.device) -> SoftTargets:
        pdf_ids = None if self.pdf_ids is None else self.pdf_ids.to(device)
        tail = None if self.tail is None else self.tail.to(device)
        return SoftTargets(pdf_ids, self.probs.to(device), tail)


class TargetSource(Protocol):
    """Soft targets by example number: a posterior store, dense targets."""

    @property
    def fingerprint(self) -> str:
        """Tells these targets from others."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they are."""
        ...

    def targets(self, frame_ids: Tensor, temperature: float) -> SoftTargets:
        """Targets of frame_ids [B] at `temperature`. InputError if it cannot be had at that temperature."""
        ...

    def part(self, ids: Tensor, device: torch.device) -> TargetSource:
        """Targets of ids [n] alone, then numbered from 0, in the memory of `device`."""
        ...


class DenseTargets:
    """Soft targets held whole, probs [N, S], at the one temperature they were made at."""

    def __init__(self, probs: Tensor, temperature: float) -> None:
        if probs.dim() != 2:
            raise InputError(f"soft targets: expected probabilities [N, S], found {list(probs.shape)}")
        worst = float((probs.sum(dim=1) - 1.0).abs().max())
        if not worst <= SUM_TOLERANCE or bool((probs < 0).any()):
            raise InputError(f"soft targets: expected rows that sum to one, found one that is {worst:.3g} off")
        self.probs = probs
        self.temperature = temperature

    @classmethod
    def from_logits(cls, logits: Tensor, temperature: float, mean: Mean = "geometric") -> DenseTargets:
        """Targets of an ensemble's logits [M, N, S] at `temperature`."""
        return cls(combine(logits, temperature, mean).exp(), temperature)

    @property
    def fingerprint(self) -> str:
        return tensor_digest(self.probs, f"dense {self.temperature}")

    @property
    def device(self) -> torch.device:
        return self.probs.device

    def targets(self, frame_ids: Tensor, temperature: float) -> SoftTargets:
        if temperature != self.temperature:
            raise InputError(f"soft targets: expected temperature {self.temperature}, found {temperature}")
        return SoftTargets(None, take(self.probs, frame_ids, self.probs.device), None)

    def part(self, ids: Tensor, device: torch.device) -> DenseTargets:
        return DenseTargets(take(self.probs, ids, device), self.temperature)


class Distillation:
    """L = alpha * T^2 * L_soft(T) + (1 - alpha) * L_hard, as an Objective of the training loop.

    L_soft is the cross-entropy between the teacher's and the student's softmax at temperature T. Its
    gradient, dL_soft/dz = (q - p)/T per example, shrinks as 1/T^2 while T grows, hence T^2 (section 2).
    """

    def __init__(self, labels: Tensor | None, targets: TargetSource, options: DistilOptions) -> None:
        if labels is None and options.alpha < 1.0:
            raise InputError(f"distil.alpha: expected 1 without hard labels, found {options.alpha}")
        self.labels = None if labels is None else labels.long()
        self.target_source = targets
        self.options = options

    @property
    def fingerprint(self) -> str:
        labels = None if self.labels is None else tensor_digest(self.labels)
        return fingerprint([self.options, labels, self.target_source.fingerprint])

    @property
    def device(self) -> torch.device:
        """Where its targets and its labels are; the CPU if they are not in one place."""
        found = {self.target_source.device} | (set() if self.labels is None else {self.labels.device})
        return found.pop() if len(found) == 1 else torch.device("cpu")

    def part(self, ids: Tensor, device: torch.device) -> Distillation:
        labels = None if self.labels is None else take(self.labels, ids, device)
        return Distillation(labels, self.target_source.part(ids, device), self.options)

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        alpha = self.options.alpha
        loss = torch.zeros((), dtype=accumulated(logits), device=logits.device)
        if alpha > 0.0:
            temperature = self.options.temperature
            targets = self.target_source.targets(ids, temperature).to(logits.device)
            soft = soft_cross_entropy(logits, targets, temperature)
            loss = alpha * (temperature**2 if self.options.t_squared else 1.0) * soft
        if alpha < 1.0 and self.labels is not None:
            hard = label_cross_entropy(logits, take(self.labels, ids, logits.device))
            loss = loss + (1.0 - alpha) * hard
        return loss


class LogitMatching:
    """Squared distance between the student's logits z [B, S] and the teacher's v [N, S], as an Objective.

    Mean over examples and classes of (z_i - v_i)^2 / 2, each row less its mean, as equation 4 of the paper assumes.
    Its gradient, (z_i - v_i)/S, is the limit of the soft targets' with T^2 as the temperature grows (section 2.1).
    """

    def __init__(self, logits: Tensor) -> None:
        if logits.dim() != 2:
            raise InputError(f"logit matching: expected logits [N, S], found {list(logits.shape)}")
        self.logits = _centred(logits)

    @property
    def fingerprint(self) -> str:
        return tensor_digest(self.logits, "logit matching")

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def part(self, ids: Tensor, device: torch.device) -> LogitMatching:
        return LogitMatching(take(self.logits, ids, device))

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        found = _centred(logits.to(accumulated(logits)))
        wanted = take(self.logits, ids, logits.device).to(found.dtype)
        return 0.5 * F.mse_loss(found, wanted)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


def soft_cross_entropy(logits: Tensor, targets: SoftTargets, temperature: float) -> Tensor:
    """Mean over B of the cross-entropy between targets and the softmax of logits [B, S] at `temperature`.

    With q = softmax(logits / T), top-k targets p on classes K and a tail mass r = 1 - sum_K p:

        L = - sum_K p_i log q_i  -  r log (1 - sum_K q_i)

    The tail counts as one class, of which only the mass is known. The gradient is (q_i - p_i)/T in K and
    (q_j - r q_j / q_tail)/T elsewhere: the tail's mass is spread as the student itself spreads it. So nothing
    is claimed that the store does not know, the teacher itself is a minimum (a tail spread evenly, or by a
    prior, would pull the student off it), and with k = S this is the dense cross-entropy. By the data
    processing inequality, L minus the targets' entropy never exceeds the dense KL.
    """
    if targets.pdf_ids is None:
        scaled = logits.to(accumulated(logits)) / temperature
        return F.cross_entropy(scaled, targets.probs.to(scaled.dtype))
    assert targets.tail is not None
    return top_k_cross_entropy(logits, targets.pdf_ids, targets.probs, targets.tail, temperature)
