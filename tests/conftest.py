"""Shared fixtures: real speech is found by ASRKD_DATA (default ../shared/data) and its absence is a visible skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_recipe import TINY, copy_speakers, run_recipe

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


@pytest.fixture(scope="session")
def small_an4(an4_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and two test speakers of AN4, one of the utterances truncated."""
    root = tmp_path_factory.mktemp("an4")
    copy_speakers(an4_dir, root)
    return root


@pytest.fixture(scope="session")
def finished_an4(small_an4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a whole run of them leaves; tests that change it work on a copy."""
    exp_dir = tmp_path_factory.mktemp("finished") / "exp"
    done = run_recipe("--corpus-dir", str(small_an4), "--exp-dir", str(exp_dir), *TINY)
    assert done.returncode == 0, done.stderr[-2000:]
    return exp_dir
