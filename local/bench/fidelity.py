"""What shortcuts cost: students from the top-k store and from dense targets, in bfloat16 and in float32, over seeds.

.venv/bin/python local/bench/fidelity.py --exp-dir exp/prompts
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from bench import Table, finished_run, main
from scipy import stats
from tqdm import tqdm

from asrkd.distil.compression import combined_logits
from asrkd.distil.loss import DenseTargets, Distillation, TargetSource
from asrkd.distil.store import PosteriorStore
from asrkd.nnet import DevSet, train
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.evaluate import iter_logits
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.networks import (
    LabelledFrames,
    open_ensemble,
    teacher_folders,
)
from asrkd.recipe.options import SpeechOptions, options_of_run
from asrkd.recipe.students import Student, student_training
from asrkd.recipe.trained import trained_precision

FIRST_SEED = 700  # of none of the recipe's own students
REFERENCE = "top-k store, bfloat16"


@dataclass(frozen=True)
class Options:
    """Whose student."""

    exp_dir: Path = Path("exp/prompts")
    """folder of a finished run; nine students are trained on it"""
    seeds: int = 3
    """students of each kind"""
    epochs: int | None = None
    """epochs of each; none: the run's own"""


def dense_targets(frames: LabelledFrames, chosen: SpeechOptions) -> DenseTargets:
    """The ensemble's whole distributions of all training frames."""
    folders = teacher_folders(chosen)
    outputs = iter_logits(open_ensemble(folders), frames.inputs, precision=trained_precision(folders))
    combined = torch.cat([combined_logits(logits.float(), chosen.posteriors) for _, logits in outputs])
    temperature = chosen.distil.temperature
    return DenseTargets(torch.softmax(combined / temperature, dim=1), temperature)


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir)
    chosen = options_of_run(exp)
    frames = LabelledFrames.open("train", chosen)
    dev = LabelledFrames.open("dev", chosen)
    store, dense = PosteriorStore.open(RunFolders(exp).posteriors), dense_targets(frames, chosen)
    schedule = student_training(Student("distilled", chosen.student, distil=chosen.distil), chosen)
    schedule = replace(schedule, epochs=options.epochs or schedule.epochs, show_progress=False)

    def learn(targets: TargetSource, precision: str, seed: int) -> tuple[float, float]:
        model = AcousticDnn(frames.inputs.dim, frames.num_pdfs, chosen.student, seed=seed)
        objective = Distillation(frames.labels, targets, chosen.distil)
        how = replace(schedule, seed=seed, precision=precision)
        with tempfile.TemporaryDirectory() as folder:
            result = train(model, frames.inputs, objective, how, Path(folder), dev=DevSet(dev.inputs, dev.labels))
        best = result.history[result.best_epoch]
        return 100 * best["dev_accuracy"], best["dev_loss"]

    kinds = {REFERENCE: (store, "bfloat16"), "dense targets, bfloat16": (dense, "bfloat16")}
    kinds["top-k store, float32"] = (store, "float32")
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    bar = tqdm([(name, seed) for name in kinds for seed in seeds], desc="students", unit="student")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for name, seed in bar:
        found[name].append(learn(*kinds[name], seed))
    notes = ["Judged on the development speakers, the same seeds for all kinds."]
    rows = []
    for name, results in found.items():
        accuracies, losses = zip(*results, strict=True)
        rows.append(
            (name, f"{statistics.mean(accuracies):.2f}", f"{min(accuracies):.2f} to {max(accuracies):.2f}",
             f"{statistics.mean(losses):.4f}")
        )  # fmt: skip
        if name != REFERENCE:
            notes.append(_compared(name, [b - a for (a, _), (b, _) in zip(found[REFERENCE], results, strict=True)]))
    return Table(
        f"{exp.name}: distilled students of {chosen.student.num_layers}x{chosen.student.hidden_dim}, "
        f"{frames.num_pdfs} senones, {schedule.epochs} epochs, {options.seeds} seeds of each kind",
        ("student", "frame accuracy %, mean", "over seeds", "cross-entropy"),
        rows,
        tuple(notes),
        {name: list(results) for name, results in found.items()},
    )


def _compared(name: str, gains: list[float]) -> str:
    """A kind's gain over the reference, seed by seed, and its 95% interval (Student's t)."""
    mean = statistics.mean(gains)
    low, high = stats.t.interval(0.95, len(gains) - 1, loc=mean, scale=stats.sem(gains))
    verdict = "within seed noise" if low <= 0.0 <= high else "beyond seed noise"
    return f"{name}: {mean:+.2f} points of frame accuracy over {REFERENCE}, {low:+.2f} to {high:+.2f}: {verdict}."


if __name__ == "__main__":
    main(Options, measure, __doc__)
