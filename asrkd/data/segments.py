"""Utterances that are segments of longer recordings, and their manifests: one audio file per utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSet
from tqdm import tqdm

from asrkd.data.audio import AudioError, make_supervision, probe
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.errors import InputError
from asrkd.files import atomic_file, fingerprint

LONGEST_UTT_ID = 200  # bytes; files are named by the utt_id and some more bytes
PROGRESS_DELAY_SEC = 2.0  # before a progress bar is shown
ROUNDING_SEC = 0.01  # a segment that ends this much before the end of its recording ends there
OVERSHOOT_SEC = 0.5  # one that ends this much behind it ends there too (Kaldi's extract-segments, --max-overshoot)


@dataclass(frozen=True)
class Segment:
    """An utterance: a part of an audio file, or all of it."""

    utt_id: str
    path: Path
    start_sec: float
    end_sec: float | None
    """None: to the end of the file."""
    speaker: str
    text: str | None
    """None: there is no transcript."""
    channel: int | None = None
    """The channel of the file that it is spoken on, from 0; None: the file has one channel."""


def split_from_segments(segments: Sequence[Segment], segments_dir: Path | None) -> CorpusSplit:
    """Manifests of the segments. Segments without readable audio are in `rejected`.

    A segment that is not all of its file is copied once, to a file in `segments_dir`. With None nothing is copied;
    these manifests are for checks only.
    """
    recordings, supervisions, rejected = [], [], []
    headers: dict[Path, Recording | AudioError] = {}
    for segment in tqdm(segments, desc="audio", unit="utt", delay=PROGRESS_DELAY_SEC, leave=False):
        try:
            recording = _recording(segment, headers, segments_dir)
        except AudioError as error:
            rejected.append(Rejected(segment.utt_id, str(error)))
            continue
        recordings.append(recording)
        if segment.text is not None:
            supervisions.append(make_supervision(recording, segment.speaker, segment.text.upper()))
    return CorpusSplit(
        RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions), rejected=tuple(rejected)
    )


def require_distinct(splits: Mapping[str, Sequence[Segment]]) -> None:
    """InputError if an utterance occurs twice, or if an utt_id cannot be a file name."""
    seen: dict[str, str] = {}
    for name, segments in splits.items():
        for segment in segments:
            utt_id = segment.utt_id
            if not utt_id or Path(utt_id).name != utt_id or utt_id.split() != [utt_id]:
                raise InputError(f"utterance {utt_id!r}: expected an utt_id without slashes and spaces")
            if len(utt_id.encode()) > LONGEST_UTT_ID:
                raise InputError(
                    f"utterance {utt_id}: expected an utt_id of at most {LONGEST_UTT_ID} bytes, "
                    f"found {len(utt_id.encode())}"
                )
            if utt_id in seen:
                raise InputError(f"utterance {utt_id}: expected it once, found it in {seen[utt_id]} and {name}")
            seen[utt_id] = name


def _recording(segment: Segment, headers: dict[Path, Recording | AudioError], segments_dir: Path | None) -> Recording:
    """The manifest entry of one utterance. AudioError if its audio is missing, unreadable or too short."""
    path = segment.path
    if path not in headers:
        try:
            headers[path] = probe(path, path.stem)
        except AudioError as error:
            headers[path] = error
    whole = headers[path]
    if isinstance(whole, AudioError):
        raise whole
    end_sec = whole.duration if segment.end_sec is None else segment.end_sec
    if not 0 <= segment.start_sec < min(end_sec, whole.duration) <= end_sec <= whole.duration + OVERSHOOT_SEC:
        raise AudioError(  # also if a time is NaN
            f"expected a segment of the {whole.duration:.2f} s in {path}, found {segment.start_sec:g} to {end_sec:g} s"
        )
    end_sec = min(end_sec, whole.duration)
    if segment.start_sec == 0 and end_sec > whole.duration - ROUNDING_SEC:
        return replace(whole, id=segment.utt_id)
    if segments_dir is None:
        duration_sec = end_sec - segment.start_sec
        num_samples = round(duration_sec * whole.sampling_rate)
        return replace(whole, id=segment.utt_id, num_samples=num_samples, duration=duration_sec)
    stat = path.stat()
    source = fingerprint([path.resolve(), stat.st_size, stat.st_mtime_ns, segment.start_sec, end_sec])
    copy = segments_dir / f"{segment.utt_id}.{source}.flac"
    if not copy.is_file():
        _copy_segment(path, segment.start_sec, end_sec, copy)
    return probe(copy, segment.utt_id)


def _copy_segment(path: Path, start_sec: float, end_sec: float, copy: Path) -> None:
    """Copy a part of a file, whole or not at all, to FLAC: with 16 bits if the file has 16 bits, else with 24."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path) as file:
        subtype = "PCM_16" if file.subtype == "PCM_16" else "PCM_24"
        first, last = round(start_sec * file.samplerate), min(round(end_sec * file.samplerate), file.frames)
        file.seek(first)
        # As int32, libsndfile scales integer samples to full scale but truncates floating-point samples to 0.
        samples = file.read(last - first, dtype="float64" if file.subtype in ("FLOAT", "DOUBLE") else "int32")
        if not np.isfinite(samples).all():
            raise AudioError(f"expected finite samples at {start_sec:g} to {end_sec:g} s of {path}, found others")
        with atomic_file(copy) as tmp_path:
            soundfile.write(tmp_path, samples, file.samplerate, format="FLAC", subtype=subtype)
