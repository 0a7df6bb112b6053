"""The training loop: epochs of shuffled batches, the best epoch kept, a checkpoint after each."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from asrkd.errors import InputError
from asrkd.nnet.checked_data import DevSet, check_data, dev_set
from asrkd.nnet.checkpoint import Progress, load_checkpoint, save_checkpoint
from asrkd.nnet.cuda_graph import CudaGraphStep, can_use_cuda_graph
from asrkd.nnet.data_parallel import Share
from asrkd.nnet.devices import compiled, cpu_threads, resolve_device, resolve_precision
from asrkd.nnet.inputs import InputSource, Objective
from asrkd.nnet.models import AcousticDnn, Model, StackedEnsemble
from asrkd.nnet.options import TrainOptions, learning_rate_at
from asrkd.nnet.result import (
    MODEL_NAME,
    TrainResult,
    fingerprint_of_run,
    finished_run,
    write_result,
)
from asrkd.nnet.run import Draws, Run, epoch_batches
from asrkd.nnet.shards import shards_of
from asrkd.nnet.step import make_optimizer, run_step
from asrkd.workflow.distributed import ProcessGroup
from asrkd.workflow.memory import keep_freed_memory

# Losses stay on the device between looks at them, so that a GPU is not made to wait each step.
LOSS_CHECK_STEPS = {"cpu": 1, "cuda": 50}


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

    Under torchrun every process calls it alike, may hold a part of the inputs alone, and computes its part of each
    batch; the first one writes. Any number of processes goes on from the checkpoint of any other.

    InputError: a loss that is not finite (with epoch and step), data that do not fit the model.
    """
    dev = dev_set(dev_inputs, dev_labels, dev_frame_ids)
    return _train(model, (options.seed,), inputs, objective, dev, options, Path(out_dir), frame_ids, description)


def train_stacked(
    ensemble: StackedEnsemble,
    seeds: Sequence[int],
    inputs: InputSource,
    objective: Objective,
    options: TrainOptions,
    out_dir: Path,
    frame_ids: Tensor | None = None,
    description: str = "train",
    checkpoint_epochs: int = 1,
) -> TrainResult:
    """Train the members of `ensemble` in place, each as `train` would alone with its seed in `options`.

    Member m draws its order, augmentation and dropout from seeds[m]; a step takes a batch of each member, so that
    several small networks fill the device. There is no development set: members would differ in their best epochs,
    and the last is kept. A checkpoint is written every `checkpoint_epochs` epochs: those of a stack are large.

    InputError: as `train`; a seed too few or too many; members of different dropout or max-norm.
    """
    if not ensemble.alike:
        raise InputError("training: expected members of one dropout and max-norm, found several in the stack")
    if len(seeds) != ensemble.num_members:
        raise InputError(f"training: expected a seed for each of {ensemble.num_members} members, found {len(seeds)}")
    return _train(
        ensemble,
        tuple(seeds),
        inputs,
        objective,
        None,
        options,
        Path(out_dir),
        frame_ids,
        description,
        checkpoint_epochs,
    )


def _train(
    model: Model,
    seeds: tuple[int, ...],
    inputs: InputSource,
    objective: Objective,
    dev: DevSet | None,
    options: TrainOptions,
    out_dir: Path,
    frame_ids: Tensor | None,
    description: str,
    checkpoint_epochs: int = 1,
) -> TrainResult:
    frame_ids = torch.arange(len(inputs)) if frame_ids is None else frame_ids.long().cpu()
    check_data(model, inputs, objective, dev, frame_ids, options)
    out_dir.mkdir(parents=True, exist_ok=True)
    ranks = ProcessGroup.from_environment()
    device = ranks.device(resolve_device(options.device))
    model.to(device)
    if device.type == "cpu":
        keep_freed_memory()
    run_fingerprint = fingerprint_of_run(model, seeds, inputs, objective, options, frame_ids, dev)
    with cpu_threads(options.num_threads), ranks.joined(device):
        finished = finished_run(out_dir, run_fingerprint, model)
        ranks.require_same((run_fingerprint, finished is not None), f"{out_dir}: the training's data and options")
        if finished is not None:
            return finished
        averaged = copy.deepcopy(model).eval() if options.average_decay else None
        capture = can_use_cuda_graph(inputs, objective, options, ranks, device)
        optimizer = make_optimizer(model, options, capture)
        progress = load_checkpoint(out_dir, run_fingerprint, model, averaged, optimizer)
        ranks.require_same(len(progress.history), f"{out_dir}: finished epochs")
        # The arithmetic a training began in is the one it goes on in, whatever a second probe would say.
        progress.precision = progress.precision or ranks.broadcast(resolve_precision(options.precision, device))
        shards = shards_of(inputs, objective, frame_ids, options, ranks, device, progress.precision)
        share = Share.of(ranks, inputs, frame_ids, len(seeds), device)
        draws = tuple(Draws.of(seed, share, shards.inputs_device, device) for seed in seeds)
        generators = [generator for member in draws for generator in (member.augmentation, member.dropout)]
        run = Run(
            model,
            compiled(model, ranks) if options.compile else ranks.wrap(model),
            averaged,
            shards,
            dev,
            optimizer,
            options,
            device,
            progress.precision,
            draws,
            checkpoint_epochs,
            share,
            CudaGraphStep(generators, device) if capture else None,
        )
        _run_epochs(run, progress, out_dir, run_fingerprint, description)
        model.load_state_dict(progress.best_weights)
        model.eval()
        if ranks.is_main:
            write_result(out_dir, run_fingerprint, model, progress)
        ranks.require_same(len(progress.history), f"{out_dir}: finished epochs")  # and the model is there for all
    return TrainResult(progress.history, progress.best_epoch, out_dir / MODEL_NAME, progress.precision)


def _run_epochs(run: Run, progress: Progress, out_dir: Path, run_fingerprint: str, description: str) -> None:
    """Go on from `progress` to the last epoch, or until patience ends, with checkpoints between."""
    bar = tqdm(
        total=run.num_steps,
        initial=len(progress.history) * run.steps_per_epoch,
        desc=description,
        unit="step",
        disable=not (run.options.show_progress and run.share.ranks.is_main),
    )
    with bar:
        for epoch in range(len(progress.history), run.options.epochs):
            if _out_of_patience(progress, run.options):
                break
            progress.history.append(_train_and_evaluate(run, epoch, progress.history, bar))
            if _is_best(progress, run.options):
                progress.best_epoch = epoch
                weights = run.averaged_model.state_dict()
                progress.best_weights = {name: weight.detach().clone() for name, weight in weights.items()}
            if (epoch + 1) % run.checkpoint_epochs == 0 and run.share.ranks.is_main:
                save_checkpoint(out_dir, run_fingerprint, progress, run.model, run.averaged, run.optimizer)
            bar.set_postfix_str(_epoch_summary(progress.history[-1]))


def _train_and_evaluate(run: Run, epoch: int, history: list[dict[str, Any]], bar: tqdm) -> dict[str, Any]:
    """One epoch and its entry in the history."""
    start = time.perf_counter()
    train_loss = run_epoch(run, epoch, history, bar)
    seconds = time.perf_counter() - start
    accuracy, cross_entropy = None, None
    if run.dev is not None:
        accuracy, cross_entropy = run.share.evaluate(run.averaged_model, run.dev.inputs, run.dev.labels, run.dev.ids)
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
    losses = torch.zeros(run.steps_per_epoch, device=run.device)
    check_steps = LOSS_CHECK_STEPS[run.device.type]
    run.model.train()
    step = 0
    for examples, ids in epoch_batches(run, epoch):
        rate = learning_rate_at(run.options, epoch * run.steps_per_epoch + step, run.num_steps, history)
        losses[step] = run_step(run, examples, ids, rate)
        step += 1  # noqa: SIM113 - enumerate holds on to what it gave last, here a whole shard
        if step % check_steps == 0 or step == run.steps_per_epoch:
            _check_losses(losses[:step], epoch)
        bar.update(1)
        del examples, ids  # perhaps the last of a shard: the next one but one loads already
    return float(losses.mean())


def _check_losses(losses: Tensor, epoch: int) -> None:
    if not math.isfinite(float(losses.sum())):
        step = int((~torch.isfinite(losses)).nonzero()[0, 0])
        raise InputError(
            f"training: loss is {float(losses[step])} at epoch {epoch}, step {step}: "
            "lower train.learning_rate or look for NaN in the inputs"
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
