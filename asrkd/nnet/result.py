"""The result of a training: model.safetensors and history.json, identified by the training's fingerprint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.files import canonical, fingerprint, load_tensors, reading, tensor_digest, write_json
from asrkd.nnet.checkpoint import CHECKPOINT_NAME, START_NAME, Progress
from asrkd.nnet.evaluate import device_of
from asrkd.nnet.modules import ModuleModel
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.rng import AUGMENTATION, epoch_generator
from asrkd.nnet.stacked import Model, StackedEnsemble
from asrkd.nnet.training_data import TrainingData

MODEL_NAME = "model.safetensors"
HISTORY_NAME = "history.json"
# Examples of the inputs that enter a training's fingerprint: hashing all of a large corpus would take minutes.
INPUT_SAMPLE = 64


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training."""

    history: list[dict[str, Any]]
    """One dict per epoch: epoch, train_loss, dev_loss (cross-entropy, nats per frame), dev_accuracy, lr, seconds and
    frames_per_sec; the development figures are None without a development set."""
    best_epoch: int
    """Index into history of the epoch with the saved weights."""
    model_path: Path
    """The saved model."""
    precision: str
    """float32 or bfloat16."""


def training_fingerprint(model: Model, seeds: tuple[int, ...], data: TrainingData, options: TrainOptions) -> str:
    """A hash of all that determines a training: options, initial weights, targets, ids, development set, and a sample
    of the inputs."""
    parts: dict[str, Any] = {
        "options": options.without_runtime_options(),
        "model": canonical(model.options),
        "weights": [tensor_digest(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "objective": data.objective.fingerprint,
        "frame_ids": tensor_digest(data.frame_ids),
        "inputs": _inputs_digest(data, seeds[0]),
        "dev": None if data.dev is None else data.dev.fingerprint,
    }
    if data.augment is not None:
        parts["augment"] = data.augment.fingerprint
    if data.extra is not None:
        parts["extra"] = [data.extra.first_id, data.extra.share]
    if isinstance(model, StackedEnsemble):
        parts["seeds"] = seeds
    if isinstance(model, ModuleModel):
        parts["module"] = str(model.module)
    return fingerprint(parts)


def _inputs_digest(data: TrainingData, seed: int) -> str:
    ids = data.frame_ids
    sampled = ids[sampled_positions(len(ids))]
    device = device_of(data.inputs)
    # `sample` reads examples from the disk that this process has not loaded.
    read = getattr(data.inputs, "sample", data.inputs.batch)
    return tensor_digest(read(sampled.to(device), epoch_generator(seed, 0, AUGMENTATION, device)))


def sampled_positions(num_examples: int) -> Tensor:
    """Positions [n] of the examples whose inputs are in a training's fingerprint, evenly from the first to the last."""
    even = torch.linspace(0, num_examples - 1, min(INPUT_SAMPLE, num_examples)).long()
    return even.clamp_(max=num_examples - 1)  # float32 rounds the last of more than 16 million up, to one that is not


def load_result(out_dir: Path, run_fingerprint: str, model: Model) -> TrainResult | None:
    """The result in out_dir, its weights loaded into `model`; None if there is none of this very training."""
    path = out_dir / MODEL_NAME
    if not path.is_file():
        return None
    tensors, metadata = load_tensors(path)
    if metadata.get("run_fingerprint") != run_fingerprint:
        return None
    with reading(path, "a trained model"):
        model.load_state_dict(tensors)
        model.eval()
        history = json.loads(metadata["history"])
        return TrainResult(history, int(metadata["best_epoch"]), path, metadata["precision"])


def save_result(out_dir: Path, run_fingerprint: str, model: Model, progress: Progress, precision: str) -> None:
    """Write history and model, and remove the files that only a resumed training needs."""
    write_json(out_dir / HISTORY_NAME, progress.history)
    metadata = {
        "run_fingerprint": run_fingerprint,
        "history": json.dumps(progress.history),
        "best_epoch": str(progress.best_epoch),
        "precision": precision,
    }
    model.save(out_dir / MODEL_NAME, metadata)
    for name in (CHECKPOINT_NAME, START_NAME):
        (out_dir / name).unlink(missing_ok=True)
