"""Random distortions of a training's inputs: mixtures of examples, warped frequencies, masks, gain and tilt.

Inputs are windows of frames, one row of frames × features values each. Every example is distorted separately, and anew
in every step, with numbers from the step's generator: a resumed training draws the same ones, and a step can be
recorded as a CUDA graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import fingerprint
from asrkd.nnet.inputs import Batch

# Kaldi's mel scale: mel = 1127 ln(1 + f / 700 Hz).
MEL_FACTOR, MEL_BREAK_HZ = 1127.0, 700.0
# Above this fraction of half the sampling rate the warp bends back, so that the ends stay where they are: 4800 of
# 8000 Hz (Jaitly and Hinton 2013).
WARP_BEND = 0.6
MAX_WARP_RANGE = 0.3


@dataclass(frozen=True)
class AugmentOptions:
    """Random distortions of the inputs, drawn anew for each example in each step. By default there are none."""

    mix: float = 0.0
    """Fraction of the examples that are mixed with another one of their batch: x = λ x1 + (1-λ) x2, λ uniform in
    [0, 1]. Hard labels are mixed in the same proportion; online teachers score the mixture."""
    warp: float = 0.0
    """Fraction of the examples whose frequency axis is warped (vocal tract length perturbation)."""
    warp_range: float = 0.1
    """Warping factors are uniform in [1 - warp_range, 1 + warp_range]."""
    mask: float = 0.0
    """Fraction of the examples of which a band of features and a run of frames are set to zero, the mean of normalised
    features (as SpecAugment)."""
    mask_features: int = 8
    """Largest width of the band, in features; the width is uniform from 0."""
    mask_frames: int = 5
    """Largest length of the run, in frames; the length is uniform from 0."""
    gain: float = 0.0
    """Fraction of the examples whose level and spectral tilt change: a constant and a slope over the features are
    added."""
    gain_range: float = 0.5
    """Largest constant, up or down, in the unit of the features (standard deviations where they are normalised)."""
    tilt_range: float = 0.5
    """Largest addition of the slope at the highest feature; the lowest gets its negative."""

    def __post_init__(self) -> None:
        for name in ("mix", "warp", "mask", "gain"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"augment.{name}: expected a fraction in [0, 1], found {getattr(self, name)}")
        if not 0.0 < self.warp_range <= MAX_WARP_RANGE:
            raise InputError(
                f"augment.warp_range: expected a number above 0 and of at most {MAX_WARP_RANGE}, "
                f"found {self.warp_range}"
            )
        for name in ("mask_features", "mask_frames", "gain_range", "tilt_range"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"augment.{name}: expected at least 0, found {getattr(self, name)}")

    @property
    def changes_inputs(self) -> bool:
        """Whether any example is distorted."""
        return bool(self.mix or self.warp or self.mask or self.gain)

    @property
    def active(self) -> dict[str, float]:
        """The options that decide the inputs: those of the distortions that are on."""
        names = {one.name for one in fields(self)}
        ranges = {"warp": ("warp_range",), "mask": ("mask_features", "mask_frames"), "gain": ("gain_range",)}
        ranges["gain"] += ("tilt_range",)
        for name in ("mix", "warp", "mask", "gain"):
            if getattr(self, name) == 0.0:
                names -= {name, *ranges.get(name, ())}
        return {name: getattr(self, name) for name in sorted(names)}


@dataclass(frozen=True)
class MelAxis:
    """The frequencies of log-mel features, as Kaldi and Lhotse distribute them."""

    num_features: int
    low_hz: float
    """Lower edge of the lowest band."""
    high_hz: float
    """Upper edge of the highest band; not positive: counted down from half the sampling rate."""
    sampling_rate: int

    def positions(self, factors: Tensor) -> Tensor:
        """Feature positions [B, F], in [0, F-1], whose values the warped features take, for factors α [B].

        The frequency f of a feature becomes α f up to a bend near 0.6 of half the sampling rate, and from there goes
        linearly to half the sampling rate, which stays (Jaitly and Hinton, "Vocal Tract Length Perturbation (VTLP)
        improves speech recognition", 2013).
        """
        half = self.sampling_rate / 2
        low, high = (mel(hz) for hz in (self.low_hz, self.high_hz if self.high_hz > 0 else half + self.high_hz))
        step = (high - low) / (self.num_features + 1)
        centres = low + step * torch.arange(1, self.num_features + 1, dtype=factors.dtype, device=factors.device)
        hz = MEL_BREAK_HZ * torch.expm1(centres / MEL_FACTOR)
        alpha = factors.unsqueeze(1)
        bend = WARP_BEND * half * alpha.clamp(max=1.0)
        slope = (half - bend) / (half - bend / alpha)
        warped = torch.where(hz <= bend / alpha, alpha * hz, half - slope * (half - hz))
        found = (MEL_FACTOR * torch.log1p(warped / MEL_BREAK_HZ) - low) / step - 1.0
        return found.clamp(0.0, self.num_features - 1.0)


def mel(hz: float) -> float:
    """A frequency in Hz on Kaldi's mel scale."""
    return MEL_FACTOR * math.log1p(hz / MEL_BREAK_HZ)


class Augmentation:
    """Applies `AugmentOptions` to batches. Warps come first, then gain and tilt, masks, and mixtures last.

    `num_features` is the number of values in a frame (an input is a window of frames, one after the other); `axis` has
    the frequencies of these values, which only a warp needs. InputError if a warp has no axis, or one of another size.
    """

    def __init__(self, options: AugmentOptions, num_features: int, axis: MelAxis | None = None) -> None:
        if options.warp and axis is None:
            raise InputError("augment.warp: expected features with frequencies, found none: give augment.warp 0")
        if axis is not None and axis.num_features != num_features:
            raise InputError(f"augment: expected {num_features} frequencies, found {axis.num_features}")
        self.options = options
        self.num_features = num_features
        self.axis = axis

    @property
    def fingerprint(self) -> str:
        """A hash of what is drawn; a training with another augmentation is another training."""
        return fingerprint([self.options.active, self.num_features, self.axis if self.options.warp else None])

    @property
    def mixes(self) -> bool:
        """Whether examples are mixed, so that a step's targets must be too."""
        return self.options.mix > 0.0

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch, distorted. The inputs of `batch` stay as they are. Nothing waits for a GPU."""
        options, draw = self.options, _Draw(len(batch.ids), generator, batch.inputs.device)
        num_examples, dim = batch.inputs.shape
        frames = batch.inputs.reshape(num_examples, dim // self.num_features, self.num_features)
        if options.warp and self.axis is not None:
            factors = 1.0 + draw.symmetric(options.warp_range, draw.chosen(options.warp))
            frames = interpolate(frames, self.axis.positions(factors))
        if options.gain:
            chosen = draw.chosen(options.gain)
            gains, tilts = draw.symmetric(options.gain_range, chosen), draw.symmetric(options.tilt_range, chosen)
            frames = frames + level(gains, tilts, self.num_features).to(frames.dtype).unsqueeze(1)
        if options.mask:
            chosen = draw.chosen(options.mask)
            of_features = draw.runs(self.num_features, options.mask_features, chosen)
            of_frames = draw.runs(frames.shape[1], options.mask_frames, chosen)
            frames = frames.masked_fill(of_frames.unsqueeze(2) | of_features.unsqueeze(1), 0.0)
        distorted = Batch(frames.reshape(batch.inputs.shape), batch.ids)
        return mixed(distorted, draw.weights(options.mix)) if options.mix else distorted


class _Draw:
    """Random numbers for B examples."""

    def __init__(self, size: int, generator: torch.Generator, device: torch.device) -> None:
        self.size, self.generator, self.device = size, generator, device

    def uniform(self) -> Tensor:
        """[B] in [0, 1), float32."""
        return torch.rand(self.size, generator=self.generator, device=self.device)

    def chosen(self, fraction: float) -> Tensor:
        """Whether each example [B] is distorted."""
        return self.uniform() < fraction

    def symmetric(self, largest: float, chosen: Tensor) -> Tensor:
        """[B], uniform in [-largest, largest) where chosen, else 0."""
        return (2.0 * self.uniform() - 1.0) * largest * chosen

    def weights(self, fraction: float) -> Tensor:
        """Weight λ [B] of the example itself in its mixture; 1 where it is not mixed."""
        chosen = self.chosen(fraction)
        return torch.where(chosen, self.uniform(), torch.ones_like(chosen, dtype=torch.float32))

    def runs(self, size: int, longest: int, chosen: Tensor) -> Tensor:
        """Masks [B, size], true in a run whose length is uniform in 0 ... longest, and its start among those that
        fit."""
        longest = min(longest, size)
        lengths = (self.uniform() * (longest + 1)).floor().clamp(max=longest) * chosen
        starts = torch.minimum((self.uniform() * (size - lengths + 1)).floor(), size - lengths)
        position = torch.arange(size, device=self.device)
        begins, ends = starts.unsqueeze(1), (starts + lengths).unsqueeze(1)
        return (position >= begins) & (position < ends)


def interpolate(frames: Tensor, positions: Tensor) -> Tensor:
    """Frames [B, T, F] whose feature k has the value at positions [B, F] of the given ones, linearly interpolated."""
    lower = positions.floor()
    fraction = (positions - lower).to(frames.dtype).unsqueeze(1)
    index = lower.long().unsqueeze(1).expand(-1, frames.shape[1], -1)
    below, above = frames.gather(2, index), frames.gather(2, (index + 1).clamp(max=frames.shape[2] - 1))
    return below + fraction * (above - below)


def level(gains: Tensor, tilts: Tensor, num_features: int) -> Tensor:
    """What is added to each feature [B, F]: gain + tilt · s, where s goes from -1 at the lowest feature to 1 at the
    highest."""
    slope = 2.0 * torch.arange(num_features, dtype=gains.dtype, device=gains.device) / max(1, num_features - 1) - 1.0
    return gains.unsqueeze(1) + tilts.unsqueeze(1) * slope


def mixed(batch: Batch, weights: Tensor) -> Batch:
    """Each example mixed with the one before it in the batch, by its weight λ [B]: x_i = λ_i x_i + (1-λ_i) x_{i-1}.

    The batches of a training are in random order, so the example before is one drawn at random (mixup, Zhang et al.
    2018, arXiv:1710.09412, with λ uniform).
    """
    own = weights.to(batch.inputs.dtype).unsqueeze(1)
    inputs = own * batch.inputs + (1.0 - own) * batch.inputs.roll(1, dims=0)
    return Batch(inputs, batch.ids, batch.ids.roll(1), weights)
