"""The optimiser of a training, and its learning rate at each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw  # type: ignore[attr-defined]  # torch 1.13's stub does not name it

from asrkd.nnet.options import TrainOptions

# Values that are updated together, 1 MB of each tensor: the kernels of one update then find them in the processor's
# cache. On two cores, 8.6 M weights take 10 ms instead of 16.
BLOCK_SIZE = 1 << 18


class BlockwiseAdamW(torch.optim.AdamW):
    """torch's AdamW on a CPU without its fused kernel: the same ten kernels, block by block, and the same bits."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all weights that have gradients; the loss of `closure`, which computes it and them anew."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    self._update(weights, weights.grad, group)
        return loss

    def _update(self, weights: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weights]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weights), torch.zeros_like(weights)
        tensors = (weights, gradient, state["exp_avg"], state["exp_avg_sq"])
        if weights.is_contiguous():  # so are the moments; a gradient that is not is copied
            blocks = [list(tensor.reshape(-1).split(BLOCK_SIZE)) for tensor in tensors]
        else:
            blocks = [[tensor] for tensor in tensors]
        steps = [state["step"].clone() for _ in blocks[0]]
        beta1, beta2 = group["betas"]
        adamw(
            *blocks, [], steps, foreach=False, amsgrad=False, beta1=beta1, beta2=beta2,
            lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip
        state["step"].copy_(steps[0])


def make_optimizer(model: nn.Module, options: TrainOptions, cuda_graph: bool = False) -> torch.optim.Optimizer:
    """The optimiser of `options`; biases and the vectors of normalisation layers have no weight decay.

    For a CUDA graph the learning rate is a tensor on the GPU, because a recorded step cannot take a new Python number.
    """
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if _decays(name, p)], "weight_decay": options.weight_decay},
        {"params": [p for name, p in named if not _decays(name, p)], "weight_decay": 0.0},
    ]
    rate = torch.tensor(options.learning_rate, device=named[0][1].device) if cuda_graph else options.learning_rate
    if options.optimizer == "sgd":
        # Only the fused kernel, over all weights at once, reads its rate from memory.
        sgd: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
        sgd = partial(sgd, groups, lr=rate, momentum=options.momentum, nesterov=options.momentum > 0)
        return sgd(fused=True) if cuda_graph else sgd()
    make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    settings: dict[str, Any] = {"lr": rate, "betas": (options.momentum, options.beta2)}
    if cuda_graph:
        return make(groups, fused=True, capturable=True, **settings)
    # One kernel over all weights, if the installed torch has it; otherwise some ten kernels read them one by one.
    if "fused" in inspect.signature(torch.optim.AdamW).parameters:
        with suppress(RuntimeError):  # before torch 2.4 that kernel is for GPUs alone
            return make(groups, fused=True, **settings)
    return BlockwiseAdamW(groups, **settings) if named[0][1].device.type == "cpu" else make(groups, **settings)


def _decays(name: str, parameter: Tensor) -> bool:
    """Whether a parameter has weight decay: a matrix has, or a stack of several."""
    return "bias" not in name and "norm" not in name and parameter.dim() > 1


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
