"""One training: its parts, and the batches of its epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrkd.nnet.checked_data import DevSet
from asrkd.nnet.cuda_graph import CudaGraphStep
from asrkd.nnet.data_parallel import Share
from asrkd.nnet.models import Model
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.result import generator_of, seed_of
from asrkd.nnet.shards import Examples, Shards


@dataclass(frozen=True)
class Draws:
    """What is random in the training of one model: in every epoch a function of (seed, epoch), so that a resumed one
    draws the same."""

    seed: int
    order: torch.Generator
    augmentation: torch.Generator
    dropout: torch.Generator
    dropout_purpose: str

    @classmethod
    def of(cls, seed: int, share: Share, inputs_device: torch.device, device: torch.device) -> Draws:
        """Not yet begun."""
        generators = torch.Generator(), torch.Generator(inputs_device), torch.Generator(device)
        return cls(seed, *generators, share.dropout_purpose())

    def begin(self, epoch: int) -> None:
        """Draw the numbers of this epoch from here on."""
        purposes = ("order", self.order), ("augmentation", self.augmentation), (self.dropout_purpose, self.dropout)
        for purpose, generator in purposes:
            generator.manual_seed(seed_of(self.seed, epoch, purpose))

    def batches(self, run: Run, examples: Examples) -> Sequence[Tensor]:
        """Ids of the examples in the order they are taken, a batch each, on the inputs' device."""
        ids = examples.ids[torch.randperm(len(examples.ids), generator=self.order)]
        return run.share.batches(ids, run.options.batch_size, run.shards.inputs_device)


@dataclass
class Run:
    """The parts of one training that its epochs and steps share."""

    model: Model
    network: nn.Module
    """The same model; its backward pass averages the gradients of all processes."""
    averaged: Model | None
    shards: Shards
    dev: DevSet | None
    optimizer: torch.optim.Optimizer
    options: TrainOptions
    device: torch.device
    precision: str
    draws: tuple[Draws, ...]
    """Of each model."""
    checkpoint_epochs: int
    share: Share
    captured: CudaGraphStep | None
    """Runs its steps, where they can be captured."""

    @property
    def steps_per_epoch(self) -> int:
        return sum(map(self.steps_of, self.shards.sizes))

    @property
    def frames_per_step(self) -> int:
        """Of each model, over all processes."""
        return min(self.options.batch_size, min(self.shards.sizes))

    @property
    def frames_per_epoch(self) -> int:
        sizes = self.shards.sizes
        return len(self.draws) * sum(self.steps_of(size) * min(self.options.batch_size, size) for size in sizes)

    def steps_of(self, num_examples: int) -> int:
        return max(1, num_examples // self.options.batch_size)

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    @property
    def averaged_model(self) -> Model:
        """The weights that are evaluated and kept."""
        return self.model if self.averaged is None else self.averaged


def epoch_batches(run: Run, epoch: int) -> Iterator[tuple[Examples, list[Tensor]]]:
    """Of each step of an epoch: what is learnt from, and the ids [b] of this process' part of each model's batch."""
    turns = generator_of(0, epoch, "shards", torch.device("cpu"))
    for member in run.draws:
        member.begin(epoch)
    for examples in run.shards.in_turn(torch.randperm(len(run.shards.sizes), generator=turns).tolist()):
        shuffled = [member.batches(run, examples) for member in run.draws]
        for step in range(run.steps_of(len(examples.ids))):
            yield examples, [ids[step] for ids in shuffled]
        del examples, shuffled  # before another shard comes
