"""One training: its parts, and the batches of its epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrkd.train.checked_data import DevSet
from asrkd.train.evaluate import device_of
from asrkd.train.inputs import Objective
from asrkd.train.options import TrainOptions
from asrkd.train.result import Model, generator_of
from asrkd.train.shards import Examples, Shards
from asrkd.train.share import Share


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
    seeds: tuple[int, ...]
    checkpoint_epochs: int
    share: Share

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
        return len(self.seeds) * sum(self.steps_of(size) * min(self.options.batch_size, size) for size in sizes)

    def steps_of(self, num_examples: int) -> int:
        return max(1, num_examples // self.options.batch_size)

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    @property
    def kept_model(self) -> Model:
        """The weights that are evaluated and kept."""
        return self.model if self.averaged is None else self.averaged


@dataclass(frozen=True)
class EpochDraws:
    """What is random in an epoch of one model: functions of (seed, epoch), so that a resumed one draws the same."""

    order: torch.Generator
    augmentation: torch.Generator
    dropout: torch.Generator

    @classmethod
    def of(cls, run: Run, seed: int, epoch: int, source_device: torch.device) -> EpochDraws:
        order = generator_of(seed, epoch, "order", torch.device("cpu"))
        augmentation = generator_of(seed, epoch, "augmentation", source_device)
        dropout = generator_of(seed, epoch, run.share.dropout_purpose(), run.device)
        return cls(order, augmentation, dropout)

    def batches(self, run: Run, examples: Examples) -> list[Tensor]:
        """Ids of the examples in the order they are taken, a batch each, on the inputs' device."""
        ids = examples.ids[torch.randperm(len(examples.ids), generator=self.order)]
        device = device_of(examples.inputs)
        return [held.to(device) for held in run.share.held_of(ids.split(run.options.batch_size))]


def epoch_batches(
    run: Run, epoch: int
) -> Iterator[tuple[Objective, list[tuple[Tensor, Tensor]], list[torch.Generator]]]:
    """Of each step of an epoch: the objective; inputs [b, D] on the training's device and ids [b], of this process'
    part of the batch, and the generator of the dropout masks, of each model."""
    turns = generator_of(0, epoch, "shards", torch.device("cpu"))
    draws: list[EpochDraws] = []
    for examples in run.shards.in_turn(torch.randperm(len(run.shards.sizes), generator=turns).tolist()):
        draws = draws or [EpochDraws.of(run, seed, epoch, device_of(examples.inputs)) for seed in run.seeds]
        shuffled = [member.batches(run, examples) for member in draws]
        dropout = [member.dropout for member in draws]
        for step in range(run.steps_of(len(examples.ids))):
            batches = []
            for ids, member in zip(shuffled, draws, strict=True):
                inputs, mine = run.share.take(examples.inputs, ids[step], member.augmentation)
                batches.append((inputs.to(run.device), mine))
            yield examples.objective, batches, dropout
