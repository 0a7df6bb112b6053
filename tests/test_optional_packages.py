"""pytest runs what can run: a package that is missing is a skip that names it, one that is broken an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# `kenlm` is found in the folder where a test writes it; nothing else of that name is, for its folder comes first.
IMPORTS_IT = "import kenlm\n\ndef test_a():\n    pass\n"
IMPORTS_IT_LATER = "import pytest\n\n@pytest.mark.needs('kenlm')\ndef test_b():\n    import kenlm\n"
BY_A_HELPER = "import helper\n\ndef test_c():\n    pass\n"
MISSPELT = "import kenln\n\ndef test_d():\n    pass\n"
# What an environment without kenlm does at its import.
HIDE_IT = """
import importlib.util, sys
installed = importlib.util.find_spec
def find_spec(name, *rest):
    return None if name == "kenlm" else installed(name, *rest)
importlib.util.find_spec = find_spec
class Hidden:
    def find_spec(name, path=None, target=None):
        if name == "kenlm":
            raise ModuleNotFoundError("No module named 'kenlm'", name="kenlm")
sys.meta_path.insert(0, Hidden)
"""
BROKEN = "raise ImportError('_kenlm.so: undefined symbol: _ZN2at')\n"


def run_pytest(folder: Path, *options: str, missing: bool = True, **modules: str) -> tuple[int, str]:
    """Exit code and output of pytest on test modules, where kenlm is missing or what `kenlm` says."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs(*packages)\naddopts = -rs -p no:cacheprovider\n")
    (folder / "conftest.py").write_text((HIDE_IT if missing else "") + "from optional_packages import *\n")
    (folder / "helper.py").write_text("import kenlm\n")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{TESTS}"}
    command = [sys.executable, "-m", "pytest", "-q", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_cannot_run_is_skipped_with_the_package_as_the_reason(tmp_path: Path) -> None:
    runs = "def test_e():\n    pass\n"
    modules = {"test_a": IMPORTS_IT, "test_b": IMPORTS_IT_LATER + runs, "test_c": BY_A_HELPER}
    code, printed = run_pytest(tmp_path, **modules)
    assert code == 0, printed
    assert printed.count("needs kenlm: not installed") == 2, "of modules, and of tests"
    assert "1 passed, 3 skipped" in printed


def test_a_misspelt_import_is_an_error(tmp_path: Path) -> None:
    code, printed = run_pytest(tmp_path, test_d=MISSPELT)
    assert code == 2 and "No module named 'kenln'" in printed


@pytest.mark.parametrize("module", [IMPORTS_IT, IMPORTS_IT_LATER, BY_A_HELPER])
def test_a_broken_package_is_an_error(tmp_path: Path, module: str) -> None:
    code, printed = run_pytest(tmp_path, missing=False, kenlm=BROKEN, test_it=module)
    assert code in (1, 2) and "undefined symbol" in printed
    assert "skipped" not in printed


@pytest.mark.parametrize("body", [None, BROKEN, "import os\nos.abort()\n"])
def test_a_required_package_ends_the_run_before_the_first_test(tmp_path: Path, body: str | None) -> None:
    """As in `make test`, where nothing is skipped because k2 is missing or broken."""
    name = "no_such_package" if body is None else "kenlm"
    modules = {"test_e": "def test_e():\n    pass\n"} | ({} if body is None else {"kenlm": body})
    code, printed = run_pytest(tmp_path, "--require", name, missing=False, **modules)
    assert code == 4 and f"--require {name}: " in printed
    assert "passed" not in printed
    reason = {None: "No module named", BROKEN: "undefined symbol"}.get(body, "exit code -6")
    assert reason in printed
