"""Doubtful transcripts: what is far below its split, however few utterances there are."""

from __future__ import annotations

import numpy as np
import pytest

from asrkd.align.doubtful import MIN_DEVIATION, TypicalFit


def test_a_wrong_transcript_does_not_move_what_is_typical() -> None:
    good = np.random.default_rng(0).normal(4.0, 0.4, 400)
    fit, spoilt = TypicalFit.of(good), TypicalFit.of(np.append(good, [-2.0] * 20))
    assert fit.median == pytest.approx(4.0, abs=0.05) and fit.deviation == pytest.approx(0.4, abs=0.04)
    assert spoilt.median == pytest.approx(fit.median, abs=0.05) and spoilt.deviation < 1.2 * fit.deviation
    below = spoilt.deviations_below(np.append(good, -2.0))
    assert below[-1] > 10 and below[:-1].max() < 4


def test_a_few_equal_utterances_do_not_make_another_doubtful() -> None:
    per_frame = np.array([4.0, 4.0, 4.0, 3.5])
    fit = TypicalFit.of(per_frame)
    assert fit.deviation == MIN_DEVIATION
    assert fit.deviations_below(per_frame).tolist() == [0.0, 0.0, 0.0, 2.0]
