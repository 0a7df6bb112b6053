"""Noise and rooms in windows of normalised log-mel energies: what recordings of both add to speech.

Energies of sounds that are independent add up, so that log-mel frames of speech and of noise are added as

    x = log(exp(speech) + exp(noise - d)),    d = (SNR - SNR at which the two were recorded) in nats

and a room spreads each frame's energy over the frames behind it, x_t = log Σ_k g_k exp(speech_{t-k}), where g_k is the
energy of the room's impulse response k frames behind its direct sound. Both need the energies themselves: the
normalisation is undone before and done again behind, with the statistics that the distorted speech would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.errors import InputError
from asrkd.features.cmvn import ROW_FRAMES
from asrkd.features.joined import JoinedFrames
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint, tensor_digest
from asrkd.workflow.memory import SHARD_FRAMES

NATS_PER_DB = math.log(10.0) / 10.0  # of power
# Points and weights of Gauss-Hermite quadrature for a standard normal variable: E f(z) = Σ w f(z). With nine points the
# error is at most 0.02 nats where speech and noise both deviate by 3.
QUADRATURE = (
    (-4.5127458634, 2.2345844008e-05),
    (-3.2054290029, 2.7891413212e-03),
    (-2.0768479787, 4.9916406765e-02),
    (-1.0232556638, 2.4409750289e-01),
    (0.0, 4.0634920635e-01),
    (1.0232556638, 2.4409750289e-01),
    (2.0768479787, 4.9916406765e-02),
    (3.2054290029, 2.7891413212e-03),
    (4.5127458634, 2.2345844008e-05),
)


@dataclass(frozen=True)
class Gaussian:
    """Mean and standard deviation [B, F] of log-mel energies, of each example's speaker or of its noise."""

    mean: Tensor
    deviation: Tensor

    def rows(self, which: Tensor) -> Gaussian:
        """Those of examples or recordings [B]."""
        return Gaussian(self.mean.index_select(0, which), self.deviation.index_select(0, which))

    def to(self, device: torch.device) -> Gaussian:
        return Gaussian(self.mean.to(device), self.deviation.to(device))


@dataclass(frozen=True)
class SpeechStatistics:
    """How the features of each example were normalised, and how loud its speech is.

    One row is for one utterance, or for a part of one. Without `rows`, row r is for the examples begins[r] to
    begins[r+1] - 1; with it, for those that it lists.
    """

    of: Gaussian
    """What was subtracted, and what was divided by after that [R, F], nats."""
    log_power: Tensor
    """Log of the mean square of the utterance's samples [R]."""
    begins: Tensor
    """First example of each row [R], int64, ascending."""
    is_normalised: bool = True
    """False: features are energies as they are (`cmvn` none), and stay so."""
    rows: Tensor | None = None
    """Row of each example [N], int32."""

    def __post_init__(self) -> None:
        parts = (self.of.mean, self.of.deviation, self.log_power, self.begins)
        shapes = [list(part.shape) for part in parts]
        if len(shapes[0]) != 2 or shapes[1:] != [shapes[0], shapes[0][:1], shapes[0][:1]]:
            raise InputError(
                f"statistics of speech: expected means and deviations [R, F], levels and beginnings [R], found {shapes}"
            )

    @classmethod
    def of_stores(
        cls, frames: FrameStore | JoinedFrames, statistics: Sequence[FrameStore], is_normalised: bool
    ) -> SpeechStatistics:
        """Those of the frames of a store, from what stage 2 measured of it: a store of rows for each store of frames.

        InputError for an utterance without statistics.
        """
        stores = frames.stores if isinstance(frames, JoinedFrames) else (frames,)
        values, begins, offset = [], [], 0
        for store, measured in zip(stores, statistics, strict=True):
            spans = [measured.span(utt_id) for utt_id in store.utt_ids]
            counts = torch.tensor([after - first for first, after in spans])
            values.append(measured.feats[torch.cat([torch.arange(*span) for span in spans])])
            within = torch.cat([torch.arange(count) for count in counts.tolist()])
            begins.append(offset + store.offsets[:-1].repeat_interleave(counts) + ROW_FRAMES * within)
            offset += len(store)
        rows = torch.cat(values)
        size = (rows.shape[1] - 1) // 2
        of = Gaussian(rows[:, :size].contiguous(), rows[:, size : 2 * size].contiguous())
        return cls(of, rows[:, 2 * size].contiguous(), torch.cat(begins), is_normalised)

    @cached_property
    def fingerprint(self) -> str:
        parts = (self.of.mean, self.of.deviation, self.log_power, self.begins)
        return fingerprint([self.is_normalised, *map(tensor_digest, parts)])

    def rows_of(self, ids: Tensor) -> Tensor:
        """The row [B] of each example."""
        if self.rows is not None:
            return self.rows.index_select(0, ids)
        return torch.searchsorted(self.begins, ids, right=True) - 1

    def to(self, device: torch.device) -> SpeechStatistics:
        """The same on `device`."""
        rows = None if self.rows is None else self.rows.to(device)
        log_power, begins = self.log_power.to(device), self.begins.to(device)
        return SpeechStatistics(self.of.to(device), log_power, begins, self.is_normalised, rows)

    def subset(self, ids: Tensor) -> SpeechStatistics:
        """Those of examples ids [n] (CPU) alone, renumbered from 0."""
        device = self.begins.device
        rows = torch.cat([self.rows_of(part.to(device)).int() for part in ids.split(SHARD_FRAMES)])
        return replace(self, rows=rows)


@dataclass(frozen=True)
class Noise:
    """Log-mel energies of recordings of noise, end to end, each as if the mean square of its samples were 1."""

    frames: Tensor
    """[T, F], nats."""
    lengths: Tensor
    """Frames of each recording [n], int64."""
    begins: Tensor
    """First frame of each [n]."""
    of_recording: Gaussian
    """Over the frames of each [n, F]."""

    @classmethod
    def of(cls, recordings: Sequence[Tensor]) -> Noise:
        """Recordings [T, F]. InputError for none, and for one without frames."""
        if not recordings or not all(one.dim() == 2 and len(one) for one in recordings):
            raise InputError(f"noise: expected recordings [T > 0, F], found {[list(one.shape) for one in recordings]}")
        lengths = torch.tensor([len(one) for one in recordings])
        return cls._of(torch.cat(list(recordings)), lengths)

    @classmethod
    def of_store(cls, store: FrameStore) -> Noise:
        """The recordings that stage 2 wrote."""
        return cls._of(store.read(), store.offsets.diff())

    @classmethod
    def _of(cls, frames: Tensor, lengths: Tensor) -> Noise:
        parts = frames.split(lengths.tolist())
        mean = torch.stack([part.mean(0) for part in parts])
        deviation = torch.stack([part.std(0, unbiased=False) for part in parts])
        return cls(frames, lengths, lengths.cumsum(0) - lengths, Gaussian(mean, deviation))

    @cached_property
    def fingerprint(self) -> str:
        return tensor_digest(self.frames, tensor_digest(self.lengths))

    @cached_property
    def shortest(self) -> int:
        """Frames of the shortest recording."""
        return int(self.lengths.min())

    def to(self, device: torch.device) -> Noise:
        """The same on `device`."""
        frames, lengths, begins = (part.to(device) for part in (self.frames, self.lengths, self.begins))
        return Noise(frames, lengths, begins, self.of_recording.to(device))

    def runs(self, size: int, which: Tensor, where: Tensor) -> tuple[Tensor, Gaussian]:
        """Runs [B, size, F] of the recordings' frames, and the statistics of these recordings.

        which and where [B], in [0, 1): the recording, and the beginning among those that fit.
        """
        chosen = _number(which, len(self.lengths))
        room = self.lengths.index_select(0, chosen) - (size - 1)
        first = torch.minimum((where * room).floor().long(), room - 1)
        dim = self.frames.shape[1]
        # An overlapping view, as of spliced frames: a run is one row of it.
        runs = self.frames.as_strided((len(self.frames) - size + 1, size * dim), (dim, 1))
        rows = runs.index_select(0, self.begins.index_select(0, chosen) + first).reshape(-1, size, dim)
        return rows, self.of_recording.rows(chosen)


class Reverberation:
    """Impulse responses of rooms as gains of energy: gains [n, L, F] by frames behind the direct sound and mel band.

    `shift` and `ratio` [n, F] are what each does to the mean (nats, added) and to the standard deviation (factor) of
    the log energies of speech.
    """

    def __init__(self, gains: Tensor, shift: Tensor, ratio: Tensor) -> None:
        sizes = [list(part.shape) for part in (gains, shift, ratio)]
        if gains.dim() != 3 or sizes[1:] != [[gains.shape[0], gains.shape[2]]] * 2 or gains.shape[0] < 1:
            raise InputError(f"reverberation: expected gains [n, L, F], shifts and ratios [n, F], found {sizes}")
        if not bool((gains[:, 0] > 0).all()) or not bool((gains >= 0).all()):
            raise InputError("reverberation: expected gains of at least 0, and above 0 of the direct sound")
        self.gains, self.shift, self.ratio = gains, shift, ratio

    @classmethod
    def of_store(cls, store: FrameStore) -> Reverberation:
        """The responses that stage 2 wrote."""
        values = torch.stack([store.frames(position) for position in range(len(store.utt_ids))])
        return cls(values[:, 2:], values[:, 0], values[:, 1])

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint([tensor_digest(part) for part in (self.gains, self.shift, self.ratio)])

    @property
    def history(self) -> int:
        """Frames in front of a window that sound into it."""
        return self.gains.shape[1] - 1

    def to(self, device: torch.device) -> Reverberation:
        """The same on `device`."""
        return Reverberation(*(part.to(device) for part in (self.gains, self.shift, self.ratio)))

    def __call__(self, energies: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log energies [B, T, F] in the rooms `which` [B], in [0, 1), of frames [B, history + T, F]; their shift and
        ratio [B, F]."""
        chosen = _number(which, len(self.gains))
        gains = self.gains.index_select(0, chosen).to(energies.dtype)
        power, history = energies.exp(), self.history
        size = energies.shape[1] - history
        heard = gains[:, :1] * power[:, history:]
        for lag in range(1, history + 1):
            begin = history - lag
            heard.addcmul_(gains[:, lag : lag + 1], power[:, begin : begin + size])
        return heard.log(), self.shift.index_select(0, chosen), self.ratio.index_select(0, chosen)


def noisy(speech: Gaussian, noise: Gaussian) -> Gaussian:
    """Mean and deviation of log(exp(x) + exp(n)) for independent Gaussian x and n.

    With d = x - n and a = var x / var d, it is n + softplus(d) = E x + a (d - E d) + softplus(-d) + r, where the rest r
    depends on neither: it has the variance var x var n / var d. What remains is a mean over d alone, by quadrature.
    """
    of_speech, of_noise = speech.deviation.square(), noise.deviation.square()
    variance = (of_speech + of_noise).clamp_min(torch.finfo(of_speech.dtype).tiny)
    mean, weighted_square = torch.zeros_like(variance), torch.zeros_like(variance)
    difference, deviation, share = speech.mean - noise.mean, variance.sqrt(), of_speech / variance
    for point, weight in QUADRATURE:
        off = point * deviation
        value = share * off + F.softplus(-(difference + off))
        mean = mean + weight * value
        weighted_square = weighted_square + weight * value.square()
    spread = (weighted_square - mean.square()).clamp_min(0.0) + share * of_noise
    return Gaussian(speech.mean + mean, spread.sqrt())


def _number(uniform: Tensor, size: int) -> Tensor:
    """0 ... size - 1 for numbers in [0, 1)."""
    return (uniform * size).long().clamp(max=size - 1)
