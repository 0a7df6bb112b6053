"""Options of `asrkd export`. Nothing is imported here that its help does not need."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from asrkd.errors import InputError
from asrkd.options import first_word

ARCHIVE_SUFFIX = ".tar.gz"


@dataclass(frozen=True)
class ExportOptions:
    """A system of a finished run, and the model to make of it."""

    run: Path = field(metadata=first_word())
    """Folder of a finished run. `asrkd export exp/an4 --out model` is enough."""
    out: Path
    """Folder to write, or a file that ends in .tar.gz: new, or a model to replace."""
    system: str = "distilled"
    """System of the run, as its RESULTS.md names it: distilled, baseline, teacher_0, ensemble, distilled_512."""
    license: str = "not stated"
    """Licence of the model, for its card. Those of the corpora may bind it."""
    max_wer_loss: float = 0.3
    """Points of WER that 8-bit weights may lose. If they lose more, the model has its float32 network alone."""
    check_utterances: int | None = None
    """Utterances of the test set that the check decodes, spread evenly; none: all of them."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_wer_loss) and self.max_wer_loss >= 0):
            raise InputError(f"--max-wer-loss: expected points of WER, 0 or more, found {self.max_wer_loss:g}")
        if self.check_utterances is not None and self.check_utterances < 1:
            raise InputError(f"--check-utterances: expected at least 1, found {self.check_utterances}")
        if not self.license.strip():
            raise InputError("--license: expected a name such as CC-BY-4.0, found nothing")
