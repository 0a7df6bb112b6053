"""The options of `asrkd serve`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asrkd.errors import InputError
from asrkd.options import first_word
from asrkd.serve.limits import Limits


@dataclass(frozen=True)
class Served:
    """What is served, and where."""

    models: tuple[Path, ...] = field(metadata=first_word())
    """Models of `asrkd export`: folders, or the same as .tar.gz. The first one serves requests that name none."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0: all of this machine's, for everybody who can reach it, without a password."""
    port: int = 8000
    """Port; 0: any free one."""
    precision: Literal["auto", "float32", "int8"] = "auto"
    """Weights of the network; auto: int8 where the model has it."""
    num_workers: int | None = None
    """Processes that streams share; none: one for each core, 4 at most. Each has the models in memory."""
    num_jobs: int = 1
    """Processes that transcribe uploaded files, each one file at a time."""


@dataclass(frozen=True)
class ServerOptions(Limits, Served):
    """What is served, where, and what is refused."""

    def __post_init__(self) -> None:
        """InputError for values that cannot be."""
        super().__post_init__()
        if not 0 <= self.port < 1 << 16:
            raise InputError(f"--port: expected 0 to 65535, found {self.port}")
        for name, value in (("num-workers", self.num_workers), ("num-jobs", self.num_jobs)):
            if value is not None and value < 1:
                raise InputError(f"--{name}: expected 1 or more, found {value}")
