"""Where and in which arithmetic the training runs."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from asrkd.errors import InputError
from asrkd.workflow.distributed import SINGLE_PROCESS, ProcessGroup

logger = logging.getLogger(__name__)

# bfloat16 must win by this factor, so that noise in the probe cannot make two runs of one recipe differ.
MIN_BFLOAT16_GAIN = 1.3
PROBE_SHAPE = (1024, 1024, 1024)
PROBE_REPEATS = 5


def resolve_device(name: str) -> torch.device:
    """The torch device of `cpu`, `cuda`, `cuda:1` or `auto`: a GPU that the installed torch has code for, else the CPU.

    InputError if there is none such.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and _has_code_for_gpu() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"train.device: expected cpu, cuda or auto, found {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("train.device: expected a CUDA device, found none (use --train.device=cpu)")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """`float32` or `bfloat16`; `auto` is what the device multiplies faster."""
    if name != "auto":
        return name
    gain = bfloat16_gain(device)
    choice = "bfloat16" if gain >= MIN_BFLOAT16_GAIN else "float32"
    logger.info("bfloat16 products run at %.2f times the rate of float32 on %s: %s", gain, device, choice)
    return choice


def _has_code_for_gpu() -> bool:
    """An older torch sees a newer GPU too, and fails at its first kernel there."""
    major, minor = torch.cuda.get_device_capability()
    for arch in torch.cuda.get_arch_list():
        kind, _, number = arch.partition("_")
        built = int("".join(filter(str.isdigit, number)))
        # Machine code serves GPUs of its own generation, compute_* (PTX) all later ones.
        if built <= 10 * major + minor and (kind == "compute" or built // 10 == major):
            return True
    return False


def compiled(model: nn.Module, ranks: ProcessGroup = SINGLE_PROCESS) -> nn.Module:
    """`model` as torch.compile makes it, with the same weights. InputError where that cannot be."""
    if not hasattr(torch, "compile"):
        raise InputError(f"train.compile: expected torch 2, found {torch.__version__}")
    if ranks.size > 1:
        raise InputError("train.compile: expected one process, found torchrun's")
    return torch.compile(model)  # type: ignore[no-any-return]


@functools.cache
def bfloat16_gain(device: torch.device) -> float:
    """The rate of bfloat16 matrix products over that of float32, by the quickest of a few, interleaved."""
    quickest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    rows, inner, columns = PROBE_SHAPE
    operands = {
        dtype: (
            torch.ones(rows, inner, dtype=dtype, device=device),
            torch.ones(inner, columns, dtype=dtype, device=device),
        )
        for dtype in quickest
    }
    for _ in range(PROBE_REPEATS):
        for dtype, (a, b) in operands.items():
            start = time.perf_counter()
            torch.mm(a, b).flatten()[0].item()
            quickest[dtype] = min(quickest[dtype], time.perf_counter() - start)
    return quickest[torch.float32] / quickest[torch.bfloat16]


@contextmanager
def cpu_threads(num_threads: int) -> Iterator[None]:
    """Run the block with `num_threads` (0: as it was), and denormal numbers taken as zero.

    The momentum of a unit that died decays to denormals, which most processors add a hundred times slower.
    """
    before = torch.get_num_threads()
    torch.set_flush_denormal(True)
    if num_threads:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
