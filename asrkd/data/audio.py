"""Audio files: their headers, whether the files are complete, and their samples."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from asrkd.data.audio_headers import (
    MAX_UINT32,
    expected_bytes,
    joined_fault,
    read_mp3_length,
    read_rf64_data,
    read_wav_data,
    second_flac,
    sphere_coding,
)

if TYPE_CHECKING:  # lhotse brings torch, without which exported models read audio
    from lhotse import Recording, SupervisionSegment

BLOCK_SAMPLES = 1 << 20  # read at a time, so that no header decides how much memory is taken
SAMPLING_RATES = (1000, 655_350)  # Hz; the highest is that of FLAC
PREROLL_SEC = 1.0  # of Ogg and MP3, decoded in front of a part: its samples then are those of the whole file
UNSEEKABLE = ("GSM610",)  # libsndfile says that it is
# libsndfile estimates the length of an MP3 file that does not state it from the bytes of the file and its first bit
# rate, and reads no further. With this many times the bytes it reads to the end: 8 to 320 kbit/s are a factor of 40.
MP3_LENGTH_FACTOR = 64
MOST_SAMPLES_PER_BYTE = 1 << 13  # digital silence as FLAC: 65,535 samples in some 12 bytes
# Floating-point samples are in ±1 or in the range of 16-, 24- or 32-bit integers. Powers of two: dividing is exact.
FULL_SCALES = (1.0, 2.0**15, 2.0**23, 2.0**31)
ID3_BYTES = 128  # of the tag at the end of an MP3 file
MP3_FRAME_SAMPLES = 1152
MP3_TAIL_BYTES = 1 << 12  # tags and zeros behind the last frame
UNKNOWN_SAMPLES = 1 << 62  # libsndfile's number where the header states none is above it
OVERLOAD = (16.0, 2.0, 2.0, 2.0)  # greatest sample at each scale, relative to it; mixes in ±1 overshoot the most


class AudioError(Exception):
    """Audio that cannot be used; the message is the reason."""


@dataclass(frozen=True)
class AudioHeader:
    """What is known of a file before its samples are used."""

    sampling_rate: int
    num_channels: int
    num_samples: int
    """Per channel."""
    subtype: str
    """libsndfile's name of how a sample is stored."""


def read_header(path: Path) -> AudioHeader:
    """The header of any format that libsndfile reads (WAV, FLAC, uncompressed NIST SPHERE, Ogg, MP3, ...).

    The length of a FLAC or MP3 file that does not state it is counted. AudioError if the file is missing, unreadable,
    without samples, or shorter than its header says.
    """
    with open_audio(path) as file:
        num_samples = _length(file)
        header = AudioHeader(file.samplerate, file.channels, num_samples, file.subtype)
        audio_format = file.format
    expected, found = expected_bytes(path, audio_format), path.stat().st_size
    if expected is not None and found < expected:
        raise AudioError(f"truncated audio: expected {expected} bytes in {path}, found {found}")
    fault = joined_fault(path, audio_format)
    if fault:
        raise AudioError(f"{fault} ({path})")
    low, high = SAMPLING_RATES
    if not low <= header.sampling_rate <= high:
        raise AudioError(f"expected a sampling rate of {low} to {high} Hz in {path}, found {header.sampling_rate} Hz")
    if num_samples == 0:
        raise AudioError(f"empty audio: expected samples in {path}, found none")
    if num_samples > MOST_SAMPLES_PER_BYTE * found:
        raise AudioError(f"truncated audio: expected {num_samples} samples in {path}, found {found} bytes")
    return header


def probe(path: Path, utt_id: str) -> Recording:
    """A manifest entry from the header of an audio file. AudioError as `read_header`."""
    return make_recording(read_header(path), path, utt_id)


def make_recording(header: AudioHeader, path: Path, utt_id: str) -> Recording:
    """The manifest entry of a whole file."""
    from lhotse import AudioSource, Recording

    return Recording(
        id=utt_id,
        sources=[AudioSource(type="file", channels=list(range(header.num_channels)), source=str(path))],
        sampling_rate=header.sampling_rate,
        num_samples=header.num_samples,
        duration=header.num_samples / header.sampling_rate,
    )


def make_supervision(recording: Recording, speaker: str, text: str) -> SupervisionSegment:
    """The supervision of a recording that is one utterance."""
    from lhotse import SupervisionSegment

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
    return read_scaled(recording)[0]


def read_scaled(recording: Recording) -> tuple[np.ndarray, float]:
    """The same samples, and the number that they were divided by: 1 unless they are floats in an integer's range.

    A speaker with recordings in both ranges would otherwise have frames 20 nats apart.
    """
    channels = np.concatenate([_read_file(Path(source.source)) for source in recording.sources])
    if channels.shape[1] != recording.num_samples:
        raise AudioError(
            f"truncated audio: expected {recording.num_samples} samples in {recording.sources[0].source}, "
            f"found {channels.shape[1]}"
        )
    path = Path(recording.sources[0].source)
    second = second_flac(path)
    if second is not None:
        raise AudioError(f"expected one FLAC file, found another one at byte {second}: convert each ({path})")
    scale = _full_scale(_peak(channels), path)
    return (channels if scale == 1.0 else channels / np.float32(scale)), scale


def file_scale(path: Path) -> float:
    """The number that `read_scaled` divides the samples of a whole file by, from blocks of it."""
    with open_audio(path) as file:
        return _full_scale(max((_peak(block) for block in file.blocks_of_rest()), default=0.0), path)


def read_part(path: Path, first: int, last: int, dtype: str) -> np.ndarray:
    """Samples [last − first, channels] of a file: those of the whole file, to the bit (of MP3, within 1e-7).

    AudioError if it cannot be read or ends before `last`.
    """
    with open_audio(path) as file:
        start = file.decoding_start(first)
        if start > 0:
            file.seek(start)
        parts, num_left = [], last - start
        while num_left > 0 and len(block := file.read_block(num_left, dtype)):
            parts.append(block)
            num_left -= len(block)
    if num_left > 0:
        raise AudioError(f"truncated audio: expected {last} samples in {path}, found {last - num_left}")
    return np.concatenate(parts)[first - start :]


@contextmanager
def open_audio(path: Path) -> Iterator[_SequentialFile]:
    """The file as libsndfile reads it to its end. AudioError if it is missing or unreadable, now or in the block."""
    if not path.is_file():
        raise AudioError(f"missing audio: expected {path}")
    try:
        with path.open("rb") as raw, _SequentialFile(raw, path) as file:
            yield file
    # TypeError: soundfile takes a name that ends in .raw for samples without a header
    except (soundfile.LibsndfileError, RuntimeError, OSError, TypeError, ValueError) as error:
        raise AudioError(_unreadable(path, error)) from None


class _SequentialFile(soundfile.SoundFile):
    """A file that is read by blocks up to its end, which libsndfile need not know before."""

    def __init__(self, raw: io.BufferedReader, path: Path) -> None:
        source = _readable(path, raw)
        super().__init__(source)
        self.raw = raw
        self.is_estimate = isinstance(source, _Changed) and self.format == "MP3"
        num_samples = MP3_FRAME_SAMPLES if self.is_estimate else min(int(self.frames), BLOCK_SAMPLES // self.channels)
        self.block_samples = max(1, num_samples)

    def seekable(self) -> bool:
        """False: after each read soundfile seeks, which fails at the end of a FLAC file that states no length."""
        return False

    def decoding_start(self, first: int) -> int:
        """Where decoding begins, so that sample `first` is the same as in the whole file."""
        if not super().seekable() or self.subtype in UNSEEKABLE:
            return 0
        return max(0, first - round(PREROLL_SEC * self.samplerate)) if self.format in ("OGG", "MP3") else first

    def read_block(self, num_samples: int, dtype: str) -> np.ndarray:
        """Up to `num_samples` samples [samples, channels]; none at the end."""
        try:
            block: np.ndarray = self.read(min(num_samples, self.block_samples), dtype=dtype, always_2d=True)
        except soundfile.LibsndfileError:
            # So ends an MP3 file without a length whose last frame is cut.
            if self.is_estimate and self.raw.tell() >= os.fstat(self.raw.fileno()).st_size - MP3_TAIL_BYTES:
                return np.zeros((0, self.channels), dtype)
            raise
        return block

    def blocks_of_rest(self) -> Iterator[np.ndarray]:
        """The rest of the file, [samples, channels] float32 at a time."""
        while len(block := self.read_block(self.block_samples, "float32")):
            yield block


class _Changed:
    """A file with another length, or with other bytes in its header. libsndfile has no option for what they state."""

    def __init__(self, raw: io.BufferedReader, size: int, offset: int = 0, new: bytes = b"") -> None:
        self._raw, self._size, self._offset, self._new = raw, size, offset, new

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(self._size + offset) if whence == os.SEEK_END else self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def read(self, size: int = -1) -> bytes:
        start = self._raw.tell()
        if self._size - start <= ID3_BYTES < self._size:  # where libsndfile looks for a tag, and stops without bytes
            return self._raw.read(size).ljust(min(size, self._size - start), b"\0")
        data = bytearray(self._raw.read(size))
        first, last = max(self._offset, start), min(self._offset + len(self._new), start + len(data))
        if first < last:
            data[first - start : last - start] = self._new[first - self._offset : last - self._offset]
        return bytes(data)


def _readable(path: Path, raw: io.BufferedReader) -> bytes | _Changed:
    """What soundfile opens: the path, or the open file with another length where libsndfile would stop early."""
    name = os.fsencode(path)
    if raw.peek(4)[:4] == b"RF64":  # libsndfile does not open some of those
        wide, size = read_rf64_data(path), path.stat().st_size
        if wide is not None and wide.is_place_holder and wide.size_offset:
            return _Changed(raw, size, wide.size_offset, struct.pack("<Q", size - wide.start))
    audio_format = soundfile.info(name).format
    if audio_format == "MP3" and read_mp3_length(path) is None:
        return _Changed(raw, MP3_LENGTH_FACTOR * path.stat().st_size)
    if audio_format in ("WAV", "WAVEX"):
        data, size = read_wav_data(path), path.stat().st_size
        if data is not None and data.is_place_holder:
            if size - data.start > MAX_UINT32:
                raise AudioError(f"expected less than 4 GiB in a WAV file of a stream, found {size} bytes in {path}")
            return _Changed(raw, size, data.size_offset, struct.pack(f"{data.order}I", size - data.start))
    return name


def _length(file: _SequentialFile) -> int:
    """Samples per channel: by the header, or counted where it does not state them."""
    if file.is_estimate or file.frames >= UNKNOWN_SAMPLES:
        return sum(len(block) for block in file.blocks_of_rest())
    return int(file.frames)


def _read_file(path: Path) -> np.ndarray:
    """Samples [channels, num_samples] float32 as libsndfile gives them.

    Not by Lhotse's default, which reads SPHERE with a program that is seldom installed.
    """
    with open_audio(path) as file:
        blocks = list(file.blocks_of_rest())
        channels = file.channels
    if len(blocks) == 1:
        return blocks[0].T
    return np.concatenate(blocks or [np.zeros((0, channels), np.float32)]).T


def _peak(samples: np.ndarray) -> float:
    """The greatest finite magnitude; samples that are not finite are refused by the caller."""
    if not samples.size:
        return 0.0
    peak = max(float(samples.max()), -float(samples.min()))
    return peak if np.isfinite(peak) else float(np.abs(samples).max(initial=0.0, where=np.isfinite(samples)))


def _full_scale(peak: float, path: Path) -> float:
    """The scale of floating-point samples up to `peak`. AudioError if none fits."""
    for scale, overload in zip(FULL_SCALES, OVERLOAD, strict=True):
        if peak <= scale * overload:
            return scale
    raise AudioError(f"expected samples in ±1 or in the range of integers, found {peak:.3g} in {path}")


def _unreadable(path: Path, error: Exception) -> str:
    """The message for a file that libsndfile does not read, with the way out where there is one."""
    try:
        coding = sphere_coding(path)
    except OSError:
        coding = ""
    if "shorten" in coding:
        return f"expected uncompressed SPHERE, found {coding} in {path}: convert it with `sph2pipe -f wav`"
    reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
    return f"unreadable audio in {path} ({reason})"
