"""Cuts at pauses: by hand, and by properties that hold for any posteriors in parts of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.runtime.segmentation import (
    CutRules,
    DigitalSilence,
    Endpointer,
    EndpointRules,
    PauseCutter,
    Span,
    silence_posteriors,
    sure_of_silence,
)

SHIFT_SEC = 0.01
RULES = CutRules(min_sec=1.0, max_sec=4.0, long_pause_sec=0.5, padding_sec=0.1)
ENDPOINTS = EndpointRules(silence_without_words_sec=0.6, silence_after_words_sec=0.3, max_sec=2.0)


def posteriors(*lengths: int) -> np.ndarray:
    """Speech and silence in turns, beginning with speech."""
    return np.concatenate([np.full(length, float(number % 2)) for number, length in enumerate(lengths)])


def spans_of(silence: np.ndarray, sizes: list[int] | None = None) -> list[Span]:
    cutter = PauseCutter(RULES, SHIFT_SEC)
    parts = np.split(silence, np.cumsum(sizes)) if sizes else [silence]
    return [span for part in parts for span in cutter.accept(part)] + cutter.finish()


def test_a_short_recording_is_one_segment() -> None:
    assert spans_of(posteriors(50, 40, 60)) == [Span(0, 150)]


def test_a_long_pause_ends_a_segment() -> None:
    assert spans_of(posteriors(150, 80, 100)) == [Span(0, 160), Span(220, 330)], "with a tenth of a second around each"
    assert spans_of(posteriors(50, 80, 100)) == [Span(0, 230)], "but not where it would be shorter than a second"


def test_the_longest_pause_ends_a_segment_that_is_too_long() -> None:
    assert spans_of(posteriors(110, 10, 80, 20, 80, 10, 200)) == [Span(0, 210), Span(210, 510)]


def test_speech_without_a_pause_is_cut_where_silence_is_most_probable() -> None:
    silence = np.full(500, 0.1)
    silence[298:303] = 0.4
    assert spans_of(silence) == [Span(0, 300), Span(300, 500)]


def test_silence_has_no_segments_and_needs_no_memory() -> None:
    cutter = PauseCutter(RULES, SHIFT_SEC)
    for _ in range(100):
        assert cutter.accept(np.ones(1000)) == []
        assert len(cutter._silence) <= 400
    assert cutter.finish() == []
    assert cutter.first == 100_000


silences = st.lists(st.integers(1, 150), max_size=12).map(
    lambda lengths: posteriors(*lengths) if lengths else np.ones(0)
)
silences |= st.lists(st.floats(0.0, 1.0), max_size=900).map(np.array)


@given(silences, st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=80, deadline=None)
def test_cuts_do_not_depend_on_the_parts(silence: np.ndarray, sizes: list[int]) -> None:
    spans = spans_of(silence, sizes)
    assert spans == spans_of(silence)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges), "they are in order and do not overlap"
    assert all(0 < last - first <= 400 for first, last in spans)
    covered = np.zeros(len(silence), bool)
    for first, last in spans:
        covered[first:last] = True
    is_speech = silence <= 0.5
    clicks = np.convolve(is_speech, np.ones(5), mode="valid") == 5 if len(silence) >= 5 else np.zeros(0, bool)
    assert all(covered[at : at + 5].any() for at in np.flatnonzero(clicks)), "no speech is lost"


def ends_of(silence: np.ndarray, sizes: list[int] | None = None) -> list[tuple[int, bool]]:
    """End of each segment, and whether it has speech."""
    endpointer, ends, at = Endpointer(ENDPOINTS, SHIFT_SEC), [], 0
    for part in np.split(silence, np.cumsum(sizes)) if sizes else [silence]:
        while len(part) and (number := endpointer.accept(part)) is not None:
            at, part = at + number, part[number:]
            ends.append((at, endpointer.has_speech))
            endpointer.reset()
        at += len(part)
    return ends


def test_segments_of_a_stream_end_after_pauses() -> None:
    assert ends_of(posteriors(0, 30, 100, 70, 50, 20)) == [(160, True)], "0.3 s after words"
    assert ends_of(np.ones(130)) == [(60, False), (120, False)], "0.6 s without words"
    assert ends_of(np.zeros(450)) == [(200, True), (400, True)], "2 s at most"


def test_clicks_are_silence() -> None:
    assert ends_of(posteriors(0, 30, 2, 28)) == [(60, False)]
    assert ends_of(posteriors(50, 15, 4, 11)) == [(80, True)]


@given(silences, st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=50, deadline=None)
def test_endpoints_do_not_depend_on_the_parts(silence: np.ndarray, sizes: list[int]) -> None:
    assert ends_of(silence, sizes) == ends_of(silence)


def test_rules_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match="min_sec < max_sec"):
        CutRules(min_sec=5.0, max_sec=5.0)
    with pytest.raises(InputError, match="silence without words < max_sec"):
        EndpointRules(max_sec=2.0)


def test_posteriors_of_silence_have_the_priors_back() -> None:
    log_posteriors = np.log(np.array([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]]))
    log_priors = np.log(np.array([0.6, 0.3, 0.1]))
    scores = log_posteriors - log_priors + np.array([[7.0], [-900.0]])
    assert silence_posteriors(scores, log_priors, np.array([0, 2])) == pytest.approx([0.8, 0.2])


def test_muted_stretches_are_silence_for_certain() -> None:
    """But not the zeros within a word: those of 0.2 s are as they are."""
    levels = np.concatenate([np.full(20, -15.95), [3.0], np.full(50, -15.95), [-15.0]])
    feats = np.stack([levels, np.full(len(levels), -15.95)], axis=1).astype(np.float32)
    digital = DigitalSilence(SHIFT_SEC)
    flags = np.concatenate([digital.accept(part) for part in np.split(feats, [7, 7, 40])])
    assert np.flatnonzero(flags).tolist() == list(range(50, 71)), "from the thirtieth frame on"
    scores = np.tile(np.array([[1.0, 2.0, 3.0]], np.float32), (len(feats), 1))
    changed = sure_of_silence(scores, flags, np.array([1]))
    assert np.array_equal(changed[~flags], scores[~flags])
    assert silence_posteriors(changed, np.zeros(3), np.array([1]))[flags] == pytest.approx(np.ones(21))
    assert sure_of_silence(scores, flags & False, np.array([1])) is scores
