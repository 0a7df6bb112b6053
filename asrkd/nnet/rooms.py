"""Reverberation and noise in batches of windows: which examples, and how they are normalised again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.cmvn import MIN_DEVIATION
from asrkd.files import fingerprint
from asrkd.nnet.acoustics import (
    NATS_PER_DB,
    Gaussian,
    Noise,
    Reverberation,
    SpeechStatistics,
    noisy,
)
from asrkd.nnet.augment_options import AugmentOptions
from asrkd.nnet.draws import Draw


@dataclass(frozen=True)
class Rooms:
    """Reverberation first, then noise, of the fractions of the examples that the options have."""

    options: AugmentOptions
    speech: SpeechStatistics
    noise: Noise | None
    """None: no example gets noise."""
    reverberation: Reverberation | None
    """None: no example gets any."""

    @classmethod
    def create(
        cls,
        options: AugmentOptions,
        num_features: int,
        speech: SpeechStatistics | None,
        noise: Noise | None,
        reverberation: Reverberation | None,
    ) -> Rooms | None:
        """None where the options have neither. InputError where they need what is not given."""
        for name, part in (("noise", noise), ("reverb", reverberation)):
            if getattr(options, name) and (part is None or speech is None):
                raise InputError(f"augment.{name}: expected recordings and statistics of the speech, found none")
        if speech is None or not options.reads_recordings:
            return None
        rooms = cls(options, speech, noise if options.noise else None, reverberation if options.reverb else None)
        for part_of, size in rooms._sizes.items():
            if size != num_features:
                raise InputError(f"augment: expected {part_of} of {num_features} features, found {size}")
        return rooms

    @property
    def _sizes(self) -> dict[str, int]:
        sizes = {"statistics of speech": self.speech.of.mean.shape[1]}
        if self.noise is not None:
            sizes["noise"] = self.noise.frames.shape[1]
        if self.reverberation is not None:
            sizes["reverberation"] = self.reverberation.gains.shape[2]
        return sizes

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what is added to which speech."""
        parts = (self.speech, self.noise, self.reverberation)
        return fingerprint([None if part is None else part.fingerprint for part in parts])

    @property
    def history(self) -> int:
        """Frames in front of a window that sound into it."""
        return 0 if self.reverberation is None else self.reverberation.history

    def require_fit(self, num_frames: int) -> None:
        """InputError for noise too short for windows of so many frames, history included."""
        size = num_frames - self.history
        if self.noise is not None and self.noise.shortest < size:
            raise InputError(
                f"augment.noise: expected recordings of at least {size} frames, found {self.noise.shortest}"
            )

    def to(self, device: torch.device) -> Rooms:
        """The same on `device`."""
        return replace(
            self,
            speech=self.speech.to(device),
            noise=None if self.noise is None else self.noise.to(device),
            reverberation=None if self.reverberation is None else self.reverberation.to(device),
        )

    def subset(self, ids: Tensor) -> Rooms:
        """That of examples ids [n] (CPU) alone, renumbered from 0."""
        return replace(self, speech=self.speech.subset(ids))

    def __call__(self, frames: Tensor, ids: Tensor, draw: Draw) -> Tensor:
        """Frames [B, T, F] of examples ids [B], from frames [B, history + T, F]."""
        rows = self.speech.rows_of(ids)
        dtype = torch.float64 if frames.dtype == torch.float64 else torch.float32
        speech = self.speech.of.rows(rows)
        dry = frames.to(dtype) * speech.deviation.unsqueeze(1) + speech.mean.unsqueeze(1)
        energies, plain = dry[:, self.history :], frames[:, self.history :]
        changed = torch.zeros(len(ids), dtype=torch.bool, device=frames.device)
        if self.reverberation is not None:
            chosen = draw.chosen(self.options.reverb)
            heard, shift, ratio = self.reverberation(dry, draw.uniform())
            wet = Gaussian(speech.mean + shift, speech.deviation * ratio)
            energies, speech, changed = _either(chosen, heard, energies), _which(chosen, wet, speech), chosen
        if self.noise is not None:
            chosen = draw.chosen(self.options.noise)
            added, of_noise = self.noise.runs(energies.shape[1], draw.uniform(), draw.uniform())
            low, high = self.options.noise_min_snr_db, self.options.noise_max_snr_db
            level = self.speech.log_power.index_select(0, rows) - NATS_PER_DB * (low + (high - low) * draw.uniform())
            heard = torch.logaddexp(energies, (added + level.view(-1, 1, 1)).to(dtype))
            loud = noisy(speech, Gaussian(of_noise.mean + level.unsqueeze(1), of_noise.deviation))
            energies, speech = _either(chosen, heard, energies), _which(chosen, loud, speech)
            changed = changed | chosen
        if self.speech.is_normalised:
            deviation = speech.deviation.clamp_min(MIN_DEVIATION)
            energies = (energies - speech.mean.unsqueeze(1)) / deviation.unsqueeze(1)
        return _either(changed, energies.to(frames.dtype), plain)


def _either(chosen: Tensor, distorted: Tensor, plain: Tensor) -> Tensor:
    """Distorted values [B, ...] where chosen [B], else plain ones."""
    return torch.where(chosen.view(-1, *[1] * (plain.dim() - 1)), distorted, plain)


def _which(chosen: Tensor, distorted: Gaussian, plain: Gaussian) -> Gaussian:
    return Gaussian(_either(chosen, distorted.mean, plain.mean), _either(chosen, distorted.deviation, plain.deviation))
