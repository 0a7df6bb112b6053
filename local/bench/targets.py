"""Targets of a student: the cost of a training step with stored targets, and with teachers that score its inputs.

    .venv/bin/python local/bench/targets.py --exp-dir exp/an4

The student, its batches and the teachers are those of a finished run.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from bench import Table, finished_run, main

from asrkd.distil.loss import Distillation
from asrkd.distil.online import OnlineTargets
from asrkd.distil.store import PosteriorStore
from asrkd.errors import InputError
from asrkd.nnet import AugmentOptions, HardTargets, Objective, train
from asrkd.nnet.dnn import AcousticDnn
from asrkd.recipe.augmentation import augmentation
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.networks import (
    LabelledFrames,
    open_ensemble,
    teacher_folders,
)
from asrkd.recipe.options import options_of_run
from asrkd.recipe.students import Student, student_training
from asrkd.recipe.trained import trained_precision

MS_PER_SEC = 1000.0
STORED = "stored, top-k"
MIXED = AugmentOptions(mix=0.5)
DISTORTED = AugmentOptions(mix=0.5, warp=0.5, mask=0.5, gain=0.5)


@dataclass(frozen=True)
class Options:
    """Whose student, and how long."""

    exp_dir: Path | None = None
    """folder of a finished run with stored targets"""
    device: str = "cpu"
    """cpu or cuda"""
    steps: int = 60
    """steps of each training; the median of three trainings counts, and the first epoch of each does not"""


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir)
    chosen = options_of_run(exp)
    if chosen.distil.targets != "stored":
        raise InputError(f"{exp}: expected a run with stored targets, found online ones: give --exp-dir")
    frames = LabelledFrames.open("train", chosen)
    schedule = student_training(Student("distilled", chosen.student, distil=chosen.distil), chosen)
    schedule = replace(schedule, epochs=2, device=options.device, show_progress=False, patience=None)
    schedule = replace(schedule, schedule="constant")
    ids = frames.inputs.frame_ids[: options.steps * schedule.batch_size]
    members = teacher_folders(chosen)
    soft = replace(chosen.distil, alpha=1.0)

    def step_ms(objective: Objective, augment: AugmentOptions) -> float:
        model = AcousticDnn(frames.inputs.dim, frames.num_pdfs, chosen.student)
        distortions = augmentation(augment, chosen.features, frames.store, RunFolders(exp))
        with tempfile.TemporaryDirectory() as folder:
            result = train(model, frames.inputs, objective, schedule, Path(folder), frame_ids=ids, augment=distortions)
        steps = max(1, len(ids) // schedule.batch_size)
        return MS_PER_SEC * result.history[1]["seconds"] / steps

    store = Distillation(None, PosteriorStore.open(RunFolders(exp).posteriors), soft)
    teachers = OnlineTargets(open_ensemble(members), chosen.posteriors.mean, trained_precision(members))
    online = Distillation(None, teachers, replace(soft, targets="online"))
    kinds: dict[str, tuple[Objective, AugmentOptions]] = {
        "hard labels": (HardTargets(frames.labels), AugmentOptions()),
        STORED: (store, AugmentOptions()),
        "online": (online, AugmentOptions()),
        "online, half mixed": (online, MIXED),
        "online, half of each distortion": (online, DISTORTED),
    }
    taken = {name: [step_ms(*kind)] for name, kind in kinds.items()}
    for _ in range(2):  # in turns: what slows the machine slows all
        for name, kind in kinds.items():
            taken[name].append(step_ms(*kind))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    rows = [(name, f"{ms:.2f}", f"{ms / medians[STORED]:.2f}") for name, ms in medians.items()]
    return Table(
        f"{exp}: a step of the distilled student on {schedule.batch_size} frames, {len(members)} teachers, "
        f"{frames.num_pdfs} senones, {torch.get_num_threads()} threads",
        ("targets", "ms per step", "relative"),
        rows,
        (f"Floor of online targets: the teachers' forward pass of {schedule.batch_size} frames.",),
        medians,
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
