"""Audio of any format, rate and number of channels as blocks of float32 samples, one channel, at the model's rate.

libsndfile reads the files, and ffmpeg those that it does not (video, m4a). Memory does not grow with the length.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np

from asrkd.data.audio import AudioError, file_scale, open_audio, read_header
from asrkd.data.audio_headers import second_flac
from asrkd.data.ffmpeg import container_of, decode
from asrkd.errors import InputError, naming
from asrkd.files import require_utf8
from asrkd.runtime.inputs import AudioInput

AUTO, MIX, SPLIT = "auto", "mix", "split"
MOST_MIXED = 2
"""Channels whose mean `auto` takes: of a stereo recording both have the speech. A microphone array needs a choice."""
INT16_SCALE = 32768.0
FLOATING_POINT = ("FLOAT", "DOUBLE")
QUALITY = "HQ"  # of soxr: 20 bits, 0.913 of the band
_BLOCK_SAMPLES = 1 << 18
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Audio:
    """A file that can be read, as often as needed."""

    path: Path
    label: str
    """What errors name."""
    sampling_rate: int
    num_channels: int
    first: int
    last: int
    """Samples of the part to read: first to last - 1."""
    scale: float = 1.0
    """Floating-point samples in the range of integers are divided by it."""
    channel: int | None = None
    """Index that a manifest gives."""

    @property
    def duration_sec(self) -> float:
        return (self.last - self.first) / self.sampling_rate


@contextmanager
def open_input(source: AudioInput, tmp_dir: Path | None = None) -> Iterator[Audio]:
    """The audio of an input. Standard input, and what only ffmpeg reads, is in a temporary file until the block ends.
    It is in `tmp_dir`, by default in the system's.

    InputError for a file that is missing, empty, damaged, truncated or no audio, and for a part that it does not have.
    """
    with TemporaryDirectory(prefix="asrkd-", dir=tmp_dir) as folder:
        path = _standard_input(Path(folder, "stdin")) if source.path is None else source.path
        require_utf8(str(path))
        if path.is_fifo():
            with path.open("rb") as pipe:
                path = _spooled(pipe, Path(folder, "pipe"), str(source))
        with _one_line(path, str(source)):
            if path.is_file() and container_of(path) is not None:
                decoded = Path(folder, "decoded.flac")
                decode(path, decoded)
                path = decoded
            yield _audio(path, source)


def read_blocks(audio: Audio, sampling_rate: int, channel: int | str) -> Iterator[np.ndarray]:
    """Samples [N] float32 in ±1, at `sampling_rate`, of a channel (from 0) or of the mean of all ("mix").

    InputError for samples that are not finite, and for a file that ends early.
    """
    resampler = Resampler(audio.sampling_rate, sampling_rate)
    with _one_line(audio.path, audio.label):
        for block in _file_blocks(audio):
            mono = block.mean(axis=1) if channel == MIX else np.ascontiguousarray(block[:, int(channel)])
            yield resampler.resample(mono / np.float32(audio.scale) if audio.scale != 1.0 else mono)
    yield resampler.resample(np.zeros(0, np.float32), is_last=True)


def array_blocks(samples: np.ndarray, sampling_rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """Samples [N], of integers or in ±1, as `read_blocks` gives those of a file. InputError as there."""
    if samples.ndim != 1:
        raise InputError(f"expected samples of one channel [N], found an array {list(samples.shape)}")
    require_rate(sampling_rate, new_rate, "samples")
    resampler = Resampler(sampling_rate, new_rate)
    for first in range(0, len(samples), _BLOCK_SAMPLES):
        block = as_float(samples[first : first + _BLOCK_SAMPLES])
        _require_finite(block, first / sampling_rate, "samples")
        yield resampler.resample(block)
    yield resampler.resample(np.zeros(0, np.float32), is_last=True)


def channels_to_read(audio: Audio, choice: str) -> list[int | str]:
    """What `--channel` means for a file: indices, or "mix".

    InputError for a channel that the file does not have, and where `auto` would mix more than two.
    """
    if audio.channel is not None and choice == AUTO:
        return [audio.channel]
    if audio.num_channels == 1 and choice in (AUTO, MIX, SPLIT):
        return [0]
    if choice == SPLIT:
        return list(range(audio.num_channels))
    if choice == MIX or (choice == AUTO and audio.num_channels <= MOST_MIXED):
        return [MIX]
    if choice == AUTO:
        raise InputError(
            f"{audio.label}: expected one or two channels, found {audio.num_channels}: "
            "choose with --channel (a number from 0, mix or split)"
        )
    if int(choice) >= audio.num_channels:
        last = audio.num_channels - 1
        raise InputError(f"{audio.label}: expected a channel from 0 to {last}, found --channel {choice}")
    return [int(choice)]


def require_channel_choice(choice: str) -> None:
    """InputError unless `choice` is auto, mix, split or a number."""
    if choice not in (AUTO, MIX, SPLIT) and not (choice.isascii() and choice.isdigit()):
        raise InputError(f"--channel: expected auto, mix, split or a number from 0, found {choice}")


def require_rate(sampling_rate: int, model_rate: int, label: str) -> None:
    """InputError for less than half of the model's rate: half of the band that it listens to is missing."""
    if 2 * sampling_rate < model_rate:
        raise InputError(
            f"{label}: expected a sampling rate of {model_rate // 2} Hz or more for a model of {model_rate} Hz, "
            f"found {sampling_rate} Hz"
        )


def as_float(samples: np.ndarray) -> np.ndarray:
    """Samples as float32 in ±1: 16-bit integers divided by 32768, floating-point ones as they are."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(INT16_SCALE)
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"expected samples of 16-bit integers or floating-point ones, found {samples.dtype}")
    return samples.astype(np.float32, copy=False)


class Resampler:
    """A stream of samples at another rate; its output does not depend on the sizes of its blocks."""

    def __init__(self, sampling_rate: int, new_rate: int) -> None:
        """Rates in Hz. InputError where soxr is needed and not installed."""
        self._stream = None if sampling_rate == new_rate else _soxr_stream(sampling_rate, new_rate)

    def resample(self, samples: np.ndarray, is_last: bool = False) -> np.ndarray:
        """The samples [M] that are ready after these [N], all of them float32; `is_last` gives the rest."""
        if self._stream is None:
            return samples
        resampled: np.ndarray = self._stream.resample_chunk(samples, last=is_last)
        return resampled


def _soxr_stream(sampling_rate: int, new_rate: int):  # type: ignore[no-untyped-def]  # of a package without types
    try:
        import soxr
    except ImportError:
        raise InputError(
            f"audio of {sampling_rate} Hz for a model of {new_rate} Hz needs soxr, which is not installed: "
            "pip install 'asrkd[runtime]'"
        ) from None
    return soxr.ResampleStream(sampling_rate, new_rate, 1, dtype="float32", quality=QUALITY)


def _standard_input(path: Path) -> Path:
    """Standard input, in a file. InputError if there is none."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input: expected audio, found a terminal: `asrkd transcribe MODEL - < a.wav`")
    return _spooled(sys.stdin.buffer, path, "standard input")


def _spooled(pipe: BinaryIO, path: Path, label: str) -> Path:
    """The bytes of a pipe, in a file: readers of audio seek. InputError if there are none."""
    with naming(path), path.open("wb") as file:
        while block := pipe.read(_BLOCK_BYTES):
            file.write(block)
    if path.stat().st_size == 0:
        raise InputError(f"{label}: expected audio, found no bytes")
    return path


def _audio(path: Path, source: AudioInput) -> Audio:
    header = read_header(path)
    second = second_flac(path)
    if second is not None:
        raise AudioError(f"expected one FLAC file, found another one at byte {second}: convert each ({path})")
    scale = file_scale(path) if header.subtype in FLOATING_POINT else 1.0
    first = round(source.start_sec * header.sampling_rate)
    last = header.num_samples if source.end_sec is None else round(source.end_sec * header.sampling_rate)
    if source.channel is not None and source.channel >= header.num_channels:
        raise AudioError(f"expected channel {source.channel} in {path}, found {header.num_channels} channels")
    if not first < last <= header.num_samples + 1:  # manifests round times
        end_sec = header.num_samples / header.sampling_rate
        raise AudioError(
            f"expected {source.start_sec:.8g} to {last / header.sampling_rate:.8g} s in {path}, found {end_sec:.8g} s"
        )
    last = min(last, header.num_samples)
    return Audio(path, str(source), header.sampling_rate, header.num_channels, first, last, scale, source.channel)


def _file_blocks(audio: Audio) -> Iterator[np.ndarray]:
    """Blocks [N, channels] of the part. AudioError if the file ends before it."""
    with open_audio(audio.path) as file:
        at = file.decoding_start(audio.first)
        if at > 0:
            file.seek(at)
        while at < audio.last:
            block = file.read_block(min(audio.last - at, _BLOCK_SAMPLES), "float32")
            if not len(block):
                raise AudioError(f"truncated audio: expected {audio.last} samples in {audio.path}, found {at}")
            used = block[max(0, audio.first - at) :]
            at += len(block)
            if len(used):
                _require_finite(used, (at - len(used)) / audio.sampling_rate, audio.label)
                yield used


def _require_finite(samples: np.ndarray, start_sec: float, label: str) -> None:
    if not np.isfinite(samples).all():
        raise InputError(f"{label}: expected finite samples, found NaN or infinity after {start_sec:.2f} s")


@contextmanager
def _one_line(path: Path, label: str) -> Iterator[None]:
    """Make an AudioError of the block an InputError that names the input instead of a temporary file."""
    try:
        yield
    except AudioError as error:
        raise InputError(str(error).replace(str(path), label)) from None


def joined(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """All samples [N] of blocks."""
    return np.concatenate([np.zeros(0, np.float32), *blocks])
