"""Distillation in a plain PyTorch loop: two teachers, their stored posteriors, and a student of your own.

    python examples/distil_loop.py

It needs neither k2 nor audio and takes some seconds. Section by section:

1. synthetic speech: utterances of noisy frames, and the senone of each frame
2. two teachers, trained on the hard labels
3. the posteriors of the teachers' average, written to disk (top-k classes per frame) and opened again
4. a student of your own, trained twice: on hard labels, and on the posteriors (Hinton et al. 2015, section 2)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from asrkd.distil.compression import StoreOptions
from asrkd.distil.ensemble import AveragedEnsemble
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.store import EnsemblePosteriors, PosteriorStore, write_store
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.nnet import (
    AcousticDnn,
    HardTargets,
    ModelOptions,
    Objective,
    StackedEnsemble,
    TrainOptions,
    evaluate,
    train,
)

NUM_SENONES, NUM_FEATURES = 24, 10
SENONE_FRAMES = 3  # each senone lasts this long
FRAMES_PER_UTT = 60
NOISE = 1.8  # standard deviation; the senones' means have 1
LEFT, RIGHT = 3, 3  # frames of context in a network's input
TEMPERATURE = 2.0
EPOCHS, BATCH_SIZE, LEARNING_RATE = 20, 64, 2e-3


# 1. Synthetic speech


def make_speech(folder: Path, num_utts: int, seed: int) -> tuple[SplicedFrames, Tensor]:
    """Spliced frames, read from a frame store, and the senone of each frame."""
    means = torch.randn(NUM_SENONES, NUM_FEATURES, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    utterances, labels = [], []
    for number in range(num_utts):
        senones = torch.randint(NUM_SENONES, (FRAMES_PER_UTT // SENONE_FRAMES,), generator=generator)
        senones = senones.repeat_interleave(SENONE_FRAMES)
        noise = NOISE * torch.randn(FRAMES_PER_UTT, NUM_FEATURES, generator=generator)
        utterances.append((f"utt{number}", "speaker", "", means[senones] + noise))
        labels.append(senones)
    store = FrameStore.write(folder, utterances, {"frame_shift_ms": 10.0}, f"speech {num_utts} {seed}")
    return SplicedFrames(store, LEFT, RIGHT), torch.cat(labels)


# 2. The teachers


def train_teachers(frames: SplicedFrames, labels: Tensor, folder: Path) -> StackedEnsemble:
    """Two networks with dropout that differ in their seeds alone."""
    options = ModelOptions(hidden_dim=192, num_layers=2, dropout=0.5)
    teachers = []
    for seed in (1, 2):
        teacher = AcousticDnn(frames.dim, NUM_SENONES, options, seed)
        train_options = TrainOptions(
            EPOCHS, BATCH_SIZE, learning_rate=5e-3, seed=seed, precision="float32", show_progress=False
        )
        train(teacher, frames, HardTargets(labels), train_options, folder / f"teacher{seed}")
        teachers.append(teacher)
    return StackedEnsemble(teachers)


# 3. Their posteriors


def store_posteriors(ensemble: StackedEnsemble, frames: SplicedFrames, folder: Path) -> PosteriorStore:
    """Write the top 8 classes of every training frame, and the mass of the others; then open the files."""
    posteriors = EnsemblePosteriors(ensemble, frames, StoreOptions(top_k=8, temperatures=(TEMPERATURE,)))
    write_store(folder, posteriors.describe(frames.store, "synthetic senones"), posteriors, show_progress=False)
    return PosteriorStore.open(folder)


# 4. The student


class Student(nn.Module):
    """Any module from inputs [B, D] to logits [B, S]."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(input_dim, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.output = nn.Linear(48, NUM_SENONES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(x))


def train_student(frames: SplicedFrames, objective: Objective) -> Student:
    """The plain loop. An objective takes the logits of a batch and the ids of its frames."""
    torch.manual_seed(0)
    student = Student(frames.dim)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for ids in batches(len(frames)):
            loss = objective(student(frames.batch(ids)), ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return student.eval()


def batches(num_frames: int) -> Iterator[Tensor]:
    """Frame ids in random order."""
    yield from torch.randperm(num_frames).split(BATCH_SIZE)


def main() -> None:
    torch.set_num_threads(1)  # the matrices are small, more threads would only wait for each other
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        frames, labels = make_speech(folder / "train", 50, seed=1)
        test_frames, test_labels = make_speech(folder / "test", 100, seed=2)

        ensemble = train_teachers(frames, labels, folder)
        store = store_posteriors(ensemble, frames, folder / "posteriors")
        print(f"{len(store)} frames with stored posteriors of {store.bytes_per_frame} bytes each")

        # L = alpha * T^2 * L_soft(T) + (1 - alpha) * L_hard
        soft = Distillation(labels, store, DistilOptions(alpha=0.9, temperature=TEMPERATURE))
        systems: dict[str, nn.Module] = {
            "ensemble": AveragedEnsemble(ensemble, mean="geometric"),
            "baseline": train_student(frames, HardTargets(labels)),
            "distilled": train_student(frames, soft),
        }
        for name, model in systems.items():
            accuracy, cross_entropy = evaluate(model, test_frames, test_labels)
            print(f"{name:10} frame accuracy {100 * accuracy:5.2f}%, cross-entropy {cross_entropy:.3f} nats per frame")


if __name__ == "__main__":
    main()
