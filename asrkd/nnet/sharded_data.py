"""Training examples in memory: all at once, or one shard of a large training set after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.augment import Augmentation
from asrkd.nnet.evaluate import device_of
from asrkd.nnet.inputs import InputSource, Objective
from asrkd.nnet.mixing import Mixture
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.rng import SHARDS, epoch_generator
from asrkd.nnet.training_data import TrainingData
from asrkd.workflow.distributed import ProcessGroup
from asrkd.workflow.memory import new_tensor

CPU = torch.device("cpu")


@runtime_checkable
class ShardableInputs(InputSource, Protocol):
    """Inputs on disk, from which subsets can be loaded."""

    def to(self, device: torch.device, dtype: torch.dtype) -> InputSource:
        """The same inputs in the memory of `device`."""
        ...

    def partition(
        self, frame_ids: Tensor, num_parts: int, generator: torch.Generator, folder: Path | None = None
    ) -> list[Tensor]:
        """frame_ids [n] in at most num_parts shards [n_i] of about equal size, none of them empty.

        They are on the disk of a folder where one is given.
        """
        ...

    def subset(self, frame_ids: Tensor, device: torch.device, dtype: torch.dtype) -> InputSource:
        """The examples frame_ids [n] alone, renumbered from 0, in the memory of `device`."""
        ...


@dataclass(frozen=True)
class Shard:
    """Examples in memory: inputs and objective with the same ids, and the ids [n] to train on (int64, CPU)."""

    inputs: InputSource
    objective: Objective
    ids: Tensor
    mixture: Mixture | None = None
    """Which of the ids an epoch has; None: all of them."""
    augment: Augmentation | None = None
    """Random distortions of the inputs, if there are any."""

    @classmethod
    def create(cls, data: TrainingData, inputs: InputSource) -> Shard:
        """All examples, some of which may be extra ones, with `inputs` in their place."""
        mixture = None if data.extra is None else Mixture.of(data.frame_ids, data.extra, data.folder)
        augment = None if data.augment is None else data.augment.to(device_of(inputs))
        return cls(inputs, data.objective, data.frame_ids, mixture, augment)

    def epoch_ids(self, epoch: int) -> Tensor:
        """The ids that an epoch trains on."""
        return self.ids if self.mixture is None else self.mixture.epoch(epoch)

    def __len__(self) -> int:
        """Examples of an epoch."""
        return len(self.ids) if self.mixture is None else len(self.mixture)


@dataclass(frozen=True)
class ShardedData:
    """A training set as shards. At most two are in memory: the current one, and the next one while it loads."""

    sizes: tuple[int, ...]
    """Number of examples of an epoch in each shard."""
    load: Callable[[int], Shard]
    """Reads a shard, by its index."""
    device: torch.device
    """Device of the training."""
    inputs_device: torch.device
    """Device of the inputs."""

    @classmethod
    def create(
        cls, data: TrainingData, options: TrainOptions, ranks: ProcessGroup, device: torch.device, precision: str
    ) -> ShardedData:
        """The training examples, on `device` where their source can be copied.

        Frames of a store are copied to a GPU as a whole, and to any device in shards of `options.shard_frames`. They
        are stored in the training's precision, so that autocast need not convert every batch. InputError if shards
        are asked for and the inputs or the number of processes do not allow them.
        """
        inputs, extra = data.inputs, data.extra
        shardable = inputs if isinstance(inputs, ShardableInputs) else None
        if options.shard_frames is not None and (shardable is None or ranks.size > 1):
            raise InputError(
                "train.shard_frames: expected frames of a store, and one process (several processes share the frames "
                "anyway)"
            )
        if shardable is None or (device.type == "cpu" and options.shard_frames is None):
            return cls._whole(Shard.create(data, inputs), device)
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        if ranks.size > 1:
            return cls._whole(Shard.create(data, shardable.to(device, dtype)), device)
        parts = _partition(shardable, data, options)
        augment = None if data.augment is None else data.augment.to(device)

        def mixture_of(ids: Tensor) -> Mixture | None:
            return None if extra is None else Mixture.of(ids, extra, data.folder).renumbered()

        def load(index: int) -> Shard:
            ids = parts[index]
            return Shard(
                shardable.subset(ids, device, dtype),
                data.objective.subset(ids, device),
                torch.arange(len(ids)),
                mixture_of(ids),
                None if augment is None else augment.subset(ids).to(device),
            )

        if len(parts) == 1:
            return cls._whole(load(0), device)
        sizes = [len(ids) if extra is None else len(Mixture.of(ids, extra, data.folder)) for ids in parts]
        return cls(tuple(sizes), load, device, device)

    @classmethod
    def _whole(cls, shard: Shard, device: torch.device) -> ShardedData:
        return cls((len(shard),), lambda index: shard, device, device_of(shard.inputs))

    def iterate(self, order: Sequence[int]) -> Iterator[Shard]:
        """The shards in the order of these indices; the next one loads in a thread meanwhile."""
        if len(self.sizes) == 1:
            yield self.load(0)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="shard") as loader:
            prefetched = loader.submit(self._prefetch, order[0])
            for following in [*order[1:], None]:
                shard = prefetched.result()
                if following is not None:
                    prefetched = loader.submit(self._prefetch, following)
                yield shard
                if self.device.type == "cuda":  # before this shard's memory is used again, all work on it must end
                    torch.cuda.synchronize(self.device)
                del shard

    def _prefetch(self, index: int) -> Shard:
        """Load a shard on a separate CUDA stream, so that the GPU continues to train meanwhile."""
        if self.device.type != "cuda":
            return self.load(index)
        with torch.cuda.stream(self._stream):
            shard = self.load(index)
        self._stream.synchronize()
        return shard

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """One stream for all shards: the allocator reuses memory only on the stream that freed it."""
        return torch.cuda.Stream(self.device)


def _partition(inputs: ShardableInputs, data: TrainingData, options: TrainOptions) -> list[Tensor]:
    """The ids of each shard. They do not depend on the seed, so that the members of a stack can share the shards.

    Every shard has a part of the training set, followed by its part of the extra examples.
    """

    def parts_of(ids: Tensor) -> list[Tensor]:
        if options.shard_frames is None:
            return [ids]
        num_shards = -(-len(data.frame_ids) // options.shard_frames)
        return inputs.partition(ids, num_shards, epoch_generator(0, 0, SHARDS, CPU), data.folder)

    if data.extra is None:
        return parts_of(data.frame_ids)
    mixture = Mixture.of(data.frame_ids, data.extra, data.folder)
    training, extra = parts_of(mixture.training), parts_of(mixture.extra)
    # With few utterances there may be fewer parts of one kind than of the other.
    return [_joined([part, *extra[number :: len(training)]], data.folder) for number, part in enumerate(training)]


def _joined(parts: Sequence[Tensor], folder: Path | None) -> Tensor:
    ids = new_tensor((sum(map(len, parts)),), torch.long, folder)
    return torch.cat(list(parts), out=ids)
