"""The checkpoint of a training after an epoch, from which it resumes to the same bits.

One safetensors file, written whole or not at all: the model, its moving average, the best weights and the optimiser's
`state_dict()`. It has no generator's state (see `asrkd.nnet.rng`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import load_tensors, read_object, reading, save_tensors, write_json
from asrkd.nnet.training_state import TrainingState

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.safetensors"
START_NAME = "start.json"


@dataclass
class Progress:
    """The finished epochs of a training, and the best weights among them."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per finished epoch (see TrainResult)."""
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def start_precision(out_dir: Path, run_fingerprint: str, resolve: Callable[[], str]) -> str:
    """The precision in which this training started; a new training records that of `resolve` before its first step.

    A training that is killed, even in its first epoch, therefore resumes in the same arithmetic.
    """
    path = out_dir / START_NAME
    try:
        start = read_object(path) if path.is_file() else {}
    except InputError as error:
        logger.warning("%s; training starts anew", error)
        start = {}
    if start.get("run_fingerprint") != run_fingerprint or start.get("precision") not in ("float32", "bfloat16"):
        start = {"run_fingerprint": run_fingerprint, "precision": resolve()}
        write_json(path, start)
    precision: str = start["precision"]
    return precision


def save_checkpoint(out_dir: Path, run_fingerprint: str, state: TrainingState, progress: Progress) -> None:
    """Write all that a resumed training needs to compute the same bits."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors.update({f"best.{name}": tensor for name, tensor in progress.best_weights.items()})
    if state.average is not None:
        tensors.update({f"average.{name}": tensor for name, tensor in state.average.state_dict().items()})
    # The parameter groups are not saved. The options set them, and differently for another device (fused, capturable).
    optimizer = _flatten(state.optimizer.state_dict()["state"], "optimizer", tensors)
    # safetensors refuses two names for one memory; the best weights are copies, all others are distinct.
    metadata = {
        "run_fingerprint": run_fingerprint,
        "history": json.dumps(progress.history),
        "best_epoch": str(progress.best_epoch),
        "optimizer": json.dumps(optimizer),
    }
    save_tensors(out_dir / CHECKPOINT_NAME, tensors, metadata)


def load_checkpoint(out_dir: Path, run_fingerprint: str, state: TrainingState) -> Progress:
    """Load this run's checkpoint into the model, average and optimiser of `state`; without one, an empty Progress."""
    path = out_dir / CHECKPOINT_NAME
    if not path.is_file():
        return Progress()
    try:
        tensors, metadata = load_tensors(path)
    except InputError as error:
        logger.warning("%s; training starts anew", error)
        return Progress()
    if metadata.get("run_fingerprint") != run_fingerprint:
        logger.warning("%s: written by another configuration or other data; training starts anew", path)
        return Progress()
    # The file is memory-mapped and will be replaced, so copy.
    with reading(path, "a checkpoint"):
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        state.model.load_state_dict(_with_prefix("model.", tensors))
        if state.average is not None:
            state.average.load_state_dict(_with_prefix("average.", tensors))
        _load_optimizer(state.optimizer, _unflatten(json.loads(metadata["optimizer"]), tensors))
        return Progress(json.loads(metadata["history"]), int(metadata["best_epoch"]), _with_prefix("best.", tensors))


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[int, Any]) -> None:
    """Load the state of each parameter; load_state_dict moves it to the device where this optimiser needs it."""
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with this prefix, by their names without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A nested state_dict as JSON values; its tensors go into `tensors`, by names that begin with `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, because the keys of an optimiser's state are numbers
        return {"dict": [[key, _flatten(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_flatten(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]}
    return {"value": value}


def _unflatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_flatten` was given; a tuple comes back as a list."""
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unflatten(item, tensors) for key, item in content}
    if kind == "list":
        return [_unflatten(item, tensors) for item in content]
    return content
