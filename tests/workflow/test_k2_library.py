"""A k2 that does not import is one line of advice, whichever part of asrkd imports it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrkd.errors import InputError
from asrkd.workflow.k2_library import import_k2

ROOT = Path(__file__).resolve().parents[2]
OTHER_TORCH = "raise ImportError('k2 was built using PyTorch 1.13.1+cu117\\nBut you are using PyTorch 2.1 to run it')\n"
SYMBOL = "raise ImportError('/x/_k2.so: undefined symbol: _ZN3c10')\n"


def write_k2(folder: Path, body: str) -> Path:
    (folder / "k2").mkdir()
    (folder / "k2" / "__init__.py").write_text(body)
    return folder


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (OTHER_TORCH, "k2 was built using PyTorch 1.13.1+cu117 But you are using PyTorch 2.1 to run it"),
        (SYMBOL, "/x/_k2.so: undefined symbol: _ZN3c10"),
        ("import _k3\n", "No module named '_k3'"),
        ("raise OSError('libcudart.so.11.0: cannot open shared object file')\n", "libcudart.so.11.0: cannot open"),
    ],
)
def test_a_k2_of_another_torch_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    monkeypatch.syspath_prepend(str(write_k2(tmp_path, body)))
    for name in [name for name in sys.modules if name.partition(".")[0] == "k2"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InputError, match="expected a k2 that was built for torch ") as error:
        import_k2()
    assert reason in str(error.value) and "`asrkd doctor` says what fits" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_k2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(InputError, match="k2 is not installed: run `make setup`"):
        import_k2()


def test_a_program_ends_with_code_2_and_no_traceback(tmp_path: Path) -> None:
    """Also when k2 is first imported in a step's subprocess, as all steps of a recipe are."""
    program = """
from asrkd.errors import one_line_errors
from asrkd.workflow.child_process import run_in_subprocess
from asrkd.workflow.k2_library import import_k2
with one_line_errors("recipe"):
    run_in_subprocess(import_k2)
"""
    environment = {**os.environ, "PYTHONPATH": f"{write_k2(tmp_path, SYMBOL)}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "undefined symbol: _ZN3c10" in done.stderr


def test_k2_is_imported_in_one_function() -> None:
    """Elsewhere only its types are, which never happens at run time, and its core after it."""
    wrong = []
    for file in (ROOT / "asrkd").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        typing_only = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "k2" for name in names) and id(node) not in typing_only:
                wrong.append(f"{file}:{node.lineno}")  # type: ignore[attr-defined]
    assert not wrong
