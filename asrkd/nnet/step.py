"""One step of the optimiser: a batch of each model forward, backward and into the weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn

from asrkd.nnet.models import AcousticDnn, Model, StackedEnsemble
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.run import Run
from asrkd.nnet.shards import Examples


def make_optimizer(model: nn.Module, options: TrainOptions, capturable: bool = False) -> torch.optim.Optimizer:
    """The optimiser of `options`; biases are not decayed. A capturable one takes its rate from the GPU's memory."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if "bias" not in name], "weight_decay": options.weight_decay},
        {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
    ]
    rate = torch.tensor(options.learning_rate, device=named[0][1].device) if capturable else options.learning_rate
    if options.optimizer == "sgd":
        # The kernel over all weights at once is the one that reads its rate from memory.
        sgd: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
        sgd = partial(sgd, groups, lr=rate, momentum=options.momentum, nesterov=options.momentum > 0)
        return sgd(fused=True) if capturable else sgd()
    adamw: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    adamw = partial(adamw, groups, lr=rate, betas=(options.momentum, options.beta2))
    if capturable:
        return adamw(fused=True, capturable=True)
    # One kernel over all weights, where the installed torch has it; otherwise some ten that each read them anew.
    if "fused" in inspect.signature(torch.optim.AdamW).parameters:
        with suppress(RuntimeError):  # before torch 2.4 it has that kernel for GPUs alone
            return adamw(fused=True)
    return adamw()


def run_step(run: Run, examples: Examples, ids: Sequence[Tensor], rate: float) -> Tensor:
    """One step at this learning rate on examples ids [b] of each model, this process' part of its batch; the mean loss
    over the whole batch, detached."""
    _set_rate(run.optimizer, rate)
    step = partial(_learn, run, examples)
    return step(ids) if run.captured is None else run.captured(step, ids)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _learn(run: Run, examples: Examples, ids: Sequence[Tensor]) -> Tensor:
    inputs = [
        run.share.take(examples.inputs, mine, member.augmentation) for mine, member in zip(ids, run.draws, strict=True)
    ]
    # Every weight is used once: autocast need not keep what it made of it.
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16", cache_enabled=False):
        logits = _forward(run, [x.to(run.device) for x, _ in inputs])
    loss = _loss_of_part(run, examples, logits, torch.cat([mine for _, mine in inputs]))
    run.optimizer.zero_grad(set_to_none=True)
    # The mean over all examples is 1/M of the sum of the members' means: each gets the gradient of its own. So is the
    # mean over the processes, which is what the gradients come to.
    loss.backward(torch.full_like(loss, len(ids) * run.share.ranks.size))
    if run.options.clip_norm is not None:
        _clip_gradients(run.model, run.options.clip_norm)
    run.optimizer.step()
    run.model.project_()
    if run.averaged is not None:
        _update_average(run.averaged, run.model, run.options.average_decay)
    return run.share.ranks.total(loss.detach())


def _forward(run: Run, inputs: Sequence[Tensor]) -> Tensor:
    """Logits [M b, S] of all members, one after the other, for the inputs [b, D] of each."""
    dropout = [member.dropout for member in run.draws]
    if isinstance(run.model, AcousticDnn):
        return run.network(inputs[0], dropout[0])
    return run.network(torch.stack(tuple(inputs)), dropout).flatten(0, 1)


def _loss_of_part(run: Run, examples: Examples, logits: Tensor, ids: Tensor) -> Tensor:
    """The mean loss of these examples, weighed by what part of the whole batch they are."""
    if run.share.ranks.size == 1:
        return examples.objective(logits, ids)
    if len(ids) == 0:  # of a batch it holds nothing of: its gradient is zero, but the others wait for it
        return 0.0 * logits.sum(dtype=torch.float32)
    return examples.objective(logits, ids) * (len(ids) / (run.frames_per_step * len(run.draws)))


def _clip_gradients(model: Model, limit: float) -> None:
    if isinstance(model, StackedEnsemble):
        model.clip_gradients_(limit)
    else:
        nn.utils.clip_grad_norm_(model.parameters(), limit)


@torch.no_grad()
def _update_average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for average, current in zip(averaged.parameters(), model.parameters(), strict=True):
        average.lerp_(current, 1.0 - decay)
