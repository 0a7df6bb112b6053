"""Utterances that are segments of longer recordings, and their manifests: one audio file per utterance."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSet
from tqdm import tqdm

from asrkd.data.audio import (
    AudioError,
    AudioHeader,
    file_scale,
    make_recording,
    make_supervision,
    probe,
    read_header,
    read_part,
)
from asrkd.data.ffmpeg import SHORTER, SHORTER_SEC, container_of, decode
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.errors import InputError, name_some
from asrkd.files import atomic_file, fingerprint, require_utf8
from asrkd.unicode import dotted_note, upper_case

logger = logging.getLogger(__name__)

COPY_FORMAT = 2  # of copies of segments; in their names, so that copies of other code are not used
COPY_FORMATS = {"PCM_16": "FLAC", "PCM_24": "FLAC", "PCM_32": "WAV", "FLOAT": "WAV"}
# libsndfile's subtypes with samples beyond ±1, which an integer would clip.
FLOATING_POINT = ("FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
LONGEST_UTT_ID = 200  # bytes; files are named by the utt_id and some more bytes
PROGRESS_DELAY_SEC = 2.0  # before a progress bar is shown
LENGTH_ROUNDING_SEC = 0.025  # of what a manifest states; Lhotse's tolerance
# Decoders of these drop, or add, some frames at the ends: MP3 has a delay of 1105 samples and blocks of 1152.
DECODER_DELAY_SEC = 0.25
DELAYED = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
ROUNDING_SEC = 0.01  # a segment that ends this much before the end of its recording ends there
OVERSHOOT_SEC = 0.5  # one that ends this much behind it ends there too (Kaldi's extract-segments, --max-overshoot)


@dataclass(frozen=True)
class Length:
    """What a manifest states about a recording."""

    sampling_rate: int
    num_samples: int
    duration_sec: float

    def __str__(self) -> str:
        return f"{self.num_samples} samples, {self.sampling_rate} Hz and {self.duration_sec:.8g} s"


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
    expected: Length | None = field(default=None, compare=False)
    """What the file should have; None: no manifest states it."""

    @property
    def is_unused_recording(self) -> bool:
        """Whether it stands for a recording without utterances, which has no speaker, no text and no end."""
        return not self.speaker and self.text is None and self.end_sec is None


def split_from_segments(segments: Sequence[Segment], segments_dir: Path | None) -> CorpusSplit:
    """Manifests of the segments. Segments without readable audio are in `rejected`.

    A segment that is not all of its file is copied once, to a file in `segments_dir`. With None nothing is copied;
    these manifests are for checks only.
    """
    note = dotted_note(segment.text or "" for segment in segments)
    if note:
        logger.warning("texts: %s", note)
    recordings, supervisions, rejected = [], [], []
    sources: dict[Path, _Source] = {}
    for segment in tqdm(segments, desc="audio", unit="utt", delay=PROGRESS_DELAY_SEC, leave=False):
        try:
            recording = _recording(segment, sources, segments_dir)
        except AudioError as error:
            rejected.append(Rejected(segment.utt_id, str(error)))
            continue
        recordings.append(recording)
        if segment.text is not None:
            supervisions.append(make_supervision(recording, segment.speaker, upper_case(segment.text)))
    _report_scales(sources.values())
    return CorpusSplit(
        RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions), rejected=tuple(rejected)
    )


def duration_of(path: Path, segments_dir: Path | None) -> float:
    """Seconds of an audio file; what ffmpeg decodes of it is in `segments_dir`. AudioError if it has no header."""
    return float(_Source(path, segments_dir).recording.duration)


def _report_scales(sources: Iterable[_Source]) -> None:
    """Report the recordings beyond full scale that segments were copied from."""
    scaled = [str(source.path) for source in sources if vars(source).get("scale", 1.0) != 1.0]
    if scaled:
        logger.warning(
            "%d recordings have floating-point samples in an integer's range; their copies are scaled to ±1: %s",
            len(scaled),
            name_some(scaled),
        )


def require_distinct(splits: Mapping[str, Sequence[Segment]]) -> None:
    """InputError if an utterance occurs twice, or if an utt_id cannot be a file name."""
    seen: dict[str, str] = {}
    for name, segments in splits.items():
        for segment in segments:
            utt_id = segment.utt_id
            if not utt_id or Path(utt_id).name != utt_id or utt_id.split() != [utt_id]:
                raise InputError(f"utterance {utt_id!r}: expected an utt_id without slashes and spaces")
            require_utf8(utt_id)
            if len(utt_id.encode()) > LONGEST_UTT_ID:
                raise InputError(
                    f"utterance {utt_id}: expected an utt_id of at most {LONGEST_UTT_ID} bytes, "
                    f"found {len(utt_id.encode())}"
                )
            if utt_id in seen:
                splits_of_it = f"in {seen[utt_id]} and {name}" if seen[utt_id] != name else f"twice in {name}"
                raise InputError(f"utterance {utt_id}: expected it once, found it {splits_of_it}")
            seen[utt_id] = name


def _recording(segment: Segment, sources: dict[Path, _Source], segments_dir: Path | None) -> Recording:
    """The manifest entry of one utterance. AudioError if its audio is missing, unreadable, too short or another one."""
    path = segment.path
    source = sources.setdefault(path, _Source(path, segments_dir))
    header, whole = source.header, source.recording
    if segment.expected is not None:
        _require_length(segment.expected, source)
    channel = _channel_of(segment, header)
    end_sec = whole.duration if segment.end_sec is None else segment.end_sec
    if not 0 <= segment.start_sec < min(end_sec, whole.duration) <= end_sec <= whole.duration + OVERSHOOT_SEC:
        raise AudioError(  # also if a time is NaN
            f"expected a segment of the {whole.duration:.2f} s in {path}, found {segment.start_sec:g} to {end_sec:g} s"
        )
    end_sec = min(end_sec, whole.duration)
    is_whole = segment.start_sec == 0 and end_sec > whole.duration - ROUNDING_SEC
    if is_whole and channel is None:
        return replace(whole, id=segment.utt_id)
    if channel is None and header.num_channels > 1:
        raise AudioError(f"expected one channel, or an utterance that names its channel, found {header.num_channels}")
    first = round(segment.start_sec * header.sampling_rate)
    last = header.num_samples if is_whole else min(round(end_sec * header.sampling_rate), header.num_samples)
    if first == last:
        raise AudioError(
            f"too short: expected a sample at {segment.start_sec:g} to {end_sec:g} s of {path}, found none"
        )
    if segments_dir is None:
        return make_recording(replace(header, num_channels=1, num_samples=last - first), path, segment.utt_id)
    suffix = COPY_FORMATS[_copy_subtype(header)].lower()
    copy = segments_dir / f"{segment.utt_id}.{source.fingerprint(first, last, channel)}.{suffix}"
    if not copy.is_file():
        _copy_segment(source, first, last, channel, copy)
    return probe(copy, segment.utt_id)


def _require_length(expected: Length, source: _Source) -> None:
    """AudioError unless a file has the length of its manifest: times of segments would be those of other audio.

    Opus and the sound of videos have the rate of the decoder, so that their durations are compared only.
    """
    header = source.header
    found = Length(header.sampling_rate, header.num_samples, header.num_samples / header.sampling_rate)
    stated_sec = (expected.duration_sec, expected.num_samples / max(1, expected.sampling_rate))
    difference_sec = max(abs(seconds - found.duration_sec) for seconds in stated_sec)
    has_rate = found.sampling_rate == expected.sampling_rate
    if has_rate and difference_sec <= LENGTH_ROUNDING_SEC:
        return
    is_decoded = container_of(source.named) is not None
    is_delayed = is_decoded or header.subtype in DELAYED
    can_differ_in_rate = is_decoded or header.subtype == "OPUS"
    tolerance_sec = DECODER_DELAY_SEC if is_delayed else LENGTH_ROUNDING_SEC
    if is_decoded:
        tolerance_sec = max(SHORTER_SEC, SHORTER * found.duration_sec)
    if difference_sec > tolerance_sec or not (has_rate or can_differ_in_rate):
        raise AudioError(f"not the audio of its manifest: its manifest says {expected}, {source.named} has {found}")


def _channel_of(segment: Segment, header: AudioHeader) -> int | None:
    """The channel to copy; None: none is named, or the file has one. AudioError if it lacks the segment's channel."""
    if segment.channel is None:
        return None
    if not 0 <= segment.channel < header.num_channels:
        raise AudioError(
            f"expected channel {segment.channel} (the first is 0) in {segment.path}, "
            f"found {header.num_channels} channels"
        )
    return segment.channel if header.num_channels > 1 else None


class _Source:
    """A file that segments are cut from. What is known of it is read once."""

    def __init__(self, named: Path, segments_dir: Path | None) -> None:
        self.named, self._segments_dir = named, segments_dir

    @property
    def header(self) -> AudioHeader:
        """AudioError, the same each time, if the file has none."""
        return self._header_and_path[0]

    @property
    def path(self) -> Path:
        """The file with the samples: the named one, or what ffmpeg made of it."""
        return self._header_and_path[1]

    @property
    def recording(self) -> Recording:
        """The manifest entry of the whole file."""
        return make_recording(self.header, self.path, self.named.stem)

    @property
    def _header_and_path(self) -> tuple[AudioHeader, Path]:
        if isinstance(self._read, AudioError):
            raise self._read
        return self._read

    @cached_property
    def _read(self) -> tuple[AudioHeader, Path] | AudioError:
        try:
            return read_header(self.named), self.named
        except AudioError as error:
            if container_of(self.named) is None:
                return error
        try:
            return self._decoded()
        except AudioError as error:
            return error

    def _decoded(self) -> tuple[AudioHeader, Path]:
        """The header of what ffmpeg makes of the file; without a folder for copies, nothing else remains."""
        if self._segments_dir is None:
            with TemporaryDirectory() as folder:
                decode(self.named, Path(folder, "decoded.flac"))
                return read_header(Path(folder, "decoded.flac")), self.named
        decoded = self._segments_dir / f"decoded.{self.fingerprint()}.flac"
        if not decoded.is_file():
            decoded.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(decoded) as tmp_path:
                decode(self.named, tmp_path)
        return read_header(decoded), decoded

    def fingerprint(self, *cut: int | None) -> str:
        """Names a copy: changes with the file, with what is cut out of it, and with the code that copies."""
        stat = self.named.stat()
        return fingerprint([COPY_FORMAT, os.path.realpath(self.named), stat.st_size, stat.st_mtime_ns, *cut])

    @cached_property
    def scale(self) -> float:
        """What the samples of the whole file are divided by: a quiet segment alone does not show their range."""
        return file_scale(self.path)


def _copy_subtype(header: AudioHeader) -> str:
    """How the samples of a copy are stored: so that they are those of the file, to the bit."""
    if header.subtype in FLOATING_POINT:
        return "FLOAT"
    return header.subtype if header.subtype in ("PCM_16", "PCM_32") else "PCM_24"


def _copy_segment(source: _Source, first: int, last: int, channel: int | None, copy: Path) -> None:
    """Copy samples `first` to `last` of a channel (None: there is one), whole or not at all."""
    subtype = _copy_subtype(source.header)
    # As int32, libsndfile scales integer samples to full scale, but truncates floating-point samples to 0.
    samples = read_part(source.path, first, last, "float32" if subtype == "FLOAT" else "int32")
    if channel is not None:
        samples = samples[:, channel]
    if subtype == "FLOAT":
        if not np.isfinite(samples).all():
            raise AudioError(f"expected finite samples in {source.path} from sample {first} to {last}, found others")
        samples = samples / np.float32(source.scale)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(copy) as tmp_path:
        sampling_rate = source.header.sampling_rate
        try:
            soundfile.write(tmp_path, samples, sampling_rate, format=COPY_FORMATS[subtype], subtype=subtype)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"expected audio that can be copied in {source.path}: {error.error_string}") from None
