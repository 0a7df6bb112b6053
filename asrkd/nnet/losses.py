"""Cross-entropy over many classes, in the precision of the logits: no float32 copy of a [B, S] matrix is made."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

# Values of the rows that are processed together. On a CPU they stay in a core's cache between two passes; on a GPU
# without a compiler they keep it busy, without the memory of a whole float32 matrix.
CHUNK_VALUES = {"cpu": 1 << 18, "cuda": 1 << 24}
# A smaller matrix does not pay for the seconds of a compilation.
MIN_COMPILED_VALUES = 1 << 22
# At most this many shapes are compiled: with torchrun the batch of a process has another size at nearly every step.
MAX_COMPILED_SHAPES = 4
NO_CLASS = -1  # of examples without a label
_compiled_shapes: set[torch.Size] = set()


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows of -log softmax(logits [B, S]) of labels [B], a scalar; see `top_k_cross_entropy`."""
    kind = accumulation_dtype(logits)
    certain = torch.ones(len(labels), 1, dtype=kind, device=logits.device)
    return top_k_cross_entropy(logits, labels.unsqueeze(1), certain, certain.new_zeros(len(labels)))


def partial_label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over the rows with a label of -log softmax(logits [B, S]) of labels [B], divided by B, a scalar.

    A negative label is none.
    """
    logits = logits.to(accumulation_dtype(logits))
    return F.cross_entropy(logits, labels.clamp(min=NO_CLASS), ignore_index=NO_CLASS, reduction="sum") / len(logits)


def mixed_label_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    others: Tensor,
    weights: Tensor,
    label_smoothing: float = 0.0,
    is_partial: bool = False,
) -> Tensor:
    """Mean over rows of the cross-entropy of logits [B, S] with λ on labels [B] and 1-λ on others [B], a scalar.

    `weights` are λ [B]. Label smoothing e makes that target (1 - e) of it plus e/S on each class. Where labels are
    partial, a negative one is none, and its part of the target is nothing.
    """
    log_q = F.log_softmax(logits.to(accumulation_dtype(logits)), dim=1)
    if is_partial:
        first, second = (_log_prob_of_label(log_q, one) for one in (labels, others))
        return -torch.lerp(second, first, weights.to(log_q.dtype)).mean()
    first, second = (log_q.gather(1, one.unsqueeze(1)).squeeze(1) for one in (labels, others))
    loss = -torch.lerp(second, first, weights.to(log_q.dtype)).mean()
    return (1.0 - label_smoothing) * loss - label_smoothing * log_q.mean() if label_smoothing else loss


def _log_prob_of_label(log_probs: Tensor, labels: Tensor) -> Tensor:
    """log p [B] of labels [B] under log_probs [B, S]; 0 where there is no label."""
    found = log_probs.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(labels < 0, torch.zeros_like(found), found)


def top_k_cross_entropy(
    logits: Tensor, class_ids: Tensor, probs: Tensor, tail: Tensor, temperature: float = 1.0
) -> Tensor:
    """Mean over rows of the cross-entropy between targets p and q = softmax(logits [B, S] / temperature), a scalar.

    In each row the targets have probabilities probs [B, k] on the distinct classes K = class_ids [B, k], and the
    remaining mass r = tail [B] on the other classes, which count as one class:

        L = - sum_{i in K} p_i log q_i  -  r log (1 - sum_{i in K} q_i)

    Logits may be bfloat16. Sums and the loss are then float32 (float64 for float64 logits), while every [B, S] matrix
    has the type of the logits: over 14,000 senones, float32 copies would move more bytes than all the rest of the loss.
    """
    return _TopKCrossEntropy.apply(logits, class_ids, probs, tail, temperature)


def accumulation_dtype(logits: Tensor) -> torch.dtype:
    """The type in which sums over these logits accumulate."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


class _TopKCrossEntropy(torch.autograd.Function):
    """dL/dz is (q_i - p_i)/T for i in K and (q_j - r q_j / q_tail)/T for the other classes j.

    The latter is computed as the softmax over the other classes alone, times (q_tail - r)/T. That is exact even where
    q_tail is below the resolution of 1 - q_tail.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, class_ids: Tensor, probs: Tensor, tail: Tensor, temperature: float) -> Tensor:
        kind = accumulation_dtype(logits)
        probs, tail = probs.to(kind), tail.to(kind)
        # A tensor, because torch.compile makes another kernel for every Python number.
        divisor = torch.full((), temperature, dtype=kind, device=logits.device)
        top = logits.gather(1, class_ids).to(kind) / divisor
        others = logits.scatter(1, class_ids, -math.inf)
        log_others = _by_rows(_log_sum_exp, others, divisor)
        log_all = torch.logaddexp(log_others, torch.logsumexp(top, dim=1))
        log_q_top = top - log_all.unsqueeze(1)
        log_q_tail = log_others - log_all
        excesses = log_q_tail.exp() - tail, log_q_top.exp() - probs
        ctx.save_for_backward(others, log_others, class_ids, *excesses, divisor)
        # If k = S, q_tail is zero and r is zero up to rounding: the floor keeps r log 0 finite.
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
    """log of the sum of exp(z / T), [b]; the smallest number, not -inf, where all logits are -inf (no NaN later)."""
    total = torch.logsumexp(logits.to(accumulation_dtype(logits)) / divisor, dim=1)
    return total.clamp(min=torch.finfo(total.dtype).min)


def _spread(logits: Tensor, divisor: Tensor, log_sum: Tensor, weight: Tensor) -> Tensor:
    """Softmax [b, S] of each row, times the row's weight [b]."""
    scaled = logits.to(log_sum.dtype) / divisor
    return (torch.exp(scaled - log_sum.unsqueeze(1)) * weight.unsqueeze(1)).to(logits.dtype)


def _by_rows(function: Callable[..., Tensor], logits: Tensor, divisor: Tensor, *others: Tensor) -> Tensor:
    """`function` of all rows of logits [B, S] and of others [B].

    On a GPU it is compiled to one or two kernels, which keep float32 in registers; otherwise some rows at a time.
    """
    if logits.is_cuda and logits.numel() >= MIN_COMPILED_VALUES and _may_compile(logits.shape) and _can_compile():
        return _compiled(function)(logits, divisor, *others)
    num_rows = max(1, CHUNK_VALUES[logits.device.type] // logits.shape[1])
    if len(logits) <= num_rows:
        return function(logits, divisor, *others)
    chunks = zip(*(part.split(num_rows) for part in (logits, *others)), strict=True)
    return torch.cat([function(rows, divisor, *more) for rows, *more in chunks])


def _may_compile(shape: torch.Size) -> bool:
    """Whether this shape is among the first ones seen."""
    if len(_compiled_shapes) < MAX_COMPILED_SHAPES:
        _compiled_shapes.add(shape)
    return shape in _compiled_shapes


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # One kernel per shape: torch's kernel for any shape took ten times as long.
    return torch.compile(function, dynamic=False)  # type: ignore[attr-defined,no-any-return]


@functools.cache
def _can_compile() -> bool:
    """Whether torch.compile works on this GPU, tried once: it needs torch 2, Triton and a C compiler."""
    if not hasattr(torch, "compile"):
        return False
    rows = torch.zeros(2, 2, dtype=torch.bfloat16, device="cuda")
    try:
        _compiled(_log_sum_exp)(rows, torch.ones((), device="cuda"))
    except Exception as error:  # noqa: BLE001 - Triton, the C compiler or the driver may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        logger.warning(
            "torch.compile does not work on this GPU (%s): the loss is computed without it, more slowly", reason
        )
        return False
    return True
