"""Options of a speech recipe: a frozen dataclass a module, composed here, overridden as `--section.option=value`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from asrkd import config
from asrkd.align import FlatStartOptions, ViterbiOptions
from asrkd.data.corpora.librispeech import LibrispeechOptions
from asrkd.data.corpora.user import UserCorpusOptions
from asrkd.decode import DecodeOptions
from asrkd.distil.loss import DistilOptions
from asrkd.distil.store import StoreOptions
from asrkd.errors import InputError
from asrkd.features.fbank import FeatureOptions
from asrkd.graph import GraphOptions
from asrkd.hmm.tree import TreeOptions
from asrkd.lang.options import LangOptions
from asrkd.nnet import TrainOptions
from asrkd.nnet.models import ModelOptions
from asrkd.workflow.map import Executor, Jobs
from asrkd.workflow.steps import LAST_STAGE

CORPUS_SECTION = "corpora"


@dataclass(frozen=True)
class ContextOptions:
    """Frames spliced into one input (the paper: 26 frames, predicting the 21st)."""

    left: int = 20
    """Frames before the predicted one."""
    right: int = 5
    """Frames after it."""


@dataclass(frozen=True)
class LabelOptions:
    """Networks that make the frame labels: monophone rounds first, then rounds with a senone tree."""

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
class EnsembleOptions:
    """The teachers: same data and shape, another initialisation and data order."""

    size: int = 5
    """Number of teachers (M)."""


@dataclass(frozen=True)
class StudentsOptions:
    """Which students are trained beside the baseline and the distilled one."""

    seeds: int = 1
    """Seeds of the baseline and of the distilled student; 3 or more show the spread."""
    soft_learning_rate: float | None = None
    """Highest learning rate of students that learn soft targets; none: train.learning_rate, as on hard labels."""
    sweep_temperatures: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """Temperatures compared on the development speakers (empty: no sweep)."""
    sweep_alphas: tuple[float, ...] = ()
    """Weights of the soft targets compared on the development speakers at the chosen temperature."""
    narrow_dims: tuple[int, ...] = ()
    """Hidden units of narrower students, each distilled and trained plainly."""


@dataclass(frozen=True)
class TuneOptions:
    """Scales tried on the development speakers, all systems together; the chosen ones decode the test set."""

    acoustic_scales: tuple[float, ...] = (0.08, 0.1, 0.15, 0.2, 0.3, 0.4)
    """Weights of the acoustic scores."""
    insertion_scores: tuple[float, ...] = (-6.0, -4.5, -3.0, -1.5, 0.0)
    """Scores added for each word."""
    lm_scales: tuple[float, ...] = ()
    """Weights of the graph's scores; none: decode.lm_scale alone."""

    def __post_init__(self) -> None:
        for name in ("acoustic_scales", "insertion_scores"):
            if not getattr(self, name):
                raise InputError(f"--tune.{name.replace('_', '-')}: expected at least one, found none")


@dataclass(frozen=True)
class SpeechOptions:
    """Everything a speech recipe decides."""

    corpus_dir: Path | None = None
    """Folder of the corpus as it was downloaded."""
    exp_dir: Path = Path("exp/speech")
    """Folder of everything the run makes."""
    stage: int = 0
    """First stage to run, by its number in the list above."""
    stop_stage: int = LAST_STAGE
    """Last stage to run."""
    max_bad: float = 0.01
    """Fraction of each split's utterances that may be rejected as bad before the run stops."""
    dry_run: bool = False
    """Print which steps would run and why (which option or input changed), and run none."""
    list_steps: bool = False
    """Print every step and whether it is up to date, and run none."""
    only: str | None = None
    """The one step to run, e.g. teachers/3: several machines that see exp_dir may each run another one at a time."""
    num_jobs: int = 2
    """Processes that read audio, align, compute posteriors and decode: as many as there are cores, best."""
    executor: Executor = "processes"
    """Where they are: processes of this machine, or dask: the workers of a Dask cluster that see the same files."""
    scheduler: str | None = None
    """Address of the Dask cluster's scheduler, e.g. tcp://10.0.0.1:8786."""
    seed: int = 0
    """Seed of everything random; teacher m and student s use seeds derived from it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks train: auto is cuda when there is one."""
    features: FeatureOptions = field(default_factory=FeatureOptions)
    lang: LangOptions = field(default_factory=LangOptions)
    align: FlatStartOptions = field(default_factory=FlatStartOptions)
    realign: ViterbiOptions = field(default_factory=ViterbiOptions)
    labels: LabelOptions = field(default_factory=LabelOptions)
    tree: TreeOptions = field(default_factory=TreeOptions)
    context: ContextOptions = field(default_factory=ContextOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    teacher: ModelOptions = field(default_factory=ModelOptions)
    student: ModelOptions = field(default_factory=lambda: ModelOptions(dropout=0.0))
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    posteriors: StoreOptions = field(default_factory=StoreOptions)
    posteriors_from: Path | None = None
    """A store made by `asrkd posteriors import`: another system teaches, no teachers are trained."""
    distil: DistilOptions = field(default_factory=DistilOptions)
    students: StudentsOptions = field(default_factory=StudentsOptions)
    graph: GraphOptions = field(default_factory=GraphOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    tune: TuneOptions = field(default_factory=TuneOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.stage <= LAST_STAGE:
            raise InputError(f"--stage: expected 0 to {LAST_STAGE}, found {self.stage}")
        if self.ensemble.size < 2:
            raise InputError(f"--ensemble.size: expected at least 2 teachers, found {self.ensemble.size}")
        if self.students.seeds < 1:
            raise InputError(f"--students.seeds: expected at least 1, found {self.students.seeds}")
        for name in ("seed", "device"):
            # Every network of a run takes these from the run, so a value of the section alone would be ignored.
            if getattr(self.train, name) != getattr(TrainOptions(), name):
                raise InputError(f"--train.{name}: give --{name}, which every network of the recipe follows")
        for section in ("align", "realign", "decode"):
            one: FlatStartOptions | ViterbiOptions | DecodeOptions = getattr(self, section)
            if one.num_jobs != type(one)().num_jobs:
                raise InputError(f"--{section}.num-jobs: give --num-jobs, which every step of the recipe follows")
        if self.lang.mix and self.lang.arpa is None and self.lang.rescore_arpa is None:
            raise InputError("--lang.mix: expected --lang.arpa or --lang.rescore-arpa to mix with, found neither")
        if self.lang.max_words is not None and self.lang.arpa is None:
            raise InputError("--lang.max-words: expected --lang.arpa to take words of, found none")
        _ = self.jobs
        self._require_temperatures()

    @property
    def jobs(self) -> Jobs:
        """Where pieces of work are done."""
        return Jobs(self.num_jobs, self.executor, self.scheduler)

    def _require_temperatures(self) -> None:
        wanted = {self.distil.temperature, *self.students.sweep_temperatures}
        missing = sorted(wanted - set(self.posteriors.temperatures))
        if missing:
            raise InputError(
                f"--distil.temperature and --students.sweep-temperatures: expected some of --posteriors.temperatures "
                f"{self.posteriors.temperatures}, found {missing[0]:g}"
            )


@dataclass(frozen=True)
class LibrispeechSpeechOptions(SpeechOptions):
    """Those of recipes/librispeech."""

    corpora: LibrispeechOptions = field(default_factory=LibrispeechOptions)


@dataclass(frozen=True)
class UserSpeechOptions(SpeechOptions):
    """Those of recipes that `asrkd init` writes."""

    corpora: UserCorpusOptions = field(default_factory=lambda: UserCorpusOptions(recordings=Path()))


def options_of_run(exp_dir: Path) -> SpeechOptions:
    """What a run in `exp_dir` was configured with, whichever its recipe: all but the options of its corpus."""
    return replace(config.load(SpeechOptions, exp_dir / "config.json", leave_out=(CORPUS_SECTION,)), exp_dir=exp_dir)


def corpus_options(options: SpeechOptions) -> list[Any]:
    """The recipe's own options of its corpus: what a subclass of SpeechOptions has under `corpora`, else none."""
    return [getattr(options, CORPUS_SECTION)] if hasattr(options, CORPUS_SECTION) else []
