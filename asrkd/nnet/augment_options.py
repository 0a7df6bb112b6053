"""Options of the distortions of a training's inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from asrkd.errors import InputError
from asrkd.options import added_later

MAX_WARP_RANGE = 0.3
FRACTIONS = ("mix", "warp", "reverb", "noise", "mask", "gain")
# The options that decide how strong a distortion is, by the fraction that turns it on.
STRENGTHS = {
    "warp": ("warp_range",),
    "noise": ("noise_min_snr_db", "noise_max_snr_db"),
    "mask": ("mask_features", "mask_frames"),
    "gain": ("gain_range", "tilt_range"),
}
# Which recordings: their contents decide, not their paths.
SOURCES = {"noise": "noise_from", "reverb": "reverb_from"}


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
    reverb: float = field(default=0.0, metadata=added_later())
    """Fraction of the examples that sound in a room: that of one of the impulse responses of reverb_from."""
    reverb_from: Path | None = field(default=None, metadata=added_later())
    """Impulse responses of rooms: a folder of audio, a Lhotse manifest, or a Kaldi data directory."""
    noise: float = field(default=0.0, metadata=added_later())
    """Fraction of the examples to which noise is added: a part of one of the recordings of noise_from."""
    noise_from: Path | None = field(default=None, metadata=added_later())
    """Recordings of noise: a folder of audio, a Lhotse manifest, or a Kaldi data directory."""
    noise_min_snr_db: float = field(default=5.0, metadata=added_later())
    """Smallest ratio of the utterance's power to that of the noise, dB; the ratio is uniform from it."""
    noise_max_snr_db: float = field(default=20.0, metadata=added_later())
    """Largest ratio, dB."""
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
        for name in FRACTIONS:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"augment.{name}: expected a fraction in [0, 1], found {getattr(self, name)}")
        if not 0.0 < self.warp_range <= MAX_WARP_RANGE:
            raise InputError(
                f"augment.warp_range: expected a number above 0 and of at most {MAX_WARP_RANGE}, "
                f"found {self.warp_range}"
            )
        if not -math.inf < self.noise_min_snr_db <= self.noise_max_snr_db < math.inf:
            raise InputError(
                f"augment.noise_min_snr_db: expected a number of at most augment.noise_max_snr_db "
                f"{self.noise_max_snr_db:g}, found {self.noise_min_snr_db:g}"
            )
        for name in ("mask_features", "mask_frames", "gain_range", "tilt_range"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"augment.{name}: expected at least 0, found {getattr(self, name)}")

    @property
    def changes_inputs(self) -> bool:
        """Whether any example is distorted."""
        return any(getattr(self, name) for name in FRACTIONS)

    @property
    def reads_recordings(self) -> bool:
        """Whether it needs recordings of noise or of rooms, and statistics of the speech."""
        return bool(self.noise or self.reverb)

    @property
    def active(self) -> dict[str, float]:
        """The options that decide the inputs: those of the distortions that are on, without paths."""
        names = {one.name for one in fields(self)} - set(SOURCES.values())
        for name in FRACTIONS:
            if getattr(self, name) == 0.0:
                names -= {name, *STRENGTHS.get(name, ())}
        return {name: getattr(self, name) for name in sorted(names)}
