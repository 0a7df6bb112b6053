"""Audio of any kind as one channel at the model's rate, in blocks; what is no audio is one line."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from optional_packages import skip_without

from asrkd.errors import InputError
from asrkd.runtime import audio as audio_module
from asrkd.runtime.audio import (
    MIX,
    Resampler,
    array_blocks,
    as_float,
    channels_to_read,
    joined,
    open_input,
    read_blocks,
    require_channel_choice,
    require_rate,
)
from asrkd.runtime.inputs import AudioInput

RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A tone of 440 Hz [N, channels], softer on each further channel."""
    times = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * 440 * times))[:, None] / np.arange(1, channels + 1).astype(np.float32)


def wav(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> AudioInput:
    soundfile.write(path, samples, rate, subtype=subtype)
    return AudioInput(path.stem, path)


def read(source: AudioInput, rate: int = RATE, channel: int | str = 0) -> np.ndarray:
    with open_input(source) as audio:
        return joined(read_blocks(audio, rate, channel))


def test_blocks_are_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_module, "_BLOCK_SAMPLES", 1000)
    source = wav(tmp_path / "a.wav", tone(channels=2))
    expected = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    with open_input(source) as audio:
        blocks = list(read_blocks(audio, RATE, 1))
        assert max(map(len, blocks)) == 1000
        assert audio.duration_sec == 1.0
    assert np.array_equal(joined(blocks), expected[:, 1])
    assert np.array_equal(read(source, channel=MIX), expected.mean(axis=1))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_parts_of_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(3.0), RATE)
    whole = soundfile.read(path, dtype="float32")[0]
    part = read(AudioInput("cut", path, 1.5, 2.25))
    assert np.array_equal(part, whole[24000:36000])


def test_floating_point_samples_in_the_range_of_integers(tmp_path: Path) -> None:
    source = wav(tmp_path / "a.wav", tone() * 32768, subtype="FLOAT")
    assert np.abs(read(source) - tone()[:, 0]).max() < 1e-6


def test_resampled_tones_are_tones(tmp_path: Path) -> None:
    skip_without("soxr")
    for rate in (8000, 11025, 44100, 48000):
        found = read(wav(tmp_path / f"{rate}.wav", tone(rate=rate), rate))
        assert len(found) == pytest.approx(RATE, abs=2)
        middle = slice(1000, 15000)
        assert np.abs(found[middle] - tone()[middle, 0]).max() < 1e-3


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.sampled_from([8000, 16000, 44100]))
@settings(max_examples=25, deadline=None)
def test_resampling_does_not_depend_on_the_blocks(sizes: list[int], rate: int) -> None:
    if rate != RATE:
        skip_without("soxr")
    samples = np.random.default_rng(0).standard_normal(sum(sizes)).astype(np.float32)
    whole = joined(array_blocks(samples, rate, RATE))
    resampler = Resampler(rate, RATE)
    parts = [resampler.resample(part) for part in np.split(samples, np.cumsum(sizes)[:-1])]
    parts.append(resampler.resample(np.zeros(0, np.float32), is_last=True))
    assert np.array_equal(joined(parts), whole)


def test_samples_of_arrays() -> None:
    integers = np.array([-32768, 0, 16384], np.int16)
    assert as_float(integers).tolist() == [-1.0, 0.0, 0.5]
    assert np.array_equal(joined(array_blocks(integers, RATE, RATE)), as_float(integers))
    assert as_float(np.array([0.5])).dtype == np.float32
    with pytest.raises(InputError, match="16-bit integers or floating-point ones, found uint8"):
        as_float(np.zeros(3, np.uint8))
    with pytest.raises(InputError, match="one channel"):
        list(array_blocks(np.zeros((2, 3)), RATE, RATE))
    with pytest.raises(InputError, match="found NaN or infinity after"):
        list(array_blocks(np.array([0.0, np.nan]), RATE, RATE))


def test_choices_of_channels(tmp_path: Path) -> None:
    for count, choice, expected in (
        (1, "auto", [0]),
        (1, "split", [0]),
        (2, "auto", [MIX]),
        (2, "split", [0, 1]),
        (2, "1", [1]),
        (8, "mix", [MIX]),
        (8, "split", list(range(8))),
    ):
        with open_input(wav(tmp_path / "a.wav", tone(0.1, channels=count))) as audio:
            assert channels_to_read(audio, choice) == expected
    with pytest.raises(InputError, match="expected one or two channels, found 8: choose with --channel"):
        channels_to_read(audio, "auto")
    with pytest.raises(InputError, match="expected a channel from 0 to 7, found --channel 8"):
        channels_to_read(audio, "8")
    with pytest.raises(InputError, match="--channel: expected auto, mix, split or a number from 0, found left"):
        require_channel_choice("left")
    cut = AudioInput("cut", tmp_path / "a.wav", 0.0, 0.1, 5)
    with open_input(cut) as audio:
        assert channels_to_read(audio, "auto") == [5]


def test_low_sampling_rates() -> None:
    require_rate(8000, 16000, "a.wav")
    with pytest.raises(InputError, match=r"a.wav: expected a sampling rate of 8000 Hz or more .* found 4000 Hz"):
        require_rate(4000, 16000, "a.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.wav"),
        (b"This is no audio.\n" * 100, "unreadable audio in .*a.wav"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "a.wav"),
    ],
)
def test_files_that_are_no_audio(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read(AudioInput("a", tmp_path / "a.wav"))
    assert "\n" not in str(error.value)


def test_damaged_files(tmp_path: Path) -> None:
    source = wav(tmp_path / "a.wav", tone(), subtype="PCM_16")
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[:-5000])
    with pytest.raises(InputError, match="truncated audio"):
        read(source)
    with pytest.raises(InputError, match="empty audio: expected samples in"):
        read(wav(tmp_path / "b.wav", tone(0.0)))
    samples = tone()
    samples[8000] = np.nan
    with pytest.raises(InputError, match=r"c.wav: expected finite samples, found NaN or infinity after"):
        read(wav(tmp_path / "c.wav", samples, subtype="FLOAT"))
    with pytest.raises(InputError, match=r"expected 0.5 to 1.5 s in d \(.*d\.wav\), found 1 s"):
        read(AudioInput("d", wav(tmp_path / "d.wav", tone()).path, 0.5, 1.5))


class Stdin(io.TextIOWrapper):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wav(tmp_path / "a.wav", tone())
    monkeypatch.setattr(sys, "stdin", Stdin((tmp_path / "a.wav").read_bytes()))
    assert np.array_equal(read(AudioInput("stdin", None)), read(AudioInput("a", tmp_path / "a.wav")))
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    with pytest.raises(InputError, match="standard input: expected audio, found no bytes"):
        read(AudioInput("stdin", None))
    monkeypatch.setattr(sys, "stdin", Stdin(b"text\n" * 9))
    with pytest.raises(InputError, match=r"unreadable audio in standard input \("):
        read(AudioInput("stdin", None))


def test_named_pipes(tmp_path: Path) -> None:
    """What a shell makes of `<(sox ...)`."""
    wav(tmp_path / "a.wav", tone())
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", tmp_path / "a.wav", tmp_path / "pipe"]):
        found = read(AudioInput("pipe", tmp_path / "pipe"))
    assert np.array_equal(found, read(AudioInput("a", tmp_path / "a.wav")))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: not installed")
def test_files_that_ffmpeg_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wav(tmp_path / "a.wav", tone(2.0))
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "a.m4a"]
    subprocess.run(command, check=True)
    assert len(read(AudioInput("a", tmp_path / "a.m4a"))) == pytest.approx(2 * RATE, abs=2048)
    content = (tmp_path / "a.m4a").read_bytes()
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    assert len(read(AudioInput("stdin", None))) == pytest.approx(2 * RATE, abs=2048)
    (tmp_path / "cut.m4a").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"unreadable audio in .*cut.m4a"):
        read(AudioInput("a", tmp_path / "cut.m4a"))
