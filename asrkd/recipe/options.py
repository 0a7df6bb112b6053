"""Options of a speech recipe: one frozen dataclass per module, overridden as `--section.option=value`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from asrkd import config
from asrkd.align import FlatStartOptions, ViterbiOptions
from asrkd.data.corpora.options import LibrispeechOptions, UserCorpusOptions
from asrkd.data.rejects import MAX_DURATION_SEC, require_max_bad
from asrkd.decode import DecodeOptions
from asrkd.distil.compression import StoreOptions
from asrkd.distil.loss import DistilOptions
from asrkd.errors import InputError
from asrkd.features.options import FeatureOptions
from asrkd.graph.options import GraphOptions
from asrkd.hmm.tree import TreeOptions
from asrkd.lang.options import LangOptions
from asrkd.nnet import AugmentOptions, TrainOptions
from asrkd.nnet.augment_options import SOURCES
from asrkd.nnet.model_options import ModelOptions
from asrkd.options import NoEffect, added_later, advice, require_set_by_run, set_by_run, short_name
from asrkd.recipe.folders import fold_name
from asrkd.recipe.no_effect import NO_EFFECT
from asrkd.recipe.seeds import MAX_SEED
from asrkd.recipe.transfer_options import TransferOptions
from asrkd.workflow.executor import Executor, ExecutorKind
from asrkd.workflow.steps import LAST_STAGE

CORPUS_SECTION = "corpora"
# What `--help` lists; `--help-all` lists every option.
COMMON_OPTIONS = (
    *("corpus-dir", "exp-dir", "stage", "stop-stage", "list-steps", "dry-run", "num-jobs", "device", "seed"),
    *("ensemble.size", "distil.temperature", "student.hidden-dim"),
)


@dataclass(frozen=True)
class ContextOptions:
    """Frames spliced into one input (the paper: 26 frames, predicting the 21st)."""

    left: int = 20
    """Frames before the predicted one."""
    right: int = 5
    """Frames after it."""


@dataclass(frozen=True)
class LabelOptions:
    """Networks that label the frames: monophone rounds first, then rounds with a senone tree."""

    mono_rounds: int = 2
    """Rounds of training a monophone network and realigning with it."""
    tree_rounds: int = 2
    """Rounds of growing a tree, training a network on its senones and realigning with it."""
    epochs: int = 4
    """Passes over the data in each round."""

    def __post_init__(self) -> None:
        for name in ("tree_rounds", "epochs"):
            if getattr(self, name) < 1:
                raise InputError(f"--labels.{name.replace('_', '-')}: expected at least 1, found {getattr(self, name)}")
        if self.mono_rounds < 0:
            raise InputError(f"--labels.mono-rounds: expected at least 0, found {self.mono_rounds}")


@dataclass(frozen=True)
class DoubtfulOptions:
    """Transcripts that may not be what was said: their log-likelihood per frame lies far below their split's median.

    The unit is the split's standard deviation over utterances, estimated robustly.
    """

    list_beyond: float = 4.0
    """Deviations below the median from which an utterance is listed."""
    exclude_beyond: float | None = 6.0
    """Deviations below the median from which an utterance is excluded from training and tuning, and counts against
    max_bad; None: none is. The test set is scored whole in any case."""

    def __post_init__(self) -> None:
        if not self.list_beyond > 0:
            raise InputError(f"--doubtful.list-beyond: expected a positive number, found {self.list_beyond}")
        if self.exclude_beyond is not None and not self.exclude_beyond >= self.list_beyond:
            raise InputError(
                f"--doubtful.exclude-beyond: expected at least --doubtful.list-beyond {self.list_beyond}, "
                f"found {self.exclude_beyond}"
            )


@dataclass(frozen=True)
class EnsembleOptions:
    """The teachers: same data and size, different initialisation and data order, and different kinds where given."""

    size: int = 5
    """Number of teachers (M); 1: a single teacher, such as a large one for a small student."""
    kinds: tuple[str, ...] = ()
    """Kinds of the teachers, as of teacher.kind: teacher i has number i of them, from the first again after the last.
    Empty: all have teacher.kind."""


@dataclass(frozen=True)
class StudentsOptions:
    """How students are trained, and which ones besides the baseline and the distilled one.

    The schedule is that of baselines too, so that distilled students and baselines are trained as long.
    """

    seeds: int = 1
    """Number of seeds of the baseline and of the distilled student; 3 or more show the spread."""
    soft_learning_rate: float | None = None
    """Highest learning rate with soft targets; None: train.learning_rate, as with hard labels."""
    epochs: int | None = None
    """Passes of every student over the training frames; None: train.epochs, as teachers."""
    weight_decay: float | None = None
    """Weight decay of every student; None: train.weight_decay."""
    beta2: float | None = None
    """Decay of adamw's second moment for every student; None: train.beta2."""
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    """Distortions of the inputs of distilled students, and of the baselines named baseline_augmented."""
    choose: Literal["dev", "configured"] = "dev"
    """Which student of the sweep is the system `distilled`, and which dropout `baseline_dropout` has. dev: the one of
    the lowest cross-entropy on the development speakers. configured: that of distil and student, and the teachers'
    dropout; the others are only compared."""
    sweep_temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """Temperatures of the sweep besides distil.temperature. Each value of a sweep is one more student to train."""
    sweep_alphas: tuple[float, ...] = ()
    """Weights of the soft targets in the sweep besides distil.alpha, at distil.temperature."""
    sweep_dropouts: tuple[float, ...] = ()
    """Dropouts of the distilled student in the sweep besides student.dropout, with distil's temperature and alpha."""
    baseline_dropouts: tuple[float, ...] = (0.3,)
    """Dropouts of the baseline with dropout besides the teachers': it has its own best one."""
    narrow_dims: tuple[int, ...] = ()
    """Hidden units of narrower students; each is distilled and also trained on hard labels."""
    teacher_size: bool = False
    """Whether a student of the teachers' size is distilled too, to show what the small one loses."""
    subset: float | None = field(default=None, metadata=added_later())
    """Fraction of the training utterances that two more students learn from, subset_hard from their labels and
    subset_soft from the ensemble's posteriors (the paper's section 6, soft targets as regularisers). None: no such
    students. Copies of an utterance go together."""
    subset_seed: int = field(default=0, metadata=added_later())
    """Seed of the choice of these utterances."""
    subset_epochs: int | None = field(default=None, metadata=added_later())
    """Passes of these students over them. None: so many that their steps are as many as those of other students. The
    development speakers choose the epoch, as for every network."""

    def __post_init__(self) -> None:
        if self.subset is not None and not 0 < self.subset < 1:
            raise InputError(f"--students.subset: expected a fraction above 0 and below 1, found {self.subset:g}")
        if self.subset_epochs is not None and self.subset_epochs < 1:
            raise InputError(f"--students.subset-epochs: expected at least 1, found {self.subset_epochs}")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"--students.epochs: expected at least 1, found {self.epochs}")
        if self.weight_decay is not None and not self.weight_decay >= 0:
            raise InputError(f"--students.weight-decay: expected at least 0, found {self.weight_decay}")
        if self.beta2 is not None and not 0 <= self.beta2 < 1:
            raise InputError(f"--students.beta2: expected a value in [0, 1), found {self.beta2}")
        for name, source in SOURCES.items():
            if getattr(self.augment, name) and getattr(self.augment, source) is None:
                raise InputError(
                    f"--students.augment.{name}: expected --students.augment.{name}-from with it, found none"
                )
        for name in ("sweep_dropouts", "baseline_dropouts"):
            for value in getattr(self, name):
                if not 0 <= value < 1:
                    raise InputError(f"--students.{name.replace('_', '-')}: expected values in [0, 1), found {value:g}")


@dataclass(frozen=True)
class TuneOptions:
    """Scales to try on the development speakers, all systems together. The best ones decode the test set."""

    acoustic_scales: tuple[float, ...] = (0.08, 0.1, 0.15, 0.2, 0.3, 0.4)
    """Weights of the acoustic scores."""
    insertion_scores: tuple[float, ...] = (-6.0, -4.5, -3.0, -1.5, 0.0)
    """Scores to add for each word."""
    lm_scales: tuple[float, ...] = ()
    """Weights of the graph's scores; empty: decode.lm_scale alone."""
    max_added: int = 8
    """Values to add at most at each end of a grid, while the best one is there; 0: none. One value is no grid."""

    def __post_init__(self) -> None:
        for name in ("acoustic_scales", "insertion_scores"):
            if not getattr(self, name):
                raise InputError(f"--tune.{name.replace('_', '-')}: expected at least one, found none")
        self._require("acoustic_scales", "positive scales", lambda scale: scale > 0)
        self._require("lm_scales", "scales of at least 0", lambda scale: scale >= 0)
        self._require("insertion_scores", "finite scores", math.isfinite)
        if self.max_added < 0:
            raise InputError(f"--tune.max-added: expected at least 0, found {self.max_added}")

    def _require(self, name: str, expected: str, is_valid: Callable[[float], bool]) -> None:
        """InputError, before anything trains, for a value that decoding would refuse."""
        for value in getattr(self, name):
            if not (math.isfinite(value) and is_valid(value)):
                raise InputError(f"--tune.{name.replace('_', '-')}: expected {expected}, found {value:g}")


@dataclass(frozen=True)
class SpeechOptions:
    """All options of a speech recipe."""

    NO_EFFECT: ClassVar[tuple[NoEffect, ...]] = NO_EFFECT

    corpus_dir: Path | None = None
    """Folder of the corpus as it was downloaded."""
    exp_dir: Path = Path("exp/speech")
    """Folder for all outputs of the run."""
    stage: int = 0
    """First stage to run, by its number."""
    stop_stage: int = LAST_STAGE
    """Last stage to run."""
    max_bad: float = 0.01
    """Fraction of each split's utterances that may be lost, in whichever stages, before the run stops."""
    max_duration: float = MAX_DURATION_SEC
    """Seconds of the longest utterance; longer ones are rejected. Alignment and decoding need memory for each frame."""
    dry_run: bool = False
    """Print which steps would run and why (which option or input changed), and run none."""
    list_steps: bool = False
    """Print every step and whether it is up to date, and run none."""
    only: str | None = None
    """The one step to run, e.g. teachers/3, or all steps of a folder, e.g. fold_2. Several machines that share exp_dir
    can each run a different one."""
    num_jobs: int = field(default=2, metadata=short_name("nj"))
    """Processes that read audio, align, compute posteriors and decode; best as many as there are cores."""
    network_jobs: int = field(default=1, metadata=added_later())
    """Teachers, and students, that train side by side on the CPU, each with its share of the cores: small networks use
    many cores badly. Each needs its memory. A GPU trains one after another."""
    executor: ExecutorKind = "processes"
    """processes: on this machine. dask: the workers of a Dask cluster that sees the same files."""
    scheduler: str | None = None
    """Address of the Dask cluster's scheduler, e.g. tcp://10.0.0.1:8786."""
    folds: int | None = None
    """Groups of the corpus' speakers: so many runs, each tested on one group and trained on others, decode all of the
    corpus between them (cross-validation). None: one run, on the corpus' own train, dev and test."""
    fold_seed: int = 0
    """Seed of the division of speakers into folds, so that runs of every `seed` have the same folds."""
    seed: int = 0
    """Seed of everything random. Seeds of teachers and students derive from it."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=advice("--device=cpu always works"))
    """Where networks train: auto is cuda if there is a GPU."""
    features: FeatureOptions = field(default_factory=FeatureOptions)
    lang: LangOptions = field(default_factory=LangOptions)
    align: FlatStartOptions = field(default_factory=FlatStartOptions)
    realign: ViterbiOptions = field(default_factory=ViterbiOptions)
    labels: LabelOptions = field(default_factory=LabelOptions)
    doubtful: DoubtfulOptions = field(default_factory=DoubtfulOptions)
    tree: TreeOptions = field(default_factory=TreeOptions)
    context: ContextOptions = field(default_factory=ContextOptions)
    train: TrainOptions = field(default_factory=TrainOptions, metadata=set_by_run("seed", "device"))
    teacher: ModelOptions = field(default_factory=ModelOptions)
    student: ModelOptions = field(default_factory=lambda: ModelOptions(dropout=0.0))
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    posteriors: StoreOptions = field(default_factory=StoreOptions)
    posteriors_from: Path | None = None
    """Store of `asrkd posteriors import`: another system is the teacher, and no teachers are trained."""
    labels_from: Path | None = field(default=None, metadata=added_later())
    """Another run, whose aligner labels the frames with its senones, so that frame accuracies of the two runs are
    comparable. Nothing is aligned from a flat start, and no tree is grown."""
    distil: DistilOptions = field(default_factory=DistilOptions)
    students: StudentsOptions = field(default_factory=StudentsOptions)
    transfer: TransferOptions = field(default_factory=TransferOptions)
    graph: GraphOptions = field(default_factory=GraphOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    tune: TuneOptions = field(default_factory=TuneOptions)

    def __post_init__(self) -> None:
        for name, stage in (("stage", self.stage), ("stop-stage", self.stop_stage)):
            if not 0 <= stage <= LAST_STAGE:
                raise InputError(f"--{name}: expected 0 to {LAST_STAGE}, found {stage}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"--seed: expected 0 to {MAX_SEED}, found {self.seed}")
        require_max_bad(self.max_bad)
        self._require_folds()
        if not self.max_duration > 0:
            raise InputError(f"--max-duration: expected a number of seconds above 0, found {self.max_duration:g}")
        if self.ensemble.size < 1:
            raise InputError(f"--ensemble.size: expected at least 1 teacher, found {self.ensemble.size}")
        if self.network_jobs < 1:
            raise InputError(f"--network-jobs: expected at least 1, found {self.network_jobs}")
        if self.students.seeds < 1:
            raise InputError(f"--students.seeds: expected at least 1, found {self.students.seeds}")
        self._require_labels()
        require_set_by_run(self)
        _ = self.task_executor
        self._require_targets()

    @property
    def task_executor(self) -> Executor:
        """What runs the map stages."""
        return Executor(self.num_jobs, self.executor, self.scheduler)

    def _require_folds(self) -> None:
        """InputError for folds that cannot be run."""
        if self.folds is None:
            return
        if self.folds < 2:
            raise InputError(f"--folds: expected at least 2, found {self.folds}: leave it out for one run")
        if self.posteriors_from is not None:
            raise InputError(
                "--folds: expected no --posteriors-from, whose teacher has heard the speakers that each fold tests on, "
                "found both"
            )
        if self.labels_from is not None:
            raise InputError(
                "--folds: expected no --labels-from, whose aligner has heard the speakers that each fold tests on, "
                "found both"
            )

    def _require_labels(self) -> None:
        """InputError for labels of another run where these would differ from that run's own."""
        if self.labels_from is None:
            return
        if self.lang.units == "subword":
            raise InputError(
                "--labels-from: expected --lang.units phones, because subword pieces are learned from a run's own "
                "transcripts, found subword"
            )
        if self.features.cmvn == "online":
            raise InputError(
                "--labels-from: expected another --features.cmvn, because online normalisation begins with the moments "
                "of a run's own training speech, found online"
            )

    def _require_targets(self) -> None:
        """InputError for targets that stage 7 does not make."""
        if self.transfer.has_speech and self.posteriors_from is not None:
            given = "recordings" if self.transfer.recordings is not None else "untranscribed"
            raise InputError(
                f"--transfer.{given}: expected teachers that score it, found --posteriors-from, which has posteriors "
                "of the training frames alone: give one of the two"
            )
        if self.transfer.targets == "lattice":
            if self.posteriors_from is not None:
                raise InputError(
                    "--transfer.targets: expected frame with --posteriors-from, which has no networks to decode with, "
                    "found lattice"
                )
            if self.distil.targets == "online":
                raise InputError(
                    "--transfer.targets: expected frame with --distil.targets online, because lattices need whole "
                    "utterances and not windows of frames, found lattice: give --distil.targets stored"
                )
        if self.distil.targets == "online":
            if self.posteriors_from is not None:
                raise InputError(
                    "--distil.targets: expected stored with --posteriors-from, which has posteriors and no networks, "
                    "found online: give --distil.targets=stored"
                )
            return
        if self.students.augment.mix:
            raise InputError(
                "--students.augment.mix: expected --distil.targets online, because nothing is stored for mixtures, "
                "found stored: give --students.augment.mix=0, or --distil.targets=online"
            )
        wanted = {self.distil.temperature, *self.students.sweep_temperatures}
        missing = sorted(wanted - set(self.posteriors.temperatures))
        if missing:
            raise InputError(
                f"--distil.temperature and --students.sweep-temperatures: expected some of --posteriors.temperatures "
                f"{self.posteriors.temperatures}, found {missing[0]:g}: add it there, or give --distil.targets online, "
                "which takes any"
            )


@dataclass(frozen=True)
class LibrispeechSpeechOptions(SpeechOptions):
    """Options of recipes/librispeech."""

    corpora: LibrispeechOptions = field(default_factory=LibrispeechOptions)


@dataclass(frozen=True)
class UserSpeechOptions(SpeechOptions):
    """Options of recipes that `asrkd init` writes."""

    corpora: UserCorpusOptions = field(default_factory=lambda: UserCorpusOptions(recordings=Path()))


def options_of_run(exp_dir: Path) -> SpeechOptions:
    """The options of the run in `exp_dir`, without those of its corpus."""
    return replace(config.load(SpeechOptions, exp_dir / "config.json", leave_out=(CORPUS_SECTION,)), exp_dir=exp_dir)


def options_of_folds(options: SpeechOptions) -> list[SpeechOptions]:
    """The options of each fold's run; none without folds."""
    return [replace(options, exp_dir=options.exp_dir / fold_name(fold)) for fold in range(options.folds or 0)]


def corpus_options(options: SpeechOptions) -> list[Any]:
    """The options of the recipe's corpus: what a subclass of SpeechOptions has under `corpora`, else none."""
    return [getattr(options, CORPUS_SECTION)] if hasattr(options, CORPUS_SECTION) else []
