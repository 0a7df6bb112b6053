"""What a training step of a recipe writes, and how later steps use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asrkd.files import read_json

SUMMARY_FILE = "summary.json"
PRECISION_KEY = "precision"


def trained_precision(folders: Sequence[Path]) -> str:
    """Precision to compute an ensemble's scores in: bfloat16 if all of its networks were trained in it, else float32.

    `folders` are those of the training steps. Each has a SUMMARY_FILE.
    """
    precisions = {read_json(folder / SUMMARY_FILE)[PRECISION_KEY] for folder in folders}
    return "bfloat16" if precisions == {"bfloat16"} else "float32"
