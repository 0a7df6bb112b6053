"""The arithmetic of the matrix products, float32 or bfloat16, chosen once and recorded."""

from __future__ import annotations

import fcntl
import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from asrkd.files import read_object, write_json
from asrkd.workflow.provenance import processor_name

logger = logging.getLogger(__name__)

PRECISION_FILE = "precision.json"
# bfloat16 must be this much faster than float32 to be chosen.
MIN_BFLOAT16_GAIN = 1.3
PROBE_SHAPE = (1024, 1024, 1024)
PROBE_REPEATS = 5


def resolve_precision(name: str, device: torch.device, choices_file: Path | None = None) -> str:
    """`float32` or `bfloat16`; for `auto`, the one that the device multiplies faster.

    Two timings can come out differently in another process, and another precision gives other results. So a choice
    is recorded in `choices_file` (JSON: processor name -> precision), and a recorded choice is used again. Processes
    that share the file wait for the one that measures.
    """
    if name != "auto":
        return name
    if choices_file is None:
        return _faster_precision(device)
    processor = processor_name(str(device))
    choices_file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(choices_file):
        choices = read_object(choices_file) if choices_file.is_file() else {}
        if choices.get(processor) not in ("float32", "bfloat16"):
            choices[processor] = _faster_precision(device)
            write_json(choices_file, choices)
    choice: str = choices[processor]
    logger.info("precision: %s (%s in %s)", choice, processor, choices_file)
    return choice


def _faster_precision(device: torch.device) -> str:
    gain = bfloat16_gain(device)
    choice = "bfloat16" if gain >= MIN_BFLOAT16_GAIN else "float32"
    logger.info("bfloat16 products run at %.2f times the rate of float32 on %s: %s", gain, device, choice)
    return choice


@functools.cache
def bfloat16_gain(device: torch.device) -> float:
    """The rate of bfloat16 matrix products relative to float32: the fastest of a few of each, in turns."""
    fastest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    rows, inner, columns = PROBE_SHAPE
    operands = {
        dtype: (
            torch.ones(rows, inner, dtype=dtype, device=device),
            torch.ones(inner, columns, dtype=dtype, device=device),
        )
        for dtype in fastest
    }
    for _ in range(PROBE_REPEATS):
        for dtype, (a, b) in operands.items():
            start = time.perf_counter()
            torch.mm(a, b).flatten()[0].item()
            fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
    return fastest[torch.float32] / fastest[torch.bfloat16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time, on any machine that sees the same file system."""
    with open(path.with_name(f".{path.name}.lock"), "a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
