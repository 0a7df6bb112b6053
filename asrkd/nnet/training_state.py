"""The objects of one training that all its epochs and steps use, and the batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrkd.nnet.cuda_graph import CudaGraphStep
from asrkd.nnet.data_parallel import BatchShard
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.rng import SHARDS, ModelGenerators, epoch_generator
from asrkd.nnet.sharded_data import Shard, ShardedData
from asrkd.nnet.stacked import Model
from asrkd.nnet.training_data import DevSet


@dataclass(frozen=True)
class TrainingState:
    """Model, optimiser, data and random generators of one training."""

    model: Model
    network: nn.Module
    """The same model, wrapped: compiled, or averaging its gradients over the processes (DistributedDataParallel)."""
    average: Model | None
    """Moving average of the weights, if there is one."""
    optimizer: torch.optim.Optimizer
    data: ShardedData
    dev: DevSet | None
    options: TrainOptions
    device: torch.device
    precision: str
    """float32 or bfloat16."""
    generators: tuple[ModelGenerators, ...]
    """One set per model."""
    batch_shard: BatchShard
    cuda_graph: CudaGraphStep | None
    """Replays the steps as a CUDA graph, where that is possible."""

    @property
    def evaluated_model(self) -> Model:
        """The weights that are evaluated and saved: the moving average, if there is one."""
        return self.model if self.average is None else self.average

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.options.epochs

    @property
    def steps_per_epoch(self) -> int:
        return sum(map(self.steps_in, self.data.sizes))

    @property
    def frames_per_step(self) -> int:
        """Frames of a batch of each model, over all processes."""
        return min(self.options.batch_size, min(self.data.sizes))

    @property
    def frames_per_epoch(self) -> int:
        sizes = self.data.sizes
        return len(self.generators) * sum(self.steps_in(size) * min(self.options.batch_size, size) for size in sizes)

    def steps_in(self, num_examples: int) -> int:
        """Steps on a shard: an incomplete last batch is dropped, unless it is the only one."""
        return max(1, num_examples // self.options.batch_size)


def epoch_batches(state: TrainingState, epoch: int) -> Iterator[tuple[Shard, list[Tensor]]]:
    """For each step of an epoch: the shard it trains on, and each model's batch of ids [b] for this process."""
    shard_order = epoch_generator(0, epoch, SHARDS, torch.device("cpu"))
    for one in state.generators:
        one.start_epoch(epoch)
    for shard in state.data.iterate(torch.randperm(len(state.data.sizes), generator=shard_order).tolist()):
        ids = shard.epoch_ids(epoch)
        batches = [
            state.batch_shard.split_epoch(one.shuffle(ids), state.options.batch_size, state.data.inputs_device)
            for one in state.generators
        ]
        for step in range(state.steps_in(len(ids))):
            yield shard, [of_model[step] for of_model in batches]
        del shard, batches, ids  # free the memory before another shard loads
