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

from asrkd.features.options import MS_PER_SEC, FeatureOptions

LONGEST_TAIL_SEC = 0.5
"""Delay from which on a response is not used: every input is read with as many more frames in front."""
INAUDIBLE = 1e-4
"""Fraction of a response's energy behind a delay from which on it is not used, -40 dB."""
# Kaldi's mel scale: mel = 1127 ln(1 + f / 700 Hz).
MEL_FACTOR, MEL_BREAK_HZ = 1127.0, 700.0
EFFECT_FRAMES = 300


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
    low, high = (MEL_FACTOR * np.log1p(hz / MEL_BREAK_HZ) for hz in (options.low_freq_hz, high_hz))
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


def measure_effect(speech: Sequence[Tensor], gains: Tensor) -> tuple[Tensor, Tensor]:
    """What gains [L, F] do to log energies of utterances [T, F] of dry speech: shift of the mean [F], and ratio of the
    standard deviation to the dry one [F], both within utterances. The first EFFECT_FRAMES frames of each are used."""
    shifts, dry_variances, wet_variances = [], [], []
    for utterance in speech:
        dry = utterance[:EFFECT_FRAMES].double()
        wet = reverberate(dry, gains.double())
        shifts.append(wet.mean(0) - dry.mean(0))
        dry_variances.append(dry.var(0, unbiased=False))
        wet_variances.append(wet.var(0, unbiased=False))
    tiny = torch.finfo(torch.float32).tiny
    dry_variance = torch.stack(dry_variances).mean(0).clamp_min(tiny)
    ratio = (torch.stack(wet_variances).mean(0).clamp_min(tiny) / dry_variance).sqrt()
    return torch.stack(shifts).mean(0).float(), ratio.float()


def reverberate(energies: Tensor, gains: Tensor) -> Tensor:
    """Log energies [T, F] of an utterance in a room of gains [L, F]. Its first frame is also that before it."""
    num_lags = len(gains)
    padded = torch.cat([energies[:1].expand(num_lags - 1, -1), energies]).exp()
    delayed = padded.unfold(0, num_lags, 1).flip(2)  # [T, F, L]: delays 0 ... L-1
    return torch.einsum("tfl,lf->tf", delayed, gains).log()
