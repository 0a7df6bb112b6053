"""The distillation loss (Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2).

    L = alpha * T^2 * L_soft(T)  +  (1 - alpha) * L_hard

L_soft(T) is the cross-entropy of the teacher's posteriors p with the student's q, both softened by a temperature T:

    p = softmax(v / T),  q = softmax(z / T),  L_soft(T) = - sum_i p_i log q_i

for the teacher's logits v and the student's z. L_hard is the ordinary cross-entropy with the labels, at T = 1.

How a stored posterior becomes a loss, for a batch of B examples, S classes and k stored classes per example:

    store = PosteriorStore.open(folder)               # asrkd.distil.store: written once from the teachers' logits
    objective = Distillation(labels, store, DistilOptions(alpha=0.7, temperature=2.0))
    loss = objective(student(inputs), ids)            # logits [B, S], ids [B] -> scalar

    # inside: the rows of these ids at temperature T, then the loss
    targets = store.targets(ids, temperature)         # SoftTargets: pdf_ids [B, k], probs [B, k], tail [B]
    soft = soft_cross_entropy(logits, targets, temperature)

examples/distil_loop.py is all of it in a plain PyTorch loop. Where the teachers score the student's own inputs, which
may be distorted, there is no store:

    objective = Distillation(None, OnlineTargets(ensemble), DistilOptions(alpha=1.0, temperature=2.0))
    loss = objective.batch_loss(student(inputs), Batch(inputs, ids))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.distil.ensemble import Mean, combine
from asrkd.errors import InputError
from asrkd.files import fingerprint, tensor_digest
from asrkd.nnet.inputs import Batch, take_rows
from asrkd.nnet.losses import (
    accumulation_dtype,
    label_cross_entropy,
    mixed_label_cross_entropy,
    partial_label_cross_entropy,
    top_k_cross_entropy,
)
from asrkd.options import added_later

# Largest error of a row's sum of probabilities (float32 softmax over thousands of senones).
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class DistilOptions:
    """The student's loss: alpha * T^2 * L_soft(T) + (1 - alpha) * L_hard."""

    alpha: float = 0.7
    """Weight of the soft targets. The hard labels get the rest: 1 is soft targets alone, 0 is hard labels alone."""
    temperature: float = 2.0
    """Temperature of the teacher's and the student's softmax in the soft loss."""
    t_squared: bool = True
    """Multiply the soft loss by the squared temperature, so that one alpha suits every temperature."""
    targets: Literal["stored", "online"] = "stored"
    """stored: the teachers' top-k posteriors of stage 7. online: the teachers score the student's inputs in the same
    step, all classes at any temperature, so that distorted inputs need no storage; a step takes longer. Hard labels of
    mixtures are mixed in the same proportion; alpha 1 needs none."""
    online_teachers: Literal["all", "one"] = field(default="all", metadata=added_later())
    """all: each online teacher scores each example, and their mean is the target. one: one of them does, another one in
    the next epoch, so that a step takes hardly longer than with one teacher; over epochs that is their arithmetic
    mean."""

    @property
    def loss_values(self) -> dict[str, Any]:
        """What decides the loss, targets apart."""
        return {"alpha": self.alpha, "temperature": self.temperature, "t_squared": self.t_squared}

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"distil.alpha: expected a weight in [0, 1], found {self.alpha}")
        if not self.temperature > 0.0:
            raise InputError(f"distil.temperature: expected a positive temperature, found {self.temperature}")


class SoftTargets(NamedTuple):
    """The teacher's posteriors of B examples: the top k classes and the mass of the others, or all classes."""

    pdf_ids: Tensor | None
    """Classes [B, k], distinct within a row; None if probs has all classes in order."""
    probs: Tensor
    """Probabilities of pdf_ids [B, k], or of all classes [B, S]."""
    tail: Tensor | None
    """Probability mass [B] of the classes that are not in pdf_ids; None if probs has all classes."""

    def to(self, device: torch.device) -> SoftTargets:
        pdf_ids = None if self.pdf_ids is None else self.pdf_ids.to(device)
        tail = None if self.tail is None else self.tail.to(device)
        return SoftTargets(pdf_ids, self.probs.to(device), tail)


class TargetSource(Protocol):
    """Soft targets by example id: a posterior store, or a matrix of probabilities."""

    @property
    def fingerprint(self) -> str:
        """A hash of these targets."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the targets."""
        ...

    def targets(self, frame_ids: Tensor, temperature: float) -> SoftTargets:
        """Targets of frame_ids [B] at `temperature`. InputError if there are none at that temperature."""
        ...

    def subset(self, ids: Tensor, device: torch.device) -> TargetSource:
        """The targets of ids [n] alone, renumbered from 0, in the memory of `device`."""
        ...


@runtime_checkable
class InputTargets(Protocol):
    """Soft targets that follow from the inputs: `asrkd.distil.online.OnlineTargets`."""

    @property
    def fingerprint(self) -> str:
        """A hash of what makes the targets."""
        ...

    @property
    def device(self) -> torch.device:
        """The device on which they are made."""
        ...

    def of_inputs(self, inputs: Tensor, temperature: float) -> SoftTargets:
        """Targets of inputs [B, D] at `temperature`."""
        ...

    def subset(self, ids: Tensor, device: torch.device) -> InputTargets:
        """The same targets, made on `device`."""
        ...


class DenseTargets:
    """Soft targets in memory, probs [N, S], at one temperature."""

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
        """Targets from the logits [M, N, S] of an ensemble, at `temperature`."""
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
        return SoftTargets(None, take_rows(self.probs, frame_ids, self.probs.device), None)

    def subset(self, ids: Tensor, device: torch.device) -> DenseTargets:
        return DenseTargets(take_rows(self.probs, ids, device), self.temperature)


class Distillation:
    """The loss alpha * T^2 * L_soft(T) + (1 - alpha) * L_hard, as an `asrkd.nnet.Objective`.

    L_soft(T) is `soft_cross_entropy` with the targets, L_hard the cross-entropy with labels [N]. Its gradient per
    example is

        dL/dz = alpha * T^2 * (q - p) / T  +  (1 - alpha) * (softmax(z) - onehot(y))

    The soft gradient (q - p)/T shrinks as 1/T^2 when T grows, because q - p itself shrinks as 1/T. The factor T^2
    (section 2) keeps the balance with the hard labels at every temperature.

    Examples without a label (a negative one) have the soft loss alone. Where a `labelled_share` of an epoch's examples
    have one, L_hard is the sum over these, divided by that share of the batch: their mean, but for the batch's luck.

    `labels` may be None if alpha is 1. `targets` has the same ids as `labels`: a PosteriorStore or DenseTargets. Or
    they are the OnlineTargets of asrkd.distil.online, which `batch_loss` gives the student's inputs.
    """

    def __init__(
        self,
        labels: Tensor | None,
        targets: TargetSource | InputTargets,
        options: DistilOptions,
        labelled_share: float = 1.0,
    ) -> None:
        if labels is None and options.alpha < 1.0:
            raise InputError(f"distil.alpha: expected 1 without hard labels, found {options.alpha}")
        self.labels = None if labels is None else labels.long()
        if not 0.0 < labelled_share <= 1.0:
            raise InputError(
                f"distillation: expected a labelled share above 0 and of at most 1, found {labelled_share}"
            )
        self.target_source = targets
        self.options = options
        self.labelled_share = labelled_share

    @property
    def fingerprint(self) -> str:
        labels = None if self.labels is None else tensor_digest(self.labels)
        share = [] if self.labelled_share == 1.0 else [self.labelled_share]
        return fingerprint([self.options.loss_values, labels, self.target_source.fingerprint, *share])

    @property
    def device(self) -> torch.device:
        """The device of targets and labels; the CPU if they are on different devices."""
        devices = {self.target_source.device} | (set() if self.labels is None else {self.labels.device})
        return devices.pop() if len(devices) == 1 else torch.device("cpu")

    def subset(self, ids: Tensor, device: torch.device) -> Distillation:
        labels = None if self.labels is None else take_rows(self.labels, ids, device)
        return Distillation(labels, self.target_source.subset(ids, device), self.options, self.labelled_share)

    @property
    def reads_inputs(self) -> bool:
        """Whether the targets are made from the inputs."""
        return isinstance(self.target_source, InputTargets)

    @property
    def mixes_targets(self) -> bool:
        """Whether there are targets for mixtures: stored posteriors are those of single examples."""
        return self.reads_inputs or self.options.alpha == 0.0

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar in nats, for logits [B, S] of examples ids [B].

        InputError if the targets are made from inputs.
        """
        source = self.target_source
        if isinstance(source, InputTargets):
            raise InputError("distil.targets: expected stored targets, found online ones, whose loss needs the inputs")
        return self._mixed_with_labels(
            logits,
            lambda temperature: source.targets(ids, temperature),
            lambda labels: self._label_loss(logits, take_rows(labels, ids, logits.device)),
        )

    def batch_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean loss as `__call__`, with online targets: the teachers score the batch's inputs [B, D].

        The labels of mixtures are mixed in the proportion of their inputs.
        """
        source = self.target_source

        def soft_targets(temperature: float) -> SoftTargets:
            if isinstance(source, InputTargets):
                return source.of_inputs(batch.inputs, temperature)
            return source.targets(batch.ids, temperature)

        def hard_loss(labels: Tensor) -> Tensor:
            own = take_rows(labels, batch.ids, logits.device)
            if batch.mixed_ids is None or batch.weights is None:
                return self._label_loss(logits, own)
            others = take_rows(labels, batch.mixed_ids, logits.device)
            is_partial = self.labelled_share < 1.0
            loss = mixed_label_cross_entropy(logits, own, others, batch.weights, is_partial=is_partial)
            return loss / self.labelled_share if is_partial else loss

        return self._mixed_with_labels(logits, soft_targets, hard_loss)

    def _label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L_hard for logits [B, S] and the batch's labels [B]."""
        if self.labelled_share == 1.0:
            return label_cross_entropy(logits, labels)
        return partial_label_cross_entropy(logits, labels) / self.labelled_share

    def _mixed_with_labels(
        self,
        logits: Tensor,
        soft_targets: Callable[[float], SoftTargets],
        hard_loss: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """alpha * T^2 * L_soft(T) + (1 - alpha) * L_hard: the targets at a temperature, and the loss of labels [N]."""
        alpha = self.options.alpha
        loss = torch.zeros((), dtype=accumulation_dtype(logits), device=logits.device)
        if alpha > 0.0:
            temperature = self.options.temperature
            targets = soft_targets(temperature).to(logits.device)
            soft = soft_cross_entropy(logits, targets, temperature)
            loss = alpha * (temperature**2 if self.options.t_squared else 1.0) * soft
        if alpha < 1.0 and self.labels is not None:
            loss = loss + (1.0 - alpha) * hard_loss(self.labels)
        return loss


class LogitMatching:
    """Half the squared distance of the student's logits z [B, S] from the teacher's v [N, S], as an `Objective`.

    The mean over examples and classes of (z_i - v_i)^2 / 2, after the mean of each row is subtracted, as equation 4 of
    the paper assumes. Its gradient (z_i - v_i)/S is the limit of the gradient of T^2 L_soft(T) when T grows (section
    2.1).
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

    def subset(self, ids: Tensor, device: torch.device) -> LogitMatching:
        return LogitMatching(take_rows(self.logits, ids, device))

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        student = _centred(logits.to(accumulation_dtype(logits)))
        teacher = take_rows(self.logits, ids, logits.device).to(student.dtype)
        return 0.5 * F.mse_loss(student, teacher)


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


def soft_cross_entropy(logits: Tensor, targets: SoftTargets, temperature: float) -> Tensor:
    """L_soft(T): the mean over B of the cross-entropy of targets p with q = softmax(logits [B, S] / T), a scalar.

    With all classes in the targets it is - sum_i p_i log q_i. With the top-k classes K and the tail mass
    r = 1 - sum_{i in K} p_i it is

        L = - sum_{i in K} p_i log q_i  -  r log (1 - sum_{i in K} q_i)

    The other classes count as one class, because the store knows only their mass. The gradient is (q_i - p_i)/T for i
    in K and (q_j - r q_j / q_tail)/T for the others: the student itself spreads the mass of the tail. The teacher is
    then a minimum of the loss; a tail spread evenly, or by a prior, would pull the student away from it. For k = S
    this is the loss with all classes. Otherwise L minus the entropy of the targets is at most the KL divergence over
    all classes (data processing inequality).
    """
    if targets.pdf_ids is None:
        scaled = logits.to(accumulation_dtype(logits)) / temperature
        return F.cross_entropy(scaled, targets.probs.to(scaled.dtype))
    assert targets.tail is not None
    return top_k_cross_entropy(logits, targets.pdf_ids, targets.probs, targets.tail, temperature)
