"""The networks of the experiments. A variant is a stack of networks that differ only in their seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from asrkd.data.corpora.mnist import NUM_CLASSES
from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions, LogitMatching
from asrkd.distil.online import OnlineTargets
from asrkd.nnet import HardTargets, Objective, TrainOptions
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe.seeds import student_seed, teacher_seed
from recipes.mnist.options import DigitsOptions

ALL_CLASSES = tuple(range(NUM_CLASSES))
TEACHER = "teacher"


@dataclass(frozen=True)
class HardLabels:
    """Targets are the labels alone."""

    label_smoothing: float = 0.0
    """Weight of the uniform distribution in the targets."""

    def objective(self, labels: Tensor, teacher_logits: Tensor | None) -> Objective:
        """Cross-entropy with labels [N]."""
        return HardTargets(labels, self.label_smoothing)


@dataclass(frozen=True)
class SoftLabels:
    """Targets are the teachers' geometric mean at a temperature, mixed with the labels (section 2 of the paper)."""

    distil: DistilOptions
    teachers: int
    """The first so many teachers are used."""

    def objective(self, labels: Tensor, teacher_logits: Tensor | None) -> Objective:
        """Distillation from teacher_logits [M, N, S], mixed with labels [N] by alpha."""
        assert teacher_logits is not None
        targets = DenseTargets.from_logits(teacher_logits[: self.teachers], self.distil.temperature)
        return Distillation(labels, targets, self.distil)


@dataclass(frozen=True)
class OnlineSoftLabels:
    """Targets are the teachers' geometric mean for what the student sees, scored in each step: mixtures, too."""

    distil: DistilOptions
    teachers: int
    """All teachers are used."""

    def objective(self, labels: Tensor, teachers: OnlineTargets) -> Objective:
        """Distillation from the answers of the teachers, mixed with labels [N] by alpha."""
        return Distillation(labels, teachers, self.distil)


@dataclass(frozen=True)
class TeacherLogits:
    """Targets are the teachers' mean logits, learnt by squared differences (section 2.1 of the paper)."""

    teachers: int
    """The first so many teachers are used."""

    def objective(self, labels: Tensor, teacher_logits: Tensor | None) -> Objective:
        """Squared differences from the mean of teacher_logits [M, N, S]."""
        assert teacher_logits is not None
        return LogitMatching(teacher_logits[: self.teachers].mean(dim=0))


@dataclass(frozen=True)
class Variant:
    """Networks of one shape and one training that differ only in their seeds."""

    name: str
    """Name in results.json and of its step."""
    targets: HardLabels | SoftLabels | OnlineSoftLabels | TeacherLogits
    """What its networks learn."""
    model: ModelOptions
    train: TrainOptions
    num_seeds: int
    """Networks in the stack (M)."""
    jitter: int = 0
    """Largest shift of a training image, in pixels in each direction."""
    classes: tuple[int, ...] = ALL_CLASSES
    """Classes of its transfer set."""
    fraction: float = 1.0
    """Fraction of the training digits in its training set."""
    excludes_held_out: bool = False
    """Whether its training set excludes the digits on which biases are tuned."""
    mix: float = 0.0
    """Fraction of the digits that are mixed with another one, in every epoch anew."""

    @property
    def needs_teachers(self) -> bool:
        """Whether its targets come from the teachers."""
        return not isinstance(self.targets, HardLabels)

    @property
    def taught_by(self) -> str | None:
        """The step that its targets come from: the teachers' logits for each digit, or the teachers; None: labels."""
        if isinstance(self.targets, OnlineSoftLabels):
            return "teachers"
        return "posteriors" if self.needs_teachers else None

    def member_seeds(self, run_seed: int) -> list[int]:
        """Seed of each of its M networks.

        Teachers and students never share a seed. Network m of every student has the same seed, so that two variants
        can be compared in pairs.
        """
        seed_of = teacher_seed if self.name == TEACHER else student_seed
        return [seed_of(run_seed, member) for member in range(self.num_seeds)]

    @property
    def stamp_options(self) -> dict[str, Any]:
        """Everything that decides its weights, for the stamp of its step, by name. Runtime options do not."""
        values = {**vars(self), "train": self.train.without_runtime_options()}
        if isinstance(self.targets, SoftLabels | OnlineSoftLabels):
            values["targets"] = {"distil": self.targets.distil.loss_values, "teachers": self.targets.teachers}
        if isinstance(self.targets, OnlineSoftLabels):
            values["online"] = True
        if not self.mix:
            del values["mix"]
        return values


def teacher(options: DigitsOptions) -> Variant:
    """The teachers, one stack."""
    large = options.teacher
    return Variant(TEACHER, HardLabels(), large.model, large.train, large.size, jitter=large.jitter)


def students(options: DigitsOptions) -> list[Variant]:
    """Every student of the chosen experiments. A student that several experiments share is listed once."""
    variants = [one for number in sorted(set(options.experiments)) for one in students_of(number, options)]
    return list({variant.name: variant for variant in variants}.values())


def students_of(experiment: int, options: DigitsOptions) -> list[Variant]:
    """The students of an experiment."""
    if experiment == 1:
        return _headline(options)
    if experiment == 2:
        return [variant for _, variant in width_points(options)]
    if experiment == 3:
        return [_transfer(options, "no_3", tuple(c for c in ALL_CLASSES if c != 3))]
    if experiment == 4:
        return [_transfer(options, "only_7_8", (7, 8))]
    if experiment == 5:
        return [*(variant for _, variant in matching_points(options)), logit_matching(options)]
    if experiment == 6:
        points = [variant for _, variant in alpha_points(options)] + [variant for _, variant in teacher_points(options)]
        return points + _small_set(options)
    return _controls(options)


def _headline(options: DigitsOptions) -> list[Variant]:
    small = options.student
    return [
        Variant("baseline", HardLabels(), small.model, small.hard, small.seeds),
        Variant("distilled", _soft(options), small.model, small.soft, small.seeds, mix=small.mix),
    ]


def _soft(options: DigitsOptions, **changes: Any) -> SoftLabels | OnlineSoftLabels:
    """The targets of the distilled student, stored or online, with `changes` of their options."""
    distil = replace(options.student.distil, **changes)
    kind = OnlineSoftLabels if distil.targets == "online" else SoftLabels
    return kind(distil, options.teacher.size)


def _transfer(options: DigitsOptions, name: str, classes: tuple[int, ...]) -> Variant:
    small = options.student
    # Soft targets alone: the paper's transfer sets have no labels.
    soft = _soft(options, alpha=1.0)
    return Variant(
        name, soft, small.model, small.soft, small.seeds, classes=classes, excludes_held_out=True, mix=small.mix
    )


def compared(
    options: DigitsOptions,
    width: int | None = None,
    temperature: float | None = None,
    alpha: float | None = None,
    teachers: int | None = None,
) -> Variant:
    """A student of experiments 2, 5 and 6. Values that are None are those of the distilled student.

    Its targets are stored, which takes less time: there are many such students.
    """
    small = options.student
    width = small.model.hidden_dim if width is None else width
    distil = replace(
        small.distil,
        temperature=small.distil.temperature if temperature is None else temperature,
        alpha=small.distil.alpha if alpha is None else alpha,
        targets="stored",
    )
    teachers = options.teacher.size if teachers is None else teachers
    name = f"width{width}_T{distil.temperature:g}_alpha{distil.alpha:g}_teachers{teachers}"
    model = replace(small.model, hidden_dim=width)
    return Variant(name, SoftLabels(distil, teachers), model, options.compared.train, small.seeds)


def width_points(options: DigitsOptions) -> list[tuple[tuple[int, float], Variant]]:
    """Experiment 2: each (width, temperature) with its students."""
    grid = [(width, temperature) for width in options.compared.widths for temperature in options.compared.temperatures]
    return [((width, temperature), compared(options, width, temperature, alpha=1.0)) for width, temperature in grid]


def matching_points(options: DigitsOptions) -> list[tuple[float, Variant]]:
    """Experiment 5: each temperature with its students."""
    return [(t, compared(options, temperature=t, alpha=1.0)) for t in options.compared.matching_temperatures]


def logit_matching(options: DigitsOptions) -> Variant:
    """Experiment 5: the same student, trained on squared differences of logits."""
    small = options.student
    targets = TeacherLogits(options.teacher.size)
    return Variant("logit_matching", targets, small.model, options.compared.train, small.seeds)


def alpha_points(options: DigitsOptions) -> list[tuple[float, Variant]]:
    """Experiment 6: each weight of the soft targets with its students."""
    return [(alpha, compared(options, alpha=alpha)) for alpha in options.compared.alphas]


def teacher_points(options: DigitsOptions) -> list[tuple[int, Variant]]:
    """Experiment 6: each number of teachers with its students."""
    return [(size, compared(options, teachers=size)) for size in options.compared.teachers]


def _small_set(options: DigitsOptions) -> list[Variant]:
    """Experiment 6: hard labels and soft targets on a small fraction of the digits.

    Both are trained alike, for as many steps as the students that learn all digits.
    """
    small, fraction = options.student, options.compared.fraction
    train = replace(options.compared.train, epochs=round(options.compared.train.epochs / fraction))
    soft = SoftLabels(replace(small.distil, targets="stored"), options.teacher.size)
    return [
        Variant("small_set_hard", HardLabels(), small.model, train, small.seeds, fraction=fraction),
        Variant("small_set_soft", soft, small.model, train, small.seeds, fraction=fraction),
    ]


def _controls(options: DigitsOptions) -> list[Variant]:
    """Experiment 7: what the baseline gains without a teacher."""
    small, large = options.student, options.teacher
    smoothed = HardLabels(options.compared.label_smoothing)
    mixed = Variant("mixed_labels", HardLabels(), small.model, small.soft, small.seeds, mix=small.mix)
    regularised = replace(large.model, hidden_dim=small.model.hidden_dim, num_layers=small.model.num_layers)
    return [
        Variant("regularised", HardLabels(), regularised, large.train, small.seeds, jitter=large.jitter),
        # These are trained as the distilled student is. They differ from it only in their targets.
        Variant("label_smoothing", smoothed, small.model, small.soft, small.seeds),
        Variant("longer", HardLabels(), small.model, small.soft, small.seeds),
        *([mixed] if small.mix else []),
    ]
