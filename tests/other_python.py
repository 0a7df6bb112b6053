"""Interpreters for tests of `--train.python`: this one behind a script, and that of `make setup-train`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAIN_PYTHON = ROOT / ".venv-train" / "bin" / "python"


def script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def same_python(folder: Path, before: str = "", start: str = "exec") -> Path:
    """This interpreter under another name; `before` runs first."""
    return script(folder / "python", f'{before}\n{start} {sys.executable} "$@"')


def train_python() -> Path:
    """The interpreter of `make setup-train`; skips the test without it, and in it."""
    if not TRAIN_PYTHON.is_file():
        pytest.skip("no .venv-train: make setup-train")
    if Path(sys.prefix).resolve() == TRAIN_PYTHON.parents[1].resolve():
        pytest.skip("needs another environment than .venv-train")
    return TRAIN_PYTHON
