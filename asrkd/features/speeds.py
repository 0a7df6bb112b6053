"""Ids of copies at other speeds. They need no Lhotse."""

from __future__ import annotations

import re

_PREFIX = re.compile(r"^sp\d+(\.\d+)?-")


def speed_id(name: str, speed_factor: float) -> str:
    """Id of an utterance or speaker at another speed: a prefix, none at the speed it was recorded."""
    return name if speed_factor == 1.0 else f"sp{speed_factor:g}-{name}"


def original_id(name: str) -> str:
    """Id of the utterance that one is a copy of at another speed, made by this package or by Kaldi; else its own."""
    return _PREFIX.sub("", name)
