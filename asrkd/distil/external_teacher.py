"""Teachers of another system: their posterior files, checked and converted to a store for students."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from asrkd.distil.compression import Rows, StoreOptions, combined_logits, compress
from asrkd.distil.posterior_files import open_posteriors
from asrkd.distil.store import STORE_FILES, PosteriorStore, Span, StoreDescription, Utterances, write_store
from asrkd.errors import InputError
from asrkd.files import fingerprint
from asrkd.workflow.steps import STAMP_FILE

Kind = Literal["log-posteriors", "logits"]

# Largest error of the log of a frame's sum of posteriors, nats: float16 files of thousands of classes are within it.
SUM_TOLERANCE = 0.02
# With fewer frames of a class, its most frequent answer is not reliable.
MIN_CHECKED_FRAMES = 50


@dataclass(frozen=True)
class TrainingFrames:
    """The frames and classes of a run, for which posteriors are imported."""

    utterances: Utterances
    """Utterances of the store, in its order."""
    labels: Tensor
    """Class [frames] of each frame, negative if it has none."""
    num_classes: int
    classes_fingerprint: str
    """Fingerprint of the senone tree."""
    ignored_utt_ids: Collection[str] = ()
    """Utterances that a file may contain and that are not imported: those that could not be aligned."""

    def span(self, position: int) -> Span:
        begin, end = self.utterances.offsets[position : position + 2].tolist()
        return begin, end


@dataclass(frozen=True)
class ExternalTeacher:
    """The posterior files of one system."""

    path: Path
    values: Mapping[str, NDArray[Any]]
    kind: Kind

    @classmethod
    def open(cls, path: Path, kind: Kind, frames: TrainingFrames) -> ExternalTeacher:
        """InputError if an utterance of the frames is missing, or if there is one that the corpus does not have."""
        values = open_posteriors(path)
        utt_ids = frames.utterances.utt_ids
        missing = [utt_id for utt_id in utt_ids if utt_id not in values]
        if missing:
            raise InputError(
                f"{path}: expected posteriors of {missing[0]}, found none "
                f"({len(missing)} of {len(utt_ids)} utterances are missing)"
            )
        unknown = sorted(set(values).difference(utt_ids, frames.ignored_utt_ids))
        if unknown:
            found = f"{unknown[0]} ({len(unknown)} unknown)"
            raise InputError(f"{path}: expected utterances of these frames, found {found}")
        return cls(path, values, kind)

    def logits(self, utt_id: str, num_frames: int, num_classes: int) -> Tensor:
        """Logits or log-posteriors [T, S] of an utterance, float32.

        InputError if the shape is another one, if a value is not finite, or if log-posteriors do not sum to one.
        """
        values = self.values[utt_id]
        where = f"{self.path}: {utt_id}"
        if values.dtype.kind != "f" or values.ndim != 2:
            raise InputError(f"{where}: expected a matrix of floats, found {values.dtype} {list(values.shape)}")
        if values.shape[0] != num_frames:
            raise InputError(f"{where}: expected {num_frames} frames, found {values.shape[0]}")
        if values.shape[1] != num_classes:
            raise InputError(f"{where}: expected {num_classes} classes (senones), found {values.shape[1]}")
        logits = torch.from_numpy(np.array(values, dtype=np.float32))
        if not bool(torch.isfinite(logits).all()):
            frame = int((~torch.isfinite(logits)).any(dim=1).nonzero()[0])
            raise InputError(f"{where}: expected finite {self.kind}, found NaN or infinity in frame {frame}")
        if self.kind == "log-posteriors":
            self._check_sums(logits, where)
        return logits

    def _check_sums(self, log_posteriors: Tensor, where: str) -> None:
        log_sums = torch.logsumexp(log_posteriors.double(), dim=1)
        frame = int(log_sums.abs().argmax())
        if abs(float(log_sums[frame])) > SUM_TOLERANCE:
            raise InputError(
                f"{where}: expected the log of probabilities that sum to one, found a sum of "
                f"{float(log_sums[frame].exp()):.4g} in frame {frame} (for values before the softmax: --kind logits)"
            )


def import_posteriors(
    paths: Sequence[Path],
    kind: Kind,
    frames: TrainingFrames,
    options: StoreOptions,
    out_dir: Path,
    show_progress: bool = True,
) -> tuple[PosteriorStore, list[float]]:
    """Write the average of these teachers as a store in `out_dir`, whole or not at all.

    Returns the store and each teacher's frame accuracy. Everything is read and checked before the first write. A store
    in `out_dir` is replaced. InputError if anything else is there, or, with the file and the utterance, if a teacher's
    posteriors do not fit the frames.
    """
    if not paths:
        raise InputError("--teachers: expected the posterior files of at least one teacher, found none")
    out_dir = _check_replaceable(out_dir)
    teachers = [ExternalTeacher.open(path, kind, frames) for path in paths]
    digests, accuracies = zip(*(_check(teacher, frames, show_progress) for teacher in teachers), strict=True)
    description = StoreDescription(
        options,
        fingerprint(digests),
        frames.num_classes,
        len(teachers),
        frames.classes_fingerprint,
        frames.utterances,
    )
    spans = [frames.span(position) for position in range(len(frames.utterances.utt_ids))]
    task = _AverageTeachers(teachers, frames, options)
    store = write_store(out_dir, description, task, spans, show_progress=show_progress)
    return store, list(accuracies)


def _check_replaceable(out_dir: Path) -> Path:
    """The absolute path of out_dir. InputError if it contains anything but a store, which would be deleted."""
    path = out_dir.resolve()
    if (path.parent / STAMP_FILE).is_file():
        raise InputError(f"--out {out_dir}: expected a new folder or an imported store, found a part of a run's step")
    if path.is_dir():
        other = sorted({entry.name for entry in path.iterdir()} - {*STORE_FILES})
        if other:
            raise InputError(f"--out {out_dir}: expected a new folder or an imported store, found {other[0]} in it")
    elif path.exists():
        raise InputError(f"--out {out_dir}: expected a new folder or an imported store, found a file")
    return path


@dataclass(frozen=True)
class _AverageTeachers:
    """A task of the executor: the store's rows of one utterance, from all teachers."""

    teachers: Sequence[ExternalTeacher]
    frames: TrainingFrames
    options: StoreOptions

    def open(self) -> Callable[[Span], Rows]:
        utt_id_at = {self.frames.span(n): utt_id for n, utt_id in enumerate(self.frames.utterances.utt_ids)}

        def rows(span: Span) -> Rows:
            shape = (span[1] - span[0], self.frames.num_classes)
            members = [teacher.logits(utt_id_at[span], *shape) for teacher in self.teachers]
            return compress(combined_logits(torch.stack(members), self.options), self.options).as_rows()

        return rows


def _check(teacher: ExternalTeacher, frames: TrainingFrames, show_progress: bool) -> tuple[str, float]:
    """Read and check all posteriors of a teacher: the digest of the values, and the frame accuracy."""
    digest = hashlib.sha256()
    confusions: Counter[tuple[int, int]] = Counter()
    utt_ids = tqdm(frames.utterances.utt_ids, desc=f"check {teacher.path.name}", unit="utt", disable=not show_progress)
    for position, utt_id in enumerate(utt_ids):
        begin, end = frames.span(position)
        logits = teacher.logits(utt_id, end - begin, frames.num_classes)
        digest.update(logits.numpy().tobytes())
        confusions.update(zip(frames.labels[begin:end].tolist(), logits.argmax(dim=1).tolist(), strict=True))
    return digest.hexdigest(), _check_class_order(teacher.path, confusions, frames.num_classes)


def _check_class_order(path: Path, confusions: Mapping[tuple[int, int], int], num_classes: int) -> float:
    """The frame accuracy from counts of (label, top class). InputError if the classes are not these senones.

    Posteriors with the classes in another order, or of another tree, pass every other check. The accuracy over all
    frames does not find them, because silence has the same class numbers in every tree and many of the frames. So most
    of the classes that have enough frames must be the most frequent top class of their own frames. And the accuracy
    must be at least that of a constant answer, the most frequent label.
    """
    num_frames, most, right = Counter[int](), Counter[int](), Counter[int]()
    for (label, top_class), count in confusions.items():
        if label >= 0:
            num_frames[label] += count
            most[label] = max(most[label], count)
            right[label] += count * (label == top_class)
    accuracy = right.total() / num_frames.total()
    checked = [label for label, count in num_frames.items() if count >= MIN_CHECKED_FRAMES]
    recognised = sum(right[label] == most[label] for label in checked)
    if 2 * recognised < len(checked) or accuracy < max(num_frames.values()) / num_frames.total():
        raise InputError(
            f"{path}: expected classes in the order of the senones (pdf_id 0 to {num_classes - 1}), found a frame "
            f"accuracy of {100 * accuracy:.1f}%, and {recognised} of {len(checked)} senones with {MIN_CHECKED_FRAMES} "
            f"frames or more that are the most frequent top class of their own frames"
        )
    return accuracy
