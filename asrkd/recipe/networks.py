"""Stages 6 to 8: teachers, their posteriors, students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.align import Alignment
from asrkd.align.labels import NO_LABEL, labels_of, require_store, store_labels
from asrkd.distil.compression import Rows
from asrkd.distil.ensemble import measure_disagreement
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.distil.store import EnsemblePosteriors, PosteriorStore, Span, write_store
from asrkd.distil.store_report import store_report
from asrkd.errors import InputError
from asrkd.features.options import FeatureOptions
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import safetensors_fingerprint, write_json
from asrkd.hmm.tree import SenoneTree
from asrkd.nnet import Augmentation, AugmentOptions, DevSet, HardTargets, Objective, TrainOptions, train
from asrkd.nnet.augment import MelAxis
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.ensembles import Ensemble, load_ensemble
from asrkd.nnet.layers import ModelShape
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.models import build_model
from asrkd.recipe.excluded import excluded_utterances
from asrkd.recipe.folders import STORE_FOLDER, TREE_FILE, RunFolders
from asrkd.recipe.label_networks import copies_frames
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.seeds import student_seed, teacher_seed
from asrkd.recipe.trained import DEVICE_KEY, PRECISION_KEY, SUMMARY_FILE, trained_precision
from asrkd.workflow import provenance
from asrkd.workflow.distributed import SINGLE_PROCESS, ProcessGroup
from asrkd.workflow.executor import SERIAL

MODEL_FILE = "model.safetensors"
REPORT_FILE = "report.json"


@dataclass(frozen=True)
class LabelledFrames:
    """Spliced frames of a split and the senone of each (NO_LABEL where an utterance could not be aligned).

    To train and to measure training, utterances with doubtful transcripts are excluded as those that could not be
    aligned; to decode, they are not.
    """

    store: FrameStore
    inputs: SplicedFrames
    labels: Tensor
    num_pdfs: int
    tree_fingerprint: str

    @classmethod
    def open(cls, split: str, options: SpeechOptions, ranks: ProcessGroup = SINGLE_PROCESS) -> LabelledFrames:
        """A split's aligned utterances. Each of several `ranks` has every size-th utterance's frames in memory."""
        in_memory = None if ranks.size == 1 else slice(ranks.rank, None, ranks.size)
        return cls._open(split, options, in_memory)

    @classmethod
    def open_to_learn(cls, options: SpeechOptions) -> LabelledFrames:
        """The training split. No frames are in memory here where the training reads them in parts, or to a GPU."""
        ranks = ProcessGroup.from_environment()
        if ranks.size == 1 and copies_frames(options):
            return cls._open("train", options, slice(0))
        return cls.open("train", options, ranks)

    @classmethod
    def open_to_decode(cls, split: str, options: SpeechOptions) -> LabelledFrames:
        """All utterances of a held-out split, with those that no lexicon can align. No frames are in memory."""
        store, alignment, tree = _aligned(RunFolders(options.exp_dir), split)
        inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=())
        labels = store_labels(alignment, store, tree, options.exp_dir)
        return cls(store, inputs, labels, tree.num_pdfs, tree.fingerprint)

    @classmethod
    def _open(cls, split: str, options: SpeechOptions, in_memory: slice | None) -> LabelledFrames:
        store, labels, tree = labelled_store(RunFolders(options.exp_dir), split)
        utt_ids = None if in_memory is None else store.utt_ids[in_memory]
        inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=utt_ids)
        return cls(store, inputs, labels, tree.num_pdfs, tree.fingerprint)

    def labels_of(self, utt_id: str) -> Tensor:
        """Senones [T] of one utterance."""
        begin, end = self.store.span(utt_id)
        return self.labels[begin:end]

    def aligned_utt_ids(self) -> list[str]:
        """The utterances that have labels."""
        return [utt_id for utt_id in self.store.utt_ids if bool((self.labels_of(utt_id) != NO_LABEL).all())]


def labelled_store(folders: RunFolders, split: str) -> tuple[FrameStore, Tensor, SenoneTree]:
    """Frames of a split's aligned utterances with trusted transcripts, the senone of each, and the tree.

    Frames and labels are on the disk.
    """
    store, alignment, tree = _aligned(folders, split)
    require_store(alignment, store)
    part = _trusted(folders, split, store, alignment)
    return part, labels_of(alignment, part, tree, folders.exp_dir), tree


def _aligned(folders: RunFolders, split: str) -> tuple[FrameStore, Alignment, SenoneTree]:
    return (
        FrameStore.open(folders.features(split)),
        Alignment.load(folders.alignment(split)),
        SenoneTree.load(folders.tree / TREE_FILE),
    )


def _trusted(folders: RunFolders, split: str, store: FrameStore, alignment: Alignment) -> FrameStore:
    """The aligned utterances of a split without those that stage 5 excludes for their doubtful transcripts."""
    excluded = excluded_utterances(folders, split)
    if not excluded and not alignment.rejected:
        return store
    return store.subset([utt_id for utt_id in alignment.utt_ids if utt_id not in excluded])


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
    """Whether it is only there to compare temperatures or alphas."""
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    """Distortions of its inputs."""

    @property
    def name(self) -> str:
        return self.system if self.seed == 0 else f"{self.system}_seed{self.seed}"


def teachers(options: SpeechOptions) -> list[str]:
    """Steps that train teachers; none where another system teaches."""
    return [] if options.posteriors_from else [f"teachers/{member}" for member in range(options.ensemble.size)]


def teacher_model(member: int, options: SpeechOptions) -> ModelOptions:
    """The architecture of a member of the ensemble."""
    kinds = options.ensemble.kinds
    return replace(options.teacher, kind=kinds[member % len(kinds)]) if kinds else options.teacher


def students(options: SpeechOptions) -> list[Student]:
    """Every student of a run. Baseline and distilled differ in their targets alone.

    `baseline_dropout` is the best baseline: hard labels need the teachers' dropout. It would cost a distilled student
    what distillation gives, for soft targets are the regulariser. Where the distilled student's inputs are distorted,
    `baseline_augmented` learns hard labels from inputs distorted alike.
    """
    augment = options.students.augment
    with_dropout = replace(
        options.student, dropout=options.teacher.dropout, input_dropout=options.teacher.input_dropout
    )
    chosen = []
    for seed in range(options.students.seeds):
        chosen.append(Student("baseline", options.student, seed))
        chosen.append(Student("baseline_dropout", with_dropout, seed))
        if augment.changes_inputs:
            chosen.append(Student("baseline_augmented", options.student, seed, augment=augment))
        chosen.append(Student("distilled", options.student, seed, options.distil, augment=augment))
    for dim in options.students.narrow_dims:
        narrow = replace(options.student, hidden_dim=dim)
        chosen.append(Student(f"baseline_{dim}", narrow))
        chosen.append(Student(f"baseline_dropout_{dim}", replace(with_dropout, hidden_dim=dim)))
        if augment.changes_inputs:
            chosen.append(Student(f"baseline_augmented_{dim}", narrow, augment=augment))
        chosen.append(Student(f"distilled_{dim}", narrow, distil=options.distil, augment=augment))
    return chosen + sweep_students(options)


def sweep_students(options: SpeechOptions) -> list[Student]:
    """Students that differ from the distilled one in temperature or alpha alone; compared on the development set."""
    points = [(temperature, options.distil.alpha) for temperature in options.students.sweep_temperatures]
    points += [(options.distil.temperature, alpha) for alpha in options.students.sweep_alphas]
    chosen = (options.distil.temperature, options.distil.alpha)
    return [
        Student(
            f"sweep_T{temperature:g}_alpha{alpha:g}",
            options.student,
            distil=replace(options.distil, temperature=temperature, alpha=alpha),
            is_sweep=True,
            augment=options.students.augment,
        )
        for temperature, alpha in dict.fromkeys(points)
        if (temperature, alpha) != chosen
    ]


def train_teacher(member: int, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 6: one member of the ensemble. Members differ in initialisation and data order, and in kind if it does."""
    frames, dev = _train_and_dev(options)
    objective = HardTargets(frames.labels)
    seed = teacher_seed(options.seed, member)
    _train_model(frames, dev, teacher_model(member, options), objective, seed, options, out_dir, f"teacher {member}")


def train_student(student: Student, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 8: one student, on hard labels or on the ensemble's posteriors."""
    frames, dev = _train_and_dev(options)
    objective: Objective = HardTargets(frames.labels)
    if student.distil is not None:
        objective = _distillation(student.distil, frames, options)
    seed = student_seed(options.seed, student.seed)
    as_student = replace(options, train=student_training(student, options))
    augment = augmentation(student.augment, options.features)
    _train_model(frames, dev, student.model, objective, seed, as_student, out_dir, student.name, augment)


def augmentation(augment: AugmentOptions, features: FeatureOptions) -> Augmentation | None:
    """The distortions of windows of these features; None where there are none."""
    if not augment.changes_inputs:
        return None
    axis = MelAxis(features.num_mel_bins, features.low_freq_hz, features.high_freq_hz, features.sampling_rate)
    return Augmentation(augment, features.num_mel_bins, axis)


def _distillation(distil: DistilOptions, frames: LabelledFrames, options: SpeechOptions) -> Distillation:
    """The objective of a student: the teachers' stored posteriors, or the teachers themselves."""
    if distil.targets == "online":
        members = teacher_folders(options)
        online = OnlineTargets(open_ensemble(members), options.posteriors.mean, trained_precision(members))
        return Distillation(frames.labels, online, distil)
    store = PosteriorStore.open(RunFolders(options.exp_dir).posteriors)
    store.require(frames.store.fingerprint, frames.tree_fingerprint)
    return Distillation(frames.labels, store, distil)


def student_training(student: Student, options: SpeechOptions) -> TrainOptions:
    """How a student is trained. Soft targets bear a higher rate; hard labels would only be overfitted at it."""
    schedule = options.students
    changes: dict[str, float | None] = {
        "epochs": schedule.epochs,
        "weight_decay": schedule.weight_decay,
        "beta2": schedule.beta2,
        "learning_rate": None if student.distil is None else schedule.soft_learning_rate,
    }
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    return replace(options.train, **given)


@dataclass(frozen=True)
class PosteriorTask:
    """Makes the teachers' posteriors of spans of the aligned training frames."""

    options: SpeechOptions
    device: str = "cpu"

    def open(self) -> Callable[[Span], Rows]:
        folders = RunFolders(self.options.exp_dir)
        whole, alignment, _ = _aligned(folders, "train")
        store = _trusted(folders, "train", whole, alignment)
        utt_ids, offsets = store.utt_ids, store.offsets
        members = teacher_folders(self.options)
        ensemble, precision = open_ensemble(members), trained_precision(members)
        ensemble.to(self.device)
        context = self.options.context

        def rows(span: Span) -> Rows:
            # Only the span's own utterances are read into memory.
            first = int(torch.searchsorted(offsets, span[0], right=True)) - 1
            after = int(torch.searchsorted(offsets, span[1]))
            inputs = SplicedFrames(store.subset(utt_ids[first:after]), context.left, context.right)
            skipped = int(offsets[first])
            posteriors = EnsemblePosteriors(ensemble, inputs, self.options.posteriors, precision)
            return posteriors.rows((span[0] - skipped, span[1] - skipped))

        return rows


def make_posteriors(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 7: the ensemble's top-k posteriors of the training frames, and a report on the development speakers."""
    device = resolve_device(options.device)
    executor = options.task_executor
    if device.type == "cuda":
        if not executor.shares_memory:
            raise InputError("--executor dask: expected --device cpu, for its workers use no GPU, found cuda")
        executor = SERIAL  # forked processes cannot use a GPU, and it needs no more than this one
    members = teacher_folders(options)
    ensemble, precision = open_ensemble(members), trained_precision(members)
    store, _, tree = labelled_store(RunFolders(options.exp_dir), "train")
    inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=())
    description = EnsemblePosteriors(ensemble, inputs, options.posteriors, precision).describe(store, tree.fingerprint)
    task = PosteriorTask(options, device.type)
    write_store(out_dir / STORE_FOLDER, description, task, executor=executor)
    dev = LabelledFrames.open("dev", options)
    ensemble.to(device)
    write_json(
        out_dir / REPORT_FILE,
        {
            "store": store_report(ensemble, dev.inputs, options.posteriors),
            "disagreement": measure_disagreement(ensemble, dev.inputs, dev.labels),
        },
    )


def measure_teachers(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 7 with online targets: the report on the development speakers alone, for students read the teachers."""
    ensemble = open_ensemble(teacher_folders(options)).to(resolve_device(options.device))
    dev = LabelledFrames.open("dev", options)
    disagreement = measure_disagreement(ensemble, dev.inputs, dev.labels)
    write_json(out_dir / REPORT_FILE, {"store": [], "disagreement": disagreement})


def model_content(folder: Path) -> str:
    """Fingerprint of a trained network's weights: its other files have times, too."""
    return safetensors_fingerprint(folder / MODEL_FILE, with_metadata=False)


def teacher_folders(options: SpeechOptions) -> list[Path]:
    """Folders of the trained teachers."""
    return [options.exp_dir / name for name in teachers(options)]


def open_ensemble(members: Sequence[Path]) -> Ensemble:
    """The teachers in these folders."""
    return load_ensemble([member / MODEL_FILE for member in members])


def _train_and_dev(options: SpeechOptions) -> tuple[LabelledFrames, LabelledFrames]:
    return LabelledFrames.open_to_learn(options), LabelledFrames.open("dev", options)


def _train_model(
    frames: LabelledFrames,
    dev: LabelledFrames,
    shape: ModelOptions,
    objective: Objective,
    seed: int,
    options: SpeechOptions,
    out_dir: Path,
    description: str,
    augment: Augmentation | None = None,
) -> None:
    model = build_model(ModelShape(frames.inputs.dim, frames.num_pdfs, shape, frames.store.num_features), seed)
    train_options = replace(options.train, seed=seed, device=options.device)
    result = train(
        model,
        frames.inputs,
        objective,
        train_options,
        out_dir,
        dev=DevSet(dev.inputs, dev.labels),
        description=description,
        precision_file=RunFolders(options.exp_dir).precision_choices,
        augment=augment,
    )
    if not ProcessGroup.from_environment().is_main:
        return
    best = result.history[result.best_epoch]
    write_json(
        out_dir / SUMMARY_FILE,
        {
            "parameters": model.num_parameters,
            "macs_per_frame": model.macs_per_frame,
            "best_epoch": result.best_epoch + 1,
            "dev_accuracy": best["dev_accuracy"],
            "dev_loss": best["dev_loss"],
            PRECISION_KEY: result.precision,
            "history": result.history,
            DEVICE_KEY: provenance.device_name(str(resolve_device(options.device))),
            "tree": frames.tree_fingerprint,
            "seed": seed,
        },
    )
    print(
        f"   {description}: development frame accuracy {best['dev_accuracy']:.4f}, "
        f"cross-entropy {best['dev_loss']:.4f}",
        flush=True,
    )
