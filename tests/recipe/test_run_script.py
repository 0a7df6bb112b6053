"""run.sh, of a recipe that `asrkd init` writes and of those in the checkout, in folders of any name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrkd.recipe.new_recipe import run_script

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [
    "a folder",
    "été 1",
    'it\'s $HOME `id` "quoted" \\ {brace} }',
    "-dash",
    "line\nend",
    os.fsdecode(b"latin-1 \xe9"),
]
RECIPE = "import os, sys; print(ascii([sys.executable, *sys.argv[1:]]), sys.flags.utf8_mode)"


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    variables = {name: value for name, value in os.environ.items() if name not in ("ASRKD_PYTHON", "PYTHONUTF8")}
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, capture_output=True, env={**variables, **environment}, timeout=60, cwd=script.parent)


def written(folder: Path, python: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(RECIPE, encoding="utf-8")
    (folder / "run.sh").write_bytes(run_script("books", str(python)))
    return folder / "run.sh"


def interpreter(path: Path) -> Path:
    """A program at `path` that is this Python, and says so."""
    path.parent.mkdir(parents=True)
    path.symlink_to(sys.executable)
    return path


@pytest.mark.parametrize("name", FOLDERS, ids=ascii)
def test_a_written_recipe_finds_its_interpreter_and_its_recipe(name: str, tmp_path: Path) -> None:
    python = interpreter(tmp_path / name / "python")
    done = run(written(tmp_path / name / "books", python), "--exp-dir", "a b", "ж")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{[str(python), '--exp-dir', 'a b', 'ж']!a} 1\n"


def test_the_environment_names_another_interpreter(tmp_path: Path) -> None:
    other = interpreter(tmp_path / "an other" / "python")
    done = run(written(tmp_path / "books", tmp_path / "gone"), ASRKD_PYTHON=str(other))
    assert done.stdout.decode() == f"{[str(other)]!a} 1\n"


def test_an_interpreter_that_is_gone_is_named(tmp_path: Path) -> None:
    done = run(written(tmp_path / "books", tmp_path / "a venv" / "python"))
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert f"error: {tmp_path / 'a venv' / 'python'}: no such program".encode() in done.stderr


@pytest.mark.parametrize("name", FOLDERS, ids=ascii)
def test_a_checkout_may_be_in_any_folder(name: str, tmp_path: Path) -> None:
    """Also where CDPATH is set, with which `cd` prints where it goes."""
    checkout = tmp_path / name / "asr kd"
    for part in ("local/run_recipe.sh", "recipes/mnist/run.sh"):
        (checkout / part).parent.mkdir(parents=True)
        (checkout / part).write_bytes((ROOT / part).read_bytes())
        (checkout / part).chmod(0o755)
    (checkout / "recipes" / "mnist" / "recipe.py").write_text(RECIPE, encoding="utf-8")
    python = interpreter(checkout / ".venv" / "bin" / "python")
    command = ["bash", "recipes/mnist/run.sh", "--stage", "3"]
    variables = {**os.environ, "CDPATH": f".:{tmp_path}"}
    variables.pop("ASRKD_PYTHON", None)
    done = subprocess.run(command, capture_output=True, env=variables, cwd=checkout, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{[str(python), '--stage', '3']!a} 1\n"


def test_an_interpreter_without_packages_of_speech_is_refused_by_name(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    done = run(ROOT / "recipes" / "an4" / "run.sh", "--help", ASRKD_PYTHON=str(bare), PYTHONPATH="")
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"recipes/an4/run.sh: error: {bare}: expected ") and "ASRKD_PYTHON" in line
    assert "found no k2 lhotse kaldifst kaldialign soundfile;" in line
