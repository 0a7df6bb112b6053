"""The state of a training at the end of an epoch: one file, whole or absent."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.files import load_tensors, save_tensors

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.safetensors"


@dataclass
class Progress:
    """What a training has come to: finished epochs and the best weights among them.

    There is no state of a random generator: the numbers of an epoch are a function of (seed, epoch).
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    precision: str = ""


def save_checkpoint(
    out_dir: Path,
    run_fingerprint: str,
    progress: Progress,
    model: nn.Module,
    averaged: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write everything a resumed training needs to go on to the same bits."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors.update({f"best.{name}": tensor for name, tensor in progress.best_weights.items()})
    if averaged is not None:
        tensors.update({f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()})
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if value is not None:
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    # safetensors refuses two names for one memory; the best weights are copies, the rest are distinct.
    metadata = {
        "run_fingerprint": run_fingerprint,
        "precision": progress.precision,
        "history": json.dumps(progress.history),
        "best_epoch": str(progress.best_epoch),
    }
    save_tensors(out_dir / CHECKPOINT_NAME, tensors, metadata)


def load_checkpoint(
    out_dir: Path,
    run_fingerprint: str,
    model: nn.Module,
    averaged: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Put this run's last checkpoint into model, average and optimiser; without one, a fresh Progress."""
    path = out_dir / CHECKPOINT_NAME
    if not path.is_file():
        return Progress()
    try:
        tensors, metadata = load_tensors(path)
    except InputError as error:
        logger.warning("%s; training starts anew", error)
        return Progress()
    if metadata["run_fingerprint"] != run_fingerprint:
        logger.warning("%s: left by another configuration or other data; training starts anew", path)
        return Progress()
    # The file is memory-mapped and will be replaced: copy.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    model.load_state_dict(_under("model.", tensors))
    if averaged is not None:
        averaged.load_state_dict(_under("averaged.", tensors))
    for name, parameter in model.named_parameters():
        for full_name, tensor in tensors.items():
            if full_name.startswith("optimizer.") and full_name.split(".", 2)[2] == name:
                key = full_name.split(".", 2)[1]
                # Adam counts its steps on the CPU unless it is one kernel; everything else lives with its parameter.
                on_cpu = key == "step" and not optimizer.defaults.get("fused")
                optimizer.state[parameter][key] = tensor if on_cpu else tensor.to(parameter.device)
    history = json.loads(metadata["history"])
    best_weights = _under("best.", tensors)
    return Progress(history, int(metadata["best_epoch"]), best_weights, metadata["precision"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
