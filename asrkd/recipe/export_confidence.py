"""Confidences of an exported model: how often words are right, and the calibration that makes these the same.

Source: Platt, *Probabilistic outputs for support vector machines* (1999), for the two parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from asrkd.recipe.export_check import WordCheck
from asrkd.recipe.scoring import Scoring
from asrkd.runtime.lattice import log_odds
from asrkd.runtime.package import UNCALIBRATED, Calibration

NUM_BINS = 10
FEWEST_WORDS = 100
"""To fit two numbers on."""
RIDGE = 1.0
"""Weight of a slope of 1 and an intercept of 0, in words: a few dozen words say little."""

Outcomes = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""[words] confidence, and whether the word is right."""


def outcomes(check: WordCheck, scoring: Scoring) -> Outcomes:
    """The words that a check recognised. One is right where the alignment with the reference pairs it with itself."""
    values: list[float] = []
    right: list[bool] = []
    for utterance in check.errors.utterances:
        words, confidences = check.words[utterance.utt_id], check.confidences[utterance.utt_id]
        if len(words) != len(confidences):
            continue  # no lattice
        scored = [value for word, value in zip(words, confidences, strict=True) if scoring.fold([word])]
        pairs = [pair for pair in utterance.pairs if pair[1] is not None]
        values += scored
        right += [ref == hyp for ref, hyp in pairs]
    return np.array(values), np.array(right, dtype=bool)


def fit(found: Outcomes) -> Calibration:
    """The calibration of posteriors with the greatest likelihood of what was right and wrong."""
    posteriors, right = found
    if len(right) < FEWEST_WORDS or right.all() or not right.any():
        return UNCALIBRATED
    odds = np.array([log_odds(value) for value in posteriors])

    def loss(parameters: NDArray[np.float64]) -> float:
        slope, intercept = parameters
        values = slope * odds + intercept
        likelihood = -np.logaddexp(0.0, np.where(right, -values, values)).sum()
        return float(-likelihood + RIDGE * ((slope - 1.0) ** 2 + intercept**2))

    slope, intercept = minimize(loss, np.array([1.0, 0.0]), bounds=((0.0, None), (None, None))).x
    return Calibration(float(f"{slope:.4g}"), float(f"{intercept:.4g}"))


def reliability(found: Outcomes) -> dict[str, Any]:
    """How confidences compare with the share of words that are right.

    The calibration error is the mean difference of the two over bins of confidence, weighted by their words (Guo et al.
    2017). Normalised cross-entropy is NIST's: 1 is perfect, 0 is the same confidence for every word.
    """
    values, right = found
    if not len(right):
        return {"words": 0}
    which = np.minimum((values * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = [
        {
            "from": number / NUM_BINS,
            "words": int((which == number).sum()),
            "confidence": float(values[which == number].mean()),
            "right": float(right[which == number].mean()),
        }
        for number in range(NUM_BINS)
        if (which == number).any()
    ]
    error = sum(one["words"] * abs(one["confidence"] - one["right"]) for one in bins) / len(right)
    return {
        "words": len(right),
        "right": float(right.mean()),
        "confidence": float(values.mean()),
        "calibration_error": float(error),
        "normalised_cross_entropy": _normalised_cross_entropy(values, right),
        "bins": bins,
    }


def _normalised_cross_entropy(values: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    share = right.mean()
    if not 0.0 < share < 1.0:
        return None
    clipped = np.clip(values, 1e-6, 1.0 - 1e-6)
    of_words = -np.log(np.where(right, clipped, 1.0 - clipped)).sum()
    of_share = -len(right) * (share * np.log(share) + (1.0 - share) * np.log(1.0 - share))
    return float(1.0 - of_words / of_share)
