"""Stages 6 to 8: teachers, their posteriors, students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from asrkd.align import Alignment
from asrkd.align.labels import NO_LABEL, store_labels
from asrkd.distil.ensemble import measure_disagreement
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.store import EnsemblePosteriors, PosteriorStore, store_report, write_store
from asrkd.distil.store_file import Rows, Span
from asrkd.errors import InputError
from asrkd.features.store import FrameStore, SplicedFrames
from asrkd.files import read_json, write_json
from asrkd.hmm.tree import SenoneTree
from asrkd.nnet import HardTargets, Objective, TrainOptions, train
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.models import AcousticDnn, ModelOptions, StackedEnsemble
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.labels import TREE_FILE
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow import provenance
from asrkd.workflow.distributed import SINGLE_PROCESS, ProcessGroup
from asrkd.workflow.map import SERIAL

MODEL_FILE = "model.safetensors"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.json"
# Teachers and students draw their seeds from ranges that never meet.
STUDENT_SEED_OFFSET = 500
SEEDS_A_RUN = 1000


@dataclass(frozen=True)
class LabelledFrames:
    """Spliced frames of a split and the senone of each (NO_LABEL where an utterance could not be aligned)."""

    store: FrameStore
    inputs: SplicedFrames
    labels: Tensor
    num_pdfs: int
    tree_fingerprint: str

    @classmethod
    def open(cls, split: str, options: SpeechOptions, ranks: ProcessGroup = SINGLE_PROCESS) -> LabelledFrames:
        """Of several `ranks`, each holds every size-th utterance's frames in memory."""
        held = None if ranks.size == 1 else slice(ranks.rank, None, ranks.size)
        return cls._open(split, options, held)

    @classmethod
    def open_to_learn(cls, options: SpeechOptions) -> LabelledFrames:
        """The training split. None of its frames are held here where the training takes them in parts, or to a GPU."""
        ranks = ProcessGroup.from_environment()
        elsewhere = resolve_device(options.device).type == "cuda" or options.train.shard_frames is not None
        if ranks.size == 1 and elsewhere:
            return cls._open("train", options, slice(0))
        return cls.open("train", options, ranks)

    @classmethod
    def open_to_decode(cls, split: str, options: SpeechOptions) -> LabelledFrames:
        """A held-out split with all that was said in it: an utterance that no lexicon can align is recognised too."""
        folders = RunFolders(options.exp_dir)
        store, alignment, tree = _aligned(folders, split)
        inputs = SplicedFrames(store, options.context.left, options.context.right)
        return cls(store, inputs, store_labels(alignment, store, tree), tree.num_pdfs, tree.fingerprint)

    @classmethod
    def _open(cls, split: str, options: SpeechOptions, held: slice | None) -> LabelledFrames:
        store, labels, tree = labelled_store(RunFolders(options.exp_dir), split)
        utt_ids = None if held is None else store.utt_ids[held]
        inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=utt_ids)
        return cls(store, inputs, labels, tree.num_pdfs, tree.fingerprint)

    def labels_of(self, utt_id: str) -> Tensor:
        """Senones [T] of one utterance."""
        begin, end = self.store.span(utt_id)
        return self.labels[begin:end]

    def aligned_utt_ids(self) -> list[str]:
        """The utterances that have labels."""
        return [utt_id for utt_id in self.store.utt_ids if bool((self.labels_of(utt_id) != NO_LABEL).all())]

    @property
    def frame_ids(self) -> Tensor:
        """Ids of the labelled frames."""
        return (self.labels != NO_LABEL).nonzero().squeeze(1)


def labelled_store(folders: RunFolders, split: str) -> tuple[FrameStore, Tensor, SenoneTree]:
    """Frames of a split's aligned utterances, the senone of each, and the tree."""
    store, alignment, tree = _aligned(folders, split)
    if alignment.rejected:
        return store.subset(alignment.utt_ids), alignment.pdf_ids(tree), tree
    return store, store_labels(alignment, store, tree), tree


def _aligned(folders: RunFolders, split: str) -> tuple[FrameStore, Alignment, SenoneTree]:
    return (
        FrameStore.open(folders.features(split)),
        Alignment.load(folders.alignment(split)),
        SenoneTree.load(folders.tree / TREE_FILE),
    )


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

    @property
    def name(self) -> str:
        return self.system if self.seed == 0 else f"{self.system}_seed{self.seed}"


def teachers(options: SpeechOptions) -> list[str]:
    """Steps of the recipe's own teachers; none where another system teaches."""
    return [] if options.posteriors_from else [f"teachers/{member}" for member in range(options.ensemble.size)]


def students(options: SpeechOptions) -> list[Student]:
    """Every student of a run. Baseline and distilled are alike in everything but the targets.

    `baseline_dropout` is the baseline at its own best: it needs the teachers' dropout, which costs a distilled
    student what distillation gives (soft targets are the regulariser).
    """
    own_best = replace(options.student, dropout=options.teacher.dropout, input_dropout=options.teacher.input_dropout)
    found = []
    for seed in range(options.students.seeds):
        found.append(Student("baseline", options.student, seed))
        found.append(Student("baseline_dropout", own_best, seed))
        found.append(Student("distilled", options.student, seed, options.distil))
    for dim in options.students.narrow_dims:
        narrow = replace(options.student, hidden_dim=dim)
        found.append(Student(f"baseline_{dim}", narrow))
        found.append(Student(f"baseline_dropout_{dim}", replace(own_best, hidden_dim=dim)))
        found.append(Student(f"distilled_{dim}", narrow, distil=options.distil))
    return found + sweep_students(options)


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
        )
        for temperature, alpha in dict.fromkeys(points)
        if (temperature, alpha) != chosen
    ]


def train_teacher(member: int, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 6: one member of the ensemble; members differ in initialisation and data order alone."""
    frames, dev = _train_and_dev(options)
    objective = HardTargets(frames.labels)
    _train_model(frames, dev, options.teacher, objective, member, options, out_dir, f"teacher {member}")


def train_student(student: Student, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 8: one student, on hard labels or on the ensemble's posteriors."""
    frames, dev = _train_and_dev(options)
    objective: Objective = HardTargets(frames.labels)
    if student.distil is not None:
        store = PosteriorStore.open(RunFolders(options.exp_dir).posteriors)
        store.require(frames.store.fingerprint, frames.tree_fingerprint)
        objective = Distillation(frames.labels, store, student.distil)
    seed = STUDENT_SEED_OFFSET + student.seed
    as_student = replace(options, train=student_training(student, options))
    _train_model(frames, dev, student.model, objective, seed, as_student, out_dir, student.name)


def student_training(student: Student, options: SpeechOptions) -> TrainOptions:
    """How a student is trained. Soft targets bear a higher rate than hard labels, which they would only overfit."""
    rate = options.students.soft_learning_rate
    return options.train if student.distil is None or rate is None else replace(options.train, learning_rate=rate)


def make_posteriors(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 7: the ensemble's posteriors of the training frames, top-k."""
    members = [options.exp_dir / name for name in teachers(options)]
    frames = LabelledFrames.open("train", options)
    device = resolve_device(options.device)
    if device.type == "cuda" and options.jobs.on_cluster:
        raise InputError("--executor dask: expected --device cpu, for its workers use no GPU, found cuda")
    ensemble = StackedEnsemble.load([member / MODEL_FILE for member in members]).to(device)
    precision = trained_precision(members)
    write_store(
        out_dir,
        ensemble,
        frames.inputs,
        frames.store,
        frames.tree_fingerprint,
        options.posteriors,
        # Processes that were forked cannot use a GPU, and it needs no more than this one.
        jobs=options.jobs if device.type == "cpu" else SERIAL,
        elsewhere=(PosteriorWork(tuple(members), precision, options) if options.jobs.on_cluster else None),
        precision=precision,
    )
    dev = LabelledFrames.open("dev", options)
    write_json(
        out_dir / REPORT_FILE,
        {
            "store": store_report(ensemble, dev.inputs, options.posteriors),
            "disagreement": measure_disagreement(ensemble, dev.inputs, dev.labels),
        },
    )


def trained_precision(members: Sequence[Path]) -> str:
    """The arithmetic to score teachers in: bfloat16 where all of them learnt in it."""
    found = {read_json(member / SUMMARY_FILE)["precision"] for member in members}
    return "bfloat16" if found == {"bfloat16"} else "float32"


@dataclass(frozen=True)
class PosteriorWork:
    """The teachers' posteriors of spans of training frames, on a cluster: paths and options."""

    members: tuple[Path, ...]
    precision: str
    options: SpeechOptions

    def open(self) -> Callable[[Span], Rows]:
        # Frames alone, mapped: utterances that were not aligned are passed over without copying the others.
        store, alignment, _ = _aligned(RunFolders(self.options.exp_dir), "train")
        utt_ids, offsets = alignment.utt_ids, alignment.offsets
        ensemble = StackedEnsemble.load([member / MODEL_FILE for member in self.members])
        context = self.options.context

        def rows(span: Span) -> Rows:
            # The span's own utterances alone are held in memory.
            first = int(torch.searchsorted(offsets, span[0], right=True)) - 1
            after = int(torch.searchsorted(offsets, span[1]))
            frames = store.subset(utt_ids[first:after])
            inputs = SplicedFrames(frames, context.left, context.right)
            skipped = int(offsets[first])
            return EnsemblePosteriors(ensemble, inputs, self.options.posteriors, self.precision).rows(
                (span[0] - skipped, span[1] - skipped)
            )

        return rows


def _train_and_dev(options: SpeechOptions) -> tuple[LabelledFrames, LabelledFrames]:
    return (
        LabelledFrames.open_to_learn(options),
        LabelledFrames.open("dev", options),
    )


def _train_model(
    frames: LabelledFrames,
    dev: LabelledFrames,
    shape: ModelOptions,
    objective: Objective,
    seed: int,
    options: SpeechOptions,
    out_dir: Path,
    description: str,
) -> None:
    seed += SEEDS_A_RUN * options.seed
    model = AcousticDnn(frames.inputs.dim, frames.num_pdfs, shape, seed=seed)
    train_options = replace(options.train, seed=seed, device=options.device)
    result = train(
        model, frames.inputs, objective, dev.inputs, dev.labels, train_options, out_dir, description=description
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
            "precision": result.precision,
            "history": result.history,
            "device": provenance.device_name(str(resolve_device(options.device))),
            "tree": frames.tree_fingerprint,
            "seed": seed,
        },
    )
    print(
        f"   {description}: development frame accuracy {best['dev_accuracy']:.4f}, "
        f"cross-entropy {best['dev_loss']:.4f}",
        flush=True,
    )
