"""Errors of boundaries, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from asrkd.data.transcripts import SILENCE
from asrkd.hmm.alignment import Segment
from asrkd.scoring.boundaries import BoundaryErrors, boundary_errors, joined

TRUTH = [
    Segment(SILENCE, 0.00, 0.10),
    Segment("a", 0.10, 0.20),
    Segment("b", 0.20, 0.30),
    Segment(SILENCE, 0.30, 0.50),
    Segment("c", 0.50, 0.60),
    Segment(SILENCE, 0.60, 0.70),
]
FOUND = [Segment(SILENCE, 0.0, 0.11), Segment("a", 0.11, 0.18), Segment("x", 0.18, 0.33)]
PAUSE_AND_C = [Segment(SILENCE, 0.33, 0.49), Segment("c", 0.49, 0.62), Segment(SILENCE, 0.62, 0.70)]


def test_starts_and_ends_before_pauses_are_counted_by_hand() -> None:
    errors = boundary_errors(TRUTH, [*FOUND, *PAUSE_AND_C])
    assert errors.late_sec == pytest.approx([0.01, -0.02, 0.03, -0.01, 0.02])
    found = errors.as_json()
    assert found["boundaries"] == 5
    assert found["mean_ms"] == pytest.approx(18.0)
    assert found["median_ms"] == pytest.approx(20.0)
    assert found["median_late_ms"] == pytest.approx(10.0)
    assert [found[f"within_{limit}_ms"] for limit in (10, 20, 30)] == [0.4, 0.8, 1.0]


def test_a_pause_that_the_alignment_has_and_people_do_not_is_no_boundary() -> None:
    hesitant = [*FOUND[:2], Segment(SILENCE, 0.18, 0.19), Segment("x", 0.19, 0.33), *PAUSE_AND_C]
    assert boundary_errors(TRUTH, hesitant).late_sec == pytest.approx([0.01, -0.01, 0.03, -0.01, 0.02])


def test_boundaries_of_a_phone_that_was_not_found_are_outside_every_limit() -> None:
    errors = boundary_errors(TRUTH, [*FOUND[:2], Segment("b", 0.18, 0.33)])
    assert list(np.isfinite(errors.late_sec)) == [True, True, True, False, False]
    assert errors.as_json()["mean_ms"] == pytest.approx(20.0)
    assert errors.as_json()["median_late_ms"] == pytest.approx(10.0), "of those found: 10, -20 and 30 ms"
    assert errors.within(1000.0) == 0.6


def test_where_no_phone_was_found_there_are_no_errors_to_tell() -> None:
    errors = boundary_errors(TRUTH, [Segment("zz", 0.0, 0.70)]).as_json()
    assert errors["mean_ms"] is None and errors["median_late_ms"] is None and errors["within_30_ms"] == 0.0


def test_boundaries_of_a_phone_that_the_models_lack_are_not_counted() -> None:
    glottal = [TRUTH[0], Segment("q", 0.10, 0.15), Segment("a", 0.15, 0.20), *TRUTH[2:]]
    errors = boundary_errors(glottal, [*FOUND, *PAUSE_AND_C], unknown={"q"})
    assert errors.late_sec == pytest.approx([-0.02, 0.03, -0.01, 0.02])


def test_utterances_are_joined() -> None:
    assert joined([BoundaryErrors(np.array([0.01])), BoundaryErrors(np.array([-0.02, 0.0]))]).late_sec.size == 3
