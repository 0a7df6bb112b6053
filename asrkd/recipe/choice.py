"""Stage 8: which student of a sweep is a system, by the development speakers.

The measure is the cross-entropy. It weighs the posterior of every frame, which is what decoding adds up; frame accuracy
sees only the frames whose best senone changes, and students of a sweep differ in it by less than its noise.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrkd.files import fingerprint, read_object, write_json
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.students import Student, Sweep, sweeps
from asrkd.recipe.trained import SUMMARY_FILE, TAKEN_FROM_KEY
from asrkd.workflow.steps import PENDING_FILE, STAMP_FILE

CHOICE_FILE = "choice.json"
MEASURE = "dev_cross_entropy"


def dev_figures(student: Student, exp_dir: Path) -> dict[str, float]:
    """Frame accuracy and cross-entropy of a trained student on the development speakers."""
    summary = read_object(exp_dir / student.step / SUMMARY_FILE, dev_accuracy=float, dev_loss=float)
    return {"dev_frame_accuracy": summary["dev_accuracy"], MEASURE: summary["dev_loss"]}


def best_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the lowest cross-entropy, the first among equals. One that is not a number is the worst."""
    return min(rows, key=lambda row: row[MEASURE] if math.isfinite(row[MEASURE]) else math.inf)


def choose(sweep: Sweep, options: SpeechOptions, out_dir: Path) -> None:
    """Write which student of the sweep is best on the development speakers; among equals, the configured one."""
    rows = [
        {"student": candidate.name, **candidate.settings, **dev_figures(candidate, options.exp_dir)}
        for candidate in sweep.candidates
    ]
    best = best_of(rows)
    settings = next(candidate.settings for candidate in sweep.candidates if candidate.name == best["student"])
    content = {"system": sweep.system, "measure": MEASURE, "chosen": best["student"], "settings": settings}
    write_json(out_dir / CHOICE_FILE, {**content, "tried": rows})
    print(
        f"   {sweep.system}: {best['student']} of {len(rows)} students, development cross-entropy {best[MEASURE]:.4f}",
        flush=True,
    )


def choice_content(folder: Path) -> str:
    """Fingerprint of the choice. What was tried decides nothing else."""
    content = read_object(folder / CHOICE_FILE, chosen=str, settings=dict)
    return fingerprint([content["chosen"], content["settings"]])


def resolve(student: Student, options: SpeechOptions) -> Student:
    """The student with the temperature, alpha and dropout that its choice decided, where it has one."""
    if student.choice is None:
        return student
    return student.with_choice_of(chosen_student(student.choice, options))


def chosen_student(step: str, options: SpeechOptions) -> Student:
    """The student of the sweep that a step chose."""
    name = read_object(options.exp_dir / step / CHOICE_FILE, chosen=str)["chosen"]
    return next(
        candidate
        for sweep in sweeps(options)
        if sweep.step == step
        for candidate in sweep.candidates
        if candidate.name == name
    )


def take(student: Student, options: SpeechOptions, out_dir: Path) -> None:
    """Copy the chosen student of a sweep. Its summary names the student that it was taken from."""
    assert student.choice is not None
    chosen = chosen_student(student.choice, options)
    source = options.exp_dir / chosen.step
    for path in sorted(source.iterdir()):
        if path.name not in (STAMP_FILE, PENDING_FILE):
            shutil.copyfile(path, out_dir / path.name)
    summary = read_object(source / SUMMARY_FILE)
    write_json(out_dir / SUMMARY_FILE, {**summary, TAKEN_FROM_KEY: chosen.name})
