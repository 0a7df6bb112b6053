"""What the training steps of every recipe write, and how later steps use it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from asrkd.files import read_object
from asrkd.workflow.steps import Record

SUMMARY_FILE = "summary.json"
# Keys of a summary that every recipe has.
PRECISION_KEY, DEVICE_KEY = "precision", "device"


def trained_precision(step_dirs: Sequence[Path]) -> str:
    """Precision of an ensemble's scores: bfloat16 if all of its networks were trained in it, else float32."""
    precisions = {read_object(step_dir / SUMMARY_FILE, **{PRECISION_KEY: str})[PRECISION_KEY] for step_dir in step_dirs}
    return "bfloat16" if precisions == {"bfloat16"} else "float32"


def training_provenance(step_dirs: Sequence[Path]) -> dict[str, str]:
    """Revision, source digest, torch version and device that trained a system's networks, and the time of the last one.

    Networks of an ensemble that differ in one of these give each value once.
    """
    values: dict[str, list[str]] = defaultdict(list)
    for step_dir in step_dirs:
        record = Record.read(step_dir)
        assert record is not None  # scoring requires the step
        code = {"git_sha": record.code["git_sha"], "code": record.code["asrkd"], "torch": record.code["torch"]}
        device = read_object(step_dir / SUMMARY_FILE, **{DEVICE_KEY: str})[DEVICE_KEY]
        for key, value in {**code, "finished": record.finished, "device": device}.items():
            if value not in values[key]:
                values[key].append(value)
    return {key: ", ".join(one) for key, one in values.items()} | {"finished": max(values["finished"])}
