"""Kaldi's mel scale: mel = 1127 ln(1 + f / 700 Hz)."""

from __future__ import annotations

import math

MEL_FACTOR, MEL_BREAK_HZ = 1127.0, 700.0


def mel(hz: float) -> float:
    """A frequency in Hz on Kaldi's mel scale."""
    return MEL_FACTOR * math.log1p(hz / MEL_BREAK_HZ)
