"""Normalisation of features: over a speaker, an utterance, or the frames so far."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.features.cmvn import MIN_DEVIATION, PRIOR_FRAMES, Moments, normalise
from asrkd.features.options import FeatureOptions

PRIOR = Moments((7.0, -2.0, 0.5), (50.0, 8.0, 1.0))


def test_normalising_each_utterance_and_none():
    utterances = [torch.randn(50, 3) + 7, torch.randn(20, 3) * 4]
    assert normalise(utterances, "none") is utterances
    for frames in normalise(utterances, "utterance"):
        assert torch.allclose(frames.mean(0), torch.zeros(3), atol=1e-5)
        assert torch.allclose(frames.std(0, unbiased=False), torch.ones(3), atol=1e-4)


def test_a_dead_band_stays_finite():
    frames = torch.randn(50, 3)
    frames[:, 1] = -15.9
    assert torch.equal(normalise([frames], "speaker")[0][:, 1], torch.zeros(50))


def test_online_by_hand() -> None:
    prior = Moments((1.0,), (5.0,))  # as of 300 frames: sums of 300 and 1500
    frames = torch.tensor([[4.0], [-2.0]])
    first, second = normalise([frames], "online", prior)[0].flatten().tolist()
    mean = 304 / 301
    assert first == pytest.approx((4 - mean) / (1516 / 301 - mean**2) ** 0.5, rel=1e-6)
    mean = 302 / 302
    assert second == pytest.approx((-2 - mean) / (1520 / 302 - mean**2) ** 0.5, rel=1e-6)


@given(st.integers(1, 60), st.integers(0, 2**31))
def test_online_a_frame_depends_on_none_that_follows(length: int, seed: int) -> None:
    frames = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed)) * 2 + 5
    whole = normalise([frames], "online", PRIOR)[0]
    assert torch.equal(normalise([frames[:length]], "online", PRIOR)[0], whole[:length])


def test_online_utterances_of_a_speaker_are_apart_and_long_ones_forget_the_prior() -> None:
    short, long = torch.randn(20, 3), torch.randn(200 * int(PRIOR_FRAMES), 3) * 4 - 1
    together = normalise([short, long], "online", PRIOR)
    assert torch.equal(together[1], normalise([long], "online", PRIOR)[0])
    alone = normalise([long], "utterance")[0]
    assert (together[1][-100:] - alone[-100:]).abs().max() < 0.1
    assert (together[1][:100] - alone[:100]).abs().max() > 0.5


def test_online_a_dead_band_stays_finite() -> None:
    frames = torch.full((5, 3), -15.9)
    found = normalise([frames], "online", Moments((-15.9,) * 3, (15.9**2,) * 3))[0]
    assert found.abs().max() <= 1e-5 / MIN_DEVIATION


def test_moments_of_frames_and_as_a_file(tmp_path) -> None:
    utterances = [torch.randn(7, 2), torch.randn(3, 2) * 9]
    moments = Moments.of(utterances)
    every = torch.cat(utterances).double()
    assert moments.mean == pytest.approx(every.mean(0).tolist(), rel=1e-6)
    assert moments.mean_square == pytest.approx(every.square().mean(0).tolist(), rel=1e-6)
    moments.write(tmp_path / "moments.json")
    assert Moments.read(tmp_path / "moments.json") == moments


def test_what_normalises_nothing_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="expected one frame at least, found none"):
        Moments.of([torch.zeros(0, 2)])
    with pytest.raises(ValueError, match="expected a prior for normalisation online, found none"):
        normalise([torch.zeros(3, 2)], "online")
    with pytest.raises(InputError, match=r"moments\.json: no such file"):
        Moments.read(tmp_path / "moments.json")
    with pytest.raises(InputError, match="expected speaker, utterance, online or none, found speakers"):
        FeatureOptions(cmvn="speakers")  # type: ignore[arg-type]
