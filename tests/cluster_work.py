"""Tasks for the tests of executors, in a module that other processes can import."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.files import load_tensors


@dataclass(frozen=True)
class Squares:
    """number -> its square; notes in `folder` which process did it, and refuses or fails at chosen numbers."""

    folder: Path
    sleep_sec: float = 0.0
    refused: int = -1
    broken: int = -1

    def open(self) -> Callable[[int], int]:
        (self.folder / f"opened_{os.getpid()}").touch()
        return self.square

    def square(self, number: int) -> int:
        if number == self.refused:
            raise InputError(f"utt_{number}: expected frames, found none")
        if number == self.broken:
            raise ZeroDivisionError("a defect")
        assert torch.get_num_threads() == 1
        time.sleep(self.sleep_sec)
        (self.folder / f"done_{number}_{os.getpid()}").touch()
        return number**2


@dataclass(frozen=True)
class Deadly:
    """Ends every process that does it."""

    def open(self) -> Callable[[int], int]:
        return lambda number: os._exit(1)


@dataclass(frozen=True)
class Products:
    """number -> a product of matrices in a file, which another number of threads would round otherwise."""

    file: Path

    def open(self) -> Callable[[int], NDArray[np.float32]]:
        matrices = load_tensors(self.file)[0]["matrices"]
        return lambda number: (matrices[number] @ matrices.sum(0)).numpy()


@dataclass(frozen=True)
class ProcessIds:
    """number -> the process that computed it; `uses_k2` says that it is a task with k2."""

    uses_k2: bool

    def open(self) -> Callable[[int], int]:
        return lambda number: os.getpid()
