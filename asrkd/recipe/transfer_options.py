"""Options of the transfer set: speech without transcripts that distilled students learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asrkd.errors import InputError


@dataclass(frozen=True)
class TransferOptions:
    """Speech without transcripts. Distilled students learn from it what the teachers say of it.

    Nothing else of a run sees it: no label, tree, teacher, prior or language model, and no baseline.
    """

    recordings: Path | None = None
    """Lhotse manifest of recordings or of cuts, a Kaldi data directory (its text is not read), or a folder of audio.
    Audio longer than 30 s is cut into equal pieces of at most 30 s."""
    share: float = 0.5
    """Fraction of a distilled student's frames that are from it, in every epoch. All training frames are in each
    epoch, so that 0.5 doubles its length; the transfer set's follow in a random order, over as many epochs as it has
    frames for, and then again."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise InputError(f"--transfer.share: expected a fraction above 0 and below 1, found {self.share:g}")
