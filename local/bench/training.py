"""Training: frames per second of a network on hard labels or soft targets, compared with a plain PyTorch loop.

.venv/bin/python local/bench/training.py
.venv-train/bin/python local/bench/training.py --device cuda --layers 8 --width 2560 --senones 14000
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from bench import Table, main, quickest, verdict
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asrkd.distil.compression import Compressed, StoreOptions
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.store import StoredTargets
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.nnet import HardTargets, Objective, TrainOptions, train
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.precision import resolve_precision
from asrkd.recipe.network_cost import Network

FEATURES, LEFT, RIGHT = 40, 20, 5
UTTERANCE_FRAMES = 1000
DEPTH_NATS = 10.0  # of the random posteriors
PEAK_GOAL, PEER_GOAL, GPU_GOAL = 0.75, 4.3, 1.0e6
PAPERS = (8, 2560, 14000)  # layers, width and senones (Hinton et al. 2015, section 5)


@dataclass(frozen=True)
class Options:
    """The network and the training."""

    device: str = "cpu"
    """cpu or cuda"""
    layers: int = 5
    """hidden layers"""
    width: int = 1024
    """units per layer"""
    senones: int = 2000
    """classes"""
    frames: int = 60_000
    """frames per epoch"""
    batch_size: int = 1024
    """frames per step"""
    dropout: float = 0.0
    """dropout of the hidden units"""
    top_k: int | None = None
    """classes of a soft target; none: hard labels"""
    compile: bool = False
    """--train.compile"""
    cuda_graph: bool = True
    """--train.cuda-graph"""
    shard_frames: int | None = None
    """--train.shard-frames"""
    peer: bool = True
    """time the plain loop, on hard labels, too"""


class Windows(Dataset):
    """The data set of the plain loop: spliced frames one by one."""

    def __init__(self, frames: Tensor, labels: Tensor) -> None:
        self.frames, self.labels = frames, labels

    def __len__(self) -> int:
        return len(self.frames) - LEFT - RIGHT

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.frames[index : index + LEFT + 1 + RIGHT].flatten(), self.labels[index]


def peer_rate(options: Options, frames: Tensor, labels: Tensor) -> float:
    """Frames per second of the loop that a PyTorch user writes first, in float32."""
    layers: list[nn.Module] = []
    size = (LEFT + 1 + RIGHT) * FEATURES
    for _ in range(options.layers):
        layers += [nn.Linear(size, options.width), nn.ReLU(), nn.Dropout(options.dropout)]
        size = options.width
    model = nn.Sequential(*layers, nn.Linear(size, options.senones)).to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(Windows(frames, labels), batch_size=options.batch_size, shuffle=True, drop_last=True)
    seen, start = 0, time.perf_counter()
    for x, y in loader:
        loss = F.cross_entropy(model(x.to(options.device)), y.to(options.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(x)
        loss.item()
    return seen / (time.perf_counter() - start)


def random_targets(options: Options, labels: Tensor, top_k: int) -> Distillation:
    """Random rows of a store, with the label as the top class, at temperature 2."""
    generator = torch.Generator().manual_seed(0)
    others = torch.randint(1, options.senones, (len(labels), 1), generator=generator) + torch.arange(top_k)
    others[:, 0] = 0
    levels = torch.randint(0, 256, (len(labels), top_k), generator=generator).sort(dim=1).values
    levels[:, 0] = 0
    rows = Compressed(
        ((labels.unsqueeze(1) + others) % options.senones).to(torch.int16),
        levels.to(torch.uint8),
        torch.full((len(labels), 1), DEPTH_NATS).half(),
        torch.zeros(len(labels), 1).half(),
    )
    targets = StoredTargets(rows, StoreOptions(top_k, temperatures=(2.0,)), "bench")
    return Distillation(None, targets, DistilOptions(alpha=1.0, temperature=2.0))


def trainer_rate(options: Options, inputs: SplicedFrames, labels: Tensor) -> tuple[float, str]:
    """Frames per second of asrkd's loop in the second of two epochs, and the precision it chose."""
    model = AcousticDnn(inputs.dim, options.senones, ModelOptions(options.width, options.layers, options.dropout))
    train_options = TrainOptions(
        epochs=2,
        batch_size=options.batch_size,
        device=options.device,
        compile=options.compile,
        cuda_graph=options.cuda_graph,
        shard_frames=options.shard_frames,
        show_progress=False,
    )
    objective: Objective = HardTargets(labels)
    if options.top_k is not None:
        objective = random_targets(options, labels, options.top_k)
    with tempfile.TemporaryDirectory() as folder:
        result = train(model, inputs, objective, train_options, Path(folder))
    return result.history[1]["frames_per_sec"], result.precision


def product_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Floating-point operations per second of square matrix products: the most that this machine can do."""
    a = torch.randn(size, size).to(device, dtype)
    b = torch.randn(size, size).to(device, dtype)

    def multiply() -> None:
        torch.mm(a, b).flatten()[0].item()

    multiply()
    return 2.0 * size**3 / quickest({"mm": multiply}, repeats=20)["mm"]


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    device = resolve_device(options.device)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(options.frames, FEATURES, generator=generator)
    labels = torch.randint(options.senones, (options.frames,), generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        utterances = [(f"utt{n}", "speaker", "", part) for n, part in enumerate(frames.split(UTTERANCE_FRAMES))]
        store = FrameStore.write(Path(folder, "frames"), utterances, {"frame_shift_ms": 10.0}, "bench")
        rate, precision = trainer_rate(options, SplicedFrames(store, LEFT, RIGHT), labels)
    kind = torch.bfloat16 if resolve_precision("auto", device) == "bfloat16" else torch.float32
    peak = product_rate(device, kind, 2048 if device.type == "cpu" else 8192)
    shape = ModelOptions(options.width, options.layers)
    flop = Network((LEFT + 1 + RIGHT) * FEATURES, options.senones, shape).training_flop
    products = f"{peak / 1e9:,.0f}"
    rows = [
        ("asrkd", precision, f"{rate:,.0f}", f"{rate * flop / 1e9:,.0f}", products, f"{rate * flop / peak:.0%}", "1.00")
    ]
    notes = [
        f"Floor: {flop / 1e6:.1f} MFLOP per frame, at the rate of this machine's square matrix products.",
    ]
    if device.type == "cpu":
        notes.append(f"Goal: {PEAK_GOAL:.0%} of that rate: {verdict(rate * flop / peak, PEAK_GOAL)}.")
    elif (options.layers, options.width, options.senones) == PAPERS:
        notes.append(f"Goal: {GPU_GOAL:,.0f} frames/s: {verdict(rate, GPU_GOAL)}.")
    if options.peer:
        peer = peer_rate(options, frames, labels)
        rows.append(
            ("plain loop, DataLoader", "float32", f"{peer:,.0f}", f"{peer * flop / 1e9:,.0f}", products,
             f"{peer * flop / peak:.0%}", f"{peer / rate:.2f}")
        )  # fmt: skip
        gain = rate / peer
        notes.append(f"Goal: {PEER_GOAL} times the plain loop: {gain:.2f} times, {verdict(gain, PEER_GOAL)}.")
    return Table(
        f"{options.layers}x{options.width}, {options.senones} senones, batches of {options.batch_size}, "
        f"dropout {options.dropout:g}, {'hard labels' if options.top_k is None else f'top-{options.top_k} targets'}"
        f"{', compiled' if options.compile else ''}{'' if options.cuda_graph else ', no CUDA graph'}"
        f"{f', shards of {options.shard_frames:,} frames' if options.shard_frames else ''}",
        ("loop", "arithmetic", "frames/s", "GFLOP/s", "products' GFLOP/s", "of them", "relative"),
        rows,
        tuple(notes),
        {"frames_per_sec": rate, "flop_per_frame": flop, "product_flops": peak},
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
