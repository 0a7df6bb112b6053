"""The entries of results.json that identify a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class RunProvenance:
    """Command, versions, seed and device of a run: the first entries of results.json (docs/file_formats.md)."""

    recipe: str
    """Name of the recipe."""
    command: str
    """Command line that reproduces the whole result."""
    git_sha: str
    """Revision of the code."""
    config_sha: str
    """Fingerprint of the options that decide the results."""
    seed: int
    """Seed of the run."""
    device: str
    """Processor that trained the networks, in words."""

    def as_json(self) -> dict[str, Any]:
        """The entries by their keys in results.json."""
        return asdict(self)
