"""Memory of a process that allocates the same large blocks again and again."""

from __future__ import annotations

import ctypes

# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD (malloc.h), in bytes.
MALLOC_SETTINGS = {-3: 2**30, -1: 2**31 - 1, -2: 2**27}


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
