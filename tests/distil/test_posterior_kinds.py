"""What is in a posterior file is recognised by its numbers, and named with what mends it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asrkd.distil.posterior_kinds import Kind, to_logits
from asrkd.errors import InputError

NUM_CLASSES, NUM_FRAMES = 40, 60
LOG_PRIOR = torch.log_softmax(2 * torch.randn(NUM_CLASSES, generator=torch.Generator().manual_seed(2)), 0).double()
LOGITS = 4 * np.random.default_rng(0).standard_normal((NUM_FRAMES, NUM_CLASSES)).astype(np.float32)


def softmax(z: NDArray, temperature: float = 1.0) -> NDArray:
    return torch.softmax(torch.from_numpy(z.copy()) / temperature, dim=1).numpy()


def log_softmax(z: NDArray) -> NDArray:
    return torch.log_softmax(torch.from_numpy(z.copy()), dim=1).numpy()


def imported(values: NDArray, kind: Kind) -> tuple[torch.Tensor, int]:
    return to_logits(values, kind, LOG_PRIOR, "dump: a-1")


@pytest.mark.parametrize(
    ("kind", "change", "tolerance"),
    [
        ("logits", lambda z: z, 0),
        ("logits", lambda z: z.astype(">f8"), 0),
        ("logits", log_softmax, 1e-5),
        ("log-posteriors", log_softmax, 1e-5),
        ("log-posteriors", lambda z: log_softmax(z).astype(np.float16), 1e-2),
        ("probabilities", softmax, 1e-5),
        ("probabilities", lambda z: softmax(z.astype(np.float64)), 1e-5),
        ("probabilities", lambda z: softmax(z).astype(np.longdouble), 1e-5),
    ],
)
def test_every_kind_gives_the_same_posteriors(kind: Kind, change: Callable, tolerance: float) -> None:
    logits, num_floored = imported(change(LOGITS), kind)
    expected = torch.log_softmax(torch.from_numpy(LOGITS), dim=1)
    torch.testing.assert_close(logits.log_softmax(dim=1), expected, atol=tolerance, rtol=0)
    assert logits.dtype == torch.float32 and num_floored == 0


def with_row(change: Callable[[NDArray], NDArray], row: float) -> Callable[[NDArray], NDArray]:
    """What `change` makes, with a row of equal values as frame 7."""

    def changed(z: NDArray) -> NDArray:
        values = change(z).copy()
        values[7] = row
        return values

    return changed


PROBABILITIES = "look.* like probabilities: --kind probabilities"
BASE_10 = "like log-posteriors in base 10: multiply them by 2.302585, --kind log-posteriors"
LESS_PRIORS = "like log-posteriors less the log priors: add the log prior of each senone, --kind log-posteriors"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("logits", softmax, PROBABILITIES),
        ("logits", lambda z: softmax(z).astype(np.float16), PROBABILITIES),
        ("logits", lambda z: softmax(z, 5.0), PROBABILITIES),
        ("logits", lambda z: np.where(softmax(z) < 1e-3, -0.0, softmax(z)).round(4), "like probabilities"),
        ("logits", lambda z: 100 * softmax(z), "like probabilities times 100: divide them by it"),
        ("logits", lambda z: 0.5 * softmax(z) * (1 + np.arange(60)[:, None] / 60), "do not sum to one: write those of"),
        ("logits", lambda z: log_softmax(z) / math.log(10), BASE_10),
        ("logits", lambda z: log_softmax(z) / math.log(2), "log-posteriors in base 2: multiply them by 0.693147"),
        ("logits", lambda z: -log_softmax(z), "like negative log-posteriors: change their sign"),
        ("logits", lambda z: log_softmax(z) - LOG_PRIOR.numpy(), LESS_PRIORS),
        ("logits", with_row(lambda z: z, 0.0), r"found zeros for all classes in frame 7 \(1 such frames; padding"),
        ("logits", with_row(lambda z: z, -math.inf), "expected finite logits, found NaN or infinity in frame 7"),
        ("log-posteriors", softmax, f"found a sum of .* in frame .*{PROBABILITIES}"),
        ("log-posteriors", lambda z: z, "that sum to one, found a sum of .* before the softmax: --kind logits"),
        ("log-posteriors", lambda z: log_softmax(z) / math.log(10), BASE_10),
        ("log-posteriors", lambda z: log_softmax(z) - LOG_PRIOR.numpy(), LESS_PRIORS),
        ("log-posteriors", with_row(log_softmax, -math.inf), "found a sum of 0 in frame 7"),
        ("log-posteriors", with_row(log_softmax, math.nan), "found NaN or infinity in frame 7"),
        ("log-posteriors", lambda z: 1e39 * log_softmax(z).astype(np.float64), "found NaN or infinity in frame 0"),
        ("probabilities", lambda z: z, "found negative values .* before the softmax: --kind logits"),
        ("probabilities", log_softmax, "found negative values .*like log-posteriors: --kind log-posteriors"),
        ("probabilities", lambda z: 100 * softmax(z), "found a sum of 100 in .*times 100: divide them by it"),
        ("probabilities", with_row(softmax, 0.0), "found a sum of 0 in frame 7$"),
        (
            "probabilities",
            with_row(softmax, math.inf),
            "expected finite probabilities, found NaN or infinity in frame 7",
        ),
    ],
)
def test_another_kind_is_named_with_what_mends_it(kind: Kind, change: Callable, message: str) -> None:
    with pytest.raises(InputError, match=rf"dump: a-1: .*{message}"):
        imported(change(LOGITS), kind)


@pytest.mark.parametrize(
    "logits",
    [
        np.maximum(LOGITS, 0.01),  # of a network that ends in a rectifier
        LOGITS - LOGITS.max(),
        LOGITS[:1],
        np.full_like(LOGITS, -3.0),
    ],
)
def test_logits_of_any_range_are_logits(logits: NDArray) -> None:
    assert torch.equal(imported(logits, "logits")[0], torch.from_numpy(logits))


def test_zeros_become_small_and_are_counted() -> None:
    probabilities = softmax(LOGITS).astype(np.float64)
    small = probabilities < 1e-6
    probabilities[small] = -0.0
    with np.errstate(divide="ignore"):
        log_posteriors = np.log(np.abs(probabilities))
    for values, kind in ((probabilities, "probabilities"), (log_posteriors, "log-posteriors")):
        logits, num_floored = imported(values, kind)  # type: ignore[arg-type]
        assert num_floored == small.sum() > 0
        assert bool(torch.isfinite(logits).all())
        assert float(logits[torch.from_numpy(small)].max()) == pytest.approx(math.log(1e-10))
        torch.testing.assert_close(logits.softmax(dim=1), torch.from_numpy(softmax(LOGITS)), atol=1e-5, rtol=0)


def test_a_zero_is_less_than_every_other_posterior() -> None:
    probabilities = np.array([[1.0, 0.0, 1e-30]], dtype=np.float32)
    logits, num_floored = imported(probabilities, "probabilities")
    assert num_floored == 1 and float(logits[0, 1]) < float(logits[0, 2])
