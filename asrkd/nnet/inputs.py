"""What the training loop needs from its inputs and its loss: two protocols, and their simplest implementations.

Training data are two objects that share their example ids 0 ... N-1 (for speech: the frame ids of a store).
`InputSource` gives the network's inputs of a batch of ids, `Objective` the loss of the network's logits for the same
ids. A step of the loop is, without its details,

    logits = model(inputs.batch(ids))     # [B, D] -> [B, S]
    loss = objective(logits, ids)         # mean over the batch, nats
    loss.backward()

`HardTargets` is the objective of ordinary training, `asrkd.distil.loss.Distillation` that of distillation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import tensor_digest
from asrkd.nnet.losses import accumulation_dtype, label_cross_entropy, mixed_label_cross_entropy
from asrkd.workflow.memory import large_tensor


class InputSource(Protocol):
    """The network's inputs by example id: spliced frames of a store, jittered images, rows of a matrix.

    An optional attribute `device` (default: the CPU) is where ids and inputs are.
    """

    @property
    def dim(self) -> int:
        """Values in one input, D."""
        ...

    def __len__(self) -> int:
        """Number of examples, N."""
        ...

    def batch(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Inputs [B, D], floats, of examples ids [B] (int64). `generator` draws augmentation; without it there is none.

        On a GPU it may be recorded in a CUDA graph (`TrainOptions.cuda_graph`): it must not wait for the GPU, and all
        random numbers must come from `generator`.
        """
        ...


class Objective(Protocol):
    """A loss with the targets of all examples, by id.

    An optional attribute `labels` [N] is checked against the number of the model's outputs.
    """

    @property
    def fingerprint(self) -> str:
        """A hash of the loss and its targets; a training with another objective is another training."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the targets."""
        ...

    def subset(self, ids: Tensor, device: torch.device) -> Objective:
        """The objective of examples ids [n] alone, renumbered from 0, with its targets on `device`."""
        ...

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        """The mean loss over a batch, in nats.

        logits [B, S] are the network's outputs for examples ids [B], in bfloat16 if it trains in that. The result is a
        scalar, float32 (float64 for float64 logits). On a GPU it may be recorded in a CUDA graph, as
        `InputSource.batch`.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """The examples of a step as the network sees them: with augmentation they are distorted, or mixtures of two."""

    inputs: Tensor
    """[B, D]."""
    ids: Tensor
    """Example ids [B]."""
    mixed_ids: Tensor | None = None
    """Ids [B] of the second examples of mixtures; None where no example is mixed."""
    weights: Tensor | None = None
    """Weight λ [B] of the first example in each mixture; the second has 1-λ."""

    def rows(self, which: slice) -> Batch:
        """Some of the examples."""
        parts = (None if part is None else part[which] for part in (self.mixed_ids, self.weights))
        return Batch(self.inputs[which], self.ids[which], *parts)

    def to(self, device: torch.device) -> Batch:
        """The same batch with inputs and weights on `device`; ids stay on the device of the inputs' source."""
        weights = None if self.weights is None else self.weights.to(device)
        return Batch(self.inputs.to(device), self.ids, self.mixed_ids, weights)

    @classmethod
    def concatenated(cls, batches: Sequence[Batch]) -> Batch:
        """The batches of several models, one after the other."""
        if len(batches) == 1:
            return batches[0]

        def joined(name: str) -> Tensor | None:
            parts = [getattr(batch, name) for batch in batches]
            return None if parts[0] is None else torch.cat(parts)

        inputs, ids = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("inputs", "ids"))
        return cls(inputs, ids, joined("mixed_ids"), joined("weights"))


@runtime_checkable
class BatchObjective(Protocol):
    """An objective that can also learn from mixtures of examples, or whose targets depend on the inputs."""

    @property
    def reads_inputs(self) -> bool:
        """Whether the targets depend on the inputs, so that every step calls `batch_loss`."""
        ...

    @property
    def mixes_targets(self) -> bool:
        """Whether `batch_loss` takes mixtures."""
        ...

    def batch_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean loss over a batch, in nats, for logits [B, S]: as `Objective.__call__`."""
        ...


class ArrayInputs:
    """The rows of a matrix [N, D] as inputs, on the device of the matrix."""

    def __init__(self, values: Tensor) -> None:
        if values.dim() != 2:
            raise InputError(f"inputs: expected a matrix [N, D], found {list(values.shape)}")
        self.values = values
        self.device = values.device

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    def __len__(self) -> int:
        return self.values.shape[0]

    def batch(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.values.index_select(0, ids)


class HardTargets:
    """Cross-entropy against class labels y [N]: the mean over a batch of -log softmax(z)_y.

    With label smoothing e the target is (1 - e) on the label plus e/S on each of the S classes (Szegedy et al. 2016,
    section 7). The target of a mixture of two examples is λ on the label of one and 1-λ on that of the other.
    """

    reads_inputs = False
    mixes_targets = True

    def __init__(self, labels: Tensor, label_smoothing: float = 0.0) -> None:
        if labels.dim() != 1 or labels.is_floating_point():
            raise InputError(f"labels: expected integers [N], found {labels.dtype} {list(labels.shape)}")
        if not 0.0 <= label_smoothing < 1.0:
            raise InputError(f"label_smoothing: expected a value in [0, 1), found {label_smoothing}")
        self.labels = labels.long()
        self.label_smoothing = label_smoothing

    @property
    def fingerprint(self) -> str:
        return tensor_digest(self.labels, f"hard {self.label_smoothing}")

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def subset(self, ids: Tensor, device: torch.device) -> HardTargets:
        return HardTargets(load_rows(self.labels, ids, device), self.label_smoothing)

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        labels = take_rows(self.labels, ids, logits.device)
        if self.label_smoothing == 0.0:
            return label_cross_entropy(logits, labels)
        return F.cross_entropy(logits.to(accumulation_dtype(logits)), labels, label_smoothing=self.label_smoothing)

    def batch_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        if batch.mixed_ids is None or batch.weights is None:
            return self(logits, batch.ids)
        labels = [take_rows(self.labels, ids, logits.device) for ids in (batch.ids, batch.mixed_ids)]
        return mixed_label_cross_entropy(logits, labels[0], labels[1], batch.weights, self.label_smoothing)


def take_rows(values: Tensor, ids: Tensor, device: torch.device) -> Tensor:
    """Rows `ids` of `values` on `device`; the three may be on different devices."""
    return values.index_select(0, ids.to(values.device)).to(device)


def load_rows(values: Tensor, ids: Tensor, device: torch.device) -> Tensor:
    """As `take_rows`, of a shard: rows that stay for many batches."""
    if values.device.type != "cpu":
        return take_rows(values, ids, device)
    rows = large_tensor((len(ids), *values.shape[1:]), values.dtype)
    return torch.index_select(values, 0, ids.cpu(), out=rows).to(device)
