"""The examples run as a reader would run them, and show what they claim."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# As the script itself, but without k2 and lhotse where they are installed.
WITHOUT_K2 = """
import runpy, sys
sys.modules.update(k2=None, lhotse=None)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def output_of(example: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_K2, str(ROOT / "examples" / example)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_of_one_s_own_teaches_and_is_taught() -> None:
    printed = output_of("own_model.py")
    assert re.search(r"^teacher recurrent: \d+ parameters, \d+ multiply-adds a frame$", printed, re.MULTILINE)
    rows = re.findall(r"^(\w+) +accuracy +([\d.]+)%, cross-entropy [\d.]+ nats$", printed, re.MULTILINE)
    accuracy = {name: float(percent) for name, percent in rows}
    assert list(accuracy) == ["ensemble", "recurrent", "trained", "plain_loop"]
    assert accuracy["ensemble"] > accuracy["recurrent"] > 50
    assert min(accuracy["trained"], accuracy["plain_loop"]) > 50  # by chance: 8


def test_the_distillation_loop_beats_the_baseline() -> None:
    printed = output_of("distil_loop.py")
    pattern = r"^(\w+) +frame accuracy +([\d.]+)%, cross-entropy ([\d.]+) nats per frame$"
    rows = re.findall(pattern, printed, re.MULTILINE)
    accuracy = {name: float(percent) for name, percent, _ in rows}
    cross_entropy = {name: float(nats) for name, _, nats in rows}
    assert list(accuracy) == ["ensemble", "baseline", "distilled"]
    assert accuracy["distilled"] > accuracy["baseline"] + 2
    assert cross_entropy["distilled"] < 0.9 * cross_entropy["baseline"]
    assert "3000 frames with stored posteriors of 28 bytes each" in printed
