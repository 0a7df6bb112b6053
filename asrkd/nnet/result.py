"""What a training is known by and what it leaves: its fingerprint, model.safetensors and history.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.files import fingerprint, load_tensors, tensor_digest, write_json
from asrkd.nnet.checked_data import DevSet
from asrkd.nnet.checkpoint import CHECKPOINT_NAME, Progress
from asrkd.nnet.evaluate import device_of
from asrkd.nnet.inputs import InputSource, Objective
from asrkd.nnet.models import Model, StackedEnsemble
from asrkd.nnet.options import TrainOptions

MODEL_NAME = "model.safetensors"
HISTORY_NAME = "history.json"
INPUT_SAMPLE = 64


@dataclass(frozen=True)
class TrainResult:
    """What a training came to."""

    history: list[dict[str, Any]]
    """One dict an epoch: train_loss, dev_loss, dev_accuracy, lr, seconds, frames_per_sec."""
    best_epoch: int
    """Index into history of the epoch whose weights were kept."""
    model_path: Path
    """The kept model."""
    precision: str
    """float32 or bfloat16."""


def seed_of(seed: int, epoch: int, purpose: str) -> int:
    """The seed of what is random in an epoch for one purpose."""
    digest = hashlib.sha256(f"{seed} {epoch} {purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def generator_of(seed: int, epoch: int, purpose: str, device: torch.device) -> torch.Generator:
    """Random numbers as a function of (seed, epoch, purpose): nothing to store, no stream shifts another."""
    return torch.Generator(device).manual_seed(seed_of(seed, epoch, purpose))


def fingerprint_of_run(
    model: Model,
    seeds: tuple[int, ...],
    inputs: InputSource,
    objective: Objective,
    options: TrainOptions,
    frame_ids: Tensor,
    dev: DevSet | None,
) -> str:
    """Tells a training from any other: options, initial weights, targets, by what it is judged, and a sample of the
    inputs."""
    sample = frame_ids[torch.linspace(0, len(frame_ids) - 1, min(INPUT_SAMPLE, len(frame_ids))).long()]
    device = device_of(inputs)
    # A source that holds a part of its examples can still show any of them.
    read = getattr(inputs, "sample", inputs.batch)
    sampled = read(sample.to(device), generator_of(seeds[0], 0, "augmentation", device))
    parts: dict[str, Any] = {
        "options": options.without_runtime_options(),
        "model": asdict(model.options),
        "weights": [tensor_digest(parameter) for parameter in model.parameters()],
        "objective": objective.fingerprint,
        "frame_ids": tensor_digest(frame_ids),
        "inputs": tensor_digest(sampled),
        "dev": None if dev is None else dev.fingerprint,
    }
    if isinstance(model, StackedEnsemble):
        parts["seeds"] = seeds
    return fingerprint(parts)


def finished_run(out_dir: Path, run_fingerprint: str, model: Model) -> TrainResult | None:
    """The result in out_dir, its weights put into `model`; None unless this very run left it."""
    path = out_dir / MODEL_NAME
    if not path.is_file():
        return None
    tensors, metadata = load_tensors(path)
    if metadata.get("run_fingerprint") != run_fingerprint:
        return None
    model.load_state_dict(tensors)
    model.eval()
    history = json.loads(metadata["history"])
    return TrainResult(history, int(metadata["best_epoch"]), path, metadata["precision"])


def write_result(out_dir: Path, run_fingerprint: str, model: Model, progress: Progress) -> None:
    """Write history and model, which end the run: its checkpoint is no longer needed."""
    write_json(out_dir / HISTORY_NAME, progress.history)
    metadata = {
        "run_fingerprint": run_fingerprint,
        "history": json.dumps(progress.history),
        "best_epoch": str(progress.best_epoch),
        "precision": progress.precision,
    }
    model.save(out_dir / MODEL_NAME, metadata)
    (out_dir / CHECKPOINT_NAME).unlink(missing_ok=True)
