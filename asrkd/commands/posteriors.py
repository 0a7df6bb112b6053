"""`asrkd posteriors import`: posteriors of another system, which a run's students learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from asrkd.commands.command import Command


@dataclass(frozen=True)
class ImportOptions:
    """Posteriors to import and the run that they are for."""

    exp_dir: Path
    """A run that has its features and senones (stages 0 to 5), and its config.json."""
    teachers: tuple[Path, ...]
    """One dump of posteriors or several. Several are averaged."""
    out: Path
    """Folder of the store to write: a new folder, or an imported store to replace."""
    kind: Literal["log-posteriors", "probabilities", "logits"] = "log-posteriors"
    """log-posteriors (natural logarithm), probabilities (those of a frame sum to one), or logits: the values before the
    softmax."""
    length_tolerance: int = 2
    """Frames that an utterance may have too few or too many. Those at its ends are repeated or removed."""
    frame_shift_ms: float | None = None
    """Time from one row to the next, ms: 20, 30 or 40 for a system with frame subsampling; none: as the run's."""
    upsampling: Literal["interpolate", "repeat"] = "interpolate"
    """Whether frames between two rows get log-posteriors between theirs, or those of the nearest row."""
    mean: Literal["arithmetic", "geometric"] | None = None
    """How several teachers are averaged; none: as the run's --posteriors.mean."""
    top_k: int | None = None
    """Classes stored for each frame; none: as the run's --posteriors.top-k."""
    temperatures: tuple[float, ...] | None = None
    """Temperatures that students can learn at; none: as the run's --posteriors.temperatures."""


def run(options: ImportOptions) -> int:
    from asrkd import config
    from asrkd.distil import external_teacher
    from asrkd.distil.compression import StoreOptions
    from asrkd.recipe.external_teacher import frames_to_import

    given = {"mean": options.mean, "top_k": options.top_k, "temperatures": options.temperatures}
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    store_options = replace(config.load(StoreOptions, options.exp_dir / "config.json", "posteriors"), **changed)
    frames = frames_to_import(options.exp_dir)
    store, reports = external_teacher.import_posteriors(
        options.teachers,
        options.kind,
        frames,
        store_options,
        options.out,
        length_tolerance=options.length_tolerance,
        frame_shift_ms=options.frame_shift_ms,
        upsampling=options.upsampling,
    )
    for report in reports:
        print(f"{report.path}: {100 * report.accuracy:.2f}% of the training frames agree with their labels")
        for note in report.notes():
            print(f"{report.path}: {note}")
    print(f"wrote {options.out}: {len(store.utt_ids)} utterances, {len(store)} frames")
    again = "".join(f" --posteriors.{name.replace('_', '-')} {_written(value)}" for name, value in changed.items())
    print(f"continue the run with --posteriors-from {options.out}{again}")
    return 0


def _written(value: object) -> str:
    """A value as an option takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


IMPORT = Command(
    name="posteriors import",
    summary="Import another system's posteriors as the teacher of a run.",
    description="""
Each dump holds a matrix [frames, senones] for every training utterance, with rows and columns in the run's order. A
dump is a folder of <utt_id>.npy, one .npz, or the .scp of Kaldi archives.

Everything is checked before anything is written: utterances, frames, classes, finite values, their kind, and by the
labels of the frames whether they are early or late and whether the classes are these senones.""",
    examples=(
        "asrkd posteriors import --exp-dir exp/an4 --teachers dumps/big_model.npz --out exp/an4_big_model",
        "recipes/an4/run.sh --corpus-dir DIR --stage 7 --posteriors-from exp/an4_big_model",
    ),
    options=lambda: ImportOptions,
    run=run,
)
