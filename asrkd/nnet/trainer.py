"""The training loop: epochs of shuffled batches, a checkpoint after each, the best epoch's weights at the end."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from asrkd.errors import InputError
from asrkd.nnet.augment import Augmentation
from asrkd.nnet.checkpoint import Progress, load_checkpoint, save_checkpoint, start_precision
from asrkd.nnet.cuda_graph import CudaGraphStep, can_use_cuda_graph
from asrkd.nnet.data_parallel import BatchShard
from asrkd.nnet.devices import compile_model, cpu_threads, resolve_device
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.inputs import InputSource, Objective
from asrkd.nnet.mixing import ExtraExamples
from asrkd.nnet.modules import ModuleModel, seed_global
from asrkd.nnet.optimizer import make_optimizer
from asrkd.nnet.options import TrainOptions, learning_rate_at
from asrkd.nnet.precision import resolve_precision
from asrkd.nnet.result import MODEL_NAME, TrainResult, load_result, save_result, training_fingerprint
from asrkd.nnet.rng import ModelGenerators
from asrkd.nnet.sharded_data import ShardedData
from asrkd.nnet.stacked import Model, StackedEnsemble
from asrkd.nnet.step import run_step
from asrkd.nnet.training_data import DevSet, TrainingData
from asrkd.nnet.training_state import TrainingState, epoch_batches
from asrkd.terminal import bar_line
from asrkd.workflow.distributed import ProcessGroup
from asrkd.workflow.memory import keep_freed_memory, release_freed_memory

logger = logging.getLogger(__name__)

# Steps between two checks of the losses. They stay on the device meanwhile, so that a GPU need not wait at each step.
LOSS_CHECK_STEPS = {"cpu": 1, "cuda": 50}


@dataclass(frozen=True)
class _Training:
    """The arguments of one training."""

    model: Model
    seeds: tuple[int, ...]
    """One per model."""
    data: TrainingData
    options: TrainOptions
    out_dir: Path
    description: str
    precision_file: Path | None
    checkpoint_epochs: int = 1


def train(
    model: nn.Module,
    inputs: InputSource,
    objective: Objective,
    options: TrainOptions,
    out_dir: Path,
    *,
    dev: DevSet | None = None,
    frame_ids: Tensor | None = None,
    description: str = "train",
    precision_file: Path | None = None,
    augment: Augmentation | None = None,
    extra: ExtraExamples | None = None,
) -> TrainResult:
    """Train `model` in place and leave it with the weights of its best epoch.

    `model` is an AcousticDnn, or any module from inputs [N, D] to logits [N, S] (`asrkd.nnet.modules`).
    `frame_ids` [n] are the examples of `inputs` to train on, all if None. Without a development set the last epoch is
    the best. `out_dir` gets checkpoint.safetensors after every epoch, from which a killed training resumes to the same
    bits, and at the end model.safetensors and history.json. A finished training is loaded and not run again.
    `precision_file` records the precision that "auto" chose (`resolve_precision`): trainings that share the file share
    the choice. `augment` distorts the inputs at random, never those of the development set. With `extra` an epoch has
    the examples in front of these, and some of these, which may have no label. Reverberation reads `augment.history`
    frames more in front of each window of `inputs` than the model and the development set.

    Under torchrun every process makes the same call. It may load only some of the inputs, and computes its part of
    each batch; the main process writes. A checkpoint can be resumed by another number of processes.

    Raises:
        InputError: the data do not fit the model, or a loss is not finite (the message has the epoch and the step).
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    data = TrainingData.create(inputs, objective, frame_ids, dev, augment, out_dir, extra)
    single = model if isinstance(model, (AcousticDnn, ModuleModel)) else ModuleModel.of(model, data.input_dim)
    return _train(_Training(single, (options.seed,), data, options, out_dir, description, precision_file))


def train_stacked(
    ensemble: StackedEnsemble,
    seeds: Sequence[int],
    inputs: InputSource,
    objective: Objective,
    options: TrainOptions,
    out_dir: Path,
    *,
    frame_ids: Tensor | None = None,
    description: str = "train",
    precision_file: Path | None = None,
    checkpoint_epochs: int = 1,
    augment: Augmentation | None = None,
) -> TrainResult:
    """Train the members of `ensemble` in place, each as `train` would train it alone with its seed in `options`.

    Member m draws its data order, augmentation and dropout from seeds[m]. A step takes a batch of each member, so that
    several small networks keep the device busy. There is no development set, because members would have different best
    epochs: the last epoch is the result. A checkpoint is written every `checkpoint_epochs` epochs, for those of a stack
    are large.

    Raises:
        InputError: as `train`; a seed is missing or superfluous; members have different dropout or max-norm.
    """
    if not ensemble.same_options:
        raise InputError("training: expected members of one dropout and max-norm, found several in the stack")
    if len(seeds) != ensemble.num_members:
        raise InputError(f"training: expected a seed for each of {ensemble.num_members} members, found {len(seeds)}")
    data = TrainingData.create(inputs, objective, frame_ids, augment=augment)
    return _train(
        _Training(ensemble, tuple(seeds), data, options, Path(out_dir), description, precision_file, checkpoint_epochs)
    )


def _train(training: _Training) -> TrainResult:
    model, options, out_dir = training.model, training.options, training.out_dir
    training.data.check(model, options)
    out_dir.mkdir(parents=True, exist_ok=True)
    ranks = ProcessGroup.from_environment()
    device = ranks.device(resolve_device(options.device))
    model.to(device)
    if device.type == "cpu":
        release_freed_memory()  # of what the process did before
        keep_freed_memory()
    run_fingerprint = training_fingerprint(model, training.seeds, training.data, options)
    with cpu_threads(options.num_threads), ranks.joined(device):
        finished = load_result(out_dir, run_fingerprint, model)
        ranks.require_same((run_fingerprint, finished is not None), f"{out_dir}: the training's data and options")
        if finished is not None:
            return finished
        precision = _agree_on_precision(training, run_fingerprint, ranks, device)
        state = _build_state(training, ranks, device, precision)
        progress = load_checkpoint(out_dir, run_fingerprint, state)
        ranks.require_same(len(progress.history), f"{out_dir}: finished epochs")
        with _global_generators(model, device):
            _run_epochs(training, run_fingerprint, state, progress)
        model.load_state_dict(progress.best_weights)
        model.eval()
        if ranks.is_main:
            save_result(out_dir, run_fingerprint, model, progress, precision)
        ranks.require_same(len(progress.history), f"{out_dir}: finished epochs")  # after it all can read the model
    return TrainResult(progress.history, progress.best_epoch, out_dir / MODEL_NAME, precision)


def _agree_on_precision(training: _Training, run_fingerprint: str, ranks: ProcessGroup, device: torch.device) -> str:
    """The precision in which the training started, or starts now: the main process chooses for all."""

    def resolve() -> str:
        return resolve_precision(training.options.precision, device, training.precision_file)

    precision = start_precision(training.out_dir, run_fingerprint, resolve) if ranks.is_main else ""
    return ranks.broadcast(precision)


def _build_state(training: _Training, ranks: ProcessGroup, device: torch.device, precision: str) -> TrainingState:
    model, options, data = training.model, training.options, training.data
    # A module of another architecture may do what a graph cannot contain.
    use_cuda_graph = not isinstance(model, ModuleModel) and can_use_cuda_graph(data, options, ranks, device)
    sharded = ShardedData.create(data, options, ranks, device, precision)
    batch_shard = BatchShard.create(ranks, data, len(training.seeds), device)
    generators = tuple(
        ModelGenerators.create(seed, sharded.inputs_device, device, batch_shard.dropout_purpose)
        for seed in training.seeds
    )
    step_generators = [generator for one in generators for generator in (one.augmentation, one.dropout)]
    return TrainingState(
        model=model,
        average=copy.deepcopy(model).eval() if options.average_decay else None,
        network=compile_model(model, ranks) if options.compile else ranks.wrap(model),
        optimizer=make_optimizer(model, options, use_cuda_graph),
        data=sharded,
        dev=data.dev,
        options=options,
        device=device,
        precision=precision,
        generators=generators,
        batch_shard=batch_shard,
        cuda_graph=CudaGraphStep(step_generators, device) if use_cuda_graph else None,
    )


def _run_epochs(training: _Training, run_fingerprint: str, state: TrainingState, progress: Progress) -> None:
    """Continue from `progress` to the last epoch, or until patience ends, and write the checkpoints."""
    options, is_main = state.options, state.batch_shard.ranks.is_main
    bar = tqdm(
        total=state.num_steps,
        initial=len(progress.history) * state.steps_per_epoch,
        desc=training.description,
        unit="step",
        disable=not (options.show_progress and is_main),
        position=bar_line(),
    )
    with bar:
        for epoch in range(len(progress.history), options.epochs):
            if _out_of_patience(progress, options):
                break
            progress.history.append(_train_and_evaluate(state, epoch, progress.history, bar))
            if _is_best(progress, options):
                progress.best_epoch = epoch
                weights = state.evaluated_model.state_dict()
                progress.best_weights = {name: weight.detach().clone() for name, weight in weights.items()}
            if (epoch + 1) % training.checkpoint_epochs == 0 and is_main:
                save_checkpoint(training.out_dir, run_fingerprint, state, progress)
            summary = _epoch_summary(progress.history[-1])
            bar.set_postfix_str(summary)
            if is_main:
                logger.info("%s: %s", training.description, _epoch_line(progress.history[-1], options))


def _global_generators(model: Model, device: torch.device) -> AbstractContextManager[None]:
    """Restores torch's global generators, from which other modules draw, after the block."""
    if not isinstance(model, ModuleModel):
        return nullcontext()
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])  # type: ignore[no-any-return]


def _train_and_evaluate(state: TrainingState, epoch: int, history: list[dict[str, Any]], bar: tqdm) -> dict[str, Any]:
    """Train for one epoch and evaluate; the epoch's entry in the history."""
    start = time.perf_counter()
    train_loss = run_epoch(state, epoch, history, bar)
    seconds = time.perf_counter() - start
    accuracy, cross_entropy = None, None
    if state.dev is not None:
        accuracy, cross_entropy = state.batch_shard.evaluate(state.evaluated_model, state.dev)
    last_step = (epoch + 1) * state.steps_per_epoch - 1
    return {
        "epoch": epoch,
        "train_loss": train_loss,
        "dev_loss": cross_entropy,
        "dev_accuracy": accuracy,
        "lr": learning_rate_at(state.options, last_step, state.num_steps, history),
        "seconds": seconds,
        "frames_per_sec": state.frames_per_epoch / seconds,
    }


def run_epoch(state: TrainingState, epoch: int, history: list[dict[str, Any]], bar: tqdm) -> float:
    """One pass over the training frames, in the order of (seed, epoch); the mean training loss."""
    losses = torch.zeros(state.steps_per_epoch, device=state.device)
    check_steps = LOSS_CHECK_STEPS[state.device.type]
    state.model.train()
    if isinstance(state.model, ModuleModel):
        seed_global(state.generators[0].dropout_seed(epoch), state.device)
    step = 0
    for shard, ids in epoch_batches(state, epoch):
        rate = learning_rate_at(state.options, epoch * state.steps_per_epoch + step, state.num_steps, history)
        losses[step] = run_step(state, shard, ids, rate)
        step += 1  # noqa: SIM113 - enumerate would hold a reference to the last shard and so its memory
        if step % check_steps == 0 or step == state.steps_per_epoch:
            _check_losses(losses[:step], epoch)
        bar.update(1)
        del shard, ids  # perhaps the shard's last batch: free its memory, because another shard is loading
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
    """The end of the progress bar."""
    text = f"epoch {epoch['epoch'] + 1}: loss {epoch['train_loss']:.4f}"
    if epoch["dev_accuracy"] is not None:
        text += f", dev accuracy {epoch['dev_accuracy']:.4f}"
    return text


def _epoch_line(epoch: dict[str, Any], options: TrainOptions) -> str:
    """A line of the log: one epoch's entry in the history."""
    text = f"epoch {epoch['epoch'] + 1} of {options.epochs}: train loss {epoch['train_loss']:.4f}"
    if epoch["dev_accuracy"] is not None:
        text += f", dev accuracy {epoch['dev_accuracy']:.4f}, dev cross-entropy {epoch['dev_loss']:.4f}"
    rate = f", learning rate {epoch['lr']:.3g}"
    return f"{text}{rate}, {epoch['seconds']:.1f} s, {epoch['frames_per_sec']:.0f} frames/s"
