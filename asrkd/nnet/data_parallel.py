"""What one of several processes computes of a batch, so that all together compute the batch.

The order of the examples and the size of a batch do not depend on the number of processes. Each takes its part of
every batch; its loss counts by the size of the part, so that the sum over the processes is the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.evaluate import evaluate
from asrkd.nnet.inputs import InputSource
from asrkd.nnet.models import AcousticDnn, StackedEnsemble
from asrkd.workflow.distributed import ProcessGroup


@dataclass(frozen=True)
class Share:
    """The part of this process: the examples it holds in memory, or every size-th of the batch where it holds all."""

    ranks: ProcessGroup
    held: Tensor | None
    """Whether it holds each example [N], on the CPU; None where it holds all."""

    @classmethod
    def of(
        cls, ranks: ProcessGroup, inputs: InputSource, frame_ids: Tensor, num_models: int, device: torch.device
    ) -> Share:
        """Sums go by way of `device`. InputError unless each example is held by one process."""
        held: Tensor | None = getattr(inputs, "in_memory", None) if ranks.size > 1 else None
        if held is not None:
            if num_models > 1:
                raise InputError("training: expected every process to hold all inputs of a stack, found a part of them")
            held = held.cpu()
            count = int(ranks.total(held[frame_ids].sum().to(device)))
            if count != len(frame_ids):
                raise InputError(f"training: expected processes to hold {len(frame_ids)} frames, found {count}")
        return cls(ranks, held)

    def batches(self, ids: Tensor, batch_size: int, device: torch.device) -> Sequence[Tensor]:
        """An epoch's ids [n] (CPU) in batches on `device`, of each those whose examples this process holds: at once,
        since a GPU would be waited for."""
        if self.held is None:
            return ids.to(device).split(batch_size)
        return [part[self.held[part]].to(device) for part in ids.split(batch_size)]

    def take(self, inputs: InputSource, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs [b, D] and ids [b] of this process' part of a batch of ids, of which `batches` has left those held."""
        if self.held is not None:
            return inputs.batch(ids, generator), ids
        # All of the batch is drawn, so that what is random in it is the same for any number of processes.
        part = slice(self.ranks.rank, None, self.ranks.size)
        return inputs.batch(ids, generator)[part], ids[part]

    def dropout_purpose(self) -> str:
        """Names the numbers that draw the masks: each process' own, or examples of one place would share theirs."""
        return "dropout" if self.ranks.is_main else f"dropout {self.ranks.rank}"

    def evaluate(
        self, model: AcousticDnn | StackedEnsemble, inputs: InputSource, labels: Tensor, ids: Tensor | None
    ) -> tuple[float, float]:
        """(accuracy, cross-entropy) as `evaluate` has them, each process counting a part of the examples."""
        if self.ranks.size == 1:
            return evaluate(model, inputs, labels, ids)
        ids = torch.arange(len(labels)) if ids is None else ids
        labelled = ids[labels[ids] >= 0]
        part = labelled[self.ranks.rank :: self.ranks.size]
        accuracy, nats = evaluate(model, inputs, labels, part) if len(part) else (0.0, 0.0)
        sums = torch.tensor([accuracy, nats], dtype=torch.float64, device=next(model.parameters()).device) * len(part)
        correct, total = self.ranks.total(sums).tolist()
        return correct / len(labelled), total / len(labelled)
