"""What the training steps of every recipe write, and how later steps use it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from asrkd.files import read_object
from asrkd.workflow import provenance
from asrkd.workflow.steps import Record, Step

SUMMARY_FILE = "summary.json"
# Keys of a summary that every recipe has.
PRECISION_KEY, DEVICE_KEY = "precision", "device"
# Of the summary of a network that is the chosen one of a sweep: the name of the step that trained it.
TAKEN_FROM_KEY = "taken_from"


def training_dir(step_dir: Path) -> Path:
    """The folder of the step that trained a network: another one where it was taken from a sweep."""
    path = step_dir / SUMMARY_FILE
    name = read_object(path).get(TAKEN_FROM_KEY) if path.is_file() else None
    return step_dir if name is None else step_dir.with_name(name)


def trained_precision(step_dirs: Sequence[Path]) -> str:
    """Precision of an ensemble's scores: bfloat16 if all of its networks were trained in it, else float32."""
    precisions = {read_object(step_dir / SUMMARY_FILE, **{PRECISION_KEY: str})[PRECISION_KEY] for step_dir in step_dirs}
    return "bfloat16" if precisions == {"bfloat16"} else "float32"


def other_environment(exp_dir: Path, steps: Sequence[Step]) -> dict[str, str]:
    """Versions of Python and packages that trained and scored the networks, where they are not this environment's.

    Several versions of one package are joined by commas; nothing where there was no other environment.
    """
    here = provenance.versions()
    values: dict[str, list[str]] = defaultdict(list)
    for step in steps:
        record = Record.read(exp_dir / step.name) if step.networks_only else None
        for name, version in record.code.items() if record else ():
            if name not in ("git_sha", "asrkd") and version not in values[name]:
                values[name].append(version)
    found = {name: ", ".join(versions) for name, versions in values.items()}
    return found if any(found[name] != here.get(name) for name in ("python", "torch") if name in found) else {}


def training_provenance(step_dirs: Sequence[Path]) -> dict[str, str]:
    """What trained a system's networks: revision, source digest, versions of Python and torch, device, last end.

    Networks of an ensemble that differ in one of these give each value once.
    """
    values: dict[str, list[str]] = defaultdict(list)
    for step_dir in map(training_dir, step_dirs):
        record = Record.read(step_dir)
        assert record is not None  # scoring requires the step
        code = {"git_sha": record.code["git_sha"], "code": record.code["asrkd"]}
        code |= {name: record.code[name] for name in ("python", "torch")}
        device = read_object(step_dir / SUMMARY_FILE, **{DEVICE_KEY: str})[DEVICE_KEY]
        for key, value in {**code, "finished": record.finished, "device": device}.items():
            if value not in values[key]:
                values[key].append(value)
    return {key: ", ".join(one) for key, one in values.items()} | {"finished": max(values["finished"])}
