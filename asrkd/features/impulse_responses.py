"""Impulse responses of rooms as gains of log-mel frames' energy.

The energy of reverberant speech in a frame and a band is about the sum of that of the frames before it, each times the
response's own energy in that band at that delay: what is left out are the products of different delays, whose mean is
zero (Lebart, Boucher and Denbigh 2001; Sehr, Maas and Kellermann 2010 for mel energies).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asrkd.features.mel import MEL_BREAK_HZ, MEL_FACTOR, mel
from asrkd.features.options import MS_PER_SEC, FeatureOptions

LONGEST_TAIL_SEC = 0.5
"""Delay from which on a response is not used: every input is read with as many more frames in front."""
INAUDIBLE = 1e-4
"""Fraction of a response's energy behind a delay from which on it is not used, -40 dB."""
EFFECT_FRAMES = 300
EFFECT_BLOCK = 64  # responses at a time, of which there may be tens of thousands


def energy_gains(response: np.ndarray, options: FeatureOptions) -> Tensor:
    """Gains [L, F] of energy by whole frames behind the peak of a response [num_samples], at the features' rate.

    Between two whole frames, energy is shared in proportion to its distance from both. The mean over the bands of all
    energy is 1, so that a room does not change how loud speech is. An impulse has 1 at no delay.
    """
    shift = round(options.sampling_rate * options.frame_shift_ms / MS_PER_SEC)
    num_lags = round(LONGEST_TAIL_SEC * MS_PER_SEC / options.frame_shift_ms) + 1
    peak = int(np.abs(response).argmax())
    # What comes before the peak counts as no delay.
    padded = np.zeros((num_lags + 1) * shift, np.float64)
    before = min(peak, shift)
    kept = response[peak - before : peak + num_lags * shift].astype(np.float64)
    padded[shift - before : shift - before + len(kept)] = kept
    # The square of a root is the share: the two windows over a sample add up to 1.
    window = np.sqrt(1.0 - np.abs(np.arange(-shift, shift)) / shift)
    size = 1 << (2 * shift - 1).bit_length()
    frames = np.stack([padded[lag * shift : (lag + 2) * shift] * window for lag in range(num_lags)])
    spectra = np.square(np.abs(np.fft.rfft(frames, size)))
    weights = mel_weights(options, size)
    gains = spectra @ weights.T
    return torch.from_numpy((gains / gains.sum(0).mean()).astype(np.float32))


def mel_weights(options: FeatureOptions, size: int) -> np.ndarray:
    """Triangular weights [F, size/2 + 1] of the bins of a Fourier transform of `size` samples; a band's sum to 1.

    A band narrower than a bin has the nearest one.
    """
    half = options.sampling_rate / 2
    high_hz = options.high_freq_hz if options.high_freq_hz > 0 else half + options.high_freq_hz
    low, high = (mel(hz) for hz in (options.low_freq_hz, high_hz))
    edges = np.linspace(low, high, options.num_mel_bins + 2)
    bins = MEL_FACTOR * np.log1p(np.arange(size // 2 + 1) * options.sampling_rate / size / MEL_BREAK_HZ)
    step = edges[1] - edges[0]
    weights: np.ndarray = np.maximum(0.0, 1.0 - np.abs(bins - edges[1:-1, None]) / step)
    empty = weights.sum(1) == 0
    weights[empty, np.abs(bins - edges[1:-1, None]).argmin(1)[empty]] = 1.0
    return weights / weights.sum(1, keepdims=True)


def trimmed(gains: Sequence[Tensor]) -> list[Tensor]:
    """The gains [L, F] of all responses without the delays behind which no response has audible energy."""
    if not gains:
        return []
    behind = torch.stack([one.mean(1) for one in gains]).flip(1).cumsum(1).flip(1)
    num_lags = max(1, int((behind > INAUDIBLE).any(0).sum()))
    return [one[:num_lags].contiguous() for one in gains]


def measure_effects(speech: Sequence[Tensor], gains: Tensor) -> tuple[Tensor, Tensor]:
    """What gains [n, L, F] do to log energies of utterances [T, F] of dry speech: shift of the mean [n, F],
    and ratio of the standard deviation to the dry one [n, F], both within utterances.

    The first EFFECT_FRAMES frames of each utterance are used.
    """
    excerpts = [utterance[:EFFECT_FRAMES].float() for utterance in speech]
    delayed = [_delayed(one.exp(), gains.shape[1]).permute(1, 0, 2).contiguous() for one in excerpts]  # [F, T, L]
    dry_mean, dry_variance = (torch.stack(part).mean(0) for part in zip(*map(_moments, excerpts), strict=True))
    shifts, ratios = [], []
    for block in gains.float().split(EFFECT_BLOCK):
        by_band = block.permute(2, 1, 0)  # [F, L, n]
        wet = [_moments((energies @ by_band).log().permute(1, 2, 0)) for energies in delayed]
        mean, variance = (torch.stack(part).mean(0) for part in zip(*wet, strict=True))
        shifts.append(mean - dry_mean)
        ratios.append((variance / dry_variance).sqrt())
    return torch.cat(shifts), torch.cat(ratios)


def _moments(energies: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the frames [T, ...]; the variance is above 0."""
    return energies.mean(0), energies.var(0, unbiased=False).clamp_min(torch.finfo(torch.float32).tiny)


def reverberate(energies: Tensor, gains: Tensor) -> Tensor:
    """Log energies [T, F] of an utterance in a room of gains [L, F]. Its first frame is also that before it."""
    return torch.einsum("tfl,lf->tf", _delayed(energies.exp(), len(gains)), gains).log()


def _delayed(power: Tensor, num_lags: int) -> Tensor:
    """Energies [T, F, L] of the frames at delays 0 ... L-1 before each of [T, F]."""
    padded = torch.cat([power[:1].expand(num_lags - 1, -1), power])
    return padded.unfold(0, num_lags, 1).flip(2)
