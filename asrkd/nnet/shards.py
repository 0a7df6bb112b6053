"""What is learnt from, as the training takes it: all at once, or one part after another from beyond the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.evaluate import device_of
from asrkd.nnet.inputs import InputSource, Objective
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.result import generator_of
from asrkd.workflow.distributed import ProcessGroup

CPU = torch.device("cpu")


@runtime_checkable
class ShardableInputs(InputSource, Protocol):
    """Inputs that are kept elsewhere and can be had in parts."""

    def to(self, device: torch.device, dtype: torch.dtype) -> InputSource:
        """The same inputs on another device."""
        ...

    def partition(self, frame_ids: Tensor, num_parts: int, generator: torch.Generator) -> list[Tensor]:
        """frame_ids [n] in at most num_parts parts [n_i] of about equal size, none of them empty."""
        ...

    def part(self, frame_ids: Tensor, device: torch.device, dtype: torch.dtype) -> InputSource:
        """The examples frame_ids [n] alone, numbered from 0."""
        ...


@dataclass(frozen=True)
class Examples:
    """Inputs and their objective, numbered alike, and which of them are learnt: ids [n], int64, on the CPU."""

    inputs: InputSource
    objective: Objective
    ids: Tensor


@dataclass(frozen=True)
class Shards:
    """Examples in parts, of which two are in memory at most: the one that is learnt from and the next one."""

    sizes: tuple[int, ...]
    """Examples of each."""
    load: Callable[[int], Examples]
    device: torch.device
    """Where the training runs."""
    inputs_device: torch.device
    """Where their inputs are."""

    def in_turn(self, order: Sequence[int]) -> Iterator[Examples]:
        """The parts by their numbers; the next one is loaded while one is learnt from."""
        if len(self.sizes) == 1:
            yield self.load(0)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="shard") as loader:
            coming = loader.submit(self._prefetch, order[0])
            for following in [*order[1:], None]:
                examples = coming.result()
                if following is not None:
                    coming = loader.submit(self._prefetch, following)
                yield examples
                if self.device.type == "cuda":  # nothing may still read what the next but one takes the place of
                    torch.cuda.synchronize(self.device)
                del examples

    def _prefetch(self, number: int) -> Examples:
        """Load on a stream of its own, so that a GPU goes on with its work meanwhile."""
        if self.device.type != "cuda":
            return self.load(number)
        with torch.cuda.stream(self._stream):
            examples = self.load(number)
        self._stream.synchronize()
        return examples

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """One for all: memory that was freed on a stream is taken again on that one alone."""
        return torch.cuda.Stream(self.device)


def shards_of(
    inputs: InputSource,
    objective: Objective,
    frame_ids: Tensor,
    options: TrainOptions,
    ranks: ProcessGroup,
    device: torch.device,
    precision: str,
) -> Shards:
    """How the examples frame_ids come to `device`.

    Inputs of a frame store go to a GPU as a whole, or to any device in shards, in the arithmetic of the training: what
    autocast would make of every batch is made once. InputError: shards asked for where there can be none.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    parted = inputs if isinstance(inputs, ShardableInputs) else None
    if options.shard_frames is not None and (parted is None or ranks.size > 1):
        raise InputError(
            "train.shard_frames: expected frames of a store, and one process (several share the frames between them "
            "as it is)"
        )
    if parted is None or (device.type == "cpu" and options.shard_frames is None):
        return _whole(Examples(inputs, objective, frame_ids), device)
    if ranks.size > 1:
        return _whole(Examples(parted.to(device, dtype), objective, frame_ids), device)
    parts = [frame_ids]
    if options.shard_frames is not None:
        num_shards = -(-len(frame_ids) // options.shard_frames)
        # Alike for every seed, so that members of a stack share them; the order they come in is the epoch's.
        parts = parted.partition(frame_ids, num_shards, generator_of(0, 0, "shards", CPU))

    def load(number: int) -> Examples:
        ids = parts[number]
        return Examples(parted.part(ids, device, dtype), objective.part(ids, device), torch.arange(len(ids)))

    return Shards(tuple(map(len, parts)), load, device, device) if len(parts) > 1 else _whole(load(0), device)


def _whole(examples: Examples, device: torch.device) -> Shards:
    return Shards((len(examples.ids),), lambda number: examples, device, device_of(examples.inputs))
