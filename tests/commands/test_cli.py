"""The `asrkd` command: help that teaches, one line and exit code 2 for what cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import asrkd
from asrkd.commands import main as cli
from asrkd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def complaint(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says of arguments that must be refused with exit code 2."""
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"asrkd {asrkd.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb_and_the_recipes(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "recipes/an4/run.sh" in shown
    assert all(command in shown for command in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_verb_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    assert str(cli.COMMANDS[command].__doc__).splitlines()[0] in " ".join(capsys.readouterr().out.split())


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(["docter"], capsys)
    assert said.startswith("asrkd: error: ")
    assert "docter" in said
    assert "doctor" in said.replace("docter", "")


def test_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--loud" in complaint(["doctor", "--loud"], capsys)


def test_verbs_take_options_and_their_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shout(times: int = 1) -> int:
        """Say it.

        Args:
            times: how often
        """
        if times < 0:
            raise InputError(f"times: expected 0 or more,\nfound {times}")
        print("ASRKD" * times, file=sys.stderr)
        return times

    monkeypatch.setitem(cli.COMMANDS, "shout", shout)
    assert cli.main(["shout", "--times", "3"]) == 3
    assert capsys.readouterr().err == "ASRKD" * 3 + "\n", "a verb's own stderr is its own"
    assert complaint(["shout", "--times=-1"], capsys) == "asrkd: error: times: expected 0 or more, found -1\n"
    assert "int" in complaint(["shout", "--times", "many"], capsys)


@pytest.mark.parametrize("recipe", ["an4", "librispeech", "prompts"])
def test_committed_results_are_what_results_json_says(recipe: str, tmp_path: Path) -> None:
    folder = ROOT / "recipes" / recipe
    runs = [str(path) for path in sorted(folder.glob("results*.json"))]
    assert cli.main(["results", "--runs", *runs, "--out", str(tmp_path / "R.md")]) == 0
    assert (tmp_path / "R.md").read_text() == (folder / "RESULTS.md").read_text()


def test_results_of_a_folder_that_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(["results", "--runs", str(tmp_path), "--out", str(tmp_path / "R.md")], capsys)
    assert str(tmp_path / "results.json") in said
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
