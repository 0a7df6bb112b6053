"""Whether other processes still run, and waiting until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_SEC = 60.0


def is_running(pid: int) -> bool:
    """Whether a process lives; one that its parent has not asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; AssertionError after DEADLINE_SEC."""
    end = time.monotonic() + DEADLINE_SEC
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
