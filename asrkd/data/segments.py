"""Utterances as stretches of recordings, made into what the recipes take: a file an utterance."""

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

LONGEST_UTT_ID = 200  # bytes: with what is put to it, files are named so
PATIENCE_SEC = 2.0  # before a bar is shown
ROUNDING_SEC = 0.01  # a segment that ends this close to its recording's end ends there
OVERSHOOT_SEC = 0.5  # so far behind it, it ends there too (Kaldi's extract-segments, --max-overshoot)


@dataclass(frozen=True)
class Segment:
    """An utterance: a stretch of a file."""

    utt_id: str
    path: Path
    start_sec: float
    end_sec: float | None
    """None: to the end of the file."""
    speaker: str
    text: str | None
    """None: there is no transcript."""


def split_of(segments: Sequence[Segment], pieces_dir: Path | None) -> CorpusSplit:
    """Manifests of the segments; one that is not all of its file is copied into `pieces_dir`, once. What has no
    readable audio is among `rejected`. With no `pieces_dir` nothing is written: the manifests serve to be checked."""
    recordings, supervisions, rejected = [], [], []
    headers: dict[Path, Recording | AudioError] = {}
    # Hours of speech cut into pieces take minutes; headers alone, moments.
    for segment in tqdm(segments, desc="audio", unit="utt", delay=PATIENCE_SEC, leave=False):
        try:
            recording = _recording(segment, headers, pieces_dir)
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
    """InputError where an utterance is there twice, or an utt_id would be no file name."""
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


def _recording(segment: Segment, headers: dict[Path, Recording | AudioError], pieces_dir: Path | None) -> Recording:
    """The manifest entry of one utterance. AudioFault where its audio cannot be had."""
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
        raise AudioError(  # NaN too
            f"expected a stretch of the {whole.duration:.2f} s in {path}, found {segment.start_sec:g} to {end_sec:g} s"
        )
    end_sec = min(end_sec, whole.duration)
    if segment.start_sec == 0 and end_sec > whole.duration - ROUNDING_SEC:
        return replace(whole, id=segment.utt_id)
    if pieces_dir is None:
        duration_sec = end_sec - segment.start_sec
        num_samples = round(duration_sec * whole.sampling_rate)
        return replace(whole, id=segment.utt_id, num_samples=num_samples, duration=duration_sec)
    stat = path.stat()
    source = fingerprint([path.resolve(), stat.st_size, stat.st_mtime_ns, segment.start_sec, end_sec])
    piece = pieces_dir / f"{segment.utt_id}.{source}.flac"
    if not piece.is_file():
        _cut(path, segment.start_sec, end_sec, piece)
    return probe(piece, segment.utt_id)


def _cut(path: Path, start_sec: float, end_sec: float, piece: Path) -> None:
    """Copy a stretch of a file, whole or not at all; FLAC of 16 bits where those are all there is, else of 24."""
    piece.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path) as file:
        subtype = "PCM_16" if file.subtype == "PCM_16" else "PCM_24"
        first, last = round(start_sec * file.samplerate), min(round(end_sec * file.samplerate), file.frames)
        file.seek(first)
        # libsndfile scales integers to full scale, but cuts floating-point samples of ±1 off to 0.
        samples = file.read(last - first, dtype="float64" if file.subtype in ("FLOAT", "DOUBLE") else "int32")
        if not np.isfinite(samples).all():
            raise AudioError(f"expected finite samples at {start_sec:g} to {end_sec:g} s of {path}, found others")
        with atomic_file(piece) as beside:
            soundfile.write(beside, samples, file.samplerate, format="FLAC", subtype=subtype)
