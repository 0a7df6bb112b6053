"""Memory: tensors on the disk, blocks that a process allocates again and again, what it reports when there is none."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from asrkd.errors import InputError, naming

# Frames (or their ids) that are converted or counted at once, where all of them might not fit into memory: 22 minutes.
SHARD_FRAMES = 1 << 17

# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD (malloc.h), in bytes.
MALLOC_SETTINGS = {-3: 2**30, -1: 2**31 - 1, -2: 2**27}

# From this size on, a tensor that `large_tensor` makes has pages of its own.
LARGE_BYTES = 1 << 20

# What torch and k2 write where they could not allocate; numpy raises MemoryError, as does C++'s std::bad_alloc.
NO_MEMORY = ("allocate memory", "not enough memory", "bad_alloc", "out of memory")


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> Tensor:
    """An uninitialised tensor: in memory without a folder, else on the disk of that folder.

    One on the disk is a mapped file without a name, which the system removes with the last tensor that uses it. Its
    pages are in memory only as long as there is room. OSError, with the folder's name, if the disk is full.
    """
    num_bytes = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    if folder is None or num_bytes == 0:
        return torch.empty(shape, dtype=dtype)
    with naming(folder), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)  # a write to a page that the disk has no room for kills
        mapped = mmap.mmap(file.fileno(), num_bytes)
    return torch.frombuffer(mapped, dtype=dtype).view(shape)


def large_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor in memory, whose pages the system gets back with the last tensor that uses it.

    What shards are loaded into would else be blocks of malloc. A thread's blocks lie in heaps of 64 MB, and shards that
    differ a little in size leave gaps there that nothing fits: the memory of a training grew with the number of shards.
    MemoryError where there is none.
    """
    num_bytes = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    if num_bytes < LARGE_BYTES:
        return torch.empty(shape, dtype=dtype)
    try:
        mapped = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"cannot allocate memory: {num_bytes:,} bytes ({error})") from None
    return torch.frombuffer(mapped, dtype=dtype).view(shape)


def spans(num_frames: int, size: int = SHARD_FRAMES) -> Iterator[slice]:
    """Slices of at most `size` frames that cover all."""
    for begin in range(0, num_frames, size):
        yield slice(begin, min(begin + size, num_frames))


def utterance_shards(offsets: Tensor, max_frames: int = SHARD_FRAMES) -> Iterator[tuple[int, int]]:
    """(first utterance, one past the last) of each shard of whole utterances.

    Utterance n has the frames offsets[n] to offsets[n + 1] - 1. A shard has at most `max_frames` frames, unless one
    utterance has more.
    """
    first, num_utterances = 0, len(offsets) - 1
    while first < num_utterances:
        after = int(torch.searchsorted(offsets, offsets[first] + max_frames, right=True)) - 1
        after = max(first + 1, min(after, num_utterances))
        yield first, after
        first = after


@contextmanager
def named_memory_error(message: str) -> Iterator[None]:
    """InputError with this message where the block runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(text in str(error).lower() for text in NO_MEMORY):
            raise
        raise InputError(message) from None


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next allocation. Returns False where the C library is another one.

    A training step allocates the same activations and gradients each time, and a search of k2 blocks as large.
    Without this, glibc maps each block again and the kernel clears its pages, which took a fifth of the training's time
    (LOG.md). The process never gives back what it once needed.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return all(set_option(option, value) == 1 for option, value in MALLOC_SETTINGS.items())


def release_freed_memory() -> bool:
    """Have glibc give the system every free page of its heaps. Returns False where the C library is another one.

    What one phase of a process freed, and the next one cannot use because of gaps, would else be memory of both.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    trim(0)
    return True
