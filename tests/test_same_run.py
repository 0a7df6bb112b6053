"""What local/kill_test.py compares: everything but times."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from asrkd.files import save_tensors, write_json

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "local"))

from same_run import differences, num_compared  # noqa: E402


def run(folder: Path, seconds: float = 1.0, loss: float = 0.5, weight: float = 1.0, words: str = "GO") -> Path:
    for name in ("log", "decode", "report"):
        (folder / name).mkdir(parents=True)
    (folder / "log" / "x.log").write_text(str(seconds), encoding="utf-8")
    (folder / "report" / "report.html").write_text(str(seconds), encoding="utf-8")
    write_json(folder / "decode" / "stamp.json", {"seconds": seconds, "options": {"beam": 16}})
    write_json(folder / "decode" / "hypotheses.json", {"words": {"u1": words}, "score_sec": seconds})
    history = f'[{{"loss": {loss}, "seconds": {seconds}}}]'
    tensors = {"x": torch.tensor([weight, float("nan")]), "half": torch.ones(2).bfloat16()}
    save_tensors(folder / "model.safetensors", tensors, {"history": history, "a": "1", "b": "2"})
    return folder


def test_times_do_not_count(tmp_path: Path) -> None:
    first, second = run(tmp_path / "1"), run(tmp_path / "2", seconds=2.0)
    assert differences(first, second) == []
    assert num_compared(first) == 4


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"loss": 0.6}, "model.safetensors: history[0].loss 0.5 and 0.6"),
        ({"weight": 1.5}, "model.safetensors: tensor x"),
        ({"words": "STOP"}, "decode/hypotheses.json: words.u1 GO and STOP"),
    ],
)
def test_everything_else_counts(change: dict[str, float], line: str, tmp_path: Path) -> None:
    assert differences(run(tmp_path / "1"), run(tmp_path / "2", **change)) == [line]  # type: ignore[arg-type]


def test_files_that_are_missing_or_left_over(tmp_path: Path) -> None:
    first, second = run(tmp_path / "1"), run(tmp_path / "2")
    (second / "report" / "report.html").unlink()
    (second / "decode" / "journal.jsonl").touch()
    assert differences(first, second) == ["decode/journal.jsonl: left over", "report/report.html: missing"]
