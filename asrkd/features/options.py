"""How audio becomes frames. No Lhotse here: networks are trained where there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from asrkd.errors import InputError

MS_PER_SEC = 1000.0
Cmvn = Literal["speaker", "utterance", "online", "none"]
SPEED_FACTORS = (0.5, 2.0)  # beyond these it is no speech
MOST = {"num_mel_bins": 256, "frame_length_ms": 200.0, "frame_shift_ms": 100.0, "sampling_rate": 192_000}


@dataclass(frozen=True)
class FeatureOptions:
    """Log-mel energies and their normalisation."""

    num_mel_bins: int = 40
    """Mel bands: features per frame."""
    frame_length_ms: float = 25.0
    """Length of a window, ms."""
    frame_shift_ms: float = 10.0
    """From one frame to the next, ms."""
    sampling_rate: int = 16000
    """Sampling rate of the features, Hz; audio of another rate is resampled."""
    low_freq_hz: float = 20.0
    """Lower edge of the lowest mel band, Hz."""
    high_freq_hz: float = -400.0
    """Upper edge of the highest mel band, Hz; not positive: counted down from half the sampling rate."""
    speed_factors: tuple[float, ...] = (1.0,)
    """Copies of each utterance, each played this many times as fast (0.9, 1.0 and 1.1 are usual)."""
    cmvn: Cmvn = "speaker"
    """Over what frames each feature gets mean 0 and variance 1; online: those of the utterance so far, for streams."""

    def __post_init__(self) -> None:
        slowest, fastest = SPEED_FACTORS
        speeds = self.speed_factors
        if not speeds or not all(slowest <= one <= fastest for one in speeds) or len(set(speeds)) < len(speeds):
            raise InputError(
                f"features.speed_factors: expected different numbers of {slowest:g} to {fastest:g}, found {speeds}"
            )
        for name, most in MOST.items():
            value = getattr(self, name)
            if not 0 < value <= most:  # also if it is NaN
                raise InputError(f"features.{name}: expected a number above 0 and of at most {most:g}, found {value}")
        half = self.sampling_rate / 2
        high = self.high_freq_hz if self.high_freq_hz > 0 else half + self.high_freq_hz
        if not 0 <= self.low_freq_hz < high <= half:
            raise InputError(
                f"features: expected 0 <= low_freq_hz < high_freq_hz <= {half:g} Hz, half the sampling rate, found "
                f"{self.low_freq_hz:g} and {high:g}"
            )
        shift = self.sampling_rate * self.frame_shift_ms / MS_PER_SEC
        if abs(shift - round(shift)) > 1e-6 or round(shift) < 1:
            raise InputError(
                f"features.sampling_rate: expected a whole number of samples in a frame shift of "
                f"{self.frame_shift_ms:g} ms, found {shift:g} at {self.sampling_rate} Hz, which would drift: "
                "give 16000 or 8000, and the audio is resampled"
            )
        if self.cmvn not in get_args(Cmvn):
            raise InputError(f"cmvn: expected speaker, utterance, online or none, found {self.cmvn}")

    @property
    def plain(self) -> FeatureOptions:
        """Those of energies that are not normalised, at the speed they were recorded."""
        return replace(self, cmvn="none", speed_factors=(1.0,))
