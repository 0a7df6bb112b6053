"""What libsndfile does not read goes through ffmpeg: a fixed list of arguments, a time limit, and nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrkd.data import ffmpeg
from asrkd.data.audio import AudioError, read_samples
from asrkd.data.segments import Segment, split_from_segments

RATE = 16000
M4A = b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom"


def fake_ffmpeg(folder: Path, script: str) -> None:
    """A program of that name which notes its arguments and then does as `script`."""
    program = folder / "bin" / "ffmpeg"
    program.parent.mkdir()
    notes = f"open({str(folder / 'arguments.json')!r}, 'a').write(json.dumps(sys.argv[1:]) + chr(10))"
    program.write_text(f"#!{sys.executable}\nimport json, shutil, sys, time\n{notes}\n{script}\n")
    stream = {"codec_type": "audio", "codec_name": "aac"}
    probe = folder / "bin" / "ffprobe"
    probe.write_text(f"#!{sys.executable}\nprint({json.dumps({'streams': [stream]})!r})\n")
    for one in (program, probe):
        one.chmod(0o755)


@pytest.fixture
def m4a(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose name looks like an option and like an address; PATH has the fake program alone."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    Path("-i http:evil.m4a").write_bytes(M4A)
    samples = np.random.default_rng(0).integers(-5000, 5000, (2 * RATE, 2)).astype(np.int16)
    soundfile.write(tmp_path / "decoded.flac", samples, RATE)
    return Path("-i http:evil.m4a")


COPY = "shutil.copy('decoded.flac', sys.argv[-1].removeprefix('file:'))"


def test_utterances_of_a_video_are_cut_from_one_decoded_copy(tmp_path: Path, m4a: Path):
    fake_ffmpeg(tmp_path, COPY)
    segments = [Segment(f"u{n}", m4a, 0.5 * n, 0.5 * n + 0.5, "spk", "go", channel=n % 2) for n in range(4)]
    probed = split_from_segments(segments, None)
    assert not (tmp_path / "segments").exists()
    for _ in range(2):
        split = split_from_segments(segments, tmp_path / "segments")
    assert split.rejected == () and len(split.recordings) == 4
    assert [one.num_samples for one in probed.recordings] == [one.num_samples for one in split.recordings]
    expected = soundfile.read(tmp_path / "decoded.flac", dtype="float32")[0]
    assert np.array_equal(read_samples(split.recordings["u3"])[0], expected[3 * RATE // 2 :, 1])
    calls = [json.loads(line) for line in (tmp_path / "arguments.json").read_text().splitlines()]
    assert len(calls) == 2  # for the check, and for the copies
    for arguments in calls:
        assert arguments[arguments.index("-i") + 1] == f"file:{tmp_path}/-i http:evil.m4a"
        assert arguments[arguments.index("-protocol_whitelist") + 1] == "file"
        assert "-nostdin" in arguments and "-format_whitelist" in arguments


def test_without_ffmpeg_the_error_names_it(m4a: Path, tmp_path: Path):
    (rejected,) = split_from_segments([Segment("u", m4a, 0.0, None, "spk", "go")], tmp_path / "segments").rejected
    assert rejected.reason == (
        "MP4 or m4a in -i http:evil.m4a needs ffmpeg, which is not installed: install it, or convert the file to FLAC"
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.exit('moov atom not found')", r"unreadable audio in .* \(ffmpeg: moov atom not found\)"),
        (COPY + "; print('partial file', file=sys.stderr)", r"unreadable audio in .* \(ffmpeg: partial file\)"),
        ("sys.exit(3)", r"unreadable audio in .* \(ffmpeg: exit code 3\)"),
        (COPY + "; time.sleep(60)", r"ffmpeg took longer than 2 s for "),
    ],
)
def test_what_ffmpeg_cannot_decode_is_rejected_and_leaves_nothing(
    tmp_path: Path, m4a: Path, script: str, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ffmpeg, "TIME_LIMIT_SEC", 2.0)
    fake_ffmpeg(tmp_path, script)
    with pytest.raises(AudioError, match=reason):
        ffmpeg.decode(m4a, tmp_path / "out.flac")
    split = split_from_segments([Segment("u", m4a, 0.0, None, "spk", "go")], tmp_path / "segments")
    assert [fault.utt_id for fault in split.rejected] == ["u"]
    assert not list((tmp_path / "segments").iterdir())


def test_other_files_never_go_to_ffmpeg(tmp_path: Path, m4a: Path):
    fake_ffmpeg(tmp_path, COPY)
    playlist = tmp_path / "list.m4a"
    playlist.write_text("#EXTM3U\n/etc/passwd\n")
    split = split_from_segments([Segment("u", playlist, 0.0, None, "spk", "go")], tmp_path / "segments")
    assert split.rejected[0].reason.startswith("unreadable audio")
    assert not (tmp_path / "arguments.json").exists()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("suffix", ["m4a", "mkv", "mov", "aac"])
def test_real_ffmpeg(tmp_path: Path, suffix: str):
    time = np.arange(2 * RATE) / RATE
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * time), RATE)
    path = tmp_path / f"-i tone.{suffix}"
    command = ["ffmpeg", "-v", "error", "-i", f"file:{tmp_path}/tone.wav", "-c:a", "aac", f"file:{path}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=os.environ)
    split = split_from_segments([Segment("u", path, 0.5, 1.5, "spk", "go")], tmp_path / "segments")
    samples = read_samples(split.recordings["u"])[0]
    spectrum = np.abs(np.fft.rfft(samples))
    assert len(samples) == RATE and np.argmax(spectrum) == 440
    path.write_bytes(path.read_bytes()[:2000])
    split = split_from_segments([Segment("u", path, 0.5, 1.5, "spk", "go")], tmp_path / "segments")
    assert suffix == "aac" or split.rejected


def real_ffmpeg(folder: Path, *arguments: str) -> None:
    """Run ffmpeg in a folder with two tones of one second, `low.wav` and `high.wav`."""
    time = np.arange(RATE) / RATE
    for name, hertz in (("low", 440), ("high", 2000)):
        soundfile.write(folder / f"{name}.wav", 0.5 * np.sin(2 * np.pi * hertz * time), RATE)
    subprocess.run(["ffmpeg", "-v", "error", *arguments], check=True, stdin=subprocess.DEVNULL, cwd=folder)


PICTURE = ("-f", "lavfi", "-i", "color=size=16x16:rate=10:duration=3")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_sound_that_begins_after_the_picture_keeps_the_times_of_the_video(tmp_path: Path):
    real_ffmpeg(tmp_path, *PICTURE, "-itsoffset", "1.5", "-i", "low.wav", "-c:a", "aac", "a.mp4")
    ffmpeg.decode(tmp_path / "a.mp4", tmp_path / "out.flac")
    samples = soundfile.read(tmp_path / "out.flac")[0]
    (loud,) = np.nonzero(np.abs(samples) > 0.1)
    assert loud[0] / RATE == pytest.approx(1.5, abs=0.05) and loud[-1] / RATE == pytest.approx(2.5, abs=0.1)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ("-i", "low.wav", "-i", "high.wav", "-map", "0", "-map", "1", "a.mkv"),
            "expected one audio stream .* found 2",
        ),
        ((*PICTURE, "a.mkv"), "expected one audio stream .* found 0"),
        (("-i", "low.wav", "-c:a", "pcm_f32le", "a.mkv"), "expected integer or coded samples .* found pcm_f32le"),
    ],
)
def test_streams_that_would_be_guessed_or_clipped_are_refused(tmp_path: Path, arguments: tuple[str, ...], reason: str):
    real_ffmpeg(tmp_path, *arguments)
    with pytest.raises(AudioError, match=reason):
        ffmpeg.decode(tmp_path / "a.mkv", tmp_path / "out.flac")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("suffix", ["avi", "flv", "wma"])
def test_containers_whose_missing_end_ffmpeg_passes_over(tmp_path: Path, suffix: str):
    real_ffmpeg(tmp_path, "-i", "low.wav", "-ar", "22050", f"a.{suffix}")
    path = tmp_path / f"a.{suffix}"
    ffmpeg.decode(path, tmp_path / "out.flac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"(truncated|unreadable) audio"):
        ffmpeg.decode(path, tmp_path / "out.flac")
