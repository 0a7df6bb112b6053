"""The `asrkd` command: help that teaches, one line and exit code 2 for what cannot be read."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import asrkd
from asrkd.commands import main as cli
from asrkd.commands.command import Command
from asrkd.config import option_names
from asrkd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Shout:
    times: int = 1
    """How often."""


def complaint(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr for arguments that must be refused with exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def help_text(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"asrkd {asrkd.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["posteriors"], ["posteriors", "--help"]])
def test_help_lists_every_command_and_the_recipes(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_text(argv, capsys)
    assert "recipes/an4/run.sh" in shown
    assert all(f"{name} " in shown and command.summary in shown for name, command in cli.COMMANDS.items())


@pytest.mark.parametrize("arguments", [["--help"], ["estimate", "--help-all"]])
def test_help_into_a_pipe_that_closes_early(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "asrkd.commands.main", *arguments]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_every_command_has_its_options_and_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = cli.COMMANDS[name]
    for flag in ("--help", "--help-all"):
        shown = help_text([*name.split(), flag], capsys)
        assert command.summary in " ".join(shown.split())
        assert f"Examples:\n  {command.examples[0]}" in shown
    assert set(option_names(command.options())) <= set(re.findall(r"--[\w.-]+", shown))
    assert f"asrkd {name}" in command.examples[0]


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        (["docter"], "unknown command docter; the nearest is doctor"),
        (["estimat", "--hours=3"], "unknown command estimat; the nearest is estimate"),
        (["posteriors", "inport", "--out", "x"], "unknown command posteriors inport; the nearest is posteriors import"),
        (["doctor", "--loud"], "unknown option --loud; the nearest is --"),
        (["init", "mine", "--recording=x"], "unknown option --recording; the nearest is --recordings"),
        (
            ["estimate", "--teacher.hiden-dim=3"],
            "unknown option --teacher.hiden-dim; the nearest is --teacher.hidden-d",
        ),
        (["--loud"], f"expected a command ({', '.join(cli.COMMANDS)}), found --loud"),
        (["doctor", "loud"], "expected an option, found loud"),
        (["results", "--out=x"], "expected --runs PATH ..., found none"),
        (["results", "--runs", "--out=x"], "--runs: expected at least one results.json"),
        (["init"], "expected NAME, found none"),
        (["init", "mine"], "expected --recordings PATH, found none"),
        (["posteriors", "import", "--kind=sums"], "expected --exp-dir PATH, found none"),
    ],
)
def test_bad_arguments_are_one_line(given: list[str], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(given, capsys)
    assert line.startswith("asrkd: error: ") and nearest in line


def test_errors_of_a_command_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def shout(options: Shout) -> int:
        if options.times < 0:
            raise InputError(f"times: expected 0 or more,\nfound {options.times}")
        print("ASRKD" * options.times, file=sys.stderr)
        return options.times

    command = Command("shout", "Shout.", "", ("asrkd shout --times 3",), lambda: Shout, shout)
    monkeypatch.setitem(cli.COMMANDS, "shout", command)
    assert cli.main(["shout", "--times", "3"]) == 3
    assert capsys.readouterr().err == "ASRKD" * 3 + "\n", "what a command writes to stderr stays as it is"
    assert complaint(["shout", "--times=-1"], capsys) == "asrkd: error: times: expected 0 or more, found -1\n"
    assert "--times INT" in complaint(["shout", "--times", "many"], capsys)


def test_a_package_that_is_missing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def needs(name: str) -> Callable[[Shout], int]:
        def run(options: Shout) -> int:
            return len(importlib.import_module(name).__name__)

        return run

    command = Command("shout", "Shout.", "", (), lambda: Shout, needs("no_such.part"))
    monkeypatch.setitem(cli.COMMANDS, "shout", command)
    assert complaint(["shout"], capsys).startswith("asrkd: error: asrkd shout needs no_such, which is not installed: ")
    # A fault of ours keeps its traceback.
    monkeypatch.setitem(cli.COMMANDS, "shout", replace(command, run=needs("asrkd.nothing")))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["shout"])


@pytest.mark.parametrize("recipe", ["an4", "librispeech", "prompts"])
def test_committed_results_are_what_results_json_says(recipe: str, tmp_path: Path) -> None:
    folder = ROOT / "recipes" / recipe
    runs = [str(path) for path in sorted(folder.glob("results*.json"))]
    assert cli.main(["results", "--runs", *runs, "--out", str(tmp_path / "R.md")]) == 0
    assert (tmp_path / "R.md").read_text() == (folder / "RESULTS.md").read_text()


def test_results_of_a_folder_that_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(["results", "--runs", str(tmp_path), "--out", str(tmp_path / "R.md")], capsys)
    assert str(tmp_path / "results.json") in line
    assert not (tmp_path / "R.md").exists()


def test_without_tyro(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise ModuleNotFoundError(\"No module named 'tyro'\", name='tyro')\n")
    done = subprocess.run(
        [sys.executable, "-m", "asrkd.commands.main", "doctor"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "asrkd: error: tyro is not installed: run `make setup`, or `python -m asrkd.commands.doctor`"
    ]
