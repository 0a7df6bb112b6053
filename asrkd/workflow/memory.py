"""Memory: blocks that a process allocates again and again, and what it reports when there is none."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from asrkd.errors import InputError

# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD (malloc.h), in bytes.
MALLOC_SETTINGS = {-3: 2**30, -1: 2**31 - 1, -2: 2**27}

# What torch and k2 write where they could not allocate; numpy raises MemoryError, as does C++'s std::bad_alloc.
NO_MEMORY = ("allocate memory", "not enough memory", "bad_alloc", "out of memory")


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
