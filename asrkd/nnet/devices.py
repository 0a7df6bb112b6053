"""The device of a training, and the settings of the process that computes on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from asrkd.errors import InputError
from asrkd.workflow.distributed import SINGLE_PROCESS, ProcessGroup


def resolve_device(name: str) -> torch.device:
    """The torch device of `cpu`, `cuda`, `cuda:1` or `auto`.

    auto is the GPU if there is one that the installed torch has code for, else the CPU. InputError for another kind of
    device, or for a GPU that does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and _has_code_for_gpu() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device={name}: expected cpu, cuda or auto, found {name!r} (--device=cpu always works)")
    if device.type == "cuda":
        num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= num_gpus:
            raise InputError(
                f"--device={name}: expected a CUDA device, found {num_gpus or 'none'} (--device=cpu always works)"
            )
    return device


def supports_gpu() -> bool:
    """Whether there is a GPU that the installed torch has code for. Call it in a process of its own: it starts CUDA."""
    return torch.cuda.is_available() and _has_code_for_gpu()


def require_device(name: str) -> None:
    """InputError, as `resolve_device`, also for a GPU that torch finds but has no code for."""
    if resolve_device(name).type == "cuda" and not _has_code_for_gpu():
        gpu, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        raise InputError(
            f"--device={name}: expected a torch with code for {gpu} (sm_{capability[0]}{capability[1]}), found "
            f"{torch.__version__}: make .venv-train with a build for it (docs/how_to/gpu.md), or give --device=cpu"
        )


def is_cpu(name: str) -> bool:
    """Whether `name` stands for the CPU here; one that does not exist stands for none."""
    try:
        return resolve_device(name).type == "cpu"
    except InputError:
        return False


def _has_code_for_gpu() -> bool:
    """Whether torch has code for this GPU: an old torch sees a newer GPU, but its first kernel there fails."""
    major, minor = torch.cuda.get_device_capability()
    for arch in torch.cuda.get_arch_list():
        kind, _, number = arch.partition("_")
        built = int("".join(filter(str.isdigit, number)))
        # Machine code runs on GPUs of its own generation, compute_* (PTX) on all later ones.
        if built <= 10 * major + minor and (kind == "compute" or built // 10 == major):
            return True
    return False


def require_compile() -> None:
    """InputError where torch cannot compile."""
    if not hasattr(torch, "compile"):
        found = torch.__version__
        raise InputError(f"train.compile: expected torch 2, found {found} (--train.no-compile always works)")


def compile_model(model: nn.Module, ranks: ProcessGroup = SINGLE_PROCESS) -> nn.Module:
    """`model` compiled by torch.compile; it shares its weights. InputError where that is not possible."""
    require_compile()
    if ranks.size > 1:
        raise InputError("train.compile: expected one process, found torchrun's")
    return torch.compile(model)  # type: ignore[attr-defined,no-any-return]


@contextmanager
def cpu_threads(num_threads: int) -> Iterator[None]:
    """Run the block with `num_threads` (0: unchanged) and denormal numbers flushed to zero; restore both after it.

    The momentum of a dead unit decays to denormal numbers, with which most processors compute a hundred times slower.
    """
    threads_before, flush_before = torch.get_num_threads(), flushes_denormals()
    torch.set_flush_denormal(True)
    if num_threads:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(flush_before)


def flushes_denormals() -> bool:
    """Whether this thread's products flush denormal numbers to zero; torch can set this but not report it."""
    smallest_normal = torch.full((1,), torch.finfo(torch.float32).tiny)
    return not bool((smallest_normal * 0.5).any())
