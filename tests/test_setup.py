"""local/setup.sh --torch: what it refuses, and that .venv is then as it was. A stand-in for uv installs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_REACHED = "error: Failed to fetch wheel index https://example.org/cpu.html after 3 attempts: Name not known"
# `uv venv … PATH` makes a folder with an interpreter; `uv pip install` writes the arguments that it got.
UV = f"""#!/usr/bin/env bash
case "$*" in
"pip install --help") echo --torch-backend ;;
venv*) mkdir -p "${{@: -1}}/bin"; ln -s {sys.executable} "${{@: -1}}/bin/python"; cp k2utils "${{@: -1}}/bin/" ;;
*) echo "$PWD: $*" >>uv.log ;;
esac
"""
# As the real one, it reads the torch of its environment. Here that is the stand-in of local/setup.sh.
K2UTILS = """#!/usr/bin/env bash
printf 'k2utils %s' "$*" >>uv.log
cat "$PYTHONPATH/torch.py" >>torch-of-k2utils.txt
echo 'Resolving:'
{answer}
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of what local/setup.sh reads, with an environment that a test can recognise."""

    folder: Path

    def setup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"ASRKD_BASE_PYTHON": sys.executable}
        command = ["bash", str(self.folder / "local" / "setup.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    def answer(self, command: str) -> None:
        """What k2utils does after it looked at torch."""
        (self.folder / "k2utils").write_text(K2UTILS.format(answer=command))

    @property
    def is_untouched(self) -> bool:
        return (self.folder / ".venv" / "mine").exists() and not (self.folder / ".venv.partial").exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / "local").mkdir()
    for path in [*ROOT.glob("local/*.sh"), *ROOT.glob("local/requirements*.txt")]:
        shutil.copy(path, tmp_path / "local")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in (("uv", UV), ("k2utils", "")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine").touch()
    return Checkout(tmp_path)


def test_a_site_of_k2_that_is_not_reached_is_one_line_and_changes_nothing(checkout: Checkout) -> None:
    checkout.answer(f"echo '{NOT_REACHED}' >&2; exit 1")
    done = checkout.setup("--torch", "2.13.0+cu130")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: error: no k2 for torch 2.13.0+cu130: Failed to fetch wheel index")
    assert "--k2" in line and ".venv is as it was" in line
    assert checkout.is_untouched
    asked = (checkout.folder / "torch-of-k2utils.txt").read_text()
    assert '__version__ = "2.13.0+cu130"' in asked and "cuda = '13.0'" in asked, "before torch is fetched"
    assert "torch==" not in (checkout.folder / "uv.log").read_text()


def test_an_environment_of_another_torch_is_moved_in_and_stays(checkout: Checkout) -> None:
    checkout.answer("exit 0")
    assert checkout.setup("--torch", "2.13.0").returncode == 0
    venv = checkout.folder / ".venv"
    assert not (venv / "mine").exists() and not (checkout.folder / ".venv.partial").exists()
    stamp = (venv / "asrkd-stamp").read_text()
    assert "\ntorch: 2.13.0\n" in stamp
    assert checkout.setup().stdout == "", "`make test` leaves it"
    assert (venv / "asrkd-stamp").read_text() == stamp
    checkout.answer("exit 1")
    assert checkout.setup("--torch", "2.12.0").returncode == 2
    assert (venv / "asrkd-stamp").read_text() == stamp
    assert checkout.setup("--torch", "1.13.1").returncode == 0
    assert "--require-hashes" in (checkout.folder / "uv.log").read_text()
    assert "\ntorch: 1.13.1\n" in (venv / "asrkd-stamp").read_text()


def test_a_wheel_that_does_not_import_is_refused(checkout: Checkout) -> None:
    wheel = checkout.folder / "k2.whl"
    wheel.touch()
    (checkout.folder / "k2.py").write_text("raise ImportError('undefined symbol')\n")
    done = checkout.setup("--torch", "2.13.0", "--k2", str(wheel))
    assert done.returncode == 2
    assert "k2.whl does not import" in done.stderr.splitlines()[-1]
    assert checkout.is_untouched


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--torch", "3.0.0"], "found 3.0.0"),
        (["--torch"], "--torch: expected a value"),
        (["--torch", "2.13.0", "--k2", "/nowhere.whl"], "/nowhere.whl: expected a wheel of k2, found no such file"),
        (["--k2", "setup.sh"], "found no such file"),
        (["2.13.0"], "expected --torch VERSION or --k2 WHEEL, found 2.13.0"),
    ],
)
def test_options_that_are_refused(checkout: Checkout, arguments: list[str], message: str) -> None:
    done = checkout.setup(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr
    assert checkout.is_untouched


def test_make_uses_another_environment_and_installs_nothing() -> None:
    def shown(*arguments: str) -> str:
        command = ["make", "--dry-run", "--no-print-directory", *arguments]
        # `make test` gives its own options to what it runs.
        ours = re.compile("ASRKD_PYTHON|ARGS|WORKERS|MAKE.*|MFLAGS")
        environment = {name: value for name, value in os.environ.items() if not ours.fullmatch(name)}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True).stdout

    parallel = "-n 2 --dist loadfile --no-loadscope-reorder"
    tests = f"-m pytest {parallel} --require k2 --require lhotse -k x"
    assert f"/other/python {tests}" in (other := shown("test", "ASRKD_PYTHON=/other/python", "ARGS=-k x"))
    assert "local/setup.sh" not in other and ".venv" not in other
    assert f".venv/bin/python {tests}" in (default := shown("test", "ARGS=-k x"))
    assert "local/setup.sh" in default
    assert f".venv-train/bin/python -m pytest {parallel} -k x" in shown("test-train", "ARGS=-k x")
    assert ".venv-train/bin/python -m pytest  -k x" in shown("test-train", "ARGS=-k x", "WORKERS=1")
