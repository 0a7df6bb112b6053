"""Which networks the experiments train: each variant is a stack of seeds alike in everything else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from asrkd.data.corpora.mnist import NUM_CLASSES
from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions, LogitMatching
from asrkd.nnet import HardTargets, Objective, TrainOptions
from asrkd.nnet.models import ModelOptions
from recipes.mnist.options import DigitsOptions

ALL_CLASSES = tuple(range(NUM_CLASSES))
# Teachers and students draw their seeds from ranges that never meet.
STUDENT_SEED_OFFSET = 500
SEEDS_A_RUN = 1000


@dataclass(frozen=True)
class HardLabels:
    """Learn the labels alone."""

    label_smoothing: float = 0.0
    """Share of the uniform distribution in the targets."""

    def objective(self, labels: Tensor, teacher_logits: Tensor | None) -> Objective:
        return HardTargets(labels, self.label_smoothing)


@dataclass(frozen=True)
class SoftLabels:
    """Learn the geometric mean of the first `teachers` teachers, at a temperature, mixed with the labels by alpha."""

    distil: DistilOptions
    teachers: int

    def objective(self, labels: Tensor, teacher_logits: Tensor | None) -> Objective:
        assert teacher_logits is not None
        targets = DenseTargets.from_logits(teacher_logits[: self.teachers], self.distil.temperature)
        return Distillation(labels, targets, self.distil)


@dataclass(frozen=True)
class TeacherLogits:
    """Learn the mean logits of the first `teachers` teachers by squared differences."""

    teachers: int

    def objective(self, labels: Tensor, teacher_logits: Tensor | None) -> Objective:
        assert teacher_logits is not None
        return LogitMatching(teacher_logits[: self.teachers].mean(dim=0))


@dataclass(frozen=True)
class Variant:
    """Networks of one shape and one training that differ in their seeds alone."""

    name: str
    """Name in results.json and of its step."""
    targets: HardLabels | SoftLabels | TeacherLogits
    """What it learns."""
    model: ModelOptions
    train: TrainOptions
    seeds: int
    jitter: int = 0
    """Pixels by which training images are shifted at most."""
    classes: tuple[int, ...] = ALL_CLASSES
    """Digits that its transfer set has."""
    fraction: float = 1.0
    """Part of the training digits that it has."""
    excludes_held_out: bool = False
    """Whether it never learns the digits by which its biases are tuned."""

    @property
    def needs_teachers(self) -> bool:
        return not isinstance(self.targets, HardLabels)

    def member_seeds(self, run_seed: int) -> list[int]:
        """Seed of each member. Students of all variants share theirs, so that member m is a pair with member m."""
        offset = SEEDS_A_RUN * run_seed + (0 if self.name == "teacher" else STUDENT_SEED_OFFSET)
        return [offset + member for member in range(self.seeds)]

    @property
    def identity(self) -> list[Any]:
        """What decides its weights; where it runs and how that is shown do not."""
        return [replace(self, train=self.train.without_runtime_options())]


def teacher(options: DigitsOptions) -> Variant:
    """The teachers: one stack, of which every soft target is the mean."""
    large = options.teacher
    return Variant("teacher", HardLabels(), large.model, large.train, large.size, jitter=large.jitter)


def students(options: DigitsOptions) -> list[Variant]:
    """Every student of the chosen experiments, each once however many experiments it serves."""
    found = [one for number in sorted(set(options.experiments)) for one in students_of(number, options)]
    return list({variant.name: variant for variant in found}.values())


def students_of(experiment: int, options: DigitsOptions) -> list[Variant]:
    """The students that an experiment compares with those of experiment 1 or with each other."""
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
    soft = SoftLabels(small.distil, options.teacher.size)
    return [
        Variant("baseline", HardLabels(), small.model, small.hard, small.seeds),
        Variant("distilled", soft, small.model, small.soft, small.seeds),
    ]


def _transfer(options: DigitsOptions, name: str, classes: tuple[int, ...]) -> Variant:
    small = options.student
    # Soft targets alone: the paper's transfer sets carry no labels.
    soft = SoftLabels(replace(small.distil, alpha=1.0), options.teacher.size)
    return Variant(name, soft, small.model, small.soft, small.seeds, classes=classes, excludes_held_out=True)


def compared(
    options: DigitsOptions,
    width: int | None = None,
    temperature: float | None = None,
    alpha: float | None = None,
    teachers: int | None = None,
) -> Variant:
    """A student of experiments 2, 5 and 6; what is None is as in the distilled student."""
    small = options.student
    width = small.model.hidden_dim if width is None else width
    distil = replace(
        small.distil,
        temperature=small.distil.temperature if temperature is None else temperature,
        alpha=small.distil.alpha if alpha is None else alpha,
    )
    teachers = options.teacher.size if teachers is None else teachers
    name = f"width{width}_T{distil.temperature:g}_alpha{distil.alpha:g}_teachers{teachers}"
    model = replace(small.model, hidden_dim=width)
    return Variant(name, SoftLabels(distil, teachers), model, options.compared.train, small.seeds)


def width_points(options: DigitsOptions) -> list[tuple[tuple[int, float], Variant]]:
    """Experiment 2: (width, temperature) and its students."""
    grid = [(width, temperature) for width in options.compared.widths for temperature in options.compared.temperatures]
    return [((width, temperature), compared(options, width, temperature, alpha=1.0)) for width, temperature in grid]


def matching_points(options: DigitsOptions) -> list[tuple[float, Variant]]:
    """Experiment 5: temperature and its students."""
    return [(t, compared(options, temperature=t, alpha=1.0)) for t in options.compared.matching_temperatures]


def logit_matching(options: DigitsOptions) -> Variant:
    """Experiment 5: the same student on squared differences of logits."""
    small = options.student
    targets = TeacherLogits(options.teacher.size)
    return Variant("logit_matching", targets, small.model, options.compared.train, small.seeds)


def alpha_points(options: DigitsOptions) -> list[tuple[float, Variant]]:
    """Experiment 6: weight of the soft targets and its students."""
    return [(alpha, compared(options, alpha=alpha)) for alpha in options.compared.alphas]


def teacher_points(options: DigitsOptions) -> list[tuple[int, Variant]]:
    """Experiment 6: number of teachers and its students."""
    return [(size, compared(options, teachers=size)) for size in options.compared.teachers]


def _small_set(options: DigitsOptions) -> list[Variant]:
    """Experiment 6: hard labels and soft targets on a small part of the digits, trained alike, for as many steps as
    the students that are compared on all of them."""
    small, part = options.student, options.compared.fraction
    train = replace(options.compared.train, epochs=round(options.compared.train.epochs / part))
    soft = SoftLabels(small.distil, options.teacher.size)
    return [
        Variant("small_set_hard", HardLabels(), small.model, train, small.seeds, fraction=part),
        Variant("small_set_soft", soft, small.model, train, small.seeds, fraction=part),
    ]


def _controls(options: DigitsOptions) -> list[Variant]:
    """Experiment 7: what the baseline gains by other means than a teacher."""
    small, large = options.student, options.teacher
    smoothed = HardLabels(options.compared.label_smoothing)
    regularised = replace(large.model, hidden_dim=small.model.hidden_dim, num_layers=small.model.num_layers)
    return [
        Variant("regularised", HardLabels(), regularised, large.train, small.seeds, jitter=large.jitter),
        # As long, and as the distilled student is trained: what is left between them is the targets alone.
        Variant("label_smoothing", smoothed, small.model, small.soft, small.seeds),
        Variant("longer", HardLabels(), small.model, small.soft, small.seeds),
    ]
