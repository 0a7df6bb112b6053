"""How a model is trained, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from asrkd.errors import InputError

# Newbob (QuickNet, Kaldi's nnet1) halves the learning rate when an epoch improves the development loss by less than
# this fraction of it.
NEWBOB_MIN_GAIN = 0.005

# Options of where and how a training runs. They do not change its result (but for the order of float sums).
RUNTIME_OPTIONS = ("device", "compile", "cuda_graph", "num_threads", "show_progress", "python")
SAME_PYTHON = "same"


@dataclass(frozen=True)
class TrainOptions:
    """Optimiser, schedule, device and seed of one training."""

    epochs: int = 15
    """Largest number of passes over the training frames."""
    batch_size: int = 1024
    """Frames per step. The last, incomplete batch of an epoch (or of a shard) is dropped."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """sgd (with Nesterov momentum) or adamw."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    momentum: float = 0.9
    """Momentum of sgd; decay of the first moment (beta1) of adamw."""
    beta2: float = 0.999
    """Decay of the second moment of adamw. A lower value forgets the large first gradients sooner."""
    weight_decay: float = 0.01
    """Weight decay: decoupled for adamw, an L2 penalty for sgd. Biases are not decayed."""
    schedule: Literal["cosine", "linear", "constant", "newbob"] = "cosine"
    """Learning rate after the warm-up. cosine and linear fall to zero at the last step; newbob halves the rate
    whenever the development loss stalls."""
    warmup_fraction: float = 0.05
    """Fraction of all steps over which the learning rate rises linearly from zero."""
    clip_norm: float | None = None
    """Largest Euclidean norm of the gradient over all weights; None for no limit."""
    average_decay: float = 0.0
    """Decay per step of an exponential moving average of the weights. The average is evaluated and saved; 0 for no
    average."""
    select_by: Literal["accuracy", "cross_entropy"] = "accuracy"
    """Development figure that selects the best epoch. The weights of that epoch are saved."""
    patience: int | None = None
    """Stop after this many epochs without a better development figure; None to run all epochs."""
    device: str = "cpu"
    """cpu, cuda or auto. auto is cuda if there is a GPU that torch supports."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products. auto times both once per experiment and records the faster (precision.json)."""
    compile: bool = False
    """Compile the network with torch.compile (torch 2). The first step takes a minute. Faster only without dropout."""
    cuda_graph: bool = True
    """Replay training steps as a CUDA graph, which is faster for small networks. It needs torch 2.4, one process, and
    inputs and targets in the GPU's memory; otherwise steps run one kernel at a time."""
    shard_frames: int | None = None
    """Frames per shard of a training set that does not fit into memory. Two shards are in memory at a time: one is
    trained on while the next one loads. None: the whole training set is in memory."""
    num_threads: int = 0
    """CPU threads; 0 for torch's default."""
    seed: int = 0
    """Seed of the data order and the dropout masks."""
    show_progress: bool = True
    """Show a progress bar with loss, development accuracy and time left."""
    python: str = "auto"
    """Interpreter that trains and scores the networks of a speech recipe, e.g. .venv-train/bin/python; same: the one of
    the run. auto: .venv-train's, if it has code for this machine's GPU and the run's torch has none, else same."""

    def without_runtime_options(self) -> TrainOptions:
        """These options with the RUNTIME_OPTIONS at their defaults: equal for trainings with equal results."""
        defaults: dict[str, Any] = {one.name: one.default for one in fields(self) if one.name in RUNTIME_OPTIONS}
        return replace(self, **defaults)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        _require(self.learning_rate > 0, "learning_rate", "a positive rate", self.learning_rate)
        _require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        _require(self.num_threads >= 0, "num_threads", "at least 0", self.num_threads)
        smallest = 2 * self.batch_size
        fits = self.shard_frames is None or self.shard_frames >= smallest
        _require(fits, "shard_frames", f"at least two batches ({smallest}) or none", self.shard_frames)
        for name in ("momentum", "beta2", "warmup_fraction", "average_decay"):
            _require(0 <= getattr(self, name) < 1, name, "a value in [0, 1)", getattr(self, name))
        _require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "a positive norm or none", self.clip_norm)
        _require(self.patience is None or self.patience >= 1, "patience", "at least 1 or none", self.patience)


def learning_rate_at(options: TrainOptions, step: int, num_steps: int, history: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate of step `step` (from 0) of `num_steps`, given the history of the finished epochs.

    It depends on its arguments alone, so that a resumed training needs no scheduler state.
    """
    warmup_steps = round(options.warmup_fraction * num_steps)
    if step < warmup_steps:
        return options.learning_rate * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    if options.schedule == "cosine":
        return options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    if options.schedule == "linear":
        return options.learning_rate * (1.0 - progress)
    if options.schedule == "newbob":
        return options.learning_rate * 0.5 ** num_stalls([epoch["dev_loss"] for epoch in history])
    return options.learning_rate


def num_stalls(dev_losses: Sequence[float]) -> int:
    """The number of epochs in which the development loss improved too little on the best one before."""
    stalls = 0
    for index in range(1, len(dev_losses)):
        best_before = min(dev_losses[:index])
        stalls += dev_losses[index] > best_before * (1.0 - NEWBOB_MIN_GAIN)
    return stalls


def _require(met: bool, name: str, expected: str, found: Any) -> None:
    if not met:
        raise InputError(f"train.{name}: expected {expected}, found {found}")
