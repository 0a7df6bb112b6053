"""Processes that torchrun starts to train one model together: who they are and how they speak to each other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from asrkd.errors import InputError

Value = TypeVar("Value")

# A process waits so long for another that is late: reading its part of a large store takes minutes, not more.
TIMEOUT = timedelta(minutes=10)
# A value that processes tell each other, written as JSON, has so much room.
VALUE_BYTES = 1024
# What the messages of gloo and NCCL have in common when a process at the other end is gone.
LOST_WORDS = ("gloo", "nccl", "connection", "socket", "timed out", "broken pipe")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; alone, every method is the identity."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among those of this machine: the number of its GPU."""

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """As torchrun tells its processes; alone without it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        return cls(*(int(os.environ[name]) for name in names)) if all(name in os.environ for name in names) else cls()

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Of several processes on one machine each takes a GPU of its own."""
        if self.size == 1 or device.type != "cuda":
            return device
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Meet the others (gloo for CPUs, NCCL for GPUs). InputError when one of them is lost meanwhile.

        They stay connected until the process ends: closing the group right after its last sum can hang (torch 1.13).
        """
        if self.size == 1:
            yield
            return
        from torch import distributed

        try:
            if not distributed.is_initialized():
                distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
            yield
        except RuntimeError as error:
            if not any(word in str(error).lower() for word in LOST_WORDS):
                raise
            raise InputError(
                f"process {self.rank} of {self.size} lost another one ({str(error).splitlines()[0]}): the same "
                "command, with any number of processes, goes on from the last epoch"
            ) from None

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over the processes as they are computed."""
        return model if self.size == 1 else nn.parallel.DistributedDataParallel(model)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size == 1:
            return tensor
        from torch import distributed

        # A thread of gloo lets go of what it has summed only after it is waited for. Were it the last to hold it, it
        # would need the interpreter for that, which may have begun to end: torch 1.13 then aborts, one time in a
        # hundred. So each shape is summed in one tensor that is kept.
        kept = _SUMMED.setdefault((tensor.shape, tensor.dtype, tensor.device), torch.empty_like(tensor))
        distributed.all_reduce(kept.copy_(tensor))
        return kept.clone()

    def broadcast(self, value: Value) -> Value:
        """What the first process has."""
        return self._gathered(value)[0]

    def require_same(self, value: Any, what: str) -> None:
        """InputError unless all processes have the same value: they would wait for each other for ever."""
        found = self._gathered(value)
        for rank, other in enumerate(found):
            if other != found[0]:
                raise InputError(f"{what}: expected {found[0]} in every process, found {other} in process {rank}")

    def _gathered(self, value: Value) -> list[Value]:
        if self.size == 1:
            return [value]
        from torch import distributed

        written = json.dumps(value).encode()
        if len(written) > VALUE_BYTES:
            raise ValueError(f"expected a value of {VALUE_BYTES} bytes at most, found {len(written)}")
        device = torch.device("cuda", self.local_rank) if distributed.get_backend() == "nccl" else torch.device("cpu")
        rows = torch.zeros(self.size, VALUE_BYTES, dtype=torch.uint8, device=device)
        rows[self.rank, : len(written)] = torch.tensor(list(written), dtype=torch.uint8)
        return [json.loads(bytes(row).rstrip(b"\0")) for row in self.total(rows).tolist()]


SINGLE_PROCESS = ProcessGroup()
# What is summed, by shape, type and device.
_SUMMED: dict[tuple[torch.Size, torch.dtype, torch.device], Tensor] = {}
