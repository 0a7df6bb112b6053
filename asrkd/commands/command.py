"""What a subcommand of `asrkd` is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One subcommand: its help, its options and what it does."""

    name: str
    """One word or two: `results`, `posteriors import`."""
    summary: str
    """One line for `asrkd --help`."""
    description: str
    """What `--help` of the command says after its summary."""
    examples: Sequence[str]
    options: Callable[[], Any]
    """Gives a dataclass, or an instance whose values are the defaults. A function, so that what the dataclass needs is
    imported by this command alone: `asrkd doctor` works where torch does not import."""
    run: Callable[[Any], int]
    """Of the options that were read: does the work, and gives the exit code."""
    common: Sequence[str] = ()
    """Options that `--help` lists; empty: all."""
