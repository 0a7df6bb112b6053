"""A small training for test_data_parallel.py: run by torchrun, or called with one process.

torchrun ... torchrun_training.py KIND OUT_DIR [DEATH_RANK:DEATH_STEP]
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch

import asrkd.nnet.trainer
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.features.joined import JoinedFrames
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.nnet import (
    ArrayInputs,
    Augmentation,
    AugmentOptions,
    DevSet,
    ExtraExamples,
    HardTargets,
    TrainOptions,
    TrainResult,
    train,
    train_stacked,
)
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.workflow.distributed import ProcessGroup

NUM_CLASSES = 7
NUM_FEATURES = 6
DEVICE_VARIABLE = "TOY_DEVICE"
TESTS = Path(__file__).parent
TIMEOUT_SEC = 120


class JitteredInputs(ArrayInputs):
    """Draws noise for every batch, which must not depend on the number of processes."""

    def batch(self, ids, generator=None):
        values = super().batch(ids)
        return values if generator is None else values + 0.1 * torch.randn(values.shape, generator=generator)


def frame_store(folder: Path) -> FrameStore:
    """Twenty utterances of 10 to 48 frames."""
    if not folder.exists():
        generator = torch.Generator().manual_seed(0)
        rows = [(f"u{n}", "s", "", torch.randn(10 + 2 * n, NUM_FEATURES, generator=generator)) for n in range(20)]
        FrameStore.write(folder, rows, {"frame_shift_ms": 10.0}, "toy")
    return FrameStore.open(folder)


def run(kind: str, out_dir: Path) -> TrainResult:
    """frames: each process loads some utterances; dropout: with augmentation; stack: three models at once; online:
    teachers score mixtures; transfer: each process loads some utterances, of which some have no label."""
    generator = torch.Generator().manual_seed(1)
    options = TrainOptions(
        epochs=4,
        batch_size=64,
        learning_rate=0.01,
        clip_norm=0.5,
        average_decay=0.9 if kind == "frames" else 0.0,
        precision="float32",
        device=os.environ.get(DEVICE_VARIABLE, "cpu"),
        num_threads=1,
        show_progress=False,
    )
    shape = ModelOptions(hidden_dim=24, num_layers=2, dropout=0.2 if kind == "dropout" else 0.0, max_norm=3.0)
    if kind == "transfer":
        return train_with_transfer(out_dir, options, shape)
    if kind == "frames":
        store = frame_store(out_dir.parent / "store")
        labels = (store.feats.sum(dim=1) > 0).long() + 2 * (store.feats[:, 0] > 0).long()
        ranks = ProcessGroup.from_environment()
        inputs = SplicedFrames(store, 2, 1, utt_ids=store.utt_ids[ranks.rank :: ranks.size] if ranks.size > 1 else None)
        model = AcousticDnn(inputs.dim, NUM_CLASSES, shape, seed=3)
        dev = DevSet(SplicedFrames(store, 2, 1), labels, torch.arange(0, 500, 3))
        return train(model, inputs, HardTargets(labels), options, out_dir, dev=dev)
    x = torch.randn(640, NUM_FEATURES, generator=generator)
    labels = (x.sum(dim=1) > 0).long() + 2 * (x[:, 0] > 0).long()
    inputs = JitteredInputs(x)
    if kind == "stack":
        members = StackedEnsemble([AcousticDnn(NUM_FEATURES, NUM_CLASSES, shape, seed=seed) for seed in (3, 4, 5)])
        return train_stacked(members, (3, 4, 5), inputs, HardTargets(labels), options, out_dir)
    model = AcousticDnn(NUM_FEATURES, NUM_CLASSES, shape, seed=3)
    dev = DevSet(ArrayInputs(x), labels)
    if kind == "online":
        teachers = StackedEnsemble([AcousticDnn(NUM_FEATURES, NUM_CLASSES, shape, seed=seed) for seed in (7, 8)])
        objective = Distillation(labels, OnlineTargets(teachers), DistilOptions(alpha=0.8, targets="online"))
        augment = Augmentation(AugmentOptions(mix=0.5, gain=0.5), NUM_FEATURES)
        return train(model, inputs, objective, options, out_dir, dev=dev, augment=augment)
    return train(model, inputs, HardTargets(labels), options, out_dir, dev=dev)


def train_with_transfer(out_dir: Path, options: TrainOptions, shape: ModelOptions) -> TrainResult:
    store = frame_store(out_dir.parent / "store")
    joined = JoinedFrames(store.subset(store.utt_ids[:8]), (("transfer", store),))
    known = joined.first.read()
    labels = (known.sum(dim=1) > 0).long() + 2 * (known[:, 0] > 0).long()
    ranks = ProcessGroup.from_environment()
    utt_ids = joined.utt_ids[ranks.rank :: ranks.size] if ranks.size > 1 else None
    inputs = SplicedFrames(joined, 2, 1, utt_ids=utt_ids)
    dev = DevSet(SplicedFrames(joined.first, 2, 1), labels)
    teachers = StackedEnsemble([AcousticDnn(inputs.dim, NUM_CLASSES, shape, seed=seed) for seed in (7, 8)])
    objective = Distillation(
        torch.cat([labels, labels.new_full((len(store),), -1)]),
        OnlineTargets(teachers),
        DistilOptions(alpha=0.6, targets="online"),
        labelled_share=0.6,
    )
    model = AcousticDnn(inputs.dim, NUM_CLASSES, shape, seed=3)
    return train(model, inputs, objective, options, out_dir, dev=dev, extra=ExtraExamples(len(labels), 0.4))


def torchrun(arguments: list[str], num_processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Processes on this machine that meet at a free port of the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={num_processes}"]
    command += ["--master_addr=127.0.0.1", f"--master_port={port}", *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SEC, check=False)


def die_at(step: int) -> None:
    """Kill this process at the start of a step of the optimiser, as a machine that fails would."""
    original = asrkd.nnet.trainer.run_step
    taken = 0

    def mortal(*arguments):
        nonlocal taken
        taken += 1
        if taken > step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    asrkd.nnet.trainer.run_step = mortal


def main() -> None:
    kind, out_dir, *death = sys.argv[1:]
    if death:
        rank, step = map(int, death[0].split(":"))
        if ProcessGroup.from_environment().rank == rank:
            die_at(step)
    run(kind, Path(out_dir))


if __name__ == "__main__":
    main()
