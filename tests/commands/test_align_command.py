"""`asrkd align` with a small model: files of all formats, texts of several recordings, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import ISOLATED, write_toy_model

from asrkd.commands import main as cli

pytestmark = pytest.mark.needs("onnx")  # which writes the model

RATE = 8000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("models") / "model", int8=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recordings in tmp_path/in, and their texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for seed, name in enumerate("ab"):
        noise = np.random.default_rng(seed).normal(0.0, 0.1, RATE)
        soundfile.write(tmp_path / "in" / f"{name}.wav", noise, RATE)
    (tmp_path / "a.txt").write_text("Ab ba,\nabc\n")
    (tmp_path / "text").write_text("a AB BA ABC\nb C\n")
    return tmp_path


def align(model: Path, *arguments: str) -> int:
    return cli.main(["align", str(model), *arguments])


def refused(capsys: pytest.CaptureFixture[str], model: Path, *arguments: str) -> str:
    """The last line on stderr of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        align(model, *arguments)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("asrkd: error: ")
    return lines[-1]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_file_on_standard_output(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert align(model, "in/a.wav", "a.txt") == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert [(row[0], row[1], row[4]) for row in rows] == [("a", "1", word) for word in ("Ab", "ba,", "abc")]
    assert "aligned 1 of 1 inputs: 1.0 s of audio in " in printed.err
    assert "do not fit" not in printed.err
    monkeypatch.setattr("asrkd.runtime.align.MAX_EXCESS", 0.1)
    assert align(model, "in/a.wav", "a.txt", "--format", "json", "--max-misfit", "0.01") == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert [word["name"] for word in values["words"]] == ["Ab", "ba,", "abc"]
    assert values["misfits"] and values["misfit"] > 0.01
    assert "texts that do not fit their audio: 1 of 1: in/a.wav from 0." in printed.err


@pytest.mark.parametrize("num_jobs", ["1", "2"])
def test_all_formats_of_a_folder(num_jobs: str, model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(folder / "in" / "c.wav", np.zeros(RATE), RATE)
    command = ["in", "text", "--format", "ctm,textgrid,json", "--output-dir", "out", "--nj", num_jobs]
    assert align(model, *command) == 0
    assert "no text for 1 inputs: in/c.wav" in capsys.readouterr().err
    suffixes = ("TextGrid", "ctm", "json", "phones.ctm", "senones.ctm")
    assert files_in(folder / "out") == sorted(f"{name}.{suffix}" for name in "ab" for suffix in suffixes)
    phones = [line.split()[4] for line in (folder / "out" / "b.phones.ctm").read_text().splitlines()]
    assert [phone for phone in phones if phone != "SIL"] == ["C"]
    (folder / "out" / "a.ctm").write_text("as it was\n")
    assert align(model, *command) == 0
    assert "aligned 0 of 2 inputs; 2 skipped, their outputs exist (--overwrite" in capsys.readouterr().err
    assert align(model, *command, "--overwrite") == 0
    assert (folder / "out" / "a.ctm").read_text() != "as it was\n"


def test_one_bad_input_does_not_end_the_others(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in" / "a.wav").write_text("no audio")
    message = refused(capsys, model, "in", "text", "--output-dir", "out")
    assert "1 of 2 inputs could not be aligned: in/a.wav" in message
    assert files_in(folder / "out") == ["b.ctm", "b.phones.ctm", "b.senones.ctm"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in/a.wav", "none.txt"], "none.txt: no such file"),
        (["in/none.wav", "a.txt"], "in/none.wav: no such file or folder"),
        (["in", "a.txt"], "a.txt: expected lines of a name and its words"),
        (["-", "-"], "found standard input (-) as both"),
        (["in/a.wav", "a.txt", "--format", "srt"], "--format: expected one or more of ctm,textgrid,json, found srt"),
        (["in/a.wav", "a.txt", "--format", "ctm,json"], "expected --output-dir with several formats"),
        (["in", "text", "--format", "json"], "--format json: expected --output-dir for 2 inputs"),
        (["in/a.wav", "a.txt", "--channel", "split"], "one text has one channel"),
        (["in/a.wav", "a.txt", "--max-misfit", "0"], "--max-misfit: expected a number above 0"),
        (["in/a.wav", "a.txt", "--lexicon", "none"], "none: no such file"),
        (["in/a.wav", "a.txt", "--max-misfits", "3"], "the nearest is --max-misfit"),
        (["in/a.wav"], "expected TEXT, found none"),
    ],
)
def test_what_is_refused(
    arguments: list[str], message: str, model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, model, *arguments)
    assert not (folder / "out").exists()


def test_words_without_pronunciation(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.txt").write_text("AB zebra C xylophone\n")
    message = refused(capsys, model, "in/a.wav", "a.txt", "--output-dir", "out")
    assert "a.txt: expected words of the model's lexicon, found 2 others: zebra, xylophone; --lexicon adds" in message
    (folder / "more").write_text("ZEBRA C A\nXYLOPHONE B\n")
    assert align(model, "in/a.wav", "a.txt", "--lexicon", "more") == 0


def test_the_command_without_torch_k2_and_lhotse(model: Path, folder: Path) -> None:
    command = ["align", model, "in/a.wav", "a.txt", "--format", "ctm,textgrid,json", "--output-dir", "out"]
    done = subprocess.run([sys.executable, "-c", ISOLATED, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "aligned 1 of 1 inputs: 1.0 s of audio" in done.stderr
