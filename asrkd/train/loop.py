"""The training loop: epochs of shuffled batches, the best epoch kept, a checkpoint after each."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from asrkd.errors import InputError
from asrkd.files import fingerprint, load_tensors, write_json
from asrkd.models import AcousticDnn
from asrkd.train.checkpoint import CHECKPOINT_NAME, Progress, load_checkpoint, save_checkpoint
from asrkd.train.devices import cpu_threads, resolve_device, resolve_precision
from asrkd.train.evaluate import device_of, evaluate
from asrkd.train.inputs import InputSource, Objective, tensor_digest
from asrkd.train.options import TrainOptions, learning_rate_at

logger = logging.getLogger(__name__)

MODEL_NAME = "model.safetensors"
HISTORY_NAME = "history.json"
# Options that change where and how a training runs, not what comes out of it.
NOT_IDENTITY = ("device", "precision", "num_threads", "show_progress")
# Losses stay on the device between looks at them, so that a GPU is not made to wait each step.
LOSS_CHECK_STEPS = {"cpu": 1, "cuda": 50}
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


@dataclass(frozen=True)
class DevSet:
    """Held-out examples by which the best epoch is told."""

    inputs: InputSource
    labels: Tensor
    ids: Tensor | None


@dataclass
class Run:
    """The parts of one training that its epochs and steps share."""

    model: AcousticDnn
    averaged: AcousticDnn | None
    inputs: InputSource
    objective: Objective
    dev: DevSet | None
    optimizer: torch.optim.Optimizer
    options: TrainOptions
    device: torch.device
    precision: str
    frame_ids: Tensor

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.frame_ids) // self.options.batch_size)

    @property
    def frames_per_epoch(self) -> int:
        return self.steps_per_epoch * min(self.options.batch_size, len(self.frame_ids))

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    @property
    def kept_model(self) -> AcousticDnn:
        """The weights that are evaluated and kept."""
        return self.model if self.averaged is None else self.averaged


def train(
    model: AcousticDnn,
    inputs: InputSource,
    objective: Objective,
    dev_inputs: InputSource | None,
    dev_labels: Tensor | None,
    options: TrainOptions,
    out_dir: Path,
    frame_ids: Tensor | None = None,
    description: str = "train",
    dev_frame_ids: Tensor | None = None,
) -> TrainResult:
    """Train `model` in place and leave it with its best epoch's weights.

    `frame_ids` [n] limits training to those examples of `inputs`, dev_frame_ids evaluation; without
    development data the last epoch is the best. `out_dir` gets checkpoint.safetensors after every epoch, from
    which a killed training goes on to the same bits, and at the end model.safetensors and history.json;
    called again, it loads those.

    InputError: a loss that is not finite (with epoch and step), data that do not fit the model.
    """
    out_dir = Path(out_dir)
    frame_ids = torch.arange(len(inputs)) if frame_ids is None else frame_ids.long().cpu()
    dev = _dev_set(dev_inputs, dev_labels, dev_frame_ids)
    _check_data(model, inputs, dev, frame_ids, options)
    out_dir.mkdir(parents=True, exist_ok=True)
    device = resolve_device(options.device)
    model.to(device)
    run_fingerprint = _fingerprint_of_run(model, inputs, objective, options, frame_ids)
    finished = _finished(out_dir, run_fingerprint, model)
    if finished is not None:
        return finished
    with cpu_threads(options.num_threads):
        averaged = copy.deepcopy(model).eval() if options.average_decay else None
        optimizer = make_optimizer(model, options)
        progress = load_checkpoint(out_dir, run_fingerprint, model, averaged, optimizer)
        # The arithmetic a training began in is the one it goes on in, whatever a second probe would say.
        progress.precision = progress.precision or resolve_precision(options.precision, device)
        run = Run(
            model, averaged, inputs, objective, dev, optimizer, options, device, progress.precision, frame_ids
        )
        _run_epochs(run, progress, out_dir, run_fingerprint, description)
    model.load_state_dict(progress.best_weights)
    model.eval()
    return _write_result(out_dir, run_fingerprint, model, progress)


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser of `options`; biases (vectors) are not decayed."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        nesterov = options.momentum > 0
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(options.momentum, 0.999))


def _run_epochs(run: Run, progress: Progress, out_dir: Path, run_fingerprint: str, description: str) -> None:
    """Go on from `progress` to the last epoch, or until patience ends, with a checkpoint after each."""
    bar = tqdm(
        total=run.num_steps,
        initial=len(progress.history) * run.steps_per_epoch,
        desc=description,
        unit="step",
        disable=not run.options.show_progress,
    )
    with bar:
        for epoch in range(len(progress.history), run.options.epochs):
            if _out_of_patience(progress, run.options):
                break
            progress.history.append(_train_and_evaluate(run, epoch, progress.history, bar))
            if _is_best(progress, run.options):
                progress.best_epoch = epoch
                weights = run.kept_model.state_dict()
                progress.best_weights = {name: weight.detach().clone() for name, weight in weights.items()}
            save_checkpoint(out_dir, run_fingerprint, progress, run.model, run.averaged, run.optimizer)
            bar.set_postfix_str(_epoch_summary(progress.history[-1]))


def _train_and_evaluate(run: Run, epoch: int, history: list[dict[str, Any]], bar: tqdm) -> dict[str, Any]:
    """One epoch and its entry in the history."""
    start = time.perf_counter()
    train_loss = run_epoch(run, epoch, history, bar)
    seconds = time.perf_counter() - start
    accuracy, cross_entropy = None, None
    if run.dev is not None:
        accuracy, cross_entropy = evaluate(run.kept_model, run.dev.inputs, run.dev.labels, run.dev.ids)
    last_step = (epoch + 1) * run.steps_per_epoch - 1
    return {
        "epoch": epoch,
        "train_loss": train_loss,
        "dev_loss": cross_entropy,
        "dev_accuracy": accuracy,
        "lr": learning_rate_at(run.options, last_step, run.num_steps, history),
        "seconds": seconds,
        "frames_per_sec": run.frames_per_epoch / seconds,
    }


def run_epoch(run: Run, epoch: int, history: list[dict[str, Any]], bar: tqdm) -> float:
    """One pass over the training frames in the order of (seed, epoch); the mean training loss."""
    order = _generator(run.options.seed, epoch, "order", torch.device("cpu"))
    ids = run.frame_ids[torch.randperm(len(run.frame_ids), generator=order)]
    source_device = device_of(run.inputs)
    augmentation = _generator(run.options.seed, epoch, "augmentation", source_device)
    dropout = _generator(run.options.seed, epoch, "dropout", run.device)
    ids = ids.to(source_device)
    losses = torch.zeros(run.steps_per_epoch, device=run.device)
    check_steps = LOSS_CHECK_STEPS[run.device.type]
    run.model.train()
    for step in range(run.steps_per_epoch):
        batch_ids = ids[step * run.options.batch_size : (step + 1) * run.options.batch_size]
        x = run.inputs.batch(batch_ids, augmentation).to(run.device)
        rate = learning_rate_at(run.options, epoch * run.steps_per_epoch + step, run.num_steps, history)
        losses[step] = run_step(run, x, batch_ids, rate, dropout)
        if (step + 1) % check_steps == 0 or step + 1 == run.steps_per_epoch:
            _check_losses(losses[: step + 1], epoch)
        bar.update(1)
    return float(losses.mean())


def run_step(run: Run, x: Tensor, ids: Tensor, rate: float, dropout: torch.Generator) -> Tensor:
    """One step of the optimiser on inputs x [B, D]; the loss, detached."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
        logits = run.model(x, dropout)
    loss = run.objective(logits.float(), ids)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if run.options.clip_norm is not None:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.options.clip_norm)
    run.optimizer.step()
    run.model.project_()
    if run.averaged is not None:
        _update_average(run.averaged, run.model, run.options.average_decay)
    return loss.detach()


@torch.no_grad()
def _update_average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for average, current in zip(averaged.parameters(), model.parameters(), strict=True):
        average.lerp_(current, 1.0 - decay)


def _generator(seed: int, epoch: int, purpose: str, device: torch.device) -> torch.Generator:
    """Random numbers as a function of (seed, epoch, purpose): nothing to store, no stream shifts another."""
    digest = hashlib.sha256(f"{seed} {epoch} {purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def _check_losses(losses: Tensor, epoch: int) -> None:
    if not math.isfinite(float(losses.sum())):
        step = int((~torch.isfinite(losses)).nonzero()[0, 0])
        raise InputError(
            f"training: loss is {float(losses[step])} at epoch {epoch}, step {step}: "
            "lower the learning rate (--train.learning-rate) or look for NaN in the inputs"
        )


def _is_best(progress: Progress, options: TrainOptions) -> bool:
    latest = progress.history[-1]
    if latest["dev_loss"] is None or progress.best_epoch < 0:
        return True
    best = progress.history[progress.best_epoch]
    if options.select_by == "accuracy":
        return latest["dev_accuracy"] > best["dev_accuracy"]
    return latest["dev_loss"] < best["dev_loss"]


def _out_of_patience(progress: Progress, options: TrainOptions) -> bool:
    if options.patience is None or not progress.history:
        return False
    return len(progress.history) - 1 - progress.best_epoch >= options.patience


def _epoch_summary(epoch: dict[str, Any]) -> str:
    text = f"epoch {epoch['epoch'] + 1}: loss {epoch['train_loss']:.4f}"
    if epoch["dev_accuracy"] is not None:
        text += f", dev accuracy {epoch['dev_accuracy']:.4f}"
    return text


def _dev_set(inputs: InputSource | None, labels: Tensor | None, ids: Tensor | None) -> DevSet | None:
    if inputs is None and labels is None:
        return None
    if inputs is None or labels is None:
        raise InputError("training: expected development inputs and labels together, found only one of them")
    return DevSet(inputs, labels, ids)


def _check_data(
    model: AcousticDnn, inputs: InputSource, dev: DevSet | None, frame_ids: Tensor, options: TrainOptions
) -> None:
    for name, source in (("training", inputs), ("development", None if dev is None else dev.inputs)):
        if source is not None and source.dim != model.input_dim:
            raise InputError(f"{name} inputs: expected {model.input_dim} values each, found {source.dim}")
    if options.schedule == "newbob" and dev is None:
        raise InputError("train.schedule: newbob expected development data, found none")
    if len(frame_ids) == 0:
        raise InputError("training: expected at least one frame, found none")
    if int(frame_ids.min()) < 0 or int(frame_ids.max()) >= len(inputs):
        found = f"{int(frame_ids.min())} to {int(frame_ids.max())}"
        raise InputError(f"frame ids: expected 0 to {len(inputs) - 1}, found {found}")


def _fingerprint_of_run(
    model: AcousticDnn, inputs: InputSource, objective: Objective, options: TrainOptions, frame_ids: Tensor
) -> str:
    """Tells a training from any other: options, initial weights, targets, and a sample of the inputs."""
    identity = {name: value for name, value in asdict(options).items() if name not in NOT_IDENTITY}
    sample = frame_ids[torch.linspace(0, len(frame_ids) - 1, min(INPUT_SAMPLE, len(frame_ids))).long()]
    device = device_of(inputs)
    sampled = inputs.batch(sample.to(device), _generator(options.seed, 0, "augmentation", device))
    parts = {
        "options": identity,
        "model": asdict(model.options),
        "weights": [tensor_digest(parameter) for parameter in model.parameters()],
        "objective": objective.fingerprint,
        "frame_ids": tensor_digest(frame_ids),
        "inputs": tensor_digest(sampled),
    }
    return fingerprint(parts)


def _finished(out_dir: Path, run_fingerprint: str, model: AcousticDnn) -> TrainResult | None:
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


def _write_result(out_dir: Path, run_fingerprint: str, model: AcousticDnn, progress: Progress) -> TrainResult:
    write_json(out_dir / HISTORY_NAME, progress.history)
    metadata = {
        "run_fingerprint": run_fingerprint,
        "history": json.dumps(progress.history),
        "best_epoch": str(progress.best_epoch),
        "precision": progress.precision,
    }
    path = out_dir / MODEL_NAME
    model.save(path, metadata)
    (out_dir / CHECKPOINT_NAME).unlink(missing_ok=True)
    return TrainResult(progress.history, progress.best_epoch, path, progress.precision)
