"""Resampled tones are the tones of the new rate, nothing above half of it comes back, and times do not move."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asrkd.data.resample import can_resample, resample

PAIRS = [(22050, 16000), (11025, 16000), (44100, 16000), (48000, 16000), (8000, 16000), (44100, 8000), (16000, 11025)]


def tone(frequency: float, rate: int, num_samples: int) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(num_samples) / rate)


@pytest.mark.parametrize(("rate", "new_rate"), PAIRS)
def test_a_tone_stays_in_step_for_a_minute(rate: int, new_rate: int):
    num_samples = 60 * rate + 7
    resampled = resample(tone(1000, rate, num_samples).astype(np.float32)[None], rate, new_rate)
    assert resampled.dtype == np.float32
    assert resampled.shape == (1, math.ceil(num_samples * new_rate / rate))
    error = resampled[0] - tone(1000, new_rate, resampled.shape[1])
    assert np.abs(error[1000:-1000]).max() < 1e-4


@pytest.mark.parametrize(("rate", "new_rate"), [pair for pair in PAIRS if pair[0] > 1.1 * pair[1]])
def test_what_the_new_rate_cannot_have_is_gone(rate: int, new_rate: int):
    resampled = resample(tone(1.05 * new_rate / 2, rate, rate).astype(np.float32)[None], rate, new_rate)
    assert np.abs(resampled[0, 1000:-1000]).max() < 1e-4


def test_each_channel_and_the_same_rate():
    samples = np.random.default_rng(0).normal(size=(2, 4410)).astype(np.float32)
    assert resample(samples, 16000, 16000) is samples
    both = resample(samples, 44100, 16000)
    assert np.allclose(both[1:], resample(samples[1:], 44100, 16000), atol=1e-6)


def test_usual_rates_can_be_resampled_and_odd_ones_take_too_much_memory():
    usual = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000)
    assert all(can_resample(rate, new_rate) for rate in usual for new_rate in (8000, 16000))
    assert not can_resample(22049, 16000)
