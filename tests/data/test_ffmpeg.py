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
    program.chmod(0o755)


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
