"""Random distortions of a training's inputs: mixtures, warped frequencies, rooms and noise, masks, gain and tilt.

Inputs are windows of frames, one row of frames × features values each. Every example is distorted separately, and anew
in every step, with numbers from the step's generator: a resumed training draws the same ones, and a step can be
recorded as a CUDA graph.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.mel import MEL_BREAK_HZ, MEL_FACTOR, mel
from asrkd.files import fingerprint
from asrkd.nnet.acoustics import Noise, Reverberation, SpeechStatistics
from asrkd.nnet.augment_options import AugmentOptions
from asrkd.nnet.draws import Draw
from asrkd.nnet.inputs import Batch
from asrkd.nnet.rooms import Rooms

# Above this fraction of half the sampling rate the warp bends back, so that the ends stay where they are: 4800 of
# 8000 Hz (Jaitly and Hinton 2013).
WARP_BEND = 0.6


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


class Augmentation:
    """Applies `AugmentOptions` to batches. Warps come first, then rooms and noise, gain and tilt, masks, mixtures last.

    `num_features` is the number of values in a frame (an input is a window of frames, one after the other); `axis` has
    the frequencies of these values, which only a warp needs. Noise needs recordings of it and statistics of the speech
    of each example, reverberation these and impulse responses; then inputs have `history` more frames in front than
    the network reads. InputError for a distortion that lacks what it needs, or has it for another number of features.
    """

    def __init__(
        self,
        options: AugmentOptions,
        num_features: int,
        axis: MelAxis | None = None,
        *,
        speech: SpeechStatistics | None = None,
        noise: Noise | None = None,
        reverberation: Reverberation | None = None,
    ) -> None:
        if options.warp and axis is None:
            raise InputError("augment.warp: expected features with frequencies, found none: give augment.warp 0")
        if axis is not None and axis.num_features != num_features:
            raise InputError(f"augment: expected {num_features} frequencies, found {axis.num_features}")
        self.options = options
        self.num_features = num_features
        self.axis = axis
        self.rooms = Rooms.create(options, num_features, speech, noise, reverberation)

    @property
    def fingerprint(self) -> str:
        """A hash of what is drawn; a training with another augmentation is another training."""
        rooms = [] if self.rooms is None else [self.rooms.fingerprint]
        return fingerprint([self.options.active, self.num_features, self.axis if self.options.warp else None, *rooms])

    @property
    def history(self) -> int:
        """Frames in front of the network's window that an input has: they sound into it."""
        return 0 if self.rooms is None else self.rooms.history

    def to(self, device: torch.device) -> Augmentation:
        """The same with what it reads on `device`."""
        return self._with(None if self.rooms is None else self.rooms.to(device))

    def subset(self, ids: Tensor) -> Augmentation:
        """That of examples ids [n] (CPU) alone, renumbered from 0."""
        return self._with(None if self.rooms is None else self.rooms.subset(ids))

    def _with(self, rooms: Rooms | None) -> Augmentation:
        other = copy.copy(self)
        other.rooms = rooms
        return other

    @property
    def mixes(self) -> bool:
        """Whether examples are mixed, so that a step's targets must be too."""
        return self.options.mix > 0.0

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch, distorted; its windows have no history. The given one stays as it is. Nothing waits for a GPU."""
        options, draw = self.options, Draw(len(batch.ids), generator, batch.inputs.device)
        num_examples, dim = batch.inputs.shape
        frames = batch.inputs.reshape(num_examples, dim // self.num_features, self.num_features)
        if options.warp and self.axis is not None:
            factors = 1.0 + draw.symmetric(options.warp_range, draw.chosen(options.warp))
            frames = interpolate(frames, self.axis.positions(factors))
        if self.rooms is not None:
            frames = self.rooms(frames, batch.ids, draw)
        if options.gain:
            chosen = draw.chosen(options.gain)
            gains, tilts = draw.symmetric(options.gain_range, chosen), draw.symmetric(options.tilt_range, chosen)
            frames = frames + level(gains, tilts, self.num_features).to(frames.dtype).unsqueeze(1)
        if options.mask:
            chosen = draw.chosen(options.mask)
            of_features = draw.runs(self.num_features, options.mask_features, chosen)
            of_frames = draw.runs(frames.shape[1], options.mask_frames, chosen)
            frames = frames.masked_fill(of_frames.unsqueeze(2) | of_features.unsqueeze(1), 0.0)
        distorted = Batch(frames.flatten(1), batch.ids)
        return mixed(distorted, draw.weights(options.mix)) if options.mix else distorted


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
