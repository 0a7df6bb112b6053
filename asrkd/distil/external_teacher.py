"""Teachers of another system: their dumped posteriors, checked and made a store that students learn from."""

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

# Nats by which the log of a frame's sum of posteriors may be off: float16 dumps of thousands of classes are within it.
SUM_TOLERANCE = 0.02
# Frames of a class from which its commonest answer tells something of the classes' order.
MIN_JUDGED_FRAMES = 50


@dataclass(frozen=True)
class Frames:
    """The frames that posteriors are imported for."""

    utterances: Utterances
    """In the order and of the lengths that the store will have."""
    labels: Tensor
    """Class [frames] of each frame, negative where there is none."""
    num_classes: int
    classes_fingerprint: str
    others: Collection[str] = ()
    """Utterances that a dump may hold besides and that are passed over: those that could not be aligned."""

    def span(self, position: int) -> Span:
        begin, end = self.utterances.offsets[position : position + 2].tolist()
        return begin, end


@dataclass(frozen=True)
class ExternalTeacher:
    """One system's dump."""

    path: Path
    values: Mapping[str, NDArray[Any]]
    kind: Kind

    @classmethod
    def open(cls, path: Path, kind: Kind, frames: Frames) -> ExternalTeacher:
        """InputError where it lacks an utterance of the frames, or has one that the corpus has not."""
        values = open_posteriors(path)
        utt_ids = frames.utterances.utt_ids
        missing = [utt_id for utt_id in utt_ids if utt_id not in values]
        if missing:
            raise InputError(
                f"{path}: expected posteriors of {missing[0]}, found none "
                f"({len(missing)} of {len(utt_ids)} utterances are missing)"
            )
        unknown = sorted(set(values).difference(utt_ids, frames.others))
        if unknown:
            found = f"{unknown[0]} ({len(unknown)} unknown)"
            raise InputError(f"{path}: expected utterances of these frames, found {found}")
        return cls(path, values, kind)

    def logits(self, utt_id: str, num_frames: int, num_classes: int) -> Tensor:
        """Logits or log-posteriors [T, S] of an utterance. InputError unless they are such, finite, of this shape."""
        values = self.values[utt_id]
        where = f"{self.path}: {utt_id}"
        if values.dtype.kind != "f" or values.ndim != 2:
            raise InputError(f"{where}: expected a matrix of floats, found {values.dtype} {list(values.shape)}")
        if values.shape[0] != num_frames:
            raise InputError(f"{where}: expected {num_frames} frames, found {values.shape[0]}")
        if values.shape[1] != num_classes:
            raise InputError(f"{where}: expected {num_classes} classes (senones), found {values.shape[1]}")
        found = torch.from_numpy(np.array(values, dtype=np.float32))
        if not bool(torch.isfinite(found).all()):
            frame = int((~torch.isfinite(found)).any(dim=1).nonzero()[0])
            raise InputError(f"{where}: expected finite {self.kind}, found NaN or infinity in frame {frame}")
        if self.kind == "log-posteriors":
            self._require_sums(found, where)
        return found

    def _require_sums(self, log_posteriors: Tensor, where: str) -> None:
        off = torch.logsumexp(log_posteriors.double(), dim=1)
        frame = int(off.abs().argmax())
        if abs(float(off[frame])) > SUM_TOLERANCE:
            raise InputError(
                f"{where}: expected log-posteriors, whose posteriors sum to one, found a sum of "
                f"{float(off[frame].exp()):.4g} in frame {frame} (for values before the softmax: --kind logits)"
            )


def import_posteriors(
    paths: Sequence[Path],
    kind: Kind,
    frames: Frames,
    options: StoreOptions,
    out_dir: Path,
    show_progress: bool = True,
) -> tuple[PosteriorStore, list[float]]:
    """Make the store of these teachers together in `out_dir`, whole or not at all; with each one's frame accuracy.

    All is read and checked before anything is written. InputError names the file, the utterance, what was expected
    and what was found; a store that stands at `out_dir` is replaced, anything else there is refused.
    """
    if not paths:
        raise InputError("--teachers: expected at least one dump of posteriors, found none")
    out_dir = _replaceable(out_dir)
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
    task = _Import(teachers, frames, options)
    store = write_store(out_dir, description, task, spans, show_progress=show_progress)
    return store, list(accuracies)


def _replaceable(out_dir: Path) -> Path:
    """The folder's full path, which may hold nothing but such a store: InputError for what would be deleted."""
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
class _Import:
    """The rows of an utterance's span, as the teachers together have them."""

    teachers: Sequence[ExternalTeacher]
    frames: Frames
    options: StoreOptions

    def open(self) -> Callable[[Span], Rows]:
        utt_id_at = {self.frames.span(n): utt_id for n, utt_id in enumerate(self.frames.utterances.utt_ids)}

        def rows(span: Span) -> Rows:
            shape = (span[1] - span[0], self.frames.num_classes)
            members = [teacher.logits(utt_id_at[span], *shape) for teacher in self.teachers]
            return compress(combined_logits(torch.stack(members), self.options), self.options).as_rows()

        return rows


def _check(teacher: ExternalTeacher, frames: Frames, show_progress: bool) -> tuple[str, float]:
    """Read all of a dump: the digest of what it holds, and its frame accuracy."""
    digest = hashlib.sha256()
    answers: Counter[tuple[int, int]] = Counter()
    utt_ids = tqdm(frames.utterances.utt_ids, desc=f"check {teacher.path.name}", unit="utt", disable=not show_progress)
    for position, utt_id in enumerate(utt_ids):
        begin, end = frames.span(position)
        logits = teacher.logits(utt_id, end - begin, frames.num_classes)
        digest.update(logits.numpy().tobytes())
        answers.update(zip(frames.labels[begin:end].tolist(), logits.argmax(dim=1).tolist(), strict=True))
    return digest.hexdigest(), _require_order(teacher.path, answers, frames.num_classes)


def _require_order(path: Path, answers: Mapping[tuple[int, int], int], num_classes: int) -> float:
    """The frame accuracy by frames of each (label, likeliest class). InputError unless these are the same classes.

    A dump whose classes are in another order, or of another tree, looks right in all else. Silence has the same
    numbers in every tree and many of the frames, so that frames together tell too little: of the classes with frames
    enough, most must be what the dump says most often of their own frames. Where none has, it must agree with the
    labels at least as often as always saying the commonest one would.
    """
    num_frames, most, right = Counter[int](), Counter[int](), Counter[int]()
    for (label, answer), number in answers.items():
        if label >= 0:
            num_frames[label] += number
            most[label] = max(most[label], number)
            right[label] += number * (label == answer)
    accuracy = right.total() / num_frames.total()
    eval_set = [label for label, number in num_frames.items() if number >= MIN_JUDGED_FRAMES]
    known = sum(right[label] == most[label] for label in eval_set)
    if 2 * known < len(eval_set) or accuracy < max(num_frames.values()) / num_frames.total():
        raise InputError(
            f"{path}: expected classes in the order of the senones (pdf_id 0 to {num_classes - 1}), found "
            f"{100 * accuracy:.1f}% of frames that agree with their labels, and {known} of {len(eval_set)} senones of "
            f"{MIN_JUDGED_FRAMES} frames or more that are the commonest answer to their own frames"
        )
    return accuracy
