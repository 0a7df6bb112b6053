"""Recordings, streams and the command with a real network and graph, however small."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import ISOLATED, write_toy_model

import asrkd
from asrkd.errors import InputError
from asrkd.runtime.model import Model
from asrkd.runtime.segmentation import CutRules, EndpointRules
from asrkd.runtime.stream import Stream
from asrkd.runtime.transcribe import TranscribeOptions, transcribe_samples

pytestmark = pytest.mark.needs("onnx")  # which writes the model

RATE = 8000
WITHOUT_ENDS = EndpointRules(50.0, 50.0, 100.0)
SHORT = EndpointRules(0.4, 0.2, 1.5)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Samples of changing loudness, on which the random network finds words."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(10.0 ** rng.uniform(-3.0, -0.5, round(10 * seconds)), RATE // 10)
    return np.clip(loudness * rng.standard_normal(len(loudness)), -1.0, 1.0).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("models") / "model", cmvn="online")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return asrkd.load(folder, precision="float32")


@given(st.integers(0, 5), st.lists(st.integers(1, 6000), min_size=1, max_size=10))
@settings(max_examples=6, deadline=None)
def test_streams_do_not_depend_on_the_sizes_of_messages(model: Model, seed: int, sizes: list[int]) -> None:
    samples = noise(5.0, seed)
    whole, parts = Stream(model, rules=SHORT), Stream(model, rules=SHORT)
    whole.accept(samples)
    for part in np.split(samples, np.cumsum(sizes)):
        parts.accept(part)
    assert parts.final() == whole.final()
    assert whole.final().words


@pytest.mark.parametrize("seed", range(4))
def test_streams_give_the_words_of_the_file(model: Model, seed: int) -> None:
    samples = noise(6.0, seed)
    stream = model.stream(rules=WITHOUT_ENDS)
    for part in np.split(samples, range(700, len(samples), 700)):
        stream.accept(part)
    found, expected = stream.final(), model.transcribe(samples)
    assert [(word.text, word.start, word.end) for word in found.words] == [
        (word.text, word.start, word.end) for word in expected.words
    ]
    assert [word.confidence for word in found.words] == pytest.approx(
        [word.confidence for word in expected.words], abs=1e-3
    )
    assert expected.words


def test_a_rate_of_nothing_is_refused(model: Model) -> None:
    for rate in (0, RATE // 3):
        with pytest.raises(InputError, match="expected a sampling rate of"):
            model.transcribe(noise(1.0), sampling_rate=rate)


def test_long_recordings_have_segments_in_order(model: Model) -> None:
    rules = CutRules(min_sec=0.5, max_sec=2.0, long_pause_sec=0.3, padding_sec=0.1)
    transcript = transcribe_samples(model, noise(12.0), RATE, TranscribeOptions(cuts=rules, nbest=2))
    assert len(transcript.segments) >= 5
    times = [time for segment in transcript.segments for time in (segment.start, segment.end)]
    assert times == sorted(times) and times[-1] <= transcript.duration


def test_the_command_without_torch_k2_and_lhotse(folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(2.0), RATE)
    (tmp_path / "recordings.jsonl").write_text(
        '{"id": "b", "sources": [{"type": "file", "channels": [0], "source": "%s"}]}' % (tmp_path / "a.wav")
    )
    command = ["transcribe", folder, tmp_path / "a.wav", tmp_path / "recordings.jsonl", "--format", "ctm,json,srt"]
    done = subprocess.run(
        [sys.executable, "-c", ISOLATED, *command, "--output-dir", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "transcribed 2 of 2 inputs: 4.0 s of audio" in done.stderr
    assert (tmp_path / "out" / "a.ctm").read_text().replace("a 1", "b 1") == (tmp_path / "out" / "b.ctm").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("num_jobs", ["1", "2"])
def test_a_signal_leaves_nothing_behind(num_jobs: str, number: signal.Signals, folder: Path, tmp_path: Path) -> None:
    """Half an hour of audio is being transcribed; temporary folders go, and no output is there."""
    tmp_dir, out = tmp_path / "tmp", tmp_path / "out"
    tmp_dir.mkdir()
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.tile(noise(60.0), 30), RATE)
    command = [
        sys.executable,
        "-m",
        "asrkd.commands.main",
        "transcribe",
        folder,
        tmp_path / "a.wav",
        tmp_path / "b.wav",
    ]
    process = subprocess.Popen(
        [*map(str, command), "--output-dir", str(out), "--nj", num_jobs],
        env={**os.environ, "TMPDIR": str(tmp_dir)},
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, or under nohup, these signals are ignored, and so by what they start.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60.0
        while not list(tmp_dir.glob("asrkd-*/asrkd-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, "it has begun, and is not at its end"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60.0)
    finally:
        process.kill()
    assert list(tmp_dir.iterdir()) == [] and not out.exists()
    assert process.returncode == (2 if number == signal.SIGINT else 128 + number)
    assert "Traceback" not in errors


def test_an_ignored_signal_stays_ignored() -> None:
    code = (
        "import os, signal\nfrom asrkd.terminal import tidy_end\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with tidy_end():\n    os.kill(os.getpid(), signal.SIGHUP)\nprint(signal.getsignal(signal.SIGTERM))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "SIG_DFL" in done.stdout


FULL_DISK = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from asrkd.commands.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("limit", [0, 200])  # bytes: of the search's temporary files, of the output
@pytest.mark.parametrize("command", ["transcribe", "align"])
def test_a_full_disk_is_one_line(command: str, limit: int, folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(4.0), RATE)
    (tmp_path / "a.txt").write_text("AB BA\n")
    texts = [str(tmp_path / "a.txt")] if command == "align" else ["--no-confidences"]
    arguments = [command, str(folder), str(tmp_path / "a.wav"), *texts, "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(limit), *arguments, "--output-dir", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    # OpenFst, which is C++, writes lines of its own.
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("ERROR: ")]
    assert done.returncode == 2 and line.startswith("asrkd: error: "), done.stderr
    assert any(reason in line for reason in ("File too large", "could not write", "No usable temporary directory"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("a.wav", "a.txt")]
