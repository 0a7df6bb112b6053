"""Options of the MNIST recipe: frozen dataclasses, overridden as `--section.option=value`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from asrkd.distil.loss import DistilOptions
from asrkd.errors import InputError
from asrkd.nnet import TrainOptions
from asrkd.nnet.model_options import ModelOptions
from asrkd.options import NoEffect, advice, require_set_by_run, set_by_run
from asrkd.recipe.no_effect import LISTINGS, of_training
from asrkd.recipe.seeds import MAX_SEED
from asrkd.workflow.steps import LAST_STAGE

# What `--help` lists. `--help-all` lists every option.
COMMON_OPTIONS = (
    *("profile", "corpus-dir", "exp-dir", "stage", "stop-stage", "experiments", "device", "seed"),
    *("teacher.size", "student.seeds"),
)

Profile = Literal["quick", "full"]
EXPERIMENTS = {
    1: "teacher, plain student, distilled student",
    2: "temperature and width",
    3: "no 3 in the transfer set",
    4: "only 7 and 8 in the transfer set",
    5: "logit matching against high temperature",
    6: "weight of the soft targets, number of teachers, 3% of the digits",
    7: "controls: what else could explain the gain",
}


@dataclass(frozen=True)
class TeacherOptions:
    """The large networks (the paper: 2 x 1200, dropout, max-norm, inputs jittered by up to 2 pixels)."""

    size: int = 10
    """Number of teachers, trained as one stack. The soft targets are their geometric mean."""
    jitter: int = 2
    """Largest shift of a training image, in pixels in each direction."""
    translations: bool = True
    """Average the soft targets over every shift of a digit that jitter may draw (25 shifts for 2 pixels)."""
    model: ModelOptions = field(
        default_factory=lambda: ModelOptions(1200, 2, dropout=0.5, input_dropout=0.2, max_norm=3.5)
    )
    train: TrainOptions = field(default_factory=TrainOptions, metadata=set_by_run("seed", "device", "python"))

    @property
    def num_shifts(self) -> int:
        """Shifts of a digit over which its soft targets are averaged. No shift counts as one of them."""
        return (2 * self.jitter + 1) ** 2 if self.translations else 1


@dataclass(frozen=True)
class StudentOptions:
    """The small networks: 2 x 800 without dropout or jitter, unless an experiment changes that."""

    seeds: int = 5
    """Seeds of every student, trained as one stack."""
    model: ModelOptions = field(default_factory=lambda: ModelOptions(800, 2, dropout=0.0))
    hard: TrainOptions = field(default_factory=TrainOptions, metadata=set_by_run("seed", "device", "python"))
    """Training on hard labels."""
    soft: TrainOptions = field(default_factory=TrainOptions, metadata=set_by_run("seed", "device", "python"))
    """Training on soft targets: the distilled student, and the students of experiments 3 and 4."""
    distil: DistilOptions = field(default_factory=lambda: DistilOptions(alpha=1.0, temperature=20.0))
    """Objective on soft targets. Its targets may be online in the distilled student and in experiments 3 and 4."""
    mix: float = 0.0
    """With online targets, fraction of the digits that are mixed with another one: x = λ x1 + (1-λ) x2, λ uniform."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.mix <= 1.0:
            raise InputError(f"--student.mix: expected a fraction in [0, 1], found {self.mix}")
        if self.mix and self.distil.targets != "online":
            raise InputError(
                "--student.mix: expected --student.distil.targets online, because nothing is stored for mixtures, "
                "found stored"
            )


@dataclass(frozen=True)
class ComparedOptions:
    """Values that experiments 2, 5, 6 and 7 compare."""

    train: TrainOptions = field(default_factory=TrainOptions, metadata=set_by_run("seed", "device", "python"))
    """Training of the students of experiments 2, 5 and 6 on soft targets. It is shorter, since there are many."""
    widths: tuple[int, ...] = (30, 100, 300, 800)
    """Experiment 2: units in each of the two hidden layers."""
    temperatures: tuple[float, ...] = (1.0, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)
    """Experiment 2: temperatures."""
    matching_temperatures: tuple[float, ...] = (2.0, 8.0, 20.0, 80.0)
    """Experiment 5: temperatures compared with logit matching."""
    alphas: tuple[float, ...] = (0.0, 0.5, 0.9, 1.0)
    """Experiment 6: weights of the soft targets."""
    teachers: tuple[int, ...] = (1, 3, 5, 10)
    """Experiment 6: numbers of teachers in the soft targets."""
    fraction: float = 0.03
    """Experiment 6: fraction of the training digits in the small training set."""
    label_smoothing: float = 0.1
    """Experiment 7: weight of the uniform distribution in the targets."""

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise InputError(f"--compared.fraction: expected a fraction in (0, 1], found {self.fraction}")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(f"--compared.label-smoothing: expected a weight in [0, 1), found {self.label_smoothing}")
        if not all(0.0 <= alpha <= 1.0 for alpha in self.alphas):
            raise InputError(f"--compared.alphas: expected weights in [0, 1], found {self.alphas}")
        for name in ("widths", "temperatures", "matching_temperatures", "alphas", "teachers"):
            values: tuple[float, ...] = getattr(self, name)
            if not values or (name != "alphas" and min(values) <= 0):
                option = name.replace("_", "-")
                raise InputError(f"--compared.{option}: expected one or more values above 0, found {values}")


def _without(*experiments: int) -> Callable[[DigitsOptions], bool]:
    return lambda options: not set(experiments) & set(options.experiments)


NO_EFFECT = (
    LISTINGS,
    *(
        rule
        for name in ("teacher.train", "student.hard", "student.soft", "compared.train")
        for rule in of_training(name)
    ),
    NoEffect(
        ("--compared.widths", "--compared.temperatures"), _without(2), "without experiment 2: give --experiments 1 2"
    ),
    NoEffect(("--compared.matching-temperatures",), _without(5), "without experiment 5: give --experiments 1 5"),
    NoEffect(
        ("--compared.alphas", "--compared.teachers", "--compared.fraction"),
        _without(6),
        "without experiment 6: give --experiments 1 6",
    ),
    NoEffect(("--compared.label-smoothing",), _without(7), "without experiment 7: give --experiments 1 7"),
    NoEffect(("--compared.train.",), _without(2, 5, 6), "without experiments 2, 5 and 6: give --experiments 1 2"),
    NoEffect(
        ("--teacher.translations",),
        lambda options: options.teacher.translations and options.teacher.jitter == 0,
        "with --teacher.jitter=0, which shifts nothing: give --teacher.jitter=1 or more",
    ),
    NoEffect(
        ("--student.distil.temperature", "--student.distil.t-squared"),
        lambda options: options.student.distil.alpha == 0.0,
        "with --student.distil.alpha=0, which learns hard labels alone: give a larger --student.distil.alpha",
    ),
)


@dataclass(frozen=True)
class DigitsOptions:
    """All options of the MNIST recipe."""

    NO_EFFECT: ClassVar[tuple[NoEffect, ...]] = NO_EFFECT

    profile: Profile = "full"
    """quick: experiments 1, 3 and 4 with short trainings, for two cores. full: all experiments, for a GPU."""
    corpus_dir: Path = Path("data/mnist")
    """Folder of MNIST's four files, idx or idx.gz."""
    exp_dir: Path = Path("exp/mnist")
    """Folder of everything the run writes."""
    stage: int = 0
    """First stage to run, by its number in the list above."""
    stop_stage: int = LAST_STAGE
    """Last stage to run."""
    dry_run: bool = False
    """Print the steps that would run, with the reasons, and run none."""
    list_steps: bool = False
    """Print all steps, whether each is up to date, and run none."""
    only: str | None = None
    """The one step to run, such as students/baseline: several machines that see exp_dir may each run another step."""
    experiments: tuple[int, ...] = tuple(EXPERIMENTS)
    """Numbers of the experiments to run, 1 to 7. 1 is required, because the others are compared with it."""
    eval_set: Literal["test", "held-out"] = "test"
    """Digits on which errors are counted. held-out: for trials, the last training digits, which no network learns."""
    held_out: int = 5000
    """Training digits on which biases are tuned. Students with tuned biases do not learn them."""
    seed: int = 0
    """Seed of everything random. Every network uses a seed derived from it."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=advice("--device=cpu always works"))
    """Where networks train. auto is cuda if there is one."""
    checkpoint_epochs: int = 10
    """Epochs between two checkpoints."""
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    student: StudentOptions = field(default_factory=StudentOptions)
    compared: ComparedOptions = field(default_factory=ComparedOptions)

    def __post_init__(self) -> None:
        unknown = set(self.experiments) - set(EXPERIMENTS)
        if unknown or 1 not in self.experiments:
            raise InputError(f"--experiments: expected 1 and some of 2 to 7, found {self.experiments}")
        for name, stage in (("stage", self.stage), ("stop-stage", self.stop_stage)):
            if not 0 <= stage <= LAST_STAGE:
                raise InputError(f"--{name}: expected 0 to {LAST_STAGE}, found {stage}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"--seed: expected 0 to {MAX_SEED}, found {self.seed}")
        for name, value in (
            ("teacher.size", self.teacher.size),
            ("student.seeds", self.student.seeds),
            ("held-out", self.held_out),
            ("checkpoint-epochs", self.checkpoint_epochs),
        ):
            if value < 1:
                raise InputError(f"--{name}: expected at least 1, found {value}")
        if self.teacher.jitter < 0:
            raise InputError(f"--teacher.jitter: expected at least 0 pixels, found {self.teacher.jitter}")
        self._require_teachers()
        self._require_nothing_ignored()

    @property
    def evaluates_test(self) -> bool:
        """Whether errors are counted on the test digits, as in the paper."""
        return self.eval_set == "test"

    def _require_teachers(self) -> None:
        if 6 in self.experiments and max(self.compared.teachers) > self.teacher.size:
            raise InputError(
                f"--compared.teachers: expected at most --teacher.size {self.teacher.size}, "
                f"found {max(self.compared.teachers)}"
            )

    def _require_nothing_ignored(self) -> None:
        """Refuse options of a training that the run sets, so that none is ignored silently."""
        require_set_by_run(self)
        for name, model in (("teacher", self.teacher.model), ("student", self.student.model)):
            if model.kind != "dnn":
                raise InputError(f"--{name}.model.kind: expected dnn, for the paper's digits, found {model.kind}")
        sections = {
            "teacher.train": self.teacher.train,
            "student.hard": self.student.hard,
            "student.soft": self.student.soft,
            "compared.train": self.compared.train,
        }
        for section, train in sections.items():
            if train.patience is not None or train.schedule == "newbob":
                raise InputError(f"--{section}: expected neither patience nor newbob, for all lengths are fixed")


Profiles = Mapping[Profile, DigitsOptions]
"""The recipe's options by profile."""


@dataclass(frozen=True)
class DigitsRun:
    """A run of the recipe."""

    options: DigitsOptions
    profiles: Profiles
    command: str
    """Command line that reproduces the whole result."""
