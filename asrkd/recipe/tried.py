"""What stage 11 writes about the students that were tried: sweep, baselines, the strongest of these, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asrkd.files import read_object
from asrkd.recipe.choice import CHOICE_FILE, MEASURE, best_of, dev_figures
from asrkd.recipe.evaluate import source_of_gain
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.students import (
    BASELINE,
    BASELINE_AUGMENTED,
    BASELINE_DROPOUT,
    DISTILLED,
    DISTILLED_TRANSCRIBED,
    SUBSET_HARD,
    SUBSET_SOFT,
    Student,
    Sweep,
    baselines,
    distilled_sweep,
    dropout_sweep,
)
from asrkd.scoring.results import gaps_recovered


def sweep_rows(options: SpeechOptions) -> list[dict[str, Any]]:
    """Development figures of every student of the sweep by temperature and alpha; none of a single one."""
    sweep = distilled_sweep(options)
    chosen = _chosen(sweep, options)
    rows = []
    for position, student in enumerate(sweep.candidates):
        assert student.distil is not None
        row = {
            "temperature": student.distil.temperature,
            "alpha": student.distil.alpha,
            "dropout": student.model.dropout,
            **dev_figures(student, options.exp_dir),
            "configured": position == 0,
            "chosen": student.name == chosen,
        }
        rows.append(row)
    return sorted(rows, key=lambda row: (row["temperature"], row["alpha"], row["dropout"])) if len(rows) > 1 else []


def baseline_rows(options: SpeechOptions) -> list[dict[str, Any]]:
    """Development figures of the networks of the student's size that learn hard labels, the plain one first.

    `system` is None for those that are not decoded. `chosen` is the strongest of the others.
    """
    plain = Student(BASELINE, options.student)
    rows = [_baseline_row(plain, BASELINE, options)]
    sweep = dropout_sweep(options)
    if sweep is not None:
        taken = _chosen(sweep, options)
        for student in sweep.candidates:
            rows.append(_baseline_row(student, BASELINE_DROPOUT if student.name == taken else None, options))
    if BASELINE_AUGMENTED in baselines(options):
        augmented = Student(BASELINE_AUGMENTED, options.student, augment=options.students.augment)
        rows.append(_baseline_row(augmented, BASELINE_AUGMENTED, options))
    strongest = best_of([row for row in rows if row["system"]])
    return [{**row, "chosen": row is strongest} for row in rows]


def strongest_entry(metrics: Mapping[str, Sequence[Any]], strongest: str, teacher: str | None) -> dict[str, Any]:
    """The strongest baseline, and the gap recovered against it; an empty one where it is the plain baseline."""
    gap = gaps_recovered(metrics, strongest, teacher) if teacher and strongest != BASELINE else {}
    return {"system": strongest, "measure": MEASURE, "gap_recovered": gap}


def _baseline_row(student: Student, system: str | None, options: SpeechOptions) -> dict[str, Any]:
    return {
        "system": system,
        "dropout": student.model.dropout,
        "augmented": student.augment.changes_inputs,
        **dev_figures(student, options.exp_dir),
    }


def _chosen(sweep: Sweep, options: SpeechOptions) -> str:
    """Name of the student of the sweep that is the system."""
    if not sweep.chooses:
        return sweep.candidates[0].name
    return str(read_object(options.exp_dir / sweep.step / CHOICE_FILE, chosen=str)["chosen"])


def pairs(options: SpeechOptions, strongest: str) -> list[tuple[str, str]]:
    """Systems that are compared: the student with every baseline and its teachers, these with the main baselines."""
    names, teacher = baselines(options), source_of_gain(options)
    compared = [(DISTILLED, name) for name in names if name != BASELINE_AUGMENTED]
    if teacher:
        compared += [(DISTILLED, teacher), *((teacher, name) for name in dict.fromkeys((BASELINE, strongest)))]
    if BASELINE_AUGMENTED in names:
        compared.append((DISTILLED, BASELINE_AUGMENTED))
    if options.transfer.untranscribed is not None:
        compared.append((DISTILLED, DISTILLED_TRANSCRIBED))
    if options.students.subset is not None:
        compared += [(SUBSET_SOFT, SUBSET_HARD), (SUBSET_SOFT, BASELINE)]
    for dim in options.students.narrow_dims:
        compared += [(f"{DISTILLED}_{dim}", f"{name}_{dim}") for name in names]
    if options.students.teacher_size:
        compared.append((f"{DISTILLED}_large", DISTILLED))
    return compared
