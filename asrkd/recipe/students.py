"""The students of a run: baselines and distilled ones, and the sweeps of which the development speakers choose one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from asrkd.distil.loss import DistilOptions
from asrkd.nnet import AugmentOptions, TrainOptions
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe.options import SpeechOptions

DISTILLED, BASELINE, BASELINE_DROPOUT, BASELINE_AUGMENTED = (
    *("distilled", "baseline"),
    *("baseline_dropout", "baseline_augmented"),
)
SUBSET_HARD, SUBSET_SOFT, DISTILLED_TRANSCRIBED = "subset_hard", "subset_soft", "distilled_transcribed"

Speech = Literal["all", "transcribed", "subset"]
"""What a student learns from: all that it can, the training split without the transfer set, or some utterances of it
(`asrkd.recipe.subset`)."""


@dataclass(frozen=True)
class Student:
    """One student: an architecture, a seed, and hard labels alone or the distillation objective."""

    system: str
    """Name in results.json, shared by its seeds."""
    model: ModelOptions
    seed: int = 0
    distil: DistilOptions | None = None
    """The objective; none: hard labels."""
    is_sweep: bool = False
    """Whether it is only there to be compared with others on the development speakers."""
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    """Distortions of its inputs."""
    speech: Speech = "all"
    """What it learns from."""
    has_transfer_set: bool = False
    """Whether the run has untranscribed speech."""
    choice: str | None = None
    """The step that chooses its temperature, alpha and dropout; none: they are those of `distil` and `model`."""
    is_taken: bool = False
    """Whether it is the chosen student of the sweep itself, which needs no training."""

    @property
    def uses_transfer(self) -> bool:
        """Whether it learns from untranscribed speech, or may when chosen: only soft targets can be learned from it."""
        if self.distil is None or not self.has_transfer_set or self.speech != "all":
            return False
        return self.choice is not None or self.distil.alpha > 0.0

    @property
    def name(self) -> str:
        return self.system if self.seed == 0 else f"{self.system}_seed{self.seed}"

    @property
    def step(self) -> str:
        """The step that trains it, or takes it from the sweep."""
        return f"students/{self.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """What a sweep varies, and what else decides the loss."""
        dropout = {"dropout": self.model.dropout, "input_dropout": self.model.input_dropout}
        return dropout | ({} if self.distil is None else self.distil.loss_values)

    def with_choice_of(self, chosen: Student) -> Student:
        """This student with the temperature, alpha and dropout of another one."""
        model = replace(self.model, dropout=chosen.model.dropout, input_dropout=chosen.model.input_dropout)
        return replace(self, model=model, distil=chosen.distil, choice=None, is_taken=False)


@dataclass(frozen=True)
class Sweep:
    """Students that differ in one option each, and the system that one of them is."""

    system: str
    candidates: tuple[Student, ...]
    """The configured one comes first."""
    chooses: bool
    """Whether the development speakers choose one; otherwise the system is the configured one."""

    @classmethod
    def of(cls, system: str, candidates: Iterable[Student], options: SpeechOptions) -> Sweep:
        """A sweep of these students. Without a choice, the first one is the system."""
        configured, *others = candidates
        if options.students.choose == "dev" and others:
            return cls(system, (configured, *others), chooses=True)
        return cls(system, (replace(configured, system=system, is_sweep=False), *others), chooses=False)

    @property
    def step(self) -> str:
        """The step that chooses."""
        return f"choice/{self.system}"

    def student(self, seed: int) -> Student:
        """The system of one seed."""
        step = self.step if self.chooses else None
        taken = self.chooses and seed == 0
        return replace(self.candidates[0], system=self.system, seed=seed, is_sweep=False, choice=step, is_taken=taken)

    def narrow(self, dim: int) -> Student:
        """The same with fewer hidden units."""
        return self._other(str(dim), replace(self.candidates[0].model, hidden_dim=dim))

    def large(self, model: ModelOptions) -> Student:
        """The same with the teachers' layers, kind and width."""
        own = self.candidates[0].model
        return self._other("large", replace(model, dropout=own.dropout, input_dropout=own.input_dropout))

    def of_speech(self, system: str, speech: Speech, seed: int) -> Student:
        """The same under another name, learning from less speech."""
        return replace(self.student(seed), system=system, speech=speech, is_taken=False)

    def _other(self, name: str, model: ModelOptions) -> Student:
        return replace(self.student(0), system=f"{self.system}_{name}", model=model, is_taken=False)


def distilled_sweep(options: SpeechOptions) -> Sweep:
    """The distilled student, and students that differ from the configured one in temperature, alpha or dropout."""
    swept, configured, dropout = options.students, options.distil, options.student.dropout
    temperature, alpha = configured.temperature, configured.alpha
    points = [(temperature, alpha, dropout)]
    points += [(one, alpha, dropout) for one in swept.sweep_temperatures]
    points += [(temperature, one, dropout) for one in swept.sweep_alphas]
    points += [(temperature, alpha, one) for one in swept.sweep_dropouts]
    candidates = [
        Student(
            f"sweep_T{t:g}_alpha{a:g}" + ("" if rate == dropout else f"_dropout{rate:g}"),
            replace(options.student, dropout=rate),
            distil=replace(configured, temperature=t, alpha=a),
            is_sweep=True,
            augment=swept.augment,
        )
        for t, a, rate in dict.fromkeys(points)
    ]
    return Sweep.of(DISTILLED, candidates, options)


def dropout_sweep(options: SpeechOptions) -> Sweep | None:
    """The baseline with dropout: hard labels need it more than soft ones, which are a regulariser themselves.

    The configured dropout is the teachers'. None where nothing differs from the plain baseline.
    """
    teacher = options.teacher
    rates = dict.fromkeys((teacher.dropout, *options.students.baseline_dropouts))
    models = [replace(options.student, dropout=rate, input_dropout=teacher.input_dropout) for rate in rates]
    candidates = [
        Student(f"sweep_dropout{model.dropout:g}", model, is_sweep=True) for model in models if model != options.student
    ]
    return Sweep.of(BASELINE_DROPOUT, candidates, options) if candidates else None


def sweeps(options: SpeechOptions) -> list[Sweep]:
    """Every sweep of a run."""
    dropout = dropout_sweep(options)
    return [*([] if dropout is None else [dropout]), distilled_sweep(options)]


def students(options: SpeechOptions) -> list[Student]:
    """Every student of a run. Baseline and distilled differ in their targets alone.

    `baseline_dropout` has the dropout that is best for hard labels. Where the distilled student's inputs are distorted,
    `baseline_augmented` learns hard labels from inputs distorted alike.
    """
    augment, chosen = options.students.augment, []
    of_system = {sweep.system: sweep for sweep in sweeps(options)}
    for seed in range(options.students.seeds):
        chosen.append(Student(BASELINE, options.student, seed))
        if BASELINE_DROPOUT in of_system:
            chosen.append(of_system[BASELINE_DROPOUT].student(seed))
        if augment.changes_inputs:
            chosen.append(Student(BASELINE_AUGMENTED, options.student, seed, augment=augment))
        chosen.append(of_system[DISTILLED].student(seed))
        chosen += _of_less_speech(of_system[DISTILLED], seed, options)
    for dim in options.students.narrow_dims:
        narrow = replace(options.student, hidden_dim=dim)
        chosen.append(Student(f"{BASELINE}_{dim}", narrow))
        if BASELINE_DROPOUT in of_system:
            chosen.append(of_system[BASELINE_DROPOUT].narrow(dim))
        if augment.changes_inputs:
            chosen.append(Student(f"{BASELINE_AUGMENTED}_{dim}", narrow, augment=augment))
        chosen.append(of_system[DISTILLED].narrow(dim))
    if options.students.teacher_size:
        chosen.append(of_system[DISTILLED].large(options.teacher))
    swept = [student for sweep in of_system.values() for student in sweep.candidates if student.is_sweep]
    has_transfer_set = options.transfer.has_speech
    return [replace(student, has_transfer_set=has_transfer_set) for student in (*chosen, *swept)]


def _of_less_speech(distilled: Sweep, seed: int, options: SpeechOptions) -> list[Student]:
    """The distilled student without the untranscribed speakers' audio, and the two that learn from a subset.

    Those two differ in their targets alone.
    """
    found = []
    if options.transfer.untranscribed is not None:
        found.append(distilled.of_speech(DISTILLED_TRANSCRIBED, "transcribed", seed))
    if options.students.subset is not None:
        augment = options.students.augment
        found.append(Student(SUBSET_HARD, options.student, seed, augment=augment, speech="subset"))
        found.append(distilled.of_speech(SUBSET_SOFT, "subset", seed))
    return found


def baselines(options: SpeechOptions) -> list[str]:
    """Systems of the student's size that learn hard labels, the plain one first."""
    names = dict.fromkeys(student.system for student in students(options) if not student.is_sweep)
    return [name for name in (BASELINE, BASELINE_DROPOUT, BASELINE_AUGMENTED) if name in names]


def student_training(student: Student, options: SpeechOptions) -> TrainOptions:
    """How a student is trained. Soft targets bear a higher rate; hard labels would only be overfitted at it."""
    schedule = options.students
    changes: dict[str, float | None] = {
        "epochs": _epochs(student, options),
        "weight_decay": schedule.weight_decay,
        "beta2": schedule.beta2,
        "learning_rate": None if student.distil is None else schedule.soft_learning_rate,
    }
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    return replace(options.train, **given)


def _epochs(student: Student, options: SpeechOptions) -> int:
    """Passes of a student over what it learns from: with less speech more of them, so that it takes as many steps.

    A difference from the students of all speech is then one of the speech, and not of the length of the training.
    """
    epochs = options.students.epochs or options.train.epochs
    if student.speech == "transcribed":
        return round(epochs / (1.0 - options.transfer.share))
    if student.speech == "subset":
        assert options.students.subset is not None
        return options.students.subset_epochs or round(epochs / options.students.subset)
    return epochs
