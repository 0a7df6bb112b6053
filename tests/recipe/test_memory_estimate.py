"""The estimate of memory against a measured run of local/bench/memory.py, at a small size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.needs("k2", "lhotse")
@pytest.mark.slow
def test_an_estimate_is_within_a_fifth_of_what_is_measured(tmp_path: Path) -> None:
    sizes = ["--frames", "20000", "--shard-frames", "15000", "--same-frames", "0", "--no-search"]
    command = [sys.executable, "local/bench/memory.py", *sizes, "--work-dir", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)
    steps = ["align", "tree", "labels/dev", "teachers/0", "teachers/1", "posteriors", "students/distilled"]
    assert [row[0] for row in table["rows"]] == steps
    goal = next(note for note in table["notes"] if note.startswith("Goal"))
    assert goal.endswith("met."), goal
