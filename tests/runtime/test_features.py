"""The front end of exported models: equal to Lhotse's, whole and in parts."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from real_speech import Utterance

from asrkd.features.fbank import make_fbank
from asrkd.features.options import FeatureOptions
from asrkd.runtime.features import OnlineLogMel, log_mel
from asrkd.runtime.package import FrontEnd

TOLERANCE = 0.002  # nats; docs/how_to/export.md states it
FRONT_END = FrontEnd(8000, 40, 25.0, 10.0, 20.0, -400.0)


def noise(num_samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(num_samples)).astype(np.float32)


def test_equal_to_lhotse_on_speech(utterances: list[Utterance]) -> None:
    chosen = utterances[:: max(len(utterances) // 40, 1)]
    largest, total, number = 0.0, 0.0, 0
    for one in chosen:
        samples, rate = soundfile.read(one.path, dtype="float32")
        options = FeatureOptions(sampling_rate=rate)
        expected = make_fbank(options).extract(samples[None], rate)
        found = log_mel(samples, FrontEnd(rate, 40, 25.0, 10.0, 20.0, -400.0))
        assert found.shape == expected.shape, one.utt_id
        difference = np.abs(found - expected)
        largest, total, number = max(largest, difference.max()), total + difference.sum(), number + difference.size
    assert largest < TOLERANCE
    assert total / number < 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-6])
def test_equal_to_lhotse_where_nothing_is_said(value: float) -> None:
    samples = np.full(4000, value, dtype=np.float32)
    expected = make_fbank(FeatureOptions(sampling_rate=8000)).extract(samples[None], 8000)
    np.testing.assert_allclose(log_mel(samples, FRONT_END), expected, atol=TOLERANCE)


@given(sizes=st.lists(st.integers(0, 900), min_size=1, max_size=12), after=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_parts_of_any_size_give_the_same_frames(sizes: list[int], after: int) -> None:
    samples = noise(sum(sizes) + after)
    online = OnlineLogMel(FRONT_END)
    parts, begin = [], 0
    for size in [*sizes, after]:
        parts.append(online.accept(samples[begin : begin + size]))
        begin += size
    parts.append(online.finish())
    np.testing.assert_array_equal(np.concatenate(parts), log_mel(samples, FRONT_END))


@pytest.mark.parametrize(
    ("num_samples", "num_frames"), [(0, 0), (1, 0), (39, 0), (40, 1), (80, 1), (120, 2), (8000, 100)]
)
def test_number_of_frames(num_samples: int, num_frames: int) -> None:
    assert log_mel(noise(num_samples), FRONT_END).shape == (num_frames, 40)
