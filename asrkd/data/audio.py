"""Audio files: their headers, whether the files are complete, and their samples."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import soundfile
from lhotse import AudioSource, Recording, SupervisionSegment
from lhotse.audio.backend import LibsndfileBackend

WAV_CHUNK_HEADER_BYTES = 8
WAV_STREAMED_BYTES = (0, 0xFFFFFFFF)  # sizes that mean unknown: the file was written as a stream
SPHERE_HEADER_BYTES = 1024


class AudioError(Exception):
    """Audio that cannot be used; the message is the reason."""


def probe(path: Path, utt_id: str) -> Recording:
    """A manifest entry from the header of a FLAC, WAV or uncompressed NIST SPHERE file.

    AudioError if the file is missing, has no such header, or is a WAV or SPHERE file that is shorter than its header
    says; libsndfile reads such a file without an error.
    """
    if not path.is_file():
        raise AudioError(f"missing audio: expected {path}")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"unreadable audio in {path} ({error})") from None
    expected, found = _expected_bytes(path, info.format), path.stat().st_size
    if expected is not None and found < expected:
        raise AudioError(f"truncated audio: expected {expected} bytes in {path}, found {found}")
    return Recording(
        id=utt_id,
        sources=[AudioSource(type="file", channels=list(range(info.channels)), source=str(path))],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=info.frames / info.samplerate,
    )


def make_supervision(recording: Recording, speaker: str, text: str) -> SupervisionSegment:
    """The supervision of a recording that is one utterance."""
    return SupervisionSegment(
        id=recording.id,
        recording_id=recording.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        text=text,
        speaker=speaker,
        language="English",
    )


def read_samples(recording: Recording) -> np.ndarray:
    """Samples [channels, num_samples] float32 in ±1. AudioError if the file is missing, unreadable or truncated."""
    samples = []
    for source in recording.sources:
        try:
            # Not Lhotse's default, which reads SPHERE with a program that is seldom installed.
            samples.append(LibsndfileBackend().read_audio(source.source)[0])
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            if not Path(source.source).is_file():
                raise AudioError(f"missing audio: expected {source.source}") from None
            raise AudioError(f"unreadable audio in {source.source} ({error})") from None
    channels = np.concatenate([np.atleast_2d(channel) for channel in samples])
    if channels.shape[1] != recording.num_samples:
        raise AudioError(
            f"truncated audio: expected {recording.num_samples} samples in {recording.sources[0].source}, "
            f"found {channels.shape[1]}"
        )
    return channels


def _expected_bytes(path: Path, audio_format: str) -> int | None:
    """Size of the file by its own header; None if the header does not give it."""
    if audio_format in ("WAV", "WAVEX"):
        return _expected_by_wav(path)
    if audio_format == "NIST":
        return _expected_by_sphere(path)
    return None


def _expected_by_wav(path: Path) -> int | None:
    """The position of the end of the data chunk."""
    with path.open("rb") as file:
        file.seek(12)  # "RIFF", size, "WAVE"
        while len(head := file.read(WAV_CHUNK_HEADER_BYTES)) == WAV_CHUNK_HEADER_BYTES:
            name, num_bytes = struct.unpack("<4sI", head)
            if name == b"data":
                return None if num_bytes in WAV_STREAMED_BYTES else file.tell() + num_bytes
            file.seek(num_bytes + num_bytes % 2, 1)  # chunks are padded to even sizes
    return None


def _expected_by_sphere(path: Path) -> int | None:
    """The size of the header plus sample_count × channel_count × sample_n_bytes."""
    with path.open("rb") as file:
        lines = file.read(SPHERE_HEADER_BYTES).decode("ascii", "replace").splitlines()
    fields = {parts[0]: parts[2] for line in lines if len(parts := line.split()) == 3}
    try:
        header_bytes = int(lines[1])
        sizes = [int(fields[name]) for name in ("sample_count", "channel_count", "sample_n_bytes")]
    except (KeyError, ValueError, IndexError):
        return None
    return header_bytes + sizes[0] * sizes[1] * sizes[2]
