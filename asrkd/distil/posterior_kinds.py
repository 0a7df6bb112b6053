"""What the numbers of a posterior file are: checked against what they are declared to be, and made logits."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.errors import InputError

Kind = Literal["log-posteriors", "probabilities", "logits"]

# Largest error of the log of a frame's sum of posteriors, nats: float16 files of thousands of classes are within it.
SUM_TOLERANCE = 0.02
# Median error of the same sum, nats, where another system's log priors, which differ a little from those of the labels,
# were taken off.
PRIOR_TOLERANCE = 0.3
# Frames of an utterance from which its rows show a common property that single rows have by chance.
MIN_ROWS = 20
# A probability of zero becomes at most the one, and the smallest other one of the utterance divided by the other.
LARGEST_FLOOR = 1e-10
LEAST_OVER_FLOOR = 1000.0
LOG_POSTERIORS = "log-posteriors: --kind log-posteriors"
OTHER_BASES = {10: "base 10", 2: "base 2"}


class Logits(NamedTuple):
    """An utterance's posteriors as students use them."""

    logits: Tensor
    """Logits or natural log-posteriors [T, S], float32."""
    num_floored: int
    """Probabilities of zero, made small ones."""


def to_logits(values: NDArray[Any], kind: Kind, log_prior: Tensor, where: str) -> Logits:
    """The values [T, S] of a file as logits; `log_prior` [S] is that of the classes, natural log.

    InputError, after `where`, unless they are finite and of the declared kind. Values before the softmax have no
    property of their own: logits are refused where they look like another kind.
    """
    with np.errstate(over="ignore"):  # what is too great is infinite, and refused
        logits = torch.from_numpy(np.array(values, dtype=np.float32))
    exact = torch.from_numpy(np.array(values, dtype=np.float64))
    if kind == "logits":
        _require_finite(logits, kind, where)
        _refuse_other_kinds(exact, log_prior, where)
        return Logits(logits, 0)
    log_posteriors = kind == "log-posteriors"
    is_zero = exact == -math.inf if log_posteriors else exact == 0
    _require_finite(logits.masked_fill(is_zero, 0), kind, where)
    if not log_posteriors and bool((exact < 0).any()):
        _refuse(exact, log_prior, f"{where}: expected probabilities, found negative values")
    logs = exact if log_posteriors else exact.log()
    log_sums = torch.logsumexp(logs, dim=1)
    frame = int(log_sums.abs().argmax())
    if not abs(float(log_sums[frame])) <= SUM_TOLERANCE:
        expected = "the log of probabilities" if log_posteriors else "probabilities"
        found = f"found a sum of {float(log_sums[frame].exp()):.4g} in frame {frame}"
        _refuse(exact, log_prior, f"{where}: expected {expected} that sum to one, {found}")
    num_floored = int(is_zero.sum())
    if not num_floored:
        return Logits(logits if log_posteriors else logs.float(), 0)
    return Logits(logs.masked_fill(is_zero, _floor(logs)).float(), num_floored)


def _floor(logs: Tensor) -> float:
    """Natural log of what a probability of zero becomes: less than all others of the utterance.

    On posteriors in float16, 85% of which were zeros, a floor of 1e-10 lost least at temperatures of 2 to 10.
    """
    least = float(logs[torch.isfinite(logs)].min())
    return min(math.log(LARGEST_FLOOR), least - math.log(LEAST_OVER_FLOOR))


def _require_finite(values: Tensor, kind: Kind, where: str) -> None:
    is_bad = ~torch.isfinite(values)
    if bool(is_bad.any()):
        frame = int(is_bad.any(dim=1).nonzero()[0])
        raise InputError(f"{where}: expected finite {kind}, found NaN or infinity in frame {frame}")


def _refuse_other_kinds(values: Tensor, log_prior: Tensor, where: str) -> None:
    """InputError where logits are not those of a network before its softmax."""
    is_empty = (values == 0).all(dim=1)
    if values.shape[1] > 1 and bool(is_empty.any()):
        frame = int(is_empty.nonzero()[0])
        raise InputError(
            f"{where}: expected logits, found zeros for all classes in frame {frame} "
            f"({int(is_empty.sum())} such frames; padding?)"
        )
    kind = other_kind(values, log_prior)
    if kind and kind != LOG_POSTERIORS:  # these have the same softmax
        raise InputError(f"{where}: expected logits, the values before the softmax, found what looks like {kind}")


def _refuse(values: Tensor, log_prior: Tensor, problem: str) -> None:
    """InputError with what the values look like, or else with a hint at logits; these are rarely all positive."""
    kind = other_kind(values, log_prior)
    hint = f"these look like {kind}" if kind else "for values before the softmax: --kind logits"
    is_probable = not kind and bool((values >= 0).all())
    raise InputError(problem if is_probable else f"{problem} ({hint})")


def other_kind(values: Tensor, log_prior: Tensor) -> str | None:
    """What values [T, S] look like in all their rows, with what mends it; None: log-posteriors, or nothing known.

    `log_prior` [S]: minus infinity for classes without frames.
    """
    if bool((values >= 0).all()):
        return _non_negative_kind(values)
    if bool((values <= 0).all()):
        if _sums_to_one(values):
            return LOG_POSTERIORS
        for base, name in OTHER_BASES.items():
            if _sums_to_one(values * math.log(base)):
                return f"log-posteriors in {name}: multiply them by {math.log(base):.6f}, --kind log-posteriors"
    seen = torch.isfinite(log_prior)
    posteriors = values[:, seen] + log_prior[seen]
    if len(values) >= MIN_ROWS and float(torch.logsumexp(posteriors, dim=1).abs().median()) <= PRIOR_TOLERANCE:
        return "log-posteriors less the log priors: add the log prior of each senone, --kind log-posteriors"
    return None


def _non_negative_kind(values: Tensor) -> str | None:
    sums = values.sum(dim=1)
    least, greatest = float(sums.min()), float(sums.max())
    if least <= 0:
        return None
    if max(abs(math.log(least)), abs(math.log(greatest))) <= SUM_TOLERANCE:
        return "probabilities: --kind probabilities"
    if len(values) >= MIN_ROWS and math.log(greatest / least) <= SUM_TOLERANCE:
        return f"probabilities times {float(sums.mean()):.4g}: divide them by it, --kind probabilities"
    if _sums_to_one(-values):
        return "negative log-posteriors: change their sign, --kind log-posteriors"
    if len(values) >= MIN_ROWS and float(values.max()) <= 1:
        return "probabilities that do not sum to one: write those of all senones, --kind probabilities"
    return None


def _sums_to_one(log_posteriors: Tensor) -> bool:
    return bool((torch.logsumexp(log_posteriors, dim=1).abs() <= SUM_TOLERANCE).all())
