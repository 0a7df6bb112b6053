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

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import tensor_digest
from asrkd.nnet.losses import accumulation_dtype, label_cross_entropy


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
    section 7).
    """

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
        return HardTargets(take_rows(self.labels, ids, device), self.label_smoothing)

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        labels = take_rows(self.labels, ids, logits.device)
        if self.label_smoothing == 0.0:
            return label_cross_entropy(logits, labels)
        return F.cross_entropy(logits.to(accumulation_dtype(logits)), labels, label_smoothing=self.label_smoothing)


def take_rows(values: Tensor, ids: Tensor, device: torch.device) -> Tensor:
    """Rows `ids` of `values` on `device`; the three may be on different devices."""
    return values.index_select(0, ids.to(values.device)).to(device)
