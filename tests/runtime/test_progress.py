"""Progress over recordings: expected seconds, and a bar that results do not mix with."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrkd.runtime import progress as progress_module
from asrkd.runtime.inputs import AudioInput
from asrkd.runtime.progress import audio_progress, total_seconds

RATE = 8000


@pytest.fixture
def inputs(tmp_path: Path) -> list[AudioInput]:
    """Two and four seconds, a text, and standard input."""
    for name, seconds in (("a", 2), ("b", 4)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(seconds * RATE), RATE)
    (tmp_path / "c.wav").write_text("no audio")
    return [*(AudioInput(name, tmp_path / f"{name}.wav") for name in "abc"), AudioInput("stdin", None)]


def test_unknown_lengths_count_as_the_mean_of_the_others(inputs: list[AudioInput]) -> None:
    assert total_seconds(inputs[:2]) == 6
    assert total_seconds(inputs) == 12
    assert total_seconds(inputs[2:]) is None
    assert total_seconds([AudioInput("cut", inputs[0].path, 0.5, 1.5)]) == 1


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_lengths_of_containers(inputs: list[AudioInput], tmp_path: Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "b.wav", tmp_path / "b.m4a"], check=True)
    assert total_seconds([AudioInput("b", tmp_path / "b.m4a")]) in (4, 5)  # AAC adds a part of a frame


def test_results_are_on_lines_of_their_own(inputs: list[AudioInput], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress_module, "DELAY_SEC", 0.0)
    monkeypatch.setattr(progress_module, "TERMINAL_SEC", 0.0)
    with audio_progress(inputs[:2], "transcribe") as progress:
        progress.update(2.0)
        progress.print("a: one\n")
        progress.update(4.0)
        progress.report("b.wav: bad\nfile")
    assert "2/6 s of audio" in terminal.getvalue()
    assert screen(terminal.getvalue()) == ["a: one", "asrkd: b.wav: bad file", ""]


def screen(written: str) -> list[str]:
    """The lines of a terminal; a carriage return goes back to the begin of the line."""
    lines = []
    for line in written.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines
