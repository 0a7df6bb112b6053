"""The optimiser of a training, and its learning rate at each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn

from asrkd.nnet.options import TrainOptions


def make_optimizer(model: nn.Module, options: TrainOptions, cuda_graph: bool = False) -> torch.optim.Optimizer:
    """The optimiser of `options`; biases have no weight decay.

    For a CUDA graph the learning rate is a tensor on the GPU, because a recorded step cannot take a new Python number.
    """
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if "bias" not in name], "weight_decay": options.weight_decay},
        {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
    ]
    rate = torch.tensor(options.learning_rate, device=named[0][1].device) if cuda_graph else options.learning_rate
    if options.optimizer == "sgd":
        # Only the fused kernel, over all weights at once, reads its rate from memory.
        sgd: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
        sgd = partial(sgd, groups, lr=rate, momentum=options.momentum, nesterov=options.momentum > 0)
        return sgd(fused=True) if cuda_graph else sgd()
    adamw: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    adamw = partial(adamw, groups, lr=rate, betas=(options.momentum, options.beta2))
    if cuda_graph:
        return adamw(fused=True, capturable=True)
    # One kernel over all weights, if the installed torch has it; otherwise some ten kernels read them one by one.
    if "fused" in inspect.signature(torch.optim.AdamW).parameters:
        with suppress(RuntimeError):  # before torch 2.4 that kernel is for GPUs alone
            return adamw(fused=True)
    return adamw()


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
