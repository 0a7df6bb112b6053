"""What the training loop asks of its data and of its objective."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import tensor_digest
from asrkd.nnet.losses import accumulated, label_cross_entropy


class InputSource(Protocol):
    """Examples by number: spliced frames of a store, jittered images, a plain matrix."""

    @property
    def dim(self) -> int:
        """Values in one input."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def batch(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Inputs [B, dim] of examples ids [B]; `generator` for augmentation. All on the source's device.

        On a GPU it is captured (`TrainOptions.capture`): nothing in it may wait for the GPU, and what is random comes
        from `generator` alone.
        """
        ...


class Objective(Protocol):
    """A loss that knows its targets by example number."""

    @property
    def fingerprint(self) -> str:
        """Tells this objective and its targets from others."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its targets are."""
        ...

    def part(self, ids: Tensor, device: torch.device) -> Objective:
        """The same for examples ids [n] alone, then numbered from 0, its targets on `device`."""
        ...

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Mean loss, a float32 scalar, of logits [B, S], in the arithmetic of the network, for examples ids [B].

        Captured with the rest of a step on a GPU, as `InputSource.batch` is.
        """
        ...


class ArrayInputs:
    """Inputs held as one matrix [N, D]."""

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
    """Cross-entropy to integer labels [N]; `label_smoothing` mixes in so much of the uniform distribution."""

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

    def part(self, ids: Tensor, device: torch.device) -> HardTargets:
        return HardTargets(take(self.labels, ids, device), self.label_smoothing)

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        labels = take(self.labels, ids, logits.device)
        if self.label_smoothing == 0.0:
            return label_cross_entropy(logits, labels)
        return F.cross_entropy(logits.to(accumulated(logits)), labels, label_smoothing=self.label_smoothing)


def take(values: Tensor, ids: Tensor, device: torch.device) -> Tensor:
    """Rows `ids` of `values`, wherever either lives, on `device`."""
    return values.index_select(0, ids.to(values.device)).to(device)
