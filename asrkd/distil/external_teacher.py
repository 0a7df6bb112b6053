"""Teachers of another system: their posterior files, checked and converted to a store for students."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from asrkd.distil.compression import Rows, StoreOptions, combined_logits, compress
from asrkd.distil.frame_timing import FrameTiming, Upsampling
from asrkd.distil.label_agreement import LabelAgreement
from asrkd.distil.posterior_files import open_posteriors
from asrkd.distil.posterior_kinds import Kind, Logits, to_logits
from asrkd.distil.store import STORE_FILES, PosteriorStore, Span, StoreDescription, Utterances, write_store
from asrkd.errors import InputError, name_some
from asrkd.files import fingerprint
from asrkd.workflow.steps import STAMP_FILE

# Frames by which a dump may be shorter or longer: toolkits differ in the windows at the ends of an utterance.
LENGTH_TOLERANCE = 2
MAX_LENGTH_TOLERANCE = 5
SUBSAMPLING = {2: "half", 3: "a third", 4: "a quarter", 6: "a sixth"}
# Of a teacher that is right more often than it is sure, by this factor, posteriors are too flat.
MAX_UNDERCONFIDENCE = 2.0
# An utterance is named whose frame accuracy is less than this part of the whole file's. Few frames are no evidence.
LEAST_AGREEMENT, MIN_AGREEING_FRAMES = 0.5, 30
# Prefix of the utterances of a run that are copies at another speed.
COPY = re.compile(r"sp[\d.]+-")


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
    frame_shift_ms: float = 10.0

    @cached_property
    def log_prior(self) -> Tensor:
        """Log of each class's share of the labels [S]; minus infinity for a class without frames."""
        counts = torch.bincount(self.labels[self.labels >= 0], minlength=self.num_classes).double()
        return (counts / counts.sum()).log()

    def span(self, position: int) -> Span:
        begin, end = self.utterances.offsets[position : position + 2].tolist()
        return begin, end


@dataclass(frozen=True)
class ExternalTeacher:
    """The posterior files of one system."""

    path: Path
    values: Mapping[str, NDArray[Any]]
    kind: Kind
    frames: TrainingFrames
    length_tolerance: int
    timing: FrameTiming
    """Where the frames of its rows are."""

    @classmethod
    def open(
        cls, path: Path, kind: Kind, frames: TrainingFrames, length_tolerance: int, timing: FrameTiming
    ) -> ExternalTeacher:
        """InputError if an utterance of the frames is missing, or if there is one that the corpus does not have."""
        values = open_posteriors(path)
        utt_ids = frames.utterances.utt_ids
        missing = [utt_id for utt_id in utt_ids if utt_id not in values]
        unknown = sorted(set(values).difference(utt_ids, frames.ignored_utt_ids))
        if missing:
            raise InputError(
                f"{path}: expected posteriors of {missing[0]}, found none "
                f"({len(missing)} of {len(utt_ids)} utterances are missing{_hint_at_ids(missing, unknown)})"
            )
        if unknown:
            found = f"{unknown[0]} ({len(unknown)} unknown)"
            raise InputError(
                f"{path}: expected utterances of these frames, found {found}: write those of the training set alone"
            )
        return cls(path, values, kind, frames, length_tolerance, timing)

    def read(self, position: int) -> Logits:
        """The posteriors of an utterance, by its position in the frames, as many frames as the file has.

        InputError if the matrix has another shape, but for `length_tolerance`, or if its values are not of the declared
        kind.
        """
        utt_id, (begin, end) = self.frames.utterances.utt_ids[position], self.frames.span(position)
        values = self.values[utt_id]
        where = f"{self.path}: {utt_id}"
        if values.dtype.kind != "f" or values.ndim != 2:
            raise InputError(f"{where}: expected a matrix of floats, found {values.dtype} {list(values.shape)}")
        self._check_shape(values.shape, self.timing.num_rows(end - begin), where)
        return to_logits(values, self.kind, self.frames.log_prior, where)

    def fitted(self, position: int) -> Tensor:
        """The logits [T, S] of every frame of an utterance."""
        begin, end = self.frames.span(position)
        return self.timing.fitted(self.read(position).logits, end - begin)

    def _check_shape(self, shape: tuple[int, ...], num_frames: int, where: str) -> None:
        num_found, num_columns = shape
        num_classes, tolerance = self.frames.num_classes, self.length_tolerance
        is_transposed = num_found == num_classes != num_columns and abs(num_columns - num_frames) <= tolerance
        if is_transposed:
            raise InputError(
                f"{where}: expected a matrix [{num_frames} frames, {num_classes} senones], found {list(shape)}: "
                "transpose it"
            )
        if not num_found or abs(num_found - num_frames) > tolerance:
            raise InputError(
                f"{where}: expected {num_frames} frames, found {num_found}"
                f"{_hint_at_length(num_found, num_frames, tolerance, self.frames.frame_shift_ms)}"
            )
        if num_columns != num_classes:
            more = ": remove the column that is no senone, e.g. of a blank" if num_columns == num_classes + 1 else ""
            raise InputError(f"{where}: expected {num_classes} classes (senones), found {num_columns}{more}")


def _hint_at_ids(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """Why utterances may be missing: other ids in the file, or copies at other speeds; empty where nothing shows."""
    for utt_id in missing[:1]:
        for other in unknown:
            if other.endswith(utt_id) or utt_id.endswith(other) or other.startswith(utt_id):
                return f"; for {utt_id}, the file has {other}: ids must be equal"
    if all(map(COPY.match, missing)):
        return "; copies at other speeds need posteriors, or --features.speed-factors 1.0 in the run"
    return ""


def _hint_at_length(num_found: int, num_frames: int, tolerance: int, frame_shift_ms: float) -> str:
    """Why a length may differ: subsampled frames, or half the frame shift; empty where nothing shows."""
    if abs(num_found - num_frames) <= MAX_LENGTH_TOLERANCE and num_found:
        return f" (--length-tolerance {abs(num_found - num_frames)} repeats or removes frames at the ends)"
    for factor, share in SUBSAMPLING.items():
        if abs(num_found * factor - num_frames) <= factor * max(tolerance, 1):
            shift = f"{factor * frame_shift_ms:g}"
            return f", {share} of the frames: a model with frame subsampling? give --frame-shift-ms {shift}"
    if num_frames and abs(num_found - 2 * num_frames) <= 2 * max(tolerance, 1):
        return ", twice the frames: a frame shift of half? write every second row"
    return ""


@dataclass(frozen=True)
class TeacherReport:
    """What the check of a teacher's posteriors showed."""

    path: Path
    accuracy: float
    """Share of the labelled frames of which the top class is the label."""
    confidence: float
    """Mean posterior of the top class."""
    num_shorter: int
    """Utterances in which frames at an end were repeated."""
    num_longer: int
    """Utterances from which frames at an end were removed."""
    timing: FrameTiming
    """Where rows lie: as the frame accuracy is greatest."""
    num_floored: int
    """Posteriors of zero, now small ones."""
    num_values: int
    digest: str
    """SHA-256 of the logits."""
    disagreeing: tuple[str, ...] = ()
    """Utterances that agree with their labels less than LEAST_AGREEMENT times as often as all do, the worst first."""

    def notes(self) -> list[str]:
        """Sentences on what was repaired, and on posteriors that look wrong."""
        notes = []
        if self.timing.factor > 1:
            notes.append(self.timing.note)
        elif self.num_shorter or self.num_longer:
            notes.append(
                f"{self.num_shorter} utterances have too few frames and {self.num_longer} too many; frames "
                f"{self.timing.ends} were repeated or removed"
            )
        if self.num_floored:
            share = 100 * self.num_floored / self.num_values
            notes.append(
                f"{self.num_floored} posteriors ({share:.2g}%) are zero and were made 1e-10 or less; logits or "
                "log-posteriors have the values of all classes"
            )
        if self.accuracy > MAX_UNDERCONFIDENCE * self.confidence:
            notes.append(
                f"the top class is right in {100 * self.accuracy:.1f}% of the frames, and its mean posterior is "
                f"{100 * self.confidence:.1f}%; expected posteriors at temperature 1, of the kind that --kind names"
            )
        if self.disagreeing:
            notes.append(
                f"{len(self.disagreeing)} utterances agree with their labels in less than half as many frames as all "
                f"do ({100 * self.accuracy:.1f}%): {name_some(self.disagreeing)}; are these the posteriors of other "
                "utterances, or in another order of frames?"
            )
        return notes


def import_posteriors(
    paths: Sequence[Path],
    kind: Kind,
    frames: TrainingFrames,
    options: StoreOptions,
    out_dir: Path,
    show_progress: bool = True,
    length_tolerance: int = LENGTH_TOLERANCE,
    frame_shift_ms: float | None = None,
    upsampling: Upsampling = "interpolate",
) -> tuple[PosteriorStore, list[TeacherReport]]:
    """Write the average of these teachers as a store in `out_dir`, whole or not at all.

    Returns the store and what the check of each teacher showed. Utterances may have up to `length_tolerance` rows
    more or less than expected: those at the ends are removed or repeated. Rows that are `frame_shift_ms` apart, some
    frames of the run, are interpolated or repeated. Everything is read and checked before the
    first write. A store in `out_dir` is replaced. InputError if anything else is there, or, with the file and the
    utterance, if a teacher's posteriors do not fit the frames.
    """
    if not 0 <= length_tolerance <= MAX_LENGTH_TOLERANCE:
        raise InputError(f"--length-tolerance: expected 0 to {MAX_LENGTH_TOLERANCE} frames, found {length_tolerance}")
    out_dir = _check_replaceable(out_dir)
    timing = FrameTiming.of(frame_shift_ms, frames.frame_shift_ms, upsampling)
    teachers = [ExternalTeacher.open(path, kind, frames, length_tolerance, timing) for path in paths]
    reports = [_check(teacher, show_progress) for teacher in teachers]
    teachers = [replace(teacher, timing=report.timing) for teacher, report in zip(teachers, reports, strict=True)]
    description = StoreDescription(
        options,
        fingerprint([report.digest for report in reports]),
        frames.num_classes,
        len(teachers),
        frames.classes_fingerprint,
        frames.utterances,
    )
    spans = [frames.span(position) for position in range(len(frames.utterances.utt_ids))]
    task = _AverageTeachers(teachers, frames, options)
    store = write_store(out_dir, description, task, spans, show_progress=show_progress)
    return store, reports


def _check_replaceable(out_dir: Path) -> Path:
    """The absolute path of out_dir. InputError if it contains anything but a store, which would be deleted."""
    path = Path(os.path.realpath(out_dir))  # not resolve(), which raises RuntimeError for links in a circle
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
        position_of = {self.frames.span(n): n for n in range(len(self.frames.utterances.utt_ids))}

        def rows(span: Span) -> Rows:
            members = [one.fitted(position_of[span]) for one in self.teachers]
            return compress(combined_logits(torch.stack(members), self.options), self.options).as_rows()

        return rows


def _check(teacher: ExternalTeacher, show_progress: bool) -> TeacherReport:
    """Read and check all posteriors of a teacher."""
    frames = teacher.frames
    digest = hashlib.sha256()
    agreement = LabelAgreement(teacher.path, frames.num_classes)
    by_timing = {timing: LabelAgreement(teacher.path, frames.num_classes) for timing in teacher.timing.candidates()}
    num_shorter = num_longer = num_floored = num_rows = 0
    confidence = 0.0
    utt_ids = tqdm(frames.utterances.utt_ids, desc=f"check {teacher.path.name}", unit="utt", disable=not show_progress)
    agreements: dict[str, float] = {}
    for position, utt_id in enumerate(utt_ids):
        begin, end = frames.span(position)
        logits, floored = teacher.read(position)
        digest.update(logits.numpy().tobytes())
        labels, top_classes = frames.labels[begin:end], logits.argmax(dim=1)
        nearest = teacher.timing.middle.nearest(top_classes, len(labels))
        if int((labels >= 0).sum()) >= MIN_AGREEING_FRAMES:
            agreements[utt_id] = float((nearest == labels)[labels >= 0].float().mean())
        if len(logits) == len(labels):
            agreement.add(labels, top_classes)
        else:
            for timing, one in by_timing.items():
                one.add(labels, timing.nearest(top_classes, len(labels)))
        confidence += float((logits.amax(dim=1) - logits.logsumexp(dim=1)).exp().sum())
        expected = teacher.timing.num_rows(len(labels))
        num_shorter, num_longer = num_shorter + (len(logits) < expected), num_longer + (len(logits) > expected)
        num_rows, num_floored = num_rows + len(logits), num_floored + floored
    best = max(by_timing, key=lambda timing: by_timing[timing].num_right_now)
    if best.factor > 1:
        digest.update(best.note.encode())
    elif num_shorter or num_longer:
        digest.update(best.ends.encode())
    agreement.update(by_timing[best])
    accuracy = agreement.require()
    return TeacherReport(
        teacher.path,
        accuracy,
        confidence / num_rows,
        num_shorter,
        num_longer,
        best,
        num_floored,
        num_rows * frames.num_classes,
        digest.hexdigest(),
        tuple(one for one in sorted(agreements, key=agreements.__getitem__) if _disagrees(agreements[one], accuracy)),
    )


def _disagrees(of_utterance: float, of_all: float) -> bool:
    return of_utterance < LEAST_AGREEMENT * of_all
