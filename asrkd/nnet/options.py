"""How a model is trained, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from asrkd.errors import InputError

# Newbob (QuickNet, Kaldi's nnet1) halves the rate when an epoch improves the development loss by less than
# this part of it.
NEWBOB_MIN_GAIN = 0.005

# Options of where and how a training runs: they change nothing of what it is to come to.
WHERE_IT_RUNS = ("device", "compile", "capture", "num_threads", "show_progress")


@dataclass(frozen=True)
class TrainOptions:
    """Optimiser, schedule, device and seed of one training."""

    epochs: int = 15
    """Passes over the training frames, at most."""
    batch_size: int = 1024
    """Frames a step. A last, shorter batch of an epoch, or of a shard, is left out."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """sgd (with Nesterov momentum) or adamw."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    momentum: float = 0.9
    """Momentum of sgd; decay of adamw's first moment."""
    beta2: float = 0.999
    """Decay of adamw's second moment, by which each weight's step is scaled. Lower, it forgets the large gradients of a
    training's beginning sooner."""
    weight_decay: float = 0.01
    """Pull of the weights towards zero: decoupled in adamw, an L2 penalty in sgd. Biases are left alone."""
    schedule: Literal["cosine", "linear", "constant", "newbob"] = "cosine"
    """How the rate falls after the warm-up: to zero at the last step, or (newbob) by half at each stall."""
    warmup_fraction: float = 0.05
    """Part of all steps over which the rate rises linearly from zero."""
    clip_norm: float | None = None
    """Longest allowed gradient over all weights (Euclidean norm); None for no limit."""
    average_decay: float = 0.0
    """Decay per step of a moving average of the weights, which is then evaluated and kept; 0 for none."""
    select_by: Literal["accuracy", "cross_entropy"] = "accuracy"
    """The development figure whose best epoch is kept."""
    patience: int | None = None
    """Stop after this many epochs without a better development figure; None to run all epochs."""
    device: str = "cpu"
    """cpu, cuda, or auto: cuda where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the matrix products. auto measures both once and takes the faster."""
    compile: bool = False
    """Have torch.compile (torch 2) fuse what lies between the matrix products, of networks without dropout: its masks
    are drawn outside of what can be fused. It takes a minute to begin."""
    capture: bool = True
    """On a GPU, capture a step once (as a CUDA graph) and replay it: small networks' kernels end before Python launches
    the next ones. Done by torch 2.4 and later where one process trains, uncompiled, with all inputs and targets in the
    GPU's memory."""
    shard_frames: int | None = None
    """Frames of a shard: a training set that does not fit into memory (a GPU's own) is learnt shard by shard, the next
    one loading meanwhile, so that two are there at once. None: all frames are."""
    num_threads: int = 0
    """Threads of the CPU; 0 leaves torch's own choice."""
    seed: int = 0
    """Seed of the data order and the dropout masks."""
    show_progress: bool = True
    """Show a bar with loss, development accuracy and time left."""

    def without_runtime_options(self) -> TrainOptions:
        """The same training, its options of WHERE_IT_RUNS left at their defaults: what tells it from others."""
        defaults: dict[str, Any] = {field.name: field.default for field in fields(self) if field.name in WHERE_IT_RUNS}
        return replace(self, **defaults)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        _require(self.learning_rate > 0, "learning_rate", "a positive rate", self.learning_rate)
        _require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        _require(self.num_threads >= 0, "num_threads", "at least 0", self.num_threads)
        least = 2 * self.batch_size
        fits = self.shard_frames is None or self.shard_frames >= least
        _require(fits, "shard_frames", f"at least two batches ({least}) or none", self.shard_frames)
        for name in ("momentum", "beta2", "warmup_fraction", "average_decay"):
            _require(0 <= getattr(self, name) < 1, name, "a value in [0, 1)", getattr(self, name))
        _require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "a positive norm or none", self.clip_norm)
        _require(self.patience is None or self.patience >= 1, "patience", "at least 1 or none", self.patience)


def learning_rate_at(options: TrainOptions, step: int, num_steps: int, history: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate of step `step` (from 0) of `num_steps`, given the finished epochs.

    A function of its arguments only, so that a resumed training needs no state of a scheduler.
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
    """In how many epochs the development loss improved on the best before it by too little."""
    stalls = 0
    for index in range(1, len(dev_losses)):
        best_before = min(dev_losses[:index])
        stalls += dev_losses[index] > best_before * (1.0 - NEWBOB_MIN_GAIN)
    return stalls


def _require(holds: bool, name: str, expected: str, found: Any) -> None:
    if not holds:
        raise InputError(f"train.{name}: expected {expected}, found {found}")
