"""Processes that torchrun starts to train one model together, and how they exchange values."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from asrkd.errors import InputError

Value = TypeVar("Value")

# How long a process waits for a late one: reading its shard of a large store takes minutes, not more.
TIMEOUT = timedelta(minutes=10)
# Room for a value that processes exchange, as JSON.
VALUE_BYTES = 1024
# Words in the messages of gloo and NCCL when the process at the other end is gone.
LOST_WORDS = ("gloo", "nccl", "connection", "socket", "timed out", "broken pipe")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together. In a single process every method is the identity."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among those of this machine: the number of its GPU."""

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """The group that torchrun describes in the environment; a single process without it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        return cls(*(int(os.environ[name]) for name in names)) if all(name in os.environ for name in names) else cls()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device for this process: each of several processes on one machine uses another GPU."""
        if self.size == 1 or device.type != "cuda":
            return device
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Connect to the other processes (gloo for CPUs, NCCL for GPUs). InputError when one is lost during the block.

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
                "command, with any number of processes, continues from the last epoch"
            ) from None

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model; its gradients are averaged over the processes as they are computed."""
        return model if self.size == 1 else nn.parallel.DistributedDataParallel(model)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size == 1:
            return tensor
        from torch import distributed

        # A thread of gloo releases the summed tensor after the call has returned. With the last reference to it, it
        # needs the interpreter, which may be ending: torch 1.13 then aborts, one time in a hundred. So each shape is
        # summed in one tensor that lives as long as the process.
        buffer = _BUFFERS.setdefault((tensor.shape, tensor.dtype, tensor.device), torch.empty_like(tensor))
        distributed.all_reduce(buffer.copy_(tensor))
        return buffer.clone()

    def broadcast(self, value: Value) -> Value:
        """The value of the first process."""
        return self._gathered(value)[0]

    def require_same(self, value: Any, what: str) -> None:
        """InputError unless all processes have the same value: with others they would wait for each other for ever."""
        values = self._gathered(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise InputError(f"{what}: expected {values[0]} in every process, found {other} in process {rank}")

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
        return [json.loads(bytes(row).rstrip(b"\0")) for row in self.all_reduce(rows).tolist()]


def rendezvous_environment() -> dict[str, str]:
    """Variables with which children of torchrun's processes, of another torch, find each other; empty without torchrun.

    torchrun's own store may speak another version's protocol. So the first process chooses a port, publishes it there,
    and its child opens a store of its own torch on it.
    """
    ranks = ProcessGroup.from_environment()
    if ranks.size == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}  # without torchrun's store the child of the first process opens one, on MASTER_PORT
    from torch import distributed

    store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=TIMEOUT)
    key = f"asrkd/port/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if ranks.is_main:
        store.set(key, str(_free_port()))
    return {"MASTER_PORT": store.get(key).decode(), "TORCHELASTIC_USE_AGENT_STORE": "False"}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
    return port


SINGLE_PROCESS = ProcessGroup()
# Tensors that are summed, by shape, type and device.
_BUFFERS: dict[tuple[torch.Size, torch.dtype, torch.device], Tensor] = {}
