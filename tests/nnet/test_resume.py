"""A training killed at any moment goes on to the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrkd.files import load_tensors, read_json
from asrkd.nnet.checkpoint import CHECKPOINT_NAME
from asrkd.nnet.result import INPUT_SAMPLE, sampled_positions

SCRIPT = Path(__file__).parents[1].joinpath("killed_training.py")
NOT_TIMING = ("epoch", "train_loss", "dev_loss", "dev_accuracy", "lr")


class Trainings:
    """Starts trainings, a process each."""

    def __init__(self, server: subprocess.Popen) -> None:
        self.server = server

    def start(self, out_dir: Path, kind: str, death: str = "never") -> int:
        """Process id of a training that has begun."""
        self.server.stdin.write(f"{out_dir} {kind} {death}\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def end(self) -> int:
        """Exit status of the training begun last."""
        return int(self.server.stdout.readline())

    def run(self, out_dir: Path, kind: str, death: str = "never") -> int:
        self.start(out_dir, kind, death)
        return self.end()


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    yield Trainings(server)
    server.stdin.close()
    server.wait()


def outcome(out_dir: Path) -> tuple[dict[str, bytes], list[dict[str, float]]]:
    """The bits of the model, and the history without its timings."""
    tensors, _ = load_tensors(out_dir / "model.safetensors")
    history = read_json(out_dir / "history.json")
    weights = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return weights, [{key: epoch[key] for key in NOT_TIMING} for epoch in history]


@pytest.fixture(scope="module", params=["sgd", "adamw", "online", "rooms"])
def uninterrupted(request, trainings, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp(request.param)
    assert trainings.run(out_dir, request.param) == 0
    return request.param, outcome(out_dir)


# 10 steps per epoch. Renames: the record of the start, one for each of 5 checkpoints, then history and model.
@pytest.mark.parametrize(
    "deaths",
    [
        ["step:3"],
        ["step:17", "step:25"],
        ["torn:1"],
        ["torn:3"],
        ["before-rename:1"],
        ["before-rename:3", "torn:2"],
        ["before-rename:7"],
        ["before-rename:8"],
    ],
    ids=" ".join,
)
def test_killed_at_a_chosen_moment(trainings, uninterrupted, tmp_path, deaths):
    kind, expected = uninterrupted
    for death in deaths:
        assert trainings.run(tmp_path, kind, death) == -signal.SIGKILL
        assert not (tmp_path / "model.safetensors").exists()
    assert trainings.run(tmp_path, kind) == 0
    assert outcome(tmp_path) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "model.safetensors"]


def test_killed_at_random_moments(trainings, uninterrupted, tmp_path):
    """Killed from outside, within a few steps of a checkpoint that has appeared or changed."""
    kind, expected = uninterrupted
    checkpoint = tmp_path / CHECKPOINT_NAME
    rng = random.Random(kind)
    for _ in range(3):
        pid = trainings.start(tmp_path, kind, "slowly:5")
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert trainings.end() == -signal.SIGKILL
    assert trainings.run(tmp_path, kind) == 0
    assert outcome(tmp_path) == expected


def test_torn_bytes_in_the_checkpoint_itself_start_anew(trainings, uninterrupted, tmp_path):
    """A disk that lost the file's end: said in the log, and trained again rather than trusted."""
    kind, expected = uninterrupted
    trainings.run(tmp_path, kind, "step:25")
    checkpoint = tmp_path / CHECKPOINT_NAME
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert trainings.run(tmp_path, kind) == 0
    assert outcome(tmp_path) == expected


@pytest.mark.parametrize("num_examples", [1, 2, 64, 1000, (1 << 24) + 3, 50_000_471, 1_040_000_000])
def test_the_examples_of_the_fingerprint_are_examples(num_examples: int) -> None:
    positions = sampled_positions(num_examples)
    assert len(positions) == min(INPUT_SAMPLE, num_examples)
    assert int(positions[0]) == 0 and num_examples - 1 - int(positions[-1]) <= num_examples >> 23
    assert bool((positions.diff() > 0).all())
