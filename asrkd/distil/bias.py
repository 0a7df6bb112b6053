"""Repair the class biases of a student after distillation without some classes (Hinton et al. 2015, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asrkd.errors import InputError


def tune_shift(
    logits: Tensor, labels: Tensor, classes: Sequence[int], shifts: Sequence[float]
) -> tuple[float, list[int]]:
    """The shift of the biases of `classes` that gives the fewest errors, and the errors of each of `shifts`.

    Among equally good shifts it is the middle one. logits [N, S], labels [N].
    """
    errors = []
    for shift in shifts:
        shifted = logits.clone()
        shifted[:, list(classes)] += shift
        errors.append(int((shifted.argmax(dim=1) != labels).sum()))
    fewest = [index for index, count in enumerate(errors) if count == min(errors)]
    return shifts[fewest[len(fewest) // 2]], errors


def match_prior(logits: Tensor, prior: Tensor, tolerance: float = 1e-6, max_iterations: int = 1000) -> Tensor:
    """Bias shifts b [S] with mean zero, with which the mean posterior of logits [N, S] is `prior` [S].

    It needs the class frequencies but no labels. The shifts maximise the concave function

        f(b) = prior . b - mean_n logsumexp(z_n + b)

    with the gradient prior - mean_n softmax(z_n + b). So they are unique up to a constant. Damped Newton steps find
    them. InputError if the prior is not positive, or if `max_iterations` steps do not reach `tolerance`.
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
        f"prior: expected biases that match it within {max_iterations} steps, found none: class "
        f"{int(gradient.abs().argmax())} is {float(gradient.abs().max()):.2g} off"
    )


def _ascend(logits: Tensor, prior: Tensor, shift: Tensor, probs: Tensor, gradient: Tensor) -> Tensor:
    """One Newton step, halved until the objective increases."""
    hessian = torch.diag(probs.mean(dim=0)) - probs.t() @ probs / len(probs)
    # The objective is constant along the vector of ones, so the Hessian is singular: a small ridge makes it solvable.
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
    # No Newton step increases the objective (saturated posteriors): iterative scaling always does.
    return shift + 0.5 * (prior.log() - probs.mean(dim=0).clamp(min=1e-300).log())
