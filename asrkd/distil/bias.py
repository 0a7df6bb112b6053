"""Repair class biases that a transfer set got wrong (Hinton et al. 2015, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asrkd.errors import InputError


def tune_shift(
    logits: Tensor, labels: Tensor, classes: Sequence[int], shifts: Sequence[float]
) -> tuple[float, list[int]]:
    """The shift of the biases of `classes` with the fewest errors, and the errors at each of `shifts`.

    Of equally good shifts the middle one is taken. logits [N, S], labels [N].
    """
    errors = []
    for shift in shifts:
        moved = logits.clone()
        moved[:, list(classes)] += shift
        errors.append(int((moved.argmax(dim=1) != labels).sum()))
    fewest = [index for index, count in enumerate(errors) if count == min(errors)]
    return shifts[fewest[len(fewest) // 2]], errors


def match_prior(logits: Tensor, prior: Tensor, tolerance: float = 1e-6, max_iterations: int = 1000) -> Tensor:
    """Bias shifts [S], of mean zero, after which the mean posterior of logits [N, S] is `prior` [S].

    No labels are needed, only the class frequencies. The shifts maximise the concave function
    prior . b - mean_n logsumexp(z_n + b), whose gradient is prior minus the mean posterior, so they are
    unique up to a constant; damped Newton steps find them. InputError if they are not found.
    """
    if prior.shape != logits.shape[1:] or bool((prior <= 0).any()):
        raise InputError(f"prior: expected {logits.shape[1]} positive values, found {prior.tolist()}")
    logits = logits.double()
    prior = prior.double() / prior.double().sum()
    shift = torch.zeros_like(prior)
    for _ in range(max_iterations):
        probs = torch.softmax(logits + shift, dim=1)
        gradient = prior - probs.mean(dim=0)
        if float(gradient.abs().max()) < tolerance:
            return shift - shift.mean()
        shift = _ascend(logits, prior, shift, probs, gradient)
    raise InputError(
        f"prior: no biases match it after {max_iterations} steps, class {int(gradient.abs().argmax())} "
        f"is {float(gradient.abs().max()):.2g} off"
    )


def _ascend(logits: Tensor, prior: Tensor, shift: Tensor, probs: Tensor, gradient: Tensor) -> Tensor:
    """One Newton step, halved until the objective rises."""
    hessian = torch.diag(probs.mean(dim=0)) - probs.t() @ probs / len(probs)
    # The objective is flat along the constant vector; a small ridge makes the system solvable there.
    ridge = 1e-9 * float(hessian.diagonal().mean()) + 1e-30
    step = torch.linalg.solve(hessian + ridge * torch.eye(len(prior), dtype=prior.dtype), gradient)
    step = step - step.mean()

    def value(b: Tensor) -> float:
        return float(prior @ b - torch.logsumexp(logits + b, dim=1).mean())

    start = value(shift)
    for halvings in range(40):
        candidate = shift + step * 0.5**halvings
        if value(candidate) > start:
            return candidate
    # Newton has no rise left to offer (saturated posteriors): iterative scaling always points upwards.
    return shift + 0.5 * (prior.log() - probs.mean(dim=0).clamp(min=1e-300).log())
