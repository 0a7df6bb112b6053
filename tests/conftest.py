"""Shared fixtures: real speech is found by ASRKD_DATA (default ../shared/data) and its absence is a visible skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    path = Path(os.environ.get("ASRKD_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real speech: {path} is missing (set ASRKD_DATA)")
    return path


@pytest.fixture(scope="session")
def an4_dir(data_dir: Path) -> Path:
    path = data_dir / "an4"
    if not path.is_dir():
        pytest.skip(f"no AN4: {path} is missing (set ASRKD_DATA)")
    return path
