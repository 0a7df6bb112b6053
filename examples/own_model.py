"""A network of your own, as a teacher and as a student.

    python examples/own_model.py

A model is any nn.Module from inputs [N, D] to logits [N, S]. Its builder makes it for a ModelShape. Section by section:

1. the module, and its builder
2. teachers: a feed-forward network, a convolutional one and the module, trained by `asrkd.nnet.train`
3. a student by `asrkd.nnet.train`, taught by the three in its own step; what is saved, and how it is loaded
4. the same student in a plain PyTorch loop

examples/an4_own_model.py has the model in a recipe. This example needs neither k2 nor audio and takes some seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from asrkd.distil.ensemble import AveragedEnsemble
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.nnet import (
    ArrayInputs,
    Batch,
    HardTargets,
    ModelOptions,
    ModelShape,
    TrainOptions,
    add_models,
    build_model,
    evaluate,
    load_ensemble,
    load_model,
    train,
)

NUM_SENONES, NUM_FEATURES, FRAMES = 12, 8, 9
NOISE = 2.5  # standard deviation; the senones' means have 1
TEMPERATURE = 2.0
OPTIONS = TrainOptions(
    epochs=12, batch_size=64, learning_rate=5e-3, precision="float32", num_threads=1, show_progress=False
)


# 1. The module, and its builder


class Recurrent(nn.Module):
    """A bidirectional GRU over the frames of a window; its states at the predicted frame are the hidden layer."""

    def __init__(self, num_features: int, hidden_dim: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.num_features = num_features
        self.gru = nn.GRU(num_features, hidden_dim, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden_dim, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.view(len(x), -1, self.num_features)  # [N, D] -> [N, T, F]
        states, _ = self.gru(frames)
        return self.output(self.dropout(states[:, frames.shape[1] // 2]))


def recurrent(shape: ModelShape) -> nn.Module:
    """The builder. It may follow the options of the recipe, such as --teacher.hidden-dim."""
    if shape.frame_dim is None:
        raise ValueError("inputs without frames")
    options = shape.options
    return Recurrent(shape.frame_dim, options.hidden_dim, shape.num_outputs, options.dropout)


# 2. The teachers


def make_frames(number: int, seed: int) -> tuple[ArrayInputs, Tensor]:
    """Windows of noisy frames, and the senone of the middle one."""
    means = torch.randn(NUM_SENONES, FRAMES * NUM_FEATURES, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_SENONES, (number,), generator=generator)
    noise = NOISE * torch.randn(number, FRAMES * NUM_FEATURES, generator=generator)
    return ArrayInputs(means[labels] + noise), labels


def train_teachers(inputs: ArrayInputs, labels: Tensor, folder: Path) -> list[Path]:
    """A teacher of each kind; the files of their weights."""
    files = []
    for seed, kind in enumerate(("dnn", "cnn", "recurrent")):
        options = ModelOptions(hidden_dim=32, num_layers=2, dropout=0.2, kind=kind, filters=8)
        shape = ModelShape(inputs.dim, NUM_SENONES, options, frame_dim=NUM_FEATURES)
        teacher = build_model(shape, seed)
        print(f"teacher {kind}: {teacher.num_parameters} parameters, {teacher.macs_per_frame} multiply-adds a frame")
        files.append(train(teacher, inputs, HardTargets(labels), OPTIONS, folder / f"teacher_{kind}").model_path)
    return files


# 4. A plain loop


def plain_loop(student: nn.Module, inputs: ArrayInputs, objective: Distillation) -> None:
    """The loss of logits for the inputs that the student saw; with stored targets it is objective(logits, ids)."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=OPTIONS.learning_rate)
    for _ in range(OPTIONS.epochs):
        for ids in torch.randperm(len(inputs)).split(OPTIONS.batch_size):
            batch = Batch(inputs.batch(ids), ids)
            loss = objective.batch_loss(student(batch.inputs), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main() -> None:
    torch.set_num_threads(1)  # the matrices are small, more threads would only wait for each other
    torch.manual_seed(0)
    add_models({"recurrent": recurrent})
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        inputs, labels = make_frames(2000, seed=1)
        test_inputs, test_labels = make_frames(4000, seed=2)
        files = train_teachers(inputs, labels, folder)

        # 3. A student: here no builder is needed, a module is enough
        teachers = OnlineTargets(load_ensemble(files), mean="geometric")
        objective = Distillation(None, teachers, DistilOptions(alpha=1.0, temperature=TEMPERATURE, targets="online"))
        students = [Recurrent(NUM_FEATURES, 16, NUM_SENONES, dropout=0.0) for _ in range(2)]
        result = train(students[0], inputs, objective, OPTIONS, folder / "student")
        print(f"student: {result.model_path.name} has the tensors of its state_dict")
        plain_loop(students[1], inputs, objective)

        systems = {
            "ensemble": AveragedEnsemble(load_ensemble(files), mean="geometric"),
            "recurrent": load_model(files[2]),
            "trained": students[0],
            "plain_loop": students[1],
        }
        for name, model in systems.items():
            accuracy, cross_entropy = evaluate(model, test_inputs, test_labels)
            print(f"{name:10} accuracy {100 * accuracy:5.2f}%, cross-entropy {cross_entropy:.3f} nats")


if __name__ == "__main__":
    main()
