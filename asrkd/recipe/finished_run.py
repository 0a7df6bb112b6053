"""A finished run, to be read by what comes after it: its options, its systems and what it counts as an error."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asrkd.errors import InputError, name_some
from asrkd.files import read_object
from asrkd.recipe.command_line import RESULTS_FILE
from asrkd.recipe.evaluate import Run, runs
from asrkd.recipe.folders import fold_name
from asrkd.recipe.options import SpeechOptions, options_of_run
from asrkd.recipe.run_options import CONFIG_FILE
from asrkd.recipe.scoring import Scoring
from asrkd.workflow.steps import Record

NEEDED_STEPS = ("tree", "graph", "decode/tuning", "score")
USUAL_SYSTEMS = ("baseline", "teacher", "ensemble", "distilled")


@dataclass(frozen=True)
class FinishedRun:
    """A run whose stages have all been run. Nothing here writes to its folder."""

    exp_dir: Path
    options: SpeechOptions
    """Without those of its corpus."""
    results: Mapping[str, Any]
    """Its results.json."""

    @classmethod
    def open(cls, exp_dir: Path) -> FinishedRun:
        """The run in a folder. InputError if it is no run of a speech recipe, or not finished."""
        if not exp_dir.is_dir():
            raise InputError(f"{exp_dir}: expected the folder of a finished run, found none")
        if not (exp_dir / CONFIG_FILE).is_file():
            raise InputError(f"{exp_dir}: expected the folder of a finished run, found no {CONFIG_FILE} in it")
        if "decode" not in read_object(exp_dir / CONFIG_FILE):
            raise InputError(f"{exp_dir}: expected a run of a speech recipe, found another one (MNIST's has no words)")
        options = options_of_run(exp_dir.absolute())
        if options.folds is not None:
            fold = exp_dir / fold_name(0)
            raise InputError(
                f"{exp_dir}: expected a single run, found a cross-validation: give one of its folds ({fold})"
            )
        _require_steps(exp_dir, NEEDED_STEPS)
        return cls(exp_dir.absolute(), options, read_object(exp_dir / "score" / RESULTS_FILE, systems=dict))

    def stamps(self, steps: Sequence[str]) -> dict[str, str]:
        """What identifies the output of finished steps. InputError for a step that is not."""
        records = _require_steps(self.exp_dir, steps)
        return {name: record.content or record.stamp for name, record in records.items()}

    @property
    def systems(self) -> dict[str, Run]:
        """Every system that the run has decoded, by its name."""
        return {run.name: run for run in runs(self.options)}

    def choose_systems(self, names: Sequence[str]) -> list[Run]:
        """The systems of these names, or of USUAL_SYSTEMS that the run has; each once.

        InputError, with the nearest name, for one that the run does not have.
        """
        known = self.systems
        if not names:
            return [known[name] for name in USUAL_SYSTEMS if name in known]
        for name in names:
            require_system(name, known, self.exp_dir)
        return [known[name] for name in dict.fromkeys(names)]

    @property
    def scoring(self) -> Scoring:
        """How the run compares words; the reference is the text, also where the corpus has marks instead."""
        record = Record.read(self.exp_dir / "score")
        rules = record.options.get("scoring", {}) if record is not None and isinstance(record.options, dict) else {}
        unit: Literal["word", "phone"] = "phone" if self.results.get("unit") == "phone" else "word"
        return Scoring(unit, folds=rules.get("folds", {}), optional=frozenset(rules.get("optional", ())))


def require_system(name: str, known: Mapping[str, object], where: Path, option: str = "--systems") -> None:
    """InputError, with the nearest name, for a system that is not among the known ones."""
    if name not in known:
        nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
        advice = f"the nearest is {nearest[0]}" if nearest else "there is none"
        raise InputError(f"{option} {name}: expected a system of {where} ({name_some(list(known), 12)}); {advice}")


def _require_steps(exp_dir: Path, names: Sequence[str]) -> dict[str, Record]:
    records = {name: Record.read(exp_dir / name) for name in names}
    found = {name: record for name, record in records.items() if record is not None}
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{exp_dir}: expected a finished run, found no finished output of {name_some(missing)}: "
            "run its recipe to the end"
        )
    return found
