"""One process's shard of each batch, so that several processes together compute the batch that one would.

The batch size and the order of the examples do not depend on the number of processes (a DistributedSampler would split
the epoch instead). Every process takes its shard of every batch and weights its loss by the shard's size, so that the
sum over the processes is the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.augment import Augmentation
from asrkd.nnet.evaluate import evaluate
from asrkd.nnet.inputs import Batch, InputSource
from asrkd.nnet.rng import DROPOUT
from asrkd.nnet.stacked import Model
from asrkd.nnet.training_data import DevSet, TrainingData
from asrkd.workflow.distributed import ProcessGroup


@dataclass(frozen=True)
class BatchShard:
    """Selects this process's examples of a batch.

    A process that has loaded only some of the inputs takes those. Where every process has all inputs, process r of R
    takes examples r, r + R, r + 2R, ... of the batch.
    """

    ranks: ProcessGroup
    in_memory: Tensor | None
    """Whether this process has each example [N] in memory, on the CPU; None if it has all."""

    @classmethod
    def create(cls, ranks: ProcessGroup, data: TrainingData, num_models: int, device: torch.device) -> BatchShard:
        """InputError unless exactly one process has each training example; the count is summed on `device`."""
        in_memory: Tensor | None = getattr(data.inputs, "in_memory", None) if ranks.size > 1 else None
        if in_memory is not None:
            if num_models > 1:
                raise InputError("training: expected every process to load all inputs of a stack, found some missing")
            in_memory = in_memory.cpu()
            count = int(ranks.all_reduce(in_memory[data.frame_ids].sum().to(device)))
            if count != len(data.frame_ids):
                raise InputError(f"training: expected processes to load {len(data.frame_ids)} frames, found {count}")
        return cls(ranks, in_memory)

    def split_epoch(self, ids: Tensor, batch_size: int, device: torch.device) -> Sequence[Tensor]:
        """An epoch's ids [n] (CPU) as batches on `device`, without the examples that this process has not loaded.

        All batches at once: copying them to a GPU one by one would make the CPU wait at every step.
        """
        if self.in_memory is None:
            return ids.to(device).split(batch_size)
        return [batch[self.in_memory[batch]].to(device) for batch in ids.split(batch_size)]

    def load(
        self, inputs: InputSource, ids: Tensor, generator: torch.Generator, augment: Augmentation | None = None
    ) -> Batch:
        """This process's shard of a batch [b] that `split_epoch` made, distorted where there is augmentation.

        A process that has only some of the inputs mixes these with each other alone.
        """
        batch = Batch(inputs.batch(ids, generator), ids)
        if augment is not None:
            batch = augment(batch, generator)
        if self.in_memory is not None:
            return batch
        # The whole batch is augmented, so that the random numbers are the same for any number of processes.
        return batch.rows(slice(self.ranks.rank, None, self.ranks.size))

    @property
    def dropout_purpose(self) -> str:
        """Seeds the dropout masks: each process needs its own, or equal rows of all shards would share their mask."""
        return DROPOUT if self.ranks.is_main else f"{DROPOUT} {self.ranks.rank}"

    def evaluate(self, model: Model, dev: DevSet) -> tuple[float, float]:
        """(accuracy, cross-entropy) as the function `evaluate` computes them, with the examples split by process."""
        if self.ranks.size == 1:
            return evaluate(model, dev.inputs, dev.labels, dev.ids)
        ids = torch.arange(len(dev.labels)) if dev.ids is None else dev.ids
        labelled = ids[dev.labels[ids] >= 0]
        shard = labelled[self.ranks.rank :: self.ranks.size]
        accuracy, nats = evaluate(model, dev.inputs, dev.labels, shard) if len(shard) else (0.0, 0.0)
        sums = torch.tensor([accuracy, nats], dtype=torch.float64, device=next(model.parameters()).device) * len(shard)
        correct, total = self.ranks.all_reduce(sums).tolist()
        return correct / len(labelled), total / len(labelled)
