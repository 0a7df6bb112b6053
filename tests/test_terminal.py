"""A command line works in any locale, and prints whatever its output can take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LATIN_1 = "de_DE.ISO-8859-1"
# Writes, and prints, what is neither ASCII nor latin-1; `open` has no encoding, as in other people's libraries.
PROGRAM = """
import locale, os, subprocess, sys
from asrkd.terminal import require_utf8_mode
require_utf8_mode()
from asrkd.errors import one_line_errors
with one_line_errors("test"):
    open("out.txt", "w").write("\\u0436\\u00e9\\n")
    child = [sys.executable, "-c", "open('child.txt', 'w').write('\\\\u0436\\\\u00e9')"]
    subprocess.run(child, check=True)
    print("word \\u0436\\u00e9", sys.argv[1], "\\udce9")
"""
# The locale that C stands for in Python is UTF-8 (PEP 538, 540) unless these forbid it.
AS_IS = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = {
    "C": {"LC_ALL": "C", **AS_IS},
    "POSIX": {"LC_ALL": "POSIX", **AS_IS},
    "C as Python takes it": {"LC_ALL": "C"},
    "C.UTF-8": {"LC_ALL": "C.UTF-8"},
    "ascii output": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    "no locale": {"LC_ALL": "xx_XX.KOI8-R", **AS_IS},
}


def run(
    code: str, environment: dict[str, str], cwd: Path, *arguments: str | bytes
) -> subprocess.CompletedProcess[bytes]:
    names = ("LC_ALL", "LANG", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    variables = {**inherited, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, env=variables, cwd=cwd, timeout=60
    )


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a locale whose encoding is latin-1, made for this test."""
    if shutil.which("localedef") is None:
        pytest.skip("needs localedef")
    folder = tmp_path_factory.mktemp("locales")
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / LATIN_1)], capture_output=True)
    if made.returncode > 1:  # 1: warnings
        pytest.skip(f"localedef: {made.stderr!r}")
    return {"LOCPATH": str(folder), "LC_ALL": LATIN_1}


@pytest.mark.parametrize("name", LOCALES)
def test_files_are_utf8_and_printing_never_fails(name: str, tmp_path: Path) -> None:
    _check_files(run(PROGRAM, LOCALES[name], tmp_path, "ü"), tmp_path)


def test_files_are_utf8_in_a_locale_of_another_encoding(latin_1: dict[str, str], tmp_path: Path) -> None:
    encoding = run("import locale; print(locale.getpreferredencoding(False))", latin_1, tmp_path)
    assert encoding.stdout.lower().startswith(b"iso-8859-1")
    _check_files(run(PROGRAM, latin_1, tmp_path, "ü"), tmp_path)


def _check_files(done: subprocess.CompletedProcess[bytes], folder: Path) -> None:
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"word" in done.stdout and b"\n" in done.stdout
    assert (folder / "out.txt").read_bytes() == "жé\n".encode()
    assert (folder / "child.txt").read_bytes() == "жé".encode()


def test_a_flag_of_the_interpreter_against_the_mode_starts_nothing_for_ever(tmp_path: Path) -> None:
    code = "import sys; from asrkd.terminal import require_utf8_mode; require_utf8_mode(); print(sys.flags.utf8_mode)"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", **AS_IS}
    command = [sys.executable, "-X", "utf8=0", "-c", code]
    done = subprocess.run(command, capture_output=True, env=variables, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")


PRINTS = """
from asrkd.errors import one_line_errors
with one_line_errors("test"):
    for _ in range({times}):
        print("line")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("times", [1, 10_000])
def test_stdout_on_a_full_disk_is_one_line_that_names_it(times: int) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-c", PRINTS.format(times=times)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    expected = b"test: error: disk full: could not write standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_stderr_on_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    code = "import sys; from asrkd.errors import one_line_errors\nwith one_line_errors('test'):\n"
    code += " print('message', file=sys.stderr); print('done')"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.parametrize("times", [1, 10_000])
def test_a_reader_that_goes_away_ends_the_program_without_a_word(times: int) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-c", PRINTS.format(times=times)]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_closed_stdout_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, PRINTS.format(times=2)],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
