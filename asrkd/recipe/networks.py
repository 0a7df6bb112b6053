"""Stages 6 to 8: teachers, their posteriors, students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from asrkd.align import Alignment
from asrkd.align.labels import NO_LABEL, labels_of, require_store, store_labels
from asrkd.distil.compression import Rows
from asrkd.distil.ensemble import Disagreement, measure_disagreement
from asrkd.distil.joined import JoinedTargets
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.distil.store import EnsemblePosteriors, PosteriorStore, Span, StoredTargets, write_store
from asrkd.distil.store_report import store_report
from asrkd.errors import InputError
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import safetensors_fingerprint, write_json
from asrkd.hmm.tree import SenoneTree
from asrkd.nnet import Augmentation, DevSet, ExtraExamples, HardTargets, Objective, train
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.ensembles import Ensemble, load_ensemble
from asrkd.nnet.layers import ModelShape
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.models import build_model
from asrkd.recipe.augmentation import augmentation, history_frames
from asrkd.recipe.choice import resolve
from asrkd.recipe.excluded import excluded_utterances
from asrkd.recipe.folders import STORE_FOLDER, TRANSFER, TREE_FILE, RunFolders
from asrkd.recipe.label_networks import copies_frames
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.seeds import student_seed, teacher_seed
from asrkd.recipe.students import Student, student_training
from asrkd.recipe.subset import subset_frames
from asrkd.recipe.trained import DEVICE_KEY, PRECISION_KEY, SUMMARY_FILE, trained_precision
from asrkd.recipe.transfer_frames import (
    inputs_with_transfer,
    labels_with_transfer,
    targets_with_transfer,
    transfer_store,
)
from asrkd.workflow import provenance
from asrkd.workflow.distributed import SINGLE_PROCESS, ProcessGroup
from asrkd.workflow.executor import SERIAL
from asrkd.workflow.memory import SHARD_FRAMES

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
    extra: ExtraExamples | None = None
    """The frames of the transfer set behind those of `store`, if there are any."""

    @property
    def labelled_share(self) -> float:
        """Fraction of an epoch's frames that have a label."""
        if self.extra is None:
            return 1.0
        behind = self.labels[self.extra.first_id :]
        num_labelled = sum(int((part != NO_LABEL).sum()) for part in behind.split(SHARD_FRAMES))
        return 1.0 - self.extra.share * (1.0 - num_labelled / len(behind))

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
            return cls.open_to_read("train", options)
        return cls.open("train", options, ranks)

    @classmethod
    def open_to_read(cls, split: str, options: SpeechOptions) -> LabelledFrames:
        """A split's aligned utterances, to read one after the other. No frames are in memory."""
        return cls._open(split, options, slice(0))

    @classmethod
    def open_with_transfer(cls, options: SpeechOptions) -> LabelledFrames:
        """The training split, as `open_to_learn`, and the frames of the transfer set, which have no label."""
        train = cls.open_to_read("train", options)
        inputs = inputs_with_transfer(train.store, options)
        labels = labels_with_transfer(train.labels, options)
        return replace(
            train, inputs=inputs, labels=labels, extra=ExtraExamples(len(train.store), options.transfer.share)
        )

    @classmethod
    def open_to_decode(cls, split: str, options: SpeechOptions) -> LabelledFrames:
        """All utterances of a held-out split, with those that no lexicon can align. No frames are in memory."""
        store, alignment, tree = _aligned(RunFolders(options.exp_dir), split)
        inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=())
        labels = store_labels(alignment, store, tree, options.exp_dir)
        return cls(store, inputs, labels, tree.num_pdfs, tree.fingerprint)

    @classmethod
    def open_unlabelled(cls, features: Path, options: SpeechOptions) -> LabelledFrames:
        """All utterances of another store, none of which is labelled, to decode with the run's networks."""
        store = FrameStore.open(features)
        inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=())
        tree = SenoneTree.load(RunFolders(options.exp_dir).tree / TREE_FILE)
        labels = torch.full((len(store),), NO_LABEL)
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


def target_frames(folders: RunFolders, split: str) -> FrameStore:
    """The frames that students have targets for: those of `labelled_store`, or all of the transfer set."""
    if split == TRANSFER:
        return transfer_store(folders)
    store, alignment, _ = _aligned(folders, split)
    return _trusted(folders, split, store, alignment)


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


def teachers(options: SpeechOptions) -> list[str]:
    """Steps that train teachers; none where another system teaches."""
    return [] if options.posteriors_from else [f"teachers/{member}" for member in range(options.ensemble.size)]


def teacher_model(member: int, options: SpeechOptions) -> ModelOptions:
    """The architecture of a member of the ensemble."""
    kinds = options.ensemble.kinds
    return replace(options.teacher, kind=kinds[member % len(kinds)]) if kinds else options.teacher


def train_teacher(member: int, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 6: one member of the ensemble. Members differ in initialisation and data order, and in kind if it does."""
    frames, dev = _train_and_dev(options)
    objective = HardTargets(frames.labels)
    seed = teacher_seed(options.seed, member)
    _train_model(frames, dev, teacher_model(member, options), objective, seed, options, out_dir, f"teacher {member}")


def train_student(student: Student, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 8: one student, on hard labels or on the ensemble's posteriors."""
    student = resolve(student, options)
    folders = RunFolders(options.exp_dir)
    frames, dev = _train_and_dev(options, student.uses_transfer, history_frames(student.augment, folders))
    objective: Objective = HardTargets(frames.labels)
    frame_ids = None
    if student.distil is not None:
        objective = _distillation(student.distil, frames, options)
        frame_ids = _frames_with_targets(objective) if options.transfer.targets == "lattice" else None
    if student.speech == "subset":
        frame_ids = subset_frames(frames.store, options.students, frame_ids)
    seed = student_seed(options.seed, student.seed)
    as_student = replace(options, train=student_training(student, options))
    augment = augmentation(student.augment, options.features, frames.inputs.store, folders)
    _train_model(frames, dev, student.model, objective, seed, as_student, out_dir, student.name, augment, frame_ids)


def _distillation(distil: DistilOptions, frames: LabelledFrames, options: SpeechOptions) -> Distillation:
    """The objective of a student: the teachers' stored posteriors, or the teachers themselves."""
    labelled_share = frames.labelled_share
    if distil.targets == "online":
        members = teacher_folders(options)
        online = OnlineTargets(
            open_ensemble(members), options.posteriors.mean, trained_precision(members), distil.online_teachers
        )
        return Distillation(frames.labels, online, distil, labelled_share)
    folders = RunFolders(options.exp_dir)
    store = PosteriorStore.open(
        folders.lattice_targets if options.transfer.targets == "lattice" else folders.posteriors
    )
    store.require(frames.store.fingerprint, frames.tree_fingerprint)
    targets = store if frames.extra is None else targets_with_transfer(store, frames.tree_fingerprint, options)
    return Distillation(frames.labels, targets, distil, labelled_share)


def _frames_with_targets(objective: Distillation) -> Tensor | None:
    """Ids of the frames that have a target, for some utterances have no lattice; None where all have."""
    source = objective.target_source
    assert isinstance(source, (StoredTargets, JoinedTargets))
    has_target = source.has_targets()
    return None if bool(has_target.all()) else has_target.nonzero().squeeze(1)


@dataclass(frozen=True)
class PosteriorTask:
    """Makes the teachers' posteriors of spans of the aligned training frames, or of all frames of the transfer set."""

    options: SpeechOptions
    device: str = "cpu"
    split: str = "train"

    def open(self) -> Callable[[Span], Rows]:
        folders = RunFolders(self.options.exp_dir)
        store = target_frames(folders, self.split)
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
    store, _, tree = labelled_store(RunFolders(options.exp_dir), "train")
    ensemble = _write_posteriors("train", store, tree, options, out_dir)
    device = resolve_device(options.device)
    dev = LabelledFrames.open("dev", options)
    ensemble.to(device)
    write_json(
        out_dir / REPORT_FILE,
        {
            "store": store_report(ensemble, dev.inputs, options.posteriors),
            "disagreement": _disagreement(ensemble, dev),
        },
    )


def make_transfer_posteriors(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 7: the ensemble's top-k posteriors of the transfer set's frames."""
    folders = RunFolders(options.exp_dir)
    _write_posteriors(TRANSFER, transfer_store(folders), SenoneTree.load(folders.tree / TREE_FILE), options, out_dir)


def _write_posteriors(
    split: str, store: FrameStore, tree: SenoneTree, options: SpeechOptions, out_dir: Path
) -> Ensemble:
    """Write the posteriors of a split's frames; the teachers."""
    device = resolve_device(options.device)
    executor = options.task_executor
    if device.type == "cuda":
        if not executor.shares_memory:
            raise InputError("--executor dask: expected --device cpu, for its workers use no GPU, found cuda")
        executor = SERIAL  # forked processes cannot use a GPU, and it needs no more than this one
    members = teacher_folders(options)
    ensemble, precision = open_ensemble(members), trained_precision(members)
    inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=())
    description = EnsemblePosteriors(ensemble, inputs, options.posteriors, precision).describe(store, tree.fingerprint)
    write_store(out_dir / STORE_FOLDER, description, PosteriorTask(options, device.type, split), executor=executor)
    return ensemble


def measure_teachers(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 7 with online targets: the report on the development speakers alone, for students read the teachers."""
    ensemble = open_ensemble(teacher_folders(options)).to(resolve_device(options.device))
    dev = LabelledFrames.open("dev", options)
    write_json(out_dir / REPORT_FILE, {"store": [], "disagreement": _disagreement(ensemble, dev)})


def _disagreement(ensemble: Ensemble, dev: LabelledFrames) -> Disagreement | None:
    """How much the teachers differ on the development speakers; None of a single one."""
    return measure_disagreement(ensemble, dev.inputs, dev.labels) if ensemble.num_members > 1 else None


def model_content(folder: Path) -> str:
    """Fingerprint of a trained network's weights: its other files have times, too."""
    return safetensors_fingerprint(folder / MODEL_FILE, with_metadata=False)


def teacher_folders(options: SpeechOptions) -> list[Path]:
    """Folders of the trained teachers."""
    return [options.exp_dir / name for name in teachers(options)]


def open_ensemble(members: Sequence[Path]) -> Ensemble:
    """The teachers in these folders."""
    return load_ensemble([member / MODEL_FILE for member in members])


def _train_and_dev(
    options: SpeechOptions, uses_transfer: bool = False, history: int = 0
) -> tuple[LabelledFrames, LabelledFrames]:
    """What is trained on, with so many more frames in front of each window, and the development speakers."""
    wide = replace(options, context=replace(options.context, left=options.context.left + history))
    train = LabelledFrames.open_with_transfer(wide) if uses_transfer else LabelledFrames.open_to_learn(wide)
    return train, LabelledFrames.open("dev", options)


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
    frame_ids: Tensor | None = None,
) -> None:
    model = build_model(ModelShape(dev.inputs.dim, frames.num_pdfs, shape, frames.store.num_features), seed)
    train_options = replace(options.train, seed=seed, device=options.device)
    result = train(
        model,
        frames.inputs,
        objective,
        train_options,
        out_dir,
        dev=DevSet(dev.inputs, dev.labels),
        frame_ids=frame_ids,
        description=description,
        precision_file=RunFolders(options.exp_dir).precision_choices,
        augment=augment,
        extra=frames.extra,
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
