"""Cross-entropy over many classes, in the arithmetic of the logits, without a float32 matrix beside them."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Values of the rows that are worked on at once: what stays in a core's cache from one pass to the next; on a GPU
# without a compiler, what keeps it busy and its memory free of a float32 matrix.
CHUNK_VALUES = {"cpu": 1 << 18, "cuda": 1 << 24}
# A matrix of fewer values is not worth the seconds that a compilation takes.
LEAST_COMPILED_VALUES = 1 << 22
# Shapes that are: processes that share batches by what they hold meet another one at nearly every step.
MOST_COMPILED_SHAPES = 4
_compiled_shapes: set[torch.Size] = set()


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows of -log softmax(logits [B, S]) of labels [B], a scalar; see `top_k_cross_entropy`."""
    kind = accumulated(logits)
    certain = torch.ones(len(labels), 1, dtype=kind, device=logits.device)
    return top_k_cross_entropy(logits, labels.unsqueeze(1), certain, certain.new_zeros(len(labels)))


def top_k_cross_entropy(
    logits: Tensor, class_ids: Tensor, probs: Tensor, tail: Tensor, temperature: float = 1.0
) -> Tensor:
    """Mean over rows of the cross-entropy between targets and q = softmax(logits [B, S] / temperature), a scalar.

    The targets have probs [B, k] on the distinct classes class_ids [B, k], and the mass tail [B] somewhere in the
    others, which count as one class:

        L = - sum_K p_i log q_i  -  r log (1 - sum_K q_i)

    Logits may be bfloat16: sums and the loss are float32 (float64 of float64), while every matrix [B, S] has the
    logits' own type: over 14,000 senones float32 copies would move more bytes than all the rest of the loss.
    """
    return _TopKCrossEntropy.apply(logits, class_ids, probs, tail, temperature)


def accumulated(logits: Tensor) -> torch.dtype:
    """The type that sums over these logits are made in."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


class _TopKCrossEntropy(torch.autograd.Function):
    """dL/dz is (q_i - p_i)/T in K and (q_j - r q_j / q_tail)/T elsewhere.

    The latter is the softmax of the others alone times (q_tail - r)/T, exact also where q_tail is lost beside one.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, class_ids: Tensor, probs: Tensor, tail: Tensor, temperature: float) -> Tensor:
        kind = accumulated(logits)
        probs, tail = probs.to(kind), tail.to(kind)
        # A number in a tensor: torch.compile makes another kernel for every Python number it is given.
        divisor = torch.full((), temperature, dtype=kind, device=logits.device)
        top = logits.gather(1, class_ids).to(kind) / divisor
        others = logits.scatter(1, class_ids, -math.inf)
        log_others = _by_rows(_log_sum_exp, others, divisor)
        log_all = torch.logaddexp(log_others, torch.logsumexp(top, dim=1))
        log_q_top = top - log_all.unsqueeze(1)
        log_q_tail = log_others - log_all
        excesses = log_q_tail.exp() - tail, log_q_top.exp() - probs
        ctx.save_for_backward(others, log_others, class_ids, *excesses, divisor)
        # Where k = S the others' mass is zero, and so, but for rounding, is r: a floor keeps r log 0 from counting.
        floor = math.log(torch.finfo(kind).tiny)
        return (-(probs * log_q_top).sum(dim=1) - tail * log_q_tail.clamp(min=floor)).mean()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        others, log_others, class_ids, excess, top_excess, divisor = ctx.saved_tensors
        scale = grad_output / (divisor * len(others))
        gradient = _by_rows(_spread, others, divisor, log_others, excess * scale)
        gradient.scatter_(1, class_ids, (top_excess * scale).to(gradient.dtype))
        return gradient, None, None, None, None


def _log_sum_exp(logits: Tensor, divisor: Tensor) -> Tensor:
    """[b]; the least number there is, not -inf, where all logits are -inf: differences from it are no NaN."""
    total = torch.logsumexp(logits.to(accumulated(logits)) / divisor, dim=1)
    return total.clamp(min=torch.finfo(total.dtype).min)


def _spread(logits: Tensor, divisor: Tensor, log_sum: Tensor, weight: Tensor) -> Tensor:
    """Softmax [b, S] of each row, times its weight [b]."""
    scaled = logits.to(log_sum.dtype) / divisor
    return (torch.exp(scaled - log_sum.unsqueeze(1)) * weight.unsqueeze(1)).to(logits.dtype)


def _by_rows(function: Callable[..., Tensor], logits: Tensor, divisor: Tensor, *others: Tensor) -> Tensor:
    """`function` of all rows of logits [B, S] and of others [B]: on a GPU as one or two kernels, which keep float32 in
    registers; else some rows at a time."""
    if logits.is_cuda and logits.numel() >= LEAST_COMPILED_VALUES and _may_compile(logits.shape) and _can_compile():
        return _compiled(function)(logits, divisor, *others)
    num_rows = max(1, CHUNK_VALUES[logits.device.type] // logits.shape[1])
    if len(logits) <= num_rows:
        return function(logits, divisor, *others)
    chunks = zip(*(part.split(num_rows) for part in (logits, *others)), strict=True)
    return torch.cat([function(rows, divisor, *more) for rows, *more in chunks])


def _may_compile(shape: torch.Size) -> bool:
    """Whether this shape is among the first ones met."""
    if len(_compiled_shapes) < MOST_COMPILED_SHAPES:
        _compiled_shapes.add(shape)
    return shape in _compiled_shapes


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # For each shape anew: a kernel for any shape, made when a second one comes, took ten times as long.
    return torch.compile(function, dynamic=False)  # type: ignore[attr-defined,no-any-return]


@functools.cache
def _can_compile() -> bool:
    """Whether torch.compile works on this machine's GPU, tried once: it needs torch 2, Triton and a C compiler."""
    if not hasattr(torch, "compile"):
        return False
    rows = torch.zeros(2, 2, dtype=torch.bfloat16, device="cuda")
    try:
        _compiled(_log_sum_exp)(rows, torch.ones((), device="cuda"))
    except Exception as error:  # noqa: BLE001 - of any kind, from Triton, the C compiler or the driver
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        logger.warning("torch.compile does not work on this GPU (%s): the loss takes its slower way", reason)
        return False
    return True
