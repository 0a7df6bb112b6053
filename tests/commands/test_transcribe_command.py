"""`asrkd transcribe` with a model of tones: formats, folders, what exists, what is bad, and Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fake_model import RATE, FakeModel, speech

from asrkd.commands import main as cli
from asrkd.runtime import batch as batch_module
from asrkd.runtime import model as model_module
from asrkd.runtime.writers import FORMATS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recordings in tmp_path/in, one of them in a folder of it; the model of tones is every model."""
    monkeypatch.setattr(model_module, "load", lambda path, precision: FakeModel())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "b").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "a.wav", speech(0.5, (0, 0.5), 0.2, (1, 0.5)), RATE)
    soundfile.write(tmp_path / "in" / "b" / "c.flac", speech(0.5, (2, 0.5)), RATE)
    return tmp_path


def transcribe(*arguments: str) -> int:
    return cli.main(["transcribe", "model", *arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line on stderr of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        transcribe(*arguments)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("asrkd: error: ")
    return lines[-1]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_file_on_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe("in/a.wav") == 0
    printed = capsys.readouterr()
    assert printed.out == "w0 w1\n"
    assert "transcribed 1 of 1 inputs: 1.7 s of audio in " in printed.err and ", RTF 0." in printed.err
    assert transcribe("in/a.wav", "--format=json", "--nbest", "2") == 0
    assert json.loads(capsys.readouterr().out)["segments"][0]["alternatives"] == ["other 1"]


@pytest.mark.parametrize("num_jobs", ["1", "2"])
def test_several_files_on_standard_output(num_jobs: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe("in", "--nj", num_jobs) == 0
    assert capsys.readouterr().out == "a: w0 w1\nb/c: w2\n"
    assert transcribe("in", "--format", "trn") == 0
    assert capsys.readouterr().out == "w0 w1 (a)\nw2 (b/c)\n"


def test_all_formats_of_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe("in", "--format", ",".join(FORMATS), "--output-dir", "out") == 0
    assert capsys.readouterr().out == ""
    assert files_in(folder / "out") == sorted(f"{name}.{form}" for name in ("a", "b/c") for form in FORMATS)
    assert (folder / "out" / "b" / "c.txt").read_text() == "w2\n"


def test_what_exists_is_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "a.txt").write_text("as it was\n")
    assert transcribe("in", "--output-dir=out") == 0
    assert "transcribed 1 of 2 inputs; 1 skipped, their outputs exist (--overwrite" in capsys.readouterr().err
    assert (folder / "out" / "a.txt").read_text() == "as it was\n"
    assert transcribe("in", "--output-dir=out", "--overwrite") == 0
    assert (folder / "out" / "a.txt").read_text() == "w0 w1\n"


@pytest.mark.parametrize("num_jobs", ["1", "2"])
def test_bad_files_do_not_end_the_others(num_jobs: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in" / "0.wav").write_text("no audio\n" * 20)
    (folder / "in" / "empty.wav").touch()
    soundfile.write(folder / "in" / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    with pytest.raises(SystemExit) as exit_:
        transcribe("in", "--output-dir", "out", "--nj", num_jobs)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("asrkd: error: 3 of 5 inputs could not be transcribed: ")
    assert all(f"in/{name}.wav" in lines[-1] for name in ("0", "empty", "nan"))
    assert any("transcribed 2 of 5 inputs; 3 bad: " in line for line in lines)
    assert any("found NaN or infinity" in line for line in lines)
    assert files_in(folder / "out") == ["a.txt", "b/c.txt"]


def test_names_that_cannot_be_do_not_end_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (folder / "in" / "a.wav").read_bytes()
    long = "x" * 242  # with .json, and what is added while a file is written, a byte too long
    names = [os.fsencode(f"{long}.wav"), b"latin-\xe9.wav"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), b"in", name))).write_bytes(content)
    (folder / "out" / "dir.json").mkdir(parents=True)
    (folder / "in" / "dir.wav").write_bytes(content)
    with pytest.raises(SystemExit):
        transcribe("in", "--output-dir", "out", "--format", "txt,json")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("asrkd: error: 3 of 5 inputs could not be transcribed: ")
    for message in (
        f"{long}.json: expected a file that can be written",
        "expected a name in UTF-8",
        "dir.json: expected",
    ):
        assert any(message in line for line in lines), message
    assert files_in(folder / "out") == ["a.json", "a.txt", "b/c.json", "b/c.txt"]


def test_a_name_of_two_lines_is_printed_as_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in" / "b" / "two\nlines.wav").write_bytes((folder / "in" / "a.wav").read_bytes())
    (folder / "in" / "b" / "bad\nlines.wav").write_bytes(b"no audio")
    with pytest.raises(SystemExit):
        transcribe("in/b")
    printed = capsys.readouterr()
    assert printed.out == "c: w2\ntwo lines: w0 w1\n"
    assert any(line.startswith("asrkd: ") and "bad lines.wav" in line for line in printed.err.splitlines())


def test_bad_parts_of_one_file_are_counted_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = {"type": "file", "channels": [0], "source": "in/a.wav"}
    recording = {"id": "a", "sources": [source], "sampling_rate": RATE, "num_samples": 9, "duration": 1.7}
    cuts = [
        {"id": f"cut{start}", "start": start, "duration": 1.0, "channel": 0, "recording": recording, "type": "MonoCut"}
        for start in (0.0, 5.0, 7.0)
    ]
    (folder / "cuts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cuts))
    line = refused(capsys, "cuts.jsonl")
    assert "2 of 3 inputs could not be transcribed: cut5.0 (in/a.wav), cut7.0 (in/a.wav)" in line


def test_one_bad_file_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.wav").write_text("no audio\n" * 20)
    soundfile.write(folder / "eight.wav", np.zeros((800, 8)), RATE)
    soundfile.write(folder / "low.wav", np.zeros(800), 2000)
    for name, message in (
        ("text.wav", "unreadable audio in text.wav"),
        ("eight.wav", "expected one or two channels, found 8"),
        ("low.wav", "found 2000 Hz"),
        ("missing.wav", "missing.wav: no such file or folder"),
    ):
        with pytest.raises(SystemExit):
            transcribe(name, "--output-dir", "out")
        printed = capsys.readouterr()
        assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (folder / "out").exists()


def test_standard_input(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    content = (folder / "in" / "a.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    assert transcribe("-", "in/b/c.flac", "--nj=2", "--format=ctm") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[4]) for row in rows] == [("stdin", "w0"), ("stdin", "w1"), ("c", "w2")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))
    assert "standard input: expected audio, found no bytes" in refused(capsys, "-")


@pytest.mark.parametrize("num_jobs", ["1", "2"])
def test_silence_is_a_bad_input(num_jobs: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("quiet", "still"):
        soundfile.write(folder / f"{name}.wav", np.zeros(40 * RATE), RATE)
    line = refused(capsys, "quiet.wav", "--output-dir", "out")
    assert line.endswith(
        "quiet.wav: expected speech, found no words in 40.0 s (--allow-empty writes empty transcripts)"
    )
    assert not (folder / "out").exists()
    line = refused(capsys, "quiet.wav", "in/a.wav", "still.wav", "--output-dir", "out", "--nj", num_jobs)
    assert line.endswith("2 of 3 inputs could not be transcribed: quiet.wav, still.wav")
    assert files_in(folder / "out") == ["a.txt"]


def test_silence_can_be_an_empty_transcript(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(folder / "quiet.wav", np.zeros(RATE), RATE)
    assert transcribe("quiet.wav", "in/a.wav", "--output-dir", "out", "--allow-empty") == 0
    assert "no words in 1 of them: quiet.wav" in capsys.readouterr().err
    assert (folder / "out" / "quiet.txt").read_text() == ""


def test_ctrl_c_leaves_whole_files_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe_input = batch_module.transcribe_input

    def interrupted(model: Any, source: Any, *rest: Any) -> Any:
        if source.name == "b/c":
            raise KeyboardInterrupt
        return transcribe_input(model, source, *rest)

    monkeypatch.setattr(batch_module, "transcribe_input", interrupted)
    assert "interrupted" in refused(capsys, "in", "--output-dir", "out")
    assert files_in(folder / "out") == ["a.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in", "--format", "txt,json"], "expected --output-dir with several formats"),
        (["in", "--format", "srt"], "--format srt: expected --output-dir for 2 inputs"),
        (["in", "--format", "doc"], "--format: expected one or more of txt,json,srt,vtt,ctm,trn,stm, found doc"),
        (["in", "--nbest", "3"], "it has no effect without --format json"),
        (["in", "--nj", "0"], "--num-jobs: expected at least 1"),
        (["in", "--output-dir", "in/a.wav"], "expected a folder, found a file"),
        (["in", "--channel", "left"], "--channel: expected auto, mix, split or a number"),
        (["in", "--beam", "0"], "--beam: expected a number above 0"),
        (["in", "--overwrit"], "the nearest is --overwrite"),
        ([], "expected AUDIO ..., found none"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments)
