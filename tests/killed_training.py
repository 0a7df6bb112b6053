"""Small trainings for test_resume.py to kill, a process each.

Reads lines `OUT_DIR KIND DEATH`; for each forks a training, prints its process id, and when it has ended
its exit status. Forking saves each the seconds that importing torch takes. KIND is an optimiser, or "online": a student
whose teachers score its distorted inputs in every step, or "rooms": it hears noise and rooms.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import safetensors.torch
import torch

import asrkd.files
import asrkd.nnet.trainer
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.nnet import (
    ArrayInputs,
    Augmentation,
    AugmentOptions,
    DevSet,
    HardTargets,
    Objective,
    TrainOptions,
    train,
)
from asrkd.nnet.acoustics import Gaussian, Noise, Reverberation, SpeechStatistics
from asrkd.nnet.augment import MelAxis
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble


class JitteredInputs(ArrayInputs):
    """Draws noise for every batch, so that a resumed run must draw the same."""

    def batch(self, ids, generator=None):
        values = super().batch(ids)
        if generator is None:
            return values
        return values + 0.1 * torch.randn(values.shape, generator=generator)


def kill_at(call: int, owner: object, name: str) -> None:
    """Replace owner.name so that its call number `call` is this process's last act."""
    original = getattr(owner, name)
    calls = 0

    def dying(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(owner, name, dying)


def slow_down(millisec: int) -> None:
    """Make every step take longer, so that there is time to be killed from outside."""
    original = asrkd.nnet.trainer.run_step

    def slow(*arguments):
        time.sleep(millisec / 1000)
        return original(*arguments)

    asrkd.nnet.trainer.run_step = slow


def torn_checkpoint(call: int) -> None:
    """Die half-way through the bytes of checkpoint number `call`."""
    original = safetensors.torch.save_file
    calls = 0

    def torn(tensors, path, metadata):
        nonlocal calls
        calls += 1
        original(tensors, path, metadata=metadata)
        if calls == call:
            with open(path, "r+b") as file:
                file.truncate(os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file = torn


def online_objective(labels: torch.Tensor) -> Objective:
    shape = ModelOptions(hidden_dim=16, num_layers=2, dropout=0.0)
    ensemble = StackedEnsemble([AcousticDnn(12, 7, shape, seed=seed) for seed in (21, 22)])
    return Distillation(labels, OnlineTargets(ensemble), DistilOptions(alpha=0.8, targets="online"))


def noise_and_rooms(generator: torch.Generator) -> Augmentation:
    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    speech = SpeechStatistics(Gaussian(normal(8, 4), normal(8, 4).exp()), normal(8), 80 * torch.arange(8))
    reverberation = Reverberation(normal(3, 2, 4).exp(), normal(3, 4), normal(3, 4).exp())
    noise = Noise.of([normal(20, 4), normal(5, 4)])
    options = AugmentOptions(noise=0.5, reverb=0.5, mix=0.3)
    return Augmentation(options, 4, speech=speech, noise=noise, reverberation=reverberation)


def train_until(out_dir: Path, kind: str, death: str) -> None:
    """Train; `death` is step:N, before-rename:N or torn:N; or never; or slowly:MILLISEC a step."""
    moment, _, number = death.partition(":")
    if moment == "step":
        kill_at(int(number), asrkd.nnet.trainer, "run_step")
    elif moment == "before-rename":
        kill_at(int(number), asrkd.files.os, "replace")
    elif moment == "torn":
        torn_checkpoint(int(number))
    elif moment == "slowly":
        slow_down(int(number))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(640, 12, generator=generator)
    labels = torch.randint(7, (640,), generator=generator)
    model = AcousticDnn(12, 7, ModelOptions(hidden_dim=24, num_layers=2, dropout=0.3, max_norm=3.0), seed=3)
    options = TrainOptions(
        epochs=5,
        batch_size=64,
        learning_rate=0.01,
        optimizer="sgd" if kind == "sgd" else "adamw",
        average_decay=0.9,
        precision="float32",
        num_threads=1,
        show_progress=False,
        seed=11,
    )
    inputs = JitteredInputs(x)
    objective: Objective = HardTargets(labels)
    augment = None
    if kind == "online":
        objective = online_objective(labels)
        # Windows of three frames of four features.
        distortions = AugmentOptions(mix=0.5, warp=0.5, mask=0.3, mask_features=2, mask_frames=1, gain=0.5)
        augment = Augmentation(distortions, 4, MelAxis(4, 20.0, -400.0, 16000))
    if kind == "rooms":  # windows of two frames of four features, and the frame before them
        model = AcousticDnn(8, 7, ModelOptions(hidden_dim=24, num_layers=2, dropout=0.3, max_norm=3.0), seed=3)
        augment = noise_and_rooms(generator)
    dev = DevSet(ArrayInputs(x[:100, -model.input_dim :]), labels[:100])
    train(model, inputs, objective, options, out_dir, dev=dev, augment=augment)


def train_and_exit(out_dir: Path, kind: str, death: str) -> NoReturn:
    """Train and exit, whatever happens: a child must not read its parent's lines."""
    status = 1
    try:
        train_until(out_dir, kind, death)
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def main() -> None:
    # torch 2 imports its compiler, seconds of work, with the first optimiser: once here, not in every child.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).zero_grad()
    for line in sys.stdin:
        out_dir, kind, death = line.split()
        pid = os.fork()
        if pid == 0:
            train_and_exit(Path(out_dir), kind, death)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
