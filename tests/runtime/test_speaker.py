"""What is remembered of a speaker: his words, as much as half a minute of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asrkd.runtime.acoustic import Statistics
from asrkd.runtime.package import Normalisation
from asrkd.runtime.speaker import MOST_FRAMES, Speaker

PRIOR = Normalisation("speaker", (1.0, 2.0), (2.0, 5.0), 300.0)
FEATS = np.random.default_rng(0).normal(3.0, 1.0, (500, 2)).astype(np.float32)


class Acoustic:
    """Keeps the statistics that it is given."""

    def __init__(self, kind: str) -> None:
        values = {"kind": kind, "mean": PRIOR.mean, "mean_square": PRIOR.mean_square, "prior_frames": 300.0}
        self.description: Any = SimpleNamespace(normalisation=Normalisation(**values))  # type: ignore[arg-type]
        self.given: list[Statistics | None] = []

    def scores(self, feats: np.ndarray, statistics: Statistics | None = None) -> np.ndarray:
        self.given.append(statistics)
        return feats

    def stream(self, statistics: Statistics) -> Any:
        self.given.append(statistics)
        return SimpleNamespace(accept=lambda feats: feats[:-5], finish=lambda: FEATS[-5:])


def given(kind: str, *heard: np.ndarray) -> Statistics | None:
    """The statistics for FEATS after segments were heard."""
    acoustic = Acoustic(kind)
    speaker = Speaker(acoustic)  # type: ignore[arg-type]
    for feats in heard:
        speaker.add(feats)
    assert np.array_equal(speaker.scores(FEATS), FEATS)
    (statistics,) = acoustic.given
    return statistics


def test_each_kind_of_normalisation() -> None:
    prior, own = Statistics.prior(PRIOR), Statistics.of(FEATS)
    by_speaker = given("speaker")
    assert by_speaker is not None and np.array_equal(by_speaker.sums, (prior + own).sums)
    online = given("online")
    assert online is not None and np.array_equal(online.sums, prior.sums)
    assert given("utterance", FEATS) is None


def test_segments_are_remembered() -> None:
    expected = Statistics.prior(PRIOR) + Statistics.of(FEATS[:200]) + Statistics.of(FEATS[200:])
    found = given("online", FEATS[:200], FEATS[200:])
    assert found is not None and found.count == 800.0
    assert found.sums == pytest.approx(expected.sums)


def test_half_a_minute_is_remembered() -> None:
    """A second voice counts as much as all before it, and the training speech as much as ever."""
    found = given("online", *[FEATS] * 50, *[FEATS + 10.0] * 6)
    assert found is not None and found.count == pytest.approx(300.0 + MOST_FRAMES)
    mean = (found.sums[0] - Statistics.prior(PRIOR).sums[0]) / MOST_FRAMES
    assert (mean > FEATS.mean(axis=0) + 5.0).all() and (mean < FEATS.mean(axis=0) + 10.0).all()
