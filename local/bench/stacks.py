"""Several networks trained as one module: the time of an epoch of M members, relative to an epoch of one.

    .venv/bin/python local/bench/stacks.py
    .venv-train/bin/python local/bench/stacks.py --device cuda --layers 4 --width 512 --inputs 1040 --outputs 2000

The ratio is M if the stack gains nothing, and 1 if the other members cost nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from bench import Table, main, verdict

from asrkd.nnet import ArrayInputs, HardTargets, TrainOptions, train_stacked
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

GPU_GOAL, CPU_GOAL = 2.0, 1.0


@dataclass(frozen=True)
class Options:
    """The networks and the training."""

    device: str = "cpu"
    """cpu or cuda"""
    layers: int = 4
    """hidden layers"""
    width: int = 512
    """units per layer"""
    inputs: int = 1040
    """values of an input"""
    outputs: int = 300
    """classes"""
    batch_size: int = 1024
    """examples per step of one member"""
    steps: int = 12
    """steps per epoch"""
    members: tuple[int, ...] = (1, 2, 5, 10)
    """sizes of the stack"""
    dropout: float = 0.0
    """dropout of the hidden units"""
    cuda_graph: bool = True
    """--train.cuda-graph"""


def epoch_seconds(members: int, x: torch.Tensor, options: Options) -> float:
    """Seconds of the fastest epoch, without the first."""
    model = ModelOptions(options.width, options.layers, options.dropout)
    stack = StackedEnsemble([AcousticDnn(options.inputs, options.outputs, model, seed) for seed in range(members)])
    labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
    train_options = TrainOptions(
        epochs=4,
        batch_size=options.batch_size,
        device=options.device,
        cuda_graph=options.cuda_graph,
        show_progress=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(members)
        found = train_stacked(
            stack, seeds, ArrayInputs(x), HardTargets(labels), train_options, Path(folder), checkpoint_epochs=9
        )
    return min(epoch["seconds"] for epoch in found.history[1:])


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    device = resolve_device(options.device)
    x = torch.randn(options.batch_size * options.steps, options.inputs).to(device)
    taken = {members: epoch_seconds(members, x, options) for members in options.members}
    alone = taken[options.members[0]] / options.members[0]
    rows = [
        (
            str(members),
            f"{members * len(x) / seconds:,.0f}",
            f"{1000 * seconds / options.steps:.2f}",
            f"{seconds / alone:.2f}",
            f"{seconds / alone / members:.2f}",
        )
        for members, seconds in taken.items()
    ]
    largest = options.members[-1]
    if device.type == "cuda":
        met = verdict(taken[largest] / alone, GPU_GOAL, more_is_better=False)
        note = f"Goal on a GPU: {largest} members in {GPU_GOAL:g} times one member's time: {met}."
    else:
        ratio = taken[largest] / alone / largest
        note = f"Goal on a CPU: no slower than one by one: {ratio:.2f} of it, {verdict(ratio, CPU_GOAL, False)}."
    return Table(
        f"{options.layers}x{options.width}, batches of {options.batch_size} for each member"
        f"{'' if options.cuda_graph else ', no CUDA graph'}",
        ("members", "examples/s", "ms per step", "times one member", "of one by one"),
        rows,
        (note,),
        {str(members): seconds for members, seconds in taken.items()},
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
