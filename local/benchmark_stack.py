"""What training several seeds as one stack costs: digits a second by the number of members, on made-up images.

    .venv/bin/python local/benchmark_stack.py --device cuda --width 800 --members 1 2 5 10

Every row trains two epochs and times the second. The last column is the time of an epoch against one member's: M if
nothing is gained, 1 if the others are free.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from tabulate import tabulate

from asrkd import provenance
from asrkd.digits.images import JitteredImages
from asrkd.models import AcousticDnn, ModelOptions, StackedEnsemble
from asrkd.train import HardTargets, TrainOptions, train_stacked
from asrkd.train.devices import resolve_device


def epoch_seconds(
    members: int, images: torch.Tensor, model: ModelOptions, options: TrainOptions
) -> tuple[float, float]:
    """Seconds of the second of two epochs, and digits a second of all members together."""
    inputs = JitteredImages(images, max_shift=2)
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    stack = StackedEnsemble([AcousticDnn(inputs.dim, 10, model, seed) for seed in range(members)])
    with tempfile.TemporaryDirectory() as folder:
        result = train_stacked(stack, range(members), inputs, HardTargets(labels), options, Path(folder))
    return result.history[1]["seconds"], result.history[1]["frames_per_sec"]


def main() -> None:
    """Print the table for the shape and the device of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=800, help="units in each of two hidden layers")
    parser.add_argument("--batch-size", type=int, default=128, help="digits a step of one member")
    parser.add_argument("--steps", type=int, default=40, help="steps an epoch")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--dropout", action="store_true", help="the teachers' dropout and max-norm")
    chosen = parser.parse_args()
    model = ModelOptions(chosen.width, 2, dropout=0.0)
    if chosen.dropout:
        model = ModelOptions(chosen.width, 2, dropout=0.5, input_dropout=0.2, max_norm=3.5)
    options = TrainOptions(
        epochs=2, batch_size=chosen.batch_size, optimizer="sgd", device=chosen.device, show_progress=False
    )
    device = resolve_device(chosen.device)
    images = torch.zeros(chosen.batch_size * chosen.steps, 28, 28, dtype=torch.uint8, device=device)
    rows, alone = [], 0.0
    for members in chosen.members:
        seconds, rate = epoch_seconds(members, images, model, options)
        alone = alone or seconds / members
        rows.append((members, f"{rate:,.0f}", f"{1000 * seconds / chosen.steps:.2f}", f"{seconds / alone:.2f}"))
    print(f"2 x {chosen.width}, batches of {chosen.batch_size}, {provenance.device_name(str(device))}")
    print(tabulate(rows, headers=("members", "digits/s", "ms a step", "epochs of one member"), disable_numparse=True))


if __name__ == "__main__":
    main()
