"""Trainings side by side (`--network-jobs`): two networks on half of the threads each, or one after the other on all.

.venv/bin/python local/bench/side_by_side.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from bench import Table, main, quickest

from asrkd.nnet import ArrayInputs, HardTargets, TrainOptions, train
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.workflow.child_process import run_in_subprocess, run_side_by_side
from asrkd.workflow.task import with_share_of_threads

INPUT_DIM = 26 * 40
# Layers, width and batch: the demonstration's student and teachers, AN4's networks, a large one.
NETWORKS = ((3, 256, 512), (4, 512, 512), (4, 512, 1024), (5, 1024, 1024))


@dataclass(frozen=True)
class Options:
    """How long each training is."""

    steps: int = 150
    """steps of each training"""
    senones: int = 300
    """classes"""
    repeats: int = 3
    """times each way is taken, in turns; the quickest counts"""


def train_on_noise(options: Options, layers: int, width: int, batch_size: int) -> None:
    """Train a network on random frames."""
    generator = torch.Generator().manual_seed(0)
    inputs = ArrayInputs(torch.randn(batch_size, INPUT_DIM, generator=generator))
    labels = torch.randint(options.senones, (batch_size,), generator=generator)
    model = AcousticDnn(INPUT_DIM, options.senones, ModelOptions(width, layers, dropout=0.0))
    chosen = TrainOptions(epochs=options.steps, batch_size=batch_size, device="cpu", show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        train(model, inputs, HardTargets(labels), chosen, Path(folder))


def one_after_the_other(training: Callable[[], None]) -> None:
    """Two trainings, each on all threads."""
    for _ in range(2):
        run_in_subprocess(training)


def side_by_side(training: Callable[[], None]) -> None:
    """Two trainings at a time, each on half of the threads."""

    def lane(_: int) -> None:
        with_share_of_threads(2, training)

    list(run_side_by_side([lane, lane], 2))


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    rows, gains = [], {}
    for layers, width, batch_size in NETWORKS:
        training = partial(train_on_noise, options, layers, width, batch_size)
        ways = {way.__name__: partial(way, training) for way in (one_after_the_other, side_by_side)}
        seconds = quickest(ways, options.repeats)
        frames = 2 * options.steps * batch_size
        rates = [frames / one for one in seconds.values()]
        network = f"{layers}x{width}, batches of {batch_size}"
        gains[network] = seconds["side_by_side"] / seconds["one_after_the_other"]
        rows.append((network, *(f"{rate:,.0f}" for rate in rates), f"{gains[network]:.2f}"))
    return Table(
        f"Two trainings, {options.senones} classes, hard labels",
        ("network", "one after the other, frames/s", "side by side, frames/s", "time"),
        rows,
        ("Time: side by side, of one after the other; with the start of the processes.",),
        {"time": gains},
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
